//! One client of one cache: reads, writes and removes, and records what it saw.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use super::ages::Names;
use super::board::Board;
use super::keys::{Keys, PINNED, SHARED};
use super::record::Record;
use crate::chance::Chance;
use crate::history::{Kind, Op, Outcome, Value};
use crate::resp::{self, Connection, Reply};

/// Pause of a client after each operation. Judging a history costs the square of what was done to a key.
const PAUSE: Duration = Duration::from_millis(20);
/// How long a client leaves a node alone that did not answer.
const LEFT_ALONE: Duration = Duration::from_millis(150);

/// What was answered beside some reads, and when.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) life: usize,
    pub(super) replies: Vec<Reply>,
}

/// One client: at most one connection to each node.
#[derive(Debug)]
pub(crate) struct Client<'a> {
    pub(super) board: &'a Board,
    pub(super) keys: Keys,
    pub(super) record: &'a Record,
    patience: Duration,
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
    pub(crate) fn new(board: &'a Board, keys: Keys, record: &'a Record) -> Self {
        Self {
            board,
            keys,
            record,
            patience: resp::PATIENCE,
            links: board.addresses.iter().map(|_| None).collect(),
            alone_until: board.addresses.iter().map(|_| Instant::now()).collect(),
            ops: Vec::new(),
            failures: BTreeMap::new(),
            cross_talk: Vec::new(),
        }
    }

    /// The same, which waits so long for answers: a node that was stopped answers when it goes on.
    pub(super) fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Reads, writes and removes as `seed` says, until the round is over. `number` of `count` clients.
    pub(crate) fn work(&mut self, number: usize, count: usize, seed: u64) {
        let mut chance = Chance::new(seed ^ (number as u64) << 32);
        let pinned = self.keys.pinned();
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

    /// Writes a value that is new. In mode `invalidation` the record has it first.
    pub(crate) fn write(&mut self, node: usize, key: usize) {
        if self.leaves_alone(node) {
            return;
        }
        let value = self.board.new_value();
        self.record.change(key, value);
        let (name, stored) = (self.keys.name(key), self.keys.stored(key, value));
        // Who writes a copy says which value is the newest. Where several write, only the record knows: they invalidate.
        if self.keys.cache.is_copies() && key >= self.keys.pinned() {
            self.perform(node, key, Kind::Write(value), &["DEL", &name]);
        } else {
            self.perform(node, key, Kind::Write(value), &["SET", &name, &stored]);
        }
    }

    /// Removes a key. In mode `invalidation` the record has another value then, and its copies are to go.
    pub(crate) fn delete(&mut self, node: usize, key: usize) {
        if self.leaves_alone(node) {
            return;
        }
        let name = self.keys.name(key);
        let number = self.board.new_value();
        let kind = if self.keys.cache.is_copies() {
            self.record.change(key, number);
            Kind::Write(number)
        } else {
            Kind::Delete(number)
        };
        self.perform(node, key, kind, &["DEL", &name]);
    }

    /// Reads a key.
    pub(crate) fn read(&mut self, node: usize, key: usize) {
        if self.keys.cache.is_copies() {
            return self.read_copy(node, key);
        }
        let name = self.keys.name(key);
        self.perform(node, key, Kind::Read(None), &["GET", &name]);
    }

    /// Reads all keys of a node together; `None` if it does not answer for all of them.
    pub(crate) fn read_all(&mut self, node: usize) -> Option<Vec<Option<Value>>> {
        self.read_some(node, 0..self.keys.count(), &[])
            .map(|(_, values)| values)
    }

    /// Asks `first` and then reads these keys, in one go. The operations have the times of all together.
    pub(super) fn read_some(
        &mut self,
        node: usize,
        keys: std::ops::Range<usize>,
        first: &[&[&str]],
    ) -> Option<(Asked, Vec<Option<Value>>)> {
        let copies = self.keys.cache.is_copies();
        let word = if copies { "NC.GETFILL" } else { "GET" };
        let names: Vec<String> = keys.clone().map(|key| self.keys.name(key)).collect();
        let words: Vec<[&str; 2]> = names.iter().map(|name| [word, name.as_str()]).collect();
        let reads = words.iter().map(<[&str; 2]>::as_slice);
        let commands: Vec<&[&str]> = first.iter().copied().chain(reads).collect();
        let start = self.board.now();
        let (life, mut replies) = self.call_all(node, &commands).ok()?;
        let end = self.board.now();
        let read = replies.split_off(first.len().min(replies.len()));
        let asked = Asked {
            start,
            end,
            life,
            replies,
        };
        let mut values = Vec::new();
        for (key, reply) in keys.zip(read) {
            let value = match (copies, reply) {
                (true, reply) => match self.understand_copy(node, key, reply).ok()? {
                    Ok(value) => Some(value),
                    Err(token) => {
                        self.fill(node, key, &token, start);
                        values.push(None);
                        continue;
                    }
                },
                (false, reply) => match self.understand(node, key, Kind::Read(None), reply) {
                    Ok(Kind::Read(value)) => value,
                    _ => return None,
                },
            };
            values.push(value);
            self.ops.push(Op {
                start,
                end,
                node,
                life,
                key,
                kind: Kind::Read(value),
                outcome: Outcome::Done,
            });
        }
        Some((asked, values))
    }

    /// The keys that it works with.
    pub(crate) fn keys(&self) -> Keys {
        self.keys
    }

    /// Each node's id, with the node's number.
    ///
    /// # Errors
    /// When a node does not say.
    pub(crate) fn names(&mut self) -> anyhow::Result<Names> {
        let mut names = Names::new();
        for node in 0..self.board.nodes() {
            let (_, reply) = self.call(node, &["INFO", "server"])?;
            let Reply::Bulk(Some(text)) = reply else {
                anyhow::bail!("INFO: {reply:?}");
            };
            let text = String::from_utf8_lossy(&text).into_owned();
            let id = text
                .lines()
                .find_map(|line| line.strip_prefix("nearcache_node_id:"));
            names.insert(id.context("INFO tells no node id")?.to_owned(), node);
        }
        Ok(names)
    }

    /// Records a read with others that were asked together; `None` if it failed.
    pub(super) fn note_read(
        &mut self,
        node: usize,
        key: usize,
        asked: &Asked,
        reply: Reply,
    ) -> Option<()> {
        let kind = self.understand(node, key, Kind::Read(None), reply).ok()?;
        self.ops.push(Op {
            start: asked.start,
            end: asked.end,
            node,
            life: asked.life,
            key,
            kind,
            outcome: Outcome::Done,
        });
        Some(())
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

    /// Whether the node is left alone for a while, because it did not answer.
    pub(super) fn leaves_alone(&self, node: usize) -> bool {
        let until = self.alone_until.get(node);
        until.is_some_and(|until| Instant::now() < *until)
    }

    pub(super) fn perform(&mut self, node: usize, key: usize, kind: Kind, words: &[&str]) {
        if self.leaves_alone(node) {
            return;
        }
        let start = self.board.now();
        let answer = self.call(node, words);
        let (life, outcome) = match answer {
            Ok((life, reply)) => (life, self.understand(node, key, kind, reply)),
            Err(error) => (self.board.life(node), Err(format!("{error:#}"))),
        };
        self.note(node, life, key, kind, start, outcome);
    }

    /// Records an operation that has just ended, and why it failed if it did.
    pub(super) fn note(
        &mut self,
        node: usize,
        life: usize,
        key: usize,
        kind: Kind,
        start: u64,
        ended: Result<Kind, String>,
    ) {
        let end = self.board.now();
        let (kind, outcome) = match ended {
            Ok(kind) => (kind, Outcome::Done),
            Err(why) => {
                let refused = why.starts_with(resp::READ_ONLY);
                *self.failures.entry(why).or_default() += 1;
                if !refused && let Some(until) = self.alone_until.get_mut(node) {
                    *until = Instant::now() + LEFT_ALONE;
                }
                let outcome = if refused {
                    Outcome::Refused
                } else {
                    Outcome::Unknown
                };
                (kind, outcome)
            }
        };
        self.ops.push(Op {
            start,
            end,
            node,
            life,
            key,
            kind,
            outcome,
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
                None => Err(self.crossed(node, key)),
            },
            (Kind::Write(_), Reply::Simple(_) | Reply::Integer(_))
            | (Kind::Delete(_), Reply::Integer(_)) => Ok(kind),
            (_, Reply::Error(text)) => Err(text),
            (_, other) => Err(format!("unexpected answer {other:?}")),
        }
    }

    /// Notes an answer that was meant for another.
    pub(super) fn crossed(&mut self, node: usize, key: usize) -> String {
        self.cross_talk.push(format!(
            "node {node} answered a read of key {key} with something else"
        ));
        "an answer for another key".to_owned()
    }

    pub(super) fn call(&mut self, node: usize, words: &[&str]) -> anyhow::Result<(usize, Reply)> {
        let (life, mut replies) = self.call_all(node, &[words])?;
        Ok((life, replies.pop().context("no answer")?))
    }

    /// Asks all of `commands` together, over the connection of the node's present life. After a failure the
    /// connection is closed.
    pub(super) fn call_all(
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
                let connection =
                    Connection::open(address, &self.board.token, self.keys.cache, self.patience)?;
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
