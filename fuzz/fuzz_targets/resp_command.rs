//! One request of a Redis client.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nearcache_server::fuzzing::resp_command(data));
