//! SSH to a target: the only place that knows it.
//!
//! A [`Connection`] is one login with one task's key on one target, and shared with nobody else. A [`Session`] is one of
//! its channels for one user: lines go out in order and are answered in order. A connection has more than one only where
//! calls of the task run at the same time. The host is verified before anything is offered to it, and nothing is ever
//! trusted because it was seen first. What the target says is bounded, timed, and handed up unbelieved: whoever asked
//! verifies the signatures.

mod channel;
mod dial;
mod hello;
mod open;
mod places;
mod quick;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use openssh::key::{PublicKey, SigningKey};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout};
use wire::Code;
use wire::ids::{TargetName, TaskId};
use wire::lines::{Answer, RelayLine};

use channel::Channel;
pub use dial::{Host, Trust, probe};
pub use places::InUse;
use places::{Place, Places};

/// Longest time from the first packet to a verified host.
const CONNECT: Duration = Duration::from_secs(8);
/// Longest time for the login.
const LOGIN: Duration = Duration::from_secs(8);
/// Longest time for each of a channel and the target's first line on it.
const HELLO: Duration = Duration::from_secs(5);
/// Longest time for a connection with its first session, tried more than once where need be.
const OPEN: Duration = Duration::from_secs(8);
/// Longest time to hand a line to the connection. It takes longer only when the target does not read.
const WRITE: Duration = Duration::from_secs(10);
/// Longest time to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// Bytes of a text of the far end that are shown to the operator.
const QUOTED_BYTES: usize = 2048;

/// Why there is no session, or no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// No connection, or it broke before the login.
    #[error("reach the target: {0}")]
    Unreachable(String),
    /// The host showed a key that is not the pinned one.
    #[error("recognise the host key: {0}")]
    HostKeyChanged(String),
    /// The host showed no key or certificate that is trusted for this target.
    #[error("trust the host: {0}")]
    HostKeyUnknown(String),
    /// sshd did not accept the certificate.
    #[error("log in: {0}")]
    LoginRefused(String),
    /// The far end broke the protocol.
    #[error("follow the target's protocol: {0}")]
    Protocol(String),
    /// The far end speaks no version of ours.
    #[error("find a common version: the target speaks {0}")]
    Version(String),
    /// A signature of the target does not hold.
    #[error("verify the target's signature: {0}")]
    Receipt(String),
    /// The target's clock is so many seconds ahead of ours, or behind: too many.
    #[error("agree about the time: its clock is {} s {} the relay's", .0.unsigned_abs(), if *.0 > 0 { "ahead of" } else { "behind" })]
    Clock(i64),
    /// The certificate becomes valid in so many seconds only.
    #[error("use a certificate that becomes valid in {0} s")]
    NotYetValid(u64),
    /// All sessions of the connection are in use, and too many wait for one, or for too long.
    #[error("get a session: all are in use")]
    Busy,
    /// sshd opens no channel.
    #[error("open a channel: sshd refused it")]
    ChannelRefused,
    /// The target serves nobody: it said so in the place of its hello, and reads nothing.
    #[error("be served: {0}")]
    NotServed(Code),
    /// The target refused the line.
    #[error("have the line accepted: {0}")]
    LineRefused(Code),
    /// The connection went before the line was sent: nothing of it arrived.
    #[error("send the line: {0}")]
    NotSent(String),
    /// The connection went, or time ran out, after the line was sent.
    #[error("get the answer: {0}")]
    NoAnswer(String),
    /// No answer in time.
    #[error("get the answer in {0:?}")]
    TimedOut(Duration),
}

/// What a connection is opened with.
pub struct Login<'a> {
    /// The task, for the log of the far sshd and our own.
    pub task: &'a TaskId,
    /// Where, and how it is recognised.
    pub host: &'a Host,
    /// The task's key on this target.
    pub key: &'a SigningKey,
    /// The task certificate, in OpenSSH's text form.
    pub certificate: &'a str,
    /// The target's receipt key, as the CA knows it.
    pub receipt_key: &'a PublicKey,
    /// Our clock, Unix seconds.
    pub now: fn() -> u64,
    /// By how many seconds the target's clock was ahead of ours when it was last seen; `None` when that is not known.
    pub ahead_s: Option<i64>,
}

/// How many sessions a connection may have, and how long it and they are kept unused.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Most channels of one connection. sshd's own limit, `MaxSessions`, is 10 where nobody set it.
    pub channels: usize,
    /// How long a channel beyond the first is kept unused.
    pub channel_idle: Duration,
    /// How long a connection is kept unused.
    pub connection_idle: Duration,
}

/// The far end of a connection, as it has to prove itself.
#[derive(Clone)]
struct Far {
    name: TargetName,
    receipt_key: PublicKey,
    now: fn() -> u64,
}

/// A task's connection to a target. Dropped, it ends when the sessions that are in use have ended.
pub struct Connection {
    places: Arc<Places>,
    /// Seconds that were waited for the certificate, until the session of a call has them.
    waited_s: AtomicU64,
}

impl Connection {
    /// Connects, verifies the host, logs in, asks for the protocol and presents the certificate. What the network did is
    /// tried again for a while, what somebody decided is not. `room` is let go when the connection is over.
    ///
    /// # Errors
    /// Any [`Error`] that speaks of the connection, the host or the login.
    pub async fn open(login: &Login<'_>, bounds: Bounds, room: OwnedSemaphorePermit) -> Result<Self, Error> {
        let open::Opened { places, hold, waited } = open::open(login, bounds).await?;
        tokio::spawn(Arc::clone(&places).keep(hold, room));
        Ok(Self {
            places,
            waited_s: AtomicU64::new(waited.as_secs()),
        })
    }

    /// A session, in the order of asking: one that nobody uses, or a new one, or the first that comes free within
    /// `patience`. The hello of a new one may be on its way still.
    ///
    /// # Errors
    /// [`Error::NotSent`] when the connection is over; [`Error::Busy`]; [`Error::LineRefused`] and what
    /// [`Session::greeted`] says, where the connection is good for nothing more.
    pub async fn session(&self, patience: Duration) -> Result<Session, Error> {
        let place = self.places.take(patience).await?;
        Ok(Session {
            channel: Arc::clone(&place.channel),
            places: Arc::clone(&self.places),
            waited_s: self.waited_s.swap(0, Ordering::Relaxed),
            place: Some(place),
        })
    }

    /// Presents a renewed certificate on every channel. It is answered only when refused, which ends the
    /// connection's use.
    pub fn present(&self, certificate: &str) {
        self.places.present(certificate);
    }

    /// Whether the connection still stands, as far as is known.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.places.is_alive()
    }

    /// Since when nobody uses it; `None` while somebody does, or when it is over.
    #[must_use]
    pub fn idle_since(&self) -> Option<Instant> {
        self.places.idle_since().filter(|_| self.is_alive())
    }

    /// Keeps the connection from being closed for nobody's using it, until what is returned is dropped.
    #[must_use]
    pub fn in_use(&self) -> InUse {
        self.places.in_use()
    }

    /// Waits for the first hello, and says how many seconds the target's clock was ahead of ours; `None` where the hello
    /// cannot be believed.
    pub async fn ahead_s(&self) -> Option<i64> {
        self.places.ahead_s().await
    }

    /// Gives no more sessions. The connection ends when those in use have ended.
    pub fn retire(&self) {
        self.places.retire();
    }

    /// Ends the connection at once. Whoever waits for an answer learns `why`.
    pub fn close(&self, why: &str) {
        self.places.end(why);
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.places.retire();
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Connection").finish_non_exhaustive()
    }
}

/// A session that one call has for itself. Dropped, it is the next one's, once what was asked on it is answered.
pub struct Session {
    channel: Arc<Channel>,
    places: Arc<Places>,
    waited_s: u64,
    /// `Some` until it is dropped.
    place: Option<Place>,
}

impl Session {
    /// Waits for the hello: from then on it is known that the far end is the target, and that its clock agrees with ours.
    ///
    /// # Errors
    /// What [`Session::ask`] says of the hello. It is [`Error::NotSent`] where the connection broke, or where only this
    /// channel of it went: nothing was asked, and the caller asks on another connection.
    pub async fn greeted(&self) -> Result<(), Error> {
        let greeted = self.channel.greeted().await;
        greeted
            .map(drop)
            .map_err(|error| self.places.unasked(&self.channel, error))
    }

    /// Sends lines with nothing between them (certificates first, where the question needs any), and waits for the
    /// answer to the last of them, which nobody has verified yet. It does not wait for the hello, and no answer is taken
    /// before it.
    ///
    /// # Errors
    /// [`Error::NotSent`] when nothing of it can have arrived; [`Error::LineRefused`] when the target could not read
    /// it; [`Error::NotServed`], [`Error::Receipt`], [`Error::Version`], [`Error::Clock`], [`Error::Protocol`] and [`Error::Unreachable`] when the
    /// far end did not say hello as the target does; otherwise nobody knows, and the session is over.
    pub async fn ask(&self, lines: &[RelayLine], patience: Duration) -> Result<Answer, Error> {
        let certificate = self.places.certificate();
        self.channel.ask(&certificate, lines, patience).await
    }

    /// How many seconds its call waited for the certificate to become valid.
    #[must_use]
    pub fn waited_s(&self) -> u64 {
        self.waited_s
    }

    /// What time it is at the target, Unix seconds: not earlier than this, whatever our clock was set to since its hello. 0
    /// before its hello.
    #[must_use]
    pub fn target_now(&self) -> u64 {
        self.channel.target_now()
    }

    /// The Code with which the target refused a certificate of the newest question, or the task's, if it did.
    #[must_use]
    pub fn certificate_refused(&self) -> Option<Code> {
        self.channel.refused_beside()
    }

    /// Has the connection give no more sessions.
    pub fn retire(&self) {
        self.places.retire();
    }

    /// Ends the whole connection at once, for this target is not to be trusted. Whoever waits for an answer learns
    /// `why`.
    pub fn close(&self, why: &str) {
        self.places.end(why);
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(place) = self.place.take() {
            self.channel.park(Box::new(place));
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Session").finish_non_exhaustive()
    }
}

async fn within<T>(limit: Duration, what: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    match timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(Error::Unreachable(format!("no {what} within {} s", limit.as_secs()))),
    }
}

/// What broke, in our own words: the library's can hold names that the far end chose.
fn plain(error: &russh::Error) -> String {
    tracing::debug!(error = %quoted(&error.to_string()), "ssh");
    match error {
        russh::Error::IO(error) => error.kind().to_string(),
        russh::Error::NoCommonAlgo { kind, .. } => format!("no common {kind:?} algorithm"),
        russh::Error::Version => "it does not speak SSH".to_owned(),
        russh::Error::KexInit | russh::Error::Kex | russh::Error::WrongServerSig => {
            "the key exchange failed".to_owned()
        }
        russh::Error::Disconnect | russh::Error::HUP | russh::Error::SendError | russh::Error::RecvError => {
            "the connection was closed".to_owned()
        }
        russh::Error::ConnectionTimeout
        | russh::Error::KeepaliveTimeout
        | russh::Error::InactivityTimeout
        | russh::Error::Elapsed(_) => "it fell silent".to_owned(),
        russh::Error::ChannelOpenFailure(_) | russh::Error::RequestDenied => "sshd refused the channel".to_owned(),
        russh::Error::Join(_) => "the connection's task failed".to_owned(),
        _ => "the SSH protocol was broken".to_owned(),
    }
}

/// Text of the far end for the operator's log: escaped and cut.
fn quoted(text: &str) -> String {
    wire::text::escaped(text, QUOTED_BYTES)
}
