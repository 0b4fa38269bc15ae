//! SSH to a target: the only place that knows it.
//!
//! A [`Session`] is one channel of one connection, opened with one task's key on one target and shared with nobody
//! else. Lines go out in order and are answered in order. The host is verified before anything is offered to it, and
//! nothing is ever trusted because it was seen first. What the target says is bounded, timed, and handed up unbelieved:
//! whoever asked verifies the signatures.

mod dial;
mod hello;
mod quick;

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use openssh::key::SigningKey;
use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use wire::Code;
use wire::ids::{TargetName, TaskId};
use wire::lines::{Answer, RelayLine, TargetLine};

use crate::lines::{Lines, Piece};
pub use dial::{Host, Trust, probe};

/// Longest time from the first packet to a verified host.
const CONNECT: Duration = Duration::from_secs(10);
/// Longest time for the login.
const LOGIN: Duration = Duration::from_secs(10);
/// Longest time from the login to the target's first line.
const HELLO: Duration = Duration::from_secs(5);
/// Longest time to hand a line to the connection. It takes longer only when the target does not read.
const WRITE: Duration = Duration::from_secs(10);
/// Bytes of the far end's standard error that are kept for the operator.
const STDERR_BYTES: usize = 2048;

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

/// What a session is opened with.
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
    pub receipt_key: &'a openssh::key::PublicKey,
    /// Our clock, Unix seconds.
    pub now: fn() -> u64,
}

/// An open session.
pub struct Session {
    target: TargetName,
    ahead_s: i64,
    writer: tokio::sync::Mutex<Writer>,
    shared: Arc<Shared>,
    /// Ends the connection's keeper when dropped.
    _alive: mpsc::Sender<()>,
}

struct Writer {
    half: ChannelWriteHalf<Msg>,
    sent: u64,
}

struct Shared {
    state: Mutex<State>,
    /// Told when somebody begins to wait.
    asked: Notify,
}

struct State {
    waiting: VecDeque<Waiting>,
    /// When the turn of the first of them came.
    turn: Instant,
    /// Why the session is over, once it is.
    over: Option<String>,
    /// The Code with which the target refused a certificate line, if it did.
    certificate_refused: Option<Code>,
}

struct Waiting {
    line: u64,
    /// How long it may take once its turn has come: the target answers in order.
    patience: Duration,
    answer: Answered,
}

/// Where an answer is waited for.
type Answered = oneshot::Sender<Result<Answer, Error>>;

impl State {
    /// The one whose answer came; the turn passes on.
    fn next(&mut self) -> Option<Waiting> {
        self.turn = Instant::now();
        self.waiting.pop_front()
    }
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the queue whole: it is only pushed to and popped from.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When the first who waits gives up. `None` when nobody waits.
    fn deadline(&self) -> Option<Instant> {
        let state = self.state();
        state.waiting.front().map(|waiting| state.turn + waiting.patience)
    }

    /// The first who waits has waited too long. Answers come in order, so all others get none either.
    fn time_out(&self) {
        let first = self.state().waiting.pop_front();
        self.end("an answer did not come in time");
        if let Some(waiting) = first {
            let _ = waiting.answer.send(Err(Error::TimedOut(waiting.patience)));
        }
    }

    /// Ends the session: whoever waits learns why.
    fn end(&self, why: &str) {
        let mut state = self.state();
        if state.over.is_none() {
            state.over = Some(why.to_owned());
        }
        for waiting in state.waiting.drain(..) {
            let _ = waiting.answer.send(Err(Error::NoAnswer(why.to_owned())));
        }
        // The keeper looks again, and leaves.
        self.asked.notify_one();
    }
}

impl Session {
    /// Connects, verifies the host, logs in, asks for the protocol and presents the certificate; then reads and
    /// verifies the hello.
    ///
    /// # Errors
    /// Any [`Error`] that speaks of the connection, the host, the login or the hello.
    pub async fn open(login: &Login<'_>) -> Result<Self, Error> {
        let connection = within(CONNECT, "connection", dial::connect(login.host, login.now)).await?;
        let connection = within(LOGIN, "login", dial::log_in(connection, login)).await?;
        within(HELLO, "first line", Self::start(connection, login)).await
    }

    async fn start(connection: dial::LoggedIn, login: &Login<'_>) -> Result<Self, Error> {
        let protocol = |error: russh::Error| Error::Protocol(plain(&error));
        let channel = connection.handle.channel_open_session().await.map_err(protocol)?;
        channel.exec(false, wire::EXEC).await.map_err(protocol)?;
        let (mut read, half) = channel.split();
        // Not waiting for the hello saves a round trip: both lines are on their way at once.
        let certificate = RelayLine::Certificate(login.certificate.to_owned()).to_line();
        half.data_bytes(certificate.into_bytes()).await.map_err(protocol)?;
        let mut lines = Lines::new(wire::limits::LINE_OUT);
        let ahead_s = hello::first_line(&mut read, &mut lines, login).await?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                turn: Instant::now(),
                over: None,
                certificate_refused: None,
            }),
            asked: Notify::new(),
        });
        let (alive, gone) = mpsc::channel(1);
        let keeper = Keeper {
            read,
            lines,
            shared: Arc::clone(&shared),
            target: login.host.name.clone(),
        };
        tokio::spawn(keep(keeper, connection, gone));
        Ok(Self {
            target: login.host.name.clone(),
            ahead_s,
            writer: tokio::sync::Mutex::new(Writer { half, sent: 1 }),
            shared,
            _alive: alive,
        })
    }

    /// How many seconds the target's clock was ahead of ours when the session began.
    #[must_use]
    pub fn ahead_s(&self) -> i64 {
        self.ahead_s
    }

    /// The Code with which the target refused this session's certificate, if it did.
    #[must_use]
    pub fn certificate_refused(&self) -> Option<Code> {
        self.shared.state().certificate_refused
    }

    /// Whether the connection still stands, as far as is known.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        let state = self.shared.state();
        state.over.is_none() && state.certificate_refused.is_none()
    }

    /// Sends a request and waits for its answer, which nobody has verified yet. `patience` begins when the requests
    /// before it are answered.
    ///
    /// # Errors
    /// [`Error::NotSent`] when nothing of it can have arrived; [`Error::LineRefused`] when the target could not read
    /// it; otherwise nobody knows, and the session is over.
    pub async fn ask(&self, line: &RelayLine, patience: Duration) -> Result<Answer, Error> {
        let (answer, answered) = oneshot::channel();
        self.send(line, Some((patience, answer))).await?;
        self.shared.asked.notify_one();
        match answered.await {
            Ok(answer) => answer,
            Err(_) => Err(Error::NoAnswer("the connection's keeper is gone".to_owned())),
        }
    }

    /// Presents a renewed certificate. It is answered only when refused, which ends the session's use.
    ///
    /// # Errors
    /// [`Error::NotSent`].
    pub async fn present(&self, certificate: &str) -> Result<(), Error> {
        self.send(&RelayLine::Certificate(certificate.to_owned()), None).await
    }

    /// Ends the session at once. Whoever waits for an answer learns `why`.
    pub fn close(&self, why: &str) {
        self.shared.end(why);
    }

    async fn send(&self, line: &RelayLine, answer: Option<(Duration, Answered)>) -> Result<(), Error> {
        let bytes = line.to_line().into_bytes();
        if bytes.len() > wire::limits::LINE_IN {
            return Err(Error::NotSent("the line is too long".to_owned()));
        }
        let mut writer = self.writer.lock().await;
        writer.sent += 1;
        {
            let mut state = self.shared.state();
            if let Some(why) = &state.over {
                return Err(Error::NotSent(why.clone()));
            }
            if let Some((patience, answer)) = answer {
                if state.waiting.is_empty() {
                    state.turn = Instant::now();
                }
                let line = writer.sent;
                state.waiting.push_back(Waiting { line, patience, answer });
            }
        }
        match timeout(WRITE, writer.half.data_bytes(bytes)).await {
            Ok(Ok(())) => Ok(()),
            // Part of the line may be out: the session cannot be used again, and nobody knows what arrived.
            Ok(Err(error)) => {
                self.close(&plain(&error));
                Err(Error::NoAnswer(plain(&error)))
            }
            Err(_) => {
                self.close("the target does not read");
                Err(Error::NoAnswer("the target does not read".to_owned()))
            }
        }
    }
}

impl std::fmt::Debug for Session {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("Session")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// Reads the channel for as long as the session lives.
struct Keeper {
    read: ChannelReadHalf,
    lines: Lines,
    shared: Arc<Shared>,
    target: TargetName,
}

async fn keep(mut keeper: Keeper, connection: dial::LoggedIn, mut gone: mpsc::Receiver<()>) {
    let why = tokio::select! {
        why = keeper.read_on() => why,
        // All handles are dropped: the task is closed.
        _ = gone.recv() => "the session was closed".to_owned(),
    };
    tracing::debug!(target_name = %keeper.target, %why, "session over");
    keeper.shared.end(&why);
    connection.leave().await;
}

impl Keeper {
    async fn read_on(&mut self) -> String {
        let mut stderr = 0_usize;
        loop {
            while let Some(piece) = self.lines.next_piece() {
                if let Err(why) = self.take(piece) {
                    return why;
                }
            }
            if let Some(why) = self.shared.state().over.clone() {
                return why;
            }
            let message = tokio::select! {
                message = self.read.wait() => message,
                () = self.shared.asked.notified() => continue,
                () = until(self.shared.deadline()) => {
                    self.shared.time_out();
                    continue;
                }
            };
            match message {
                Some(ChannelMsg::Data { data }) => self.lines.push(&data),
                Some(ChannelMsg::ExtendedData { data, .. }) => {
                    if stderr < STDERR_BYTES {
                        let text = quoted(&String::from_utf8_lossy(&data));
                        tracing::warn!(target_name = %self.target, %text, "standard error of the far end");
                    }
                    stderr = stderr.saturating_add(data.len());
                }
                Some(ChannelMsg::Eof | ChannelMsg::Close) => return "the target ended the session".to_owned(),
                Some(ChannelMsg::ExitStatus { exit_status }) => {
                    return format!("the target's agent-exec ended with exit code {exit_status}");
                }
                Some(ChannelMsg::ExitSignal { .. }) => return "a signal ended the target's agent-exec".to_owned(),
                Some(ChannelMsg::Failure | ChannelMsg::OpenFailure(_)) => return "sshd refused the command".to_owned(),
                Some(_) => {}
                None => return "the connection broke".to_owned(),
            }
        }
    }

    /// One line of the target, given to whoever waits for it.
    fn take(&self, piece: Piece) -> Result<(), String> {
        let Piece::Line(line) = piece else {
            return Err("the target sent a line that is too long".to_owned());
        };
        let line = TargetLine::parse(&line).map_err(|error| {
            tracing::warn!(target_name = %self.target, error = %quoted(&error.to_string()), "not a line of the protocol");
            "the target sent a line that is none".to_owned()
        })?;
        let mut state = self.shared.state();
        match line {
            TargetLine::Hello(_) => Err("the target sent a second hello".to_owned()),
            TargetLine::Answer(answer) => {
                let waiting = state.next().ok_or("the target answered what nobody asked")?;
                let _ = waiting.answer.send(Ok(answer));
                Ok(())
            }
            TargetLine::Refused { line, code } => {
                let front = state.waiting.front().map(|waiting| waiting.line);
                if front == Some(line) {
                    let waiting = state.next().ok_or("the target answered what nobody asked")?;
                    let _ = waiting.answer.send(Err(Error::LineRefused(code)));
                } else {
                    // A certificate line. What was asked after it is answered on its own; nothing new is asked here.
                    tracing::warn!(target_name = %self.target, line, %code, "the target refused a certificate");
                    state.certificate_refused = Some(code);
                }
                Ok(())
            }
        }
    }
}

async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
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
    wire::text::escaped(text, STDERR_BYTES)
}
