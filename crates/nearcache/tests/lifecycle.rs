//! Nodes that come, go and come back.

mod common;

use std::time::{Duration, Instant};

use common::{TestResult, bounded, cache, eventually, node, pair};
use nearcache::{
    Ack, Cache, ConnectError, MemberState, Mode, Node, NodeEvent, OpenError, PutOptions, RawValue,
    Received, StartError, StaticPeers, WriteError,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_stopped_and_started_again_has_the_value_again() -> TestResult {
    bounded(async {
        let (one, two, here, there) = pair().await;
        here.put_with("key", "value".into(), PutOptions::new().ack(Ack::All))
            .await?;
        let (id, epoch) = (two.id(), two.epoch());
        two.shutdown().await;
        drop((two, there));
        eventually(|| one.members().len() == 1).await;

        let two = node("two", &[one.local_addr()]).await;
        assert_eq!(two.id(), id, "the name decides the id");
        assert!(two.epoch() > epoch, "each start has a new epoch");
        let there = cache(&two).await;
        assert_eq!(
            *there.get("key").await?.ok_or("a miss while joining")?,
            "value"
        );
        two.ready().await;
        assert_eq!(*there.peek("key").ok_or("a miss once ready")?, "value");
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_node_can_be_the_one_that_is_stopped_and_started_again() -> TestResult {
    bounded(async {
        let (one, two, here, there) = pair().await;
        here.put_with("key", "value".into(), PutOptions::new().ack(Ack::All))
            .await?;
        one.shutdown().await;
        drop((one, here));

        let one = node("one", &[two.local_addr()]).await;
        let here = cache(&one).await;
        one.ready().await;
        assert_eq!(*here.peek("key").ok_or("a miss once ready")?, "value");
        here.put("back", "again".into()).await?;
        eventually(|| there.peek("back").is_some()).await;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joining_node_holds_all_entries_when_it_is_ready() -> TestResult {
    const ENTRIES: usize = 100_000;
    tokio::time::timeout(Duration::from_secs(60), async {
        let one = node("one", &[]).await;
        let open = |node: &Node| {
            let node = node.clone();
            async move {
                node.cache::<Vec<u8>, RawValue>("many")
                    .codec::<nearcache::Raw>()
                    .max_bytes(100 << 20)
                    .open()
                    .await
            }
        };
        let here = open(&one).await?;
        let options = PutOptions::new();
        for number in 0..ENTRIES {
            let key = format!("key:{number}").into_bytes();
            here.put_now(&key, RawValue::from(vec![7; 100]), &options)?;
        }
        assert_eq!(here.len(), ENTRIES);
        let two = node("two", &[one.local_addr()]).await;
        let there = open(&two).await?;
        let started = Instant::now();
        two.ready().await;
        assert_eq!(there.len(), ENTRIES);
        println!("{ENTRIES} entries in {:?}", started.elapsed());
        Ok(())
    })
    .await?
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_anybody_to_look_for_is_ready_at_once() -> TestResult {
    let alone = node("alone", &[]).await;
    let things = cache(&alone).await;
    tokio::time::timeout(Duration::from_secs(1), alone.ready()).await?;
    assert!(things.is_ready());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn r6_what_is_shared_with_nobody_is_written_at_once_after_a_start() -> TestResult {
    bounded(async {
        let node = Node::builder("shop").name("till").start().await?;
        let cache = node
            .cache::<String, String>("carts")
            .mode(Mode::Local)
            .open()
            .await?;
        cache.put("key", "value".into()).await?;
        cache.clear().await?;
        assert!(cache.peek("key").is_none());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_seeds_are_silent_is_ready_after_a_bounded_wait() -> TestResult {
    let nobody = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let alone = Node::builder(common::cluster_name())
        .discovery(StaticPeers::new([nobody]))
        .join_alone_after(Duration::from_millis(300))
        .start()
        .await?;
    let _things = cache(&alone).await;
    assert!(!alone.is_ready());
    tokio::time::timeout(Duration::from_secs(5), alone.ready()).await?;
    assert!(alone.is_ready());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cache_that_no_peer_has_open_becomes_ready_and_disturbs_nobody() -> TestResult {
    bounded(async {
        let (one, _two, here, there) = pair().await;
        let lonely = one.cache::<String, String>("lonely").open().await?;
        lonely.ready().await;
        lonely.put("key", "value".into()).await?;
        here.put_with("key", "value".into(), PutOptions::new().ack(Ack::All))
            .await?;
        assert!(there.peek("key").is_some());
        assert!(
            one.members()
                .iter()
                .all(|member| member.state != MemberState::Unconnected)
        );
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leaving_is_told_as_leaving() -> TestResult {
    bounded(async {
        let (one, two, _here, _there) = pair().await;
        let mut events = one.events();
        let id = two.id();
        two.shutdown().await;
        loop {
            match events.next().await.ok_or("the events ended")? {
                Received::Event(NodeEvent::MemberLeft(member)) => {
                    assert_eq!(member.id, id);
                    assert_eq!(member.name.as_deref(), Some("two"));
                    break;
                }
                Received::Event(NodeEvent::MemberDown(member)) => {
                    return Err(format!("{} is told as down", member.id).into());
                }
                Received::Event(_) | Received::Missed(_) => {}
            }
        }
        assert_eq!(one.members().len(), 1);
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_before_leaving_arrives() -> TestResult {
    bounded(async {
        let (_one, two, here, there) = pair().await;
        for number in 0..5000 {
            there.put(&format!("key:{number}"), "value".into()).await?;
        }
        two.shutdown().await;
        eventually(|| here.len() == 5000).await;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_node_says_so() -> TestResult {
    bounded(async {
        let (one, _two, here, _there) = pair().await;
        let mut watch = here.watch();
        one.shutdown().await;
        one.shutdown().await;
        assert!(one.is_stopped());
        assert!(matches!(
            here.put("key", "value".into()).await,
            Err(WriteError::NodeStopped)
        ));
        assert!(matches!(
            one.cache::<String, String>("new").open().await,
            Err(OpenError::NodeStopped)
        ));
        assert!(watch.next().await.is_none());
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dropping_the_last_handle_frees_the_port() -> TestResult {
    bounded(async {
        let one = node("one", &[]).await;
        let things = cache(&one).await;
        let address = one.local_addr();
        drop(one);
        assert!(
            std::net::TcpListener::bind(address).is_err(),
            "a cache keeps its node alive"
        );
        drop(things);
        eventually(|| std::net::TcpListener::bind(address).is_ok()).await;
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disconnected_nodes_diverge_and_converge_once_connected() -> TestResult {
    bounded(async {
        let (one, two, here, there) = pair().await;
        assert!(one.disconnect(two.id()));
        eventually(|| {
            one.members()
                .iter()
                .all(|member| member.state != MemberState::Connected)
        })
        .await;
        here.put("mine", "1".into()).await?;
        there.put("yours", "2".into()).await?;
        here.put("ours", "older".into()).await?;
        tokio::time::sleep(Duration::from_millis(5)).await;
        there.put("ours", "newer".into()).await?;
        assert!(there.peek("mine").is_none());

        one.connect(two.local_addr()).await?;
        for cache in [&here, &there] {
            eventually(|| {
                let newest = cache.peek("ours").is_some_and(|value| *value == "newer");
                newest && cache.peek("mine").is_some() && cache.peek("yours").is_some()
            })
            .await;
        }
        Ok(())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledgement_that_cannot_come_times_out_with_what_is_known() -> TestResult {
    bounded(async {
        let (_one, _two, here, there) = pair().await;
        let options = PutOptions::new()
            .ack(Ack::Peers(2))
            .timeout(Duration::from_secs(2));
        match here.put_with("key", "value".into(), options).await {
            Err(WriteError::AckTimeout {
                acked: 1,
                wanted: 2,
            }) => {}
            other => return Err(format!("{other:?}").into()),
        }
        assert!(here.peek("key").is_some(), "it is applied here");
        assert!(
            there.peek("key").is_some(),
            "and by the peer that acknowledged it"
        );
        Ok(())
    })
    .await
}

#[tokio::test]
async fn nobody_listens_on_the_network_by_accident() {
    let refused = Node::builder(common::cluster_name())
        .listen("0.0.0.0:0")
        .start()
        .await;
    assert!(matches!(refused, Err(StartError::InsecureNetwork { .. })));
    let allowed = Node::builder(common::cluster_name())
        .listen("0.0.0.0:0")
        .allow_insecure_network(true)
        .start()
        .await;
    assert!(allowed.is_ok());
}

#[tokio::test]
async fn a_taken_port_and_a_bad_name_are_told() -> TestResult {
    let one = node("one", &[]).await;
    let taken = Node::builder(common::cluster_name())
        .listen(one.local_addr().to_string())
        .start()
        .await;
    assert!(matches!(taken, Err(StartError::Bind { .. })));
    let named = Node::builder("two words").start().await;
    assert!(matches!(
        named,
        Err(StartError::InvalidName {
            what: "the cluster",
            ..
        })
    ));
    Ok(())
}

#[tokio::test]
async fn a_node_does_not_connect_to_itself_nor_to_another_cluster() -> TestResult {
    let one = node("one", &[]).await;
    let error = one.connect(one.local_addr()).await;
    assert!(
        matches!(error, Err(ConnectError::Myself { .. })),
        "{error:?}"
    );
    let other = Node::builder("other").start().await?;
    let error = other.connect(one.local_addr()).await;
    assert!(
        matches!(error, Err(ConnectError::Refused { .. })),
        "{error:?}"
    );
    assert_eq!((one.members().len(), other.members().len()), (1, 1));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nodes_with_hundreds_of_caches_meet() -> TestResult {
    bounded(async {
        let one = node("one", &[]).await;
        let two = node("two", &[one.local_addr()]).await;
        eventually(|| one.members().len() == 2 && two.members().len() == 2).await;
        let mut caches = Vec::new();
        for number in 0..400 {
            for node in [&one, &two] {
                let builder = node.cache::<String, String>(&format!("cache-{number}"));
                caches.push(builder.max_bytes(1 << 20).open().await?);
            }
        }
        // Sessions begin anew, and now with the announcements of all caches at once.
        let three = node("three", &[one.local_addr()]).await;
        for number in 0..400 {
            let builder = three.cache::<String, String>(&format!("cache-{number}"));
            caches.push(builder.max_bytes(1 << 20).open().await?);
        }
        assert!(one.disconnect(two.id()));
        one.connect(two.local_addr()).await?;
        let knows_two = |cache: &Cache<String, String>| {
            cache.is_ready() && cache.freshness().per_peer.len() == 2
        };
        eventually(|| caches.iter().all(knows_two)).await;
        Ok(())
    })
    .await
}
