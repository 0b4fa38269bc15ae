//! What a relay asks for and what it gets: checked values, no wire types.

use openssh::key::PublicKey;
use wire::ids::{ActionName, Digest, Head, PersonName, Reason, RelayName, RequestId, TargetName, TaskId};
use wire::{Code, Payload, Requester, strict};

use crate::error::Error;

/// The first certificate of a task on one target.
#[derive(Debug, Clone)]
pub struct OpenTask {
    /// The task.
    pub task_id: TaskId,
    /// For whom.
    pub requester: Requester,
    /// Why.
    pub reason: Reason,
    /// Where.
    pub target: TargetName,
    /// The key that the relay made for it.
    pub key: PublicKey,
}

/// The next certificate for the same key.
#[derive(Debug, Clone)]
pub struct RenewTask {
    /// The task.
    pub task_id: TaskId,
    /// Where.
    pub target: TargetName,
    /// The key that was certified before.
    pub key: PublicKey,
}

/// A certificate for one request of an open task.
#[derive(Debug, Clone)]
pub struct AuthorizeAction {
    /// The request.
    pub asked: Asked,
    /// The key that was certified for the task, and signs the request.
    pub key: PublicKey,
    /// How many approvals the relay says it holds. It decides when a certificate is made, and never whether the request
    /// may run: the target checks them.
    pub held: u8,
}

/// A request's bytes, read and hashed in one step: the digest that is signed is that of the bytes that were judged.
///
/// ```compile_fail,E0451
/// // No digest can be put beside a payload that it is not of.
/// fn swap(payload: wire::Payload, sha256: wire::ids::Digest) -> ca::call::Asked {
///     ca::call::Asked { payload, sha256 }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct Asked {
    payload: Payload,
    sha256: Digest,
}

impl Asked {
    /// Reads the bytes that the task's key signs for the target.
    ///
    /// # Errors
    /// Any [`strict::Error`].
    pub fn read(bytes: &[u8]) -> Result<Self, strict::Error> {
        Ok(Self {
            payload: Payload::parse(bytes)?,
            sha256: Digest::of(bytes),
        })
    }

    /// What they say.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Their SHA-256.
    #[must_use]
    pub fn sha256(&self) -> &Digest {
        &self.sha256
    }
}

/// A task certificate and what goes with it.
#[derive(Debug, Clone)]
pub struct Credential {
    /// OpenSSH text, without a comment.
    pub certificate: String,
    /// First second of validity, Unix time.
    pub valid_after: u64,
    /// First second after it.
    pub valid_before: u64,
    /// The key that signs the target's hello and Outcomes, OpenSSH text.
    pub receipt_key: String,
    /// What the grant lists, sorted.
    pub actions: Vec<ActionName>,
    /// The policy that decided.
    pub policy: Digest,
    /// When the task was opened, Unix seconds.
    pub opened: u64,
    /// First second after the task.
    pub ends: u64,
}

/// What a request that was judged and allowed gets.
#[derive(Debug, Clone)]
pub enum Authorized {
    /// A certificate.
    Certified(ActionCredential),
    /// None yet.
    Wanting(Wanting),
}

/// A request that people have to approve before there is a certificate for it.
#[derive(Debug, Clone)]
pub struct Wanting {
    /// How many of them.
    pub approvals: u8,
    /// The policy that decided.
    pub policy: Digest,
    /// The policies that allowed it, sorted.
    pub policies: Vec<String>,
}

/// An action certificate and what goes with it.
#[derive(Debug, Clone)]
pub struct ActionCredential {
    /// OpenSSH text, without a comment.
    pub certificate: String,
    /// First second of validity, Unix time.
    pub valid_after: u64,
    /// First second after it.
    pub valid_before: u64,
    /// The policy that decided.
    pub policy: Digest,
    /// How many approvals the grant demands.
    pub approvals: u8,
    /// The policies that allowed it, sorted.
    pub policies: Vec<String>,
}

/// Who the CA is, and what it thinks of the caller.
#[derive(Debug, Clone)]
pub struct Description {
    /// The caller's name.
    pub relay: RelayName,
    /// Signs task certificates, OpenSSH text.
    pub task_ca: String,
    /// Signs host certificates, OpenSSH text.
    pub host_ca: String,
    /// The policy in force.
    pub policy: Digest,
    /// Why what stands in the policy's file is not in force, if it is not.
    pub policy_fault: Option<String>,
    /// The newest record.
    pub head: Head,
    /// The CA's clock, Unix seconds.
    pub now: u64,
    /// Life of a task certificate, seconds.
    pub task_lifetime_s: u64,
    /// Whom the caller may speak for.
    pub persons: Vec<PersonName>,
    /// What it may reach, of the inventory.
    pub targets: Vec<TargetName>,
}

/// What is known of a call, for the record of its refusal. What could not be read is absent.
#[derive(Debug, Clone, Default)]
pub struct Sketch {
    /// The task.
    pub task_id: Option<TaskId>,
    /// For whom.
    pub requester: Option<Requester>,
    /// Why.
    pub reason: Option<Reason>,
    /// Where.
    pub target: Option<TargetName>,
    /// Which request.
    pub request_id: Option<RequestId>,
    /// The hash of its bytes, also of bytes that are no request.
    pub request_sha256: Option<Digest>,
    /// What.
    pub action: Option<ActionName>,
}

impl From<&OpenTask> for Sketch {
    fn from(call: &OpenTask) -> Self {
        Self {
            task_id: Some(call.task_id.clone()),
            requester: Some(call.requester.clone()),
            reason: Some(call.reason.clone()),
            target: Some(call.target.clone()),
            ..Self::default()
        }
    }
}

impl From<&RenewTask> for Sketch {
    fn from(call: &RenewTask) -> Self {
        Self {
            task_id: Some(call.task_id.clone()),
            target: Some(call.target.clone()),
            ..Self::default()
        }
    }
}

impl From<&Asked> for Sketch {
    fn from(asked: &Asked) -> Self {
        let payload = asked.payload();
        Self {
            task_id: Some(payload.task_id.clone()),
            requester: Some(payload.requester.clone()),
            reason: Some(payload.reason.clone()),
            target: Some(payload.target.clone()),
            request_id: Some(payload.request_id.clone()),
            request_sha256: Some(asked.sha256().clone()),
            action: Some(payload.action.clone()),
        }
    }
}

/// The answer to a call that got nothing else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// The stable Code.
    pub code: Code,
    /// A lower-case fragment that can follow "failed to".
    pub message: String,
    /// The policies that decided, sorted; none where none did.
    pub policies: Vec<String>,
}

impl Refused {
    /// What the caller is told of an error.
    #[must_use]
    pub fn of(error: &Error) -> Self {
        Self {
            code: error.code(),
            message: error.to_string(),
            policies: error.policies().to_vec(),
        }
    }
}
