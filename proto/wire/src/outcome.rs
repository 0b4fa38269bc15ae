//! A target's answer: what became of one request, signed with its receipt key.

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, Head, Serial};
use crate::{Code, limits, strict};

/// An Outcome. The output stands beside it on the line; its hashes stand in it. Spec: docs/spec/outcome.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Version of the wire, [`crate::VERSION`].
    pub v: u32,
    /// SHA-256 of the payload that it answers.
    pub request_sha256: Digest,
    /// What became of it.
    pub status: Status,
    /// Present unless the status is `ok`; exactly one for every refusal and failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<Code>,
    /// What is behind the Code, for people: at most [`limits::MESSAGE`] bytes, no control character.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Exit code of the program, where it exited.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// The signal that ended the program, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// Its standard output; absent when nothing ran or nothing is certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Stream>,
    /// Its standard error; absent when nothing ran or nothing is certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stderr: Option<Stream>,
    /// What it used; absent when nothing ran or nothing is certain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// From the start of the program to its end, in milliseconds; 0 when nothing ran.
    pub duration_ms: u64,
    /// True when this is the stored answer to a repeated request.
    pub replayed: bool,
    /// True when the target's manifest is another than the request named, and the target's own was used.
    pub manifest_differs: bool,
    /// The walls that stood around the program, by name.
    pub walls: Vec<String>,
    /// SHA-256 of the target's own manifest; absent in a refusal, and where the result could not be recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// Serial of the certificate that it was done under; absent when the request was not verified.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub serial: Option<Serial>,
    /// The target's log at the record of this Outcome; absent when there is no such record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// The target's clock, Unix seconds.
    pub now: u64,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It ran and its exit code was 0.
    Ok,
    /// It ran and did not succeed, was ended because nobody waits for it, or could not be started.
    Failed,
    /// It did not run.
    Refused,
    /// It ran into its deadline and was ended.
    TimedOut,
    /// It ran, and nothing else is certain. Look before asking for it again.
    Unknown,
}

impl Status {
    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Refused => "refused",
            Self::TimedOut => "timed_out",
            Self::Unknown => "unknown",
        }
    }
}

/// One stream of a program's output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stream {
    /// How the text beside the Outcome stands for bytes.
    pub encoding: Encoding,
    /// How many bytes the program wrote, whether sent or not.
    pub bytes: u64,
    /// SHA-256 of all of them.
    pub sha256: Digest,
    /// SHA-256 of the text that stands beside the Outcome, in UTF-8.
    pub sent_sha256: Digest,
    /// True when not all of them were sent.
    pub truncated: bool,
    /// How many secrets were replaced before sending.
    pub redactions: u64,
}

/// How a text stands for bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Encoding {
    /// It is the bytes, which are UTF-8; where they were not, U+FFFD stands for what was not.
    Text,
    /// RFC 4648 base64, with padding.
    Base64,
}

/// What a program used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Resources {
    /// CPU time in user mode, in milliseconds.
    pub cpu_user_ms: u64,
    /// CPU time in the kernel, in milliseconds.
    pub cpu_system_ms: u64,
    /// Largest resident set, in KiB.
    pub max_rss_kib: u64,
}

impl Outcome {
    /// Reads an Outcome's exact bytes.
    ///
    /// # Errors
    /// Any [`strict::Error`]; so is a Code where there must be none, none where there must be one, and a message that is
    /// too long or of more than one line.
    pub fn parse(bytes: &[u8]) -> Result<Self, strict::Error> {
        let outcome: Self = strict::read_versioned(bytes, limits::OUTCOME)?;
        if outcome.code.is_none() != (outcome.status == Status::Ok) {
            return Err(strict::Error::Malformed("status and code do not fit".to_owned()));
        }
        let one_line = |text: &String| text.len() <= limits::MESSAGE && !text.chars().any(char::is_control);
        if !outcome.message.as_ref().is_none_or(one_line) {
            return Err(strict::Error::Malformed(
                "the message is no line of 500 bytes".to_owned(),
            ));
        }
        Ok(outcome)
    }
}
