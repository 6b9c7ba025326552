//! One entry of a store: [`Handle`], shared ownership of a record in a single allocation.
//!
//! A record holds everything of an entry, its key included, behind one pointer, so that a read that has found
//! the pointer needs one more cache line, and an entry costs one allocation besides what its value owns.

use std::fmt;
use std::ops::Deref;

use triomphe::ThinArc;

use crate::sync::{AtomicU8, AtomicU32, Ordering};
use crate::{Expiry, Tags, Version, Weigh};

/// Shared ownership of an entry: key, value, version, expiry, tags, weight.
///
/// Cloning is one atomic increment. The entry stays readable for as long as a handle exists, whatever
/// happens in the store. Dereferences to the value; never prints it.
pub struct Handle<V>(ThinArc<Record<V>, u8>);

/// What lies before the key's bytes in the allocation.
///
/// Laid out as written: with the reference count before it, what a read compares and what an eviction needs share a cache
/// line with the beginning of the value; what is looked at rarely shares one with the key.
#[repr(C)]
pub(crate) struct Record<V> {
    pub(crate) hash: u64,
    expiry: Expiry,
    /// Number of group invalidations this entry is known to have survived, modulo 2^32.
    pub(crate) checked_generation: AtomicU32,
    /// Last read, in steps of the store's time to idle. Zero while that is off.
    pub(crate) last_access: AtomicU32,
    /// Where the shard's directory holds this entry. Written under the shard's mutex only.
    pub(crate) slot: AtomicU32,
    weight_bytes: u32,
    /// Reads since the eviction policy last looked, up to [`Handle::MARKS_MAX`].
    marks: AtomicU8,
    /// Length of the value if it is not here; 0 if it is. Written before the record is shared.
    stub_bytes: AtomicU32,
    value: V,
    version: Version,
    tags: Tags,
}

impl<V: Weigh> Handle<V> {
    /// Allocation of a record without key and value: reference count, record, length of the key.
    const FIXED_BYTES: usize = size_of::<Record<V>>() + 2 * size_of::<usize>();
    /// What the tables cost per entry: the table 9 bytes a place, which is half full on average, directory 24, the
    /// growth of both (measured by `cargo xtask bench memory`, row perf-A4).
    const TABLES_BYTES: usize = 64;

    /// Bytes counted for an entry with a key of `key_len` bytes.
    pub(crate) fn weight_of(key_len: usize, value: &V, tags: &Tags) -> u64 {
        let bytes =
            Self::FIXED_BYTES + Self::TABLES_BYTES + key_len + value.weight() + tags.weight_bytes();
        bytes as u64
    }

    /// An entry that is in no store: what a peer says a key held.
    pub fn detached(key: &[u8], version: Version, expiry: Expiry, tags: Tags, value: V) -> Self {
        let weight = u32::try_from(Self::weight_of(key.len(), &value, &tags)).unwrap_or(u32::MAX);
        Self::new(key, 0, version, expiry, tags, value, weight)
    }

    /// An entry in no store whose value of `value_bytes` bytes (0 counts as 1) is not here; `placeholder` stands for it.
    pub fn stub(
        key: &[u8],
        version: Version,
        expiry: Expiry,
        tags: Tags,
        placeholder: V,
        value_bytes: u32,
    ) -> Self {
        Self::detached(key, version, expiry, tags, placeholder).without_value(value_bytes)
    }

    /// A new record, which no store knows yet. The weight is kept in 32 bits: larger is larger than any shard accepts.
    pub(crate) fn new(
        key: &[u8],
        hash: u64,
        version: Version,
        expiry: Expiry,
        tags: Tags,
        value: V,
        weight_bytes: u32,
    ) -> Self {
        let record = Record {
            hash,
            version,
            expiry,
            tags,
            weight_bytes,
            checked_generation: AtomicU32::new(0),
            last_access: AtomicU32::new(0),
            slot: AtomicU32::new(0),
            marks: AtomicU8::new(0),
            stub_bytes: AtomicU32::new(0),
            value,
        };
        Self(ThinArc::from_header_and_slice(record, key))
    }

    /// The same record, not shared yet, as a stub.
    pub(crate) fn without_value(self, value_bytes: u32) -> Self {
        let stub_bytes = &self.record().stub_bytes;
        stub_bytes.store(value_bytes.max(1), Ordering::Relaxed);
        self
    }
}

impl<V> Handle<V> {
    pub(crate) fn record(&self) -> &Record<V> {
        &self.0.header.header
    }

    /// The key's bytes.
    #[must_use]
    #[inline]
    pub fn key(&self) -> &[u8] {
        &self.0.slice
    }

    /// The value.
    #[must_use]
    #[inline]
    pub fn value(&self) -> &V {
        &self.record().value
    }

    /// When and where the entry was made.
    #[must_use]
    #[inline]
    pub fn version(&self) -> Version {
        self.record().version
    }

    /// When it stops being served.
    #[must_use]
    #[inline]
    pub fn expiry(&self) -> Expiry {
        self.record().expiry
    }

    /// Its tags.
    #[must_use]
    pub fn tags(&self) -> &Tags {
        &self.record().tags
    }

    /// Is the value not here? Then [`value`](Self::value) is a placeholder, and the entry stands for its key and version only.
    #[must_use]
    #[inline]
    pub fn is_stub(&self) -> bool {
        self.record().stub_bytes.load(Ordering::Relaxed) != 0
    }

    /// Length of the value in bytes, if it is not here.
    #[must_use]
    pub fn stub_bytes(&self) -> Option<u32> {
        let bytes = self.record().stub_bytes.load(Ordering::Relaxed);
        (bytes != 0).then_some(bytes)
    }

    /// Bytes counted for it against the store's bound.
    #[must_use]
    pub fn weight_bytes(&self) -> u64 {
        u64::from(self.record().weight_bytes)
    }

    /// Are both handles of the very same record?
    #[must_use]
    pub fn same_as(&self, other: &Self) -> bool {
        std::ptr::eq(self.record(), other.record())
    }

    /// Reads that are told apart.
    const MARKS_MAX: u8 = 3;

    /// Notes a read. By a load and a store: of two reads at once one may go unnoticed, which costs nothing but a guess of
    /// the eviction policy, and an entry read often is not written to at all.
    #[inline]
    pub(crate) fn mark(&self) {
        let marks = self.marks();
        if marks < Self::MARKS_MAX {
            self.set_marks(marks + 1);
        }
    }

    #[inline]
    pub(crate) fn marks(&self) -> u8 {
        self.record().marks.load(Ordering::Relaxed)
    }

    #[inline]
    pub(crate) fn set_marks(&self, marks: u8) {
        self.record().marks.store(marks, Ordering::Relaxed);
    }

    pub(crate) fn slot(&self) -> u32 {
        self.record().slot.load(Ordering::Relaxed)
    }
}

impl<V> Clone for Handle<V> {
    #[inline]
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<V> Deref for Handle<V> {
    type Target = V;

    #[inline]
    fn deref(&self) -> &V {
        self.value()
    }
}

impl<V> fmt::Debug for Handle<V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle")
            .field("key_len", &self.key().len())
            .field("version", &self.version())
            .field("expiry", &self.expiry())
            .field("weight_bytes", &self.weight_bytes())
            .field("stub_bytes", &self.stub_bytes())
            .finish_non_exhaustive()
    }
}
