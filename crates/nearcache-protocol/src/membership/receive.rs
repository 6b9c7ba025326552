//! Messages of peers, and the lists of members that are exchanged with them.

use std::cell::RefCell;

use foca::State;
use nearcache_store::NodeId;
use rand::RngExt as _;

use super::codec::{self, SwimCodec};
use super::{Membership, MembershipError, MembershipMessage, MembershipOutput, contacts, hearsay};
use crate::control::{self, ControlError, Leave, MemberList, MemberRecord, WireIdentity};
use crate::identity::Identity;
use crate::time::Time;

/// How many doubted obituaries a node passes on to their subjects between two exchanges of lists: enough where a link or two are
/// missing, and next to nothing when two halves of a large cluster meet again, whose nodes tell each other (guess).
pub(super) const DOUBTS_TOLD_MAX: usize = 8;

impl Membership {
    pub(super) fn exchange_lists(&mut self, out: &mut Vec<MembershipOutput>) {
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

    pub(super) fn send_list(
        &self,
        to: NodeId,
        answer_wanted: bool,
        out: &mut Vec<MembershipOutput>,
    ) {
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

    pub(super) fn handle_packet(
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

    pub(super) fn handle_list(
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

    pub(super) fn handle_leave(
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
