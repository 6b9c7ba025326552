//! Messages of a cache, entries batches first of all.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nearcache_protocol::fuzzing::entries_batch(data));
