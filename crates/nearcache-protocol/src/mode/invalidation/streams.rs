//! What update streams ([`stream`](crate::mode::stream)) mean in this mode: what is older than an update goes, and a hole, which is
//! what the origin's ring has lost, is not repaired: everything held here is dropped, and the stream counts as complete from then
//! on (I3).

use bytes::Bytes;
use nearcache_store::{Change, NodeId};

use super::Invalidation;
use super::members::{Link, Member, Standing};
use crate::ids::StreamId;
use crate::message::ProgressVector;
use crate::mode::stream::{Awaited, Pair, Sends as _, Shared, Streaming, shared};
use crate::mode::{Ack, BeyondMesh, FlushCause, Outcome, Output, Published, Waiter};
use crate::payload::Payload;
use crate::time::Time;
use crate::update::{Applied, Update};

impl Member {
    fn pair(&mut self) -> Option<Pair<'_>> {
        let link = self.link.as_mut()?;
        Some(Pair {
            epoch: self.epoch?,
            met: link.met,
            agreement: self.agreement,
            value_bytes_max: usize::MAX,
            sending: &mut link.sending,
            receiving: &mut link.receiving,
            echoes: &mut self.echoes,
            branch: &mut link.branch,
            early_subscribe: &mut link.early_subscribe,
        })
    }
}

impl<V: Payload> Streaming<V> for Invalidation<V> {
    fn shared(&mut self) -> Shared<'_, V> {
        shared!(self)
    }

    fn pair(&mut self, peer: NodeId) -> Option<(Shared<'_, V>, Pair<'_>)> {
        let pair = self.members.get_mut(&peer)?.pair()?;
        Some((shared!(self), pair))
    }

    fn each_pair(&mut self, mut see: impl FnMut(NodeId, Pair<'_>)) {
        for (id, member) in &mut self.members {
            if let Some(pair) = member.pair() {
                see(*id, pair);
            }
        }
    }

    fn awaited(&self, now: Time) -> Awaited {
        let members = self.members.iter();
        let holding = members.filter(|(_, member)| member.may_hold_copies(now));
        let (told_at, lease_max) = (self.relay.told_at, self.lease_max());
        let excused_at = |member: &Member| {
            if self.config.planted.waits_for_the_dead() {
                Time::MAX
            } else {
                member.excused_at(told_at, lease_max)
            }
        };
        holding
            .map(|(id, member)| (*id, excused_at(member)))
            .collect()
    }

    fn beyond_mesh(&self) -> Option<BeyondMesh> {
        let alive = self.members.values();
        let alive = alive.filter(|member| member.standing == Standing::Alive);
        let (members, mesh_max) = (alive.count() + 1, self.config.mesh_max);
        (members > mesh_max || self.relay.is_on()).then_some(BeyondMesh { members, mesh_max })
    }

    /// Who holds nothing needs no past.
    fn needs_no_past(&self) -> bool {
        self.store.is_empty()
    }

    /// What is older goes, what is newer stays, also if it is our own (I4, I5).
    fn apply(&mut self, now: Time, update: Update<V>) -> Option<Applied> {
        let removal = match update {
            // A value has no business here, but its version says what it supersedes.
            Update::Put { key, version, .. }
            | Update::Stub { key, version, .. }
            | Update::Withheld { key, version, .. } => Update::Remove { key, version },
            Update::Entry(entry) => Update::Remove {
                key: Bytes::copy_from_slice(entry.key()),
                version: entry.version(),
            },
            removal @ (Update::Remove { .. } | Update::Floor { .. }) => removal,
        };
        if self.config.planted.evicts_newer()
            && let Some(key) = removal.key()
            && let Ok(version) = self.clock.stamp(now)
        {
            let _ = self.store.merge(key, version, Change::Remove);
        }
        Some(removal.apply(&self.store))
    }

    /// Dropped first, counted as complete afterwards.
    fn on_hole(&mut self, now: Time, stream: StreamId, after: u64, out: &mut Vec<Output<V>>) {
        if !self.config.planted.skips_holes() {
            self.flush(now, FlushCause::Hole(stream.origin), out);
        }
        let own = self.own();
        self.progress
            .raise(&ProgressVector(vec![(stream, after)]), own);
    }

    fn each_origin(
        &self,
        now: Time,
        asks: impl Fn(NodeId) -> bool,
        mut see: impl FnMut(NodeId, Option<Time>),
    ) {
        let members = self.members.iter().filter(|(id, _)| asks(**id));
        for (id, member) in members.filter(|(_, member)| member.standing == Standing::Alive) {
            see(*id, self.fresh_for_others(now, *id, member));
        }
    }

    /// What was loaded while clocks were measured goes: from now on they are taken to be as far off as they may be.
    fn on_crossing(&mut self, now: Time, by_tree: bool, out: &mut Vec<Output<V>>) {
        if by_tree {
            self.flush(now, FlushCause::Crossed, out);
            return;
        }
        let ids: Vec<NodeId> = self.members.keys().copied().collect();
        for id in ids {
            self.keep_far(id);
        }
    }

    fn says_ready(&self) -> bool {
        self.ready
    }

    fn peer_says_ready(&mut self, _: NodeId, _: bool) {}

    fn takes_replays(&self) -> bool {
        true
    }

    fn on_progress(&mut self, _: Time, _: &mut Vec<Output<V>>) {}
}

impl<V: Payload> Invalidation<V> {
    /// Tells the peers of a local write: of its key and version, whatever it was.
    pub(super) fn append_invalidation(
        &mut self,
        now: Time,
        published: Published<V>,
        ack: Ack,
        waiter: Option<Waiter>,
        out: &mut Vec<Output<V>>,
    ) -> u64 {
        let published = match published {
            Published::Entry(entry) => Published::Removal {
                key: Bytes::copy_from_slice(entry.key()),
                version: entry.version(),
            },
            Published::Fill(_) => {
                if let Some(waiter) = waiter {
                    out.push(Output::Done {
                        waiter: waiter.id,
                        result: Outcome::Acked(Ok(())),
                    });
                }
                return self.log.latest();
            }
            published @ (Published::Removal { .. } | Published::Floor { .. }) => published,
        };
        self.append(now, published, ack, waiter, out)
    }

    pub(super) fn next_ask(&self) -> Time {
        if self.relay.is_on() {
            return Time::MAX;
        }
        let links = self.members.values().filter_map(|m| m.link.as_ref());
        let met = links.filter(|link: &&Link| link.met);
        let asks = met.filter_map(|link| link.receiving.ask_at);
        asks.min().unwrap_or(Time::MAX)
    }
}
