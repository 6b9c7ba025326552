//! One key on every node, for whoever asks.

use std::collections::BTreeMap;

use bytes::Bytes;
use nearcache_store::NodeId;

use super::{Held, Probe, Probes, View, send};
use crate::ids::{RequestId, WaiterId};
use crate::mode::{Outcome, Output, Waiter};
use crate::payload::Payload;
use crate::time::Time;

/// Callers that may wait for other nodes' answers. One more is given what this node knows.
const INSPECTIONS_MAX: usize = 1_024;

/// How a key stands on a node; nothing if the node did not answer.
pub type Inspected = BTreeMap<NodeId, Option<Held>>;

/// Inspections under way.
#[derive(Debug, Default)]
pub(super) struct Inspections {
    running: BTreeMap<RequestId, Running>,
}

#[derive(Debug)]
struct Running {
    waiter: Waiter,
    seen: Inspected,
    /// Who has not answered and still may.
    awaited: usize,
}

impl Probes {
    /// Asks every member. The waiter is told [`Outcome::Inspected`] when all have answered, or at its deadline.
    pub(crate) fn inspect<V: Payload>(
        &mut self,
        now: Time,
        key: &Bytes,
        waiter: Waiter,
        view: &View<'_, V>,
        out: &mut Vec<Output<V>>,
    ) {
        let mut seen: Inspected = self.members.keys().map(|peer| (*peer, None)).collect();
        seen.insert(view.clock.origin(), Some(view.held(now, key)));
        let connected = self.members.iter().filter(|(_, connected)| **connected);
        let asked: Vec<NodeId> = connected.map(|(peer, _)| *peer).collect();
        if asked.is_empty() || self.inspections.running.len() >= INSPECTIONS_MAX {
            out.push(done(waiter.id, seen));
            return;
        }
        let request = self.next_request();
        for peer in &asked {
            let message = Probe::Ask {
                key: key.clone(),
                at_least: nearcache_store::Version::ZERO,
                wait_ms: 0,
                keeps: false,
            };
            out.push(send(*peer, request, message));
        }
        let awaited = asked.len();
        let running = Running {
            waiter,
            seen,
            awaited,
        };
        self.inspections.running.insert(request, running);
    }

    /// The caller no longer waits.
    pub(crate) fn forget(&mut self, waiter: WaiterId) {
        self.inspections
            .running
            .retain(|_, running| running.waiter.id != waiter);
    }
}

impl Inspections {
    pub(super) fn answered<V>(
        &mut self,
        from: NodeId,
        request: RequestId,
        held: Held,
        out: &mut Vec<Output<V>>,
    ) {
        let Some(running) = self.running.get_mut(&request) else {
            return;
        };
        if let Some(seen @ None) = running.seen.get_mut(&from) {
            *seen = Some(held);
            running.awaited -= 1;
        }
        self.end(|running| running.awaited == 0, out);
    }

    /// The connection to a node is gone: its answer will not come.
    pub(super) fn gone<V>(&mut self, peer: NodeId, out: &mut Vec<Output<V>>) {
        for running in self.running.values_mut() {
            if running.seen.get(&peer) == Some(&None) {
                running.awaited = running.awaited.saturating_sub(1);
            }
        }
        self.end(|running| running.awaited == 0, out);
    }

    pub(super) fn tick<V>(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        self.end(|running| running.waiter.deadline <= now, out);
    }

    pub(super) fn next_deadline(&self) -> Time {
        let deadlines = self.running.values().map(|running| running.waiter.deadline);
        deadlines.min().unwrap_or(Time::MAX)
    }

    fn end<V>(&mut self, is_over: impl Fn(&Running) -> bool, out: &mut Vec<Output<V>>) {
        self.running.retain(|_, running| {
            let over = is_over(running);
            if over {
                out.push(done(running.waiter.id, std::mem::take(&mut running.seen)));
            }
            !over
        });
    }
}

fn done<V>(waiter: WaiterId, seen: Inspected) -> Output<V> {
    let result = Outcome::Inspected(seen);
    Output::Done { waiter, result }
}
