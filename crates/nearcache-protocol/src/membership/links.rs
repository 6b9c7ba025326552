//! Whom to be connected to beyond a full mesh, and how to reach the others.
//!
//! Links are chosen by [`overlay`] from the live members, and once more from all that are known, dead ones included, so that the parts
//! of a netsplit keep dialling each other, each node only a few. A session that neither end wants is ended by whichever sees it
//! first; it says so, because a session that just breaks makes a member suspect. Where a cache must ask a certain member, such as the home
//! of a key, there is a session with it for a while: each side keeps it for some seconds after the last request.
//!
//! SWIM's gossip goes to links instead of random members: each piece of news is passed on equally often, without a connection for each. Its
//! probes go to whom they are meant for.

use std::time::Duration;

use bytes::Bytes;
use foca::{Codec as _, Message};
use nearcache_store::NodeId;
use rand::RngExt as _;

use super::codec::SwimCodec;
use super::{Membership, MembershipMessage, MembershipOutput};
use crate::identity::Identity;
use crate::overlay;
use crate::time::Time;

/// How often a node looks for sessions that are not wanted.
pub(super) const PRUNE_PERIOD: Duration = Duration::from_secs(2);

/// How long a session that is not wanted stays: the other end may know more (guess: gossip reaches all within it). One of a mesh that held all
/// members stays longer, see [`MembershipConfig::mesh_grace`](super::MembershipConfig::mesh_grace).
const GRACE: Duration = Duration::from_secs(5);

/// The sessions of a mesh end spread over this part of the grace (guess).
const MESH_GRACE_SPREAD: f64 = 3.0;

/// How long a session that a cache needed stays after it was needed last: longer than any request may take by default.
const GUEST_FOR: Duration = Duration::from_secs(10);

/// Up to so many members, lists are exchanged as often as set; above, more rarely in proportion, so that a node's bytes per second
/// do not grow.
const LIST_MEMBERS: usize = 64;

impl Membership {
    /// Whether there are more members than a full mesh may have.
    #[must_use]
    pub fn is_beyond_mesh(&self) -> bool {
        self.contacts.alive() + 1 > self.config.mesh_max
    }

    /// A cache of this node asks this member for something, or is asked by it: beyond the mesh there shall be a session with it for a while.
    pub fn meet(&mut self, now: Time, node: NodeId) {
        if self.left || !self.is_beyond_mesh() {
            return;
        }
        if self.contacts.guests_beside(now, node) < self.config.guests_max {
            self.contacts.invite(now, node, now + GUEST_FOR);
        }
    }

    pub(super) fn list_exchange_period(&self) -> Duration {
        let share = (self.contacts.alive() / LIST_MEMBERS).max(1);
        self.config.list_exchange_period * u32::try_from(share).unwrap_or(u32::MAX)
    }

    /// Chooses with whom this node wants sessions, if members have come or gone.
    pub(super) fn choose_links(&mut self, now: Time) {
        if !std::mem::take(&mut self.links_are_stale) {
            return;
        }
        if !self.is_beyond_mesh() {
            self.contacts.want_all(now);
            return;
        }
        let mut wanted = overlay::links(self.identity().node, self.live());
        let known = self.contacts.iter().filter(|contact| !contact.left);
        let known = known.map(|contact| contact.identity.node);
        wanted.extend(overlay::links(self.identity().node, known));
        wanted.sort_unstable();
        let (mesh_grace, rng) = (self.config.mesh_grace, &mut self.rng);
        let wants = |node: NodeId| wanted.binary_search(&node).is_ok();
        self.contacts.want(now, wants, |of_mesh| {
            if of_mesh {
                mesh_grace + mesh_grace.mul_f64(rng.random::<f64>() / MESH_GRACE_SPREAD)
            } else {
                GRACE
            }
        });
    }

    /// A session with this node has begun or has ended.
    pub(super) fn note_session(&mut self, now: Time, node: NodeId, connected: bool) {
        let of_mesh = connected && !self.is_beyond_mesh();
        self.contacts.set_connected(now, node, connected);
        if let Some(contact) = self.contacts.get_mut(node) {
            contact.of_mesh = of_mesh;
            contact.ends_at = now + GRACE;
        }
    }

    fn live(&self) -> impl Iterator<Item = NodeId> + Clone + '_ {
        let alive = self.contacts.alive_nodes();
        alive.chain(std::iter::once(self.identity().node))
    }

    /// Ends sessions that neither end wants.
    pub(super) fn prune(&mut self, now: Time, out: &mut Vec<MembershipOutput>) {
        if !self.is_beyond_mesh() {
            return;
        }
        self.choose_links(now);
        let me = self.identity().node;
        let unwanted = self.contacts.iter().filter(|contact| {
            let is_guest = contact.guest_until.is_some_and(|until| until > now);
            let is_wanted = contact.wanted || is_guest || contact.parting;
            contact.connected && !is_wanted && now > contact.ends_at
        });
        let unwanted: Vec<NodeId> = unwanted
            .map(|contact| contact.identity.node)
            .filter(|peer| !overlay::links(*peer, self.live()).contains(&me))
            .collect();
        for to in unwanted {
            if let Some(contact) = self.contacts.get_mut(to) {
                contact.parting = true;
            }
            let message = MembershipMessage::Part;
            out.push(MembershipOutput::Send { to, message });
            out.push(MembershipOutput::Part(to));
        }
    }

    /// Sends a packet of SWIM, to whom there is a session with or, beyond the mesh, otherwise.
    pub(super) fn send_packet(
        &mut self,
        to: Identity,
        packet: Bytes,
        out: &mut Vec<MembershipOutput>,
    ) {
        if self.contacts.is_connected(to.node) || !self.is_beyond_mesh() {
            let message = MembershipMessage::Swim(packet);
            out.push(MembershipOutput::Send {
                to: to.node,
                message,
            });
            return;
        }
        match self.redirected(&packet) {
            Some(Some((to, packet))) => {
                let message = MembershipMessage::Swim(packet);
                out.push(MembershipOutput::Send { to, message });
            }
            Some(None) => {}
            None => {
                let message = MembershipMessage::Swim(packet);
                out.push(MembershipOutput::Reach { to, message });
            }
        }
    }

    /// Gossip, made out to a link; nothing at all if there is none. `None` for what is meant for one member.
    fn redirected(&mut self, packet: &Bytes) -> Option<Option<(NodeId, Bytes)>> {
        let (mut codec, mut rest) = (SwimCodec::default(), packet.as_ref());
        let mut header = codec.decode_header(&mut rest).ok()?;
        if header.message != Message::Gossip {
            return None;
        }
        let links = || self.contacts.iter().filter(|contact| contact.connected);
        let count = links().count();
        if count == 0 {
            return Some(None);
        }
        let chosen = self.rng.random_range(0..count);
        let link = links()
            .nth(chosen)
            .map(|contact| contact.identity.clone())?;
        let to = link.node;
        header.dst = link;
        let mut redirected = Vec::with_capacity(packet.len());
        codec.encode_header(&header, &mut redirected).ok()?;
        redirected.extend_from_slice(rest);
        Some(Some((to, redirected.into())))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::net::SocketAddr;

    use super::*;
    use crate::identity::Zone;
    use crate::ids::Epoch;
    use crate::membership::MembershipConfig;

    fn identity(number: u64) -> Identity {
        let port = u16::try_from(7_000 + number).unwrap();
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        let epoch = Epoch::from_u64(1);
        Identity::new(NodeId::from_u64(number), epoch, address, Zone::default())
    }

    /// A node that has met all of 24, and holds nobody for dead.
    fn node(guests_max: usize) -> Membership {
        let hour = Duration::from_secs(3_600);
        let config = MembershipConfig {
            probe_period: hour,
            suspicion_after_loss: hour,
            mesh_max: 4,
            guests_max,
            ..MembershipConfig::default()
        };
        let mut node = Membership::new(config, identity(1), 7, Time::ZERO).unwrap();
        for number in 2..=24 {
            node.connected(Time::ZERO, &identity(number), &mut Vec::new());
        }
        node
    }

    fn run(node: &mut Membership, from: Time, seconds: u64) -> Vec<MembershipOutput> {
        let mut out = Vec::new();
        for step in 0..seconds * 10 {
            node.tick(from + Duration::from_millis(step * 100), &mut out);
        }
        out
    }

    fn parted(out: &[MembershipOutput]) -> BTreeSet<NodeId> {
        let parted = out.iter().filter_map(|output| match output {
            MembershipOutput::Part(peer) => Some(*peer),
            _ => None,
        });
        parted.collect()
    }

    fn dialled(out: &[MembershipOutput]) -> BTreeSet<NodeId> {
        let dialled = out.iter().filter_map(|output| match output {
            MembershipOutput::Dial(identity) => Some(identity.node),
            _ => None,
        });
        dialled.collect()
    }

    #[test]
    fn sessions_that_the_tree_does_not_want_end_unless_a_cache_needs_them() {
        let unwanted = parted(&run(&mut node(8), Time::ZERO, 9));
        assert!((4..20).contains(&unwanted.len()), "{unwanted:?}");
        let guest = *unwanted.first().unwrap();
        let mut node = node(8);
        let met_at = Time::ZERO + Duration::from_secs(4);
        assert!(parted(&run(&mut node, Time::ZERO, 4)).is_empty());
        node.meet(met_at, guest);
        assert!(!parted(&run(&mut node, met_at, 9)).contains(&guest));
        let later = met_at + Duration::from_secs(9);
        assert!(parted(&run(&mut node, later, 4)).contains(&guest));
    }

    #[test]
    fn sessions_of_the_mesh_outlast_a_member_that_comes_and_goes_and_do_not_end_all_at_once() {
        let second = Duration::from_secs(1);
        let config = MembershipConfig {
            probe_period: second * 3_600,
            suspicion_after_loss: second,
            mesh_max: 20,
            ..MembershipConfig::default()
        };
        let mut node = Membership::new(config, identity(1), 7, Time::ZERO).unwrap();
        for number in 2..=20 {
            node.connected(Time::ZERO, &identity(number), &mut Vec::new());
        }
        let mut now = Time::ZERO;
        // One too many, three times, for less than the grace.
        for epoch in 1..=3 {
            let mut visitor = identity(21);
            visitor.epoch = Epoch::from_u64(epoch);
            node.connected(now, &visitor, &mut Vec::new());
            assert!(node.is_beyond_mesh());
            assert_eq!(parted(&run(&mut node, now, 25)), BTreeSet::new());
            now += second * 25;
            node.peer_lost(now, visitor.node, &mut Vec::new());
            run(&mut node, now, 5);
            now += second * 5;
            assert!(!node.is_beyond_mesh());
        }
        let mut visitor = identity(21);
        visitor.epoch = Epoch::from_u64(4);
        node.connected(now, &visitor, &mut Vec::new());
        assert_eq!(parted(&run(&mut node, now, 29)), BTreeSet::new());
        let soon = parted(&run(&mut node, now + second * 29, 6));
        let later = parted(&run(&mut node, now + second * 35, 9));
        assert!(!soon.is_empty() && !later.is_empty(), "{soon:?} {later:?}");
    }

    #[test]
    fn a_member_that_a_cache_needs_is_dialled_at_once_and_so_many_at_a_time() {
        let unwanted = parted(&run(&mut node(8), Time::ZERO, 9));
        let mut node = node(1);
        run(&mut node, Time::ZERO, 9);
        let now = Time::ZERO + Duration::from_secs(9);
        for peer in &unwanted {
            node.peer_lost(now, *peer, &mut Vec::new());
        }
        assert!(dialled(&run(&mut node, now, 1)).is_empty());
        let (first, second) = (*unwanted.first().unwrap(), *unwanted.last().unwrap());
        let now = now + Duration::from_secs(1);
        node.meet(now, first);
        node.meet(now, second);
        assert_eq!(dialled(&run(&mut node, now, 1)), BTreeSet::from([first]));
        // Needed no longer, it makes room.
        let now = now + GUEST_FOR + Duration::from_secs(1);
        node.meet(now, second);
        assert_eq!(dialled(&run(&mut node, now, 1)), BTreeSet::from([second]));
    }
}
