//! How a load ends: what it brought is kept or not, and all who wait have an answer.

use std::time::Duration;

use bytes::Bytes;
use nearcache_protocol::mode::{Ack, Published};
use nearcache_store::{Expiry, Handle, Tags};
use rand::RngExt as _;

use super::Cluster;
use super::load::{Answer, tag_of};
use crate::bug::Bug;
use crate::plan::key;
use crate::sometimes::Place;
use crate::value::Value;
use crate::violation::Violation;

/// For how long after its expiry a copy may be served instead of an error.
const STALE_MAX: Duration = Duration::from_millis(400);

/// Every so many loads find that there is nothing.
const ABSENT_EVERY: u64 = 3;

impl Cluster {
    /// The loader has answered, or not.
    pub(super) fn landing(&mut self, host: usize, life: u32, place: u64) -> Result<(), Violation> {
        let now = self.now;
        let lives_ms = self.rng.random_range(100..2_000);
        let bug = self.bug;
        if self.hosts[host].life == life {
            self.checkers.leases.end(now, host, place);
        }
        let Some(node) = self.alive(host, life) else {
            return Ok(());
        };
        let own = node.time(now);
        let flying = node.loads.flying.get_mut(&place);
        let Some((number, departed)) =
            flying.and_then(|flying| Some((flying.key, flying.departed.take()?)))
        else {
            return Ok(());
        };
        if let (Some(guard), Some(admitted)) = (&mut node.loads.guard, departed.admitted) {
            let answered = matches!(departed.outcome, Answer::Value | Answer::Older);
            guard.ended(own, admitted, answered.then(|| own - departed.at));
            if self.checkers.guards.ended(now, host, place, answered) {
                self.sometimes.reach(Place::CircuitProbed);
            }
        }
        let Some(node) = self.alive(host, life) else {
            return Ok(());
        };
        let mut out = Vec::new();
        let mut loaded = None;
        match departed.outcome {
            Answer::Panic if bug == Some(Bug::WaiterLostOnPanic) => return Ok(()),
            Answer::Value | Answer::Older => {
                let expiry =
                    Expiry::after(node.clock.physical_ms(own), Duration::from_millis(lives_ms));
                let name = departed.value.to_string();
                // Which load it is says whether it finds anything, so that no chance is drawn for it.
                let is_absent = departed.value.is_multiple_of(ABSENT_EVERY);
                let value = if is_absent {
                    Value::absent(name.as_bytes())
                } else {
                    Value::new(name.as_bytes())
                };
                let tags = Tags::new([[tag_of(number)]]).unwrap_or(Tags::NONE);
                let content = (value, expiry, tags);
                let entry =
                    departed
                        .fence
                        .entry(&node.store, &key(number), content, &node.clock, own);
                let is_newest = node.loads.sources.raise(number as u64, departed.source);
                let pending = node.writes.pending(number).is_some();
                let kept =
                    is_newest && !pending && departed.fence.keep(&node.store, &entry) == Ok(true);
                let stored = kept.then_some(&entry);
                if kept {
                    let published = Published::Fill(entry.clone());
                    node.core
                        .publish(own, published, Ack::Local, None, &mut out);
                }
                if let Some(lease) = departed.lease {
                    node.core.end_load(own, lease, stored, &mut out);
                }
                if kept && departed.outcome == Answer::Older {
                    let what = format!(
                        "n{host} keeps generation {} of key {number}",
                        departed.source
                    );
                    return Err(self.violation("I7", what));
                }
                self.sometimes.reach(if kept {
                    Place::LoadKept
                } else {
                    Place::LoadNotKept
                });
                self.checkers.freshness.untold(entry.version());
                if is_absent {
                    self.sometimes.reach(Place::AbsenceLoaded);
                }
                if kept {
                    let name = Bytes::from(key(number));
                    self.checkers.expiry.promised(name, entry.version(), expiry);
                }
                // What has expired before it arrives is a removal.
                self.checkers.removals.stamped(entry.version());
                loaded = Some(entry);
            }
            Answer::Error | Answer::Panic | Answer::Never => {
                if let Some(lease) = departed.lease {
                    node.core.end_load(own, lease, None, &mut out);
                }
                self.sometimes.reach(Place::LoadFailed);
            }
        }
        self.carry_cache(host, out)?;
        self.land(host, place, loaded)?;
        self.settle(host)
    }

    /// A flight ends: all who wait get what it came to, and others begin.
    pub(super) fn land(
        &mut self,
        host: usize,
        place: u64,
        got: Option<Handle<Value>>,
    ) -> Result<(), Violation> {
        let Some(node) = self.hosts[host].node.as_mut() else {
            return Ok(());
        };
        let Some(flying) = node.loads.flying.remove(&place) else {
            return Ok(());
        };
        let (_, starting) = node.loads.flights.land(flying.id);
        let waiting = node.loads.waiting.remove(&place).unwrap_or_default();
        for get in waiting {
            match &got {
                Some(entry) => self.answer(get, Some(entry))?,
                None => self.fail(host, get, flying.key)?,
            }
        }
        for (_, next) in starting {
            self.start_flight(host, next)?;
        }
        Ok(())
    }

    pub(super) fn answer(
        &mut self,
        get: u64,
        got: Option<&Handle<Value>>,
    ) -> Result<(), Violation> {
        let ended = self.checkers.loads.end(get, got);
        ended.map_err(|(rule, what)| self.violation(rule, what))
    }

    /// There is no answer: a stale copy if there is one, within its limit.
    pub(super) fn fail(&mut self, host: usize, get: u64, number: usize) -> Result<(), Violation> {
        let now = self.now;
        let Some(node) = self.hosts[host].node.as_ref() else {
            return Ok(());
        };
        let own = node.time(now);
        let leased = own <= node.core.read_bound().serve_until;
        let stale = node
            .store
            .peek_stale(&key(number), STALE_MAX)
            .filter(|_| leased);
        let now_ms = node.clock.physical_ms(own);
        if let Some(entry) = &stale {
            let until_ms = entry.expiry().as_millis().saturating_add(400);
            if !entry.expiry().is_never() && now_ms >= until_ms {
                let what = format!(
                    "n{host} serves a copy of key {number} that expired at {:?}, at {now_ms}",
                    entry.expiry()
                );
                return Err(self.violation("stale limit", what));
            }
            self.sometimes.reach(Place::StaleServed);
            let judged = self.checkers.own_writes.serves(host, entry);
            self.judge(judged)?;
        }
        self.answer(get, stale.as_ref())
    }
}
