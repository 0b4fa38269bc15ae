//! What a certificate permits: the text inside its `grant@writ.internal` extension.

use serde::{Deserialize, Serialize};

use crate::ids::{ActionName, BrainName, Digest, Head, PersonName, RelayName, TargetName, TaskId};
use crate::{limits, strict};

/// A Grant. Its exact bytes are signed by the certificate that carries it. Spec: docs/spec/grant.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grant {
    /// Version of the wire, [`crate::VERSION`].
    pub v: u32,
    /// Whether it opens a task or one action.
    pub kind: Kind,
    /// The task; equal to the certificate's key id.
    pub task_id: TaskId,
    /// When the task was opened, Unix seconds.
    pub opened: u64,
    /// For whom.
    pub requester: Requester,
    /// Through which relay.
    pub relay: RelayName,
    /// Where; equal to the certificate's principal.
    pub target: TargetName,
    /// Which actions: 1 to [`limits::GRANT_ACTIONS`], strictly sorted.
    pub actions: Vec<ActionName>,
    /// SHA-256 of the policy that decided.
    pub policy: Digest,
    /// What the CA vouches for.
    pub witness: GrantWitness,
    /// Only for an action: SHA-256 of the one payload.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_sha256: Option<Digest>,
    /// Only for an action: SHA-256 of the manifest that policy looked at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest: Option<Digest>,
    /// Only for an action: how many approvals policy wants, 0 to 8.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approvals: Option<u8>,
    /// Only for an action: the least number of the revocation list that the target must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub krl: Option<u64>,
}

/// What kind of certificate a grant stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Logs in, and covers reads whose arguments no policy looks at.
    Task,
    /// Never logs in, and covers the one payload that it pins.
    Action,
}

impl Kind {
    /// The one principal of a certificate with a grant of this kind. No target can be named like an action's: a name has
    /// no slash, so no principals file that lists targets lets such a certificate log in.
    #[must_use]
    pub fn principal(self, target: &TargetName) -> String {
        match self {
            Self::Task => target.to_string(),
            Self::Action => format!("action/{target}"),
        }
    }
}

/// Which brain, on behalf of which person, and how that is known.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Requester {
    /// What the client calls itself.
    pub brain: BrainName,
    /// The human.
    pub person: PersonName,
    /// How the requester is known.
    pub proof: Proof,
}

/// How a requester is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The relay says so, from the uid of its client.
    Relay,
    /// A token that the CA checked.
    Token,
    /// The person's own signature.
    Signature,
}

impl Proof {
    /// The word of the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Relay => "relay",
            Self::Token => "token",
            Self::Signature => "signature",
        }
    }
}

/// Heads that travel inside a grant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GrantWitness {
    /// The CA's own log, at the record of this grant.
    pub ca: Head,
    /// The highest head of the target's log that the CA knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<Head>,
}

impl Grant {
    /// Reads a grant's exact bytes, and checks what its fields say of each other.
    ///
    /// # Errors
    /// Any [`strict::Error`].
    pub fn parse(bytes: &[u8]) -> Result<Self, strict::Error> {
        let grant: Self = strict::read_versioned(bytes, limits::GRANT)?;
        grant
            .check()
            .map_err(|what| strict::Error::Malformed(what.to_owned()))?;
        Ok(grant)
    }

    fn check(&self) -> Result<(), &'static str> {
        if self.actions.is_empty() || self.actions.len() > limits::GRANT_ACTIONS {
            return Err("number of actions");
        }
        if !self.actions.is_sorted_by(|a, b| a < b) {
            return Err("actions not strictly sorted");
        }
        let pins = [
            self.request_sha256.is_some(),
            self.manifest.is_some(),
            self.approvals.is_some(),
            self.krl.is_some(),
        ];
        let whole = match self.kind {
            Kind::Task => pins == [false; 4],
            Kind::Action => pins == [true; 4] && self.actions.len() == 1,
        };
        if whole {
            Ok(())
        } else {
            Err("fields of another kind of grant")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-CERT-4
    #[test]
    fn no_target_has_the_name_of_an_action_principal() {
        for name in ["web-1", "action", "a", "action.web-1"] {
            let target: TargetName = name.parse().unwrap();
            assert_eq!(Kind::Task.principal(&target), name);
            let principal = Kind::Action.principal(&target);
            assert_eq!(principal, format!("action/{name}"));
            assert!(principal.parse::<TargetName>().is_err(), "{principal}");
        }
    }
}
