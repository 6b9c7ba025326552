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
//! Here is what its owner calls; `receive` takes peers' messages, `step` lets foca do one step, `contacts` is what is known of
//! each node, `links` chooses the sessions of the tree, `hearsay` softens obituaries.
//!
//! Source: Das, Gupta and Motivala, "SWIM", DSN 2002; the last point is in the spirit of Dadgar et al.,
//! "Lifeguard", DSN 2018, section IV. Decision record 0004 tells why foca.

mod codec;
mod config;
mod contacts;
mod hearsay;
mod links;
mod message;
mod output;
mod receive;
mod step;
mod timers;

use foca::{Foca, State};
use nearcache_store::NodeId;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

pub use self::codec::SwimCodecError;
pub use self::config::{MEMBER_LIMIT_MAX, MembershipConfig, MembershipConfigError};
pub use self::message::MembershipMessage;
pub use self::output::{DownReason, Member, MembershipError, MembershipOutput};

use self::codec::SwimCodec;
use self::contacts::Contacts;
use self::receive::DOUBTS_TOLD_MAX;
use self::step::Swim;
use self::timers::{Timer, Timers};
use crate::control::{Leave, WireIdentity};
use crate::handshake::{Known, Registry};
use crate::identity::Identity;
use crate::time::Time;

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

    /// How many more members there may be.
    fn room(&self) -> usize {
        self.config
            .member_limit
            .saturating_sub(self.contacts.alive() + 1)
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

#[cfg(test)]
mod tests;
