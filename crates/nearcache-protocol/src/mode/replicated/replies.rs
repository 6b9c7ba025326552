//! The last answers of a home node, so that a request that comes twice is applied once.
//!
//! A peer that lost the connection sends what it has no answer to again, under the same name. Answers are bounded in number and in
//! bytes; of those that were given up the newest name is remembered per asker, and whatever comes again under that name or an older
//! one over another connection is answered as `Indeterminate`: nobody can tell any more what came of it (C7). An asker counts its
//! names up, and takes a new one for what was refused as `NotHome`. Within a connection nothing comes twice, and what is long may be
//! overtaken by what is not: there an older name is as new as any.
//!
//! An asker is forgotten when the last of its requests is past its deadline: nobody sends it again then.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use nearcache_store::{NodeId, Version};

use crate::config::ReplicationConfig;
use crate::ids::{Epoch, RequestId};
use crate::modify::{Modified, ModifyError};
use crate::payload::Payload;
use crate::time::Time;

/// A request among all of one cache.
pub(super) type Request = (NodeId, Epoch, RequestId);

/// Askers that are remembered. Beyond it those that come new are told that this node is overloaded (guess).
const ASKERS_MAX: usize = 4_096;
/// Counted per answer besides what it holds.
const OVERHEAD_BYTES: usize = 160;
/// An answer may take this part of the bytes of all; of a longer one only the version is kept.
const LONGEST_PART: usize = 64;

/// The last answers.
#[derive(Debug)]
pub(super) struct Replies<V> {
    askers: BTreeMap<NodeId, Asker<V>>,
    /// Those that are kept, oldest first. Some may be gone from their asker.
    order: VecDeque<(Request, usize)>,
    bytes: usize,
    max: usize,
    bytes_max: usize,
    /// How much longer than its deadline an asker waits at most.
    grace: Duration,
}

#[derive(Debug)]
struct Asker<V> {
    epoch: Epoch,
    /// The newest request whose answer is gone.
    gone_up_to: RequestId,
    /// The newest that came so far, and that came before this connection.
    newest: RequestId,
    newest_before: RequestId,
    /// When all its requests are past their deadlines.
    until: Time,
    /// Nothing while a request is worked on.
    by_request: BTreeMap<RequestId, Option<Reply<V>>>,
}

/// What is kept of an answer.
#[derive(Debug)]
pub(super) enum Reply<V> {
    /// All of it.
    Whole(Result<Modified<V>, ModifyError>),
    /// Whether a change was made, and at which version: the rest is too long to be kept.
    Short(Option<Version>),
}

/// What is known of a request that comes in.
#[derive(Debug)]
pub(super) enum Seen<'a, V> {
    /// It is new.
    New,
    /// It is worked on.
    Working,
    /// It was answered.
    Answered(&'a Reply<V>),
    /// It was answered, and the answer is gone.
    Gone,
}

impl<V: Payload> Replies<V> {
    pub(super) const fn new(config: &ReplicationConfig) -> Self {
        Self {
            askers: BTreeMap::new(),
            order: VecDeque::new(),
            bytes: 0,
            max: config.modify_replies_max,
            bytes_max: config.modify_replies_bytes_max,
            grace: config.modify_grace,
        }
    }

    pub(super) fn seen(&self, (from, epoch, request): Request) -> Seen<'_, V> {
        let asker = self.askers.get(&from);
        let Some(asker) = asker.filter(|asker| asker.epoch == epoch) else {
            return Seen::New;
        };
        match asker.by_request.get(&request) {
            Some(Some(reply)) => Seen::Answered(reply),
            Some(None) => Seen::Working,
            None if request <= asker.gone_up_to.min(asker.newest_before) => Seen::Gone,
            None => Seen::New,
        }
    }

    /// An asker has a new connection: what comes now may have come before.
    pub(super) fn reconnected(&mut self, from: NodeId) {
        if let Some(asker) = self.askers.get_mut(&from) {
            asker.newest_before = asker.newest;
        }
    }

    /// A request is worked on from now on; its asker waits until `deadline`. `false`: there are too many askers already.
    pub(super) fn begin(
        &mut self,
        now: Time,
        (from, epoch, request): Request,
        deadline: Time,
    ) -> bool {
        if !self.askers.contains_key(&from) && self.askers.len() >= ASKERS_MAX {
            self.askers.retain(|_, asker| now < asker.until);
            if self.askers.len() >= ASKERS_MAX {
                return false;
            }
        }
        let former = self.askers.remove(&from);
        let mut asker = former
            .filter(|asker| asker.epoch == epoch)
            .unwrap_or_else(|| Asker {
                epoch,
                gone_up_to: RequestId(0),
                newest: RequestId(0),
                newest_before: RequestId(0),
                until: now,
                by_request: BTreeMap::new(),
            });
        asker.until = asker.until.max(deadline + self.grace);
        asker.newest = asker.newest.max(request);
        asker.by_request.insert(request, None);
        self.askers.insert(from, asker);
        true
    }

    /// A request has its answer. Older ones make room for it.
    pub(super) fn end(&mut self, id: Request, result: &Result<Modified<V>, ModifyError>) {
        let (from, epoch, request) = id;
        let asker = self.askers.get_mut(&from);
        let slot = asker
            .filter(|asker| asker.epoch == epoch)
            .and_then(|asker| asker.by_request.get_mut(&request));
        let Some(slot) = slot else {
            return;
        };
        let (reply, bytes) = kept(result, self.bytes_max / LONGEST_PART);
        *slot = Some(reply);
        self.order.push_back((id, bytes));
        self.bytes += bytes;
        while (self.order.len() > self.max.max(1) || self.bytes > self.bytes_max)
            && let Some(((from, epoch, request), bytes)) = self.order.pop_front()
        {
            self.bytes -= bytes;
            let asker = self.askers.get_mut(&from);
            if let Some(asker) = asker.filter(|asker| asker.epoch == epoch) {
                asker.by_request.remove(&request);
                asker.gone_up_to = asker.gone_up_to.max(request);
            }
        }
    }
}

/// What is kept of an answer, and the bytes it counts for.
fn kept<V: Payload>(
    result: &Result<Modified<V>, ModifyError>,
    longest: usize,
) -> (Reply<V>, usize) {
    let Ok(modified) = result else {
        return (Reply::Whole(result.clone()), OVERHEAD_BYTES);
    };
    let held = modified.previous.iter().chain(&modified.current);
    let held: u64 = held.map(nearcache_store::Handle::weight_bytes).sum();
    let bytes = usize::try_from(held)
        .unwrap_or(usize::MAX)
        .saturating_add(OVERHEAD_BYTES);
    if bytes <= longest.max(OVERHEAD_BYTES) {
        return (Reply::Whole(result.clone()), bytes);
    }
    let reply = if modified.previous.is_none() {
        Reply::Short(modified.version)
    } else {
        Reply::Whole(Err(ModifyError::Indeterminate))
    };
    (reply, OVERHEAD_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Text, entry};

    fn replies(max: usize, bytes_max: usize) -> Replies<Text> {
        Replies::new(&ReplicationConfig {
            modify_replies_max: max,
            modify_replies_bytes_max: bytes_max,
            ..ReplicationConfig::default()
        })
    }

    fn id(from: u64, request: u64) -> Request {
        (
            NodeId::from_u64(from),
            Epoch::from_u64(1),
            RequestId(request),
        )
    }

    fn answer(text: &str) -> Result<Modified<Text>, ModifyError> {
        let current = entry("k", 1, text);
        Ok(Modified {
            applied: true,
            previous: None,
            version: Some(current.version()),
            current: Some(current),
        })
    }

    const SOON: Time = Time::ZERO;

    #[test]
    fn c7_what_made_room_is_known_to_be_answered_and_what_is_worked_on_makes_none() {
        let mut replies = replies(4, 1 << 20);
        assert!(replies.begin(SOON, id(1, 1), SOON));
        for request in 2..=10 {
            assert!(replies.begin(SOON, id(2, request), SOON));
            replies.end(id(2, request), &answer("v"));
        }
        assert!(matches!(replies.seen(id(1, 1)), Seen::Working));
        let overtaken = replies.seen(id(2, 6));
        assert!(
            matches!(overtaken, Seen::New),
            "nothing comes twice in one connection"
        );
        replies.reconnected(NodeId::from_u64(2));
        assert!(matches!(replies.seen(id(2, 6)), Seen::Gone));
        assert!(matches!(replies.seen(id(2, 7)), Seen::Answered(_)));
        assert!(matches!(replies.seen(id(2, 11)), Seen::New));
        assert!(matches!(replies.seen(id(1, 2)), Seen::New));
        let later_start = (NodeId::from_u64(2), Epoch::from_u64(2), RequestId(3));
        assert!(matches!(replies.seen(later_start), Seen::New));
    }

    #[test]
    fn c9_answers_are_bounded_in_bytes_and_hold_no_long_values() {
        let mut replies = replies(1_000, 64 << 10);
        for request in 1..=500 {
            assert!(replies.begin(SOON, id(1, request), SOON));
            let text = if request % 2 == 0 { 500 } else { 1 << 20 };
            replies.end(id(1, request), &answer(&"x".repeat(text)));
            assert!(replies.bytes <= 64 << 10);
        }
        assert!(replies.order.len() < 200);
        assert!(matches!(
            replies.seen(id(1, 499)),
            Seen::Answered(Reply::Short(Some(_)))
        ));
        assert!(matches!(
            replies.seen(id(1, 500)),
            Seen::Answered(Reply::Whole(Ok(_)))
        ));
    }

    #[test]
    fn c9_askers_are_bounded_and_forgotten_when_they_no_longer_wait() {
        let mut replies = replies(4, 1 << 20);
        let deadline = SOON + Duration::from_secs(1);
        let last = ASKERS_MAX as u64;
        for from in 0..last {
            assert!(replies.begin(SOON, id(from, 1), deadline));
            replies.end(id(from, 1), &answer("v"));
        }
        assert!(!replies.begin(SOON, id(last, 1), deadline));
        replies.reconnected(NodeId::from_u64(0));
        assert!(matches!(replies.seen(id(0, 1)), Seen::Gone));
        let later = deadline + Duration::from_secs(1);
        assert!(replies.begin(later, id(last, 1), later));
        assert_eq!(replies.askers.len(), 1);
    }
}
