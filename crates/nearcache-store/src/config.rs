//! How a store is set up: [`StoreConfig`].

use std::num::NonZeroUsize;
use std::time::Duration;

use crate::policy::Policy;

/// Settings of one store. `StoreConfig::new(max_bytes)` is safe as it stands.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// Most bytes that entries (keys, values, overhead), tombstones and floors may take together. No default: see
    /// [`StoreConfig::new`]. At least [`StoreConfig::BYTES_MIN`].
    pub max_bytes: u64,
    /// Largest entry to be stored. Decides the default number of shards, because the bound holds per shard.
    /// Default: 1 MiB and 8 KiB for its key and overhead, or a quarter of `max_bytes` if that is less.
    pub max_entry_bytes: u64,
    /// Number of shards, rounded up to a power of two; writers of different shards do not wait for each other. Default
    /// `None`: as many as leave each entry at most a quarter of its shard, at most 256.
    pub shards: Option<NonZeroUsize>,
    /// Drops entries that were not read for so long, on this node. Default: `None`.
    pub time_to_idle: Option<Duration>,
    /// How long an entry stays in memory after its expiry, for [`Store::peek_stale`](crate::Store::peek_stale) alone; to
    /// everybody else it is expired all the same. Room permitting, and no longer than a removal of its version is
    /// remembered (`tombstone_ttl`). Default: zero.
    pub stale_for: Duration,
    /// How long removals and group invalidations are kept, counted from their versions. Longer than the longest netsplit to be
    /// survived without a full transfer. Default: 24 h.
    pub tombstone_ttl: Duration,
    /// Share of `max_bytes` that tombstones may take, in percent; beyond it the oldest become a floor of their shard.
    /// Default: 10.
    pub tombstone_percent: u8,
    /// Share of `max_bytes` that floors of evicted keys take, in percent, from the first eviction on: 32 bytes per floor;
    /// beyond it the oldest become floors common to several keys. Default: 3.
    pub key_floor_percent: u8,
    /// Most group invalidations remembered; beyond it neighbouring ones are merged into a wider one, which drops
    /// copies but never lets an old one back. Default: 1,024.
    pub group_floors_max: usize,
    /// Keeps a digest of what is known, keyed with these bytes, which must be the same on all nodes that compare theirs. Costs a
    /// SipHash per write and half a byte per small entry. Default `None`: off.
    pub digest_key: Option<[u8; 16]>,
    /// Keys the hash; must be unpredictable to clients in production, is fixed in a simulation. Default: 0.
    pub hash_seed: u64,
}

/// Why a configuration cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// `max_bytes` is too small for any use.
    #[error("max_bytes is {max_bytes}, at least {min_bytes} are needed")]
    TooSmall {
        /// The setting.
        max_bytes: u64,
        /// The least that is accepted.
        min_bytes: u64,
    },
    /// The shares of tombstones and floors leave too little for entries.
    #[error(
        "tombstone_percent {tombstone_percent} and key_floor_percent {key_floor_percent} exceed 50 together"
    )]
    SharesTooLarge {
        /// The setting.
        tombstone_percent: u8,
        /// The setting.
        key_floor_percent: u8,
    },
    /// More shards than the bound can be divided into.
    #[error("{shards} shards leave {shard_bytes} bytes each, at least {min_bytes} are needed")]
    TooManyShards {
        /// The setting, rounded up to a power of two.
        shards: usize,
        /// What each would get.
        shard_bytes: u64,
        /// The least that is accepted.
        min_bytes: u64,
    },
}

impl StoreConfig {
    /// Smallest bound of a store and of a shard, in bytes (guess: a few dozen small entries).
    pub const BYTES_MIN: u64 = 16 << 10;
    /// Most shards that a store picks by itself. More than 64 brought nothing to throughput on two cores, but a table that
    /// grows keeps the readers of its shard waiting for as long as it takes to look at each of its records once.
    const SHARDS_MAX: u64 = 256;

    /// The default settings with a bound of `max_bytes`.
    #[must_use]
    pub fn new(max_bytes: u64) -> Self {
        Self {
            max_bytes,
            max_entry_bytes: ((1 << 20) + (8 << 10)).min(max_bytes / 4),
            shards: None,
            time_to_idle: None,
            stale_for: Duration::ZERO,
            tombstone_ttl: Duration::from_secs(24 * 60 * 60),
            tombstone_percent: 10,
            key_floor_percent: 3,
            group_floors_max: 1024,
            digest_key: None,
            hash_seed: 0,
        }
    }

    /// Checks the settings against each other.
    ///
    /// # Errors
    /// The first rule that is broken, with both sides of the comparison.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.max_bytes < Self::BYTES_MIN {
            return Err(ConfigError::TooSmall {
                max_bytes: self.max_bytes,
                min_bytes: Self::BYTES_MIN,
            });
        }
        if u16::from(self.tombstone_percent) + u16::from(self.key_floor_percent) > 50 {
            return Err(ConfigError::SharesTooLarge {
                tombstone_percent: self.tombstone_percent,
                key_floor_percent: self.key_floor_percent,
            });
        }
        let shards = self.shard_count();
        let shard_bytes = self.max_bytes / shards as u64;
        if shard_bytes < Self::BYTES_MIN {
            return Err(ConfigError::TooManyShards {
                shards,
                shard_bytes,
                min_bytes: Self::BYTES_MIN,
            });
        }
        Ok(())
    }

    /// The most one entry may weigh: what a shard takes when tombstones and floors have all their room.
    pub(crate) fn entry_bytes_limit(&self) -> u64 {
        let share_bytes = self.max_bytes / self.shard_count() as u64;
        let aside_percent = u64::from(self.tombstone_percent) + u64::from(self.key_floor_percent);
        // Three percent more for the steps in which that room is given.
        Policy::max_entry_bytes(share_bytes / 100 * (97 - aside_percent))
    }

    /// Group floors are few but long-lived; a small cache keeps fewer.
    pub(crate) fn effective_group_floors_max(&self) -> usize {
        let by_bytes = usize::try_from(self.max_bytes / 4096).unwrap_or(usize::MAX);
        self.group_floors_max.min(by_bytes).max(4)
    }

    /// How many shards the store will have.
    #[must_use]
    pub fn shard_count(&self) -> usize {
        if let Some(shards) = self.shards {
            return shards.get().next_power_of_two();
        }
        let by_entry = self.max_bytes / self.max_entry_bytes.saturating_mul(4).max(1);
        let by_share = self.max_bytes / Self::BYTES_MIN;
        let shards = by_entry.min(by_share).clamp(1, Self::SHARDS_MAX);
        // Rounded down, so that the share never falls below what was asked for.
        1 << shards.ilog2()
    }
}
