//! Who is in the cluster: SWIM, carried inside the peer connections.
//!
//! ```text
//! transport ─ connected / peer_lost ─▶ ┌────────────┐ ─▶ Send      to a peer's control lane
//! transport ─ handle(from, message) ─▶ │ Membership │ ─▶ Dial      a member without a session
//! clock     ─ tick(now)             ─▶ │  (foca)    │ ─▶ MemberUp, MemberDown
//! owner     ─ leave                 ─▶ └────────────┘ ─▶ Renewed   we came back from the dead
//! ```
//!
//! foca decides by SWIM (probe, suspect, declare dead, gossip); this module gives it our identities and
//! packets and keeps its timers. What SWIM over datagrams does not have and our connections give:
//!
//! - **Loss of all connections** to a member makes it suspect at once ([`Membership::peer_lost`]).
//! - **Whole member lists** are exchanged when two nodes connect and every 10 s with a random peer:
//!   gossip alone leaves a slow tail of nodes that missed a piece of news.
//! - **Obituaries of members with a session are hearsay** and make it suspect only. It is told of them, so that it comes back
//!   renewed: whoever spread them may have no link to it.
//! - **Members without a session are dialled**, dead ones rarely, so that partitions heal by themselves.
//! - **A node that was paused** puts its timers off once and reads its messages first: what it missed
//!   while it did not run proves nothing about the others.
//!
//! Source: Das, Gupta and Motivala, "SWIM", DSN 2002; the last point is in the spirit of Dadgar et al.,
//! "Lifeguard", DSN 2018, section IV. Decision record 0004 tells why foca.

mod codec;
mod config;
mod contacts;
mod hearsay;
mod links;
mod message;
mod timers;

use std::cell::RefCell;

use foca::{AccumulatingRuntime, Foca, NoCustomBroadcast, OwnedNotification, State};
use nearcache_store::NodeId;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

pub use self::codec::SwimCodecError;
pub use self::config::{MEMBER_LIMIT_MAX, MembershipConfig, MembershipConfigError};
pub use self::message::MembershipMessage;

use self::codec::SwimCodec;
use self::contacts::Contacts;
use self::timers::{Timer, Timers};
use crate::control::{self, ControlError, Leave, MemberList, MemberRecord, WireIdentity};
use crate::handshake::{Known, Registry};
use crate::identity::Identity;
use crate::time::Time;

/// What the membership asks its shell to do, or tells it.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum MembershipOutput {
    /// Send this on the control lane of the session with `to`; without a session it is lost, which is
    /// harmless.
    Send {
        /// To whom.
        to: NodeId,
        /// What.
        message: MembershipMessage,
    },
    /// Beyond the mesh: send this to a member without a session, over a short-lived connection of the control lane. If none can be
    /// had it is lost, which is harmless.
    Reach {
        /// To whom.
        to: Identity,
        /// What.
        message: MembershipMessage,
    },
    /// Beyond the mesh: end the session with this peer, once what was sent is out; the tree does not want it.
    Part(NodeId),
    /// Make one attempt to open a session with this member. When to try again is decided here.
    Dial(Identity),
    /// This node is now a live member.
    MemberUp(Identity),
    /// This node is no longer a live member.
    MemberDown {
        /// Who.
        identity: Identity,
        /// Why.
        reason: DownReason,
    },
    /// We had been declared dead and came back under this identity; handshakes use it from now on.
    Renewed(Identity),
}

/// Why a member is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DownReason {
    /// It did not answer.
    Failed,
    /// It left on purpose.
    Left,
    /// It was started again; the new start is a member from now on.
    Replaced,
}

/// One live member other than this node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Who.
    pub identity: Identity,
    /// Whether there is a session with it.
    pub connected: bool,
}

/// Why a peer's message was refused. The membership is unchanged; the connection closes.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipError {
    /// A control message is wrong.
    #[error(transparent)]
    Control(#[from] ControlError),
    /// A SWIM packet cannot be read.
    #[error("unreadable membership packet")]
    Packet(#[from] SwimCodecError),
    /// A peer speaks in another's name.
    #[error("{from} sent a message of {claimed}")]
    Impostor {
        /// Whose connection it is.
        from: NodeId,
        /// Who the message says it is from.
        claimed: NodeId,
    },
    /// The SWIM implementation refused the packet.
    #[error("membership packet refused")]
    Swim(#[from] foca::Error),
}

/// How many doubted obituaries a node passes on to their subjects between two exchanges of lists: enough where a link or two are
/// missing, and next to nothing when two halves of a large cluster meet again, whose nodes tell each other (guess).
const DOUBTS_TOLD_MAX: usize = 8;

type Swim = Foca<Identity, SwimCodec, StdRng, NoCustomBroadcast>;

/// The membership of one node. One per node; see the module for what goes in and out.
///
/// Cost of each call: O(members). Nothing blocks.
pub struct Membership {
    config: MembershipConfig,
    swim: Swim,
    timers: Timers,
    contacts: Contacts,
    rng: StdRng,
    timers_put_off: bool,
    /// How many doubted obituaries their subjects may still be told of.
    tells_left: usize,
    left: bool,
    /// Members have come or gone since links were chosen.
    links_are_stale: bool,
}

impl std::fmt::Debug for Membership {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Membership")
            .field("identity", self.identity())
            .field("contacts", &self.contacts)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl Membership {
    /// The membership of a node that has just started and knows nobody.
    ///
    /// All its random choices follow from `seed`, which the owner draws.
    ///
    /// # Errors
    ///
    /// [`MembershipConfigError`] if the configuration contradicts itself.
    pub fn new(
        config: MembershipConfig,
        identity: Identity,
        seed: u64,
        now: Time,
    ) -> Result<Self, MembershipConfigError> {
        config.validate()?;
        let mut rng = StdRng::seed_from_u64(seed);
        let swim_rng = StdRng::from_rng(&mut rng);
        let contacts = Contacts::new(identity.node, config.redial_min, config.redial_max);
        let swim = Foca::new(identity, config.swim(), swim_rng, SwimCodec::default());
        let mut timers = Timers::default();
        timers.set(now + config.list_exchange_period, Timer::ListExchange);
        timers.set(now + links::PRUNE_PERIOD, Timer::Prune);
        Ok(Self {
            config,
            swim,
            timers,
            contacts,
            rng,
            timers_put_off: false,
            tells_left: DOUBTS_TOLD_MAX,
            left: false,
            links_are_stale: false,
        })
    }

    /// This node, as the others know it.
    #[must_use]
    pub const fn identity(&self) -> &Identity {
        self.swim.identity()
    }

    /// The live members other than this node, in the order of their ids.
    pub fn members(&self) -> impl Iterator<Item = Member> {
        let alive = self
            .contacts
            .iter()
            .filter(|contact| contact.down_since.is_none());
        alive.map(|contact| Member {
            identity: contact.identity.clone(),
            connected: contact.connected,
        })
    }

    /// Another node, if it is a live member. Cost: O(log n).
    #[must_use]
    pub fn live_member(&self, node: NodeId) -> Option<Identity> {
        let contact = self.contacts.get(node);
        let contact = contact.filter(|contact| contact.down_since.is_none());
        contact.map(|contact| contact.identity.clone())
    }

    /// A session with `peer` has begun: its handshake is complete on the control lane.
    pub fn connected(&mut self, now: Time, peer: &Identity, out: &mut Vec<MembershipOutput>) {
        if self.left || peer.node == self.identity().node {
            return;
        }
        let alive = foca::Member::alive(peer.clone());
        self.swim(now, out, |swim, runtime| {
            swim.apply_many(std::iter::once(alive), true, runtime)
        });
        // A peer that is still held for dead learns it from our list, and comes back renewed.
        self.contacts.note(now, peer);
        self.note_session(now, peer.node, true);
        self.send_list(peer.node, false, out);
    }

    /// All connections to `node` are lost: the fast sign of a crash.
    ///
    /// The member is suspect from now on and declared dead if it neither refutes through others nor is
    /// connected again within [`MembershipConfig::suspicion_after_loss`].
    pub fn peer_lost(&mut self, now: Time, node: NodeId, out: &mut Vec<MembershipOutput>) {
        let parting = self.contacts.get(node).is_some_and(|known| known.parting);
        self.note_session(now, node, false);
        if parting {
            return;
        }
        let active = self
            .swim
            .iter_members()
            .find(|member| member.id().node == node);
        let Some((identity, incarnation)) =
            active.map(|member| (member.id().clone(), member.incarnation()))
        else {
            return;
        };
        let suspect = foca::Member::new(identity.clone(), incarnation, State::Suspect);
        self.swim(now, out, |swim, runtime| {
            swim.apply_many(std::iter::once(suspect), true, runtime)
        });
        let at = now + self.config.suspicion_after_loss;
        self.timers.set(
            at,
            Timer::LostToDown {
                identity,
                incarnation,
            },
        );
    }

    /// Takes a message of the peer `from`.
    ///
    /// # Errors
    ///
    /// [`MembershipError`] if the message is wrong; nothing has changed, close the connection.
    pub fn handle(
        &mut self,
        now: Time,
        from: NodeId,
        message: &MembershipMessage,
        out: &mut Vec<MembershipOutput>,
    ) -> Result<(), MembershipError> {
        if self.left {
            return Ok(());
        }
        match message {
            MembershipMessage::Swim(packet) => self.handle_packet(now, from, packet, out),
            MembershipMessage::List(list) => self.handle_list(now, from, list, out),
            MembershipMessage::Leave(leave) => self.handle_leave(now, from, leave, out),
            MembershipMessage::Part => {
                if let Some(contact) = self.contacts.get_mut(from) {
                    contact.parting = true;
                }
                Ok(())
            }
        }
    }

    /// Lets time pass: fires what is due.
    pub fn tick(&mut self, now: Time, out: &mut Vec<MembershipOutput>) {
        if self.left {
            return;
        }
        if self.was_paused(now) {
            self.timers.put_off(self.config.probe_period);
            self.timers_put_off = true;
            return;
        }
        self.timers_put_off = false;
        while let Some(timer) = self.timers.take_due(now) {
            self.fire(now, timer, out);
        }
        self.choose_links(now);
        for identity in self.contacts.due(now, &mut self.rng) {
            out.push(MembershipOutput::Dial(identity));
        }
    }

    /// When [`Self::tick`] is to be called next; [`Time::MAX`] after leaving.
    #[must_use]
    pub fn next_tick(&self) -> Time {
        if self.left {
            return Time::MAX;
        }
        self.timers.next_at().min(self.contacts.next_redial())
    }

    /// Leaves the cluster on purpose: every connected peer is told. Nothing comes out of the membership
    /// afterwards; give the messages a moment before closing the connections.
    pub fn leave(&mut self, now: Time, out: &mut Vec<MembershipOutput>) {
        if self.left {
            return;
        }
        let leave = Leave {
            identity: Some(WireIdentity::from(self.identity())),
        };
        for contact in self.contacts.iter().filter(|contact| contact.connected) {
            let message = MembershipMessage::Leave(leave.clone());
            out.push(MembershipOutput::Send {
                to: contact.identity.node,
                message,
            });
        }
        self.swim(now, out, |swim, runtime| swim.leave_cluster(runtime));
        self.left = true;
    }

    /// Tells a pause: a tick that comes late by more than a probe's patience means that this node did not run. Once
    /// only: on a machine that is always late detection must still go on.
    fn was_paused(&self, now: Time) -> bool {
        let late = now - self.timers.next_at();
        late > self.config.probe_timeout && !self.timers_put_off
    }

    fn fire(&mut self, now: Time, timer: Timer, out: &mut Vec<MembershipOutput>) {
        match timer {
            Timer::Swim(timer) => {
                self.swim(now, out, |swim, runtime| swim.handle_timer(timer, runtime));
            }
            Timer::LostToDown {
                identity,
                incarnation,
            } => {
                self.lost_to_down(now, identity, incarnation, out);
            }
            Timer::Prune => {
                self.timers.set(now + links::PRUNE_PERIOD, Timer::Prune);
                self.prune(now, out);
            }
            Timer::ListExchange => {
                self.timers
                    .set(now + self.list_exchange_period(), Timer::ListExchange);
                self.tells_left = DOUBTS_TOLD_MAX;
                self.forget_long_dead(now, out);
                self.exchange_lists(out);
            }
        }
    }

    fn lost_to_down(
        &mut self,
        now: Time,
        identity: Identity,
        incarnation: u16,
        out: &mut Vec<MembershipOutput>,
    ) {
        let refuted = !self.swim.iter_members().any(|member| {
            member.id() == &identity
                && member.incarnation() == incarnation
                && member.state() == State::Suspect
        });
        if refuted || self.contacts.is_connected(identity.node) {
            return;
        }
        let down = foca::Member::new(identity, incarnation, State::Down);
        self.swim(now, out, |swim, runtime| {
            swim.apply_many(std::iter::once(down), true, runtime)
        });
    }

    fn forget_long_dead(&mut self, now: Time, out: &mut Vec<MembershipOutput>) {
        let after = self.config.forget_after;
        let long_dead = |since: Option<Time>| since.is_some_and(|since| now - since > after);
        let contacts = self.contacts.iter().filter(|contact| !contact.connected);
        let forgotten: Vec<Identity> = contacts
            .filter(|contact| long_dead(contact.down_since))
            .map(|contact| contact.identity.clone())
            .collect();
        for identity in forgotten {
            self.contacts.forget(identity.node);
            let timer = foca::Timer::RemoveDown(identity);
            self.swim(now, out, |swim, runtime| swim.handle_timer(timer, runtime));
        }
    }

    fn exchange_lists(&mut self, out: &mut Vec<MembershipOutput>) {
        let connected = || self.contacts.iter().filter(|contact| contact.connected);
        let count = connected().count();
        if count == 0 {
            return;
        }
        let chosen = self.rng.random_range(0..count);
        let chosen = connected().nth(chosen).map(|contact| contact.identity.node);
        if let Some(node) = chosen {
            self.send_list(node, true, out);
        }
    }

    fn send_list(&self, to: NodeId, answer_wanted: bool, out: &mut Vec<MembershipOutput>) {
        let own = MemberRecord {
            identity: Some(WireIdentity::from(self.identity())),
            incarnation: 0,
            state: 0,
        };
        let others = self
            .swim
            .iter_membership_state()
            .map(|member| MemberRecord {
                identity: Some(WireIdentity::from(member.id())),
                incarnation: u32::from(member.incarnation()),
                state: u32::from(codec::state_number(member.state())),
            });
        let members = std::iter::once(own).chain(others).collect();
        let message = MembershipMessage::List(MemberList {
            members,
            answer_wanted,
        });
        out.push(MembershipOutput::Send { to, message });
    }

    fn handle_packet(
        &mut self,
        now: Time,
        from: NodeId,
        packet: &[u8],
        out: &mut Vec<MembershipOutput>,
    ) -> Result<(), MembershipError> {
        let header = foca::Codec::decode_header(&mut SwimCodec::default(), packet)?;
        check_sender(from, header.src.node)?;
        let doubted = RefCell::new(Vec::new());
        let softened = hearsay::believed_packet(packet, |dead| self.doubts(from, dead, &doubted))?;
        self.tell_doubted(doubted.into_inner(), out);
        let packet = softened.as_deref().unwrap_or(packet);
        Ok(self.try_swim(now, out, |swim, runtime| swim.handle_data(packet, runtime))?)
    }

    fn handle_list(
        &mut self,
        now: Time,
        from: NodeId,
        list: &MemberList,
        out: &mut Vec<MembershipOutput>,
    ) -> Result<(), MembershipError> {
        let members = list.members.iter().map(read_record);
        let members = members.collect::<Result<Vec<_>, ControlError>>()?;
        let doubted = RefCell::new(Vec::new());
        let doubts = |dead: &Identity| self.doubts(from, dead, &doubted);
        let members = members.into_iter();
        let members: Vec<_> = members
            .map(|member| hearsay::believed(member, doubts))
            .collect();
        self.tell_doubted(doubted.into_inner(), out);
        let mut room = self.room();
        let known = |node| self.contacts.get(node).is_some() || node == self.identity().node;
        let members: Vec<_> = members
            .into_iter()
            .filter(|member| {
                // Of nodes that we never met, the dead are of no interest and the living need room.
                known(member.id().node) || {
                    let taken = member.state() != State::Down && room > 0;
                    room -= usize::from(taken);
                    taken
                }
            })
            .collect();
        self.try_swim(now, out, |swim, runtime| {
            swim.apply_many(members.into_iter(), true, runtime)
        })?;
        if list.answer_wanted {
            self.send_list(from, false, out);
        }
        Ok(())
    }

    fn handle_leave(
        &mut self,
        now: Time,
        from: NodeId,
        leave: &Leave,
        out: &mut Vec<MembershipOutput>,
    ) -> Result<(), MembershipError> {
        let identity = control::required_identity(leave.identity.as_ref())?;
        check_sender(from, identity.node)?;
        if let Some(contact) = self.contacts.get_mut(from) {
            contact.left = contact.identity.epoch == identity.epoch;
        }
        let down = foca::Member::down(identity);
        Ok(self.try_swim(now, out, |swim, runtime| {
            swim.apply_many(std::iter::once(down), true, runtime)
        })?)
    }

    /// Tells those of whose death others speak: whoever holds them for dead has no link to them to tell them itself, and believes in their life
    /// again only once they come back renewed.
    fn tell_doubted(&mut self, doubted: Vec<Identity>, out: &mut Vec<MembershipOutput>) {
        for dead in doubted {
            let Some(left) = self.tells_left.checked_sub(1) else {
                return;
            };
            self.tells_left = left;
            let to = dead.node;
            let record = MemberRecord {
                identity: Some(WireIdentity::from(&dead)),
                incarnation: 0,
                state: u32::from(codec::state_number(State::Down)),
            };
            let message = MembershipMessage::List(MemberList {
                members: vec![record],
                answer_wanted: false,
            });
            out.push(MembershipOutput::Send { to, message });
        }
    }

    /// Whether the death of a node is doubted when `from` tells of it. Such nodes are put down in `doubted`.
    fn doubts(&self, from: NodeId, dead: &Identity, doubted: &RefCell<Vec<Identity>>) -> bool {
        let connected = |contact: &contacts::Contact| {
            contact.connected && contact.down_since.is_none() && !contact.left
        };
        let doubts = dead.node != from && self.contacts.get(dead.node).is_some_and(connected);
        if doubts {
            doubted.borrow_mut().push(dead.clone());
        }
        doubts
    }

    /// How many more members there may be.
    fn room(&self) -> usize {
        self.config
            .member_limit
            .saturating_sub(self.contacts.alive() + 1)
    }

    /// Like [`Self::try_swim`], where only our own doing is involved: foca recovers from each of its
    /// complaints by itself (a probe cycle cut short by a pause, for one).
    fn swim(
        &mut self,
        now: Time,
        out: &mut Vec<MembershipOutput>,
        step: impl FnOnce(&mut Swim, &mut AccumulatingRuntime<Identity>) -> Result<(), foca::Error>,
    ) {
        let _ = self.try_swim(now, out, step);
    }

    /// Lets foca do one step and carries out all that it asks for, also when the step fails.
    fn try_swim(
        &mut self,
        now: Time,
        out: &mut Vec<MembershipOutput>,
        step: impl FnOnce(&mut Swim, &mut AccumulatingRuntime<Identity>) -> Result<(), foca::Error>,
    ) -> Result<(), foca::Error> {
        let first = out.len();
        let mut runtime = AccumulatingRuntime::new();
        let result = step(&mut self.swim, &mut runtime);
        while let Some((to, packet)) = runtime.to_send() {
            self.send_packet(to, packet, out);
        }
        while let Some((after, timer)) = runtime.to_schedule() {
            self.timers.set(now + after, Timer::Swim(timer));
        }
        let mut renewed = false;
        while let Some(notification) = runtime.to_notify() {
            renewed |= matches!(notification, OwnedNotification::Rejoin(_));
            self.note(now, notification, out);
        }
        deaths_last(out, first);
        if renewed {
            self.after_renewal(now, out);
        }
        result
    }

    fn note(
        &mut self,
        now: Time,
        notification: OwnedNotification<Identity>,
        out: &mut Vec<MembershipOutput>,
    ) {
        match notification {
            OwnedNotification::MemberUp(identity) => {
                self.contacts.up(now, &identity);
                self.links_are_stale = true;
                out.push(MembershipOutput::MemberUp(identity));
            }
            OwnedNotification::MemberDown(identity) => self.note_down(now, identity, out),
            OwnedNotification::Rename(old, new) => self.note_rename(now, old, new, out),
            OwnedNotification::Rejoin(identity) => out.push(MembershipOutput::Renewed(identity)),
            OwnedNotification::Active | OwnedNotification::Idle | OwnedNotification::Defunct => {}
        }
    }

    fn note_down(&mut self, now: Time, identity: Identity, out: &mut Vec<MembershipOutput>) {
        let contact = self.contacts.note(now, &identity);
        if contact.down_since.is_some() {
            return;
        }
        contact.down_since = Some(now);
        let left = contact.left;
        self.links_are_stale = true;
        let reason = if left {
            DownReason::Left
        } else {
            DownReason::Failed
        };
        out.push(MembershipOutput::MemberDown { identity, reason });
    }

    /// One identity of a node took the place of another. A mere renewal of a live member is nobody's
    /// business; another start is another member.
    fn note_rename(
        &mut self,
        now: Time,
        old: Identity,
        new: Identity,
        out: &mut Vec<MembershipOutput>,
    ) {
        if new.node == self.identity().node {
            return;
        }
        let was_up = self
            .contacts
            .get(old.node)
            .is_some_and(|known| known.down_since.is_none());
        let contact = self.contacts.note(now, &new);
        if !was_up || old.epoch == new.epoch {
            return;
        }
        contact.down_since = Some(now);
        out.push(MembershipOutput::MemberDown {
            identity: old,
            reason: DownReason::Replaced,
        });
        if self.swim.iter_members().any(|member| member.id() == &new) {
            self.contacts.up(now, &new);
            out.push(MembershipOutput::MemberUp(new));
        }
    }

    /// Everybody must learn of our new identity, those too whom we hold for dead.
    fn after_renewal(&mut self, now: Time, out: &mut Vec<MembershipOutput>) {
        self.swim(now, out, |swim, runtime| {
            swim.apply_many(std::iter::empty(), false, runtime)
        });
        let connected = self.contacts.iter().filter(|contact| contact.connected);
        let peers: Vec<NodeId> = connected.map(|contact| contact.identity.node).collect();
        for peer in peers {
            self.send_list(peer, false, out);
        }
    }
}

impl Registry for Membership {
    fn known(&self, node: NodeId) -> Option<Known> {
        let contact = self.contacts.get(node)?;
        Some(Known {
            identity: contact.identity.clone(),
            connected: contact.connected,
        })
    }

    fn full_for(&self, node: NodeId) -> Option<usize> {
        let member = self
            .contacts
            .get(node)
            .is_some_and(|known| known.down_since.is_none());
        (!member && self.room() == 0).then_some(self.config.member_limit)
    }

    fn members_with(&self, node: NodeId) -> usize {
        let member = self
            .contacts
            .get(node)
            .is_some_and(|known| known.down_since.is_none());
        self.contacts.alive() + 1 + usize::from(!member)
    }
}

/// Tells of those who came before those who are gone, from `first` on: who waits for all live members
/// must not be told that all have answered, because one is gone, before it knows of another that came.
fn deaths_last(out: &mut Vec<MembershipOutput>, first: usize) {
    let news = out.split_off(first);
    let rises = |at: usize, node: NodeId| {
        let later = news.iter().skip(at);
        later.into_iter().any(|output| {
            matches!(output, MembershipOutput::MemberUp(identity) if identity.node == node)
        })
    };
    let is_final = |at: usize, output: &MembershipOutput| matches!(output, MembershipOutput::MemberDown { identity, .. } if !rises(at, identity.node));
    let last: Vec<bool> = news
        .iter()
        .enumerate()
        .map(|(at, output)| is_final(at, output))
        .collect();
    let (deaths, others): (Vec<_>, Vec<_>) =
        news.into_iter().zip(last).partition(|(_, last)| *last);
    out.extend(others.into_iter().chain(deaths).map(|(output, _)| output));
}

fn check_sender(from: NodeId, claimed: NodeId) -> Result<(), MembershipError> {
    if from != claimed {
        return Err(MembershipError::Impostor { from, claimed });
    }
    Ok(())
}

fn read_record(record: &MemberRecord) -> Result<foca::Member<Identity>, ControlError> {
    let identity = control::required_identity(record.identity.as_ref())?;
    let incarnation = u16::try_from(record.incarnation).map_err(|_| ControlError::Impossible {
        field: "incarnation",
    })?;
    let state = u8::try_from(record.state).ok().and_then(codec::state_of);
    let state = state.ok_or(ControlError::Impossible { field: "state" })?;
    Ok(foca::Member::new(identity, incarnation, state))
}

#[cfg(test)]
mod tests;
