//! A cache inside every instance of a service, kept in sync among the instances.
//!
//! Reads cost what a read of the process's own memory costs, because that is what they are; writes
//! reach every other instance within a fraction of a millisecond on a local network. What that
//! trades away is freshness, and how much is known: [`Cache::freshness`] says how old this node's
//! knowledge of each peer is.
//!
//! ```
//! use std::time::Duration;
//! use nearcache::{Node, PutOptions, StaticPeers};
//! use serde::{Deserialize, Serialize};
//!
//! #[derive(Serialize, Deserialize)]
//! struct User {
//!     name: String,
//! }
//!
//! # #[tokio::main]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! // Two instances of a service; here they live in one process.
//! let one = Node::builder("shop").name("one").start().await?;
//! let two = Node::builder("shop")
//!     .name("two")
//!     .discovery(StaticPeers::new([one.local_addr()]))
//!     .start()
//!     .await?;
//! let here = one.cache::<String, User>("users").open().await?;
//! let there = two.cache::<String, User>("users").open().await?;
//! there.ready().await;
//!
//! let options = PutOptions::new().ttl(Duration::from_secs(3600)).ack(nearcache::Ack::All);
//! here.put_with("ada", User { name: "Ada".into() }, options).await?;
//!
//! let ada = there.get("ada").await?.ok_or("missing")?;
//! assert_eq!(ada.name, "Ada");
//! # one.shutdown().await;
//! # two.shutdown().await;
//! # Ok(()) }
//! ```
//!
//! # Where to start
//!
//! [`Node::builder`] starts this process's member of a cluster; [`Node::cache`] opens a named
//! [`Cache`] on it; [`Cache::get`] and [`Cache::put`] do what they say. Everything is `Clone`,
//! `Send` and `Sync`, and nothing is global: several nodes live in one process.
//!
//! # What flows where
//!
//! ```text
//! Cache ─▶ shell ─▶ machine (nearcache-protocol) ─▶ store (nearcache-store)
//!             ⇅
//!         transport: three connections per peer ─▶ the same on the other nodes
//! ```
//!
//! [`cache`] is the typed face and the shell of one cache's state machine, [`codec`] turns keys and
//! values into bytes, `node` owns the clock, the membership and all caches of one member,
//! [`discovery`] finds peers, `persistence` is the only place that knows of files, `security` decides whom to believe, and `transport` is the only place that knows of sockets.

#![forbid(unsafe_code)]

pub mod cache;
mod clock;
pub mod codec;
pub mod discovery;
pub mod limits;
mod metrics;
mod node;
mod persistence;
#[cfg(not(feature = "turmoil"))]
mod quick_clock;
mod random;
mod security;
#[cfg(feature = "turmoil")]
#[doc(hidden)]
pub mod simulated;
mod subscription;
mod transport;

#[cfg(feature = "turmoil")]
use simulated::quick_clock;

pub use cache::{
    About, Ack, Cache, CacheBuilder, CacheStats, Cached, Change, DeadLetter, Fill, FillToken,
    FlushError, Inspection, LoadError, LoadPolicy, LoadStats, Loaded, Loader, Loading, Lookup,
    Modified, Modify, ModifyError, OpenError, Previous, PutOptions, ReadError, ScanCursor,
    ScanPage, Sink, SinkError, SinkWrite, Watch, WriteBehind, WriteError, WriteStats, WriteThrough,
};
pub use codec::{Codec, EncodeError, KeyError, KeyFor, MessagePack, Raw, RawValue};
#[cfg(feature = "dns")]
pub use discovery::Dns;
pub use discovery::{Discovery, DiscoveryError, StaticPeers};
pub use node::{
    ClockSkew, ConnectError, Member, MemberState, Node, NodeBuilder, NodeEvent, NodeLinks,
    StartError,
};
pub use persistence::JournalError;
pub use security::{
    Distrust, PeerTls, PeerTlsError, PeerTlsFile, PeerTlsFiles, REAUTHENTICATE_AFTER_DEFAULT,
    RELOAD_EVERY_DEFAULT,
};
pub use subscription::{Received, Subscription};

pub use nearcache_protocol::announce::ModeKind as Mode;
pub use nearcache_protocol::announce::SplitPolicy;
pub use nearcache_protocol::config::OnDisconnect;
pub use nearcache_protocol::ids::Epoch;
pub use nearcache_protocol::mode::{Freshness, ModeStats, PeerFreshness, Status, age_ms};
pub use nearcache_protocol::modify::{Condition, ExpireCondition};
pub use nearcache_protocol::probe::audit::{
    AuditReport, COVERED_WITHIN as AUDIT_COVERED_WITHIN, PeerAudit, Propagation, Verdicts,
    WITHIN as AUDITED_WITHIN,
};
pub use nearcache_protocol::probe::inspect::NoAnswer;
pub use nearcache_protocol::probe::{Held, HeldEntry};
pub use nearcache_store::{
    CoarseClock, Expiry, NodeId, Scope, StoreStats, Tags, Timestamp, Version,
};
