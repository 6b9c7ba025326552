//! Protected mode: each row of the matrix, on the running binary.

use std::io::Write;

use crate::process::{Serve, assert_one_line, file, run};

const TOKEN: &str = "canary-0123456789abcdef";

/// Arguments that put one listener on all addresses and the others on loopback.
fn open<'a>(listener: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let mut args = vec!["serve"];
    for flag in ["--resp-listen", "--http-listen", "--peer-listen"] {
        args.extend([
            flag,
            if flag == listener {
                "0.0.0.0:0"
            } else {
                "127.0.0.1:0"
            },
        ]);
    }
    args.extend(more);
    args
}

#[test]
fn loopback_without_auth_starts() {
    let serve = Serve::start(&[]);
    assert_eq!(serve.get("/v1/node").status, 200);
}

#[test]
fn loopback_with_auth_starts_and_demands_the_token() {
    let (_directory, token) = file(TOKEN, 0o600);
    let serve = Serve::start(&["--set", &format!("auth.token_file={}", token.display())]);
    for path in [
        "/v1/node",
        "/v1/members",
        "/v1/caches",
        "/metrics",
        "/",
        "/openapi.json",
        "/nope",
        "/v1/caches/default/entries/k",
    ] {
        let refused = serve.get(path);
        refused.assert_problem(401, "Unauthorized");
        assert_eq!(
            refused.header("www-authenticate"),
            Some("Bearer realm=\"nearcache\"")
        );
    }
    for (method, path) in [
        ("PUT", "/v1/caches/default/entries/k"),
        ("DELETE", "/v1/caches/default/entries"),
        ("DELETE", "/v1/caches/default/entries/k"),
        ("POST", "/v1/caches/default/invalidate"),
    ] {
        serve
            .request(method, path, "", b"")
            .assert_problem(401, "Unauthorized");
    }
    for wrong in [
        "Bearer canary-0123456789abcdeF",
        "Bearer canary",
        "Basic x",
        "Bearer ",
    ] {
        serve
            .request(
                "GET",
                "/v1/node",
                &format!("Authorization: {wrong}\r\n"),
                b"",
            )
            .assert_problem(401, "Unauthorized");
    }
    let right = format!("Authorization: Bearer {TOKEN}\r\n");
    assert_eq!(serve.request("GET", "/v1/node", &right, b"").status, 200);
    for probe in ["/healthz", "/readyz"] {
        assert_eq!(serve.get(probe).status, 200, "{probe}");
    }
    let resp = |lines: &str| {
        let mut socket = crate::process::connect(serve.resp);
        socket
            .write_all(format!("{lines}QUIT\r\n").as_bytes())
            .unwrap();
        crate::process::read_all(&mut socket)
    };
    assert!(resp("GET k\r\n").starts_with("-NOAUTH "));
    assert!(resp("AUTH canary-0123456789abcdeF\r\n").starts_with("-WRONGPASS "));
    assert!(resp(&format!("AUTH {TOKEN}\r\nGET k\r\n")).starts_with("+OK\r\n$-1\r\n"));
    let token = token.display().to_string();
    let url = serve.url();
    assert_eq!(run(&["put", "k", "v", "--url", &url]).code, Some(1));
    assert_eq!(
        run(&["put", "k", "v", "--url", &url, "--token-file", &token]).code,
        Some(0)
    );
    assert_eq!(
        run(&["get", "k", "--url", &url, "--token-file", &token]).stdout,
        "v"
    );
    let everything = serve.log() + &serve.request("GET", "/metrics", &right, b"").body;
    assert!(!everything.contains("canary"), "{everything}");
}

#[test]
fn other_addresses_without_auth_are_refused_naming_three_ways_out() {
    for (listener, setting, port) in [
        ("--resp-listen", "resp.listen", "resp.enabled = false"),
        ("--http-listen", "http.listen", "http.enabled = false"),
    ] {
        for more in [&[][..], &["--set", "auth.allow_plaintext=true"]] {
            let ended = run(&open(listener, more));
            assert_one_line(
                &ended,
                &[
                    listener,
                    setting,
                    "(1)",
                    "(2)",
                    "(3)",
                    "auth.token_file",
                    port,
                ],
            );
        }
    }
}

#[test]
fn other_addresses_with_auth_are_refused_unless_plaintext_is_allowed() {
    let (_directory, token) = file(TOKEN, 0o600);
    let token = format!("auth.token_file={}", token.display());
    for listener in ["--resp-listen", "--http-listen"] {
        let ended = run(&open(listener, &["--set", &token]));
        assert_one_line(
            &ended,
            &[listener, "unencrypted", "auth.allow_plaintext = true"],
        );
    }
    let serve = Serve::start(&[
        "--set",
        "http.listen=0.0.0.0:0",
        "--set",
        &token,
        "--set",
        "auth.allow_plaintext=true",
    ]);
    crate::process::until(|| serve.log().contains("unencrypted").then_some(()));
    assert!(serve.log().contains("WARN"), "{}", serve.log());
}

#[test]
fn peers_on_other_addresses_are_refused_unless_allowed() {
    let ended = run(&open("--peer-listen", &[]));
    assert_one_line(
        &ended,
        &[
            "peers.listen",
            "join the cluster",
            "(1)",
            "[peers.tls]",
            "nearcache certs",
            "peers.allow_insecure_network = true",
        ],
    );
    let serve = Serve::start(&[
        "--set",
        "peers.listen=0.0.0.0:0",
        "--set",
        "peers.allow_insecure_network=true",
    ]);
    crate::process::until(|| serve.log().contains("neither authenticated").then_some(()));
}

#[test]
fn a_token_file_that_others_can_read_is_refused() {
    let (_directory, token) = file(TOKEN, 0o644);
    let setting = format!("auth.token_file={}", token.display());
    let any = "127.0.0.1:0";
    let ended = run(&[
        "serve",
        "--resp-listen",
        any,
        "--http-listen",
        any,
        "--peer-listen",
        any,
        "--set",
        &setting,
    ]);
    assert_one_line(&ended, &["0644", "chmod 600"]);
    assert!(!ended.stderr.contains("canary"), "{ended:?}");
    let (_directory, token) = file("canary\n", 0o600);
    let setting = format!("auth.token_file={}", token.display());
    let ended = run(&["check", "--set", &setting]);
    assert_one_line(&ended, &["16 to 1024"]);
    assert!(!ended.stderr.contains("canary"), "{ended:?}");
}

#[test]
fn twenty_wrong_tokens_lock_an_address_out_of_http_with_the_right_one_as_well() {
    let (_directory, token) = file(TOKEN, 0o600);
    let serve = Serve::start(&[
        "--set",
        &format!("auth.token_file={}", token.display()),
        "--set",
        "limits.authentication_lockout=2s",
    ]);
    let ask = |token: &str| {
        let header = format!("Authorization: Bearer {token}\r\n");
        serve.request("GET", "/v1/node", &header, b"")
    };
    // Who presents nothing does not guess.
    for _ in 0..30 {
        serve.get("/v1/node").assert_problem(401, "Unauthorized");
    }
    for _ in 0..20 {
        ask("canary-wrong").assert_problem(401, "Unauthorized");
    }
    for token in ["canary-wrong", TOKEN] {
        let refused = ask(token);
        refused.assert_problem(429, "TooManyFailures");
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=2).contains(&wait), "{refused:?}");
    }
    assert_eq!(serve.get("/healthz").status, 200, "probes carry no token");
    crate::process::until(|| (ask(TOKEN).status == 200).then_some(()));
    assert_eq!(
        serve.log().matches("locked out").count(),
        1,
        "{}",
        serve.log()
    );
}
