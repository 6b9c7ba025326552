use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{Expiry, Handle, Tags, Version};

fn entry(deadline_ms: u64) -> Handle<()> {
    Handle::new(
        b"",
        0,
        Version::ZERO,
        Expiry::at_millis(deadline_ms),
        Tags::NONE,
        (),
        1,
    )
}

fn due_now(wheel: &mut Wheel, directory: &mut Directory<()>, now_ms: u64) -> Vec<u32> {
    let deadline = |d: &Directory<()>, slot| d.get(slot).unwrap().expiry().as_millis();
    std::iter::from_fn(|| wheel.next_due(directory, now_ms, deadline)).collect()
}

#[test]
fn timers_beyond_the_wheel_and_in_the_past_are_no_trouble() {
    let mut directory = Directory::new();
    let mut wheel = Wheel::new(1_000_000);
    for deadline_ms in [u64::MAX - 1, 5] {
        let entry = entry(deadline_ms);
        directory.add(entry.clone());
        wheel.schedule(&mut directory, entry.slot(), deadline_ms);
    }
    assert_eq!(due_now(&mut wheel, &mut directory, 1_000_100), [1]);
    assert_eq!(due_now(&mut wheel, &mut directory, u64::MAX >> 20), []);
}

proptest! {
    /// Deadlines, cancellations and jumps in time of any size: every timer fires once, never early, at most a tick late.
    #[test]
    fn timers_fire_once_and_in_time(
        steps in prop::collection::vec((0_u32..3, 0_u64..1 << 40, 0_u32..30), 1..200),
    ) {
        let mut now_ms = 1_700_000_000_000;
        let mut directory = Directory::new();
        let mut wheel = Wheel::new(now_ms);
        let mut model: BTreeMap<u32, u64> = BTreeMap::new();
        for (step, number, shift) in steps {
            // Small numbers as often as large ones.
            let number = number >> (shift + 5).min(39);
            match step {
                0 => {
                    let entry = entry(now_ms + number);
                    directory.add(entry.clone());
                    wheel.schedule(&mut directory, entry.slot(), now_ms + number);
                    model.insert(entry.slot(), now_ms + number);
                }
                1 => {
                    let nth = usize::try_from(number).unwrap() % (model.len() + 1);
                    if let Some((&slot, _)) = model.iter().nth(nth) {
                        wheel.cancel(&mut directory, slot);
                        let entry = directory.get(slot).unwrap().clone();
                        directory.remove(&entry);
                        model.remove(&slot);
                    }
                }
                _ => {
                    now_ms += number;
                    for slot in due_now(&mut wheel, &mut directory, now_ms) {
                        let deadline_ms = model.remove(&slot);
                        prop_assert!(deadline_ms.is_some_and(|d| d <= now_ms), "fired twice or early");
                        let entry = directory.get(slot).unwrap().clone();
                        directory.remove(&entry);
                    }
                    let tick_ms = 2 << TICK_BITS;
                    let late: Vec<_> = model.values().filter(|d| **d + tick_ms < now_ms).collect();
                    prop_assert!(late.is_empty(), "late at {}: {:?}", now_ms, late);
                }
            }
        }
    }
}
