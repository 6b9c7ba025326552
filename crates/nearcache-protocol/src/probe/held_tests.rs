//! What is told of a key, and believed of a probe, is about that key and that probe.

use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Scope, Timestamp, Version};

use super::audit::Verdicts;
use super::inspect::Inspected;
use super::{HASHED_MAX_BYTES, Held, HeldEntry, probe_key};
use crate::announce::ModeKind;
use crate::config::ReplicationConfig;
use crate::mode::Outcome;
use crate::testing::{Cluster, store_of};

const SECOND: Duration = Duration::from_secs(1);
/// Whatever would tell a node of updates that it has missed.
const NEWS: [&str; 4] = ["updates", "heartbeat", "differs", "compare"];

fn config(mode: ModeKind) -> ReplicationConfig {
    let mut config = ReplicationConfig::default();
    config.agreement.mode = mode;
    config
}

/// Two nodes, of which the second has room for some hundred entries.
fn beside_a_small_one() -> Cluster {
    let config = config(ModeKind::Replicated);
    let mut cluster = Cluster::new(config.clone());
    cluster.start(1);
    cluster.start_on(2, config, store_of(128 << 10));
    cluster.connect(1, 2);
    cluster.run(SECOND * 5);
    cluster
}

/// Has node 2 evict until it remembers no single key.
fn churn(cluster: &mut Cluster) {
    let before = folded(cluster);
    for number in 0..20_000 {
        cluster.put(2, &format!("key {number}"), "value");
        if number % 100 == 0 {
            cluster.deliver();
        }
    }
    cluster.deliver();
    assert!(folded(cluster) > before + 10_000, "{}", folded(cluster));
}

fn folded(cluster: &Cluster) -> u64 {
    cluster.nodes[&2].core.store().stats().key_floors_folded
}

fn audit(cluster: &mut Cluster, every: Duration) {
    cluster.act(1, |node, now, out| {
        node.core.audit(now, Some(every), None);
        crate::machine::Machine::tick(&mut node.core, now, out);
    });
}

/// What node 1 saw of node 2 after 1 and 5 s.
fn seen(cluster: &Cluster) -> [Verdicts; 2] {
    let report = cluster.nodes[&1].core.audit_report(cluster.now);
    let within = report.peers.first().map(|seen| seen.within);
    let [first, second, _] = within.unwrap_or_default();
    [first, second]
}

fn inspect(cluster: &mut Cluster, key: &str) -> Inspected {
    let waiter = cluster.waiter(SECOND);
    let key = Bytes::copy_from_slice(key.as_bytes());
    cluster.act(1, |node, now, out| {
        node.core.inspect(now, &key, waiter, out)
    });
    cluster.deliver();
    match cluster.nodes[&1].results.get(&waiter.id.0) {
        Some(Outcome::Inspected(seen)) => seen.clone(),
        other => panic!("{other:?}"),
    }
}

fn held(seen: &Inspected, node: u64) -> Held {
    seen[&nearcache_store::NodeId::from_u64(node)].unwrap()
}

const fn only(coherent: u64, unknown: u64) -> Verdicts {
    Verdicts {
        coherent,
        late: 0,
        stale: 0,
        silent: 0,
        unknown,
    }
}

#[test]
fn what_was_evicted_of_other_keys_is_no_version_of_this_one() {
    let mut cluster = beside_a_small_one();
    churn(&mut cluster);
    let seen = inspect(&mut cluster, "never written");
    let held = held(&seen, 2);
    assert_eq!(
        (held.known, held.entry, held.removed),
        (Version::ZERO, None, false)
    );
    assert!(held.floor > Version::ZERO, "of other keys");
    // What has dropped all keys has dropped this one.
    cluster.invalidate(2, Scope::All);
    cluster.deliver();
    let seen = inspect(&mut cluster, "never written");
    assert!(
        seen.values()
            .all(|held| held.unwrap().known > Version::ZERO)
    );
}

#[test]
fn c11_a_probe_that_was_lost_is_not_coherent_because_other_keys_were_evicted_since() {
    let mut cluster = beside_a_small_one();
    NEWS.iter().for_each(|name| {
        cluster.drops.insert((2, name));
    });
    audit(&mut cluster, SECOND * 60);
    cluster.run(SECOND / 2);
    churn(&mut cluster);
    cluster.run(SECOND * 6);
    assert_eq!(seen(&cluster), [only(0, 1), only(0, 1)]);
    cluster.run(SECOND * 70);
    let report = cluster.nodes[&1].core.audit_report(cluster.now);
    assert_eq!(report.took.p50, None, "nor is it known to have taken long");
    let [first, ..] = report.within();
    assert!(first.nines() < 0.01, "{first:?}");
}

#[test]
fn a_probe_that_was_there_in_time_and_was_evicted_is_coherent() {
    let mut cluster = beside_a_small_one();
    audit(&mut cluster, SECOND * 60);
    cluster.run(SECOND / 10);
    let key = probe_key(nearcache_store::NodeId::from_u64(1));
    let store = cluster.nodes[&2].core.store();
    let version = store.known(&key).version();
    assert!(version > Version::ZERO && store.forget(&key, version));
    churn(&mut cluster);
    cluster.run(SECOND * 6);
    assert_eq!(seen(&cluster), [only(1, 0), only(1, 0)]);
}

#[test]
fn a_probe_is_kept_where_other_keys_that_nobody_reads_are_evicted() {
    let mut cluster = beside_a_small_one();
    audit(&mut cluster, SECOND * 2);
    let key = probe_key(nearcache_store::NodeId::from_u64(1));
    for number in 0..200 {
        for other in 0..20 {
            cluster.put(2, &format!("key {number} {other}"), "value");
        }
        cluster.run(SECOND / 20);
    }
    assert!(folded(&cluster) > 0);
    assert!(cluster.nodes[&2].core.store().peek(&key).is_some());
    let [first, _] = seen(&cluster);
    assert_eq!((first.coherent, first.total()), (5, 5), "{first:?}");
}

#[test]
fn c11_a_copy_that_was_loaded_to_be_looked_at_is_no_sign_of_a_probe() {
    let mut cluster = Cluster::ready(2, config(ModeKind::Invalidation));
    NEWS.iter().for_each(|name| {
        cluster.drops.insert((2, name));
    });
    audit(&mut cluster, SECOND * 60);
    cluster.run(SECOND * 7);
    let [first, second] = seen(&cluster);
    assert_eq!((first.coherent, first.total()), (0, 1), "{first:?}");
    assert_eq!((second.coherent, second.total()), (0, 1), "{second:?}");
}

#[test]
fn a_long_value_that_is_not_here_has_no_hash_and_of_one_that_is_the_first_bytes_count() {
    let mut cluster = Cluster::ready(2, config(ModeKind::Replicated));
    let long = "x".repeat(HASHED_MAX_BYTES + 2);
    let mut hash = |key: &str, value: &str| {
        cluster.put(1, key, value);
        let here = held(&inspect(&mut cluster, key), 1).entry.unwrap();
        assert_eq!(here.value_bytes as usize, value.len());
        here.value_hash.unwrap()
    };
    let first = hash("a", &long);
    assert_eq!(
        first,
        hash("b", &(long[1..].to_owned() + "y")),
        "the last byte"
    );
    assert_ne!(first, hash("c", &long[1..]), "shorter");
    assert_ne!(
        first,
        hash("d", &("y".to_owned() + &long[1..])),
        "the first byte"
    );
    assert_ne!(hash("e", "x"), hash("f", "y"));
    let seen = inspect(&mut cluster, "a");
    let [here, there] = [1, 2].map(|node| held(&seen, node).entry.unwrap());
    assert_eq!(
        (here.version, here.value_bytes),
        (there.version, there.value_bytes)
    );
    assert_eq!(
        there.value_hash, None,
        "nothing that is the same for all long values"
    );
}

#[test]
fn what_is_written_or_removed_is_told_from_what_is_loaded_evicted_or_dropped() {
    let version = |ms: u64, counter: u16| {
        let time = Timestamp::from_parts(ms, counter);
        Version::new(time, nearcache_store::NodeId::from_u64(1))
    };
    let held = |known: Version, removed: bool, is_here: bool| Held {
        known,
        floor: known,
        entry: is_here.then_some(HeldEntry {
            version: known,
            expiry: nearcache_store::Expiry::NEVER,
            value_bytes: 1,
            value_hash: Some(1),
        }),
        removed,
        leased: true,
        ready: true,
    };
    let (write, load) = (version(5, 1), version(5, u16::MAX));
    assert_eq!(held(write, true, false).written(), Some(write));
    assert_eq!(held(write, false, true).written(), Some(write));
    assert_eq!(held(write, false, false).written(), None);
    assert_eq!(held(load, true, false).written(), None);
    assert_eq!(held(load, false, true).written(), None);
}
