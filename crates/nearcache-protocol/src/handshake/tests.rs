//! Every rule of the handshake, from both sides.

use std::net::SocketAddr;

use bytes::Bytes;
use nearcache_store::Timestamp;
use proptest::prelude::*;

use super::exchange::handshake_frame;
use super::*;
use crate::control::Refused;
use crate::frame::FrameDecoder;
use crate::frame::{Frame, FrameLimit, Kind};
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
    let Completed { peer, ready } = handshake
        .complete(&Book::default(), now(), &frame_of(&accepted.welcome))
        .unwrap();
    assert_eq!(peer.identity, identity(2, 7002));
    assert_eq!(peer.protocol, PROTOCOL_MAX);
    assert_eq!((peer.clock.least_ms, peer.clock.most_ms), (-1, 1));
    let peer = accepted.complete(now(), &frame_of(&ready)).unwrap();
    assert_eq!(peer.identity, identity(1, 7001));
    assert_eq!((peer.clock.least_ms, peer.clock.most_ms), (-1, 1));
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
    assert!(
        !refusal
            .frame(now())
            .windows(4)
            .any(|bytes| bytes == b"demo")
    );
    let (handshake, _) = Handshake::dial(local(1, 7001), Lane::Data, SessionToken(9), now());
    let told = handshake.complete(&Book::default(), now(), &frame_of(&refusal.frame(now())));
    assert_eq!(told.unwrap_err(), Refusal::RefusedByPeer);
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
    let refusal = met(future, &local(2, 7002), [0; 3], [0; 3]).unwrap_err();
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

/// What both sides say of each other when hello, welcome and ready are sent and read at these times of the dialer's clock, in milliseconds;
/// the acceptor's is `ahead_ms` ahead of it.
fn exchanged(
    ahead_ms: i64,
    sent: [u64; 3],
    read: [u64; 3],
) -> (Result<OffsetRange, Refusal>, Result<OffsetRange, Refusal>) {
    let dialers = |ms: u64| Timestamp::from_parts(NOW_MS + ms, 0);
    let acceptors =
        |ms: u64| Timestamp::from_parts((NOW_MS + ms).saturating_add_signed(ahead_ms), 0);
    let book = Book::default();
    let (dial, hello) = Handshake::dial(
        local(1, 7001),
        Lane::Data,
        SessionToken(9),
        dialers(sent[0]),
    );
    assert!(read[0] == sent[1] && read[1] == sent[2]);
    let hello = frame_of(&hello);
    let accepted = accept(&local(2, 7002), &book, acceptors(read[0]), &hello).unwrap();
    let completed = dial.complete(&book, dialers(read[1]), &frame_of(&accepted.welcome));
    let (answer, theirs) = match completed {
        Ok(Completed { peer, ready }) => (ready, Ok(peer.clock)),
        Err(refusal) => (refusal.frame(dialers(sent[2])), Err(refusal)),
    };
    let ours = accepted.complete(acceptors(read[2]), &frame_of(&answer));
    (theirs, ours.map(|peer| peer.clock))
}

/// How far apart the clocks are found to be.
fn apart_ms(found: Result<OffsetRange, Refusal>) -> i64 {
    match found.unwrap_err() {
        Refusal::ClockApart { peer, limit_ms } => {
            assert_eq!(limit_ms, MAX_DRIFT_MS);
            peer.clock.nearest_ms()
        }
        other => panic!("{other:?}"),
    }
}

/// The same without words about clocks: what the acceptor says to `dialer` at the end.
fn met(dialer: Local, acceptor: &Local, sent: [u64; 3], read: [u64; 3]) -> Result<Peer, Refusal> {
    let at = |ms: u64| Timestamp::from_parts(NOW_MS + ms, 0);
    let book = Book::default();
    let (dial, hello) = Handshake::dial(dialer, Lane::Data, SessionToken(9), at(sent[0]));
    let accepted = accept(acceptor, &book, at(read[0]), &frame_of(&hello))?;
    let completed = dial.complete(&book, at(read[1]), &frame_of(&accepted.welcome))?;
    accepted.complete(at(read[2]), &frame_of(&completed.ready))
}

#[test]
fn r5_a_clock_too_far_away_is_refused_by_both_and_both_learn_how_far_it_is() {
    let (dialer, acceptor) = exchanged(510, [0, 2, 4], [2, 4, 6]);
    assert_eq!(apart_ms(dialer), 507);
    assert_eq!(apart_ms(acceptor), -507);
    // An acceptor that is behind is as wrong.
    let (dialer, acceptor) = exchanged(500, [0, 2, 4], [2, 4, 6]);
    assert!(dialer.is_ok() && acceptor.is_ok());
}

#[test]
fn r5_the_clock_in_a_hello_that_waited_is_not_believed() {
    // The dialer is a second ahead; the acceptor was stopped for a second, and takes it for a moment. Its own welcome is answered at once.
    let (dialer, acceptor) = exchanged(-1_000, [0, 1_000, 1_002], [1_000, 1_002, 1_004]);
    let dialer = dialer.unwrap();
    assert!(!dialer.is_within(MAX_DRIFT_MS), "{dialer:?}");
    assert_eq!(apart_ms(acceptor), 997);
    // An acceptor a second ahead, whose welcome waited: nobody can tell.
    let (dialer, acceptor) = exchanged(1_000, [0, 2, 4_002], [2, 4_002, 4_004]);
    assert!(!dialer.unwrap().is_within(MAX_DRIFT_MS));
    assert!(!acceptor.unwrap().is_within(MAX_DRIFT_MS));
}

#[test]
fn r5_a_slow_link_is_no_reason_to_refuse_and_what_it_leaves_open_is_known() {
    let (dialer, acceptor) = exchanged(0, [0, 2_000, 4_000], [2_000, 4_000, 6_000]);
    let (dialer, acceptor) = (dialer.unwrap(), acceptor.unwrap());
    assert_eq!((dialer.least_ms, dialer.most_ms), (-2_001, 2_001));
    assert_eq!((acceptor.least_ms, acceptor.most_ms), (-2_001, 2_001));
    // An hour is an hour, however slow the link is.
    let (dialer, acceptor) = exchanged(3_600_000, [0, 2_000, 4_000], [2_000, 4_000, 6_000]);
    assert!(apart_ms(dialer) > 3_590_000 && apart_ms(acceptor) < -3_590_000);
}

#[test]
fn r5_who_was_started_again_with_a_clock_that_was_set_back_learns_so() {
    // It says an epoch below that of its former start.
    let (back_ms, mut again) = (5_000, local(1, 7001));
    again.identity.epoch = Epoch::from_u64(NOW_MS - back_ms);
    let (theirs, ours) = (Timestamp::from_parts(NOW_MS - back_ms, 0), now());
    let (dial, hello) = Handshake::dial(again.clone(), Lane::Data, SessionToken(9), theirs);
    let book = knows(identity(1, 7001), false);
    let hello = frame_of(&hello);
    let accepted = accept(&local(2, 7002), &book, ours, &hello).unwrap();
    let told = dial.complete(&Book::default(), theirs, &frame_of(&accepted.welcome));
    let refusal = told.unwrap_err();
    let said = frame_of(&refusal.frame(theirs));
    assert_eq!(apart_ms(Err(refusal)), 4_999);
    let found = accepted.complete(ours, &said).map(|peer| peer.clock);
    assert_eq!(apart_ms(found), -4_999);
    // The clock of one that really is a former start and only waited is no excuse.
    let accepted = accept(&local(2, 7002), &book, ours, &hello).unwrap();
    let (late, _) = Handshake::dial(again, Lane::Data, SessionToken(9), theirs);
    let ready = late.complete(&Book::default(), ours, &frame_of(&accepted.welcome));
    let refused = accepted.complete(ours, &frame_of(&ready.unwrap().ready));
    assert!(
        matches!(refused, Err(Refusal::Replaced { .. })),
        "{refused:?}"
    );
}

#[test]
fn r5_who_is_refused_for_clocks_that_are_alike_believes_itself() {
    let (_, hello) = Handshake::dial(local(1, 7001), Lane::Data, SessionToken(9), now());
    let frame = frame_of(&hello);
    let accepted = || accept(&local(2, 7002), &Book::default(), now(), &frame).unwrap();
    for time in [now().as_u64(), 0] {
        let told = Refused {
            protocol_min: 0,
            protocol_max: 0,
            time,
        };
        let told = frame_of(&handshake_frame(Kind::REFUSED, &told));
        let refused = accepted().complete(now(), &told).unwrap_err();
        assert_eq!(refused, Refusal::RefusedByPeer);
    }
    let other = accepted().complete(now(), &frame).unwrap_err();
    assert!(
        matches!(other, Refusal::Unexpected { kind: 1, .. }),
        "{other:?}"
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
    let told = handshake.complete(&Book::default(), now(), &frame_of(&refusal.frame(now())));
    assert_eq!(
        told.unwrap_err(),
        Refusal::VersionMismatch {
            ours: ProtocolRange::OURS,
            theirs: newer
        }
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
    let refusal = answer.unwrap_err();
    assert_eq!(refusal, Refusal::OtherAnswer { field: "session" });
    let (handshake, _) = Handshake::dial(local(1, 7001), Lane::Bulk, SessionToken(9), now());
    let answer = handshake.complete(&Book::default(), now(), &frame_of(&accepted.welcome));
    let refusal = answer.unwrap_err();
    assert_eq!(refusal, Refusal::OtherAnswer { field: "lane" });
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
        kind in prop::sample::select(vec![Kind::HELLO, Kind::WELCOME, Kind::REFUSED, Kind::READY, Kind::SWIM]),
        body in prop::collection::vec(any::<u8>(), 0..200),
    ) {
        let frame = Frame { kind, number: 0, body: body.into() };
        prop_assert!(accept(&local(2, 7002), &Book::default(), now(), &frame).is_err());
        let (handshake, _) = Handshake::dial(local(1, 7001), Lane::Data, SessionToken(9), now());
        prop_assert!(handshake.complete(&Book::default(), now(), &frame).is_err());
        let accepted = offered(local(1, 7001), &local(2, 7002), &Book::default()).unwrap();
        // Without a time it would be of the year 1970; with any other as good as never within the bound.
        prop_assert!(accepted.complete(now(), &frame).is_err());
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
    assert!(peer.unwrap().peer.probe);
    // Who asked for a lane wants a lane.
    let (lane, _) = Handshake::dial(local(1, 7001), Lane::Control, SessionToken(9), now());
    let told = lane.complete(&book, now(), &frame_of(&accepted.welcome));
    let field = "kind of connection";
    assert_eq!(told.unwrap_err(), Refusal::OtherAnswer { field });
}
