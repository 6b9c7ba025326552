//! Connections in their handshake: a bounded number, the newest in the place of the oldest.
//!
//! A peer is done in milliseconds. Who stays for long is slow or means harm, and must not keep others out.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

/// All of them.
#[derive(Debug)]
pub(super) struct Strangers {
    max: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// In the order in which they came.
    by_number: BTreeMap<u64, CancellationToken>,
}

/// The place of one; given back when dropped.
#[derive(Debug)]
pub(super) struct Stranger {
    all: Arc<Strangers>,
    number: u64,
    /// Cancelled when another takes its place.
    pub(super) turned_away: CancellationToken,
}

impl Strangers {
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            waiting: Mutex::default(),
        }
    }

    /// A place for one more, which ends with `stopped`; whoever has been here longest is turned away where there is none.
    pub(super) fn admit(self: &Arc<Self>, stopped: &CancellationToken) -> Stranger {
        let turned_away = stopped.child_token();
        let mut waiting = self.waiting.lock();
        if waiting.by_number.len() >= self.max
            && let Some((_, oldest)) = waiting.by_number.pop_first()
        {
            oldest.cancel();
        }
        let number = waiting.next;
        waiting.next += 1;
        waiting.by_number.insert(number, turned_away.clone());
        drop(waiting);
        Stranger {
            all: Arc::clone(self),
            number,
            turned_away,
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.all.waiting.lock().by_number.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_takes_the_place_of_the_oldest_that_is_still_there() {
        let (all, stopped) = (Arc::new(Strangers::new(2)), CancellationToken::new());
        let first = all.admit(&stopped);
        let second = all.admit(&stopped);
        let third = all.admit(&stopped);
        assert!(first.turned_away.is_cancelled());
        drop((first, third));
        let fourth = all.admit(&stopped);
        assert!(!second.turned_away.is_cancelled());
        let fifth = all.admit(&stopped);
        assert!(second.turned_away.is_cancelled());
        assert!(!fourth.turned_away.is_cancelled());
        stopped.cancel();
        assert!(fifth.turned_away.is_cancelled());
    }
}
