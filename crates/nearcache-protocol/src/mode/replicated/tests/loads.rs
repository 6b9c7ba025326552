//! One load of a key at a time in the cluster.

use std::time::Duration;

use nearcache_store::Scope;

use super::{all, config};
use crate::load::lease::{Answer, LoadMessage, Turn};
use crate::machine::Machine as _;
use crate::message::CacheMessage;
use crate::mode::Outcome;
use crate::rendezvous::{self, PlacementKey};
use crate::testing::Cluster;

const NODES: u64 = 5;
/// Longer than any lease.
const LONG: Duration = Duration::from_secs(11);

/// The turn that a waiter of a node was told, if it was.
fn turn(cluster: &Cluster, (id, waiter): (u64, u64)) -> Option<Turn> {
    match cluster.nodes[&id].results.get(&waiter)? {
        Outcome::Turn(turn) => Some(turn.clone()),
        other => panic!("no turn: {other:?}"),
    }
}

fn is_yours(turn: &Option<Turn>) -> bool {
    matches!(turn, Some(Turn::Yours(_)))
}

/// A key whose home is that node.
fn key_of(home: u64) -> String {
    let nodes = || (1..=NODES).map(nearcache_store::NodeId::from_u64);
    let placement = PlacementKey::of_cluster("test");
    let keys = (0..).map(|n: u32| format!("key {n}"));
    let is_home = |key: &String| {
        rendezvous::home(placement, key.as_bytes(), nodes()).map(|id| id.as_u64()) == Some(home)
    };
    let mut keys = keys.filter(is_home);
    keys.next().unwrap()
}

/// Nodes whose clocks have been compared long enough.
fn cluster() -> Cluster {
    let mut cluster = Cluster::ready(NODES, config());
    cluster.run(Duration::from_secs(1));
    cluster
}

/// All nodes ask, the home last; whose turn it is, and the others.
fn ask_all(cluster: &mut Cluster, home: u64, key: &str) -> ((u64, u64), Vec<(u64, u64)>) {
    let others = (1..=NODES).filter(|id| *id != home);
    let ids: Vec<u64> = others.chain([home]).collect();
    let mut asked: Vec<_> = ids
        .into_iter()
        .map(|id| (id, cluster.begin_load(id, key)))
        .collect();
    cluster.deliver();
    let first = asked
        .iter()
        .position(|asker| is_yours(&turn(cluster, *asker)));
    let first = asked.remove(first.expect("somebody's turn"));
    assert!(
        asked.iter().all(|asker| turn(cluster, *asker).is_none()),
        "one at a time"
    );
    (first, asked)
}

#[test]
fn o6_of_all_nodes_one_loads_and_the_others_get_what_it_stored() {
    for home in 1..=NODES {
        let (mut cluster, key) = (cluster(), key_of(home));
        let (first, others) = ask_all(&mut cluster, home, &key);
        cluster.end_load(first.0, first.1, &key, Some("loaded"));
        cluster.deliver();
        for asker in others {
            assert_eq!(turn(&cluster, asker), Some(Turn::Loaded));
        }
        assert_eq!(cluster.read_all(&key), all("loaded", 5));
        // Nothing is left behind: the next one loads at once.
        cluster.remove(home, &key);
        cluster.run(Duration::from_secs(1));
        let asked = cluster.begin_load(home, &key);
        assert!(is_yours(&turn(&cluster, (home, asked))));
    }
}

#[test]
fn c8_a_load_that_stores_nothing_hands_the_turn_to_the_next_and_a_node_that_dies_too() {
    let (mut cluster, key) = (cluster(), key_of(1));
    let (first, others) = ask_all(&mut cluster, 1, &key);
    cluster.end_load(first.0, first.1, &key, None);
    cluster.deliver();
    let second = *others
        .iter()
        .find(|asker| is_yours(&turn(&cluster, **asker)))
        .unwrap();
    cluster.crash(second.0);
    cluster.deliver();
    let rest: Vec<_> = others.iter().filter(|asker| asker.0 != second.0).collect();
    let third: Vec<_> = rest
        .iter()
        .filter(|asker| is_yours(&turn(&cluster, ***asker)))
        .collect();
    assert_eq!(third.len(), 1);
    let third = **third[0];
    cluster.end_load(third.0, third.1, &key, Some("loaded"));
    cluster.deliver();
    assert!(rest.iter().all(|asker| turn(&cluster, **asker).is_some()));
}

/// Found by the simulator: the second "yours" was taken for one whose caller had given up, and the lease was given back in mid-load.
#[test]
fn p6_a_lease_that_is_given_twice_is_not_given_back_while_its_load_runs() {
    let (mut cluster, key) = (cluster(), key_of(2));
    let asked = cluster.begin_load(1, &key);
    cluster.deliver();
    let Some(Turn::Yours(Some(lease))) = turn(&cluster, (1, asked)) else {
        panic!("nobody else asks");
    };
    let again = LoadMessage::Answer(Answer::Yours {
        key: lease.key.clone(),
    });
    let message = CacheMessage::Load {
        request: lease.request,
        message: again,
    };
    cluster.act(1, |node, now, out| {
        node.core.handle(now, lease.home, message, out);
    });
    cluster.deliver();
    let next = cluster.begin_load(3, &key);
    cluster.deliver();
    assert_eq!(turn(&cluster, (3, next)), None, "one at a time");
    cluster.end_load(1, asked, &key, Some("loaded"));
    cluster.deliver();
    assert_eq!(turn(&cluster, (3, next)), Some(Turn::Loaded));
}

#[test]
fn p7_a_lease_ends_with_its_time() {
    let (mut cluster, key) = (cluster(), key_of(2));
    let asked = cluster.begin_load(1, &key);
    cluster.deliver();
    assert!(is_yours(&turn(&cluster, (1, asked))));
    // Its node says nothing more.
    cluster.run(LONG);
    let next = cluster.begin_load(3, &key);
    cluster.deliver();
    assert!(is_yours(&turn(&cluster, (3, next))));
}

#[test]
fn p6_when_the_home_node_is_silent_or_gone_or_slow_each_waiter_goes_on_within_its_deadline() {
    // Silent: it says nothing within 200 ms.
    let (mut silent, key) = (cluster(), key_of(2));
    silent.drops.insert((2, "load-ask"));
    let asked = silent.begin_load(1, &key);
    silent.run(Duration::from_millis(150));
    assert_eq!(turn(&silent, (1, asked)), None);
    silent.run(Duration::from_millis(60));
    assert_eq!(turn(&silent, (1, asked)), Some(Turn::Yours(None)));
    // Gone: the next home is asked.
    let mut gone = cluster();
    let (first, others) = ask_all(&mut gone, 2, &key);
    gone.crash(2);
    gone.deliver();
    let asked = others
        .iter()
        .filter(|asker| asker.0 != 2 && *asker != &first);
    let turns: Vec<_> = asked.map(|asker| turn(&gone, *asker)).collect();
    assert_eq!(
        turns.iter().filter(|turn| is_yours(turn)).count(),
        1,
        "{turns:?}"
    );
    // Slow: somebody else's load takes longer than this one waits.
    let mut slow = cluster();
    let (_, others) = ask_all(&mut slow, 2, &key);
    slow.run(Duration::from_millis(5_050));
    assert!(
        others
            .iter()
            .all(|asker| turn(&slow, *asker) == Some(Turn::Yours(None)))
    );
}

/// Found by the simulator: it asked again and again until its deadline, half of what a load may take.
#[test]
fn p6_a_node_without_a_link_to_the_home_of_all_others_goes_on_as_if_that_were_silent() {
    let mut cluster = cluster();
    let nodes = || {
        [1, 3, 4, 5]
            .map(nearcache_store::NodeId::from_u64)
            .into_iter()
    };
    let placement = PlacementKey::of_cluster("test");
    let keys = (0..).map(|n: u32| format!("key {n}"));
    let mut keys = keys.filter(|key| {
        let all = (1..=NODES).map(nearcache_store::NodeId::from_u64);
        let home = rendezvous::home(placement, key.as_bytes(), all);
        let next = rendezvous::home(placement, key.as_bytes(), nodes());
        home.map(|id| id.as_u64()) == Some(2) && next.map(|id| id.as_u64()) == Some(3)
    });
    let key = keys.next().unwrap();
    cluster.cut(1, 2);
    let asked = cluster.begin_load(1, &key);
    cluster.run(Duration::from_millis(150));
    assert_eq!(
        turn(&cluster, (1, asked)),
        None,
        "3 says that it is not the home"
    );
    cluster.run(Duration::from_millis(110));
    assert_eq!(turn(&cluster, (1, asked)), Some(Turn::Yours(None)));
}

#[test]
fn c1_nobody_waits_for_a_load_that_began_before_an_invalidation_that_he_knows_of() {
    for tag in [false, true] {
        let (mut cluster, key) = (cluster(), key_of(2));
        let (first, others) = ask_all(&mut cluster, 2, &key);
        cluster.run(Duration::from_millis(20));
        // The home has not heard of it when it is asked.
        cluster.drops.insert((2, "updates"));
        if tag {
            cluster.invalidate(4, Scope::Tag((*b"t").into()));
        } else {
            cluster.remove(4, &key);
        }
        let late = (4, cluster.begin_load(4, &key));
        cluster.deliver();
        assert!(is_yours(&turn(&cluster, late)));
        // The former one's result is his own affair; those who waited wait for the later one.
        cluster.end_load(first.0, first.1, &key, None);
        cluster.deliver();
        assert!(others.iter().all(|asker| turn(&cluster, *asker).is_none()));
        cluster.run(Duration::from_millis(20));
        cluster.end_load(late.0, late.1, &key, Some("new"));
        cluster.deliver();
        assert!(
            others
                .iter()
                .all(|asker| turn(&cluster, *asker) == Some(Turn::Loaded))
        );
    }
}

#[test]
fn what_the_home_holds_is_not_loaded_again() {
    let (mut cluster, key) = (cluster(), key_of(2));
    cluster.put(1, &key, "value");
    cluster.deliver();
    let known = cluster.nodes[&3]
        .core
        .store()
        .known(key.as_bytes())
        .version();
    assert!(cluster.nodes[&3].core.store().forget(key.as_bytes(), known));
    assert_eq!(cluster.read(3, &key), None);
    let asked = cluster.begin_load(3, &key);
    cluster.deliver();
    assert_eq!(turn(&cluster, (3, asked)), Some(Turn::Loaded));
    assert_eq!(cluster.read(3, &key).as_deref(), Some("value"));
    // Whoever holds it already and asks wants something newer.
    let asked = cluster.begin_load(3, &key);
    cluster.deliver();
    assert!(is_yours(&turn(&cluster, (3, asked))));
}

#[test]
fn a_turn_that_comes_when_nobody_waits_for_it_any_more_is_given_back() {
    let (mut cluster, key) = (cluster(), key_of(2));
    let (first, _) = ask_all(&mut cluster, 2, &key);
    let late = (1..=NODES).find(|id| *id != 2 && *id != first.0).unwrap();
    // All that waited give up.
    for id in 1..=NODES {
        let waiters: Vec<u64> = (1..=NODES).collect();
        cluster.act(id, |node, _, _| {
            for waiter in waiters {
                node.core.forget(crate::ids::WaiterId(waiter));
            }
        });
    }
    cluster.end_load(first.0, first.1, &key, None);
    cluster.deliver();
    let next = cluster.begin_load(late, &key);
    cluster.deliver();
    assert!(is_yours(&turn(&cluster, (late, next))));
}

#[test]
fn c10_who_waits_at_the_home_itself_is_answered_when_lease_and_deadline_end_together() {
    let (mut cluster, key) = (cluster(), key_of(2));
    let holder = cluster.begin_load(1, &key);
    cluster.deliver();
    assert!(is_yours(&turn(&cluster, (1, holder))));
    // The lease is over in 10 s; this waits for 5 s from the middle on.
    cluster.run(Duration::from_secs(5));
    let here = (2, cluster.begin_load(2, &key));
    cluster.run(Duration::from_millis(5_100));
    assert!(is_yours(&turn(&cluster, here)));
}

#[test]
fn c1_the_clock_bound_is_as_measured_all_the_time_while_there_are_loads() {
    // Heartbeats are further apart than a measurement counts.
    let mut config = config();
    config.heartbeat_every = Duration::from_millis(700);
    let mut cluster = Cluster::ready(3, config);
    let bound =
        |cluster: &mut Cluster| cluster.act(1, |node, now, _| node.core.clock_bound_of_load(now));
    let _ = bound(&mut cluster);
    for _ in 0..300 {
        cluster.run(Duration::from_millis(10));
        assert!(bound(&mut cluster) < Duration::from_millis(50));
    }
}
