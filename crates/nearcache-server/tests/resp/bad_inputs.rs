//! Bad inputs, by their number in the reliability specification: the answer, the connection, the
//! counters, and that other clients do not notice.

use crate::harness::{PATIENCE, Server, request};

/// Sends `bytes`, expects `error` and the end of the connection, and that exactly one connection was
/// closed for `reason`.
fn closes_with(bytes: &[u8], error: &str, reason: &str) {
    let server = Server::start();
    let mut other = server.connect();
    assert_eq!(other.text("PING"), "+PONG\r\n");
    let mut client = server.connect();
    client.send(bytes);
    assert_eq!(client.rest(), error);
    server.wait_for_metric("nearcache_resp_connections_closed_total", reason, 1);
    assert_eq!(
        server.metric("nearcache_resp_connections_closed_total", ""),
        1
    );
    assert_eq!(other.text("PING"), "+PONG\r\n");
}

#[test]
fn bad_input_03_a_count_that_is_no_count_is_answered_and_closed() {
    for bytes in ["*-5\r\n", "*abc\r\n", "*9223372036854775808\r\n"] {
        let error = "-ERR Protocol error: invalid multibulk length\r\n";
        closes_with(bytes.as_bytes(), error, "Protocol");
    }
}

#[test]
fn bad_input_04_a_length_that_is_no_length_is_answered_and_closed() {
    for length in ["$-2", "$ 5", "$+5", "$10000000000000000000"] {
        let error = "-ERR Protocol error: invalid bulk length\r\n";
        closes_with(format!("*1\r\n{length}\r\n").as_bytes(), error, "Protocol");
    }
}

#[test]
fn bad_input_05_an_argument_without_line_end_is_answered_and_closed() {
    let error = "-ERR Protocol error: expected CRLF after bulk\r\n";
    closes_with(b"*1\r\n$4\r\nPINGxxPING\r\n", error, "Protocol");
}

#[test]
fn bad_input_06_an_argument_of_another_type_is_answered_and_closed() {
    let error = "-ERR Protocol error: expected '$', got ':'\r\n";
    closes_with(b"*2\r\n$3\r\nGET\r\n:1\r\n", error, "Protocol");
}

#[test]
fn bad_input_07_a_line_of_70_kib_is_answered_and_closed() {
    let error = "-ERR Protocol error: too big inline request\r\n";
    closes_with(&vec![b'a'; 70 << 10], error, "Protocol");
}

#[test]
fn bad_input_09_http_is_told_where_http_is_and_closed() {
    let error = "-ERR this port speaks the Redis protocol, not HTTP; \
                 HTTP is served on http://127.0.0.1:8001/\r\n";
    closes_with(b"POST / HTTP/1.1\r\nHost: x\r\n\r\n", error, "Http");
    let unknown = "-ERR wrong number of arguments for 'get' command\r\n";
    closes_with(
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        &format!("{unknown}{error}"),
        "Http",
    );
}

#[test]
fn bad_input_10_tls_is_closed_without_a_byte_of_reply() {
    closes_with(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", "", "Tls");
}

#[test]
fn bad_input_11_unknown_commands_and_wrong_counts_keep_the_connection() {
    let server = Server::start();
    let mut client = server.connect();
    assert_eq!(
        client.text("FOO bar baz"),
        "-ERR unknown command 'FOO', with args beginning with: 'bar' 'baz' \r\n"
    );
    let long = "x".repeat(1_000);
    let reply = client.text(&long);
    assert!(reply.contains(&format!("'{}'", "x".repeat(128))), "{reply}");
    let evil = client.ask(&["a\r\nb", "c\r\nd"]);
    assert_eq!(
        String::from_utf8_lossy(&evil),
        "-ERR unknown command 'a  b', with args beginning with: 'c  d' \r\n"
    );
    assert_eq!(
        client.text("GET"),
        "-ERR wrong number of arguments for 'get' command\r\n"
    );
    assert_eq!(
        client.text("CLIENT SETNAME"),
        "-ERR wrong number of arguments for 'client|setname' command\r\n"
    );
    assert_eq!(client.text("PING"), "+PONG\r\n");
    assert_eq!(
        server.metric("nearcache_resp_errors_total", "UnknownCommand"),
        3
    );
    assert_eq!(server.metric("nearcache_resp_errors_total", "Arity"), 2);
}

#[test]
fn bad_input_12_commands_of_redis_that_are_missing_are_named_as_such() {
    let server = Server::start();
    let mut client = server.connect();
    for (command, name) in [
        ("EVAL return 0", "EVAL"),
        ("CONFIG SET dir /tmp", "config|set"),
        ("MODULE LOAD x", "MODULE"),
        ("SLAVEOF a b", "SLAVEOF"),
        ("DEBUG SEGFAULT", "DEBUG"),
    ] {
        assert_eq!(
            client.text(command),
            format!("-ERR command '{name}' is not supported\r\n")
        );
    }
    assert_eq!(client.text("PING"), "+PONG\r\n");
}

#[test]
fn bad_input_13_and_14_a_stranger_is_told_to_authenticate_and_not_why_it_failed() {
    let server = Server::with_password("a long enough password");
    let mut client = server.connect();
    assert_eq!(client.text("GET k"), "-NOAUTH Authentication required.\r\n");
    let wrong = "-WRONGPASS invalid username-password pair or user is disabled.\r\n";
    assert_eq!(client.text("AUTH wrong"), wrong);
    assert_eq!(client.text("AUTH nobody wrong"), wrong);
    assert_eq!(
        String::from_utf8_lossy(&client.ask(&["AUTH", "a long enough password"])),
        "+OK\r\n"
    );
    assert_eq!(client.text("GET k"), "$-1\r\n");
}

#[test]
fn bad_input_01_and_02_a_stranger_may_declare_only_little() {
    for (bytes, what) in [
        ("*1000000\r\n", "multibulk"),
        ("*1\r\n$100000000\r\n", "bulk"),
    ] {
        let server = Server::with_password("a long enough password");
        let mut client = server.connect();
        client.send(bytes);
        assert_eq!(
            client.rest(),
            format!("-ERR Protocol error: unauthenticated {what} length\r\n")
        );
    }
}

#[test]
fn a_stranger_that_keeps_guessing_is_closed() {
    let server = Server::with_password("a long enough password");
    let mut client = server.connect();
    for _ in 0..5 {
        client.send(request(&["AUTH", "guess"]));
    }
    assert_eq!(client.rest().lines().count(), 5);
    server.wait_for_metric(
        "nearcache_resp_connections_closed_total",
        "Unauthenticated",
        1,
    );
}

#[test]
fn bad_input_16_long_keys_are_refused_and_odd_keys_are_not() {
    let server = Server::start();
    let mut client = server.connect();
    let (fits, too_long) = ("k".repeat(4_096), "k".repeat(4_097));
    assert_eq!(client.ask(&["SET", &fits, "v"]), b"+OK\r\n");
    let error = "-ERR KeyTooLong: key of 4097 bytes exceeds the limit of 4096 bytes\r\n";
    for args in [
        vec!["SET", &too_long, "v"],
        vec!["GET", &too_long],
        vec!["DEL", "a", &too_long],
        vec!["MGET", "a", &too_long],
        vec!["MSET", "a", "b", &too_long, "v"],
        vec!["INCR", &too_long],
        vec!["EXPIRE", &too_long, "1"],
        vec!["EXISTS", &too_long],
    ] {
        assert_eq!(
            String::from_utf8_lossy(&client.ask(&args)),
            error,
            "{}",
            args[0]
        );
    }
    // Redis has an empty key, and so does RESP here.
    assert_eq!(client.ask(&["SET", "", "empty"]), b"+OK\r\n");
    assert_eq!(client.ask(&["GET", ""]), b"$5\r\nempty\r\n");
    let odd = b"a\0b\xff\r\n";
    assert_eq!(client.ask(&[&b"SET"[..], odd, b"odd"]), b"+OK\r\n");
    assert_eq!(client.ask(&[&b"GET"[..], odd]), b"$3\r\nodd\r\n");
}

#[test]
fn bad_input_17_a_large_value_is_skipped_and_the_connection_kept() {
    let server = Server::start();
    let mut client = server.connect();
    let (fits, too_large) = (vec![b'v'; 1 << 20], vec![b'v'; (1 << 20) + 1]);
    assert_eq!(client.ask(&[&b"SET"[..], b"k", &fits]), b"+OK\r\n");
    let error = "-ERR ValueTooLarge: value of 1048577 bytes exceeds the limit of 1048576 bytes\r\n";
    assert_eq!(
        String::from_utf8_lossy(&client.ask(&[&b"SET"[..], b"k", &too_large])),
        error
    );
    assert_eq!(client.text("STRLEN k"), ":1048576\r\n");
    assert_eq!(
        server.metric("nearcache_resp_errors_total", "ValueTooLarge"),
        1
    );
}

#[test]
fn bad_input_18_a_time_to_live_is_never_silently_none() {
    let server = Server::start();
    let mut client = server.connect();
    assert_eq!(client.text("SET k v"), "+OK\r\n");
    for ttl in ["0", "-1", "9223372036854775807"] {
        assert_eq!(
            client.text(&format!("SET k w EX {ttl}")),
            "-ERR invalid expire time in 'set' command\r\n"
        );
        assert_eq!(
            client.text(&format!("SETEX k {ttl} w")),
            "-ERR invalid expire time in 'setex' command\r\n"
        );
    }
    for ttl in ["NaN", "1.5", "", "99999999999999999999"] {
        let error = "-ERR value is not an integer or out of range\r\n";
        assert_eq!(client.text(&format!("SET k w PX {ttl}")), error);
        assert_eq!(client.text(&format!("EXPIRE k {ttl}")), error);
    }
    assert_eq!(
        client.text("EXPIRE k 9223372036854775807"),
        "-ERR invalid expire time in 'expire' command\r\n"
    );
    assert_eq!(client.text("GET k"), "$1\r\nv\r\n");
    assert_eq!(client.text("TTL k"), ":-1\r\n");
    // What lies in the past removes, as in Redis.
    assert_eq!(client.text("EXPIRE k -1"), ":1\r\n");
    assert_eq!(client.text("EXISTS k"), ":0\r\n");
    assert_eq!(client.text("SET k v PXAT 1"), "+OK\r\n");
    assert_eq!(client.text("EXISTS k"), ":0\r\n");
}

#[test]
fn bad_input_19_options_at_odds_or_repeated_are_a_syntax_error() {
    let server = Server::start();
    let mut client = server.connect();
    for options in [
        "EX 1 PX 1",
        "NX XX",
        "XX NX",
        "EX 1 EX 2",
        "NX NX",
        "GET GET",
        "KEEPTTL EX 1",
        "EX 1 KEEPTTL",
        "EXAT 1 PXAT 1",
        "EX",
        "PERSIST",
        "FOO",
    ] {
        let reply = client.text(&format!("SET k v {options}"));
        assert_eq!(reply, "-ERR syntax error\r\n", "{options}");
    }
    assert_eq!(client.text("EXISTS k"), ":0\r\n");
}

#[test]
fn bad_input_20_what_is_no_number_is_not_counted() {
    let server = Server::start();
    let mut client = server.connect();
    let error = "-ERR value is not an integer or out of range\r\n";
    for value in ["abc", "1.5", "9223372036854775808"] {
        client.text(&format!("SET k {value}"));
        assert_eq!(client.text("INCR k"), error);
        assert_eq!(
            client.text("GET k"),
            format!("${}\r\n{value}\r\n", value.len())
        );
    }
    client.text("SET k 9223372036854775807");
    let overflow = "-ERR increment or decrement would overflow\r\n";
    assert_eq!(client.text("INCR k"), overflow);
    assert_eq!(client.text("GET k"), "$19\r\n9223372036854775807\r\n");
    assert_eq!(client.text("INCRBY k abc"), error);
    assert_eq!(
        client.text("DECRBY k -9223372036854775808"),
        "-ERR decrement would overflow\r\n"
    );
}

#[test]
fn bad_input_26_a_long_pattern_is_refused() {
    let server = Server::start();
    let mut client = server.connect();
    let pattern = "*a".repeat(32 << 10);
    let reply = client.text(&format!("KEYS {pattern}"));
    assert!(reply.starts_with("-ERR PatternTooLong"), "{reply}");
    let reply = client.text(&format!("SCAN 0 MATCH {pattern}"));
    assert!(reply.starts_with("-ERR PatternTooLong"), "{reply}");
    assert!(client.socket().read_timeout().unwrap() == Some(PATIENCE));
}
