//! The seeds of the fuzz targets, replayed on every run of the tests.

use std::path::Path;

use nearcache_server::fuzzing;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../fuzz/seeds")
        .join(target);
    let files = std::fs::read_dir(&folder).unwrap();
    let seeds: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    assert!(!seeds.is_empty(), "{} is empty", folder.display());
    for seed in seeds {
        println!("{}", seed.display());
        run(&std::fs::read(seed).unwrap());
    }
}

#[test]
fn seeds_of_resp_command_hold() {
    replay("resp_command", fuzzing::resp_command);
}

#[test]
fn seeds_of_resp_session_hold() {
    replay("resp_session", fuzzing::resp_session);
}
