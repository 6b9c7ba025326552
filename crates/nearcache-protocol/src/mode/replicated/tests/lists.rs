//! Exchanging lists where stores are large, or hardly differ.

use std::sync::Arc;
use std::time::Duration;

use nearcache_store::{Change, Expiry, LeafRange, NodeId, Scope, Store, Tags, Timestamp, Version};

use crate::config::ReplicationConfig;
use crate::testing::{Cluster, Text, WALL_MS, store, store_of};

const ENTRIES: u64 = 20_000;

fn version(ms: u64) -> Version {
    Version::new(Timestamp::from_parts(WALL_MS + ms, 0), NodeId::from_u64(9))
}

/// Puts something into one node's store that nobody tells the others.
fn fill(store: &Store<Text>, key: &str, ms: u64, text: &str) {
    let change = Change::Put {
        value: Text::new(text),
        expiry: Expiry::NEVER,
        tags: Tags::NONE,
    };
    let _ = store.merge(key.as_bytes(), version(ms), change).unwrap();
}

fn filled(store: Arc<Store<Text>>, entries: u64) -> Arc<Store<Text>> {
    for n in 0..entries {
        fill(&store, &format!("k{n}"), 10, "v");
    }
    store
}

fn are_equal(cluster: &Cluster) -> bool {
    let nodes = cluster.nodes.values();
    let mut sums = nodes.map(|node| node.core.store().digest_sum(LeafRange::ALL));
    let first = sums.next();
    sums.all(|sum| Some(sum) == first)
}

/// Two nodes that hold the same, and go through it in twice the time after which an exchange counts as stalled.
fn slow_pair() -> Cluster {
    let config = ReplicationConfig {
        transfer_stall_after: Duration::from_millis(50),
        ..ReplicationConfig::default()
    };
    let mut cluster = Cluster::new(config.clone());
    cluster.start_on(1, config.clone(), filled(store(), ENTRIES));
    cluster.start_on(2, config, filled(store(), ENTRIES));
    cluster.connect(1, 2);
    cluster.run(Duration::from_secs(6));
    assert!(cluster.nodes.values().all(|node| node.core.is_ready()));
    cluster
}

#[test]
fn r11_a_single_difference_is_found_in_a_store_that_takes_longer_to_go_through_than_a_peer_may_be_silent()
 {
    for changed in [1, 2] {
        let mut cluster = slow_pair();
        fill(cluster.nodes[&changed].core.store(), "k7", 5_000, "newer");
        assert!(!are_equal(&cluster));
        cluster.run(Duration::from_secs(26));
        assert!(are_equal(&cluster), "changed on node {changed}");
    }
}

#[test]
fn who_goes_through_its_store_is_ticked_as_often_as_it_takes_steps() {
    let mut cluster = slow_pair();
    let is_paced = |cluster: &Cluster, id| cluster.nodes[&id].core.is_paced(cluster.now);
    assert!(![1, 2].into_iter().any(|id| is_paced(&cluster, id)));
    fill(cluster.nodes[&1].core.store(), "k7", 5_000, "newer");
    let mut paced = [0, 0];
    for _ in 0..2_600 {
        cluster.run(Duration::from_millis(10));
        for (times, id) in paced.iter_mut().zip([1, 2]) {
            *times += u64::from(is_paced(&cluster, id));
        }
    }
    assert!(paced.into_iter().all(|times| times > 5), "{paced:?}");
    assert!(![1, 2].into_iter().any(|id| is_paced(&cluster, id)));
}

/// Runs for a minute in which `write` tells node 1 something every 10 ms, and node 2 the same 10 ms later. Returns how many
/// comparisons were made, and for how many steps anybody went through its store.
fn run_while_on_its_way(write: impl Fn(&Store<Text>, u64)) -> (u64, u64) {
    let mut cluster = slow_pair();
    let comparisons = |cluster: &Cluster| -> u64 {
        let nodes = cluster.nodes.values();
        nodes.map(|node| node.core.stats().comparisons).sum()
    };
    cluster.run(Duration::from_secs(14));
    let before = comparisons(&cluster);
    let mut listing = 0;
    for _ in 0..6_000 {
        let ms = cluster.nodes[&1].core.clock().physical_ms(cluster.now) - WALL_MS;
        write(cluster.nodes[&1].core.store(), ms);
        write(cluster.nodes[&2].core.store(), ms - 10);
        cluster.run(Duration::from_millis(10));
        let mut nodes = cluster.nodes.values();
        listing += u64::from(nodes.any(|node| node.core.is_paced(cluster.now)));
    }
    (comparisons(&cluster) - before, listing)
}

#[test]
fn group_invalidations_on_their_way_make_nobody_go_through_its_store_nor_check_more_often() {
    let (comparisons, listing) = run_while_on_its_way(|store, ms| {
        let _ = store.invalidate(Scope::Tag(b"hot".as_slice().into()), version(ms));
    });
    assert_eq!(listing, 0, "{comparisons} comparisons");
    assert!((6..=20).contains(&comparisons), "{comparisons}");
}

#[test]
fn a_key_that_is_always_being_written_makes_nobody_check_more_often() {
    let (comparisons, listing) =
        run_while_on_its_way(|store, ms| fill(store, "hot", ms, "another"));
    assert!((6..=20).contains(&comparisons), "{comparisons}");
    assert!(listing < 1_000, "{listing}");
}

#[test]
fn r11_a_check_lists_a_bounded_share_where_all_leaves_differ_for_ever_and_each_share_has_its_turn()
{
    const MANY: u64 = 50_000;
    let config = ReplicationConfig::default();
    let mut cluster = Cluster::new(config.clone());
    cluster.start_on(1, config.clone(), filled(store(), MANY));
    // Room for a tenth of it.
    cluster.start_on(2, config, filled(store_of(1 << 20), MANY));
    cluster.connect(1, 2);
    cluster.run(Duration::from_secs(20));
    cluster.carried.clear();
    cluster.run(Duration::from_secs(60));
    let (lists, _) = cluster.carried["list"];
    let (_, bytes) = cluster.carried["listed"];
    assert!((6..=20).contains(&lists), "{lists}");
    assert!(bytes as u64 <= lists * 120_000, "{bytes} in {lists} lists");
    let ms = cluster.nodes[&1].core.clock().physical_ms(cluster.now) - WALL_MS;
    fill(cluster.nodes[&1].core.store(), "lost", ms, "found");
    cluster.run(Duration::from_secs(20 * 13));
    assert_eq!(cluster.read(2, "lost").as_deref(), Some("found"));
}
