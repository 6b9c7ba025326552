//! What readers look at: [`Table`], the entries of one shard by key.
//!
//! A hash table of one pointer per entry behind a shared lock: key and value both lie behind the pointer. It is
//! changed under the shard's mutex alone, so what a writer read from it stays true until that is released; the lock
//! in here is taken for writing only for the moment of the change. What leaves is chosen by the
//! [`Policy`](crate::policy::Policy), which readers never touch: all they leave for it is a mark on the entry.

use hashbrown::HashTable;

use crate::Handle;
use crate::sync::RwLock;

/// The entries of a shard by key.
pub(crate) struct Table<V>(RwLock<HashTable<Handle<V>>>);

impl<V> Table<V> {
    pub(crate) fn new() -> Self {
        Self(RwLock::new(HashTable::new()))
    }

    /// The entry of `key`, marked as used. One shared lock, no allocation.
    #[inline]
    pub(crate) fn get(&self, hash: u64, key: &[u8]) -> Option<Handle<V>> {
        let entries = self.0.read();
        // The hash need not be compared too: the table has matched seven bits of it.
        let entry = entries.find(hash, |entry| entry.key() == key)?;
        entry.mark();
        Some(entry.clone())
    }

    /// The entry of `key`, not marked.
    #[inline]
    pub(crate) fn peek(&self, hash: u64, key: &[u8]) -> Option<Handle<V>> {
        self.0
            .read()
            .find(hash, |entry| entry.key() == key)
            .cloned()
    }

    /// Puts `entry` in: in the place of `held`, which must be in, or besides everything else, while `leaving` go out. All is
    /// one step for readers.
    #[inline]
    pub(crate) fn change(&self, entry: Handle<V>, held: Option<&Handle<V>>, leaving: &[Handle<V>]) {
        let hash = entry.record().hash;
        let mut entries = self.0.write();
        match held.and_then(|held| entries.find_mut(hash, |e| e.same_as(held))) {
            // The caller holds a handle of what was there, so nothing is freed here.
            Some(place) => *place = entry,
            None => {
                entries.insert_unique(hash, entry, |e| e.record().hash);
            }
        }
        leaving.iter().for_each(|gone| take(&mut entries, gone));
    }

    /// Takes `leaving` out.
    pub(crate) fn remove(&self, leaving: &[Handle<V>]) {
        if leaving.is_empty() {
            return;
        }
        let mut entries = self.0.write();
        leaving.iter().for_each(|gone| take(&mut entries, gone));
        if entries.is_empty() && entries.capacity() > 64 {
            *entries = HashTable::new();
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.0.read().len()
    }
}

/// Takes one entry out of the table. The caller holds a handle of it, so nothing is freed here.
#[inline]
fn take<V>(entries: &mut HashTable<Handle<V>>, gone: &Handle<V>) {
    if let Ok(place) = entries.find_entry(gone.record().hash, |e| e.same_as(gone)) {
        place.remove();
    }
}
