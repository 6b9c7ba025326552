//! A clock that is too far from the peers' (R5): ends sessions with those whose clock is, and says so while this node writes nothing
//! because its own is.

use std::time::Duration;

use nearcache_protocol::handshake::Peer;
use nearcache_protocol::identity::Identity;
use nearcache_protocol::time::Time;
use parking_lot::Mutex;

use super::shared::NodeShared;

/// How often it is said while it lasts.
const SAID_EVERY: Duration = Duration::from_secs(60);

/// This node's clock is too far from those of most of its peers: it writes nothing and goes on serving reads.
///
/// It ends when the clock of the machine was set right and the node started again, or those of the peers, at most 90 s after the
/// last of them was heard of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct ClockSkew {
    /// The median of the peers' clocks minus this node's, in milliseconds, as far as that is certain: negative where this one is ahead.
    pub peers_ahead_ms: i64,
    /// How far away it may be, in milliseconds.
    pub limit_ms: u64,
}

/// When what was said last.
#[derive(Debug, Default)]
pub(super) struct SkewWatch {
    /// That this node writes nothing.
    stopped: Mutex<Option<Time>>,
    /// That a peer was refused.
    refused: Mutex<Option<Time>>,
}

impl NodeShared {
    /// Whether this node writes nothing because of its clock.
    pub(crate) fn clock_skew(&self) -> Option<ClockSkew> {
        let peers_ahead_ms = self.hlc().stopped_by_skew_ms(self.now());
        (peers_ahead_ms != 0).then(|| ClockSkew {
            peers_ahead_ms,
            limit_ms: self.hlc().skew_limit_ms(),
        })
    }

    /// Ends the sessions with peers whose echoes have shown that their clocks are too far away, and says how this node's own is.
    pub(super) fn watch_clocks(&self) {
        for peer in self.hlc().take_apart() {
            if self.links().close(peer) {
                self.metrics().sessions_apart.inc();
                tracing::warn!(%peer, "ended the session: the clock of the peer is too far away");
            }
        }
        let now = self.now();
        let mut said = self.skew().stopped.lock();
        match (self.clock_skew(), *said) {
            (Some(_), before) if is_fresh(before, now) => {}
            (Some(skew), _) => {
                *said = Some(now);
                tracing::error!(
                    peers_ahead_ms = skew.peers_ahead_ms,
                    limit_ms = skew.limit_ms,
                    "writes are refused (ClockSkew), reads go on: the clock of this machine is too far from those of most peers; set it right and start this node again"
                );
            }
            (None, Some(_)) => {
                *said = None;
                tracing::info!("writes are taken again: the clock is near those of most peers");
            }
            (None, None) => {}
        }
    }

    /// A handshake has told how far a peer's clock is. Only of a peer that has proven who it is, as far as connections are secured.
    pub(crate) fn clock_read(&self, peer: &Peer) {
        let Identity {
            node,
            epoch,
            address,
            ..
        } = peer.identity;
        let now = self.now();
        self.hlc().peer_met(now, node, (epoch, address), peer.clock);
    }

    /// The same, and the clock is too far away.
    pub(crate) fn clock_refused(&self, peer: &Peer) {
        self.clock_read(peer);
        let now = self.now();
        let mut said = self.skew().refused.lock();
        if is_fresh(*said, now) {
            return;
        }
        *said = Some(now);
        tracing::warn!(
            peer = %peer.identity.node,
            name = %peer.name,
            address = %peer.identity.address,
            ahead_ms = peer.clock.nearest_ms(),
            "a peer's clock is too far away for a session: set the clock of the machine that is wrong and start its node again"
        );
    }
}

/// Whether it was said a moment ago.
fn is_fresh(said: Option<Time>, now: Time) -> bool {
    said.is_some_and(|said| now.saturating_since(said) < SAID_EVERY)
}
