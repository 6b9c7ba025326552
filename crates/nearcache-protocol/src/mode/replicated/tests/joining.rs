//! Nodes that start, join, or were away.

use bytes::Bytes;
use nearcache_store::{NodeId, Scope};

use super::{GATHERS, SECOND, all, config};
use crate::config::ReplicationConfig;
use crate::mode::{Event, Outcome, Status};
use crate::testing::Cluster;

#[test]
fn a_node_alone_is_ready_after_its_patience() {
    let mut cluster = Cluster::new(config());
    cluster.start(1);
    cluster.run(SECOND);
    assert!(!cluster.nodes[&1].core.is_ready());
    cluster.run(SECOND * 2);
    assert_eq!(cluster.nodes[&1].became_ready, 1);
    assert_eq!(cluster.nodes[&1].core.status(cluster.now), Status::Synced);
}

#[test]
fn r9_a_joining_node_gets_all_entries_removals_and_floors_before_it_is_ready() {
    let mut cluster = Cluster::ready(
        2,
        ReplicationConfig {
            replay_updates_max: 8,
            ..config()
        },
    );
    for n in 0..5_000 {
        cluster.put(1, &format!("k{n}"), "value");
    }
    cluster.deliver();
    cluster.remove(2, "k7");
    cluster.invalidate(1, Scope::Prefix(b"k9".as_slice().into()));
    cluster.run(SECOND);
    cluster.start(3);
    cluster.connect_all(3);
    cluster.run(SECOND);
    assert_eq!(cluster.nodes[&3].became_ready, 1);
    assert_eq!(
        cluster.nodes[&3].core.store().tombstones(),
        cluster.nodes[&1].core.store().tombstones()
    );
    assert_eq!(cluster.read_all("k7"), vec![None; 3]);
    assert_eq!(cluster.read_all("k9"), vec![None; 3]);
    assert_eq!(cluster.read_all("k1234"), all("value", 3));
    assert_eq!(
        cluster.nodes[&3].core.stats().transfers,
        1,
        "one transfer is enough"
    );
    cluster.run(SECOND * 5);
    assert_eq!(cluster.nodes[&3].core.stats().transfers, 1);
    assert_eq!(cluster.nodes[&3].core.status(cluster.now), Status::Synced);
}

/// Of each origin the four newest starts are remembered; who has started six times tells of five of them, its own one included. A node
/// that was filled by it alone waited for the oldest, of which it never claims anything, and was never ready (simulator, seed 186 beyond
/// the mesh at full strength).
#[test]
fn r9_a_node_that_is_filled_by_one_that_was_started_often_is_ready() {
    let mut cluster = Cluster::ready(2, config());
    for n in 0..6 {
        cluster.crash(2);
        cluster.start(2);
        cluster.connect_all(2);
        cluster.run(SECOND * 3);
        assert!(cluster.nodes[&2].core.is_ready());
        cluster.put(2, &format!("k{n}"), "v");
        cluster.run(SECOND);
    }
    cluster.start(3);
    cluster.connect(2, 3);
    cluster.run(SECOND * 3);
    assert!(cluster.nodes[&3].core.is_ready());
    assert_eq!(cluster.read(3, "k0"), Some("v".to_owned()));
}

/// Two sources remembered different starts of a third node, and the one that was ahead forgot the oldest before it was asked for the rest:
/// it had nothing to claim of it any more, and the joining node waited for ever (simulator, 26 of 400 seeds at full strength).
#[test]
fn r9_what_a_source_was_ahead_in_and_has_forgotten_since_keeps_nobody_from_being_ready() {
    let mut cluster = Cluster::ready(2, config());
    let start_again = |cluster: &mut Cluster, n: u32| {
        cluster.crash(3);
        cluster.start(3);
        cluster.connect(1, 3);
        cluster.run(SECOND * 3);
        cluster.put(3, &format!("k{n}"), "v");
        cluster.run(SECOND);
    };
    cluster.start(3);
    for n in 0..4 {
        start_again(&mut cluster, n);
        cluster.connect(2, 3);
        cluster.run(SECOND);
    }
    // Only the first hears of the fifth.
    start_again(&mut cluster, 4);
    cluster.drops.insert((4, "differs"));
    cluster.start(4);
    cluster.connect(1, 4);
    cluster.connect(2, 4);
    cluster.run(GATHERS + SECOND / 5);
    assert!(cluster.nodes[&4].core.store().len() > 3);
    assert!(
        !cluster.nodes[&4].core.is_ready(),
        "the second is ahead in a start that the first has forgotten"
    );
    // Now the second forgets it too.
    cluster.connect(2, 3);
    cluster.run(SECOND);
    cluster.put(3, "k5", "v");
    cluster.run(SECOND);
    cluster.drops.clear();
    cluster.run(SECOND * 5);
    assert!(cluster.nodes[&4].core.is_ready());
    assert_eq!(cluster.read(4, "k0"), Some("v".to_owned()));
}

#[test]
fn a_transfer_survives_the_death_of_the_peer_that_serves_it() {
    let mut cluster = Cluster::ready(
        3,
        ReplicationConfig {
            replay_updates_max: 8,
            transfer_credit_bytes: 8 << 10,
            transfer_chunk_bytes: 4 << 10,
            ..config()
        },
    );
    for n in 0..2_000 {
        cluster.put(1, &format!("k{n}"), "value");
    }
    cluster.run(SECOND);
    cluster.start(4);
    // Credit never arrives: the transfer stands still half way.
    cluster
        .drops
        .extend([1, 2, 3].map(|id| (id, "transfer-credit")));
    cluster.connect_all(4);
    cluster.run(GATHERS);
    let held = cluster.nodes[&4].core.store().len();
    assert!((1..2_000).contains(&held), "{held} of 2,000");
    cluster.crash(1);
    cluster.drops.clear();
    cluster.run(SECOND * 8);
    assert!(cluster.nodes[&4].core.is_ready());
    assert_eq!(cluster.nodes[&4].core.store().len(), 2_000);
}

#[test]
fn a_cluster_that_starts_together_becomes_ready() {
    let mut cluster = Cluster::new(config());
    for id in 1..=4 {
        cluster.start(id);
        cluster.connect_all(id);
    }
    cluster.put(2, "early", "bird");
    cluster.run(SECOND * 4);
    assert!(cluster.nodes.values().all(|node| node.core.is_ready()));
    assert_eq!(cluster.read_all("early"), all("bird", 4));
}

#[test]
fn a_read_that_misses_while_joining_asks_a_peer() {
    let mut cluster = Cluster::ready(2, config());
    cluster.put(1, "k", "v");
    cluster.deliver();
    cluster.start(3);
    cluster.drops.insert((3, "transfer-start"));
    cluster.connect_all(3);
    cluster.deliver();
    assert_eq!(cluster.read(3, "k"), None);
    let (known, unknown) = (cluster.waiter(SECOND), cluster.waiter(SECOND));
    cluster.act(3, |node, now, out| {
        node.core.find(now, Bytes::from_static(b"k"), known, out);
        node.core
            .find(now, Bytes::from_static(b"unknown"), unknown, out);
    });
    cluster.deliver();
    assert!(!cluster.nodes[&3].core.is_ready());
    assert!(matches!(
        cluster.nodes[&3].results[&known.id.0],
        Outcome::Found(true)
    ));
    assert!(matches!(
        cluster.nodes[&3].results[&unknown.id.0],
        Outcome::Found(false)
    ));
    assert_eq!(cluster.read(3, "k"), Some("v".to_owned()));
}

#[test]
fn r9_requests_that_overtake_the_announcement_are_answered_and_the_join_takes_no_time() {
    let mut cluster = Cluster::ready(2, config());
    cluster.put(1, "k", "v");
    cluster.deliver();
    // What the joining node asks for on the data and bulk lanes comes before its announcement.
    cluster.delays.extend([(1, "announce"), (2, "announce")]);
    cluster.start(3);
    cluster.connect_all(3);
    cluster.run(GATHERS);
    assert!(cluster.nodes[&3].core.is_ready());
    assert_eq!(cluster.read(3, "k"), Some("v".to_owned()));
    cluster.put(1, "k", "w");
    cluster.deliver();
    assert_eq!(cluster.read_all("k"), all("w", 3));
    let of_node_3 = cluster.nodes[&3].core.stats();
    assert_eq!(of_node_3.transfers, 1, "asked once, answered once");
}

#[test]
fn r4_a_node_away_for_longer_than_removals_are_remembered_starts_clean() {
    let mut short = config();
    short.agreement.tombstone_ttl_ms = 5_000;
    short.replay_updates_max = 8;
    let mut cluster = Cluster::ready(3, short);
    cluster.put(1, "removed", "v");
    cluster.put(1, "kept", "v");
    cluster.deliver();
    cluster.cut(1, 3);
    cluster.cut(2, 3);
    for (a, b) in [(1, 3), (2, 3), (3, 1), (3, 2)] {
        cluster.act(a, |node, now, out| {
            node.core.peer_dead(now, NodeId::from_u64(b), out)
        });
    }
    cluster.remove(1, "removed");
    cluster.put(3, "forgotten", "v");
    cluster.run(SECOND * 6);
    // Nobody remembers the removal, neither as a tombstone nor in the stream.
    for n in 0..20 {
        cluster.put(1, &format!("k{n}"), "v");
    }
    cluster.put(3, "recent", "v");
    cluster.run(SECOND);
    assert_eq!(cluster.nodes[&1].core.store().tombstones(), 0);
    assert_eq!(cluster.read(3, "removed"), Some("v".to_owned()));
    cluster.connect_all(3);
    cluster.run(SECOND * 4);
    assert_eq!(cluster.read_all("removed"), vec![None; 3]);
    assert_eq!(cluster.read_all("forgotten"), vec![None; 3]);
    assert_eq!(cluster.read_all("kept"), all("v", 3));
    assert_eq!(cluster.read_all("recent"), all("v", 3));
    assert_eq!(cluster.read_all("k7"), all("v", 3));
    let cleaned = |id: u64| {
        let events = cluster.nodes[&id].events.iter();
        events
            .filter(|event| matches!(event, Event::StartedClean { .. }))
            .count()
    };
    assert_eq!([cleaned(1), cleaned(2), cleaned(3)], [0, 0, 1]);
    assert!(cluster.nodes[&3].core.is_ready());
    assert_eq!(cluster.nodes[&3].core.status(cluster.now), Status::Synced);
}
