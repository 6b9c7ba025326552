//! The configuration with types: what the server is built from.
//!
//! Defaults live here and nowhere else; the command line, `nearcache check` and the documents show
//! these. Every listener is on loopback until somebody decides otherwise.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use nearcache::limits::{
    FETCH_BYTES_PER_SECOND_DEFAULT, INLINE_LIMIT_DEFAULT, MEMBER_LIMIT_DEFAULT, MESH_MAX_DEFAULT,
    PROBE_CONNECTIONS_DEFAULT,
};
use nearcache::{
    Mode as ModeKind, OnDisconnect, PeerTls, PeerTlsFiles, REAUTHENTICATE_AFTER_DEFAULT,
    RELOAD_EVERY_DEFAULT, SplitPolicy,
};

use crate::limits::Limits;

/// Everything `nearcache serve` needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Who this node is.
    pub node: NodeConfig,
    /// How it meets its peers.
    pub peers: PeersConfig,
    /// The listener that speaks the Redis protocol.
    pub resp: RespConfig,
    /// The listener that speaks HTTP.
    pub http: HttpConfig,
    /// Who may use the two listeners.
    pub auth: AuthConfig,
    /// What a client may ask for at most.
    pub limits: Limits,
    /// The caches, by name.
    pub caches: BTreeMap<String, CacheConfig>,
    /// What is logged and how.
    pub log: LogConfig,
}

/// Who this node is.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Name of the node; its identity is derived from it, so it is unique in the cluster. If absent, that
    /// of its certificate, or random.
    pub name: Option<String>,
    /// Its identity is new although it has a name; only for nodes that live as long as one process.
    pub new_identity: bool,
    /// Name of the cluster; nodes of other clusters are refused.
    pub cluster: String,
}

/// How this node meets its peers.
#[derive(Debug, Clone)]
pub struct PeersConfig {
    /// Where peers connect to this node. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The address peers are told, when it is not the one listened on.
    pub advertise: Option<SocketAddr>,
    /// Addresses of nodes to join, `host:port`; one that answers is enough.
    pub seeds: Vec<String>,
    /// A name, `host:port`, whose addresses are all nodes to join; looked up again and again.
    pub dns: Option<String>,
    /// Lets peers connect from other machines although nothing authenticates or encrypts them.
    pub allow_insecure_network: bool,
    /// Up to so many members every node is connected to every other; above, updates travel along a tree. The same on all nodes.
    pub mesh_max: usize,
    /// The most members; more are refused.
    pub member_limit: usize,
    /// Short-lived connections, of each direction, to watch members without a session.
    pub probe_connections: usize,
    /// How peers prove who they are.
    pub tls: PeersTlsConfig,
}

/// How this node and its peers prove who they are: all four files, or none.
#[derive(Debug, Clone)]
pub struct PeersTlsConfig {
    /// The node's certificate and those between it and the authority, PEM.
    pub certificate_file: Option<PathBuf>,
    /// Its private key, PEM. Nobody but its owner may have access.
    pub key_file: Option<PathBuf>,
    /// The authorities that are trusted, PEM.
    pub ca_file: Option<PathBuf>,
    /// The cluster's secret. Nobody but its owner may have access.
    pub secret_file: Option<PathBuf>,
    /// Names that make a certificate one of a peer beside `spiffe://CLUSTER/peer/NODE`.
    pub allowed_names: Vec<String>,
    /// How often the files are looked at for changes.
    pub reload_every: Duration,
    /// How long a session lasts before both sides prove again who they are.
    pub reauthenticate_after: Duration,
}

impl PeersTlsConfig {
    /// The settings that name files, by their paths.
    pub(crate) fn files(&self) -> [(&'static str, Option<&PathBuf>); 4] {
        [
            ("peers.tls.certificate_file", self.certificate_file.as_ref()),
            ("peers.tls.key_file", self.key_file.as_ref()),
            ("peers.tls.ca_file", self.ca_file.as_ref()),
            ("peers.tls.secret_file", self.secret_file.as_ref()),
        ]
    }

    /// What the library makes of it; nothing unless all four files are named.
    #[must_use]
    pub fn settings(&self) -> Option<PeerTls> {
        let files = PeerTlsFiles {
            certificate: self.certificate_file.clone()?,
            key: self.key_file.clone()?,
            ca: self.ca_file.clone()?,
            secret: self.secret_file.clone()?,
        };
        let settings = PeerTls::new(files)
            .allowed_names(&self.allowed_names)
            .reload_every(self.reload_every)
            .reauthenticate_after(self.reauthenticate_after);
        Some(settings)
    }
}

impl Default for PeersTlsConfig {
    fn default() -> Self {
        Self {
            certificate_file: None,
            key_file: None,
            ca_file: None,
            secret_file: None,
            allowed_names: Vec::new(),
            reload_every: RELOAD_EVERY_DEFAULT,
            reauthenticate_after: REAUTHENTICATE_AFTER_DEFAULT,
        }
    }
}

/// The listener that speaks the Redis protocol.
#[derive(Debug, Clone)]
pub struct RespConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// Where it listens. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The caches that `SELECT 0`, `SELECT 1`, … mean, by name.
    pub databases: Vec<String>,
}

/// The listener that speaks HTTP.
#[derive(Debug, Clone)]
pub struct HttpConfig {
    /// Whether there is one.
    pub enabled: bool,
    /// Where it listens. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Names accepted in `Host` beside IP addresses and `localhost`.
    pub hosts: Vec<String>,
    /// Origins of web pages that may call, as browsers send them: `https://ops.example`.
    pub origins: Vec<String>,
}

/// Who may use the RESP and HTTP listeners.
#[derive(Debug, Clone, Default)]
pub struct AuthConfig {
    /// A file whose first line is the token clients present. Nobody but its owner may read it.
    pub token_file: Option<PathBuf>,
    /// Lets tokens and values cross a network unencrypted.
    pub allow_plaintext: bool,
}

/// Where a cache's entries live.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum CacheMode {
    /// On this node only; nothing is shared.
    Local,
    /// On every node; a write reaches all of them.
    Replicated,
    /// On the nodes that loaded or wrote them; a write drops the copies of all others.
    Invalidation,
}

impl CacheMode {
    /// The mode as the library calls it.
    #[must_use]
    pub fn kind(self) -> ModeKind {
        match self {
            Self::Local => ModeKind::Local,
            Self::Replicated => ModeKind::Replicated,
            Self::Invalidation => ModeKind::Invalidation,
        }
    }

    /// The word the configuration uses.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Replicated => "replicated",
            Self::Invalidation => "invalidation",
        }
    }
}

/// One cache.
#[derive(Debug, Clone)]
pub struct CacheConfig {
    /// Where entries live; the same on all nodes.
    pub mode: CacheMode,
    /// Bytes of memory its entries may use on this node, keys and overhead included. A share of the
    /// machine's memory unless a setting says otherwise; the value here is for a machine that is unknown.
    pub max_bytes: u64,
    /// Mode `replicated`: the longest value that is sent to all nodes when it is written, in bytes. A longer one is fetched by
    /// each node when it is first read there.
    pub inline_limit: usize,
    /// Mode `replicated`: most bytes of such values that this node sends to its peers per second; 0 for no limit.
    pub fetch_bytes_per_second: u64,
    /// Time to live of entries written without one; they stay for good if absent.
    pub time_to_live: Option<Duration>,
    /// Drops an entry on this node when it was not read for this long; never if absent.
    pub time_to_idle: Option<Duration>,
    /// Mode `replicated`: what this node does while it does not hear most of its cluster; the same on all nodes.
    pub split: SplitPolicy,
    /// Mode `invalidation`: what becomes of the copies while the invalidations of some peer do not come.
    pub on_disconnect: OnDisconnect,
    /// Mode `invalidation`: how long after it last had all of every peer's invalidations this node may serve its copies.
    pub link_timeout: Duration,
    /// Mode `invalidation`: how long a member that died without leaving counts as one whose invalidations are missed.
    pub dead_counts_for: Duration,
    /// Mode `replicated`: bytes a second that nodes which join or repair themselves get from this one, all together; 0: no limit.
    pub transfer_bytes_per_second: u64,
    /// How often this node writes a probe to see how soon and how surely the others have it; never if absent.
    pub audit_every: Option<Duration>,
}

/// What is logged and how.
#[derive(Debug, Clone)]
pub struct LogConfig {
    /// Lowest level written: `error`, `warn`, `info`, `debug` or `trace`, or filters by module.
    pub level: String,
    /// Lines for people or for machines.
    pub format: LogFormat,
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// One readable line per event.
    Text,
    /// One JSON object per event.
    Json,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            node: NodeConfig {
                name: None,
                new_identity: false,
                cluster: "nearcache".to_owned(),
            },
            peers: PeersConfig {
                listen: loopback(7801),
                advertise: None,
                seeds: Vec::new(),
                dns: None,
                allow_insecure_network: false,
                mesh_max: MESH_MAX_DEFAULT,
                member_limit: MEMBER_LIMIT_DEFAULT,
                probe_connections: PROBE_CONNECTIONS_DEFAULT,
                tls: PeersTlsConfig::default(),
            },
            resp: RespConfig {
                enabled: true,
                listen: loopback(7001),
                databases: vec![DEFAULT_CACHE.to_owned()],
            },
            http: HttpConfig {
                enabled: true,
                listen: loopback(8001),
                hosts: Vec::new(),
                origins: Vec::new(),
            },
            auth: AuthConfig::default(),
            limits: Limits::default(),
            caches: BTreeMap::from([(DEFAULT_CACHE.to_owned(), CacheConfig::default())]),
            log: LogConfig {
                level: "info".to_owned(),
                format: LogFormat::Text,
            },
        }
    }
}

impl Default for CacheConfig {
    fn default() -> Self {
        Self {
            mode: CacheMode::Replicated,
            max_bytes: 256 << 20,
            inline_limit: INLINE_LIMIT_DEFAULT,
            fetch_bytes_per_second: FETCH_BYTES_PER_SECOND_DEFAULT,
            time_to_live: None,
            time_to_idle: None,
            split: SplitPolicy::Serve,
            on_disconnect: OnDisconnect::Bypass,
            link_timeout: Duration::from_secs(3),
            dead_counts_for: Duration::from_secs(60),
            transfer_bytes_per_second: 64 << 20,
            audit_every: None,
        }
    }
}

/// The cache that RESP database 0 means and that exists without being configured.
pub const DEFAULT_CACHE: &str = "default";

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
