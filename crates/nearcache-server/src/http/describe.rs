//! What the server tells about itself as JSON: the node, its members, its caches.

use std::net::SocketAddr;

use http::{HeaderValue, Response, header};
use nearcache::{MemberState, Mode, PeerFreshness, age_ms};
use serde::Serialize;

use super::{Body, Context};
use crate::caches::RawCache;
use crate::protected::is_loopback;

/// `GET /v1/node`.
#[derive(Debug, Serialize)]
pub(super) struct NodeDocument {
    pub(super) name: String,
    pub(super) id: String,
    pub(super) cluster: String,
    pub(super) epoch: u64,
    pub(super) version: &'static str,
    pub(super) ready: bool,
    pub(super) uptime_seconds: u64,
    pub(super) addresses: Addresses,
    pub(super) client_connections: usize,
    /// Whether connections between nodes are encrypted and both ends authenticated.
    pub(super) peers_secured: bool,
    /// Whether they are not although they leave this machine (`peers.allow_insecure_network`).
    pub(super) insecure_network: bool,
    /// Peers that there is a session with.
    pub(super) peer_sessions: usize,
    /// Whether there are more members than `peers.mesh_max`, so that updates travel along a tree.
    pub(super) by_tree: bool,
    /// While this node refuses writes because of its clock: the median of the peers' clocks minus its own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) clock_skew_ms: Option<i64>,
}

/// Where a node listens.
#[derive(Debug, Clone, Serialize)]
pub struct Addresses {
    /// For clients of the Redis protocol.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub resp: Option<SocketAddr>,
    /// For HTTP clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http: Option<SocketAddr>,
    /// For peers.
    pub peers: SocketAddr,
}

/// One line of `GET /v1/members`.
#[derive(Debug, Serialize)]
pub(super) struct MemberDocument {
    pub(super) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    pub(super) epoch: u64,
    pub(super) address: SocketAddr,
    pub(super) state: &'static str,
}

/// One line of `GET /v1/caches`.
#[derive(Debug, Serialize)]
pub(super) struct CacheDocument {
    pub(super) name: String,
    pub(super) mode: &'static str,
    pub(super) ready: bool,
    /// `synced`, `catching-up`, `degraded` (apart from most of the cluster) or `isolated`.
    pub(super) state: &'static str,
    pub(super) entries: usize,
    pub(super) bytes: u64,
    pub(super) max_bytes: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
    pub(super) evictions: u64,
    /// How long ago this node was last known to have all updates of all its peers; 0 without peers, absent if
    /// some peer was never heard to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) freshness_ms: Option<u64>,
    /// The same of each peer.
    pub(super) peers: Vec<PeerDocument>,
}

/// How old the knowledge of one peer is, as one cache knows it.
#[derive(Debug, Serialize)]
pub(super) struct PeerDocument {
    pub(super) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) name: Option<String>,
    /// Absent if it was never heard to the end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) freshness_ms: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) round_trip_us: Option<u64>,
    /// Its clock minus this node's, as far as an echo tells.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) clock_offset_ms: Option<i64>,
    /// Its updates that are known to be missing here.
    pub(super) missing: u64,
    /// This node's updates that it has not acknowledged.
    pub(super) unacknowledged: u64,
}

pub(super) fn node(context: &Context) -> NodeDocument {
    let links = context.node.links();
    NodeDocument {
        name: context.node.name().to_owned(),
        id: context.node.id().to_string(),
        cluster: context.node.cluster().to_owned(),
        epoch: context.node.epoch().as_u64(),
        version: env!("CARGO_PKG_VERSION"),
        ready: context.node.is_ready(),
        uptime_seconds: context.started.elapsed().as_secs(),
        addresses: context.addresses.clone(),
        client_connections: context.connections.open(),
        peers_secured: context.node.is_secured(),
        insecure_network: !context.node.is_secured() && !is_loopback(context.addresses.peers.ip()),
        peer_sessions: links.sessions,
        by_tree: links.by_tree,
        clock_skew_ms: context.node.clock_skew().map(|skew| skew.peers_ahead_ms),
    }
}

pub(super) fn members(context: &Context) -> Vec<MemberDocument> {
    let document = |member: nearcache::Member| MemberDocument {
        id: member.id.to_string(),
        name: member.name,
        epoch: member.epoch.as_u64(),
        address: member.address,
        state: match member.state {
            MemberState::Myself => "myself",
            MemberState::Connected => "connected",
            MemberState::Unconnected => "unconnected",
            _ => "unknown",
        },
    };
    context.node.members().into_iter().map(document).collect()
}

pub(super) fn caches(context: &Context) -> Vec<CacheDocument> {
    let caches = context.caches.iter();
    caches.map(|of| cache(context, of)).collect()
}

fn cache(context: &Context, cache: &RawCache) -> CacheDocument {
    let stats = cache.stats();
    let peer = |peer: &PeerFreshness| PeerDocument {
        id: peer.peer.to_string(),
        name: context.node.name_of(peer.peer),
        freshness_ms: peer.age.map(age_ms),
        round_trip_us: peer
            .round_trip
            .map(|round_trip| u64::try_from(round_trip.as_micros()).unwrap_or(u64::MAX)),
        clock_offset_ms: peer.clock_offset_ms,
        missing: peer.missing,
        unacknowledged: peer.unacknowledged,
    };
    CacheDocument {
        name: cache.name().to_owned(),
        mode: mode(cache.mode()),
        ready: cache.is_ready(),
        state: cache.status().as_str(),
        entries: cache.len(),
        bytes: stats.store.weight_bytes,
        max_bytes: cache.max_bytes(),
        hits: stats.store.hits,
        misses: stats.store.misses,
        evictions: stats.store.evictions,
        freshness_ms: stats.freshness.worst.map(age_ms),
        peers: stats.freshness.per_peer.iter().map(peer).collect(),
    }
}

fn mode(kind: Mode) -> &'static str {
    match kind {
        Mode::Local => "local",
        Mode::Replicated => "replicated",
        Mode::Invalidation => "invalidation",
    }
}

/// A document as a response, with a line end for those who read it in a terminal.
pub(super) fn json(document: &impl Serialize) -> Response<Body> {
    let mut text = serde_json::to_vec_pretty(document).unwrap_or_default();
    text.push(b'\n');
    let mut response = Response::new(Body::from(text));
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}
