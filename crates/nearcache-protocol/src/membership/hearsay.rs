//! What others say about the death of a member that we are connected to.
//!
//! SWIM believes every obituary, and none can be taken back but by rebirth under a new identity. A node
//! that was cut off comes back with obituaries of everybody else; believed, they would make live members
//! drop each other all at once. So of a member with a standing session only our own probes, the loss of
//! that session and its own farewell count: what others say makes it suspect, which it can refute.
//!
//! In the spirit of memberlist's state merge, which takes a remote *dead* for *suspect*.

use bytes::{Buf as _, BufMut as _};
use foca::{Codec as _, Member, Message, State};

use super::codec::{SwimCodec, SwimCodecError};
use crate::identity::Identity;

/// The update as it is to be believed, where `doubted` says whether obituaries of this node are doubted.
pub(super) fn believed(
    member: Member<Identity>,
    doubted: impl Fn(&Identity) -> bool,
) -> Member<Identity> {
    if member.state() == State::Down && doubted(member.id()) {
        let incarnation = member.incarnation();
        return Member::new(member.id().clone(), incarnation, State::Suspect);
    }
    member
}

/// The packet with its updates as they are to be believed; nothing if it is to be taken as it is.
///
/// # Errors
///
/// [`SwimCodecError`] if the packet cannot be read.
pub(super) fn believed_packet(
    packet: &[u8],
    doubted: impl Fn(&Identity) -> bool,
) -> Result<Option<Vec<u8>>, SwimCodecError> {
    let (mut codec, mut rest) = (SwimCodec::default(), packet);
    let header = codec.decode_header(&mut rest)?;
    let header_bytes = packet.len() - rest.len();
    if header.message == Message::Broadcast || rest.len() < 2 {
        return Ok(None);
    }
    let count = rest.try_get_u16()?;
    let (mut rewritten, mut changed) = (
        Vec::from(packet.get(..header_bytes).unwrap_or_default()),
        false,
    );
    rewritten.put_u16(count);
    for _ in 0..count {
        let member = codec.decode_member(&mut rest)?;
        let state = member.state();
        let member = believed(member, &doubted);
        changed |= member.state() != state;
        codec.encode_member(&member, &mut rewritten)?;
    }
    rewritten.extend_from_slice(rest);
    Ok(changed.then_some(rewritten))
}
