//! Opening a cache: what can be set, and what is checked.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::time::Duration;

use nearcache_protocol::announce::{ModeKind, SplitPolicy};
use nearcache_protocol::config::OnDisconnect;
use nearcache_protocol::write::former::Former;
use nearcache_store::StoreConfig;
use serde::de::DeserializeOwned;

use super::Cache;
use super::errors::OpenError;
use super::load::LoadPolicy;
use super::shell::{Behind, Settings, Shell, Sinking, Through};
use super::sink::{CellSink, Celled, ErasedSink, Sink, Typed, WriteBehind, WriteThrough};
use crate::codec::{Codec, MessagePack};
use crate::limits::{
    CACHE_BYTES_DEFAULT, FETCH_BYTES_PER_SECOND_DEFAULT, FETCH_BYTES_PER_SECOND_MIN,
    INLINE_LIMIT_DEFAULT, INLINE_LIMIT_MIN, KEY_LEN_DEFAULT, KEY_LEN_MAX, TTL_MAX,
    VALUE_LEN_DEFAULT, VALUE_LEN_MAX, is_name,
};
use crate::node::{NodeGuard, NodeShared};
use crate::persistence::journal::{Disk, Journal, JournalConfig, Unwritten};

/// How long copies may be served after the peers were last heard to the end (reliability I1).
const LINK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(3);
/// How long the dead count.
const DEAD_COUNTS_FOR_DEFAULT: Duration = Duration::from_secs(60);
/// Half of what a link of 1 Gbit/s carries.
const TRANSFER_BYTES_PER_SECOND_DEFAULT: u64 = 64 << 20;
/// The longest time for which stale copies may be served.
const STALE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// The types of a cache, as a marker that is `Send` and `Sync` whatever they are.
type Types<K, V, C> = PhantomData<fn(&K) -> (V, C)>;

/// A user's sink, and how it is called.
type Sunk<V> = (Arc<dyn ErasedSink<V>>, SinkPolicy);

/// When a sink is called.
enum SinkPolicy {
    Through(WriteThrough),
    Behind(WriteBehind),
}

/// Settings of a cache; made by [`Node::cache`](crate::Node::cache), ended by [`open`](Self::open).
///
/// What concerns coherence (mode, codec, time to live, tombstone time, split) must be the same on all
/// nodes and is checked when they meet; bounds are each node's own.
#[must_use = "a cache is opened by .open().await"]
pub struct CacheBuilder<K: ?Sized, V, C = MessagePack> {
    node: Arc<NodeGuard>,
    name: String,
    mode: ModeKind,
    max_bytes: u64,
    max_key_bytes: usize,
    allow_empty_key: bool,
    max_value_bytes: usize,
    inline_limit: usize,
    fetch_bytes_per_second: u64,
    time_to_live: Option<Duration>,
    time_to_idle: Option<Duration>,
    tombstone_ttl: Duration,
    split: SplitPolicy,
    on_disconnect: OnDisconnect,
    link_timeout: Duration,
    dead_counts_for: Duration,
    transfer_bytes_per_second: u64,
    load_policy: LoadPolicy,
    sink: Option<Sunk<V>>,
    types: Types<K, V, C>,
}

impl<K: ?Sized, V, C> fmt::Debug for CacheBuilder<K, V, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("name", &self.name)
            .field("mode", &self.mode)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

impl<K: ?Sized, V> CacheBuilder<K, V> {
    pub(crate) fn new(node: Arc<NodeGuard>, name: String) -> Self {
        Self {
            node,
            name,
            mode: ModeKind::Replicated,
            max_bytes: CACHE_BYTES_DEFAULT,
            max_key_bytes: KEY_LEN_DEFAULT,
            allow_empty_key: false,
            max_value_bytes: VALUE_LEN_DEFAULT,
            inline_limit: INLINE_LIMIT_DEFAULT,
            fetch_bytes_per_second: FETCH_BYTES_PER_SECOND_DEFAULT,
            time_to_live: None,
            time_to_idle: None,
            tombstone_ttl: StoreConfig::new(CACHE_BYTES_DEFAULT).tombstone_ttl,
            split: SplitPolicy::Serve,
            on_disconnect: OnDisconnect::Bypass,
            link_timeout: LINK_TIMEOUT_DEFAULT,
            dead_counts_for: DEAD_COUNTS_FOR_DEFAULT,
            transfer_bytes_per_second: TRANSFER_BYTES_PER_SECOND_DEFAULT,
            load_policy: LoadPolicy::new(),
            sink: None,
            types: PhantomData,
        }
    }
}

impl<K: ?Sized, V, C> CacheBuilder<K, V, C> {
    /// Where entries live and how writes travel. Default: [`ModeKind::Replicated`].
    pub const fn mode(mut self, mode: ModeKind) -> Self {
        self.mode = mode;
        self
    }

    /// The most bytes that entries, their keys and their bookkeeping may take on this node.
    /// Default 64 MiB. Beyond it, the entries least likely to be read again make room.
    pub const fn max_bytes(mut self, max_bytes: u64) -> Self {
        self.max_bytes = max_bytes;
        self
    }

    /// The longest key, in bytes of its canonical encoding. Default 4 KiB, at most 64 KiB.
    pub const fn max_key_bytes(mut self, max_key_bytes: usize) -> Self {
        self.max_key_bytes = max_key_bytes;
        self
    }

    /// Whether the key without bytes is a key like any other, as it is to Redis. Default: it is
    /// refused, because it is nearly always a mistake.
    pub const fn allow_empty_key(mut self, allow: bool) -> Self {
        self.allow_empty_key = allow;
        self
    }

    /// The largest value, in encoded bytes. Default 1 MiB, at most 64 MiB.
    pub const fn max_value_bytes(mut self, max_value_bytes: usize) -> Self {
        self.max_value_bytes = max_value_bytes;
        self
    }

    /// Mode `replicated`: the longest value, in encoded bytes, that is sent to every node when it is written. Of a longer one the
    /// others are told key, version and length only: they drop their older copy at once, and each fetches the value when it is
    /// first read there. Default 64 KiB; 1 KiB to 64 MiB. Each node's own affair: it concerns what is written and held here.
    pub const fn inline_limit(mut self, inline_limit: usize) -> Self {
        self.inline_limit = inline_limit;
        self
    }

    /// Mode `replicated`: the most bytes of long values that this node sends to all its peers together, per second, so that they
    /// leave room for small updates. Default 256 MiB; at least 64 KiB, or 0 for no limit.
    pub const fn fetch_bytes_per_second(mut self, fetch_bytes_per_second: u64) -> Self {
        self.fetch_bytes_per_second = fetch_bytes_per_second;
        self
    }

    /// Time to live of entries whose write names none: more than zero, at most ten years.
    /// Default: they do not expire.
    pub const fn time_to_live(mut self, ttl: Duration) -> Self {
        self.time_to_live = Some(ttl);
        self
    }

    /// Entries that are not read on this node for that long make room here (peers keep theirs).
    /// Default: idleness alone drops nothing.
    pub const fn time_to_idle(mut self, tti: Duration) -> Self {
        self.time_to_idle = Some(tti);
        self
    }

    /// How long removals are remembered: more than the longest netsplit or absence after which a
    /// removed key must not come back. Default 24 h.
    pub const fn tombstone_ttl(mut self, ttl: Duration) -> Self {
        self.tombstone_ttl = ttl;
        self
    }

    /// Mode `replicated`: what a node does while it does not hear most of its cluster. Default: [`SplitPolicy::Serve`]. Must be the
    /// same on all nodes, and is checked when they meet. Takes effect 2 s after this node last asked those who answered and whom it
    /// needs to be with most. Each node decides for itself; of two nodes, the one with the smaller id goes on.
    pub const fn split(mut self, split: SplitPolicy) -> Self {
        self.split = split;
        self
    }

    /// Mode `invalidation`: what this node does with its copies while it does not get the invalidations of some peer. Default:
    /// [`OnDisconnect::Bypass`].
    pub const fn on_disconnect(mut self, on_disconnect: OnDisconnect) -> Self {
        self.on_disconnect = on_disconnect;
        self
    }

    /// Mode `invalidation`: how long after it last had all of a peer's invalidations this node may serve what that peer may have
    /// invalidated since: the bound on staleness when the network fails. Default 3 s; 1 s to 10 min. Heartbeats of 500 ms renew it, so
    /// a short one turns every hiccup into misses.
    pub const fn link_timeout(mut self, link_timeout: Duration) -> Self {
        self.link_timeout = link_timeout;
        self
    }

    /// Mode `invalidation`: how long a member that died without leaving still counts as one whose invalidations are missed, so that
    /// nothing is served beyond `link_timeout` while it may only be cut off. Afterwards all copies are dropped and this node serves
    /// without it. Default 60 s; zero serves again as soon as the member is declared dead, and lets a netsplit make copies stale.
    pub const fn dead_counts_for(mut self, dead_counts_for: Duration) -> Self {
        self.dead_counts_for = dead_counts_for;
        self
    }

    /// Mode `replicated`: how many bytes of this cache a second this node sends at most to nodes that join or repair themselves, to all
    /// of them together. What is written meanwhile is not limited by it. Default 64 MiB, half of what a link of 1 Gbit/s carries; zero:
    /// no limit. A node that joins is filled by all ready nodes at once, each of which keeps its own limit.
    pub const fn transfer_bytes_per_second(mut self, bytes_per_second: u64) -> Self {
        self.transfer_bytes_per_second = bytes_per_second;
        self
    }

    /// How misses are loaded by [`Cache::get_or_load`] and [`Loading`](crate::Loading), and what protects the system of record.
    /// Each node's own affair. Default: [`LoadPolicy::new`].
    pub const fn load_policy(mut self, policy: LoadPolicy) -> Self {
        self.load_policy = policy;
        self
    }

    /// Writes to the system of record before the cache: a [`put`](Cache::put), [`remove`](Cache::remove) or [`modify`](Cache::modify) is
    /// answered when `sink` has it. Invalidations concern copies only and are not passed on. Each node's own affair: what a node
    /// without a sink writes reaches no system of record. Read-modify-writes are decided by the cache first and then written.
    ///
    /// Default: the cache writes to no system of record.
    pub fn write_through<S>(mut self, sink: S, policy: WriteThrough) -> Self
    where
        K: DeserializeOwned + Send + Sync + Sized + 'static,
        V: Sync + 'static,
        S: Sink<K, V>,
    {
        self.sink = Some((typed::<K, V, S>(sink), SinkPolicy::Through(policy)));
        self
    }

    /// Writes to the system of record later, in batches: a [`put`](Cache::put), [`remove`](Cache::remove) or [`modify`](Cache::modify) is
    /// answered when it is queued on this node. Otherwise as [`write_through`](Self::write_through). Until it is written, this node
    /// reads its own write; a node that does not hold the entry may load the older row, and drops it when the newer one is written.
    pub fn write_behind<S>(mut self, sink: S, policy: WriteBehind) -> Self
    where
        K: DeserializeOwned + Send + Sync + Sized + 'static,
        V: Sync + 'static,
        S: Sink<K, V>,
    {
        self.sink = Some((typed::<K, V, S>(sink), SinkPolicy::Behind(policy)));
        self
    }

    /// Encodes values with `D` instead, for example [`Raw`](crate::Raw).
    pub fn codec<D>(self) -> CacheBuilder<K, V, D> {
        CacheBuilder {
            node: self.node,
            name: self.name,
            mode: self.mode,
            max_bytes: self.max_bytes,
            max_key_bytes: self.max_key_bytes,
            allow_empty_key: self.allow_empty_key,
            max_value_bytes: self.max_value_bytes,
            inline_limit: self.inline_limit,
            fetch_bytes_per_second: self.fetch_bytes_per_second,
            time_to_live: self.time_to_live,
            time_to_idle: self.time_to_idle,
            tombstone_ttl: self.tombstone_ttl,
            split: self.split,
            on_disconnect: self.on_disconnect,
            link_timeout: self.link_timeout,
            dead_counts_for: self.dead_counts_for,
            transfer_bytes_per_second: self.transfer_bytes_per_second,
            load_policy: self.load_policy,
            sink: self.sink,
            types: PhantomData,
        }
    }

    /// Opens the cache on this node. Opening it again gives the same cache, with the settings it
    /// was opened with first.
    ///
    /// Does not wait until the cache is filled: that is [`Node::ready`](crate::Node::ready). It begins to fill at once. In the
    /// first half second of a node that has a name, and so may have run before, this waits until no former start of it can have
    /// made newer versions than the writes that follow ([`NodeBuilder::new_identity`](crate::NodeBuilder::new_identity)). The
    /// cache stays open until the node stops.
    ///
    /// Cancel-safe: dropped while it waits, the cache is open and can be opened again.
    ///
    /// # Errors
    ///
    /// [`OpenError`]; the node is unchanged.
    pub async fn open(self) -> Result<Cache<K, V, C>, OpenError>
    where
        V: 'static,
        C: Codec<V>,
    {
        self.check()?;
        let settings = Settings {
            mode: self.mode,
            codec: C::ID,
            max_key_bytes: self.max_key_bytes,
            allow_empty_key: self.allow_empty_key,
            max_value_bytes: self.max_value_bytes,
            inline_limit: self.inline_limit,
            fetch_bytes_per_second: self.fetch_bytes_per_second,
            time_to_live: self.time_to_live,
            tombstone_ttl: self.tombstone_ttl,
            split: self.split,
            on_disconnect: self.on_disconnect,
            link_timeout: self.link_timeout,
            dead_counts_for: self.dead_counts_for,
            transfer_bytes_per_second: self.transfer_bytes_per_second,
        };
        let mut store = StoreConfig::new(self.max_bytes);
        store.time_to_idle = self.time_to_idle;
        store.tombstone_ttl = self.tombstone_ttl;
        let node = Arc::clone(self.node.shared());
        // Reading the disk waits: before the cache is opened, and not again if it is open already.
        let journal = match &self.sink {
            Some((_, SinkPolicy::Behind(policy))) if !node.has_cache(&self.name) => {
                open_journal(&node, &self.name, policy).await?
            }
            _ => None,
        };
        if let Some((journal, _)) = &journal
            && let Err(set_back) =
                Former::new(journal.newest()).resume(&node.hlc().unshared(), node.now())
        {
            tracing::error!(
                cache = self.name,
                wait = ?set_back.wait,
                "{set_back}: it was set back, or was ahead then; until it has caught up writes are refused (`ClockSkew`)"
            );
        }
        let sinking = self.sink.map(|(sink, policy)| {
            let sink: Arc<dyn CellSink<C::Cell>> = Arc::new(Celled::<V, C>::new(sink));
            match policy {
                SinkPolicy::Through(policy) => Sinking::Through(Through::new(policy, sink)),
                SinkPolicy::Behind(policy) => {
                    Sinking::Behind(Box::new(Behind::new(policy, sink, journal, node.now())))
                }
            }
        });
        let (name, policy) = (&self.name, self.load_policy);
        let shell = self.node.shared().open_cache(&self.name, |shared, id| {
            Shell::<C::Cell>::new(shared, name, id, settings, store, policy, sinking)
        })?;
        shell.drive_writes();
        if self.mode != ModeKind::Local {
            self.node.shared().may_write().await;
        }
        Ok(Cache {
            shell,
            node: self.node,
            key: PhantomData,
        })
    }

    fn check(&self) -> Result<(), OpenError> {
        let out_of_range = |setting, value, allowed| {
            Err(OpenError::InvalidSetting {
                setting,
                value,
                allowed,
            })
        };
        if !is_name(&self.name) {
            return Err(OpenError::InvalidName {
                name: self.name.clone(),
            });
        }
        if self.max_key_bytes == 0 || self.max_key_bytes > KEY_LEN_MAX {
            let value = self.max_key_bytes.to_string();
            return out_of_range("max_key_bytes", value, "1 to 65,536");
        }
        if self.max_value_bytes == 0 || self.max_value_bytes > VALUE_LEN_MAX {
            let value = self.max_value_bytes.to_string();
            return out_of_range("max_value_bytes", value, "1 to 67,108,864");
        }
        if !(INLINE_LIMIT_MIN..=VALUE_LEN_MAX).contains(&self.inline_limit) {
            let value = self.inline_limit.to_string();
            return out_of_range("inline_limit", value, "1,024 to 67,108,864");
        }
        if (1..FETCH_BYTES_PER_SECOND_MIN).contains(&self.fetch_bytes_per_second) {
            let value = self.fetch_bytes_per_second.to_string();
            return out_of_range("fetch_bytes_per_second", value, "0, or 65,536 and more");
        }
        let leases = Duration::from_secs(1)..=Duration::from_secs(600);
        if !leases.contains(&self.link_timeout) {
            let value = format!("{:?}", self.link_timeout);
            return out_of_range("link_timeout", value, "1 s to 10 min");
        }
        if let OnDisconnect::ServeStale { max } = self.on_disconnect
            && (max < self.link_timeout || max > STALE_MAX)
        {
            let value = format!("{max:?}");
            return out_of_range("on_disconnect", value, "link_timeout to 24 h");
        }
        if self.split != SplitPolicy::Serve && self.mode != ModeKind::Replicated {
            let value = format!("{:?}", self.split);
            return out_of_range("split", value, "Serve, except in mode replicated");
        }
        if let Some((setting, value, allowed)) = self.load_policy.invalid() {
            return out_of_range(setting, value, allowed);
        }
        let invalid = self.sink.as_ref().and_then(|(_, policy)| match policy {
            SinkPolicy::Through(policy) => policy.invalid(),
            SinkPolicy::Behind(policy) => policy.invalid(),
        });
        if let Some((setting, value, allowed)) = invalid {
            return out_of_range(setting, value, allowed);
        }
        for (setting, ttl) in [
            ("time_to_live", self.time_to_live),
            ("time_to_idle", self.time_to_idle),
        ] {
            if ttl.is_some_and(|ttl| ttl < Duration::from_millis(1) || ttl > TTL_MAX) {
                return out_of_range(setting, format!("{ttl:?}"), "1 ms to 10 years");
            }
        }
        Ok(())
    }
}

/// A user's sink whose types are forgotten.
fn typed<K, V, S>(sink: S) -> Arc<dyn ErasedSink<V>>
where
    K: DeserializeOwned + Send + Sync + 'static,
    V: Sync + 'static,
    S: Sink<K, V>,
{
    Arc::new(Typed::<K, S>::new(sink))
}

/// Opens the journal of a cache, if it is to have one.
async fn open_journal(
    node: &NodeShared,
    cache: &str,
    policy: &WriteBehind,
) -> Result<Option<(Journal, Unwritten)>, OpenError> {
    let Some(path) = policy.journal.clone() else {
        return Ok(None);
    };
    if !node.config().may_have_run_before {
        return Err(OpenError::InvalidSetting {
            setting: "journal",
            value: path.display().to_string(),
            allowed: "only on a node with a name, which is the same after a restart",
        });
    }
    let owner = format!("{}/{cache}/{}", node.cluster(), node.name());
    let mut config = JournalConfig::new(path, owner, policy.journal_bytes_max);
    config.hook.clone_from(&policy.hook);
    config.disk = Disk::new(policy.disk_hook.clone());
    let opened = tokio::task::spawn_blocking(move || Journal::open(config)).await;
    match opened {
        Ok(opened) => Ok(Some(opened?)),
        // The runtime stops.
        Err(_) => Err(OpenError::NodeStopped),
    }
}
