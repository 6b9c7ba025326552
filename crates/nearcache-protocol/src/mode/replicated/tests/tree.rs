//! More members than a full mesh may have: updates travel along the tree.

use std::time::Duration;

use nearcache_store::NodeId;

use super::{SECOND, all};
use crate::config::ReplicationConfig;
use crate::ids::Epoch;
use crate::machine::Machine as _;
use crate::message::CacheMessage;
use crate::mode::{Ack, BeyondMesh, NotAcked, Outcome, Status};
use crate::modify::{ModifyError, ModifyOp};
use crate::testing::Cluster;

fn config() -> ReplicationConfig {
    ReplicationConfig {
        mesh_max: 4,
        // Only what the tree and its repair bring is looked at.
        compare_every: Duration::ZERO,
        ..ReplicationConfig::default()
    }
}

#[test]
fn an_update_reaches_every_node_and_each_only_once_whoever_wrote_it() {
    let mut cluster = Cluster::tree(20, config());
    for id in 1..=20 {
        cluster.carried.clear();
        cluster.put(id, &format!("k{id}"), "one");
        cluster.deliver();
        assert_eq!(cluster.read_all(&format!("k{id}")), all("one", 20));
        assert_eq!(cluster.carried["relayed"].0, 19);
        assert!(!cluster.carried.contains_key("updates"));
    }
}

#[test]
fn a_node_that_takes_shorter_values_only_passes_longer_ones_on_as_it_got_them() {
    let mut cluster = Cluster::new(config());
    for id in 1..=20 {
        let mut config = config();
        if id % 2 == 0 {
            config.value_bytes_max = 100;
        }
        cluster.start_with(id, config);
    }
    cluster.link_tree();
    cluster.run(SECOND * 10);
    let takes_all = |id: &u64| id % 2 == 1;
    let long = "long".repeat(100);
    for id in (1..=20).filter(takes_all) {
        let key = format!("k{id}");
        cluster.put(id, &key, "short");
        cluster.deliver();
        cluster.put(id, &key, &long);
        cluster.deliver();
        for other in 1..=20 {
            let expected = takes_all(&other).then(|| long.clone());
            assert_eq!(cluster.read(other, &key), expected, "{id} to {other}");
        }
    }
    // What is asked for again is too.
    cluster.drops.insert((5, "relayed"));
    cluster.put(1, "missed", &long);
    cluster.deliver();
    cluster.drops.clear();
    cluster.put(1, "next", "short");
    cluster.run(SECOND * 3);
    for id in (1..=20).filter(takes_all) {
        assert_eq!(cluster.read(id, "missed"), Some(long.clone()), "{id}");
    }
}

#[test]
fn i2_what_the_tree_does_not_bring_is_asked_of_a_neighbour_that_has_it() {
    let mut cluster = Cluster::tree(12, config());
    cluster.drops.insert((5, "relayed"));
    cluster.put(1, "k", "one");
    cluster.put(2, "l", "one");
    cluster.deliver();
    cluster.drops.clear();
    assert_eq!(cluster.read(5, "k"), None);
    cluster.carried.clear();
    cluster.run(SECOND * 2);
    assert_eq!(cluster.read_all("k"), all("one", 12));
    assert_eq!(cluster.read_all("l"), all("one", 12));
    assert!(cluster.carried["want-pieces"].0 >= 1);
    assert!(!cluster.carried.contains_key("compare"));
}

#[test]
fn i2_behind_a_gap_nothing_is_claimed_and_only_what_is_missing_is_sent_again() {
    let mut cluster = Cluster::tree(12, config());
    cluster.drops.insert((5, "relayed"));
    cluster.put(1, "a", "one");
    cluster.deliver();
    cluster.drops.clear();
    for key in ["b", "c", "d"] {
        cluster.put(1, key, "one");
        cluster.deliver();
        assert_eq!(cluster.read(5, key).as_deref(), Some("one"));
    }
    let stats = |cluster: &Cluster, id: u64| cluster.nodes[&id].core.stats();
    assert_eq!(stats(&cluster, 5).gaps, 1);
    cluster.run(SECOND * 2);
    assert_eq!(cluster.read_all("a"), all("one", 12));
    let replayed: u64 = (1..=12).map(|id| stats(&cluster, id).relay_replayed).sum();
    assert!((1..=6).contains(&replayed), "{replayed}");
}

#[test]
fn an_interior_node_that_dies_costs_nobody_an_update() {
    let mut cluster = Cluster::tree(16, config());
    for id in [3, 9, 14] {
        cluster.crash(id);
    }
    // Nobody has noticed more than lost connections.
    cluster.put(1, "k", "one");
    cluster.run(SECOND * 3);
    assert_eq!(cluster.read_all("k"), all("one", 13));
}

#[test]
fn c11_freshness_about_nodes_that_are_not_neighbours_comes_hop_by_hop_and_grows_when_they_are_silent()
 {
    let mut cluster = Cluster::tree(16, config());
    cluster.run(SECOND * 4);
    let far = (2..=16).find(|id| !cluster.is_connected(1, *id)).unwrap();
    let age = |cluster: &Cluster, of: u64| {
        let freshness = cluster.nodes[&1].core.freshness(cluster.now);
        let peers = freshness.per_peer.iter();
        let mut of = peers.filter(|peer| peer.peer == NodeId::from_u64(of));
        of.next().and_then(|peer| peer.age)
    };
    for id in 2..=16 {
        assert!(age(&cluster, id).unwrap() < SECOND * 4, "{id}");
    }
    assert_eq!(cluster.nodes[&1].core.status(cluster.now), Status::Synced);
    // It goes on running, and nobody hears it.
    let silent: Vec<u64> = (1..=16)
        .filter(|id| cluster.is_connected(far, *id))
        .collect();
    for id in silent {
        for name in ["state", "relayed", "heartbeat", "echo"] {
            cluster.drops.insert((id, name));
        }
    }
    let before = age(&cluster, far).unwrap();
    cluster.put(far, "k", "unheard");
    cluster.run(SECOND * 5);
    assert!(age(&cluster, far).unwrap() >= before + SECOND * 4);
}

#[test]
fn the_mesh_gives_way_to_the_tree_and_comes_back_as_members_come_and_go() {
    let mut cluster = Cluster::ready(4, config());
    cluster.put(1, "a", "mesh");
    cluster.deliver();
    assert!(cluster.carried.contains_key("updates"));
    for id in 5..=9 {
        cluster.start(id);
    }
    cluster.link_tree();
    cluster.run(SECOND * 5);
    assert_eq!(cluster.read_all("a"), all("mesh", 9));
    cluster.carried.clear();
    cluster.put(1, "b", "tree");
    cluster.deliver();
    assert_eq!(cluster.read_all("b"), all("tree", 9));
    assert!(!cluster.carried.contains_key("updates"));
    for gone in 5..=9 {
        cluster.crash(gone);
        for id in 1..=4 {
            cluster.act(id, |node, now, out| {
                node.core.peer_dead(now, NodeId::from_u64(gone), out);
            });
        }
    }
    cluster.connect_all(1);
    cluster.connect_all(2);
    cluster.connect_all(3);
    // Whoever comes and goes meanwhile turns nothing over.
    cluster.run(SECOND * 4);
    cluster.put(1, "c", "tree");
    cluster.carried.clear();
    cluster.deliver();
    assert!(!cluster.carried.contains_key("updates"));
    cluster.run(SECOND * 2);
    cluster.carried.clear();
    cluster.put(1, "c", "mesh");
    cluster.deliver();
    assert_eq!(cluster.read_all("c"), all("mesh", 4));
    assert!(cluster.carried.contains_key("updates"));
}

#[test]
fn neighbours_acknowledge_and_nobody_waits_for_all_beyond_the_mesh() {
    let mut cluster = Cluster::tree(16, config());
    let waiter = cluster.put_acked(1, "k", "one", Ack::Peers(2));
    cluster.deliver();
    let acked = &cluster.nodes[&1].results[&waiter];
    assert!(matches!(acked, Outcome::Acked(Ok(()))), "{acked:?}");
    let waiter = cluster.put_acked(1, "k", "two", Ack::All);
    let refused = &cluster.nodes[&1].results[&waiter];
    let reason = BeyondMesh {
        members: 16,
        mesh_max: 4,
    };
    let told = |outcome: &Outcome<_>| matches!(outcome, Outcome::Acked(Err(NotAcked::BeyondMesh(told))) if *told == reason);
    assert!(told(refused), "{refused:?}");
    cluster.deliver();
    assert_eq!(cluster.read_all("k"), all("two", 16));
}

#[test]
fn who_waits_for_all_when_the_tree_turns_on_is_told_so() {
    let mut cluster = Cluster::ready(3, config());
    cluster.drops.insert((2, "updates"));
    let waiter = cluster.put_acked(1, "k", "one", Ack::All);
    cluster.deliver();
    assert!(!cluster.nodes[&1].results.contains_key(&waiter));
    for id in 4..=6 {
        let member = NodeId::from_u64(id);
        let epoch = Epoch::from_u64(crate::testing::WALL_MS);
        cluster.act(1, |node, now, _| node.core.member_up(now, member, epoch));
    }
    cluster.run(SECOND);
    let refused = &cluster.nodes[&1].results[&waiter];
    assert!(
        matches!(refused, Outcome::Acked(Err(NotAcked::BeyondMesh(told))) if told.members == 6),
        "{refused:?}"
    );
}

#[test]
fn the_home_of_a_key_that_is_no_neighbour_is_met_and_serialises_all_the_same() {
    let mut cluster = Cluster::tree(12, config());
    let keys = ["a", "b", "c", "d", "e", "f"];
    let mut waiters = Vec::new();
    for key in keys {
        for id in 1..=12 {
            waiters.push((id, cluster.modify(id, key, ModifyOp::Add { delta: 1 })));
        }
    }
    cluster.deliver();
    let is_done = |cluster: &Cluster, (id, waiter): &(u64, _)| {
        let results = &cluster.nodes[id].results;
        matches!(results.get(waiter), Some(Outcome::Modified(Ok(done))) if done.applied)
    };
    assert!(!waiters.iter().all(|waiter| is_done(&cluster, waiter)));
    cluster.meet();
    cluster.run(SECOND);
    assert!(waiters.iter().all(|waiter| is_done(&cluster, waiter)));
    cluster.run(SECOND);
    for key in keys {
        assert_eq!(cluster.read_all(key), all("12", 12));
    }
}

#[test]
fn while_the_mesh_comes_back_nobody_decides_for_a_member_that_is_not_connected_yet() {
    let mut cluster = Cluster::tree(9, config());
    for gone in 5..=9 {
        cluster.crash(gone);
        for id in 1..=4 {
            cluster.act(id, |node, now, out| {
                node.core.peer_dead(now, NodeId::from_u64(gone), out);
            });
        }
    }
    // The sessions of the mesh take their time.
    for (a, b) in [(1, 2), (1, 3), (1, 4), (2, 3), (2, 4), (3, 4)] {
        cluster.cut(a, b);
    }
    cluster.run(SECOND);
    for id in 1..=4 {
        cluster.modify(id, "k", ModifyOp::Add { delta: 1 });
    }
    cluster.run(SECOND / 2);
    for id in 1..=4 {
        cluster.connect_all(id);
    }
    cluster.run(SECOND);
    assert_eq!(cluster.read_all("k"), all("4", 4));
}

#[test]
fn a_home_that_cannot_be_met_changes_nothing_and_says_so_by_the_deadline() {
    let mut cluster = Cluster::tree(12, config());
    let modify = |cluster: &mut Cluster, n: u32| {
        let key = format!("key-{n}");
        let waiter = cluster.modify(1, &key, ModifyOp::Add { delta: 1 });
        cluster.deliver();
        (!cluster.nodes[&1].results.contains_key(&waiter)).then_some((key, waiter))
    };
    let (key, waiter) = (0..64).find_map(|n| modify(&mut cluster, n)).unwrap();
    cluster.run(SECOND * 10);
    let result = &cluster.nodes[&1].results[&waiter];
    let unreachable = matches!(result, Outcome::Modified(Err(ModifyError::HomeUnreachable)));
    assert!(unreachable, "{result:?}");
    assert_eq!(cluster.read_all(&key), vec![None; 12]);
}

/// Fifteen nodes that run the cache, and a sixteenth that is connected to its links among them and does not, as far as they can tell.
fn with_a_silent_one() -> Cluster {
    let mut cluster = Cluster::tree(15, config());
    cluster.start(16);
    for id in 1..=15 {
        cluster.mute.insert((16, id));
    }
    cluster.link_tree();
    cluster
}

fn worst(cluster: &Cluster, id: u64) -> Option<Duration> {
    cluster.nodes[&id].core.freshness(cluster.now).worst
}

#[test]
fn c11_a_member_that_never_opens_the_cache_holds_nobody_up_beyond_the_mesh() {
    let mut cluster = with_a_silent_one();
    cluster.run(SECOND);
    // It may be about to say that it runs it.
    assert!((1..=15).all(|id| worst(&cluster, id).is_none()));
    cluster.run(SECOND * 9);
    for id in 1..=15 {
        assert!(worst(&cluster, id).unwrap() < SECOND * 4, "{id}");
        assert_eq!(cluster.nodes[&id].core.status(cluster.now), Status::Synced);
    }
}

#[test]
fn c11_a_cache_that_is_opened_after_the_session_was_ended_counts_for_freshness() {
    let mut cluster = with_a_silent_one();
    cluster.run(SECOND * 10);
    let linked: Vec<u64> = (1..=15)
        .filter(|id| cluster.is_connected(16, *id))
        .collect();
    let (parted, rest) = linked.split_first().unwrap();
    cluster.cut(16, *parted);
    assert!(worst(&cluster, *parted).unwrap() < SECOND * 8);
    cluster.mute.clear();
    cluster.run(SECOND * 6);
    assert!(!rest.is_empty());
    assert!(worst(&cluster, *parted).unwrap() < SECOND * 4);
    // It is written there, and the tree does not bring it.
    for name in ["relayed", "transfer-chunk", "entries"] {
        cluster.drops.insert((*parted, name));
    }
    cluster.put(16, "k", "unheard");
    cluster.run(SECOND * 6);
    assert_eq!(cluster.read(*parted, "k"), None);
    assert!(worst(&cluster, *parted).unwrap() >= SECOND * 6);
    cluster.drops.clear();
    cluster.run(SECOND * 6);
    assert_eq!(cluster.read(*parted, "k").as_deref(), Some("unheard"));
    assert!(worst(&cluster, *parted).unwrap() < SECOND * 4);
}

#[test]
fn r7_who_opens_the_cache_late_is_a_home_for_those_too_who_have_no_session_with_it() {
    let mut cluster = with_a_silent_one();
    cluster.run(SECOND * 10);
    let keys: Vec<String> = (0..40).map(|n| format!("key-{n}")).collect();
    let all_add = |cluster: &mut Cluster| {
        let mut waiters = Vec::new();
        for key in &keys {
            for id in 1..=15 {
                waiters.push((id, cluster.modify(id, key, ModifyOp::Add { delta: 1 })));
            }
        }
        cluster.deliver();
        cluster.meet();
        cluster.run(SECOND);
        for (id, waiter) in waiters {
            let result = &cluster.nodes[&id].results[&waiter];
            let is_done = matches!(result, Outcome::Modified(Ok(done)) if done.applied);
            assert!(is_done, "{id}: {result:?}");
        }
        cluster.run(SECOND);
    };
    all_add(&mut cluster);
    assert_eq!(cluster.read(1, &keys[0]).as_deref(), Some("15"));
    cluster.mute.clear();
    cluster.run(SECOND * 6);
    all_add(&mut cluster);
    for key in &keys {
        assert_eq!(cluster.read_all(key), all("30", 16));
    }
}

#[test]
fn a_cache_that_few_nodes_run_finds_who_runs_it_over_those_that_do_not() {
    // Of 16 members three run it, and none of them is linked to another.
    let mut cluster = Cluster::new(config());
    let links: Vec<(u64, Vec<NodeId>)> = (1..=16)
        .map(|id| {
            let members = (1..=16).map(NodeId::from_u64);
            (id, crate::overlay::links(NodeId::from_u64(id), members))
        })
        .collect();
    let are_linked = |a: u64, b: u64| {
        let wants = |from: u64, to: u64| {
            let (_, links) = &links[usize::try_from(from - 1).unwrap()];
            links.contains(&NodeId::from_u64(to))
        };
        wants(a, b) || wants(b, a)
    };
    let (a, b) = (1..=16)
        .flat_map(|a| (a + 1..=16).map(move |b| (a, b)))
        .find(|(a, b)| !are_linked(*a, *b))
        .unwrap();
    for id in 1..=16 {
        cluster.start(id);
        for other in (1..=16).filter(|other| *other != id && *other != a && *other != b) {
            cluster.drops.insert((other, "announce"));
        }
    }
    // Nobody but these two hears of the cache; they do not hear of it of others.
    cluster.link_tree();
    for id in (1..=16).filter(|id| *id != a && *id != b) {
        for to in [a, b] {
            cluster.mute.insert((id, to));
        }
    }
    for _ in 0..10 {
        cluster.run(SECOND);
        cluster.meet();
    }
    assert!(cluster.is_connected(a, b));
    cluster.put(a, "k", "one");
    cluster.run(SECOND);
    assert_eq!(cluster.read(b, "k").as_deref(), Some("one"));
}

#[test]
fn c11_the_leave_of_a_former_start_that_comes_late_does_not_take_a_member_away() {
    let mut cluster = Cluster::tree(12, config());
    let peer = (2..=12).find(|id| cluster.is_connected(1, *id)).unwrap();
    let (id, former) = (NodeId::from_u64(peer), cluster.epoch(peer));
    let next = Epoch::from_u64(former.as_u64() + 100);
    // This node was paused: membership tells of the new start before the session with the former is looked at.
    cluster.act(1, |node, now, out| {
        node.core.member_up(now, id, next);
        let message = CacheMessage::Leave {
            epoch: former,
            latest: 0,
        };
        node.core.handle(now, id, message, out);
    });
    cluster.cut(1, peer);
    let counts = |cluster: &Cluster| {
        let freshness = cluster.nodes[&1].core.freshness(cluster.now);
        freshness.per_peer.iter().any(|told| told.peer == id)
    };
    assert!(counts(&cluster));
    // A later start that leaves is gone.
    cluster.act(1, |node, now, out| node.core.peer_left(now, id, out));
    assert!(!counts(&cluster));
}

#[test]
fn c11_when_the_tree_goes_off_neighbours_are_asked_for_all_that_they_have_told_anew() {
    let mut cluster = Cluster::tree(5, config());
    cluster.put(2, "k", "value");
    cluster.run(SECOND);
    let gone = NodeId::from_u64(5);
    cluster.crash(5);
    for id in 1..=4 {
        cluster.connect_all(id);
        cluster.act(id, |node, now, out| node.core.peer_left(now, gone, out));
    }
    let asks = |cluster: &Cluster, by_tree: bool| {
        let asks = cluster.queue.iter().filter_map(|(from, _, message)| {
            let is_ask = *from == 1;
            match message {
                CacheMessage::Ask(ask) if is_ask && ask.by_tree == by_tree => Some(ask.told),
                _ => None,
            }
        });
        asks.collect::<Vec<_>>()
    };
    for _ in 0..2_000 {
        cluster.now += Duration::from_millis(10);
        for id in 1..=4 {
            cluster.act(id, |node, now, out| node.core.tick(now, out));
        }
        let last = asks(&cluster, false);
        if !last.is_empty() {
            assert!(last.iter().all(|told| *told == (0, 0)), "{last:?}");
            return;
        }
        cluster.deliver();
    }
    panic!("the tree stays on");
}
