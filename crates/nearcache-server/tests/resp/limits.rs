//! The bounds of what one client may ask, each at its limit and just below.

use std::time::{Duration, Instant};

use crate::harness::{Server, request};

const CLOSED: &str = "nearcache_resp_connections_closed_total";

#[test]
fn one_connection_more_than_allowed_is_told_so_and_closed() {
    let server = Server::with_limits(|limits| limits.client_connections = 2);
    let mut first = server.connect();
    let mut second = server.connect();
    assert_eq!(first.text("PING"), "+PONG\r\n");
    assert_eq!(second.text("PING"), "+PONG\r\n");
    let mut third = server.connect();
    assert_eq!(third.rest(), "-ERR max number of clients reached\r\n");
    assert_eq!(server.metric(CLOSED, "Refused"), 1);
    drop(first);
    server.wait_for_metric("nearcache_resp_connections ", "", 1);
    assert_eq!(server.connect().text("PING"), "+PONG\r\n");
}

#[test]
fn a_request_of_too_many_arguments_is_closed() {
    let server = Server::start();
    let mut client = server.connect();
    client.send("*4096\r\n");
    client.send(request(&["PING"; 4_096]).split_off("*4096\r\n".len()));
    assert_eq!(
        client.reply(),
        b"-ERR wrong number of arguments for 'ping' command\r\n"
    );
    client.send("*4097\r\n");
    assert_eq!(
        client.rest(),
        "-ERR Protocol error: invalid multibulk length\r\n"
    );
}

#[test]
fn a_request_too_long_in_all_is_closed_before_it_arrives() {
    let server = Server::start();
    let mut client = server.connect();
    client.send(format!("*2\r\n${}\r\n", (16 << 20) + 1));
    assert_eq!(
        client.rest(),
        "-ERR Protocol error: invalid bulk length\r\n"
    );
    let server = Server::with_limits(|limits| {
        limits.request_bytes = 1_000;
        limits.value_bytes = 1_000;
        limits.key_bytes = 1_000;
    });
    let mut client = server.connect();
    client.send(format!("*2\r\n$600\r\n{}\r\n$600\r\n", "x".repeat(600)));
    assert_eq!(
        client.rest(),
        "-ERR Protocol error: request is larger than 1000 bytes\r\n"
    );
}

#[test]
fn pipelined_requests_beyond_the_limit_wait_and_all_are_answered_in_order() {
    let server = Server::with_limits(|limits| limits.requests_in_flight = 4);
    let mut client = server.connect();
    let batch: Vec<u8> = (0..1_000)
        .flat_map(|n: u32| request(&["ECHO", &n.to_string()]))
        .collect();
    client.send(batch);
    for n in 0..1_000 {
        let n = n.to_string();
        assert_eq!(
            client.reply(),
            format!("${}\r\n{n}\r\n", n.len()).as_bytes()
        );
    }
}

#[test]
fn a_client_that_takes_no_replies_is_not_read_from() {
    let server = Server::start();
    let mut client = server.connect();
    assert_eq!(client.ask(&["SET", "k", &"v".repeat(1 << 20)]), b"+OK\r\n");
    // 200 replies of 1 MiB, none of them read.
    client.send(request(&["GET", "k"]).repeat(200));
    std::thread::sleep(Duration::from_millis(300));
    let sent_bytes = server.metric("nearcache_resp_sent_bytes_total", "");
    assert!(sent_bytes < 32 << 20, "{sent_bytes}");
    assert_eq!(server.connect().text("PING"), "+PONG\r\n");
    for _ in 0..200 {
        assert_eq!(client.reply().len(), (1 << 20) + 12);
    }
}

#[test]
fn output_above_the_soft_bound_for_too_long_closes_the_connection() {
    let server = Server::with_limits(|limits| {
        limits.output_soft_bytes = 64 << 10;
        limits.output_soft_for = Duration::from_millis(200);
    });
    let mut client = server.connect();
    assert_eq!(client.ask(&["SET", "k", &"v".repeat(1 << 20)]), b"+OK\r\n");
    client.send(request(&["GET", "k"]).repeat(100));
    server.wait_for_metric(CLOSED, "OutputBuffer", 1);
    assert_eq!(server.connect().text("PING"), "+PONG\r\n");
}

#[test]
fn one_reply_above_the_hard_bound_closes_the_connection_at_once() {
    let server = Server::start();
    let mut client = server.connect();
    assert_eq!(client.ask(&["SET", "k", &"v".repeat(1 << 20)]), b"+OK\r\n");
    client.send(request(&[
        "MGET", "k", "k", "k", "k", "k", "k", "k", "k", "k",
    ]));
    assert_eq!(client.rest(), "");
    server.wait_for_metric(CLOSED, "OutputBuffer", 1);
}

#[test]
fn a_silent_client_is_closed_and_a_busy_one_is_not() {
    let server = Server::with_limits(|limits| limits.idle_timeout = Duration::from_millis(400));
    let mut silent = server.connect();
    assert_eq!(silent.text("PING"), "+PONG\r\n");
    let mut busy = server.connect();
    let start = Instant::now();
    while server.metric(CLOSED, "Idle") == 0 {
        assert_eq!(busy.text("PING"), "+PONG\r\n");
        assert!(start.elapsed() < Duration::from_secs(10));
    }
    assert!(start.elapsed() >= Duration::from_millis(250));
    assert_eq!(silent.rest(), "");
    assert_eq!(busy.text("PING"), "+PONG\r\n");
}

#[test]
fn a_request_that_trickles_in_is_closed_and_one_that_flows_is_not() {
    let server = Server::with_limits(|limits| {
        limits.body_timeout = Duration::from_millis(300);
        limits.body_bytes_per_second = 10_000;
    });
    let mut flowing = server.connect();
    flowing.send("*2\r\n$4\r\nECHO\r\n$100000\r\n");
    let mut trickling = server.connect();
    trickling.send("*2\r\n$4\r\nECHO\r\n$100000\r\n");
    let start = Instant::now();
    let mut sent = 0;
    while server.metric(CLOSED, "Slow") == 0 {
        trickling.send("x");
        if sent < 99_000 {
            flowing.send("x".repeat(1_000));
            sent += 1_000;
        }
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(10));
    }
    assert_eq!(trickling.rest(), "");
    flowing.send(format!("{}\r\n", "x".repeat(100_000 - sent)));
    assert!(flowing.reply().starts_with(b"$100000\r\n"));
    assert_eq!(server.metric(CLOSED, "Slow"), 1);
}

#[test]
fn strangers_beyond_their_number_make_room_oldest_first() {
    let limits = nearcache_server::limits::Limits {
        unauthenticated_connections: 2,
        authentication_timeout: Duration::from_millis(800),
        ..Default::default()
    };
    let server = Server::with(limits, Some("a long enough password"));
    let mut known = server.connect();
    assert_eq!(known.ask(&["AUTH", "a long enough password"]), b"+OK\r\n");
    let mut strangers: Vec<_> = (0..3)
        .map(|_| {
            let mut stranger = server.connect();
            stranger.text("GET k");
            stranger
        })
        .collect();
    assert_eq!(strangers[0].rest(), "");
    assert_eq!(known.text("GET k"), "$-1\r\n");
    // The others run out of time.
    assert_eq!(strangers[1].rest(), "");
    assert_eq!(strangers[2].rest(), "");
    assert_eq!(known.text("GET k"), "$-1\r\n");
    server.wait_for_metric(CLOSED, "Unauthenticated", 3);
}

#[test]
fn a_full_process_answers_reads_with_busy() {
    let server = Server::with_limits(|limits| limits.in_flight_bytes = 16 << 20);
    let mut uploads = Vec::new();
    for _ in 0..16 {
        let mut client = server.connect();
        client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n", 1 << 20));
        client.send(vec![b'v'; (1 << 20) - 1]);
        uploads.push(client);
    }
    let mut reader = server.connect();
    let start = Instant::now();
    while !reader.text("GET k").starts_with("-BUSY") {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(reader.text("PING"), "+PONG\r\n");
    drop(uploads);
    while reader.text("GET k") != "$-1\r\n" {
        assert!(start.elapsed() < Duration::from_secs(10));
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_stopping_server_answers_what_it_has_received_and_closes() {
    let mut server = Server::start();
    let mut idle = server.connect();
    assert_eq!(idle.text("PING"), "+PONG\r\n");
    let took = server.stop();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(idle.rest(), "");
    assert!(std::net::TcpStream::connect(server.address).is_err());
}
