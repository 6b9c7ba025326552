//! The entries of the tour: written on one node, waited for on the others.

use std::time::{Duration, Instant};

use nearcache::{PutOptions, RawValue};
use tokio::time::sleep;

use super::{PREFIX, STILL_TIMEOUT, seconds};
use crate::caches::RawCache;
use crate::dev::cluster::Cluster;
use crate::dev::terminal::Terminal;
use crate::failure::Failure;
use crate::http::figures::grouped;

/// Bytes of a value.
const VALUE_BYTES: usize = 100;
/// Entries per call when filling.
const FILL_BATCH: usize = 500;
/// Pause between two looks at what is waited for.
const POLL: Duration = Duration::from_millis(2);

/// Fills the cache on node 1 and waits until every node has everything.
pub(super) async fn fill(
    cluster: &Cluster,
    entries: usize,
    shared: bool,
    terminal: &Terminal,
) -> Result<(), Failure> {
    let progress = terminal.progress(&format!("Writing {} entries", grouped(entries as u64)));
    let writer = cluster.cache(0)?;
    let start = Instant::now();
    for first in (0..entries).step_by(FILL_BATCH) {
        let numbers = first..entries.min(first + FILL_BATCH);
        let batch: Vec<_> = numbers.map(|number| (key(number), value(number))).collect();
        let batch = batch
            .iter()
            .map(|(key, value)| (key.as_slice(), value.clone()));
        writer
            .put_many(batch, PutOptions::new())
            .await
            .map_err(Failure::failed)?;
        progress.share(first, entries);
        tokio::task::yield_now().await;
    }
    let written = start.elapsed();
    let mut figures = vec![format!("written on node 1 in {}", seconds(written))];
    if shared {
        for index in 1..cluster.len() {
            holds_all(&cluster.cache(index)?, index, entries, |done| {
                progress.share(done, entries)
            })
            .await?;
        }
        figures.push(format!("on every node after {}", seconds(start.elapsed())));
    }
    progress.clear();
    let what = format!("{} entries of {VALUE_BYTES} bytes", grouped(entries as u64));
    terminal.result(&what, &figures);
    Ok(())
}

/// Waits until `cache` holds every entry of the tour with its value, however long it takes as long as it
/// gets on.
pub(super) async fn holds_all(
    cache: &RawCache,
    index: usize,
    entries: usize,
    tell: impl Fn(usize),
) -> Result<(), Failure> {
    let mut next = 0;
    let mut advanced = Instant::now();
    while next < entries {
        let before = next;
        while next < entries
            && cache
                .peek(key(next).as_slice())
                .is_some_and(|held| *held == value(next))
        {
            next += 1;
        }
        if next > before {
            advanced = Instant::now();
        } else if advanced.elapsed() > STILL_TIMEOUT {
            return Err(Failure::failed(format!(
                "node {} has {} of {} entries and gets no further",
                index + 1,
                grouped(cache.len() as u64),
                grouped(entries as u64)
            )));
        }
        tell(cache.len().min(entries));
        if next < entries {
            sleep(POLL).await;
        }
    }
    Ok(())
}

pub(super) fn key(number: usize) -> Vec<u8> {
    format!("{PREFIX}{number:08}").into_bytes()
}

/// A value that tells which key it belongs to.
pub(super) fn value(number: usize) -> RawValue {
    let mut bytes = vec![b'.'; VALUE_BYTES];
    for (slot, digit) in bytes.iter_mut().zip(number.to_string().bytes()) {
        *slot = digit;
    }
    RawValue::from(bytes)
}
