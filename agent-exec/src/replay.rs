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

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(text: &str, encoding: Encoding) -> Reply {
        let stream = Stream {
            encoding,
            bytes: 1 << 20,
            sha256: Digest::of(b"all of it"),
            sent_sha256: Digest::of(text.as_bytes()),
            truncated: false,
            redactions: 3,
        };
        let end = Draft {
            status: Some(Status::Ok),
            ..Draft::new(audit::Event::Result)
        };
        let head = Head {
            log: wire::ids::LogId::of_genesis(b""),
            seq: 7,
            hash: Digest::zero(),
        };
        let mut outcome = recorded(Digest::zero(), &end, &head, 0).outcome;
        outcome.output = Some(stream.clone());
        outcome.stderr = Some(stream);
        Reply {
            outcome,
            output: Some(text.to_owned()),
            stderr: Some("short".to_owned()),
        }
    }

    /// REQ-LEDGER-8
    #[test]
    fn of_a_long_text_the_beginning_is_kept_and_its_outcome_says_so() {
        let texts = [
            ("x".repeat(TEXT), Encoding::Text, TEXT),
            ("x".repeat(TEXT + 1), Encoding::Text, TEXT),
            ("é".repeat(TEXT), Encoding::Text, TEXT),
            (format!("x{}", "é".repeat(TEXT)), Encoding::Text, TEXT - 1),
            (STANDARD.encode(vec![7; TEXT]), Encoding::Base64, TEXT),
        ];
        for (text, encoding, length) in texts {
            let reply = reply(&text, encoding);
            let kept = keep(&reply);
            let output = kept.output.unwrap();
            let stream = kept.outcome.output.unwrap();
            assert_eq!(output.len(), length);
            assert!(text.starts_with(&output));
            assert_eq!(stream.sent_sha256, Digest::of(output.as_bytes()));
            assert_eq!(stream.truncated, text.len() > length);
            assert_eq!((stream.bytes, stream.redactions), (1 << 20, 3));
            assert_eq!(kept.stderr.as_deref(), Some("short"));
        }
    }

    #[test]
    fn what_the_log_tells_is_an_outcome_that_a_relay_reads() {
        let reply = again(keep(&reply("x", Encoding::Text)), 99);
        assert!(reply.outcome.replayed && reply.outcome.now == 99);
        let message = reply.outcome.message.clone().unwrap();
        assert!(message.contains("from the log") && message.len() < wire::limits::MESSAGE);
        let text = serde_json::to_string(&reply.outcome).unwrap();
        assert_eq!(Outcome::parse(text.as_bytes()).unwrap(), reply.outcome);
    }
}
