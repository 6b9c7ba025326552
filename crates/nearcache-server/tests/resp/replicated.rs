//! Read-modify-write over a replicated cache: the `redis` crate on three nodes at once.
//!
//! Every such command is decided at its key's home node (design §6.7), so on a whole network nothing is
//! lost and nothing is granted twice, whichever nodes are asked. Each test has one writer per node; the
//! keys are many, so that every node is the home of some.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nearcache_server::config::Config;
use nearcache_server::server::Server;
use redis::{Connection, FromRedisValue, Value};
use tokio::runtime::Runtime;

use crate::harness::PATIENCE;

const NODES: usize = 3;
const KEYS: usize = 24;
/// Beyond any test's duration, in seconds.
const LONG: u64 = 100_000;

/// Three servers in this process that share a replicated cache.
pub(crate) struct Cluster {
    pub(crate) servers: Vec<Server>,
    pub(crate) runtime: Runtime,
}

impl Cluster {
    fn start() -> Self {
        Self::start_with(|_| ())
    }

    /// Servers that are configured otherwise than by default.
    pub(crate) fn start_with(change: impl Fn(&mut Config)) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        // A port that one test gives back may be another's next, whose nodes have the same names.
        static CLUSTERS: AtomicU32 = AtomicU32::new(0);
        let (process, number) = (std::process::id(), CLUSTERS.fetch_add(1, Ordering::Relaxed));
        let servers = runtime.block_on(async {
            let mut servers: Vec<Server> = Vec::new();
            for index in 0..NODES {
                let mut config = Config::default();
                config.node.cluster = format!("test-{process}-{number}");
                config.node.name = Some(format!("node-{index}"));
                config.http.enabled = false;
                config.resp.listen.set_port(0);
                config.peers.listen.set_port(0);
                let seeds = servers.iter();
                config.peers.seeds = seeds
                    .map(|server| server.addresses().peers.to_string())
                    .collect();
                change(&mut config);
                let one_thread = Some(NonZeroUsize::MIN);
                servers.push(Server::start(&config, one_thread).await.unwrap());
            }
            for server in &servers {
                server.node().ready().await;
            }
            servers
        });
        let cluster = Self { servers, runtime };
        eventually("every node sees every other", || {
            let connected =
                |member: &nearcache::Member| member.state != nearcache::MemberState::Unconnected;
            cluster.servers.iter().all(|server| {
                server
                    .node()
                    .members()
                    .iter()
                    .filter(|m| connected(m))
                    .count()
                    == NODES
            })
        });
        cluster
    }

    pub(crate) fn connect(&self, node: usize) -> Client {
        let address = self.servers[node].addresses().resp.unwrap();
        let client = redis::Client::open(format!("redis://{address}/0")).unwrap();
        Client(client.get_connection().unwrap())
    }

    fn clients(&self) -> Vec<Client> {
        (0..NODES).map(|node| self.connect(node)).collect()
    }

    /// What every key's writers were answered, in the order of the nodes, when all nodes were asked at
    /// the same moment.
    fn race<T: FromRedisValue + Send>(
        &self,
        ask: impl Fn(&mut Client, usize, &str) -> T + Sync,
    ) -> Vec<Vec<T>> {
        let arrived = AtomicUsize::new(0);
        let mut answers = std::thread::scope(|scope| {
            let writers: Vec<_> = (0..NODES)
                .map(|node| {
                    let (arrived, ask) = (&arrived, &ask);
                    let mut client = self.connect(node);
                    scope.spawn(move || {
                        let keys = (0..KEYS).map(|key| {
                            meet(arrived, (key + 1) * NODES);
                            ask(&mut client, node, &format!("key:{key}"))
                        });
                        keys.collect::<Vec<T>>().into_iter()
                    })
                })
                .collect();
            let writers = writers.into_iter();
            writers
                .map(|writer| writer.join().unwrap())
                .collect::<Vec<_>>()
        });
        (0..KEYS)
            .map(|_| {
                answers
                    .iter_mut()
                    .map(|node| node.next().unwrap())
                    .collect()
            })
            .collect()
    }

    /// Waits until every node answers `command KEY` alike for all keys, and says what.
    fn agree<T: FromRedisValue + PartialEq + std::fmt::Debug>(&self, command: &str) -> Vec<T> {
        let mut clients = self.clients();
        let mut last = Vec::new();
        eventually("the nodes agree", || {
            let mut answers = clients.iter_mut().map(|client| {
                let keys = (0..KEYS).map(|key| client.ask(&format!("{command} key:{key}")));
                keys.collect::<Vec<T>>()
            });
            let first = answers.next().unwrap();
            let same = answers.all(|other| other == first);
            last = first;
            same
        });
        last
    }

    /// Makes all keys on the first node and waits until every node has them.
    fn fill(&self, command: impl Fn(&str) -> String) {
        let mut client = self.connect(0);
        for key in 0..KEYS {
            let _: Value = client.ask(&command(&format!("key:{key}")));
        }
        let mut clients = self.clients();
        eventually("every node has every key", || {
            clients
                .iter_mut()
                .all(|client| (0..KEYS).all(|key| client.ask::<bool>(&format!("EXISTS key:{key}"))))
        });
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let servers = std::mem::take(&mut self.servers);
        self.runtime.block_on(async {
            for server in servers {
                server.stop().await;
            }
        });
    }
}

/// A connection that takes commands as text.
pub(crate) struct Client(Connection);

impl Client {
    pub(crate) fn ask<T: FromRedisValue>(&mut self, command: &str) -> T {
        self.try_ask(command)
            .unwrap_or_else(|error| panic!("{command}: {error}"))
    }

    pub(crate) fn try_ask<T: FromRedisValue>(&mut self, command: &str) -> redis::RedisResult<T> {
        let mut words = command.split(' ');
        let mut request = redis::cmd(words.next().unwrap());
        words.for_each(|word| {
            request.arg(word);
        });
        request.query(&mut self.0)
    }
}

pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(
            start.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Waits until all writers have come as far; unlike a barrier, not for one that has failed.
fn meet(arrived: &AtomicUsize, all: usize) {
    arrived.fetch_add(1, Ordering::Relaxed);
    let start = Instant::now();
    while arrived.load(Ordering::Relaxed) < all {
        assert!(start.elapsed() < 3 * PATIENCE, "another writer failed");
        std::thread::yield_now();
    }
}

/// The index of the one answer that says yes.
fn one_winner(answers: &[bool]) -> usize {
    let won: Vec<_> = (0..answers.len()).filter(|&node| answers[node]).collect();
    assert_eq!(won.len(), 1, "one of {answers:?} wins");
    won[0]
}

#[test]
fn no_increment_or_decrement_is_lost_or_answered_twice() {
    const ROUNDS: usize = 30;
    let cluster = Cluster::start();
    let seen = cluster.race(|client, _, key| {
        let ups = (0..ROUNDS).map(|_| client.ask::<i64>(&format!("INCR {key}")));
        ups.collect::<Vec<i64>>()
    });
    for answers in seen {
        let distinct: BTreeSet<i64> = answers.iter().flatten().copied().collect();
        let all: BTreeSet<i64> = (1..=(NODES * ROUNDS) as i64).collect();
        assert_eq!(distinct, all, "each sum is answered once");
    }
    cluster.race(|client, _, key| {
        for _ in 0..ROUNDS {
            for step in ["INCRBY KEY 5", "DECR KEY", "DECRBY KEY 2"] {
                let _: i64 = client.ask(&step.replace("KEY", key));
            }
        }
        true
    });
    let expected = (NODES * ROUNDS * (1 + 5 - 1 - 2)) as i64;
    assert_eq!(cluster.agree::<i64>("GET"), vec![expected; KEYS]);
}

#[test]
fn one_of_three_at_once_creates_a_key() {
    let cluster = Cluster::start();
    for command in [
        "SETNX KEY NODE",
        "SET KEY NODE NX",
        "SET KEY NODE NX EX 1000",
    ] {
        let answers = cluster.race(|client, node, key| {
            let text = command
                .replace("KEY", key)
                .replace("NODE", &node.to_string());
            client.ask::<Value>(&text) == Value::Okay
                || client.ask::<String>(&format!("GET {key}")) == node.to_string()
        });
        let winners: Vec<usize> = answers.iter().map(|answers| one_winner(answers)).collect();
        assert_eq!(cluster.agree::<usize>("GET"), winners, "{command}");
        cluster.race(|client, _, key| client.ask::<i64>(&format!("DEL {key}")));
        assert_eq!(cluster.agree::<bool>("EXISTS"), vec![false; KEYS]);
    }
}

#[test]
fn set_nx_get_answers_the_losers_with_what_the_winner_wrote() {
    let cluster = Cluster::start();
    let answers = cluster
        .race(|client, node, key| client.ask::<Option<usize>>(&format!("SET {key} {node} NX GET")));
    let held = cluster.agree::<usize>("GET");
    for (answers, winner) in answers.iter().zip(held) {
        let won: Vec<bool> = answers.iter().map(Option::is_none).collect();
        assert_eq!(one_winner(&won), winner);
        let told = answers.iter().flatten();
        assert!(
            told.into_iter().all(|value| *value == winner),
            "{answers:?}"
        );
    }
}

#[test]
fn each_value_is_swapped_out_exactly_once() {
    const ROUNDS: usize = 10;
    for command in [
        "GETSET KEY VALUE",
        "SET KEY VALUE GET",
        "SET KEY VALUE XX GET",
    ] {
        let cluster = Cluster::start();
        cluster.fill(|key| format!("SET {key} first"));
        let answers = cluster.race(|client, node, key| {
            let swaps = (0..ROUNDS).map(|round| {
                let value = format!("{node}-{round}");
                client.ask::<String>(&command.replace("KEY", key).replace("VALUE", &value))
            });
            swaps.collect::<Vec<String>>()
        });
        let mut written: BTreeSet<String> = (0..NODES)
            .flat_map(|node| (0..ROUNDS).map(move |round| format!("{node}-{round}")))
            .collect();
        written.insert("first".to_owned());
        for (answers, last) in answers.into_iter().zip(cluster.agree::<String>("GET")) {
            let mut out: Vec<String> = answers.into_iter().flatten().collect();
            out.push(last);
            assert_eq!(out.len(), written.len());
            assert_eq!(
                out.into_iter().collect::<BTreeSet<_>>(),
                written,
                "{command}"
            );
        }
    }
}

#[test]
fn set_xx_changes_what_is_there_and_creates_nothing() {
    let cluster = Cluster::start();
    let none = cluster
        .race(|client, node, key| client.ask::<Option<String>>(&format!("SET {key} {node} XX")));
    assert!(none.iter().flatten().all(Option::is_none));
    assert_eq!(cluster.agree::<bool>("EXISTS"), vec![false; KEYS]);
    // A key created on one node is there for the others as soon as its creator is answered: the home
    // node knows it.
    let mut clients = cluster.clients();
    for key in 0..KEYS {
        let (creator, other) = (key % NODES, (key + 1) % NODES);
        assert!(clients[creator].ask::<bool>(&format!("SETNX key:{key} new")));
        let set: Option<String> = clients[other].ask(&format!("SET key:{key} changed XX"));
        assert_eq!(set.as_deref(), Some("OK"), "key:{key}");
    }
    assert_eq!(cluster.agree::<String>("GET"), vec!["changed"; KEYS]);
}

#[test]
fn keepttl_keeps_the_expiry_whoever_writes() {
    let cluster = Cluster::start();
    cluster.fill(|key| format!("SET {key} 0 EX {LONG}"));
    let before = cluster.agree::<u64>("PEXPIRETIME");
    let set = cluster.race(|client, node, key| {
        ["KEEPTTL", "XX KEEPTTL"]
            .iter()
            .all(|options| client.ask::<String>(&format!("SET {key} {node} {options}")) == "OK")
    });
    assert!(set.iter().flatten().all(|ok| *ok));
    cluster.agree::<usize>("GET");
    assert_eq!(cluster.agree::<u64>("PEXPIRETIME"), before);
}

#[test]
fn getdel_gives_the_value_to_one() {
    let cluster = Cluster::start();
    cluster.fill(|key| format!("SET {key} {key}"));
    let answers = cluster.race(|client, _, key| {
        client
            .ask::<Option<String>>(&format!("GETDEL {key}"))
            .is_some()
    });
    answers.iter().for_each(|answers| {
        one_winner(answers);
    });
    assert_eq!(cluster.agree::<bool>("EXISTS"), vec![false; KEYS]);
}

#[test]
fn getex_gives_the_value_to_all_and_one_expiry_to_the_key() {
    let cluster = Cluster::start();
    cluster.fill(|key| format!("SET {key} {key}"));
    let at = |node: usize| 4_000_000_000 + node as u64;
    let answers = cluster.race(|client, node, key| {
        client.ask::<String>(&format!("GETEX {key} EXAT {}", at(node))) == key
    });
    assert!(answers.iter().flatten().all(|right| *right));
    let expiries = cluster.agree::<u64>("EXPIRETIME");
    assert!(
        expiries
            .iter()
            .all(|found| (0..NODES).any(|node| at(node) == *found))
    );
    let answers =
        cluster.race(|client, _, key| client.ask::<String>(&format!("GETEX {key} PERSIST")) == key);
    assert!(answers.iter().flatten().all(|right| *right));
    assert_eq!(cluster.agree::<i64>("TTL"), vec![-1; KEYS]);
}

#[test]
fn one_of_three_at_once_sets_the_first_expiry_and_one_takes_it_away() {
    let cluster = Cluster::start();
    type Time = fn(usize) -> u64;
    let commands: [(&str, Time, &str); 4] = [
        ("EXPIRE", |node| LONG + node as u64 * 100, "TTL"),
        ("PEXPIRE", |node| (LONG + node as u64 * 100) * 1_000, "TTL"),
        ("EXPIREAT", |node| 4_000_000_000 + node as u64, "EXPIRETIME"),
        (
            "PEXPIREAT",
            |node| 4_000_000_000_000 + node as u64,
            "PEXPIRETIME",
        ),
    ];
    cluster.fill(|key| format!("SET {key} v"));
    for (command, time, ask) in commands {
        let answers = cluster.race(|client, node, key| {
            client.ask::<bool>(&format!("{command} {key} {} NX", time(node)))
        });
        let found = cluster.agree::<u64>(ask);
        for (answers, found) in answers.iter().zip(found) {
            let scale = if command == "PEXPIRE" { 1_000 } else { 1 };
            let wanted = time(one_winner(answers)) / scale;
            assert!(wanted - found <= 60, "{command}: {found} is not {wanted}");
        }
        let answers = cluster.race(|client, _, key| client.ask::<bool>(&format!("PERSIST {key}")));
        answers.iter().for_each(|answers| {
            one_winner(answers);
        });
        assert_eq!(cluster.agree::<i64>("TTL"), vec![-1; KEYS]);
    }
}

#[test]
fn the_latest_wins_with_gt_and_the_earliest_with_lt() {
    const ROUNDS: usize = 10;
    let cluster = Cluster::start();
    // Of each node's times, in an order of its own, all nodes' times together being all of them.
    let time =
        |node: usize, round: usize| 4_000_000_000 + (round * 7 % ROUNDS * NODES + node) as u64;
    for (start, condition, wanted) in [
        (
            3_900_000_000_u64,
            "GT",
            4_000_000_000 + (NODES * ROUNDS) as u64 - 1,
        ),
        (
            3_900_000_000,
            "XX GT",
            4_000_000_000 + (NODES * ROUNDS) as u64 - 1,
        ),
        (4_100_000_000, "LT", 4_000_000_000),
        (4_100_000_000, "XX LT", 4_000_000_000),
    ] {
        cluster.fill(|key| format!("SET {key} v EXAT {start}"));
        assert_eq!(cluster.agree::<u64>("EXPIRETIME"), vec![start; KEYS]);
        cluster.race(|client, node, key| {
            for round in 0..ROUNDS {
                let at = time(node, round);
                let _: bool = client.ask(&format!("EXPIREAT {key} {at} {condition}"));
            }
            true
        });
        assert_eq!(
            cluster.agree::<u64>("EXPIRETIME"),
            vec![wanted; KEYS],
            "{condition}"
        );
    }
}

#[test]
fn conditions_on_the_expiry_are_judged_where_the_last_change_was_made_also_with_a_past_time() {
    let cluster = Cluster::start();
    cluster.fill(|key| format!("SET {key} v"));
    let mut clients = cluster.clients();
    // Each step follows at once on another node, which may not have heard of the step before.
    let steps: [(&str, bool); 12] = [
        ("EXPIRE KEY 1000", true),
        ("EXPIREAT KEY 1 NX", false),
        ("EXPIRE KEY 500 XX GT", false),
        ("EXPIRE KEY 500 XX LT", true),
        ("EXPIREAT KEY 1 GT", false),
        ("PERSIST KEY", true),
        ("EXPIREAT KEY 1 XX", false),
        ("EXPIRE KEY 500 XX LT", false),
        ("PEXPIRE KEY -5 XX LT", false),
        ("EXPIRE KEY 500 NX", true),
        ("EXPIREAT KEY 1 XX LT", true),
        ("EXPIRE KEY 500", false),
    ];
    for key in 0..KEYS {
        for (step, (command, wanted)) in steps.iter().enumerate() {
            let command = command.replace("KEY", &format!("key:{key}"));
            let made: bool = clients[(key + step) % NODES].ask(&command);
            assert_eq!(made, *wanted, "{command}");
        }
    }
    assert_eq!(cluster.agree::<bool>("EXISTS"), vec![false; KEYS]);
}

#[test]
fn a_past_time_removes_the_key_for_one_of_three() {
    let cluster = Cluster::start();
    for (set, command) in [
        ("SET KEY v", "EXPIREAT KEY 1"),
        ("SET KEY v", "EXPIRE KEY -1 NX"),
        ("SET KEY v EX 1000", "EXPIREAT KEY 1 XX"),
        ("SET KEY v EX 1000", "PEXPIREAT KEY 1 XX LT"),
        ("SET KEY v EX 1000", "PEXPIRE KEY 0 LT"),
    ] {
        cluster.fill(|key| set.replace("KEY", key));
        let answers =
            cluster.race(|client, _, key| client.ask::<bool>(&command.replace("KEY", key)));
        answers.iter().for_each(|answers| {
            one_winner(answers);
        });
        assert_eq!(
            cluster.agree::<bool>("EXISTS"),
            vec![false; KEYS],
            "{command}"
        );
    }
}
