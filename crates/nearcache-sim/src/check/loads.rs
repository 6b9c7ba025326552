//! C1, C4, C8, I7 and the limit of stale copies, on loads.
//!
//! The system of record is simulated beside the cluster: per key a generation, which every write raises before it tells the cache in
//! one way or another. Each loaded value says which load brought it; what that load read, and when, is known here.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nearcache_protocol::payload::Payload as _;
use nearcache_protocol::time::Time;
use nearcache_store::{Handle, NodeId, Version};

use super::Broken;
use crate::node::Node;
use crate::plan::{KEYS, key};
use crate::value::Value;

/// How much later than its deadline a caller may be answered (K6).
const SLACK: Duration = Duration::from_millis(100);

/// One change of the system of record, and the invalidation that told of it.
#[derive(Debug, Clone, Copy)]
struct Write {
    generation: u64,
    by: NodeId,
    version: Version,
}

/// One call of a loader.
#[derive(Debug, Clone)]
struct Load {
    key: usize,
    /// What it read.
    generation: u64,
    /// Whether that was older than what its node had seen: whoever waits gets it all the same, and nobody else.
    lags: bool,
    /// Whose clocks its node knew to allow for when it began.
    knows: BTreeSet<NodeId>,
}

/// A caller who waits.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Get {
    host: usize,
    key: usize,
    /// The generation that it must get at least: its node knew that older ones are invalid.
    must: u64,
    /// The same by an invalidation of a group, by whom: not to be expected of a load on a node that did not know his clock.
    must_by: Option<(u64, NodeId)>,
    /// Since when it waits, and how long it may.
    since: Time,
    within: Duration,
}

/// What is known of loads.
#[derive(Debug, Default)]
pub(crate) struct Loads {
    /// By key: how often the system of record was written.
    generations: BTreeMap<usize, u64>,
    writes: BTreeMap<usize, Vec<Write>>,
    loads: Vec<Load>,
    waiting: BTreeMap<u64, Get>,
    gets: u64,
}

impl Loads {
    /// What the system of record holds under a key.
    pub(crate) fn generation(&self, key: usize) -> u64 {
        self.generations.get(&key).copied().unwrap_or(0)
    }

    /// The system of record was written; nobody was told yet.
    pub(crate) fn changed(&mut self, key: usize) {
        *self.generations.entry(key).or_default() += 1;
    }

    /// The cache was told, by `node` with an invalidation of this version, of all that the system of record holds now.
    pub(crate) fn told(&mut self, key: usize, by: NodeId, version: Version) {
        let generation = self.generation(key);
        self.writes.entry(key).or_default().push(Write {
            generation,
            by,
            version,
        });
    }

    /// The system of record was written, and the cache was told by `node` with an invalidation of this version.
    pub(crate) fn write(&mut self, key: usize, by: NodeId, version: Version) {
        self.changed(key);
        self.told(key, by, version);
    }

    /// A loader reads this generation; returns what its value is called.
    pub(crate) fn read(
        &mut self,
        node: &Node,
        own: Time,
        key: usize,
        (generation, lags): (u64, bool),
    ) -> u64 {
        let peers = node.core.freshness(own).per_peer.into_iter();
        let mut knows: BTreeSet<NodeId> = peers.map(|peer| peer.peer).collect();
        knows.extend(node.sessions.keys().copied());
        knows.insert(node.id);
        self.loads.push(Load {
            key,
            generation,
            lags,
            knows,
        });
        self.loads.len() as u64 - 1
    }

    /// The host's node is gone, and with it all who waited there.
    pub(crate) fn forget(&mut self, host: usize) {
        self.waiting.retain(|_, get| get.host != host);
    }

    /// A caller on the node misses; returns its name.
    pub(crate) fn begin(
        &mut self,
        now: Time,
        within: Duration,
        host: usize,
        node: &Node,
        key_number: usize,
    ) -> u64 {
        let known = node.store.known(&key(key_number)).version();
        let writes = || self.writes.get(&key_number).into_iter().flatten();
        let known_of = writes().filter(|write| {
            write.by == node.id && node.has_made(write.version) || write.version == known
        });
        let must = known_of.map(|write| write.generation).max().unwrap_or(0);
        // A group invalidation of somebody else's is known as a floor.
        let holds = node.store.peek(&key(key_number)).is_some();
        let floors: BTreeSet<Version> = if holds {
            BTreeSet::new()
        } else {
            let floors = node.store.floors().into_iter();
            floors.map(|(_, version)| version).collect()
        };
        let covered = writes().filter(|write| floors.contains(&write.version));
        let must_by = covered
            .map(|write| (write.generation, write.by))
            .max_by_key(|(generation, _)| *generation);
        self.gets += 1;
        let get = Get {
            host,
            key: key_number,
            must,
            must_by,
            since: now,
            within: within + SLACK,
        };
        self.waiting.insert(self.gets, get);
        self.gets
    }

    /// The caller's load begins now, and takes so long at most.
    pub(crate) fn flies(&mut self, now: Time, gets: &[u64], within: Duration) {
        for get in gets {
            if let Some(get) = self.waiting.get_mut(get) {
                (get.since, get.within) = (now, within + SLACK);
            }
        }
    }

    /// The caller gets this entry, fresh or stale, or an error.
    pub(crate) fn end(&mut self, get: u64, got: Option<&Handle<Value>>) -> Result<(), Broken> {
        let Some(get) = self.waiting.remove(&get) else {
            return Err(("C8", "a caller is answered twice".to_owned()));
        };
        let Some(load) = got.and_then(|entry| self.load_of(entry)) else {
            return Ok(());
        };
        let by_group = get.must_by.is_some_and(|(generation, by)| {
            load.generation < generation && load.knows.contains(&by)
        });
        if load.key != get.key || !load.lags && (load.generation < get.must || by_group) {
            let what =
                format!("{get:?} gets what {load:?} brought, which its node knew to be invalid");
            return Err(("C1", what));
        }
        Ok(())
    }

    /// C8, K6: everybody on the host, which did not run until `rested`, is answered in time.
    pub(crate) fn overdue(&self, now: Time, host: usize, rested: Time) -> Result<(), Broken> {
        let mut here = self.waiting.values().filter(|get| get.host == host);
        let late = here.find(|get| get.since.max(rested) + get.within < now);
        match late {
            Some(get) => Err(("C8", format!("{get:?} waits for ever"))),
            None => Ok(()),
        }
    }

    fn load_of(&self, entry: &Handle<Value>) -> Option<&Load> {
        let text = std::str::from_utf8(entry.value().bytes()).ok()?;
        let number: usize = text.trim_end_matches('.').parse().ok()?;
        self.loads.get(number)
    }

    /// Nothing that a node holds was read before a write and is newer than its invalidation: it would never go.
    pub(crate) fn check(&self, host: usize, node: &Node) -> Result<(), Broken> {
        for number in 0..KEYS {
            let Some(entry) = node.store.peek(&key(number)) else {
                continue;
            };
            let Some(load) = self.load_of(&entry) else {
                continue;
            };
            let writes = self.writes.get(&number).into_iter().flatten();
            let mut later = writes.filter(|write| write.generation > load.generation);
            let missed = later
                .find(|write| write.version < entry.version() && load.knows.contains(&write.by));
            if let Some(write) = missed {
                let what = format!(
                    "n{host} holds {:?} of key {number}, which {load:?} read before {write:?}",
                    entry.version()
                );
                return Err(("C1", what));
            }
        }
        Ok(())
    }
}
