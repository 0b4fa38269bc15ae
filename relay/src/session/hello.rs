//! The first line of a session, and whether to believe it.

use openssh::sshsig;
use russh::{ChannelMsg, ChannelReadHalf};
use wire::Hello;
use wire::lines::TargetLine;

use super::{Error, Login, quoted};
use crate::lines::{Lines, Piece};

/// Reads the hello, believes it only with the receipt key that the CA named, and says by how many seconds the target's
/// clock is ahead of ours.
pub(super) async fn first_line(read: &mut ChannelReadHalf, lines: &mut Lines, login: &Login<'_>) -> Result<i64, Error> {
    let piece = loop {
        if let Some(piece) = lines.next_piece() {
            break piece;
        }
        match read.wait().await {
            Some(ChannelMsg::Data { data }) => lines.push(&data),
            Some(ChannelMsg::ExtendedData { data, .. }) => {
                let text = quoted(&String::from_utf8_lossy(&data));
                tracing::warn!(target_name = %login.host.name, %text, "standard error of the far end");
            }
            Some(ChannelMsg::ExitStatus { exit_status }) => {
                return Err(Error::Protocol(format!(
                    "agent-exec ended with exit code {exit_status} before its hello"
                )));
            }
            Some(ChannelMsg::Failure) => return Err(Error::Protocol("sshd refused the command".to_owned())),
            Some(ChannelMsg::Close) | None => {
                return Err(Error::Protocol(
                    "the session ended before the target's hello".to_owned(),
                ));
            }
            Some(_) => {}
        }
    };
    let Piece::Line(line) = piece else {
        return Err(Error::Protocol("the first line is too long".to_owned()));
    };
    let sealed = match TargetLine::parse(&line) {
        Ok(TargetLine::Hello(sealed)) => sealed,
        Ok(TargetLine::Refused { code, .. }) => return Err(Error::LineRefused(code)),
        Ok(TargetLine::Answer(_)) => return Err(Error::Protocol("an answer before the hello".to_owned())),
        Err(error) => {
            tracing::warn!(target_name = %login.host.name, error = %quoted(&error.to_string()), "not a hello");
            return Err(Error::Protocol("the first line is not a hello".to_owned()));
        }
    };
    sealed
        .verify(login.receipt_key, sshsig::HELLO)
        .map_err(|error| Error::Receipt(format!("hello: {error}")))?;
    let hello = Hello::parse(sealed.payload.as_bytes()).map_err(|error| {
        tracing::warn!(target_name = %login.host.name, error = %quoted(&error.to_string()), "the hello cannot be read");
        Error::Protocol("the hello cannot be read".to_owned())
    })?;
    if !hello.versions.contains(&wire::VERSION) {
        return Err(Error::Version(format!("{:?}", hello.versions)));
    }
    if hello.target != login.host.name {
        return Err(Error::Receipt("hello: it is another target's".to_owned()));
    }
    Ok(hello.now.cast_signed().saturating_sub((login.now)().cast_signed()))
}
