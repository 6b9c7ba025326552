//! Two and three nodes in memory.

use std::time::Duration;

use nearcache_store::{Change, Expiry, NodeId, Scope, Tags, Version};

use crate::announce::ModeKind;
use crate::config::{OnDisconnect, ReplicationConfig};
use crate::ids::Epoch;
use crate::machine::Machine as _;
use crate::mode::{Ack, Event, FlushCause, Outcome, Published, Status};
use crate::modify::{Condition, ModifyError, ModifyOp, NewExpiry};
use crate::testing::{Cluster, Text};
use crate::time::Time;

pub(super) const SECOND: Duration = Duration::from_secs(1);

fn config() -> ReplicationConfig {
    let mut config = ReplicationConfig::default();
    config.agreement.mode = ModeKind::Invalidation;
    config
}

impl Cluster {
    /// Keeps a value that was just read from the system of record.
    pub(super) fn fill(&mut self, id: u64, key: &str, text: &str) -> bool {
        let change = Change::Put {
            value: Text::new(text),
            expiry: Expiry::NEVER,
            tags: Tags::NONE,
        };
        self.act(id, |node, now, out| {
            let bound = node.core.clock_bound(now);
            let ms = node.core.clock().physical_ms(now);
            let ms = ms - u64::try_from(bound.as_millis()).unwrap();
            let time = nearcache_store::Timestamp::from_parts(ms, 0);
            let version = Version::new(time, NodeId::from_u64(id));
            let merged = node.core.store().merge(key.as_bytes(), version, change);
            let Ok(nearcache_store::Merged::Applied {
                entry: Some(entry), ..
            }) = merged
            else {
                return false;
            };
            let published = Published::Fill(entry);
            node.core.publish(now, published, Ack::Local, None, out);
            true
        })
    }

    /// What a reader on the node gets.
    pub(super) fn serves(&self, id: u64, key: &str) -> Option<String> {
        let leased = self.now <= self.nodes[&id].core.read_bound().serve_until;
        leased.then(|| self.read(id, key)).flatten()
    }

    pub(super) fn flushes(&self, id: u64) -> Vec<FlushCause> {
        let events = self.nodes[&id].events.iter();
        events
            .filter_map(|event| match event {
                Event::Flushed { cause, .. } => Some(*cause),
                _ => None,
            })
            .collect()
    }

    pub(super) fn forget_events(&mut self) {
        for node in self.nodes.values_mut() {
            node.events.clear();
        }
    }

    pub(super) fn told(&self, id: u64, waiter: u64) -> Option<bool> {
        self.nodes[&id]
            .results
            .get(&waiter)
            .map(|outcome| match outcome {
                Outcome::Acked(result) => result.is_ok(),
                Outcome::Fresh(fresh) => *fresh,
                other => panic!("{other:?}"),
            })
    }
}

fn ready(n: u64, config: ReplicationConfig) -> Cluster {
    let mut cluster = Cluster::ready(n, config);
    cluster.run(SECOND * 2);
    cluster.forget_events();
    cluster
}

pub(super) fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

#[test]
fn i4_a_write_drops_older_copies_and_its_value_does_not_travel() {
    let mut cluster = ready(3, config());
    cluster.fill(2, "k", "old");
    cluster.fill(3, "other", "stays");
    cluster.run(SECOND);
    cluster.put(1, "k", "new");
    cluster.deliver();
    assert_eq!(cluster.read_all("k"), vec![some("new"), None, None]);
    assert_eq!(cluster.serves(3, "other"), some("stays"));
}

#[test]
fn a_fill_is_nobody_elses_business() {
    let mut cluster = ready(2, config());
    cluster.fill(1, "k", "loaded");
    cluster.fill(2, "k", "loaded");
    cluster.run(SECOND);
    assert_eq!(cluster.read_all("k"), vec![some("loaded"), some("loaded")]);
}

#[test]
fn c4_tags_prefixes_and_clear_reach_every_copy() {
    let mut cluster = ready(2, config());
    cluster.fill(1, "user:1", "a");
    cluster.fill(1, "item:1", "b");
    cluster.run(SECOND);
    cluster.invalidate(2, Scope::Prefix(b"user:".as_slice().into()));
    cluster.deliver();
    assert_eq!(cluster.read(1, "user:1"), None);
    assert_eq!(cluster.read(1, "item:1"), some("b"));
    cluster.invalidate(2, Scope::All);
    cluster.deliver();
    assert_eq!(cluster.read(1, "item:1"), None);
}

#[test]
fn i5_an_older_invalidation_does_not_evict_a_newer_value() {
    let mut cluster = ready(2, config());
    cluster.delays.insert((2, "updates"));
    cluster.put(1, "k", "older");
    cluster.now += Duration::from_millis(5);
    cluster.put(2, "k", "newer");
    cluster.deliver();
    assert_eq!(cluster.read_all("k"), vec![None, some("newer")]);
}

#[test]
fn i1_a_node_that_hears_nobody_serves_nothing_after_the_link_timeout() {
    let mut cluster = ready(2, config());
    cluster.fill(1, "k", "copy");
    cluster.cut(1, 2);
    cluster.run(SECOND * 2);
    assert_eq!(cluster.serves(1, "k"), some("copy"));
    cluster.run(SECOND * 2);
    assert_eq!(cluster.serves(1, "k"), None);
    assert_eq!(cluster.nodes[&1].core.status(cluster.now), Status::Isolated);
    cluster.connect(1, 2);
    cluster.run(SECOND);
    assert_eq!(cluster.serves(1, "k"), some("copy"), "nothing was missed");
    assert_eq!(cluster.flushes(1), vec![]);
}

#[test]
fn i1_a_cache_set_to_flush_drops_its_copies_when_the_lease_ends() {
    let mut cluster = ready(
        2,
        ReplicationConfig {
            on_disconnect: OnDisconnect::Flush,
            ..config()
        },
    );
    cluster.fill(1, "k", "copy");
    cluster.cut(1, 2);
    cluster.run(SECOND * 4);
    assert_eq!(cluster.flushes(1), vec![FlushCause::Disconnected]);
    assert_eq!(cluster.read(1, "k"), None);
}

#[test]
fn i1_serve_stale_replaces_the_link_timeout_by_its_own_bound() {
    let max = SECOND * 20;
    let mut cluster = ready(
        2,
        ReplicationConfig {
            on_disconnect: OnDisconnect::ServeStale { max },
            ..config()
        },
    );
    cluster.fill(1, "k", "copy");
    cluster.cut(1, 2);
    cluster.run(SECOND * 19);
    assert_eq!(cluster.serves(1, "k"), some("copy"));
    cluster.run(SECOND * 2);
    assert_eq!(cluster.serves(1, "k"), None);
}

#[test]
fn i3_what_the_ring_still_has_is_replayed_and_what_it_has_lost_drops_everything() {
    let mut cluster = ready(
        2,
        ReplicationConfig {
            replay_updates_max: 4,
            ..config()
        },
    );
    for key in ["a", "b"] {
        cluster.fill(1, key, "copy");
    }
    cluster.run(SECOND);
    cluster.cut(1, 2);
    cluster.put(2, "a", "new");
    cluster.connect(1, 2);
    cluster.run(SECOND);
    assert_eq!(cluster.read(1, "a"), None);
    assert_eq!(cluster.read(1, "b"), some("copy"));
    assert_eq!(cluster.flushes(1), vec![]);

    cluster.cut(1, 2);
    for n in 0..10 {
        cluster.put(2, &format!("other {n}"), "new");
    }
    cluster.connect(1, 2);
    cluster.run(SECOND);
    assert_eq!(
        cluster.flushes(1),
        vec![FlushCause::Hole(NodeId::from_u64(2))]
    );
    assert_eq!(cluster.read(1, "b"), None);
}

#[test]
fn i2_a_peer_that_was_started_again_takes_all_copies_with_it() {
    let mut cluster = ready(2, config());
    cluster.fill(1, "k", "copy");
    cluster.crash(2);
    cluster.start(2);
    cluster.connect_all(2);
    cluster.run(SECOND);
    assert_eq!(
        cluster.flushes(1),
        vec![FlushCause::Restarted(NodeId::from_u64(2))]
    );
    assert_eq!(cluster.read(1, "k"), None);
}

#[test]
fn a_member_that_left_in_good_order_takes_nothing_with_it() {
    let mut cluster = ready(2, config());
    cluster.fill(1, "k", "copy");
    cluster.put(2, "other", "value");
    cluster.run(SECOND);
    cluster.act(2, |node, now, out| node.core.leave(now, out));
    cluster.deliver();
    cluster.crash(2);
    cluster.run(SECOND * 10);
    assert_eq!(cluster.flushes(1), vec![]);
    assert_eq!(cluster.serves(1, "k"), some("copy"));
}

#[test]
fn i1_a_dead_member_counts_until_it_is_given_up_and_then_takes_all_copies_with_it() {
    let mut cluster = ready(2, config());
    cluster.fill(1, "k", "copy");
    cluster.crash(2);
    cluster.act(1, |node, now, out| {
        node.core.peer_dead(now, NodeId::from_u64(2), out);
    });
    cluster.run(SECOND * 30);
    assert_eq!(cluster.serves(1, "k"), None);
    assert_eq!(cluster.flushes(1), vec![]);
    cluster.run(SECOND * 31);
    assert_eq!(
        cluster.flushes(1),
        vec![FlushCause::Gone(NodeId::from_u64(2))]
    );
    cluster.fill(1, "k", "loaded again");
    assert_eq!(cluster.serves(1, "k"), some("loaded again"));
}

#[test]
fn i9_the_lease_follows_the_data_and_not_the_heartbeat() {
    let mut cluster = ready(2, config());
    cluster.fill(1, "k", "copy");
    cluster.run(SECOND);
    // The data lane stands still, heartbeats and echoes go on.
    cluster.drops.insert((1, "updates"));
    cluster.drops.insert((1, "subscribed"));
    cluster.put(2, "k", "new");
    cluster.run(SECOND * 2);
    assert_eq!(cluster.serves(1, "k"), some("copy"), "within the bound");
    cluster.run(SECOND * 2);
    assert_eq!(cluster.serves(1, "k"), None);
    cluster.drops.clear();
    cluster.run(SECOND * 5);
    assert_eq!(cluster.read(1, "k"), None, "it came at last");
    assert_eq!(cluster.nodes[&1].core.status(cluster.now), Status::Synced);
}

#[test]
fn i9_a_node_that_wakes_from_a_pause_serves_nothing_before_it_has_asked() {
    let mut cluster = ready(2, config());
    cluster.fill(1, "k", "copy");
    // Everything stands still for 30 s; messages of before the pause arrive after it.
    cluster.now += SECOND * 30;
    assert_eq!(cluster.serves(1, "k"), None);
    cluster.deliver();
    assert_eq!(cluster.serves(1, "k"), None);
    cluster.run(SECOND);
    assert_eq!(cluster.serves(1, "k"), some("copy"));
}

#[test]
fn c11_an_echo_that_waited_in_a_buffer_counts_from_when_it_was_asked_for() {
    let mut cluster = ready(2, config());
    let asked = cluster.now;
    cluster.act(1, |node, now, out| {
        let waiter = crate::mode::Waiter {
            id: crate::ids::WaiterId(9_999),
            deadline: now + SECOND * 60,
        };
        node.core.refresh(now, now, waiter, out);
    });
    // The question and its answer lie in buffers for 30 s.
    cluster.now += SECOND * 30;
    cluster.deliver();
    let freshness = cluster.nodes[&1].core.freshness(cluster.now);
    assert_eq!(freshness.worst, Some(SECOND * 30));
    assert_eq!(cluster.nodes[&1].core.read_bound().fresh_since, asked);
    assert_eq!(cluster.told(1, 9_999), Some(true), "it asked for no more");
}

#[test]
fn i8_a_wait_for_all_ends_when_the_lease_of_the_silent_has_ended() {
    let mut cluster = ready(3, config());
    cluster.fill(3, "k", "copy");
    cluster.run(SECOND);
    cluster.cut(1, 3);
    cluster.cut(2, 3);
    let key = b"k";
    let waiter = cluster.waiter(SECOND * 10);
    cluster.act(1, |node, now, out| {
        let version = node.core.clock().stamp(now).unwrap();
        let key = bytes::Bytes::from_static(key);
        let removal = Published::Removal { key, version };
        node.core.publish(now, removal, Ack::All, Some(waiter), out);
    });
    while cluster.told(1, waiter.id.0).is_none() {
        cluster.run(Duration::from_millis(10));
        assert!(cluster.now < waiter.deadline);
    }
    assert_eq!(cluster.told(1, waiter.id.0), Some(true));
    assert_eq!(cluster.serves(3, "k"), None);
}

#[test]
fn i8_a_wait_for_all_does_not_end_before_the_lease_of_a_dead_member_has() {
    let mut cluster = ready(2, config());
    cluster.cut(1, 2);
    let waiter = cluster.waiter(SECOND * 10);
    cluster.act(1, |node, now, out| {
        node.core.peer_dead(now, NodeId::from_u64(2), out);
        let version = node.core.clock().stamp(now).unwrap();
        let removal = Published::Removal {
            key: bytes::Bytes::from_static(b"k"),
            version,
        };
        node.core.publish(now, removal, Ack::All, Some(waiter), out);
    });
    cluster.run(SECOND);
    assert_eq!(cluster.told(1, waiter.id.0), None);
    cluster.run(SECOND * 3);
    assert_eq!(cluster.told(1, waiter.id.0), Some(true));
}

#[test]
fn i8_a_wait_for_all_outlasts_a_dead_member_that_never_announced_the_cache() {
    // It was met by a former start of this node, and serves by the lease of others.
    let mut cluster = ready(2, config());
    let (silent, waiter) = (NodeId::from_u64(3), cluster.waiter(SECOND * 20));
    cluster.act(1, |node, now, out| {
        node.core.member_up(now, silent, Epoch::from_u64(1));
        let version = node.core.clock().stamp(now).unwrap();
        let key = bytes::Bytes::from_static(b"k");
        let removal = Published::Removal { key, version };
        node.core.publish(now, removal, Ack::All, Some(waiter), out);
    });
    cluster.run(SECOND);
    cluster.act(1, |node, now, out| node.core.peer_dead(now, silent, out));
    cluster.run(SECOND * 3);
    assert_eq!(cluster.told(1, waiter.id.0), None);
    cluster.run(SECOND * 2);
    assert_eq!(cluster.told(1, waiter.id.0), Some(true));
}

#[test]
fn i1_a_member_that_is_reached_late_counts_until_it_has_said_what_it_wrote() {
    let mut cluster = ready(1, config());
    // What one says of the cache does not arrive before the connection breaks.
    cluster.drops = [(1, "announce"), (2, "announce")].into();
    cluster.start(2);
    cluster.connect(1, 2);
    cluster.fill(1, "k", "copy");
    cluster.invalidate(2, Scope::All);
    cluster.run(SECOND * 3);
    cluster.cut(1, 2);
    cluster.drops.clear();
    cluster.run(SECOND);
    assert_eq!(cluster.serves(1, "k"), None);
    cluster.connect(1, 2);
    assert_eq!(cluster.serves(1, "k"), None, "connected, not caught up");
    cluster.run(SECOND);
    cluster.fill(1, "k", "newer");
    assert_eq!(cluster.serves(1, "k"), some("newer"));
}

#[test]
fn a_refresh_ends_with_the_answers_or_with_its_deadline() {
    let mut cluster = ready(2, config());
    let refresh = |cluster: &mut Cluster| {
        let waiter = cluster.waiter(SECOND);
        cluster.act(1, |node, now, out| node.core.refresh(now, now, waiter, out));
        waiter.id.0
    };
    cluster.run(Duration::from_millis(120));
    let helped = refresh(&mut cluster);
    cluster.deliver();
    assert_eq!(cluster.told(1, helped), Some(true));
    cluster.cut(1, 2);
    cluster.now += Duration::from_millis(5);
    let too_late = refresh(&mut cluster);
    cluster.run(SECOND * 2);
    assert_eq!(cluster.told(1, too_late), Some(false));
}

#[test]
fn read_modify_write_is_decided_here_and_refused_without_a_lease() {
    let mut cluster = ready(2, config());
    let claim = || ModifyOp::Set {
        condition: Condition::IfAbsent,
        value: Text::new("mine"),
        expiry: NewExpiry::Never,
        tags: Tags::NONE,
        return_previous: false,
    };
    cluster.fill(2, "k", "copy");
    cluster.run(SECOND);
    let claimed = cluster.modify(1, "k", claim());
    cluster.deliver();
    assert!(
        matches!(&cluster.nodes[&1].results[&claimed], Outcome::Modified(Ok(modified)) if modified.applied)
    );
    assert_eq!(
        cluster.read(2, "k"),
        None,
        "what was decided is told to all"
    );
    cluster.cut(1, 2);
    cluster.run(SECOND * 4);
    let refused = cluster.modify(1, "other", claim());
    assert!(matches!(
        cluster.nodes[&1].results[&refused],
        Outcome::Modified(Err(ModifyError::HomeUnreachable))
    ));
}

#[test]
fn a_node_alone_serves_what_it_loads() {
    let mut cluster = Cluster::new(config());
    cluster.start(1);
    cluster.run(SECOND * 3);
    cluster.fill(1, "k", "loaded");
    cluster.run(SECOND * 10);
    assert_eq!(cluster.serves(1, "k"), some("loaded"));
    assert_eq!(cluster.nodes[&1].became_ready, 1);
    assert_eq!(
        cluster.nodes[&1].core.read_bound().fresh_since,
        Time::MAX,
        "there is nobody to be behind"
    );
}

#[test]
fn c1_what_was_loaded_before_a_writer_was_heard_of_goes_when_it_is_met() {
    let mut cluster = Cluster::new(config());
    for id in [1, 2] {
        cluster.start(id);
    }
    cluster.run(SECOND * 10);
    // Node 2 loads, node 1 writes; neither knows of the other, and the clock of node 2 may be ahead.
    assert!(cluster.fill(2, "k", "old"));
    cluster.put(1, "k", "new");
    cluster.connect(1, 2);
    cluster.run(SECOND);
    assert_eq!(cluster.read(2, "k"), None);
    let first = NodeId::from_u64(1);
    assert!(cluster.flushes(2).contains(&FlushCause::Met(first)));
    // Whoever has written nothing is met without loss.
    assert_eq!(cluster.flushes(1), vec![]);
}

#[test]
fn c11_whoever_was_just_met_keeps_a_node_from_calling_itself_fresh() {
    let mut cluster = Cluster::new(config());
    cluster.start(1);
    cluster.run(SECOND * 10);
    cluster.start(2);
    cluster.put(2, "k", "new");
    cluster.drops.insert((1, "announce"));
    cluster.connect(1, 2);
    let fresh_since = |cluster: &Cluster| cluster.nodes[&1].core.read_bound().fresh_since;
    assert_eq!(fresh_since(&cluster), Time::ZERO);
    cluster.run(SECOND * 3);
    assert_eq!(fresh_since(&cluster), Time::ZERO);
    // It has had the time to say that it runs the cache.
    cluster.run(SECOND * 2);
    assert_eq!(fresh_since(&cluster), Time::MAX);
}

#[test]
fn r5_a_node_whose_clock_is_far_from_its_peers_makes_no_stamps() {
    let mut cluster = Cluster::new(config());
    for id in [1, 2] {
        cluster.start(id);
    }
    cluster.start_ahead(3, Duration::from_millis(450));
    for id in 1..=3 {
        cluster.connect_all(id);
    }
    cluster.run(SECOND * 5);
    let now = cluster.now;
    let skew_ms = |id: u64| cluster.nodes[&id].core.clock().stopped_by_skew_ms(now);
    assert_eq!([skew_ms(1), skew_ms(2)], [0, 0]);
    assert!(skew_ms(3) < -400, "{}", skew_ms(3));
}

#[test]
fn c11_after_a_pause_a_peer_whose_word_is_not_read_yet_does_not_pass_for_one_that_runs_nothing() {
    let mut cluster = ready(1, config());
    cluster.start(2);
    cluster.connect(1, 2);
    // Node 1 is paused: what the other says waits in its socket.
    cluster.invalidate(2, Scope::All);
    cluster.now += SECOND * 5;
    cluster.act(1, |node, now, out| node.core.tick(now, out));
    let bound = cluster.nodes[&1].core.read_bound();
    assert_eq!(bound.fresh_since, Time::ZERO);
    cluster.run(SECOND);
    assert!(cluster.nodes[&1].core.read_bound().fresh_since > Time::ZERO);
}
