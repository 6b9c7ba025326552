//! C11: nobody says that it is fresher than it is.

use std::time::Duration;

use nearcache_store::NodeId;

use super::{SECOND, config};
use crate::machine::Machine as _;
use crate::message::CacheMessage;
use crate::testing::Cluster;

/// How old node 1's knowledge of its worst peer is, by what it says.
fn worst(cluster: &Cluster) -> Option<Duration> {
    cluster.nodes[&1].core.freshness(cluster.now).worst
}

#[test]
fn c11_a_peer_that_comes_back_is_known_as_of_when_it_was_lost() {
    let mut cluster = Cluster::ready(2, config());
    cluster.cut(1, 2);
    cluster.run(SECOND * 7);
    cluster.put(2, "k", "unseen");
    cluster.drops.insert((1, "announce"));
    cluster.connect(1, 2);
    cluster.run(Duration::from_millis(100));
    assert!(worst(&cluster).is_some_and(|age| age > SECOND * 7));
    cluster.drops.clear();
    cluster.run(SECOND * 2);
    assert!(worst(&cluster).is_some_and(|age| age < SECOND));
    assert_eq!(cluster.read(1, "k"), Some("unseen".to_owned()));
}

/// Node 1 is cut off from all others, and learns five seconds later that they are dead; ten more go by.
fn isolated(n: u64) -> Cluster {
    let mut cluster = Cluster::ready(n, config());
    cluster.run(SECOND);
    (2..=n).for_each(|other| cluster.cut(1, other));
    cluster.run(SECOND * 5);
    for other in 2..=n {
        let dead = NodeId::from_u64(other);
        cluster.act(1, |node, now, out| node.core.peer_dead(now, dead, out));
    }
    cluster.run(SECOND * 10);
    cluster
}

#[test]
fn c11_a_node_that_is_cut_off_is_as_old_as_when_it_last_heard_most_though_it_takes_them_for_dead() {
    let mut cluster = isolated(3);
    let age = worst(&cluster).unwrap();
    assert!(age >= SECOND * 15 && age < SECOND * 17, "{age:?}");
    // For longer than anything is remembered of the dead.
    cluster.run(SECOND * 100);
    assert!(worst(&cluster).is_some_and(|age| age >= SECOND * 115));
    cluster.connect(1, 2);
    cluster.run(SECOND * 2);
    assert!(worst(&cluster).is_some_and(|age| age < SECOND));
}

#[test]
fn c11_who_is_left_after_the_others_have_left_on_purpose_is_fresh() {
    let mut cluster = Cluster::ready(3, config());
    for leaver in [2, 3] {
        cluster.act(leaver, |node, now, out| node.core.leave(now, out));
        cluster.deliver();
        cluster.crash(leaver);
        cluster.run(SECOND);
    }
    assert_eq!(worst(&cluster), Some(Duration::ZERO));
}

#[test]
fn c11_of_two_nodes_the_smaller_goes_on_alone_and_most_are_as_fresh_without_their_dead() {
    assert_eq!(worst(&isolated(2)), Some(Duration::ZERO));
    let mut cluster = Cluster::ready(3, config());
    cluster.crash(3);
    let dead = NodeId::from_u64(3);
    cluster.act(1, |node, now, out| node.core.peer_dead(now, dead, out));
    cluster.run(SECOND * 2);
    assert!(worst(&cluster).is_some_and(|age| age < SECOND));
}

#[test]
fn c11_a_peer_that_was_just_met_is_not_known_until_it_had_the_time_to_speak() {
    let mut cluster = Cluster::ready(1, config());
    cluster.start(2);
    cluster.drops.insert((1, "announce"));
    cluster.connect(1, 2);
    cluster.run(SECOND * 3);
    assert_eq!(worst(&cluster), None);
    cluster.run(SECOND * 3);
    assert_eq!(worst(&cluster), Some(Duration::ZERO));
}

#[test]
fn c11_an_answer_that_waited_half_a_minute_is_half_a_minute_old() {
    let mut cluster = Cluster::ready(2, config());
    let asked = cluster.now;
    // Node 1 is suspended, and the answer lies in its buffer: no step of it happens meanwhile.
    cluster.now += SECOND * 30;
    assert!(worst(&cluster).is_some_and(|age| age >= SECOND * 30));
    let physical_ms = cluster.nodes[&2].core.clock().physical_ms(asked);
    let echo = CacheMessage::Echo {
        asked,
        epoch: cluster.epoch(2),
        latest: 0,
        physical_ms,
    };
    cluster.act(1, |node, now, out| {
        node.core.handle(now, NodeId::from_u64(2), echo, out);
    });
    assert_eq!(worst(&cluster), Some(SECOND * 30));
}

#[test]
fn c11_after_a_pause_a_peer_whose_word_is_not_read_yet_does_not_pass_for_one_that_runs_nothing() {
    let mut cluster = Cluster::ready(1, config());
    cluster.start(2);
    cluster.connect(1, 2);
    // Node 1 is paused: what the other says waits in its socket.
    cluster.put(2, "k", "unheard");
    cluster.now += SECOND * 5;
    cluster.act(1, |node, now, out| node.core.tick(now, out));
    assert_eq!(worst(&cluster), None);
    cluster.run(SECOND * 5);
    assert!(worst(&cluster).is_some());
}
