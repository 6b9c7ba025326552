//! What a group invalidation covers: [`Scope`].

use crate::Tags;

/// The keys that one group invalidation covers.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Scope {
    /// The whole cache.
    All,
    /// Every key that begins with these bytes.
    Prefix(Box<[u8]>),
    /// Every entry that carries this tag.
    Tag(Box<[u8]>),
    /// Every entry that carries a tag beginning with these bytes. Made by the store itself, when floors of
    /// neighbouring tags are merged into one because there are too many; it travels like the others.
    TagPrefix(Box<[u8]>),
}

impl Scope {
    /// Does this scope cover an entry of `key` that carries `tags`?
    #[must_use]
    pub fn covers(&self, key: &[u8], tags: &Tags) -> bool {
        match self {
            Self::All => true,
            Self::Prefix(prefix) => key.starts_with(prefix),
            Self::Tag(tag) => tags.iter().any(|t| t == &**tag),
            Self::TagPrefix(prefix) => tags.iter().any(|t| t.starts_with(prefix)),
        }
    }
}
