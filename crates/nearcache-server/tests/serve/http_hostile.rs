//! HTTP clients that are slow, large, many, or not what they seem.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::process::{Answer, Serve, connect, read_all};

const HEAD: &str = "PUT /v1/caches/default/entries/k HTTP/1.1\r\nHost: localhost\r\n";

/// Short waits, so that waiting for them is short as well.
const IMPATIENT: &[&str] = &[
    "--set",
    "limits.header_timeout=400ms",
    "--set",
    "limits.body_timeout=400ms",
    "--set",
    "limits.idle_timeout=1500ms",
];

/// Time until the server closes a connection that sends `first` and then a byte now and then.
fn closed_after(serve: &Serve, first: &str, drip: &[u8]) -> (Duration, String) {
    let start = Instant::now();
    let mut socket = connect(serve.http);
    socket.write_all(first.as_bytes()).unwrap();
    socket
        .set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    let mut text = Vec::new();
    let mut buffer = [0; 1024];
    loop {
        assert!(start.elapsed() < Duration::from_secs(10), "still open");
        match socket.read(&mut buffer) {
            Ok(0) => break,
            Ok(read) => text.extend_from_slice(&buffer[..read]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                if !drip.is_empty() && socket.write_all(drip).is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    (start.elapsed(), String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn a_head_that_drips_in_is_cut_off_by_the_header_timeout() {
    let serve = Serve::start(IMPATIENT);
    for first in ["", "G", "GET / HTTP/1.1\r\nHost: localhost\r\nX: "] {
        let drip: &[u8] = if first.is_empty() { b"" } else { b"a" };
        let (open, _) = closed_after(&serve, first, drip);
        assert!(
            open > Duration::from_millis(300) && open < Duration::from_millis(1_400),
            "{first:?}: {open:?}"
        );
    }
}

#[test]
fn a_second_head_that_drips_in_is_cut_off_as_well() {
    let serve = Serve::start(IMPATIENT);
    let first = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET /he";
    let (open, text) = closed_after(&serve, first, b"a");
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    assert!(
        open > Duration::from_millis(300) && open < Duration::from_millis(1_400),
        "{open:?}"
    );
}

#[test]
fn an_idle_connection_is_kept_for_the_idle_timeout_and_no_longer() {
    let serve = Serve::start(IMPATIENT);
    let request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (open, text) = closed_after(&serve, request, b"");
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    assert!(
        open > Duration::from_millis(1_200) && open < Duration::from_secs(4),
        "{open:?}"
    );
}

#[test]
fn a_body_slower_than_a_kibibyte_per_second_is_given_up() {
    let serve = Serve::start(IMPATIENT);
    let first = format!("{HEAD}Content-Length: 10000\r\n\r\n");
    let (open, text) = closed_after(&serve, &first, b"aaaa");
    assert!(
        open > Duration::from_millis(300) && open < Duration::from_millis(1_400),
        "{open:?}"
    );
    Answer::parse(&text).assert_problem(408, "BodyTooSlow");
}

#[test]
fn a_slow_client_does_not_keep_others_waiting() {
    let serve = Serve::start(&[]);
    let slow: Vec<_> = (0..50)
        .map(|_| {
            let mut socket = connect(serve.http);
            socket.write_all(b"GET / HT").unwrap();
            socket
        })
        .collect();
    let start = Instant::now();
    assert_eq!(serve.get("/healthz").status, 200);
    assert!(start.elapsed() < Duration::from_secs(5));
    drop(slow);
}

#[test]
fn row_17_a_declared_length_over_the_limit_is_refused_before_the_body_comes() {
    let serve = Serve::start(&[]);
    let declared = serve.raw(format!("{HEAD}Content-Length: 68719476736\r\n\r\n").as_bytes());
    Answer::parse(&declared).assert_problem(413, "ValueTooLarge");
    let expecting = serve
        .raw(format!("{HEAD}Expect: 100-continue\r\nContent-Length: 2000000\r\n\r\n").as_bytes());
    assert!(!expecting.contains("100 Continue"), "{expecting}");
    Answer::parse(&expecting).assert_problem(413, "ValueTooLarge");
}

#[test]
fn row_17_a_chunked_body_is_refused_where_it_passes_the_limit() {
    let serve = Serve::start(&["--set", "limits.value_bytes=64KiB"]);
    let mut socket = connect(serve.http);
    socket
        .write_all(format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n").as_bytes())
        .unwrap();
    let chunk = format!("8000\r\n{}\r\n", "x".repeat(0x8000));
    for _ in 0..3 {
        let _ = socket.write_all(chunk.as_bytes());
    }
    Answer::parse(&read_all(&mut socket)).assert_problem(413, "ValueTooLarge");
    assert_eq!(serve.get("/v1/caches/default/entries/k").status, 404);
}

#[test]
fn row_27_foreign_hosts_and_origins_are_refused() {
    let serve = Serve::start(&[
        "--set",
        "http.hosts=cache.internal",
        "--set",
        "http.origins=https://ops.example",
    ]);
    let ask = |headers: &str| {
        let request = format!("GET /healthz HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        Answer::parse(&serve.raw(request.as_bytes()))
    };
    for host in ["evil.example", "localhost.evil.example", ""] {
        ask(&format!("Host: {host}\r\n")).assert_problem(421, "ForeignHost");
    }
    ask("").assert_problem(421, "ForeignHost");
    for host in [
        "localhost",
        "127.0.0.1:8001",
        "[::1]",
        "cache.internal:8001",
    ] {
        assert_eq!(ask(&format!("Host: {host}\r\n")).status, 200, "{host}");
    }
    let origin = |origin: &str| ask(&format!("Host: localhost\r\nOrigin: {origin}\r\n"));
    origin("https://evil.example").assert_problem(403, "ForeignOrigin");
    origin("null").assert_problem(403, "ForeignOrigin");
    assert_eq!(origin("https://ops.example").status, 200);
    let absolute = "GET http://evil.example/healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
    Answer::parse(&serve.raw(absolute.as_bytes())).assert_problem(421, "ForeignHost");
}

#[test]
fn row_27_a_length_given_twice_or_broken_is_400_and_the_connection_closed() {
    let serve = Serve::start(&[]);
    let smuggled = "0\r\n\r\nDELETE /v1/caches/default/entries HTTP/1.1\r\nHost: localhost\r\n\r\n";
    for headers in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: -1\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Transfer-Encoding: gzip\r\n",
    ] {
        // The answer ends with the connection: what follows was not taken for a request.
        let answer = serve.raw(format!("{HEAD}{headers}\r\n{smuggled}").as_bytes());
        assert!(answer.starts_with("HTTP/1.1 400"), "{headers}: {answer}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{headers}: {answer}");
    }
    let overflow =
        format!("{HEAD}Transfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\nx\r\n0\r\n\r\n");
    let answer = serve.raw(overflow.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(serve.get("/healthz").status, 200);
}

#[test]
fn heads_beyond_the_limits_are_431_and_the_connection_closed() {
    let serve = Serve::start(&[]);
    let many: String = (0..65).map(|number| format!("X-{number}: 1\r\n")).collect();
    for headers in [many, format!("X: {}\r\n", "a".repeat(33 << 10))] {
        let request = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
        let answer = serve.raw(request.as_bytes());
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    let fits = format!("X: {}\r\n", "a".repeat(30 << 10));
    assert_eq!(serve.request("GET", "/healthz", &fits, b"").status, 200);
}

#[test]
fn connections_beyond_the_limit_are_told_503_and_closed() {
    let serve = Serve::start(&["--set", "limits.client_connections=4"]);
    let held: Vec<_> = (0..4)
        .map(|_| {
            let mut socket = connect(serve.http);
            socket
                .write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
                .unwrap();
            let mut answer = [0; 15];
            socket.read_exact(&mut answer).unwrap();
            socket
        })
        .collect();
    let refused = read_all(&mut connect(serve.http));
    Answer::parse(&refused).assert_problem(503, "TooManyConnections");
    drop(held);
    crate::process::until(|| {
        let answer =
            serve.raw(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        answer.starts_with("HTTP/1.1 200").then_some(())
    });
}

#[test]
fn a_reader_that_does_not_read_is_cut_off() {
    let serve = Serve::start(IMPATIENT);
    let entry = "/v1/caches/default/entries/k";
    assert_eq!(serve.put(entry, "", &vec![b'v'; 1 << 20]).status, 204);
    let mut socket = connect(serve.http);
    socket
        .set_write_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let request = format!("GET {entry} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    for _ in 0..64 {
        if socket.write_all(request.as_bytes()).is_err() {
            break;
        }
    }
    crate::process::until(|| {
        let connections = serve.get("/v1/node").json()["client_connections"].as_u64();
        (connections == Some(1)).then_some(())
    });
    drop(socket);
}

#[test]
fn what_is_not_http_is_refused_and_others_are_unaffected() {
    let serve = Serve::start(&[]);
    for bytes in [
        &b"*1\r\n$4\r\nPING\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00",
        b"\0\0\0\0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut socket = connect(serve.http);
        socket.write_all(bytes).unwrap();
        socket.shutdown(std::net::Shutdown::Write).unwrap();
        let answer = read_all(&mut socket);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    assert_eq!(serve.get("/healthz").status, 200);
}

#[test]
fn a_connection_idle_for_longer_than_its_buffers_are_kept_is_served_on_and_closed_in_time() {
    let serve = Serve::start(&["--set", "limits.idle_timeout=2s"]);
    let mut socket = connect(serve.http);
    let ask = |socket: &mut std::net::TcpStream| {
        let request = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n";
        socket.write_all(request).unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\nok\n") {
            let mut byte = [0];
            socket.read_exact(&mut byte).unwrap();
            answer.push(byte[0]);
        }
    };
    ask(&mut socket);
    std::thread::sleep(Duration::from_secs(1));
    ask(&mut socket);
    let asked = Instant::now();
    assert_eq!(read_all(&mut socket), "");
    let kept = asked.elapsed();
    assert!(
        (1_900..6_000).contains(&kept.as_millis()),
        "kept for {kept:?}"
    );
    assert!(
        serve
            .get("/metrics")
            .body
            .contains("http_connections_refused_total{reason=\"timeout\"} 1")
    );
}
