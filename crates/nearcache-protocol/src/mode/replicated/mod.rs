//! Mode `replicated`: every node holds every entry; the newest version wins everywhere.

use std::sync::Arc;

use bytes::Bytes;
use nearcache_store::{NodeId, Store};

use super::{Ack, Freshness, Mode, ModeStats, Output, Published, Status, Waiter};
use crate::clock::Hlc;
use crate::config::ReplicationConfig;
use crate::ids::{Epoch, WaiterId};
use crate::lane::Lane;
use crate::message::CacheMessage;
use crate::modify::ModifyOp;
use crate::payload::Payload;
use crate::rendezvous::PlacementKey;
use crate::time::Time;

/// The strategy of mode `replicated`.
#[derive(Debug)]
pub struct Replicated<V: Payload> {
    store: Arc<Store<V>>,
    clock: Arc<Hlc>,
    epoch: Epoch,
    placement: PlacementKey,
    config: ReplicationConfig,
}

impl<V: Payload> Replicated<V> {
    /// A cache that joins at `now`.
    #[must_use]
    pub fn new(
        now: Time,
        store: Arc<Store<V>>,
        clock: Arc<Hlc>,
        epoch: Epoch,
        placement: PlacementKey,
        config: ReplicationConfig,
    ) -> Self {
        let _ = now;
        Self {
            store,
            clock,
            epoch,
            placement,
            config,
        }
    }
}

impl<V: Payload> Mode<V> for Replicated<V> {
    fn publish(
        &mut self,
        _: Time,
        _: Published<V>,
        _: Ack,
        _: Option<Waiter>,
        _: &mut Vec<Output<V>>,
    ) -> u64 {
        let _ = (
            &self.store,
            &self.clock,
            &self.epoch,
            &self.placement,
            &self.config,
        );
        0
    }
    fn peer_up(&mut self, _: Time, _: NodeId, _: Epoch, _: &mut Vec<Output<V>>) {}
    fn peer_down(&mut self, _: Time, _: NodeId, _: &mut Vec<Output<V>>) {}
    fn peer_left(&mut self, _: Time, _: NodeId, _: &mut Vec<Output<V>>) {}
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
    fn modify(&mut self, _: Time, _: Bytes, _: ModifyOp<V>, _: Waiter, _: &mut Vec<Output<V>>) {}
    fn find(&mut self, _: Time, _: Bytes, _: Waiter, _: &mut Vec<Output<V>>) {}
    fn forget(&mut self, _: WaiterId) {}
    fn leave(&mut self, _: Time, _: &mut Vec<Output<V>>) {}
    fn freshness(&self, _: Time) -> Freshness {
        Freshness::default()
    }
    fn status(&self, _: Time) -> Status {
        Status::CatchingUp
    }
    fn is_ready(&self) -> bool {
        false
    }
    fn stats(&self) -> ModeStats {
        ModeStats::default()
    }
}
