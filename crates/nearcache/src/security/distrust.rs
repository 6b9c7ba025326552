//! Why a peer is not believed.

use std::fmt;
use std::time::Duration;

/// Why the other end of a connection is not believed to be a peer. The connection closes; the other
/// end is told nothing of the reason.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Distrust {
    /// It speaks TLS, this node does not.
    #[error("it speaks TLS and this node does not: give this node a certificate too")]
    SpeaksTls,
    /// This node speaks TLS, it does not.
    #[error("it does not speak TLS: give it a certificate too, if it is a peer")]
    SpeaksNoTls,
    /// It ended the connection in the middle of the TLS handshake.
    #[error(
        "it ended the connection in the TLS handshake: it may have no TLS, or is no peer; \
         its log says why"
    )]
    Hangs,
    /// It refused this node's certificate, and does not say why.
    #[error("it refused this node's certificate: its log says why")]
    RefusedUs,
    /// It showed no certificate.
    #[error("it showed no certificate: peers need one")]
    NoCertificate,
    /// Its certificate is no longer valid.
    #[error("its certificate expired {} ago: renew it, and look at both clocks", Rough(*.ago))]
    Expired {
        /// For how long it has not been valid.
        ago: Duration,
    },
    /// Its certificate is not valid yet.
    #[error("its certificate is not valid for another {}: look at both clocks", Rough(*.wait))]
    NotYetValid {
        /// How long until it is.
        wait: Duration,
    },
    /// Its certificate is of an authority that is not trusted here.
    #[error(
        "its certificate is not of an authority trusted here: give all nodes certificates of one \
         authority, or add the other one to the file of authorities"
    )]
    UnknownIssuer,
    /// Its certificate is not meant for this end of a connection.
    #[error(
        "its certificate is not for this use: peers need client and server authentication as \
         extended key usage"
    )]
    WrongUsage,
    /// Its certificate is of a peer of another cluster.
    #[error("its certificate is for cluster {theirs:?}, this is cluster {ours:?}")]
    OtherCluster {
        /// This node's cluster.
        ours: String,
        /// The cluster in the certificate.
        theirs: String,
    },
    /// Its certificate is good but not one of a peer: a client's, for example.
    #[error(
        "its certificate is not one of a peer: it names {names:?}, and a peer's names \
         spiffe://{cluster}/peer/NODE"
    )]
    NotAPeer {
        /// The names in the certificate, as many as fit a line.
        names: Vec<String>,
        /// This node's cluster.
        cluster: String,
    },
    /// Its certificate names more than one identity.
    #[error("its certificate has more than one spiffe:// name: issue one with exactly one")]
    SeveralIdentities,
    /// Its certificate cannot be used.
    #[error("its certificate cannot be used: {reason}")]
    BadCertificate {
        /// What is wrong with it.
        reason: String,
    },
    /// It claims to be another node than its certificate says.
    #[error("its certificate is for node {certified:?}, it says that it is {claimed:?}")]
    OtherNode {
        /// The node in the certificate.
        certified: String,
        /// What it calls itself.
        claimed: String,
    },
    /// It proves a secret that is not one of this cluster's.
    #[error(
        "it has another cluster secret (key {theirs}, here {ours}): give all nodes the same \
         secret file"
    )]
    OtherSecret {
        /// The id of its secret.
        theirs: String,
        /// The ids of the secrets known here.
        ours: String,
    },
    /// It names one of this cluster's secrets and does not know it.
    #[error("it does not know the cluster secret it names (key {theirs})")]
    WrongProof {
        /// The id of the secret.
        theirs: String,
    },
    /// It does not follow the TLS protocol, or offers nothing that is accepted here.
    #[error("TLS with it failed: {reason}")]
    Tls {
        /// What TLS says.
        reason: String,
    },
}

impl Distrust {
    /// The reason in one word, for metrics.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::SpeaksTls | Self::SpeaksNoTls | Self::Hangs => "tls_mismatch",
            Self::RefusedUs => "refused_by_peer",
            Self::NoCertificate => "no_certificate",
            Self::Expired { .. } | Self::NotYetValid { .. } => "certificate_expired",
            Self::UnknownIssuer => "unknown_authority",
            Self::OtherCluster { .. } => "wrong_cluster",
            Self::NotAPeer { .. } | Self::SeveralIdentities => "not_a_peer",
            Self::WrongUsage | Self::BadCertificate { .. } => "bad_certificate",
            Self::OtherNode { .. } => "wrong_node",
            Self::OtherSecret { .. } | Self::WrongProof { .. } => "wrong_secret",
            Self::Tls { .. } => "tls",
        }
    }
}

/// A duration for people: its largest unit is enough.
pub(super) struct Rough(pub(super) Duration);

impl fmt::Display for Rough {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.0.as_secs();
        match seconds {
            0..120 => write!(f, "{seconds} s"),
            120..7_200 => write!(f, "{} min", seconds / 60),
            7_200..172_800 => write!(f, "{} h", seconds / 3_600),
            _ => write!(f, "{} days", seconds / 86_400),
        }
    }
}
