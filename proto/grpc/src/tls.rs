//! TLS between a relay and the CA: version 1.3 only, and each side knows the other by an ed25519 key.
//!
//! The only file that knows rustls. TLS wants certificates, so each side wraps its key into one, in memory. Of the other
//! side's certificate the key is read and nothing else: who issued it, for which name and until when is what its owner wrote,
//! and whoever holds the key can write it anew. A key counts for as long as the other side's configuration names it. That
//! its owner is at the other end is proved by the signature of the handshake, which is always checked. Nothing is resumed:
//! each connection proves both keys again (RFC 8446, 2.2 would let a ticket outlive a key that is no longer named).

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use openssh::key::{KeyError, PublicKey, SigningKey};
use rcgen::{CertificateParams, DistinguishedName, PKCS_ED25519, PublicKeyData, SerialNumber, SignatureAlgorithm};
use rustls::client::Resumption;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName as Name, OtherError, PeerIncompatible,
    ServerConfig, SignatureScheme,
};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use zeroize::Zeroizing;

/// The CA's end of a connection.
pub type Served = tokio_rustls::server::TlsStream<TcpStream>;
/// The relay's end of a connection.
pub type Connected = tokio_rustls::client::TlsStream<TcpStream>;

/// How long the other side may take for its half of a handshake.
pub const HANDSHAKE: Duration = Duration::from_secs(5);

/// The one protocol that is spoken inside: HTTP/2, as gRPC wants it.
const ALPN: &[u8] = b"h2";

/// What a relay calls the CA. It is not looked up, not sent, and no certificate has to say it.
const CA_NAME: &str = "ca.writ.internal";

/// What comes before the 32 bytes of an ed25519 key in a SubjectPublicKeyInfo (RFC 8410, 4).
const PUBLIC_DER: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// What comes before the 32 bytes of its private half in PKCS #8 (RFC 8410, 7).
const PRIVATE_DER: [u8; 16] = [
    0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
];

/// Why a key cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// It has no private half in the form that TLS wants.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The library refuses it.
    #[error("use the key for TLS: {0}")]
    Library(String),
}

/// Why there is no connection. Each text can follow "failed to".
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The other side is not one of those that are known.
    #[error("recognise the key {}, which the other side has", .0.fingerprint())]
    UnknownKey(PublicKey),
    /// The other side shows no key.
    #[error("see a key: the other side shows none")]
    NoKey,
    /// The other side does not go on.
    #[error("shake hands within {} s", HANDSHAKE.as_secs())]
    Late,
    /// Whatever else went wrong: no TLS at all, or an older version of it, included.
    #[error("shake hands")]
    Broken(#[source] io::Error),
}

/// The CA's side.
#[derive(Clone)]
pub struct Server(TlsAcceptor);

/// The relay's side.
#[derive(Clone)]
pub struct Client(TlsConnector);

impl Server {
    /// A side that has this key, and takes whom `known` knows. That is asked in each handshake, and must not take long.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(
        key: &SigningKey,
        known: impl Fn(&PublicKey) -> bool + Send + Sync + 'static,
    ) -> Result<Self, SetupError> {
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(library)?
            .with_client_cert_verifier(Pinned::new(known))
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(envelope(key)?)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.send_tls13_tickets = 0;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(Self(TlsAcceptor::from(Arc::new(config))))
    }

    /// Takes a connection, and says by which key the other side is known.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn accept(&self, stream: TcpStream) -> Result<(Served, PublicKey), HandshakeError> {
        let stream = within(self.0.accept(stream)).await?;
        let key = stream.get_ref().1.peer_certificates().and_then(|shown| shown.first());
        match key.and_then(key_of) {
            Some(key) => Ok((stream, key)),
            None => Err(HandshakeError::NoKey),
        }
    }
}

impl Client {
    /// A side that has this key, and goes on with a server that `known` knows. Nothing but a greeting is sent before that.
    ///
    /// # Errors
    /// [`SetupError`].
    pub fn new(
        key: &SigningKey,
        known: impl Fn(&PublicKey) -> bool + Send + Sync + 'static,
    ) -> Result<Self, SetupError> {
        let mut config = ClientConfig::builder_with_provider(Arc::new(provider()))
            .with_protocol_versions(&[&TLS13])
            .map_err(library)?
            .dangerous()
            .with_custom_certificate_verifier(Pinned::new(known))
            .with_client_cert_resolver(Arc::new(SingleCertAndKey::from(envelope(key)?)));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.enable_sni = false;
        config.resumption = Resumption::disabled();
        Ok(Self(TlsConnector::from(Arc::new(config))))
    }

    /// Makes a connection. That the server has taken us is known when it answers something.
    ///
    /// # Errors
    /// [`HandshakeError`].
    pub async fn connect(&self, stream: TcpStream) -> Result<Connected, HandshakeError> {
        let name = ServerName::try_from(CA_NAME).map_err(|error| HandshakeError::Broken(io::Error::other(error)))?;
        within(self.0.connect(name, stream)).await
    }
}

async fn within<T>(handshake: impl Future<Output = io::Result<T>>) -> Result<T, HandshakeError> {
    match timeout(HANDSHAKE, handshake).await {
        Ok(done) => done.map_err(told),
        Err(_) => Err(HandshakeError::Late),
    }
}

fn told(error: io::Error) -> HandshakeError {
    let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(CertificateError::Other(OtherError(why)))) => {
            match why.downcast_ref::<Unknown>() {
                Some(Unknown(key)) => HandshakeError::UnknownKey(key.clone()),
                None => HandshakeError::Broken(error),
            }
        }
        Some(rustls::Error::NoCertificatesPresented) => HandshakeError::NoKey,
        _ => HandshakeError::Broken(error),
    }
}

/// The key exchanges are those of SSH to the targets (docs/adr/0007), in the same order.
fn provider() -> CryptoProvider {
    CryptoProvider {
        kx_groups: vec![aws_lc_rs::kx_group::X25519MLKEM768, aws_lc_rs::kx_group::X25519],
        ..aws_lc_rs::default_provider()
    }
}

fn library(error: impl fmt::Display) -> SetupError {
    SetupError::Library(error.to_string())
}

/// A key in the certificate that it signs itself.
fn envelope(key: &SigningKey) -> Result<CertifiedKey, SetupError> {
    let mut private = Zeroizing::new(PRIVATE_DER.to_vec());
    private.extend_from_slice(key.seed()?.as_slice());
    let signer = aws_lc_rs::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(private.as_slice())).map_err(library)?;
    let owner = Owner {
        public: key.public(),
        signer: signer.as_ref(),
    };
    let mut params = CertificateParams::default();
    params.serial_number = Some(SerialNumber::from(1));
    params.distinguished_name = DistinguishedName::new();
    let certificate = params.self_signed(&owner).map_err(library)?;
    Ok(CertifiedKey::new(vec![certificate.der().clone()], signer))
}

/// Signs the envelope: the library that lays it out never sees the private key.
struct Owner<'a> {
    public: &'a PublicKey,
    signer: &'a dyn rustls::sign::SigningKey,
}

impl PublicKeyData for Owner<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.public.as_bytes()
    }

    fn algorithm(&self) -> &'static SignatureAlgorithm {
        &PKCS_ED25519
    }
}

impl rcgen::SigningKey for Owner<'_> {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        let signer = self.signer.choose_scheme(&[SignatureScheme::ED25519]);
        let signature = signer.and_then(|signer| signer.sign(message).ok());
        signature.ok_or(rcgen::Error::RemoteKeyError)
    }
}

/// The key in a certificate, if it is an ed25519 key.
fn key_of(certificate: &CertificateDer<'_>) -> Option<PublicKey> {
    let info = ParsedCertificate::try_from(certificate).ok()?.subject_public_key_info();
    let key = info.as_ref().strip_prefix(&PUBLIC_DER)?;
    Some(PublicKey::from_bytes(key.try_into().ok()?))
}

/// Knows the other side by its key.
struct Pinned {
    known: Box<dyn Fn(&PublicKey) -> bool + Send + Sync>,
    provider: CryptoProvider,
}

/// A key that nobody is known by.
#[derive(Debug, thiserror::Error)]
#[error("nobody is known by the key {}", .0.fingerprint())]
struct Unknown(PublicKey);

impl Pinned {
    fn new(known: impl Fn(&PublicKey) -> bool + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Self {
            known: Box::new(known),
            provider: provider(),
        })
    }

    fn check(&self, certificate: &CertificateDer<'_>) -> Result<(), rustls::Error> {
        let key = key_of(certificate).ok_or(CertificateError::BadEncoding)?;
        if (self.known)(&key) {
            return Ok(());
        }
        Err(CertificateError::Other(OtherError(Arc::new(Unknown(key)))).into())
    }

    fn check_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            certificate,
            signed,
            &self.provider.signature_verification_algorithms,
        )
    }
}

impl fmt::Debug for Pinned {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Pinned").finish_non_exhaustive()
    }
}

/// Never asked for: there is no TLS 1.2 here.
fn no_tls12() -> rustls::Error {
    rustls::Error::PeerIncompatible(PeerIncompatible::ServerDoesNotSupportTls12Or13)
}

impl ClientCertVerifier for Pinned {
    fn root_hint_subjects(&self) -> &[Name] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(no_tls12())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.check_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
