//! Nodes in memory that look at each other's copies.

use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Change, NodeId, Version};

use super::audit::{AuditReport, COVERED_WITHIN, FAR_MAX, PEERS_MAX, Verdicts, WITHIN};
use super::{Held, is_reserved, probe_key};
use crate::announce::ModeKind;
use crate::config::ReplicationConfig;
use crate::machine::Machine as _;
use crate::mode::Outcome;
use crate::probe::inspect::{Inspected, NoAnswer};
use crate::testing::{Cluster, LOOKED_AT};

const SECOND: Duration = Duration::from_secs(1);

fn config(mode: ModeKind) -> ReplicationConfig {
    let mut config = ReplicationConfig::default();
    config.agreement.mode = mode;
    config
}

fn id(id: u64) -> NodeId {
    NodeId::from_u64(id)
}

impl Cluster {
    fn inspect(&mut self, id: u64, key: &str) -> u64 {
        let waiter = self.waiter(SECOND);
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.act(id, |node, now, out| {
            node.core.inspect(now, &key, waiter, out)
        });
        waiter.id.0
    }

    fn inspected(&self, id: u64, waiter: u64) -> Option<Inspected> {
        match self.nodes[&id].results.get(&waiter) {
            Some(Outcome::Inspected(seen)) => Some(seen.clone()),
            _ => None,
        }
    }

    fn report(&self, id: u64) -> AuditReport {
        self.nodes[&id].core.audit_report(self.now)
    }

    fn audit(&mut self, id: u64, every: Option<Duration>) {
        self.act(id, |node, now, _| node.core.audit(now, every, None));
    }

    /// What node 1 saw of a peer, per time.
    fn seen(&self, peer: u64) -> [Verdicts; WITHIN.len()] {
        let report = self.report(1);
        let seen = report.peers.iter().find(|seen| seen.peer == id(peer));
        seen.map(|seen| seen.within).unwrap_or_default()
    }
}

#[test]
fn inspection_shows_how_a_key_stands_on_every_member() {
    let mut cluster = Cluster::ready(3, config(ModeKind::Replicated));
    cluster.put(2, "k", "value");
    cluster.deliver();
    let waiter = cluster.inspect(1, "k");
    cluster.deliver();
    let seen = cluster.inspected(1, waiter).unwrap();
    assert_eq!(seen.len(), 3);
    let held: Vec<Held> = seen.values().map(|held| held.unwrap()).collect();
    let first = held[0].entry.unwrap();
    assert_eq!((first.value_bytes, first.version.origin), (5, id(2)));
    assert!(
        held.iter()
            .all(|held| held.entry == Some(first) && held.leased && held.ready)
    );
    cluster.remove(3, "k");
    cluster.deliver();
    let waiter = cluster.inspect(1, "k");
    cluster.deliver();
    let seen = cluster.inspected(1, waiter).unwrap();
    assert!(
        seen.values()
            .all(|held| held.is_ok_and(|held| held.removed && held.entry.is_none()))
    );
}

#[test]
fn inspection_ends_in_time_and_says_who_did_not_answer() {
    let mut cluster = Cluster::ready(3, config(ModeKind::Replicated));
    cluster.drops.insert((3, "probe-ask"));
    let waiter = cluster.inspect(1, "none");
    cluster.run(SECOND / 2);
    assert_eq!(cluster.inspected(1, waiter), None);
    cluster.run(SECOND);
    let seen = cluster.inspected(1, waiter).unwrap();
    assert_eq!(seen[&id(3)], Err(NoAnswer::TimedOut));
    assert_eq!(seen[&id(2)].map(|held| held.known), Ok(Version::ZERO));
    // Whoever is cut off while it is asked is not waited for.
    let waiter = cluster.inspect(1, "none");
    cluster.cut(1, 3);
    cluster.deliver();
    assert_eq!(
        cluster.inspected(1, waiter).unwrap()[&id(3)],
        Err(NoAnswer::Lost)
    );
    // It is not asked at all as long as it is not connected.
    let waiter = cluster.inspect(1, "none");
    cluster.deliver();
    assert_eq!(
        cluster.inspected(1, waiter).unwrap()[&id(3)],
        Err(NoAnswer::Unconnected)
    );
}

#[test]
fn an_audit_of_nodes_that_agree_finds_nothing_else() {
    for mode in [ModeKind::Replicated, ModeKind::Invalidation] {
        let mut cluster = Cluster::ready(3, config(mode));
        cluster.audit(1, Some(SECOND * 2));
        cluster.run(SECOND * 80);
        cluster.audit(1, None);
        cluster.run(SECOND * 70);
        let report = cluster.report(1);
        assert_eq!((report.every, report.skipped), (None, 0), "{mode:?}");
        for peer in [2, 3] {
            for verdicts in cluster.seen(peer) {
                let all = Verdicts {
                    coherent: report.probes,
                    ..Verdicts::default()
                };
                assert_eq!(verdicts, all, "{mode:?} {peer}");
                assert!(verdicts.nines() > 1.5);
            }
        }
        assert!(
            report
                .peers
                .iter()
                .all(|peer| peer.took.p999.is_some_and(|p999| p999 < SECOND / 10))
        );
    }
}

#[test]
fn an_audit_for_some_time_ends_no_audit_for_good_and_a_report_tells_how_old_it_is() {
    let mut cluster = Cluster::ready(2, config(ModeKind::Replicated));
    assert_eq!(cluster.report(1).probed, None);
    cluster.audit(1, Some(SECOND * 10));
    cluster.run(SECOND * 12);
    assert_eq!(cluster.report(1).probes, 2);
    cluster.act(1, |node, now, _| {
        node.core.audit(now, Some(SECOND), Some(now + SECOND * 5));
    });
    cluster.run(SECOND * 6);
    let after = cluster.report(1);
    assert_eq!((after.probes, after.every), (7, Some(SECOND * 10)));
    cluster.run(SECOND * 24);
    assert_eq!(cluster.report(1).probes, 9);
    cluster.audit(1, None);
    cluster.run(SECOND * 100);
    let ended = cluster.report(1);
    assert_eq!((ended.probes, ended.every), (9, None));
    assert!(ended.probed.is_some_and(|probed| probed >= SECOND * 100));
}

#[test]
fn an_audit_shows_who_serves_something_older() {
    for mode in [ModeKind::Replicated, ModeKind::Invalidation] {
        let mut cluster = Cluster::ready(3, config(mode));
        cluster.audit(1, Some(SECOND * 2));
        cluster.run(SECOND * 11);
        let before = cluster.seen(3);
        assert_eq!(before[0].total(), before[0].coherent, "{mode:?}");
        // Updates are lost on their way to node 3, and it is not told that there are any.
        for name in ["updates", "heartbeat", "differs", "compare"] {
            cluster.drops.insert((3, name));
        }
        cluster.run(SECOND * 2 + SECOND / 2);
        assert!(
            cluster.seen(3)[0].stale > 0,
            "{mode:?} {:?}",
            cluster.seen(3)
        );
        assert_eq!(cluster.seen(2)[0].stale, 0);
    }
}

#[test]
fn c11_an_answer_that_comes_late_is_never_taken_for_one_in_time() {
    let mut cluster = Cluster::ready(2, config(ModeKind::Replicated));
    cluster.audit(1, Some(SECOND * 60));
    // Node 2 sleeps for three seconds: its first step applies the probe and answers.
    cluster.act(1, |node, now, out| node.core.tick(now, out));
    cluster.now += SECOND * 3;
    cluster.run(SECOND * 70);
    let [first, second, _] = cluster.seen(2);
    assert_eq!((first.coherent, first.total()), (1, 2), "{first:?}");
    assert_eq!((second.coherent, second.total()), (2, 2), "{second:?}");
    let report = cluster.report(1);
    assert!(
        report.peers[0]
            .took
            .p99
            .is_some_and(|p99| p99 >= SECOND * 3)
    );
}

#[test]
fn a_node_that_does_not_answer_is_shown_until_it_is_no_member() {
    let mut cluster = Cluster::ready(3, config(ModeKind::Replicated));
    cluster.audit(1, Some(SECOND));
    for name in ["probe-ask", "updates"] {
        cluster.drops.insert((3, name));
    }
    cluster.run(SECOND * 5);
    let silent = cluster.seen(3)[0].silent;
    assert!(silent >= 3, "{silent}");
    cluster.act(1, |node, now, out| node.core.peer_dead(now, id(3), out));
    let silent_at_death = cluster.seen(3)[0].silent;
    assert!(
        silent_at_death > silent,
        "what it was asked it did not answer"
    );
    cluster.run(SECOND * 10);
    assert_eq!(cluster.seen(3)[0].silent, silent_at_death);
    assert_eq!(cluster.seen(2)[0].silent, 0);
}

#[test]
fn c9_questions_that_wait_are_bounded_and_end() {
    let mut cluster = Cluster::ready(2, config(ModeKind::Replicated));
    let far = Version::from_bytes([0xff; 16]);
    for number in 0..1_000 {
        let message = crate::message::CacheMessage::Probe {
            request: crate::ids::RequestId(1 << 40 | number),
            message: super::Probe::Ask {
                key: Bytes::from_static(b"k"),
                at_least: far,
                wait_ms: u32::MAX,
                keeps: true,
            },
        };
        cluster.act(2, |node, now, out| {
            node.core.handle(now, id(1), message, out)
        });
    }
    let answered = |cluster: &Cluster| cluster.carried.get("probe-held").map_or(0, |(n, _)| *n);
    cluster.deliver();
    assert_eq!(answered(&cluster), 1_000 - 256);
    cluster.run(SECOND * 71);
    assert_eq!(answered(&cluster), 1_000);
}

#[test]
fn c9_a_question_that_waits_costs_no_look_at_the_value_whenever_anything_comes() {
    let mut cluster = Cluster::ready(2, config(ModeKind::Replicated));
    cluster.put(1, "k", "long");
    cluster.deliver();
    for number in 0..200 {
        let message = crate::message::CacheMessage::Probe {
            request: crate::ids::RequestId(1 << 40 | number),
            message: super::Probe::Ask {
                key: Bytes::from_static(b"k"),
                at_least: Version::from_bytes([0xff; 16]),
                wait_ms: u32::MAX,
                keeps: false,
            },
        };
        cluster.act(2, |node, now, out| {
            node.core.handle(now, id(1), message, out)
        });
    }
    let before = LOOKED_AT.get();
    cluster.put(1, "other", "value");
    cluster.deliver();
    cluster.run(SECOND);
    assert!(LOOKED_AT.get() - before < 200);
}

#[test]
fn nobody_has_a_key_of_the_audit_loaded_but_itself() {
    assert!(is_reserved(&probe_key(id(7))));
    assert!(!is_reserved(b"\0nearcache/prob"));
    assert!(!is_reserved(b""));
    let mut cluster = Cluster::ready(2, config(ModeKind::Invalidation));
    let ask = |key: &'static [u8]| crate::message::CacheMessage::Probe {
        request: crate::ids::RequestId(1),
        message: super::Probe::Ask {
            key: Bytes::from_static(key),
            at_least: Version::ZERO,
            wait_ms: 0,
            keeps: true,
        },
    };
    cluster.act(2, |node, now, out| {
        node.core.handle(now, id(1), ask(b"user"), out)
    });
    assert!(cluster.nodes[&2].core.store().is_empty());
    let remove =
        cluster.nodes[&2]
            .core
            .store()
            .merge(b"user", Version::from_bytes([1; 16]), Change::Remove);
    assert!(remove.is_ok());
}

/// More nodes than a full mesh of four may have.
fn tree(count: u64) -> Cluster {
    let mut config = config(ModeKind::Replicated);
    config.mesh_max = 4;
    let cluster = Cluster::tree(count, config);
    let others = |id: u64| (1..=count).filter(move |other| *other != id);
    assert!((1..=count).all(|id| others(id).any(|other| !cluster.is_connected(id, other))));
    cluster
}

/// Members that node 1 has no session with.
fn far(cluster: &Cluster) -> Vec<u64> {
    let others = cluster.nodes.keys().copied();
    others
        .filter(|other| *other != 1 && !cluster.is_connected(1, *other))
        .collect()
}

#[test]
fn beyond_the_mesh_an_inspection_shows_every_member() {
    let mut cluster = tree(40);
    let far = far(&cluster);
    assert!(far.len() > FAR_MAX * 3 / 2, "asked in waves: {far:?}");
    cluster.put(7, "k", "value");
    cluster.run(SECOND * 2);
    let waiter = cluster.inspect(1, "k");
    cluster.deliver();
    let seen = cluster.inspected(1, waiter).unwrap();
    assert_eq!(seen.len(), 40);
    let versions = seen
        .values()
        .map(|held| held.unwrap().entry.unwrap().version);
    assert!(
        versions.into_iter().all(|version| version.origin == id(7)),
        "{seen:?}"
    );
    let asked: Vec<u64> = far.iter().map(|far| cluster.reached[&(1, *far)]).collect();
    assert!(asked.iter().all(|times| *times == 1), "{asked:?}");
}

#[test]
fn beyond_the_mesh_an_inspection_asks_again_and_names_who_did_not_answer() {
    let mut cluster = tree(40);
    let far = far(&cluster);
    let (silent, gone, once) = (far[0], far[1], far[2]);
    cluster.drops.insert((silent, "probe-ask"));
    cluster.drops.insert((once, "probe-ask"));
    cluster.unreachable.insert(gone);
    let waiter = cluster.waiter(SECOND * 10);
    let key = Bytes::from_static(b"none");
    cluster.act(1, |node, now, out| {
        node.core.inspect(now, &key, waiter, out)
    });
    cluster.run(SECOND / 10);
    cluster.drops.remove(&(once, "probe-ask"));
    cluster.run(SECOND * 3);
    let seen = cluster.inspected(1, waiter.id.0).unwrap();
    assert_eq!(seen[&id(silent)], Err(NoAnswer::TimedOut));
    assert_eq!(seen[&id(gone)], Err(NoAnswer::Unreachable));
    let answered = seen.values().filter(|held| held.is_ok()).count();
    assert_eq!((seen.len(), answered), (40, 38), "{seen:?}");
    assert!(cluster.reached[&(1, silent)] <= 3);
    // A session that ends beyond the mesh is no reason not to answer.
    let neighbour = (2..=40)
        .find(|other| cluster.is_connected(1, *other))
        .unwrap();
    let waiter = cluster.waiter(SECOND * 10);
    cluster.act(1, |node, now, out| {
        node.core.inspect(now, &key, waiter, out)
    });
    cluster.cut(1, neighbour);
    cluster.run(SECOND * 4);
    assert!(cluster.inspected(1, waiter.id.0).unwrap()[&id(neighbour)].is_ok());
}

#[test]
fn beyond_the_mesh_inspections_are_bounded_and_end_at_their_deadline() {
    let mut cluster = tree(40);
    let far = far(&cluster);
    for member in &far {
        cluster.drops.insert((*member, "probe-ask"));
    }
    let key = Bytes::from_static(b"k");
    let waiters: Vec<_> = (0..6).map(|_| cluster.waiter(SECOND)).collect();
    for waiter in &waiters {
        cluster.act(1, |node, now, out| {
            node.core.inspect(now, &key, *waiter, out)
        });
    }
    cluster.run(SECOND / 10);
    let asked = |cluster: &Cluster| {
        far.iter()
            .filter(|far| cluster.reached.contains_key(&(1, **far)))
            .count()
    };
    assert_eq!(asked(&cluster), 16, "so many at a time");
    for waiter in &waiters[4..] {
        let seen = cluster.inspected(1, waiter.id.0).unwrap();
        assert_eq!(seen[&id(far[0])], Err(NoAnswer::Overloaded));
        assert_eq!(
            seen.values().filter(|held| held.is_ok()).count(),
            40 - far.len()
        );
    }
    cluster.run(SECOND * 2);
    let seen = cluster.inspected(1, waiters[0].id.0).unwrap();
    let told = |reason| seen.values().filter(|held| **held == Err(reason)).count();
    assert_eq!(
        told(NoAnswer::TimedOut) + told(NoAnswer::NotAsked),
        far.len()
    );
    assert!(told(NoAnswer::NotAsked) > 0, "{seen:?}");
}

#[test]
fn beyond_the_mesh_an_audit_covers_every_member_at_a_bounded_cost() {
    let mut cluster = tree(60);
    let (far, before) = (far(&cluster), cluster.carried.clone());
    cluster.reached.clear();
    let probes = u64::try_from(far.len().div_ceil(FAR_MAX)).unwrap();
    cluster.audit(1, Some(SECOND * 2));
    cluster.run(SECOND * 2 * u32::try_from(probes).unwrap() - SECOND);
    cluster.audit(1, None);
    cluster.run(SECOND * 70);
    let report = cluster.report(1);
    assert_eq!(
        (report.probes, report.members, report.covered),
        (probes, 59, 59)
    );
    for (peer, within) in report.peers.iter().zip(report.within()) {
        assert_eq!(peer.within[0].coherent, peer.within[0].total(), "{peer:?}");
        assert_eq!(within.coherent, within.total());
    }
    // Told as soon as it is there, by the tree too.
    assert!(
        report.took.p999.is_some_and(|took| took < SECOND / 20),
        "{:?}",
        report.took
    );
    // Four questions to each that is asked, and as many answers.
    let far_asked: u64 = cluster
        .reached
        .iter()
        .filter(|((from, _), _)| *from == 1)
        .map(|(_, n)| n)
        .sum();
    assert!(
        far_asked <= probes * 4 * u64::try_from(FAR_MAX).unwrap(),
        "{far_asked}"
    );
    let asks = cluster.carried["probe-ask"].0 - before.get("probe-ask").map_or(0, |(n, _)| *n);
    assert!(
        asks <= probes * 4 * u64::try_from(PEERS_MAX).unwrap(),
        "{asks}"
    );
    // What is long ago does not count.
    cluster.now += COVERED_WITHIN;
    assert_eq!(cluster.report(1).covered, 0);
}

#[test]
fn beyond_the_mesh_an_audit_shows_who_serves_something_older_and_asks_lost_questions_again() {
    let mut cluster = tree(24);
    let far = far(&cluster);
    let (stale, lossy) = (far[0], far[1]);
    let seconds = |n| SECOND * n;
    cluster.audit(1, Some(seconds(2)));
    cluster.run(seconds(7));
    // No update reaches one of them, and it hears of none.
    for name in [
        "updates",
        "relayed",
        "state",
        "differs",
        "compare",
        "want-pieces",
        "listed",
        "entries",
    ] {
        cluster.drops.insert((stale, name));
    }
    for _ in 0..40 {
        cluster.drops.insert((lossy, "probe-ask"));
        cluster.run(SECOND / 5);
        cluster.drops.remove(&(lossy, "probe-ask"));
        cluster.run(SECOND / 5);
    }
    assert!(
        cluster.seen(stale)[0].stale > 0,
        "{:?}",
        cluster.seen(stale)
    );
    let seen = cluster.seen(lossy)[0];
    assert!(
        seen.total() > 3 && seen.silent == 0 && seen.stale == 0,
        "{seen:?}"
    );
    // One that answers nothing is shown, and is not covered for long.
    let silent = far[2];
    cluster.drops.insert((silent, "probe-ask"));
    cluster.run(seconds(20));
    assert!(cluster.seen(silent)[0].silent > 0);
}
