//! From an address to a login: algorithms, host verification, authentication.
//!
//! Waited for, each a way there and back: TCP; the versions; the lists of algorithms; the key exchange; the word that one
//! may log in; whether the certificate would do; the login. SSH and its library leave no way to save one of them.
//!
//! The host is verified inside the key exchange, before anything is offered to it. A host certificate is checked for
//! its CA, type, principal, validity and options; a pinned key must be the very key. Nothing else is ever accepted.

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use openssh::certificate::{self, HostTerms};
use openssh::key::PublicKey;
use russh::client::{self, AuthResult, ChannelOpenHandle, Config, Handle, Msg};
use russh::keys::PublicKeyOrCertificate;
use russh::keys::ssh_key::{self, Algorithm};
use russh::{Channel, ChannelOpenFailure, Disconnect, Preferred, cipher, compression, kex, mac};
use tokio::net::TcpStream;
use tokio::time::Instant;
use wire::ids::TargetName;

use super::quick::{Hold, Quick};
use super::{CONNECT, Error, GOODBYE, Login, plain, within};

/// How long a silent connection is kept before the other end is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// How many such questions may stay unanswered: a peer that is gone is given up after 30 s.
const KEEPALIVE_MAX: usize = 2;

/// Where a target is and how it is recognised.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name, which is also the principal of its host certificate.
    pub name: TargetName,
    /// `host:port`.
    pub address: String,
    /// What it is recognised by.
    pub trust: Trust,
}

/// What a host is recognised by.
#[derive(Debug, Clone)]
pub enum Trust {
    /// This very key.
    Key(PublicKey),
    /// A host certificate of this CA, with the target's name as its principal.
    Ca(PublicKey),
}

/// A connection to a verified host, with nobody logged in.
pub(super) struct Connected {
    handle: Handle<Guard>,
    hold: Hold,
    /// When TCP stood.
    pub(super) reached: Instant,
}

/// A connection with the task logged in.
pub(super) struct LoggedIn {
    pub(super) handle: Handle<Guard>,
}

/// Connects to a target and verifies the host, without logging in.
///
/// # Errors
/// [`Error::Unreachable`], [`Error::HostKeyUnknown`] or [`Error::HostKeyChanged`].
pub async fn probe(host: &Host, now: fn() -> u64) -> Result<(), Error> {
    let Connected { handle, hold, .. } = within(CONNECT, "connection", connect(host, now)).await?;
    LoggedIn { handle }.leave().await;
    drop(hold);
    Ok(())
}

pub(super) async fn connect(host: &Host, now: fn() -> u64) -> Result<Connected, Error> {
    let unreachable = |error: std::io::Error| Error::Unreachable(error.kind().to_string());
    let stream = TcpStream::connect(&host.address).await.map_err(unreachable)?;
    let reached = Instant::now();
    let (stream, hold) = Quick::new(stream).map_err(unreachable)?;
    let guard = Guard {
        host: host.clone(),
        now,
    };
    let handle = client::connect_stream(config(&host.trust), stream, guard)
        .await
        .map_err(|stop| match stop {
            Stop::Host(error) => error,
            Stop::Ssh(error) => Error::Unreachable(plain(&error)),
        })?;
    Ok(Connected { handle, hold, reached })
}

pub(super) async fn log_in(mut connected: Connected, login: &Login<'_>) -> Result<(LoggedIn, Hold), Error> {
    let certificate = certificate::read(login.certificate)
        .map_err(|error| Error::Protocol(format!("the CA's certificate: {error}")))?;
    let key = Arc::new(login.key.private().clone());
    match connected
        .handle
        .authenticate_openssh_cert(wire::LOGIN, key, certificate)
        .await
    {
        Ok(result) if result.success() => {
            let Connected { handle, hold, .. } = connected;
            Ok((LoggedIn { handle }, hold))
        }
        // A refusal names what would be accepted. Without that it was no word of sshd's: the connection broke.
        Ok(AuthResult::Failure { remaining_methods, .. }) if remaining_methods.is_empty() => {
            Err(Error::Unreachable("the connection broke in the login".to_owned()))
        }
        Ok(_) => Err(Error::LoginRefused(
            "sshd did not accept the task's certificate".to_owned(),
        )),
        Err(error) => Err(Error::Unreachable(plain(&error))),
    }
}

impl LoggedIn {
    /// Says goodbye, without waiting for an answer.
    pub(super) async fn leave(&self) {
        let goodbye = self.handle.disconnect(Disconnect::ByApplication, "", "");
        let _ = tokio::time::timeout(GOODBYE, goodbye).await;
    }
}

/// The narrow set. Everything here is in OpenSSH 9.2's defaults or newer; nothing wider is offered.
fn config(trust: &Trust) -> Arc<Config> {
    const KEX: &[kex::Name] = &[
        kex::MLKEM768X25519_SHA256,
        kex::CURVE25519,
        kex::CURVE25519_PRE_RFC_8731,
        kex::EXTENSION_SUPPORT_AS_CLIENT,
        kex::EXTENSION_OPENSSH_STRICT_KEX_AS_CLIENT,
    ];
    // The inventory pins ed25519 only, so that a host with several keys shows that one.
    const KEYS: &[Algorithm] = &[Algorithm::Ed25519];
    let host_key_certificates: &[Algorithm] = match trust {
        Trust::Key(_) => &[],
        Trust::Ca(_) => KEYS,
    };
    Arc::new(Config {
        preferred: Preferred {
            kex: Cow::Borrowed(KEX),
            // Offered beside certificates too, to be able to say that a host has none.
            key: Cow::Borrowed(KEYS),
            host_key_certificates: Cow::Borrowed(host_key_certificates),
            cipher: Cow::Borrowed(&[cipher::AES_256_GCM, cipher::AES_128_GCM]),
            // Not used with GCM, which authenticates by itself; the list may not be empty.
            mac: Cow::Borrowed(&[mac::HMAC_SHA512_ETM, mac::HMAC_SHA256_ETM]),
            compression: Cow::Borrowed(&[compression::NONE]),
        },
        keepalive_interval: Some(KEEPALIVE),
        keepalive_max: KEEPALIVE_MAX,
        // Before the login there are no keepalives: this ends a host that falls silent in the key exchange.
        inactivity_timeout: Some(KEEPALIVE * 4),
        nodelay: true,
        ..Config::default()
    })
}

/// What answers to the far end while we connect, and after.
pub(super) struct Guard {
    host: Host,
    now: fn() -> u64,
}

/// Why the key exchange was stopped.
#[derive(Debug)]
pub(super) enum Stop {
    Host(Error),
    Ssh(russh::Error),
}

impl From<russh::Error> for Stop {
    fn from(error: russh::Error) -> Self {
        Self::Ssh(error)
    }
}

impl Guard {
    fn recognise(&self, shown: &PublicKeyOrCertificate) -> Result<(), Error> {
        let fingerprint = shown.public_key().fingerprint(ssh_key::HashAlg::Sha256);
        match (&self.host.trust, shown.certificate()) {
            (Trust::Key(pinned), None) if &pinned.key_data() == shown.public_key().key_data() => Ok(()),
            (Trust::Key(pinned), _) => {
                let pinned = pinned.fingerprint();
                Err(Error::HostKeyChanged(format!(
                    "pinned is {pinned}, the host shows {fingerprint}"
                )))
            }
            (Trust::Ca(_), None) => Err(Error::HostKeyUnknown(format!(
                "the host shows the bare key {fingerprint}, not a certificate"
            ))),
            (Trust::Ca(ca), Some(shown)) => {
                let terms = HostTerms {
                    ca,
                    principal: self.host.name.as_str(),
                    now: (self.now)(),
                    skew_s: wire::limits::SKEW_S,
                };
                certificate::check_host(shown, &terms)
                    .map_err(|error| Error::HostKeyUnknown(format!("host certificate: failed to {error}")))
            }
        }
    }
}

/// A target never opens a channel towards us.
async fn refuse(reply: ChannelOpenHandle) -> Result<(), Stop> {
    reply.reject(ChannelOpenFailure::AdministrativelyProhibited).await;
    Ok(())
}

impl client::Handler for Guard {
    type Error = Stop;

    async fn check_server_key(&mut self, shown: &PublicKeyOrCertificate) -> Result<bool, Stop> {
        self.recognise(shown).map(|()| true).map_err(Stop::Host)
    }

    async fn server_channel_open_forwarded_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Stop> {
        refuse(reply).await
    }

    async fn server_channel_open_forwarded_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Stop> {
        refuse(reply).await
    }

    async fn server_channel_open_agent_forward(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Stop> {
        refuse(reply).await
    }

    async fn server_channel_open_session(
        &mut self,
        _: Channel<Msg>,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Stop> {
        refuse(reply).await
    }

    async fn server_channel_open_direct_tcpip(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Stop> {
        refuse(reply).await
    }

    async fn server_channel_open_direct_streamlocal(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Stop> {
        refuse(reply).await
    }

    async fn server_channel_open_x11(
        &mut self,
        _: Channel<Msg>,
        _: &str,
        _: u32,
        reply: ChannelOpenHandle,
        _: &mut client::Session,
    ) -> Result<(), Stop> {
        refuse(reply).await
    }
}
