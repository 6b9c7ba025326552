//! Nodes that leave on purpose.

use std::sync::Arc;
use std::time::Duration;

use nearcache_store::{
    Change, CoarseClock, Expiry, LeafRange, NodeId, Store, StoreConfig, Tags, Timestamp, Version,
};

use super::{SECOND, all, config};
use crate::mode::HandedOver;
use crate::modify::ModifyOp;
use crate::testing::{Cluster, Text, WALL_MS};

fn hand_over(cluster: &mut Cluster, id: u64) {
    cluster.act(id, |node, now, out| node.core.hand_over(now, out));
}

fn handed_over(cluster: &Cluster, id: u64) -> HandedOver {
    cluster.nodes[&id].core.handed_over()
}

#[test]
fn k4_a_node_that_leaves_waits_until_all_have_its_last_updates() {
    let mut cluster = Cluster::ready(3, config());
    cluster.drops.extend([(2, "updates"), (3, "updates")]);
    cluster.put(1, "k", "last");
    assert_eq!(handed_over(&cluster, 1), HandedOver::ToNobody);
    hand_over(&mut cluster, 1);
    assert_eq!(handed_over(&cluster, 1), HandedOver::ToNobody);
    // The stream is cut; comparing digests brings it all the same.
    cluster.run(SECOND);
    assert_eq!(handed_over(&cluster, 1), HandedOver::ToAll);
    cluster.crash(1);
    assert_eq!(cluster.read_all("k"), all("last", 2));
}

#[test]
fn k4_a_node_that_leaves_hands_over_what_only_it_has_of_a_dead_one() {
    let mut cluster = Cluster::ready(3, config());
    cluster.cut(1, 3);
    cluster.put(1, "k", "of the dead");
    cluster.deliver();
    cluster.crash(1);
    hand_over(&mut cluster, 2);
    cluster.run(Duration::from_millis(100));
    assert_eq!(handed_over(&cluster, 2), HandedOver::ToAll);
    cluster.crash(2);
    assert_eq!(cluster.read_all("k"), all("of the dead", 1));
}

#[test]
fn k4_a_peer_that_does_not_answer_does_not_keep_another_from_having_everything() {
    let mut cluster = Cluster::ready(3, config());
    cluster.drops.extend([
        (2, "updates"),
        (2, "compare"),
        (2, "want"),
        (2, "listed"),
        (2, "list"),
    ]);
    cluster.put(1, "k", "last");
    hand_over(&mut cluster, 1);
    cluster.run(SECOND * 4);
    assert_eq!(handed_over(&cluster, 1), HandedOver::ToSome);
    assert_eq!(cluster.read(3, "k"), Some("last".to_owned()));
}

#[test]
fn a_node_that_is_about_to_leave_is_nobodys_home() {
    let mut cluster = Cluster::ready(3, config());
    let add = || ModifyOp::Add { delta: 1 };
    hand_over(&mut cluster, 1);
    cluster.run(Duration::from_millis(100));
    let before = cluster.nodes[&1].core.stats().published;
    let asked: Vec<u64> = (0..50)
        .map(|n| cluster.modify(2, &format!("n{n}"), add()))
        .collect();
    cluster.run(Duration::from_millis(200));
    assert_eq!(cluster.nodes[&1].core.stats().published, before);
    // Those whose home it was are asked for again, and done as soon as it has left.
    for id in 2..=3 {
        cluster.act(id, |node, now, out| {
            node.core.peer_left(now, NodeId::from_u64(1), out)
        });
    }
    cluster.crash(1);
    cluster.run(SECOND);
    assert!(
        asked
            .iter()
            .all(|waiter| cluster.nodes[&2].results.contains_key(waiter))
    );
    assert_eq!(cluster.read_all("n7"), all("1", 2));
}

#[test]
fn a_node_alone_has_nobody_to_hand_over_to() {
    let mut cluster = Cluster::ready(1, config());
    cluster.put(1, "k", "v");
    hand_over(&mut cluster, 1);
    assert_eq!(handed_over(&cluster, 1), HandedOver::ToAll);
}

/// A store of which every leaf has forgotten something for want of room.
fn forgetful() -> Arc<Store<Text>> {
    let config = StoreConfig {
        key_floor_percent: 0,
        digest_key: Some([7; 16]),
        shards: std::num::NonZeroUsize::new(1),
        ..StoreConfig::new(128 << 10)
    };
    let store = Store::new(config, CoarseClock::new(WALL_MS)).unwrap();
    let version = Version::new(Timestamp::from_parts(WALL_MS, 0), NodeId::from_u64(9));
    for n in 0..20_000 {
        let change = Change::Put {
            value: Text::new("v"),
            expiry: Expiry::NEVER,
            tags: Tags::NONE,
        };
        let key = format!("k{n}");
        let _ = store.merge(key.as_bytes(), version, change).unwrap();
    }
    let bits = store.digest_bits().unwrap();
    let mut leaves = LeafRange::ALL.parts(bits);
    assert!(leaves.all(|leaf| store.digest_is_lossy(leaf)));
    Arc::new(store)
}

#[test]
fn k4_a_comparison_that_leaves_out_what_differs_for_ever_hands_nothing_over() {
    let mut cluster = Cluster::new(config());
    cluster.start_on(1, config(), forgetful());
    cluster.start(2);
    cluster.connect(1, 2);
    cluster.run(SECOND * 5);
    cluster.drops.insert((2, "updates"));
    cluster.put(1, "k", "last");
    hand_over(&mut cluster, 1);
    cluster.run(SECOND);
    assert_eq!(cluster.read(2, "k"), None);
    assert_eq!(handed_over(&cluster, 1), HandedOver::ToNobody);
    cluster.drops.clear();
    cluster.run(SECOND * 2);
    assert_eq!(cluster.read(2, "k").as_deref(), Some("last"));
    assert_eq!(handed_over(&cluster, 1), HandedOver::ToAll);
}
