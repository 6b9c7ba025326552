//! An authority, the certificates it signs, and the files of a node.
#![allow(
    dead_code,
    clippy::expect_used,
    reason = "each test file uses its own part, and a helper that fails fails its test"
)]

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use nearcache::{PeerTls, PeerTlsFiles};
use rcgen::string::Ia5String;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose, SanType,
};

/// The secret of the cluster in most tests.
pub(crate) const SECRET: &str = "canary-secret-0123456789abcdef0123456789";

/// The name of the cluster in most tests.
pub(crate) const CLUSTER: &str = "test";

/// Who signs certificates.
#[derive(Debug)]
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

/// What a certificate says.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    pub(crate) names: Vec<SanType>,
    pub(crate) valid_for: Duration,
    pub(crate) began: Duration,
    pub(crate) usages: Vec<ExtendedKeyUsagePurpose>,
}

impl Leaf {
    /// That of a peer, good for a month.
    pub(crate) fn peer(cluster: &str, node: &str) -> Self {
        Self::uri(&PeerTls::uri_name(cluster, node))
    }

    pub(crate) fn uri(name: &str) -> Self {
        Self {
            names: vec![SanType::URI(Ia5String::try_from(name).expect("a URI name"))],
            valid_for: Duration::from_secs(30 * 24 * 3600),
            began: Duration::from_secs(3600),
            usages: vec![
                ExtendedKeyUsagePurpose::ClientAuth,
                ExtendedKeyUsagePurpose::ServerAuth,
            ],
        }
    }

    pub(crate) fn dns(name: &str) -> Self {
        Self {
            names: vec![SanType::DnsName(
                Ia5String::try_from(name).expect("a DNS name"),
            )],
            ..Self::uri("unused:")
        }
    }

    pub(crate) fn valid_for(self, valid_for: Duration) -> Self {
        Self { valid_for, ..self }
    }
}

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        // The same name for all: what tells authorities apart is their key.
        params
            .distinguished_name
            .push(DnType::CommonName, "test authority");
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    pub(crate) fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate and its key, both PEM.
    pub(crate) fn issue(&self, leaf: &Leaf) -> (String, String) {
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("a clock after 1970");
        let epoch = rcgen::date_time_ymd(1970, 1, 1);
        let mut params = CertificateParams::default();
        params.subject_alt_names = leaf.names.clone();
        params.extended_key_usages = leaf.usages.clone();
        params.not_before = epoch + (now - leaf.began);
        params.not_after = epoch + (now + leaf.valid_for);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        (certificate.pem(), key.serialize_pem())
    }
}

/// The files of one node, in a folder of their own that ends with the test.
#[derive(Debug)]
pub(crate) struct NodeFiles {
    folder: tempfile::TempDir,
}

impl NodeFiles {
    /// The files of a node that `authority` signed for and that trusts it.
    pub(crate) fn new(authority: &Authority, leaf: &Leaf) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let files = Self { folder };
        files.write_certificate(authority, leaf);
        files.write("ca.pem", &authority.pem(), 0o644);
        files.write("secret", SECRET, 0o600);
        files
    }

    /// The files of the peer called `node`.
    pub(crate) fn of_peer(authority: &Authority, node: &str) -> Self {
        Self::new(authority, &Leaf::peer(CLUSTER, node))
    }

    pub(crate) fn write_certificate(&self, authority: &Authority, leaf: &Leaf) {
        let (certificate, key) = authority.issue(leaf);
        self.write("node.pem", &certificate, 0o644);
        self.write("node.key", &key, 0o600);
    }

    pub(crate) fn write(&self, name: &str, text: &str, mode: u32) {
        // Whole or not at all, as a careful rotation does it.
        let (path, temporary) = (self.path(name), self.path("temporary"));
        fs::write(&temporary, text).expect("a file");
        fs::set_permissions(&temporary, fs::Permissions::from_mode(mode)).expect("its mode");
        fs::rename(&temporary, &path).expect("its name");
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        Path::new(self.folder.path()).join(name)
    }

    /// The settings that name the files; looks for changes often, as tests are impatient.
    pub(crate) fn tls(&self) -> PeerTls {
        PeerTls::new(PeerTlsFiles {
            certificate: self.path("node.pem"),
            key: self.path("node.key"),
            ca: self.path("ca.pem"),
            secret: self.path("secret"),
        })
        .reload_every(Duration::from_millis(20))
    }
}
