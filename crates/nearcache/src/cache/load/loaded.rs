//! What a loader is given and what it answers.

use std::error::Error;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use nearcache_protocol::payload::Payload as _;
use nearcache_store::Tags;
use smallvec::SmallVec;

use super::error::BoxError;
use crate::cache::cached::Cached;
use crate::codec::{Codec, MessagePack};

/// Begins the tag that holds a validator. Tags travel with their entry, so that every node has it.
const VALIDATOR: &[u8] = b"\0nearcache-validator:";
/// Begins the tag that holds a version of the system of record.
const SOURCE: &[u8] = b"\0nearcache-source:";

/// What a loader answers: a value, nothing, or that the value it was given is still right; and what is to be known about it.
///
/// A plain value becomes one by `into()`, so that a loader may just return it.
///
/// ```
/// use std::time::Duration;
/// use nearcache::Loaded;
///
/// let user: Loaded<String> = Loaded::value("Ada".to_owned())
///     .ttl(Duration::from_secs(60))
///     .tags(["team:7"])
///     .source_version(42);
/// let nobody: Loaded<String> = Loaded::absent();
/// # let _ = (user, nobody);
/// ```
#[derive(Clone)]
#[must_use = "what was loaded is an answer only once it is returned"]
pub struct Loaded<V> {
    pub(super) what: What<V>,
    pub(super) ttl: Option<Duration>,
    pub(super) tags: Vec<Box<[u8]>>,
    pub(super) source_version: Option<u64>,
}

#[derive(Clone)]
pub(super) enum What<V> {
    Value(V),
    Absent,
    NotModified,
    Failed(Arc<dyn Error + Send + Sync>),
}

impl<V> Loaded<V> {
    const fn of(what: What<V>) -> Self {
        Self {
            what,
            ttl: None,
            tags: Vec::new(),
            source_version: None,
        }
    }

    /// This value.
    pub const fn value(value: V) -> Self {
        Self::of(What::Value(value))
    }

    /// The system of record has nothing under the key. Remembered for [`absent_ttl`](crate::LoadPolicy::absent_ttl) or the time to
    /// live given here; then callers get `None`.
    pub const fn absent() -> Self {
        Self::of(What::Absent)
    }

    /// What the loader was given ([`Previous`]) is still right: it lives on, with the tags, the validator and the source version
    /// that it had; each of them is replaced if it is given anew. An error if it was given nothing.
    pub const fn not_modified() -> Self {
        Self::of(What::NotModified)
    }

    /// This key cannot be read: those who wait for it get this error, as if the loader had failed with it. For
    /// [`load_many`](crate::Loader::load_many), in which other keys can be read all the same.
    pub fn failed(error: impl Into<BoxError>) -> Self {
        Self::of(What::Failed(Arc::from(error.into())))
    }

    pub(super) const fn is_failed(&self) -> bool {
        matches!(self.what, What::Failed(_))
    }

    /// The time to live, instead of the cache's own: more than zero, at most ten years. Shortened by
    /// [`ttl_jitter`](crate::LoadPolicy::ttl_jitter).
    pub const fn ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Tags by which [`Cache::invalidate_tags`](crate::Cache::invalidate_tags) finds the entry; at most 62 of 1 to 512 bytes. Replaces those given before,
    /// but not the validator.
    pub fn tags<T: AsRef<[u8]>>(mut self, tags: impl IntoIterator<Item = T>) -> Self {
        self.tags.retain(|tag| tag.starts_with(VALIDATOR));
        let tags = tags.into_iter().map(|tag| tag.as_ref().into());
        self.tags.extend(tags);
        self
    }

    /// By what the system of record tells whether the value has changed (an `ETag`, a row's time stamp): the next load of the key is
    /// given it ([`Previous::validator`]). At most 491 bytes; travels with the entry, as one of its tags.
    pub fn validator(mut self, validator: impl AsRef<[u8]>) -> Self {
        self.tags.retain(|tag| !tag.starts_with(VALIDATOR));
        self.tags
            .push([VALIDATOR, validator.as_ref()].concat().into());
        self
    }

    /// The version of what was read, in the system of record's own counting (a row's counter, a log position): if a higher one was
    /// seen of the key, by a load on this node or in an entry that it had, whoever loaded that, the value is returned to its callers and
    /// not kept (I7). For loaders that read from replicas. Travels with the entry, as one of its tags.
    pub const fn source_version(mut self, version: u64) -> Self {
        self.source_version = Some(version);
        self
    }

    /// All that is kept as tags. Of a value that was not modified each kind that is not given anew is that of the `previous` entry.
    pub(super) fn all_tags(&self, previous: Option<&Tags>) -> Vec<Box<[u8]>> {
        let source = self.source_version.map(|version| {
            let tag: Box<[u8]> = [SOURCE, &version.to_be_bytes()].concat().into();
            tag
        });
        let mut tags: Vec<_> = self.tags.iter().cloned().chain(source).collect();
        let given: SmallVec<[Kind; 3]> = tags.iter().map(|tag| Kind::of(tag)).collect();
        let kept = previous.into_iter().flat_map(Tags::iter);
        let kept = kept.filter(|tag| !given.contains(&Kind::of(tag)));
        tags.extend(kept.map(Box::from));
        tags
    }
}

/// What a tag is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    User,
    Validator,
    Source,
}

impl Kind {
    fn of(tag: &[u8]) -> Self {
        if tag.starts_with(VALIDATOR) {
            Self::Validator
        } else if tag.starts_with(SOURCE) {
            Self::Source
        } else {
            Self::User
        }
    }
}

impl<V> From<V> for Loaded<V> {
    fn from(value: V) -> Self {
        Self::value(value)
    }
}

impl<V> From<Option<V>> for Loaded<V> {
    /// Nothing is [`Loaded::absent`].
    fn from(value: Option<V>) -> Self {
        value.map_or_else(Self::absent, Self::value)
    }
}

impl<V> fmt::Debug for Loaded<V> {
    /// What kind of answer; the value stays out of logs.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.what {
            What::Value(_) => "Loaded(value)",
            What::Absent => "Loaded(absent)",
            What::NotModified => "Loaded(not modified)",
            What::Failed(_) => "Loaded(failed)",
        })
    }
}

/// What the cache held when a load began: what may be confirmed by [`Loaded::not_modified`].
pub struct Previous<V, C: Codec<V> = MessagePack> {
    cached: Option<Cached<V, C>>,
}

impl<V, C: Codec<V>> Previous<V, C> {
    pub(super) const fn new(cached: Option<Cached<V, C>>) -> Self {
        Self { cached }
    }

    /// The old value, if there is one: about to expire, or expired and kept because of
    /// [`stale_if_error`](crate::LoadPolicy::stale_if_error) or [`stale_while_revalidate`](crate::LoadPolicy::stale_while_revalidate).
    #[must_use]
    pub const fn value(&self) -> Option<&Cached<V, C>> {
        self.cached.as_ref()
    }

    /// The validator that the old value was loaded with.
    #[must_use]
    pub fn validator(&self) -> Option<&[u8]> {
        mark(self.cached.as_ref()?.tags(), VALIDATOR)
    }

    /// The version of the system of record that the old value was loaded with.
    #[must_use]
    pub fn source_version(&self) -> Option<u64> {
        source_version(self.cached.as_ref()?.tags())
    }
}

impl<V, C: Codec<V>> fmt::Debug for Previous<V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Previous")
            .field("cached", &self.cached)
            .finish()
    }
}

/// The version of the system of record among an entry's tags.
pub(in crate::cache) fn source_version(tags: &Tags) -> Option<u64> {
    let bytes = mark(tags, SOURCE)?;
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

fn mark<'a>(tags: &'a Tags, prefix: &[u8]) -> Option<&'a [u8]> {
    tags.iter().find_map(|tag| tag.strip_prefix(prefix))
}

/// The cell that says that there is no value.
pub(super) fn absent<V, C: Codec<V>>() -> C::Cell {
    C::Cell::from_wire(nearcache_protocol::payload::CodecTag::ABSENT, &[])
}
