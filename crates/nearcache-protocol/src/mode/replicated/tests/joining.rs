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
