//! Faults: how each strikes, and how all of them end.

use nearcache_protocol::time::Time;
use nearcache_store::{Change, Expiry, Tags, Timestamp};

use super::{Cluster, Event};
use crate::bug::Bug;
use crate::plan::{Fault, LONG_PAUSE, key};
use crate::session::other;
use crate::sometimes::Place;
use crate::value::Value;

impl Cluster {
    pub(super) fn strike(&mut self, n: usize) {
        let (_, fault) = self.plan.faults[n].clone();
        self.trace
            .step(self.now, &[14, n as u64], || format!("fault: {fault:?}"));
        match fault {
            Fault::Cut {
                links,
                one_way,
                until,
            } => {
                self.sometimes.reach(if one_way {
                    Place::OneWayPartition
                } else {
                    Place::SymmetricPartition
                });
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
            } => self.crash(node, silent, restart),
            Fault::Pause { node, until } => {
                self.sometimes.reach(Place::Pause);
                if until - self.now >= LONG_PAUSE {
                    self.sometimes.reach(Place::LongPause);
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
            Fault::Reset { a, b } => self.reset_between(a, b),
            Fault::Diverge { node, key, remove } => self.diverge(node, key, remove),
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

    /// Cuts, pauses and bad weather are over; they have ended by plan, the weather ends here.
    pub(super) fn heal(&mut self) {
        self.healed = true;
        self.trace
            .step(self.now, &[16], || "everything heals".to_owned());
    }

    fn crash(&mut self, host: usize, silent: bool, restart: Option<Time>) {
        // The last node standing stays: a cluster without memory proves nothing.
        if self.hosts[host].node.is_none() || self.running().count() <= 1 {
            return;
        }
        self.sometimes.reach(if silent {
            Place::SilentCrash
        } else {
            Place::Crash
        });
        self.hosts[host].node = None;
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
