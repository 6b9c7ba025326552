//! The newest version of the system of record that was seen of a key: [`SourceFloors`] (I7).
//!
//! A loader that reads from a replica of the system of record may read something older than what was read before. Who
//! reports versions (a row's counter, a log position) gets an older one back to its caller, and it is not kept.

use std::collections::{BTreeMap, VecDeque};

/// Floors remembered (guess: a few megabytes). Beyond it the oldest are forgotten: their keys are not protected until they
/// are loaded again.
pub const SOURCE_FLOORS_MAX: usize = 65_536;

/// Per key, by hash, the highest source version seen. Two keys of one hash share a floor: one of them may go uncached.
#[derive(Debug, Default)]
pub struct SourceFloors {
    floors: BTreeMap<u64, u64>,
    order: VecDeque<u64>,
}

impl SourceFloors {
    /// Something of this version was read, or is known to have been written: whether it is as new as all that was seen.
    pub fn raise(&mut self, key_hash: u64, version: u64) -> bool {
        if let Some(floor) = self.floors.get_mut(&key_hash) {
            let is_new = version >= *floor;
            *floor = version.max(*floor);
            return is_new;
        }
        if self.order.len() >= SOURCE_FLOORS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.floors.remove(&oldest);
        }
        self.floors.insert(key_hash, version);
        self.order.push_back(key_hash);
        true
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
    fn c9_floors_are_bounded() {
        let mut floors = SourceFloors::default();
        for key in 0..=SOURCE_FLOORS_MAX as u64 {
            floors.raise(key, 9);
        }
        assert_eq!(floors.floors.len(), SOURCE_FLOORS_MAX);
        assert!(floors.raise(0, 1), "the oldest is forgotten");
        assert!(!floors.raise(2, 1));
    }
}
