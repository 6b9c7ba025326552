//! Group invalidations in force: [`GroupFloors`], the versions below which nothing of a tag, a prefix or the whole
//! cache is accepted or served.
//!
//! Bounded: beyond the bound the two neighbours with the longest common beginning are merged into one floor of that
//! beginning, with the higher of their versions. That covers more than was asked for (copies are dropped that need not
//! be), never less, and no invalidation is refused.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

use crate::{Scope, Tags, Version};

/// Invalidations remembered one by one, for who asks what came since (guess: a load of a second, 250 invalidations a second).
const RECENT_MAX: usize = 256;

pub(crate) struct GroupFloors {
    /// What was raised last, the newest at the end.
    recent: VecDeque<Scope>,
    /// The highest that a floor of tags was ever raised to.
    highest_tag: Version,
    all: Version,
    prefixes: Floors,
    tags: Floors,
    tag_prefixes: Floors,
    len_max: usize,
}

type Floors = BTreeMap<Box<[u8]>, Version>;

impl GroupFloors {
    pub(crate) fn new(len_max: usize) -> Self {
        Self {
            recent: VecDeque::new(),
            highest_tag: Version::ZERO,
            all: Version::ZERO,
            prefixes: Floors::new(),
            tags: Floors::new(),
            tag_prefixes: Floors::new(),
            len_max: len_max.max(1),
        }
    }

    pub(crate) fn len(&self) -> usize {
        let all = usize::from(self.all != Version::ZERO);
        all + self.prefixes.len() + self.tags.len() + self.tag_prefixes.len()
    }

    /// The highest floor that covers `key` whatever its entry carries. Cost: O(log n) times the number of nested
    /// prefixes.
    pub(crate) fn of_key(&self, key: &[u8]) -> Version {
        self.all.max(highest_prefix_of(&self.prefixes, key))
    }

    /// The highest floor that covers one of `tags`.
    pub(crate) fn of_tags(&self, tags: &Tags) -> Version {
        let of_tag = |tag: &[u8]| {
            let exact = self.tags.get(tag).copied().unwrap_or(Version::ZERO);
            exact.max(highest_prefix_of(&self.tag_prefixes, tag))
        };
        tags.iter().map(of_tag).max().unwrap_or(Version::ZERO)
    }

    /// Raises the floor of `scope`; false if it was covered as high before.
    pub(crate) fn raise(&mut self, scope: Scope, version: Version) -> bool {
        let changed = self.raise_floor(scope.clone(), version);
        if changed {
            if let Scope::Tag(_) | Scope::TagPrefix(_) = &scope {
                self.highest_tag = self.highest_tag.max(version);
            }
            if self.recent.len() >= RECENT_MAX {
                self.recent.pop_front();
            }
            self.recent.push_back(scope);
        }
        changed
    }

    /// The version of the newest invalidation by tag.
    pub(crate) const fn highest_tag(&self) -> Version {
        self.highest_tag
    }

    /// Did one of the last `count` invalidations cover an entry of `key` with `tags`? Not knowing the tags, any tag may be
    /// one of them; and what is no longer remembered may have covered anything.
    pub(crate) fn covered_by_last(&self, count: u32, key: &[u8], tags: Option<&Tags>) -> bool {
        let Some(first) = self.recent.len().checked_sub(count as usize) else {
            return true;
        };
        self.recent.range(first..).any(|scope| match (tags, scope) {
            (None, Scope::Tag(_) | Scope::TagPrefix(_)) => true,
            (None, Scope::All | Scope::Prefix(_)) => scope.covers(key, &Tags::NONE),
            (Some(tags), _) => scope.covers(key, tags),
        })
    }

    fn raise_floor(&mut self, scope: Scope, version: Version) -> bool {
        let changed = match scope {
            Scope::All => {
                let changed = version > self.all;
                if changed {
                    self.all = version;
                    for floors in [&mut self.prefixes, &mut self.tags, &mut self.tag_prefixes] {
                        floors.retain(|_, floor| *floor > version);
                    }
                }
                changed
            }
            Scope::Prefix(prefix) => {
                self.of_key(&prefix) < version && raise_prefix(&mut self.prefixes, prefix, version)
            }
            Scope::Tag(tag) => {
                let covered = highest_prefix_of(&self.tag_prefixes, &tag).max(self.all);
                let known = self.tags.get(&tag).copied().unwrap_or(Version::ZERO);
                let changed = covered.max(known) < version;
                if changed {
                    self.tags.insert(tag, version);
                }
                changed
            }
            Scope::TagPrefix(prefix) => {
                let covered = highest_prefix_of(&self.tag_prefixes, &prefix).max(self.all);
                let changed = covered < version;
                if changed {
                    drop_below(&mut self.tags, &prefix, version);
                    raise_prefix(&mut self.tag_prefixes, prefix, version);
                }
                changed
            }
        };
        while self.len() > self.len_max && self.widen() {}
        changed
    }

    /// Is there a floor of `before_ms` or earlier?
    pub(crate) fn has_any_before(&self, before_ms: u64) -> bool {
        let all = Some(&self.all).filter(|floor| **floor != Version::ZERO);
        let others = self.prefixes.values().chain(self.tags.values());
        let mut floors = all
            .into_iter()
            .chain(others)
            .chain(self.tag_prefixes.values());
        floors.any(|floor| floor.time.millis() <= before_ms)
    }

    /// Forgets floors of `before_ms` or earlier, by their versions, so that all nodes do so at about the same time.
    pub(crate) fn collect(&mut self, before_ms: u64) {
        if self.all.time.millis() <= before_ms {
            self.all = Version::ZERO;
        }
        for floors in [&mut self.prefixes, &mut self.tags, &mut self.tag_prefixes] {
            floors.retain(|_, floor| floor.time.millis() > before_ms);
        }
    }

    /// All floors, in a fixed order.
    pub(crate) fn to_vec(&self) -> Vec<(Scope, Version)> {
        let all = (self.all != Version::ZERO).then_some((Scope::All, self.all));
        let prefixes = self
            .prefixes
            .iter()
            .map(|(p, f)| (Scope::Prefix(p.clone()), *f));
        let tags = self.tags.iter().map(|(t, f)| (Scope::Tag(t.clone()), *f));
        let tag_prefixes = self
            .tag_prefixes
            .iter()
            .map(|(t, f)| (Scope::TagPrefix(t.clone()), *f));
        all.into_iter()
            .chain(prefixes)
            .chain(tags)
            .chain(tag_prefixes)
            .collect()
    }

    /// Merges the two neighbours that share most into one wider floor; false if there are no two.
    fn widen(&mut self) -> bool {
        let tags = || self.tags.iter().chain(&self.tag_prefixes);
        let mut tags: Vec<_> = tags().map(|(t, f)| (t.clone(), *f)).collect();
        tags.sort_by(|a, b| a.0.cmp(&b.0));
        let prefixes: Vec<_> = self.prefixes.iter().map(|(p, f)| (p.clone(), *f)).collect();
        match (closest(&prefixes), closest(&tags)) {
            (Some(pair), other) if other.as_ref().is_none_or(|o| o.0.len() <= pair.0.len()) => {
                let (common, floor) = pair;
                if common.is_empty() {
                    self.raise_floor(Scope::All, floor);
                } else {
                    raise_prefix(&mut self.prefixes, common, floor);
                }
                true
            }
            (_, Some((common, floor))) => {
                drop_below(&mut self.tags, &common, floor);
                raise_prefix(&mut self.tag_prefixes, common, floor);
                true
            }
            (_, None) => false,
        }
    }
}

/// Sets the floor of `prefix` and drops what it makes superfluous.
fn raise_prefix(floors: &mut Floors, prefix: Box<[u8]>, floor: Version) -> bool {
    drop_below(floors, &prefix, floor);
    floors.insert(prefix, floor);
    true
}

/// Drops the floors of everything that begins with `prefix`, up to `version`.
fn drop_below(floors: &mut Floors, prefix: &[u8], version: Version) {
    let beginning = |p: &[u8]| p.starts_with(prefix);
    let range = floors.range::<[u8], _>((Bound::Included(prefix), Bound::Unbounded));
    let covered = range
        .take_while(|(p, _)| beginning(p))
        .filter(|(_, floor)| **floor <= version);
    let covered: Vec<Box<[u8]>> = covered.map(|(p, _)| p.clone()).collect();
    for prefix in covered {
        floors.remove(&prefix);
    }
}

/// The highest version among the floors whose prefix `bytes` begins with. Looks only at those and at what lies
/// between them: each step shortens the bound to what the last candidate shares with it.
fn highest_prefix_of(floors: &Floors, bytes: &[u8]) -> Version {
    let mut highest = Version::ZERO;
    let mut bound = Bound::Included(bytes);
    while let Some((prefix, floor)) = floors
        .range::<[u8], _>((Bound::Unbounded, bound))
        .next_back()
    {
        if bytes.starts_with(prefix) {
            highest = highest.max(*floor);
            bound = Bound::Excluded(prefix);
        } else {
            bound = Bound::Included(&bytes[..common_len(prefix, bytes)]);
        }
    }
    highest
}

/// What the two neighbours that share most have in common, and the floor of both.
fn closest(sorted: &[(Box<[u8]>, Version)]) -> Option<(Box<[u8]>, Version)> {
    let pairs = sorted
        .windows(2)
        .map(|pair| (common_len(&pair[0].0, &pair[1].0), pair));
    let (len, pair) = pairs.max_by_key(|(len, _)| *len)?;
    Some((pair[0].0[..len].into(), pair[0].1.max(pair[1].1)))
}

fn common_len(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
#[path = "group_floors_test.rs"]
mod tests;
