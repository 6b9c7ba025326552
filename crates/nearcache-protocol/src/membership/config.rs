//! What can be set about the membership.

use std::num::{NonZeroU8, NonZeroUsize};
use std::time::Duration;

/// The most members a cluster may be configured for.
pub const MEMBER_LIMIT_MAX: usize = 1_024;

/// The largest SWIM packet, in bytes: room for the updates of a whole mass restart in one packet.
pub(super) const PACKET_BYTES_MAX: usize = 8 << 10;

/// How members watch and find each other. The defaults meet M3 at up to 16 nodes on a LAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MembershipConfig {
    /// How often this node probes one member. Default 500 ms (M3). Shorter detects sooner, costs
    /// two small messages each.
    pub probe_period: Duration,
    /// How long a probe waits before others are asked to probe too. Default 200 ms (M3); must be
    /// shorter than half of `probe_period`.
    pub probe_timeout: Duration,
    /// How long a member that failed a probe has to refute before it is declared dead. Default
    /// 1,200 ms: M3's p50 of 2 s less the mean wait for a probe to fail.
    pub suspicion: Duration,
    /// The same after all connections to it were lost, which is a stronger sign. Default 1 s: several
    /// attempts to reconnect.
    pub suspicion_after_loss: Duration,
    /// How often news are passed on. Default 200 ms.
    pub gossip_period: Duration,
    /// How often the whole member list is exchanged with a random peer. Default 10 s.
    pub list_exchange_period: Duration,
    /// How long to wait at first before another attempt to connect; doubles up to
    /// `redial_max`, with full jitter. Default 50 ms.
    pub redial_min: Duration,
    /// The longest wait between two attempts to connect to a member. Default 2 s: after a partition the
    /// nodes must agree again within 5 s (R1), and first they must meet.
    pub redial_max: Duration,
    /// How long a dead member is remembered, and dialled. Default 24 h: the longest partition that
    /// heals by itself where discovery does not help.
    pub forget_after: Duration,
    /// The most members, this node included. Default 64, at most [`MEMBER_LIMIT_MAX`]. At the limit a
    /// join is refused.
    pub member_limit: usize,
    /// Up to so many members, this node included, every node is connected to every other. Above, each to about 2 log2 of their number
    /// (see [`overlay`](crate::overlay)). Default 64; the same on all nodes.
    pub mesh_max: usize,
    /// How long a session of the mesh stays once there are more members than that and the tree does not want it, and up to a third longer,
    /// so that they do not all end at once. All caches have noticed by then, and members that come and go within it cost nothing. Default 30 s.
    pub mesh_grace: Duration,
    /// Beyond the mesh: with how many members the caches of this node can have sessions that the tree does not want, at a time. Default 32.
    /// More are not met, and what needed them fails by its deadline.
    pub guests_max: usize,
}

impl Default for MembershipConfig {
    fn default() -> Self {
        Self {
            probe_period: Duration::from_millis(500),
            probe_timeout: Duration::from_millis(200),
            suspicion: Duration::from_millis(1_200),
            suspicion_after_loss: Duration::from_secs(1),
            gossip_period: Duration::from_millis(200),
            list_exchange_period: Duration::from_secs(10),
            redial_min: Duration::from_millis(50),
            redial_max: Duration::from_secs(2),
            forget_after: Duration::from_secs(24 * 60 * 60),
            member_limit: 64,
            mesh_max: 64,
            mesh_grace: Duration::from_secs(30),
            guests_max: 32,
        }
    }
}

/// A setting of the membership that cannot be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum MembershipConfigError {
    /// A time is zero.
    #[error("{field} must not be zero")]
    Zero {
        /// The setting.
        field: &'static str,
    },
    /// The probe's timeout leaves no time for others to probe.
    #[error("probe_timeout of {timeout:?} must be shorter than half of probe_period, {period:?}")]
    ProbeTimeout {
        /// The timeout.
        timeout: Duration,
        /// The period.
        period: Duration,
    },
    /// The member limit is out of range.
    #[error("member_limit of {limit} must be from 1 to {max}")]
    MemberLimit {
        /// The limit.
        limit: usize,
        /// The most it may be.
        max: usize,
    },
}

impl MembershipConfig {
    /// Checks that the settings fit together.
    ///
    /// # Errors
    ///
    /// [`MembershipConfigError`] names the first that does not.
    pub fn validate(&self) -> Result<(), MembershipConfigError> {
        let times = [
            ("probe_period", self.probe_period),
            ("probe_timeout", self.probe_timeout),
            ("suspicion", self.suspicion),
            ("suspicion_after_loss", self.suspicion_after_loss),
            ("gossip_period", self.gossip_period),
            ("list_exchange_period", self.list_exchange_period),
            ("redial_min", self.redial_min),
            ("redial_max", self.redial_max),
            ("forget_after", self.forget_after),
        ];
        if let Some((field, _)) = times.into_iter().find(|(_, time)| time.is_zero()) {
            return Err(MembershipConfigError::Zero { field });
        }
        if self.probe_timeout * 2 >= self.probe_period {
            let (timeout, period) = (self.probe_timeout, self.probe_period);
            return Err(MembershipConfigError::ProbeTimeout { timeout, period });
        }
        if !(1..=MEMBER_LIMIT_MAX).contains(&self.member_limit) {
            let (limit, max) = (self.member_limit, MEMBER_LIMIT_MAX);
            return Err(MembershipConfigError::MemberLimit { limit, max });
        }
        Ok(())
    }

    /// The same, as the SWIM implementation wants it.
    pub(super) fn swim(&self) -> foca::Config {
        let peers = NonZeroUsize::MIN.saturating_add(2);
        foca::Config {
            probe_period: self.probe_period,
            probe_rtt: self.probe_timeout,
            num_indirect_probes: peers,
            // Enough for 256 members by the formula of the SWIM paper, section 4.1: 3 log n.
            max_transmissions: NonZeroU8::MIN.saturating_add(9),
            suspect_to_down_after: self.suspicion,
            // Forgetting is ours: it also ends the attempts to connect.
            remove_down_after: None,
            max_packet_size: NonZeroUsize::MIN.saturating_add(PACKET_BYTES_MAX - 1),
            // A node that was declared dead by mistake must learn of it, to come back.
            notify_down_members: true,
            // Both are replaced by the exchange of whole lists on the peer connections.
            periodic_announce: None,
            periodic_announce_to_down_members: None,
            periodic_gossip: Some(foca::PeriodicParams {
                frequency: self.gossip_period,
                num_members: peers,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid() {
        assert_eq!(MembershipConfig::default().validate(), Ok(()));
    }

    #[test]
    fn settings_that_cannot_be_are_named() {
        let config = MembershipConfig {
            suspicion: Duration::ZERO,
            ..MembershipConfig::default()
        };
        assert_eq!(
            config.validate(),
            Err(MembershipConfigError::Zero { field: "suspicion" })
        );
        let timeout = Duration::from_millis(250);
        let config = MembershipConfig {
            probe_timeout: timeout,
            ..MembershipConfig::default()
        };
        let period = config.probe_period;
        let expected = MembershipConfigError::ProbeTimeout { timeout, period };
        assert_eq!(config.validate(), Err(expected));
        let config = MembershipConfig {
            member_limit: MEMBER_LIMIT_MAX + 1,
            ..MembershipConfig::default()
        };
        let expected = MembershipConfigError::MemberLimit {
            limit: MEMBER_LIMIT_MAX + 1,
            max: MEMBER_LIMIT_MAX,
        };
        assert_eq!(config.validate(), Err(expected));
    }
}
