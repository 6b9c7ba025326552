//! `nearcache get | put | del | info | members`: a small client of the HTTP interface.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;

use clap::Args;
use http::{Method, StatusCode};

use super::runtime;
use crate::client::{Client, Request, Response};
use crate::config::units;
use crate::failure::Failure;
use crate::http::path::encode;

/// Which node to ask.
#[derive(Debug, Args)]
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
pub(super) struct EntryArgs {
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
    fn path(&self) -> String {
        format!(
            "/v1/caches/{}/entries/{}",
            encode(self.cache.as_bytes()),
            encode(self.key.as_bytes())
        )
    }
}

#[derive(Debug, Args)]
pub(super) struct GetArgs {
    #[command(flatten)]
    entry: EntryArgs,
    /// Leave out the line about version and time to live
    #[arg(long, short)]
    quiet: bool,
}

#[derive(Debug, Args)]
pub(super) struct PutArgs {
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
pub(super) struct DelArgs {
    #[command(flatten)]
    entry: EntryArgs,
}

#[derive(Debug, Args)]
pub(super) struct InfoArgs {
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, Args)]
pub(super) struct MembersArgs {
    #[command(flatten)]
    node: NodeArgs,
}

pub(super) fn get(args: &GetArgs) -> Result<(), Failure> {
    let response = send(
        &args.entry.node,
        Request::new(Method::GET, args.entry.path()),
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

pub(super) fn put(args: &PutArgs) -> Result<(), Failure> {
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
    let mut path = args.entry.path();
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

pub(super) fn del(args: &DelArgs) -> Result<(), Failure> {
    let response = send(
        &args.entry.node,
        Request::new(Method::DELETE, args.entry.path()),
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

pub(super) fn info(args: &InfoArgs) -> Result<(), Failure> {
    let node = document(&args.node, "/v1/node")?;
    let caches = document(&args.node, "/v1/caches")?;
    let mut text = String::new();
    for key in [
        "name",
        "id",
        "cluster",
        "version",
        "ready",
        "uptime_seconds",
        "client_connections",
    ] {
        text += &format!("{key:<20}{}\n", plain(&node[key]));
    }
    for listener in ["resp", "http", "peers"] {
        if let Some(address) = node["addresses"][listener].as_str() {
            text += &format!("{listener:<20}{address}\n");
        }
    }
    let columns = [
        "name",
        "mode",
        "entries",
        "bytes",
        "max_bytes",
        "hits",
        "misses",
        "evictions",
        "freshness_ms",
    ];
    text.push('\n');
    text += &table(&columns, &caches);
    print(&text)
}

pub(super) fn members(args: &MembersArgs) -> Result<(), Failure> {
    let members = document(&args.node, "/v1/members")?;
    print(&table(&["name", "id", "address", "state"], &members))
}

fn document(node: &NodeArgs, path: &str) -> Result<serde_json::Value, Failure> {
    let response = send(node, Request::new(Method::GET, path.to_owned()))?;
    if !response.status.is_success() {
        return Err(response.failure());
    }
    serde_json::from_slice(&response.body)
        .map_err(|_| Failure::failed(format!("{} does not answer as a Nearcache node", node.url)))
}

fn send(node: &NodeArgs, request: Request) -> Result<Response, Failure> {
    let client = Client::new(&node.url, node.token_file.as_deref())?;
    runtime()?.block_on(client.send(request))
}

/// A list of objects as columns of text.
fn table(columns: &[&str], rows: &serde_json::Value) -> String {
    let mut cells: Vec<Vec<String>> = vec![columns.iter().map(|name| (*name).to_owned()).collect()];
    for row in rows.as_array().into_iter().flatten() {
        cells.push(columns.iter().map(|name| plain(&row[*name])).collect());
    }
    let width = |column: usize| {
        cells
            .iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<usize> = (0..columns.len())
        .map(|column| width(column).unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in &cells {
        let line: Vec<String> = row
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell:<width$}"))
            .collect();
        text += line.join("  ").trim_end();
        text.push('\n');
    }
    text
}

fn plain(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => "-".to_owned(),
        serde_json::Value::String(text) => text.chars().filter(|c| !c.is_control()).collect(),
        other => other.to_string(),
    }
}

fn print(text: &str) -> Result<(), Failure> {
    std::io::stdout()
        .write_all(text.as_bytes())
        .map_err(Failure::failed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lines_up_and_shows_what_is_missing() {
        let rows =
            serde_json::json!([{"name": "a", "state": "up"}, {"name": "long\u{1b}[31m", "n": 1}]);
        let expected = "name      state  n\na         up     -\nlong[31m  -      1\n";
        assert_eq!(table(&["name", "state", "n"], &rows), expected);
    }
}
