//! The side that is about to load: asks the key's home, and loads alone where nobody answers.

use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Handle, NodeId, Timestamp, Version};

use super::{Ask, Asker, Asking, Asks, alone, done, millis, send};
use crate::ids::RequestId;
use crate::load::lease::{Answer, LEASE_MAX, Lease, LoadMessage, Turn};
use crate::mode::replicated::Replicated;
use crate::mode::replicated::peer::Peer;
use crate::mode::stream::Receives as _;
use crate::mode::{Output, Waiter};
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Update;

impl<V: Payload> Replicated<V> {
    /// A caller of this node is about to load a key.
    pub(in crate::mode::replicated) fn start_load(
        &mut self,
        now: Time,
        key: Bytes,
        lease_for: Duration,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    ) {
        if self.leases.asked.len() >= self.config.waiters_max {
            return alone(waiter.id, out);
        }
        let request = self.next_request();
        let state = Asks::Again { at: now };
        let asking = Asking {
            key,
            lease_for: lease_for.min(LEASE_MAX),
            waiter,
            state,
            alone_from: now + self.config.find_wait,
        };
        self.leases.asked.insert(request, asking);
        self.drive_load(now, request, out);
    }

    /// A load that had a lease is over; with what was stored.
    pub(in crate::mode::replicated) fn finish_load(
        &mut self,
        now: Time,
        lease: Lease,
        stored: Option<&Handle<V>>,
        out: &mut Vec<Output<V>>,
    ) {
        let Lease { home, request, key } = lease;
        if home == self.me() {
            let is_his =
                |holder| matches!(holder, Asker::Here { request: his, .. } if his == request);
            self.end_given(now, &key, is_his, out);
            return;
        }
        self.leases.held.remove(&request);
        if self.peers.contains_key(&home) {
            let update = stored
                .cloned()
                .map(|entry| self.fitting(home, Update::Entry(entry)));
            send(home, request, LoadMessage::End { key, update }, out);
        }
    }

    /// Asks the key's home, which may be this node by now.
    pub(super) fn drive_load(&mut self, now: Time, request: RequestId, out: &mut Vec<Output<V>>) {
        let Some(asking) = self.leases.asked.get(&request) else {
            return;
        };
        let (key, waiter, lease_for) = (asking.key.clone(), asking.waiter, asking.lease_for);
        let (known, tags) = (self.known_to_asker(&key), self.store.highest_tag_floor());
        let home = self.home_of(&key);
        if !self.peers.get(&home).is_some_and(Peer::agrees) {
            self.leases.asked.remove(&request);
            let by = Asker::Here {
                request,
                waiter: waiter.id,
            };
            let deadline = waiter.deadline;
            let ask = Ask {
                by,
                lease_for,
                known,
                tags,
                deadline,
            };
            self.decide_load(now, key, ask, out);
            return;
        }
        let message = LoadMessage::Ask {
            wait_ms: millis(waiter.deadline.saturating_since(now)),
            lease_ms: millis(lease_for),
            known,
            tags,
            key,
        };
        send(home, request, message, out);
        let by = now + self.config.find_wait;
        if let Some(asking) = self.leases.asked.get_mut(&request) {
            asking.state = Asks::Sent { home, by };
        }
    }

    /// What an asker knows of a key. What it has merely evicted it wants back as it was.
    fn known_to_asker(&self, key: &[u8]) -> Version {
        match self.store.evicted(key) {
            Some(version) => {
                let before = version.time.as_u64().saturating_sub(1);
                Version::new(Timestamp::from_u64(before), version.origin)
            }
            None => self.store.known(key).version(),
        }
    }

    pub(super) fn on_load_answer(
        &mut self,
        now: Time,
        from: NodeId,
        request: RequestId,
        answer: Answer<V>,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(asking) = self.leases.asked.get_mut(&request) else {
            if let Answer::Yours { key } = answer
                && !self.leases.held.contains_key(&request)
            {
                // Its caller has given up, or went without: the next one may.
                let update = None;
                send(from, request, LoadMessage::End { key, update }, out);
            }
            return;
        };
        let (Asks::Sent { home, .. } | Asks::Waits { home }) = asking.state else {
            return;
        };
        if home != from {
            return;
        }
        let turn = match answer {
            Answer::Wait => {
                asking.state = Asks::Waits { home };
                return;
            }
            Answer::NotHome if now < asking.alone_from => {
                let at = now + self.config.modify_redrive_after;
                asking.state = Asks::Again {
                    at: at.min(asking.alone_from),
                };
                return;
            }
            Answer::NotHome => Turn::Yours(None),
            Answer::Yours { .. } => Turn::Yours(Some(Lease {
                home,
                request,
                key: asking.key.clone(),
            })),
            Answer::Overloaded => Turn::Yours(None),
            Answer::Loaded(update) => {
                let key = asking.key.clone();
                let is_value = matches!(
                    update,
                    Update::Put { .. } | Update::Stub { .. } | Update::Entry(_)
                );
                // C6, and a value that is too long for this node is not one.
                let useful = is_value && update.key() == Some(&key[..]);
                let merged = useful && self.apply_all(now, from, vec![update], out);
                if merged && self.store.peek(&key).is_some() {
                    Turn::Loaded
                } else {
                    Turn::Yours(None)
                }
            }
        };
        if let Some(asking) = self.leases.asked.remove(&request) {
            if matches!(turn, Turn::Yours(Some(_))) {
                let held_max = self.config.waiters_max;
                self.leases.hold(now, request, asking.lease_for, held_max);
            }
            done(asking.waiter.id, turn, out);
        }
    }
}
