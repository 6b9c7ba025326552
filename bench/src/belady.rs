//! The best any cache could have done: hits of Belady's optimum on a known sequence.
//!
//! Source: L. A. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems
//! Journal 5(2), 1966, algorithm MIN. Difference: a missing key is not let in when it is needed later than
//! everything inside, as a cache may refuse an entry; so the count is never below that of plain MIN.

use std::collections::BinaryHeap;

/// Position of a request that never comes.
const NEVER: u32 = u32::MAX;

/// Hits of the optimum with room for `capacity` keys. Keys are numbered from 0 up to `keys`.
///
/// Cost: O(n log n) in the number of requests, and 12 bytes for each.
///
/// # Panics
/// When a request is not below `keys`.
pub(crate) fn hits(requests: &[u32], keys: usize, capacity: usize) -> u64 {
    let next = next_uses(requests, keys);
    // Where the heap says that a key is needed next may be out of date: `due` knows, and says `None` for
    // keys outside. An entry of the heap counts only while both agree.
    let mut due: Vec<Option<u32>> = vec![None; keys];
    let mut furthest: BinaryHeap<(u32, u32)> = BinaryHeap::new();
    let mut inside = 0;
    let mut hits = 0;
    for (request, next_use) in requests.iter().zip(&next) {
        let key = *request as usize;
        if due[key].is_some() {
            hits += 1;
            due[key] = Some(*next_use);
            furthest.push((*next_use, *request));
            continue;
        }
        if capacity == 0 || *next_use == NEVER {
            continue;
        }
        if inside == capacity {
            // Everything inside has one entry that is up to date, so the heap does not run empty.
            while furthest
                .peek()
                .is_some_and(|(at, key)| due[*key as usize] != Some(*at))
            {
                furthest.pop();
            }
            match furthest.peek() {
                Some((at, victim)) if at > next_use => {
                    due[*victim as usize] = None;
                    furthest.pop();
                    inside -= 1;
                }
                _ => continue,
            }
        }
        due[key] = Some(*next_use);
        furthest.push((*next_use, *request));
        inside += 1;
    }
    hits
}

/// For each request, the position of the next one for the same key.
fn next_uses(requests: &[u32], keys: usize) -> Vec<u32> {
    let mut next = vec![NEVER; requests.len()];
    let mut seen = vec![NEVER; keys];
    for (position, request) in requests.iter().enumerate().rev() {
        let key = *request as usize;
        next[position] = seen[key];
        seen[key] = u32::try_from(position).unwrap_or(NEVER);
    }
    next
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The optimum by trying everything: at each miss, refuse the key or evict any other.
    fn hits_by_trying(requests: &[u32], inside: &[u32], capacity: usize) -> u64 {
        let Some((first, rest)) = requests.split_first() else {
            return 0;
        };
        if inside.contains(first) {
            return 1 + hits_by_trying(rest, inside, capacity);
        }
        let mut best = hits_by_trying(rest, inside, capacity);
        let with = |others: &[u32]| [others, &[*first]].concat();
        if inside.len() < capacity {
            best = best.max(hits_by_trying(rest, &with(inside), capacity));
        }
        for victim in inside {
            let others: Vec<u32> = inside.iter().copied().filter(|key| key != victim).collect();
            best = best.max(hits_by_trying(rest, &with(&others), capacity));
        }
        best
    }

    #[test]
    fn no_choice_of_victims_does_better() {
        // A linear congruential generator: the test needs variety, not randomness.
        let mut state = 1_u32;
        for _ in 0..200 {
            let requests: Vec<u32> = (0..10)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    (state >> 24) % 5
                })
                .collect();
            for capacity in 0..4 {
                let best = hits_by_trying(&requests, &[], capacity);
                assert_eq!(
                    hits(&requests, 5, capacity),
                    best,
                    "{requests:?} at {capacity}"
                );
            }
        }
    }
}
