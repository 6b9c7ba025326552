//! A segment of the journal of a cache that writes behind.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nearcache_protocol::fuzzing::journal(data));
