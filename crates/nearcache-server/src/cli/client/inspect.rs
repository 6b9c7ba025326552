//! `nearcache inspect`: how one key stands on every node, and whether they agree.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::mpsc;
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::overview::{document, print, table};
use super::{EntryArgs, NodeArgs};
use crate::failure::Failure;

/// After so long without an answer it is said what is waited for.
const SAYS_AFTER: Duration = Duration::from_millis(1_500);
/// Of more nodes those that are alike are counted in place of shown.
const ROWS_MAX: usize = 64;

#[derive(Debug, Args)]
pub(in crate::cli) struct InspectArgs {
    #[command(flatten)]
    entry: EntryArgs,
    /// Every node in a row of its own; without it, of more than 64 those that are as most are only counted
    #[arg(long)]
    all: bool,
    /// The answer as JSON
    #[arg(long)]
    json: bool,
}

pub(in crate::cli) fn inspect(args: &InspectArgs) -> Result<(), Failure> {
    let seen = patiently(&args.entry.node, &args.entry.path("inspect"))?;
    print(&if args.json {
        format!("{seen}\n")
    } else {
        tell(&seen, args.all)
    })?;
    if seen["agree"] == true {
        Ok(())
    } else {
        Err(Failure::failed(
            "the nodes do not agree, or not all have answered",
        ))
    }
}

/// The answer; says meanwhile what is waited for.
fn patiently(node: &NodeArgs, path: &str) -> Result<Value, Failure> {
    std::thread::scope(|scope| {
        let (done, wait) = mpsc::channel::<()>();
        scope.spawn(move || {
            if wait.recv_timeout(SAYS_AFTER) == Err(mpsc::RecvTimeoutError::Timeout) {
                let members = document(node, "/v1/members").ok();
                let members = members.and_then(|members| members.as_array().map(Vec::len));
                let members = members.map_or_else(String::new, |count| format!("{count} "));
                // Nobody to tell is no reason to fail.
                let _ = writeln!(
                    std::io::stderr(),
                    "the node is asking {members}members, for 10 s at most ..."
                );
            }
        });
        let seen = document(node, path);
        drop(done);
        seen
    })
}

/// The answer as text.
fn tell(seen: &Value, all: bool) -> String {
    let nodes: &[Value] = seen["nodes"].as_array().map_or(&[], Vec::as_slice);
    let common = if all || nodes.len() <= ROWS_MAX {
        None
    } else {
        commonest(nodes)
    };
    let is_shown = |node: &&Value| common.as_ref().is_none_or(|common| kind(node) != *common);
    let shown: Vec<Value> = nodes.iter().filter(is_shown).map(named).collect();
    let left_out = nodes.len() - shown.len();
    let columns = [
        "name",
        "state",
        "version",
        "age_ms",
        "expires_in_ms",
        "bytes",
        "value",
        "served",
        "reason",
    ];
    let has_reasons = shown.iter().any(|row| !row["reason"].is_null());
    let columns = if has_reasons {
        &columns[..]
    } else {
        &columns[..columns.len() - 1]
    };
    let mut text = String::new();
    if let Some([state, version, value, _]) = common {
        let plain = |text: &Value| text.as_str().unwrap_or("-").to_owned();
        text += &format!(
            "{left_out} of {} nodes: {}, version {}, value {}; --all shows them\n",
            nodes.len(),
            plain(&state),
            plain(&version),
            plain(&value),
        );
    }
    if !shown.is_empty() {
        text += &table(columns, &Value::Array(shown));
    }
    let (members, answered) = (&seen["members"], &seen["answered"]);
    if members != answered {
        text += &format!("{answered} of {members} members have answered\n");
    }
    text
}

/// What makes nodes alike.
fn kind(node: &Value) -> [Value; 4] {
    ["state", "version", "value", "served"].map(|field| node[field].clone())
}

fn commonest(nodes: &[Value]) -> Option<[Value; 4]> {
    let mut counts = BTreeMap::<String, (usize, [Value; 4])>::new();
    for node in nodes.iter().filter(|node| node["reason"].is_null()) {
        let kind = kind(node);
        let counted = counts.entry(Value::from(kind.to_vec()).to_string());
        counted.or_insert((0, kind)).0 += 1;
    }
    let commonest = counts.into_values().max_by_key(|(count, _)| *count);
    commonest.map(|(_, kind)| kind)
}

fn named(node: &Value) -> Value {
    let mut row = node.clone();
    if row["name"].is_null() {
        row["name"] = row["id"].clone();
    }
    row
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn seen(nodes: usize) -> Value {
        let node = |id: usize| {
            let mut node = json!({
                "id": format!("{id:02}"), "name": format!("n{id}"), "state": "entry", "version": "v7",
                "age_ms": id, "bytes": 5, "value": "abc", "served": true,
            });
            if id == 3 {
                node["version"] = "v6".into();
            }
            if id == 4 {
                node = json!({"id": "04", "state": "no answer", "reason": "cannot be reached"});
            }
            node
        };
        let nodes: Vec<Value> = (0..nodes).map(node).collect();
        json!({"agree": false, "members": nodes.len(), "answered": nodes.len() - 1, "nodes": nodes})
    }

    #[test]
    fn every_node_has_a_row_and_who_has_not_answered_a_reason() {
        let text = tell(&seen(10), false);
        assert_eq!(text.lines().count(), 1 + 10 + 1, "{text}");
        assert!(
            text.contains("cannot be reached") && text.contains("9 of 10 members have answered")
        );
    }

    #[test]
    fn of_many_nodes_those_are_shown_that_differ_from_most() {
        let text = tell(&seen(1_000), false);
        assert_eq!(text.lines().count(), 1 + 1 + 2 + 1, "{text}");
        assert!(
            text.contains("998 of 1000 nodes: entry, version v7, value abc"),
            "{text}"
        );
        assert!(
            text.contains("n3") && text.contains("v6") && text.contains("04"),
            "{text}"
        );
        assert_eq!(tell(&seen(1_000), true).lines().count(), 1 + 1_000 + 1);
    }
}
