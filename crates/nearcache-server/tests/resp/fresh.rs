//! Freshness and fills over RESP: the `redis` crate on three nodes.

use std::collections::HashMap;
use std::time::Duration;

use nearcache::{Ack, NodeId, PutOptions, RawValue};
use nearcache_server::config::{CacheMode, DEFAULT_CACHE};
use redis::Value;

use crate::replicated::{Client, Cluster, eventually};

#[test]
fn c11_getfresh_reads_what_another_node_has_just_written_or_says_that_it_cannot_know() {
    let cluster = Cluster::start_with(|_| {});
    let (mut writer, mut reader) = (cluster.connect(0), cluster.connect(1));
    for number in 0..200 {
        let _: Value = writer.ask(&format!("SET k {number}"));
        let read: Option<u32> = reader.ask("NC.GETFRESH k 0");
        assert_eq!(read, Some(number));
    }
    assert_eq!(reader.ask::<Option<u32>>("NC.GETFRESH none 1000"), None);
    let wrong = reader.try_ask::<Value>("NC.GETFRESH k -1").unwrap_err();
    assert!(wrong.to_string().contains("not an integer"), "{wrong}");

    let node = cluster.servers[1].node();
    let others: Vec<NodeId> = (0..3)
        .filter(|other| *other != 1)
        .map(|other| cluster.servers[other].node().id())
        .collect();
    let freshness: HashMap<String, Value> = reader.ask("NC.FRESHNESS");
    assert!(
        matches!(freshness["age_ms"], Value::Int(0..5_000)),
        "{freshness:?}"
    );
    let Value::Array(peers) = &freshness["peers"] else {
        panic!("{freshness:?}");
    };
    assert_eq!(peers.len(), 2);
    let info: String = reader.ask("INFO freshness");
    for other in &others {
        assert!(
            info.contains(&format!("freshness_db0_peer_{other}:age_ms=")),
            "{info}"
        );
    }

    // Cut off from one of them, it still reads, but does not call that fresh.
    node.disconnect(others[0]);
    eventually("the cut is noticed", || {
        let answer = reader.try_ask::<Value>("NC.GETFRESH k 1");
        answer.is_err_and(|error| error.to_string().contains("NOTFRESH"))
    });
    assert_eq!(reader.ask::<Option<u32>>("GET k"), Some(199));
    assert_eq!(reader.ask::<Option<u32>>("NC.GETFRESH k 600000"), Some(199));
}

/// Misses, and is given a token.
fn miss(client: &mut Client) -> String {
    let (value, token): (Option<String>, Option<String>) = client.ask("NC.GETFILL k");
    assert_eq!(value, None);
    token.unwrap()
}

#[test]
fn c1_a_fill_that_an_invalidation_overtook_is_refused_and_a_kept_one_invalidates_nobody() {
    let cluster = Cluster::start_with(|config| {
        let default = config.caches.get_mut(DEFAULT_CACHE).unwrap();
        default.mode = CacheMode::Invalidation;
    });
    let (mut one, mut two) = (cluster.connect(0), cluster.connect(1));
    let stale = miss(&mut two);
    let cache = cluster.servers[0].cache(DEFAULT_CACHE).unwrap();
    let options = PutOptions::new()
        .ack(Ack::All)
        .timeout(Duration::from_secs(10));
    let put = cache.put_with(&b"k"[..], RawValue::from(&b"new"[..]), options);
    cluster.runtime.block_on(put).unwrap();
    assert!(!two.ask::<bool>(&format!("NC.FILL k {stale} old")));
    // In doubt, which is as long as clocks may be apart, it is refused.
    eventually("a fill is kept", || {
        let token = miss(&mut two);
        two.ask::<bool>(&format!("NC.FILL k {token} new EX 100"))
    });
    assert_eq!(two.ask::<String>("GET k"), "new");
    assert!((90..=100).contains(&two.ask::<i64>("TTL k")));
    let (value, token): (Option<String>, Option<String>) = two.ask("NC.GETFILL k");
    assert_eq!((value.as_deref(), token), (Some("new"), None));
    assert_eq!(one.ask::<String>("GET k"), "new");

    // A token is good on the node that gave it, and nonsense nowhere.
    let mut three = cluster.connect(2);
    let token = miss(&mut three);
    assert!(!one.ask::<bool>(&format!("NC.FILL k {token} new")));
    let wrong = one.try_ask::<Value>("NC.FILL k nonsense new").unwrap_err();
    assert!(wrong.to_string().contains("InvalidFillToken"), "{wrong}");
    let wrong = three.try_ask::<Value>(&format!("NC.FILL k {token} new KEEPTTL"));
    assert!(wrong.unwrap_err().to_string().contains("syntax"));
}
