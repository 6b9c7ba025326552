//! Makes a connection one of a peer, before the first frame is believed.
//!
//! ```text
//! dialer ──── TLS 1.3, both with certificates ────  acceptor
//! dialer ── proof, hello ──▶ acceptor               proof: HMAC of this connection's exporter value
//! dialer ◀── proof, welcome ── acceptor             or refused
//! ```
//!
//! Without TLS in the node's configuration connections pass through as they are, and the one thing
//! that is looked at is whether the other end speaks TLS, so that the mistake is told in words.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use nearcache_protocol::frame::{self, Frame, FrameLimit, Kind};
use nearcache_protocol::handshake::{Peer, Refusal};
use nearcache_store::Timestamp;
use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ConnectionCommon, Error as TlsError, InvalidMessage};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use super::lane_stream::HandshakeError;
use super::peer_stream::PeerStream;
use super::read_ahead::ReadAhead;
use super::socket::TcpStream;
use crate::node::id_of_name;
use crate::security::secret::{
    CHALLENGE_BYTES, Challenge, EXPORTER_LABEL, KeyId, PROOF_BYTES, ProofError, Role,
};
use crate::security::trust::Certified;
use crate::security::{Distrust, Material, PeerSecurity, distrust_in};

/// The first byte of every TLS connection: a handshake record (RFC 8446, section 5.1).
const TLS_FIRST_BYTE: u8 = 0x16;

/// The first byte of a hello without TLS: the length of a frame that is below 16 MiB.
const FRAME_FIRST_BYTE: u8 = 0;

/// How long a refused end may take to hear of it, and how much of what it still says is read: a
/// socket that is closed with bytes unread takes back what it sent last.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 64 * 1024;

/// What a connection with TLS says of the other end, and what this end says of itself there.
#[derive(Debug)]
pub(super) struct Assurance {
    material: Arc<Material>,
    certified: Certified,
    challenge: Challenge,
}

/// Secures a connection that was dialled.
pub(super) async fn dialled(
    security: Option<&PeerSecurity>,
    socket: TcpStream,
    address: SocketAddr,
) -> Result<(PeerStream, Option<Assurance>), HandshakeError> {
    let Some(security) = security else {
        return Ok((PeerStream::Plain(socket), None));
    };
    let material = security.current();
    let connector = TlsConnector::from(Arc::clone(&material.client));
    // An address is not announced in the handshake, as a name would be; nor is it looked at.
    let name = ServerName::IpAddress(address.ip().into());
    let stream = connector
        .connect(name, ReadAhead::narrow(socket))
        .await
        .map_err(|error| distrust_of(&error))?;
    let challenge = challenge(stream.get_ref().1)?;
    assured(material, challenge, TlsStream::Client(stream))
}

/// Secures a connection that was accepted.
pub(super) async fn accepted(
    security: Option<&PeerSecurity>,
    mut socket: TcpStream,
) -> Result<(PeerStream, Option<Assurance>), HandshakeError> {
    let mut first = [0];
    if socket.peek(&mut first).await? == 0 {
        return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
    }
    let [first] = first;
    let Some(security) = security else {
        if first == TLS_FIRST_BYTE {
            // Nothing is said: what we would say is garbage to it.
            linger(&mut socket).await;
            return Err(Distrust::SpeaksTls.into());
        }
        return Ok((PeerStream::Plain(socket), None));
    };
    if first != TLS_FIRST_BYTE {
        if first == FRAME_FIRST_BYTE {
            // Perhaps a peer without TLS: its log shall say that it was refused.
            let _ = socket
                .write_all(&Refusal::RefusedByPeer.frame(Timestamp::ZERO))
                .await;
            linger(&mut socket).await;
        }
        return Err(Distrust::SpeaksNoTls.into());
    }
    let material = security.current();
    let acceptor = TlsAcceptor::from(Arc::clone(&material.server));
    let accepting = acceptor.accept(ReadAhead::narrow(socket)).into_fallible();
    match accepting.await {
        Ok(stream) => {
            let challenge = challenge(stream.get_ref().1)?;
            assured(material, challenge, TlsStream::Server(stream))
        }
        Err((error, mut stream)) => {
            linger(stream.socket_mut()).await;
            Err(distrust_of(&error))
        }
    }
}

/// Lets the other end read why before the connection is gone.
pub(super) async fn linger(stream: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin)) {
    let reading = async {
        let _ = stream.shutdown().await;
        let mut rest = [0; 1024];
        let mut left = LINGER_BYTES;
        while let Ok(count @ 1..) = stream.read(&mut rest).await {
            left = left.saturating_sub(count);
            if left == 0 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(LINGER, reading).await;
}

/// What proofs on this connection are bound to.
fn challenge<S>(connection: &ConnectionCommon<S>) -> Result<Challenge, Distrust> {
    connection
        .export_keying_material([0; CHALLENGE_BYTES], EXPORTER_LABEL, None)
        .map_err(|error| tls(&error))
}

fn assured(
    material: Arc<Material>,
    challenge: Challenge,
    stream: TlsStream<ReadAhead>,
) -> Result<(PeerStream, Option<Assurance>), HandshakeError> {
    let (_, connection) = stream.get_ref();
    let leaf = connection
        .peer_certificates()
        .and_then(<[_]>::first)
        .ok_or(Distrust::NoCertificate)?;
    let certified = material.trust.certified(leaf)?;
    let assurance = Assurance {
        material,
        certified,
        challenge,
    };
    Ok((PeerStream::Tls(Box::new(stream)), Some(assurance)))
}

impl Assurance {
    /// The frame with which the dialer begins.
    pub(super) fn opening(&self) -> BytesMut {
        self.proof(self.material.secrets.id_in_use(), Role::Dialer)
    }

    /// The frame with which the acceptor answers: it proves the secret that the dialer has proven.
    pub(super) fn answer(&self, id: KeyId) -> BytesMut {
        self.proof(id, Role::Acceptor)
    }

    fn proof(&self, id: KeyId, role: Role) -> BytesMut {
        let mut out = BytesMut::new();
        if let Some(proof) = self.material.secrets.prove(id, role, &self.challenge) {
            // A proof is far below the limit.
            let _ = frame::encode(Kind::PROOF, 0, &proof, FrameLimit::HANDSHAKE, &mut out);
        }
        out
    }

    /// Checks the proof of the other end, which has this role.
    pub(super) fn check_proof(&self, role: Role, frame: &Frame) -> Result<KeyId, HandshakeError> {
        if frame.kind != Kind::PROOF {
            return Err(Refusal::Unexpected {
                kind: frame.kind.0,
                expected: Kind::PROOF.0,
            }
            .into());
        }
        let secrets = &self.material.secrets;
        let checked = secrets.check(role, &self.challenge, &frame.body);
        checked
            .map_err(|error| match error {
                ProofError::Malformed => Distrust::Tls {
                    reason: format!("its proof has not the {PROOF_BYTES} bytes of one"),
                },
                ProofError::UnknownKey(theirs) => Distrust::OtherSecret {
                    theirs: theirs.to_string(),
                    ours: secrets.ids(),
                },
                ProofError::Wrong(theirs) => Distrust::WrongProof {
                    theirs: theirs.to_string(),
                },
            })
            .map_err(Into::into)
    }

    /// Checks that the other end is the node of its certificate.
    pub(super) fn check_node(&self, cluster: &str, peer: &Peer) -> Result<(), HandshakeError> {
        let Certified::Node(certified) = &self.certified else {
            return Ok(());
        };
        let is_certified =
            *peer.name == **certified && peer.identity.node == id_of_name(cluster, certified);
        if is_certified {
            return Ok(());
        }
        Err(Distrust::OtherNode {
            certified: certified.clone(),
            claimed: format!("{} ({})", peer.name.escape_default(), peer.identity.node),
        }
        .into())
    }
}

/// What made a TLS connection fail, in words of our own; failures of the network stay what they are.
pub(super) fn distrust_of(error: &std::io::Error) -> HandshakeError {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref());
    match inner {
        Some(error) => tls(error).into(),
        None if error.kind() == std::io::ErrorKind::UnexpectedEof => Distrust::Hangs.into(),
        None => std::io::Error::from(error.kind()).into(),
    }
}

fn tls(error: &TlsError) -> Distrust {
    if let Some(distrust) = distrust_in(error) {
        return distrust;
    }
    match error {
        TlsError::NoCertificatesPresented => Distrust::NoCertificate,
        TlsError::InvalidMessage(InvalidMessage::InvalidContentType) => Distrust::SpeaksNoTls,
        TlsError::AlertReceived(
            AlertDescription::CertificateUnknown
            | AlertDescription::BadCertificate
            | AlertDescription::UnknownCA
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateRequired
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::AccessDenied,
        ) => Distrust::RefusedUs,
        other => Distrust::Tls {
            reason: other.to_string(),
        },
    }
}
