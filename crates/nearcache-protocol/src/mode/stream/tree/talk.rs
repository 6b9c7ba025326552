//! Asks and states between neighbours: in place of heartbeats and echoes, which would carry every stream to everybody.
//!
//! An answer tells what has changed since the asker last was told, by the answerer's own count, so that its size follows what happened
//! and not the number of members, and a message lost or doubled does no harm. It also tells how old the answerer's knowledge of
//! the origins in the asker's range of it is, in one number and a few exceptions: so ages are counted hop by hop, and every
//! node asks for each origin in exactly one direction.

use std::time::Duration;

use nearcache_store::NodeId;

use super::far;
use super::forward::Forwards;
use crate::ids::{Epoch, StreamId};
use crate::lane::Lane;
use crate::message::{Ask, CacheMessage, MemberWord, State};
use crate::mode::Output;
use crate::mode::stream::{Sends, Streaming};
use crate::overlay;
use crate::payload::Payload;
use crate::time::Time;

/// Streams, and members, that one answer tells of at most. The rest follows in the next.
const CHANGES_MAX: usize = 2_048;

/// Origins whose age is told one by one in an answer: those of which the answerer's knowledge is oldest.
const EXCEPTIONS_MAX: usize = 16;

/// Members next on the ring that are met because they may run the cache: half of the sessions that all caches may ask for.
const MEETS_MAX: usize = 16;

/// What is known of an origin that is older than so many heartbeats is an exception if there is room (guess).
const OLD_HEARTBEATS: u32 = 16;

/// The exchange between neighbours.
pub(in crate::mode) trait Talks<V: Payload>: Streaming<V> {
    /// Asks a peer what it has got since it last told us.
    fn ask_state(&mut self, now: Time, to: NodeId, out: &mut Vec<Output<V>>) {
        let ready = self.says_ready();
        let Some((shared, pair)) = self.pair(to) else {
            return;
        };
        if !pair.met {
            return;
        }
        let relay = &*shared.relay;
        let ahead = overlay::distance(relay.here, overlay::place_of(to));
        let end = relay.end_of(ahead, u64::MAX);
        let ask = Ask {
            asked: now,
            epoch: shared.epoch,
            ready,
            by_tree: relay.on,
            until: relay.here.wrapping_add(end),
            told: pair.branch.told,
        };
        let message = CacheMessage::Ask(ask);
        out.push(Output::Send { to, message });
    }

    /// Answers a peer.
    fn on_ask(&mut self, now: Time, from: NodeId, ask: Ask, out: &mut Vec<Output<V>>) {
        let Some((shared, pair)) = self.pair(from) else {
            return;
        };
        if ask.epoch != pair.epoch || !pair.met {
            return;
        }
        if ask.by_tree && pair.branch.cursor.is_none() {
            pair.branch.cursor = Some(shared.relay.log.end());
            pair.sending.cursor = None;
            self.rebuild_ring();
        } else if !ask.by_tree {
            self.leaves_tree(from);
        }
        if ask.by_tree {
            self.shared().relay.told_at = Some(now);
        }
        self.peer_says_ready(from, ask.ready);
        let (ready, here) = (self.says_ready(), self.shared().relay.here);
        let range = overlay::distance(here, ask.until);
        let mut ages = Vec::new();
        let is_asked = |node| overlay::distance(here, overlay::place_of(node)) < range;
        self.each_origin(now, is_asked, |node, fresh_at| {
            ages.push((fresh_at.map(|at| now - at), node));
        });
        let shared = self.shared();
        let (oldest, except) = summary(ages, shared.config.heartbeat_every * OLD_HEARTBEATS);
        let (streams, told_streams) = shared.progress.changed_since(ask.told.0, CHANGES_MAX);
        let members = &shared.relay.members;
        let (members, told_members, whole) = members.changed_since(ask.told.1, CHANGES_MAX);
        let complete = told_streams == shared.progress.changes()
            && told_members == shared.relay.members.changes();
        let state = State {
            asked: ask.asked,
            until: ask.until,
            epoch: shared.epoch,
            latest: shared.log.latest(),
            physical_ms: shared.clock.physical_ms(now),
            ready,
            told: (told_streams, told_members),
            oldest: oldest.filter(|_| complete),
            except,
            streams,
            whole,
            members,
        };
        let message = CacheMessage::State(state);
        out.push(Output::Send { to: from, message });
    }

    /// A peer's answer.
    fn on_state(&mut self, now: Time, from: NodeId, state: State, out: &mut Vec<Output<V>>) {
        let Some((shared, pair)) = self.pair(from) else {
            return;
        };
        if state.epoch != pair.epoch || state.asked > now || !pair.met {
            return;
        }
        let own = shared.own_stream();
        let theirs = StreamId {
            origin: from,
            epoch: state.epoch,
        };
        // The peer itself, as by an echo.
        pair.receiving.latest = pair.receiving.latest.max(state.latest);
        let applied = if shared.config.planted.extends_lease_on_echo() {
            state.latest
        } else {
            shared.progress.applied(theirs)
        };
        let since = shared.config.planted.fresh_since(state.asked, now);
        pair.echoes.answered(since, state.latest, applied);
        pair.echoes
            .measure(shared.clock, from, now, state.asked, state.physical_ms);
        // What it has that we have not.
        let branch = pair.branch;
        let mut acked = None;
        for (stream, number) in state
            .streams
            .iter()
            .copied()
            .chain([(theirs, state.latest)])
        {
            if stream == own {
                acked = Some(number);
            } else if shared.progress.lacks(stream, number)
                && branch.ahead.len() < shared.config.streams_max
            {
                let (known, _) = branch.ahead.entry(stream).or_insert((number, now));
                *known = number.max(*known);
            }
        }
        // What counted when it was told may be of a start that is forgotten by now.
        let progress = &*shared.progress;
        branch
            .ahead
            .retain(|stream, (number, _)| progress.lacks(*stream, *number));
        if !branch.ahead.is_empty() {
            let look_at = now + shared.config.relay_patience / 2;
            shared.relay.look_at = shared.relay.look_at.min(look_at);
        }
        // An answer that a later one has overtaken says nothing of the ages of those that the later one has added.
        let overtaken = state.told.1 < branch.told.1;
        if !overtaken {
            if state.whole {
                branch.knows.clear();
            }
            for MemberWord { node, alive, .. } in &state.members {
                if *alive && branch.knows.len() < shared.config.streams_max {
                    branch.knows.insert(overlay::place_of(*node), *node);
                } else {
                    branch.knows.remove(&overlay::place_of(*node));
                }
            }
        }
        for word in state.members.iter().filter(|word| word.node != own.origin) {
            shared.relay.hear_runs(word.node, word.epoch, word.runs);
        }
        branch.told = (
            branch.told.0.max(state.told.0),
            branch.told.1.max(state.told.1),
        );
        if !overtaken {
            self.learn_ages(from, &state);
        }
        self.peer_says_ready(from, state.ready);
        if let Some(acked) = acked {
            let epoch = own.epoch;
            self.on_ack(from, epoch, 0, acked, out);
        }
        self.on_progress(now, out);
    }

    /// How old the peer's knowledge of the origins in our range of it is; ours is no younger, and as soon as we have what it had
    /// no older than since we asked.
    fn learn_ages(&mut self, from: NodeId, state: &State) {
        let Some(oldest) = state.oldest else { return };
        let mut connected = Vec::new();
        self.each_pair(|peer, pair| {
            if pair.met {
                connected.push(peer);
            }
        });
        let Some((shared, pair)) = self.pair(from) else {
            return;
        };
        let branch = pair.branch;
        let relay = shared.relay;
        let there = overlay::place_of(from);
        let range = overlay::distance(there, state.until);
        for node in branch.known_in(there, range) {
            if node == from
                || !relay.members.is_alive(node)
                || connected.binary_search(&node).is_ok()
            {
                continue;
            }
            let age = match state.except.iter().find(|(except, _)| *except == node) {
                Some((_, None)) => continue,
                Some((_, Some(age))) => *age,
                None => oldest,
            };
            let age = shared.config.planted.age_told(age);
            let Some(at) = far::since(state.asked, age) else {
                continue;
            };
            let streams = StreamId {
                origin: node,
                epoch: Epoch::from_u64(0),
            }..=StreamId {
                origin: node,
                epoch: Epoch::from_u64(u64::MAX),
            };
            let mut lacking = branch.ahead.range(streams);
            let far = relay.far.entry(node).or_default();
            if shared.config.planted.extends_lease_on_echo() {
                far.reached(at);
            }
            match (lacking.next(), lacking.next()) {
                (None, _) => far.reached(at),
                (Some((stream, (number, _))), None) => far.expect(at, *stream, *number),
                // Of two starts of it something is missing: the next answer will tell.
                (Some(_), Some(_)) => {}
            }
        }
    }

    /// Asks for sessions with those that stand on the ring between us and the first that takes the tree from us: nobody else is asked about
    /// them, and one of them may run the cache.
    fn meet_next(&mut self, out: &mut Vec<Output<V>>) {
        let relay = self.shared().relay;
        let reach = relay.ring.first().map_or(u64::MAX, |(ahead, _)| *ahead);
        let ahead = |node| overlay::distance(relay.here, overlay::place_of(node));
        let mut next: Vec<_> = relay.living().map(|node| (ahead(node), node)).collect();
        next.retain(|(ahead, _)| *ahead < reach);
        next.sort_unstable();
        next.truncate(MEETS_MAX);
        out.extend(next.into_iter().map(|(_, node)| Output::Meet(node)));
    }

    /// Whom to wake so that the peer gets what it asked for.
    fn wake(&mut self, peer: NodeId, out: &mut Vec<Output<V>>) {
        if let Some((_, pair)) = self.pair(peer)
            && !std::mem::replace(&mut pair.sending.awake, true)
        {
            let lane = Lane::Data;
            out.push(Output::Transmit { peer, lane });
        }
    }
}

impl<V: Payload, M: Streaming<V>> Talks<V> for M {}

/// One age that covers all but a few, and those: the ones of which nothing is known, and the oldest.
fn summary(
    mut ages: Vec<(Option<Duration>, NodeId)>,
    old: Duration,
) -> (Option<Duration>, Vec<(NodeId, Option<Duration>)>) {
    // Unknown first, then from the oldest on.
    ages.sort_unstable_by_key(|(age, node)| (age.map(std::cmp::Reverse), *node));
    let is_exception = |(age, _): &&(Option<Duration>, NodeId)| age.is_none_or(|age| age > old);
    let except: Vec<_> = ages
        .iter()
        .take(EXCEPTIONS_MAX)
        .take_while(is_exception)
        .map(|(age, node)| (*node, *age))
        .collect();
    // The answerer itself is always as of now.
    let oldest = ages
        .get(except.len())
        .map_or(Some(Duration::ZERO), |(age, _)| *age);
    (oldest, except)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c11_an_age_covers_all_origins_that_are_not_excepted() {
        let node = NodeId::from_u64;
        let seconds = |n| Some(Duration::from_secs(n));
        let old = Duration::from_secs(8);
        let (oldest, except) = summary(
            vec![
                (seconds(1), node(1)),
                (None, node(2)),
                (seconds(3), node(3)),
                (seconds(60), node(4)),
            ],
            old,
        );
        assert_eq!(oldest, seconds(3));
        assert_eq!(except, vec![(node(2), None), (node(4), seconds(60))]);
        // More unknown ones than there is room for: nothing is claimed.
        let unknown = (1..=17).map(|id| (None, node(id))).collect();
        let (oldest, except) = summary(unknown, old);
        assert_eq!((oldest, except.len()), (None, EXCEPTIONS_MAX));
    }
}
