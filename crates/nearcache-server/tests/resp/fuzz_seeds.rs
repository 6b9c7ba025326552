//! The fuzz targets of this crate, driven with their seeds on every run of the tests.

use nearcache_server::fuzzing;

#[path = "../../../../fuzz/driver.rs"]
mod driver;

#[test]
fn fuzz_resp_command() {
    driver::drive("resp_command", fuzzing::resp_command);
}

#[test]
fn fuzz_resp_session() {
    driver::drive("resp_session", fuzzing::resp_session);
}

#[test]
fn fuzz_http_request() {
    driver::drive("http_request", fuzzing::http_request);
}

#[test]
fn fuzz_config_parse() {
    driver::drive("config_parse", fuzzing::config_parse);
}
