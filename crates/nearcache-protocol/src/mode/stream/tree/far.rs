//! Freshness about members that this node is not connected to: counted hop by hop, always from the asker's own clock.
//!
//! We ask a peer at t0; it says how old its own knowledge of an origin is, and how far it is in the origin's stream. Its knowledge was at
//! least as young, seen from us, as t0 less that age; once we have what it had, so is ours. Ages only grow on the way, and what
//! clocks may drift apart is added.

use std::collections::VecDeque;
use std::time::Duration;

use crate::ids::StreamId;
use crate::time::Time;

/// Answers that wait for updates still on their way (guess: a few heartbeats).
const WAITING_MAX: usize = 8;

/// By how much a clock may be slower than another, as a share (1,000 ppm).
const CLOCK_RATE_ERROR: u32 = 1_000;

/// One origin.
#[derive(Debug, Default)]
pub(in crate::mode) struct Far {
    /// All that it had at this time is here.
    pub(super) fresh_at: Option<Time>,
    /// The same, once the stream has come so far; oldest first.
    waiting: VecDeque<(Time, StreamId, u64)>,
}

/// Since when, by our clock, somebody has had everything who said at `asked` or later that its knowledge is of this age. Nothing if
/// that is before our clock began: such a time cannot be told, and a later one would be too young.
pub(super) fn since(asked: Time, age: Duration) -> Option<Time> {
    let age = age.saturating_add(age / CLOCK_RATE_ERROR);
    let nanos = u64::try_from(age.as_nanos()).ok()?;
    asked.as_nanos().checked_sub(nanos).map(Time::from_nanos)
}

impl Far {
    /// Everything up to `at` is here.
    pub(super) fn reached(&mut self, at: Time) {
        self.fresh_at = self.fresh_at.max(Some(at));
    }

    /// Everything up to `at` will be here when `stream` has come to `number`.
    pub(super) fn expect(&mut self, at: Time, stream: StreamId, number: u64) {
        if self.waiting.len() >= WAITING_MAX {
            self.waiting.pop_back();
        }
        self.waiting.push_back((at, stream, number));
    }

    /// The stream has come to `applied`.
    pub(super) fn advanced(&mut self, stream: StreamId, applied: u64) {
        let mut reached = None;
        self.waiting.retain(|(at, awaited, number)| {
            let is_here = *awaited == stream && *number <= applied;
            if is_here {
                reached = reached.max(Some(*at));
            }
            !is_here
        });
        self.fresh_at = self.fresh_at.max(reached);
    }
}

#[cfg(test)]
mod tests {
    use nearcache_store::NodeId;

    use super::*;
    use crate::ids::Epoch;

    fn stream() -> StreamId {
        StreamId {
            origin: NodeId::from_u64(7),
            epoch: Epoch::from_u64(1),
        }
    }

    #[test]
    fn c11_an_age_that_was_told_counts_from_when_we_asked_and_with_what_clocks_drift() {
        let since = since(Time::from_millis(5_000), Duration::from_millis(2_000));
        assert_eq!(since, Some(Time::from_millis(2_998)));
    }

    #[test]
    fn c11_what_was_known_before_this_node_started_is_not_taken_for_younger() {
        let since = since(Time::from_millis(100), Duration::from_millis(800));
        assert_eq!(since, None);
    }

    #[test]
    fn c11_what_a_peer_had_counts_once_it_is_here_and_a_late_answer_makes_nothing_older() {
        let mut far = Far::default();
        far.expect(Time::from_millis(50), stream(), 9);
        far.advanced(stream(), 8);
        assert_eq!(far.fresh_at, None);
        far.reached(Time::from_millis(70));
        far.advanced(stream(), 9);
        assert_eq!(far.fresh_at, Some(Time::from_millis(70)));
    }
}
