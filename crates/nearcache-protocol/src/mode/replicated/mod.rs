//! Mode `replicated`: every node holds every entry; the newest version wins everywhere.
//!
//! | file | concept |
//! |---|---|
//! | `dispatch` | which of these a message is for |
//! | `members` | members that come, are cut off, leave and die |
//! | `streams` | what an update and a hole in a stream mean here |
//! | `heartbeat` | meeting a peer, telling all how far we are, freshness |
//! | `bound` | how fresh this node is about all that count |
//! | `far` | members that there is no session with |
//! | `view`, `split` | whether this node is with most of its cluster, and what becomes of it if not |
//! | `away` | starting clean after an absence that is longer than removals are remembered |
//! | `clocks` | how far the clocks of all who may write are from this node's |
//! | `leave` | handing over before leaving |
//! | `join`, `filling` | filling a node that has nothing, or too little, from several peers |
//! | `transfer`, `serve`, `pace` | getting a share from a peer, giving it, and how fast |
//! | `compare`, `lists` | finding out where two nodes differ, and exchanging that |
//! | `repair` | what no stream will bring, and whom to ask for it |
//! | `find` | asking peers for one key |
//! | `large` | long values: fetching them, and sending them to those who do |
//! | `modify`, `home` | read-modify-write: the asker's side and the home node's |
//! | `replies` | the home node's last answers, so that nothing is applied twice |
//! | `lease` | who loads a key that is missing everywhere |
//! | `peer` | what is kept about each peer |
//!
//! The log of the own stream ([`Log`]) and the progress in those of others ([`Progress`]) are independent of all this.

mod away;
mod bequeath;
mod bound;
mod clocks;
mod compare;
mod dispatch;
mod far;
mod filling;
mod find;
mod heartbeat;
pub(in crate::mode) mod home;
mod join;
mod large;
mod lease;
mod leave;
mod lists;
mod members;
mod modify;
mod pace;
mod peer;
mod repair;
mod replies;
mod serve;
mod split;
mod streams;
#[cfg(test)]
mod tests;
mod transfer;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Handle, NodeId, Store};

use self::bequeath::Bequest;
use self::bound::{Bound, can_only_help};
use self::compare::Compare;
use self::filling::Filling;
use self::find::Finds;
use self::home::Home;
use self::join::Join;
use self::large::{Large, Pieces};
use self::lease::Leases;
use self::leave::Leave;
use self::lists::Listing;
use self::members::Lost;
use self::modify::Asked;
use self::pace::Pace;
use self::peer::Peer;
use self::repair::Repair;
use self::serve::Page;
use self::split::Split;
use self::transfer::Fetch;
use self::view::View;
use super::refresh::Refreshes;
use super::stream::acks::Acks;
use super::stream::clocks::Clocks;
use super::stream::tree::{Mends as _, Relay};
use super::stream::{Receives as _, Sends as _};
use super::{
    Ack, Freshness, HandedOver, Held, Mode, ModeStats, Output, Published, ReadBound, Status, Waiter,
};
use crate::clock::Hlc;
use crate::config::ReplicationConfig;
use crate::ids::{Epoch, RequestId, StreamId, WaiterId};
use crate::lane::Lane;
use crate::load::lease::Lease;
use crate::log::Log;
use crate::message::CacheMessage;
use crate::modify::ModifyOp;
use crate::payload::Payload;
use crate::planted::PlantedBug;
use crate::progress::Progress;
use crate::rendezvous::PlacementKey;
use crate::time::Time;

/// The strategy of mode `replicated`.
pub struct Replicated<V: Payload> {
    store: Arc<Store<V>>,
    clock: Arc<Hlc>,
    epoch: Epoch,
    placement: PlacementKey,
    config: ReplicationConfig,
    planted: PlantedBug,
    log: Log<V>,
    progress: Progress,
    peers: BTreeMap<NodeId, Peer>,
    /// Live members that are not connected, and dead ones that were.
    lost: BTreeMap<NodeId, Lost>,
    acks: Acks,
    relay: Relay<V>,
    bound: Bound,
    join: Join,
    view: View,
    split: Split,
    repair: Repair,
    /// What fills this node, and the transfers of it by the peer that they come from.
    filling: Option<Filling>,
    fetches: BTreeMap<NodeId, Fetch>,
    pace: Pace,
    leave: Leave,
    bequest: Bequest,
    compare: Compare,
    /// Lists that peers get from us, by peer and whether we asked for the comparison.
    lists: BTreeMap<(NodeId, bool), Listing>,
    /// There is something here to compare: a transfer would bring much of it again.
    has_data: bool,
    /// Per peer that is being served, the items of the walk's current page.
    pages: BTreeMap<NodeId, Page<V>>,
    finds: Finds,
    large: Large<V>,
    pieces: Pieces,
    refreshes: Refreshes,
    asked: Asked<V>,
    home: Home<V>,
    leases: Leases,
    last_request: u64,
    next_heartbeat: Time,
    clocks: Clocks,
    /// Some peer has pulled all it could and must be woken by the next update.
    any_asleep: bool,
    stats: ModeStats,
}

impl<V: Payload> Replicated<V> {
    /// A cache that begins to join at `now`.
    #[must_use]
    pub fn new(
        now: Time,
        store: Arc<Store<V>>,
        clock: Arc<Hlc>,
        epoch: Epoch,
        placement: PlacementKey,
        mut config: ReplicationConfig,
    ) -> Self {
        config.inline_limit = config.inline_limit.min(peer::VALUE_BYTES_ON_WIRE_MAX);
        Self {
            has_data: !store.is_empty(),
            compare: Compare::default(),
            lists: BTreeMap::new(),
            relay: Relay::new(clock.origin(), &config),
            store,
            epoch,
            placement,
            planted: config.planted,
            log: Log::new(
                epoch,
                config.planted.replay_max(config.replay_updates_max),
                config.replay_bytes_max,
            ),
            progress: Progress::new(config.streams_max),
            peers: BTreeMap::new(),
            lost: BTreeMap::new(),
            acks: Acks::default(),
            bound: Bound::default(),
            join: Join::new(now + config.join_alone_after),
            view: View::new(clock.origin(), now, split::window(&config)),
            split: Split::default(),
            repair: Repair::default(),
            filling: None,
            fetches: BTreeMap::new(),
            pace: Pace::new(config.transfer_bytes_per_second),
            leave: Leave::default(),
            bequest: Bequest::default(),
            pages: BTreeMap::new(),
            finds: Finds::default(),
            large: Large::default(),
            pieces: Pieces::new(config.fetch_bytes_per_second),
            refreshes: Refreshes::default(),
            asked: Asked::new(),
            home: Home::new(&config),
            leases: Leases::default(),
            last_request: 0,
            next_heartbeat: now,
            clocks: Clocks::default(),
            any_asleep: false,
            stats: ModeStats::default(),
            clock,
            config,
        }
    }

    fn me(&self) -> NodeId {
        self.clock.origin()
    }

    fn own(&self) -> StreamId {
        StreamId {
            origin: self.me(),
            epoch: self.epoch,
        }
    }

    fn next_request(&mut self) -> RequestId {
        self.last_request += 1;
        RequestId(self.last_request)
    }
}

impl<V: Payload> Mode<V> for Replicated<V> {
    fn publish(
        &mut self,
        now: Time,
        published: Published<V>,
        ack: Ack,
        waiter: Option<Waiter>,
        out: &mut Vec<Output<V>>,
    ) -> u64 {
        self.append_stubbed(now, published, ack, waiter, out)
    }

    fn peer_up(&mut self, now: Time, peer: NodeId, epoch: Epoch, out: &mut Vec<Output<V>>) {
        self.connected(now, peer, epoch, out);
    }

    fn peer_down(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        self.disconnected(now, peer, out);
    }

    fn member_up(&mut self, now: Time, peer: NodeId, epoch: Epoch) {
        self.member_found(now, peer, epoch);
    }

    fn peer_left(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        self.member_left(now, peer, out);
        self.note_most(now, out);
    }

    fn peer_dead(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>) {
        self.member_died(now, peer, out);
    }

    fn handle(
        &mut self,
        now: Time,
        from: NodeId,
        message: CacheMessage<V>,
        out: &mut Vec<Output<V>>,
    ) {
        if self.peers.contains_key(&from) {
            let only_helps = can_only_help(&message);
            self.on_message(now, from, message, out);
            self.note_most(now, out);
            if only_helps {
                self.improve_bound(now);
            } else {
                self.work_out_bound(now);
            }
            self.serve_refreshes(now, out);
        }
    }

    fn tick(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        if !self.planted.forgets_ack_deadlines() {
            self.acks.tick(now, out);
        }
        self.judge_silent(now);
        self.work_out_bound(now);
        self.serve_refreshes(now, out);
        self.refreshes.tick(now, out);
        self.tick_finds(now, out);
        self.tick_wanted(now, out);
        self.tick_pieces(now, out);
        self.tick_modifies(now, out);
        self.tick_loads(now, out);
        self.tick_streams(now, out);
        self.tick_tree(now, out);
        self.tick_fetches(now, out);
        self.tick_compare(now, out);
        self.step_lists(now, out);
        self.tick_pace(now, out);
        self.tick_leave(now, out);
        if now >= self.next_heartbeat {
            self.next_heartbeat = now + self.config.heartbeat_every;
            self.forget_lost(now);
            self.forget_dead_streams(now);
            self.note_far();
            self.look_around(now, out);
            self.heartbeat(now, out);
            self.repair(now, out);
        } else if !self.join.is_ready() {
            self.repair(now, out);
        }
        self.measure_clocks(now, out);
    }

    fn next_tick(&self) -> Time {
        [
            self.next_heartbeat,
            self.clocks.next(),
            self.acks.next_deadline(),
            self.finds.next_deadline(),
            self.large.next_tick(),
            self.pieces.next_tick(),
            self.refreshes.next_deadline(),
            self.asked.next_deadline(),
            self.leases.next_deadline(),
            self.next_ask(),
            self.relay.look_at(),
            self.fetch_deadline(),
            self.gather_ends(),
            self.pace.next_deadline(),
            self.leave.next_deadline(),
            self.compare.next_deadline(&self.config),
            self.next_list_step(),
        ]
        .into_iter()
        .fold(Time::MAX, Time::min)
    }

    fn is_paced(&self, now: Time) -> bool {
        self.pace.is_in_use(now) || self.pieces.is_paced(now) || self.is_listing()
    }

    fn poll_transmit(
        &mut self,
        now: Time,
        peer: NodeId,
        lane: Lane,
        budget_bytes: usize,
        _: &mut Vec<Output<V>>,
    ) -> Option<CacheMessage<V>> {
        match lane {
            Lane::Control => None,
            Lane::Data => self.poll_data(peer, budget_bytes),
            Lane::Bulk => self.poll_bulk_lane(now, peer, budget_bytes),
        }
    }

    fn modify(
        &mut self,
        now: Time,
        key: Bytes,
        op: ModifyOp<V>,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    ) {
        self.start_modify(now, key, op, waiter, out);
    }

    fn refresh(&mut self, now: Time, since: Time, waiter: Waiter, out: &mut Vec<Output<V>>) {
        let waiters_max = self.config.waiters_max;
        self.work_out_bound(now);
        self.refreshes.wait(since, waiter, waiters_max, out);
        self.serve_refreshes(now, out);
    }

    fn read_bound(&self) -> ReadBound {
        ReadBound {
            serve_until: self.serve_until_now(),
            ..self.read_bound_now()
        }
    }

    fn write_until(&self) -> Time {
        self.write_until_now()
    }

    fn clock_bound(&self, now: Time) -> Duration {
        self.clock_bound_now(now)
    }

    fn loads_begin(&mut self, now: Time) {
        self.clocks.wanted(now);
    }

    fn find(&mut self, now: Time, key: Bytes, waiter: Waiter, out: &mut Vec<Output<V>>) {
        self.find_for_read(now, key, waiter, out);
    }

    fn forget(&mut self, waiter: WaiterId) {
        if !self.acks.forget(waiter)
            && !self.finds.forget(waiter)
            && !self.large.forget(waiter)
            && !self.refreshes.forget(waiter)
        {
            self.asked.forget(waiter);
            self.leases.forget(waiter);
        }
    }

    fn hand_over(&mut self, now: Time, out: &mut Vec<Output<V>>) {
        self.begin_hand_over(now, out);
    }

    fn handed_over(&self) -> HandedOver {
        self.handed_over_now()
    }

    fn begin_load(
        &mut self,
        now: Time,
        key: Bytes,
        lease_for: Duration,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    ) {
        self.start_load(now, key, lease_for, waiter, out);
    }

    fn end_load(
        &mut self,
        now: Time,
        lease: Lease,
        stored: Option<&Handle<V>>,
        out: &mut Vec<Output<V>>,
    ) {
        self.finish_load(now, lease, stored, out);
    }

    fn leave(&mut self, _: Time, out: &mut Vec<Output<V>>) {
        for to in self.peers.keys() {
            let message = CacheMessage::Leave {
                epoch: self.epoch,
                latest: self.log.latest(),
            };
            out.push(Output::Send { to: *to, message });
        }
    }

    fn freshness(&self, now: Time) -> Freshness {
        self.freshness_now(now)
    }

    fn status(&self, now: Time) -> Status {
        self.status_with_split(now)
    }

    fn is_ready(&self) -> bool {
        self.join.is_ready()
    }

    fn is_by_tree(&self) -> bool {
        self.relay.is_on()
    }

    fn held(&self) -> Held {
        Held {
            replay_updates: self.log.updates(),
            replay_bytes: self.log.bytes(),
            waiters: self.acks.len() + self.asked.len() + self.refreshes.len(),
            streams: self.progress.streams(),
            serving: self.pages.len() + self.lists.len(),
            fetching: self.large.wanted(),
            fetch_bytes: self.large.room_bytes(),
        }
    }

    fn stats(&self) -> ModeStats {
        ModeStats {
            coalesced: self.log.coalesced(),
            ..self.stats
        }
    }
}

impl<V: Payload> fmt::Debug for Replicated<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replicated")
            .field("me", &self.me())
            .field("epoch", &self.epoch)
            .field("latest", &self.log.latest())
            .field("progress", &self.progress)
            .field("peers", &self.peers)
            .field("join", &self.join)
            .field("filling", &self.filling)
            .field("fetches", &self.fetches)
            .field("repair", &self.repair)
            .field("next_heartbeat", &self.next_heartbeat)
            .finish_non_exhaustive()
    }
}
