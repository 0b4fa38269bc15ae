//! A Request's bytes: what the relay asks of a target, signed by the task's key.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::grant::Requester;
use crate::ids::{ActionName, Digest, Fingerprint, Head, Reason, RequestId, TargetName, TaskId};
use crate::{limits, strict};

/// One call of one action on one target. Spec: docs/spec/payload.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Payload {
    /// Version of the wire, [`crate::VERSION`].
    pub v: u32,
    /// The task it belongs to.
    pub task_id: TaskId,
    /// Unique in the task.
    pub request_id: RequestId,
    /// Who asks, on behalf of whom.
    pub requester: Requester,
    /// Why, in the requester's words.
    pub reason: Reason,
    /// Where.
    pub target: TargetName,
    /// Fingerprint of the target's receipt key: a host that took over the name is not meant.
    pub target_key: Fingerprint,
    /// What.
    pub action: ActionName,
    /// SHA-256 of the manifest that the relay knows for the action.
    pub manifest: Digest,
    /// Every argument, defaults filled in.
    pub args: Map<String, Value>,
    /// Whether to do it or to show what would be done.
    pub mode: Mode,
    /// Unix seconds; not further ahead than [`limits::REQUEST_MAX_S`].
    pub expires: u64,
    /// What the relay vouches for.
    pub witness: PayloadWitness,
}

/// Whether an action is done or only shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Do it.
    Run,
    /// Show what would be done, by the manifest's own dry run.
    DryRun,
}

impl Mode {
    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::DryRun => "dry_run",
        }
    }
}

/// What an action can do to a target, as its manifest declares it. An action without it does not load.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Looks only.
    Read,
    /// Changes something that can be changed back.
    Change,
    /// May lose something.
    Destroy,
}

impl Risk {
    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Change => "change",
            Self::Destroy => "destroy",
        }
    }
}

/// Heads that travel inside a payload.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PayloadWitness {
    /// The relay's own log.
    pub relay: Head,
}

impl Payload {
    /// Reads a payload's exact bytes.
    ///
    /// # Errors
    /// Any [`strict::Error`].
    pub fn parse(bytes: &[u8]) -> Result<Self, strict::Error> {
        strict::read_versioned(bytes, limits::PAYLOAD)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The payload of docs/spec, as a value.
    pub(crate) fn example() -> Payload {
        let zero = Digest::zero();
        let mut args = Map::new();
        args.insert("path".to_owned(), "/var/log/app.log".into());
        args.insert("lines".to_owned(), 20.into());
        let log = "00000000000000000000000000000000".parse().unwrap();
        Payload {
            v: 1,
            task_id: "0192e4a0-7f00-7000-8000-00000000000a".parse().unwrap(),
            request_id: "0192e4a0-7f00-7000-8000-00000000000b".parse().unwrap(),
            requester: Requester {
                brain: "claude-code".parse().unwrap(),
                person: "alice".parse().unwrap(),
                proof: crate::Proof::Relay,
            },
            reason: "checkout is slow".parse().unwrap(),
            target: "web-1".parse().unwrap(),
            target_key: "SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA".parse().unwrap(),
            action: "tail_log".parse().unwrap(),
            manifest: zero.clone(),
            args,
            mode: Mode::Run,
            expires: 1_800_000_060,
            witness: PayloadWitness {
                relay: Head {
                    log,
                    seq: 7,
                    hash: zero,
                },
            },
        }
    }

    #[test]
    fn a_payload_survives_its_bytes() {
        let text = serde_json::to_string(&example()).unwrap();
        assert_eq!(Payload::parse(text.as_bytes()).unwrap(), example());
    }

    /// REQ-PAYLOAD-4, REQ-JSON-4
    #[test]
    fn every_missing_and_every_unknown_field_is_refused() {
        let whole = serde_json::to_value(example()).unwrap();
        let fields: Vec<String> = whole.as_object().unwrap().keys().cloned().collect();
        for field in &fields {
            let mut other = whole.clone();
            other.as_object_mut().unwrap().remove(field);
            assert!(Payload::parse(other.to_string().as_bytes()).is_err(), "without {field}");
        }
        for place in ["", "requester", "witness"] {
            let mut other = whole.clone();
            let object = if place.is_empty() {
                &mut other
            } else {
                &mut other[place]
            };
            object.as_object_mut().unwrap().insert("more".to_owned(), 1.into());
            assert!(
                Payload::parse(other.to_string().as_bytes()).is_err(),
                "more in {place:?}"
            );
        }
        let mut other = whole;
        other["v"] = 2.into();
        assert!(Payload::parse(other.to_string().as_bytes()).is_err());
    }
}
