//! The requests of one HTTP client, answered in order.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nearcache_server::fuzzing::http_request(data));
