//! Values that are longer than a peer takes.

use bytes::Bytes;
use nearcache_store::NodeId;

use super::modify::set;
use super::{SECOND, all, config};
use crate::config::ReplicationConfig;
use crate::mode::{Ack, Outcome, Status};
use crate::modify::{Condition, ModifyError};
use crate::testing::Cluster;

/// Two nodes; the first takes any value, the second values of at most four bytes.
fn unequal_pair() -> Cluster {
    let mut cluster = Cluster::ready(1, config());
    let small = ReplicationConfig {
        value_bytes_max: 4,
        ..config()
    };
    cluster.start_with(2, small);
    cluster.connect(1, 2);
    cluster
}

#[test]
fn c2_a_value_that_is_too_long_for_a_peer_is_a_miss_there_and_its_older_copy_is_gone() {
    let mut cluster = unequal_pair();
    cluster.put(1, "transferred", "too long");
    cluster.run(SECOND);
    cluster.put(1, "k", "old");
    cluster.deliver();
    assert_eq!(cluster.read_all("k"), all("old", 2));
    let acked = cluster.put_acked(1, "k", "too long", Ack::All);
    cluster.deliver();
    assert!(matches!(
        cluster.nodes[&1].results[&acked],
        Outcome::Acked(Ok(()))
    ));
    let only_here = vec![Some("too long".to_owned()), None];
    assert_eq!(cluster.read_all("k"), only_here);
    assert_eq!(cluster.read_all("transferred"), only_here);
    assert_eq!(cluster.nodes[&2].core.stats().withheld, 2);
    assert_eq!(
        cluster.nodes[&2].core.store().tombstones(),
        0,
        "too long is not removed"
    );
    cluster.put(1, "k", "new");
    cluster.deliver();
    assert_eq!(cluster.read_all("k"), all("new", 2));
    assert_eq!(cluster.nodes[&2].core.status(cluster.now), Status::Synced);
}

#[test]
fn a_peer_that_sends_more_than_this_node_takes_is_not_believed() {
    let mut cluster = unequal_pair();
    cluster.run(SECOND);
    // It says nothing of its limit, or node 1 does not listen.
    cluster.act(2, |node, now, out| {
        let entry = crate::testing::entry("k", 1, "too long");
        let request = crate::ids::RequestId(1);
        let key = Bytes::from_static(b"k");
        let waiter = crate::mode::Waiter {
            id: crate::ids::WaiterId(900),
            deadline: now + SECOND,
        };
        node.core.find(now, key, waiter, out);
        let sent = out.iter().find_map(|output| match output {
            crate::mode::Output::Send {
                message: crate::message::CacheMessage::Find { request, .. },
                ..
            } => Some(*request),
            _ => None,
        });
        let found = crate::message::CacheMessage::Found {
            request: sent.unwrap_or(request),
            update: Some(crate::update::Update::Entry(entry)),
        };
        crate::machine::Machine::handle(&mut node.core, now, NodeId::from_u64(1), found, out);
    });
    assert_eq!(cluster.read(2, "k"), None);
    assert_eq!(cluster.nodes[&2].core.stats().withheld, 1);
}

#[test]
fn a_modify_whose_value_is_too_long_for_the_home_is_refused_and_changes_nothing() {
    let mut cluster = unequal_pair();
    cluster.run(SECOND);
    let mut refused = 0;
    for n in 0..20 {
        let key = format!("key-{n}");
        let waiter = cluster.modify(1, &key, set(Condition::Always, "too long"));
        cluster.deliver();
        match &cluster.nodes[&1].results[&waiter] {
            Outcome::Modified(Ok(done)) => assert!(done.applied),
            Outcome::Modified(Err(ModifyError::TooLargeForHome { limit_bytes: 4 })) => {
                refused += 1;
                assert_eq!(cluster.read_all(&key), vec![None; 2]);
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((1..20).contains(&refused), "{refused} of 20");
}

#[test]
fn the_answer_to_a_modify_fits_into_one_frame() {
    let value = |key, ms, text| {
        Some(crate::update::Update::Entry(crate::testing::entry(
            key, ms, text,
        )))
    };
    let mut answer = crate::message::ModifiedAt {
        applied: true,
        previous: value("k", 1, "abcd"),
        current: value("k", 2, "efgh"),
    };
    let reader = crate::update::Reader {
        value_bytes_max: 4,
        inline_bytes_max: 4,
    };
    answer.fit(reader, 8);
    assert_eq!(
        answer.current.as_ref().map(|update| update.value_len()),
        Some(4)
    );
    answer.fit(reader, 7);
    assert_eq!(
        answer.previous.as_ref().map(|update| update.value_len()),
        Some(4)
    );
    let stub = answer.current.unwrap();
    assert!(matches!(
        stub,
        crate::update::Update::Stub { value_bytes: 4, .. }
    ));
    // What came another way is not dropped for it.
    let store = crate::testing::store();
    assert_eq!(
        value("k", 2, "efgh").unwrap().apply(&store),
        crate::update::Applied::Newer
    );
    assert_eq!(stub.apply(&store), crate::update::Applied::Superseded);
    assert!(store.peek(b"k").is_some());
}
