//! Gaps, holes, dead origins, updates from the future.

use std::time::Duration;

use super::{SECOND, all, config};
use crate::config::ReplicationConfig;
use crate::mode::{Event, Outcome, Status};
use crate::modify::{ModifyError, ModifyOp};
use crate::testing::Cluster;

#[test]
fn i2_a_lost_batch_is_seen_at_the_next_one_and_replayed() {
    let mut cluster = Cluster::ready(2, config());
    cluster.drops.insert((2, "updates"));
    cluster.put(1, "a", "lost");
    cluster.deliver();
    cluster.drops.clear();
    assert_eq!(cluster.read(2, "a"), None);
    cluster.put(1, "b", "seen");
    cluster.deliver();
    assert_eq!(cluster.read_all("a"), all("lost", 2));
    assert_eq!(cluster.read_all("b"), all("seen", 2));
    assert_eq!(cluster.nodes[&2].core.stats().gaps, 1);
}

#[test]
fn i2_the_loss_of_an_idle_origins_last_update_is_seen_by_its_heartbeat() {
    let mut cluster = Cluster::ready(2, config());
    cluster.drops.insert((2, "updates"));
    cluster.put(1, "a", "lost");
    cluster.deliver();
    cluster.drops.clear();
    cluster.run(SECOND * 2);
    assert_eq!(cluster.read_all("a"), all("lost", 2));
    assert_eq!(
        cluster.nodes[&2].core.stats().transfers,
        1,
        "only the one it joined with"
    );
}

#[test]
fn a_peer_that_the_ring_has_left_behind_is_resynced_by_a_transfer() {
    let mut cluster = Cluster::ready(
        2,
        ReplicationConfig {
            replay_updates_max: 16,
            ..config()
        },
    );
    cluster.cut(1, 2);
    for n in 0..100 {
        cluster.put(1, &format!("k{n}"), "value");
    }
    cluster.connect(1, 2);
    cluster.run(SECOND * 2);
    assert_eq!(cluster.nodes[&2].core.store().len(), 100);
    assert_eq!(cluster.nodes[&2].core.status(cluster.now), Status::Synced);
}

#[test]
fn the_last_updates_of_a_dead_origin_spread() {
    let mut cluster = Cluster::ready(3, config());
    cluster.cut(1, 3);
    cluster.put(1, "k", "last words");
    cluster.deliver();
    assert_eq!(
        cluster.read_all("k"),
        vec![Some("last words".into()), Some("last words".into()), None]
    );
    cluster.crash(1);
    cluster.run(SECOND * 4);
    assert_eq!(cluster.read_all("k"), all("last words", 2));
}

#[test]
fn what_an_origin_wrote_before_its_restart_spreads_too() {
    let mut cluster = Cluster::ready(3, config());
    cluster.cut(1, 3);
    cluster.put(1, "k", "former life");
    cluster.deliver();
    cluster.crash(1);
    cluster.start(1);
    cluster.connect_all(1);
    cluster.run(SECOND * 4);
    assert_eq!(cluster.read_all("k"), all("former life", 3));
    assert!(cluster.nodes[&1].core.is_ready());
    cluster.put(1, "k", "new life");
    cluster.deliver();
    assert_eq!(cluster.read_all("k"), all("new life", 3));
}

#[test]
fn r5_an_update_from_the_future_is_refused_and_comes_again_when_it_is_none() {
    let mut cluster = Cluster::ready(2, config());
    cluster.act(1, |node, now, _| {
        let ahead =
            nearcache_store::Timestamp::from_parts(node.core.clock().physical_ms(now) + 500, 9);
        node.core.clock().observe(now, ahead).unwrap();
    });
    cluster.run(Duration::from_millis(10));
    // Node 2's clock stands still for a moment: seen from there, node 1 is ahead by more than the bound.
    cluster.put(1, "k", "v");
    cluster.now = crate::time::Time::from_nanos(cluster.now.as_nanos() - 100_000_000);
    cluster.deliver();
    assert_eq!(cluster.read(2, "k"), None);
    assert!(
        cluster.nodes[&2]
            .events
            .iter()
            .any(|event| matches!(event, Event::DriftRefused { .. }))
    );
    cluster.run(SECOND * 3);
    assert_eq!(cluster.read(2, "k"), Some("v".to_owned()));
}

#[test]
fn r5_a_node_whose_clock_is_far_from_its_peers_stops_writing_and_goes_on_reading() {
    let mut cluster = Cluster::ready(3, config());
    cluster.put(1, "k", "v");
    cluster.deliver();
    cluster.crash(3);
    cluster.start_ahead(3, Duration::from_millis(450));
    cluster.connect_all(3);
    cluster.run(SECOND * 2);
    let stamp = |cluster: &Cluster, id: u64| cluster.nodes[&id].core.clock().stamp(cluster.now);
    assert!(matches!(
        stamp(&cluster, 3),
        Err(crate::clock::ClockError::Skewed { skew_ms, limit_ms: 400 }) if skew_ms < -400
    ));
    assert!(stamp(&cluster, 1).is_ok() && stamp(&cluster, 2).is_ok());
    assert_eq!(cluster.read(3, "k"), Some("v".to_owned()));
    for n in 0..20 {
        let waiter = cluster.modify(1, &format!("key-{n}"), ModifyOp::Add { delta: 1 });
        cluster.deliver();
        let result = &cluster.nodes[&1].results[&waiter];
        assert!(
            matches!(
                result,
                Outcome::Modified(Ok(_) | Err(ModifyError::ClockSkew))
            ),
            "{result:?}"
        );
    }
    cluster.put(1, "k", "w");
    cluster.deliver();
    assert_eq!(cluster.read(3, "k"), Some("w".to_owned()));
    cluster.cut(1, 3);
    cluster.cut(2, 3);
    assert!(stamp(&cluster, 3).is_err(), "it has just been told");
    cluster.run(Duration::from_secs(90));
    assert!(stamp(&cluster, 3).is_ok(), "alone it cannot know for long");
}

#[test]
fn c9_nodes_that_came_and_went_leave_nothing_to_be_mended_for_ever() {
    let config = ReplicationConfig {
        streams_max: 8,
        ..config()
    };
    let mut cluster = Cluster::ready(2, config);
    for id in 10..22 {
        cluster.start(id);
        cluster.connect(1, id);
        cluster.connect(2, id);
        cluster.run(SECOND / 2);
        cluster.put(id, &format!("key-{id}"), "v");
        cluster.deliver();
        cluster.crash(id);
        for survivor in [1, 2] {
            cluster.act(survivor, |node, now, out| {
                let dead = nearcache_store::NodeId::from_u64(id);
                node.core.peer_dead(now, dead, out);
            });
        }
    }
    cluster.start(3);
    cluster.connect_all(3);
    for id in 1..=3 {
        cluster.put(id, &format!("key-{id}"), "v");
    }
    cluster.run(SECOND * 15);
    let comparisons = |cluster: &Cluster| -> u64 {
        let nodes = cluster.nodes.values();
        nodes.map(|node| node.core.stats().comparisons).sum()
    };
    let before = comparisons(&cluster);
    cluster.run(SECOND * 40);
    let made = comparisons(&cluster) - before;
    assert!(
        (6..=18).contains(&made),
        "{made}: three nodes check one peer each ten seconds"
    );
    for id in 10..22 {
        assert_eq!(cluster.read_all(&format!("key-{id}")), all("v", 3));
    }
}
