//! Answers that are given again: as they are kept for a day, and as they can be told from the log alone.

use audit::Draft;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use wire::ids::{Digest, Head};
use wire::{Code, Encoding, Outcome, Status, Stream, VERSION};

use crate::answer::{Reply, said};
use crate::ledger::Kept;

/// Longest text of a stream that is kept, in bytes.
const TEXT: usize = 64 * 1024;

/// What is kept of an answer: all of it, but for the end of a long output.
pub(crate) fn keep(reply: &Reply) -> Kept {
    let mut outcome = reply.outcome.clone();
    Kept {
        output: cut(reply.output.as_deref(), outcome.output.as_mut()),
        stderr: cut(reply.stderr.as_deref(), outcome.stderr.as_mut()),
        outcome,
    }
}

/// A text as it is kept, and what its Outcome then says of it.
fn cut(text: Option<&str>, stream: Option<&mut Stream>) -> Option<String> {
    let (text, stream) = (text?, stream?);
    if text.len() <= TEXT {
        return Some(text.to_owned());
    }
    // Three bytes are four characters of base64, and TEXT is a multiple of four.
    let kept = &text[..text.floor_char_boundary(TEXT)];
    stream.sent_sha256 = Digest::of(kept.as_bytes());
    stream.truncated = true;
    debug_assert!(stream.encoding == Encoding::Text || STANDARD.decode(kept).is_ok());
    Some(kept.to_owned())
}

/// An answer that was kept, marked as one.
pub(crate) fn again(kept: Kept, now: u64) -> Reply {
    Reply {
        outcome: Outcome {
            replayed: true,
            now,
            ..kept.outcome
        },
        output: kept.output,
        stderr: kept.stderr,
    }
}

/// What the log says of a request whose answer was not kept. The outputs are not in the log.
pub(crate) fn recorded(request_sha256: Digest, end: &Draft, head: &Head, now: u64) -> Kept {
    let status = end.status.unwrap_or(Status::Unknown);
    let code = match status {
        Status::Ok => None,
        _ => Some(end.code.unwrap_or(Code::OutcomeUnknown)),
    };
    let told = "from the log: the answer itself was lost, and its output with it";
    let message = match &end.message {
        Some(message) => format!("{message} ({told})"),
        None => told.to_owned(),
    };
    Kept {
        outcome: Outcome {
            v: VERSION,
            request_sha256,
            status,
            code,
            message: Some(said(&message)),
            exit_code: end.exit_code,
            signal: end.signal,
            output: None,
            stderr: None,
            resources: end.resources,
            duration_ms: end.duration_ms.unwrap_or(0),
            replayed: true,
            manifest_differs: false,
            walls: end.walls.clone().unwrap_or_default(),
            manifest: end.manifest.clone(),
            serial: end.cert.as_ref().map(|cert| cert.serial.clone()),
            head: Some(head.clone()),
            now,
        },
        output: None,
        stderr: None,
    }
}
