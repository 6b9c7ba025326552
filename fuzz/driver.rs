//! Drives fuzz targets with the stable compiler: their seeds, whole and changed at random.
//!
//! No coverage guides the changes, but the oracles are the same. `NEARCACHE_TEST_FUZZ_SECONDS` says how
//! long each target is driven; without it a few hundred cases are made, the same on every run. An input
//! that fails is left in `target/fuzz-failures` and belongs into the seeds, with the fix.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

/// A fuzz target: one function of bytes that panics when an oracle does not hold.
pub(crate) type Target = fn(&[u8]);

/// Cases where nobody says how long.
const CASES: u32 = 500;
/// Longest input that is made.
const BYTES_MAX: usize = 8 << 10;
/// Texts that decoders treat in a way of their own.
const WORDS: &[&[u8]] = &[
    b"\r\n",
    b"\r\n\r\n",
    b"\0",
    b"\xff\xff\xff\xff",
    b"-1",
    b"0",
    b"9223372036854775807",
    b"18446744073709551616",
    b"%",
    b"%00",
    b"%2F",
    b"\"",
    b"[",
    b"]",
    b"=",
    b"*",
    b"$",
    b",",
    b";",
];

/// Calls `target` with the seeds of this name and with changes of them.
pub(crate) fn drive(name: &str, target: Target) {
    let seeds = seeds(name);
    for seed in &seeds {
        call(name, target, seed);
    }
    let seconds = std::env::var("NEARCACHE_TEST_FUZZ_SECONDS").ok();
    let seconds = seconds.and_then(|text| text.parse().ok());
    let mut random = Random(match seconds {
        // Nights differ from each other.
        Some(_) => SystemTime::UNIX_EPOCH
            .elapsed()
            .map_or(1, |since| since.as_secs() | 1),
        None => 0x9e37_79b9_7f4a_7c15,
    });
    let (start, mut cases) = (Instant::now(), 0);
    let goes_on = |cases| match seconds {
        Some(seconds) => start.elapsed() < Duration::from_secs(seconds),
        None => cases < CASES,
    };
    while goes_on(cases) {
        let mut input = random.one_of(&seeds).clone();
        for _ in 0..1 + random.below(4) {
            change(&mut input, &seeds, &mut random);
        }
        input.truncate(BYTES_MAX);
        call(name, target, &input);
        cases += 1;
    }
    println!("{name}: {} seeds, {cases} changed", seeds.len());
}

fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    let at = random.below(input.len() + 1);
    let end = (at + random.below(16)).min(input.len());
    match random.below(7) {
        0 => input.truncate(at),
        1 => drop(input.drain(at..end)),
        2 => {
            let copy = input[at..end].to_vec();
            input.splice(at..at, copy);
        }
        3 => {
            let other = random.one_of(seeds);
            let from = random.below(other.len() + 1);
            input.splice(at.., other[from..].iter().copied());
        }
        4 => {
            let word = random.one_of(WORDS);
            input.splice(at..at, word.iter().copied());
        }
        5 => {
            let [byte, ..] = random.next().to_be_bytes();
            input.insert(at, byte);
        }
        _ => {
            if let Some(byte) = input.get_mut(at) {
                *byte ^= 1 << random.below(8);
            }
        }
    }
}

fn call(name: &str, target: Target, input: &[u8]) {
    if catch_unwind(AssertUnwindSafe(|| target(input))).is_ok() {
        return;
    }
    let folder = root().join("target/fuzz-failures");
    let path = folder.join(format!("{name}-{:016x}", checksum(input)));
    let kept = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(&path, input));
    panic!("{name} fails on {} (written: {kept:?})", path.display());
}

/// The saved inputs of a target.
pub(crate) fn seeds(name: &str) -> Vec<Vec<u8>> {
    let folder = root().join("fuzz/seeds").join(name);
    let Ok(entries) = std::fs::read_dir(&folder) else {
        panic!("no folder {}", folder.display());
    };
    let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "no seeds in {}", folder.display());
    paths.iter().flat_map(std::fs::read).collect()
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// FNV-1a: names a file, guards nothing.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

/// Marsaglia, "Xorshift RNGs", Journal of Statistical Software 8(14), 2003.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.next() >> 33).unwrap_or(0) % bound.max(1)
    }

    fn one_of<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}
