//! The system of record behind a cache in mode `invalidation`: the newest value of each key, which only grows.

use std::sync::atomic::{AtomicU64, Ordering};

use super::board::Board;
use super::keys::Keys;
use crate::history::Value;

/// The values.
#[derive(Debug)]
pub(crate) struct Record(Vec<AtomicU64>);

impl Record {
    /// Every key has a value from the start.
    pub(crate) fn new(board: &Board, keys: Keys) -> Self {
        let values = (0..keys.count()).map(|_| AtomicU64::new(board.new_value()));
        Self(values.collect())
    }

    /// What a load finds now.
    pub(super) fn load(&self, key: usize) -> Value {
        self.0
            .get(key)
            .map_or(0, |value| value.load(Ordering::SeqCst))
    }

    /// Changes it to `value`, unless somebody has changed it to a later one.
    pub(super) fn change(&self, key: usize, value: Value) {
        if let Some(record) = self.0.get(key) {
            record.fetch_max(value, Ordering::SeqCst);
        }
    }
}
