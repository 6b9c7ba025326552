//! The rules by which a node accepts another one, whichever of them dialled.

use nearcache_store::Timestamp;

use super::{
    Features, Known, Local, NAME_BYTES_MAX, Peer, ProtocolRange, RENEWAL_JUMP_MAX, Refusal,
    Registry, SessionToken,
};
use crate::clock::offset::OffsetRange;
use crate::control::{self, ControlError, Hello};
use crate::identity::Identity;
use crate::lane::Lane;

/// What the rules say of a peer whose clock is not judged yet.
pub(super) struct Checked {
    pub(super) peer: Peer,
    /// It says that it started before another start of it that is known. Either it is the former one, or its clock is behind: if that shows,
    /// it is the reason.
    pub(super) replaced: Option<Refusal>,
}

/// The rules, the same for both sides. Cheap and revealing ones first: an operator who mixed up two
/// clusters wants to read that, not that the clocks differ.
pub(super) fn check(
    local: &Local,
    registry: &impl Registry,
    clock: OffsetRange,
    hello: &Hello,
) -> Result<Checked, Refusal> {
    check_name("cluster name", &hello.cluster)?;
    check_name("node name", &hello.name)?;
    if hello.cluster != *local.cluster {
        return Err(Refusal::WrongCluster {
            ours: local.cluster.as_ref().to_owned(),
            theirs: hello.cluster.clone(),
        });
    }
    let theirs = ProtocolRange {
        min: hello.protocol_min,
        max: hello.protocol_max,
    };
    let protocol = local
        .protocols
        .newest_common(theirs)
        .ok_or(Refusal::VersionMismatch {
            ours: local.protocols,
            theirs,
        })?;
    let identity = control::required_identity(hello.identity.as_ref())?;
    let replaced = check_identity(local, registry, &identity)?;
    check_mesh(local, registry, &identity, hello.mesh_max)?;
    let lane = u8::try_from(hello.lane)
        .ok()
        .and_then(Lane::from_number)
        .ok_or(ControlError::Impossible { field: "lane" })?;
    let peer = Peer {
        identity,
        name: hello.name.as_str().into(),
        lane,
        session: SessionToken(hello.session),
        protocol,
        features: local.features.both(Features(hello.features)),
        clock,
        mesh_max: hello.mesh_max,
        probe: hello.probe,
    };
    Ok(Checked { peer, replaced })
}

/// Two nodes may disagree about the size of a full mesh as long as the cluster is within both.
fn check_mesh(
    local: &Local,
    registry: &impl Registry,
    identity: &Identity,
    theirs: u32,
) -> Result<(), Refusal> {
    let ours = local.mesh_max;
    if ours == theirs || ours == 0 || theirs == 0 {
        return Ok(());
    }
    let members = registry.members_with(identity.node);
    if members <= ours.min(theirs) as usize {
        return Ok(());
    }
    Err(Refusal::MeshMax {
        ours,
        theirs,
        members,
    })
}

fn check_name(field: &'static str, name: &str) -> Result<(), Refusal> {
    if name.len() > NAME_BYTES_MAX {
        let limit_bytes = NAME_BYTES_MAX;
        return Err(Refusal::NameTooLong {
            field,
            len_bytes: name.len(),
            limit_bytes,
        });
    }
    Ok(())
}

fn check_identity(
    local: &Local,
    registry: &impl Registry,
    theirs: &Identity,
) -> Result<Option<Refusal>, Refusal> {
    let ours = &local.identity;
    if theirs.node == ours.node {
        if theirs.epoch == ours.epoch && theirs.address == ours.address {
            return Err(Refusal::SelfConnection);
        }
        return Err(Refusal::DuplicateNodeId {
            known: ours.clone().into(),
            theirs: theirs.clone().into(),
        });
    }
    let Some(Known {
        identity: known,
        connected,
    }) = registry.known(theirs.node)
    else {
        return match registry.full_for(theirs.node) {
            Some(limit) => Err(Refusal::MemberLimit { limit }),
            None => Ok(None),
        };
    };
    // A node that was started again comes from the same address, or when the sessions of its former
    // self have ended. One that comes from elsewhere while they live is a second node.
    let elsewhere = theirs.epoch != known.epoch && theirs.address != known.address;
    let split = theirs.epoch == known.epoch && theirs.address != known.address;
    if split || (connected && elsewhere) {
        return Err(Refusal::DuplicateNodeId {
            known: known.into(),
            theirs: theirs.clone().into(),
        });
    }
    if theirs.epoch < known.epoch {
        return Ok(Some(Refusal::Replaced {
            known: known.into(),
            theirs: theirs.clone().into(),
        }));
    }
    let jump = theirs.renewal.saturating_sub(known.renewal);
    if theirs.epoch == known.epoch && jump > RENEWAL_JUMP_MAX {
        return Err(Refusal::ImplausibleRenewal {
            known: known.renewal,
            theirs: theirs.renewal,
            limit: RENEWAL_JUMP_MAX,
        });
    }
    Ok(None)
}

/// The clock of a peer that answered, and its start by ours (R5, M5).
pub(super) fn check_times(local: &Local, now: Timestamp, peer: Peer) -> Result<Peer, Refusal> {
    let limit_ms = local.max_drift_ms;
    if peer.clock.is_beyond(limit_ms) {
        let peer = peer.into();
        return Err(Refusal::ClockApart { peer, limit_ms });
    }
    check_epoch(local, now, &peer)?;
    Ok(peer)
}

/// Nobody starts in the future, by this clock.
pub(super) fn check_epoch(local: &Local, now: Timestamp, peer: &Peer) -> Result<(), Refusal> {
    let (ours_ms, limit_ms) = (now.millis(), local.max_drift_ms);
    let epoch_ms = peer.identity.epoch.as_u64();
    if epoch_ms.saturating_sub(ours_ms) > limit_ms {
        return Err(Refusal::ImplausibleEpoch {
            epoch_ms,
            ours_ms,
            limit_ms,
        });
    }
    Ok(())
}
