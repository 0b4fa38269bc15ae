//! Whether an answer is the target's answer to this request, and what it says.
//!
//! Pure: bytes in, a verdict out. Nothing of an answer is looked at before its signature holds.

use openssh::key::PublicKey;
use openssh::sshsig;
use wire::ids::{Digest, RequestId, TaskId};
use wire::lines::Answer;
use wire::{Code, Encoding, Outcome, Status, Stream};

use crate::call::{Act, Done};
use crate::error::{About, Refusal, RefusedBy};

/// An Outcome whose signature, request and output hashes hold.
#[must_use]
pub(super) struct Verified {
    pub(super) outcome: Outcome,
    output: String,
    stderr: String,
}

/// Verifies an answer, or says what does not hold.
pub(super) fn verify(answer: Answer, key: &PublicKey, request: &Digest) -> Result<Verified, &'static str> {
    answer
        .outcome
        .verify(key, sshsig::OUTCOME)
        .map_err(|_| "the signature is not the target's")?;
    let outcome = Outcome::parse(answer.outcome.payload.as_bytes()).map_err(|_| "the Outcome cannot be read")?;
    if &outcome.request_sha256 != request {
        return Err("it answers another request");
    }
    let output = beside(outcome.output.as_ref(), answer.output)?;
    let stderr = beside(outcome.stderr.as_ref(), answer.stderr)?;
    Ok(Verified {
        outcome,
        output,
        stderr,
    })
}

/// The text beside an Outcome is the one whose hash stands in it.
fn beside(stream: Option<&Stream>, text: Option<String>) -> Result<String, &'static str> {
    match (stream, text) {
        (None, None) => Ok(String::new()),
        (Some(stream), Some(text)) if Digest::of(text.as_bytes()) == stream.sent_sha256 => Ok(text),
        (Some(_), Some(_)) => Err("the output is not the one that was signed"),
        _ => Err("the output is missing, or was not signed"),
    }
}

/// What became of a request that got no Outcome, as far as can be known.
pub(super) fn status_of(code: Code, by: RefusedBy) -> Status {
    match code {
        // The target could not read the line, or nothing of it was sent.
        _ if by == RefusedBy::Target => Status::Refused,
        Code::SessionLost | Code::NotSent | Code::StoreUnavailable => Status::Refused,
        _ => Status::Unknown,
    }
}

/// The target's no. Its words are its own; the Code's text is ours.
pub(super) fn refusal(verified: Verified, certificate_refused: Option<Code>, about: &About) -> Refusal {
    let outcome = verified.outcome;
    let mut code = outcome.code.unwrap_or(Code::ProtocolError);
    // It refuses because it has no certificate; why it has none it said about that line.
    if matches!(code, Code::CertificateMissing | Code::ActionCertificateMissing) {
        code = certificate_refused.unwrap_or(code);
    }
    let refusal = Refusal::by(RefusedBy::Target, code, format!("failed to {}", code.text()), about);
    Refusal {
        untrusted: outcome.message,
        record: outcome.head.map(|head| head.seq),
        ..refusal
    }
}

/// What the caller gets.
pub(super) fn done(verified: Verified, task: TaskId, request: RequestId, act: Act) -> Done {
    let Verified {
        outcome,
        output,
        stderr,
    } = verified;
    let truncated = |stream: Option<&Stream>| stream.is_some_and(|stream| stream.truncated);
    Done {
        task,
        request,
        target: act.target,
        action: act.action,
        status: outcome.status,
        code: outcome.code,
        exit_code: outcome.exit_code,
        duration_ms: outcome.duration_ms,
        truncated: truncated(outcome.output.as_ref()) || truncated(outcome.stderr.as_ref()),
        output_bytes: outcome.output.as_ref().map_or(0, |stream| stream.bytes),
        encoding: outcome.output.as_ref().map_or(Encoding::Text, |stream| stream.encoding),
        manifest_differs: outcome.manifest_differs,
        record: outcome.head.map(|head| head.seq),
        output,
        stderr,
        message: outcome.message,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssh::key::SigningKey;
    use wire::seal::{self, Sealed};
    use zeroize::Zeroizing;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Zeroizing::new([seed; 32])).unwrap()
    }

    fn outcome(request: &Digest, text: &str) -> Outcome {
        let stream = Stream {
            encoding: Encoding::Text,
            bytes: 5,
            sha256: Digest::of(b"hello"),
            sent_sha256: Digest::of(text.as_bytes()),
            truncated: false,
            redactions: 0,
        };
        Outcome {
            v: 1,
            request_sha256: request.clone(),
            status: Status::Ok,
            code: None,
            message: None,
            exit_code: Some(0),
            signal: None,
            output: Some(stream),
            stderr: None,
            resources: None,
            duration_ms: 3,
            replayed: false,
            manifest_differs: false,
            walls: Vec::new(),
            manifest: None,
            serial: None,
            head: None,
            now: 1_800_000_000,
        }
    }

    fn answer(sealed: Sealed, output: Option<&str>) -> Answer {
        Answer {
            outcome: sealed,
            output: output.map(str::to_owned),
            stderr: None,
        }
    }

    /// REQ-SESSION-17, REQ-OUTCOME-4
    #[test]
    fn an_answer_holds_for_its_key_request_and_output_only() {
        let request = Digest::of(b"request");
        let sealed = seal::seal(&key(1), sshsig::OUTCOME, &outcome(&request, "hello")).unwrap();
        let hello = seal::seal(&key(1), sshsig::HELLO, &outcome(&request, "hello")).unwrap();
        let mut changed = sealed.clone();
        changed.payload = changed.payload.replace("\"exit_code\":0", "\"exit_code\":1");
        assert!(verify(answer(sealed.clone(), Some("hello")), key(1).public(), &request).is_ok());
        let table = [
            (
                "another key",
                verify(answer(sealed.clone(), Some("hello")), key(2).public(), &request),
            ),
            (
                "another request",
                verify(
                    answer(sealed.clone(), Some("hello")),
                    key(1).public(),
                    &Digest::of(b"other"),
                ),
            ),
            (
                "another output",
                verify(answer(sealed.clone(), Some("hellp")), key(1).public(), &request),
            ),
            ("no output", verify(answer(sealed, None), key(1).public(), &request)),
            (
                "another namespace",
                verify(answer(hello, Some("hello")), key(1).public(), &request),
            ),
            (
                "a changed byte",
                verify(answer(changed, Some("hello")), key(1).public(), &request),
            ),
        ];
        let count = table.len();
        for (name, verdict) in table {
            assert!(verdict.is_err(), "{name}");
        }
        println!("{count} attacks, {count} refused");
    }
}
