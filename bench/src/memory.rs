//! Memory per entry, before and after churn (perf-A4).
//!
//! Each side is filled in a process of its own (this program again, with `--side`), which says how much its resident memory has
//! grown: what the allocator rounds up, and what tables and evicted entries leave behind, is part of it. Then the server is filled
//! over the Redis protocol, beside Redis.

use std::process::Command;

use anyhow::{Context as _, bail, ensure};

use crate::caches::{Foyer, Moka, Ours, QuickCache, QuickCacheRecord, Side, Value};
use crate::resp;
use crate::resp_client::{Client, Reply};
use crate::rounds::Pairs;
use crate::servers::Server;
use crate::table::{Bound, Row, Table};

const KEY_LEN: usize = 32;
/// What quick_cache with version and expiry was seen to take after churn, in bytes per entry: the must of perf-A4.
const MUST_BYTES: f64 = 321.0;
/// The goal of perf-A4, for an engine of our own.
const GOAL_BYTES: f64 = 222.0;
/// The goal for the server, as share of what Redis takes.
const SERVER_GOAL: f64 = 0.95;
/// Commands that are sent to a server before their replies are read.
const PIPELINE: usize = 64;
const SIDES: [&str; 6] = [
    "ours",
    "ours, expiring",
    "quick_cache",
    "quick_cache + record",
    "moka",
    "foyer s3fifo",
];

/// Options of the measurement.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Entries held.
    #[arg(long, default_value_t = 1_000_000)]
    entries: usize,
    /// Fill this side only and print its figures: what the program calls itself with.
    #[arg(long, hide = true)]
    side: Option<String>,
}

/// Bytes per entry held.
#[derive(Clone, Copy, Debug)]
struct Figures {
    filled: f64,
    churned: f64,
}

/// Measures and returns the table.
///
/// # Errors
/// When a side cannot be set up.
pub(crate) fn run(args: &Args) -> anyhow::Result<Table> {
    let mut table = Table::new("memory");
    if let Some(side) = &args.side {
        let figures = fill(side, args.entries)?;
        table.note(format!("figures {} {}", figures.filled, figures.churned));
        return Ok(table);
    }
    for side in SIDES {
        let figures = in_own_process(side, args.entries)?;
        let row = |id: &str, when: &str, bytes: f64| {
            let mut pairs = Pairs::default();
            pairs.push(bytes, MUST_BYTES);
            let what = format!("{side}, 1 entry of {}, {when}", args.entries);
            Row::compared(id, what, "B", "quick_cache + record, churned", &pairs)
        };
        table.push(row("", "filled", figures.filled));
        let churned = row(
            if side.starts_with("ours") {
                "perf-A4"
            } else {
                ""
            },
            "after churn",
            figures.churned,
        );
        table.push(if side.starts_with("ours") {
            churned
                .must(Bound::AtMost(1.0))
                .goal(Bound::AtMost(GOAL_BYTES / MUST_BYTES))
        } else {
            churned
        });
    }
    let mut pairs = Pairs::default();
    pairs.push(
        fill_server(&resp::single_node()?, args.entries)?,
        fill_server(&Server::redis(&[])?, args.entries)?,
    );
    let what = format!("server, 1 entry of {}, filled", args.entries);
    table.push(
        Row::compared("perf-A4", what, "B", "Redis", &pairs).goal(Bound::AtMost(SERVER_GOAL)),
    );
    table.note("resident bytes per entry held; keys of 32 bytes, typed values of 100; churn: two million further keys");
    Ok(table)
}

fn in_own_process(side: &str, entries: usize) -> anyhow::Result<Figures> {
    eprintln!("  {side}: filling");
    let folder =
        std::env::temp_dir().join(format!("nearcache-bench-memory-{}", std::process::id()));
    let output = Command::new(std::env::current_exe()?)
        .args([
            "memory",
            "--side",
            side,
            "--entries",
            &entries.to_string(),
            "--out",
        ])
        .arg(&folder)
        .output()
        .context("starting this program again")?;
    // Only this process knows of the folder; if it stays behind, it holds one small file.
    drop(std::fs::remove_dir_all(&folder));
    let text = String::from_utf8_lossy(&output.stdout);
    let figures = text
        .lines()
        .find_map(|line| line.strip_prefix("note: figures "));
    let mut figures = figures
        .context("no figures were printed")?
        .split(' ')
        .map(str::parse::<f64>);
    let mut next = || {
        figures
            .next()
            .context("a figure is missing")?
            .context("not a number")
    };
    Ok(Figures {
        filled: next()?,
        churned: next()?,
    })
}

fn fill(side: &str, entries: usize) -> anyhow::Result<Figures> {
    match side {
        "ours" | "ours, expiring" => {
            let ours = Ours::new(entries, KEY_LEN, side != "ours")?;
            measure(&ours, entries, || ours.store().len())
        }
        "quick_cache" => {
            let quick = QuickCache::sharded(entries)?;
            measure(&quick, entries, || quick.len())
        }
        "quick_cache + record" => {
            let record = QuickCacheRecord::new(entries)?;
            measure(&record, entries, || record.len())
        }
        "moka" => {
            let moka = Moka::new(entries);
            measure(&moka, entries, || {
                moka.settle();
                moka.len()
            })
        }
        "foyer s3fifo" => {
            let foyer = Foyer::sharded(entries);
            measure(&foyer, entries, || foyer.len())
        }
        other => anyhow::bail!("no side is called {other:?}"),
    }
}

fn measure(side: &dyn Side, entries: usize, len: impl Fn() -> usize) -> anyhow::Result<Figures> {
    let before = resident_bytes()?;
    let per_entry = |len: usize| -> anyhow::Result<f64> {
        Ok((resident_bytes()?.saturating_sub(before)) as f64 / len.max(1) as f64)
    };
    // A little less than there is room for, because room is divided among shards.
    (0..entries / 100 * 95).for_each(|n| side.write(&key_of(n as u64)));
    let filled = per_entry(len())?;
    (entries..entries + 2_000_000).for_each(|n| side.write(&key_of(n as u64)));
    Ok(Figures {
        filled,
        churned: per_entry(len())?,
    })
}

/// Resident bytes per entry that `server` takes more when it holds `entries`.
fn fill_server(server: &Server, entries: usize) -> anyhow::Result<f64> {
    eprintln!("  server on port {}: filling", server.port());
    let before = server.resident_bytes()?;
    let mut client = Client::connect(server.port())?;
    for batch in 0..entries.div_ceil(PIPELINE) {
        let keys = batch * PIPELINE..entries.min((batch + 1) * PIPELINE);
        for n in keys.clone() {
            client.queue(&[b"SET", &key_of(n as u64), &[0; Value::LEN]]);
        }
        client.flush()?;
        for _ in keys {
            let reply = client.reply()?;
            ensure!(reply == Reply::Simple("OK".to_owned()), "SET: {reply:?}");
        }
    }
    let Reply::Integer(held) = client.call(&[b"DBSIZE"])? else {
        bail!("DBSIZE gave no number");
    };
    Ok(server.resident_bytes()?.saturating_sub(before) as f64 / held.max(1) as f64)
}

fn key_of(n: u64) -> [u8; KEY_LEN] {
    let mut key = *b"cache:user:profile:000000000:00:";
    key[20..28].copy_from_slice(&n.to_be_bytes());
    key
}

/// Resident memory of this process.
fn resident_bytes() -> anyhow::Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line
        .context("no VmRSS")?
        .trim()
        .trim_end_matches(" kB")
        .parse::<u64>()?;
    Ok(kib * 1024)
}
