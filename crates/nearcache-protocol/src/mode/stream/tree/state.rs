//! What a node keeps for the tree: beside the peers, and of each of them.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use nearcache_store::NodeId;

use super::far::Far;
use super::log::RelayLog;
use crate::config::ReplicationConfig;
use crate::ids::StreamId;
use crate::overlay::{self, Place};
use crate::payload::Payload;
use crate::time::Time;

/// Pieces of streams that a peer may have asked for and not got yet; what it asks beyond that is forgotten, and asked again.
pub(super) const REPLAYS_MAX: usize = 256;

/// The tree of one cache on one node.
#[derive(Debug)]
pub(in crate::mode) struct Relay<V> {
    pub(super) here: Place,
    /// There are more members than a full mesh may have: peers are asked to send by the tree.
    pub(super) on: bool,
    pub(super) log: RelayLog<V>,
    /// The peers that take what we send by the tree, by their distance ahead on the ring.
    pub(super) ring: Vec<(u64, NodeId)>,
    pub(super) members: Members,
    /// What is known of members that we are not connected to.
    pub(super) far: BTreeMap<NodeId, Far>,
    /// Streams of which a peer was asked for more, and until when nobody else is.
    pub(super) wanted: BTreeMap<StreamId, Time>,
    /// When to look for what is missing; [`Time::MAX`] if nothing is known to be.
    pub(super) look_at: Time,
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

/// Who is alive, and when that changed.
#[derive(Debug, Default)]
pub(super) struct Members {
    known: BTreeMap<NodeId, (bool, u64)>,
    changes: BTreeMap<u64, NodeId>,
    changed: u64,
}

impl<V: Payload> Relay<V> {
    pub(in crate::mode) fn new(me: NodeId, config: &ReplicationConfig) -> Self {
        Self {
            here: overlay::place_of(me),
            on: false,
            log: RelayLog::new(config.relay_updates_max, config.relay_bytes_max),
            ring: Vec::new(),
            members: Members::default(),
            far: BTreeMap::new(),
            wanted: BTreeMap::new(),
            look_at: Time::MAX,
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
    pub(in crate::mode) fn alive(&self) -> usize {
        self.members
            .known
            .values()
            .filter(|(alive, _)| *alive)
            .count()
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

impl Members {
    /// Returns whether anything has changed.
    fn note(&mut self, node: NodeId, alive: bool) -> bool {
        let former = self.known.get(&node).copied();
        if former.map_or(!alive, |(was, _)| was == alive) {
            return false;
        }
        self.changed += 1;
        if let Some((_, at)) = former {
            self.changes.remove(&at);
        }
        self.known.insert(node, (alive, self.changed));
        self.changes.insert(self.changed, node);
        true
    }

    /// Who came or went after the change counted `since`, at most so many, and the count of the last one told.
    pub(super) fn changed_since(&self, since: u64, max: usize) -> (Vec<(NodeId, bool)>, u64) {
        let mut told = self.changed.max(since);
        let mut members = Vec::new();
        for (at, node) in self.changes.range(since.saturating_add(1)..) {
            if members.len() == max {
                break;
            }
            told = *at;
            let alive = self.known.get(node).is_some_and(|(alive, _)| *alive);
            members.push((*node, alive));
        }
        (members, told)
    }

    pub(super) fn is_alive(&self, node: NodeId) -> bool {
        self.known.get(&node).is_some_and(|(alive, _)| *alive)
    }

    pub(super) const fn changes(&self) -> u64 {
        self.changed
    }
}
