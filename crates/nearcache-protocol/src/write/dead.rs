//! Writes that were given up: [`DeadLetters`].
//!
//! Nothing is dropped from here but by whoever looks after it, or by a later write of the same key: an acknowledged write is not lost
//! silently. When there is no room the queue goes on trying, so that in the end its own bound reaches the writers.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::queue::{Write, WriteSeq};
use crate::time::Time;

/// A write that was given up.
#[derive(Debug, Clone)]
pub struct DeadLetter<T> {
    /// What was to be written.
    pub write: Write<T>,
    /// What the sink said, in its own words.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was given up.
    pub since: Time,
}

/// Writes that were given up, at most one of a key.
#[derive(Debug)]
pub struct DeadLetters<T> {
    letters_max: usize,
    by_key: BTreeMap<Bytes, DeadLetter<T>>,
}

impl<T> DeadLetters<T> {
    /// None yet, and never more than so many.
    #[must_use]
    pub const fn new(letters_max: usize) -> Self {
        Self {
            letters_max,
            by_key: BTreeMap::new(),
        }
    }

    /// Whether another one may be put here.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.by_key.len() < self.letters_max
    }

    /// Keeps a write that was given up. Call it only if there is [room](Self::has_room).
    pub(super) fn keep(&mut self, letter: DeadLetter<T>) {
        self.by_key.insert(letter.write.key.clone(), letter);
    }

    /// Takes out that of a key; the journal's record of it is of no use any more.
    pub(super) fn take(&mut self, key: &[u8]) -> Option<DeadLetter<T>> {
        self.by_key.remove(key)
    }

    /// Takes out all.
    pub(super) fn take_all(&mut self) -> impl Iterator<Item = DeadLetter<T>> + use<T> {
        std::mem::take(&mut self.by_key).into_values()
    }

    /// All, by key.
    pub fn iter(&self) -> impl Iterator<Item = &DeadLetter<T>> {
        self.by_key.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.by_key.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The numbers of all.
    pub fn seqs(&self) -> impl Iterator<Item = WriteSeq> + '_ {
        self.iter().map(|letter| letter.write.seq)
    }
}
