//! How fast this node may give away what it holds: [`Pace`], a limit in bytes per second for all its peers together.
//!
//! What is sent is taken off an allowance that grows with time. Once it is used up, nothing is sent until it has grown again: those who
//! wanted something meanwhile are remembered and woken then.

use std::collections::BTreeSet;
use std::time::Duration;

use nearcache_store::NodeId;

use super::Replicated;
use crate::lane::Lane;
use crate::message::CacheMessage;
use crate::mode::Output;
use crate::payload::Payload;
use crate::time::Time;

/// The allowance never exceeds what grows in this time. Whoever drives the machine ticks it every millisecond while somebody is
/// paced; what small updates wait for beside long values grows with it (`cargo xtask bench large`).
const BURST: Duration = Duration::from_millis(4);

/// A limit counts as in use for so long after it was last reached: until the next tick of a shell that is not in a hurry.
const IN_USE_FOR: Duration = Duration::from_millis(20);

/// A limit on bytes per second.
#[derive(Debug)]
pub(super) struct Pace {
    /// Zero: no limit.
    bytes_per_second: u64,
    /// May be overdrawn by one message.
    allowance: i64,
    counted: Time,
    waiting: BTreeSet<NodeId>,
    /// When somebody was last refused.
    reached: Option<Time>,
}

impl Pace {
    pub(super) const fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second,
            allowance: 0,
            counted: Time::ZERO,
            waiting: BTreeSet::new(),
            reached: None,
        }
    }

    /// Whether the limit is reached again and again just now, so that those who wait should be woken in small steps.
    pub(super) fn is_in_use(&self, now: Time) -> bool {
        (self.reached).is_some_and(|reached| now < reached + IN_USE_FOR)
    }

    /// Whether `peer` may be sent something now. If not, it is among those that [`woken`](Self::woken) tells of.
    pub(super) fn lets(&mut self, now: Time, peer: NodeId) -> bool {
        if self.bytes_per_second == 0 {
            return true;
        }
        self.count(now);
        if self.allowance > 0 {
            return true;
        }
        self.waiting.insert(peer);
        self.reached = Some(now);
        false
    }

    /// So much was sent.
    pub(super) fn sent(&mut self, bytes: usize) {
        self.allowance = self
            .allowance
            .saturating_sub(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Those that may go on now.
    pub(super) fn woken(&mut self, now: Time) -> BTreeSet<NodeId> {
        if self.waiting.is_empty() {
            return BTreeSet::new();
        }
        self.count(now);
        if self.allowance > 0 {
            std::mem::take(&mut self.waiting)
        } else {
            BTreeSet::new()
        }
    }

    pub(super) fn forget(&mut self, peer: NodeId) {
        self.waiting.remove(&peer);
    }

    /// When somebody may go on.
    pub(super) fn next_deadline(&self) -> Time {
        if self.waiting.is_empty() {
            return Time::MAX;
        }
        let lacking = u64::try_from(1 - self.allowance).unwrap_or(0);
        let nanos = u128::from(lacking) * 1_000_000_000 / u128::from(self.bytes_per_second.max(1));
        // Rounded up, or time would stand still.
        self.counted + Duration::from_nanos(u64::try_from(nanos + 1).unwrap_or(u64::MAX))
    }

    fn count(&mut self, now: Time) {
        let passed = (now - self.counted).min(BURST.max(Duration::from_secs(1)));
        let grown = u128::from(self.bytes_per_second) * passed.as_nanos() / 1_000_000_000;
        if grown == 0 {
            return;
        }
        let burst = u128::from(self.bytes_per_second) * BURST.as_nanos() / 1_000_000_000;
        let burst = i64::try_from(burst.max(1)).unwrap_or(i64::MAX);
        let grown = i64::try_from(grown).unwrap_or(i64::MAX);
        self.allowance = self.allowance.saturating_add(grown).min(burst);
        self.counted = now;
    }
}

impl<V: Payload> Replicated<V> {
    /// What goes on the bulk lane next, long values aside, as fast as this node may give it.
    pub(super) fn poll_paced(
        &mut self,
        now: Time,
        peer: NodeId,
        budget_bytes: usize,
    ) -> Option<CacheMessage<V>> {
        if !self.pace.lets(now, peer) {
            return None;
        }
        let message = self
            .poll_bulk(peer, budget_bytes)
            .or_else(|| self.poll_lists(now, peer, budget_bytes))?;
        self.pace.sent(message.bulk_bytes());
        Some(message)
    }

    /// Wakes those who had to wait.
    pub(super) fn tick_pace(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let lane = Lane::Bulk;
        let woken = self.pace.woken(now).into_iter();
        out.extend(woken.map(|peer| Output::Transmit { peer, lane }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer() -> NodeId {
        NodeId::from_u64(7)
    }

    /// Bytes sent in `seconds` by somebody who always has 64 KiB to send.
    fn sent_in(seconds: u64, bytes_per_second: u64) -> u64 {
        let (mut pace, mut sent) = (Pace::new(bytes_per_second), 0);
        let mut now = Time::from_millis(5_000);
        let end = now + Duration::from_secs(seconds);
        while now < end {
            while pace.lets(now, peer()) {
                pace.sent(64 << 10);
                sent += 64 << 10;
            }
            now = pace.next_deadline();
            assert!(!pace.woken(now).is_empty(), "woken in time");
        }
        sent
    }

    #[test]
    fn the_limit_is_kept_and_used() {
        for rate in [1 << 16, 1 << 20, 64 << 20] {
            let sent = sent_in(10, rate);
            assert!(
                sent >= rate * 10 && sent <= rate * 10 + rate / 10 + (128 << 10),
                "{sent} at {rate}"
            );
        }
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let mut pace = Pace::new(0);
        for _ in 0..1_000 {
            assert!(pace.lets(Time::ZERO, peer()));
            pace.sent(1 << 20);
        }
        assert_eq!(pace.next_deadline(), Time::MAX);
    }
}
