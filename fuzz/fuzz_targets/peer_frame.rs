//! The bytes of a peer's connection, cut into frames.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nearcache_protocol::fuzzing::peer_frame(data));
