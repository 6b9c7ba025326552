//! The first frames of a peer's connection, on both sides.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nearcache_protocol::fuzzing::handshake(data));
