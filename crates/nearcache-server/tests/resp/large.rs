//! Long values over RESP and HTTP: written on one node, read on another, up to the configured limit.
//!
//! The nodes have one thread each: whoever waits for a value to be fetched must not keep the other clients waiting.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use nearcache_server::config::Config;
use redis::{Commands, Connection, RedisResult};

use crate::harness::PATIENCE;
use crate::replicated::Cluster;

const MIB: usize = 1 << 20;
const LONGEST: usize = 32 * MIB;

fn cluster(bytes_per_second: usize) -> Cluster {
    Cluster::start_with(|config: &mut Config| {
        config.limits.value_bytes = LONGEST;
        config.limits.request_bytes = 48 * MIB;
        config.limits.output_hard_bytes = 48 * MIB;
        config.http.enabled = true;
        config.http.listen.set_port(0);
        for cache in config.caches.values_mut() {
            cache.max_bytes = 512 << 20;
            cache.fetch_bytes_per_second = bytes_per_second as u64;
        }
    })
}

fn client(cluster: &Cluster, node: usize) -> Connection {
    let address = cluster.servers[node].addresses().resp.unwrap();
    let client = redis::Client::open(format!("redis://{address}/0")).unwrap();
    client.get_connection().unwrap()
}

fn value(len: usize) -> Vec<u8> {
    (0..=250).cycle().take(len).collect()
}

/// Waits until the node knows the key.
fn known(client: &mut Connection, key: &str) {
    let start = Instant::now();
    while !client.exists::<_, bool>(key).unwrap() {
        assert!(start.elapsed() < PATIENCE, "{key} does not arrive");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The value, asked for again if it takes longer than a client waits.
fn get(client: &mut Connection, key: &str) -> Vec<u8> {
    let start = Instant::now();
    loop {
        let found: Option<Vec<u8>> = client.get(key).unwrap();
        if let Some(found) = found {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "{key} does not come");
    }
}

#[test]
fn a_value_up_to_the_configured_limit_is_written_here_and_read_there() {
    let cluster = cluster(0);
    let (mut here, mut there) = (client(&cluster, 0), client(&cluster, 1));
    for len in [2 * MIB, LONGEST] {
        let key = format!("key:{len}");
        let _: () = here.set(&key, value(len)).unwrap();
        known(&mut there, &key);
        assert!(get(&mut there, &key) == value(len));
    }
    let too_long: RedisResult<()> = here.set("key", value(LONGEST + 1));
    assert!(too_long.is_err());
}

#[test]
fn what_can_be_said_without_the_value_fetches_nothing() {
    let cluster = cluster(0);
    let (mut here, mut there) = (client(&cluster, 0), client(&cluster, 1));
    let _: () = here.set_ex("key", value(2 * MIB), 1_000).unwrap();
    known(&mut there, "key");
    assert_eq!(there.strlen::<_, usize>("key").unwrap(), 2 * MIB);
    assert!(there.ttl::<_, i64>("key").unwrap() > 900);
    let kind: String = redis::cmd("TYPE").arg("key").query(&mut there).unwrap();
    assert_eq!(kind, "string");
    assert_eq!(there.keys::<_, Vec<String>>("*").unwrap(), ["key"]);
    let (_, page): (u64, Vec<String>) = redis::cmd("SCAN")
        .arg(0)
        .arg("COUNT")
        .arg(1_000)
        .query(&mut there)
        .unwrap();
    assert_eq!(page, ["key"]);
    let caches = cluster.servers[1].node().metrics();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &caches.lock()).unwrap();
    let fetched = text
        .lines()
        .find(|line| line.starts_with("nearcache_cache_values_fetched_total"));
    assert!(
        fetched.is_some_and(|line| line.ends_with(" 0")),
        "{fetched:?}"
    );
}

#[test]
fn who_waits_for_a_long_value_keeps_nobody_waiting() {
    // A second's worth.
    let cluster = cluster(8 * MIB);
    let (mut here, mut there) = (client(&cluster, 0), client(&cluster, 1));
    let _: () = here.set("long", value(8 * MIB)).unwrap();
    let _: () = there.set("short", "value").unwrap();
    known(&mut there, "long");
    let waiting = std::thread::spawn({
        let mut waiter = client(&cluster, 1);
        move || (get(&mut waiter, "long").len(), Instant::now())
    });
    let (mut answers, mut slowest) = (Vec::new(), Duration::ZERO);
    while !waiting.is_finished() {
        let asked = Instant::now();
        assert_eq!(there.get::<_, String>("short").unwrap(), "value");
        slowest = slowest.max(asked.elapsed());
        answers.push(Instant::now());
    }
    let (len, ended) = waiting.join().unwrap();
    assert_eq!(len, 8 * MIB);
    assert!(answers.iter().filter(|at| **at < ended).count() > 10);
    assert!(slowest < Duration::from_millis(900), "{slowest:?}");
}

#[test]
fn a_condition_on_a_long_value_is_decided_without_it_and_a_change_of_expiry_with_it() {
    let cluster = cluster(0);
    let mut clients: Vec<Connection> = (0..3).map(|node| client(&cluster, node)).collect();
    for number in 0..6 {
        let key = format!("key:{number}");
        assert!(
            clients[0]
                .set_nx::<_, _, bool>(&key, value(2 * MIB))
                .unwrap()
        );
        assert!(
            !clients[1]
                .set_nx::<_, _, bool>(&key, value(2 * MIB))
                .unwrap()
        );
        known(&mut clients[2], &key);
        assert!(clients[2].expire::<_, bool>(&key, 1_000).unwrap());
        assert!(get(&mut clients[1], &key) == value(2 * MIB));
        let taken: Vec<u8> = redis::cmd("GETDEL")
            .arg(&key)
            .query(&mut clients[1])
            .unwrap();
        assert!(taken == value(2 * MIB));
    }
}

/// Status and body of a request.
fn http(address: SocketAddr, request: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let len = body.len();
    write!(stream, "{request} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n").unwrap();
    stream.write_all(body).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let end = answer
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap();
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, answer.split_off(end + 4))
}

#[test]
fn over_http_a_long_value_is_put_on_one_node_and_got_from_another() {
    let cluster = cluster(0);
    let address = |node: usize| cluster.servers[node].addresses().http.unwrap();
    let path = "/v1/caches/default/entries/key";
    let (status, _) = http(address(0), &format!("PUT {path}"), &value(LONGEST));
    assert_eq!(status, 204);
    known(&mut client(&cluster, 1), "key");
    let start = Instant::now();
    loop {
        let (status, body) = http(address(1), &format!("GET {path}"), &[]);
        if status == 200 {
            assert!(body == value(LONGEST));
            return;
        }
        assert!(start.elapsed() < PATIENCE, "{status}");
    }
}
