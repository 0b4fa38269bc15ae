//! The first line of a session: what the target is, signed with its receipt key.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{ActionName, Digest, Head, TargetName};
use crate::{limits, strict};

/// What a target says of itself before anything is asked. Spec: docs/spec/session.md.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// Versions of the wire that it speaks.
    pub versions: Vec<u32>,
    /// Its name.
    pub target: TargetName,
    /// The build of its agent-exec.
    pub build: String,
    /// Its receipt key, `ssh-ed25519 AAAA…`. To be compared with what the CA says, never to be learned from here.
    pub receipt_key: String,
    /// Its clock, Unix seconds.
    pub now: u64,
    /// The kernel's boot id.
    pub boot_id: String,
    /// The newest record of its log.
    pub head: Head,
    /// Its actions, each with the SHA-256 of its manifest.
    pub manifests: BTreeMap<ActionName, Digest>,
}

impl Hello {
    /// Reads a hello's exact bytes. Whether a version in it is spoken here is the caller's question.
    ///
    /// # Errors
    /// Any [`strict::Error`].
    pub fn parse(bytes: &[u8]) -> Result<Self, strict::Error> {
        strict::read(bytes, limits::HELLO)
    }
}
