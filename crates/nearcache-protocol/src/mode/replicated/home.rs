//! The home node's side of a read-modify-write: decide, apply, publish, answer, once per request.
//!
//! One machine decides one change at a time, and the decision is taken inside the store's atomic step, so changes of a key that
//! come through here are serialised; plain writes of other nodes still win by version (design §6.7). Before it takes a key for
//! absent, or decides on an older version than the asker knows, the home node asks its peers what they hold.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Handle, Known, MergeError, Merged, NodeId, Version};

use super::Replicated;
use super::large::Ended;
use super::peer::VALUE_BYTES_ON_WIRE_MAX;
use super::replies::{Replies, Reply, Request, Seen};
use crate::config::ReplicationConfig;
use crate::ids::RequestId;
use crate::message::{CacheMessage, ModifiedAt};
use crate::mode::{Ack, Outcome, Output, Published, Waiter};
use crate::modify::{Modified, ModifyError, ModifyOp};
use crate::payload::Payload;
use crate::time::Time;
use crate::update::Update;

/// How often a decision is taken anew because a plain write came between stamp and merge. Each time the stamp is newer, so
/// more than a few would mean a clock that stands still.
const RESTAMPS_MAX: u32 = 16;

/// Names a modify that waits for what peers hold.
pub(super) type WorkId = u64;

/// Modifies at their home node.
#[derive(Debug)]
pub(super) struct Home<V> {
    waiting: BTreeMap<WorkId, Work<V>>,
    next_work: WorkId,
    replies: Replies<V>,
}

#[derive(Debug)]
struct Work<V> {
    key: Bytes,
    op: ModifyOp<V>,
    answer: Answer,
    deadline: Time,
}

/// Who gets the result.
#[derive(Clone, Copy, Debug)]
enum Answer {
    Here(Waiter),
    Peer { to: NodeId, request: Request },
}

impl<V: Payload> Home<V> {
    /// Whether something is yet to be decided here.
    pub(super) fn is_working(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(super) const fn new(config: &ReplicationConfig) -> Self {
        Self {
            waiting: BTreeMap::new(),
            next_work: 0,
            replies: Replies::new(config),
        }
    }

    /// A peer has a new connection.
    pub(super) fn reconnected(&mut self, peer: NodeId) {
        self.replies.reconnected(peer);
    }

    const fn next_id(&mut self) -> WorkId {
        let id = self.next_work;
        self.next_work += 1;
        id
    }
}

impl<V: Payload> Replicated<V> {
    /// A peer asks for a change of a key whose home we should be.
    pub(super) fn on_modify(
        &mut self,
        now: Time,
        from: NodeId,
        (request, wait_ms, known): (RequestId, u32, Version),
        key: Bytes,
        op: ModifyOp<V>,
        out: &mut Vec<Output<V>>,
    ) {
        self.needs(from, out);
        let Some(peer) = self.peers.get(&from) else {
            return;
        };
        let id = (from, peer.epoch, request);
        // A node that may not stamp yet because it has just started, or that is about to leave, is nobody's home.
        let may_stamp = self.clock.held_for(now).is_zero() && !self.leave.has_begun();
        let may_decide = may_stamp && self.may_decide(now);
        let is_home = may_decide && peer.agrees() && self.home_of(&key) == self.me();
        let kept = match self.home.replies.seen(id) {
            Seen::New => None,
            Seen::Working => return,
            Seen::Answered(kept) => Some(self.again(&key, kept)),
            Seen::Gone => Some(Err(ModifyError::Indeterminate)),
        };
        if let Some(result) = kept {
            let mut result = reply(&key, result);
            if let Ok(modified) = &mut result {
                modified.fit(peer.reader(&self.config), VALUE_BYTES_ON_WIRE_MAX);
            }
            out.push(Output::Send {
                to: from,
                message: CacheMessage::Modified { request, result },
            });
            return;
        }
        let deadline = now + Duration::from_millis(u64::from(wait_ms));
        // A request that overtook the announcement is refused too: it comes again in a moment, and nothing has happened.
        let refusal = if !is_home {
            Some(ModifyError::NotHome)
        } else if self.home.waiting.len() >= self.config.waiters_max
            || !self.home.replies.begin(now, id, deadline)
        {
            Some(ModifyError::Overloaded)
        } else {
            None
        };
        if let Some(error) = refusal {
            let message = CacheMessage::Modified {
                request,
                result: Err(error),
            };
            out.push(Output::Send { to: from, message });
            return;
        }
        let answer = Answer::Peer {
            to: from,
            request: id,
        };
        let work = Work {
            key,
            op,
            answer,
            deadline,
        };
        self.work(now, known, work, out);
    }

    /// The answer to a request that comes again.
    fn again(&self, key: &[u8], kept: &Reply<V>) -> Result<Modified<V>, ModifyError> {
        let version = match kept {
            Reply::Whole(result) => return result.clone(),
            Reply::Short(version) => *version,
        };
        let known = self.store.known(key);
        if version.is_some_and(|version| known.version() != version) {
            // Something newer is there: what was answered is not to be had any more.
            return Err(ModifyError::Indeterminate);
        }
        Ok(Modified {
            applied: version.is_some(),
            previous: None,
            current: known.live().cloned(),
            version,
        })
    }

    /// A caller of this node asks for a change of a key whose home this node is.
    pub(super) fn modify_here(
        &mut self,
        now: Time,
        key: Bytes,
        op: ModifyOp<V>,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    ) {
        if !self.may_decide(now) {
            let result = Outcome::Modified(Err(ModifyError::HomeUnreachable));
            out.push(Output::Done {
                waiter: waiter.id,
                result,
            });
            return;
        }
        let work = Work {
            key,
            op,
            answer: Answer::Here(waiter),
            deadline: waiter.deadline,
        };
        self.work(now, Version::ZERO, work, out);
    }

    /// Decides now, or asks the peers first.
    fn work(&mut self, now: Time, known: Version, work: Work<V>, out: &mut Vec<Output<V>>) {
        let here = self.store.known(&work.key);
        let decidable = match &here {
            Known::Live(_) | Known::Removed(_) => here.version() >= known,
            Known::Absent { .. } => false,
        };
        if decidable {
            self.decide_whole(now, work, out);
            return;
        }
        let id = self.home.next_id();
        let key = work.key.clone();
        let wait = self
            .config
            .find_wait
            .min(work.deadline.saturating_since(now) / 2);
        self.home.waiting.insert(id, work);
        if !self.find_for_home(now, key, now + wait, id, out) {
            self.resume_work(now, id, out);
        }
    }

    /// The peers have answered, or their time is over.
    pub(super) fn resume_work(&mut self, now: Time, id: WorkId, out: &mut Vec<Output<V>>) {
        if let Some(work) = self.home.waiting.remove(&id) {
            self.decide_whole(now, work, out);
        }
    }

    /// Decides, once the value is here if that takes the value of a stub.
    fn decide_whole(&mut self, now: Time, work: Work<V>, out: &mut Vec<Output<V>>) {
        if work.op.needs_value()
            && let Known::Live(entry) = self.store.known(&work.key)
            && entry.is_stub()
        {
            let id = self.home.next_id();
            let (key, deadline) = (work.key.clone(), work.deadline);
            self.home.waiting.insert(id, work);
            self.fetch_for_home(now, key, entry, (id, deadline), out);
            return;
        }
        self.decide(now, work, out);
    }

    /// The value that a modify waited for is here, or cannot be had: it counts as a miss then.
    pub(super) fn fetched_for_home(
        &mut self,
        now: Time,
        id: WorkId,
        ended: Ended,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(work) = self.home.waiting.remove(&id) else {
            return;
        };
        match ended {
            Ended::Here => self.decide_whole(now, work, out),
            Ended::Nowhere => self.decide(now, work, out),
            Ended::Late => self.answer(work.key, work.answer, Err(ModifyError::Overloaded), out),
        }
    }

    fn decide(&mut self, now: Time, work: Work<V>, out: &mut Vec<Output<V>>) {
        let Work {
            key, op, answer, ..
        } = work;
        let decided = decide(now, &self.store, &self.clock, &key, &op);
        let result = decided.map(|(modified, published)| {
            if let Some(published) = published {
                self.append_stubbed(now, published, Ack::Local, None, out);
            }
            modified
        });
        self.answer(key, answer, result, out);
    }

    fn answer(
        &mut self,
        key: Bytes,
        answer: Answer,
        result: Result<Modified<V>, ModifyError>,
        out: &mut Vec<Output<V>>,
    ) {
        match answer {
            Answer::Here(waiter) => {
                out.push(Output::Done {
                    waiter: waiter.id,
                    result: Outcome::Modified(result),
                });
            }
            Answer::Peer { to, request } => {
                self.home.replies.end(request, &result);
                let mut result = reply(&key, result);
                if let Ok(modified) = &mut result
                    && modified.current.is_none()
                {
                    modified.current = self.held(key);
                }
                if let (Ok(modified), Some(peer)) = (&mut result, self.peers.get(&to)) {
                    modified.fit(peer.reader(&self.config), VALUE_BYTES_ON_WIRE_MAX);
                }
                let message = CacheMessage::Modified {
                    request: request.2,
                    result,
                };
                out.push(Output::Send { to, message });
            }
        }
    }
}

fn reply<V>(
    key: &Bytes,
    result: Result<Modified<V>, ModifyError>,
) -> Result<ModifiedAt<V>, ModifyError> {
    result.map(|modified| {
        let removal = modified.version.map(|version| Update::Remove {
            key: key.clone(),
            version,
        });
        ModifiedAt {
            applied: modified.applied,
            previous: modified.previous.map(Update::Entry),
            current: modified.current.map(Update::Entry).or(removal),
        }
    })
}

/// Decides and applies `op` in one atomic step of the store, and says what is to be published.
///
/// # Errors
/// [`ModifyError`]; each variant says what changed.
pub(in crate::mode) fn decide<V: Payload>(
    now: Time,
    store: &nearcache_store::Store<V>,
    clock: &crate::clock::Hlc,
    key: &Bytes,
    op: &ModifyOp<V>,
) -> Result<(Modified<V>, Option<Published<V>>), ModifyError> {
    for _ in 0..RESTAMPS_MAX {
        let version = clock.stamp(now).map_err(|_| ModifyError::ClockSkew)?;
        let mut previous: Option<Handle<V>> = None;
        let mut failed = None;
        let mut newer = None;
        let merged = store.merge_if(key, version, |known| {
            previous = known.live().cloned();
            if known.version() >= version {
                newer = Some(known.version());
                return None;
            }
            op.decide(known).unwrap_or_else(|error| {
                failed = Some(error);
                None
            })
        });
        if let Some(error) = failed {
            return Err(error);
        }
        if let Some(newer) = newer {
            // A plain write, stamped after us, came first: see what it left and decide again.
            clock
                .observe(now, newer.time)
                .map_err(|_| ModifyError::ClockSkew)?;
            continue;
        }
        let returned = if op.returns_previous() {
            previous.clone().filter(|entry| !entry.is_stub())
        } else {
            None
        };
        return match merged {
            Ok(Merged::Applied { entry, .. }) => {
                let published = match &entry {
                    Some(entry) => Published::Entry(entry.clone()),
                    None => Published::Removal {
                        key: key.clone(),
                        version,
                    },
                };
                Ok((
                    Modified {
                        applied: true,
                        previous: returned,
                        current: entry,
                        version: Some(version),
                    },
                    Some(published),
                ))
            }
            Ok(Merged::Declined) => Ok((
                Modified {
                    applied: false,
                    previous: returned,
                    current: previous,
                    version: None,
                },
                None,
            )),
            Ok(Merged::Stale { .. }) => continue,
            Err(MergeError::TooLargeForCache { .. } | MergeError::KeyTooLong { .. } | _) => {
                Err(ModifyError::TooLarge)
            }
        };
    }
    Err(ModifyError::Overloaded)
}
