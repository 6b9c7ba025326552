//! For tests: a value that is plain bytes, and small clusters in memory whose messages pass through the wire format.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use nearcache_store::{
    Change, CoarseClock, Expiry, Handle, Merged, NodeId, Scope, Store, StoreConfig, Tags, Weigh,
};

use crate::clock::Hlc;
use crate::config::ReplicationConfig;
use crate::core::CacheCore;
use crate::frame::{FrameDecoder, FrameLimit};
use crate::ids::{CacheId, Epoch, WaiterId};
use crate::lane::Lane;
use crate::load::fence::Fence;
use crate::load::lease::Turn;
use crate::machine::Machine as _;
use crate::message::CacheMessage;
use crate::mode::{Ack, Event, Outcome, Output, Published, Waiter};
use crate::modify::ModifyOp;
use crate::payload::{CodecTag, Payload};
use crate::rendezvous::PlacementKey;
use crate::time::Time;
use crate::wire;

pub(crate) const WALL_MS: u64 = 1_700_000_000_000;

/// A value that is plain bytes.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Text(pub(crate) CodecTag, pub(crate) Vec<u8>);

impl Text {
    pub(crate) fn new(text: &str) -> Self {
        Self(CodecTag::default(), text.as_bytes().to_vec())
    }
}

impl Weigh for Text {
    fn weight(&self) -> usize {
        self.1.len()
    }
}

thread_local! {
    /// How often anybody has looked at the bytes of a value.
    pub(crate) static LOOKED_AT: Cell<u64> = const { Cell::new(0) };
}

impl Payload for Text {
    fn bytes(&self) -> &[u8] {
        LOOKED_AT.with(|looked| looked.set(looked.get() + 1));
        &self.1
    }

    fn codec(&self) -> CodecTag {
        self.0
    }

    fn from_wire(codec: CodecTag, bytes: &[u8]) -> Self {
        Self(codec, bytes.to_vec())
    }
}

pub(crate) fn store() -> Arc<Store<Text>> {
    store_with(64 << 20, Duration::from_secs(24 * 60 * 60))
}

/// A store that evicts beyond `max_bytes`.
pub(crate) fn store_of(max_bytes: u64) -> Arc<Store<Text>> {
    store_with(max_bytes, Duration::from_secs(24 * 60 * 60))
}

fn store_with(max_bytes: u64, tombstone_ttl: Duration) -> Arc<Store<Text>> {
    let mut config = StoreConfig::new(max_bytes);
    config.tombstone_ttl = tombstone_ttl;
    config.digest_key = Some([7; 16]);
    config.shards = std::num::NonZeroUsize::new(1);
    Arc::new(Store::new(config, CoarseClock::new(WALL_MS)).unwrap())
}

/// An entry that is in no store.
pub(crate) fn entry(key: &str, ms: u64, text: &str) -> Handle<Text> {
    let version = nearcache_store::Version::new(
        nearcache_store::Timestamp::from_parts(WALL_MS + ms, 0),
        NodeId::from_u64(1),
    );
    Handle::detached(
        key.as_bytes(),
        version,
        Expiry::NEVER,
        Tags::NONE,
        Text::new(text),
    )
}

/// A message as the peer gets it.
pub(crate) fn through_wire(message: &CacheMessage<Text>) -> CacheMessage<Text> {
    through_wire_measured(message).0
}

/// The same, and the bytes of its frame.
fn through_wire_measured(message: &CacheMessage<Text>) -> (CacheMessage<Text>, usize) {
    let mut buffer = BytesMut::new();
    wire::encode(
        CacheId::from_u64(7),
        message,
        FrameLimit::DEFAULT,
        &mut buffer,
    )
    .unwrap();
    let mut decoder = FrameDecoder::new(FrameLimit::DEFAULT);
    decoder.extend(&buffer);
    let frame = decoder.next_frame().unwrap().unwrap();
    assert_eq!(wire::cache_id(&frame), Ok(CacheId::from_u64(7)));
    (wire::decode(&frame).unwrap(), buffer.len())
}

pub(crate) struct TestNode {
    pub(crate) core: CacheCore<Text>,
    pub(crate) events: Vec<Event>,
    pub(crate) results: BTreeMap<u64, Outcome<Text>>,
    pub(crate) became_ready: usize,
    epoch: Epoch,
}

/// Nodes `1..=n` with connections that keep order and lose nothing, unless cut.
pub(crate) struct Cluster {
    pub(crate) now: Time,
    pub(crate) nodes: BTreeMap<u64, TestNode>,
    links: BTreeSet<(u64, u64)>,
    /// Sessions that were asked for: who with whom.
    pub(crate) meets: BTreeSet<(u64, u64)>,
    pub(crate) queue: VecDeque<(u64, u64, CacheMessage<Text>)>,
    /// What goes over no session, and how often each pair had something to say there.
    short: VecDeque<(u64, u64, CacheMessage<Text>)>,
    pub(crate) reached: BTreeMap<(u64, u64), u64>,
    /// Members that cannot be reached over short-lived connections.
    pub(crate) unreachable: BTreeSet<u64>,
    /// Messages with these names are dropped on their way to this node.
    pub(crate) drops: BTreeSet<(u64, &'static str)>,
    /// Nothing that the first says arrives at the second.
    pub(crate) mute: BTreeSet<(u64, u64)>,
    /// How many messages of each name were delivered, and their bytes.
    pub(crate) carried: BTreeMap<&'static str, (u64, usize)>,
    /// Messages with these names are overtaken by all others on their way to this node: they arrive after the rest.
    pub(crate) delays: BTreeSet<(u64, &'static str)>,
    /// What the first says takes so long to the second.
    pub(crate) slow: BTreeMap<(u64, u64), Duration>,
    /// Each piece of a long value takes so long on its way from the first to the second, one after the other.
    pub(crate) piece_takes: BTreeMap<(u64, u64), Duration>,
    /// When the last of them is there.
    busy_until: BTreeMap<(u64, u64), Time>,
    /// What arrives later, in the order of sending.
    later: Vec<(Time, u64, u64, CacheMessage<Text>)>,
    config: ReplicationConfig,
    next_waiter: u64,
    next_epoch: u64,
}

impl Cluster {
    pub(crate) fn new(config: ReplicationConfig) -> Self {
        Self {
            now: Time::ZERO,
            nodes: BTreeMap::new(),
            links: BTreeSet::new(),
            meets: BTreeSet::new(),
            queue: VecDeque::new(),
            short: VecDeque::new(),
            reached: BTreeMap::new(),
            unreachable: BTreeSet::new(),
            drops: BTreeSet::new(),
            mute: BTreeSet::new(),
            carried: BTreeMap::new(),
            delays: BTreeSet::new(),
            slow: BTreeMap::new(),
            piece_takes: BTreeMap::new(),
            busy_until: BTreeMap::new(),
            later: Vec::new(),
            config,
            next_waiter: 0,
            next_epoch: 0,
        }
    }

    /// `n` nodes, connected and ready.
    pub(crate) fn ready(n: u64, config: ReplicationConfig) -> Self {
        let mut cluster = Self::new(config);
        for id in 1..=n {
            cluster.start(id);
            cluster.connect_all(id);
        }
        cluster.run(Duration::from_secs(5));
        assert!(cluster.nodes.values().all(|node| node.core.is_ready()));
        cluster
    }

    pub(crate) fn start(&mut self, id: u64) {
        let config = self.config.clone();
        self.start_with(id, config);
    }

    pub(crate) fn start_with(&mut self, id: u64, config: ReplicationConfig) {
        self.start_at(id, config, WALL_MS, None);
    }

    /// Starts a node whose store may hold something already.
    pub(crate) fn start_on(&mut self, id: u64, config: ReplicationConfig, store: Arc<Store<Text>>) {
        self.start_at(id, config, WALL_MS, Some(store));
    }

    /// A node whose wall clock is ahead of all others.
    pub(crate) fn start_ahead(&mut self, id: u64, by: Duration) {
        let config = self.config.clone();
        let wall_ms = WALL_MS + u64::try_from(by.as_millis()).unwrap();
        self.start_at(id, config, wall_ms, None);
    }

    fn start_at(
        &mut self,
        id: u64,
        config: ReplicationConfig,
        wall_ms: u64,
        store: Option<Arc<Store<Text>>>,
    ) {
        self.next_epoch += 1;
        let epoch = Epoch::from_u64(WALL_MS + self.next_epoch);
        let clock = Arc::new(Hlc::new(
            NodeId::from_u64(id),
            wall_ms,
            Hlc::DEFAULT_MAX_DRIFT,
        ));
        let placement = PlacementKey::of_cluster("test");
        let ttl = Duration::from_millis(config.agreement.tombstone_ttl_ms);
        let store = store.unwrap_or_else(|| store_with(64 << 20, ttl));
        let core = CacheCore::new(self.now, store, clock, epoch, placement, config);
        let node = TestNode {
            core,
            events: Vec::new(),
            results: BTreeMap::new(),
            became_ready: 0,
            epoch,
        };
        self.nodes.insert(id, node);
    }

    pub(crate) fn epoch(&self, id: u64) -> Epoch {
        self.nodes[&id].epoch
    }

    pub(crate) fn connect_all(&mut self, id: u64) {
        let others: Vec<u64> = self
            .nodes
            .keys()
            .copied()
            .filter(|other| *other != id)
            .collect();
        for other in others {
            self.connect(id, other);
        }
    }

    pub(crate) fn connect(&mut self, a: u64, b: u64) {
        for (from, to) in [(a, b), (b, a)] {
            if self.links.insert((from, to)) {
                let epoch = self.nodes[&to].epoch;
                self.act(from, |node, now, out| {
                    node.core.peer_up(now, NodeId::from_u64(to), epoch, out);
                });
            }
        }
    }

    /// `n` nodes, ready; each is connected to its links in the tree only, and knows of all others.
    pub(crate) fn tree(n: u64, config: ReplicationConfig) -> Self {
        let mut cluster = Self::new(config);
        for id in 1..=n {
            cluster.start(id);
        }
        cluster.link_tree();
        cluster.run(Duration::from_secs(10));
        assert!(cluster.nodes.values().all(|node| node.core.is_ready()));
        cluster
    }

    /// Connects whom the tree wants connected, and tells everybody of everybody.
    pub(crate) fn link_tree(&mut self) {
        let ids: Vec<u64> = self.nodes.keys().copied().collect();
        let members = || ids.iter().map(|id| NodeId::from_u64(*id));
        for id in &ids {
            for other in members().filter(|other| other.as_u64() != *id) {
                let epoch = self.nodes[&other.as_u64()].epoch;
                self.act(*id, |node, now, _| node.core.member_up(now, other, epoch));
            }
        }
        for id in &ids {
            for link in crate::overlay::links(NodeId::from_u64(*id), members()) {
                self.connect(*id, link.as_u64());
            }
        }
    }

    /// Connects all that asked for it.
    pub(crate) fn meet(&mut self) {
        for (a, b) in std::mem::take(&mut self.meets) {
            if !self.is_connected(a, b) {
                self.connect(a, b);
            }
        }
    }

    pub(crate) fn is_connected(&self, a: u64, b: u64) -> bool {
        self.links.contains(&(a, b))
    }

    pub(crate) fn cut(&mut self, a: u64, b: u64) {
        self.queue.retain(
            |(from, to, _)| !matches!((*from, *to), pair if pair == (a, b) || pair == (b, a)),
        );
        self.later.retain(
            |(_, from, to, _)| !matches!((*from, *to), pair if pair == (a, b) || pair == (b, a)),
        );
        for (from, to) in [(a, b), (b, a)] {
            if self.links.remove(&(from, to)) && self.nodes.contains_key(&from) {
                self.act(from, |node, now, out| {
                    node.core.peer_down(now, NodeId::from_u64(to), out);
                });
            }
        }
    }

    /// The node is gone, with all it held.
    pub(crate) fn crash(&mut self, id: u64) {
        self.nodes.remove(&id);
        let others: Vec<u64> = self.nodes.keys().copied().collect();
        for other in others {
            self.cut(other, id);
        }
    }

    /// Runs `act` on a node and carries out what it asks for.
    pub(crate) fn act<R>(
        &mut self,
        id: u64,
        act: impl FnOnce(&mut TestNode, Time, &mut Vec<Output<Text>>) -> R,
    ) -> R {
        let mut out = Vec::new();
        let node = self.nodes.get_mut(&id).unwrap();
        let result = act(node, self.now, &mut out);
        for output in out {
            match output {
                Output::Send { to, message } => self.queue.push_back((id, to.as_u64(), message)),
                Output::Transmit { peer, lane } => self.pull(id, peer.as_u64(), lane),
                Output::Meet(peer) => {
                    self.meets.insert((id, peer.as_u64()));
                }
                Output::Reach { to, message } => {
                    *self.reached.entry((id, to.as_u64())).or_default() += 1;
                    if self.unreachable.contains(&to.as_u64()) {
                        self.nodes.get_mut(&id).unwrap().core.unreached(to);
                    } else {
                        self.short.push_back((id, to.as_u64(), message));
                    }
                }
                Output::Done { waiter, result } => {
                    let node = self.nodes.get_mut(&id).unwrap();
                    assert!(
                        node.results.insert(waiter.0, result).is_none(),
                        "told twice"
                    );
                }
                Output::Ready => self.nodes.get_mut(&id).unwrap().became_ready += 1,
                Output::Event(event) => self.nodes.get_mut(&id).unwrap().events.push(event),
            }
        }
        result
    }

    fn pull(&mut self, id: u64, to: u64, lane: Lane) {
        let node = self.nodes.get_mut(&id).unwrap();
        let mut out = Vec::new();
        let peer = NodeId::from_u64(to);
        while let Some(message) = node
            .core
            .poll_transmit(self.now, peer, lane, 16 << 10, &mut out)
        {
            assert_eq!(message.lane(), lane);
            self.queue.push_back((id, to, message));
        }
        assert!(out.is_empty());
    }

    /// What was slow and is there now, in order.
    fn arrived(&mut self) -> VecDeque<(u64, u64, CacheMessage<Text>)> {
        let now = self.now;
        let mut arrived: Vec<_> = self.later.extract_if(.., |(at, ..)| *at <= now).collect();
        arrived.sort_by_key(|(at, ..)| *at);
        let message = |(_, from, to, message)| (from, to, message);
        arrived.into_iter().map(message).collect()
    }

    /// When a message that is sent now arrives, if that is later.
    fn due_at(&mut self, from: u64, to: u64, name: &str) -> Option<Time> {
        let delay = self.slow.get(&(from, to)).copied().unwrap_or_default();
        let takes = self.piece_takes.get(&(from, to));
        let takes = takes.filter(|_| name == "fetch-piece").copied();
        let mut at = self.now + delay;
        if let Some(takes) = takes {
            let busy = self.busy_until.entry((from, to)).or_insert(self.now);
            *busy = (*busy).max(self.now) + takes;
            at = *busy + delay;
        }
        (at > self.now).then_some(at)
    }

    /// Delivers everything that is on its way, and what comes of it.
    pub(crate) fn deliver(&mut self) {
        let (mut delivered, mut late) = (0, VecDeque::new());
        let mut arrived = self.arrived();
        loop {
            let is_due = !arrived.is_empty();
            let next = arrived.pop_front().or_else(|| self.queue.pop_front());
            let Some((from, to, message)) = next.or_else(|| late.pop_front()) else {
                break;
            };
            if !is_due && let Some(at) = self.due_at(from, to, message.name()) {
                self.later.push((at, from, to, message));
                continue;
            }
            if self.delays.contains(&(to, message.name())) && !self.queue.is_empty() {
                late.push_back((from, to, message));
                continue;
            }
            delivered += 1;
            assert!(delivered < 1_000_000, "messages never end");
            let is_lost = self.drops.contains(&(to, message.name()));
            if is_lost || self.mute.contains(&(from, to)) || !self.links.contains(&(from, to)) {
                continue;
            }
            let (message, bytes) = through_wire_measured(&message);
            let carried = self.carried.entry(message.name()).or_default();
            *carried = (carried.0 + 1, carried.1 + bytes);
            self.act(to, |node, now, out| {
                node.core.handle(now, NodeId::from_u64(from), message, out);
            });
        }
        while let Some((from, to, message)) = self.short.pop_front() {
            assert!(matches!(message, CacheMessage::Probe { .. }), "{message:?}");
            if !self.nodes.contains_key(&to) || self.drops.contains(&(to, message.name())) {
                continue;
            }
            let message = through_wire(&message);
            self.act(to, |node, now, out| {
                node.core.handle(now, NodeId::from_u64(from), message, out);
            });
        }
    }

    /// Lets time pass in steps of 10 ms.
    pub(crate) fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            self.deliver();
            let ids: Vec<u64> = self.nodes.keys().copied().collect();
            for id in ids {
                self.act(id, |node, now, out| {
                    node.core
                        .store()
                        .clock()
                        .set(node.core.clock().physical_ms(now));
                    node.core.store().tick(64);
                    if now >= node.core.next_tick() {
                        node.core.tick(now, out);
                    }
                });
            }
            self.deliver();
            if self.now >= end {
                return;
            }
            self.now += Duration::from_millis(10);
        }
    }

    pub(crate) fn put(&mut self, id: u64, key: &str, text: &str) -> u64 {
        self.put_acked(id, key, text, Ack::Local)
    }

    /// Puts, and returns the waiter's number.
    pub(crate) fn put_acked(&mut self, id: u64, key: &str, text: &str, ack: Ack) -> u64 {
        let (key, value) = (key.to_owned(), Text::new(text));
        let waiter = self.waiter(Duration::from_secs(2));
        self.act(id, |node, now, out| {
            let version = node.core.clock().stamp(now).unwrap();
            let change = Change::Put {
                value,
                expiry: Expiry::NEVER,
                tags: Tags::NONE,
            };
            let Merged::Applied {
                entry: Some(entry), ..
            } = node
                .core
                .store()
                .merge(key.as_bytes(), version, change)
                .unwrap()
            else {
                panic!("own write was not applied");
            };
            node.core
                .publish(now, Published::Entry(entry), ack, Some(waiter), out);
        });
        waiter.id.0
    }

    pub(crate) fn remove(&mut self, id: u64, key: &str) {
        let key = Bytes::copy_from_slice(key.as_bytes());
        self.act(id, |node, now, out| {
            let version = node.core.clock().stamp(now).unwrap();
            let _ = node
                .core
                .store()
                .merge(&key, version, Change::Remove)
                .unwrap();
            node.core.publish(
                now,
                Published::Removal { key, version },
                Ack::Local,
                None,
                out,
            );
        });
    }

    pub(crate) fn invalidate(&mut self, id: u64, scope: Scope) {
        self.act(id, |node, now, out| {
            let version = node.core.clock().stamp(now).unwrap();
            node.core.store().invalidate(scope.clone(), version);
            node.core.publish(
                now,
                Published::Floor { scope, version },
                Ack::Local,
                None,
                out,
            );
        });
    }

    pub(crate) fn modify(&mut self, id: u64, key: &str, op: ModifyOp<Text>) -> u64 {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let waiter = self.waiter(Duration::from_secs(2));
        self.act(id, |node, now, out| {
            node.core.modify(now, key, op, waiter, out)
        });
        waiter.id.0
    }

    /// Asks who is to load a key; returns the waiter's number.
    pub(crate) fn begin_load(&mut self, id: u64, key: &str) -> u64 {
        let key = Bytes::copy_from_slice(key.as_bytes());
        let waiter = self.waiter(Duration::from_secs(5));
        self.act(id, |node, now, out| {
            let lease_for = Duration::from_secs(10);
            node.core.begin_load(now, key, lease_for, waiter, out);
        });
        waiter.id.0
    }

    /// Ends a load whose turn this waiter was told, with a value to keep or without.
    pub(crate) fn end_load(&mut self, id: u64, waiter: u64, key: &str, text: Option<&str>) {
        let turn = self.nodes[&id].results.get(&waiter);
        let Some(Outcome::Turn(Turn::Yours(lease))) = turn else {
            panic!("it is not its turn: {turn:?}")
        };
        let lease = lease.clone();
        self.act(id, |node, now, out| {
            let (store, clock) = (node.core.store().clone(), node.core.clock().clone());
            let entry = text.map(|text| {
                let bound = node.core.clock_bound(now);
                let fence = Fence::begin(&store, &clock, now, bound, key.as_bytes());
                let content = (Text::new(text), Expiry::NEVER, Tags::NONE);
                let entry = fence.entry(&store, key.as_bytes(), content, &clock, now);
                assert!(fence.keep(&store, &entry).unwrap());
                let published = Published::Fill(entry.clone());
                node.core.publish(now, published, Ack::Local, None, out);
                entry
            });
            if let Some(lease) = lease {
                node.core.end_load(now, lease, entry.as_ref(), out);
            }
        });
    }

    pub(crate) fn waiter(&mut self, wait: Duration) -> Waiter {
        self.next_waiter += 1;
        Waiter {
            id: WaiterId(self.next_waiter),
            deadline: self.now + wait,
        }
    }

    pub(crate) fn read(&self, id: u64, key: &str) -> Option<String> {
        let entry = self.nodes[&id].core.store().peek(key.as_bytes())?;
        Some(String::from_utf8(entry.value().1.clone()).unwrap())
    }

    /// What every node holds under the key.
    pub(crate) fn read_all(&self, key: &str) -> Vec<Option<String>> {
        self.nodes.keys().map(|id| self.read(*id, key)).collect()
    }
}
