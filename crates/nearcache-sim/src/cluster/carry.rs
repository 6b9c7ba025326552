//! Messages: from a machine's outputs through the wire code and the network to another machine.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nearcache_protocol::announce::ModeKind;
use nearcache_protocol::config::ReplicationConfig;
use nearcache_protocol::frame::{self, Frame, FrameLimit, Kind};
use nearcache_protocol::identity::Identity;
use nearcache_protocol::lane::Lane;
use nearcache_protocol::load::lease::{Answer, LoadMessage};
use nearcache_protocol::machine::Machine as _;
use nearcache_protocol::membership::{DownReason, MembershipMessage, MembershipOutput};
use nearcache_protocol::message::CacheMessage;
use nearcache_protocol::mode::{Event as CacheEvent, FlushCause, Output};
use nearcache_protocol::time::Time;
use nearcache_protocol::wire;
use nearcache_store::NodeId;
use rand::RngExt as _;

use super::{Cluster, Event, Fate};
use crate::node::{address, cache_id};
use crate::plan::number_of;
use crate::session::other;
use crate::sometimes::Place;
use crate::value::Value;
use crate::violation::Violation;

/// Bytes that a writer asks for at a time.
const PULL_BYTES: usize = 1 << 10;
const NANOS_PER_SECOND: u64 = 1_000_000_000;

impl Cluster {
    /// A delay of the weather.
    pub(super) fn delay(&mut self) -> Duration {
        let weather = &self.plan.weather;
        let (min, max) = (weather.delay_min, weather.delay_max);
        // Most messages are fast: the larger the delay, the rarer.
        let share = self.rng.random::<f64>().powi(3);
        let delay = min + (max - min).mul_f64(if self.healed { share / 10.0 } else { share });
        match self.plan.weather.tail.filter(|_| !self.healed) {
            Some(tail) if self.rng.random_bool(tail.share) => {
                self.sometimes.reach(Place::LateMessage);
                delay + tail.most.mul_f64(self.rng.random::<f64>())
            }
            _ => delay,
        }
    }

    /// Carries out what a membership asks for.
    pub(super) fn carry_membership(
        &mut self,
        host: usize,
        out: Vec<MembershipOutput>,
    ) -> Result<(), Violation> {
        if let Some(node) = self.hosts[host].node.as_mut() {
            node.membership_due = node.membership.next_tick();
        }
        for output in out {
            match output {
                MembershipOutput::Send { to, message } => self.send_membership(host, to, &message),
                MembershipOutput::Reach { to, message } => self.reach(host, &to, &message),
                MembershipOutput::Part(_) if self.plan.surplus_stays => {}
                MembershipOutput::Part(peer) => self.part(host, peer)?,
                MembershipOutput::Dial(identity) => self.dial_member(host, &identity),
                MembershipOutput::MemberUp(identity) => {
                    self.meets(host, identity.node, identity.epoch);
                    let now = self.now;
                    self.trace
                        .step(now, &[5, host as u64, identity.node.as_u64()], || {
                            format!("n{host} sees member {identity:?}")
                        });
                    let node = self.hosts[host].node.as_mut();
                    if let Some(node) = node.filter(|node| node.is_open) {
                        node.core
                            .member_up(node.time(now), identity.node, identity.epoch);
                    }
                }
                MembershipOutput::MemberDown { identity, reason } => {
                    self.member_down(host, &identity, reason)?;
                }
                MembershipOutput::Renewed(identity) => {
                    self.sometimes.reach(Place::MemberRenewed);
                    self.trace.step(self.now, &[7, host as u64], || {
                        format!("n{host} comes back as {identity:?}")
                    });
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// A member is gone: its session, should it still stand, is closed, and the cache waits no more for it.
    fn member_down(
        &mut self,
        host: usize,
        identity: &Identity,
        reason: DownReason,
    ) -> Result<(), Violation> {
        let (now, peer) = (self.now, identity.node);
        self.trace.step(now, &[6, host as u64, peer.as_u64()], || {
            format!("n{host} sees member {identity:?} gone: {reason:?}")
        });
        if reason == DownReason::Replaced {
            self.sometimes.reach(Place::MemberReplaced);
            return Ok(());
        }
        // What others tell may overtake its own goodbye, but not by more than what a message takes.
        let departed = self.checkers.departed.get(&(identity.node, identity.epoch));
        let longest = self.plan.weather.delay_max * 2;
        // Beyond the mesh only its neighbours hear the goodbye; others hear that it is gone, and the difference is how long they count it.
        let heard_it = !self.plan.is_beyond_mesh();
        // Under faults the goodbye may not arrive.
        let heard_it = heard_it && self.plan.faults.is_empty();
        let late = departed.is_some_and(|at| heard_it && *at + longest < now);
        if reason == DownReason::Failed && late {
            let what = format!("n{host} takes {identity:?} for dead, which has left on purpose");
            return Err(self.violation("leave", what));
        }
        self.sometimes.reach(Place::MemberFailed);
        let of = (0..self.hosts.len()).find(|of| address(*of) == identity.address);
        // Beyond the mesh a slow node's word suffices where there is no session that says otherwise: an obituary is doubted by those only that
        // are connected to the dead. Who is well comes back renewed as soon as it hears of it, so this is not held against the membership
        // (two of 700 seeds show it).
        let linked = !self.plan.is_beyond_mesh() || self.session_with(host, peer).is_some();
        let judged = of.filter(|of| linked || self.checkers.members.is_dead(*of));
        if let Some(of) = judged.filter(|_| reason == DownReason::Failed) {
            let result = self.checkers.members.declared(host, of, now);
            self.judge(result)?;
        }
        self.checkers.parts(host, peer, now);
        if let Some((session, end)) = self.session_with(host, peer) {
            self.close(session, end, true)?;
        }
        let node = self.hosts[host].node.as_mut();
        let Some(node) = node.filter(|node| node.is_open) else {
            return Ok(());
        };
        let (own, mut out) = (node.time(now), Vec::new());
        if reason == DownReason::Left {
            node.core.peer_left(own, peer, &mut out);
        } else {
            node.core.peer_dead(own, peer, &mut out);
        }
        self.carry_cache(host, out)
    }

    fn send_membership(&mut self, host: usize, to: NodeId, message: &MembershipMessage) {
        let Some((session, end)) = self.session_with(host, to) else {
            return;
        };
        let mut bytes = BytesMut::new();
        let body = message.body();
        if frame::encode(message.kind(), 0, &body, FrameLimit::DEFAULT, &mut bytes).is_ok() {
            let astray = self.plan.weather.membership_astray;
            self.send(session, end, Lane::Control, bytes.freeze(), astray);
        }
    }

    /// Carries out what a cache asks for.
    pub(crate) fn carry_cache(
        &mut self,
        host: usize,
        out: Vec<Output<Value>>,
    ) -> Result<(), Violation> {
        for output in out {
            match output {
                Output::Send { to, message } => {
                    if let Some((session, end)) = self.session_with(host, to) {
                        self.send_cache(session, end, &message);
                    }
                }
                Output::Transmit { peer, lane } => {
                    if let Some((session, end)) = self.session_with(host, peer) {
                        self.sessions[session].ends[end].lane(lane).wanted = true;
                        self.pull(session, end, lane)?;
                    }
                }
                Output::Meet(peer) => {
                    if let Some(node) = self.hosts[host].node.as_mut() {
                        let own = node.time(self.now);
                        node.membership.meet(own, peer);
                    }
                }
                Output::Reach { to, message } => self.reach_cache(host, to, &message),
                Output::Done { waiter, result } => self.done(host, waiter, result)?,
                Output::Ready => {
                    self.check_ready(host)?;
                    self.trace
                        .step(self.now, &[8, host as u64], || format!("n{host} is ready"));
                }
                Output::Event(event) => self.note_event(host, &event),
            }
        }
        Ok(())
    }

    /// R9: who has got nothing from anybody is not ready, unless it has waited for somebody.
    fn check_ready(&self, host: usize) -> Result<(), Violation> {
        let Some(node) = self.hosts[host].node.as_ref() else {
            return Ok(());
        };
        let waited = node.time(self.now) - Time::ZERO;
        let transfers = self.plan.mode == ModeKind::Replicated;
        if transfers
            && node.transfers == 0
            && waited < ReplicationConfig::default().join_alone_after
        {
            let what = format!("n{host} is ready after {waited:?} without a transfer");
            return Err(self.violation("R9", what));
        }
        Ok(())
    }

    fn note_event(&mut self, host: usize, event: &CacheEvent) {
        match event {
            CacheEvent::Gap { .. } => self.sometimes.reach(Place::Gap),
            CacheEvent::Filled { .. } => {
                self.sometimes.reach(Place::Transfer);
                if let Some(node) = self.hosts[host].node.as_mut() {
                    node.transfers += 1;
                }
            }
            CacheEvent::DriftRefused { .. } => self.sometimes.reach(Place::DriftRefused),
            CacheEvent::StartedClean { .. } => self.sometimes.reach(Place::StartedClean),
            CacheEvent::Apart { .. } => self.sometimes.reach(Place::Apart),
            CacheEvent::Together { .. } => self.sometimes.reach(Place::Together),
            CacheEvent::Dropped { .. } => {
                self.sometimes.reach(Place::Dropped);
                if let Some(node) = self.hosts[host].node.as_ref() {
                    self.checkers.dropped(host, node, self.now);
                }
            }
            CacheEvent::Flushed { cause, .. } => {
                self.sometimes.reach(match cause {
                    FlushCause::Disconnected => Place::FlushedByLapse,
                    _ => Place::Flushed,
                });
                self.checkers.flushed(host, self.now);
            }
            CacheEvent::TransferCut { .. } => self.sometimes.reach(Place::TransferCut),
            CacheEvent::Invalidated { scope, version } => {
                self.sometimes.reach(Place::RemoteInvalidation);
                self.checkers.invalidated(host, scope, *version);
            }
            _ => {}
        }
        self.trace.step(self.now, &[9, host as u64], || {
            format!("n{host}: {event:?}")
        });
    }

    /// The writer of a lane takes what there is, as long as the lane has room.
    pub(super) fn pull(&mut self, session: usize, end: usize, lane: Lane) -> Result<(), Violation> {
        let window = self.plan.weather.window;
        let (host, _) = self.hosts_of(session, end);
        loop {
            let side = &mut self.sessions[session].ends[end];
            let life = side.life;
            let Some(peer) = side.peer.as_ref().map(|peer| peer.node) else {
                return Ok(());
            };
            let outgoing = side.lane(lane);
            if !outgoing.wanted || outgoing.in_flight >= window {
                return Ok(());
            }
            let now = self.now;
            let Some(node) = self.alive(host, life) else {
                return Ok(());
            };
            if node.sessions.get(&peer) != Some(&session) {
                return Ok(());
            }
            let (own, mut out) = (node.time(now), Vec::new());
            match node
                .core
                .poll_transmit(own, peer, lane, PULL_BYTES, &mut out)
            {
                Some(message) => self.send_cache(session, end, &message),
                None => self.sessions[session].ends[end].lane(lane).wanted = false,
            }
            self.carry_cache(host, out)?;
        }
    }

    fn send_cache(&mut self, session: usize, end: usize, message: &CacheMessage<Value>) {
        let lane = message.lane();
        if let CacheMessage::Subscribed { after, .. } = message
            && self
                .asked_for(session, end)
                .is_some_and(|asked| asked < *after)
        {
            self.sometimes.reach(Place::Gone);
        }
        if matches!(message, CacheMessage::Subscribe { after: Some(_), .. }) {
            self.sometimes.reach(Place::Replay);
        }
        if let CacheMessage::Subscribe {
            after: Some(after), ..
        } = message
        {
            self.sessions[session].ends[end].asked = Some(*after);
        }
        let mut bytes = BytesMut::new();
        if wire::encode(cache_id(), message, FrameLimit::DEFAULT, &mut bytes).is_ok() {
            let (from, to) = self.hosts_of(session, end);
            self.trace
                .step(self.now, &[10, from as u64, to as u64], || {
                    format!("n{from} → n{to} {}", story(message))
                });
            self.send(session, end, lane, bytes.freeze(), true);
        }
    }

    /// From which number the other side asked to be sent updates.
    fn asked_for(&self, session: usize, end: usize) -> Option<u64> {
        self.sessions[session].ends[other(end)].asked
    }

    /// The session with a peer, and which end of it is the host's.
    pub(super) fn session_with(&self, host: usize, peer: NodeId) -> Option<(usize, usize)> {
        let session = *self.hosts[host].node.as_ref()?.sessions.get(&peer)?;
        let end = usize::from(self.sessions[session].ends[1].host == host);
        Some((session, end))
    }

    /// Puts bytes on a lane. Those of a cache may go astray in chaotic weather; all others arrive in order.
    pub(super) fn send(
        &mut self,
        session: usize,
        end: usize,
        lane: Lane,
        bytes: Bytes,
        astray: bool,
    ) {
        let passes = self.passes(session, end, lane, bytes.len());
        let mut at = passes + self.delay() + self.slowness(session, end);
        let mut fate = Fate::Delivered;
        self.meter
            .sent(bytes.get(5).copied().unwrap_or(0), bytes.len());
        self.trace.bytes(&bytes);
        let chaos = self.plan.weather.chaos.filter(|_| astray && !self.healed);
        let in_order = chaos.is_none_or(|chaos| !self.rng.random_bool(chaos.reorder));
        if let Some(chaos) = chaos {
            if self.rng.random_bool(chaos.loss) {
                self.sometimes.reach(Place::Loss);
                if lane == Lane::Control && self.plan.weather.membership_astray {
                    self.sometimes.reach(Place::MembershipLoss);
                }
                fate = Fate::Lost;
            } else if self.rng.random_bool(chaos.duplicate) {
                self.sometimes.reach(Place::Duplicate);
                let (later, fate) = (at + self.delay() + self.delay(), Fate::Again);
                let (end, bytes) = (other(end), bytes.clone());
                self.queue.schedule(
                    later,
                    Event::Arrive {
                        session,
                        end,
                        lane,
                        bytes,
                        fate,
                    },
                );
            }
        }
        let outgoing = self.sessions[session].ends[end].lane(lane);
        outgoing.in_flight += 1;
        if in_order {
            at = at.max(outgoing.last_arrival + Duration::from_nanos(1));
            outgoing.last_arrival = at;
        } else {
            if at < outgoing.last_arrival {
                self.sometimes.reach(Place::Reorder);
            }
            at += self
                .plan
                .weather
                .delay_max
                .mul_f64(self.rng.random::<f64>());
        }
        self.queue.schedule(
            at,
            Event::Arrive {
                session,
                end: other(end),
                lane,
                bytes,
                fate,
            },
        );
    }

    /// By how much a message from this end takes longer because one of the two is slow, or the way to the other is.
    fn slowness(&self, session: usize, end: usize) -> Duration {
        let (from, to) = self.hosts_of(session, end);
        let slow = [from, to].map(|host| self.hosts[host].slow);
        let lag = self.lags.get(&(from, to)).copied();
        let now = slow.into_iter().chain(lag);
        let now = now.filter(|(until, _)| *until > self.now);
        now.map(|(_, delay)| delay).sum()
    }

    /// When the last of so many bytes is on its way: at once, or after what was sent before on a narrow link, of which each lane has its share.
    fn passes(&mut self, session: usize, end: usize, lane: Lane, bytes: usize) -> Time {
        let (from, to) = self.hosts_of(session, end);
        let narrow = [from, to].map(|host| self.hosts[host].narrow);
        let narrow = narrow.into_iter().filter(|(until, _)| *until > self.now);
        let Some(rate) = narrow.map(|(_, rate)| rate).min() else {
            return self.now;
        };
        let nanos = (bytes * Lane::ALL.len()) as u64 * NANOS_PER_SECOND / rate.max(1);
        let takes = Duration::from_nanos(nanos);
        let outgoing = self.sessions[session].ends[end].lane(lane);
        outgoing.passed = outgoing.passed.max(self.now) + takes;
        outgoing.passed
    }

    /// Bytes arrive at an end of a session, or would have.
    pub(super) fn arrive(
        &mut self,
        session: usize,
        end: usize,
        lane: Lane,
        bytes: Bytes,
        fate: Fate,
    ) -> Result<(), Violation> {
        let (to, from) = self.hosts_of(session, end);
        if self.is_cut(from, to) {
            return self.stall(session, other(end), lane, bytes, fate);
        }
        self.trace
            .step(self.now, &[11, from as u64, to as u64, lane as u64], || {
                format!(
                    "n{to} gets {} bytes of n{from} on {lane:?}: {fate:?}",
                    bytes.len()
                )
            });
        if fate != Fate::Again {
            let outgoing = self.sessions[session].ends[other(end)].lane(lane);
            outgoing.in_flight = outgoing.in_flight.saturating_sub(1);
            if self.sessions[session].ends[other(end)].stands {
                self.pull(session, other(end), lane)?;
            }
        }
        let side = &mut self.sessions[session].ends[end];
        if !side.open {
            // A host that knows nothing of the connection resets it.
            if self.hosts[to].node.is_some() && self.sessions[session].ends[other(end)].open {
                // It has read first what was sent before the end.
                let lanes = self.sessions[session].ends[end].lanes.iter();
                let last = lanes.map(|lane| lane.last_arrival).max();
                let last = last.unwrap_or(self.now) + Duration::from_micros(10);
                let at = (self.now + self.delay()).max(last);
                self.queue.schedule(
                    at,
                    Event::Reset {
                        session,
                        end: other(end),
                    },
                );
            }
            return Ok(());
        }
        if fate == Fate::Lost {
            return Ok(());
        }
        side.heard_at = self.now;
        side.decoders[lane as usize].extend(&bytes);
        loop {
            let side = &mut self.sessions[session].ends[end];
            match side.decoders[lane as usize].next_frame() {
                Ok(Some(frame)) => self.take_frame(session, end, lane, frame)?,
                Ok(None) => return Ok(()),
                Err(error) => return self.misunderstood(session, end, format!("{error}")),
            }
        }
    }

    /// A message runs into a cut: TCP sends it again later, chaos loses it. Either way the writer is not
    /// held up for ever.
    fn stall(
        &mut self,
        session: usize,
        sender: usize,
        lane: Lane,
        bytes: Bytes,
        fate: Fate,
    ) -> Result<(), Violation> {
        let side = &mut self.sessions[session].ends[sender];
        match fate {
            Fate::Delivered => side.stalled.push_back((lane, bytes)),
            Fate::Lost => {
                let outgoing = side.lane(lane);
                outgoing.in_flight = outgoing.in_flight.saturating_sub(1);
                self.pull(session, sender, lane)?;
            }
            Fate::Again => {}
        }
        Ok(())
    }

    /// The link works again: what was stalled is sent again, in order.
    pub(super) fn retransmit(&mut self, from: usize, to: usize) {
        for session in 0..self.sessions.len() {
            for end in [0, 1] {
                if self.hosts_of(session, end) != (from, to) {
                    continue;
                }
                let stalled = std::mem::take(&mut self.sessions[session].ends[end].stalled);
                let mut at = self.now + self.delay() + Duration::from_millis(50);
                for (lane, bytes) in stalled {
                    at += Duration::from_nanos(1);
                    let outgoing = self.sessions[session].ends[end].lane(lane);
                    outgoing.last_arrival = outgoing.last_arrival.max(at);
                    let (end, fate) = (other(end), Fate::Delivered);
                    self.queue.schedule(
                        at,
                        Event::Arrive {
                            session,
                            end,
                            lane,
                            bytes,
                            fate,
                        },
                    );
                }
            }
        }
    }

    /// A whole frame is there: gives it to whom it belongs.
    pub(super) fn take_frame(
        &mut self,
        session: usize,
        end: usize,
        lane: Lane,
        frame: Frame,
    ) -> Result<(), Violation> {
        if matches!(
            frame.kind,
            Kind::HELLO | Kind::WELCOME | Kind::REFUSED | Kind::READY
        ) {
            return self.shake_hands(session, end, lane, &frame);
        }
        let now = self.now;
        let side = &mut self.sessions[session].ends[end];
        if !side.stands {
            side.early.push((lane, frame));
            return Ok(());
        }
        let (host, life) = (side.host, side.life);
        let sender = self.sessions[session].ends[other(end)].host;
        self.meter.from = Some(sender);
        let side = &self.sessions[session].ends[end];
        let Some(from) = side.peer.as_ref().map(|peer| peer.node) else {
            return Ok(());
        };
        let Some(node) = self.alive(host, life) else {
            return Ok(());
        };
        let own = node.time(now);
        let (mut membership, mut cache) = (Vec::new(), Vec::new());
        let mut loaded = None;
        let decoded = MembershipMessage::decode(frame.kind, &frame.body);
        let is_membership = matches!(decoded, Ok(Some(_)));
        let understood = match decoded {
            Ok(Some(message)) => node
                .membership
                .handle(own, from, &message, &mut membership)
                .is_ok(),
            Ok(None) => match wire::decode::<Value>(&frame) {
                Ok(message) => {
                    loaded = loaded_elsewhere(&message);
                    if node.is_open {
                        node.core.handle(own, from, message, &mut cache);
                    }
                    true
                }
                Err(_) => false,
            },
            Err(_) => false,
        };
        if !understood {
            return self.misunderstood(session, end, format!("{frame:?}"));
        }
        if is_membership {
            self.carry_membership(host, membership)?;
        }
        if let Some(key) = loaded {
            self.checkers.leases.told(now, host, key);
        }
        self.carry_cache(host, cache)?;
        self.settle(host)
    }

    /// What arrived is no message: the connection is closed, as it is by the shell.
    fn misunderstood(&mut self, session: usize, end: usize, what: String) -> Result<(), Violation> {
        let side = &self.sessions[session].ends[end];
        if !side.garbled {
            let what = format!("n{} cannot read {what}", side.host);
            return Err(self.violation("wire", what));
        }
        self.sometimes.reach(Place::Garbled);
        self.close(session, end, true)
    }

    pub(super) fn violation(&self, rule: &'static str, what: String) -> Violation {
        let at: Time = self.now;
        Violation { rule, at, what }
    }
}

/// The key of which a home node says that somebody has loaded it.
fn loaded_elsewhere(message: &CacheMessage<Value>) -> Option<usize> {
    match message {
        CacheMessage::Load {
            message: LoadMessage::Answer(Answer::Loaded(update)),
            ..
        } => update.key().and_then(number_of),
        _ => None,
    }
}

/// A message of a cache, with the numbers that tell what it is about.
fn story(message: &CacheMessage<Value>) -> String {
    let name = message.name();
    match message {
        CacheMessage::Updates(batch) => format!("{name} {batch:?}"),
        CacheMessage::Subscribe { epoch, after } => format!("{name} {epoch:?} after {after:?}"),
        CacheMessage::Subscribed { epoch, after } => format!("{name} {epoch:?} after {after}"),
        CacheMessage::Ack {
            epoch,
            after,
            applied,
        } => {
            format!("{name} {epoch:?} ({after}, {applied}]")
        }
        CacheMessage::Heartbeat {
            latest,
            ready,
            progress,
            ..
        } => {
            format!("{name} latest {latest} ready {ready} {progress:?}")
        }
        CacheMessage::Relayed(relayed) => format!("{name} {relayed:?}"),
        CacheMessage::Want(wants) => format!("{name} {wants:?}"),
        CacheMessage::Ask(ask) => format!("{name} {ask:?}"),
        CacheMessage::State(state) => format!("{name} {state:?}"),
        CacheMessage::Announce(announcement) => format!("{name} {announcement:?}"),
        CacheMessage::TransferStart {
            ready,
            progress,
            floors,
            ..
        } => {
            format!("{name} ready {ready} {progress:?} {} floors", floors.len())
        }
        CacheMessage::TransferRequest { parts, cursor, .. } => {
            format!("{name} {parts:?} from {cursor:?}")
        }
        CacheMessage::TransferChunk { chunk, .. } => format!("{name} {chunk:?}"),
        _ => name.to_owned(),
    }
}
