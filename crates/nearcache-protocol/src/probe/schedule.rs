//! When probes are written: for good, and for some time besides.
//!
//! Who looks for half a minute does not end what is configured to go on: while both run the more frequent one counts, and then the
//! lasting one goes on alone.

use std::time::Duration;

use super::audit::EVERY_MIN;
use crate::time::Time;

/// When the next probe is due.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    /// Until it is told otherwise.
    for_good: Option<Duration>,
    /// Until then.
    for_now: Option<(Duration, Time)>,
    /// When the last one was due.
    last: Option<Time>,
    next: Option<Time>,
}

impl Schedule {
    /// A probe every so often from now on. Until that time: besides what goes on for good, in place of what had an end. For good: in place of
    /// what went on for good. Nothing: no more of either.
    pub(super) fn set(&mut self, now: Time, every: Option<Duration>, until: Option<Time>) {
        match (every.map(|every| every.max(EVERY_MIN)), until) {
            (None, _) => (self.for_good, self.for_now) = (None, None),
            (Some(every), None) => self.for_good = Some(every),
            (Some(every), Some(until)) => self.for_now = Some((every, until)),
        }
        self.next = self.every(now).map(|_| now);
    }

    /// How often, now; nothing if there is to be none.
    pub(super) fn every(&self, now: Time) -> Option<Duration> {
        let for_now = self.for_now.filter(|(_, until)| *until > now);
        let for_now = for_now.map(|(every, _)| every);
        self.for_good.into_iter().chain(for_now).min()
    }

    /// Whether a probe is due; if so the next one is later.
    pub(super) fn is_due(&mut self, now: Time) -> bool {
        if self.for_now.is_some_and(|(_, until)| until <= now) {
            self.for_now = None;
            let after = |every| self.last.map_or(now, |last| last + every);
            self.next = self.for_good.map(after);
        }
        let due = self.next.is_some_and(|at| at <= now);
        if due {
            self.last = Some(now);
            self.next = self.every(now).map(|every| now + every);
        }
        due
    }

    pub(super) const fn next(&self) -> Option<Time> {
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(second: u64) -> Time {
        Time::from_millis(second * 1_000)
    }

    const fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn due(schedule: &mut Schedule, from: u64, to: u64) -> Vec<u64> {
        (from..to)
            .filter(|second| schedule.is_due(at(*second)))
            .collect()
    }

    #[test]
    fn what_goes_on_for_good_goes_on_when_what_has_an_end_is_over() {
        let mut schedule = Schedule::default();
        assert!(due(&mut schedule, 0, 20).is_empty());
        schedule.set(at(20), Some(seconds(10)), None);
        assert_eq!(due(&mut schedule, 20, 43), [20, 30, 40]);
        schedule.set(at(43), Some(seconds(1)), Some(at(46)));
        assert_eq!(schedule.every(at(43)), Some(seconds(1)));
        assert_eq!(due(&mut schedule, 43, 70), [43, 44, 45, 55, 65]);
        assert_eq!(schedule.every(at(70)), Some(seconds(10)));
        // One that is rarer takes nothing away.
        schedule.set(at(70), Some(seconds(60)), Some(at(200)));
        assert_eq!(due(&mut schedule, 70, 95), [70, 80, 90]);
        schedule.set(at(95), None, None);
        assert!(due(&mut schedule, 95, 300).is_empty());
        assert_eq!(schedule.next(), None);
    }

    #[test]
    fn what_has_an_end_ends() {
        let mut schedule = Schedule::default();
        schedule.set(at(0), Some(Duration::ZERO), Some(at(3)));
        assert_eq!(due(&mut schedule, 0, 30), [0, 1, 2]);
        assert_eq!((schedule.next(), schedule.every(at(30))), (None, None));
    }
}
