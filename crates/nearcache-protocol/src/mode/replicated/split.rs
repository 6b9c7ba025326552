//! What becomes of a node that is not with most of its cluster: the setting `split`.
//!
//! ```text
//! echoes ─▶ view ─▶ with most until ─┬▶ write_until, serve_until (compared with the clock by the shell)
//!                                    └▶ heartbeat: look ─▶ Event::Apart, drop ─▶ … ─▶ Event::Together, fill again
//! ```
//!
//! The bounds are times, so that they hold without anybody doing anything: after a pause or a suspend, too. Dropping the contents
//! waits until the heartbeats of a node that runs have gone unanswered, so that a pause alone drops nothing.

use std::time::Duration;

use nearcache_store::Timestamp;

use super::Replicated;
use crate::announce::SplitPolicy;
use crate::config::ReplicationConfig;
use crate::mode::{Event, Output, Status};
use crate::payload::Payload;
use crate::time::Time;

/// Peers that have not answered for so many heartbeats are not with us (guess: one lost, two late).
const SILENT_HEARTBEATS: u32 = 4;

/// Looks without most of the cluster after which its contents are dropped; at each of them the peers are asked.
const LOOKS_BEFORE_DROP: u32 = 3;

/// How long after it asked a node takes itself to be with those that answered.
pub(super) fn window(config: &ReplicationConfig) -> Duration {
    config.heartbeat_every * SILENT_HEARTBEATS
}

/// Whether this node is apart from most of its cluster.
#[derive(Debug, Default)]
pub(super) struct Split {
    /// Since when, and how often it has looked since.
    apart: Option<(Time, u32)>,
    /// Its contents are dropped.
    dropped: bool,
}

impl Split {
    /// Whether what it held is dropped, and it is still apart.
    pub(super) const fn has_dropped(&self) -> bool {
        self.dropped
    }
}

impl<V: Payload> Replicated<V> {
    /// Something was heard: a node that has dropped its contents is filled again as soon as it is with most.
    pub(super) fn note_most(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if self.split.dropped && self.view.is_with_most(now) {
            self.look_around(now, out);
            self.repair(now, out);
        }
    }

    /// Looks who is here; with every heartbeat.
    pub(super) fn look_around(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        let with_most = self.view.look(now, self.planted);
        match (with_most, self.split.apart) {
            (true, None) => {}
            (true, Some((since, _))) => {
                self.split.apart = None;
                let after = now - since;
                if std::mem::take(&mut self.split.dropped) {
                    // Whatever peers hold is newer than what was dropped, or the same.
                    self.fill_again(now, Time::ZERO);
                }
                out.push(Output::Event(Event::Together { after }));
            }
            (false, None) => {
                self.split.apart = Some((now, 1));
                self.stats.splits += 1;
                let (heard, of) = self.view.counts(now);
                out.push(Output::Event(Event::Apart { heard, of }));
            }
            (false, Some((since, looks))) => {
                self.split.apart = Some((since, looks.saturating_add(1)));
                if looks + 1 >= LOOKS_BEFORE_DROP {
                    self.drop_for_split(now, out);
                }
            }
        }
    }

    fn drop_for_split(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if self.split.dropped || self.config.agreement.split != SplitPolicy::Flush {
            return;
        }
        self.split.dropped = true;
        let dropped = self.drop_up_to(self.settled_up_to(now), out);
        out.push(Output::Event(Event::Dropped { dropped }));
    }

    /// What is not newer than this was on its way to all for long enough when this node was last with most.
    fn settled_up_to(&self, now: Time) -> Timestamp {
        let at_ms = self.clock.physical_ms(self.view.with_most_at().min(now));
        let reserve = self.config.split_keeps + self.clock.max_drift();
        let reserve_ms = u64::try_from(reserve.as_millis()).unwrap_or(u64::MAX);
        Timestamp::from_parts(at_ms.saturating_sub(reserve_ms), 0)
    }

    /// Writes of this node are refused after this time.
    pub(super) fn write_until_now(&self) -> Time {
        match self.config.agreement.split {
            SplitPolicy::ReadOnly => self.view.until(),
            SplitPolicy::Serve | SplitPolicy::Flush => Time::MAX,
        }
    }

    /// Whether peers are told that all is here: who takes in what this node holds takes itself for filled (R9). Not while contents are
    /// dropped: it is with its cluster again, and heard, before it looks around and is filled again itself.
    pub(super) fn may_fill_others(&self) -> bool {
        self.join.is_ready() && !self.split.dropped
    }

    /// Nothing is served after this time.
    pub(super) fn serve_until_now(&self) -> Time {
        match self.config.agreement.split {
            SplitPolicy::Flush if self.split.dropped => Time::ZERO,
            SplitPolicy::Flush => self.view.until(),
            SplitPolicy::Serve | SplitPolicy::ReadOnly => Time::MAX,
        }
    }

    /// Whether this node may decide a read-modify-write: what it holds is neither dropped nor to be left alone.
    pub(super) fn may_decide(&self, now: Time) -> bool {
        now <= self.write_until_now() && now <= self.serve_until_now()
    }

    /// The state in one word, being apart included.
    pub(super) fn status_with_split(&self, now: Time) -> Status {
        match self.status_now(now) {
            Status::Synced | Status::CatchingUp if !self.view.is_with_most(now) => Status::Degraded,
            status => status,
        }
    }
}
