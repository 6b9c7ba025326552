//! The shipped handshake on each lane of a session, and what the clocks of the two nodes have to do with it (R5).

use nearcache_protocol::frame::{Frame, Kind};
use nearcache_protocol::handshake::{self, Peer, Refusal};
use nearcache_protocol::identity::Identity;
use nearcache_protocol::lane::Lane;
use nearcache_protocol::time::Time;
use nearcache_store::Timestamp;

use super::Cluster;
use crate::bug::Bug;
use crate::node::Node;
use crate::session::other;
use crate::sometimes::Place;
use crate::violation::Violation;

impl Cluster {
    /// Takes a frame of a handshake at an end of a session.
    pub(super) fn shake_hands(
        &mut self,
        session: usize,
        end: usize,
        lane: Lane,
        frame: &Frame,
    ) -> Result<(), Violation> {
        if frame.kind == Kind::HELLO {
            return self.welcome(session, end, lane, frame);
        }
        let now = self.now;
        let (host, life) = (
            self.sessions[session].ends[end].host,
            self.hosts_life(session, end),
        );
        let side = &mut self.sessions[session].ends[end];
        let (dialled, accepted) = (
            side.handshakes[lane as usize].take(),
            side.accepted[lane as usize].take(),
        );
        let Some(node) = self.alive(host, life) else {
            return Ok(());
        };
        let stamp = stamp(node, now);
        let result = match (dialled, accepted) {
            (Some(dialled), _) => dialled
                .complete(&node.membership, stamp, frame)
                .map(|completed| (completed.peer, Some(completed.ready))),
            (None, Some(accepted)) => accepted.complete(stamp, frame).map(|peer| (peer, None)),
            // The other side has found out by what this one said last.
            (None, None) if frame.kind == Kind::REFUSED => return self.close(session, end, true),
            (None, None) => return Ok(()),
        };
        self.tell_clock(host, &result);
        self.judge_clock(session, end, lane, result.is_ok())?;
        let (peer, ready) = match result {
            Ok(through) => through,
            Err(refusal) => return self.refuse(session, end, lane, &refusal),
        };
        if let Some(ready) = ready {
            self.send(session, end, lane, ready, false);
        }
        let side = &mut self.sessions[session].ends[end];
        side.lanes_up += 1;
        side.peer = Some(peer.identity);
        if side.lanes_up == Lane::ALL.len() {
            self.stand(session, end)
        } else {
            Ok(())
        }
    }

    /// Takes a hello.
    fn welcome(
        &mut self,
        session: usize,
        end: usize,
        lane: Lane,
        frame: &Frame,
    ) -> Result<(), Violation> {
        let now = self.now;
        let (host, life) = (
            self.sessions[session].ends[end].host,
            self.hosts_life(session, end),
        );
        let Some(node) = self.alive(host, life) else {
            return Ok(());
        };
        let accepted = handshake::accept(&node.local(), &node.membership, stamp(node, now), frame);
        let accepted = match accepted {
            Ok(accepted) => accepted,
            Err(refusal) => return self.refuse(session, end, lane, &refusal),
        };
        let first = self.sessions[session].ends[end].peer.is_none();
        let identity = accepted.peer.identity.clone();
        if first && !self.wins_crossing(session, identity.node)? {
            return self.close(session, end, true);
        }
        let welcome = accepted.welcome.clone();
        let side = &mut self.sessions[session].ends[end];
        side.peer = Some(identity);
        side.accepted[lane as usize] = Some(accepted);
        side.asked_at[lane as usize] = now;
        self.send(session, end, lane, welcome, false);
        Ok(())
    }

    /// Says no and closes. What was said arrives before the end.
    fn refuse(
        &mut self,
        session: usize,
        end: usize,
        lane: Lane,
        refusal: &Refusal,
    ) -> Result<(), Violation> {
        let now = self.now;
        let (host, _) = self.hosts_of(session, end);
        self.trace.step(now, &[2, host as u64], || {
            format!("n{host} refuses: {refusal}")
        });
        let Some(node) = self.hosts[host].node.as_ref() else {
            return Ok(());
        };
        if end == 1 || matches!(refusal, Refusal::ClockApart { .. }) {
            let said = refusal.frame(stamp(node, now));
            self.send(session, end, lane, said, false);
        }
        let last = self.sessions[session].ends[end].lane(lane).last_arrival;
        self.close_at(session, end, last)
    }

    /// What a handshake told of the peer's clock, whatever else came of it.
    fn tell_clock<T>(&mut self, host: usize, result: &Result<(Peer, T), Refusal>) {
        let now = self.now;
        let peer = match result {
            Ok((peer, _)) => peer,
            Err(Refusal::ClockApart { peer, .. }) if self.bug != Some(Bug::SkewNotTold) => peer,
            Err(_) => return,
        };
        if let Some(node) = self.hosts[host].node.as_ref() {
            let Identity { epoch, address, .. } = peer.identity;
            let start = (epoch, address);
            node.clock
                .peer_met(node.time(now), peer.identity.node, start, peer.clock);
        }
    }

    /// R5: whose clock is certainly too far away is not let in.
    fn judge_clock(
        &mut self,
        session: usize,
        end: usize,
        lane: Lane,
        is_let_in: bool,
    ) -> Result<(), Violation> {
        let (host, peer) = self.hosts_of(session, end);
        // What answered may have been a former start, with another clock.
        let answered = self.hosts_life(session, other(end));
        if self.hosts[peer].life != answered {
            return Ok(());
        }
        let Some(apart_ms) = self.clocks_apart_ms(host, peer) else {
            return Ok(());
        };
        let took = self.now - self.sessions[session].ends[end].asked_at[lane as usize];
        let result = self
            .checkers
            .clocks
            .shaken((host, peer), self.now, apart_ms, took, is_let_in);
        self.judge(result)
    }

    /// How far the clocks of two nodes are apart now.
    pub(crate) fn clocks_apart_ms(&self, a: usize, b: usize) -> Option<u64> {
        let clock = |host: usize| {
            let node = self.hosts[host].node.as_ref()?;
            Some(stamp(node, self.now).millis())
        };
        Some(clock(a)?.abs_diff(clock(b)?))
    }

    /// The clocks of these peers have turned out to be too far away: the sessions with them end.
    pub(super) fn end_apart(&mut self, host: usize) -> Result<(), Violation> {
        let apart = match self.hosts[host].node.as_ref() {
            Some(node) if self.bug != Some(Bug::ApartStaysTogether) => node.clock.take_apart(),
            _ => return Ok(()),
        };
        for peer in apart {
            if let Some((session, end)) = self.session_with(host, peer) {
                self.sometimes.reach(Place::EndedForItsClock);
                self.trace
                    .step(self.now, &[2, host as u64, peer.as_u64()], || {
                        format!("n{host} ends session {session}: the clocks are apart")
                    });
                self.close(session, end, true)?;
            }
        }
        Ok(())
    }

    fn hosts_life(&self, session: usize, end: usize) -> u32 {
        self.sessions[session].ends[end].life
    }
}

/// The node's physical clock, for a handshake.
pub(super) fn stamp(node: &Node, now: Time) -> Timestamp {
    Timestamp::from_parts(node.clock.physical_ms(node.time(now)), 0)
}
