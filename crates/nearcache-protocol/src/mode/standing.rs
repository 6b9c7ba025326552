//! How a cache stands: freshness, status, and what it has counted.

use std::time::Duration;

use nearcache_store::NodeId;

use crate::time::Time;

/// What the read path compares the clock with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReadBound {
    /// Nothing may be served after this time. [`Time::MAX`] where no lease is needed.
    pub serve_until: Time,
    /// All that every peer had at this time is here. [`Time::MAX`] if there is no peer, [`Time::ZERO`] if some peer was never heard
    /// to the end.
    pub fresh_since: Time,
}

impl ReadBound {
    /// Nobody has to be asked for anything.
    pub const ALONE: Self = Self {
        serve_until: Time::MAX,
        fresh_since: Time::MAX,
    };

    /// How old the knowledge of the peer is that is known worst: [`Freshness::worst`].
    #[must_use]
    pub fn worst_age(&self, now: Time) -> Option<Duration> {
        match self.fresh_since {
            Time::MAX => Some(Duration::ZERO),
            Time::ZERO => None,
            fresh_since => Some(now - fresh_since),
        }
    }
}

/// What one cache knows of its peers, from best to worst.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Status {
    /// All that peers had a moment ago is here.
    Synced,
    /// Something is missing and being fetched.
    CatchingUp,
    /// This node hears some of its peers, and not most of its cluster: what `split` says holds here.
    Degraded,
    /// There are peers, and none can be reached.
    Isolated,
}

impl Status {
    /// The word: `synced`, `catching-up`, `degraded` or `isolated`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::CatchingUp => "catching-up",
            Self::Degraded => "degraded",
            Self::Isolated => "isolated",
        }
    }
}

/// Which peers have all that a node has that is about to leave.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum HandedOver {
    /// None, as far as is known.
    ToNobody,
    /// At least one.
    ToSome,
    /// Every one that is connected, or there is none.
    ToAll,
}

/// How old this node's knowledge of its peers is (counted by its own clock).
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Freshness {
    /// The worst of all peers; zero without peers. `None`: some peer was never heard to the end.
    pub worst: Option<Duration>,
    /// Per peer.
    pub per_peer: Vec<PeerFreshness>,
}

/// An age in whole milliseconds, as it is told to others: rounded up, because an age is never told shorter than it is (C11).
#[must_use]
pub fn age_ms(age: Duration) -> u64 {
    u64::try_from(age.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// How old this node's knowledge of one peer is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PeerFreshness {
    /// The peer.
    pub peer: NodeId,
    /// How long ago this node is known to have had all of the peer's updates; `None` if never.
    pub age: Option<Duration>,
    /// The last measured round trip.
    pub round_trip: Option<Duration>,
    /// The peer's physical clock minus ours, in milliseconds, by the last echo; half the round trip may be wrong.
    pub clock_offset_ms: Option<i64>,
    /// How many of the peer's updates are known to be missing here.
    pub missing: u64,
    /// How many of our updates the peer has not acknowledged.
    pub unacknowledged: u64,
}

/// Counters of one cache's machine; they only grow.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct ModeStats {
    /// Own updates appended to the stream.
    pub published: u64,
    /// Updates of others that were applied.
    pub applied: u64,
    /// Updates of others that were older than what the store held.
    pub superseded: u64,
    /// Updates left out of batches because a later one in the batch supersedes them.
    pub coalesced: u64,
    /// Gaps seen.
    pub gaps: u64,
    /// Comparisons completed, as asker.
    pub comparisons: u64,
    /// Entries and removals that came of comparisons.
    pub reconciled: u64,
    /// Those that peers wanted of this node.
    pub reconciled_sent: u64,
    /// Transfers completed, as receiver.
    pub transfers: u64,
    /// Entries, removals and floors that transfers brought.
    pub transferred: u64,
    /// Their bytes, about.
    pub transferred_bytes: u64,
    /// Bytes that transfers took from here, about.
    pub transferred_bytes_sent: u64,
    /// Gauge: parts of the key space, of 64, that the current transfer has not completed.
    pub parts_left: u64,
    /// Updates of others whose value is longer than this node takes: their keys are misses here.
    pub withheld: u64,
    /// Long values that were fetched from a peer.
    pub fetched: u64,
    /// Their bytes, and those of fetches that came to nothing.
    pub fetched_bytes: u64,
    /// Fetches that went on at another peer, or again at the same.
    pub fetches_moved: u64,
    /// Reads of a long value that no live member holds: misses.
    pub fetches_unheld: u64,
    /// Bytes of long values that were sent to peers.
    pub fetch_sent_bytes: u64,
    /// Messages or updates refused by the drift bound.
    pub drift_refused: u64,
    /// Times that this node was not with most of its cluster.
    pub splits: u64,
    /// Times that all held here was dropped because an invalidation may have been missed.
    pub flushes: u64,
    /// Beyond the mesh: updates handed to neighbours in the tree, own and others'.
    pub relayed: u64,
    /// The same in bytes, about.
    pub relayed_bytes: u64,
    /// Beyond the mesh: pieces of streams that neighbours were asked for, because the tree had not brought them.
    pub relay_wanted: u64,
    /// Updates that neighbours were sent because they had asked.
    pub relay_replayed: u64,
}

/// How much a machine holds of what has a bound ([`ReplicationConfig`](crate::config::ReplicationConfig)).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[non_exhaustive]
pub struct Held {
    /// Updates kept for replay.
    pub replay_updates: usize,
    /// Bytes of keys and values kept for replay.
    pub replay_bytes: usize,
    /// Callers that wait for acknowledgements, modifies and freshness.
    pub waiters: usize,
    /// Streams followed.
    pub streams: usize,
    /// Walks and lists on which peers are served.
    pub serving: usize,
    /// Long values that somebody waits for, or that are on their way.
    pub fetching: usize,
    /// Room that they take, in bytes.
    pub fetch_bytes: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c11_an_age_is_never_told_shorter_than_it_is() {
        for nanos in [0, 1, 999_999, 1_000_000, 1_000_001, 7_499_999] {
            let age = Duration::from_nanos(nanos);
            let told = Duration::from_millis(age_ms(age));
            assert!(
                told >= age && told < age + Duration::from_millis(1),
                "{age:?}"
            );
        }
        assert_eq!(age_ms(Duration::MAX), u64::MAX);
    }
}
