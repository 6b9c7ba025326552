//! More members than a full mesh may have: leases by what neighbours tell.

use std::time::Duration;

use nearcache_store::NodeId;

use super::tests::{SECOND, some};
use crate::announce::ModeKind;
use crate::config::ReplicationConfig;
use crate::mode::{Ack, FlushCause, Outcome, Published};
use crate::testing::Cluster;

/// The lease of a node among twelve: 3 s and four heartbeats.
const LEASE: Duration = Duration::from_secs(5);

fn config() -> ReplicationConfig {
    let mut config = ReplicationConfig {
        mesh_max: 4,
        ..ReplicationConfig::default()
    };
    config.agreement.mode = ModeKind::Invalidation;
    config
}

/// Twelve nodes by the tree, each with a lease.
fn tree() -> Cluster {
    let mut cluster = Cluster::tree(12, config());
    cluster.run(SECOND * 5);
    for id in 1..=12 {
        let until = cluster.nodes[&id].core.read_bound().serve_until;
        assert!(cluster.now <= until, "{id} has no lease");
    }
    cluster.forget_events();
    cluster
}

/// Somebody whom node 1 has no session with.
fn far_from_one(cluster: &Cluster) -> u64 {
    (2..=12).find(|id| !cluster.is_connected(1, *id)).unwrap()
}

/// Nothing that the node says reaches anybody.
fn silence(cluster: &mut Cluster, id: u64) {
    for other in (1..=12).filter(|other| *other != id) {
        cluster.mute.insert((id, other));
    }
}

#[test]
fn i4_copies_are_served_beyond_the_mesh_and_a_write_anywhere_drops_them_everywhere() {
    let mut cluster = tree();
    for writer in [1, 7, 12] {
        for id in 1..=12 {
            cluster.fill(id, "k", "copy");
            cluster.fill(id, "other", "stays");
        }
        cluster.run(SECOND);
        let all = (1..=12).all(|id| cluster.serves(id, "k") == some("copy"));
        assert!(all);
        cluster.put(writer, "k", "new");
        cluster.deliver();
        for id in 1..=12 {
            let expected = (id == writer).then(|| "new".to_owned());
            assert_eq!(cluster.serves(id, "k"), expected, "{id}");
            assert_eq!(cluster.serves(id, "other"), some("stays"), "{id}");
        }
        cluster.run(SECOND);
    }
    assert!((1..=12).all(|id| cluster.flushes(id).is_empty()));
}

#[test]
fn i1_a_member_without_a_session_that_is_silent_ends_the_lease_a_hop_later_for_each_hop() {
    let mut cluster = tree();
    let far = far_from_one(&cluster);
    cluster.fill(1, "k", "copy");
    silence(&mut cluster, far);
    cluster.put(far, "k", "unheard");
    cluster.run(SECOND * 2);
    assert_eq!(cluster.serves(1, "k"), some("copy"), "within the bound");
    cluster.run(LEASE - SECOND * 2);
    assert_eq!(cluster.serves(1, "k"), None);
    cluster.mute.clear();
    cluster.run(SECOND * 6);
    assert_eq!(cluster.read(1, "k"), None, "it came at last");
    cluster.fill(1, "k", "loaded again");
    assert_eq!(cluster.serves(1, "k"), some("loaded again"));
}

#[test]
fn i9_what_a_neighbour_tells_of_others_counts_only_once_it_is_applied_here() {
    let mut cluster = tree();
    let far = far_from_one(&cluster);
    cluster.fill(1, "k", "copy");
    // Data does not come, what neighbours say of it does.
    cluster.drops.insert((1, "relayed"));
    cluster.put(far, "k", "new");
    cluster.run(SECOND);
    assert_eq!(cluster.serves(1, "k"), some("copy"), "within the bound");
    cluster.run(SECOND);
    // Nobody brings it: half of `link_timeout` later all goes, before the numbers count.
    assert_eq!(cluster.serves(1, "k"), None);
    let hole = FlushCause::Hole(NodeId::from_u64(far));
    assert_eq!(cluster.flushes(1), vec![hole]);
    cluster.run(SECOND);
    cluster.fill(1, "k", "loaded again");
    cluster.run(SECOND * 8);
    assert_eq!(cluster.serves(1, "k"), some("loaded again"));
}

#[test]
fn i2_a_member_without_a_session_that_was_started_again_takes_all_copies_with_it() {
    let mut cluster = tree();
    let far = far_from_one(&cluster);
    cluster.fill(1, "k", "copy");
    cluster.run(SECOND);
    // What it wrote last reached nobody.
    silence(&mut cluster, far);
    cluster.put(far, "k", "lost with it");
    cluster.deliver();
    cluster.crash(far);
    cluster.mute.clear();
    cluster.start(far);
    cluster.link_tree();
    cluster.run(SECOND * 6);
    let restarted = FlushCause::Restarted(NodeId::from_u64(far));
    assert_eq!(cluster.flushes(1), vec![restarted]);
    assert_eq!(cluster.read(1, "k"), None);
    cluster.fill(1, "k", "loaded again");
    cluster.run(SECOND * 8);
    assert_eq!(cluster.serves(1, "k"), some("loaded again"));
}

#[test]
fn a_member_without_a_session_that_left_in_good_order_takes_nothing_with_it() {
    let mut cluster = tree();
    let far = far_from_one(&cluster);
    cluster.fill(1, "k", "copy");
    cluster.put(far, "other", "value");
    cluster.run(SECOND);
    cluster.act(far, |node, now, out| node.core.leave(now, out));
    cluster.run(SECOND * 2);
    cluster.crash(far);
    // Membership says no more than that it is gone.
    for id in (1..=12).filter(|id| *id != far) {
        cluster.act(id, |node, now, out| {
            node.core.peer_dead(now, NodeId::from_u64(far), out);
        });
    }
    cluster.run(SECOND * 12);
    assert_eq!(cluster.flushes(1), vec![]);
    assert_eq!(cluster.serves(1, "k"), some("copy"));
}

#[test]
fn i1_a_late_word_that_its_former_start_has_left_does_not_take_a_member_away() {
    let mut cluster = tree();
    let far = far_from_one(&cluster);
    cluster.fill(1, "k", "copy");
    cluster.put(far, "other", "value");
    cluster.run(SECOND);
    cluster.act(far, |node, now, out| node.core.leave(now, out));
    cluster.deliver();
    cluster.crash(far);
    cluster.start(far);
    // Membership tells node 1 of the new start before its neighbours tell of the end of the former.
    let epoch = cluster.epoch(far);
    cluster.act(1, |node, now, _| {
        node.core.member_up(now, NodeId::from_u64(far), epoch);
    });
    cluster.run(SECOND);
    cluster.put(far, "k", "unheard");
    assert_eq!(cluster.serves(1, "k"), some("copy"), "within the bound");
    cluster.run(LEASE);
    assert_eq!(cluster.serves(1, "k"), None);
    cluster.link_tree();
    cluster.run(SECOND * 4);
    assert_eq!(cluster.read(1, "k"), None, "what it wrote has come");
    assert_eq!(cluster.serves(1, "other"), None);
    // The former start was complete: that it is over costs nothing.
    let restarted = FlushCause::Restarted(NodeId::from_u64(far));
    assert!(!cluster.flushes(1).contains(&restarted));
}

#[test]
fn i2_the_end_of_a_former_start_does_not_part_a_newer_one_that_died() {
    let mut cluster = tree();
    let far = far_from_one(&cluster);
    let id = NodeId::from_u64(far);
    cluster.fill(1, "k", "copy");
    // The end of the former start is known, but not all that it wrote.
    cluster.drops.insert((1, "relayed"));
    cluster.put(far, "other", "value");
    cluster.act(far, |node, now, out| node.core.leave(now, out));
    cluster.run(Duration::from_millis(600));
    cluster.crash(far);
    cluster.start(far);
    let epoch = cluster.epoch(far);
    cluster.act(1, |node, now, _| node.core.member_up(now, id, epoch));
    cluster.drops.clear();
    cluster.run(SECOND);
    cluster.put(far, "k", "unheard");
    cluster.act(1, |node, now, out| node.core.peer_dead(now, id, out));
    cluster.run(LEASE + SECOND);
    assert_eq!(cluster.serves(1, "k"), None);
}

#[test]
fn i2_a_neighbour_whose_last_word_others_have_heard_alone_takes_all_copies_with_it() {
    let mut cluster = tree();
    let near = (2..=12).find(|id| cluster.is_connected(1, *id)).unwrap();
    cluster.fill(1, "k", "copy");
    cluster.run(SECOND);
    // The connection to it is dead, and nobody brings what it wrote last; but that it has left is told.
    cluster.mute.insert((near, 1));
    cluster.drops.insert((1, "relayed"));
    cluster.put(near, "k", "unheard");
    cluster.act(near, |node, now, out| node.core.leave(now, out));
    cluster.run(Duration::from_millis(900));
    cluster.act(1, |node, now, out| {
        node.core.peer_left(now, NodeId::from_u64(near), out);
    });
    assert_eq!(cluster.serves(1, "k"), None);
    let gone = FlushCause::Gone(NodeId::from_u64(near));
    assert_eq!(cluster.flushes(1), vec![gone]);
}

#[test]
fn i1_a_member_without_a_session_that_died_counts_until_it_is_given_up() {
    let mut cluster = tree();
    let far = far_from_one(&cluster);
    cluster.fill(1, "k", "copy");
    cluster.crash(far);
    for id in (1..=12).filter(|id| *id != far) {
        cluster.act(id, |node, now, out| {
            node.core.peer_dead(now, NodeId::from_u64(far), out);
        });
    }
    cluster.run(SECOND * 2);
    assert_eq!(
        cluster.serves(1, "k"),
        some("copy"),
        "what was known is kept"
    );
    cluster.run(SECOND * 10);
    assert_eq!(cluster.serves(1, "k"), None);
    cluster.run(SECOND * 50);
    let gone = FlushCause::Gone(NodeId::from_u64(far));
    assert_eq!(cluster.flushes(1), vec![gone]);
    cluster.fill(1, "k", "loaded again");
    assert_eq!(cluster.serves(1, "k"), some("loaded again"));
}

#[test]
fn c1_beyond_the_mesh_clocks_of_others_are_taken_to_be_as_far_off_as_they_may_be() {
    let mut cluster = Cluster::ready(4, config());
    cluster.run(SECOND * 3);
    let bound = |cluster: &Cluster| cluster.nodes[&1].core.clock_bound(cluster.now);
    let max_drift = cluster.nodes[&1].core.clock().max_drift();
    assert!(bound(&cluster) < max_drift);
    cluster.fill(1, "k", "loaded with a small bound");
    cluster.forget_events();
    for id in 5..=9 {
        cluster.start(id);
    }
    cluster.link_tree();
    cluster.run(SECOND * 5);
    assert_eq!(bound(&cluster), max_drift);
    assert!(cluster.flushes(1).contains(&FlushCause::Crossed));
    assert_eq!(cluster.read(1, "k"), None);
    for gone in 5..=9 {
        cluster.act(gone, |node, now, out| node.core.leave(now, out));
        cluster.deliver();
        cluster.crash(gone);
        for id in 1..=4 {
            cluster.act(id, |node, now, out| {
                node.core.peer_left(now, NodeId::from_u64(gone), out);
            });
        }
    }
    for id in 1..=4 {
        cluster.connect_all(id);
    }
    cluster.run(SECOND * 9);
    assert!(bound(&cluster) < max_drift, "the mesh is back");
    cluster.fill(1, "k", "copy");
    cluster.put(2, "k", "new");
    cluster.deliver();
    assert_eq!(cluster.serves(1, "k"), None);
    cluster.run(SECOND);
    cluster.fill(3, "k", "copy");
    cluster.run(SECOND * 6);
    assert_eq!(cluster.serves(3, "k"), some("copy"));
}

#[test]
fn i8_nobody_is_told_that_all_have_dropped_a_key_beyond_the_mesh() {
    let mut cluster = tree();
    let waiter = cluster.waiter(SECOND * 10);
    cluster.act(1, |node, now, out| {
        let version = node.core.clock().stamp(now).unwrap();
        let key = bytes::Bytes::from_static(b"k");
        let removal = Published::Removal { key, version };
        node.core.publish(now, removal, Ack::All, Some(waiter), out);
    });
    let told = &cluster.nodes[&1].results[&waiter.id.0];
    assert!(matches!(told, Outcome::Acked(Err(_))), "{told:?}");
}
