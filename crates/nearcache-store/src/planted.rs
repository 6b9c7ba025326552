//! Bugs on purpose: [`PlantedBug`], so that those who look for bugs can show that they find them.
//!
//! Without the feature `planted-bugs` nothing of this exists: the question is answered by the compiler.

/// A rule that a store can be told to break.
#[cfg(feature = "planted-bugs")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlantedBug {
    /// Merges apply whatever their version (breaks design §6 rule 1, C2).
    NoVersionCheck,
    /// Removals and expiries leave no tombstone (breaks R3).
    NoTombstones,
    /// Evictions leave no floor (breaks C2).
    NoKeyFloors,
    /// Group invalidations drop what is held, but do not stay in force (breaks C4).
    NoGroupFloors,
    /// Tombstones do not count in the digest (breaks R11).
    DigestWithoutTombstones,
    /// What is evicted is known no longer, and so is brought back by anti-entropy (breaks R10).
    DigestWithoutEvicted,
    /// An expired copy is served for as long as it is in memory (breaks the limit of stale copies).
    StaleBeyondLimit,
    /// What has expired is served until it is swept away (breaks C5).
    ExpiryBySweeperOnly,
}

/// Which bugs a store has.
#[derive(Default)]
pub(crate) struct Planted {
    #[cfg(feature = "planted-bugs")]
    bugs: std::sync::atomic::AtomicU8,
}

#[cfg(feature = "planted-bugs")]
impl Planted {
    pub(crate) fn plant(&self, bug: PlantedBug) {
        self.bugs
            .fetch_or(1 << bug as u8, std::sync::atomic::Ordering::Relaxed);
    }

    fn has(&self, bug: PlantedBug) -> bool {
        self.bugs.load(std::sync::atomic::Ordering::Relaxed) & (1 << bug as u8) != 0
    }

    pub(crate) fn ignores_versions(&self) -> bool {
        self.has(PlantedBug::NoVersionCheck)
    }

    pub(crate) fn forgets_tombstones(&self) -> bool {
        self.has(PlantedBug::NoTombstones)
    }

    pub(crate) fn forgets_key_floors(&self) -> bool {
        self.has(PlantedBug::NoKeyFloors)
    }

    pub(crate) fn forgets_group_floors(&self) -> bool {
        self.has(PlantedBug::NoGroupFloors)
    }

    pub(crate) fn leaves_out_tombstones(&self) -> bool {
        self.has(PlantedBug::DigestWithoutTombstones)
    }

    pub(crate) fn leaves_out_evicted(&self) -> bool {
        self.has(PlantedBug::DigestWithoutEvicted)
    }

    pub(crate) fn serves_any_stale(&self) -> bool {
        self.has(PlantedBug::StaleBeyondLimit)
    }

    pub(crate) fn leaves_expiry_to_the_sweeper(&self) -> bool {
        self.has(PlantedBug::ExpiryBySweeperOnly)
    }
}

#[cfg(not(feature = "planted-bugs"))]
#[expect(clippy::unused_self, reason = "the same shape as with the feature")]
impl Planted {
    #[inline]
    pub(crate) const fn ignores_versions(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) const fn forgets_tombstones(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) const fn forgets_key_floors(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) const fn forgets_group_floors(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) const fn leaves_out_tombstones(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) const fn leaves_out_evicted(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) const fn serves_any_stale(&self) -> bool {
        false
    }

    #[inline]
    pub(crate) const fn leaves_expiry_to_the_sweeper(&self) -> bool {
        false
    }
}
