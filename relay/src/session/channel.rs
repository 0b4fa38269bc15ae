//! One channel: one agent-exec at its far end, lines out in order, answers back in order.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use russh::client::Msg;
use russh::{ChannelMsg, ChannelReadHalf, ChannelWriteHalf};
use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, timeout};
use wire::Code;
use wire::lines::{Answer, RelayLine, TargetLine};

use super::dial::LoggedIn;
use super::hello::{self, Clock, StandardError};
use super::{Error, Far, GOODBYE, HELLO, WRITE, plain, quoted, within};
use crate::lines::{Lines, Piece};
use crate::lock::lock;

/// A task certificate, and the how-many-eth of its connection it is.
#[derive(Debug, Clone)]
pub(super) struct Certificate {
    pub(super) number: u64,
    pub(super) text: Arc<str>,
}

impl Certificate {
    fn line(&self) -> String {
        RelayLine::Certificate(self.text.to_string()).to_line()
    }
}

/// An open channel. Its first line, the hello, is read and verified by its reader, while questions may be on their way.
pub(super) struct Channel {
    greeting: watch::Receiver<Option<Greeting>>,
    writer: tokio::sync::Mutex<Writer>,
    shared: Arc<Shared>,
}

/// What the hello told, or why it cannot be believed.
type Greeting = Result<Clock, Error>;

struct Writer {
    half: ChannelWriteHalf<Msg>,
    /// Lines that were sent.
    sent: u64,
    /// Number of the newest certificate that was presented here.
    presented: u64,
}

struct Shared {
    state: Mutex<State>,
    /// Told when somebody begins to wait, and when the channel is over.
    changed: Notify,
}

struct State {
    waiting: VecDeque<Waiting>,
    /// When the turn of the first of them came.
    turn: Instant,
    /// Why the channel is over, once it is.
    over: Option<String>,
    /// The Code with which the target refused a task certificate here, if it did.
    refused: Option<Code>,
    /// Why its hello cannot be believed, if it cannot.
    unbelieved: Option<Error>,
    /// The Code with which the target refused a certificate that went out with the newest question, if it did.
    refused_beside: Option<Code>,
    /// Let go when nobody waits any more.
    parked: Option<Box<dyn Send>>,
}

struct Waiting {
    /// The first line that went out for it: certificates stand before the question.
    first: u64,
    /// The line that is answered.
    line: u64,
    /// How long it may take once its turn has come: the target answers in order.
    patience: Duration,
    answer: oneshot::Sender<Result<Answer, Error>>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere leaves the queue whole: it is only pushed to and popped from.
        lock(&self.state)
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

    /// Ends the channel: whoever waits learns why.
    fn end(&self, why: &str) {
        self.end_with(why, &Error::NoAnswer(why.to_owned()));
    }

    fn end_with(&self, why: &str, error: &Error) {
        let (waiting, parked) = {
            let mut state = self.state();
            if state.over.is_none() {
                state.over = Some(why.to_owned());
            }
            (std::mem::take(&mut state.waiting), state.parked.take())
        };
        for waiting in waiting {
            let _ = waiting.answer.send(Err(error.clone()));
        }
        drop(parked);
        // The reader looks again, and leaves.
        self.changed.notify_one();
    }

    /// Gives an answer to the first who waits; the turn passes on.
    fn give(&self, answer: Result<Answer, Error>) -> Result<(), String> {
        let (waiting, parked) = {
            let mut state = self.state();
            state.turn = Instant::now();
            let waiting = state.waiting.pop_front();
            let parked = if state.waiting.is_empty() {
                state.parked.take()
            } else {
                None
            };
            (waiting, parked)
        };
        let given = waiting.map(|waiting| waiting.answer.send(answer));
        drop(parked);
        given
            .map(|_| ())
            .ok_or("the target answered what nobody asked".to_owned())
    }
}

impl Channel {
    /// Opens a channel, asks for the protocol and presents the certificate. One round trip: sshd names the channel. What is
    /// asked of sshd, the certificate and the hello are not waited for.
    pub(super) async fn open(connection: &LoggedIn, far: &Far, certificate: &Certificate) -> Result<Arc<Self>, Error> {
        let broken = |error: russh::Error| Error::Unreachable(plain(&error));
        // The certificate too: sshd says how much it takes, and that can be nothing.
        let opened = async {
            let named = connection.handle.channel_open_session().await;
            let channel = named.map_err(|error| match error {
                russh::Error::ChannelOpenFailure(_) => Error::ChannelRefused,
                error => broken(error),
            })?;
            channel.exec(false, wire::EXEC).await.map_err(broken)?;
            let (read, half) = channel.split();
            half.data_bytes(certificate.line().into_bytes()).await.map_err(broken)?;
            Ok((read, half))
        };
        let (read, half) = within(HELLO, "channel", opened).await?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State {
                waiting: VecDeque::new(),
                turn: Instant::now(),
                over: None,
                refused: None,
                unbelieved: None,
                refused_beside: None,
                parked: None,
            }),
            changed: Notify::new(),
        });
        let (greets, greeting) = watch::channel(None);
        let channel = Arc::new(Self {
            greeting,
            writer: tokio::sync::Mutex::new(Writer {
                half,
                sent: 1,
                presented: certificate.number,
            }),
            shared: Arc::clone(&shared),
        });
        let reader = Reader {
            read,
            lines: Lines::new(wire::limits::LINE_OUT),
            standard_error: StandardError::default(),
            shared,
            far: far.clone(),
        };
        tokio::spawn(reader.run(Arc::clone(&channel), greets));
        Ok(channel)
    }

    /// Waits for the hello.
    pub(super) async fn greeted(&self) -> Greeting {
        let mut greeting = self.greeting.clone();
        let greeted = greeting.wait_for(Option::is_some).await;
        let gone = || Err(Error::Unreachable("the channel's reader is gone".to_owned()));
        greeted.ok().and_then(|greeting| greeting.clone()).unwrap_or_else(gone)
    }

    /// The target's clock now, at least; 0 before its hello.
    pub(super) fn target_now(&self) -> u64 {
        match &*self.greeting.borrow() {
            Some(Ok(clock)) => clock.now(),
            _ => 0,
        }
    }

    pub(super) fn is_alive(&self) -> bool {
        self.shared.state().over.is_none()
    }

    /// The Code with which the target refused a task certificate here, if it did.
    pub(super) fn refused(&self) -> Option<Code> {
        self.shared.state().refused
    }

    /// Why its hello cannot be believed, if it cannot.
    pub(super) fn unbelieved(&self) -> Option<Error> {
        self.shared.state().unbelieved.clone()
    }

    /// The Code of [`Channel::refused`], or the one with which it refused a certificate beside the newest question.
    pub(super) fn refused_beside(&self) -> Option<Code> {
        let state = self.shared.state();
        state.refused_beside.or(state.refused)
    }

    pub(super) fn end(&self, why: &str) {
        self.shared.end(why);
    }

    /// Keeps something until nobody waits for an answer here.
    pub(super) fn park(&self, what: Box<dyn Send>) {
        let mut state = self.shared.state();
        if state.waiting.is_empty() || state.over.is_some() {
            // Not under the lock: what is let go may look at this channel.
            drop(state);
            drop(what);
        } else {
            state.parked = Some(what);
        }
    }

    /// Sends lines as one piece, with nothing between them, and waits for the answer to the last. The certificate goes
    /// before them where it was not presented here yet.
    pub(super) async fn ask(
        &self,
        certificate: &Certificate,
        lines: &[RelayLine],
        patience: Duration,
    ) -> Result<Answer, Error> {
        let (answer, answered) = oneshot::channel();
        self.send(certificate, lines, Some((patience, answer))).await?;
        self.shared.changed.notify_one();
        match answered.await {
            Ok(answer) => answer,
            Err(_) => Err(Error::NoAnswer("the channel's reader is gone".to_owned())),
        }
    }

    /// Presents a renewed certificate, where that was not done yet. It is answered only when refused.
    pub(super) async fn present(&self, certificate: &Certificate) -> Result<(), Error> {
        self.send(certificate, &[], None).await
    }

    async fn send(
        &self,
        certificate: &Certificate,
        lines: &[RelayLine],
        question: Option<(Duration, oneshot::Sender<Result<Answer, Error>>)>,
    ) -> Result<(), Error> {
        let lines: Vec<String> = lines.iter().map(RelayLine::to_line).collect();
        if lines.iter().any(|line| line.len() > wire::limits::LINE_IN) {
            return Err(Error::NotSent("the line is too long".to_owned()));
        }
        let mut writer = self.writer.lock().await;
        let mut piece = String::new();
        if writer.presented < certificate.number {
            writer.presented = certificate.number;
            writer.sent += 1;
            piece = certificate.line();
        }
        piece.extend(lines.iter().map(String::as_str));
        let first = writer.sent + 1;
        writer.sent += lines.len() as u64;
        {
            let mut state = self.shared.state();
            if let Some(why) = &state.over {
                return Err(match &state.unbelieved {
                    // Somebody has decided: on another channel it is no different.
                    Some(error) if !matches!(error, Error::Unreachable(_)) => error.clone(),
                    _ => Error::NotSent(why.clone()),
                });
            }
            if let Some((patience, answer)) = question {
                if state.waiting.is_empty() {
                    state.turn = Instant::now();
                }
                state.refused_beside = None;
                let line = writer.sent;
                state.waiting.push_back(Waiting {
                    first,
                    line,
                    patience,
                    answer,
                });
            }
        }
        if piece.is_empty() {
            return Ok(());
        }
        // Given up in the middle, it leaves a part of a line: nothing can follow that.
        let mut whole = Whole {
            shared: &self.shared,
            written: false,
        };
        let written = timeout(WRITE, writer.half.data_bytes(piece.into_bytes())).await;
        let why = match written {
            Ok(Ok(())) => {
                whole.written = true;
                return Ok(());
            }
            Ok(Err(error)) => plain(&error),
            Err(_) => "the target does not read".to_owned(),
        };
        // Part of it may be out: the channel cannot be used again, and nobody knows what arrived.
        self.end(&why);
        drop(whole);
        Err(self.unbelieved().unwrap_or(Error::NoAnswer(why)))
    }
}

/// Ends the channel when it is dropped before all was written.
struct Whole<'a> {
    shared: &'a Shared,
    written: bool,
}

impl Drop for Whole<'_> {
    fn drop(&mut self) {
        if !self.written {
            self.shared.end("a line was cut off");
        }
    }
}

/// Reads the channel for as long as it lives.
struct Reader {
    read: ChannelReadHalf,
    lines: Lines,
    standard_error: StandardError,
    shared: Arc<Shared>,
    far: Far,
}

impl Drop for Reader {
    /// Also when it panicked: nobody waits for a reader that is gone.
    fn drop(&mut self) {
        self.shared.end("the channel's reader is gone");
    }
}

impl Reader {
    async fn run(mut self, channel: Arc<Channel>, greets: watch::Sender<Option<Greeting>>) {
        let why = match self.greeting().await {
            Ok(clock) => {
                greets.send_replace(Some(Ok(clock)));
                self.read_on().await
            }
            Err(error) => {
                let why = error.to_string();
                if !matches!(error, Error::NotSent(_)) {
                    self.shared.state().unbelieved = Some(error.clone());
                }
                self.shared.end_with(&why, &error);
                greets.send_replace(Some(Err(error)));
                why
            }
        };
        tracing::debug!(target_name = %self.far.name, %why, "channel over");
        self.shared.end(&why);
        // sshd keeps what runs at the other end until the channel is closed. Who still writes is cut off with it.
        let close = async { channel.writer.lock().await.half.close().await };
        let _ = timeout(GOODBYE, close).await;
    }

    /// The hello, and no other line before it. Whoever has asked already is answered only if it can be believed.
    async fn greeting(&mut self) -> Greeting {
        let hello = hello::first_line(&mut self.read, &mut self.lines, &mut self.standard_error, &self.far);
        let ended = async {
            loop {
                self.shared.changed.notified().await;
                if let Some(why) = self.shared.state().over.clone() {
                    return why;
                }
            }
        };
        tokio::select! {
            greeting = within(HELLO, "first line", hello) => greeting,
            why = ended => Err(Error::NotSent(why)),
        }
    }

    async fn read_on(&mut self) -> String {
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
                () = self.shared.changed.notified() => continue,
                () = until(self.shared.deadline()) => {
                    self.shared.time_out();
                    continue;
                }
            };
            match message {
                Some(ChannelMsg::Data { data }) => self.lines.push(&data),
                Some(ChannelMsg::ExtendedData { data, .. }) => self.standard_error.log(&data, &self.far.name),
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
            tracing::warn!(target_name = %self.far.name, error = %quoted(&error.to_string()), "not a line of the protocol");
            "the target sent a line that is none".to_owned()
        })?;
        match line {
            TargetLine::Hello(_) => Err("the target sent a second hello".to_owned()),
            TargetLine::Answer(answer) => self.shared.give(Ok(answer)),
            // Of no line: whatever the reason, nobody reads any more there.
            TargetLine::Refused { line: 0, code } => Err(format!("the target gave the session up: {code}")),
            TargetLine::Refused { line, code } => {
                let mut state = self.shared.state();
                let asked = state.waiting.front().map(|waiting| (waiting.first, waiting.line));
                match asked {
                    Some((_, last)) if line == last => {
                        drop(state);
                        self.shared.give(Err(Error::LineRefused(code)))
                    }
                    Some((first, last)) if (first..last).contains(&line) => {
                        tracing::warn!(target_name = %self.far.name, line, %code, "the target refused a certificate of a request");
                        state.refused_beside = Some(code);
                        Ok(())
                    }
                    _ => {
                        // What was asked after it is answered on its own; nothing new is asked here.
                        tracing::warn!(target_name = %self.far.name, line, %code, "the target refused a certificate");
                        // A second one can be no more than that it waits no longer for another.
                        state.refused.get_or_insert(code);
                        Ok(())
                    }
                }
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
