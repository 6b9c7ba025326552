//! One cache on one node: its store, its clock and the machine of its mode.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Change, Expiry, Handle, Merged, NodeId, Store, Tags};

use crate::announce::ModeKind;
use crate::clock::Hlc;
use crate::config::ReplicationConfig;
use crate::ids::{Epoch, WaiterId};
use crate::lane::Lane;
use crate::load::lease::Lease;
use crate::machine::Machine;
use crate::message::CacheMessage;
use crate::mode::invalidation::Invalidation;
use crate::mode::local::Local;
use crate::mode::replicated::Replicated;
use crate::mode::{
    Ack, Freshness, HandedOver, Held, Mode, ModeStats, Output, Published, ReadBound, Status, Waiter,
};
use crate::modify::ModifyOp;
use crate::payload::{CodecTag, Payload};
use crate::probe::audit::AuditReport;
use crate::probe::{self, Probes, View};
use crate::rendezvous::PlacementKey;
use crate::time::Time;

/// How long a probe outlives the last one.
const PROBE_LASTS: Duration = Duration::from_secs(5 * 60);

/// The machine of one cache.
///
/// Reads and the merge of local writes go to [`store`](Self::store) without it; the shell keeps the machine behind one
/// lock and calls [`publish`](Self::publish) for every local write that the store accepted.
pub struct CacheCore<V: Payload> {
    store: Arc<Store<V>>,
    clock: Arc<Hlc>,
    placement: PlacementKey,
    mode: Box<dyn Mode<V>>,
    probes: Probes,
}

/// What a look at a key sees. Not a method: the probes are changed meanwhile.
macro_rules! view {
    ($core:expr) => {
        View {
            store: &$core.store,
            clock: &$core.clock,
            bound: $core.mode.read_bound(),
            ready: $core.mode.is_ready(),
            placement: $core.placement,
            by_tree: $core.mode.is_by_tree(),
        }
    };
}

impl<V: Payload> CacheCore<V> {
    /// A cache of the mode that `config.agreement` names, on a node in epoch `epoch`. It starts at `now`.
    #[must_use]
    pub fn new(
        now: Time,
        store: Arc<Store<V>>,
        clock: Arc<Hlc>,
        epoch: Epoch,
        placement: PlacementKey,
        config: ReplicationConfig,
    ) -> Self {
        let probes = Probes::new(config.agreement.mode, epoch);
        let mode: Box<dyn Mode<V>> = match config.agreement.mode {
            ModeKind::Local => Box::new(Local::new(Arc::clone(&store), Arc::clone(&clock))),
            ModeKind::Replicated => Box::new(Replicated::new(
                now,
                Arc::clone(&store),
                Arc::clone(&clock),
                epoch,
                placement,
                config,
            )),
            ModeKind::Invalidation => Box::new(Invalidation::new(
                now,
                Arc::clone(&store),
                Arc::clone(&clock),
                epoch,
                config,
            )),
        };
        Self {
            store,
            clock,
            placement,
            mode,
            probes,
        }
    }

    /// The entries.
    #[must_use]
    pub const fn store(&self) -> &Arc<Store<V>> {
        &self.store
    }

    /// The clock that stamps this node's writes.
    #[must_use]
    pub const fn clock(&self) -> &Arc<Hlc> {
        &self.clock
    }

    /// Tells the peers of a local write that the store has accepted.
    ///
    /// Returns its number in this node's stream (0 in mode `local`). With an `ack` other than [`Ack::Local`] and a
    /// waiter, the waiter is told [`Outcome::Acked`](crate::mode::Outcome::Acked). Cost: O(1), about 200 ns; O(peers)
    /// when some peer has nothing to pull yet. Allocates only when the replay buffer grows.
    pub fn publish(
        &mut self,
        now: Time,
        published: Published<V>,
        ack: Ack,
        waiter: Option<Waiter>,
        out: &mut Vec<Output<V>>,
    ) -> u64 {
        self.mode.publish(now, published, ack, waiter, out)
    }

    /// All three connections to a peer stand. To be told once for each session, and of its end by [`peer_down`](Self::peer_down) before
    /// the next: what the peer has said so far is forgotten.
    pub fn peer_up(&mut self, now: Time, peer: NodeId, epoch: Epoch, out: &mut Vec<Output<V>>) {
        self.probes.member(peer, true);
        self.mode.peer_up(now, peer, epoch, out);
    }

    /// A connection to the peer is gone, whatever the reason. It may come back.
    pub fn peer_down(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        let by_tree = self.mode.is_by_tree();
        self.probes.lost(now, peer, by_tree, out);
        self.mode.peer_down(now, peer, out);
    }

    /// Beyond the mesh: no connection could be opened to carry an [`Output::Reach`] to the member.
    pub fn unreached(&mut self, peer: NodeId) {
        self.probes.unreached(peer);
    }

    /// Membership knows a live node, and which start of it lives, whether this one is connected to it or not: a write with [`Ack::All`] waits
    /// for it too, and what is told of its former starts no longer concerns it.
    pub fn member_up(&mut self, now: Time, peer: NodeId, epoch: Epoch) {
        self.probes.heard_of(peer);
        self.mode.member_up(now, peer, epoch);
    }

    /// The node has left the cluster on purpose: nobody waits for it any more.
    pub fn peer_left(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        self.probes.gone(peer, out);
        self.mode.peer_left(now, peer, out);
    }

    /// Membership has declared the node dead: nobody waits for it any more, and its last updates are looked for elsewhere.
    pub fn peer_dead(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        self.probes.died(peer, out);
        self.mode.peer_dead(now, peer, out);
    }

    /// The next message for `peer` on `lane` ([`Lane::Data`] or [`Lane::Bulk`]), of about `budget_bytes` encoded, or
    /// nothing. Values are shared, not copied.
    ///
    /// Call it when [`Output::Transmit`] says so and the connection has room, until it returns nothing.
    pub fn poll_transmit(
        &mut self,
        now: Time,
        peer: NodeId,
        lane: Lane,
        budget_bytes: usize,
        out: &mut Vec<Output<V>>,
    ) -> Option<CacheMessage<V>> {
        self.mode.poll_transmit(now, peer, lane, budget_bytes, out)
    }

    /// Read-modify-write, serialised at the key's home node (design §6.7). In a netsplit it promises no more than
    /// that the last writer wins.
    ///
    /// The waiter is told [`Outcome::Modified`](crate::mode::Outcome::Modified) by its deadline.
    pub fn modify(
        &mut self,
        now: Time,
        key: Bytes,
        op: ModifyOp<V>,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    ) {
        self.mode.modify(now, key, op, waiter, out);
    }

    /// Asks peers for a key that is missing here while this node is not ready.
    ///
    /// The waiter is told [`Outcome::Found`](crate::mode::Outcome::Found) by its deadline; if `true`, the entry is in the store.
    pub fn find(&mut self, now: Time, key: Bytes, waiter: Waiter, out: &mut Vec<Output<V>>) {
        self.mode.find(now, key, waiter, out);
    }

    /// A key is about to be loaded with a loader that takes at most `lease_for`: asks whether another node loads it.
    ///
    /// The waiter is told [`Outcome::Turn`](crate::mode::Outcome::Turn) by its deadline; at once except in mode `replicated`.
    pub fn begin_load(
        &mut self,
        now: Time,
        key: Bytes,
        lease_for: Duration,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    ) {
        self.mode.begin_load(now, key, lease_for, waiter, out);
    }

    /// A load that had a lease is over, with the entry that was stored and published if one was. Others wait for this.
    pub fn end_load(
        &mut self,
        now: Time,
        lease: Lease,
        stored: Option<&Handle<V>>,
        out: &mut Vec<Output<V>>,
    ) {
        self.mode.end_load(now, lease, stored, out);
    }

    /// Makes sure that this node has all that its peers had at `since`, a time not after `now`.
    ///
    /// The waiter is told [`Outcome::Fresh`](crate::mode::Outcome::Fresh) by its deadline.
    pub fn refresh(&mut self, now: Time, since: Time, waiter: Waiter, out: &mut Vec<Output<V>>) {
        self.mode.refresh(now, since, waiter, out);
    }

    /// What a read must compare the clock with (design §6.4, I9). Ask again after every call that takes `&mut self`; it changes at
    /// no other time. Cost: O(peers) at most.
    #[must_use]
    pub fn read_bound(&self) -> ReadBound {
        self.mode.read_bound()
    }

    /// Until when local writes may be made; after it the shell refuses them, because this node is not with most of its cluster and
    /// the cache is set to be read-only then. Ask again after every call that takes `&mut self`; it changes at no other time.
    #[must_use]
    pub fn write_until(&self) -> Time {
        self.mode.write_until()
    }

    /// The largest possible distance between this node's clock and that of any other, as measured by echoes; the drift bound
    /// where it is not known (design §6.2). Cost: O(peers).
    #[must_use]
    pub fn clock_bound(&self, now: Time) -> Duration {
        self.mode.clock_bound(now)
    }

    /// The [`clock_bound`](Self::clock_bound) for a load that begins now. While there are loads the peers' clocks are measured more often.
    pub fn clock_bound_of_load(&mut self, now: Time) -> Duration {
        self.mode.loads_begin(now);
        self.mode.clock_bound(now)
    }

    /// Whether something is being sent at a limited rate, or the store gone through in small steps. Meanwhile a
    /// [`tick`](Self::tick) every millisecond spreads it evenly; with fewer it goes in bursts, and slower.
    #[must_use]
    pub fn is_paced(&self, now: Time) -> bool {
        self.mode.is_paced(now)
    }

    /// Whether peers may hold what is missing here, so that [`find`](Self::find) is worth calling.
    #[must_use]
    pub fn finds(&self) -> bool {
        self.mode.finds()
    }

    /// The caller no longer waits; what it started goes on.
    pub fn forget(&mut self, waiter: WaiterId) {
        self.probes.forget(waiter);
        self.mode.forget(waiter);
    }

    /// This node is about to leave: from now on it decides no read-modify-writes and makes sure that its peers have all that it has.
    /// The shell must let no local writes in any more.
    pub fn hand_over(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        self.mode.hand_over(now, out);
    }

    /// Who has all that this node has, since [`hand_over`](Self::hand_over). Cost: O(peers × streams).
    #[must_use]
    pub fn handed_over(&self) -> HandedOver {
        self.mode.handed_over()
    }

    /// Tells the peers that this node leaves for good.
    pub fn leave(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        self.mode.leave(now, out);
    }

    /// How old this node's knowledge of each peer is (design §6.4). Cost: O(peers), allocates.
    #[must_use]
    pub fn freshness(&self, now: Time) -> Freshness {
        self.mode.freshness(now)
    }

    /// The state of this cache in one word.
    #[must_use]
    pub fn status(&self, now: Time) -> Status {
        self.mode.status(now)
    }

    /// Whether this node is filled, so that a miss is a miss.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.mode.is_ready()
    }

    /// Asks every member how a key stands there; values do not travel. Members without a session are asked beyond the mesh too, 16 at a
    /// time; for at most four callers at once. Cost: O(members).
    ///
    /// The waiter is told [`Outcome::Inspected`](crate::mode::Outcome::Inspected) by its deadline.
    pub fn inspect(&mut self, now: Time, key: &Bytes, waiter: Waiter, out: &mut Vec<Output<V>>) {
        let view = view!(self);
        self.probes.inspect(now, key, waiter, &view, out);
    }

    /// Writes a probe every so often from now on, for good, or `until` then besides what goes on for good, and asks peers what they have of it: up to
    /// [`PEERS_MAX`](crate::probe::audit::PEERS_MAX) that there is a session with, and beyond the mesh up to
    /// [`FAR_MAX`](crate::probe::audit::FAR_MAX) others. Nothing: no more of either.
    /// Never more often than [`EVERY_MIN`](crate::probe::audit::EVERY_MIN); in mode `local` there is nobody to ask.
    pub fn audit(&mut self, now: Time, every: Option<Duration>, until: Option<Time>) {
        self.probes.audit.schedule(now, every, until);
    }

    /// What came of the probes so far. Cost: O(peers), allocates.
    #[must_use]
    pub fn audit_report(&self, now: Time) -> AuditReport {
        self.probes.report(now)
    }

    /// Writes a probe, if one is due.
    fn write_probe(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if !self.probes.audit.is_due(now) {
            return;
        }
        let key = probe::probe_key(self.clock.origin());
        let change = Change::Put {
            value: V::from_wire(CodecTag::default(), &[]),
            expiry: Expiry::after(self.clock.physical_ms(now), PROBE_LASTS),
            tags: Tags::NONE,
        };
        let may_write = now <= self.mode.write_until();
        let stamp = self.clock.stamp(now).ok().filter(|_| may_write);
        let written = stamp.and_then(|version| match self.store.merge(&key, version, change) {
            Ok(Merged::Applied { entry, .. }) => entry,
            _ => None,
        });
        let Some(entry) = written else {
            self.probes.audit.skipped();
            return;
        };
        let version = entry.version();
        self.mode
            .publish(now, Published::Entry(entry), Ack::Local, None, out);
        let peers = self.mode.freshness(now).per_peer;
        let peers: Vec<NodeId> = peers.into_iter().map(|peer| peer.peer).collect();
        let view = view!(self);
        self.probes.wrote(now, (&key, version), &peers, &view, out);
    }

    /// How much the machine holds of what has a bound.
    #[must_use]
    pub fn held(&self) -> Held {
        self.mode.held()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> ModeStats {
        self.mode.stats()
    }
}

impl<V: Payload> Machine for CacheCore<V> {
    type Message = CacheMessage<V>;
    type Output = Output<V>;

    fn handle(
        &mut self,
        now: Time,
        from: NodeId,
        message: CacheMessage<V>,
        out: &mut Vec<Output<V>>,
    ) {
        let changes = match message {
            CacheMessage::Probe { request, message } => {
                let view = view!(self);
                self.probes
                    .handle(now, from, (request, message), &view, out);
                return;
            }
            CacheMessage::Updates(_)
            | CacheMessage::Relayed(_)
            | CacheMessage::TransferChunk { .. }
            | CacheMessage::AntiEntropy { .. } => true,
            _ => false,
        };
        self.mode.handle(now, from, message, out);
        if changes {
            let view = view!(self);
            self.probes.settle(now, &view, out);
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        self.mode.tick(now, out);
        if self.probes.next_tick() <= now {
            self.write_probe(now, out);
            let view = view!(self);
            self.probes.tick(now, &view, out);
        }
    }

    fn next_tick(&self) -> Time {
        self.mode.next_tick().min(self.probes.next_tick())
    }
}

impl<V: Payload> fmt::Debug for CacheCore<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheCore")
            .field("mode", &self.mode)
            .finish_non_exhaustive()
    }
}
