//! Faults: how each strikes, and how all of them end.

use std::time::Duration;

use nearcache_protocol::time::Time;
use nearcache_store::{Change, Expiry, Tags, Timestamp};

use super::{Cluster, Event};
use crate::bug::Bug;
use crate::node::{DRIFT_MS, EPOCH_MS};
use crate::plan::{After, Cut, Fault, LONG_PAUSE, Rest, key};
use crate::session::other;
use crate::sometimes::Place;
use crate::value::Value;
use crate::violation::Violation;

/// A cut that outlasts all that waits.
const LONG_CUT: Duration = Duration::from_secs(30);
/// The longest stop of all (F16).
const LONGEST_STOP: Duration = Duration::from_secs(120);
/// From so many milliseconds on a clock is wrong, and does not only differ.
const JUMP_MS: u64 = 900;
/// By how much what nodes measure of each other's clocks may be wrong.
const UNSHARP_MS: u64 = 10;
/// R5: within which a node has met the others: it dials them every half second.
const LEARNS_WITHIN: Duration = Duration::from_secs(3);

impl Cluster {
    pub(super) fn strike(&mut self, n: usize) -> Result<(), Violation> {
        let (_, fault) = self.plan.faults[n].clone();
        self.trace
            .step(self.now, &[14, n as u64], || format!("fault: {fault:?}"));
        self.touch(&fault);
        match fault {
            Fault::Cut {
                shape,
                links,
                until,
            } => {
                self.sometimes.reach(match shape {
                    Cut::Groups => Place::SymmetricPartition,
                    Cut::OneWay => Place::OneWayPartition,
                    Cut::Mesh => Place::PartialMesh,
                    Cut::Bridge => Place::Bridge,
                    Cut::Swizzle => Place::Swizzle,
                });
                if until - self.now >= LONG_CUT {
                    self.sometimes.reach(Place::LongCut);
                }
                for (from, to) in links {
                    self.cuts[from][to] += 1;
                    self.note_link(from, to);
                }
                self.queue.schedule(until, Event::Mend(n));
            }
            Fault::Crash {
                node,
                silent,
                restart,
                clock_offset_ms,
            } => {
                let right_ms = self.plan.clock_offset_ms[node];
                if clock_offset_ms.abs_diff(right_ms) >= JUMP_MS {
                    self.sometimes.reach(Place::ClockJump);
                    // Nobody is in touch with it until its clock is set right.
                    self.checkers.members.touch(node, self.plan.heal);
                }
                self.hosts[node].clock_offset_ms = clock_offset_ms;
                self.crash(node, silent, restart);
            }
            Fault::Pause { node, until } => {
                self.sometimes.reach(Place::Pause);
                if until - self.now >= LONG_PAUSE {
                    self.sometimes.reach(Place::LongPause);
                }
                if until - self.now >= LONGEST_STOP {
                    self.sometimes.reach(Place::LongestStop);
                }
                let host = &mut self.hosts[node];
                let slept = until - self.now.max(host.paused_until);
                host.paused_until = host.paused_until.max(until);
                if let Some(node) = &mut host.node
                    && self.bug == Some(Bug::ClockStopsWhenPaused)
                {
                    node.started += slept;
                }
            }
            Fault::Doze {
                node,
                run,
                pause,
                until,
            } => {
                self.sometimes.reach(Place::Doze);
                self.doze(node, (run, pause), until);
            }
            Fault::Slow { node, delay, until } => {
                self.sometimes.reach(Place::SlowPeer);
                self.hosts[node].slow = (until, delay);
            }
            Fault::Garble { from, to, how } => self.garble(from, to, how),
            Fault::ClockAhead { node } => {
                let now = self.now;
                if let Some(node) = self.hosts[node].node.as_mut() {
                    let own = node.time(now);
                    let ahead = Timestamp::from_parts(node.clock.physical_ms(own) + 499, 0);
                    if node.clock.observe(own, ahead).is_ok() {
                        self.sometimes.reach(Place::ClockAhead);
                    }
                }
            }
            Fault::Lag {
                from,
                to,
                delay,
                until,
            } => {
                self.sometimes.reach(Place::Lag);
                self.lags.insert((from, to), (until, delay));
            }
            Fault::Narrow {
                node,
                bytes_per_second,
                until,
            } => {
                self.sometimes.reach(Place::NarrowLink);
                self.hosts[node].narrow = (until, bytes_per_second);
            }
            Fault::Leave { node, down } => return self.leave_under_faults(node, down),
            Fault::Reset { a, b } => self.reset_between(a, b),
            Fault::Diverge { node, key, remove } => self.diverge(node, key, remove),
        }
        Ok(())
    }

    /// A node leaves that runs and is not alone.
    fn leave_under_faults(&mut self, host: usize, down: Duration) -> Result<(), Violation> {
        let node = self.hosts[host].node.as_ref();
        let may = node.is_some_and(|node| node.leaving.is_none() && node.is_open);
        if !may || self.running().count() <= 1 {
            return Ok(());
        }
        self.sometimes.reach(Place::LeftUnderFaults);
        self.leave_for(host, down)
    }

    /// Tells the checkers whom the fault touches, and until when.
    fn touch(&mut self, fault: &Fault) {
        self.checkers.leases.disturbed(match fault {
            Fault::Crash { restart, .. } => restart.unwrap_or(self.now).max(self.now),
            _ => fault.until(self.now),
        });
        let (now, members) = (self.now, &mut self.checkers.members);
        match fault {
            Fault::Cut { links, until, .. } => {
                for (from, to) in links {
                    members.touch(*from, *until);
                    members.touch(*to, *until);
                }
            }
            Fault::Pause { node, until }
            | Fault::Doze { node, until, .. }
            | Fault::Slow { node, until, .. }
            | Fault::Narrow { node, until, .. } => members.touch(*node, *until),
            Fault::Lag {
                from, to, until, ..
            } => {
                members.touch(*from, *until);
                members.touch(*to, *until);
            }
            Fault::Reset { a, b } | Fault::Garble { from: a, to: b, .. } => {
                members.touch(*a, now);
                members.touch(*b, now);
            }
            Fault::Leave { node, .. } => members.touch(*node, now),
            // A crash is told when it happens; the others concern no link.
            Fault::Crash { .. } | Fault::ClockAhead { .. } | Fault::Diverge { .. } => {}
        }
    }

    pub(super) fn mend(&mut self, n: usize) {
        let Fault::Cut { links, .. } = self.plan.faults[n].1.clone() else {
            return;
        };
        self.trace
            .step(self.now, &[15, n as u64], || format!("fault {n} ends"));
        for (from, to) in links {
            self.cuts[from][to] = self.cuts[from][to].saturating_sub(1);
            self.note_link(from, to);
            if !self.is_cut(from, to) {
                self.retransmit(from, to);
            }
        }
    }

    /// Tells the checkers whether the two can talk.
    fn note_link(&mut self, a: usize, b: usize) {
        let runs = |host: usize| self.hosts[host].node.is_some();
        let works = !self.is_cut(a, b) && !self.is_cut(b, a) && runs(a) && runs(b);
        self.checkers.apart.link(a, b, works, self.now);
    }

    /// The same of all links of a host that has started or died.
    pub(super) fn note_links(&mut self, host: usize) {
        for other in (0..self.hosts.len()).filter(|other| *other != host) {
            self.note_link(host, other);
        }
    }

    /// Stops for a while, and again after it has run for a while.
    pub(super) fn doze(&mut self, host: usize, (run, pause): (Duration, Duration), until: Time) {
        if self.now >= until {
            return;
        }
        let wakes = until.min(self.now + pause);
        let paused = &mut self.hosts[host].paused_until;
        *paused = wakes.max(*paused);
        self.queue.schedule(
            wakes + run,
            Event::Doze {
                host,
                run,
                pause,
                until,
            },
        );
    }

    /// Cuts, pauses and bad weather are over; they have ended by plan, the weather ends here.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.trace
            .step(self.now, &[16], || "everything heals".to_owned());
        self.leave_out_wrong_clocks();
        match self.plan.after.clone() {
            After::Whole => {}
            // With nobody in between, or only who is refused, the two would be a cluster each.
            After::Mesh(..) if self.core().count() < self.hosts.len() => {}
            After::Mesh(a, b) => {
                self.sometimes.reach(Place::RestBroken);
                self.checkers.members.touch(a, Time::MAX);
                self.checkers.members.touch(b, Time::MAX);
                self.sever(&[(a, b), (b, a)]);
            }
            After::Core(outside) => {
                for (host, how) in outside {
                    let core = self.core().count();
                    // At least two remain to agree with each other.
                    if core > 2 && self.hosts[host].node.is_some() {
                        self.sometimes.reach(Place::RestBroken);
                        self.break_for_good(host, how);
                    }
                }
            }
        }
    }

    /// Whether the node on the host was started with a clock that is far off: all whose clocks are right refuse it.
    pub(crate) fn has_wrong_clock(&self, host: usize) -> bool {
        let Some(node) = self.hosts[host].node.as_ref() else {
            return false;
        };
        let right_ms = EPOCH_MS + self.now.as_millis();
        let right_ms = right_ms.saturating_add_signed(self.plan.clock_offset_ms[host]);
        node.clock
            .physical_ms(node.time(self.now))
            .abs_diff(right_ms)
            >= JUMP_MS
    }

    /// Two nodes with a session whose clocks are too far apart for one.
    pub(crate) fn together_though_apart(&self) -> Option<(usize, usize)> {
        let is_apart = |a, b| {
            let apart_ms = self.clocks_apart_ms(a, b);
            apart_ms.is_some_and(|apart_ms| apart_ms > DRIFT_MS + UNSHARP_MS)
        };
        self.running().find_map(|(host, node)| {
            let mut peers = node.sessions.keys().filter_map(|peer| {
                let (session, end) = self.session_with(host, *peer)?;
                Some(self.hosts_of(session, end).1)
            });
            let hears = |peer: &usize| self.hears(host, *peer);
            let peer = peers.find(|peer| is_apart(host, *peer) && hears(peer))?;
            Some((host, peer))
        })
    }

    /// A node with a wrong clock that could learn so from most others, and would write.
    pub(crate) fn wrong_and_writing(&mut self) -> Option<usize> {
        let now = self.now;
        for host in 0..self.hosts.len() {
            let others = (0..self.hosts.len()).filter(|other| *other != host);
            let heard = others.filter(|other| self.hears(host, *other)).count();
            let Some(node) = self.hosts[host].node.as_ref() else {
                continue;
            };
            let is_new = now - node.started < LEARNS_WITHIN || node.leaving.is_some();
            if !self.has_wrong_clock(host) || is_new || heard * 2 < self.hosts.len() {
                continue;
            }
            if node.clock.stopped_by_skew_ms(node.time(now)) == 0 {
                return Some(host);
            }
            self.sometimes.reach(Place::StoppedBySkew);
        }
        None
    }

    /// Whether two hosts run and messages pass between them.
    fn hears(&self, a: usize, b: usize) -> bool {
        let runs = |host: usize| {
            let host = &self.hosts[host];
            host.node.is_some() && host.paused_until <= self.now
        };
        runs(a) && runs(b) && !self.is_cut(a, b) && !self.is_cut(b, a)
    }

    /// Whose clock is still wrong is refused by all others, until somebody sets it right and starts its node anew.
    fn leave_out_wrong_clocks(&mut self) {
        for host in 0..self.hosts.len() {
            if !self.has_wrong_clock(host) {
                continue;
            }
            self.sometimes.reach(Place::ClockStaysWrong);
            self.outside.insert(host);
            self.checkers.members.touch(host, Time::MAX);
            for other in (0..self.hosts.len()).filter(|other| *other != host) {
                self.checkers.apart.link(host, other, false, self.now);
            }
        }
    }

    /// Cuts links for good.
    fn sever(&mut self, links: &[(usize, usize)]) {
        for (from, to) in links {
            self.cuts[*from][*to] += 1;
            self.note_link(*from, *to);
        }
    }

    /// Takes a host out of the core, for good.
    fn break_for_good(&mut self, host: usize, how: Rest) {
        self.outside.insert(host);
        self.checkers.members.touch(host, Time::MAX);
        let others: Vec<usize> = (0..self.hosts.len())
            .filter(|other| *other != host)
            .collect();
        let to: Vec<_> = others.iter().map(|other| (host, *other)).collect();
        let from: Vec<_> = others.iter().map(|other| (*other, host)).collect();
        match how {
            Rest::Dead => self.crash(host, true, None),
            Rest::Hung => {
                self.hosts[host].paused_until = Time::MAX;
                for other in others {
                    self.checkers.apart.link(host, other, false, self.now);
                }
            }
            Rest::CutOff => self.sever(&[to, from].concat()),
            Rest::Mute => self.sever(&to),
            Rest::Deaf => self.sever(&from),
            Rest::Bridged => self.sever(&[&to[1..], &from[1..]].concat()),
            Rest::Dozing => {
                let turns = (Duration::from_millis(40), Duration::from_millis(300));
                self.doze(host, turns, Time::MAX);
                for other in others {
                    self.checkers.apart.link(host, other, false, self.now);
                }
            }
        }
    }

    pub(crate) fn crash(&mut self, host: usize, silent: bool, restart: Option<Time>) {
        // The last node standing stays: a cluster without memory proves nothing.
        if self.hosts[host].node.is_none() || self.running().count() <= 1 {
            return;
        }
        self.sometimes.reach(if silent {
            Place::SilentCrash
        } else {
            Place::Crash
        });
        self.checkers.members.died(host, self.now);
        self.hosts[host].node = None;
        self.lose_unsynced(host);
        self.hosts[host].paused_until = self.now;
        self.note_links(host);
        self.checkers.forget(host);
        for session in 0..self.sessions.len() {
            for end in [0, 1] {
                let (at, to) = self.hosts_of(session, end);
                let side = &mut self.sessions[session].ends[end];
                if at != host || !std::mem::replace(&mut side.open, false) {
                    continue;
                }
                side.stands = false;
                side.stalled.clear();
                if !silent && !self.is_cut(host, to) {
                    let at = self.now + self.delay();
                    self.queue.schedule(
                        at,
                        Event::Reset {
                            session,
                            end: other(end),
                        },
                    );
                }
            }
        }
        if let Some(at) = restart {
            self.sometimes.reach(Place::ClockStep);
            self.queue.schedule(at.max(self.now), Event::Start { host });
        }
    }

    /// Changes a key on one node as a write would, but tells nobody.
    fn diverge(&mut self, host: usize, number: usize, remove: bool) {
        let now = self.now;
        let Some(node) = self.hosts[host].node.as_mut() else {
            return;
        };
        let own = node.time(now);
        let Ok(version) = node.clock.stamp(own) else {
            return;
        };
        let change = if remove {
            Change::Remove
        } else {
            Change::Put {
                value: Value::new(b"lost"),
                expiry: Expiry::NEVER,
                tags: Tags::NONE,
            }
        };
        self.checkers.freshness.untold(version);
        self.checkers.removals.stamped(version);
        if node.store.merge(&key(number), version, change).is_ok() {
            self.sometimes.reach(Place::Diverged);
        }
    }

    fn reset_between(&mut self, a: usize, b: usize) {
        for session in 0..self.sessions.len() {
            let [dialler, acceptor] = &self.sessions[session].ends;
            let between = (
                dialler.host.min(acceptor.host),
                dialler.host.max(acceptor.host),
            );
            if between == (a.min(b), a.max(b)) && dialler.stands && acceptor.stands {
                self.sometimes.reach(Place::Reset);
                for end in [0, 1] {
                    self.queue.schedule(self.now, Event::Reset { session, end });
                }
            }
        }
    }
}
