//! Whether a certificate is one of a peer of this cluster, and of which.
//!
//! An authority usually signs more than peers: clients, other services, other clusters. So that one
//! of it is not enough; the certificate must say that its holder is a peer, of this cluster.

use std::time::Duration;

use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, KeyUsage};

use super::distrust::Distrust;

/// Names of a certificate that a message shows.
const NAMES_SHOWN_MAX: usize = 4;

/// Characters of each of them.
const NAME_SHOWN_MAX: usize = 80;

/// What stands before the cluster in a peer's URI name, and between cluster and node.
const SCHEME: &str = "spiffe://";
const PEER: &str = "/peer/";

/// For which end of a connection a certificate is to be good.
#[derive(Debug, Clone, Copy)]
pub(crate) enum End {
    Dialer,
    Acceptor,
}

/// Whose certificate it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Certified {
    /// That of the peer with this name.
    Node(String),
    /// That of some peer: it has an allowed name.
    SomePeer,
}

/// Which certificates are believed.
#[derive(Debug)]
pub(crate) struct Trust {
    cluster: String,
    authorities: Vec<TrustAnchor<'static>>,
    allowed_names: Vec<String>,
}

impl Trust {
    pub(super) const fn new(
        cluster: String,
        authorities: Vec<TrustAnchor<'static>>,
        allowed_names: Vec<String>,
    ) -> Self {
        Self {
            cluster,
            authorities,
            allowed_names,
        }
    }

    /// Decides about a certificate that stands at one end of a connection, with those that came
    /// with it.
    pub(super) fn certify(
        &self,
        certificate: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        end: End,
        now: UnixTime,
    ) -> Result<Certified, Distrust> {
        let certificate = EndEntityCert::try_from(certificate).map_err(|e| distrust(&e, now))?;
        let usage = match end {
            End::Dialer => KeyUsage::client_auth(),
            End::Acceptor => KeyUsage::server_auth(),
        };
        certificate
            .verify_for_usage(
                webpki::ALL_VERIFICATION_ALGS,
                &self.authorities,
                intermediates,
                now,
                usage,
                None,
                None,
            )
            .map_err(|error| distrust(&error, now))?;
        self.identify(&certificate)
    }

    /// Whose certificate it is that was believed in the handshake.
    pub(crate) fn certified(
        &self,
        certificate: &CertificateDer<'_>,
    ) -> Result<Certified, Distrust> {
        let certificate = EndEntityCert::try_from(certificate)
            .map_err(|error| distrust(&error, UnixTime::now()))?;
        self.identify(&certificate)
    }

    /// Whose certificate it is by its names, whoever signed it.
    fn identify(&self, certificate: &EndEntityCert<'_>) -> Result<Certified, Distrust> {
        let mut identities = certificate
            .valid_uri_names()
            .filter(|name| name.starts_with(SCHEME));
        let identity = identities.next();
        if identities.next().is_some() {
            return Err(Distrust::SeveralIdentities);
        }
        let peer = identity
            .and_then(|name| name.strip_prefix(SCHEME))
            .and_then(|rest| rest.split_once('/'))
            .and_then(|(cluster, path)| Some((cluster, path.strip_prefix(&PEER[1..])?)))
            .filter(|(_, node)| !node.is_empty());
        match peer {
            Some((cluster, node)) if cluster == self.cluster => {
                return Ok(Certified::Node(node.to_owned()));
            }
            Some((cluster, _)) => {
                return Err(Distrust::OtherCluster {
                    ours: self.cluster.clone(),
                    theirs: shortened(cluster),
                });
            }
            None => {}
        }
        let mut names = certificate
            .valid_uri_names()
            .chain(certificate.valid_dns_names());
        if names.any(|name| self.allowed_names.iter().any(|allowed| allowed == name)) {
            return Ok(Certified::SomePeer);
        }
        let names = certificate
            .valid_uri_names()
            .chain(certificate.valid_dns_names());
        Err(Distrust::NotAPeer {
            names: names.take(NAMES_SHOWN_MAX).map(shortened).collect(),
            cluster: self.cluster.clone(),
        })
    }
}

/// The URI name of a peer's certificate.
pub(super) fn uri_name(cluster: &str, node: &str) -> String {
    format!("{SCHEME}{cluster}{PEER}{node}")
}

/// For how long the certificate is valid from `now` on; nothing if that cannot be found out.
pub(super) fn valid_for(certificate: &CertificateDer<'_>, now: UnixTime) -> Option<Duration> {
    let certificate = EndEntityCert::try_from(certificate).ok()?;
    // Nothing but the verification reads the dates, so it is asked about a time after all of them.
    let end_of_time = UnixTime::since_unix_epoch(Duration::from_secs(u64::MAX >> 1));
    let verified = certificate.verify_for_usage(
        webpki::ALL_VERIFICATION_ALGS,
        &[],
        &[],
        end_of_time,
        KeyUsage::client_auth(),
        None,
        None,
    );
    match verified.err()? {
        // Valid through the last second that it names.
        webpki::Error::CertExpired { not_after, .. } => Some(Duration::from_secs(
            (not_after.as_secs() + 1).saturating_sub(now.as_secs()),
        )),
        _ => None,
    }
}

/// What is wrong with a certificate, in words of our own.
pub(super) fn distrust(error: &webpki::Error, now: UnixTime) -> Distrust {
    use webpki::Error;
    match error {
        Error::CertExpired { not_after, .. } => Distrust::Expired {
            ago: Duration::from_secs(now.as_secs().saturating_sub(not_after.as_secs())),
        },
        Error::CertNotValidYet { not_before, .. } => Distrust::NotYetValid {
            wait: Duration::from_secs(not_before.as_secs().saturating_sub(now.as_secs())),
        },
        // An authority of the same name with another key is another authority.
        Error::UnknownIssuer | Error::InvalidSignatureForPublicKey => Distrust::UnknownIssuer,
        Error::RequiredEkuNotFoundContext(_) => Distrust::WrongUsage,
        other => Distrust::BadCertificate {
            reason: other.to_string(),
        },
    }
}

/// A name of a stranger as it may stand in a log: not longer than a line, nothing unprintable.
fn shortened(name: &str) -> String {
    name.chars()
        .take(NAME_SHOWN_MAX)
        .flat_map(char::escape_default)
        .collect()
}
