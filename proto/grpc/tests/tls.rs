//! Both ends of the TLS between relay and CA, against each other and against everybody else.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use grpc::tls::{Client, HANDSHAKE, HandshakeError, Server};
use openssh::key::{PublicKey, SigningKey};
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::{TLS12, TLS13};
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, NamedGroup, ProtocolVersion, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use zeroize::Zeroizing;

const CA: u8 = 1;
const RELAY: u8 = 2;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Zeroizing::new([seed; 32])).unwrap()
}

fn only(seed: u8) -> impl Fn(&PublicKey) -> bool + Send + Sync + 'static {
    move |shown| shown == key(seed).public()
}

/// The CA's end as it is, for the relay.
fn ca() -> Server {
    Server::new(&key(CA), only(RELAY)).unwrap()
}

/// The relay's end as it is, for the CA.
fn relay() -> Client {
    Client::new(&key(RELAY), only(CA)).unwrap()
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// An ed25519 key of `seed` as a library of its own would use it.
fn library_key(seed: u8) -> (KeyPair, Arc<dyn rustls::sign::SigningKey>) {
    let mut der = vec![
        0x30, 0x2e, 0x02, 0x01, 0x00, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x04, 0x22, 0x04, 0x20,
    ];
    der.extend_from_slice(&[seed; 32]);
    let der = PrivatePkcs8KeyDer::from(der);
    let signer = aws_lc_rs::sign::any_eddsa_type(&der).unwrap();
    (KeyPair::try_from(&der).unwrap(), signer)
}

/// A certificate of this key, by another library.
fn certified(seed: u8, params: &CertificateParams) -> CertifiedKey {
    let (pair, signer) = library_key(seed);
    CertifiedKey::new(vec![params.self_signed(&pair).unwrap().der().clone()], signer)
}

/// The same, as libraries make it when nobody says how.
fn plainly(seed: u8) -> CertifiedKey {
    certified(seed, &CertificateParams::default())
}

/// Somebody else's client: what it shows and which versions it speaks is up to it, and it believes every server.
fn stranger(shows: Option<CertifiedKey>, versions: &[&'static SupportedProtocolVersion]) -> ClientConfig {
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Believer));
    match shows {
        Some(shows) => config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(shows))),
        None => config.with_no_client_auth(),
    }
}

#[derive(Debug)]
struct Believer;

impl ServerCertVerifier for Believer {
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
        aws_lc_rs::default_provider()
            .signature_verification_algorithms
            .supported_schemes()
    }
}

async fn connect(config: ClientConfig, stream: TcpStream) -> io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let name = ServerName::try_from("ca.writ.internal").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// What the CA makes of such a client, which never reads a byte of it.
async fn refusal(config: ClientConfig) -> HandshakeError {
    let (near, far) = pair().await;
    let server = ca();
    let (served, read) = tokio::join!(async { server.accept(far).await.map(drop) }, async {
        // The client's half of a TLS 1.3 handshake is over before it hears what became of it.
        let mut stream = connect(config, near).await?;
        stream.write_all(b"PRI * HTTP/2.0").await?;
        stream.read_u8().await
    });
    assert!(read.is_err(), "it was answered");
    served.expect_err("it was let in")
}

/// A server that wants no certificate.
fn server_with(shows: CertifiedKey) -> TlsAcceptor {
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(SingleCertAndKey::from(shows)));
    TlsAcceptor::from(Arc::new(config))
}

/// REQ-CARPC-24, REQ-CARPC-26
#[tokio::test]
async fn both_sides_meet_in_tls_1_3_with_mlkem_and_http_2() {
    let (near, far) = pair().await;
    let (server, client) = (ca(), relay());
    let (served, stream) = tokio::join!(server.accept(far), client.connect(near));
    let ((served, shown), stream) = (served.unwrap(), stream.unwrap());
    assert_eq!(shown, *key(RELAY).public());
    let (there, here) = (served.get_ref().1, stream.get_ref().1);
    assert_eq!(here.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(here.alpn_protocol(), Some(&b"h2"[..]));
    let exchange = there.negotiated_key_exchange_group().unwrap();
    assert_eq!(exchange.name(), NamedGroup::X25519MLKEM768);
    assert_eq!(there.server_name(), None, "nothing is said about whom we want");
}

/// REQ-CARPC-26
#[tokio::test]
async fn nothing_is_resumed() {
    // This client keeps what tickets it gets, and would come back with them.
    let config = stranger(Some(plainly(RELAY)), &[&TLS13]);
    let server = ca();
    for _ in 0..3 {
        let (near, far) = pair().await;
        let (served, stream) = tokio::join!(server.accept(far), connect(config.clone(), near));
        let (mut served, mut stream) = (served.unwrap().0, stream.unwrap());
        served.write_all(b"x").await.unwrap();
        assert_eq!(stream.read_u8().await.unwrap(), b'x');
        assert_eq!(served.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(stream.get_ref().1.tls13_tickets_received(), 0);
    }
}

/// REQ-CARPC-24
#[tokio::test]
async fn no_client_cert() {
    let refused = refusal(stranger(None, &[&TLS13])).await;
    assert!(matches!(refused, HandshakeError::NoKey), "{refused}");
}

/// REQ-CARPC-24
#[tokio::test]
async fn a_key_that_nobody_is_known_by_is_refused_and_named() {
    let refused = refusal(stranger(Some(plainly(9)), &[&TLS13])).await;
    let HandshakeError::UnknownKey(shown) = &refused else {
        panic!("{refused}")
    };
    assert_eq!(shown, key(9).public());
    assert!(refused.to_string().contains(&shown.fingerprint()), "{refused}");
}

/// REQ-CARPC-24, REQ-CARPC-27: certificates are no secret; whoever saw one can show it. The signature is what counts.
#[tokio::test]
async fn a_certificate_without_its_key_is_refused_on_both_sides() {
    let shows = CertifiedKey::new(plainly(RELAY).cert, library_key(9).1);
    let refused = refusal(stranger(Some(shows), &[&TLS13])).await;
    assert!(matches!(refused, HandshakeError::Broken(_)), "{refused}");

    let (near, far) = pair().await;
    let server = server_with(CertifiedKey::new(plainly(CA).cert, library_key(9).1));
    let client = relay();
    let (served, stream) = tokio::join!(server.accept(far), client.connect(near));
    assert!(served.is_err());
    assert!(matches!(stream.unwrap_err(), HandshakeError::Broken(_)));
}

/// REQ-CARPC-24
#[tokio::test]
async fn a_key_of_another_kind_is_refused() {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
    let der = PrivatePkcs8KeyDer::from(pair.serialize_der());
    let shown = CertificateParams::default().self_signed(&pair).unwrap().der().clone();
    let shows = CertifiedKey::new(vec![shown], aws_lc_rs::sign::any_ecdsa_type(&der.into()).unwrap());
    // It has nothing to sign with that the CA would take, and so it shows nothing.
    let refused = refusal(stranger(Some(shows), &[&TLS13])).await;
    assert!(matches!(refused, HandshakeError::NoKey), "{refused}");
}

/// REQ-CARPC-25: whoever holds the key could write other dates; a key ends when it is taken out of the other side's file.
#[tokio::test]
async fn the_dates_names_and_issuers_of_a_certificate_say_nothing() {
    let mut expired = CertificateParams::new(vec!["mallory.example".to_owned()]).unwrap();
    expired.not_before = rcgen::date_time_ymd(2001, 1, 1);
    expired.not_after = rcgen::date_time_ymd(2001, 1, 2);
    let mut early = CertificateParams::default();
    early.not_before = rcgen::date_time_ymd(2999, 1, 1);
    for params in [expired, early] {
        let (near, far) = pair().await;
        let server = ca();
        let config = stranger(Some(certified(RELAY, &params)), &[&TLS13]);
        let (served, stream) = tokio::join!(server.accept(far), connect(config, near));
        assert_eq!(served.unwrap().1, *key(RELAY).public());
        stream.unwrap();

        let (near, far) = pair().await;
        let (server, client) = (server_with(certified(CA, &params)), relay());
        let (_, stream) = tokio::join!(server.accept(far), client.connect(near));
        stream.unwrap();
    }
}

/// REQ-CARPC-27
#[tokio::test]
async fn a_relay_sends_nothing_to_a_server_with_another_key() {
    let (near, far) = pair().await;
    let (server, client) = (server_with(plainly(9)), relay());
    let (served, stream) = tokio::join!(server.accept(far), client.connect(near));
    let refused = stream.unwrap_err();
    let HandshakeError::UnknownKey(shown) = &refused else {
        panic!("{refused}")
    };
    assert_eq!(shown, key(9).public());
    // An alert, and never the end of a handshake: the server never came as far as a byte of a call.
    let alert = served.unwrap_err();
    assert!(alert.to_string().contains("CertificateUnknown"), "{alert}");
}

/// REQ-CARPC-24
#[tokio::test]
async fn tls_1_2_is_refused() {
    let refused = refusal(stranger(Some(plainly(RELAY)), &[&TLS12])).await;
    let HandshakeError::Broken(why) = refused else {
        panic!("{refused}")
    };
    assert!(why.to_string().contains("peer is incompatible"), "{why}");
}

/// REQ-CARPC-24
#[tokio::test]
async fn what_is_not_tls_is_refused() {
    let sent: [&[u8]; 4] = [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"\x16\x03\x01\xff\xff\xff\xff",
        b"",
    ];
    for sent in sent {
        let (mut near, far) = pair().await;
        near.write_all(sent).await.unwrap();
        near.shutdown().await.unwrap();
        let refused = ca().accept(far).await.map(drop).unwrap_err();
        assert!(matches!(refused, HandshakeError::Broken(_)), "{refused}");
    }
}

/// REQ-CARPC-28
#[tokio::test]
async fn whoever_does_not_go_on_is_let_go() {
    // Silent from the beginning, and in the middle of its first message; as a client, and as a server.
    let begun = Instant::now();
    let late = |sent: &'static [u8]| async move {
        let (mut near, far) = pair().await;
        near.write_all(sent).await.unwrap();
        let refused = ca().accept(far).await.map(drop).unwrap_err();
        drop(near);
        refused
    };
    let mute = async {
        let (near, far) = pair().await;
        let refused = relay().connect(near).await.map(drop).unwrap_err();
        drop(far);
        refused
    };
    let (one, two, three) = tokio::join!(late(b""), late(b"\x16\x03\x01\x01\x00\x01"), mute);
    for refused in [one, two, three] {
        assert!(matches!(refused, HandshakeError::Late), "{refused}");
    }
    assert!(begun.elapsed() >= HANDSHAKE && begun.elapsed() < HANDSHAKE + Duration::from_secs(5));
}
