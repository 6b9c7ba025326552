use std::time::Duration;

use nearcache_store::{Change, Expiry, LeafRange, NodeId, Scope, Tags, Timestamp, Version};

use crate::config::ReplicationConfig;
use crate::mode::Event;
use crate::testing::{Cluster, Text, WALL_MS, store, store_of};

const ROUND: Duration = Duration::from_secs(13);

fn version(ms: u64) -> Version {
    Version::new(Timestamp::from_parts(WALL_MS + ms, 0), NodeId::from_u64(9))
}

/// What node 9 would stamp now.
fn version_now(cluster: &Cluster) -> Version {
    let clock = cluster.nodes[&1].core.clock();
    version(clock.physical_ms(cluster.now) - WALL_MS)
}

/// Puts something into one node's store that nobody tells the others: as if an update had been lost.
fn lose(cluster: &Cluster, id: u64, key: &str, ms: u64, text: Option<&str>) {
    let change = text.map_or(Change::Remove, |text| Change::Put {
        value: Text::new(text),
        expiry: Expiry::NEVER,
        tags: Tags::NONE,
    });
    let store = cluster.nodes[&id].core.store();
    let _ = store.merge(key.as_bytes(), version(ms), change).unwrap();
}

fn total(cluster: &Cluster, names: &[&str]) -> (u64, usize) {
    let of = |name: &&str| cluster.carried.get(*name).copied().unwrap_or_default();
    let all = names.iter().map(of);
    all.fold((0, 0), |sum, one| (sum.0 + one.0, sum.1 + one.1))
}

const ALL: [&str; 6] = ["compare", "differs", "list", "listed", "want", "entries"];

#[test]
fn r11_a_check_finds_what_was_lost_on_either_side_entries_tombstones_and_floors() {
    let mut cluster = Cluster::ready(2, ReplicationConfig::default());
    for n in 0..50 {
        cluster.put(1, &format!("k{n}"), "v");
    }
    cluster.run(Duration::from_secs(1));
    lose(&cluster, 1, "k1", 6_500, Some("newer on 1"));
    lose(&cluster, 2, "k2", 6_500, Some("newer on 2"));
    lose(&cluster, 2, "k3", 6_500, None);
    lose(&cluster, 1, "only on 1", 6_500, Some("v"));
    let floor = Scope::Prefix(b"k4".as_slice().into());
    cluster.nodes[&2]
        .core
        .store()
        .invalidate(floor, version(6_600));
    cluster.run(ROUND * 2);
    let both = |text: &str| vec![Some(text.to_owned()); 2];
    assert_eq!(cluster.read_all("k1"), both("newer on 1"));
    assert_eq!(cluster.read_all("k2"), both("newer on 2"));
    assert_eq!(cluster.read_all("only on 1"), both("v"));
    assert_eq!(cluster.read_all("k5"), both("v"));
    for gone in ["k3", "k4", "k41"] {
        assert_eq!(cluster.read_all(gone), vec![None; 2], "{gone}");
    }
    // An older value does not come back behind a removal that came by a comparison.
    lose(&cluster, 1, "k3", 6_000, Some("old"));
    assert_eq!(cluster.read(1, "k3"), None);
}

/// All that the stores know, in one number each.
fn digests(cluster: &Cluster) -> Vec<u64> {
    let nodes = cluster.nodes.values();
    nodes
        .map(|node| node.core.store().digest_sum(LeafRange::ALL))
        .collect()
}

#[test]
fn r11_any_single_difference_is_found_within_two_rounds() {
    let put = |text: &str, expiry| Change::Put {
        value: Text::new(text),
        expiry,
        tags: Tags::NONE,
    };
    let late = Expiry::at_millis(WALL_MS + 3_600_000);
    let changes = [
        ("a newer value", "k1", put("newer", Expiry::NEVER)),
        ("another expiry", "k2", put("v", late)),
        ("a removal", "k3", Change::Remove),
        ("a key that the other lacks", "new", put("v", Expiry::NEVER)),
        ("a removal of what neither has", "none", Change::Remove),
    ];
    for (what, key, change) in changes {
        for changed in [1, 2] {
            let mut cluster = Cluster::ready(2, ReplicationConfig::default());
            for n in 0..50 {
                cluster.put(1, &format!("k{n}"), "v");
            }
            cluster.run(ROUND);
            let store = cluster.nodes[&changed].core.store();
            let newer = version_now(&cluster);
            let merged = store.merge(key.as_bytes(), newer, change.clone()).unwrap();
            assert!(merged.is_applied(), "{what}");
            let apart = digests(&cluster);
            assert_ne!(apart[0], apart[1], "{what}");
            cluster.run(ROUND * 2);
            let sums = digests(&cluster);
            assert_eq!(sums[0], sums[1], "{what}, on node {changed}");
        }
    }
}

#[test]
fn r10_what_has_expired_is_never_sent_as_alive() {
    let mut cluster = Cluster::ready(2, ReplicationConfig::default());
    cluster.put(1, "k", "v");
    cluster.run(Duration::from_secs(1));
    // Node 1 alone has it, and it is over before anybody compares.
    let newer = version_now(&cluster);
    let change = Change::Put {
        value: Text::new("short"),
        expiry: Expiry::at_millis(newer.time.millis() + 200),
        tags: Tags::NONE,
    };
    let store = cluster.nodes[&1].core.store();
    assert!(store.merge(b"k", newer, change).unwrap().is_applied());
    assert_eq!(cluster.read(1, "k").as_deref(), Some("short"));
    for _ in 0..(ROUND * 3).as_millis() / 10 {
        cluster.run(Duration::from_millis(10));
        assert_ne!(cluster.read(2, "k").as_deref(), Some("short"));
    }
    assert_eq!(cluster.read_all("k"), [None, None]);
    let sums = digests(&cluster);
    assert_eq!(sums[0], sums[1]);
}

#[test]
fn equal_caches_cost_one_question_and_one_answer_a_round() {
    let mut cluster = Cluster::ready(2, ReplicationConfig::default());
    for n in 0..1_000 {
        cluster.put(1, &format!("k{n}"), "v");
    }
    cluster.run(ROUND);
    cluster.carried.clear();
    cluster.run(ROUND * 4);
    let (messages, bytes) = total(&cluster, &ALL);
    assert!((2..=24).contains(&messages), "{messages}");
    assert!(bytes as u64 <= messages * 260, "{bytes}");
    assert_eq!(total(&cluster, &ALL[2..]), (0, 0));
}

#[test]
fn updates_on_their_way_are_no_differences() {
    let mut cluster = Cluster::ready(2, ReplicationConfig::default());
    cluster.run(ROUND);
    cluster.carried.clear();
    for n in 0..300 {
        // Written in the middle of everything, delivered ten milliseconds later.
        cluster.put(1, &format!("k{}", n % 40), "v");
        cluster.run(Duration::from_millis(100));
    }
    assert_eq!(total(&cluster, &ALL[2..]), (0, 0));
}

#[test]
fn few_differences_among_many_entries_cost_few_bytes() {
    let (a, b) = (store(), store());
    let mut entries_bytes = 0;
    for n in 0..20_000_u64 {
        for (number, store) in [&a, &b].into_iter().enumerate() {
            let text = format!("{n:0100}");
            entries_bytes += text.len() * number;
            let change = Change::Put {
                value: Text::new(&text),
                expiry: Expiry::NEVER,
                tags: Tags::NONE,
            };
            let ms = 10 + u64::from(number == 1 && n % 2_000 == 7);
            let _ = store
                .merge(format!("key {n}").as_bytes(), version(ms), change)
                .unwrap();
        }
    }
    let mut cluster = Cluster::new(ReplicationConfig::default());
    cluster.start_on(1, ReplicationConfig::default(), a);
    cluster.start_on(2, ReplicationConfig::default(), b);
    cluster.connect(1, 2);
    cluster.run(Duration::from_secs(6));
    // Both had data, as after a restart with a copy on disk: they compare, and nothing is transferred.
    assert_eq!(total(&cluster, &["transfer-chunk"]), (0, 0));
    let (_, bytes) = total(&cluster, &ALL);
    assert!(bytes < entries_bytes / 40, "{bytes} of {entries_bytes}");
    let leaf = LeafRange::ALL;
    let sums: Vec<u64> = cluster
        .nodes
        .values()
        .map(|n| n.core.store().digest_sum(leaf))
        .collect();
    assert_eq!(sums[0], sums[1]);
    assert!(cluster.nodes.values().all(|node| node.core.is_ready()));
}

#[test]
fn a_gap_that_cannot_be_replayed_is_mended_by_a_comparison_and_claimed() {
    let config = ReplicationConfig {
        replay_updates_max: 4,
        compare_every: Duration::from_secs(1_000),
        ..ReplicationConfig::default()
    };
    let mut cluster = Cluster::ready(3, config);
    for n in 0..200 {
        cluster.put(1, &format!("k{n}"), "v");
        cluster.run(Duration::from_millis(10));
    }
    cluster.cut(1, 3);
    cluster.cut(2, 3);
    for n in 0..20 {
        cluster.put(1, &format!("k{n}"), "newer");
    }
    cluster.remove(2, "k30");
    cluster.carried.clear();
    cluster.connect_all(3);
    cluster.run(Duration::from_secs(4));
    for n in 0..20 {
        assert_eq!(cluster.read(3, &format!("k{n}")).as_deref(), Some("newer"));
    }
    assert_eq!(cluster.read(3, "k30"), None);
    assert_eq!(total(&cluster, &["transfer-chunk"]), (0, 0));
    let (_, bytes) = total(&cluster, &ALL);
    assert!(bytes < 12_000, "{bytes}");
}

#[test]
fn r10_what_one_node_evicts_is_not_brought_back_round_after_round() {
    let mut cluster = Cluster::new(ReplicationConfig::default());
    cluster.start_on(1, ReplicationConfig::default(), store());
    // Room for some hundreds of the two thousand keys.
    cluster.start_on(2, ReplicationConfig::default(), store_of(128 << 10));
    cluster.connect(1, 2);
    cluster.run(Duration::from_secs(5));
    for n in 0..2_000 {
        cluster.put(
            1,
            &format!("k{n}"),
            "some value that takes its room in the store",
        );
    }
    cluster.run(ROUND);
    let evicted = cluster.nodes[&2].core.store().stats().evictions;
    assert!(evicted > 1_000, "{evicted}");
    let kept = || cluster.nodes[&1].core.store().len();
    assert_eq!(kept(), 2_000, "an eviction is nobody else's removal");
    cluster.carried.clear();
    cluster.run(ROUND * 10);
    let stats = cluster.nodes[&2].core.store().stats();
    assert_eq!(
        stats.evictions, evicted,
        "something came back and was evicted again"
    );
    assert_eq!(total(&cluster, &["entries"]), (0, 0));
    let rounds = cluster
        .nodes
        .values()
        .map(|node| node.core.stats().comparisons)
        .sum::<u64>();
    let (_, bytes) = total(&cluster, &ALL);
    assert!(
        bytes as u64 <= rounds * 64_000,
        "{bytes} bytes in {rounds} rounds"
    );
    // And what is lost is found nevertheless, if not as soon.
    lose(&cluster, 1, "k1999", 100_000, Some("lost"));
    cluster.run(ROUND * 20);
    assert_eq!(cluster.read(2, "k1999").as_deref(), Some("lost"));
}

#[test]
fn c2_a_copy_that_is_older_than_what_a_peer_has_evicted_is_dropped() {
    let mut cluster = Cluster::ready(2, ReplicationConfig::default());
    lose(&cluster, 1, "k", 100, Some("old"));
    let store = cluster.nodes[&2].core.store();
    assert!(store.forget(b"k", version(200)));
    cluster.run(ROUND * 2);
    assert_eq!(cluster.read(1, "k"), None);
}

#[test]
fn a_comparison_whose_peer_falls_silent_is_cut_and_made_with_another() {
    let config = ReplicationConfig {
        replay_updates_max: 4,
        ..ReplicationConfig::default()
    };
    let mut cluster = Cluster::ready(3, config);
    cluster.put(1, "a", "v");
    cluster.run(Duration::from_secs(1));
    cluster.cut(1, 3);
    for n in 0..20 {
        cluster.put(1, &format!("k{n}"), "v");
    }
    cluster.run(Duration::from_millis(100));
    // And nobody may help by asking it.
    cluster.drops.extend([(3, "differs"), (3, "compare")]);
    cluster.connect(1, 3);
    cluster.run(Duration::from_secs(5));
    assert_eq!(cluster.read(3, "k5"), None);
    let cut = |event: &Event| matches!(event, Event::TransferCut { .. });
    assert!(cluster.nodes[&3].events.iter().any(cut));
    cluster.drops.clear();
    cluster.run(Duration::from_secs(4));
    assert_eq!(cluster.read(3, "k5").as_deref(), Some("v"));
}
