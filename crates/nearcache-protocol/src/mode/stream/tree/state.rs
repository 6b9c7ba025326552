//! What a node keeps for the tree: beside the peers, and of each of them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::time::Duration;

use nearcache_store::NodeId;

use super::far::Far;
use super::log::RelayLog;
use super::members::Members;
use crate::config::ReplicationConfig;
use crate::ids::{Epoch, StreamId};
use crate::message::Runs;
use crate::overlay::{self, Place};
use crate::payload::Payload;
use crate::time::Time;

/// Pieces of streams that a peer may have asked for and not got yet; what it asks beyond that is forgotten, and asked again.
pub(super) const REPLAYS_MAX: usize = 256;

/// A node whose heartbeat is later than so many of them was paused (guess).
const LATE_HEARTBEATS: u32 = 3;

/// The tree of one cache on one node.
#[derive(Debug)]
pub(in crate::mode) struct Relay<V> {
    pub(super) here: Place,
    /// There are more members than a full mesh may have: peers are asked to send by the tree.
    pub(super) on: bool,
    /// Since when there are not, while they still are.
    pub(super) small_since: Option<Time>,
    pub(super) log: RelayLog<V>,
    /// The peers that take what we send by the tree, by their distance ahead on the ring.
    pub(super) ring: Vec<(u64, NodeId)>,
    pub(super) members: Members,
    /// When a neighbour in the tree was last told how far this node is: others may have their leases by that.
    pub(in crate::mode) told_at: Option<Time>,
    /// What is known of members that we are not connected to.
    pub(super) far: BTreeMap<NodeId, Far>,
    /// Streams of which a peer was asked for more, and until when nobody else is.
    pub(super) wanted: BTreeMap<StreamId, Time>,
    /// When to look for what is missing; [`Time::MAX`] if nothing is known to be.
    pub(super) look_at: Time,
    /// The last heartbeat, and since when none was late.
    beaten: Time,
    steady_since: Time,
}

/// The tree, as far as it concerns one connected peer.
#[derive(Debug, Default)]
pub(in crate::mode) struct Branch {
    /// It takes the tree: all before this position of the relay log has been handed to the connection.
    pub(in crate::mode) cursor: Option<u64>,
    /// Pieces of streams that it asked for: `(after, through]`.
    pub(super) replays: VecDeque<(StreamId, u64, u64)>,
    /// Streams in which it is known to be further than we are, how far, and since when.
    pub(super) ahead: BTreeMap<StreamId, (u64, Time)>,
    /// Up to which change of its progress and of its members it has told us.
    pub(super) told: (u64, u64),
    /// The members that it holds for alive, by their places on the ring.
    pub(super) knows: BTreeMap<Place, NodeId>,
}

impl<V: Payload> Relay<V> {
    pub(in crate::mode) fn new(me: NodeId, config: &ReplicationConfig) -> Self {
        Self {
            here: overlay::place_of(me),
            on: false,
            small_since: None,
            log: RelayLog::new(config.relay_updates_max, config.relay_bytes_max),
            ring: Vec::new(),
            members: Members::default(),
            told_at: None,
            far: BTreeMap::new(),
            wanted: BTreeMap::new(),
            look_at: Time::MAX,
            beaten: Time::ZERO,
            steady_since: Time::ZERO,
        }
    }

    /// Whether peers are asked to send by the tree.
    pub(in crate::mode) const fn is_on(&self) -> bool {
        self.on
    }

    /// When to look for what is missing.
    pub(in crate::mode) const fn look_at(&self) -> Time {
        self.look_at
    }

    /// Takes note of a member that lives, or of one that is gone.
    pub(in crate::mode) fn member(&mut self, node: NodeId, alive: bool) {
        if self.members.note(node, alive) && !alive {
            self.far.remove(&node);
        }
    }

    /// When this node last had all of a member that it is not connected to.
    pub(in crate::mode) fn fresh_at(&self, node: NodeId) -> Option<Time> {
        self.far.get(&node)?.fresh_at
    }

    /// Members alive, this node not counted.
    pub(in crate::mode) const fn alive(&self) -> usize {
        self.members.alive()
    }

    /// Who is alive, in the order of their ids.
    pub(in crate::mode) fn living(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.members.living()
    }

    pub(in crate::mode) fn is_alive(&self, node: NodeId) -> bool {
        self.members.is_alive(node)
    }

    /// Takes note of whether this start of a member runs the cache.
    pub(in crate::mode) fn hear_runs(&mut self, node: NodeId, epoch: Epoch, runs: Runs) {
        self.members.hear_runs(node, epoch, runs);
    }

    /// Whether a member runs the cache, by what it or others said of its newest start; nothing if nobody has.
    pub(in crate::mode) fn runs(&self, node: NodeId) -> Option<bool> {
        self.members.runs(node)
    }

    /// The word on the newest start of a member; nothing if nobody has said any.
    pub(in crate::mode) fn word(&self, node: NodeId) -> Option<Runs> {
        self.members.word(node)
    }

    /// A heartbeat was due, and is sent.
    pub(in crate::mode) fn beats(&mut self, now: Time, every: Duration) {
        if now - self.beaten > every * LATE_HEARTBEATS {
            self.steady_since = now;
        }
        self.beaten = now;
    }

    /// Whether this node has run without a pause for so long: after one, what was lost meanwhile is noticed late.
    pub(in crate::mode) fn has_run(&self, now: Time, every: Duration, time: Duration) -> bool {
        now - self.beaten <= every * LATE_HEARTBEATS && now - self.steady_since >= time
    }

    /// Everything that a member had at `at` is here.
    pub(in crate::mode) fn knew(&mut self, node: NodeId, at: Time) {
        if self.members.is_alive(node) {
            self.far.entry(node).or_default().reached(at);
        }
    }

    /// Over how many neighbours what is told comes at most, about.
    pub(in crate::mode) fn hops_max(&self) -> u32 {
        if self.on {
            self.alive().checked_ilog2().unwrap_or(0) + 1
        } else {
            1
        }
    }

    /// Where the responsibility of the peer at `ahead` ends, if ours ends at `range`, as a distance ahead of us.
    pub(super) fn end_of(&self, ahead: u64, range: u64) -> u64 {
        let next = self.ring.partition_point(|(at, _)| *at <= ahead);
        self.ring.get(next).map_or(range, |(at, _)| range.min(*at))
    }
}

impl Branch {
    /// The members that it holds for alive, from its own place `there` on, over `range`.
    pub(super) fn known_in(&self, there: Place, range: u64) -> impl Iterator<Item = NodeId> + '_ {
        let until = there.wrapping_add(range);
        let (first, second) = if until >= there {
            (Bound::Excluded(until), Bound::Excluded(0))
        } else {
            // Over the end of the ring.
            (Bound::Unbounded, Bound::Excluded(until))
        };
        let first = (Bound::Included(there), first);
        let second = (Bound::Included(0), second);
        let ahead = self.knows.range(first).chain(self.knows.range(second));
        ahead.map(|(_, node)| *node)
    }

    /// The streams in which it is known to be further than we were, how far, and since when.
    pub(in crate::mode) fn ahead(&self) -> impl Iterator<Item = (StreamId, u64, Time)> + '_ {
        self.ahead
            .iter()
            .map(|(stream, (number, since))| (*stream, *number, *since))
    }
}
