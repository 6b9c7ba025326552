//! R10: nothing is removed that nobody removed. What one node drops for want of room stays where it is on all others.
//!
//! A removal that a store applies is one that an operation stamped, the expiry of something that was written, or the work of a read-modify-write, whose
//! stamps are made inside a machine and only counted here.

use std::collections::{BTreeMap, BTreeSet};

use nearcache_store::Version;

use super::Broken;
use crate::node::Heard;

/// What may be removed, and what was.
#[derive(Debug, Default)]
pub(crate) struct Removals {
    /// Versions that operations have made.
    stamped: BTreeSet<Version>,
    /// Versions that were seen as entries.
    entries: BTreeSet<(Vec<u8>, Version)>,
    /// Read-modify-writes asked for, by key.
    modifies: BTreeMap<Vec<u8>, usize>,
    /// Removals that no operation has stamped, by key.
    others: BTreeMap<Vec<u8>, BTreeSet<Version>>,
}

impl Removals {
    /// An operation has made this version.
    pub(crate) fn stamped(&mut self, version: Version) {
        self.stamped.insert(version);
    }

    /// A read-modify-write of the key was asked for.
    pub(crate) fn modifies(&mut self, key: Vec<u8>) {
        *self.modifies.entry(key).or_default() += 1;
    }

    /// A store has changed.
    pub(super) fn observe(&mut self, host: usize, heard: &[Heard]) -> Result<(), Broken> {
        for change in heard {
            let id = (change.key.clone(), change.version);
            if change.entry.is_some() {
                self.entries.insert(id);
                continue;
            }
            if self.stamped.contains(&change.version) || self.entries.contains(&id) {
                continue;
            }
            let others = self.others.entry(id.0.clone()).or_default();
            others.insert(change.version);
            let asked = self.modifies.get(&id.0).copied().unwrap_or(0);
            if others.len() > asked {
                let what = format!(
                    "n{host} removes {} as of {:?}, which nobody asked for",
                    change.name(),
                    change.version
                );
                return Err(("R10 (removals)", what));
            }
        }
        Ok(())
    }
}
