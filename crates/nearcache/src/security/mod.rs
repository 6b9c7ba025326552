//! How peers prove who they are: certificates, the cluster secret, and what is believed of them.
//!
//! ```text
//! PeerTls (settings) ─ load ─▶ Material (keys, trust, secrets) ─▶ transport: TLS, then proofs
//!                         ▲           │ swapped as a whole
//!                    reload (poll) ───┘
//! ```
//!
//! Files come in, decisions come out: [`Trust`](trust::Trust) says whether a certificate is one of a
//! peer of this cluster, [`Secrets`](secret::Secrets) whether a peer knows the cluster's secret. No
//! socket is touched here, and nothing here knows of sessions.
//!
//! What a peer must show, each on every one of its connections (reliability specification, 4.3):
//! a certificate of a trusted authority, valid now, whose URI name is `spiffe://CLUSTER/peer/NODE`;
//! that it knows the cluster's secret; and that it is the node of its certificate.

mod distrust;
mod error;
mod files;
mod material;
mod reload;
pub(crate) mod secret;
pub(crate) mod trust;
mod verifier;

use std::path::PathBuf;
use std::time::Duration;

pub use distrust::Distrust;
pub use error::{PeerTlsError, PeerTlsFile};
pub(crate) use material::Material;
pub(crate) use reload::PeerSecurity;
pub(crate) use verifier::distrust_in;

/// How often the files are looked at for a change, unless set otherwise.
pub const RELOAD_EVERY_DEFAULT: Duration = Duration::from_secs(10);

/// How long a session lives before both sides prove again who they are, unless set otherwise.
pub const REAUTHENTICATE_AFTER_DEFAULT: Duration = Duration::from_secs(24 * 60 * 60);

/// How long before its expiry a certificate is warned of.
pub(crate) const EXPIRY_WARNING: Duration = Duration::from_secs(14 * 24 * 60 * 60);

/// The files that prove who a node is. All are PEM but the secret; all must exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerTlsFiles {
    /// The node's certificate, then those between it and the authority, if any.
    ///
    /// Its one URI name is `spiffe://CLUSTER/peer/NODE`; it is good for both ends of a connection
    /// (extended key usage client and server authentication, or none).
    pub certificate: PathBuf,
    /// The certificate's private key. Nobody but its owner may have access (mode 0600).
    pub key: PathBuf,
    /// The authorities whose certificates are believed: one, or two while one replaces the other.
    pub ca: PathBuf,
    /// The cluster's secret, at least 32 characters on a line of its own. A second line is another
    /// secret that is accepted and not used, for replacing it. Mode 0600.
    pub secret: PathBuf,
}

/// Mutual TLS among peers, for [`NodeBuilder::tls`](crate::NodeBuilder::tls).
///
/// With it every connection between nodes is encrypted (TLS 1.3) and both ends prove who they are;
/// without it a node does not leave loopback. `nearcache certs` makes a set of files for trying.
///
/// ```no_run
/// # async fn start() -> Result<(), nearcache::StartError> {
/// use nearcache::{Node, PeerTls, PeerTlsFiles};
///
/// let node = Node::builder("shop")
///     .listen("0.0.0.0:7801")
///     .tls(PeerTls::new(PeerTlsFiles {
///         certificate: "/etc/nearcache/node-1.pem".into(),
///         key: "/etc/nearcache/node-1.key".into(),
///         ca: "/etc/nearcache/ca.pem".into(),
///         secret: "/etc/nearcache/secret".into(),
///     }))
///     .start()
///     .await?;
/// # Ok(()) }
/// ```
///
/// The node's name is that of the certificate; [`NodeBuilder::name`](crate::NodeBuilder::name) may be
/// left out, and must agree if it is not.
#[derive(Debug, Clone)]
pub struct PeerTls {
    pub(crate) files: PeerTlsFiles,
    pub(crate) allowed_names: Vec<String>,
    pub(crate) reload_every: Duration,
    pub(crate) reauthenticate_after: Duration,
}

impl PeerTls {
    /// Mutual TLS with these files. They are read when the node starts.
    #[must_use]
    pub const fn new(files: PeerTlsFiles) -> Self {
        Self {
            files,
            allowed_names: Vec::new(),
            reload_every: RELOAD_EVERY_DEFAULT,
            reauthenticate_after: REAUTHENTICATE_AFTER_DEFAULT,
        }
    }

    /// Believes certificates with one of these DNS or URI names to be peers too, for an authority
    /// that does not write `spiffe://CLUSTER/peer/NODE`. Compared as a whole; no wildcards.
    ///
    /// Such a certificate does not say which node it is of: whoever has it may call itself by any
    /// name that is not connected at that moment. Default: none.
    #[must_use]
    pub fn allowed_names(mut self, names: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.allowed_names = names.into_iter().map(Into::into).collect();
        self
    }

    /// How often the files are looked at; what has changed is used for connections from then on,
    /// and those that stand go on. Files that do not fit together change nothing and are warned of.
    /// Default 10 s, at least 10 ms.
    #[must_use]
    pub const fn reload_every(mut self, interval: Duration) -> Self {
        self.reload_every = interval;
        self
    }

    /// How long a session with a peer may last until it is opened anew with the certificates and
    /// secrets of that time, so that a certificate or secret that was taken away stops working.
    /// The new session replaces the old one without losing updates. Default 24 h, at least 1 s, at most a year.
    #[must_use]
    pub const fn reauthenticate_after(mut self, after: Duration) -> Self {
        self.reauthenticate_after = after;
        self
    }

    /// The URI name that the certificate of the node called `node` must have.
    #[must_use]
    pub fn uri_name(cluster: &str, node: &str) -> String {
        trust::uri_name(cluster, node)
    }

    /// Reads the files and says which node they make this one in the cluster called `cluster`;
    /// `None` where the certificate is of an [allowed name](Self::allowed_names) and names no node.
    /// Blocks for a few small reads.
    ///
    /// # Errors
    ///
    /// [`PeerTlsError`], as a node would refuse to start with.
    pub fn check(&self, cluster: &str) -> Result<Option<String>, PeerTlsError> {
        let material = Material::load(self, cluster)?;
        Ok(material.node().map(str::to_owned))
    }
}
