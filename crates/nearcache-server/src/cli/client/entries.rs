//! `nearcache get | put | del`: one entry.

use std::io::{IsTerminal, Read, Write};

use clap::Args;
use http::{Method, StatusCode};

use super::{EntryArgs, send};
use crate::client::Request;
use crate::config::units;
use crate::failure::Failure;
use crate::http::path::encode;

#[derive(Debug, Args)]
pub(in crate::cli) struct GetArgs {
    #[command(flatten)]
    entry: EntryArgs,
    /// Leave out the line about version and time to live
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PutArgs {
    #[command(flatten)]
    entry: EntryArgs,
    /// The value; `-` or nothing reads it from standard input
    value: Option<String>,
    /// Time to live, for example 500ms, 30s, 1h; the cache's own if absent
    #[arg(long, value_name = "DURATION")]
    ttl: Option<String>,
    /// A tag for group invalidation; repeatable
    #[arg(long, value_name = "TAG")]
    tag: Vec<String>,
    /// When to call it written: local, all, or a number of peers that have applied it
    #[arg(long, value_name = "WHO")]
    ack: Option<String>,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct DelArgs {
    #[command(flatten)]
    entry: EntryArgs,
}

pub(in crate::cli) fn get(args: &GetArgs) -> Result<(), Failure> {
    let response = send(
        &args.entry.node,
        Request::new(Method::GET, args.entry.path("entries")),
    )?;
    match response.status {
        StatusCode::OK => {}
        StatusCode::NOT_FOUND if response.is("NoEntry") => {
            return Err(Failure::failed(format!(
                "no entry with the key {:?}",
                args.entry.key
            )));
        }
        _ => return Err(response.failure()),
    }
    let mut out = std::io::stdout().lock();
    let mut written = out.write_all(&response.body);
    if out.is_terminal() {
        written = written.and_then(|()| out.write_all(b"\n"));
    }
    written
        .and_then(|()| out.flush())
        .map_err(Failure::failed)?;
    if !args.quiet {
        let remaining = response
            .header("nearcache-ttl-ms")
            .and_then(|text| text.parse::<f64>().ok());
        let expires = match remaining {
            Some(millis) => format!("expires in {:.1} s", millis / 1_000.0),
            None => "does not expire".to_owned(),
        };
        let version = response.header("etag").unwrap_or("?").trim_matches('"');
        eprintln!(
            "{expires}, {} bytes, version {version}",
            response.body.len()
        );
    }
    Ok(())
}

pub(in crate::cli) fn put(args: &PutArgs) -> Result<(), Failure> {
    let value = match args.value.as_deref() {
        None | Some("-") => {
            let mut value = Vec::new();
            std::io::stdin()
                .read_to_end(&mut value)
                .map_err(Failure::failed)?;
            value
        }
        Some(value) => value.as_bytes().to_vec(),
    };
    let mut query = Vec::new();
    if let Some(ttl) = &args.ttl {
        units::parse_duration(ttl).map_err(|error| {
            Failure::misuse(format!("--ttl {ttl}: {error}; write for example 30s"))
        })?;
        query.push(format!("ttl={}", encode(ttl.as_bytes())));
    }
    query.extend(
        args.ack
            .iter()
            .map(|ack| format!("ack={}", encode(ack.as_bytes()))),
    );
    query.extend(
        args.tag
            .iter()
            .map(|tag| format!("tag={}", encode(tag.as_bytes()))),
    );
    let mut path = args.entry.path("entries");
    if !query.is_empty() {
        path = format!("{path}?{}", query.join("&"));
    }
    let response = send(
        &args.entry.node,
        Request {
            body: value,
            ..Request::new(Method::PUT, path)
        },
    )?;
    if response.status.is_success() {
        Ok(())
    } else {
        Err(response.failure())
    }
}

pub(in crate::cli) fn del(args: &DelArgs) -> Result<(), Failure> {
    let response = send(
        &args.entry.node,
        Request::new(Method::DELETE, args.entry.path("entries")),
    )?;
    if response.status.is_success() {
        return Ok(());
    }
    if response.is("NoEntry") {
        return Err(Failure::failed(format!(
            "no entry with the key {:?}",
            args.entry.key
        )));
    }
    Err(response.failure())
}
