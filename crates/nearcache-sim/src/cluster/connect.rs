//! Sessions: how they are opened, when they break.
//!
//! A session is opened like a TCP connection (one retransmission of the first packet, 2 s in all), runs
//! the shipped handshake on each lane ([`shake`](super::shake)), stands once all three are through, and breaks when the other side
//! resets it, was not heard for 3 s, or turns out to have a clock that is too far away.

use std::time::Duration;

use nearcache_protocol::frame::FrameDecoder;
use nearcache_protocol::handshake::{self, Handshake, SessionToken};
use nearcache_protocol::identity::Identity;
use nearcache_protocol::lane::Lane;
use nearcache_protocol::time::Time;
use nearcache_store::NodeId;
use rand::RngExt as _;

use super::shake::stamp;
use super::{Cluster, Event};
use crate::node::{host_at, node_id};
use crate::session::{End, Session, other};
use crate::sometimes::Place;
use crate::violation::Violation;

/// How long the other side may be silent.
const SILENCE_MAX: Duration = Duration::from_secs(3);
/// How often a session's ends look.
const WATCH_PERIOD: Duration = Duration::from_millis(250);
/// How long the handshakes may take.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);
/// After how long TCP sends its first packet again.
const RETRANSMISSION: Duration = Duration::from_secs(1);
/// How often a node without sessions asks at the addresses it was configured with.
const SEEK_PERIOD: Duration = Duration::from_millis(500);
/// How often one that has some looks for those that it does not know, as in the library.
pub(crate) const LOOK_AGAIN: Duration = Duration::from_secs(30);
/// So many addresses at a time.
const SEEDS_MAX: usize = 12;

impl Cluster {
    /// A node without sessions dials everybody it was configured with; one with sessions, now and then, whom it does not know.
    pub(super) fn seek(&mut self, host: usize, life: u32) {
        let now = self.now;
        let Some(node) = self.alive(host, life) else {
            return;
        };
        let looks_again = now >= node.looked_at + LOOK_AGAIN;
        if node.sessions.is_empty() || looks_again {
            node.looked_at = now;
            let known = node.membership.members();
            let known: Vec<_> = known
                .filter_map(|member| host_at(member.identity.address))
                .collect();
            // In a large cluster discovery names a few, others each time.
            let count = self.hosts.len();
            let named = count.min(SEEDS_MAX);
            let first = if named < count {
                self.rng.random_range(0..count)
            } else {
                0
            };
            for step in 0..named {
                let to = (first + step * (count / named)) % count;
                if !known.contains(&to) || !looks_again {
                    self.dial(host, to);
                }
            }
        }
        self.queue
            .schedule(self.now + SEEK_PERIOD, Event::Seek { host, life });
    }

    /// The membership wants a session with this member.
    pub(super) fn dial_member(&mut self, host: usize, identity: &Identity) {
        if let Some(to) = host_at(identity.address).filter(|to| *to < self.hosts.len()) {
            self.dial(host, to);
        }
    }

    fn dial(&mut self, host: usize, to: usize) {
        let (now, session) = (self.now, self.sessions.len());
        let (life, to_life) = (self.hosts[host].life, self.hosts[to].life);
        let Some(node) = self.hosts[host].node.as_mut() else {
            return;
        };
        let known = node.sessions.contains_key(&node_id(to))
            || node.dialling.contains_key(&to)
            || node.accepting.contains_key(&to);
        if host == to || known {
            return;
        }
        node.dialling.insert(to, session);
        let mut ends = [End::new(host, life, now), End::new(to, to_life, now)];
        ends[0].open = true;
        self.sessions.push(Session { ends, opened: now });
        let at = now + self.delay() + self.delay();
        self.queue.schedule(
            at,
            Event::Connect {
                session,
                attempt: 0,
            },
        );
    }

    pub(super) fn connect(&mut self, session: usize, attempt: u32) {
        let [dialler, acceptor] = &self.sessions[session].ends;
        let (host, life, to) = (dialler.host, dialler.life, acceptor.host);
        if !dialler.open {
            return;
        }
        if self.is_cut(host, to) || self.is_cut(to, host) {
            if attempt == 0 {
                let at = self.now + RETRANSMISSION;
                self.queue.schedule(
                    at,
                    Event::Connect {
                        session,
                        attempt: 1,
                    },
                );
            } else {
                self.abandon(session);
            }
            return;
        }
        if self.hosts[to].node.is_none() {
            self.abandon(session);
            return;
        }
        let token = SessionToken(session as u64);
        let now = self.now;
        let Some(node) = self.alive(host, life) else {
            return;
        };
        let (local, stamp) = (node.local(), stamp(node, now));
        let to_life = self.hosts[to].life;
        self.sessions[session].ends[1].life = to_life;
        self.sessions[session].ends[1].open = true;
        for lane in Lane::ALL {
            let (handshake, hello) = Handshake::dial(local.clone(), lane, token, stamp);
            let dialler = &mut self.sessions[session].ends[0];
            dialler.handshakes[lane as usize] = Some(handshake);
            dialler.asked_at[lane as usize] = now;
            self.send(session, 0, lane, hello, false);
        }
        self.queue
            .schedule(now + WATCH_PERIOD, Event::Watch { session });
    }

    /// Gives up an attempt to open a session, on the dialling side.
    fn abandon(&mut self, session: usize) {
        let [dialler, acceptor] = &mut self.sessions[session].ends;
        dialler.open = false;
        let (host, life, to) = (dialler.host, dialler.life, acceptor.host);
        if let Some(node) = self.alive(host, life)
            && node.dialling.get(&to) == Some(&session)
        {
            node.dialling.remove(&to);
        }
    }

    /// Of two sessions that two nodes open to each other at once, the accepting side keeps one.
    pub(super) fn wins_crossing(
        &mut self,
        session: usize,
        dialler: NodeId,
    ) -> Result<bool, Violation> {
        let [theirs, ours] = &self.sessions[session].ends;
        let (host, life, from) = (ours.host, ours.life, theirs.host);
        let Some(node) = self.alive(host, life) else {
            return Ok(false);
        };
        let (id, crossing) = (node.id, node.dialling.get(&from).copied());
        let former = node.sessions.get(&dialler).copied();
        if let Some(crossing) = crossing {
            self.sometimes.reach(Place::CrossedConnections);
            if !handshake::stays_when_crossed(dialler, id) {
                return Ok(false);
            }
            self.close(crossing, 0, true)?;
        }
        if let Some(former) = former {
            // The other side would not dial if it still had the former session.
            let end = usize::from(self.sessions[former].ends[1].host == host);
            self.close(former, end, true)?;
        }
        if let Some(node) = self.alive(host, life) {
            // Until it stands: a second session with the same peer must not be dialled meanwhile.
            node.accepting.insert(from, session);
        }
        Ok(true)
    }

    /// All three lanes are through at this end: the session stands.
    pub(super) fn stand(&mut self, session: usize, end: usize) -> Result<(), Violation> {
        let now = self.now;
        let to = self.sessions[session].ends[other(end)].host;
        let side = &mut self.sessions[session].ends[end];
        side.stands = true;
        side.heard_at = now;
        let (host, life, early) = (side.host, side.life, std::mem::take(&mut side.early));
        let Some(peer) = side.peer.clone() else {
            return Ok(());
        };
        let Some(node) = self.alive(host, life) else {
            return Ok(());
        };
        node.dialling.remove(&to);
        node.accepting.remove(&to);
        let former = node
            .sessions
            .insert(peer.node, session)
            .filter(|former| *former != session);
        if let Some(former) = former {
            let end = usize::from(self.sessions[former].ends[1].host == host);
            self.close(former, end, true)?;
            if let Some(node) = self.alive(host, life) {
                node.sessions.insert(peer.node, session);
            }
        }
        let Some(node) = self.alive(host, life) else {
            return Ok(());
        };
        let own = node.time(now);
        let (mut membership, mut cache) = (Vec::new(), Vec::new());
        self.checkers.meets(host, peer.node, peer.epoch, now);
        self.checkers.leases.view_changes(now);
        let Some(node) = self.alive(host, life) else {
            return Ok(());
        };
        let epoch = node.epochs.insert(peer.node, peer.epoch);
        node.membership.connected(own, &peer, &mut membership);
        if node.is_open {
            node.core.peer_up(own, peer.node, peer.epoch, &mut cache);
        }
        if epoch.is_some_and(|before| before < peer.epoch) {
            self.sometimes.reach(Place::EpochChange);
        }
        self.trace.step(now, &[3, host as u64, to as u64], || {
            format!("n{host} has session {session} with n{to}")
        });
        self.carry_membership(host, membership)?;
        self.carry_cache(host, cache)?;
        for (lane, frame) in early {
            self.take_frame(session, end, lane, frame)?;
        }
        self.settle(host)
    }

    /// Closes a session at one end. The other end is told, unless the link is cut or nobody is to be told.
    pub(super) fn close(
        &mut self,
        session: usize,
        end: usize,
        tell: bool,
    ) -> Result<(), Violation> {
        let told_at = self.now + self.delay();
        self.close_telling(session, end, tell.then_some(told_at))
    }

    /// The same; the other end is told when all that was sent has arrived there.
    pub(super) fn close_at(
        &mut self,
        session: usize,
        end: usize,
        last: Time,
    ) -> Result<(), Violation> {
        let told_at = last.max(self.now + self.delay()) + Duration::from_nanos(1);
        self.close_telling(session, end, Some(told_at))
    }

    fn close_telling(
        &mut self,
        session: usize,
        end: usize,
        told_at: Option<Time>,
    ) -> Result<(), Violation> {
        let now = self.now;
        let (from, to) = self.hosts_of(session, end);
        let cut = self.is_cut(from, to);
        let side = &mut self.sessions[session].ends[end];
        if !std::mem::replace(&mut side.open, false) {
            return Ok(());
        }
        let (life, stood) = (side.life, std::mem::replace(&mut side.stands, false));
        side.early.clear();
        side.decoders
            .fill_with(|| FrameDecoder::new(Default::default()));
        let peer = side.peer.as_ref().map(|peer| peer.node);
        if let Some(told_at) = told_at.filter(|_| !cut) {
            self.queue.schedule(
                told_at,
                Event::Reset {
                    session,
                    end: other(end),
                },
            );
        }
        let Some(node) = self.alive(from, life) else {
            return Ok(());
        };
        for pending in [&mut node.dialling, &mut node.accepting] {
            if pending.get(&to) == Some(&session) {
                pending.remove(&to);
            }
        }
        let Some(peer) = peer.filter(|_| stood) else {
            return Ok(());
        };
        if node.sessions.get(&peer) != Some(&session) {
            return Ok(());
        }
        node.sessions.remove(&peer);
        self.checkers.leases.view_changes(now);
        let Some(node) = self.alive(from, life) else {
            return Ok(());
        };
        let own = node.time(now);
        let (mut membership, mut cache) = (Vec::new(), Vec::new());
        if node.is_open {
            node.core.peer_down(own, peer, &mut cache);
        }
        node.membership.peer_lost(own, peer, &mut membership);
        self.trace.step(now, &[4, from as u64, to as u64], || {
            format!("n{from} loses session {session} with n{to}")
        });
        self.carry_membership(from, membership)?;
        self.carry_cache(from, cache)?;
        self.settle(from)
    }

    pub(super) fn hosts_of(&self, session: usize, end: usize) -> (usize, usize) {
        let ends = &self.sessions[session].ends;
        (ends[end].host, ends[other(end)].host)
    }

    /// A reset arrives.
    pub(super) fn reset(&mut self, session: usize, end: usize) -> Result<(), Violation> {
        self.close(session, end, false)
    }

    /// Both ends look whether the other is still heard.
    pub(super) fn watch(&mut self, session: usize) -> Result<(), Violation> {
        let (now, opened) = (self.now, self.sessions[session].opened);
        for end in [0, 1] {
            let side = &self.sessions[session].ends[end];
            let paused = self.hosts[side.host].paused_until >= now;
            let silent = side.stands && now - side.heard_at > SILENCE_MAX;
            // The acceptor begins to count when it is greeted.
            let [since, ..] = side.asked_at;
            let stuck = !side.stands && now - since.max(opened) > HANDSHAKE_MAX;
            if side.open && !paused && (silent || stuck) {
                self.close(session, end, true)?;
            }
        }
        if self.sessions[session].ends.iter().any(|end| end.open) {
            self.queue
                .schedule(now + WATCH_PERIOD, Event::Watch { session });
        }
        Ok(())
    }
}
