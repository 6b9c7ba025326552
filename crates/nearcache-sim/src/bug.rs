//! Bugs planted on purpose, to prove that the checkers bite.

use nearcache_store::{PlantedBug, Store};

use crate::value::Value;

/// A bug that a run can be given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// A merge applies whatever it is given, older or not.
    NoVersionCheck,
    /// A removal leaves no tombstone.
    NoTombstones,
    /// A group invalidation does not stay in force.
    NoGroupFloors,
    /// A node that has started again makes versions at once.
    StampsAtOnce,
}

impl Bug {
    /// Every bug, by the name it has on the command line.
    pub const ALL: &[(&str, Self)] = &[
        ("no-version-check", Self::NoVersionCheck),
        ("no-tombstones", Self::NoTombstones),
        ("no-group-floors", Self::NoGroupFloors),
        ("stamps-at-once", Self::StampsAtOnce),
    ];

    /// The bug of this name.
    #[must_use]
    pub fn by_name(name: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| *known == name)
            .map(|(_, bug)| *bug)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL
            .iter()
            .find(|(_, bug)| *bug == self)
            .map_or("", |(name, _)| name)
    }

    pub(crate) fn plant(self, store: &Store<Value>) {
        store.plant(match self {
            Self::NoVersionCheck => PlantedBug::NoVersionCheck,
            Self::NoTombstones => PlantedBug::NoTombstones,
            Self::NoGroupFloors => PlantedBug::NoGroupFloors,
            Self::StampsAtOnce => return,
        });
    }
}
