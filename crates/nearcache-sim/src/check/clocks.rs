//! R5: nobody lets in whose clock is certainly too far away, and a node that most others have shown that it is far off writes nothing.
//!
//! From outside: what is certain follows from the true distance of the clocks and from how long the answer took, not from what the nodes
//! make of it.

use std::collections::BTreeMap;
use std::time::Duration;

use nearcache_protocol::handshake::MAX_DRIFT_MS;
use nearcache_protocol::time::Time;

use super::Broken;

/// Readings in whole milliseconds, and clocks that run 1,000 ppm apart while an answer is on its way.
const UNSHARP_MS: u64 = 10;
/// What was shown counts for so long; less than nodes remember it.
const COUNTS_FOR: Duration = Duration::from_secs(60);

/// What nodes were shown.
#[derive(Debug, Default)]
pub(crate) struct Clocks {
    /// By host: when which other host has shown it that their clocks are too far apart.
    shown: BTreeMap<usize, BTreeMap<usize, Time>>,
}

impl Clocks {
    pub(crate) fn forget(&mut self, host: usize) {
        self.shown.remove(&host);
        for shown in self.shown.values_mut() {
            shown.remove(&host);
        }
    }

    /// An answer of a handshake has arrived at `host`: the clocks are really so far apart, and it was asked for so long ago.
    pub(crate) fn shaken(
        &mut self,
        (host, peer): (usize, usize),
        now: Time,
        apart_ms: u64,
        took: Duration,
        is_let_in: bool,
    ) -> Result<(), Broken> {
        let took_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX);
        let is_certain = apart_ms > MAX_DRIFT_MS + took_ms + UNSHARP_MS;
        let shown = self.shown.entry(host).or_default();
        if !is_certain {
            shown.remove(&peer);
            return Ok(());
        }
        if is_let_in {
            let what = format!(
                "n{host} lets n{peer} in, whose clock is {apart_ms} ms away and which answered within {took_ms} ms"
            );
            return Err(("R5", what));
        }
        shown.insert(peer, now);
        Ok(())
    }

    /// A node has made stamps. There are so many others.
    pub(crate) fn wrote(&self, now: Time, host: usize, others: usize) -> Result<(), Broken> {
        let shown = self.shown.get(&host).into_iter().flatten();
        let by = shown.filter(|(_, at)| now - **at < COUNTS_FOR).count();
        if by * 2 <= others {
            return Ok(());
        }
        let what = format!(
            "n{host} writes although {by} of {others} others have shown it that its clock is too far away"
        );
        Err(("R5", what))
    }
}
