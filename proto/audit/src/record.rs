//! One record: what a line of a log says.
//!
//! A line is one JSON object in one spelling: the keys of [`Envelope`], then those of [`Draft`], each in the order of its
//! struct, no spaces, absent instead of null, one newline. The log writes the envelope, its caller the draft; the first
//! key of every draft is `event`, which is where a line is cut in two to be read. Spec: docs/spec/record.md.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use wire::ids::{
    ActionName, ApprovalId, Digest, Fingerprint, Head, LogId, PersonName, Reason, RelayName, RequestId, Serial,
    TargetName, TaskId,
};
use wire::{Code, Mode, Requester, Resources, Risk, Status};

use crate::error::Error;

/// The version of the record: `v`.
pub const VERSION: u32 = 1;

/// Longest line, in bytes with its newline. Longer drafts are refused; cutting is their caller's to do.
pub const MAX_LINE: usize = 16 * 1024;

/// Largest number in a record, exclusive: beyond 2^53 readers in other languages round.
const NUMBER: u64 = 1 << 53;

/// What the log itself writes into each record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Envelope {
    /// Version of the record, [`VERSION`].
    pub v: u32,
    /// Number of the record, from 1. One more than the last, unless torn bytes lie between: they keep their numbers.
    pub seq: u64,
    /// SHA-256 of the previous line's exact bytes, newline included; 64 zeros in the genesis line.
    pub prev: Digest,
    /// The log; absent in the genesis line, which it is derived from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogId>,
    /// Wall clock, RFC 3339 in UTC with milliseconds. May go back: the order of records is `seq`.
    pub ts: String,
    /// CLOCK_MONOTONIC in microseconds; comparable while `boot_id` is the same.
    pub mono: u64,
    /// Which start of the machine, from /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
    /// Which tier writes.
    pub tier: Tier,
    /// Which of that tier: the name of the target or relay, or the CA's host.
    pub host: String,
    /// Which build wrote it.
    pub build: String,
    /// Only in a genesis line: 32 random digits, so that no two logs have one id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nonce: Option<String>,
    /// Only in an event `torn`: what was found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub torn: Option<Torn>,
}

/// Bytes without a newline at the end of a segment: a write that did not come to its end, and was never answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Torn {
    /// The segment in which they begin, by its first number. All segments between it and this record hold nothing else.
    pub segment: u64,
    /// How many bytes, at least 1.
    pub bytes: u64,
    /// SHA-256 of those bytes, one segment's after the other's.
    pub sha256: Digest,
}

/// A tier that keeps a log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Tier {
    /// The relay.
    Relay,
    /// The CA.
    Ca,
    /// A target.
    Target,
}

/// What a record is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// A log begins. Written by the log itself.
    Genesis,
    /// A write had not come to its end. Written by the log itself.
    Torn,
    /// A process began to serve.
    Start,
    /// A process ended as it was told to.
    Stop,
    /// The CA's keys were made.
    Init,
    /// A target was enrolled.
    Enroll,
    /// Another policy came into force at the CA, or could not.
    Policy,
    /// A task was opened.
    Open,
    /// A task was closed.
    Close,
    /// The CA decided to sign a certificate. Older than the certificate.
    Issue,
    /// The CA decided to sign another certificate for the same task and key.
    Renew,
    /// The CA decided to sign a certificate for one request. Older than the certificate, and so than the effect.
    Authorize,
    /// The CA allowed a request that people have not approved yet. Nothing is signed.
    Judge,
    /// The relay asks people to approve a request; one of them signed, or denied; nobody did in time.
    Approval,
    /// The relay hands a request to a target.
    Request,
    /// The relay got the answer to a request, or knows that it got none.
    Outcome,
    /// The target is about to do what was asked. Older than the effect.
    Intent,
    /// What became of it. Older than the answer.
    Result,
    /// This tier refused a peer that had proved itself.
    Refused,
    /// Peers that proved nothing were refused, and counted.
    Strangers,
}

/// What was decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Decision {
    /// It may happen.
    Allow,
    /// It may not.
    Deny,
}

/// Somebody approved the request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// Who.
    pub principal: PersonName,
    /// With which key.
    pub fingerprint: Fingerprint,
    /// Of which type, as OpenSSH names it.
    pub kind: String,
}

/// How far the approval of a request has come. Who signed, the target finds out: here are their keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approving {
    /// Which approval. The CA knows none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<ApprovalId>,
    /// How far it has come.
    pub state: ApprovalState,
    /// How many people must sign.
    pub needed: u8,
    /// How many signatures there are, each of another key.
    pub held: u8,
    /// The key of the newest, in the record that says that it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<Fingerprint>,
}

/// What became of an approval.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ApprovalState {
    /// Too few have signed.
    Waiting,
    /// As many as are needed have.
    Approved,
    /// Somebody said no.
    Denied,
    /// Its time was up.
    Expired,
}

impl ApprovalState {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Waiting, Self::Approved, Self::Denied, Self::Expired];

    /// The word of the record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Expired => "expired",
        }
    }
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cert {
    /// Its serial number.
    pub serial: Serial,
    /// Its key id.
    pub key_id: String,
    /// The CA key that signed it.
    pub ca: Fingerprint,
    /// The key that it certifies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Fingerprint>,
    /// When it ends, Unix seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub valid_before: Option<u64>,
}

/// What a program wrote; never the bytes themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Output {
    /// How many bytes.
    pub bytes: u64,
    /// SHA-256 of all of them, before anything was cut or redacted.
    pub sha256: Digest,
}

/// Heads of logs, copied from a signed object. Whoever has this record can tell whether those logs still hold theirs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Witness {
    /// The relay's, from a payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub relay: Option<Head>,
    /// The CA's, from a grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<Head>,
    /// The target's, from an Outcome or a grant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Head>,
}

/// Declares [`Draft`]: an event, and fields that are each left out when absent.
macro_rules! draft {
    ($($(#[$doc:meta])* $name:ident: $type:ty,)*) => {
        /// What a caller says in a record. `Draft { task_id: …, ..Draft::new(Event::Intent) }`.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct Draft {
            /// What it is about.
            pub event: Event,
            $($(#[$doc])* #[serde(default, skip_serializing_if = "Option::is_none")] pub $name: Option<$type>,)*
        }

        impl Draft {
            /// A record about an event that says nothing else yet.
            #[must_use]
            pub fn new(event: Event) -> Self {
                Self { event, $($name: None,)* }
            }
        }
    };
}

draft! {
    /// The task.
    task_id: TaskId,
    /// The request.
    request_id: RequestId,
    /// SHA-256 of the payload's exact bytes.
    request_sha256: Digest,
    /// For whom.
    requester: Requester,
    /// Why, in the requester's words.
    reason: Reason,
    /// The relay that a CA heard it from.
    relay: RelayName,
    /// When the task was opened, Unix seconds.
    opened: u64,
    /// Where.
    target: TargetName,
    /// What.
    action: ActionName,
    /// What a certificate covers, where it covers several.
    actions: Vec<ActionName>,
    /// The risk of the action, from the manifest that counted.
    risk: Risk,
    /// SHA-256 of that manifest.
    manifest: Digest,
    /// The program and its arguments, redacted.
    argv: Vec<String>,
    /// Whether to do it or to show it.
    mode: Mode,
    /// What was decided.
    decision: Decision,
    /// What became of the request.
    status: Status,
    /// Why it was refused or failed.
    code: Code,
    /// What is behind the Code, for people: one line, cut by whoever writes it.
    message: String,
    /// How many were refused since the last such record. Only in `strangers`, and in `refused` where repeats are counted.
    count: u64,
    /// How often each Code was the reason. Only in `strangers`.
    codes: BTreeMap<String, u64>,
    /// Ids of the policies that decided.
    policy: Vec<String>,
    /// Who approved.
    approvals: Vec<Approval>,
    /// How far it is from being approved. Only in `approval` and `judge`.
    approval: Approving,
    /// The certificate that it stood under, or that was signed.
    cert: Cert,
    /// Exit code of the program, where it exited.
    exit_code: i32,
    /// The signal that ended the program, where one did.
    signal: i32,
    /// From its start to its end, in milliseconds.
    duration_ms: u64,
    /// Its standard output.
    output: Output,
    /// Its standard error.
    stderr: Output,
    /// What it used.
    resources: Resources,
    /// The walls that stood around it, by name.
    walls: Vec<String>,
    /// Heads of the other tiers' logs.
    witness: Witness,
}

/// A whole record, read from a log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What the log wrote.
    pub envelope: Envelope,
    /// What its caller said.
    pub draft: Draft,
}

impl Event {
    /// The word of the record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Genesis => "genesis",
            Self::Torn => "torn",
            Self::Start => "start",
            Self::Stop => "stop",
            Self::Init => "init",
            Self::Enroll => "enroll",
            Self::Policy => "policy",
            Self::Open => "open",
            Self::Close => "close",
            Self::Issue => "issue",
            Self::Renew => "renew",
            Self::Authorize => "authorize",
            Self::Judge => "judge",
            Self::Approval => "approval",
            Self::Request => "request",
            Self::Outcome => "outcome",
            Self::Intent => "intent",
            Self::Result => "result",
            Self::Refused => "refused",
            Self::Strangers => "strangers",
        }
    }

    /// True when it tells how something ended that an earlier record announced. Such a record may use the space that the
    /// earlier one reserved, and never begins a segment of its own accord.
    #[must_use]
    pub fn ends_something(self) -> bool {
        matches!(self, Self::Result | Self::Outcome)
    }
}

impl Tier {
    /// The word of the record.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Ca => "ca",
            Self::Target => "target",
        }
    }
}

/// The one spelling of a record, with its newline.
///
/// # Errors
/// [`Error::TooLong`] beyond [`MAX_LINE`]; [`Error::Draft`] for what the strict reader would not read back.
pub(crate) fn spell(envelope: &Envelope, draft: &Draft) -> Result<Vec<u8>, Error> {
    let mut line = Vec::with_capacity(2048);
    serde_json::to_writer(&mut line, envelope).map_err(Error::Draft)?;
    line.pop();
    let seam = line.len();
    serde_json::to_writer(&mut line, draft).map_err(Error::Draft)?;
    line[seam] = b',';
    line.push(b'\n');
    if line.len() > MAX_LINE {
        return Err(Error::TooLong { bytes: line.len() });
    }
    Ok(line)
}

impl Record {
    /// Reads a line, given with its newline: the one spelling of a record, and nothing else.
    ///
    /// # Errors
    /// Where and why it is none, as a lower-case fragment.
    pub fn parse(line: &[u8]) -> Result<Self, String> {
        let record = Self::read(line)?;
        // One comparison refuses null, repeated and reordered keys, spaces, and every other spelling of the same values.
        match spell(&record.envelope, &record.draft) {
            Ok(spelt) if spelt == line => Ok(record),
            _ => Err("not in the one spelling of a record".to_owned()),
        }
    }

    fn read(line: &[u8]) -> Result<Self, String> {
        if line.len() > MAX_LINE {
            return Err(format!("{} bytes, at most {MAX_LINE} are allowed", line.len()));
        }
        // A quote inside a JSON string is always escaped, so these bytes can only be the key.
        let seam = memchr::memmem::find(line, b",\"event\":").ok_or("no event")?;
        let envelope: Envelope = serde_json::from_slice(&[&line[..seam], b"}"].concat()).map_err(|e| e.to_string())?;
        let draft: Draft = serde_json::from_slice(&[b"{", &line[seam + 1..]].concat()).map_err(|e| e.to_string())?;
        let record = Self { envelope, draft };
        record.check()?;
        Ok(record)
    }

    /// What the fields of a record must say of each other.
    fn check(&self) -> Result<(), String> {
        let Self { envelope, draft } = self;
        if envelope.v != VERSION {
            return Err(format!("version {}", envelope.v));
        }
        let genesis = draft.event == Event::Genesis;
        if genesis != envelope.log.is_none() || genesis != envelope.nonce.is_some() {
            return Err("a log id where none must be, or none where one must be".to_owned());
        }
        if genesis && envelope.prev != Digest::zero() {
            return Err("a genesis line that follows another".to_owned());
        }
        if envelope.torn.is_some() != (draft.event == Event::Torn) && !(genesis && envelope.torn.is_some()) {
            return Err("torn bytes named by another event".to_owned());
        }
        let numbers = [
            Some(envelope.seq),
            Some(envelope.mono),
            draft.count,
            draft.opened,
            draft.duration_ms,
            draft.output.as_ref().map(|o| o.bytes),
            draft.stderr.as_ref().map(|o| o.bytes),
            draft.cert.as_ref().and_then(|c| c.valid_before),
            draft
                .resources
                .map(|r| r.cpu_user_ms.max(r.cpu_system_ms).max(r.max_rss_kib)),
        ];
        if envelope.seq == 0 || numbers.into_iter().flatten().any(|n| n >= NUMBER) {
            return Err("a number out of range".to_owned());
        }
        Ok(())
    }
}

impl Envelope {
    /// The log that the record belongs to, given with its line: the genesis line does not name what is derived from it.
    #[must_use]
    pub fn log_of(&self, line: &[u8]) -> LogId {
        self.log.clone().unwrap_or_else(|| LogId::of_genesis(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope() -> Envelope {
        Envelope {
            v: VERSION,
            seq: 7,
            prev: Digest::of(b"x"),
            log: Some(LogId::of_genesis(b"y")),
            ts: "2026-03-01T12:00:00.000Z".to_owned(),
            mono: 1,
            boot_id: "b".to_owned(),
            tier: Tier::Target,
            host: "web-1".to_owned(),
            build: "a\",\"event\":\"genesis".to_owned(),
            nonce: None,
            torn: None,
        }
    }

    fn line() -> String {
        let draft = Draft {
            reason: Some("two\u{2028}lines, and \"event\":".parse().unwrap()),
            exit_code: Some(-1),
            ..Draft::new(Event::Result)
        };
        String::from_utf8(spell(&envelope(), &draft).unwrap()).unwrap()
    }

    /// REQ-RECORD-1
    #[test]
    fn a_record_is_one_line_and_reads_back() {
        let line = line();
        assert_eq!(line.matches('\n').count(), 1);
        let record = Record::parse(line.as_bytes()).unwrap();
        assert_eq!((record.envelope, record.draft.exit_code), (envelope(), Some(-1)));
    }

    /// REQ-RECORD-1
    #[test]
    fn log_newline_forge_is_one_record() {
        let draft = Draft {
            message: Some("x\n{\"v\":1}\r\n".to_owned()),
            ..Draft::new(Event::Refused)
        };
        let line = spell(&envelope(), &draft).unwrap();
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert!(Record::parse(&line).is_ok());
    }

    /// REQ-RECORD-1
    #[test]
    fn every_other_spelling_is_refused() {
        let good = line();
        let table = [
            ("a space", good.replace(",\"seq\"", ", \"seq\"")),
            ("another order", good.replace("\"v\":1,\"seq\":7", "\"seq\":7,\"v\":1")),
            ("a key twice", good.replace("\"seq\":7", "\"seq\":7,\"seq\":7")),
            (
                "a key in both halves",
                good.replace("\"exit_code\":-1", "\"exit_code\":-1,\"seq\":7"),
            ),
            (
                "a null",
                good.replace("\"exit_code\":-1", "\"exit_code\":-1,\"signal\":null"),
            ),
            ("a float", good.replace("\"exit_code\":-1", "\"exit_code\":-1.0")),
            (
                "an unknown key",
                good.replace("\"exit_code\":-1", "\"exit_code\":-1,\"x\":1"),
            ),
            ("an unknown event", good.replace("\"result\"", "\"results\"")),
            ("an escape that is not needed", good.replace("web-1", "web\\u002d1")),
            (
                "a number beyond 2^53",
                good.replace("\"mono\":1", "\"mono\":9007199254740992"),
            ),
            ("number zero", good.replace("\"seq\":7", "\"seq\":0")),
            ("another version", good.replace("\"v\":1", "\"v\":2")),
            ("two newlines", format!("{good}\n")),
            ("no newline", good.trim_end().to_owned()),
            ("a carriage return", good.replace('\n', "\r\n")),
            ("no log", good.replace("\"log\"", "\"nonce\"")),
            ("too long", good.replace("web-1", &"x".repeat(MAX_LINE))),
        ];
        for (name, text) in &table {
            assert_ne!(text, &good, "{name}");
            assert!(Record::parse(text.as_bytes()).is_err(), "{name}");
        }
        println!("{} attacks, {} refused", table.len(), table.len());
    }

    /// REQ-RECORD-2
    #[test]
    fn a_draft_that_is_too_long_is_refused() {
        let draft = Draft {
            message: Some("x".repeat(MAX_LINE)),
            ..Draft::new(Event::Refused)
        };
        assert!(matches!(spell(&envelope(), &draft), Err(Error::TooLong { .. })));
    }
}
