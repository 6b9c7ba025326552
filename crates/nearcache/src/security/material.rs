//! What the files say at one moment, ready for use: keys, trust, secrets.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::client::Resumption;
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, TrustAnchor, UnixTime};
use rustls::server::NoServerSessionStorage;
use rustls::version::TLS13;
use rustls::{ClientConfig, ServerConfig};

use super::error::{PeerTlsError, PeerTlsFile};
use super::files::{Contents, Fingerprint};
use super::secret::Secrets;
use super::trust::{self, Certified, End, Trust};
use super::verifier::PeerVerifier;
use super::{PeerTls, PeerTlsFiles};

/// Everything a connection needs; replaced as a whole when the files change.
#[derive(Debug)]
pub(crate) struct Material {
    pub(crate) client: Arc<ClientConfig>,
    pub(crate) server: Arc<ServerConfig>,
    pub(crate) secrets: Secrets,
    pub(crate) trust: Arc<Trust>,
    certified: Certified,
    certificate: CertificateDer<'static>,
    fingerprint: Fingerprint,
}

impl Material {
    /// Reads the files. Blocks for a few small reads.
    pub(super) fn load(settings: &PeerTls, cluster: &str) -> Result<Self, PeerTlsError> {
        Self::from_contents(settings, cluster, &Contents::read(settings)?)
    }

    /// As [`load`](Self::load), of what was read.
    pub(super) fn from_contents(
        settings: &PeerTls,
        cluster: &str,
        contents: &Contents,
    ) -> Result<Self, PeerTlsError> {
        if cluster.contains('/') {
            // `spiffe://a/peer/b/peer/c` could otherwise be meant in two ways.
            let cluster = cluster.to_owned();
            return Err(PeerTlsError::ClusterName { cluster });
        }
        let files = &settings.files;
        let chain = certificates(
            PeerTlsFile::Certificate,
            &files.certificate,
            &contents.certificate,
        )?;
        let authorities = authorities(&files.ca, &contents.ca)?;
        let secrets = Secrets::parse(&contents.secret).ok_or_else(|| {
            let path = files.secret.clone();
            PeerTlsError::UnusableSecret { path }
        })?;
        let trust = Trust::new(
            cluster.to_owned(),
            authorities,
            settings.allowed_names.clone(),
        );
        let (certificate, certified) = own_certificate(files, &chain, &trust)?;
        let trust = Arc::new(trust);
        let (client, server) = configs(files, chain, contents, &trust)?;
        Ok(Self {
            client,
            server,
            secrets,
            trust,
            certified,
            certificate,
            fingerprint: contents.fingerprint(),
        })
    }

    /// Whether it was made of this.
    pub(super) fn is_of(&self, contents: &Contents) -> bool {
        self.fingerprint == contents.fingerprint()
    }

    /// The node that the certificate is for, if it is for one.
    pub(crate) fn node(&self) -> Option<&str> {
        match &self.certified {
            Certified::Node(node) => Some(node),
            Certified::SomePeer => None,
        }
    }

    /// How long the certificate is valid from now on; zero if it is not.
    pub(super) fn valid_for(&self) -> Duration {
        trust::valid_for(&self.certificate, UnixTime::now()).unwrap_or_default()
    }

    /// Checks that the certificate is for the node that is called `name`.
    pub(super) fn check_name(
        &self,
        files: &PeerTlsFiles,
        cluster: &str,
        name: &str,
    ) -> Result<(), PeerTlsError> {
        match self.node() {
            Some(certified) if certified != name => Err(PeerTlsError::OtherName {
                certificate: files.certificate.clone(),
                certified: certified.to_owned(),
                named: name.to_owned(),
                cluster: cluster.to_owned(),
            }),
            _ => Ok(()),
        }
    }
}

fn certificates(
    file: PeerTlsFile,
    path: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, PeerTlsError> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).collect();
    match found {
        Ok(found) if found.is_empty() => {
            Err(unusable(file, path, "it holds no certificate in PEM"))
        }
        Ok(found) => Ok(found),
        Err(error) => Err(unusable(file, path, &pem_reason(&error))),
    }
}

fn authorities(path: &Path, text: &[u8]) -> Result<Vec<TrustAnchor<'static>>, PeerTlsError> {
    let found = certificates(PeerTlsFile::Ca, path, text)?;
    let anchors = found.iter().map(|certificate| {
        webpki::anchor_from_trusted_cert(certificate).map(|anchor| anchor.to_owned())
    });
    anchors
        .collect::<Result<_, _>>()
        .map_err(|error| unusable(PeerTlsFile::Ca, path, &error.to_string()))
}

/// This node's own certificate, which its peers must believe at both ends of a connection.
fn own_certificate(
    files: &PeerTlsFiles,
    chain: &[CertificateDer<'static>],
    trust: &Trust,
) -> Result<(CertificateDer<'static>, Certified), PeerTlsError> {
    let Some((certificate, intermediates)) = chain.split_first() else {
        let reason = "it holds no certificate in PEM";
        return Err(unusable(
            PeerTlsFile::Certificate,
            &files.certificate,
            reason,
        ));
    };
    let now = UnixTime::now();
    let refused = |reason| PeerTlsError::Refused {
        certificate: files.certificate.clone(),
        ca: files.ca.clone(),
        reason,
    };
    trust
        .certify(certificate, intermediates, End::Dialer, now)
        .map_err(refused)?;
    let certified = trust
        .certify(certificate, intermediates, End::Acceptor, now)
        .map_err(refused)?;
    Ok((certificate.clone(), certified))
}

fn configs(
    files: &PeerTlsFiles,
    chain: Vec<CertificateDer<'static>>,
    contents: &Contents,
    trust: &Arc<Trust>,
) -> Result<(Arc<ClientConfig>, Arc<ServerConfig>), PeerTlsError> {
    let key = PrivateKeyDer::from_pem_slice(&contents.key)
        .map_err(|error| unusable(PeerTlsFile::Key, &files.key, &pem_reason(&error)))?;
    let tls = |error| match error {
        rustls::Error::InconsistentKeys(_) => PeerTlsError::OtherKey {
            key: files.key.clone(),
            certificate: files.certificate.clone(),
        },
        other => unusable(PeerTlsFile::Key, &files.key, &other.to_string()),
    };
    // Named here and not as the process's default: whoever embeds a node may have another one.
    let provider: Arc<CryptoProvider> = Arc::new(ring::default_provider());
    let verifier = Arc::new(PeerVerifier::new(
        Arc::clone(trust),
        provider.signature_verification_algorithms,
    ));
    let mut client = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::clone(&verifier) as _)
        .with_client_auth_cert(chain.clone(), key.clone_key())
        .map_err(tls)?;
    let mut server = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&TLS13])
        .map_err(tls)?
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .map_err(tls)?;
    // Every connection shows certificates: a resumed one would outlive the trust in them.
    client.resumption = Resumption::disabled();
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok((Arc::new(client), Arc::new(server)))
}

fn unusable(file: PeerTlsFile, path: &Path, reason: &str) -> PeerTlsError {
    PeerTlsError::Unusable {
        file,
        path: path.to_owned(),
        reason: reason.to_owned(),
    }
}

/// What is wrong with PEM, without a byte of it: it may be a key.
fn pem_reason(error: &pem::Error) -> String {
    match error {
        pem::Error::NoItemsFound => "it holds nothing of its kind in PEM",
        pem::Error::MissingSectionEnd { .. } => "a PEM section has no end: was it cut?",
        pem::Error::IllegalSectionStart { .. } => "a line that begins a PEM section is malformed",
        pem::Error::Base64Decode(_) => "a PEM section is not base64",
        _ => "it is not PEM",
    }
    .to_owned()
}
