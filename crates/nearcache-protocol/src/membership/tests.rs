//! Memberships of small clusters, with time and messages moved by hand.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::identity::Zone;
use crate::ids::Epoch;

const STEP: Duration = Duration::from_millis(10);

fn id(number: u64) -> NodeId {
    NodeId::from_u64(number)
}

fn identity(number: u64, epoch: u64) -> Identity {
    let port = u16::try_from(7000 + number).unwrap();
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Identity::new(id(number), Epoch::from_u64(epoch), address, Zone::default())
}

/// A few nodes whose connections are opened and cut by the test; messages take no time.
struct Cluster {
    now: Time,
    nodes: Vec<Membership>,
    links: BTreeSet<(usize, usize)>,
    events: Vec<(usize, MembershipOutput)>,
    /// Who does not run at the moment: neither ticks nor receives.
    paused: BTreeSet<usize>,
}

impl Cluster {
    fn new(count: u64) -> Self {
        let nodes = (1..=count).map(|n| start(n, 1, Time::ZERO)).collect();
        let (links, paused) = (BTreeSet::new(), BTreeSet::new());
        Self {
            now: Time::ZERO,
            nodes,
            links,
            events: Vec::new(),
            paused,
        }
    }

    fn mesh(count: u64) -> Self {
        let mut cluster = Self::new(count);
        for a in 0..cluster.nodes.len() {
            for b in 0..a {
                cluster.connect(a, b);
            }
        }
        cluster.run(Duration::from_secs(1));
        cluster.events.clear();
        cluster
    }

    fn connect(&mut self, a: usize, b: usize) {
        self.links.extend([(a, b), (b, a)]);
        for (from, to) in [(a, b), (b, a)] {
            let (peer, mut out) = (self.nodes[to].identity().clone(), Vec::new());
            self.nodes[from].connected(self.now, &peer, &mut out);
            self.carry_out(from, out);
        }
    }

    /// Cuts the connections; those who run notice at once.
    fn cut(&mut self, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            self.links.remove(&(from, to));
            if !self.paused.contains(&from) {
                let (lost, mut out) = (self.nodes[to].identity().node, Vec::new());
                self.nodes[from].peer_lost(self.now, lost, &mut out);
                self.carry_out(from, out);
            }
        }
    }

    fn carry_out(&mut self, from: usize, out: Vec<MembershipOutput>) {
        for output in out {
            let MembershipOutput::Send { to, message } = output else {
                self.events.push((from, output));
                continue;
            };
            let to = self
                .nodes
                .iter()
                .position(|node| node.identity().node == to)
                .unwrap();
            if self.links.contains(&(from, to)) && !self.paused.contains(&to) {
                let body = message.body();
                let message = MembershipMessage::decode(message.kind(), &body)
                    .unwrap()
                    .unwrap();
                let (sender, mut out) = (self.nodes[from].identity().node, Vec::new());
                self.nodes[to]
                    .handle(self.now, sender, &message, &mut out)
                    .unwrap();
                self.carry_out(to, out);
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        while self.now < end {
            self.now += STEP;
            for node in 0..self.nodes.len() {
                if !self.paused.contains(&node) && self.nodes[node].next_tick() <= self.now {
                    let mut out = Vec::new();
                    self.nodes[node].tick(self.now, &mut out);
                    self.carry_out(node, out);
                }
            }
        }
    }

    fn members(&self, node: usize) -> Vec<u64> {
        self.nodes[node]
            .members()
            .map(|member| member.identity.node.as_u64())
            .collect()
    }

    fn downs(&self, at: usize) -> Vec<(u64, DownReason)> {
        let events = self.events.iter().filter(|(node, _)| *node == at);
        events
            .filter_map(|(_, event)| match event {
                MembershipOutput::MemberDown { identity, reason } => {
                    Some((identity.node.as_u64(), *reason))
                }
                _ => None,
            })
            .collect()
    }

    fn dialled(&self, at: usize, node: u64) -> usize {
        let dials = |event: &MembershipOutput| matches!(event, MembershipOutput::Dial(identity) if identity.node == id(node));
        self.events
            .iter()
            .filter(|(from, event)| *from == at && dials(event))
            .count()
    }
}

fn start(number: u64, epoch: u64, now: Time) -> Membership {
    let config = MembershipConfig::default();
    Membership::new(config, identity(number, epoch), number, now).unwrap()
}

#[test]
fn connected_nodes_are_members_of_each_other() {
    let mut cluster = Cluster::new(2);
    cluster.connect(0, 1);
    assert_eq!((cluster.members(0), cluster.members(1)), (vec![2], vec![1]));
    let up = MembershipOutput::MemberUp(identity(2, 1));
    assert!(cluster.events.contains(&(0, up)));
}

#[test]
fn member_learned_from_another_is_dialled_until_there_is_a_session() {
    let mut cluster = Cluster::new(3);
    cluster.connect(0, 1);
    cluster.connect(1, 2);
    cluster.run(Duration::from_secs(3));
    assert_eq!(cluster.members(0), [2, 3]);
    let attempts = cluster.dialled(0, 3);
    assert!((3..40).contains(&attempts), "{attempts} attempts in 3 s");
    cluster.connect(0, 2);
    cluster.events.clear();
    cluster.run(Duration::from_secs(3));
    assert_eq!(cluster.dialled(0, 3) + cluster.dialled(2, 1), 0);
}

#[test]
fn m3_lost_connections_make_a_crash_known_within_two_seconds() {
    let mut cluster = Cluster::mesh(3);
    cluster.paused.insert(2);
    cluster.cut(0, 2);
    cluster.cut(1, 2);
    cluster.run(Duration::from_secs(2));
    for survivor in [0, 1] {
        assert_eq!(cluster.downs(survivor), [(3, DownReason::Failed)]);
    }
}

#[test]
fn m3_silent_crash_is_detected_by_probes_within_five_seconds() {
    let mut cluster = Cluster::mesh(4);
    cluster.paused.insert(3);
    cluster.run(Duration::from_secs(5));
    for survivor in 0..3 {
        assert_eq!(cluster.downs(survivor), [(4, DownReason::Failed)]);
    }
}

#[test]
fn f3_member_reachable_through_others_refutes_the_loss_of_its_connections() {
    let mut cluster = Cluster::mesh(3);
    cluster.cut(0, 2);
    cluster.run(Duration::from_secs(20));
    assert_eq!(
        (cluster.members(0), cluster.members(2)),
        (vec![2, 3], vec![1, 2])
    );
    assert_eq!(
        (cluster.downs(0), cluster.downs(1), cluster.downs(2)),
        (vec![], vec![], vec![])
    );
}

#[test]
fn leaving_member_is_gone_at_once_and_not_dialled() {
    let mut cluster = Cluster::mesh(3);
    let mut out = Vec::new();
    cluster.nodes[2].leave(cluster.now, &mut out);
    cluster.carry_out(2, out);
    for survivor in [0, 1] {
        assert_eq!(cluster.downs(survivor), [(3, DownReason::Left)]);
    }
    cluster.cut(0, 2);
    cluster.cut(1, 2);
    cluster.run(Duration::from_secs(10));
    assert_eq!(cluster.dialled(0, 3), 0);
    assert_eq!(cluster.nodes[2].next_tick(), Time::MAX);
}

#[test]
fn restarted_member_replaces_what_it_was() {
    let mut cluster = Cluster::mesh(2);
    cluster.links.clear();
    cluster.nodes[1] = start(2, 2, cluster.now);
    cluster.connect(0, 1);
    assert_eq!(cluster.downs(0), [(2, DownReason::Replaced)]);
    let up = (0, MembershipOutput::MemberUp(identity(2, 2)));
    assert!(cluster.events.contains(&up));
    assert_eq!(cluster.members(0), [2]);
}

#[test]
fn both_sides_of_a_healed_partition_come_back_by_themselves() {
    let mut cluster = Cluster::mesh(4);
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        cluster.cut(a, b);
    }
    cluster.run(Duration::from_secs(10));
    assert_eq!((cluster.members(0), cluster.members(3)), (vec![2], vec![3]));
    cluster.events.clear();
    cluster.run(Duration::from_secs(11));
    assert!(cluster.dialled(0, 4) > 0, "a dead member is still dialled");
    for (a, b) in [(0, 2), (0, 3), (1, 2), (1, 3)] {
        cluster.connect(a, b);
    }
    cluster.run(Duration::from_secs(2));
    for node in 0..4 {
        assert_eq!(
            cluster.members(node).len(),
            3,
            "node {node} sees {:?}",
            cluster.members(node)
        );
    }
    let renewed = |(_, event): &(usize, MembershipOutput)| matches!(event, MembershipOutput::Renewed(identity) if identity.renewal > 0);
    assert!(cluster.events.iter().any(renewed));
}

/// One node is cut off from three for so long that it holds all of them for dead; healed link by link,
/// its obituaries reach members that are well connected to each other.
#[test]
fn m1_obituaries_of_a_node_that_was_cut_off_kill_nobody() {
    let mut cluster = Cluster::mesh(4);
    for other in 1..4 {
        cluster.cut(0, other);
    }
    cluster.run(Duration::from_secs(5));
    assert_eq!(
        (cluster.members(0), cluster.members(1)),
        (vec![], vec![3, 4])
    );
    cluster.events.clear();
    for other in 1..4 {
        cluster.connect(0, other);
        cluster.run(Duration::from_millis(700));
    }
    cluster.run(Duration::from_secs(5));
    for node in 0..4 {
        assert_eq!(cluster.downs(node), [], "at {node}");
        assert_eq!(cluster.members(node).len(), 3, "at {node}");
    }
}

#[test]
fn m1_node_that_was_paused_does_not_declare_the_others_dead() {
    let mut cluster = Cluster::mesh(4);
    cluster.events.clear();
    for _ in 0..5 {
        cluster.paused.insert(3);
        cluster.run(Duration::from_millis(700));
        cluster.paused.clear();
        cluster.run(Duration::from_secs(4));
    }
    assert_eq!(cluster.downs(3), []);
}

#[test]
fn full_cluster_has_no_room_for_a_stranger() {
    let config = MembershipConfig {
        member_limit: 2,
        ..MembershipConfig::default()
    };
    let mut node = Membership::new(config, identity(1, 1), 1, Time::ZERO).unwrap();
    assert_eq!(node.full_for(id(2)), None);
    let mut out = Vec::new();
    node.connected(Time::ZERO, &identity(2, 1), &mut out);
    assert_eq!(node.full_for(id(2)), None);
    assert_eq!(node.full_for(id(3)), Some(2));

    let mut other = start(2, 1, Time::ZERO);
    other.connected(Time::ZERO, &identity(3, 1), &mut out);
    out.clear();
    other.send_list(id(1), false, &mut out);
    let Some(MembershipOutput::Send { message, .. }) = out.pop() else {
        panic!("no list")
    };
    node.handle(Time::ZERO, id(2), &message, &mut out).unwrap();
    assert_eq!(
        node.members().count(),
        1,
        "a list does not get around the limit"
    );
}

#[test]
fn long_dead_member_is_forgotten() {
    let forget_after = Duration::from_secs(30);
    let mut cluster = Cluster::mesh(2);
    cluster.nodes[0].config.forget_after = forget_after;
    cluster.paused.insert(1);
    cluster.cut(0, 1);
    cluster.run(Duration::from_secs(20));
    assert!(cluster.nodes[0].known(id(2)).is_some());
    cluster.run(Duration::from_secs(25));
    assert!(cluster.nodes[0].known(id(2)).is_none());
    assert_eq!(cluster.nodes[0].swim.iter_membership_state().len(), 0);
}

#[test]
fn message_in_the_name_of_another_is_refused() {
    let mut node = start(1, 1, Time::ZERO);
    let leave = Leave {
        identity: Some(WireIdentity::from(&identity(3, 1))),
    };
    let result = node.handle(
        Time::ZERO,
        id(2),
        &MembershipMessage::Leave(leave),
        &mut Vec::new(),
    );
    assert!(
        matches!(result, Err(MembershipError::Impostor { .. })),
        "{result:?}"
    );
}

proptest! {
    #[test]
    fn arbitrary_packets_never_panic(
        packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..80), 0..8),
        known in any::<bool>(),
        message in 0_u8..13,
        tail in prop::collection::vec(any::<u8>(), 0..60),
    ) {
        let mut node = start(1, 1, Time::ZERO);
        let mut out = Vec::new();
        if known {
            node.connected(Time::ZERO, &identity(2, 1), &mut out);
        }
        // A header that passes every check, so that arbitrary bytes reach what comes after it.
        let mut packet = Vec::new();
        let header = foca::Header {
            src: identity(2, 1),
            src_incarnation: 0,
            dst: identity(1, 1),
            message: foca::Message::Gossip,
        };
        foca::Codec::encode_header(&mut SwimCodec::default(), &header, &mut packet).unwrap();
        packet.pop();
        packet.push(message);
        packet.extend_from_slice(&tail);
        for packet in packets.into_iter().chain([packet]) {
            let message = MembershipMessage::Swim(packet.into());
            let _ = node.handle(Time::ZERO, id(2), &message, &mut out);
            node.tick(Time::from_millis(600), &mut out);
        }
    }
}

#[test]
fn m1_a_node_held_for_dead_by_one_that_has_no_link_to_it_comes_back_for_that_one_too() {
    let mut cluster = Cluster::mesh(3);
    for other in [0, 2] {
        cluster.cut(1, other);
    }
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.members(1), Vec::<u64>::new());
    // The link between nodes 1 and 3 comes back, that between 2 and 3 does not.
    cluster.connect(0, 1);
    cluster.run(Duration::from_secs(1));
    assert_eq!(cluster.members(1), [1, 3]);
    cluster.run(Duration::from_secs(20));
    assert_eq!(cluster.members(1), [1, 3]);
    assert_eq!(cluster.members(2), [1, 2]);
}
