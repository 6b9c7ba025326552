//! Long values among the operations of a run: which values are long, and who reads them when.
//!
//! Drawn from a generator of its own, so that a run without them is what it was before there were any.

use std::time::Duration;

use nearcache_protocol::config::ReplicationConfig;
use nearcache_protocol::time::Time;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::plan::{KEYS, Operation};

/// Reads of a run, beside its other operations.
const READS: usize = 150;
/// One write in so many is of a long value.
const ONE_IN: usize = 2;

/// How the long values of a run are.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Long {
    /// The longest value that travels with its update.
    pub(crate) inline_limit: usize,
    /// The longest value of all.
    pub(crate) bytes_max: usize,
    /// What each node sends of them per second; 0 for no limit.
    pub(crate) bytes_per_second: u64,
    /// What may be arriving at a node at once.
    pub(crate) room_bytes: usize,
}

impl Long {
    /// Those of a seed, if it has any: every third does.
    pub(crate) fn draw(seed: u64) -> Option<Self> {
        if !seed.is_multiple_of(3) {
            return None;
        }
        let rng = &mut generator(seed);
        Some(Self {
            inline_limit: rng.random_range(64..=300),
            bytes_max: rng.random_range(400..=1_500),
            bytes_per_second: if rng.random_bool(0.5) { 0 } else { 100_000 },
            room_bytes: if rng.random_bool(0.5) { 2_000 } else { 1 << 20 },
        })
    }

    /// Reads from `from_ms` on, by any node, of any key; half of them come soon after one of the writes.
    pub(crate) fn reads(
        &self,
        seed: u64,
        nodes: usize,
        operations: &[(Time, usize, Operation)],
    ) -> Vec<(Time, usize, Operation)> {
        let rng = &mut generator(seed.wrapping_add(1));
        let mut read = |n: usize| {
            let (written, _, operation) =
                operations.get(rng.random_range(0..operations.len().max(1)))?;
            let key = match operation {
                Operation::Put { key, .. } if n.is_multiple_of(2) => *key,
                _ => rng.random_range(0..KEYS),
            };
            let at = *written + Duration::from_millis(rng.random_range(0..400));
            Some((at, rng.random_range(0..nodes), Operation::Find { key }))
        };
        (0..READS).filter_map(&mut read).collect()
    }

    /// The length of the value that write `n` writes, at least.
    pub(crate) fn len_of(&self, n: usize) -> usize {
        if n.is_multiple_of(ONE_IN) {
            self.inline_limit + 1 + n * 37 % (self.bytes_max - self.inline_limit)
        } else {
            0
        }
    }

    pub(crate) fn configure(&self, config: &mut ReplicationConfig) {
        config.inline_limit = self.inline_limit;
        config.fetch_bytes_per_second = self.bytes_per_second;
        config.fetch_bytes_max = self.room_bytes;
    }
}

/// Makes `bytes` `len` bytes long. No two places of one value, and no two values, look alike for long.
pub(crate) fn lengthen(bytes: &mut Vec<u8>, len: usize, n: usize) {
    while bytes.len() < len {
        let at = bytes.len();
        bytes.push(b'a' + u8::try_from((at / 7 + at * (n % 13 + 1)) % 26).unwrap_or_default());
    }
}

fn generator(seed: u64) -> StdRng {
    StdRng::seed_from_u64(seed ^ 0x6c6f_6e67)
}
