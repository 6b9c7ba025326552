//! What the machines of one cache say to each other on different nodes.
//!
//! | lane | messages |
//! |---|---|
//! | control | [`Announce`](CacheMessage::Announce), [`Heartbeat`](CacheMessage::Heartbeat), [`Echo`](CacheMessage::Echo), [`Ask`](CacheMessage::Ask), [`State`](CacheMessage::State), [`Leave`](CacheMessage::Leave) |
//! | data | [`Subscribe`](CacheMessage::Subscribe), [`Subscribed`](CacheMessage::Subscribed), [`Updates`](CacheMessage::Updates), [`Ack`](CacheMessage::Ack), [`Relayed`](CacheMessage::Relayed), [`Want`](CacheMessage::Want), find, modify, load and probe |
//! | bulk | transfers, comparisons, long values |
//!
//! Sending shares the store's values; nothing is copied before [`wire`](crate::wire) writes it into a buffer.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use nearcache_store::{NodeId, Version};

use crate::announce::Announcement;
use crate::anti_entropy::AntiEntropy;
use crate::fetching::Fetching;
use crate::ids::{Epoch, RequestId, StreamId};
use crate::lane::Lane;
use crate::load::lease::LoadMessage;
use crate::modify::{ModifyError, ModifyOp};
use crate::overlay::Place;
use crate::parts::Parts;
use crate::payload::Payload;
use crate::probe::Probe;
use crate::time::Time;
use crate::update::{Reader, Update};

/// A piece of an update stream: it covers the numbers `(after, through]` and leaves out what a later update in it supersedes.
pub struct Batch<V> {
    /// The origin's epoch.
    pub epoch: Epoch,
    /// The number before the first one covered.
    pub after: u64,
    /// The last number covered.
    pub through: u64,
    /// Whether the origin has callers waiting for acknowledgements of it.
    pub wants_ack: bool,
    /// The updates, in the stream's order.
    pub updates: Vec<Update<V>>,
}

/// How far somebody has got in the streams that exist: per stream, the last number applied without a gap, in the order of the ids.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ProgressVector(pub Vec<(StreamId, u64)>);

/// Where a transfer stands in the serving peer's store. Only that peer, in that epoch, can read it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TransferCursor(pub u64);

/// What one node's machine of a cache tells another's.
pub enum CacheMessage<V> {
    /// What this node believes about the cache; the first message to a peer.
    Announce(Announcement),
    /// Every heartbeat interval: how far this node is, and a question.
    Heartbeat {
        /// The sender's clock, to be sent back.
        asked: Time,
        /// The sender's epoch.
        epoch: Epoch,
        /// The latest number of the sender's own stream.
        latest: u64,
        /// Whether the sender is ready, so that others may fill themselves from it.
        ready: bool,
        /// How far the sender is in every stream, its own included.
        progress: ProgressVector,
    },
    /// The answer to a heartbeat.
    Echo {
        /// The asker's clock when it asked.
        asked: Time,
        /// The answering node's epoch.
        epoch: Epoch,
        /// The latest number of its own stream when it answered.
        latest: u64,
        /// Its physical clock, in milliseconds since the Unix epoch.
        physical_ms: u64,
    },
    /// The sender leaves for good; its stream ends at this number.
    Leave {
        /// The sender's epoch.
        epoch: Epoch,
        /// Its last number.
        latest: u64,
    },
    /// Send me your updates, and go on doing so: from the one after `after`, or from now on.
    Subscribe {
        /// The epoch of the stream that is asked for.
        epoch: Epoch,
        /// The last number the asker has, or nothing to start with the next update.
        after: Option<u64>,
    },
    /// The stream goes on after this number. If that is more than what was asked for, the rest is gone and
    /// must be got by a transfer.
    Subscribed {
        /// The sender's epoch.
        epoch: Epoch,
        /// The number before the first update that will be sent.
        after: u64,
    },
    /// Updates.
    Updates(Batch<V>),
    /// Your updates `(after, applied]` are all applied here. Behind a hole `after` is its end, else 0.
    Ack {
        /// The epoch of the stream.
        epoch: Epoch,
        /// The number before the first one that is meant.
        after: u64,
        /// The last number that is meant.
        applied: u64,
    },
    /// What do you hold under this key?
    Find {
        /// Names the request.
        request: RequestId,
        /// The key.
        key: Bytes,
    },
    /// The answer to a find: an entry, a removal, or nothing.
    Found {
        /// The request it answers.
        request: RequestId,
        /// What the peer holds under the key.
        update: Option<Update<V>>,
    },
    /// Change this key, whose home you are.
    Modify {
        /// Names the request; the same one when it is sent again.
        request: RequestId,
        /// How long the caller still waits, in milliseconds.
        wait_ms: u32,
        /// The newest version of the key that the asker knows: the home must not decide on an older one.
        known: Version,
        /// The key.
        key: Bytes,
        /// What to do.
        op: ModifyOp<V>,
    },
    /// The answer to a modify.
    Modified {
        /// The request it answers.
        request: RequestId,
        /// What came of it.
        result: Result<ModifiedAt<V>, ModifyError>,
    },
    /// Who loads a key that is missing.
    Load {
        /// Names the request; that of the asker, in all that is said about it.
        request: RequestId,
        /// What is said.
        message: LoadMessage<V>,
    },
    /// Send me all you hold of these parts of the key space.
    TransferRequest {
        /// Names the transfer; a higher one of the same peer replaces the former.
        request: RequestId,
        /// Where to go on, if an earlier attempt with the same peer was cut.
        cursor: Option<TransferCursor>,
        /// How many bytes may be sent before more credit arrives.
        credit_bytes: u32,
        /// What is wanted: several peers may each be asked for another share.
        parts: Parts,
    },
    /// A transfer begins. All that the sender had applied when it sent this will have been transferred at its end.
    TransferStart {
        /// The transfer.
        request: RequestId,
        /// Whether the sender is itself complete.
        ready: bool,
        /// The sender's progress before the first chunk.
        progress: ProgressVector,
        /// The group invalidations in force, as [`Update::Floor`].
        floors: Vec<Update<V>>,
    },
    /// A piece of a transfer.
    TransferChunk {
        /// The transfer.
        request: RequestId,
        /// What it holds.
        chunk: Chunk<V>,
    },
    /// This many more bytes may be sent.
    TransferCredit {
        /// The transfer.
        request: RequestId,
        /// Bytes of chunks that the receiver has taken in.
        bytes: u32,
    },
    /// A step of a comparison.
    AntiEntropy {
        /// The comparison, as numbered by its asker.
        request: RequestId,
        /// The step.
        message: AntiEntropy<V>,
    },
    /// A step of the fetch of a long value.
    Fetching {
        /// The fetch, as numbered by its asker.
        request: RequestId,
        /// The step.
        message: Fetching<V>,
    },
    /// A look at one key, or what it showed.
    Probe {
        /// The question, as numbered by its asker.
        request: RequestId,
        /// Question or answer.
        message: Probe,
    },
    /// Beyond the mesh: pieces of streams, each to be passed on.
    Relayed(Vec<Relayed<V>>),
    /// Beyond the mesh: send me these pieces of streams, `(after, through]` each.
    Want(Vec<(StreamId, u64, u64)>),
    /// Beyond the mesh, in place of a heartbeat: what have you got since you last told me?
    Ask(Ask),
    /// The answer to it.
    State(State),
    /// The sender cannot serve this transfer; ask somebody else.
    TransferRefused {
        /// The transfer.
        request: RequestId,
    },
}

/// A piece of a transfer.
pub struct Chunk<V> {
    /// Counts the chunks of this request from 0.
    pub index: u32,
    /// Keys that the sender has evicted, by the digest's hash, and the versions they had: nothing older may come in.
    pub evicted: Vec<(u64, Version)>,
    /// Entries and removals.
    pub updates: Vec<Update<V>>,
    /// Where the next chunk starts; nothing if this is the last.
    pub next: Option<TransferCursor>,
}

impl<V: Payload> Chunk<V> {
    /// Bytes it takes in a frame, about; what credit is counted in.
    #[must_use]
    pub fn bytes(&self) -> usize {
        /// A hash and a version.
        const FLOOR: usize = 24;
        let updates = self.updates.iter().map(Update::wire_bytes);
        updates.sum::<usize>() + self.evicted.len() * FLOOR
    }
}

/// A piece of a stream on its way through the tree.
pub struct Relayed<V> {
    /// Whose stream.
    pub origin: NodeId,
    /// The receiver is to pass it on to all members that stand between it and this place on the ring.
    pub until: Place,
    /// The piece.
    pub batch: Batch<V>,
}

/// What a neighbour in the tree asks at every heartbeat.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Ask {
    /// The sender's clock, to be sent back.
    pub asked: Time,
    /// The sender's epoch.
    pub epoch: Epoch,
    /// Whether the sender is ready, so that others may fill themselves from it.
    pub ready: bool,
    /// Whether the sender wants updates by the tree, and not the answerer's own stream only.
    pub by_tree: bool,
    /// The ages of the origins from the answerer up to this place on the ring are wanted.
    pub until: Place,
    /// Up to which change of its progress and of its members the answerer has told the sender.
    pub told: (u64, u64),
}

/// The answer: what has changed since, and how old the answerer's knowledge is.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct State {
    /// The asker's clock when it asked.
    pub asked: Time,
    /// As it was asked.
    pub until: Place,
    /// The answering node's epoch.
    pub epoch: Epoch,
    /// The latest number of its own stream.
    pub latest: u64,
    /// Its physical clock, in milliseconds since the Unix epoch.
    pub physical_ms: u64,
    /// Whether it is ready.
    pub ready: bool,
    /// Up to which change of its progress and of its members it has told by this.
    pub told: (u64, u64),
    /// Of the origins that were asked about, no knowledge is older than this, but for the exceptions. Nothing: it is not known.
    pub oldest: Option<Duration>,
    /// The exceptions, and how old the knowledge of them is; nothing if there is none.
    pub except: Vec<(NodeId, Option<Duration>)>,
    /// How far it is in the streams that were advanced.
    pub streams: Vec<(StreamId, u64)>,
    /// These are all the members that it holds for alive: what it told of others before is void.
    pub whole: bool,
    /// Members that came, that are gone, and of which it has heard whether they run the cache.
    pub members: Vec<MemberWord>,
}

/// What a node says of a member.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MemberWord {
    /// The member.
    pub node: NodeId,
    /// Whether it holds it for alive.
    pub alive: bool,
    /// The newest start of the member of which is known whether it runs the cache; 0 if that is known of none.
    pub epoch: Epoch,
    /// Whether that start runs the cache.
    pub runs: Runs,
}

/// Whether a start of a node runs the cache. Of two words about the same start the greater one counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Runs {
    /// It does not, or has not said so yet.
    No,
    /// It does.
    Yes,
    /// It did, and has left in good order: its stream ends with this number.
    Ended(u64),
}

/// The effect of a modify at the key's home node.
pub struct ModifiedAt<V> {
    /// Whether the condition held and the change was made.
    pub applied: bool,
    /// What the key held before, if the caller asked for it.
    pub previous: Option<Update<V>>,
    /// What the key holds now: an entry, a removal, or nothing. The asker merges it, so that it reads its own write.
    pub current: Option<Update<V>>,
}

impl<V: Payload> Batch<V> {
    /// The same for `reader`: of long values the stub, of those that it does not take only key and version.
    pub fn fit(&mut self, reader: Reader) {
        if self.updates.iter().any(|update| update.exceeds(reader)) {
            let updates = std::mem::take(&mut self.updates).into_iter();
            self.updates = updates.map(|update| update.for_reader(reader)).collect();
        }
    }
}

impl<V: Payload> ModifiedAt<V> {
    /// Bytes of the values that it carries.
    fn value_bytes(&self) -> usize {
        let both = self.previous.iter().chain(&self.current);
        let whole = both.filter(|update| update.is_whole());
        whole.map(Update::value_len).sum()
    }

    /// The same for `reader`, and both in a frame of at most `frame_bytes_max`. Of a long `current` the asker gets the stub, and
    /// fetches it; `previous` goes whole as long as it fits, because nobody holds it any more.
    pub fn fit(&mut self, reader: Reader, frame_bytes_max: usize) {
        let whole = Reader {
            inline_bytes_max: frame_bytes_max,
            ..reader
        };
        let fit = |update: Update<V>| update.for_reader(whole);
        self.previous = self.previous.take().map(fit);
        let taken = self.previous.as_ref().filter(|update| update.is_whole());
        let left = frame_bytes_max.saturating_sub(taken.map_or(0, Update::value_len));
        let reader = Reader {
            inline_bytes_max: reader.inline_bytes_max.min(left),
            ..reader
        };
        self.current = self.current.take().map(|update| update.for_reader(reader));
    }
}

impl<V: Payload> CacheMessage<V> {
    /// Bytes of entries, removals and keys that a message of the bulk lane carries, about.
    #[must_use]
    pub fn bulk_bytes(&self) -> usize {
        /// A key's version and length.
        const KEY: usize = 18;
        match self {
            Self::TransferChunk { chunk, .. } => chunk.bytes(),
            Self::AntiEntropy { message, .. } => match message {
                AntiEntropy::Entries { updates, .. } => {
                    updates.iter().map(Update::wire_bytes).sum()
                }
                AntiEntropy::Listed { keys, .. } => {
                    keys.iter().map(|(key, _)| key.len() + KEY).sum()
                }
                _ => 0,
            },
            _ => 0,
        }
    }
}

/// A read-modify-write, or its answer, that carries longer values takes the bulk lane, bytes.
const DATA_VALUE_BYTES_MAX: usize = 64 << 10;

impl<V: Payload> CacheMessage<V> {
    /// The connection that carries this message.
    #[must_use]
    pub fn lane(&self) -> Lane {
        match self {
            Self::Modify { op, .. } if op.value_len() > DATA_VALUE_BYTES_MAX => Lane::Bulk,
            Self::Modified {
                result: Ok(modified),
                ..
            } if modified.value_bytes() > DATA_VALUE_BYTES_MAX => Lane::Bulk,
            Self::Announce(_)
            | Self::Heartbeat { .. }
            | Self::Echo { .. }
            | Self::Ask(_)
            | Self::State(_)
            | Self::Leave { .. } => Lane::Control,
            Self::Subscribe { .. }
            | Self::Subscribed { .. }
            | Self::Updates(_)
            | Self::Ack { .. }
            | Self::Relayed(_)
            | Self::Want(_)
            | Self::Find { .. }
            | Self::Found { .. }
            | Self::Modify { .. }
            | Self::Modified { .. }
            | Self::Load { .. }
            | Self::Probe { .. } => Lane::Data,
            Self::TransferRequest { .. }
            | Self::TransferStart { .. }
            | Self::TransferChunk { .. }
            | Self::TransferCredit { .. }
            | Self::TransferRefused { .. }
            | Self::AntiEntropy { .. }
            | Self::Fetching { .. } => Lane::Bulk,
        }
    }
}

impl<V> CacheMessage<V> {
    /// The message's name, for logs and counters.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Announce(_) => "announce",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Echo { .. } => "echo",
            Self::Leave { .. } => "leave",
            Self::Subscribe { .. } => "subscribe",
            Self::Subscribed { .. } => "subscribed",
            Self::Updates(_) => "updates",
            Self::Ack { .. } => "ack",
            Self::Relayed(_) => "relayed",
            Self::Want(_) => "want-pieces",
            Self::Ask(_) => "ask",
            Self::State(_) => "state",
            Self::Find { .. } => "find",
            Self::Found { .. } => "found",
            Self::Modify { .. } => "modify",
            Self::Modified { .. } => "modified",
            Self::Load { message, .. } => message.name(),
            Self::TransferRequest { .. } => "transfer-request",
            Self::TransferStart { .. } => "transfer-start",
            Self::TransferChunk { .. } => "transfer-chunk",
            Self::TransferCredit { .. } => "transfer-credit",
            Self::TransferRefused { .. } => "transfer-refused",
            Self::AntiEntropy { message, .. } => message.name(),
            Self::Fetching { message, .. } => message.name(),
            Self::Probe { message, .. } => message.name(),
        }
    }
}

impl<V> fmt::Debug for CacheMessage<V> {
    /// The name only: keys and values stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<V> fmt::Debug for Batch<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Batch({:?} ({}, {}], {} updates)",
            self.epoch,
            self.after,
            self.through,
            self.updates.len()
        )
    }
}

impl<V> fmt::Debug for Chunk<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Chunk({}: {} updates, {} floors, next {:?})",
            self.index,
            self.updates.len(),
            self.evicted.len(),
            self.next
        )
    }
}

impl<V> fmt::Debug for Relayed<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.origin, self.batch)
    }
}

impl<V> fmt::Debug for ModifiedAt<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ModifiedAt")
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}
