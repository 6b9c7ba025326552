//! The requests of one Redis client, answered in order.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nearcache_server::fuzzing::resp_session(data));
