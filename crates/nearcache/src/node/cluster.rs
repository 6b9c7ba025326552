//! What this node knows of the cluster: the membership machine and its shell.
//!
//! ```text
//! sessions ─ connected, lost ─▶ ┌────────────┐ ─ Send ─▶ control lanes    Dial ─▶ dialer    Reach ─▶ probe connections
//! readers ─ handle ────────────▶│ membership │ ─ up, down ─▶ events, caches
//! driver ─ tick ───────────────▶└────────────┘
//! ```
//!
//! Locks are taken in this order: changes of sessions, membership, machine of a cache, outbox.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use nearcache_protocol::frame;
use nearcache_protocol::handshake::Local;
use nearcache_protocol::identity::{Identity, Zone};
use nearcache_protocol::lane::Lane;
use nearcache_protocol::membership::{
    DownReason, Membership, MembershipConfig, MembershipError, MembershipMessage, MembershipOutput,
};
use nearcache_protocol::time::Time;
use nearcache_store::{NodeId, Timestamp};
use parking_lot::Mutex;

use super::errors::StartError;
use super::events::NodeEvent;
use super::members::{Member, MemberState, NodeLinks};
use super::shared::{NodeConfig, NodeShared};
use crate::cache::CachePort;
use crate::random::random;
use crate::transport::{self, Direction};

/// How long a peer that sent a bad frame is not talked to (reliability specification, 3.1).
const QUARANTINE: Duration = Duration::from_secs(30);

/// The membership of a node and its dealings with peers.
#[derive(Debug)]
pub(crate) struct ClusterState {
    cluster: String,
    name: String,
    mesh_max: u32,
    state: Mutex<State>,
    /// Members that caches need sessions with, since the last tick.
    needed: Mutex<BTreeSet<NodeId>>,
}

#[derive(Debug)]
struct State {
    membership: Membership,
    out: Vec<MembershipOutput>,
    /// Names of the nodes met, for people.
    names: HashMap<NodeId, Arc<str>>,
    /// Disconnected by hand.
    banned: HashSet<NodeId>,
    /// Sent a bad frame, and until when that is held against them.
    quarantined: HashMap<NodeId, Time>,
    /// Where nodes listen that talk no version of the protocol in common with this one.
    held_off: HashMap<SocketAddr, Time>,
    /// Being dialled now.
    dialing: HashSet<NodeId>,
    /// Our own ends of connections that our own listener was reached by.
    own_ends: HashSet<SocketAddr>,
    /// Whether there were more members than a full mesh may have when some last came or went.
    by_tree: bool,
}

impl ClusterState {
    pub(super) fn new(
        config: &NodeConfig,
        epoch: nearcache_protocol::ids::Epoch,
        now: Time,
    ) -> Result<Self, StartError> {
        let identity = Identity::new(config.id, epoch, config.advertised, Zone::default());
        let membership = MembershipConfig {
            mesh_max: config.mesh_max,
            member_limit: config.member_limit,
            ..MembershipConfig::default()
        };
        let membership = Membership::new(membership, identity, random(), now)?;
        Ok(Self {
            cluster: config.cluster.clone(),
            name: config.name.clone(),
            mesh_max: u32::try_from(config.mesh_max).unwrap_or(u32::MAX),
            state: Mutex::new(State {
                membership,
                out: Vec::new(),
                names: HashMap::new(),
                banned: HashSet::new(),
                quarantined: HashMap::new(),
                held_off: HashMap::new(),
                dialing: HashSet::new(),
                own_ends: HashSet::new(),
                by_tree: false,
            }),
            needed: Mutex::default(),
        })
    }

    /// What this node says of itself.
    pub(crate) fn local(&self) -> Local {
        self.with_membership(|local, _| local.clone())
    }

    /// Decides about a handshake with what the membership knows.
    pub(crate) fn with_membership<T>(&self, decide: impl FnOnce(&Local, &Membership) -> T) -> T {
        let state = self.state.lock();
        let identity = state.membership.identity().clone();
        let local = Local {
            mesh_max: self.mesh_max,
            ..Local::new(&self.cluster, &self.name, identity)
        };
        decide(&local, &state.membership)
    }

    /// Whether sessions with `peer` are refused for now.
    pub(crate) fn is_unwanted(&self, peer: NodeId, now: Time) -> bool {
        let mut state = self.state.lock();
        state.quarantined.retain(|_, until| *until > now);
        state.banned.contains(&peer) || state.quarantined.contains_key(&peer)
    }

    /// Refuses sessions with `peer` for 30 s.
    pub(crate) fn quarantine(&self, peer: NodeId, now: Time) {
        self.state.lock().quarantined.insert(peer, now + QUARANTINE);
    }

    /// Has nobody dial `address` for 30 s: what answers there talks another protocol.
    pub(crate) fn hold_off(&self, address: SocketAddr, now: Time) {
        self.state.lock().held_off.insert(address, now + QUARANTINE);
    }

    /// Whether `address` is not to be dialled for now.
    pub(crate) fn is_held_off(&self, address: SocketAddr, now: Time) -> bool {
        self.state.lock().is_held_off(address, now)
    }

    /// Refuses sessions with `peer` until it is allowed again.
    pub(crate) fn ban(&self, peer: NodeId) {
        self.state.lock().banned.insert(peer);
    }

    /// Forgets every ban; said of all because an address does not tell whose it is.
    pub(crate) fn allow_all(&self) {
        self.state.lock().banned.clear();
    }

    /// A session has begun.
    pub(crate) fn connected(&self, shared: &Arc<NodeShared>, peer: &Identity, name: &Arc<str>) {
        shared.events().send(&NodeEvent::Connected(peer.node));
        let mut state = self.state.lock();
        state.names.insert(peer.node, Arc::clone(name));
        state.step(shared, |membership, now, out| {
            membership.connected(now, peer, out)
        });
    }

    /// A member has told its name without a session.
    pub(crate) fn is_called(&self, peer: NodeId, name: &Arc<str>) {
        let mut state = self.state.lock();
        if state.membership.live_member(peer).is_some() {
            state.names.insert(peer, Arc::clone(name));
        }
    }

    /// A session has ended.
    pub(crate) fn lost(&self, shared: &Arc<NodeShared>, peer: NodeId) {
        shared.events().send(&NodeEvent::Disconnected(peer));
        let mut state = self.state.lock();
        state.step(shared, |membership, now, out| {
            membership.peer_lost(now, peer, out)
        });
    }

    /// A message of the membership arrived.
    pub(crate) fn handle(
        &self,
        shared: &Arc<NodeShared>,
        from: NodeId,
        message: &MembershipMessage,
    ) -> Result<(), MembershipError> {
        let mut state = self.state.lock();
        state.step(shared, |membership, now, out| {
            membership.handle(now, from, message, out)
        })
    }

    /// A cache needs a session with this member, beyond the mesh. Takes no lock but its own.
    pub(crate) fn needs(&self, member: NodeId) {
        self.needed.lock().insert(member);
    }

    /// Lets time pass.
    pub(crate) fn tick(&self, shared: &Arc<NodeShared>) {
        let needed = std::mem::take(&mut *self.needed.lock());
        let mut state = self.state.lock();
        for member in needed {
            state.membership.meet(shared.now(), member);
        }
        transport::open_for_questions(shared, |member| {
            let identity = state.membership.live_member(member)?;
            (!state.is_held_off_or_banned(shared, &identity)).then_some(identity)
        });
        if state.membership.next_tick() <= shared.now() {
            state.step(shared, |membership, now, out| membership.tick(now, out));
        }
    }

    /// Tells the peers that this node leaves.
    pub(crate) fn leave(&self, shared: &Arc<NodeShared>) {
        let mut state = self.state.lock();
        state.step(shared, |membership, now, out| membership.leave(now, out));
    }

    /// Tells a cache that was just opened of the members that are there already.
    pub(crate) fn introduce(&self, cache: &dyn CachePort) {
        let state = self.state.lock();
        for member in state.membership.members() {
            cache.member_up(member.identity.node, member.identity.epoch);
        }
    }

    /// Our listener was reached by ourselves, from `end`.
    pub(crate) fn reached_by_myself(&self, end: SocketAddr) {
        self.state.lock().own_ends.insert(end);
    }

    /// Whether the connection whose near end is `end` led back to us. Asked once of each.
    pub(crate) fn led_to_myself(&self, end: SocketAddr) -> bool {
        self.state.lock().own_ends.remove(&end)
    }

    /// A dial ended, however.
    pub(crate) fn dialled(&self, peer: NodeId) {
        self.state.lock().dialing.remove(&peer);
    }

    /// Whether there are more members than a full mesh may have.
    pub(crate) fn is_by_tree(&self) -> bool {
        self.state.lock().by_tree
    }

    /// The name of a node that was ever met.
    pub(super) fn name_of(&self, node: NodeId) -> Option<String> {
        let state = self.state.lock();
        state.names.get(&node).map(|name| name.to_string())
    }

    /// The live members other than this node, by id.
    pub(crate) fn others(&self, shared: &NodeShared) -> Vec<Member> {
        let state = self.state.lock();
        let members = state.membership.members().map(|member| {
            let mut seen = state.member(&member.identity);
            if shared.links().is_connected(seen.id) {
                seen.state = MemberState::Connected;
            }
            seen
        });
        members.collect()
    }
}

impl State {
    /// One step of the machine, and what it asks for.
    fn step<T>(
        &mut self,
        shared: &Arc<NodeShared>,
        step: impl FnOnce(&mut Membership, Time, &mut Vec<MembershipOutput>) -> T,
    ) -> T {
        let mut out = std::mem::take(&mut self.out);
        let result = step(&mut self.membership, shared.now(), &mut out);
        // A write that waits for all must hear of the new ones before the dead end its wait.
        let mut changed = false;
        for output in &out {
            changed |= matches!(output, MembershipOutput::MemberDown { .. });
            if let MembershipOutput::MemberUp(identity) = output {
                changed = true;
                for cache in shared.caches().values() {
                    cache.member_up(identity.node, identity.epoch);
                }
            }
        }
        if changed {
            self.note_size(shared);
        }
        let mut down = Vec::new();
        for output in out.drain(..) {
            match &output {
                MembershipOutput::MemberDown { identity, .. } => down.push(identity.node),
                // Its former start has gone in this step, and took it with it.
                MembershipOutput::MemberUp(identity) if down.contains(&identity.node) => {
                    for cache in shared.caches().values() {
                        cache.member_up(identity.node, identity.epoch);
                    }
                }
                _ => {}
            }
            self.carry_out(shared, output);
        }
        self.out = out;
        result
    }

    /// Members have come or gone: tells when the mesh gives way to the tree, or comes back.
    fn note_size(&mut self, shared: &NodeShared) {
        let by_tree = self.membership.is_beyond_mesh();
        if std::mem::replace(&mut self.by_tree, by_tree) == by_tree {
            return;
        }
        let mesh_max = shared.config().mesh_max;
        if by_tree {
            tracing::info!(
                mesh_max,
                "more members than a full mesh has: updates travel along a tree"
            );
        } else {
            tracing::info!(mesh_max, "all members are connected to all again");
        }
    }

    fn carry_out(&mut self, shared: &Arc<NodeShared>, output: MembershipOutput) {
        match output {
            MembershipOutput::Send { to, message } => {
                shared.links().send(to, Lane::Control, |limit, buffer| {
                    frame::encode(message.kind(), 0, &message.body(), limit, buffer)
                });
            }
            MembershipOutput::Reach { to, message } => {
                if !self.is_held_off_or_banned(shared, &to) {
                    transport::reach(shared, &to, &message);
                }
            }
            MembershipOutput::Part(peer) => shared.links().part(peer),
            MembershipOutput::Dial(identity) => self.dial(shared, &identity),
            MembershipOutput::MemberUp(identity) => {
                tracing::info!(member = ?identity, "member up");
                shared
                    .events()
                    .send(&NodeEvent::MemberUp(self.member(&identity)));
            }
            MembershipOutput::MemberDown { identity, reason } => {
                tracing::info!(member = ?identity, ?reason, "member down");
                let member = self.member(&identity);
                let event = match reason {
                    DownReason::Left => {
                        for cache in shared.caches().values() {
                            cache.peer_left(identity.node);
                        }
                        NodeEvent::MemberLeft(member)
                    }
                    DownReason::Failed => {
                        // A session that looks alive is not to be believed: a new one will show.
                        shared.links().close(identity.node);
                        for cache in shared.caches().values() {
                            cache.peer_dead(identity.node);
                        }
                        NodeEvent::MemberDown(member)
                    }
                    DownReason::Replaced => NodeEvent::MemberDown(member),
                };
                shared.events().send(&event);
            }
            MembershipOutput::Renewed(identity) => {
                tracing::warn!(member = ?identity, "was held for dead and came back");
            }
            other => tracing::debug!(?other, "unknown output of the membership"),
        }
    }

    fn dial(&mut self, shared: &Arc<NodeShared>, identity: &Identity) {
        let (peer, address) = (identity.node, identity.address);
        let is_held_off = self.is_held_off_or_banned(shared, identity);
        if is_held_off || shared.links().is_connected(peer) || !self.dialing.insert(peer) {
            return;
        }
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let stopped = shared.stopped().clone();
            let dialled = stopped
                .run_until_cancelled(transport::dial(&shared, address))
                .await;
            match dialled {
                Some(Err(error)) if error.is_refusal() => {
                    tracing::warn!(%peer, %error, "cannot connect to a member");
                }
                Some(Err(error)) => tracing::debug!(%peer, %error, "cannot connect to a member"),
                Some(Ok(_)) | None => {}
            }
            shared.cluster_state().dialled(peer);
        });
    }

    /// Whether nothing is to be opened to this member for now.
    fn is_held_off_or_banned(&mut self, shared: &NodeShared, member: &Identity) -> bool {
        self.banned.contains(&member.node)
            || self.quarantined.contains_key(&member.node)
            || self.is_held_off(member.address, shared.now())
    }

    fn is_held_off(&mut self, address: SocketAddr, now: Time) -> bool {
        self.held_off.retain(|_, until| *until > now);
        self.held_off.contains_key(&address)
    }

    fn member(&self, identity: &Identity) -> Member {
        Member {
            id: identity.node,
            name: self.names.get(&identity.node).map(|name| name.to_string()),
            epoch: identity.epoch,
            address: identity.address,
            state: MemberState::Unconnected,
        }
    }
}

impl NodeShared {
    /// This node's physical clock, as the handshake tells it.
    pub(crate) fn handshake_time(&self) -> Timestamp {
        Timestamp::from_parts(self.hlc().physical_ms(self.now()), 0)
    }

    pub(super) fn members(&self) -> Vec<Member> {
        let myself = Member {
            id: self.id(),
            name: Some(self.name().to_owned()),
            epoch: self.epoch(),
            address: self.config().advertised,
            state: MemberState::Myself,
        };
        let mut members = vec![myself];
        members.extend(self.cluster_state().others(self));
        members
    }

    pub(super) fn links_now(&self) -> NodeLinks {
        NodeLinks {
            sessions: self.links().len(),
            by_tree: self.cluster_state().is_by_tree(),
            probes_dialled: self.probes().open(Direction::Dialled),
            probes_accepted: self.probes().open(Direction::Accepted),
        }
    }

    pub(super) fn disconnect(&self, peer: NodeId) -> bool {
        self.cluster_state().ban(peer);
        self.probes().close(peer);
        self.links().close(peer)
    }
}
