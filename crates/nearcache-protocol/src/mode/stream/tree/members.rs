//! Who is alive and who runs the cache, and when that changed: what neighbours are told of it.
//!
//! Who is alive each node knows from its own membership. Who runs the cache it knows of its peers, and tells its neighbours, who pass it
//! on. Such a word names a start of the member; of two the one about the newer start counts, and of the same start that it runs the
//! cache, or did and has left: so all come to the same, in whatever order words arrive.

use std::collections::BTreeMap;

use nearcache_store::NodeId;

use crate::ids::Epoch;
use crate::message::{MemberWord, Runs};

/// Members that are gone, or of which others have told before membership did, that are remembered so that neighbours can be told so. Whoever
/// has not been told of one that is forgotten is told of all anew.
const GONE_MAX: usize = 1_024;

/// The members of one cache's node.
#[derive(Debug, Default)]
pub(in crate::mode) struct Members {
    known: BTreeMap<NodeId, Known>,
    /// Which member changed when, by a count of the changes; of each the last.
    changes: BTreeMap<u64, NodeId>,
    changed: u64,
    alive: usize,
    /// The last change of a member that is forgotten.
    forgotten: u64,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    alive: bool,
    /// The newest start of which is known whether it runs the cache, and whether it does.
    runs: (Epoch, Runs),
    changed_at: u64,
}

/// Nothing is known of any start.
const NO_WORD: (Epoch, Runs) = (Epoch::from_u64(0), Runs::No);

impl Members {
    /// Takes note of whether a member lives. Returns whether that is news.
    pub(super) fn note(&mut self, node: NodeId, alive: bool) -> bool {
        let known = self.known.get(&node).copied();
        if known.map_or(!alive, |known| known.alive == alive) {
            return false;
        }
        self.alive = if alive {
            self.alive + 1
        } else {
            self.alive - 1
        };
        let runs = known.map_or(NO_WORD, |known| known.runs);
        self.change(node, alive, runs);
        self.forget_gone();
        true
    }

    /// Takes note of whether a start of a member runs the cache.
    pub(super) fn hear_runs(&mut self, node: NodeId, epoch: Epoch, runs: Runs) {
        let known = self.known.get(&node);
        let (alive, former) = known.map_or((false, NO_WORD), |known| (known.alive, known.runs));
        if (epoch, runs) > former {
            self.change(node, alive, (epoch, runs));
            self.forget_gone();
        }
    }

    fn change(&mut self, node: NodeId, alive: bool, runs: (Epoch, Runs)) {
        self.changed += 1;
        let changed_at = self.changed;
        let known = Known {
            alive,
            runs,
            changed_at,
        };
        if let Some(former) = self.known.insert(node, known) {
            self.changes.remove(&former.changed_at);
        }
        self.changes.insert(changed_at, node);
    }

    fn forget_gone(&mut self) {
        while self.known.len() - self.alive > GONE_MAX {
            let mut oldest_first = self.changes.iter();
            let oldest = oldest_first.find(|(_, node)| !self.is_alive(**node));
            let Some((at, node)) = oldest.map(|(at, node)| (*at, *node)) else {
                return;
            };
            self.changes.remove(&at);
            self.known.remove(&node);
            self.forgotten = self.forgotten.max(at);
        }
    }

    /// What has changed after the change counted `since`, at most so many, and the count of the last one told. True if this is all there is, in
    /// place of what was told before.
    pub(super) fn changed_since(&self, since: u64, max: usize) -> (Vec<MemberWord>, u64, bool) {
        let whole = since < self.forgotten;
        let from = if whole { 0 } else { since };
        let mut told = self.changed.max(since);
        let mut members = Vec::new();
        for (at, node) in self.changes.range(from.saturating_add(1)..) {
            let Some(known) = self.known.get(node).filter(|known| known.alive || !whole) else {
                continue;
            };
            if members.len() == max {
                break;
            }
            told = *at;
            members.push(MemberWord {
                node: *node,
                alive: known.alive,
                epoch: known.runs.0,
                runs: known.runs.1,
            });
        }
        if members.len() < max {
            told = self.changed.max(since);
        }
        (members, told, whole)
    }

    pub(super) fn is_alive(&self, node: NodeId) -> bool {
        self.known.get(&node).is_some_and(|known| known.alive)
    }

    /// Whether the member runs the cache, by the word on its newest start; nothing if there is none.
    pub(super) fn runs(&self, node: NodeId) -> Option<bool> {
        self.word(node).map(|runs| runs == Runs::Yes)
    }

    /// The word on the newest start of the member; nothing if there is none.
    pub(super) fn word(&self, node: NodeId) -> Option<Runs> {
        let known = self.known.get(&node)?;
        (known.runs > NO_WORD).then_some(known.runs.1)
    }

    /// Who is alive, in the order of their ids.
    pub(super) fn living(&self) -> impl Iterator<Item = NodeId> + '_ {
        let living = self.known.iter().filter(|(_, known)| known.alive);
        living.map(|(node, _)| *node)
    }

    pub(super) const fn alive(&self) -> usize {
        self.alive
    }

    pub(super) const fn changes(&self) -> u64 {
        self.changed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(id: u64) -> NodeId {
        NodeId::from_u64(id)
    }

    fn start(epoch: u64) -> Epoch {
        Epoch::from_u64(epoch)
    }

    #[test]
    fn of_two_words_the_one_about_the_newer_start_counts_in_whatever_order_they_come() {
        let words = [
            (1, Runs::Ended(9)),
            (2, Runs::No),
            (2, Runs::Yes),
            (3, Runs::No),
        ];
        for first in 0..words.len() {
            let mut members = Members::default();
            members.note(id(7), true);
            assert_eq!(members.runs(id(7)), None);
            for n in 0..words.len() {
                let (epoch, runs) = words[(first + n) % words.len()];
                members.hear_runs(id(7), start(epoch), runs);
            }
            assert_eq!(members.runs(id(7)), Some(false));
            members.hear_runs(id(7), start(3), Runs::Yes);
            members.hear_runs(id(7), start(3), Runs::No);
            assert_eq!(members.runs(id(7)), Some(true));
        }
    }

    #[test]
    fn c9_the_gone_are_forgotten_and_who_was_not_told_of_them_is_told_of_all_anew() {
        let mut members = Members::default();
        let count = GONE_MAX as u64 + 100;
        for n in 1..=count {
            members.note(id(n), true);
        }
        let (_, told_early, _) = members.changed_since(0, usize::MAX);
        for n in 2..=count {
            members.note(id(n), false);
        }
        assert_eq!(members.known.len(), GONE_MAX + 1);
        assert_eq!(members.changes.len(), GONE_MAX + 1);
        let (words, told, whole) = members.changed_since(told_early, usize::MAX);
        assert!(whole);
        assert_eq!(words.len(), 1);
        assert!(words[0].node == id(1) && words[0].alive);
        assert_eq!(told, members.changes());
        // Whoever is up to date is told of what is new only.
        members.note(id(5_000), true);
        let (words, told, whole) = members.changed_since(told, usize::MAX);
        assert!(!whole && words.len() == 1 && told == members.changes());
    }

    #[test]
    fn what_does_not_fit_into_an_answer_follows_in_the_next() {
        let mut members = Members::default();
        for n in 1..=5 {
            members.note(id(n), true);
        }
        members.note(id(2), false);
        let (mut since, mut heard) = (0, Vec::new());
        while since < members.changes() {
            let (words, told, whole) = members.changed_since(since, 2);
            assert!(!whole && told > since);
            heard.extend(words.iter().map(|word| (word.node.as_u64(), word.alive)));
            since = told;
        }
        heard.sort_unstable();
        let expected = [(1, true), (2, false), (3, true), (4, true), (5, true)];
        assert_eq!(heard, expected);
    }
}
