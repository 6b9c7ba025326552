//! Modes: where entries live and how writes travel, each a strategy behind [`Mode`].
//!
//! ```text
//! put ─ stamp ─ store.merge ─▶ publish ─▶ Transmit{peer} ─▶ poll_transmit ─▶ wire
//! wire ─▶ handle ─▶ store.merge ─ progress ─▶ Done{waiter}, Ready, Event
//! ```
//!
//! Reads and merges of local writes go straight to the store; only what is said here passes through the machine,
//! which the shell keeps behind one lock.

pub mod invalidation;
pub mod local;
mod output;
mod refresh;
pub mod replicated;
mod standing;
mod stream;

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{Handle, NodeId, Scope, Version};

pub use self::output::{AckTimeout, BeyondMesh, Event, FlushCause, NotAcked, Outcome, Output};
pub use self::standing::{
    Freshness, HandedOver, Held, ModeStats, PeerFreshness, ReadBound, Status, age_ms,
};
use crate::ids::{Epoch, WaiterId};
use crate::lane::Lane;
use crate::load::lease::{Lease, Turn};
use crate::message::CacheMessage;
use crate::modify::ModifyOp;
use crate::payload::Payload;
use crate::time::Time;

/// Whom a write waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Ack {
    /// Nobody: applied here and on its way.
    #[default]
    Local,
    /// This many peers have applied it. Beyond `mesh_max` members only those count that this node is connected to, about twice
    /// the logarithm of the number of members.
    Peers(u32),
    /// Every peer that is alive has applied it. Beyond `mesh_max` members nobody hears from everybody: there the waiter is told
    /// [`NotAcked::BeyondMesh`] at once, and those that wait when the members become so many are too.
    All,
}

/// A caller who waits for a result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Waiter {
    /// Its name.
    pub id: WaiterId,
    /// When it must have an answer.
    pub deadline: Time,
}

/// A local write that the store has accepted and that peers must learn of.
#[derive(Debug)]
pub enum Published<V> {
    /// An entry, as returned by the merge.
    Entry(Handle<V>),
    /// The removal of a key.
    Removal {
        /// The key.
        key: Bytes,
        /// The tombstone's version.
        version: Version,
    },
    /// A group invalidation.
    Floor {
        /// What it covers.
        scope: Scope,
        /// Below this nothing is accepted.
        version: Version,
    },
    /// An entry read from the system of record, as returned by the merge. It supersedes nothing that others hold: where values do
    /// not travel, nobody needs to know.
    Fill(Handle<V>),
}

/// A strategy for one cache. The words are those of [`CacheCore`](crate::core::CacheCore), which passes every call on.
pub trait Mode<V: Payload>: Send + fmt::Debug {
    /// Tells the peers of a local write that the store has accepted. Returns its number in the own stream.
    fn publish(
        &mut self,
        now: Time,
        published: Published<V>,
        ack: Ack,
        waiter: Option<Waiter>,
        out: &mut Vec<Output<V>>,
    ) -> u64;
    /// A connection to a peer stands.
    fn peer_up(&mut self, now: Time, peer: NodeId, epoch: Epoch, out: &mut Vec<Output<V>>);
    /// The connection is gone, whatever the reason.
    fn peer_down(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>);
    /// Membership knows a live node, connected or not, and which start of it lives.
    fn member_up(&mut self, now: Time, peer: NodeId, epoch: Epoch);
    /// The node has left the cluster on purpose.
    fn peer_left(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>);
    /// Membership has declared the node dead.
    fn peer_dead(&mut self, now: Time, peer: NodeId, out: &mut Vec<Output<V>>);
    /// Takes a message.
    fn handle(
        &mut self,
        now: Time,
        from: NodeId,
        message: CacheMessage<V>,
        out: &mut Vec<Output<V>>,
    );
    /// Lets time pass.
    fn tick(&mut self, now: Time, out: &mut Vec<Output<V>>);
    /// When to tick next.
    fn next_tick(&self) -> Time;
    /// The next message for `peer` on `lane` (`Data` or `Bulk`), of about `budget_bytes`, or nothing.
    fn poll_transmit(
        &mut self,
        now: Time,
        peer: NodeId,
        lane: Lane,
        budget_bytes: usize,
        out: &mut Vec<Output<V>>,
    ) -> Option<CacheMessage<V>>;
    /// Read-modify-write at the key's home node.
    fn modify(
        &mut self,
        now: Time,
        key: Bytes,
        op: ModifyOp<V>,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    );
    /// Asks the peers how far they are, and tells the waiter [`Outcome::Fresh`] once all that they had at `since` is here.
    fn refresh(&mut self, now: Time, since: Time, waiter: Waiter, out: &mut Vec<Output<V>>);
    /// What a read must compare the clock with. Changes only when this machine is called.
    fn read_bound(&self) -> ReadBound;
    /// Local writes must be refused after this time. Changes only when this machine is called.
    fn write_until(&self) -> Time {
        Time::MAX
    }
    /// The largest possible distance between this node's clock and that of any other.
    fn clock_bound(&self, now: Time) -> Duration;
    /// Somebody is about to load, and will ask for that: it is to be narrow.
    fn loads_begin(&mut self, _: Time) {}
    /// Whether something is being sent at a limited rate, or the store gone through in small steps, so that a tick every millisecond
    /// spreads it evenly.
    fn is_paced(&self, _: Time) -> bool {
        false
    }
    /// Whether peers may hold what is missing here, so that they are worth asking.
    fn finds(&self) -> bool {
        true
    }
    /// Asks peers for a key that is missing here.
    fn find(&mut self, now: Time, key: Bytes, waiter: Waiter, out: &mut Vec<Output<V>>);
    /// A key is about to be loaded: who else does so? Told as [`Outcome::Turn`].
    fn begin_load(
        &mut self,
        _: Time,
        _: Bytes,
        _: Duration,
        waiter: Waiter,
        out: &mut Vec<Output<V>>,
    ) {
        out.push(Output::Done {
            waiter: waiter.id,
            result: Outcome::Turn(Turn::Yours(None)),
        });
    }
    /// A load that had a lease is over.
    fn end_load(&mut self, _: Time, _: Lease, _: Option<&Handle<V>>, _: &mut Vec<Output<V>>) {}
    /// The caller no longer waits. No result will be told.
    fn forget(&mut self, waiter: WaiterId);
    /// This node is about to leave: from now on it makes sure that its peers have all that it has.
    fn hand_over(&mut self, _now: Time, _out: &mut Vec<Output<V>>) {}
    /// Who has all that this node has, since [`hand_over`](Self::hand_over).
    fn handed_over(&self) -> HandedOver {
        HandedOver::ToAll
    }
    /// Tells the peers that this node leaves.
    fn leave(&mut self, now: Time, out: &mut Vec<Output<V>>);
    /// How old the knowledge of each peer is.
    fn freshness(&self, now: Time) -> Freshness;
    /// In one word.
    fn status(&self, now: Time) -> Status;
    /// Whether a miss is a miss.
    fn is_ready(&self) -> bool;
    /// Whether there are more members than a full mesh may have, so that most have no session with each other.
    fn is_by_tree(&self) -> bool {
        false
    }
    /// How much it holds of what has a bound.
    fn held(&self) -> Held {
        Held::default()
    }
    /// Counters.
    fn stats(&self) -> ModeStats;
}
