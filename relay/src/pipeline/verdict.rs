//! Whether an answer is the target's answer to this request, and what it says.
//!
//! Pure: bytes in, a verdict out. Nothing of an answer is looked at before its signature holds.

use openssh::key::PublicKey;
use openssh::sshsig;
use wire::ids::Digest;
use wire::lines::Answer;
use wire::{Code, Encoding, Outcome, Status, Stream};

use super::Asked;
use super::request::Subject;
use crate::call::Done;
use crate::error::{About, Refusal, RefusedBy};
use crate::session;

/// An Outcome whose signature, request and output hashes hold.
#[must_use]
pub(super) struct Verified {
    pub(super) outcome: Outcome,
    output: String,
    stderr: String,
    /// The Code with which the target refused a certificate that went before, if it did.
    pub(super) certificate_refused: Option<Code>,
    /// How many seconds its certificate was waited for.
    pub(super) waited_s: u64,
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
        certificate_refused: None,
        waited_s: 0,
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

/// Why there is no answer that can be believed.
#[derive(Debug)]
pub(super) enum Missed {
    /// The session's word.
    Session(session::Error),
    /// What came is not the target's answer to this request.
    Forged(&'static str),
}

impl Missed {
    /// What is in the way, in our words.
    pub(super) fn why(&self, about: &About) -> String {
        match self {
            Self::Session(session::Error::LineRefused(_) | session::Error::NotServed(_)) | Self::Forged(_) => {
                self.refusal(about).message
            }
            Self::Session(error) => format!("failed to {error}"),
        }
    }

    /// Whether the target refused the line before it looked at what is in it. Every other Code can also be what came of an
    /// answer: the line is refused where the target cannot sign one.
    pub(super) fn never_began(&self) -> bool {
        let code = match self {
            Self::Session(session::Error::NotServed(_)) => return true,
            Self::Session(session::Error::LineRefused(code)) => code,
            _ => return false,
        };
        matches!(
            code,
            Code::LineMalformed | Code::CertificateMissing | Code::PayloadMalformed | Code::SignatureInvalid
        )
    }

    pub(super) fn refusal(&self, about: &About) -> Refusal {
        match self {
            Self::Session(error) => Refusal::session(error, about),
            Self::Forged(what) => Refusal::because(Code::ReceiptInvalid, what, about),
        }
    }
}

/// A request that ends without the target's word.
#[derive(Debug)]
pub(super) struct Unanswered {
    /// What became of it, as far as can be known.
    pub(super) status: Status,
    pub(super) refusal: Refusal,
}

impl Unanswered {
    /// Nothing of it was sent, or the target did not look into what was.
    pub(super) fn unsent(refusal: Refusal) -> Self {
        Self {
            status: Status::Refused,
            refusal,
        }
    }

    /// A read that failed here.
    pub(super) fn failed(refusal: Refusal) -> Self {
        Self {
            status: Status::Failed,
            refusal,
        }
    }

    /// A read that got no answer.
    pub(super) fn read(missed: &Missed, about: &About) -> Self {
        let refusal = match missed {
            // It only reads: whatever became of it, it may be asked again. It had left, so the target was reached.
            Missed::Session(session::Error::NoAnswer(what) | session::Error::Unreachable(what)) => {
                Refusal::because(Code::SessionLost, what, about)
            }
            missed => missed.refusal(about),
        };
        let status = match missed {
            missed if missed.never_began() => Status::Refused,
            Missed::Session(session::Error::NotSent(_)) => Status::Refused,
            Missed::Session(session::Error::NoAnswer(_) | session::Error::Unreachable(_)) => Status::Failed,
            Missed::Session(_) | Missed::Forged(_) => Status::Unknown,
        };
        Self { status, refusal }
    }

    /// A change that the target does not have, and that expired: it never ran, and never will.
    pub(super) fn never_ran(about: &About) -> Self {
        let detail = "the target never ran it, and never will";
        Self {
            status: Status::Failed,
            refusal: Refusal::because(Code::RequestExpired, detail, about),
        }
    }

    /// A change of which nobody here knows, and why not.
    pub(super) fn unknown(why: impl std::fmt::Display, about: &About) -> Self {
        Self {
            status: Status::Unknown,
            refusal: Refusal::because(Code::OutcomeUnknown, why, about),
        }
    }
}

/// The target's no. Its words are its own; the Code's text is ours.
pub(super) fn refusal(verified: Verified, about: &About) -> Refusal {
    let outcome = verified.outcome;
    let mut code = outcome.code.unwrap_or(Code::ProtocolError);
    // It refuses because it has no certificate; why it has none it said about that line.
    if matches!(code, Code::CertificateMissing | Code::ActionCertificateMissing) {
        code = verified.certificate_refused.unwrap_or(code);
    }
    let refusal = Refusal::by(RefusedBy::Target, code, format!("failed to {}", code.text()), about);
    Refusal {
        untrusted: outcome.message,
        record: outcome.head.map(|head| head.seq),
        ..refusal
    }
}

/// What one more question about a change has told.
pub(super) enum Word {
    /// What became of it.
    Told(Box<Verified>),
    /// The target does not have it, and takes it no more.
    NeverRan,
    /// Nothing that lasts: it is under way, or nobody could say. Why.
    Nothing(String),
    /// Nothing at all: the question never left. Why.
    Unsent(String),
    /// Nothing at all: the target did not look into the question.
    Unread(Refusal),
    /// The target does not have it, and would still take it. In its words.
    NotYet(String),
    /// These bytes were refused now. That says nothing about those that went before: they may still have been on their way.
    Refused(Box<Verified>),
}

/// Reads the answer to a question that is not the first about its request. `over`: by the target's own clock it takes the
/// request no more.
pub(super) fn word(answer: Result<Verified, Missed>, over: bool, about: &About) -> Word {
    let verified = match answer {
        Ok(verified) => verified,
        Err(missed) => {
            let why = missed.why(about);
            return match missed {
                Missed::Session(session::Error::LineRefused(Code::UnknownRequest)) if over => Word::NeverRan,
                Missed::Session(session::Error::LineRefused(Code::UnknownRequest)) => Word::NotYet(why),
                Missed::Session(session::Error::NotSent(_)) => Word::Unsent(why),
                missed if missed.never_began() => Word::Unread(missed.refusal(about)),
                Missed::Session(_) | Missed::Forged(_) => Word::Nothing(why),
            };
        }
    };
    match (verified.outcome.status, verified.outcome.code) {
        (Status::Refused, Some(Code::RequestExpired)) if over => Word::NeverRan,
        (Status::Refused, Some(Code::InProgress)) => Word::Nothing(refusal(verified, about).message),
        (Status::Refused, _) => Word::Refused(Box::new(verified)),
        _ => Word::Told(Box::new(verified)),
    }
}

/// What the caller gets.
pub(super) fn done(verified: Verified, subject: Subject, asked: &Asked) -> Done {
    let Verified {
        outcome,
        output,
        stderr,
        waited_s,
        ..
    } = verified;
    let truncated = |stream: Option<&Stream>| stream.is_some_and(|stream| stream.truncated);
    Done {
        task: subject.task,
        request: subject.request,
        target: subject.target,
        action: subject.action,
        risk: asked.risk,
        mode: asked.act.mode,
        status: outcome.status,
        code: outcome.code,
        exit_code: outcome.exit_code,
        duration_ms: outcome.duration_ms,
        truncated: truncated(outcome.output.as_ref()) || truncated(outcome.stderr.as_ref()),
        output_bytes: outcome.output.as_ref().map_or(0, |stream| stream.bytes),
        encoding: outcome.output.as_ref().map_or(Encoding::Text, |stream| stream.encoding),
        manifest_differs: outcome.manifest_differs,
        waited_s,
        replayed: outcome.replayed,
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

    fn verified(status: Status, code: Option<Code>) -> Verified {
        Verified {
            outcome: Outcome {
                status,
                code,
                ..outcome(&Digest::zero(), "")
            },
            output: String::new(),
            stderr: String::new(),
            certificate_refused: None,
            waited_s: 0,
        }
    }

    /// REQ-CHANGE-6
    #[test]
    fn only_the_targets_word_or_time_says_what_became_of_a_change() {
        use session::Error as E;
        let refused = |code| Err(Missed::Session(E::LineRefused(code)));
        let table: [(&str, Result<Verified, Missed>, [&str; 2]); 16] = [
            ("ok", Ok(verified(Status::Ok, None)), ["told", "told"]),
            (
                "failed",
                Ok(verified(Status::Failed, Some(Code::ExitNonzero))),
                ["told", "told"],
            ),
            (
                "timed out",
                Ok(verified(Status::TimedOut, Some(Code::DeadlineExceeded))),
                ["told", "told"],
            ),
            (
                "unknown",
                Ok(verified(Status::Unknown, Some(Code::OutcomeUnknown))),
                ["told", "told"],
            ),
            (
                "expired",
                Ok(verified(Status::Refused, Some(Code::RequestExpired))),
                ["refused", "never"],
            ),
            (
                "at it",
                Ok(verified(Status::Refused, Some(Code::InProgress))),
                ["nothing", "nothing"],
            ),
            (
                "halted",
                Ok(verified(Status::Refused, Some(Code::Halted))),
                ["refused", "refused"],
            ),
            ("not there", refused(Code::UnknownRequest), ["not yet", "never"]),
            ("at it, by its id", refused(Code::InProgress), ["nothing", "nothing"]),
            ("halted, by its id", refused(Code::Halted), ["nothing", "nothing"]),
            (
                "a line that was not read",
                refused(Code::LineMalformed),
                ["unread", "unread"],
            ),
            (
                "no certificate",
                refused(Code::CertificateMissing),
                ["unread", "unread"],
            ),
            (
                "cut",
                Err(Missed::Session(E::NoAnswer("cut".into()))),
                ["nothing", "nothing"],
            ),
            (
                "late",
                Err(Missed::Session(E::TimedOut(std::time::Duration::ZERO))),
                ["nothing", "nothing"],
            ),
            (
                "not sent",
                Err(Missed::Session(E::NotSent("cut".into()))),
                ["unsent", "unsent"],
            ),
            ("forged", Err(Missed::Forged("forged")), ["nothing", "nothing"]),
        ];
        let count = table.len();
        for (name, answer, [before, over]) in table {
            let again = match &answer {
                Ok(told) => Ok(verified(told.outcome.status, told.outcome.code)),
                Err(Missed::Session(error)) => Err(Missed::Session(error.clone())),
                Err(Missed::Forged(what)) => Err(Missed::Forged(what)),
            };
            for (answer, is_over, expected) in [(answer, false, before), (again, true, over)] {
                let said = match word(answer, is_over, &About::default()) {
                    Word::Told(_) => "told",
                    Word::NeverRan => "never",
                    Word::Nothing(_) => "nothing",
                    Word::Unsent(_) => "unsent",
                    Word::Unread(_) => "unread",
                    Word::NotYet(_) => "not yet",
                    Word::Refused(_) => "refused",
                };
                assert_eq!(said, expected, "{name}, over: {is_over}");
            }
        }
        println!("{count} answers, each before its time is over and after");
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
