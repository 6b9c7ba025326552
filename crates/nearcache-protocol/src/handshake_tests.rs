//! Every rule of the handshake, from both sides.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;
use crate::frame::FrameDecoder;
use crate::identity::Zone;
use crate::ids::Epoch;

const NOW_MS: u64 = 1_800_000_000_000;

fn now() -> Timestamp {
    Timestamp::from_parts(NOW_MS, 0)
}

fn identity(node: u64, port: u16) -> Identity {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    Identity::new(
        NodeId::from_u64(node),
        Epoch::from_u64(NOW_MS - 1000),
        address,
        Zone::default(),
    )
}

fn local(node: u64, port: u16) -> Local {
    Local::new("demo", "n", identity(node, port))
}

/// Knows one node at most.
#[derive(Default)]
struct Book {
    known: Option<Known>,
    full: Option<usize>,
    members: usize,
}

impl Registry for Book {
    fn known(&self, node: NodeId) -> Option<Known> {
        self.known
            .clone()
            .filter(|known| known.identity.node == node)
    }

    fn full_for(&self, _: NodeId) -> Option<usize> {
        self.full
    }

    fn members_with(&self, _: NodeId) -> usize {
        self.members
    }
}

fn knows(identity: Identity, connected: bool) -> Book {
    Book {
        known: Some(Known {
            identity,
            connected,
        }),
        ..Book::default()
    }
}

fn frame_of(bytes: &[u8]) -> Frame {
    let mut decoder = FrameDecoder::new(FrameLimit::HANDSHAKE);
    decoder.extend(bytes);
    decoder.next_frame().unwrap().expect("one whole frame")
}

/// What `acceptor` with this `book` says to `dialer`.
fn offered(dialer: Local, acceptor: &Local, book: &Book) -> Result<Accepted, Refusal> {
    let (_, hello) = Handshake::dial(dialer, Lane::Data, SessionToken(9), now());
    accept(acceptor, book, now(), &frame_of(&hello))
}

#[test]
fn m5_two_nodes_of_a_cluster_learn_who_the_other_is() {
    let dialer = Local {
        features: Features(0b011),
        ..local(1, 7001)
    };
    let acceptor = Local {
        features: Features(0b110),
        ..local(2, 7002)
    };
    let (handshake, hello) = Handshake::dial(dialer, Lane::Bulk, SessionToken(9), now());
    let accepted = accept(&acceptor, &Book::default(), now(), &frame_of(&hello)).unwrap();
    assert_eq!(accepted.peer.identity, identity(1, 7001));
    assert_eq!(accepted.peer.lane, Lane::Bulk);
    assert_eq!(accepted.peer.session, SessionToken(9));
    assert_eq!(accepted.peer.features, Features(0b010));
    let peer = handshake
        .complete(&Book::default(), now(), &frame_of(&accepted.welcome))
        .unwrap();
    assert_eq!(peer.identity, identity(2, 7002));
    assert_eq!((peer.protocol, peer.time), (PROTOCOL_MAX, now()));
}

#[test]
fn m5_other_cluster_is_refused_without_telling_why() {
    let stranger = Local {
        cluster: "other".into(),
        ..local(1, 7001)
    };
    let refusal = offered(stranger, &local(2, 7002), &Book::default()).unwrap_err();
    let expected = Refusal::WrongCluster {
        ours: "demo".to_owned(),
        theirs: "other".to_owned(),
    };
    assert_eq!(refusal, expected);
    assert!(!refusal.frame().windows(4).any(|bytes| bytes == b"demo"));
    let (handshake, _) = Handshake::dial(local(1, 7001), Lane::Data, SessionToken(9), now());
    let told = handshake.complete(&Book::default(), now(), &frame_of(&refusal.frame()));
    assert_eq!(told, Err(Refusal::RefusedByPeer));
}

#[test]
fn m5_self_connection_is_refused() {
    let refusal = offered(local(1, 7001), &local(1, 7001), &Book::default()).unwrap_err();
    assert_eq!(refusal, Refusal::SelfConnection);
}

#[test]
fn m5_second_node_with_our_id_is_refused() {
    let mut twin = local(1, 7009);
    twin.identity.epoch = Epoch::from_u64(NOW_MS);
    let refusal = offered(twin, &local(1, 7001), &Book::default()).unwrap_err();
    assert!(
        matches!(refusal, Refusal::DuplicateNodeId { .. }),
        "{refusal:?}"
    );
}

#[test]
fn m5_second_node_with_the_id_of_a_connected_one_is_refused() {
    let mut twin = local(1, 7009);
    twin.identity.epoch = Epoch::from_u64(NOW_MS);
    let book = knows(identity(1, 7001), true);
    let refusal = offered(twin.clone(), &local(2, 7002), &book).unwrap_err();
    assert!(
        matches!(refusal, Refusal::DuplicateNodeId { .. }),
        "{refusal:?}"
    );
    // Once the sessions of the former are gone it is a restart on another port.
    assert!(offered(twin, &local(2, 7002), &knows(identity(1, 7001), false)).is_ok());
}

#[test]
fn m5_restart_at_the_same_address_is_welcome_while_the_old_session_lingers() {
    let mut again = local(1, 7001);
    again.identity.epoch = Epoch::from_u64(NOW_MS);
    assert!(offered(again, &local(2, 7002), &knows(identity(1, 7001), true)).is_ok());
}

#[test]
fn m5_former_start_of_a_node_is_refused() {
    let mut newer = identity(1, 7001);
    newer.epoch = Epoch::from_u64(NOW_MS);
    let refusal = offered(local(1, 7001), &local(2, 7002), &knows(newer, false)).unwrap_err();
    assert!(matches!(refusal, Refusal::Replaced { .. }), "{refusal:?}");
}

#[test]
fn m5_implausible_epoch_and_renewal_are_refused() {
    let mut future = local(1, 7001);
    future.identity.epoch = Epoch::from_u64(NOW_MS + MAX_DRIFT_MS + 1);
    let refusal = offered(future, &local(2, 7002), &Book::default()).unwrap_err();
    assert!(
        matches!(refusal, Refusal::ImplausibleEpoch { .. }),
        "{refusal:?}"
    );

    let mut renewed = local(1, 7001);
    renewed.identity.renewal = RENEWAL_JUMP_MAX + 1;
    let book = knows(identity(1, 7001), false);
    let refusal = offered(renewed, &local(2, 7002), &book).unwrap_err();
    assert!(
        matches!(refusal, Refusal::ImplausibleRenewal { .. }),
        "{refusal:?}"
    );
}

#[test]
fn r5_clock_too_far_ahead_is_refused_by_the_one_behind() {
    let ahead = Timestamp::from_parts(NOW_MS + MAX_DRIFT_MS + 1, 0);
    let (_, hello) = Handshake::dial(local(1, 7001), Lane::Data, SessionToken(9), ahead);
    let refusal = accept(&local(2, 7002), &Book::default(), now(), &frame_of(&hello)).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::ClockAhead {
            ahead_ms: 501,
            limit_ms: 500
        }
    );
}

#[test]
fn version_mismatch_is_told_to_both_sides() {
    let newer = ProtocolRange { min: 7, max: 9 };
    let acceptor = Local {
        protocols: newer,
        ..local(2, 7002)
    };
    let refusal = offered(local(1, 7001), &acceptor, &Book::default()).unwrap_err();
    let theirs = ProtocolRange::OURS;
    assert_eq!(
        refusal,
        Refusal::VersionMismatch {
            ours: newer,
            theirs
        }
    );
    let (handshake, _) = Handshake::dial(local(1, 7001), Lane::Data, SessionToken(9), now());
    let told = handshake.complete(&Book::default(), now(), &frame_of(&refusal.frame()));
    assert_eq!(
        told,
        Err(Refusal::VersionMismatch {
            ours: ProtocolRange::OURS,
            theirs: newer
        })
    );
}

#[test]
fn newest_common_version_is_chosen() {
    let ours = ProtocolRange { min: 2, max: 5 };
    assert_eq!(
        ours.newest_common(ProtocolRange { min: 1, max: 3 }),
        Some(3)
    );
    assert_eq!(
        ours.newest_common(ProtocolRange { min: 5, max: 9 }),
        Some(5)
    );
    assert_eq!(ours.newest_common(ProtocolRange { min: 6, max: 9 }), None);
    assert_eq!(ours.newest_common(ProtocolRange { min: 0, max: 1 }), None);
}

#[test]
fn join_of_a_full_cluster_is_refused_but_a_member_may_come_back() {
    let full = Book {
        full: Some(64),
        ..Book::default()
    };
    let refusal = offered(local(1, 7001), &local(2, 7002), &full).unwrap_err();
    assert_eq!(refusal, Refusal::MemberLimit { limit: 64 });
    let book = Book {
        full: Some(64),
        ..knows(identity(1, 7001), false)
    };
    assert!(offered(local(1, 7001), &local(2, 7002), &book).is_ok());
}

#[test]
fn answer_for_another_session_or_lane_is_refused() {
    let (handshake, _) = Handshake::dial(local(1, 7001), Lane::Data, SessionToken(8), now());
    let accepted = offered(local(1, 7001), &local(2, 7002), &Book::default()).unwrap();
    let answer = handshake.complete(&Book::default(), now(), &frame_of(&accepted.welcome));
    assert_eq!(answer, Err(Refusal::OtherAnswer { field: "session" }));
    let (handshake, _) = Handshake::dial(local(1, 7001), Lane::Bulk, SessionToken(9), now());
    let answer = handshake.complete(&Book::default(), now(), &frame_of(&accepted.welcome));
    assert_eq!(answer, Err(Refusal::OtherAnswer { field: "lane" }));
}

#[test]
fn long_names_are_refused_and_the_longest_fit_the_limit() {
    let long = Local {
        name: "n".repeat(NAME_BYTES_MAX + 1).into(),
        ..local(1, 7001)
    };
    let refusal = offered(long, &local(2, 7002), &Book::default()).unwrap_err();
    assert!(
        matches!(refusal, Refusal::NameTooLong { len_bytes: 257, .. }),
        "{refusal:?}"
    );

    let name: Arc<str> = "n".repeat(NAME_BYTES_MAX).into();
    let longest = |node| {
        let mut local = Local {
            cluster: name.clone(),
            name: name.clone(),
            ..local(node, 7001)
        };
        local.identity.zone = Zone::new(&"z".repeat(crate::identity::ZONE_BYTES_MAX)).unwrap();
        local
    };
    let accepted = offered(longest(1), &longest(2), &Book::default()).unwrap();
    assert!(accepted.welcome.len() <= FrameLimit::HANDSHAKE.bytes() as usize);
}

#[test]
fn other_frame_where_the_handshake_is_due_is_refused() {
    let frame = Frame {
        kind: Kind::SWIM,
        number: 0,
        body: Bytes::new(),
    };
    let refusal = accept(&local(2, 7002), &Book::default(), now(), &frame).unwrap_err();
    assert_eq!(
        refusal,
        Refusal::Unexpected {
            kind: 0x10,
            expected: 0x01
        }
    );
}

#[test]
fn of_two_crossed_connections_exactly_one_stays() {
    let (small, large) = (NodeId::from_u64(1), NodeId::from_u64(2));
    assert!(stays_when_crossed(small, large));
    assert!(!stays_when_crossed(large, small));
}

proptest! {
    #[test]
    fn arbitrary_bytes_are_refused_without_panic(
        kind in prop::sample::select(vec![Kind::HELLO, Kind::WELCOME, Kind::REFUSED, Kind::SWIM]),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let frame = Frame { kind, number: 0, body: body.into() };
        prop_assert!(accept(&local(2, 7002), &Book::default(), now(), &frame).is_err());
        let (handshake, _) = Handshake::dial(local(1, 7001), Lane::Data, SessionToken(9), now());
        prop_assert!(handshake.complete(&Book::default(), now(), &frame).is_err());
    }
}

#[test]
fn nodes_that_disagree_about_the_mesh_meet_only_while_it_does_not_matter() {
    let of = |node: u16, mesh_max| Local {
        mesh_max,
        ..local(u64::from(node), 7000 + node)
    };
    let with = |members| Book {
        members,
        ..Book::default()
    };
    let meet = |theirs, members| offered(of(1, theirs), &of(2, 64), &with(members));
    assert_eq!(meet(32, 32).unwrap().peer.mesh_max, 32);
    let refusal = meet(32, 33).unwrap_err();
    let expected = Refusal::MeshMax {
        ours: 64,
        theirs: 32,
        members: 33,
    };
    assert_eq!(refusal, expected);
    assert!(meet(128, 64).is_ok() && meet(128, 65).is_err());
    assert!(meet(64, 1_000).is_ok() && meet(0, 1_000).is_ok());
}

#[test]
fn a_probe_connection_is_answered_as_one_and_no_lane() {
    let (handshake, hello) = Handshake::dial_probe(local(1, 7001), SessionToken(9), now());
    let book = Book::default();
    let accepted = accept(&local(2, 7002), &book, now(), &frame_of(&hello)).unwrap();
    assert!(accepted.peer.probe);
    let peer = handshake.complete(&book, now(), &frame_of(&accepted.welcome));
    assert!(peer.unwrap().probe);
    // Who asked for a lane wants a lane.
    let (lane, _) = Handshake::dial(local(1, 7001), Lane::Control, SessionToken(9), now());
    let told = lane.complete(&book, now(), &frame_of(&accepted.welcome));
    let field = "kind of connection";
    assert_eq!(told, Err(Refusal::OtherAnswer { field }));
}
