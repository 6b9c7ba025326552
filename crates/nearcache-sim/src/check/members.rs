//! K10: the quality of the membership.
//!
//! M1: nobody who is well is declared dead by anybody who is. M3: who dies is declared dead soon, by all who are well; how soon is collected, because the bounds are
//! percentiles. And once the faults have ended, everybody is a member for everybody (with the convergence check). Who is well follows from the
//! faults: no fault has touched it for a while.

use std::collections::BTreeMap;
use std::time::Duration;

use nearcache_protocol::time::Time;

use super::Broken;

/// For how long a node must have been left alone to count as well: suspicions of the time before are refuted by then.
const WELL_AFTER: Duration = Duration::from_secs(6);

/// M3: by when half of all deaths are noticed, and 99 of 100.
const NOTICED_WITHIN: [(usize, Duration); 2] =
    [(50, Duration::from_secs(2)), (99, Duration::from_secs(5))];
/// Deaths from which on percentiles say something.
const DEATHS_MIN: usize = 30;

/// M3: what is wrong with how long it took to notice these deaths, if there are enough of them to say.
#[must_use]
pub fn noticed_late(detected: &[Duration]) -> Option<String> {
    let mut detected = detected.to_vec();
    detected.sort_unstable();
    let late = |(percent, within): (usize, Duration)| {
        let at = (detected.len() * percent / 100).min(detected.len().saturating_sub(1));
        let took = detected.get(at).filter(|took| **took > within)?;
        Some(format!(
            "{percent} of 100 deaths were noticed after {took:?} only"
        ))
    };
    let is_enough = detected.len() >= DEATHS_MIN;
    NOTICED_WITHIN
        .into_iter()
        .filter(|_| is_enough)
        .find_map(late)
}

/// What has happened to whom.
#[derive(Debug)]
pub(crate) struct Members {
    /// Until when the host was touched by a fault, last.
    touched: Vec<Time>,
    /// Since when the host is dead, unless it came back.
    died: BTreeMap<usize, Time>,
    /// How long it took those who are well to hold the dead for dead.
    detected: Vec<Duration>,
}

impl Members {
    pub(crate) fn new(hosts: usize) -> Self {
        Self {
            touched: vec![Time::ZERO; hosts],
            died: BTreeMap::new(),
            detected: Vec::new(),
        }
    }

    /// A fault touches the host, until then.
    pub(crate) fn touch(&mut self, host: usize, until: Time) {
        self.touched[host] = self.touched[host].max(until);
    }

    /// The host's node has died.
    pub(crate) fn died(&mut self, host: usize, now: Time) {
        self.touch(host, now);
        self.died.insert(host, now);
    }

    /// It has come back.
    pub(crate) fn started(&mut self, host: usize, now: Time) {
        self.touch(host, now);
        self.died.remove(&host);
    }

    fn is_well(&self, host: usize, now: Time) -> bool {
        self.touched[host] + WELL_AFTER < now
    }

    /// The node on `host` holds the one on `of` for dead.
    pub(crate) fn declared(&mut self, host: usize, of: usize, now: Time) -> Result<(), Broken> {
        if let Some(died) = self.died.get(&of) {
            // Whoever was touched since or shortly before may have other things to find out first.
            if self.touched[host] + WELL_AFTER < *died {
                self.detected.push(now - *died);
            }
            return Ok(());
        }
        if self.is_well(host, now) && self.is_well(of, now) {
            return Err((
                "K10 (M1)",
                format!("n{host} holds n{of} for dead, and both are well"),
            ));
        }
        Ok(())
    }

    /// Whether the host's node is dead.
    pub(crate) fn is_dead(&self, host: usize) -> bool {
        self.died.contains_key(&host)
    }

    /// Whether the host's node has been dead for so long.
    pub(crate) fn is_dead_since(&self, host: usize, long: Duration, now: Time) -> bool {
        self.died.get(&host).is_some_and(|died| *died + long < now)
    }

    /// How long each detection took.
    pub(crate) fn detected(&self) -> &[Duration] {
        &self.detected
    }
}
