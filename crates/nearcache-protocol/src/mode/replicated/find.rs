//! Asking peers what they hold under a key: for a read that misses while this node is joining, and for a home node that is about to
//! decide that a key is absent.
//!
//! A home node waits for all it asks, so a peer that is slow or stopped would hold up every change of an absent key. One that has
//! let a home node wait to the end is therefore not asked for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Known, NodeId};
use smallvec::SmallVec;

use super::Replicated;
use crate::ids::{RequestId, WaiterId};
use crate::message::CacheMessage;
use crate::mode::stream::Receives as _;
use crate::mode::{Outcome, Output, Waiter};
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Update;

/// For so long a peer that did not answer a home node in time is not asked again (guess): every absent key waits for one such question
/// in this time, a twenty-fifth of the time at most.
const REST: Duration = Duration::from_secs(5);

/// Finds that wait for answers.
#[derive(Debug, Default)]
pub(super) struct Finds {
    by_request: BTreeMap<RequestId, Find>,
}

#[derive(Debug)]
struct Find {
    key: Bytes,
    purpose: Purpose,
    awaiting: SmallVec<[NodeId; 4]>,
    deadline: Time,
    /// Those who have not answered then had all the time there is.
    patient: bool,
}

/// Who wants to know.
#[derive(Clone, Copy, Debug)]
pub(super) enum Purpose {
    /// A read of this node; the first entry found is enough.
    Read(Waiter),
    /// A modify at this node, which is the key's home: all answers count.
    Home(super::home::WorkId),
}

impl Finds {
    pub(super) fn next_deadline(&self) -> Time {
        self.by_request
            .values()
            .map(|find| find.deadline)
            .min()
            .unwrap_or(Time::MAX)
    }

    pub(super) fn forget(&mut self, waiter: WaiterId) -> bool {
        let before = self.by_request.len();
        self.by_request.retain(
            |_, find| !matches!(find.purpose, Purpose::Read(reader) if reader.id == waiter),
        );
        self.by_request.len() < before
    }

    fn expired(&self, now: Time) -> Vec<RequestId> {
        self.by_request
            .iter()
            .filter(|(_, find)| find.deadline <= now)
            .map(|(id, _)| *id)
            .collect()
    }

    fn without(&mut self, peer: NodeId) -> Vec<RequestId> {
        let mut complete = Vec::new();
        for (id, find) in &mut self.by_request {
            find.awaiting.retain(|awaited| *awaited != peer);
            if find.awaiting.is_empty() {
                complete.push(*id);
            }
        }
        complete
    }
}

impl<V: Payload> Replicated<V> {
    /// A read finds no value: fetches that of a stub; else asks one ready peer, or all if none is.
    pub(super) fn find_for_read(
        &mut self,
        now: Time,
        key: Bytes,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    ) {
        if let Known::Live(entry) = self.store.known(&key) {
            if entry.is_stub() {
                self.fetch_for_read(now, key, entry, waiter, out);
            } else {
                // It has come between the read and this call.
                let result = Outcome::Found(true);
                let waiter = waiter.id;
                out.push(Output::Done { waiter, result });
            }
            return;
        }
        let agreeing = self.peers.iter().filter(|(_, peer)| peer.agrees());
        let source = self.source_of(self.store.digest_hash(&key));
        let ready = agreeing
            .clone()
            .filter(|(_, peer)| peer.ready)
            .map(|(id, _)| *id);
        let asked: SmallVec<[NodeId; 4]> = match ready.min_by_key(|id| (Some(*id) != source, *id)) {
            Some(peer) => SmallVec::from_slice(&[peer]),
            None => agreeing.map(|(id, _)| *id).collect(),
        };
        if asked.is_empty() || self.finds.by_request.len() >= self.config.waiters_max {
            out.push(Output::Done {
                waiter: waiter.id,
                result: Outcome::Found(false),
            });
            return;
        }
        self.ask(
            key,
            asked,
            (waiter.deadline.max(now), false),
            Purpose::Read(waiter),
            out,
        );
    }

    /// The home node asks everybody who has answered in time of late. `false` if there is nobody to ask.
    pub(super) fn find_for_home(
        &mut self,
        now: Time,
        key: Bytes,
        deadline: Time,
        work: super::home::WorkId,
        out: &mut Vec<Output<V>>,
    ) -> bool {
        let asked: SmallVec<[NodeId; 4]> = self
            .peers
            .iter()
            .filter(|(_, peer)| peer.agrees() && now >= peer.finds_rest_until)
            .map(|(id, _)| *id)
            .collect();
        if asked.is_empty() {
            return false;
        }
        let patient = deadline >= now + self.config.find_wait;
        self.ask(key, asked, (deadline, patient), Purpose::Home(work), out);
        true
    }

    fn ask(
        &mut self,
        key: Bytes,
        asked: SmallVec<[NodeId; 4]>,
        (deadline, patient): (Time, bool),
        purpose: Purpose,
        out: &mut Vec<Output<V>>,
    ) {
        let request = self.next_request();
        let wanted = key.clone();
        for to in &asked {
            let message = CacheMessage::Find {
                request,
                key: key.clone(),
            };
            out.push(Output::Send { to: *to, message });
        }
        self.finds.by_request.insert(
            request,
            Find {
                key: wanted,
                purpose,
                awaiting: asked,
                deadline,
                patient,
            },
        );
    }

    pub(super) fn on_find(
        &self,
        from: NodeId,
        request: RequestId,
        key: Bytes,
        out: &mut Vec<Output<V>>,
    ) {
        let reader = self.peers.get(&from).map(|peer| peer.reader(&self.config));
        // A peer that was just met may have to start clean before it tells what it holds.
        let is_met = self.peers.get(&from).is_some_and(super::peer::Peer::agrees);
        let held = if is_met { self.held(key) } else { None };
        let update = held
            .zip(reader)
            .map(|(update, reader)| update.for_reader(reader));
        out.push(Output::Send {
            to: from,
            message: CacheMessage::Found { request, update },
        });
    }

    /// What this node holds under a key, as an update.
    pub(super) fn held(&self, key: Bytes) -> Option<Update<V>> {
        match self.store.known(&key) {
            Known::Live(entry) => Some(Update::Entry(entry)),
            Known::Removed(version) => Some(Update::Remove { key, version }),
            Known::Absent { .. } => None,
        }
    }

    pub(super) fn on_found(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        update: Option<Update<V>>,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(find) = self.finds.by_request.get_mut(&request) else {
            return;
        };
        let Some(at) = find.awaiting.iter().position(|awaited| *awaited == from) else {
            return;
        };
        find.awaiting.remove(at);
        let complete = find.awaiting.is_empty();
        let is_entry = matches!(
            update,
            Some(Update::Put { .. } | Update::Stub { .. } | Update::Entry(_))
        );
        let reads = matches!(find.purpose, Purpose::Read(_));
        let merged = self.apply_all(now, from, update.into_iter().collect(), out);
        if complete || (reads && is_entry && merged) {
            self.end_find(now, request, is_entry && merged, out);
        }
    }

    fn end_find(&mut self, now: Time, request: RequestId, found: bool, out: &mut Vec<Output<V>>) {
        let Some(find) = self.finds.by_request.remove(&request) else {
            return;
        };
        match find.purpose {
            Purpose::Read(waiter) => {
                if found
                    && let Known::Live(entry) = self.store.known(&find.key)
                    && entry.is_stub()
                {
                    self.fetch_for_read(now, find.key, entry, waiter, out);
                    return;
                }
                out.push(Output::Done {
                    waiter: waiter.id,
                    result: Outcome::Found(found),
                });
            }
            Purpose::Home(work) => self.resume_work(now, work, out),
        }
    }

    pub(super) fn find_peer_down(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        for request in self.finds.without(peer) {
            self.end_find(now, request, false, out);
        }
    }

    pub(super) fn tick_finds(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        for request in self.finds.expired(now) {
            let find = self.finds.by_request.get(&request);
            for late in find
                .filter(|find| find.patient)
                .into_iter()
                .flat_map(|find| &find.awaiting)
            {
                if let Some(peer) = self.peers.get_mut(late) {
                    peer.finds_rest_until = now + REST;
                }
            }
            self.end_find(now, request, false, out);
        }
    }
}
