//! What a comparison with Redis cannot show: identity, databases, RESP3, scanning, pipelines.

use std::collections::BTreeSet;

use crate::harness::{Client, Server, request};

#[test]
fn databases_are_caches_apart_from_each_other() {
    let server = Server::start();
    let mut client = server.connect();
    assert_eq!(client.text("SET k zero"), "+OK\r\n");
    assert_eq!(client.text("SELECT 1"), "+OK\r\n");
    assert_eq!(client.text("GET k"), "$-1\r\n");
    assert_eq!(client.text("SET k one"), "+OK\r\n");
    assert_eq!(client.text("FLUSHDB"), "+OK\r\n");
    assert_eq!(client.text("SELECT 0"), "+OK\r\n");
    assert_eq!(client.text("GET k"), "$4\r\nzero\r\n");
    assert_eq!(client.text("SELECT 2"), "-ERR DB index is out of range\r\n");
    assert_eq!(client.text("FLUSHALL"), "+OK\r\n");
    assert_eq!(client.text("DBSIZE"), ":0\r\n");
}

#[test]
fn hello_changes_how_replies_are_spelled() {
    let server = Server::start();
    let mut client = server.connect();
    assert_eq!(client.text("GET k"), "$-1\r\n");
    let greeting = client.text("HELLO 3 SETNAME me");
    assert!(
        greeting.starts_with("%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n"),
        "{greeting}"
    );
    assert!(greeting.contains("$5\r\nproto\r\n:3\r\n"), "{greeting}");
    assert_eq!(client.text("GET k"), "_\r\n");
    assert_eq!(client.text("CLIENT GETNAME"), "$2\r\nme\r\n");
    assert!(client.text("CONFIG GET save").starts_with("%1\r\n"));
    assert!(client.text("INFO").starts_with('='));
    assert!(client.text("HELLO 2").starts_with("*14\r\n"));
    assert_eq!(client.text("GET k"), "$-1\r\n");
    assert_eq!(
        client.text("HELLO 4"),
        "-NOPROTO unsupported protocol version\r\n"
    );
}

#[test]
fn clients_are_listed_by_what_they_say_of_themselves() {
    let server = Server::start();
    let mut first = server.connect();
    let mut second = server.connect();
    assert_eq!(first.text("CLIENT SETNAME one"), "+OK\r\n");
    assert_eq!(first.text("CLIENT SETINFO LIB-NAME lib"), "+OK\r\n");
    assert_eq!(first.text("CLIENT SETINFO lib-ver 1.2"), "+OK\r\n");
    assert!(
        first
            .text("CLIENT SETINFO foo 1")
            .starts_with("-ERR Unrecognized option 'foo'")
    );
    assert_eq!(
        String::from_utf8_lossy(&second.ask(&["CLIENT", "SETNAME", "a b"])),
        "-ERR Client names cannot contain spaces, newlines or special characters.\r\n"
    );
    let list = second.text("CLIENT LIST");
    assert_eq!(list.matches("id=").count(), 2, "{list}");
    assert!(
        list.contains(" name=one ") && list.contains("lib-name=lib lib-ver=1.2"),
        "{list}"
    );
    let id = second.text("CLIENT ID");
    let id = id.trim_start_matches(':').trim_end();
    let own = second.text(&format!("CLIENT LIST ID {id}"));
    assert_eq!(own.matches("id=").count(), 1, "{own}");
    assert!(second.text("CLIENT INFO").contains(&format!("id={id} ")));
    drop(first);
    server.wait_for_metric("nearcache_resp_connections ", "", 1);
    assert_eq!(second.text("CLIENT LIST").matches("id=").count(), 1);
}

#[test]
fn scanning_meets_every_key_whatever_is_written_meanwhile() {
    let server = Server::start();
    let mut client = server.connect();
    for n in 0..1_000 {
        client.send(request(&["SET", &format!("key:{n}"), "v"]));
    }
    (0..1_000).for_each(|_| assert_eq!(client.reply(), b"+OK\r\n"));
    let mut met = BTreeSet::new();
    let mut cursor = "0".to_owned();
    let mut calls = 0;
    loop {
        let reply = client.text(&format!("SCAN {cursor} MATCH key:* COUNT 50"));
        let mut words = reply
            .split("\r\n")
            .filter(|line| !line.starts_with(['*', '$']));
        cursor = words.next().unwrap().to_owned();
        met.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
        client.text(&format!("SET other:{calls} v"));
        client.text(&format!("SET key:{calls} again"));
        calls += 1;
        if cursor == "0" {
            break;
        }
    }
    assert_eq!(met.len(), 1_000);
    assert!(calls > 10, "{calls}");
    let keys = client.text("KEYS key:*");
    assert!(keys.starts_with("*1000\r\n"));
}

#[test]
fn counters_of_many_clients_lose_nothing() {
    let server = Server::start();
    let address = server.address;
    let threads: Vec<_> = (0..4)
        .map(|_| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                for _ in 0..250 {
                    assert!(client.text("INCR counter").starts_with(':'));
                }
            })
        })
        .collect();
    threads
        .into_iter()
        .for_each(|thread| thread.join().unwrap());
    assert_eq!(server.connect().text("GET counter"), "$4\r\n1000\r\n");
}

#[test]
fn set_if_absent_is_won_by_one() {
    let server = Server::start();
    let address = server.address;
    let threads: Vec<_> = (0..4)
        .map(|n| {
            std::thread::spawn(move || {
                let mut client = Client::connect(address);
                client.text(&format!("SET lock {n} NX")) == "+OK\r\n"
            })
        })
        .collect();
    let won = threads
        .into_iter()
        .filter(|_| true)
        .map(|thread| thread.join().unwrap());
    assert_eq!(won.filter(|won| *won).count(), 1);
}

#[test]
fn a_batch_cut_anywhere_is_answered_the_same() {
    let server = Server::start();
    let batch = [
        request(&["SET", "k", "value"]),
        request(&["GET", "k"]),
        b"get k\r\n".to_vec(),
        request(&["INCR", "n"]),
        request(&["DEL", "k", "n"]),
    ]
    .concat();
    let expected = b"+OK\r\n$5\r\nvalue\r\n$5\r\nvalue\r\n:1\r\n:2\r\n";
    for cut in 1..batch.len() {
        let mut client = server.connect();
        client.send(&batch[..cut]);
        if cut % 7 == 0 {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
        client.send(&batch[cut..]);
        let replies: Vec<u8> = (0..5).flat_map(|_| client.reply()).collect();
        assert_eq!(replies, expected, "cut at {cut}");
    }
}

#[test]
fn commands_are_counted_by_name() {
    let server = Server::start();
    let mut client = server.connect();
    for command in ["SET k v", "GET k", "get k"] {
        client.text(command);
    }
    assert_eq!(
        server.metric("nearcache_resp_commands_total", "command=\"get\""),
        2
    );
    assert_eq!(
        server.metric("nearcache_resp_commands_total", "command=\"set\""),
        1
    );
    assert!(server.metric("nearcache_resp_received_bytes_total", "") > 50);
    assert!(
        client
            .text("INFO commandstats")
            .contains("cmdstat_get:calls=2")
    );
}

#[test]
fn commands_describe_themselves() {
    let server = Server::start();
    let mut client = server.connect();
    let count = client.text("COMMAND COUNT");
    let all = client.text("COMMAND");
    assert_eq!(
        count.trim_start_matches(':'),
        all.split_once('*').unwrap().1.get(..4).unwrap()
    );
    assert!(
        client
            .text("COMMAND INFO get")
            .contains("$3\r\nget\r\n:2\r\n*2\r\n+readonly\r\n+fast\r\n:1\r\n:1\r\n:1\r\n")
    );
    assert!(client.text("COMMAND DOCS set").contains("summary"));
    assert!(
        client
            .text("COMMAND LIST FILTERBY PATTERN ge*")
            .contains("getdel")
    );
}
