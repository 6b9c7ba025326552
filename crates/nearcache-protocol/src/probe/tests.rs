//! Nodes in memory that look at each other's copies.

use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Change, NodeId, Version};

use super::audit::{Verdicts, WITHIN};
use super::{Held, is_reserved, probe_key};
use crate::announce::ModeKind;
use crate::config::ReplicationConfig;
use crate::machine::Machine as _;
use crate::mode::Outcome;
use crate::probe::inspect::Inspected;
use crate::testing::Cluster;

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

    fn audit(&mut self, id: u64, every: Option<Duration>) {
        self.act(id, |node, now, _| node.core.audit(now, every, None));
    }

    /// What node 1 saw of a peer, per time.
    fn seen(&self, peer: u64) -> [Verdicts; WITHIN.len()] {
        let report = self.nodes[&1].core.audit_report();
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
            .all(|held| held.is_some_and(|held| held.removed && held.entry.is_none()))
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
    assert_eq!(seen[&id(3)], None);
    assert_eq!(seen[&id(2)].map(|held| held.known), Some(Version::ZERO));
    // Whoever is cut off while it is asked is not waited for.
    let waiter = cluster.inspect(1, "none");
    cluster.cut(1, 3);
    cluster.deliver();
    assert_eq!(cluster.inspected(1, waiter).unwrap()[&id(3)], None);
}

#[test]
fn an_audit_of_nodes_that_agree_finds_nothing_else() {
    for mode in [ModeKind::Replicated, ModeKind::Invalidation] {
        let mut cluster = Cluster::ready(3, config(mode));
        cluster.audit(1, Some(SECOND * 2));
        cluster.run(SECOND * 80);
        cluster.audit(1, None);
        cluster.run(SECOND * 70);
        let report = cluster.nodes[&1].core.audit_report();
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
                .all(|peer| peer.p999.is_some_and(|p999| p999 < SECOND / 10))
        );
    }
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
    let report = cluster.nodes[&1].core.audit_report();
    assert!(report.peers[0].p99.is_some_and(|p99| p99 >= SECOND * 3));
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
