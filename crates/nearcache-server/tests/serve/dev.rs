//! `nearcache dev`: the cluster to try, and its tour.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use crate::process::{PATIENCE, nearcache, run, until};

const SMALL: &[&str] = &[
    "--resp-port",
    "0",
    "--http-port",
    "0",
    "--tour-entries",
    "20000",
    "--tour-writes",
    "300",
];

#[test]
fn the_tour_of_three_nodes_shows_its_figures_and_ends() {
    let ended = run(&[&["dev", "--tour-only", "--nodes", "3"], SMALL].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in [
        "3 nodes",
        "mode replicated",
        "redis-cli -p ",
        "curl -i http://127.0.0.1:",
        "nearcache get greeting --url http://127.0.0.1:",
        "300 writes",
        "on node 2: p50 ",
        "on node 3: p50 ",
        "p99 ",
        "ns each",
        "20,000 entries of 100 bytes",
        "Node 3 stopped",
        "0 entries at its start",
        "20,000 entries back after",
    ] {
        assert!(
            ended.stdout.contains(part),
            "{part:?} is not in\n{}",
            ended.stdout
        );
    }
    assert!(
        !ended.stdout.contains('\u{1b}') && !ended.stdout.contains('\r'),
        "plain lines when piped"
    );
    assert_eq!(ended.stderr, "");
}

#[test]
fn the_tour_of_mode_invalidation_shows_copies_go() {
    let mode = [
        "dev",
        "--tour-only",
        "--nodes",
        "3",
        "--mode",
        "invalidation",
    ];
    let ended = run(&[&mode, SMALL].concat());
    assert_eq!(ended.code, Some(0), "{ended:?}");
    for part in [
        "mode invalidation",
        "300 writes on node 1, older copies gone on the other nodes",
        "on node 3: p50 ",
        "Reads in process, on node 1",
    ] {
        assert!(
            ended.stdout.contains(part),
            "{part:?} is not in\n{}",
            ended.stdout
        );
    }
}

#[test]
fn without_a_command_it_is_dev_and_one_local_node_will_do() {
    let args = [&["--tour-only", "--nodes", "1", "--mode", "local"], SMALL].concat();
    let ended = run(&args);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended.stdout.contains("1 node in this process") && ended.stdout.contains("ns each"),
        "{ended:?}"
    );
}

#[test]
fn without_the_tour_it_stays_up_until_ctrl_c() {
    let mut child = nearcache()
        .args([
            "--no-tour",
            "--nodes",
            "2",
            "--resp-port",
            "0",
            "--http-port",
            "0",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut url = String::new();
    for line in lines.by_ref() {
        let line = line.unwrap();
        if let Some((_, rest)) = line.split_once("HTTP ") {
            url = rest.split(' ').next().unwrap().to_owned();
        }
        if line.contains("Stop it with Ctrl-C") {
            break;
        }
    }
    assert!(run(&["members", "--url", &url]).stdout.contains("node-1"));
    let kill = format!("kill -INT {}", child.id());
    assert!(
        Command::new("sh")
            .args(["-c", &kill])
            .status()
            .unwrap()
            .success()
    );
    let start = std::time::Instant::now();
    let status = until(|| child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(start.elapsed() < PATIENCE);
}
