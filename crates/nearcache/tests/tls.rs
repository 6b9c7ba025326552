//! Peers prove who they are: reliability specification, section 4.3, and row 30 of its bad inputs.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a helper that fails fails its test"
)]

#[path = "common/authority.rs"]
mod authority;
mod common;
#[path = "common/logs.rs"]
mod logs;

use std::net::SocketAddr;
use std::time::Duration;

use authority::{Authority, CLUSTER, Leaf, NodeFiles, SECRET};
use common::{TestResult, bounded, cache, eventually};
use logs::Logs;
use nearcache::{
    Ack, ConnectError, Distrust, Node, NodeBuilder, PeerTls, PeerTlsError, PutOptions, StartError,
    StaticPeers,
};
use rcgen::ExtendedKeyUsagePurpose;

fn secured(tls: PeerTls, peers: &[SocketAddr]) -> NodeBuilder {
    Node::builder(CLUSTER)
        .tls(tls)
        .discovery(StaticPeers::new(peers.iter().copied()))
}

/// A node with these files that looks for nobody.
async fn alone(files: &NodeFiles) -> Node {
    secured(files.tls(), &[])
        .start()
        .await
        .expect("a node starts")
}

/// How often a node refused a handshake for `reason`.
fn refused(node: &Node, reason: &str) -> u64 {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &node.metrics().lock())
        .expect("metrics are text");
    let start = format!("nearcache_peer_handshakes_refused_total{{reason=\"{reason}\"}} ");
    text.lines()
        .find_map(|line| line.strip_prefix(&start)?.parse().ok())
        .unwrap_or(0)
}

fn nobody_met(nodes: &[&Node]) -> bool {
    nodes.iter().all(|node| node.members().len() == 1)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_nodes_with_tls_replicate_on_every_lane() -> TestResult {
    bounded(async {
        let authority = Authority::new();
        let files = ["one", "two", "three"].map(|name| NodeFiles::of_peer(&authority, name));
        let one = alone(&files[0]).await;
        assert_eq!(one.name(), "one", "the name is the certificate's");
        assert!(one.is_secured());
        let here = cache(&one).await;
        let seeds = [one.local_addr()];
        let two = secured(files[1].tls(), &seeds).name("two").start().await?;
        let there = cache(&two).await;
        // Enough for many batches, and for the last to come in by a transfer (the bulk lane).
        for i in 0..2_000 {
            let value = format!("{i}").repeat(50);
            here.put(&format!("key-{i}"), value).await?;
        }
        let three = secured(files[2].tls(), &seeds).start().await?;
        let late = cache(&three).await;
        late.ready().await;
        let everywhere = PutOptions::new().ack(Ack::All);
        late.put_with("last", "value".into(), everywhere).await?;
        for cache in [&here, &there, &late] {
            eventually(|| cache.len() == 2_001).await;
            assert_eq!(cache.peek("key-1999").as_deref(), Some(&"1999".repeat(50)));
        }
        for node in [&one, &two, &three] {
            eventually(|| node.members().len() == 3).await;
        }
        for node in [&one, &two, &three] {
            node.shutdown().await;
        }
        Ok(())
    })
    .await
}

/// Who is refused, and what each side says of it.
struct Case {
    what: &'static str,
    files: NodeFiles,
    /// What the other side's log says when this node connects to it.
    reason: &'static [&'static str],
    label: &'static str,
}

fn cases(authority: &Authority) -> Vec<Case> {
    let stranger = Authority::new();
    let both = format!("{}{}", authority.pem(), stranger.pem());
    let case = |what, files, reason, label| Case {
        what,
        files,
        reason,
        label,
    };
    let other_authority = NodeFiles::of_peer(&stranger, "two");
    other_authority.write("ca.pem", &both, 0o644);
    let other_secret = NodeFiles::of_peer(authority, "two");
    let wrong = "another-secret-0123456789abcdef0123456789";
    other_secret.write("secret", wrong, 0o600);
    vec![
        case(
            "another authority",
            other_authority,
            &["not of an authority trusted here", "add the other one"],
            "unknown_authority",
        ),
        case(
            "another secret",
            other_secret,
            &["another cluster secret", "the same secret file"],
            "wrong_secret",
        ),
    ]
}

#[tokio::test]
async fn row_30_whoever_is_not_believed_is_refused_and_told_nothing() -> TestResult {
    bounded(async {
        let authority = Authority::new();
        let files = NodeFiles::of_peer(&authority, "one");
        for case in cases(&authority) {
            let logs = Logs::collect();
            let one = alone(&files).await;
            let two = alone(&case.files).await;
            let outcome = two.connect(one.local_addr()).await;
            assert!(
                matches!(outcome, Err(ConnectError::Refused { .. })),
                "{}: {outcome:?}",
                case.what
            );
            eventually(|| refused(&one, case.label) == 1).await;
            let mut told = vec!["refused a peer", "from=127.0.0.1:"];
            told.extend(case.reason);
            assert!(logs.tell(&told), "{}: {}", case.what, logs.text());
            assert!(nobody_met(&[&one, &two]), "{}", case.what);
            // The other way round the reason is known where the connection began, or there too it
            // is the other side that refuses.
            let back = one.connect(two.local_addr()).await;
            assert!(
                matches!(
                    back,
                    Err(ConnectError::Untrusted { .. } | ConnectError::Refused { .. })
                ),
                "{}: {back:?}",
                case.what
            );
            assert!(nobody_met(&[&one, &two]), "{}", case.what);
            assert!(!logs.text().contains("canary"), "{}", logs.text());
        }
        Ok(())
    })
    .await
}

#[tokio::test]
async fn row_30_a_certificate_that_expires_while_its_node_runs_is_refused() -> TestResult {
    bounded(async {
        let logs = Logs::collect();
        let authority = Authority::new();
        let one = alone(&NodeFiles::of_peer(&authority, "one")).await;
        let leaf = Leaf::peer(CLUSTER, "two").valid_for(Duration::from_secs(2));
        let files = NodeFiles::new(&authority, &leaf);
        let two = alone(&files).await;
        eventually(|| logs.tell(&["WARN", "expires in", "a restart is not needed"])).await;
        eventually(|| logs.tell(&["ERROR", "has expired"])).await;
        let outcome = two.connect(one.local_addr()).await;
        assert!(
            matches!(outcome, Err(ConnectError::Refused { .. })),
            "{outcome:?}"
        );
        eventually(|| refused(&one, "certificate_expired") == 1).await;
        assert!(logs.tell(&["refused a peer", "its certificate expired", "renew it"]));
        let back = one.connect(two.local_addr()).await;
        let Err(ConnectError::Untrusted {
            reason: Distrust::Expired { .. },
            ..
        }) = back
        else {
            panic!("{back:?}");
        };
        eventually(|| logs.tell(&["it refused this node's certificate"])).await;
        assert!(nobody_met(&[&one, &two]));
        // Renewed without a restart, it is let in.
        files.write_certificate(&authority, &Leaf::peer(CLUSTER, "two"));
        eventually(|| logs.tell(&["certificates and secret reloaded"])).await;
        two.connect(one.local_addr()).await?;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_node_does_not_start_with_what_its_peers_would_refuse() -> TestResult {
    bounded(async {
        let authority = Authority::new();
        let expired = Leaf {
            began: Duration::from_secs(7_200),
            ..Leaf::peer(CLUSTER, "two")
        };
        let expired = NodeFiles::new(&authority, &expired.valid_for(Duration::ZERO));
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        let client_only = Leaf {
            usages: vec![ExtendedKeyUsagePurpose::ClientAuth],
            ..Leaf::peer(CLUSTER, "two")
        };
        let stranger = NodeFiles::of_peer(&Authority::new(), "two");
        stranger.write("ca.pem", &authority.pem(), 0o644);
        let client = Leaf::uri("spiffe://test/client/app");
        let twice = Leaf {
            names: [Leaf::peer(CLUSTER, "two"), Leaf::peer(CLUSTER, "three")]
                .iter()
                .flat_map(|leaf| leaf.names.clone())
                .collect(),
            ..Leaf::peer(CLUSTER, "two")
        };
        let refused = [
            (expired, "expired"),
            (stranger, "not of an authority"),
            (NodeFiles::new(&authority, &client_only), "not for this use"),
            (NodeFiles::new(&authority, &client), "not one of a peer"),
            (
                NodeFiles::new(&authority, &Leaf::peer("shop", "two")),
                "for cluster \"shop\"",
            ),
            (
                NodeFiles::new(&authority, &twice),
                "more than one spiffe:// name",
            ),
        ];
        for (files, reason) in refused {
            let error = secured(files.tls(), &[]).start().await.expect_err(reason);
            let StartError::Tls(PeerTlsError::Refused { .. }) = &error else {
                panic!("{error:?}");
            };
            assert!(error.to_string().contains(reason), "{error}");
        }
        let files = NodeFiles::of_peer(&authority, "two");
        let start = |name| secured(files.tls(), &[]).name(name).start();
        let error = start("three").await.expect_err("another name");
        assert!(error.to_string().contains("name it \"two\""), "{error}");
        for (file, text, mode, reason) in [
            ("secret", "short", 0o600, "32 to 1024"),
            ("secret", SECRET, 0o640, "chmod 600"),
            (
                "node.key",
                &authority.issue(&client).1,
                0o600,
                "does not belong",
            ),
            ("node.key", "-----BEGIN nonsense", 0o600, "cannot be used"),
            ("node.key", SECRET, 0o644, "chmod 600"),
            ("node.pem", "", 0o644, "no certificate in PEM"),
            ("ca.pem", "", 0o644, "no certificate in PEM"),
        ] {
            let files = NodeFiles::of_peer(&authority, "two");
            files.write(file, text, mode);
            let error = secured(files.tls(), &[]).start().await.expect_err(reason);
            assert!(error.to_string().contains(reason), "{file}: {error}");
            assert!(!error.to_string().contains("canary"), "{error}");
        }
        let slash = Node::builder("a/b").tls(files.tls()).start().await;
        assert!(slash.is_err_and(|error| error.to_string().contains("must have no `/`")));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn row_30_a_node_without_tls_and_one_with_it_do_not_meet() -> TestResult {
    bounded(async {
        let logs = Logs::collect();
        let authority = Authority::new();
        let with = alone(&NodeFiles::of_peer(&authority, "one")).await;
        let without = Node::builder(CLUSTER).name("two").start().await?;
        let outcome = without.connect(with.local_addr()).await;
        assert!(
            matches!(outcome, Err(ConnectError::Refused { .. })),
            "{outcome:?}"
        );
        eventually(|| logs.tell(&["refused a peer", "it does not speak TLS"])).await;
        let outcome = with.connect(without.local_addr()).await;
        assert!(
            matches!(
                outcome,
                Err(ConnectError::Untrusted {
                    reason: Distrust::Hangs,
                    ..
                })
            ),
            "{outcome:?}"
        );
        eventually(|| logs.tell(&["refused a peer", "it speaks TLS and this node does not"])).await;
        assert_eq!(
            (
                refused(&with, "tls_mismatch"),
                refused(&without, "tls_mismatch")
            ),
            (1, 1)
        );
        assert!(nobody_met(&[&with, &without]));
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_node_with_an_allowed_name_is_a_peer_where_the_name_is_allowed() -> TestResult {
    bounded(async {
        let authority = Authority::new();
        let files = NodeFiles::new(&authority, &Leaf::dns("cache.shop.internal"));
        let tls = || files.tls().allowed_names(["cache.shop.internal"]);
        let one = secured(tls(), &[]).name("one").start().await?;
        let two = secured(tls(), &[]).name("two").start().await?;
        two.connect(one.local_addr()).await?;
        let three = alone(&NodeFiles::of_peer(&authority, "three")).await;
        let outcome = two.connect(three.local_addr()).await;
        assert!(
            matches!(outcome, Err(ConnectError::Refused { .. })),
            "{outcome:?}"
        );
        eventually(|| refused(&three, "not_a_peer") == 1).await;
        Ok(())
    })
    .await
}

/// One step of a rotation, on the files of the node with this name.
type Step<'a> = &'a dyn Fn(&NodeFiles, &str);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_and_secret_are_replaced_under_traffic_and_no_update_is_lost() -> TestResult {
    bounded(async {
        let (old, new) = (Authority::new(), Authority::new());
        let names = ["one", "two", "three"];
        let files = names.map(|name| NodeFiles::of_peer(&old, name));
        // Sessions are opened anew about once a second, so that what is reloaded is used.
        let tls = |files: &NodeFiles| files.tls().reauthenticate_after(Duration::from_secs(1));
        let one = secured(tls(&files[0]), &[]).start().await?;
        let seeds = [one.local_addr()];
        let two = secured(tls(&files[1]), &seeds).start().await?;
        let three = secured(tls(&files[2]), &seeds).start().await?;
        let nodes = [one, two, three];
        let mut caches = Vec::new();
        for node in &nodes {
            eventually(|| node.members().len() == 3).await;
            let cache = cache(node).await;
            cache.ready().await;
            caches.push(cache);
        }
        let stop = tokio_util::sync::CancellationToken::new();
        let writers: Vec<_> = caches
            .iter()
            .enumerate()
            .map(|(writer, cache)| {
                let (cache, stop) = (cache.clone(), stop.clone());
                tokio::spawn(async move {
                    let mut written = 0_u32;
                    while !stop.is_cancelled() {
                        let key = format!("{writer}-{}", written % 500);
                        cache.put(&key, written.to_string()).await?;
                        written += 1;
                        tokio::time::sleep(Duration::from_micros(200)).await;
                    }
                    Ok::<_, nearcache::WriteError>(written)
                })
            })
            .collect();
        let next = "the-next-secret-0123456789abcdef0123456789";
        let both = format!("{}{}", old.pem(), new.pem());
        let steps: [Step<'_>; 5] = [
            // Accept the new ones beside the old ones.
            &|files, _| files.write("ca.pem", &both, 0o644),
            &|files, _| files.write("secret", &format!("{SECRET}\n{next}\n"), 0o600),
            // Use the new ones.
            &|files, name| files.write_certificate(&new, &Leaf::peer(CLUSTER, name)),
            &|files, _| files.write("secret", &format!("{next}\n{SECRET}\n"), 0o600),
            // Forget the old ones.
            &|files, _| {
                files.write("ca.pem", &new.pem(), 0o644);
                files.write("secret", next, 0o600);
            },
        ];
        for step in steps {
            for (files, name) in files.iter().zip(names) {
                step(files, name);
            }
            tokio::time::sleep(Duration::from_millis(1_300)).await;
        }
        stop.cancel();
        let mut written = Vec::new();
        for writer in writers {
            written.push(writer.await??);
        }
        assert!(
            written.iter().all(|written| *written > 1_000),
            "{written:?}"
        );
        for (writer, written) in written.iter().enumerate() {
            for key in 0..500 {
                let last = (written - 1) - (written - 1 + 500 - key) % 500;
                for cache in &caches {
                    let key = format!("{writer}-{key}");
                    let expected = last.to_string();
                    eventually(|| cache.peek(&key).is_some_and(|found| *found == expected)).await;
                }
            }
        }
        for node in &nodes {
            assert_eq!(node.members().len(), 3);
        }
        // Who has only what was forgotten is out.
        let late = alone(&NodeFiles::of_peer(&old, "late")).await;
        assert!(late.connect(nodes[0].local_addr()).await.is_err());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_certificate_that_was_taken_away_stops_working_when_the_session_is_renewed() -> TestResult
{
    bounded(async {
        let logs = Logs::collect();
        let (old, new) = (Authority::new(), Authority::new());
        let (first, second) = (
            NodeFiles::of_peer(&old, "one"),
            NodeFiles::of_peer(&old, "two"),
        );
        let tls = |files: &NodeFiles| files.tls().reauthenticate_after(Duration::from_secs(1));
        let one = secured(tls(&first), &[]).start().await?;
        let two = secured(tls(&second), &[one.local_addr()]).start().await?;
        eventually(|| one.members().len() == 2 && two.members().len() == 2).await;
        first.write("ca.pem", &new.pem(), 0o644);
        first.write_certificate(&new, &Leaf::peer(CLUSTER, "one"));
        eventually(|| logs.tell(&["cannot open the session anew"])).await;
        eventually(|| one.members().len() == 1 && two.members().len() == 1).await;
        Ok(())
    })
    .await
}

#[tokio::test]
async fn files_that_do_not_fit_together_change_nothing_and_are_told() -> TestResult {
    bounded(async {
        let logs = Logs::collect();
        let authority = Authority::new();
        let files = NodeFiles::of_peer(&authority, "one");
        let one = alone(&files).await;
        let two = alone(&NodeFiles::of_peer(&authority, "two")).await;
        files.write("node.key", &authority.issue(&Leaf::uri("x:")).1, 0o600);
        eventually(|| logs.tell(&["WARN", "going on with those from before", "does not belong"]))
            .await;
        two.connect(one.local_addr()).await?;
        Ok(())
    })
    .await
}
