//! Writes that wait for peers to apply them.
//!
//! A peer acknowledges with one number: everything up to it is applied there. Each waiter is touched once per peer that
//! passes its number, so the cost of an acknowledgement does not grow with the number of waiters that it does not concern.

use std::collections::{BTreeMap, BTreeSet};

use nearcache_store::NodeId;
use smallvec::SmallVec;

use crate::ids::WaiterId;
use crate::mode::{Ack, AckTimeout, BeyondMesh, NotAcked, Outcome, Output, Waiter};
use crate::time::Time;

/// Waiters by the number of the update they wait for.
#[derive(Debug, Default)]
pub(in crate::mode) struct Acks {
    by_number: BTreeMap<u64, SmallVec<[Waiting; 1]>>,
    deadlines: BTreeSet<(Time, WaiterId)>,
    numbers: BTreeMap<WaiterId, u64>,
    /// From when on a node counts as having applied a number, because it serves nothing that this write supersedes (I8).
    excuses: BTreeSet<(Time, u64, NodeId)>,
}

#[derive(Debug)]
struct Waiting {
    waiter: Waiter,
    want: Want,
    acked: SmallVec<[NodeId; 4]>,
}

#[derive(Debug)]
enum Want {
    /// So many, whoever they are.
    Count(u32),
    /// All of these.
    Nodes(SmallVec<[NodeId; 4]>),
}

impl Waiting {
    fn is_done(&self) -> bool {
        match &self.want {
            Want::Count(count) => self.acked.len() as u64 >= u64::from(*count),
            Want::Nodes(nodes) => nodes.iter().all(|node| self.acked.contains(node)),
        }
    }

    fn timeout(&self) -> AckTimeout {
        let (acked, wanted) = match &self.want {
            Want::Count(count) => (self.acked.len(), *count as usize),
            Want::Nodes(nodes) => (
                nodes
                    .iter()
                    .filter(|node| self.acked.contains(node))
                    .count(),
                nodes.len(),
            ),
        };
        let number = |count| u32::try_from(count).unwrap_or(u32::MAX);
        AckTimeout {
            acked: number(acked),
            wanted: number(wanted),
        }
    }

    fn done<V>(&self, result: Result<(), NotAcked>, out: &mut Vec<Output<V>>) {
        out.push(Output::Done {
            waiter: self.waiter.id,
            result: Outcome::Acked(result),
        });
    }
}

impl Acks {
    /// Callers that wait.
    pub(in crate::mode) fn len(&self) -> usize {
        self.numbers.len()
    }

    /// `waiter` waits until `number` is applied as `ack` demands, `members` being those it may wait for, each with the time from
    /// which on its silence will do ([`Time::MAX`] for never). It is told at once if nothing is to be waited for, or if more than
    /// `waiters_max` wait already.
    pub(in crate::mode) fn wait<V>(
        &mut self,
        number: u64,
        ack: Ack,
        waiter: Waiter,
        members: impl Iterator<Item = (NodeId, Time)>,
        waiters_max: usize,
        out: &mut Vec<Output<V>>,
    ) {
        let want = match ack {
            Ack::Local => Want::Count(0),
            Ack::Peers(count) => Want::Count(count),
            Ack::All => {
                let mut nodes = SmallVec::new();
                for (node, excused_at) in members {
                    nodes.push(node);
                    if excused_at != Time::MAX && self.numbers.len() < waiters_max {
                        self.excuses.insert((excused_at, number, node));
                    }
                }
                Want::Nodes(nodes)
            }
        };
        let waiting = Waiting {
            waiter,
            want,
            acked: SmallVec::new(),
        };
        if waiting.is_done() {
            waiting.done(Ok(()), out);
        } else if self.numbers.len() >= waiters_max {
            waiting.done(Err(waiting.timeout().into()), out);
        } else {
            self.deadlines.insert((waiter.deadline, waiter.id));
            self.numbers.insert(waiter.id, number);
            self.by_number.entry(number).or_default().push(waiting);
        }
    }

    /// Whether anybody waits for a number in `(after, through]`.
    pub(in crate::mode) fn waits_in(&self, after: u64, through: u64) -> bool {
        after < through && self.by_number.range(after + 1..=through).next().is_some()
    }

    /// `peer`, which had applied everything up to `before`, now has applied everything up to `through`.
    pub(in crate::mode) fn acked<V>(
        &mut self,
        peer: NodeId,
        before: u64,
        through: u64,
        out: &mut Vec<Output<V>>,
    ) {
        if self.by_number.is_empty() || before >= through {
            return;
        }
        let mut emptied = Vec::new();
        for (number, waiting) in self.by_number.range_mut(before + 1..=through) {
            for one in waiting.iter_mut() {
                if !one.acked.contains(&peer) {
                    one.acked.push(peer);
                }
            }
            Self::finish(waiting, &mut self.deadlines, &mut self.numbers, out);
            if waiting.is_empty() {
                emptied.push(*number);
            }
        }
        for number in emptied {
            self.by_number.remove(&number);
        }
    }

    /// `node` has become a member: whoever waits for all waits for it too.
    pub(in crate::mode) fn joined(&mut self, node: NodeId) {
        for one in self.by_number.values_mut().flatten() {
            // What a former start of it has acknowledged is gone with that start.
            one.acked.retain(|acked| *acked != node);
            if let Want::Nodes(nodes) = &mut one.want
                && !nodes.contains(&node)
            {
                nodes.push(node);
            }
        }
    }

    /// `node` serves nothing any more from `at` on that is superseded now: whoever waits for all waits for it no longer than that.
    pub(in crate::mode) fn excuse(&mut self, node: NodeId, at: Time) {
        for (number, waiting) in &self.by_number {
            let waits =
                |one: &Waiting| matches!(&one.want, Want::Nodes(nodes) if nodes.contains(&node));
            if waiting.iter().any(waits) {
                self.excuses.insert((at, *number, node));
            }
        }
    }

    /// `node` is dead or has left: nobody waits for it any more.
    pub(in crate::mode) fn gone<V>(&mut self, node: NodeId, out: &mut Vec<Output<V>>) {
        for waiting in self.by_number.values_mut() {
            for one in waiting.iter_mut() {
                if let Want::Nodes(nodes) = &mut one.want {
                    nodes.retain(|wanted| *wanted != node);
                }
            }
            Self::finish(waiting, &mut self.deadlines, &mut self.numbers, out);
        }
        self.by_number.retain(|_, waiting| !waiting.is_empty());
    }

    /// There are more members than anybody hears from: whoever waits for all is told so.
    pub(in crate::mode) fn refuse_all<V>(&mut self, reason: BeyondMesh, out: &mut Vec<Output<V>>) {
        let waiting = self.by_number.values().flatten();
        let for_all = waiting.filter(|one| matches!(one.want, Want::Nodes(_)));
        let refused: Vec<WaiterId> = for_all.map(|one| one.waiter.id).collect();
        for id in refused {
            if let Some(waiting) = self.take(id) {
                waiting.done(Err(reason.into()), out);
            }
        }
        self.excuses.clear();
    }

    fn finish<V>(
        waiting: &mut SmallVec<[Waiting; 1]>,
        deadlines: &mut BTreeSet<(Time, WaiterId)>,
        numbers: &mut BTreeMap<WaiterId, u64>,
        out: &mut Vec<Output<V>>,
    ) {
        waiting.retain(|one| {
            if !one.is_done() {
                return true;
            }
            deadlines.remove(&(one.waiter.deadline, one.waiter.id));
            numbers.remove(&one.waiter.id);
            one.done(Ok(()), out);
            false
        });
    }

    /// Tells those whose time is over how far they have got.
    pub(in crate::mode) fn tick<V>(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        while let Some(&(at, number, node)) = self.excuses.first() {
            if at > now {
                break;
            }
            self.excuses.pop_first();
            self.acked(node, number - 1, number, out);
        }
        while let Some(&(deadline, id)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            if let Some(waiting) = self.take(id) {
                waiting.done(Err(waiting.timeout().into()), out);
            }
        }
    }

    /// The next deadline.
    pub(in crate::mode) fn next_deadline(&self) -> Time {
        let deadline = self.deadlines.first().map(|(deadline, _)| *deadline);
        let excuse = self.excuses.first().map(|(at, ..)| *at);
        deadline
            .into_iter()
            .chain(excuse)
            .min()
            .unwrap_or(Time::MAX)
    }

    /// The caller no longer waits.
    pub(in crate::mode) fn forget(&mut self, id: WaiterId) -> bool {
        self.take(id).is_some()
    }

    fn take(&mut self, id: WaiterId) -> Option<Waiting> {
        let number = self.numbers.remove(&id)?;
        let waiting = self.by_number.get_mut(&number)?;
        let at = waiting.iter().position(|one| one.waiter.id == id)?;
        let one = waiting.remove(at);
        if waiting.is_empty() {
            self.by_number.remove(&number);
        }
        self.deadlines.remove(&(one.waiter.deadline, id));
        Some(one)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: u64) -> NodeId {
        NodeId::from_u64(id)
    }

    fn waiter(id: u64, deadline_ms: u64) -> Waiter {
        Waiter {
            id: WaiterId(id),
            deadline: Time::from_millis(deadline_ms),
        }
    }

    /// Number 5 waits for all of these, up to 100 ms.
    fn one_waits_for_all(ids: &[u64]) -> (Acks, Vec<Output<()>>) {
        let (mut acks, mut out) = (Acks::default(), Vec::new());
        let members = ids.iter().map(|id| (node(*id), Time::MAX));
        acks.wait(5, Ack::All, waiter(1, 100), members, 10, &mut out);
        (acks, out)
    }

    fn results(out: &mut Vec<Output<()>>) -> Vec<(u64, Result<(), NotAcked>)> {
        out.drain(..)
            .map(|output| match output {
                Output::Done {
                    waiter,
                    result: Outcome::Acked(result),
                } => (waiter.0, result),
                other => panic!("unexpected {other:?}"),
            })
            .collect()
    }

    #[test]
    fn an_acknowledgement_is_cumulative_and_counts_each_peer_once() {
        let (mut acks, mut out) = (Acks::default(), Vec::new());
        acks.wait(
            1,
            Ack::Peers(2),
            waiter(1, 100),
            [].into_iter(),
            10,
            &mut out,
        );
        acks.wait(
            2,
            Ack::Peers(1),
            waiter(2, 100),
            [].into_iter(),
            10,
            &mut out,
        );
        acks.acked(node(2), 0, 2, &mut out);
        assert_eq!(results(&mut out), vec![(2, Ok(()))]);
        // The same peer again, after a restart of its connection.
        acks.acked(node(2), 0, 2, &mut out);
        assert_eq!(results(&mut out), vec![]);
        acks.acked(node(3), 0, 1, &mut out);
        assert_eq!(results(&mut out), vec![(1, Ok(()))]);
        assert_eq!(acks.next_deadline(), Time::MAX);
    }

    #[test]
    fn all_means_those_who_were_members_and_still_are() {
        let (mut acks, mut out) = one_waits_for_all(&[2, 3]);
        acks.acked(node(2), 0, 5, &mut out);
        assert_eq!(results(&mut out), vec![]);
        acks.gone(node(3), &mut out);
        assert_eq!(results(&mut out), vec![(1, Ok(()))]);
    }

    #[test]
    fn c7_who_waits_for_all_is_told_that_nobody_hears_from_all() {
        let (mut acks, mut out) = one_waits_for_all(&[2, 3]);
        acks.wait(
            5,
            Ack::Peers(1),
            waiter(2, 100),
            [].into_iter(),
            10,
            &mut out,
        );
        let reason = BeyondMesh {
            members: 5,
            mesh_max: 4,
        };
        acks.refuse_all(reason, &mut out);
        assert_eq!(
            results(&mut out),
            vec![(1, Err(NotAcked::BeyondMesh(reason)))]
        );
        acks.acked(node(2), 0, 5, &mut out);
        assert_eq!(results(&mut out), vec![(2, Ok(()))]);
        assert_eq!((acks.len(), acks.next_deadline()), (0, Time::MAX));
    }

    #[test]
    fn all_includes_a_member_that_comes_up_meanwhile() {
        let (mut acks, mut out) = one_waits_for_all(&[2]);
        acks.joined(node(3));
        acks.acked(node(2), 0, 5, &mut out);
        assert_eq!(results(&mut out), vec![]);
        acks.acked(node(3), 0, 5, &mut out);
        assert_eq!(results(&mut out), vec![(1, Ok(()))]);
    }

    #[test]
    fn what_a_former_start_of_a_member_acknowledged_does_not_count() {
        let (mut acks, mut out) = one_waits_for_all(&[2, 3]);
        acks.acked(node(2), 0, 5, &mut out);
        acks.joined(node(2));
        acks.acked(node(3), 0, 5, &mut out);
        assert_eq!(results(&mut out), vec![]);
        acks.acked(node(2), 0, 5, &mut out);
        assert_eq!(results(&mut out), vec![(1, Ok(()))]);
    }

    #[test]
    fn c7_a_timeout_says_how_many_have_applied_the_write() {
        let (mut acks, mut out) = one_waits_for_all(&[2, 3]);
        acks.acked(node(2), 0, 5, &mut out);
        acks.tick(Time::from_millis(99), &mut out);
        assert_eq!(results(&mut out), vec![]);
        acks.tick(Time::from_millis(100), &mut out);
        assert_eq!(
            results(&mut out),
            vec![(
                1,
                Err(NotAcked::Timeout(AckTimeout {
                    acked: 1,
                    wanted: 2
                }))
            )]
        );
    }

    #[test]
    fn c9_waiters_are_bounded() {
        let (mut acks, mut out) = (Acks::default(), Vec::new());
        acks.wait(
            1,
            Ack::Peers(1),
            waiter(1, 100),
            [].into_iter(),
            1,
            &mut out,
        );
        acks.wait(
            2,
            Ack::Peers(1),
            waiter(2, 100),
            [].into_iter(),
            1,
            &mut out,
        );
        assert_eq!(
            results(&mut out),
            vec![(
                2,
                Err(NotAcked::Timeout(AckTimeout {
                    acked: 0,
                    wanted: 1
                }))
            )]
        );
        assert!(acks.forget(WaiterId(1)));
        assert!(!acks.forget(WaiterId(1)));
    }

    #[test]
    fn i8_a_node_whose_lease_has_run_out_is_not_waited_for() {
        let (mut acks, mut out) = (Acks::default(), Vec::new());
        let members = [(node(2), Time::MAX), (node(3), Time::from_millis(50))];
        acks.wait(
            5,
            Ack::All,
            waiter(1, 100),
            members.into_iter(),
            10,
            &mut out,
        );
        acks.acked(node(2), 0, 5, &mut out);
        assert_eq!(acks.next_deadline(), Time::from_millis(50));
        acks.tick(Time::from_millis(49), &mut out);
        assert_eq!(results(&mut out), vec![]);
        acks.tick(Time::from_millis(50), &mut out);
        assert_eq!(results(&mut out), vec![(1, Ok(()))]);
        assert_eq!(acks.next_deadline(), Time::MAX);
    }
}
