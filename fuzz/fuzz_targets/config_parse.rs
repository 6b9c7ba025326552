//! A configuration file and variables.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| nearcache_server::fuzzing::config_parse(data));
