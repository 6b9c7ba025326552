//! Mode `local`: entries live on this node and nothing travels.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{NodeId, Store};

use super::replicated::home::decide;
use super::{
    Ack, Freshness, Mode, ModeStats, Outcome, Output, Published, ReadBound, Status, Waiter,
};
use crate::clock::Hlc;
use crate::ids::{Epoch, WaiterId};
use crate::lane::Lane;
use crate::message::CacheMessage;
use crate::modify::ModifyOp;
use crate::payload::Payload;
use crate::time::Time;

/// The strategy of mode `local`. Peers are ignored; every wait ends at once.
pub struct Local<V: Payload> {
    store: Arc<Store<V>>,
    clock: Arc<Hlc>,
}

impl<V: Payload> Local<V> {
    /// A cache that lives on this node only.
    #[must_use]
    pub const fn new(store: Arc<Store<V>>, clock: Arc<Hlc>) -> Self {
        Self { store, clock }
    }
}

impl<V: Payload> Mode<V> for Local<V> {
    fn publish(
        &mut self,
        _: Time,
        _: Published<V>,
        _: Ack,
        waiter: Option<Waiter>,
        out: &mut Vec<Output<V>>,
    ) -> u64 {
        if let Some(waiter) = waiter {
            out.push(Output::Done {
                waiter: waiter.id,
                result: Outcome::Acked(Ok(())),
            });
        }
        0
    }

    fn peer_up(&mut self, _: Time, _: NodeId, _: Epoch, _: &mut Vec<Output<V>>) {}

    fn peer_down(&mut self, _: Time, _: NodeId, _: &mut Vec<Output<V>>) {}

    fn member_up(&mut self, _: Time, _: NodeId, _: Epoch) {}

    fn peer_left(&mut self, _: Time, _: NodeId, _: &mut Vec<Output<V>>) {}

    fn peer_dead(&mut self, _: Time, _: NodeId, _: &mut Vec<Output<V>>) {}

    fn handle(&mut self, _: Time, _: NodeId, _: CacheMessage<V>, _: &mut Vec<Output<V>>) {}

    fn tick(&mut self, _: Time, _: &mut Vec<Output<V>>) {}

    fn next_tick(&self) -> Time {
        Time::MAX
    }

    fn poll_transmit(
        &mut self,
        _: Time,
        _: NodeId,
        _: Lane,
        _: usize,
        _: &mut Vec<Output<V>>,
    ) -> Option<CacheMessage<V>> {
        None
    }

    fn modify(
        &mut self,
        now: Time,
        key: Bytes,
        op: ModifyOp<V>,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    ) {
        let result = decide(now, &self.store, &self.clock, &key, &op).map(|(modified, _)| modified);
        out.push(Output::Done {
            waiter: waiter.id,
            result: Outcome::Modified(result),
        });
    }

    fn refresh(&mut self, _: Time, _: Time, waiter: Waiter, out: &mut Vec<Output<V>>) {
        out.push(Output::Done {
            waiter: waiter.id,
            result: Outcome::Fresh(true),
        });
    }

    fn read_bound(&self) -> ReadBound {
        ReadBound::ALONE
    }

    fn clock_bound(&self, _: Time) -> Duration {
        Duration::ZERO
    }

    fn finds(&self) -> bool {
        false
    }

    fn find(&mut self, _: Time, _: Bytes, waiter: Waiter, out: &mut Vec<Output<V>>) {
        out.push(Output::Done {
            waiter: waiter.id,
            result: Outcome::Found(false),
        });
    }

    fn forget(&mut self, _: WaiterId) {}

    fn leave(&mut self, _: Time, _: &mut Vec<Output<V>>) {}

    fn freshness(&self, _: Time) -> Freshness {
        Freshness {
            worst: Some(Duration::ZERO),
            per_peer: Vec::new(),
        }
    }

    fn status(&self, _: Time) -> Status {
        Status::Synced
    }

    fn is_ready(&self) -> bool {
        true
    }

    fn stats(&self) -> ModeStats {
        ModeStats::default()
    }
}

impl<V: Payload> fmt::Debug for Local<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Local")
    }
}
