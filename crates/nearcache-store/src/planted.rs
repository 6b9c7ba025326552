//! Bugs on purpose: [`PlantedBug`], so that those who look for bugs can show that they find them.
//!
//! Without the feature `planted-bugs` nothing of this exists: the question is answered by the compiler.

/// A rule that a store can be told to break.
#[cfg(feature = "planted-bugs")]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PlantedBug {
    /// Merges apply whatever their version (breaks design §6 rule 1, C2).
    IgnoreVersions,
    /// Removals and expiries leave no tombstone (breaks R3).
    ForgetTombstones,
    /// Evictions leave no floor (breaks C2).
    ForgetKeyFloors,
    /// Group invalidations drop what is held, but do not stay in force (breaks C4).
    ForgetGroupFloors,
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
        self.has(PlantedBug::IgnoreVersions)
    }

    pub(crate) fn forgets_tombstones(&self) -> bool {
        self.has(PlantedBug::ForgetTombstones)
    }

    pub(crate) fn forgets_key_floors(&self) -> bool {
        self.has(PlantedBug::ForgetKeyFloors)
    }

    pub(crate) fn forgets_group_floors(&self) -> bool {
        self.has(PlantedBug::ForgetGroupFloors)
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
}
