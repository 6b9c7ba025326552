//! What two nodes say to each other about a value that did not travel with its update.
//!
//! ```text
//! asker                                      holder
//!   Ask(key, version, from byte) ─────▶
//!                                     ◀───── Piece(at), Piece, ...     pulled when the connection has room
//!                                     ◀───── Refused                   it does not hold that version, or no longer
//!   Stop ─────────────────────────────▶                                nobody wants it any more
//!
//! peer                                       holder that leaves
//!                                     ◀───── Keep(key, version)        do you hold it? or: fetch it
//!   Kept ─────────────────────────────▶                                it does now, or does not
//! ```
//!
//! The asker counts what has arrived: it knows the length from the stub. A fetch that is cut goes on at another holder from where it
//! stands, because the same version has the same bytes everywhere.

use std::fmt;
use std::ops::Range;

use bytes::Bytes;
use nearcache_store::{Handle, Version};

use crate::payload::Payload;
use crate::update::Update;

/// One message of a fetch. The number of the request is in the message around it.
pub enum Fetching<V> {
    /// Send me this value, from a byte on.
    Ask {
        /// The key.
        key: Bytes,
        /// The version whose value is wanted, and no other.
        version: Version,
        /// How much of it is here already, in bytes.
        from_byte: u32,
    },
    /// Some bytes of the value.
    Piece {
        /// Where in the value they begin.
        at: u32,
        /// They.
        bytes: Piece<V>,
    },
    /// The value in that version is not here, or no longer.
    Refused {
        /// What is known of the key instead, if that is newer.
        known: Option<Update<V>>,
    },
    /// Send no more.
    Stop,
    /// The sender leaves: does the other hold this value?
    Keep {
        /// The key.
        key: Bytes,
        /// The version whose value is meant.
        version: Version,
        /// Nobody does: it is to fetch it, before it answers.
        fetch: bool,
    },
    /// Whether it holds it, or knows that nobody needs it any more.
    Kept {
        /// It does.
        held: bool,
    },
}

/// A part of a value.
pub enum Piece<V> {
    /// On its way out; shares the value with the store.
    Held {
        /// The entry.
        entry: Handle<V>,
        /// Which bytes of its value.
        range: Range<usize>,
    },
    /// As it has arrived, a slice of the frame it came in.
    Arrived(Bytes),
}

impl<V: Payload> Piece<V> {
    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Self::Held { entry, range } => {
                let value = entry.value().bytes();
                value.get(range.clone()).unwrap_or_default()
            }
            Self::Arrived(bytes) => bytes,
        }
    }
}

impl<V> Fetching<V> {
    /// The message's name, for logs and counters.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Ask { .. } => "fetch",
            Self::Piece { .. } => "fetch-piece",
            Self::Refused { .. } => "fetch-refused",
            Self::Stop => "fetch-stop",
            Self::Keep { .. } => "fetch-keep",
            Self::Kept { .. } => "fetch-kept",
        }
    }
}

impl<V> fmt::Debug for Fetching<V> {
    /// The name only: keys and values stay out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<V: Payload> fmt::Debug for Piece<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Piece({} bytes)", self.bytes().len())
    }
}
