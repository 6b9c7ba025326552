//! The trace of a run: a hash of all that happened, and on request the story in words.

use std::hash::Hasher as _;

use nearcache_protocol::time::Time;

/// Takes down what happens. Two runs with equal hashes did the same things at the same times.
#[derive(Debug)]
pub(crate) struct Trace {
    hasher: Fnv,
    told: bool,
    stopped: bool,
}

/// FNV-1a over words: stable across versions and machines, and fast enough for every event.
#[derive(Debug)]
struct Fnv(u64);

impl std::hash::Hasher for Fnv {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
}

impl Trace {
    /// An empty trace; `told` makes it print every step.
    pub(crate) const fn new(told: bool) -> Self {
        Self {
            hasher: Fnv(0xcbf2_9ce4_8422_2325),
            told,
            stopped: false,
        }
    }

    /// Takes nothing down any more: in runs about cost.
    pub(crate) const fn stop(&mut self) {
        self.stopped = true;
    }

    /// Takes down one step: numbers for the hash, words for people.
    #[expect(
        clippy::print_stdout,
        reason = "the story is what a verbose run is for"
    )]
    pub(crate) fn step(&mut self, now: Time, numbers: &[u64], words: impl FnOnce() -> String) {
        if self.stopped {
            return;
        }
        self.hasher.write_u64(now.as_nanos());
        for number in numbers {
            self.hasher.write_u64(*number);
        }
        if self.told {
            println!("{now:?} {}", words());
        }
    }

    /// Takes down bytes that were sent.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        if !self.stopped {
            self.hasher.write(bytes);
        }
    }

    /// The hash of all so far.
    pub(crate) fn hash(&self) -> u64 {
        self.hasher.finish()
    }
}
