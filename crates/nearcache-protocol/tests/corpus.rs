//! Replays the seeds of the fuzz targets with the stable compiler, whole, cut short and with single bytes changed.
//!
//! The targets panic when a decoder misbehaves. `cargo xtask nightly` goes on from the same seeds with coverage guidance.

#![expect(
    clippy::panic,
    clippy::print_stdout,
    reason = "a test without its seeds must not pass, and tells what it tried"
)]

use nearcache_protocol::fuzzing;

#[expect(
    clippy::disallowed_methods,
    clippy::disallowed_types,
    reason = "the driver looks at the clock, what it drives does not"
)]
#[path = "../../../fuzz/driver.rs"]
mod driver;

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 5] = [
    ("peer_frame", fuzzing::peer_frame),
    ("handshake", fuzzing::handshake),
    ("control", fuzzing::control),
    ("entries_batch", fuzzing::entries_batch),
    ("journal", fuzzing::journal),
];

/// Patterns a byte is combined with: the lowest bit, the sign, and all of it.
const FLIPS: [u8; 3] = [0x01, 0x80, 0xff];

#[test]
fn seeds_are_survived_whole() {
    for (name, target) in TARGETS {
        driver::seeds(name).iter().for_each(|seed| target(seed));
    }
}

#[test]
fn seeds_cut_short_at_any_byte_are_survived() {
    for (name, target) in TARGETS {
        for seed in driver::seeds(name) {
            (0..seed.len()).for_each(|len| target(&seed[..len]));
        }
    }
}

#[test]
fn seeds_with_any_byte_changed_are_survived() {
    for (name, target) in TARGETS {
        for mut seed in driver::seeds(name) {
            for at in 0..seed.len() {
                for flip in FLIPS {
                    seed[at] ^= flip;
                    target(&seed);
                    seed[at] ^= flip;
                }
            }
        }
    }
}

#[test]
fn fuzz_all_targets_from_their_seeds() {
    for (name, target) in TARGETS {
        driver::drive(name, target);
    }
}
