//! The end of a server: by signal, with requests under way.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use crate::process::{Serve, connect, read_all};

#[test]
fn sigterm_and_sigint_end_it_with_exit_code_0() {
    for signal in ["TERM", "INT"] {
        let mut serve = Serve::start(&[]);
        let start = Instant::now();
        serve.signal(signal);
        assert_eq!(serve.ended(), Some(0), "{signal}: {}", serve.log());
        assert!(
            start.elapsed() < Duration::from_secs(5),
            "{signal}: {:?}",
            start.elapsed()
        );
        let log = serve.log();
        assert!(
            log.contains(&format!("SIG{signal}")) && log.contains("stopped"),
            "{log}"
        );
    }
}

#[test]
fn a_request_under_way_is_finished_and_idle_connections_are_closed() {
    let mut serve = Serve::start(&[]);
    let mut idle = connect(serve.http);
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        .unwrap();
    let mut answer = [0; 15];
    idle.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    let mut busy = connect(serve.http);
    busy.write_all(
        b"PUT /v1/caches/default/entries/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\nab",
    )
    .unwrap();
    // The head is being served once a second request on the same connection would have to wait.
    std::thread::sleep(Duration::from_millis(200));
    serve.signal("TERM");
    assert!(
        read_all(&mut idle).contains("ok"),
        "the idle connection is closed, not kept"
    );
    crate::process::until(|| {
        std::net::TcpStream::connect(serve.http)
            .is_err()
            .then_some(())
    });
    busy.write_all(b"cd").unwrap();
    let answer = read_all(&mut busy);
    assert!(answer.starts_with("HTTP/1.1 204"), "{answer}");
    assert_eq!(serve.ended(), Some(0), "{}", serve.log());
}

#[test]
fn a_client_that_never_finishes_is_cut_off_by_the_drain_timeout() {
    let mut serve = Serve::start(&["--set", "limits.drain_timeout=300ms"]);
    let mut stuck = connect(serve.http);
    stuck
        .write_all(b"PUT /v1/caches/default/entries/k HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4\r\n\r\n")
        .unwrap();
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    serve.signal("TERM");
    assert_eq!(serve.ended(), Some(0), "{}", serve.log());
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn sigterm_hands_over_what_only_this_node_has() {
    /// So many writes of 1 KiB are answered faster than they can be sent to another node.
    const WRITES: usize = 20_000;
    let mut nodes = crate::cluster::cluster(2);
    let value = "v".repeat(1_024);
    let mut client = connect(nodes[0].resp);
    let mut writing = client.try_clone().unwrap();
    let writer = std::thread::spawn(move || {
        for number in 0..WRITES {
            let key = format!("key-{number:05}");
            let set = format!(
                "*3\r\n$3\r\nSET\r\n${}\r\n{key}\r\n${}\r\n{value}\r\n",
                key.len(),
                value.len()
            );
            writing.write_all(set.as_bytes()).unwrap();
        }
    });
    let mut answers = vec![0; WRITES * b"+OK\r\n".len()];
    client.read_exact(&mut answers).unwrap();
    nodes[0].signal("TERM");
    writer.join().unwrap();
    assert_eq!(nodes[0].ended(), Some(0), "{}", nodes[0].log());
    let node = nodes[1].get("/v1/caches").json();
    assert_eq!(node[0]["entries"], WRITES, "{node}");
}
