//! What is known of the peers' clocks, and whether this node's is far from most of them (R5): [`PeerClocks`].
//!
//! ```text
//! handshakes, refused ones too ─ met ──▶ ┌────────────┐ ─ median too far ──▶ no stamps
//! echoes of heartbeats ──────── read ──▶ │ PeerClocks │ ─ certainly apart ─▶ the session ends
//!                                        └────────────┘ ─ farthest ────────▶ clock bound of loads
//! ```
//!
//! A reading counts for [`REMEMBERED`] or until the next one of the same peer, whether there is a session with it or not: who is refused for
//! its clock is dialled again all the while, and one that is gone a moment ago still tells whose clock is right. A node that was started again at the
//! same address takes the place of what was there, so that one machine with a wrong clock is one voice however often its process begins anew.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use nearcache_store::NodeId;

use super::offset::OffsetRange;
use crate::ids::Epoch;
use crate::time::Time;

/// For how long a reading counts (three times as long as nodes with peers take to dial whom they do not know).
pub(super) const REMEMBERED: Duration = Duration::from_secs(90);

/// The three lanes of a session, and what was tried just before, are one measurement: the best of them counts, unless the clock was set meanwhile.
const ONE_MEETING: Duration = Duration::from_secs(10);

/// Clocks remembered; as many as a cluster may have members. Beyond it the one that was read longest ago is forgotten.
const PEERS_MAX: usize = 1_024;

/// The clocks of others.
#[derive(Debug, Default)]
pub(super) struct PeerClocks {
    read: BTreeMap<NodeId, Read>,
    /// Peers whose sessions are to end.
    apart: BTreeSet<NodeId>,
}

/// The last reading of a clock.
#[derive(Debug)]
struct Read {
    range: OffsetRange,
    at: Time,
    /// Which start of which address it was, as the handshake told.
    start: Option<(Epoch, SocketAddr)>,
    /// It was certainly within the drift bound once, in this start of the peer.
    was_within: bool,
}

impl PeerClocks {
    /// A clock was read in a handshake.
    pub(super) fn met(
        &mut self,
        now: Time,
        peer: NodeId,
        start: (Epoch, SocketAddr),
        range: OffsetRange,
        max_drift_ms: u64,
    ) {
        let same = |read: &Read| read.start == Some(start);
        let former = self.read.get(&peer).filter(|read| same(read));
        let was_within = range.is_within(max_drift_ms)
            || former.is_some_and(|read| read.was_within && !range.is_beyond(max_drift_ms));
        let narrower = former.filter(|read| {
            now.saturating_since(read.at) < ONE_MEETING
                && read.range.overlaps(range)
                && read.range.width_ms() < range.width_ms()
        });
        let range = narrower.map_or(range, |read| read.range);
        self.read
            .retain(|_, read| read.start.is_none_or(|(_, address)| address != start.1));
        let read = Read {
            range,
            at: now,
            start: Some(start),
            was_within,
        };
        self.insert(peer, read);
    }

    /// The clock of a peer that there is a session with was read.
    pub(super) fn read(&mut self, now: Time, peer: NodeId, range: OffsetRange, max_drift_ms: u64) {
        let former = self.read.get(&peer);
        let read = Read {
            range,
            at: now,
            start: former.and_then(|read| read.start),
            was_within: range.is_within(max_drift_ms) || former.is_some_and(|read| read.was_within),
        };
        self.insert(peer, read);
        if range.is_beyond(max_drift_ms) {
            self.apart.insert(peer);
        }
    }

    fn insert(&mut self, peer: NodeId, read: Read) {
        self.read.insert(peer, read);
        if self.read.len() > PEERS_MAX {
            let oldest = self.read.iter().min_by_key(|(_, read)| read.at);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.read.remove(&oldest);
            }
        }
    }

    /// The peers whose sessions are to end because of their clocks, each once.
    pub(super) fn take_apart(&mut self) -> Vec<NodeId> {
        std::mem::take(&mut self.apart).into_iter().collect()
    }

    /// How far the clock of a peer may be from this one, in milliseconds. Who was within the drift bound once is not let out of it.
    pub(super) fn farthest_ms(&self, peer: NodeId, max_drift_ms: u64) -> u64 {
        let read = self.read.get(&peer).filter(|read| !read.was_within);
        read.map_or(max_drift_ms, |read| {
            read.range.farthest_ms().max(max_drift_ms)
        })
    }

    /// The median of the offsets, of each that much of it that is certain.
    pub(super) fn median_ms(&mut self, now: Time) -> i64 {
        self.read
            .retain(|_, read| now.saturating_since(read.at) < REMEMBERED);
        let mut sorted: Vec<i64> = self
            .read
            .values()
            .map(|read| read.range.nearest_ms())
            .collect();
        sorted.sort_unstable();
        // Of the two in the middle the nearer one: half of the peers are not most of them.
        let middle = [sorted.len().saturating_sub(1) / 2, sorted.len() / 2];
        let median = middle.iter().filter_map(|at| sorted.get(*at)).copied();
        median
            .min_by_key(|offset| offset.unsigned_abs())
            .unwrap_or(0)
    }
}

#[cfg(test)]
#[path = "peers_tests.rs"]
mod tests;
