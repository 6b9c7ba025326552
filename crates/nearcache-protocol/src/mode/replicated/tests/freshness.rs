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
