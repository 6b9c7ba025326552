//! What the node and the transport see of a cache whose types they do not know.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use nearcache_protocol::frame::{Frame, FrameLimit};
use nearcache_protocol::ids::Epoch;
use nearcache_protocol::lane::Lane;
use nearcache_protocol::machine::Machine as _;
use nearcache_protocol::message::CacheMessage;
use nearcache_protocol::mode::{Freshness, HandedOver, Held, Status};
use nearcache_protocol::payload::Payload;
use nearcache_protocol::probe::audit::AuditReport;
use nearcache_protocol::wire::{self, WireError};
use nearcache_store::NodeId;

use super::{Machine, Settings, Shell};
use crate::cache::CacheStats;

/// Items per shard that one tick of the store may look at (a guess: well under a millisecond).
const TICK_BUDGET: usize = 256;

/// The untyped side of a cache.
pub(crate) trait CachePort: Send + Sync + 'static {
    fn name(&self) -> &str;
    fn settings(&self) -> &Settings;
    fn is_ready(&self) -> bool;
    fn stats(&self) -> CacheStats;
    /// How much the machine holds of what has a bound.
    fn held(&self) -> Held;
    /// How old the knowledge of each peer is.
    fn freshness(&self) -> Freshness;
    /// How far the clock of any other node may be from this node's.
    fn clock_bound(&self) -> Duration;
    /// Its state in one word.
    fn status(&self) -> Status;
    /// What came of this node's probes.
    fn audit_report(&self) -> AuditReport;
    /// Whether this node's own copies may be served now.
    fn is_leased(&self) -> bool;
    /// The shell itself, for whoever knows its type.
    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync>;
    /// All lanes to a peer stand.
    fn peer_up(&self, peer: NodeId, epoch: Epoch);
    /// A lane to a peer broke.
    fn peer_down(&self, peer: NodeId);
    /// No connection to a member without a session could be opened.
    fn unreached(&self, peer: NodeId);
    /// A node is a live member, connected or not.
    fn member_up(&self, peer: NodeId, epoch: Epoch);
    /// A peer has left for good.
    fn peer_left(&self, peer: NodeId);
    /// A peer does not answer anybody any more.
    fn peer_dead(&self, peer: NodeId);
    /// A frame of this cache arrived. On an error the connection closes; nothing was merged of
    /// the frame.
    fn on_frame(&self, from: NodeId, frame: &Frame) -> Result<(), WireError>;
    /// Appends frames for `peer` until about `budget_bytes` are in `buffer`; `false` when there
    /// is nothing more to send for now.
    fn fill(&self, peer: NodeId, lane: Lane, budget_bytes: usize, buffer: &mut BytesMut) -> bool;
    /// Lets time pass for the store and the machine. Returns whether that should happen again soon.
    fn tick(&self) -> bool;
    /// Drops the copies of a key on all nodes.
    fn drop_in_doubt(&self, key: &[u8]) -> bool;
    /// What waits to be written to the system of record is written now; returns how many keys that are.
    fn hurry_writes(&self) -> usize;
    /// How many keys wait to be written to the system of record.
    fn queued_writes(&self) -> usize;
    /// Whether it holds a journal: that of a node that has stopped is closed in a moment.
    fn holds_journal(&self) -> bool;
    /// This node is about to leave: peers get all that only it has.
    fn hand_over(&self);
    /// Which peers have all that this node has.
    fn handed_over(&self) -> HandedOver;
    /// Whether all connected peers have applied all that was written here.
    fn is_drained(&self) -> bool;
    /// Tells the peers that this node leaves.
    fn leave(&self);
    /// The node stops: nobody is answered any more.
    fn close(&self);
}

impl<V: Payload> CachePort for Shell<V> {
    fn name(&self) -> &str {
        &self.name
    }

    fn settings(&self) -> &Settings {
        &self.settings
    }

    fn is_ready(&self) -> bool {
        Self::is_ready(self)
    }

    fn stats(&self) -> CacheStats {
        Self::stats(self)
    }

    fn held(&self) -> Held {
        self.machine.lock().core.held()
    }

    fn freshness(&self) -> Freshness {
        Self::freshness(self)
    }

    fn clock_bound(&self) -> Duration {
        Self::clock_bound(self)
    }

    fn status(&self) -> Status {
        Self::status(self)
    }

    fn audit_report(&self) -> AuditReport {
        Self::audit_report(self)
    }

    fn is_leased(&self) -> bool {
        super::is_leased(self.gate.bound(), self.node.quick())
    }

    fn into_any(self: Arc<Self>) -> Arc<dyn Any + Send + Sync> {
        self
    }

    fn peer_up(&self, peer: NodeId, epoch: Epoch) {
        self.step(|core, out| core.peer_up(self.node.now(), peer, epoch, out));
    }

    fn peer_down(&self, peer: NodeId) {
        self.step(|core, out| core.peer_down(self.node.now(), peer, out));
    }

    fn peer_left(&self, peer: NodeId) {
        self.step(|core, out| core.peer_left(self.node.now(), peer, out));
    }

    fn unreached(&self, peer: NodeId) {
        self.machine.lock().core.unreached(peer);
    }

    fn member_up(&self, peer: NodeId, epoch: Epoch) {
        self.step(|core, _| core.member_up(self.node.now(), peer, epoch));
    }

    fn peer_dead(&self, peer: NodeId) {
        self.step(|core, out| core.peer_dead(self.node.now(), peer, out));
    }

    fn on_frame(&self, from: NodeId, frame: &Frame) -> Result<(), WireError> {
        let message = wire::decode::<V>(frame)?;
        if matches!(message, CacheMessage::Probe { .. }) {
            self.sees_probes();
        }
        self.step(|core, out| core.handle(self.node.now(), from, message, out));
        Ok(())
    }

    fn fill(&self, peer: NodeId, lane: Lane, budget_bytes: usize, buffer: &mut BytesMut) -> bool {
        while buffer.len() < budget_bytes {
            let message = {
                let mut machine = self.machine.lock();
                let Machine { core, out } = &mut *machine;
                let left = budget_bytes - buffer.len();
                let message = core.poll_transmit(self.node.now(), peer, lane, left, out);
                self.carry_out(&mut machine);
                message
            };
            let Some(message) = message else { return false };
            // Encoded outside the lock: the values are shared, and writers go on meanwhile.
            if let Err(error) = wire::encode(self.id, &message, FrameLimit::MAX, buffer) {
                tracing::error!(cache = %self.name, %error, "a message cannot be sent");
            }
        }
        true
    }

    fn tick(&self) -> bool {
        self.store.tick(TICK_BUDGET);
        let now = self.node.now();
        let machine = self.machine.lock();
        let (due, paced) = (machine.core.next_tick() <= now, machine.core.is_paced(now));
        drop(machine);
        if due {
            self.step(|core, out| core.tick(now, out));
        }
        paced
    }

    fn drop_in_doubt(&self, key: &[u8]) -> bool {
        Self::drop_in_doubt(self, key)
    }

    fn hurry_writes(&self) -> usize {
        self.hurry_and_count()
    }

    fn queued_writes(&self) -> usize {
        self.queued_keys()
    }

    fn holds_journal(&self) -> bool {
        Self::holds_journal(self)
    }

    fn hand_over(&self) {
        self.step(|core, out| core.hand_over(self.node.now(), out));
    }

    fn handed_over(&self) -> HandedOver {
        self.machine.lock().core.handed_over()
    }

    fn is_drained(&self) -> bool {
        let peers = Self::freshness(self).per_peer;
        peers
            .iter()
            .all(|peer| peer.unacknowledged == 0 || !self.node.links().is_connected(peer.peer))
    }

    fn leave(&self) {
        let mut machine = self.machine.lock();
        let Machine { core, out } = &mut *machine;
        core.leave(self.node.now(), out);
        self.carry_out(&mut machine);
    }

    fn close(&self) {
        self.waiters.abandon();
        self.wake_writers();
        self.changes.close();
        self.ready.send_replace(true);
    }
}
