//! Transfers from several peers: shares, what is read most, limits, and peers that die in the middle.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::LeafRange;

use super::{GATHERS, SECOND, config};
use crate::config::ReplicationConfig;
use crate::mode::{Event, Outcome};
use crate::testing::{Cluster, store_of};

const ENTRIES: u64 = 2_000;

/// Three nodes with as many entries, and a fourth that is not connected yet. Chunks and credit are small.
fn filled(change: impl FnOnce(&mut ReplicationConfig)) -> Cluster {
    let mut config = ReplicationConfig {
        replay_updates_max: 8,
        transfer_credit_bytes: 8 << 10,
        transfer_chunk_bytes: 2 << 10,
        ..config()
    };
    change(&mut config);
    let mut cluster = Cluster::ready(3, config);
    for n in 0..ENTRIES {
        cluster.put(1, &format!("k{n}"), "value");
    }
    cluster.run(SECOND);
    cluster.start(4);
    cluster.carried.clear();
    cluster
}

fn held(cluster: &Cluster, id: u64) -> u64 {
    cluster.nodes[&id].core.store().len() as u64
}

fn sent(cluster: &Cluster) -> BTreeMap<u64, u64> {
    let nodes = cluster.nodes.iter();
    nodes
        .map(|(id, node)| (*id, node.core.stats().transferred_bytes_sent))
        .collect()
}

#[test]
fn a_joining_node_is_filled_by_all_ready_peers_and_nothing_travels_twice() {
    let mut cluster = filled(|_| ());
    cluster.connect_all(4);
    cluster.run(SECOND);
    assert!(cluster.nodes[&4].core.is_ready());
    let stats = cluster.nodes[&4].core.stats();
    assert_eq!((held(&cluster, 4), stats.transferred), (ENTRIES, ENTRIES));
    assert_eq!(
        (stats.transfers, stats.reconciled, stats.parts_left),
        (1, 0, 0)
    );
    let sent = sent(&cluster);
    let whole: u64 = sent.values().sum();
    for id in 1..=3 {
        assert!((whole / 4..whole / 2).contains(&sent[&id]), "{sent:?}");
    }
    let filled = cluster.nodes[&4].events.iter();
    let filled = filled.filter(|event| matches!(event, Event::Filled { sources: 3, .. }));
    assert_eq!(filled.count(), 1);
}

#[test]
fn of_a_peer_that_dies_in_the_middle_only_what_is_missing_comes_from_another() {
    let mut cluster = filled(|_| ());
    // Node 1 gets no more credit, and stands still half way.
    cluster.drops.insert((1, "transfer-credit"));
    cluster.connect_all(4);
    cluster.run(GATHERS + SECOND);
    let before = held(&cluster, 4);
    assert!(!cluster.nodes[&4].core.is_ready());
    assert!((ENTRIES * 2 / 3..ENTRIES).contains(&before), "{before}");
    cluster.crash(1);
    cluster.run(SECOND * 3);
    assert!(cluster.nodes[&4].core.is_ready());
    assert_eq!(held(&cluster, 4), ENTRIES);
    let stats = cluster.nodes[&4].core.stats();
    assert_eq!(
        stats.transferred + stats.reconciled,
        ENTRIES,
        "nothing came twice"
    );
    assert_eq!(stats.reconciled, ENTRIES - before);
}

#[test]
fn of_a_peer_that_dies_before_it_sent_anything_the_whole_share_comes_from_another() {
    let mut cluster = filled(|_| ());
    cluster.drops.insert((1, "transfer-request"));
    cluster.connect_all(4);
    cluster.run(GATHERS);
    cluster.crash(1);
    cluster.run(SECOND * 3);
    let stats = cluster.nodes[&4].core.stats();
    assert_eq!((stats.transferred, stats.reconciled), (ENTRIES, 0));
    assert!(cluster.nodes[&4].core.is_ready());
}

#[test]
fn a_transfer_whose_every_peer_dies_goes_on_with_one_that_comes_later() {
    let mut cluster = filled(|_| ());
    cluster
        .drops
        .extend([1, 2].map(|id| (id, "transfer-credit")));
    cluster.connect(4, 1);
    cluster.connect(4, 2);
    cluster.run(GATHERS);
    let before = held(&cluster, 4);
    assert!((1..ENTRIES).contains(&before), "{before}");
    cluster.crash(1);
    cluster.crash(2);
    cluster.drops.clear();
    cluster.run(SECOND);
    cluster.connect(4, 3);
    cluster.run(SECOND * 4);
    assert!(cluster.nodes[&4].core.is_ready());
    let stats = cluster.nodes[&4].core.stats();
    assert_eq!(held(&cluster, 4), ENTRIES);
    assert_eq!(
        stats.transferred + stats.reconciled,
        ENTRIES,
        "nothing came twice"
    );
}

#[test]
fn what_is_read_comes_first() {
    let mut cluster = filled(|_| ());
    let read = |n: &u64| n % 20 == 7;
    for id in 1..=3 {
        for n in (0..ENTRIES).filter(read) {
            let store = cluster.nodes[&id].core.store();
            assert!(store.get(format!("k{n}").as_bytes()).is_some());
        }
    }
    cluster
        .drops
        .extend([1, 2, 3].map(|id| (id, "transfer-credit")));
    cluster.connect_all(4);
    cluster.run(GATHERS);
    assert!(held(&cluster, 4) < ENTRIES / 2, "{}", held(&cluster, 4));
    for n in (0..ENTRIES).filter(read) {
        assert!(
            cluster.read(4, &format!("k{n}")).is_some(),
            "k{n} is read often"
        );
    }
}

#[test]
fn r9_a_read_asks_a_peer_while_several_are_filling_this_node() {
    let mut cluster = filled(|_| ());
    cluster
        .drops
        .extend([1, 2, 3].map(|id| (id, "transfer-credit")));
    cluster.connect_all(4);
    cluster.run(GATHERS);
    let missing: Vec<u64> = (0..ENTRIES)
        .filter(|n| cluster.read(4, &format!("k{n}")).is_none())
        .collect();
    assert!(missing.len() > 100);
    for n in missing {
        let waiter = cluster.waiter(SECOND);
        cluster.act(4, |node, now, out| {
            node.core
                .find(now, Bytes::from(format!("k{n}")), waiter, out);
        });
        cluster.deliver();
        let result = &cluster.nodes[&4].results[&waiter.id.0];
        assert!(matches!(result, Outcome::Found(true)), "k{n}");
    }
}

#[test]
fn a_transfer_is_no_faster_than_the_limit_of_those_who_serve_it() {
    // 2,000 entries of about 45 bytes from three nodes at 10,000 bytes a second each: some three seconds.
    let mut cluster = filled(|config| config.transfer_bytes_per_second = 10_000);
    cluster.connect_all(4);
    let mut took = Duration::ZERO;
    while !cluster.nodes[&4].core.is_ready() {
        cluster.run(Duration::from_millis(100));
        took += Duration::from_millis(100);
        assert!(
            took < SECOND * 20,
            "too slow: {} entries",
            held(&cluster, 4)
        );
    }
    let whole: u64 = sent(&cluster).values().sum();
    let fastest = Duration::from_millis(whole / 30 * 8 / 10);
    assert!(
        took >= fastest && took < fastest * 2,
        "{took:?} for {whole} bytes"
    );
    let told = cluster.nodes[&4].events.iter();
    let told = told.filter(|event| matches!(event, Event::TransferProgress { .. }));
    assert!(told.count() >= 2, "progress is told");
}

#[test]
fn c2_a_joining_node_is_told_what_others_have_evicted() {
    let mut cluster = Cluster::new(config());
    for id in 1..=2 {
        cluster.start_on(id, config(), store_of(1 << 20));
        cluster.connect_all(id);
    }
    // Has the first value, and was cut off since.
    cluster.start(3);
    cluster.connect_all(3);
    cluster.run(SECOND * 5);
    cluster.put(1, "k", "older");
    cluster.run(SECOND);
    cluster.cut(1, 3);
    cluster.cut(2, 3);
    cluster.put(1, "k", "newer");
    let value = "x".repeat(1_000);
    for n in 0.. {
        if cluster.read(1, "k").is_none() && cluster.read(2, "k").is_none() {
            break;
        }
        cluster.put(1, &format!("f{n}"), &value);
        cluster.deliver();
    }
    cluster.run(SECOND * 2);
    assert_eq!(
        cluster.read_all("k"),
        vec![None, None, Some("older".to_owned())]
    );
    cluster.start(4);
    cluster.connect(4, 1);
    cluster.connect(4, 2);
    cluster.run(SECOND * 2);
    assert!(cluster.nodes[&4].core.is_ready());
    // Only now it meets the one that was cut off.
    cluster.crash(1);
    cluster.crash(2);
    cluster.connect(3, 4);
    cluster.run(SECOND * 5);
    assert_eq!(
        cluster.read(4, "k"),
        None,
        "never older than what others evicted"
    );
    assert_eq!(cluster.read(3, "k"), None, "and the other one learns of it");
}

#[test]
fn r10_the_digest_of_a_node_that_joined_equals_that_of_the_peers_that_evicted() {
    let mut cluster = Cluster::new(config());
    for id in 1..=2 {
        cluster.start_on(id, config(), store_of(1 << 20));
        cluster.connect_all(id);
    }
    cluster.run(SECOND * 5);
    let mut n = 0;
    while cluster.nodes[&1].core.store().stats().evictions < 20 {
        cluster.put(1, &format!("f{n}"), &"x".repeat(100));
        n += 1;
    }
    cluster.run(SECOND);
    cluster.start(3);
    cluster.connect_all(3);
    cluster.run(SECOND * 2);
    let (joined, peer) = (
        cluster.nodes[&3].core.store(),
        cluster.nodes[&1].core.store(),
    );
    let leaves: Vec<LeafRange> = LeafRange::ALL.parts(8).collect();
    let exact = leaves.iter().filter(|leaf| !peer.digest_is_lossy(**leaf));
    assert!(exact.clone().count() > 200, "few had to be folded");
    for leaf in exact {
        assert_eq!(joined.digest_sum(*leaf), peer.digest_sum(*leaf), "{leaf:?}");
    }
}

#[test]
fn c2_a_node_is_ready_only_when_it_has_what_any_of_its_sources_had_of_a_dead_origin() {
    let mut cluster = filled(|config| config.compare_every = Duration::ZERO);
    cluster.crash(4);
    // Of the last word of node 1 only node 2 knows.
    cluster.cut(1, 3);
    cluster.put(1, "last", "word");
    cluster.deliver();
    cluster.crash(1);
    cluster.cut(2, 3);
    cluster.start(4);
    cluster.connect(4, 2);
    cluster.connect(4, 3);
    while !cluster.nodes[&4].core.is_ready() {
        cluster.run(Duration::from_millis(10));
    }
    assert_eq!(cluster.read(4, "last"), Some("word".to_owned()));
    assert_eq!(cluster.read(3, "last"), None);
}
