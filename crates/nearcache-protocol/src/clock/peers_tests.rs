//! What peers' clocks do to this node's.

use std::net::SocketAddr;
use std::time::Duration;

use nearcache_store::{NodeId, Timestamp};

use super::super::offset::OffsetRange;
use super::super::{ClockError, Hlc};
use super::*;
use crate::time::Time;

const WALL_MS: u64 = 1_700_000_000_000;

fn clock() -> Hlc {
    Hlc::new(NodeId::from_u64(1), WALL_MS, Hlc::DEFAULT_MAX_DRIFT)
}

fn peer(id: u64) -> NodeId {
    NodeId::from_u64(id)
}

fn at(ms: u64) -> Time {
    Time::from_millis(ms)
}

/// An offset that is known up to an error.
fn about(offset_ms: i64, error_ms: i64) -> OffsetRange {
    OffsetRange {
        least_ms: offset_ms - error_ms,
        most_ms: offset_ms + error_ms,
    }
}

/// A start of the node of this number.
fn start(port: u16, epoch: u64) -> (Epoch, SocketAddr) {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    (Epoch::from_u64(epoch), address)
}

#[test]
fn r5_a_clock_far_from_the_median_of_its_peers_makes_no_stamps_until_it_is_near() {
    let clock = clock();
    clock.peer_read(at(0), peer(2), about(401, 0));
    let skewed = ClockError::Skewed {
        skew_ms: 401,
        limit_ms: 400,
    };
    assert_eq!(clock.stamp(at(0)), Err(skewed));
    assert_eq!(clock.stopped_by_skew_ms(at(0)), 401);
    clock.peer_read(at(0), peer(3), about(10, 0));
    assert!(
        clock.stamp(at(0)).is_ok(),
        "half of the peers are not most of them"
    );
    clock.peer_read(at(0), peer(4), about(450, 0));
    assert!(clock.stamp(at(0)).is_err());
    clock.peer_read(at(0), peer(4), about(450, 60));
    assert!(clock.stamp(at(0)).is_ok(), "a slow answer proves nothing");
    clock.peer_read(at(0), peer(2), about(-450, 2));
    clock.peer_read(at(0), peer(4), about(-450, 2));
    assert!(clock.stamp(at(0)).is_err());
    assert!(
        clock
            .observe(at(0), Timestamp::from_parts(WALL_MS, 1))
            .is_ok(),
        "it goes on taking in what others write"
    );
}

#[test]
fn r5_who_is_refused_for_its_clock_learns_so_and_goes_on_when_it_is_right_or_unknown_for_long() {
    let clock = clock();
    for id in [2, 3, 4] {
        let of = u16::try_from(id).unwrap();
        clock.peer_met(at(0), peer(id), start(of, 1), about(-3_600_000, 5));
    }
    assert!(clock.stamp(at(0)).is_err());
    assert!(clock.take_apart().is_empty(), "there is no session to end");
    // Two of the three were what was wrong, and are right now.
    for id in [3, 4] {
        let of = u16::try_from(id).unwrap();
        clock.peer_met(at(1_000), peer(id), start(of, 2), about(3, 5));
    }
    assert!(clock.stamp(at(1_000)).is_ok());
    let clock = self::clock();
    clock.peer_met(at(0), peer(2), start(2, 1), about(1_000, 5));
    let remembered = u64::try_from(REMEMBERED.as_millis()).unwrap();
    assert!(clock.stamp(at(remembered - 1)).is_err());
    assert!(clock.stamp(at(remembered)).is_ok());
    assert_eq!(clock.stopped_by_skew_ms(at(remembered)), 0);
}

#[test]
fn r5_a_clock_that_was_set_right_a_moment_ago_counts_though_it_was_read_more_exactly_before() {
    let clock = clock();
    clock.peer_met(at(0), peer(2), start(2, 1), about(3_600_000, 1));
    assert!(clock.stamp(at(1)).is_err());
    clock.peer_met(at(5), peer(2), start(2, 1), about(0, 2));
    assert!(clock.stamp(at(6)).is_ok());
}

#[test]
fn r5_one_peer_with_a_wrong_clock_does_not_stop_those_that_agree() {
    let clock = clock();
    clock.peer_read(at(0), peer(2), about(1, 2));
    clock.peer_read(at(0), peer(3), about(-20, 2));
    // However often it is started, under other names too.
    for id in 10..30 {
        clock.peer_met(at(id), peer(id), start(9, id), about(86_400_000, 5));
        assert!(clock.stamp(at(id)).is_ok());
    }
    // Those that agree are cut off: what they told is not forgotten at once.
    clock.peer_met(at(60_000), peer(40), start(9, 40), about(86_400_000, 5));
    assert!(clock.stamp(at(60_000)).is_ok());
}

#[test]
fn r5_a_session_whose_echo_shows_that_the_clocks_are_apart_is_to_be_ended_once() {
    let clock = clock();
    clock.peer_read(at(0), peer(2), about(510, 10));
    assert!(clock.take_apart().is_empty(), "it may be within the bound");
    clock.peer_read(at(0), peer(2), about(511, 10));
    assert_eq!(clock.take_apart(), [peer(2)]);
    assert!(clock.take_apart().is_empty());
}

#[test]
fn c1_a_clock_that_may_be_beyond_the_drift_bound_is_allowed_for_until_it_is_known_to_be_within() {
    let clock = clock();
    let far = |clock: &Hlc| clock.farthest(peer(2));
    let max_drift = Hlc::DEFAULT_MAX_DRIFT;
    assert_eq!(far(&clock), max_drift);
    clock.peer_met(at(0), peer(2), start(2, 1), about(0, 2_000));
    assert_eq!(far(&clock), Duration::from_secs(2));
    // The lanes of a session are one meeting: what the best of them tells counts.
    clock.peer_met(at(10), peer(2), start(2, 1), about(0, 900));
    clock.peer_met(at(20), peer(2), start(2, 1), about(0, 2_000));
    assert_eq!(far(&clock), Duration::from_millis(900));
    clock.peer_read(at(30), peer(2), about(0, 5));
    clock.peer_read(at(40), peer(2), about(0, 1_500));
    assert_eq!(far(&clock), max_drift, "it was seen to be within");
    // It was started again, with whatever clock.
    clock.peer_met(at(50), peer(2), start(2, 2), about(0, 1_500));
    assert_eq!(far(&clock), Duration::from_millis(1_500));
}

#[test]
fn c9_clocks_remembered_are_bounded() {
    let mut clocks = PeerClocks::default();
    for id in 0..2 * PEERS_MAX as u64 {
        clocks.read(at(id), peer(id), about(0, 1), 500);
    }
    assert_eq!(clocks.read.len(), PEERS_MAX);
    assert!(!clocks.read.contains_key(&peer(0)));
}
