//! Which of a journal's records are still needed, and by that which of its files: [`Ledger`].
//!
//! A segment goes when nothing in it is needed, oldest first: what a record says is settled is said in a later one, which must not go
//! before it. So that one old record does not keep all that follows, those that are needed in the oldest segment are written again at the
//! end when most of the journal is of no use.

use std::collections::BTreeMap;

use bytes::Bytes;
use nearcache_store::Timestamp;

use super::queue::WriteSeq;
use super::record::{Located, Record, WriteRecord};

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The segment.
    pub segment: u64,
    /// Where in it, in bytes.
    pub offset: u64,
    /// What it takes, in bytes.
    pub bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    bytes: u64,
    needed: u64,
    needed_bytes: u64,
}

/// The records of one journal that are needed.
#[derive(Debug, Default)]
pub struct Ledger {
    segments: BTreeMap<u64, State>,
    needed: BTreeMap<WriteSeq, Place>,
    bytes: u64,
    needed_bytes: u64,
}

impl Ledger {
    /// A segment has become so long. The last one named is the one that grows.
    pub fn grew(&mut self, segment: u64, bytes: u64) {
        let state = self.segments.entry(segment).or_default();
        self.bytes = self.bytes - state.bytes + bytes;
        state.bytes = bytes;
    }

    /// A write was recorded there, perhaps once more.
    pub fn recorded(&mut self, seq: WriteSeq, place: Place) {
        self.settled(seq);
        if let Some(state) = self.segments.get_mut(&place.segment) {
            state.needed += 1;
            state.needed_bytes += place.bytes;
            self.needed_bytes += place.bytes;
            self.needed.insert(seq, place);
        }
    }

    /// The record of a write is of no use any more; whether there was one.
    pub fn settled(&mut self, seq: WriteSeq) -> bool {
        let Some(place) = self.needed.remove(&seq) else {
            return false;
        };
        if let Some(state) = self.segments.get_mut(&place.segment) {
            state.needed -= 1;
            state.needed_bytes -= place.bytes;
            self.needed_bytes -= place.bytes;
        }
        true
    }

    /// The oldest segment, if nothing in it is needed and it is not the one that grows.
    #[must_use]
    pub fn useless(&self) -> Option<u64> {
        let (number, state) = self.segments.first_key_value()?;
        (state.needed == 0 && self.segments.len() > 1).then_some(*number)
    }

    /// Takes it out: its file is gone, or goes before that of any later one.
    pub fn take_useless(&mut self) -> Option<u64> {
        let number = self.useless()?;
        let state = self.segments.remove(&number)?;
        self.bytes -= state.bytes;
        Some(number)
    }

    /// The records to be written again at the end, those of the oldest segment, if the journal takes more than `bytes_max` and most of it
    /// is of no use. Nothing otherwise.
    #[must_use]
    pub fn to_move(&self, bytes_max: u64) -> Vec<(WriteSeq, Place)> {
        if self.bytes <= bytes_max || self.needed_bytes > self.bytes / 2 || self.segments.len() == 1
        {
            return Vec::new();
        }
        let Some((oldest, _)) = self.segments.first_key_value() else {
            return Vec::new();
        };
        let all = self.needed.iter();
        let there = all.filter(|(_, place)| place.segment == *oldest);
        there.map(|(seq, place)| (*seq, *place)).collect()
    }

    /// What the journal takes, in bytes.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What is needed of it, in bytes.
    #[must_use]
    pub const fn needed_bytes(&self) -> u64 {
        self.needed_bytes
    }

    /// Records that are needed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.needed.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.needed.is_empty()
    }
}

/// What a journal that is read again says is still to be written: of each key the newest write, unless it is settled.
#[derive(Debug, Default)]
pub struct Replay {
    ledger: Ledger,
    newest: BTreeMap<Bytes, WriteRecord>,
    last: WriteSeq,
    newest_version: Timestamp,
}

/// What a journal that was read says.
#[derive(Debug, Default)]
pub struct Replayed {
    /// The writes that are still to be made, in the order in which they were accepted.
    pub open: Vec<WriteRecord>,
    /// The last number that was given.
    pub last: WriteSeq,
    /// No version that was ever recorded is later.
    pub newest: Timestamp,
    /// Which records are needed.
    pub ledger: Ledger,
}

impl Replay {
    /// Takes in the records of the next segment, in their order.
    pub fn read(&mut self, segment: u64, bytes: u64, records: Vec<Located>) {
        self.ledger.grew(segment, bytes);
        for located in records {
            let place = Place {
                segment,
                offset: located.offset,
                bytes: located.bytes,
            };
            match located.record {
                Record::Write(write) => self.write(write, place),
                Record::Settled(seqs) => {
                    for seq in seqs {
                        self.last = self.last.max(seq);
                        self.ledger.settled(seq);
                    }
                }
                Record::Newest(time) => self.newest_version = self.newest_version.max(time),
            }
        }
    }

    fn write(&mut self, write: WriteRecord, place: Place) {
        self.last = self.last.max(write.seq);
        self.newest_version = self.newest_version.max(write.version.time);
        let older = self.newest.get(&write.key).map(|older| older.seq);
        if let Some(older) = older {
            if older > write.seq {
                return;
            }
            self.ledger.settled(older);
        }
        self.ledger.recorded(write.seq, place);
        self.newest.insert(write.key.clone(), write);
    }

    /// All that was read.
    #[must_use]
    pub fn finish(self) -> Replayed {
        let ledger = self.ledger;
        let newest = self.newest.into_values();
        let mut open: Vec<_> = newest
            .filter(|write| ledger.needed.contains_key(&write.seq))
            .collect();
        open.sort_by_key(|write| write.seq);
        Replayed {
            open,
            last: self.last,
            newest: self.newest_version,
            ledger,
        }
    }
}

#[cfg(test)]
#[path = "ledger_test.rs"]
mod tests;
