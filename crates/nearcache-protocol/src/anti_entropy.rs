//! What two nodes tell each other to find out where their caches differ, and to mend it.
//!
//! ```text
//! asker                                        answerer
//!   Compare: sums of the parts of ranges ─▶
//!                                        ◀─    Differs: the parts whose sums are others here
//!   ... down to the leaves, asking only for parts of what differs ...
//!   List: these leaves ─────────────────▶      both now list what they know there, each to the other:
//!   Listed ─────────────────────────────▶◀─    Listed: keys and versions
//!   Want ───────────────────────────────▶◀─    Want: those that the receiver of a list lacks
//!   Entries ────────────────────────────▶◀─    Entries
//! ```
//!
//! Every answer stands for itself: what is lost on the way is found again by the next comparison, and what has arrived is not
//! sent again, because it no longer differs.

use bytes::Bytes;
use nearcache_store::Version;

use crate::message::ProgressVector;
use crate::update::Update;

/// One message of a comparison. The number of the request is in the message around it.
#[derive(Clone, Debug)]
pub enum AntiEntropy<V> {
    /// The asker's sums of the parts of some ranges.
    Compare {
        /// Counts the asker's messages of this kind from 0; the answer repeats it.
        batch: u32,
        /// Number of the asker's leaves, as a power of two.
        own_bits: u8,
        /// How many bits the ranges have.
        depth: u8,
        /// How many more bits their parts have.
        part_bits: u8,
        /// The asker's group invalidations, as one number.
        floors_digest: u64,
        /// Each range and the sums of its parts, `2^part_bits` of them.
        ranges: Vec<(u32, Vec<u64>)>,
    },
    /// The parts whose sums are others at the answerer.
    Differs {
        /// What this answers.
        batch: u32,
        /// Number of the answerer's leaves, as a power of two.
        own_bits: u8,
        /// Whether the answerer is itself complete.
        ready: bool,
        /// What the answerer had applied when it answered the first batch; empty in later ones.
        progress: ProgressVector,
        /// Whether the two do not know the same group invalidations.
        floors_differ: bool,
        /// If so, and if this answers the first batch, those of the answerer.
        floors: Vec<Update<V>>,
        /// The parts.
        parts: Vec<u32>,
    },
    /// Let us list to each other what we know in these leaves.
    List {
        /// How many bits the leaves have.
        bits: u8,
        /// The leaves.
        leaves: Vec<u32>,
        /// The asker's group invalidations, if they differ.
        floors: Vec<Update<V>>,
    },
    /// A piece of a list.
    Listed {
        /// Whether the request is the sender's.
        own: bool,
        /// Counts the pieces from 0.
        index: u32,
        /// Whether it is the last.
        done: bool,
        /// Keys of entries and tombstones, and their versions.
        keys: Vec<(Bytes, Version)>,
        /// With the last piece of an answer: the group invalidations, if there were any since the sender told how far it is. What they
        /// cover is in no list.
        floors: Vec<Update<V>>,
    },
    /// The answer to a piece of a list, which lets the next one come.
    Want {
        /// Whether the request is the sender's.
        own: bool,
        /// Which piece.
        index: u32,
        /// Those of its keys that are evicted here in a newer version: nothing older may be served.
        outdated: Vec<Update<V>>,
        /// Those of its keys that are missing here, or older.
        keys: Vec<Bytes>,
    },
    /// What was wanted.
    Entries {
        /// Whether the request is the sender's.
        own: bool,
        /// Counts the messages of this kind from 0.
        part: u32,
        /// Whether that is all that was wanted of one piece.
        done: bool,
        /// Entries and removals.
        updates: Vec<Update<V>>,
    },
}

impl<V> AntiEntropy<V> {
    /// The message's name, for logs and counters.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Compare { .. } => "compare",
            Self::Differs { .. } => "differs",
            Self::List { .. } => "list",
            Self::Listed { .. } => "listed",
            Self::Want { .. } => "want",
            Self::Entries { .. } => "entries",
        }
    }
}
