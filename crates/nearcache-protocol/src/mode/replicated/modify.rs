//! The asker's side of a read-modify-write: sent to the key's home node, sent again where that is safe, answered by the deadline.
//!
//! What may be sent again: under a new name what was refused as `NotHome` (nothing happened), and the very same request to the very
//! same node in the same epoch (it keeps its answers, or knows that it had one). Once a home node that was asked is gone, nobody can say whether the change
//! was made, and the caller is told so (C7).

use std::collections::BTreeMap;

use bytes::Bytes;
use nearcache_store::{NodeId, Version};

use super::Replicated;
use super::peer::{Peer, VALUE_BYTES_ON_WIRE_MAX};
use crate::ids::{Epoch, RequestId, WaiterId};
use crate::message::{CacheMessage, ModifiedAt};
use crate::mode::stream::Receives as _;
use crate::mode::{Outcome, Output, Waiter};
use crate::modify::{Modified, ModifyError, ModifyOp};
use crate::payload::Payload;
use crate::rendezvous;
use crate::time::Time;
use crate::update::Update;

/// Modifies of this node's callers at other nodes.
#[derive(Debug)]
pub(super) struct Asked<V> {
    by_request: BTreeMap<RequestId, Asking<V>>,
}

#[derive(Debug)]
struct Asking<V> {
    key: Bytes,
    op: ModifyOp<V>,
    waiter: Waiter,
    state: Asks,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Asks {
    /// Nothing was done so far; try again then.
    Again { at: Time },
    /// This node was asked, in this epoch.
    Home { home: NodeId, epoch: Epoch },
    /// It was asked, and the connection is gone. Given up at this time unless it comes back.
    Lost {
        home: NodeId,
        epoch: Epoch,
        until: Time,
    },
}

impl<V> Asked<V> {
    pub(super) fn len(&self) -> usize {
        self.by_request.len()
    }

    pub(super) const fn new() -> Self {
        Self {
            by_request: BTreeMap::new(),
        }
    }

    pub(super) fn next_deadline(&self) -> Time {
        let due = self.by_request.values().map(|asking| match asking.state {
            Asks::Again { at } => at.min(asking.waiter.deadline),
            Asks::Home { .. } => asking.waiter.deadline,
            Asks::Lost { until, .. } => until.min(asking.waiter.deadline),
        });
        due.min().unwrap_or(Time::MAX)
    }

    pub(super) fn forget(&mut self, waiter: WaiterId) {
        self.by_request
            .retain(|_, asking| asking.waiter.id != waiter);
    }
}

impl<V: Payload> Replicated<V> {
    /// The key's home among the members that this node can reach, itself included; beyond the mesh among all that live and
    /// are known to run the cache.
    pub(super) fn home_of(&self, key: &[u8]) -> NodeId {
        let by_tree = self.relay.is_on();
        // Beyond the mesh sessions come and go: whose announcement is on its way counts as it did before the session.
        let ran = |id: &NodeId, peer: &Peer| {
            by_tree && peer.counts_for_freshness() && self.relay.runs(*id) == Some(true)
        };
        let peers = self.peers.iter();
        let peers = peers.filter(|(id, peer)| peer.agrees() || ran(id, peer));
        let peers = peers.map(|(id, _)| *id);
        let far = self.far_runners().filter(move |_| by_tree);
        let members = peers.chain(far).chain([self.me()]);
        rendezvous::home(self.placement, key, members).unwrap_or(self.me())
    }

    /// This member is asked for something, or asks: beyond the mesh there shall be a session with it for a while.
    pub(super) fn needs(&self, member: NodeId, out: &mut Vec<Output<V>>) {
        if self.relay.is_on() && member != self.me() {
            out.push(Output::Meet(member));
        }
    }

    pub(super) fn start_modify(
        &mut self,
        now: Time,
        key: Bytes,
        op: ModifyOp<V>,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    ) {
        if self.home_of(&key) == self.me() {
            self.modify_here(now, key, op, waiter, out);
        } else if self.asked.by_request.len() >= self.config.waiters_max {
            let result = Outcome::Modified(Err(ModifyError::Overloaded));
            out.push(Output::Done {
                waiter: waiter.id,
                result,
            });
        } else {
            let request = self.next_request();
            let state = Asks::Again { at: now };
            self.asked.by_request.insert(
                request,
                Asking {
                    key,
                    op,
                    waiter,
                    state,
                },
            );
            self.drive(now, request, out);
        }
    }

    /// A new name for a request that nothing came of: home nodes take old names for answered.
    fn renamed(&mut self, request: RequestId) -> RequestId {
        let Some(asking) = self.asked.by_request.remove(&request) else {
            return request;
        };
        let request = self.next_request();
        self.asked.by_request.insert(request, asking);
        request
    }

    /// Sends a request to the key's home, which may be this node by now.
    fn drive(&mut self, now: Time, request: RequestId, out: &mut Vec<Output<V>>) {
        let Some(key) = self
            .asked
            .by_request
            .get(&request)
            .map(|asking| asking.key.clone())
        else {
            return;
        };
        let home = self.home_of(&key);
        self.needs(home, out);
        let Some(peer) = self.peers.get(&home).filter(|peer| peer.agrees()) else {
            if home != self.me() {
                // Beyond the mesh, and no neighbour: nobody else may decide, and it is about to be one.
                let at = now + self.config.modify_redrive_after;
                if let Some(asking) = self.asked.by_request.get_mut(&request) {
                    asking.state = Asks::Again { at };
                }
                return;
            }
            if let Some(Asking {
                key, op, waiter, ..
            }) = self.asked.by_request.remove(&request)
            {
                self.modify_here(now, key, op, waiter, out);
            }
            return;
        };
        let limit_bytes = peer.value_bytes_max.min(VALUE_BYTES_ON_WIRE_MAX);
        let epoch = peer.epoch;
        let too_long = |asking: &Asking<V>| asking.op.value_len() > limit_bytes;
        if self.asked.by_request.get(&request).is_some_and(too_long) {
            if let Some(asking) = self.asked.by_request.remove(&request) {
                let limit_bytes = u32::try_from(limit_bytes).unwrap_or(u32::MAX);
                out.push(Output::Done {
                    waiter: asking.waiter.id,
                    result: Outcome::Modified(Err(ModifyError::TooLargeForHome { limit_bytes })),
                });
            }
            return;
        }
        let known = self
            .held(key)
            .map_or(Version::ZERO, |update| update.version());
        if let Some(asking) = self.asked.by_request.get_mut(&request) {
            asking.state = Asks::Home { home, epoch };
            out.push(Output::Send {
                to: home,
                message: asking.message(now, request, known),
            });
        }
    }

    pub(super) fn on_modified(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        result: Result<ModifiedAt<V>, ModifyError>,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(asking) = self.asked.by_request.get_mut(&request) else {
            return;
        };
        let (Asks::Home { home, .. } | Asks::Lost { home, .. }) = asking.state else {
            return;
        };
        if home != from {
            return;
        }
        let result = match result {
            Err(ModifyError::NotHome) => {
                // The two views differ; one of them will change.
                asking.state = Asks::Again {
                    at: now + self.config.modify_redrive_after,
                };
                return;
            }
            Err(error) => Err(error),
            Ok(mut modified) => {
                if let Some(asking) = self.asked.by_request.get(&request) {
                    asking.complete(&mut modified);
                }
                let key = asking_key(&self.asked, request);
                self.read_own_write(now, from, key, modified, out)
            }
        };
        if let Some(asking) = self.asked.by_request.remove(&request) {
            out.push(Output::Done {
                waiter: asking.waiter.id,
                result: Outcome::Modified(result),
            });
        }
    }

    /// Merges what the key held at its home after the decision, so that a read after this sees it (C3). What is returned is just
    /// that, whatever newer has overtaken the answer: of two sums, each goes to the one who asked for it.
    ///
    /// # Errors
    /// [`ModifyError::Indeterminate`] if it cannot be merged here.
    fn read_own_write(
        &mut self,
        now: Time,
        from: NodeId,
        key: Bytes,
        modified: ModifiedAt<V>,
        out: &mut Vec<Output<V>>,
    ) -> Result<Modified<V>, ModifyError> {
        let ModifiedAt {
            applied,
            previous,
            current,
        } = modified;
        // C6: the answer must be about the key that was asked for.
        let current = current.filter(|update| update.key() == Some(&key));
        if !self.planted.keeps_no_answer()
            && !self.apply_all(now, from, current.clone().into_iter().collect(), out)
        {
            // It is done there, and refused here by the drift bound (R5): nobody can read it on this node.
            return Err(ModifyError::Indeterminate);
        }
        let version = current.as_ref().filter(|_| applied).map(Update::version);
        let current = current.and_then(Update::into_entry).map(|decided| {
            let held = self.store.peek(&key);
            held.filter(|held| held.version() == decided.version())
                .unwrap_or(decided)
        });
        let previous = previous.and_then(Update::into_entry);
        Ok(Modified {
            applied,
            previous,
            current,
            version,
        })
    }

    pub(super) fn modify_peer_down(&mut self, now: Time, peer: NodeId) {
        for asking in self.asked.by_request.values_mut() {
            if let Asks::Home { home, epoch } = asking.state
                && home == peer
            {
                asking.state = Asks::Lost {
                    home,
                    epoch,
                    until: now + self.config.modify_grace,
                };
            }
        }
    }

    /// A peer is back: what it was asked in this very epoch is asked again, under the same name.
    pub(super) fn modify_peer_up(
        &mut self,
        now: Time,
        peer: NodeId,
        peer_epoch: Epoch,
        out: &mut Vec<Output<V>>,
    ) {
        for (request, asking) in &mut self.asked.by_request {
            if let Asks::Lost { home, epoch, .. } = asking.state
                && home == peer
                && epoch == peer_epoch
                && now < asking.waiter.deadline
            {
                asking.state = Asks::Home { home, epoch };
                let message = asking.message(now, *request, Version::ZERO);
                out.push(Output::Send { to: peer, message });
            }
        }
    }

    pub(super) fn tick_modifies(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if self.asked.next_deadline() > now {
            return;
        }
        let requests: Vec<_> = self
            .asked
            .by_request
            .iter()
            .map(|(id, asking)| (*id, asking.state, asking.waiter))
            .collect();
        for (request, state, waiter) in requests {
            let expired = waiter.deadline <= now && !self.planted.forgets_modify_deadlines();
            let error = match state {
                Asks::Again { .. } if expired => Some(ModifyError::HomeUnreachable),
                Asks::Again { at } if at <= now => {
                    let request = self.renamed(request);
                    self.drive(now, request, out);
                    None
                }
                Asks::Home { .. } if expired => Some(ModifyError::Indeterminate),
                Asks::Lost { until, .. } if expired || until <= now => {
                    Some(ModifyError::Indeterminate)
                }
                Asks::Again { .. } | Asks::Home { .. } | Asks::Lost { .. } => None,
            };
            if let Some(error) = error {
                self.asked.by_request.remove(&request);
                out.push(Output::Done {
                    waiter: waiter.id,
                    result: Outcome::Modified(Err(error)),
                });
            }
        }
    }
}

impl<V: Payload> Asking<V> {
    /// The value that was written here need not be fetched from the home node.
    fn complete(&self, modified: &mut ModifiedAt<V>) {
        if let (ModifyOp::Set { value: own, .. }, true) = (&self.op, modified.applied)
            && let Some(Update::Stub {
                key,
                version,
                expiry,
                tags,
                value_bytes,
                ..
            }) = &modified.current
            && usize::try_from(*value_bytes) == Ok(own.bytes().len())
        {
            modified.current = Some(Update::Put {
                key: key.clone(),
                version: *version,
                value: own.clone(),
                expiry: *expiry,
                tags: tags.clone(),
            });
        }
    }

    fn message(&self, now: Time, request: RequestId, known: Version) -> CacheMessage<V> {
        let wait = self.waiter.deadline.saturating_since(now);
        let wait_ms = u32::try_from(wait.as_millis()).unwrap_or(u32::MAX);
        CacheMessage::Modify {
            request,
            wait_ms,
            known,
            key: self.key.clone(),
            op: self.op.clone(),
        }
    }
}

fn asking_key<V>(asked: &Asked<V>, request: RequestId) -> Bytes {
    asked
        .by_request
        .get(&request)
        .map(|asking| asking.key.clone())
        .unwrap_or_default()
}
