//! The workload: clients that read, write and remove through all nodes and record what they saw.
//!
//! Three kinds of keys. *Pinned* keys are written by one client through one node only, one write after the other, so
//! that the order of their versions is known. *Shared* keys are written and removed by everybody everywhere.
//! *Stable* keys are written before the first fault and then only read.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::chance::Chance;
use crate::history::{Kind, Op, Value};
use crate::resp::{Connection, Reply};

/// Pinned keys per node.
const PINNED: usize = 6;
/// Shared keys.
const SHARED: usize = 24;
/// Stable keys.
const STABLE: usize = 12;
/// Bytes added to each value, so that they fill something.
const PADDING: usize = 100;
/// Pause of a client after each operation.
const PAUSE: Duration = Duration::from_millis(4);
/// How long a client leaves a node alone that did not answer.
const LEFT_ALONE: Duration = Duration::from_millis(150);

/// The keys of a round.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    /// Rounds do not share keys.
    pub(crate) round: usize,
    /// Nodes of the cluster.
    pub(crate) nodes: usize,
}

impl Keys {
    /// How many there are.
    pub(crate) fn count(self) -> usize {
        self.stable_from() + STABLE
    }

    /// The first stable one.
    pub(crate) fn stable_from(self) -> usize {
        self.nodes * PINNED + SHARED
    }

    /// Its name in the cache.
    pub(crate) fn name(self, key: usize) -> String {
        format!("round{}:key{key}", self.round)
    }

    /// What is stored for a value: it names its key, so that an answer meant for another is noticed (C6).
    fn stored(self, key: usize, value: Value) -> String {
        format!("{}={value}={}", self.name(key), "x".repeat(PADDING))
    }

    /// The value in what was read; `None` if it belongs to another key.
    fn value(self, key: usize, bytes: &[u8]) -> Option<Value> {
        let text = std::str::from_utf8(bytes).ok()?;
        let mut parts = text.split('=');
        (parts.next()? == self.name(key)).then_some(())?;
        parts.next()?.parse().ok()
    }
}

/// What clients, the round and its observer share.
#[derive(Debug)]
pub(crate) struct Board {
    began: Instant,
    addresses: Vec<SocketAddr>,
    token: String,
    lives: Vec<AtomicUsize>,
    next_value: AtomicU64,
    /// No more writes.
    pub(crate) read_only: AtomicBool,
    /// No more of anything.
    pub(crate) over: AtomicBool,
    /// Clients that know that there are no more writes.
    pub(crate) quiet: AtomicUsize,
}

impl Board {
    /// For nodes at these addresses.
    pub(crate) fn new(addresses: Vec<SocketAddr>, token: String) -> Self {
        Self {
            began: Instant::now(),
            lives: addresses.iter().map(|_| AtomicUsize::new(0)).collect(),
            addresses,
            token,
            next_value: AtomicU64::new(1),
            read_only: AtomicBool::new(false),
            over: AtomicBool::new(false),
            quiet: AtomicUsize::new(0),
        }
    }

    /// Microseconds since the run began.
    pub(crate) fn now(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The life the node is in.
    pub(crate) fn life(&self, node: usize) -> usize {
        self.lives
            .get(node)
            .map_or(0, |life| life.load(Ordering::SeqCst))
    }

    /// The node's process has ended and what it held is gone. Called after it ended and before it starts again.
    pub(crate) fn next_life(&self, node: usize) {
        if let Some(life) = self.lives.get(node) {
            life.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// A value that nobody has used.
    pub(crate) fn new_value(&self) -> Value {
        self.next_value.fetch_add(1, Ordering::Relaxed)
    }

    /// How many nodes there are.
    pub(crate) fn nodes(&self) -> usize {
        self.addresses.len()
    }
}

/// One client: at most one connection to each node.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    board: &'a Board,
    keys: Keys,
    links: Vec<Option<(usize, Connection)>>,
    alone_until: Vec<Instant>,
    /// What it saw.
    pub(crate) ops: Vec<Op>,
    /// Why operations failed, and how often.
    pub(crate) failures: BTreeMap<String, usize>,
    /// Answers that belonged to another key.
    pub(crate) cross_talk: Vec<String>,
}

impl<'a> Client<'a> {
    /// A client without connections.
    pub(crate) fn new(board: &'a Board, keys: Keys) -> Self {
        Self {
            board,
            keys,
            links: board.addresses.iter().map(|_| None).collect(),
            alone_until: board.addresses.iter().map(|_| Instant::now()).collect(),
            ops: Vec::new(),
            failures: BTreeMap::new(),
            cross_talk: Vec::new(),
        }
    }

    /// Reads, writes and removes as `seed` says, until the round is over. `number` of `count` clients.
    pub(crate) fn work(&mut self, number: usize, count: usize, seed: u64) {
        let mut chance = Chance::new(seed ^ (number as u64) << 32);
        let pinned = self.keys.nodes * PINNED;
        let mine: Vec<usize> = (0..pinned).filter(|key| key % count == number).collect();
        let mut said_quiet = false;
        while !self.board.over.load(Ordering::SeqCst) {
            let node = chance.below(self.board.nodes());
            let draw = chance.below(100);
            let read_only = self.board.read_only.load(Ordering::SeqCst);
            if read_only && !said_quiet {
                said_quiet = true;
                self.board.quiet.fetch_add(1, Ordering::SeqCst);
            }
            let shared = pinned + chance.below(SHARED);
            let own = mine.get(chance.below(mine.len())).copied();
            match (draw, own) {
                _ if read_only => self.read(node, chance.below(self.keys.count())),
                (0..25, Some(key)) => self.write(key / PINNED, key),
                (25..28, Some(key)) => self.delete(key / PINNED, key),
                (28..40, _) => self.write(node, shared),
                (40..44, _) => self.delete(node, shared),
                _ => self.read(node, chance.below(self.keys.count())),
            }
            std::thread::sleep(PAUSE);
        }
    }

    /// Writes a value that is new.
    pub(crate) fn write(&mut self, node: usize, key: usize) {
        let value = self.board.new_value();
        let (name, stored) = (self.keys.name(key), self.keys.stored(key, value));
        self.perform(node, key, Kind::Write(value), &["SET", &name, &stored]);
    }

    /// Removes a key.
    pub(crate) fn delete(&mut self, node: usize, key: usize) {
        let name = self.keys.name(key);
        let number = self.board.new_value();
        self.perform(node, key, Kind::Delete(number), &["DEL", &name]);
    }

    /// Reads a key.
    pub(crate) fn read(&mut self, node: usize, key: usize) {
        let name = self.keys.name(key);
        self.perform(node, key, Kind::Read(None), &["GET", &name]);
    }

    /// Reads all keys of a node together; `None` if it does not answer for all of them.
    pub(crate) fn read_all(&mut self, node: usize) -> Option<Vec<Option<Value>>> {
        let names: Vec<String> = (0..self.keys.count())
            .map(|key| self.keys.name(key))
            .collect();
        let words: Vec<[&str; 2]> = names.iter().map(|name| ["GET", name.as_str()]).collect();
        let commands: Vec<&[&str]> = words.iter().map(<[&str; 2]>::as_slice).collect();
        let start = self.board.now();
        let (life, replies) = self.call_all(node, &commands).ok()?;
        let end = self.board.now();
        let mut values = Vec::new();
        for (key, reply) in replies.into_iter().enumerate() {
            let read = self.understand(node, key, Kind::Read(None), reply);
            let Ok(kind @ Kind::Read(value)) = read else {
                return None;
            };
            values.push(value);
            self.ops.push(Op {
                start,
                end,
                node,
                life,
                key,
                kind,
                ok: true,
            });
        }
        Some(values)
    }

    /// Whether the node says that it is ready and knows all its peers.
    pub(crate) fn is_ready(&mut self, node: usize) -> bool {
        let answer = self.call(node, &["INFO", "replication"]);
        let peers = format!("nearcache_peers:{}", self.board.nodes() - 1);
        match answer {
            Ok((_, Reply::Bulk(Some(text)))) => {
                let text = String::from_utf8_lossy(&text).into_owned();
                let says = |line: &str| text.lines().any(|found| found == line);
                says("nearcache_ready:1") && says(&peers)
            }
            _ => false,
        }
    }

    fn perform(&mut self, node: usize, key: usize, kind: Kind, words: &[&str]) {
        if self
            .alone_until
            .get(node)
            .is_some_and(|until| Instant::now() < *until)
        {
            return;
        }
        let start = self.board.now();
        let answer = self.call(node, words);
        let end = self.board.now();
        let (life, outcome) = match answer {
            Ok((life, reply)) => (life, self.understand(node, key, kind, reply)),
            Err(error) => (self.board.life(node), Err(format!("{error:#}"))),
        };
        let ok = outcome.is_ok();
        let kind = match outcome {
            Ok(kind) => kind,
            Err(why) => {
                *self.failures.entry(why).or_default() += 1;
                if let Some(until) = self.alone_until.get_mut(node) {
                    *until = Instant::now() + LEFT_ALONE;
                }
                kind
            }
        };
        self.ops.push(Op {
            start,
            end,
            node,
            life,
            key,
            kind,
            ok,
        });
    }

    fn understand(
        &mut self,
        node: usize,
        key: usize,
        kind: Kind,
        reply: Reply,
    ) -> Result<Kind, String> {
        match (kind, reply) {
            (Kind::Read(_), Reply::Bulk(None)) => Ok(Kind::Read(None)),
            (Kind::Read(_), Reply::Bulk(Some(bytes))) => match self.keys.value(key, &bytes) {
                Some(value) => Ok(Kind::Read(Some(value))),
                None => {
                    self.cross_talk.push(format!(
                        "node {node} answered a read of key {key} with something else"
                    ));
                    Err("an answer for another key".to_owned())
                }
            },
            (Kind::Write(_), Reply::Simple(_)) | (Kind::Delete(_), Reply::Integer(_)) => Ok(kind),
            (_, Reply::Error(text)) => Err(text),
            (_, other) => Err(format!("unexpected answer {other:?}")),
        }
    }

    fn call(&mut self, node: usize, words: &[&str]) -> anyhow::Result<(usize, Reply)> {
        let (life, mut replies) = self.call_all(node, &[words])?;
        Ok((life, replies.pop().context("no answer")?))
    }

    /// Asks all of `commands` together, over the connection of the node's present life. After a failure the
    /// connection is closed.
    fn call_all(
        &mut self,
        node: usize,
        commands: &[&[&str]],
    ) -> anyhow::Result<(usize, Vec<Reply>)> {
        let (address, link) = match (self.board.addresses.get(node), self.links.get_mut(node)) {
            (Some(address), Some(link)) => (*address, link),
            _ => anyhow::bail!("no node {node}"),
        };
        let (life, mut connection) = match link.take() {
            Some(open) => open,
            None => {
                let life = self.board.life(node);
                let connection = Connection::open(address, &self.board.token)?;
                // The process that answered is of this life only if no other began meanwhile.
                anyhow::ensure!(self.board.life(node) == life, "the node was just restarted");
                (life, connection)
            }
        };
        let replies = connection.call(commands)?;
        *link = Some((life, connection));
        Ok((life, replies))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c6_a_value_of_another_key_is_not_taken_for_this_ones() {
        let keys = Keys { round: 3, nodes: 3 };
        let stored = keys.stored(5, 77);
        assert_eq!(keys.value(5, stored.as_bytes()), Some(77));
        assert_eq!(keys.value(6, stored.as_bytes()), None);
        assert_eq!(Keys { round: 4, ..keys }.value(5, stored.as_bytes()), None);
    }
}
