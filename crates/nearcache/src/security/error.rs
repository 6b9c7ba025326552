//! Why the files that prove who a node is cannot be used.

use std::io;
use std::path::PathBuf;

use super::distrust::Distrust;

/// One of the [`PeerTlsFiles`](super::PeerTlsFiles).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerTlsFile {
    /// The certificate.
    Certificate,
    /// Its private key.
    Key,
    /// The authorities.
    Ca,
    /// The cluster's secret.
    Secret,
}

impl std::fmt::Display for PeerTlsFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Certificate => "certificate",
            Self::Key => "key",
            Self::Ca => "authority",
            Self::Secret => "cluster secret",
        })
    }
}

/// Why a node does not start with its [`PeerTls`](super::PeerTls), or goes on with what it had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PeerTlsError {
    /// The file cannot be read.
    #[error("cannot read the {file} file {}", path.display())]
    Unreadable {
        /// Which file.
        file: PeerTlsFile,
        /// Where it is.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is larger than any of its kind.
    #[error("the {file} file {} has more than {limit_bytes} bytes: is it the right one?", path.display())]
    TooLarge {
        /// Which file.
        file: PeerTlsFile,
        /// Where it is.
        path: PathBuf,
        /// The most it may have.
        limit_bytes: u64,
    },
    /// Others than the owner have access to what must stay secret.
    #[error(
        "the {file} file {} has mode {mode:04o}, others have access; run: chmod 600 {}",
        path.display(), path.display()
    )]
    Exposed {
        /// Which file.
        file: PeerTlsFile,
        /// Where it is.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// The file does not hold what it should.
    #[error("the {file} file {} cannot be used: {reason}", path.display())]
    Unusable {
        /// Which file.
        file: PeerTlsFile,
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A secret is too short or too long, or there are too many.
    #[error(
        "{} must hold one secret of 32 to 1024 visible ASCII characters on a line of its own, or two \
         while one replaces the other; make one with: \
         (umask 077; head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n' > {})",
        path.display(), path.display()
    )]
    UnusableSecret {
        /// Where it is.
        path: PathBuf,
    },
    /// The private key is of another certificate.
    #[error("the key {} does not belong to the certificate {}", key.display(), certificate.display())]
    OtherKey {
        /// The key.
        key: PathBuf,
        /// The certificate.
        certificate: PathBuf,
    },
    /// Peers would not believe the certificate, by the authorities and rules of this node.
    #[error(
        "peers would refuse the certificate {} by the authorities in {}: {reason}",
        certificate.display(), ca.display()
    )]
    Refused {
        /// The certificate.
        certificate: PathBuf,
        /// The authorities.
        ca: PathBuf,
        /// Why.
        reason: Distrust,
    },
    /// The certificate is of another node.
    #[error(
        "the certificate {} is for node {certified:?}, but this node is named {named:?}: \
         name it {certified:?}, or issue a certificate for spiffe://{cluster}/peer/{named}",
        certificate.display()
    )]
    OtherName {
        /// The certificate.
        certificate: PathBuf,
        /// The node it is for.
        certified: String,
        /// What this node is called.
        named: String,
        /// Its cluster.
        cluster: String,
    },
    /// The cluster's name cannot stand in a certificate.
    #[error(
        "cluster {cluster:?} cannot use TLS: its name must have no `/`, which certificates need"
    )]
    ClusterName {
        /// The name.
        cluster: String,
    },
}

impl PeerTlsError {
    /// The file to look at, if it is one.
    #[must_use]
    pub const fn file(&self) -> Option<PeerTlsFile> {
        match self {
            Self::Unreadable { file, .. }
            | Self::TooLarge { file, .. }
            | Self::Exposed { file, .. }
            | Self::Unusable { file, .. } => Some(*file),
            Self::UnusableSecret { .. } => Some(PeerTlsFile::Secret),
            Self::OtherKey { .. } => Some(PeerTlsFile::Key),
            Self::Refused { .. } | Self::OtherName { .. } => Some(PeerTlsFile::Certificate),
            Self::ClusterName { .. } => None,
        }
    }
}
