//! C11: nobody says that it is fresher than it is.
//!
//! Every node says two things: how long ago it had all of a peer's updates, and how long ago it had those of all. Both are promises
//! about writes that are known here with the time at which they were made, by the one clock that counts pauses and suspends. A
//! promise that was kept stays kept within a node's life (C2), so each write is looked at once per reader.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nearcache_protocol::ids::Epoch;
use nearcache_protocol::probe::is_reserved;
use nearcache_protocol::time::Time;
use nearcache_store::{Known, NodeId, Scope, Tags, Version};

use super::Broken;
use crate::node::{Heard, Node};

/// One start of a node.
pub(crate) type Start = (NodeId, Epoch);

/// A write, by the key that it concerns.
#[derive(Debug)]
struct Told {
    at: Time,
    key: Vec<u8>,
    version: Version,
}

/// What has been written, and whom each node knows to be there.
#[derive(Debug, Default)]
pub(crate) struct Freshness {
    /// Writes of each start of a node, oldest first.
    told: BTreeMap<Start, Vec<Told>>,
    /// How many of them a host was seen to have.
    seen: BTreeMap<(usize, Start), usize>,
    /// The members that a host has heard of and not seen gone.
    members: BTreeMap<(usize, NodeId), Epoch>,
    untold: BTreeSet<Version>,
    /// The newest invalidation of a tag on any host.
    tagged: Option<Version>,
    /// All invalidations of prefixes and of everything.
    grouped: BTreeSet<(Scope, Version)>,
    flushed: BTreeMap<usize, Time>,
    /// When a start of a node dropped what it held, for a split.
    dropped: BTreeMap<Start, Time>,
}

impl Freshness {
    /// The host's node is gone.
    pub(crate) fn forget(&mut self, host: usize) {
        self.seen.retain(|(at, _), _| *at != host);
        self.members.retain(|(at, _), _| *at != host);
        self.flushed.remove(&host);
    }

    /// The host has heard of a member.
    pub(crate) fn meets(&mut self, host: usize, node: NodeId, epoch: Epoch) {
        self.members.insert((host, node), epoch);
    }

    /// The host holds a member for gone: it counts no longer.
    pub(crate) fn parts(&mut self, host: usize, node: NodeId) {
        self.members.remove(&(host, node));
    }

    /// The node's store has changed: what it wrote itself, in this life, others must have before they call themselves fresh.
    pub(crate) fn observe(&mut self, now: Time, node: &Node, heard: &[Heard]) {
        // A copy of a probe is made where it is looked at, and told to nobody: the audit judges of those keys.
        let is_told = |change: &&Heard| {
            node.is_known(now)
                && !is_reserved(&change.key)
                && node.has_made(change.version)
                && !self.untold.contains(&change.version)
        };
        for change in heard.iter().filter(is_told) {
            let told = self.told.entry((node.id, node.epoch)).or_default();
            if told.last().is_none_or(|last| last.version < change.version) {
                told.push(Told {
                    at: now,
                    key: change.key.clone(),
                    version: change.version,
                });
            }
        }
    }

    /// Whoever makes this version tells nobody of it: a value that was loaded, or a bug on purpose.
    pub(crate) fn untold(&mut self, version: Version) {
        self.untold.insert(version);
    }

    /// All was dropped on a host: what is not held needs no invalidation.
    pub(crate) fn flushed(&mut self, host: usize, now: Time) {
        self.flushed.insert(host, now);
    }

    /// A node has dropped what it held, for a split: whoever is filled by its side does without that, and serves nothing before the others have
    /// filled it.
    pub(crate) fn dropped(&mut self, host: usize, node: &Node, now: Time) {
        self.flushed(host, now);
        self.dropped.insert((node.id, node.epoch), now);
    }

    /// A group was invalidated on some host.
    pub(crate) fn invalidated(&mut self, scope: &Scope, version: Version) {
        if matches!(scope, Scope::Tag(_)) {
            self.tagged = self.tagged.max(Some(version));
        } else {
            self.grouped.insert((scope.clone(), version));
        }
    }

    /// What the host's node says of each of its peers.
    pub(crate) fn check(&mut self, now: Time, host: usize, node: &Node) -> Result<(), Broken> {
        for peer in node.core.freshness(node.time(now)).per_peer {
            let epoch = self.members.get(&(host, peer.peer)).copied();
            if let (Some(age), Some(epoch)) = (peer.age, epoch) {
                self.has_all(
                    host,
                    node,
                    (peer.peer, epoch),
                    ago(now, node.in_virtual_time(age)),
                )?;
            }
        }
        Ok(())
    }

    /// What it says of all it has heard of, where every node holds every entry.
    pub(crate) fn check_all(
        &mut self,
        now: Time,
        (host, node): (usize, &Node),
        departed: &BTreeMap<Start, Time>,
    ) -> Result<(), Broken> {
        let Some((as_of, members)) = self.claim(now, (host, node), departed) else {
            return Ok(());
        };
        members
            .into_iter()
            .try_for_each(|member| self.has_all(host, node, member, as_of))
    }

    /// Since when the node says that it has everything, and of whom; nothing if it does not know.
    ///
    /// Who has left counts no longer once its cache has said so, which may be heard before its membership's goodbye.
    pub(crate) fn claim(
        &self,
        now: Time,
        (host, node): (usize, &Node),
        departed: &BTreeMap<Start, Time>,
    ) -> Option<(Time, Vec<Start>)> {
        let age = node.core.read_bound().worst_age(node.time(now))?;
        let members = self.members.iter().filter(|((at, _), _)| *at == host);
        let members = members.map(|((_, id), epoch)| (*id, *epoch));
        let members = members.filter(|start| !departed.contains_key(start));
        Some((ago(now, node.in_virtual_time(age)), members.collect()))
    }

    /// The host has all that the peer had written before `as_of`.
    fn has_all(
        &mut self,
        host: usize,
        node: &Node,
        peer: Start,
        as_of: Time,
    ) -> Result<(), Broken> {
        let Some(told) = self.told.get(&peer) else {
            return Ok(());
        };
        let flushed = self.flushed.get(&host).copied();
        let flushed = flushed.max(self.dropped.get(&peer).copied());
        let seen = self.seen.entry((host, peer)).or_default();
        while let Some(next) = told.get(*seen).filter(|next| next.at < as_of) {
            let floors = node.store.floors().into_iter();
            let floors = floors.filter(|(scope, _)| scope.covers(&next.key, &Tags::NONE));
            let floor = floors.map(|(_, floor)| floor).max();
            let known = node.store.known(&next.key).version();
            // Where its tag was invalidated the write is gone, and a comparison with that node no longer tells of it. The tags it
            // was written with are not remembered here: any may have been one of them.
            let is_gone = flushed.is_some_and(|at| at >= next.at)
                || self.tagged.is_some_and(|floor| floor > next.version);
            // A group invalidation that overtook it on the way makes it a miss here, which is not older than that.
            let is_miss = matches!(node.store.known(&next.key), Known::Absent { .. })
                && self.grouped.iter().any(|(scope, floor)| {
                    *floor > next.version && scope.covers(&next.key, &Tags::NONE)
                });
            let is_gone = is_gone || is_miss;
            if !is_gone && floor.map_or(known, |floor| known.max(floor)) < next.version {
                let what = format!(
                    "n{host} says that it has all of {peer:?} as of {as_of:?} and lacks {next:?}"
                );
                return Err(("C11", what));
            }
            *seen += 1;
        }
        Ok(())
    }
}

fn ago(now: Time, age: Duration) -> Time {
    Time::ZERO + (now - Time::ZERO).saturating_sub(age)
}
