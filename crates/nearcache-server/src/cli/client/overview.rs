//! `nearcache info | members`: what a node tells about itself, as text.

use std::io::Write;

use clap::Args;
use http::Method;

use super::{NodeArgs, send};
use crate::client::Request;
use crate::failure::Failure;

#[derive(Debug, Args)]
pub(in crate::cli) struct InfoArgs {
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct MembersArgs {
    #[command(flatten)]
    node: NodeArgs,
}

pub(in crate::cli) fn info(args: &InfoArgs) -> Result<(), Failure> {
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
        "peer_sessions",
        "by_tree",
    ] {
        text += &format!("{key:<20}{}\n", plain(&node[key]));
    }
    if !node["clock_skew_ms"].is_null() {
        let skew = plain(&node["clock_skew_ms"]);
        text += &format!(
            "{:<20}writes refused: peers' clocks are {skew} ms ahead\n",
            "clock"
        );
    }
    for listener in ["resp", "http", "peers"] {
        if let Some(address) = node["addresses"][listener].as_str() {
            text += &format!("{listener:<20}{address}\n");
        }
    }
    let columns = [
        "name",
        "mode",
        "state",
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
    let peers = peers_of(&caches);
    if !peers.is_empty() {
        let columns = [
            "cache",
            "peer",
            "freshness_ms",
            "round_trip_us",
            "clock_offset_ms",
            "missing",
            "unacknowledged",
        ];
        text.push('\n');
        text += &table(&columns, &peers.into());
    }
    print(&text)
}

/// What each cache knows of each peer, one row each.
fn peers_of(caches: &serde_json::Value) -> Vec<serde_json::Value> {
    let mut rows = Vec::new();
    for cache in caches.as_array().into_iter().flatten() {
        for peer in cache["peers"].as_array().into_iter().flatten() {
            let mut row = peer.clone();
            row["cache"] = cache["name"].clone();
            let name = if peer["name"].is_null() {
                &peer["id"]
            } else {
                &peer["name"]
            };
            row["peer"] = name.clone();
            rows.push(row);
        }
    }
    rows
}

pub(in crate::cli) fn members(args: &MembersArgs) -> Result<(), Failure> {
    let members = document(&args.node, "/v1/members")?;
    print(&table(&["name", "id", "address", "state"], &members))
}

pub(super) fn document(node: &NodeArgs, path: &str) -> Result<serde_json::Value, Failure> {
    let response = send(node, Request::new(Method::GET, path.to_owned()))?;
    if !response.status.is_success() {
        return Err(response.failure());
    }
    serde_json::from_slice(&response.body)
        .map_err(|_| Failure::failed(format!("{} does not answer as a Nearcache node", node.url)))
}

/// A list of objects as columns of text.
pub(super) fn table(columns: &[&str], rows: &serde_json::Value) -> String {
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

pub(super) fn print(text: &str) -> Result<(), Failure> {
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
