//! Open files: raised to what is allowed, and clients held back where that is too little.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::Command;

use crate::process::{Serve, connect, nearcache, until};

/// The binary, started by a shell that first runs `ulimit`.
fn limited(ulimit: &str) -> Command {
    let binary = nearcache();
    let mut command = Command::new("sh");
    for (name, _) in binary.get_envs() {
        command.env_remove(name);
    }
    command
        .args(["-c", &format!("{ulimit} && exec \"$0\" \"$@\"")])
        .arg(binary.get_program());
    command
}

/// Soft and hard limit of open files of a process.
fn limits(serve: &Serve) -> (u64, u64) {
    let text = std::fs::read_to_string(format!("/proc/{}/limits", serve.pid())).unwrap();
    let line = text.lines().find(|line| line.starts_with("Max open files"));
    let mut numbers = line
        .unwrap()
        .split_whitespace()
        .filter_map(|word| word.parse().ok());
    (numbers.next().unwrap(), numbers.next().unwrap())
}

#[test]
fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let serve = Serve::start_as(limited("ulimit -S -n 256"), &[]);
    let (soft, hard) = limits(&serve);
    assert_eq!(soft, hard);
    assert!(hard > 256, "this machine allows only {hard} open files");
}

/// Sends a `PING` and gives what comes back until a line is whole or the connection closed.
fn ping(mut socket: &TcpStream) -> String {
    let mut answer = Vec::new();
    let mut byte = [0];
    let _ = socket.write_all(b"PING\r\n");
    while !answer.ends_with(b"\r\n") && matches!(socket.read(&mut byte), Ok(1)) {
        answer.push(byte[0]);
    }
    String::from_utf8(answer).unwrap()
}

#[test]
fn o10_with_64_open_files_clients_are_refused_cleanly_and_let_in_again() {
    let serve = Serve::start_as(limited("ulimit -n 64"), &[]);
    assert!(
        serve.log().contains("too few open files"),
        "{}",
        serve.log()
    );
    let mut clients = Vec::new();
    let refused = loop {
        let client = connect(serve.resp);
        match ping(&client).as_str() {
            "+PONG\r\n" => clients.push(client),
            other => break other.to_owned(),
        }
        assert!(clients.len() < 64);
    };
    assert_eq!(refused, "-ERR max number of clients reached\r\n");
    assert_eq!(clients.len(), 16, "a quarter of 64");
    assert!(clients.iter().all(|client| ping(client) == "+PONG\r\n"));
    // Each refusal frees what it took: many of them do no harm.
    for _ in 0..200 {
        assert_eq!(ping(&connect(serve.resp)), refused);
    }
    assert!(!serve.log().contains("cannot accept"), "{}", serve.log());
    drop(clients);
    until(|| (ping(&connect(serve.resp)) == "+PONG\r\n").then_some(()));
}
