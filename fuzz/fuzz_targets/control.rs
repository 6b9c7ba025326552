//! Control messages and membership packets of a peer.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nearcache_protocol::fuzzing::control(data));
