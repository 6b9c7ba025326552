//! What peers must not be able to do to the real server: rows 30 to 32 of the bad inputs of the reliability specification. What the
//! library's tests show in more detail, of one process and through its sockets.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;

use bytes::BytesMut;
use nearcache::Epoch;
use nearcache_protocol::frame::{self, FrameLimit, Kind};
use nearcache_protocol::handshake::{Local, ProtocolRange};
use nearcache_protocol::ids::CacheId;
use nearcache_protocol::lane::Lane;
use nearcache_protocol::rendezvous::PlacementKey;
use rcgen::ExtendedKeyUsagePurpose;

use crate::authority::{Authority, CLUSTER, Leaf, NodeFiles};
use crate::process::{Serve, until};
use crate::raw_peer::{local, open_lane, read_to_close, socket};
use crate::tls_client::heard;

/// The value of a counter of a server with its one label.
fn counted(server: &Serve, name: &str, reason: &str) -> u64 {
    let start = format!("nearcache_{name}_total{{reason=\"{reason}\"}} ");
    let text = server.get("/metrics").body;
    let mut lines = text.lines();
    lines
        .find_map(|line| line.strip_prefix(&start)?.parse().ok())
        .unwrap_or(0)
}

fn members(server: &Serve) -> usize {
    let document = server.get("/v1/members").json();
    document.as_array().map_or(0, Vec::len)
}

/// The cluster of servers that are told of none.
const DEFAULT_CLUSTER: &str = "nearcache";

/// When the server's life began, which a peer must not be far from.
fn epoch(server: &Serve) -> Epoch {
    let document = server.get("/v1/node").json();
    Epoch::from_u64(document["epoch"].as_u64().unwrap())
}

/// The server goes on: it answers its clients, and nothing was merged.
fn assert_unharmed(server: &Serve, what: &str) {
    assert_eq!(server.get("/readyz").status, 200, "{what}");
    let empty = server.get("/v1/caches").json()[0]["entries"] == 0;
    assert!(empty, "{what}: something was merged");
    assert_eq!(members(server), 1, "{what}");
}

/// A peer with all three lanes open, and what it needs to come again.
struct Intruder {
    address: SocketAddr,
    local: Local,
    lanes: [TcpStream; 3],
}

impl Intruder {
    fn enter(server: &Serve, id: u64) -> Self {
        let address = server.peers;
        let local = local(DEFAULT_CLUSTER, id, "bad", epoch(server));
        let open = |lane| open_lane(socket(address).unwrap(), &[], &local, lane, 0).unwrap();
        let lanes = [Lane::Control, Lane::Data, Lane::Bulk].map(open);
        Self {
            address,
            local,
            lanes,
        }
    }

    /// Sends `bytes` on a lane, waits until the session is closed, and says whether it is let in again.
    fn attack(mut self, lane: Lane, bytes: &[u8]) -> bool {
        let at = usize::from(lane.number());
        self.lanes[at].write_all(bytes).unwrap();
        for stream in &mut self.lanes {
            read_to_close(stream).unwrap();
        }
        let again = socket(self.address).unwrap();
        open_lane(again, &[], &self.local, Lane::Control, 0).is_ok()
    }
}

fn framed(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = BytesMut::new();
    frame::encode(Kind(kind), 1, body, FrameLimit::DEFAULT, &mut out).unwrap();
    out.to_vec()
}

/// A frame of the cache that every server has open.
fn of_cache(kind: u8, body: &[u8]) -> Vec<u8> {
    let place = PlacementKey::of_cluster(DEFAULT_CLUSTER);
    let id = CacheId::of_name(place.bytes(), "default");
    framed(kind, &[&id.as_u64().to_be_bytes(), body].concat())
}

#[test]
fn row_31_what_cannot_be_right_closes_the_session_and_quarantines_its_sender() {
    let server = Serve::start(&[]);
    let four_gib = vec![0xFF, 0xFF, 0xFF, 0xFF, 1, 0x40, 0, 0, 0, 0, 0, 0, 0, 0];
    // A progress vector of a million nodes has 24 MB, which no frame may have; one that announces as many as its count can hold and
    // brings one is cut short.
    let million = vec![0x01, 0x6e, 0x36, 0x0a, 1, 0x4d, 0, 0, 0, 0, 0, 0, 0, 0];
    let cut_vector = of_cache(0x4d, &[&[1, 0xFF, 0xFF][..], &[1; 24]].concat());
    let inputs = [
        ("length of 4 GiB", Lane::Data, four_gib, "frame"),
        ("vector of a million", Lane::Bulk, million, "frame"),
        ("vector cut short", Lane::Bulk, cut_vector, "message"),
        (
            "unknown kind",
            Lane::Control,
            framed(0x3F, &[]),
            "unknown_kind",
        ),
        (
            "unknown kind of a cache",
            Lane::Data,
            of_cache(0xFE, &[]),
            "message",
        ),
        (
            "packet that is none",
            Lane::Control,
            framed(0x10, &[0xFF]),
            "membership",
        ),
    ];
    for (number, (what, lane, bytes, reason)) in inputs.into_iter().enumerate() {
        let before = counted(&server, "peer_frames_refused", reason);
        let is_let_in = Intruder::enter(&server, 1_000 + number as u64).attack(lane, &bytes);
        assert!(!is_let_in, "{what}: a quarantined peer is let in");
        let after = counted(&server, "peer_frames_refused", reason);
        assert_eq!(after, before + 1, "{what}: {reason}");
    }
    until(|| (members(&server) == 1).then_some(()));
    assert_unharmed(&server, "after all of them");
}

#[test]
fn row_31_times_that_cannot_be_are_refused_in_the_handshake() {
    let server = Serve::start(&[]);
    let (address, epoch) = (server.peers, epoch(&server));
    let later = Epoch::from_u64(epoch.as_u64() + 1_000_000_000);
    let year_ms = 365 * 24 * 3600 * 1000;
    for (what, epoch, ahead_ms) in [
        ("a clock a year ahead", epoch, year_ms),
        ("an epoch in the future", later, 0),
    ] {
        let peer = local(DEFAULT_CLUSTER, 666, "bad", epoch);
        let opened = open_lane(
            socket(address).unwrap(),
            &[],
            &peer,
            Lane::Control,
            ahead_ms,
        );
        assert!(opened.is_err(), "{what} is let in");
        assert_unharmed(&server, what);
    }
    let counted = || counted(&server, "peer_handshakes_refused", "implausible_time");
    until(|| (counted() == 2).then_some(()));
}

#[test]
fn row_32_a_peer_without_a_common_version_is_told_the_versions() {
    let server = Serve::start(&[]);
    let mut newer = local(DEFAULT_CLUSTER, 666, "new", epoch(&server));
    newer.protocols = ProtocolRange { min: 7, max: 9 };
    let stream = socket(server.peers).unwrap();
    let error = open_lane(stream, &[], &newer, Lane::Control, 0).unwrap_err();
    for told in ["7 to 9", "1 to 1"] {
        assert!(error.to_string().contains(told), "{error}");
    }
    let counted = || counted(&server, "peer_handshakes_refused", "version");
    until(|| (counted() == 1).then_some(()));
    assert_unharmed(&server, "another version");
}

#[test]
fn row_30_a_second_server_with_an_id_that_is_in_use_is_refused() {
    let (first, name) = (Serve::start(&["--name", "first"]), ["--name", "twin"]);
    let join = first.peers.to_string();
    let twin = Serve::start(&[&name[..], &["--join", &join]].concat());
    until(|| (members(&first) == 2).then_some(()));
    let again = Serve::start(&[&name[..], &["--join", &join]].concat());
    let counted = || counted(&first, "peer_handshakes_refused", "duplicate_node_id");
    until(|| (counted() > 0).then_some(()));
    assert_eq!((members(&first), members(&again)), (2, 1));
    drop(twin);
}

/// A server with these files, which looks for nobody or for `join`.
fn secured(folder: &Path, cluster: &str, join: Option<SocketAddr>) -> Serve {
    let file = |name: &str| folder.join(name).display().to_string();
    let mut settings = vec![format!("node.cluster={cluster}")];
    for (setting, name) in [
        ("certificate_file", "node.pem"),
        ("key_file", "node.key"),
        ("ca_file", "ca.pem"),
        ("secret_file", "secret"),
    ] {
        settings.push(format!("peers.tls.{setting}={}", file(name)));
    }
    let join = join.map(|address| address.to_string());
    let mut args: Vec<&str> = Vec::new();
    for setting in &settings {
        args.extend(["--set", setting]);
    }
    if let Some(join) = &join {
        args.extend(["--join", join]);
    }
    Serve::start(&args)
}

/// The files of a peer of the test's cluster.
fn peer(authority: &Authority, node: &str) -> NodeFiles {
    NodeFiles::of_peer(authority, node)
}

#[test]
fn row_30_a_server_that_is_not_believed_is_refused_and_the_log_says_why() {
    let authority = Authority::new();
    let trusted = peer(&authority, "one");
    let folder = |files: &NodeFiles| files.path("ca.pem").parent().unwrap().to_owned();

    let stranger = Authority::new();
    let other_authority = peer(&stranger, "two");
    let both = format!("{}{}", authority.pem(), stranger.pem());
    other_authority.write("ca.pem", &both, 0o644);
    let other_secret = peer(&authority, "two");
    let wrong = "another-secret-0123456789abcdef0123456789";
    other_secret.write("secret", wrong, 0o600);
    let other_cluster = NodeFiles::new(&authority, &Leaf::peer("bank", "two"));

    for (what, files, cluster, reason, told) in [
        (
            "another authority",
            other_authority,
            CLUSTER,
            "unknown_authority",
            "not of an authority trusted here",
        ),
        (
            "another secret",
            other_secret,
            CLUSTER,
            "wrong_secret",
            "another cluster secret",
        ),
        (
            "another cluster",
            other_cluster,
            "bank",
            // It sees first that the two are of different clusters.
            "refused_by_peer",
            "it refused this node's certificate",
        ),
    ] {
        let one = secured(&folder(&trusted), CLUSTER, None);
        let two = secured(&folder(&files), cluster, Some(one.peers));
        until(|| (counted(&one, "peer_handshakes_refused", reason) > 0).then_some(()));
        let log = until(|| {
            let log = one.log();
            log.contains("refused a peer").then_some(log)
        });
        for part in ["from=127.0.0.1:", told] {
            assert!(log.contains(part), "{what}: {part}: {log}");
        }
        // The peer is told nothing but that; its secret is in nobody's log.
        assert_eq!((members(&one), members(&two)), (1, 1), "{what}");
        for log in [one.log(), two.log()] {
            assert!(
                !log.contains("canary") && !log.contains(wrong),
                "{what}: {log}"
            );
        }
        assert_unharmed(&one, what);
    }
}

#[test]
fn row_30_certificates_that_are_no_peers_are_refused_by_a_server_all_with_the_same_words() {
    let authority = Authority::new();
    let files = peer(&authority, "one");
    let server = secured(files.path("ca.pem").parent().unwrap(), CLUSTER, None);
    let mut expired = Leaf::peer(CLUSTER, "two").valid_for(std::time::Duration::ZERO);
    expired.began *= 2;
    let expired = authority.issue(&expired);
    // Whole seconds: it is not over before the next one begins.
    std::thread::sleep(std::time::Duration::from_millis(1_100));
    let server_only = Leaf {
        usages: vec![ExtendedKeyUsagePurpose::ServerAuth],
        ..Leaf::peer(CLUSTER, "two")
    };
    let stranger = Authority::new().issue(&Leaf::peer(CLUSTER, "two"));
    let client = authority.issue(&Leaf::uri("spiffe://test/client/app"));
    let other = authority.issue(&Leaf::peer("bank", "two"));
    let web = authority.issue(&Leaf::dns("shop.example"));
    for (what, shown, reason, words) in [
        ("none", None, "no_certificate", "CertificateRequired"),
        (
            "a client's",
            Some(client),
            "not_a_peer",
            "CertificateUnknown",
        ),
        (
            "a web server's",
            Some(web),
            "not_a_peer",
            "CertificateUnknown",
        ),
        (
            "another cluster's",
            Some(other),
            "wrong_cluster",
            "CertificateUnknown",
        ),
        (
            "another authority's",
            Some(stranger),
            "unknown_authority",
            "CertificateUnknown",
        ),
        (
            "an expired one",
            Some(expired),
            "certificate_expired",
            "CertificateUnknown",
        ),
        (
            "one for servers only",
            Some(authority.issue(&server_only)),
            "bad_certificate",
            "CertificateUnknown",
        ),
    ] {
        let before = counted(&server, "peer_handshakes_refused", reason);
        let heard = heard(server.peers, shown.as_ref());
        assert!(heard.contains(words), "{what}: {heard:?}");
        until(|| {
            let now = counted(&server, "peer_handshakes_refused", reason);
            (now == before + 1).then_some(())
        });
    }
    assert_unharmed(&server, "after all of them");
}
