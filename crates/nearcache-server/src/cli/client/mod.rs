//! `nearcache get | put | del | info | members | audit | inspect`: a small client of the HTTP interface.
//!
//! ```text
//! entries    get, put, del: one entry
//! overview   info, members: what a node tells about itself, as text
//! audit      audit: how surely and how soon writes reach the other nodes
//! inspect    inspect: how one key stands on every node
//! ```

mod audit;
mod entries;
mod inspect;
mod overview;

use std::path::PathBuf;

use clap::Args;

pub(super) use audit::{AuditArgs, audit};
pub(super) use entries::{DelArgs, GetArgs, PutArgs, del, get, put};
pub(super) use inspect::{InspectArgs, inspect};
pub(super) use overview::{InfoArgs, MembersArgs, info, members};

use super::runtime;
use crate::client::{Client, Request, Response};
use crate::failure::Failure;
use crate::http::path::encode;

/// Which node to ask.
#[derive(Debug, Clone, Args)]
pub(super) struct NodeArgs {
    /// Address of a node's HTTP listener
    #[arg(
        long,
        value_name = "URL",
        default_value = "http://127.0.0.1:8001",
        env = "NEARCACHE_URL"
    )]
    url: String,
    /// File with the token, where the node demands one
    #[arg(long, value_name = "FILE", env = "NEARCACHE_TOKEN_FILE")]
    token_file: Option<PathBuf>,
}

/// Which entry.
#[derive(Debug, Args)]
struct EntryArgs {
    /// The key
    key: String,
    /// The cache
    #[arg(
        long,
        value_name = "NAME",
        default_value = "default",
        env = "NEARCACHE_CACHE"
    )]
    cache: String,
    #[command(flatten)]
    node: NodeArgs,
}

impl EntryArgs {
    /// What the HTTP interface has under `of` the entry.
    fn path(&self, of: &str) -> String {
        format!(
            "/v1/caches/{}/{of}/{}",
            encode(self.cache.as_bytes()),
            encode(self.key.as_bytes())
        )
    }
}

fn send(node: &NodeArgs, request: Request) -> Result<Response, Failure> {
    let client = Client::new(&node.url, node.token_file.as_deref())?;
    runtime()?.block_on(client.send(request))
}
