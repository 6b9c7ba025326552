//! A client that speaks TLS to a node, shows whatever certificate the test wants and believes everybody.
#![allow(dead_code, reason = "each test file uses its own part")]

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use bytes::BytesMut;
use nearcache_protocol::frame::{self, FrameLimit, Kind};
use ring::hmac;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{ClientConfig, ClientConnection, DigitallySignedStruct, SignatureScheme, StreamOwned};

use crate::raw_peer::{RawError, socket};

/// Believes everybody.
#[derive(Debug)]
struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ECDSA_NISTP256_SHA256]
    }
}

pub(crate) type Raw = StreamOwned<ClientConnection, TcpStream>;

/// Connects with TLS, with this certificate and key if any.
pub(crate) fn connect(
    address: SocketAddr,
    shown: Option<&(String, String)>,
) -> Result<Raw, RawError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Anybody));
    let config = match shown {
        None => config.with_no_client_auth(),
        Some((certificate, key)) => config.with_client_auth_cert(
            vec![CertificateDer::from_pem_slice(certificate.as_bytes())?],
            PrivateKeyDer::from_pem_slice(key.as_bytes())?,
        )?,
    };
    let name = ServerName::IpAddress(address.ip().into());
    let mut connection = ClientConnection::new(Arc::new(config), name)?;
    let mut socket = socket(address)?;
    while connection.is_handshaking() {
        connection.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(connection, socket))
}

/// The proof of a secret, with the role and for the connection as given.
pub(crate) fn proof(secret: &str, role: u8, stream: &Raw) -> Result<Vec<u8>, RawError> {
    let challenge =
        stream
            .conn
            .export_keying_material([0_u8; 32], b"EXPORTER-nearcache-peer", None)?;
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let id = hmac::sign(&key, b"nearcache key id");
    let tag = hmac::sign(
        &key,
        &[b"nearcache peer proof 1", &[role][..], &challenge].concat(),
    );
    let mut out = BytesMut::new();
    let body = [&id.as_ref()[..8], tag.as_ref()].concat();
    frame::encode(Kind::PROOF, 0, &body, FrameLimit::HANDSHAKE, &mut out)?;
    Ok(out.to_vec())
}

/// What a connection with this certificate hears when it asks to be let in.
pub(crate) fn heard(address: SocketAddr, shown: Option<&(String, String)>) -> String {
    let outcome = connect(address, shown).and_then(|mut stream| {
        let mut byte = [0];
        Ok(stream.read_exact(&mut byte)?)
    });
    outcome
        .err()
        .map(|error| error.to_string())
        .unwrap_or_default()
}
