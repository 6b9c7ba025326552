//! Update streams, for every mode whose nodes have one each: our own to the peers, theirs to us.
//!
//! ```text
//! receiver                         origin
//!   Subscribe(after) ────────────▶   cursor := after, or latest if the ring no longer reaches back
//!                    ◀────────────   Subscribed(where it goes on)      more than asked for: a hole
//!                    ◀────────────   Updates (a, b], (b, c], ...        pulled when the connection has room
//!   Ack(applied)     ────────────▶
//! ```
//!
//! | file | concept |
//! |---|---|
//! | `sending` | the own stream on its way to peers, and what they have applied of it |
//! | `receiving` | theirs on its way to us: subscribing, batches, gaps |
//! | `heartbeat` | announcements, heartbeats, echoes |
//! | `link` | what is kept of one pair of nodes for all that |
//! | `clocks` | when peers' clocks are measured besides |
//! | `acks` | writes that wait for peers |
//! | `tree` | the same among more members than a full mesh may have |
//!
//! What an update does to the store, what follows from a hole and whom to wait for is the mode's: it implements [`Streaming`], and
//! gets the methods of [`Sends`], [`Receives`], [`Beats`] and those of the tree. What carries a stream to a peer is either its own cursor
//! in the origin's log (the full mesh) or one in the relay log (the tree); the peer says which.

pub(in crate::mode) mod acks;
pub(in crate::mode) mod clocks;
mod heartbeat;
pub(in crate::mode) mod link;
mod receiving;
mod sending;
pub(in crate::mode) mod tree;

use nearcache_store::NodeId;
use smallvec::SmallVec;

pub(in crate::mode) use self::heartbeat::{Beats, Verdict};
pub(in crate::mode) use self::receiving::Receives;
pub(in crate::mode) use self::sending::Sends;

use self::acks::Acks;
use self::link::{Agreed, Echoes, Receiving, Sending};
use self::tree::{Branch, Relay};
use crate::clock::Hlc;
use crate::config::ReplicationConfig;
use crate::ids::{Epoch, StreamId};
use crate::log::Log;
use crate::mode::{BeyondMesh, ModeStats, Output};
use crate::payload::Payload;
use crate::progress::Progress;
use crate::time::Time;
use crate::update::{Applied, Update};

/// Members that a write with [`Ack::All`](crate::mode::Ack::All) waits for, each with the time from which on its silence will do.
pub(in crate::mode) type Awaited = SmallVec<[(NodeId, Time); 8]>;

/// What a mode lends the shared code: all that is not about one peer.
pub(in crate::mode) struct Shared<'a, V: Payload> {
    pub(in crate::mode) epoch: Epoch,
    pub(in crate::mode) clock: &'a Hlc,
    pub(in crate::mode) config: &'a ReplicationConfig,
    pub(in crate::mode) log: &'a mut Log<V>,
    pub(in crate::mode) progress: &'a mut Progress,
    pub(in crate::mode) acks: &'a mut Acks,
    pub(in crate::mode) relay: &'a mut Relay<V>,
    /// Some peer has pulled all it could and must be woken by the next update.
    pub(in crate::mode) any_asleep: &'a mut bool,
    pub(in crate::mode) stats: &'a mut ModeStats,
}

impl<V: Payload> Shared<'_, V> {
    /// This node's stream.
    pub(in crate::mode) fn own_stream(&self) -> StreamId {
        StreamId {
            origin: self.clock.origin(),
            epoch: self.epoch,
        }
    }
}

/// Lends the fields of a mode that are not about one peer, by their names, so that the others stay free.
macro_rules! shared {
    ($mode:expr) => {
        $crate::mode::stream::Shared {
            epoch: $mode.epoch,
            clock: &$mode.clock,
            config: &$mode.config,
            log: &mut $mode.log,
            progress: &mut $mode.progress,
            acks: &mut $mode.acks,
            relay: &mut $mode.relay,
            any_asleep: &mut $mode.any_asleep,
            stats: &mut $mode.stats,
        }
    };
}
pub(in crate::mode) use shared;

/// What it lends of one connected peer.
pub(in crate::mode) struct Pair<'a> {
    pub(in crate::mode) epoch: Epoch,
    /// It announced over this connection that it runs the cache as we do.
    pub(in crate::mode) met: bool,
    pub(in crate::mode) agreement: Agreed,
    /// The longest value to send it, in bytes.
    pub(in crate::mode) value_bytes_max: usize,
    pub(in crate::mode) sending: &'a mut Sending,
    pub(in crate::mode) receiving: &'a mut Receiving,
    pub(in crate::mode) echoes: &'a mut Echoes,
    pub(in crate::mode) branch: &'a mut Branch,
    /// What it asked for before it announced the cache.
    pub(in crate::mode) early_subscribe: &'a mut Option<Option<u64>>,
}

/// A mode whose nodes have update streams.
pub(in crate::mode) trait Streaming<V: Payload>: Sized {
    fn shared(&mut self) -> Shared<'_, V>;
    /// A connected peer, and the rest beside it.
    fn pair(&mut self, peer: NodeId) -> Option<(Shared<'_, V>, Pair<'_>)>;
    /// Shows every connected peer, in the order of their ids.
    fn each_pair(&mut self, see: impl FnMut(NodeId, Pair<'_>));
    /// Whom a write of now waits for, if it waits for all.
    fn awaited(&self, now: Time) -> Awaited;
    /// There are more members than a full mesh may have, so that this node does not hear from all.
    fn beyond_mesh(&self) -> Option<BeyondMesh>;
    /// Whether a stream that was never heard of is of interest only from now on.
    fn needs_no_past(&self) -> bool;
    /// One update of a peer has come; nothing if it was skipped.
    fn apply(&mut self, now: Time, update: Update<V>) -> Option<Applied>;
    /// Some updates were applied, one after the other.
    fn on_applied(&mut self, _now: Time, _out: &mut Vec<Output<V>>) {}
    /// The stream goes on after `after`, and its origin no longer has all that is missing before that.
    fn on_hole(&mut self, now: Time, stream: StreamId, after: u64, out: &mut Vec<Output<V>>);
    /// Shows every live member in question, and when this node last had all of it. A peer that does not run the cache has nothing that
    /// may be missing: when it opens it, it says so over the session before anything else.
    fn each_origin(
        &self,
        now: Time,
        asks: impl Fn(NodeId) -> bool,
        see: impl FnMut(NodeId, Option<Time>),
    );
    /// The mesh has given way to the tree, or has come back.
    fn on_crossing(&mut self, now: Time, by_tree: bool, out: &mut Vec<Output<V>>);
    /// Whether this node has what its peers had, so that others may fill themselves from it.
    fn says_ready(&self) -> bool;
    /// The same of a peer.
    fn peer_says_ready(&mut self, peer: NodeId, ready: bool);
    /// Whether pieces of streams are of use now; a node that is being filled gets them another way.
    fn takes_replays(&self) -> bool;
    /// Progress in a stream may have changed.
    fn on_progress(&mut self, now: Time, out: &mut Vec<Output<V>>);
}
