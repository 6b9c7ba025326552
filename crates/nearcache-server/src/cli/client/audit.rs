//! `nearcache audit`: how surely and how soon writes reach the other nodes.
//!
//! ```text
//! what nodes tell ── with --for: without what they told before (since) ──▶ rows, a table or JSON
//!                                                                     └──▶ exit code
//! ```

mod since;

use std::thread::sleep;
use std::time::{Duration, Instant};

use clap::Args;
use http::Method;
use serde_json::{Value, json};

use self::since::{count_all, failed, items, judge_all, judge_run, since};
use super::overview::{document, print, table};
use super::{NodeArgs, send};
use crate::client::Request;
use crate::config::units;
use crate::failure::Failure;
use crate::http::path::encode;

/// How often `--watch` prints.
const WATCH_EVERY: Duration = Duration::from_secs(2);
/// Until the last answer about a probe has come: those of the first second, and a little.
const SETTLES: Duration = Duration::from_millis(2_200);
/// The same beyond a full mesh, where members without a session have longer to answer.
const SETTLES_BEYOND_MESH: Duration = Duration::from_millis(4_200);
/// Of more peers only those are shown, one by one, that have not had every probe in time.
const ROWS_MAX: usize = 64;

#[derive(Debug, Args)]
pub(in crate::cli) struct AuditArgs {
    /// Write probes for so long before telling what came of them, for example 30s; without it, tells what there is
    #[arg(long = "for", value_name = "DURATION")]
    lasts: Option<String>,
    /// How often to write one with --for; 1s at the least
    #[arg(long, value_name = "DURATION", default_value = "1s")]
    every: String,
    /// Every node in a row of its own; without it, of more than 64 only those that have not had every probe in time
    #[arg(long)]
    all: bool,
    /// Only this cache
    #[arg(long, value_name = "NAME", env = "NEARCACHE_CACHE")]
    cache: Option<String>,
    /// Tell again every two seconds, until --for is over or for good
    #[arg(long, short)]
    watch: bool,
    /// One JSON document per telling
    #[arg(long)]
    json: bool,
    /// Address of another node's HTTP listener, whose probes are told too; repeatable
    #[arg(long = "and", value_name = "URL")]
    others: Vec<String>,
    #[command(flatten)]
    node: NodeArgs,
}

pub(in crate::cli) fn audit(args: &AuditArgs) -> Result<(), Failure> {
    let mut nodes = vec![args.node.clone()];
    nodes.extend(args.others.iter().map(|url| NodeArgs {
        url: url.clone(),
        ..args.node.clone()
    }));
    let run = match &args.lasts {
        Some(lasts) => {
            let before = told(args, &nodes)?;
            Some((start(args, &nodes, lasts)?, before))
        }
        None => None,
    };
    let until = run.as_ref().map(|(until, _)| *until);
    loop {
        let over = until.is_none_or(|until| Instant::now() >= until);
        if args.watch || over {
            let mut told = told(args, &nodes)?;
            if let Some((_, before)) = &run {
                told = since(before, &told);
            }
            print(&if args.json {
                format!("{}\n", Value::Array(rows(&told)))
            } else {
                tell(&rows(&told), args.all, run.is_some())
            })?;
            if over && !(args.watch && until.is_none()) {
                return match run {
                    Some(_) => judge_run(&told),
                    None => judge_all(&told),
                };
            }
        }
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        sleep(left.unwrap_or(WATCH_EVERY).min(WATCH_EVERY));
    }
}

/// Has every node write probes; returns when they are over and answered.
fn start(args: &AuditArgs, nodes: &[NodeArgs], lasts: &str) -> Result<Instant, Failure> {
    let duration = |flag: &str, text: &str| {
        units::parse_duration(text).map_err(|error| {
            Failure::misuse(format!("{flag} {text}: {error}; write for example 30s"))
        })
    };
    let took = duration("--for", lasts)?;
    duration("--every", &args.every)?;
    let mut path = format!(
        "/v1/audit?for={}&every={}",
        encode(lasts.as_bytes()),
        encode(args.every.as_bytes())
    );
    if let Some(cache) = &args.cache {
        path += &format!("&cache={}", encode(cache.as_bytes()));
    }
    let mut settles = SETTLES;
    for node in nodes {
        let response = send(node, Request::new(Method::POST, path.clone()))?;
        if !response.status.is_success() {
            return Err(response.failure());
        }
        if document(node, "/v1/node")?["by_tree"] == true {
            settles = SETTLES_BEYOND_MESH;
        }
    }
    Ok(Instant::now() + took + settles)
}

/// What every asked node tells of its probes: one item per writer and cache.
fn told(args: &AuditArgs, nodes: &[NodeArgs]) -> Result<Vec<Value>, Failure> {
    let mut told = Vec::new();
    for node in nodes {
        let writer = document(node, "/v1/node")?;
        let caches = document(node, "/v1/audit")?;
        let is_meant = |cache: &&Value| {
            let only = args.cache.as_ref();
            only.is_none_or(|only| cache["cache"] == **only)
        };
        for cache in caches.as_array().into_iter().flatten().filter(is_meant) {
            let mut cache = cache.clone();
            cache["url"] = node.url.as_str().into();
            cache["writer"] = writer["name"].clone();
            for field in ["epoch", "by_tree"] {
                cache[field] = writer[field].clone();
            }
            told.push(cache);
        }
    }
    Ok(told)
}

/// One row per writer, cache and peer.
fn rows(told: &[Value]) -> Vec<Value> {
    let mut rows = Vec::new();
    for cache in told {
        for peer in items(cache, "peers") {
            let mut row = peer.clone();
            for field in ["writer", "cache", "members", "covered", "covered_within_s"] {
                row[field] = cache[field].clone();
            }
            rows.push(row);
        }
    }
    rows
}

/// The rows as text.
fn tell(rows: &[Value], all: bool, is_run: bool) -> String {
    if rows.is_empty() {
        let what_to_do = if is_run {
            ""
        } else {
            ": nearcache audit --for 10s writes some, caches.NAME.audit_every in the configuration goes on for good"
        };
        return format!("no probe has been answered{what_to_do}\n");
    }
    let (mut shown, mut left_out) = (Vec::new(), 0);
    for row in rows {
        let is_well = failed(row) == 0 && count_all(row, "unknown") == 0;
        if all || rows.len() <= ROWS_MAX || !is_well {
            shown.push(cells(row));
        } else {
            left_out += 1;
        }
    }
    let columns = [
        "cache",
        "written by",
        "seen by",
        "in 1 s",
        "in 5 s",
        "in 60 s",
        "late",
        "stale",
        "silent",
        "unknown",
        "nines in 1 s",
        "p50",
        "p99",
        "p999",
    ];
    let mut text = if shown.is_empty() {
        String::new()
    } else {
        table(&columns, &Value::Array(shown))
    };
    if left_out > 0 {
        text += &format!("{left_out} nodes had every probe in time: --all shows them\n");
    }
    text + &covered(rows)
}

/// How many members have been asked, per writer and cache.
fn covered(rows: &[Value]) -> String {
    let mut lines: Vec<String> = rows
        .iter()
        .map(|row| {
            let text = |field: &str| row[field].as_str().unwrap_or("?").to_owned();
            format!(
                "{} of {} other members have answered about probes of {} in cache {} within the last {} min\n",
                row["covered"],
                row["members"],
                text("writer"),
                text("cache"),
                row["covered_within_s"].as_u64().unwrap_or(0) / 60,
            )
        })
        .collect();
    lines.dedup();
    lines.concat()
}

/// One row of the table.
fn cells(row: &Value) -> Value {
    let name = if row["name"].is_null() {
        &row["id"]
    } else {
        &row["name"]
    };
    let mut told = json!({
        "cache": row["cache"],
        "written by": row["writer"],
        "seen by": name,
    });
    for within in items(row, "within") {
        let total: u64 = ["coherent", "late", "stale", "silent", "unknown"]
            .iter()
            .filter_map(|verdict| within[*verdict].as_u64())
            .sum();
        let text = format!("{}/{total}", within["coherent"]);
        told[format!("in {} s", within["seconds"])] = Value::String(text);
    }
    for verdict in ["late", "stale", "silent", "unknown"] {
        told[verdict] = count_all(row, verdict).into();
    }
    let first = &row["within"][0];
    told["nines in 1 s"] = first["nines"].clone();
    for quantile in ["p50", "p99", "p999"] {
        told[quantile] = took(&row["propagation_us"], quantile);
    }
    told
}

/// A time until a probe was seen; nothing if none was.
fn took(propagation: &Value, quantile: &str) -> Value {
    if propagation.is_null() {
        return Value::Null;
    }
    match propagation[quantile].as_u64() {
        None => "> 60 s".into(),
        Some(us) if us < 10_000 => format!("{us} us").into(),
        Some(us) => format!("{} ms", us.div_ceil(1_000)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(late: u64) -> Vec<Value> {
        vec![json!({
            "cache": "default", "writer": "a", "id": "07", "name": "b",
            "within": [
                {"seconds": 1, "coherent": 3, "late": late, "stale": 0, "silent": 0, "nines": 0.6},
                {"seconds": 5, "coherent": 2, "late": 0, "stale": 0, "silent": 0, "nines": 0.4},
                {"seconds": 60, "coherent": 0, "late": 0, "stale": 0, "silent": 0, "nines": 0.0},
            ],
            "propagation_us": {"p50": 900, "p99": 12_001, "p999": null},
            "members": 2, "covered": 1, "covered_within_s": 3_600,
        })]
    }

    #[test]
    fn an_audit_is_told_as_a_table() {
        let text = tell(&row(0), false, false);
        let line: Vec<&str> = text
            .lines()
            .nth(1)
            .unwrap()
            .split("  ")
            .map(str::trim)
            .collect();
        for cell in [
            "default", "a", "b", "3/3", "2/2", "0/0", "900 us", "13 ms", "> 60 s",
        ] {
            assert!(line.contains(&cell), "{cell}: {text}");
        }
        assert!(tell(&[], false, false).contains("--for"));
        assert!(!tell(&[], false, true).contains("--for"));
        let covered = "1 of 2 other members have answered about probes of a in cache default within the last 60 min";
        assert!(text.contains(covered), "{text}");
    }

    #[test]
    fn of_many_nodes_those_are_shown_that_were_late() {
        let mut rows: Vec<Value> = (0..100).map(|_| row(0)[0].clone()).collect();
        rows[70] = row(1)[0].clone();
        let text = tell(&rows, false, true);
        assert_eq!(text.lines().count(), 1 + 1 + 1 + 1, "{text}");
        assert!(text.contains("99 nodes had every probe in time"), "{text}");
        assert_eq!(tell(&rows, true, true).lines().count(), 1 + 100 + 1);
    }
}
