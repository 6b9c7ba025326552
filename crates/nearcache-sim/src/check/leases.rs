//! K7, P6: of the loads that have a home node's lease, one of a key runs at a time.
//!
//! In a stable view, that is. A lease also ends with its time, with the connection to whoever has it, and with an invalidation that the
//! next one knows of: nobody waits any more for a load beside which a lease was given to somebody who knew of something newer, also when
//! that lease is over first. Who hears nothing from the home node in time loads without a lease: those are not counted, except that
//! a node never makes more than two loads of a key at once.

use std::collections::BTreeMap;
use std::time::Duration;

use nearcache_protocol::load::lease::Lease;
use nearcache_protocol::time::Time;
use nearcache_store::NodeId;

use super::Broken;

/// Loads of a key on one node: one, and one for who came after an invalidation.
const OF_A_NODE: usize = 2;
/// For so long before and during a load nothing may have changed who hears whom, or it is not judged.
const STABLE: Duration = Duration::from_secs(1);
/// A lease is given up to so long before its load begins: who hears of it later has gone without.
const GIVEN_BEFORE: Duration = Duration::from_millis(300);
/// How much older than its giving the time may be that a lease counts from: the drift bound.
const SINCE_BEFORE_MS: u64 = 500;

/// Somebody is about to call a loader.
#[derive(Debug)]
pub(crate) struct Begin<'a> {
    pub(crate) host: usize,
    pub(crate) place: u64,
    pub(crate) key: usize,
    pub(crate) lease: Option<&'a Lease>,
    /// What the clock of the lease's home says, in milliseconds.
    pub(crate) home_ms: u64,
    /// The newest invalidation that may concern the key, or entry of it, that the host knows of.
    pub(crate) knows_ms: u64,
    /// When the last host that paused went on.
    pub(crate) rested: Time,
}

/// A load that runs.
#[derive(Debug)]
struct Running {
    key: usize,
    home: Option<NodeId>,
    began: Time,
    /// Whoever knows of something that is newer need not wait for this load.
    since_ms: u64,
    /// What its node knew.
    knows_ms: u64,
    /// The home has given another lease beside it, to somebody who knew of something that is newer than this load.
    superseded: bool,
}

/// The loads that run.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    running: BTreeMap<(usize, u64), Running>,
    /// By home and key: who has ended shortly before, when he began and what he knew. His answer may have overtaken that of who is to begin.
    ended: BTreeMap<(NodeId, usize), (Time, u64)>,
    /// When somebody last began or ceased to hear another.
    changed: Time,
}

impl Leases {
    /// Somebody begins or ceases to hear another, or starts anew.
    pub(crate) const fn view_changes(&mut self, now: Time) {
        self.changed = now;
    }

    /// A loader is about to be called. `lease_for` is how long leases last.
    pub(crate) fn begin(
        &mut self,
        now: Time,
        load: &Begin<'_>,
        lease_for: Duration,
    ) -> Result<(), Broken> {
        let before_ms = SINCE_BEFORE_MS + u64::try_from(GIVEN_BEFORE.as_millis()).unwrap_or(0);
        let since_ms = load.home_ms.saturating_sub(before_ms);
        let home = load.lease.map(|lease| lease.home);
        let of_key = self
            .running
            .iter_mut()
            .filter(|(_, running)| running.key == load.key);
        let ended = home.and_then(|home| self.ended.get(&(home, load.key)));
        let mut superseded = ended.is_some_and(|(began, knew_ms)| {
            *knew_ms >= since_ms && now.saturating_since(*began) < GIVEN_BEFORE
        });
        let (mut here, mut other) = (1, None);
        for ((host, _), running) in of_key {
            here += usize::from(*host == load.host);
            let stable = self.changed.max(load.rested) + STABLE <= running.began;
            let lasts = now.saturating_since(running.began) + GIVEN_BEFORE < lease_for;
            if home.is_none() || running.home != home {
                continue;
            }
            // Either may have asked first: answers overtake each other.
            running.superseded |= load.knows_ms >= running.since_ms;
            superseded |= running.knows_ms >= since_ms;
            if stable && lasts && !running.superseded {
                other = Some(running);
            }
        }
        if here > OF_A_NODE {
            return Err(("K7", format!("{here} loads of a key on a node: {load:?}")));
        }
        if let Some(running) = other.filter(|_| !superseded) {
            return Err(("K7", format!("{load:?} runs beside {running:?}")));
        }
        let running = Running {
            key: load.key,
            home,
            began: now,
            since_ms,
            knows_ms: load.knows_ms,
            superseded,
        };
        self.running.insert((load.host, load.place), running);
        Ok(())
    }

    /// The loader has answered or was given up: its lease is given back.
    pub(crate) fn end(&mut self, host: usize, place: u64) {
        let ended = self.running.remove(&(host, place));
        if let Some((home, ended)) = ended.and_then(|ended| Some((ended.home?, ended))) {
            let known = (ended.began, ended.knows_ms);
            self.ended.insert((home, ended.key), known);
        }
    }

    /// The host's node is gone, and its loads with it.
    pub(crate) fn forget(&mut self, gone: usize) {
        self.running.retain(|(host, _), _| *host != gone);
    }
}
