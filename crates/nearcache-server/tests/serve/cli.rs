//! Mistakes in how commands are called, and help.

use crate::process::{Serve, assert_one_line, connect, nearcache, run, run_command};

#[test]
fn a_wrong_flag_is_one_line_and_exit_code_2() {
    assert_one_line(&run(&["--bogus"]), &["--bogus"]);
    assert_one_line(&run(&["serve", "--confg", "x"]), &["--confg", "--config"]);
    assert_one_line(&run(&["dev", "--nodes", "0"]), &["--nodes", "0 is not in"]);
    assert_one_line(&run(&["dev", "--nodes", "three"]), &["--nodes", "three"]);
    assert_one_line(
        &run(&["dev", "--mode", "strong"]),
        &["--mode", "local, replicated"],
    );
    assert_one_line(
        &run(&["--no-tour", "--tour-only"]),
        &["--no-tour", "--tour-only"],
    );
    assert_one_line(&run(&["sevre"]), &["sevre", "serve"]);
    assert_one_line(&run(&["get"]), &["<KEY>"]);
    assert_one_line(
        &run(&["put", "k", "v", "--ttl", "5"]),
        &["--ttl 5", "unit missing"],
    );
    assert_one_line(&run(&["serve", "--set", "x"]), &["--set x", "PATH=VALUE"]);
    assert_one_line(
        &run(&["serve", "--set", "http.lisen=x"]),
        &["--set http.lisen", "`listen`"],
    );
    assert_one_line(
        &run(&["serve", "--http-listen", "8001"]),
        &["--http-listen", "127.0.0.1:8001"],
    );
}

#[test]
fn a_missing_file_is_one_line_and_exit_code_2() {
    for command in ["serve", "check"] {
        let ended = run(&[command, "--config", "/nonexistent/nearcache.toml"]);
        assert_one_line(&ended, &["/nonexistent/nearcache.toml", "No such file"]);
    }
    let token = ["serve", "--set", "auth.token_file=/nonexistent/token"];
    assert_one_line(&run(&token), &["/nonexistent/token", "No such file"]);
    assert_one_line(
        &run(&["get", "k", "--token-file", "/nonexistent/token"]),
        &["No such file"],
    );
}

#[test]
fn a_taken_port_is_one_line_and_exit_code_2() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let any = "127.0.0.1:0";
    for (flag, setting) in [
        ("--resp-listen", "resp.listen"),
        ("--http-listen", "http.listen"),
        ("--peer-listen", "peers.listen"),
    ] {
        let mut args = vec!["serve", "--log-level", "error"];
        for other in ["--resp-listen", "--http-listen", "--peer-listen"] {
            args.extend([other, if other == flag { &address } else { any }]);
        }
        assert_one_line(&run(&args), &[&address, setting, "taken"]);
    }
    let port = taken.local_addr().unwrap().port().to_string();
    for (flag, other) in [
        ("--resp-port", "--http-port"),
        ("--http-port", "--resp-port"),
    ] {
        let ended = run(&["dev", "--nodes", "1", flag, &port, other, "0"]);
        assert_eq!(ended.code, Some(2), "{ended:?}");
        assert_eq!(ended.stderr.lines().count(), 1, "{ended:?}");
        assert!(
            ended.stderr.contains(flag) && ended.stderr.contains(&address),
            "{ended:?}"
        );
    }
}

#[test]
fn help_and_version_go_to_standard_output_and_succeed() {
    let help = run(&["--help"]);
    assert_eq!((help.code, help.stderr.as_str()), (Some(0), ""));
    for word in [
        "serve",
        "check",
        "get",
        "put",
        "del",
        "info",
        "members",
        "--tour-only",
        "--nodes",
    ] {
        assert!(help.stdout.contains(word), "{word}");
    }
    let version = run(&["--version"]);
    assert_eq!(
        version.stdout,
        format!("nearcache {}\n", env!("CARGO_PKG_VERSION"))
    );
    for command in [
        "dev", "serve", "check", "get", "put", "del", "info", "members",
    ] {
        let help = run(&[command, "--help"]);
        assert_eq!(help.code, Some(0), "{command}");
        assert!(help.stdout.contains("Usage: nearcache"), "{command}");
    }
}

#[test]
fn clients_write_read_and_remove() {
    let serve = Serve::start(&[]);
    let url = serve.url();
    let client = |args: &[&str]| run(&[args, &["--url", &url]].concat());
    assert_eq!(
        client(&["put", "a/b %", "hello", "--ttl", "60s"]).code,
        Some(0)
    );
    let got = client(&["get", "a/b %"]);
    assert_eq!((got.code, got.stdout.as_str()), (Some(0), "hello"));
    let expires = got
        .stderr
        .strip_prefix("expires in ")
        .unwrap()
        .split(' ')
        .next()
        .unwrap();
    let expires: f64 = expires.parse().unwrap();
    assert!(expires > 30.0 && expires <= 60.0, "{got:?}");
    assert_eq!(client(&["get", "a/b %", "--quiet"]).stderr, "");
    assert_eq!(client(&["del", "a/b %"]).code, Some(0));
    for command in ["get", "del"] {
        let ended = client(&[command, "a/b %"]);
        assert_eq!((ended.code, ended.stdout.as_str()), (Some(1), ""));
        assert_eq!(ended.stderr, "nearcache: no entry with the key \"a/b %\"\n");
    }
    let ended = client(&["get", "k", "--cache", "nope"]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stderr.contains("NoCache"), "{ended:?}");
    let info = client(&["info"]);
    assert!(
        info.stdout.contains("default") && info.stdout.contains("replicated"),
        "{info:?}"
    );
    let members = client(&["members"]);
    assert!(members.stdout.contains("myself"), "{members:?}");
}

#[test]
fn a_value_can_come_from_standard_input_with_any_bytes() {
    use std::io::Write;
    let serve = Serve::start(&[]);
    let mut child = nearcache()
        .args(["put", "bytes", "--url", &serve.url()])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"a\0\xff\n").unwrap();
    assert!(child.wait().unwrap().success());
    let output = nearcache()
        .args(["get", "bytes", "--url", &serve.url()])
        .output()
        .unwrap();
    assert_eq!(output.stdout, b"a\0\xff\n");
}

#[test]
fn an_unreachable_node_is_one_line_and_exit_code_1() {
    let free = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let ended = run(&["get", "k", "--url", &format!("http://{free}")]);
    assert_eq!(
        (ended.code, ended.stderr.lines().count()),
        (Some(1), 1),
        "{ended:?}"
    );
    assert!(ended.stderr.contains("cannot reach"), "{ended:?}");
    assert_one_line(
        &run(&["get", "k", "--url", "ftp://x"]),
        &["must begin with http://"],
    );
    assert_one_line(&run(&["get", "k", "--url", "https://x"]), &["TLS"]);
    assert_one_line(
        &run(&["get", "k", "--url", "http://u:p@x"]),
        &["--token-file"],
    );
}

#[test]
fn variables_configure_and_flags_win() {
    let mut command = nearcache();
    command
        .env("NEARCACHE_HTTP_LISTEN", "127.0.0.1:1")
        .env("NEARCACHE_RESP_LISTEN", "127.0.0.1:2");
    let ended = run_command(command.args(["check", "--resp-listen", "127.0.0.1:3"]));
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.contains("resp    127.0.0.1:3"), "{ended:?}");
    assert!(ended.stdout.contains("http    127.0.0.1:1"), "{ended:?}");
    let mut command = nearcache();
    command.env("NEARCACHE_LIMITS_IDLE_TIMEOUT", "5");
    let ended = run_command(command.arg("check"));
    assert_one_line(
        &ended,
        &["NEARCACHE_LIMITS_IDLE_TIMEOUT", "without a unit", "\"5s\""],
    );
}

#[test]
fn port_0_is_announced_in_the_log_and_the_file() {
    let serve = Serve::start(&["--log-format", "json"]);
    for address in [serve.resp, serve.http, serve.peers] {
        assert_ne!(address.port(), 0);
        drop(connect(address));
    }
    let log = serve.log();
    let line = log
        .lines()
        .find(|line| line.contains("\"listening\""))
        .unwrap();
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    assert_eq!(event["http"], serve.http.to_string());
    assert_eq!(event["resp"], serve.resp.to_string());
    assert_eq!(event["peers"], serve.peers.to_string());
}
