//! K7, P6: of the loads that have a home node's lease, one of a key runs at a time.
//!
//! In a stable view, that is. A lease also ends with its time, with the connection to whoever has it, and with an invalidation that the
//! next one knows of: nobody waits any more for a load beside which a lease was given to somebody who knew of something newer, also when
//! that lease is over first. A load without a lease is not counted, except that a node never makes more than two loads of a key at once; but it
//! must have its reason. It was told that another had loaded the key, and could not use that: it has expired on its way, or something newer has come. Or
//! the home node has said nothing for as long as it may; where nothing disturbs the two, somebody must have loaded the key under a lease
//! meanwhile, for as long as anybody waits for that.

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
/// How long a home node may say nothing, by any clock.
const HOME_WAIT: Duration = Duration::from_millis(195);

/// Somebody is about to call a loader.
#[derive(Debug)]
pub(crate) struct Begin<'a> {
    pub(crate) host: usize,
    pub(crate) place: u64,
    pub(crate) key: usize,
    pub(crate) lease: Option<&'a Lease>,
    /// When it asked for its turn, and for how long it waits for that; nothing in a mode without leases.
    pub(crate) asked: Option<(Time, Duration)>,
    /// No message takes so long that it comes too late, or is lost, and nobody has died unnoticed.
    pub(crate) calm: bool,
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
    /// By key: when a load under a lease last ended.
    leased: BTreeMap<usize, Time>,
    /// Who was told last that another has loaded a key, and when.
    told: Option<(Time, usize, usize)>,
    /// When somebody last began or ceased to hear another.
    changed: Time,
    /// Until when a fault lasts.
    disturbed: Time,
}

impl Leases {
    /// Somebody begins or ceases to hear another, or starts anew.
    pub(crate) const fn view_changes(&mut self, now: Time) {
        self.changed = now;
    }

    /// A fault strikes that lasts until then.
    pub(crate) fn disturbed(&mut self, until: Time) {
        self.disturbed = self.disturbed.max(until);
    }

    /// The host is told that another has loaded the key.
    pub(crate) const fn told(&mut self, now: Time, host: usize, key: usize) {
        self.told = Some((now, host, key));
    }

    /// A loader is about to be called without a lease: why?
    fn without_lease(&self, now: Time, load: &Begin<'_>) -> Result<(), Broken> {
        let Some((asked, turn_wait)) = load.asked.filter(|_| load.lease.is_none()) else {
            return Ok(());
        };
        if self.told == Some((now, load.host, load.key)) {
            return Ok(());
        }
        let waited = now.saturating_since(asked);
        if waited < HOME_WAIT {
            let what = format!("{load:?} goes without a lease after {waited:?}");
            return Err(("K7", what));
        }
        let disturbed = self.changed.max(self.disturbed).max(load.rested);
        if !load.calm || asked < disturbed + STABLE {
            return Ok(());
        }
        let running = self.running.values();
        let mut leased = running.filter(|running| running.key == load.key);
        let leased = leased.any(|running| running.home.is_some())
            || self
                .leased
                .get(&load.key)
                .is_some_and(|ended| *ended >= asked);
        // By its own clock, which may be a little fast.
        if !leased || waited + Duration::from_millis(1) < turn_wait {
            let what = format!(
                "nothing disturbs {load:?}, which goes without a lease after {waited:?}; others load under one: {leased}"
            );
            return Err(("K7", what));
        }
        Ok(())
    }

    /// A loader is about to be called. `lease_for` is how long leases last.
    pub(crate) fn begin(
        &mut self,
        now: Time,
        load: &Begin<'_>,
        lease_for: Duration,
    ) -> Result<(), Broken> {
        self.without_lease(now, load)?;
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
    pub(crate) fn end(&mut self, now: Time, host: usize, place: u64) {
        let ended = self.running.remove(&(host, place));
        if let Some((home, ended)) = ended.and_then(|ended| Some((ended.home?, ended))) {
            let known = (ended.began, ended.knows_ms);
            self.ended.insert((home, ended.key), known);
            self.leased.insert(ended.key, now);
        }
    }

    /// The host's node is gone, and its loads with it.
    pub(crate) fn forget(&mut self, gone: usize) {
        self.running.retain(|(host, _), _| *host != gone);
    }
}
