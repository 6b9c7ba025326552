//! The same commands to a real Redis and to Nearcache: the replies must be the same, byte for byte,
//! but for the differences listed here.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Command, Stdio},
    time::Instant,
};

use crate::harness::{Client, PATIENCE, Server, tool};

/// Commands whose replies differ, with the reason.
const DIFFERENCES: &[(&str, &str)] = &[
    (
        "SCAN -1",
        "Redis takes a negative cursor; a cursor nobody was given is refused here",
    ),
    (
        "SET k v NX NX",
        "Redis takes a repeated option; here it is a syntax error",
    ),
    ("SET k v EX 1 EX 2", "the same"),
    ("CONFIG GET maxclients", "the limit is our own"),
];

/// A Redis of our own; killed when dropped.
struct Redis {
    process: Child,
    port: u16,
}

impl Redis {
    fn start(program: &Path) -> Self {
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let process = Command::new(program)
            .args(["--port", &port.to_string(), "--bind", "127.0.0.1"])
            .args(["--save", "", "--appendonly", "no", "--databases", "2"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let redis = Self { process, port };
        let start = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(start.elapsed() < PATIENCE, "redis-server does not listen");
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        redis
    }

    fn connect(&self) -> Client {
        Client::connect(([127, 0, 0, 1], self.port).into())
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Splits a line at blanks; `""` is an empty word, quotes keep blanks.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut rest = line.trim();
    while !rest.is_empty() {
        let (word, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"').unwrap(),
            None => rest.split_once(' ').unwrap_or((rest, "")),
        };
        words.push(word.to_owned());
        rest = after.trim_start();
    }
    words
}

fn compare(test: &str, greeting: &[&str]) {
    let Some(program) = tool(test, "redis-server") else {
        return;
    };
    let redis = Redis::start(&program);
    let nearcache = Server::start();
    let (mut theirs, mut ours) = (redis.connect(), nearcache.connect());
    if !greeting.is_empty() {
        theirs.ask(greeting);
        ours.ask(greeting);
    }
    let mut compared = 0;
    let mut differing = Vec::new();
    let differences = DIFFERENCES.iter().map(|(command, _)| *command);
    for line in include_str!("script.txt").lines().chain(differences) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line == "QUIT" {
            break;
        }
        let (theirs, ours) = (theirs.ask(&words(line)), ours.ask(&words(line)));
        let may_differ = DIFFERENCES.iter().any(|(command, _)| *command == line);
        if (theirs == ours) == may_differ {
            differing.push(format!(
                "{line}\n  redis     {}\n  nearcache {}",
                theirs.escape_ascii(),
                ours.escape_ascii()
            ));
        }
        compared += 1;
    }
    assert!(
        differing.is_empty(),
        "{} differ:\n{}",
        differing.len(),
        differing.join("\n")
    );
    println!("{compared} replies compared with Redis");
    assert!(compared > 300);
}

#[test]
fn replies_are_those_of_redis_in_resp2() {
    compare("replies_are_those_of_redis_in_resp2", &[]);
}

#[test]
fn replies_are_those_of_redis_in_resp3() {
    compare("replies_are_those_of_redis_in_resp3", &["HELLO", "3"]);
}
