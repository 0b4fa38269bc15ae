//! The first line of a session, and whether to believe it.

use openssh::sshsig;
use russh::{ChannelMsg, ChannelReadHalf};
use tokio::time::Instant;
use wire::ids::TargetName;
use wire::limits::SKEW_S;
use wire::lines::TargetLine;
use wire::{Code, Hello};

use super::{Error, Far, quoted};
use crate::lines::{Lines, Piece};

/// Bytes of the far end's standard error that a channel may put into the operator's log.
const STANDARD_ERROR_BYTES: usize = 2048;

/// The standard error of the far end, for the operator, as far as it is kept.
#[derive(Debug, Default)]
pub(super) struct StandardError {
    seen: usize,
}

impl StandardError {
    pub(super) fn log(&mut self, data: &[u8], target: &TargetName) {
        let left = STANDARD_ERROR_BYTES.saturating_sub(self.seen);
        self.seen = self.seen.saturating_add(data.len());
        let data = data.get(..left).unwrap_or(data);
        if !data.is_empty() {
            let text = quoted(&String::from_utf8_lossy(data));
            tracing::warn!(target_name = %target, %text, "standard error of the far end");
        }
    }
}

/// The target's clock, as far as a hello told.
#[derive(Debug, Clone, Copy)]
pub(super) struct Clock {
    /// By how many seconds it was ahead of ours.
    pub(super) ahead_s: i64,
    now: u64,
    seen: Instant,
}

impl Clock {
    /// The time there now, at least: counted from the hello on, whatever our clock was set to since. Two clocks of which
    /// both are slewed differ by a thousandth of the time at most.
    pub(super) fn now(&self) -> u64 {
        let passed = self.seen.elapsed();
        self.now.saturating_add((passed - passed / 1000).as_secs())
    }
}

/// Whether a target can say this of the session itself, before any line. Whoever says anything else there is none: a Code of
/// policy, or of the relay's credentials, would be handed up as the target's own word.
fn is_of_no_line(code: Code) -> bool {
    matches!(code, Code::OriginalCommand | Code::ConfigInvalid | Code::LogUnavailable)
}

/// Reads the hello, believes it only with the receipt key that the CA named, and says what time it is there. Where the two
/// clocks differ too much nothing may be asked: it would be refused, or hold for too long.
pub(super) async fn first_line(
    read: &mut ChannelReadHalf,
    lines: &mut Lines,
    standard_error: &mut StandardError,
    far: &Far,
) -> Result<Clock, Error> {
    let piece = loop {
        if let Some(piece) = lines.next_piece() {
            break piece;
        }
        match read.wait().await {
            Some(ChannelMsg::Data { data }) => lines.push(&data),
            Some(ChannelMsg::ExtendedData { data, .. }) => standard_error.log(&data, &far.name),
            Some(ChannelMsg::ExitStatus { exit_status }) => {
                return Err(Error::Protocol(format!(
                    "agent-exec ended with exit code {exit_status} before its hello"
                )));
            }
            Some(ChannelMsg::Failure) => return Err(Error::Protocol("sshd refused the command".to_owned())),
            // Without an exit code: agent-exec was ended, or sshd's process for the session was.
            Some(ChannelMsg::Close) | None => {
                return Err(Error::Unreachable(
                    "the session ended before the target's hello".to_owned(),
                ));
            }
            Some(_) => {}
        }
    };
    let seen = Instant::now();
    let Piece::Line(line) = piece else {
        return Err(Error::Protocol("the first line is too long".to_owned()));
    };
    let sealed = match TargetLine::parse(&line) {
        Ok(TargetLine::Hello(sealed)) => sealed,
        Ok(TargetLine::Refused { line: 0, code }) if is_of_no_line(code) => return Err(Error::NotServed(code)),
        Ok(TargetLine::Refused { line, code }) => {
            tracing::warn!(target_name = %far.name, line, %code, "a refusal in the place of the hello");
            return Err(Error::Protocol(
                "a refusal that no target has before its hello".to_owned(),
            ));
        }
        Ok(TargetLine::Answer(_)) => return Err(Error::Protocol("an answer before the hello".to_owned())),
        Err(error) => {
            tracing::warn!(target_name = %far.name, error = %quoted(&error.to_string()), "not a hello");
            return Err(Error::Protocol("the first line is not a hello".to_owned()));
        }
    };
    sealed
        .verify(&far.receipt_key, sshsig::HELLO)
        .map_err(|error| Error::Receipt(format!("hello: {error}")))?;
    let hello = Hello::parse(sealed.payload.as_bytes()).map_err(|error| {
        tracing::warn!(target_name = %far.name, error = %quoted(&error.to_string()), "the hello cannot be read");
        Error::Protocol("the hello cannot be read".to_owned())
    })?;
    if !hello.versions.contains(&wire::VERSION) {
        return Err(Error::Version(format!("{:?}", hello.versions)));
    }
    if hello.target != far.name {
        return Err(Error::Receipt("hello: it is another target's".to_owned()));
    }
    let ahead_s = hello.now.cast_signed().saturating_sub((far.now)().cast_signed());
    if ahead_s.unsigned_abs() > SKEW_S {
        return Err(Error::Clock(ahead_s));
    }
    Ok(Clock {
        ahead_s,
        now: hello.now,
        seen,
    })
}
