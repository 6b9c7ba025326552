//! Read-modify-write: what a caller may ask the key's home node to do.

use std::fmt;

use nearcache_store::{Handle, Tags, Version};

/// When a set is made.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Condition {
    /// In any case.
    Always,
    /// Only if the key holds nothing.
    IfAbsent,
    /// Only if the key holds something.
    IfPresent,
    /// Only if the key holds exactly this version.
    IfVersion(Version),
}

/// When an expiry is changed; a key that never expires counts as expiring later than any other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ExpireCondition {
    /// In any case.
    Always,
    /// Only if the entry has no expiry.
    IfNone,
    /// Only if it has one.
    IfSome,
    /// Only if the new one is later.
    IfGreater,
    /// Only if the new one is earlier.
    IfLess,
}

/// The expiry an entry gets.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NewExpiry {
    /// The one it has; none if it is new.
    Keep,
    /// None.
    Never,
    /// At this cluster time, in milliseconds since the Unix epoch.
    At(u64),
}

/// A change of one key that depends on what the key holds.
pub enum ModifyOp<V> {
    /// Store a value.
    Set {
        /// When.
        condition: Condition,
        /// The value.
        value: V,
        /// Its expiry.
        expiry: NewExpiry,
        /// Its tags.
        tags: Tags,
        /// Whether the reply shall carry what the key held before.
        return_previous: bool,
    },
    /// Remove the key.
    Remove {
        /// When.
        condition: Condition,
        /// Whether the reply shall carry what the key held before.
        return_previous: bool,
    },
    /// Change the expiry and leave the value.
    Expire {
        /// The new expiry; [`NewExpiry::Keep`] reads the entry at its home node.
        expiry: NewExpiry,
        /// When.
        condition: ExpireCondition,
        /// Whether the reply shall carry what the key held before.
        return_previous: bool,
    },
    /// Add to a number in decimal text; a key that holds nothing counts as 0. The expiry is kept.
    Add {
        /// What to add.
        delta: i64,
    },
}

/// What came of a [`ModifyOp`].
pub struct Modified<V> {
    /// Whether the condition held and the change was made.
    pub applied: bool,
    /// What the key held before, if asked for.
    pub previous: Option<Handle<V>>,
    /// What the key holds now.
    pub current: Option<Handle<V>>,
}

/// Why a modify has no result.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ModifyError {
    /// The key holds something else than a decimal integer of 64 bits. Nothing was changed.
    #[error("value is not an integer or out of range")]
    NotAnInteger,
    /// The sum does not fit 64 bits. Nothing was changed.
    #[error("increment or decrement would overflow")]
    Overflow,
    /// The entry is larger than the cache takes. The older copy, if any, is gone.
    #[error("entry does not fit into the cache")]
    TooLarge,
    /// The node's clock may not stamp now (it is too far from its peers'). Nothing was changed.
    #[error("clock skew: writes are refused")]
    ClockSkew,
    /// The asked node is not the key's home by its own view. Nothing was changed; never reaches a caller.
    #[error("not the key's home node")]
    NotHome,
    /// Too many requests wait already. Nothing was changed.
    #[error("too many requests are waiting")]
    Overloaded,
    /// No node could be asked in time. Nothing was changed.
    #[error("the key's home node cannot be reached")]
    HomeUnreachable,
    /// The home node was asked and did not answer. The change may have been made, or be made later.
    #[error("no answer from the key's home node: the change may have been made")]
    Indeterminate,
}

impl<V> fmt::Debug for ModifyOp<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Set { .. } => "Set",
            Self::Remove { .. } => "Remove",
            Self::Expire { .. } => "Expire",
            Self::Add { .. } => "Add",
        })
    }
}

impl<V> fmt::Debug for Modified<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Modified")
            .field("applied", &self.applied)
            .finish_non_exhaustive()
    }
}
