//! The newest version of the system of record that was seen of a key: [`SourceFloors`] (I7).
//!
//! A loader that reads from a replica of the system of record may read something older than what was read before. Who
//! reports versions (a row's counter, a log position) gets an older one back to its caller, and it is not kept.

use std::collections::BTreeMap;

/// Floors remembered (guess: a few megabytes). Beyond it those that were not used for longest are forgotten: their keys are not
/// protected until they are loaded again.
pub const SOURCE_FLOORS_MAX: usize = 65_536;

/// Per key, by hash, the highest source version seen. Two keys of one hash share a floor: one of them may go uncached.
#[derive(Debug, Default)]
pub struct SourceFloors {
    floors: BTreeMap<u64, Floor>,
    /// Keys by when their floors were last used.
    by_use: BTreeMap<u64, u64>,
    uses: u64,
}

#[derive(Debug)]
struct Floor {
    version: u64,
    used: u64,
}

impl SourceFloors {
    /// Something of this version was read, or is known to have been written: whether it is as new as all that was seen. Cost: O(log floors).
    pub fn raise(&mut self, key_hash: u64, version: u64) -> bool {
        self.uses += 1;
        let used = self.uses;
        let is_new = match self.floors.get_mut(&key_hash) {
            Some(floor) => {
                self.by_use.remove(&floor.used);
                let is_new = version >= floor.version;
                floor.version = version.max(floor.version);
                floor.used = used;
                is_new
            }
            None => {
                if self.floors.len() >= SOURCE_FLOORS_MAX
                    && let Some((_, oldest)) = self.by_use.pop_first()
                {
                    self.floors.remove(&oldest);
                }
                self.floors.insert(key_hash, Floor { version, used });
                true
            }
        };
        self.by_use.insert(used, key_hash);
        is_new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn i7_older_than_the_floor_is_refused_and_equal_is_not() {
        let mut floors = SourceFloors::default();
        assert!(floors.raise(1, 5) && floors.raise(1, 5) && floors.raise(1, 7));
        assert!(!floors.raise(1, 6));
        assert!(floors.raise(2, 1), "another key");
    }

    #[test]
    fn c9_floors_are_bounded_and_those_in_use_stay() {
        let mut floors = SourceFloors::default();
        for key in 0..=SOURCE_FLOORS_MAX as u64 {
            floors.raise(key, 9);
            assert!(key == 0 || !floors.raise(1, 1), "a busy key's");
        }
        assert_eq!(floors.floors.len(), SOURCE_FLOORS_MAX);
        assert_eq!(floors.by_use.len(), SOURCE_FLOORS_MAX);
        assert!(floors.raise(0, 1), "the one that was not used for longest");
        assert!(!floors.raise(3, 1));
    }
}
