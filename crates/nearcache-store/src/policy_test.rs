use proptest::prelude::*;

use super::*;
use crate::{Expiry, Tags, Version};

const WEIGHT: u64 = 10;

/// A shard of nothing but a policy: what was read is marked, what was missed is taken in.
struct Cache {
    policy: Policy,
    directory: Directory<()>,
    held: Vec<(u64, Handle<()>)>,
    evicted: Vec<u64>,
}

impl Cache {
    fn new(entries: u64) -> Self {
        Self {
            policy: Policy::new(entries * WEIGHT),
            directory: Directory::new(),
            held: Vec::new(),
            evicted: Vec::new(),
        }
    }

    fn read(&self, key: u64) -> bool {
        let found = self.held.iter().find(|held| held.0 == key);
        found.inspect(|held| held.1.mark()).is_some()
    }

    fn add(&mut self, key: u64, weight_bytes: u64, came_back: bool) {
        let weight = u32::try_from(weight_bytes).unwrap();
        let name = key.to_le_bytes();
        let entry = Handle::new(
            &name,
            key,
            Version::ZERO,
            Expiry::NEVER,
            Tags::NONE,
            (),
            weight,
        );
        self.directory.add(entry.clone());
        self.policy
            .admit(&mut self.directory, entry.slot(), weight_bytes, came_back);
        self.held.push((key, entry));
        self.make_room();
    }

    fn make_room(&mut self) {
        while let Some(gone) = self.policy.victim(&mut self.directory) {
            self.evicted.push(gone.record().hash);
            self.remove(gone.record().hash);
        }
    }

    fn remove(&mut self, key: u64) {
        let Some(at) = self.held.iter().position(|held| held.0 == key) else {
            return;
        };
        let (_, entry) = self.held.swap_remove(at);
        self.policy
            .leave(&mut self.directory, entry.slot(), entry.weight_bytes());
        self.directory.remove(&entry);
    }

    /// Reads through: true for a hit.
    fn request(&mut self, key: u64) -> bool {
        let hit = self.read(key);
        if !hit {
            let came_back = self.evicted.iter().rev().take(100).any(|gone| *gone == key);
            self.add(key, WEIGHT, came_back);
        }
        hit
    }

    fn hits(&mut self, keys: impl Iterator<Item = u64>) -> usize {
        keys.filter(|key| self.request(*key)).count()
    }
}

#[test]
fn c9_unread_entries_leave_in_the_order_of_arrival_once_all_room_is_taken() {
    let mut cache = Cache::new(100);
    (0..103).for_each(|key| cache.add(key, WEIGHT, false));
    // The first ninety-two have moved on; what is new has the rest of the room.
    assert_eq!(cache.evicted, [92, 93, 94]);
}

#[test]
fn entry_read_while_it_was_new_survives_a_scan() {
    let mut cache = Cache::new(100);
    assert_eq!(cache.hits(0..100), 0);
    cache.add(1_000, WEIGHT, false);
    assert!(cache.read(1_000));
    cache.hits(2_000..2_500);
    assert!(cache.read(1_000));
}

#[test]
fn entry_that_comes_back_skips_the_new_ones() {
    let mut cache = Cache::new(100);
    cache.hits(0..100);
    cache.add(1_000, WEIGHT, true);
    cache.add(1_001, WEIGHT, false);
    cache.hits(2_000..2_020);
    assert!(cache.read(1_000) && !cache.read(1_001));
}

#[test]
fn loop_longer_than_the_cache_keeps_most_of_what_there_is_room_for() {
    let mut cache = Cache::new(100);
    cache.hits((0..400).cycle().take(2_000));
    let hits = cache.hits((0..400).cycle().take(4_000));
    assert!(hits >= 800, "{hits} of at most 1,000");
}

#[test]
fn c3_new_entry_larger_than_the_room_for_new_ones_is_kept_in_a_full_cache() {
    let mut cache = Cache::new(100);
    cache.hits(0..150);
    for (key, weight) in [(1_000, 50 * WEIGHT), (1_001, 50 * WEIGHT)] {
        cache.add(key, weight, false);
        assert!(cache.read(key), "{key}");
    }
    assert_eq!(cache.policy.weight_bytes(), 100 * WEIGHT);
}

#[test]
fn new_favourites_drive_out_the_old_ones() {
    let mut cache = Cache::new(100);
    cache.hits((0..80).cycle().take(2_000));
    cache.hits((500..580).cycle().take(1_600));
    let hits = cache.hits((500..580).cycle().take(80));
    assert!(hits >= 70, "{hits} of 80");
}

#[test]
fn second_chances_per_eviction_are_bounded() {
    let mut cache = Cache::new(1_000);
    cache.hits(0..1_000);
    for key in (0..1_000).cycle().take(3_000) {
        cache.read(key);
    }
    let marks = |cache: &Cache| -> usize {
        cache
            .held
            .iter()
            .map(|held| usize::from(held.1.marks()))
            .sum()
    };
    let before = marks(&cache);
    cache.add(5_000, WEIGHT, false);
    assert_eq!(cache.evicted.len(), 1);
    // Three for a read entry that leaves, one for every other.
    assert!(before - marks(&cache) <= 3 * CHANCES_MAX);
}

#[derive(Clone, Debug)]
enum Step {
    Request(u64),
    Remove(u64),
    Reweigh(u64, u32),
    Capacity(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (0_u64..60).prop_map(Step::Request),
        2 => (0_u64..60).prop_map(Step::Remove),
        2 => ((0_u64..60), 1_u32..40).prop_map(|(key, weight)| Step::Reweigh(key, weight)),
        1 => (0_u64..40).prop_map(Step::Capacity),
    ]
}

proptest! {
    /// Whatever comes, the queues hold exactly what is held, weigh what it weighs, and stay within the room there is.
    #[test]
    fn c9_queues_agree_with_what_is_held(steps in prop::collection::vec(step(), 0..400)) {
        let mut cache = Cache::new(20);
        for step in steps {
            match step {
                Step::Request(key) => {
                    cache.request(key);
                }
                Step::Remove(key) => cache.remove(key),
                Step::Reweigh(key, weight) => {
                    if let Some(at) = cache.held.iter().position(|held| held.0 == key) {
                        let old = cache.held[at].1.clone();
                        let name = key.to_le_bytes();
                        let new = Handle::new(&name, key, Version::ZERO, Expiry::NEVER, Tags::NONE, (), weight);
                        cache.directory.replace(&old, new.clone());
                        let (before, after) = (old.weight_bytes(), new.weight_bytes());
                        cache.policy.reweigh(&cache.directory, new.slot(), before, after);
                        cache.held[at].1 = new;
                        cache.make_room();
                    }
                }
                Step::Capacity(entries) => {
                    cache.policy.set_capacity(entries * WEIGHT);
                    cache.make_room();
                }
            }
            let weight: u64 = cache.held.iter().map(|held| held.1.weight_bytes()).sum();
            prop_assert_eq!(cache.policy.weight_bytes(), weight);
            prop_assert!(weight <= cache.policy.capacity_bytes);
            prop_assert_eq!(cache.directory.len(), cache.held.len());
        }
        // Everything can be driven out again: no link was lost.
        cache.policy.set_capacity(0);
        cache.make_room();
        prop_assert!(cache.held.is_empty());
        prop_assert_eq!((cache.policy.small.ends.oldest, cache.policy.main.ends.oldest), (NIL, NIL));
    }
}
