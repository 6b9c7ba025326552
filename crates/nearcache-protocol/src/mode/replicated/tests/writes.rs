//! Writes, removals, group invalidations; acknowledgements and freshness.

use std::time::Duration;

use nearcache_store::{NodeId, Scope};

use super::{SECOND, all, config};
use crate::mode::{Ack, AckTimeout, Event, Outcome, Status};
use crate::testing::Cluster;

#[test]
fn r1_a_write_reaches_every_node_and_the_newest_wins() {
    let mut cluster = Cluster::ready(3, config());
    cluster.put(1, "k", "one");
    cluster.deliver();
    assert_eq!(cluster.read_all("k"), all("one", 3));
    cluster.put(2, "k", "two");
    cluster.put(3, "k", "three");
    cluster.deliver();
    assert_eq!(cluster.read_all("k"), all("three", 3));
}

#[test]
fn r3_a_removal_stays_and_travels_as_a_tombstone() {
    let mut cluster = Cluster::ready(3, config());
    cluster.put(1, "k", "one");
    cluster.deliver();
    cluster.cut(1, 3);
    cluster.cut(2, 3);
    cluster.remove(2, "k");
    cluster.run(SECOND);
    assert_eq!(
        cluster.read_all("k"),
        vec![None, None, Some("one".to_owned())]
    );
    cluster.connect_all(3);
    cluster.run(SECOND);
    assert_eq!(cluster.read_all("k"), vec![None; 3]);
}

#[test]
fn c4_a_group_invalidation_is_an_update_like_any_other() {
    let mut cluster = Cluster::ready(2, config());
    cluster.put(1, "user:1", "a");
    cluster.put(1, "item:1", "b");
    cluster.deliver();
    cluster.invalidate(2, Scope::Prefix(b"user:".as_slice().into()));
    cluster.deliver();
    assert_eq!(cluster.read_all("user:1"), vec![None; 2]);
    assert_eq!(cluster.read_all("item:1"), all("b", 2));
    let heard = |event: &Event| matches!(event, Event::Invalidated { .. });
    assert!(cluster.nodes[&1].events.iter().any(heard));
}

#[test]
fn an_acknowledgement_of_all_waits_for_every_member_and_not_for_the_dead() {
    let mut cluster = Cluster::ready(3, config());
    let acked = cluster.put_acked(1, "k", "v", Ack::All);
    cluster.deliver();
    assert!(matches!(
        cluster.nodes[&1].results[&acked],
        Outcome::Acked(Ok(()))
    ));

    cluster.cut(1, 3);
    let waits = cluster.put_acked(1, "k", "w", Ack::All);
    cluster.deliver();
    assert!(
        !cluster.nodes[&1].results.contains_key(&waits),
        "node 3 may still serve the older value"
    );
    cluster.act(1, |node, now, out| {
        node.core.peer_dead(now, NodeId::from_u64(3), out)
    });
    assert!(matches!(
        cluster.nodes[&1].results[&waits],
        Outcome::Acked(Ok(()))
    ));

    let too_many = cluster.put_acked(1, "k", "x", Ack::Peers(2));
    cluster.run(SECOND * 3);
    let expected = AckTimeout {
        acked: 1,
        wanted: 2,
    };
    assert!(
        matches!(cluster.nodes[&1].results[&too_many], Outcome::Acked(Err(error)) if error == expected.into())
    );
}

#[test]
fn nodes_that_disagree_on_a_cache_do_not_sync_it_and_say_so() {
    let mut cluster = Cluster::ready(1, config());
    let mut other = config();
    other.agreement.codec = 9;
    cluster.start_with(2, other);
    cluster.connect(1, 2);
    cluster.put(1, "k", "v");
    cluster.run(SECOND * 4);
    assert_eq!(cluster.read(2, "k"), None);
    for id in [1, 2] {
        let told = cluster.nodes[&id]
            .events
            .iter()
            .filter(|event| matches!(event, Event::Disagreement(_)));
        assert_eq!(told.count(), 1);
        assert!(cluster.nodes[&id].core.is_ready());
    }
}

#[test]
fn freshness_counts_from_the_askers_clock_and_grows_when_a_peer_is_silent() {
    let mut cluster = Cluster::ready(2, config());
    let age = cluster.nodes[&1].core.freshness(cluster.now).worst;
    assert!(
        age.is_some_and(|age| age <= Duration::from_millis(500)),
        "{age:?}"
    );
    cluster.drops.insert((1, "echo"));
    cluster.run(SECOND * 3);
    let age = cluster.nodes[&1].core.freshness(cluster.now).worst;
    assert!(age.is_some_and(|age| age >= SECOND * 3), "{age:?}");
    assert_eq!(
        cluster.nodes[&1].core.status(cluster.now),
        Status::CatchingUp
    );
    cluster.cut(1, 2);
    assert_eq!(cluster.nodes[&1].core.status(cluster.now), Status::Isolated);
}

#[test]
fn a_node_that_leaves_is_not_waited_for() {
    let mut cluster = Cluster::ready(3, config());
    cluster.act(3, |node, now, out| node.core.leave(now, out));
    cluster.deliver();
    cluster.crash(3);
    let acked = cluster.put_acked(1, "k", "v", Ack::All);
    cluster.deliver();
    assert!(matches!(
        cluster.nodes[&1].results[&acked],
        Outcome::Acked(Ok(()))
    ));
    cluster.run(SECOND);
    assert_eq!(cluster.nodes[&1].core.status(cluster.now), Status::Synced);
}
