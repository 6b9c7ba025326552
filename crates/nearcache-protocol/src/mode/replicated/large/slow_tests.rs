//! Long values over slow links, of peers that say nothing, and of several peers of which one is such.

use std::time::Duration;

use super::tests::{begin_read, begin_read_for, carried, config, ended, long, settle, value};
use crate::config::ReplicationConfig;
use crate::mode::Outcome;
use crate::testing::Cluster;

/// Node 2 has room for four of the values.
fn four() -> ReplicationConfig {
    ReplicationConfig {
        fetch_bytes_max: 20_000,
        ..config()
    }
}

/// Five values of node 1 and one of node 3.
fn of_two_nodes(nodes: u64, config: ReplicationConfig) -> Cluster {
    let mut cluster = Cluster::ready(nodes, config);
    for n in 0..5 {
        cluster.put(1, &format!("theirs {n}"), &long('a'));
    }
    cluster.put(3, "other", &long('b'));
    settle(&mut cluster);
    cluster
}

/// Node 2 reads those of node 1.
fn read_theirs(cluster: &mut Cluster) {
    for n in 0..5 {
        begin_read(cluster, 2, &format!("theirs {n}"));
    }
    cluster.deliver();
}

fn assert_other_is_found_at_once(cluster: &mut Cluster) {
    let reader = begin_read(cluster, 2, "other");
    settle(cluster);
    let result = cluster.nodes[&2].results.get(&reader);
    assert!(matches!(result, Some(Outcome::Found(true))), "{result:?}");
}

#[test]
fn over_a_slow_link_a_long_value_arrives_and_each_piece_travels_once() {
    let mut cluster = Cluster::ready(3, config());
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    // A piece of 64 KiB at 400 kbit/s.
    cluster
        .piece_takes
        .insert((1, 2), Duration::from_millis(1_300));
    let reader = begin_read_for(&mut cluster, 2, "key", Duration::from_secs(15));
    cluster.run(Duration::from_secs(14));
    assert_eq!(ended(&cluster, 2, reader, "key"), Some(long('a')));
    assert_eq!(carried(&cluster, "fetch-piece"), 10);
}

#[test]
fn over_a_link_with_a_long_delay_the_first_read_finds_its_value() {
    let mut cluster = Cluster::ready(5, config());
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    for pair in [(1, 2), (2, 1)] {
        cluster.slow.insert(pair, Duration::from_millis(700));
    }
    let reader = begin_read(&mut cluster, 2, "key");
    cluster.run(Duration::from_millis(1_990));
    assert_eq!(ended(&cluster, 2, reader, "key"), Some(long('a')));
    assert_eq!(carried(&cluster, "fetch-piece"), 10);
}

#[test]
fn what_nobody_waits_for_any_more_arrives_over_a_slow_link_all_the_same() {
    let mut cluster = Cluster::ready(2, config());
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    cluster
        .piece_takes
        .insert((1, 2), Duration::from_millis(1_300));
    let late = begin_read(&mut cluster, 2, "key");
    cluster.run(Duration::from_secs(14));
    assert!(matches!(
        cluster.nodes[&2].results[&late],
        Outcome::Found(false)
    ));
    assert_eq!(value(&cluster, 2, "key"), Some(long('a')));
}

#[test]
fn k5_a_fetch_that_nobody_waits_for_ends_where_nothing_comes() {
    let mut cluster = Cluster::ready(2, config());
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    cluster.mute.insert((1, 2));
    let late = begin_read(&mut cluster, 2, "key");
    cluster.run(Duration::from_millis(500));
    assert_eq!(cluster.nodes[&2].core.held().fetching, 1);
    assert_eq!(cluster.nodes[&2].core.held().fetch_bytes, 5_000);
    cluster.run(Duration::from_millis(600));
    // It keeps no room for what does not come.
    assert_eq!(cluster.nodes[&2].core.held().fetch_bytes, 0);
    cluster.run(Duration::from_secs(5));
    assert_eq!(ended(&cluster, 2, late, "key"), None);
    let held = cluster.nodes[&2].core.held();
    assert_eq!((held.fetching, held.fetch_bytes), (0, 0));
    let asked = carried(&cluster, "fetch");
    cluster.run(Duration::from_secs(5));
    assert_eq!(carried(&cluster, "fetch"), asked);
}

#[test]
fn r9_a_holder_that_says_nothing_is_left_for_another_within_a_second() {
    let mut cluster = Cluster::ready(4, config());
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    let reader = begin_read(&mut cluster, 4, "key");
    settle(&mut cluster);
    assert!(ended(&cluster, 4, reader, "key").is_some());
    cluster.mute.insert((1, 2));
    let reader = begin_read(&mut cluster, 2, "key");
    cluster.run(Duration::from_millis(1_200));
    assert_eq!(ended(&cluster, 2, reader, "key"), Some(long('a')));
}

#[test]
fn a_holder_that_comes_back_after_a_while_is_asked_again() {
    let mut cluster = Cluster::ready(2, config());
    cluster.put(1, "key", &long('a'));
    settle(&mut cluster);
    cluster.mute.insert((1, 2));
    let reader = begin_read_for(&mut cluster, 2, "key", Duration::from_secs(20));
    cluster.run(Duration::from_secs(7));
    cluster.mute.clear();
    cluster.run(Duration::from_secs(4));
    assert_eq!(ended(&cluster, 2, reader, "key"), Some(long('a')));
}

#[test]
fn r9_values_of_a_node_out_of_reach_keep_no_room_from_those_of_others() {
    let mut cluster = of_two_nodes(3, four());
    // It stays a member through node 3.
    cluster.cut(1, 2);
    read_theirs(&mut cluster);
    assert_other_is_found_at_once(&mut cluster);
}

#[test]
fn r9_values_of_a_slow_or_silent_node_keep_half_of_the_room_at_most() {
    let mut cluster = of_two_nodes(3, four());
    cluster
        .piece_takes
        .insert((1, 2), Duration::from_millis(300));
    read_theirs(&mut cluster);
    assert_eq!(cluster.nodes[&2].core.held().fetch_bytes, 10_000);
    assert_other_is_found_at_once(&mut cluster);

    let mut cluster = of_two_nodes(3, four());
    cluster.mute.insert((1, 2));
    read_theirs(&mut cluster);
    assert_other_is_found_at_once(&mut cluster);
}

#[test]
fn r9_two_silent_nodes_keep_the_room_for_a_second_at_most() {
    let mut cluster = of_two_nodes(4, four());
    for n in 0..5 {
        cluster.put(4, &format!("mute {n}"), &long('c'));
    }
    settle(&mut cluster);
    cluster.mute.extend([(1, 2), (4, 2)]);
    read_theirs(&mut cluster);
    for n in 0..5 {
        begin_read(&mut cluster, 2, &format!("mute {n}"));
    }
    cluster.run(Duration::from_millis(1_200));
    assert_other_is_found_at_once(&mut cluster);
}

#[test]
fn k5_what_has_come_of_a_value_that_stands_still_gives_way() {
    let config = ReplicationConfig {
        fetch_bytes_max: 6_000,
        fetch_bytes_per_second: 5_120,
        ..config()
    };
    let mut cluster = of_two_nodes(3, config);
    let reader = begin_read_for(&mut cluster, 2, "theirs 0", Duration::from_secs(20));
    cluster.run(Duration::from_millis(500));
    cluster.cut(1, 2);
    cluster.run(Duration::from_millis(100));
    let kept = cluster.nodes[&2].core.held().fetch_bytes;
    assert!((1_500..5_000).contains(&kept), "{kept}");
    let other = begin_read(&mut cluster, 2, "other");
    cluster.deliver();
    assert!(cluster.nodes[&2].core.held().fetch_bytes <= 6_000);
    cluster.run(Duration::from_millis(1_500));
    assert_eq!(ended(&cluster, 2, other, "other"), Some(long('b')));
    cluster.connect(1, 2);
    cluster.run(Duration::from_secs(2));
    assert_eq!(ended(&cluster, 2, reader, "theirs 0"), Some(long('a')));
}

#[test]
fn what_has_come_of_a_value_is_not_fetched_again_when_its_only_holder_is_back() {
    let config = ReplicationConfig {
        fetch_bytes_per_second: 5_120,
        ..config()
    };
    let mut cluster = of_two_nodes(3, config);
    let reader = begin_read_for(&mut cluster, 2, "theirs 0", Duration::from_secs(20));
    cluster.run(Duration::from_millis(500));
    cluster.cut(1, 2);
    cluster.run(Duration::from_millis(100));
    cluster.connect(1, 2);
    cluster.run(Duration::from_secs(2));
    assert_eq!(ended(&cluster, 2, reader, "theirs 0"), Some(long('a')));
    assert_eq!(carried(&cluster, "fetch-piece"), 10);
}
