//! Netsplits of a few nodes in memory, under each policy.

use std::time::Duration;

use nearcache_store::{NodeId, Scope};

use super::SECOND;
use crate::announce::SplitPolicy;
use crate::config::ReplicationConfig;
use crate::mode::{Event, Outcome, Status};
use crate::modify::{ModifyError, ModifyOp};
use crate::testing::{Cluster, store_of};

fn cluster(n: u64, split: SplitPolicy) -> Cluster {
    let mut config = ReplicationConfig::default();
    config.agreement.split = split;
    let mut cluster = Cluster::ready(n, config);
    cluster.run(SECOND);
    cluster
}

/// Cuts every link between the two groups.
fn part(cluster: &mut Cluster, left: &[u64], right: &[u64]) {
    for a in left {
        for b in right {
            cluster.cut(*a, *b);
        }
    }
}

/// All on the one side learn that those on the other are dead.
fn mourn(cluster: &mut Cluster, side: &[u64], dead: &[u64]) {
    for a in side {
        for b in dead {
            let dead = NodeId::from_u64(*b);
            cluster.act(*a, |node, now, out| node.core.peer_dead(now, dead, out));
        }
    }
}

fn may_write(cluster: &Cluster, id: u64) -> bool {
    cluster.now <= cluster.nodes[&id].core.write_until()
}

fn serves(cluster: &Cluster, id: u64) -> bool {
    cluster.now <= cluster.nodes[&id].core.read_bound().serve_until
}

fn status(cluster: &Cluster, id: u64) -> Status {
    cluster.nodes[&id].core.status(cluster.now)
}

fn events(cluster: &Cluster, id: u64, is: fn(&Event) -> bool) -> usize {
    let events = cluster.nodes[&id].events.iter();
    events.filter(|event| is(event)).count()
}

#[test]
fn serve_lets_both_sides_write_and_the_newest_wins_when_it_heals() {
    let mut cluster = cluster(3, SplitPolicy::Serve);
    part(&mut cluster, &[1, 2], &[3]);
    mourn(&mut cluster, &[3], &[1, 2]);
    cluster.run(SECOND * 4);
    assert!((1..=3).all(|id| may_write(&cluster, id) && serves(&cluster, id)));
    cluster.put(1, "k", "larger side");
    cluster.put(3, "k", "smaller side");
    cluster.connect_all(3);
    cluster.run(SECOND * 2);
    assert_eq!(
        cluster.read_all("k"),
        vec![Some("smaller side".to_owned()); 3]
    );
}

#[test]
fn read_only_refuses_writes_on_the_smaller_side_two_seconds_after_it_last_heard() {
    let mut cluster = cluster(5, SplitPolicy::ReadOnly);
    part(&mut cluster, &[1, 2], &[3, 4, 5]);
    // Their deaths come one by one: the smaller side must not take itself for most of the rest.
    for dead in 3..=5 {
        cluster.run(SECOND / 2);
        mourn(&mut cluster, &[1, 2], &[dead]);
    }
    mourn(&mut cluster, &[3, 4, 5], &[1, 2]);
    cluster.run(SECOND);
    for second in 0..20 {
        for id in 1..=5 {
            assert_eq!(may_write(&cluster, id), id >= 3, "{id} after {second} s");
            assert!(serves(&cluster, id));
        }
        cluster.run(SECOND);
    }
    assert_eq!(status(&cluster, 1), Status::Degraded);
    assert_eq!(status(&cluster, 3), Status::Synced);
    let apart = |event: &Event| matches!(event, Event::Apart { heard: 2, of: 5 });
    assert_eq!(events(&cluster, 1, apart), 1);
    cluster.connect_all(1);
    cluster.connect_all(2);
    cluster.run(SECOND);
    assert!((1..=5).all(|id| may_write(&cluster, id)));
    assert_eq!(
        events(&cluster, 1, |event| matches!(event, Event::Together { .. })),
        1
    );
}

#[test]
fn read_only_lets_nobody_decide_a_modify_at_a_home_on_the_smaller_side() {
    let mut cluster = cluster(3, SplitPolicy::ReadOnly);
    part(&mut cluster, &[3], &[1, 2]);
    cluster.run(SECOND * 3);
    for n in 0..20 {
        let waiter = cluster.modify(3, &format!("k{n}"), ModifyOp::Add { delta: 1 });
        cluster.run(SECOND / 2);
        let result = &cluster.nodes[&3].results[&waiter];
        assert!(
            matches!(result, Outcome::Modified(Err(ModifyError::HomeUnreachable))),
            "{result:?}"
        );
    }
}

#[test]
fn a_graceful_leave_makes_the_cluster_smaller_and_no_side_read_only() {
    let mut cluster = cluster(3, SplitPolicy::ReadOnly);
    for leaver in [1, 2] {
        cluster.act(leaver, |node, now, out| node.core.leave(now, out));
        cluster.deliver();
        cluster.crash(leaver);
        cluster.run(SECOND * 3);
        assert!(may_write(&cluster, 3));
    }
    assert_eq!(events(&cluster, 3, |e| matches!(e, Event::Apart { .. })), 0);
}

#[test]
fn crashes_one_after_the_other_leave_the_last_with_most_as_long_as_each_is_forgotten_in_between() {
    let mut cluster = cluster(4, SplitPolicy::ReadOnly);
    for dead in [4, 3] {
        cluster.crash(dead);
        let rest: Vec<u64> = cluster.nodes.keys().copied().collect();
        mourn(&mut cluster, &rest, &[dead]);
        cluster.run(SECOND * 12);
        assert!(rest.iter().all(|id| may_write(&cluster, *id)));
    }
}

#[test]
fn a_link_that_works_in_one_direction_counts_for_neither_end() {
    let mut cluster = cluster(3, SplitPolicy::ReadOnly);
    for message in ["heartbeat", "echo"] {
        cluster.drops.insert((3, message));
    }
    cluster.run(SECOND * 3);
    assert!(!may_write(&cluster, 3), "it hears no answers");
    assert!(may_write(&cluster, 1) && may_write(&cluster, 2));
}

#[test]
fn flush_serves_nothing_on_the_smaller_side_and_is_filled_again_when_it_heals() {
    let mut cluster = cluster(3, SplitPolicy::Flush);
    for n in 0..50 {
        cluster.put(1, &format!("k{n}"), "v");
    }
    cluster.put(1, "removed", "v");
    cluster.run(SECOND * 9);
    cluster.put(3, "just before", "v");
    part(&mut cluster, &[3], &[1, 2]);
    cluster.put(3, "meanwhile", "v");
    cluster.run(SECOND * 2 + SECOND / 10);
    assert!(!serves(&cluster, 3), "two seconds after the last answer");
    assert!(serves(&cluster, 1) && serves(&cluster, 2));
    cluster.run(SECOND * 2);
    assert_eq!(
        events(&cluster, 3, |e| matches!(e, Event::Dropped { dropped: 51 })),
        1
    );
    assert_eq!(cluster.read(3, "k7"), None);
    cluster.remove(1, "removed");
    cluster.put(1, "k7", "w");
    cluster.connect_all(3);
    cluster.run(SECOND * 2);
    assert!(serves(&cluster, 3) && cluster.nodes[&3].core.is_ready());
    assert_eq!(cluster.nodes[&3].became_ready, 2);
    for (key, value) in [
        ("k7", Some("w")),
        ("k8", Some("v")),
        ("removed", None),
        ("just before", Some("v")),
        ("meanwhile", Some("v")),
    ] {
        let value = value.map(str::to_owned);
        assert_eq!(cluster.read_all(key), vec![value; 3], "{key}");
    }
}

/// A node that had dropped its contents for a netsplit said that it was ready until it was filled again. Others were filled by it, so to
/// speak, and took what it lacked for evicted: nothing ever brought that back (simulator, seed 608 at full strength).
#[test]
fn r9_who_has_dropped_its_contents_for_a_split_fills_nobody() {
    let mut cluster = cluster(3, SplitPolicy::Flush);
    cluster.put(1, "k", "v");
    cluster.run(SECOND * 9);
    part(&mut cluster, &[3], &[1, 2]);
    cluster.run(SECOND * 4);
    assert_eq!(
        events(&cluster, 3, |e| matches!(e, Event::Dropped { dropped: 1 })),
        1
    );
    // A fourth one is started, which sees nobody but the third at first.
    cluster.start(4);
    cluster.connect(3, 4);
    cluster.run(SECOND);
    assert!(!cluster.nodes[&4].core.is_ready());
    assert!(!serves(&cluster, 3), "one of four");
    for (a, b) in [(1, 3), (2, 3), (1, 4), (2, 4)] {
        cluster.connect(a, b);
    }
    cluster.run(SECOND * 3);
    for id in 1..=4 {
        assert!(serves(&cluster, id) && cluster.nodes[&id].core.is_ready());
        assert_eq!(cluster.read(id, "k"), Some("v".to_owned()), "{id}");
    }
}

/// What a cut transfer had begun to bring was looked for by comparing digests, in which what is dropped stands as evicted (simulator, seed 608
/// at full strength).
#[test]
fn r1_what_was_dropped_for_a_split_comes_back_though_its_transfer_is_cut() {
    let mut config = ReplicationConfig::default();
    config.agreement.split = SplitPolicy::Flush;
    config.transfer_credit_bytes = 8 << 10;
    config.transfer_chunk_bytes = 4 << 10;
    let mut cluster = Cluster::ready(4, config);
    for n in 0..2_000 {
        cluster.put(1, &format!("k{n}"), "value");
    }
    cluster.run(SECOND * 10);
    part(&mut cluster, &[4], &[1, 2, 3]);
    cluster.run(SECOND * 4);
    assert_eq!(cluster.nodes[&4].core.store().len(), 0);
    // Credit never arrives: the transfers stand still half way.
    cluster
        .drops
        .extend([1, 2, 3].map(|id| (id, "transfer-credit")));
    cluster.connect_all(4);
    let held = |cluster: &Cluster| cluster.nodes[&4].core.store().len();
    for _ in 0..100 {
        cluster.run(SECOND / 20);
        if held(&cluster) > 0 {
            break;
        }
    }
    let held = held(&cluster);
    assert!((1..2_000).contains(&held), "{held} of 2,000");
    cluster.crash(1);
    cluster.drops.clear();
    cluster.run(SECOND * 15);
    assert!(cluster.nodes[&4].core.is_ready());
    assert_eq!(cluster.nodes[&4].core.store().len(), 2_000);
}

/// Five nodes, of which 4 and 5 are cut off, drop what they held, and are still apart.
fn flushed_side(keys: u64) -> Cluster {
    let mut cluster = cluster(5, SplitPolicy::Flush);
    for n in 0..keys {
        cluster.put(1 + n % 5, &format!("k{n}"), "v");
    }
    cluster.run(SECOND * 9);
    part(&mut cluster, &[1, 2, 3], &[4, 5]);
    cluster.run(SECOND * 5);
    for id in [4, 5] {
        let dropped = |event: &Event| matches!(event, Event::Dropped { .. });
        assert_eq!(events(&cluster, id, dropped), 1);
    }
    cluster
}

fn held(cluster: &Cluster, id: u64) -> usize {
    cluster.nodes[&id].core.store().len()
}

#[test]
fn r9_whoever_has_dropped_its_contents_fills_nobody() {
    let mut cluster = flushed_side(50);
    // Node 4 meets the others first; node 5 is apart from them for longer.
    (1..=3).for_each(|other| cluster.connect(4, other));
    cluster.run(SECOND * 2);
    assert!(cluster.nodes[&4].core.is_ready());
    assert_eq!((held(&cluster, 4), held(&cluster, 5)), (50, 0));
    (1..=3).for_each(|other| cluster.connect(5, other));
    cluster.run(SECOND * 2);
    for n in 0..50 {
        let expected = vec![Some("v".to_owned()); 5];
        assert_eq!(cluster.read_all(&format!("k{n}")), expected, "k{n}");
    }
}

#[test]
fn r9_whoever_starts_beside_a_flushed_side_is_filled_by_the_other_once_it_is_there() {
    let mut cluster = flushed_side(50);
    cluster.start(6);
    cluster.connect(6, 4);
    cluster.connect(6, 5);
    cluster.run(SECOND * 20);
    assert!(!cluster.nodes[&6].core.is_ready());
    for (a, b) in (1..=6).flat_map(|a| (1..a).map(move |b| (a, b))) {
        cluster.connect(a, b);
    }
    cluster.run(SECOND * 3);
    assert!(cluster.nodes.values().all(|node| node.core.is_ready()));
    assert_eq!(held(&cluster, 6), 50);
}

#[test]
fn r9_a_flushed_node_serves_nothing_as_ready_before_it_is_filled_again() {
    let mut cluster = flushed_side(50);
    cluster.drops.insert((4, "transfer-start"));
    (1..=3).for_each(|other| cluster.connect(4, other));
    for _ in 0..100 {
        cluster.run(Duration::from_millis(10));
        assert!(!serves(&cluster, 4) || !cluster.nodes[&4].core.is_ready());
    }
    assert!(serves(&cluster, 4));
}

#[test]
fn r9_who_asks_a_node_that_has_dropped_its_contents_gets_that_share_elsewhere() {
    let mut cluster = cluster(5, SplitPolicy::Flush);
    for n in 0..50 {
        cluster.put(1, &format!("k{n}"), "v");
    }
    cluster.run(SECOND * 9);
    // Node 4 does not hear that node 5 is no longer ready.
    cluster.drops.insert((4, "heartbeat"));
    part(&mut cluster, &[1, 2, 3], &[4, 5]);
    cluster.run(SECOND * 5);
    assert_eq!((held(&cluster, 4), held(&cluster, 5)), (0, 0));
    (1..=3).for_each(|other| cluster.connect(4, other));
    cluster.run(SECOND * 3);
    let is_cut = |event: &Event| matches!(event, Event::TransferCut { from } if from.as_u64() == 5);
    assert_eq!(events(&cluster, 4, is_cut), 1);
    assert!(cluster.nodes[&4].core.is_ready());
    assert_eq!(held(&cluster, 4), 50);
}

#[test]
fn r1_what_a_flushed_node_is_not_brought_again_by_a_transfer_a_comparison_brings() {
    let mut config = ReplicationConfig {
        transfer_credit_bytes: 2 << 10,
        transfer_chunk_bytes: 1 << 10,
        ..ReplicationConfig::default()
    };
    config.agreement.split = SplitPolicy::Flush;
    let mut cluster = Cluster::ready(3, config);
    for n in 0..1_000 {
        cluster.put(1, &format!("k{n}"), "value");
    }
    cluster.run(SECOND * 9);
    part(&mut cluster, &[3], &[1, 2]);
    cluster.run(SECOND * 5);
    assert_eq!(held(&cluster, 3), 0);
    // The one source stands still after the first chunks, and dies.
    cluster.drops.insert((1, "transfer-credit"));
    cluster.connect_all(3);
    cluster.run(SECOND);
    let before = held(&cluster, 3);
    assert!((501..1_000).contains(&before), "{before}");
    cluster.cut(3, 1);
    cluster.run(SECOND * 4);
    assert!(cluster.nodes[&3].core.is_ready());
    assert_eq!(held(&cluster, 3), 1_000);
}

#[test]
fn flush_of_more_than_floors_are_remembered_of_is_filled_again_to_the_last_key() {
    let mut config = ReplicationConfig::default();
    config.agreement.split = SplitPolicy::Flush;
    let mut cluster = Cluster::new(config.clone());
    for id in 1..=3 {
        cluster.start_on(id, config.clone(), store_of(2 << 20));
        cluster.connect_all(id);
    }
    cluster.run(SECOND * 6);
    for n in 0..5_000 {
        cluster.put(1, &format!("k{n}"), "value");
    }
    cluster.run(SECOND * 9);
    assert_eq!(held(&cluster, 3), 5_000);
    part(&mut cluster, &[3], &[1, 2]);
    cluster.run(SECOND * 5);
    assert_eq!(held(&cluster, 3), 0);
    cluster.connect_all(3);
    cluster.run(SECOND * 2);
    assert!(cluster.nodes[&3].core.is_ready());
    assert_eq!(held(&cluster, 3), 5_000);
}

#[test]
fn flush_drops_nothing_after_a_pause_alone() {
    let mut cluster = cluster(3, SplitPolicy::Flush);
    cluster.put(1, "k", "v");
    cluster.run(SECOND * 9);
    // Node 3 does not run for half a minute; nobody else does, which is the same to it.
    cluster.now += SECOND * 30;
    assert!(!serves(&cluster, 3));
    cluster.run(SECOND * 3);
    assert!(serves(&cluster, 3));
    assert_eq!(
        events(&cluster, 3, |e| matches!(e, Event::Dropped { .. })),
        0
    );
    assert_eq!(cluster.read(3, "k"), Some("v".to_owned()));
}

#[test]
fn nodes_with_different_policies_do_not_sync() {
    let mut cluster = cluster(1, SplitPolicy::Serve);
    let mut other = ReplicationConfig::default();
    other.agreement.split = SplitPolicy::Flush;
    cluster.start_with(2, other);
    cluster.connect_all(2);
    cluster.run(SECOND);
    assert_eq!(
        events(&cluster, 1, |e| matches!(e, Event::Disagreement(_))),
        1
    );
    cluster.invalidate(1, Scope::All);
    cluster.put(1, "k", "v");
    cluster.run(SECOND);
    assert_eq!(cluster.read(2, "k"), None);
    assert!(may_write(&cluster, 1), "it does not count");
}
