//! Short-lived connections: what the membership, and the audit of the cache, have to say to members without a session.
//!
//! As in the library's pool: a bounded number on each node, opened on demand on the control lane, used in both directions, the one that
//! was used longest ago closed first. Opening costs a connection and a handshake.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nearcache_protocol::frame::{FrameDecoder, FrameLimit, Kind};
use nearcache_protocol::handshake::{Handshake, MAX_DRIFT_MS, SessionToken};
use nearcache_protocol::identity::Identity;
use nearcache_protocol::lane::Lane;
use nearcache_protocol::machine::Machine as _;
use nearcache_protocol::membership::{MembershipMessage, MembershipOutput};
use nearcache_protocol::message::CacheMessage;
use nearcache_protocol::wire;
use nearcache_store::{NodeId, Timestamp};
use rand::RngExt as _;

use super::{Cluster, Event};
use crate::node::{cache_id, host_at};
use crate::sometimes::Place;
use crate::value::Value;
use crate::violation::Violation;

/// Connections that a node has at a time.
const POOL_MAX: usize = 16;
/// How long one stays that is not used; longer than as shipped, where what is said over them is not counted.
const IDLE_MAX: Duration = Duration::from_secs(5);
/// The same as shipped.
const IDLE_SHIPPED: Duration = Duration::from_secs(2);
/// Frame header and length.
const HEADER_BYTES: usize = 14;

/// The third frame of a handshake: a header, a tag and a time.
const READY_BYTES: usize = HEADER_BYTES + 9;

/// A message on its way over such a connection.
pub(crate) struct Reached {
    from: usize,
    pub(crate) to: usize,
    life: u32,
    what: Said,
}

/// What is said over one.
enum Said {
    /// By the membership.
    Membership(Kind, Bytes),
    /// By the cache, as a frame.
    Cache(Bytes),
}

impl Cluster {
    /// Sends to a member without a session.
    pub(super) fn reach(&mut self, host: usize, to: &Identity, message: &MembershipMessage) {
        let Some(there) = host_at(to.address).filter(|to| *to < self.hosts.len()) else {
            return;
        };
        let body = message.body();
        self.meter.sent(message.kind().0, HEADER_BYTES + body.len());
        let said = Said::Membership(message.kind(), body);
        self.say(host, there, said);
    }

    /// Sends what the cache asks or answers.
    pub(super) fn reach_cache(&mut self, host: usize, to: NodeId, message: &CacheMessage<Value>) {
        let node = self.hosts[host].node.as_ref();
        let member = node.and_then(|node| node.membership.live_member(to));
        let there = member.and_then(|member| host_at(member.address));
        let Some(there) = there.filter(|to| *to < self.hosts.len()) else {
            return;
        };
        let mut bytes = BytesMut::new();
        if wire::encode(cache_id(), message, FrameLimit::DEFAULT, &mut bytes).is_ok() {
            self.meter
                .sent(bytes.get(5).copied().unwrap_or(0), bytes.len());
            self.say(host, there, Said::Cache(bytes.freeze()));
        }
    }

    fn say(&mut self, host: usize, there: usize, what: Said) {
        if self.is_cut(host, there) || self.is_cut(there, host) || self.hosts[there].node.is_none()
        {
            return;
        }
        let stands = self.lend_connection(host, there);
        self.lend_connection(there, host);
        if self.is_lost_on_the_way() || self.clocks_are_apart(host, there) {
            return;
        }
        let mut at = self.now + self.delay();
        if !stands {
            self.sometimes.reach(Place::ReachedFar);
            self.count_handshake(host, there);
            at += self.delay() + self.delay() + self.delay() + self.delay();
        }
        let (Said::Membership(_, bytes) | Said::Cache(bytes)) = &what;
        self.trace.bytes(bytes);
        let reached = Reached {
            from: host,
            to: there,
            life: self.hosts[there].life,
            what,
        };
        self.queue.schedule(at, Event::Reached(reached));
    }

    /// Whether the handshake of such a connection fails because of the clocks: by the same rule as that of a session.
    fn clocks_are_apart(&self, a: usize, b: usize) -> bool {
        let apart_ms = self.clocks_apart_ms(a, b);
        apart_ms.is_some_and(|apart_ms| apart_ms > MAX_DRIFT_MS)
    }

    fn is_lost_on_the_way(&mut self) -> bool {
        let weather = &self.plan.weather;
        let astray = weather.membership_astray && !self.healed;
        let loss = weather.chaos.filter(|_| astray).map(|chaos| chaos.loss);
        loss.is_some_and(|loss| self.rng.random_bool(loss))
    }

    /// One is opened: what is said for it counts too.
    fn count_handshake(&mut self, host: usize, there: usize) {
        self.meter.connections += 1;
        self.meter.sent(Kind::READY.0, READY_BYTES);
        for (at, kind) in [(host, Kind::HELLO), (there, Kind::WELCOME)] {
            if let Some(node) = self.hosts[at].node.as_ref() {
                // Both say about the same of themselves.
                let token = SessionToken(0);
                let (_, hello) = Handshake::dial_probe(node.local(), token, Timestamp::ZERO);
                self.meter.sent(kind.0, hello.len());
            }
        }
    }

    /// Whether the host has a connection to `peer` already; from now on it has.
    fn lend_connection(&mut self, host: usize, peer: usize) -> bool {
        let now = self.now;
        let idle_max = if self.plan.as_shipped {
            IDLE_SHIPPED
        } else {
            IDLE_MAX
        };
        let Some(node) = self.hosts[host].node.as_mut() else {
            return false;
        };
        node.pool.retain(|_, used| now - *used < idle_max);
        let stood = node.pool.insert(peer, now).is_some();
        if node.pool.len() > POOL_MAX {
            let oldest = node.pool.iter().min_by_key(|(_, used)| **used);
            if let Some(oldest) = oldest.map(|(peer, _)| *peer) {
                node.pool.remove(&oldest);
            }
        }
        stood
    }

    /// It arrives.
    pub(super) fn reached(&mut self, reached: Reached) -> Result<(), Violation> {
        let Reached {
            from,
            to,
            life,
            what,
        } = reached;
        let now = self.now;
        let Some(sender) = self.hosts[from].node.as_ref().map(|node| node.id) else {
            return Ok(());
        };
        if self.is_cut(from, to) {
            return Ok(());
        }
        let Some(node) = self.alive(to, life) else {
            return Ok(());
        };
        let own = node.time(now);
        match what {
            Said::Membership(kind, body) => {
                let mut out = Vec::<MembershipOutput>::new();
                if let Ok(Some(message)) = MembershipMessage::decode(kind, &body) {
                    // What the machine refuses closes the connection, which nobody misses.
                    let _ = node.membership.handle(own, sender, &message, &mut out);
                }
                self.carry_membership(to, out)?;
            }
            Said::Cache(bytes) => {
                let mut out = Vec::new();
                let mut decoder = FrameDecoder::new(FrameLimit::DEFAULT);
                decoder.extend(&bytes);
                if let Ok(Some(frame)) = decoder.next_frame()
                    && let Ok(message) = wire::decode::<Value>(&frame)
                {
                    node.core.handle(own, sender, message, &mut out);
                }
                self.carry_cache(to, out)?;
            }
        }
        self.settle(to)
    }

    /// The membership ends a session that the tree does not want. What was sent before arrives before.
    pub(super) fn part(&mut self, host: usize, peer: NodeId) -> Result<(), Violation> {
        let Some((session, end)) = self.session_with(host, peer) else {
            return Ok(());
        };
        self.sometimes.reach(Place::Parted);
        let last = self.sessions[session].ends[end]
            .lane(Lane::Control)
            .last_arrival;
        self.close_at(session, end, last)
    }
}
