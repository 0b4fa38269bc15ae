//! Approvals, as those who ask and those who are asked find them.
//!
//! What is kept is bounded: those that are open for each person, and those of each task that are over. The bytes that people
//! sign are frozen here as long as something can become of them. Whose a signature is, is not known here.

use audit::ApprovalState;
use wire::Mode;
use wire::ids::{ActionName, ApprovalId, Digest, Fingerprint, PersonName, Reason, RequestId, TargetName, TaskId};

use super::{Answer, Owner, Request};

/// Approvals that may be asked for at once for one person.
pub const OPEN_APPROVALS: usize = 16;
/// Approvals of one task that are over and still remembered.
pub const PAST_APPROVALS: usize = 64;
/// How long after somebody's no the same call is refused, in seconds.
pub const DENIED_S: u64 = 600;

/// What people are asked to approve: one call of an action, on one target or several.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Approval {
    /// Its id.
    pub id: ApprovalId,
    /// The task.
    pub task: TaskId,
    /// For whom.
    pub owner: Owner,
    /// Why, from the task.
    pub reason: Reason,
    /// What.
    pub action: ActionName,
    /// To do it, or to try it out.
    pub mode: Mode,
    /// SHA-256 of what makes two calls the same one.
    pub same: Digest,
    /// How far it has come.
    pub state: ApprovalState,
    /// How many people must sign, 1 to 8.
    pub needed: u8,
    /// When they were asked, Unix time.
    pub asked: u64,
    /// When the frozen bytes expire, Unix time.
    pub ends: u64,
    /// When it came into its state, Unix time.
    pub since: u64,
    /// Whether something can still become of it: it was not denied, did not expire, and is not carried out everywhere.
    pub open: bool,
    /// Whether whoever asked was told of its end.
    pub told: bool,
    /// The requests, by their targets: 1 to 256.
    pub on: Vec<Frozen>,
    /// The signatures, in the order in which they came: at most 8, each of another key.
    pub signed: Vec<Signed>,
}

/// A request of which the bytes do not change any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frozen {
    /// Its id.
    pub request: RequestId,
    /// Where.
    pub target: TargetName,
    /// SHA-256 of its payload.
    pub sha256: Digest,
    /// The payload. There as long as something can become of it.
    pub payload: Option<String>,
    /// Whether it is carried out.
    pub step: Step,
}

/// Whether a request that people approve is carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// It is not; it may have been refused.
    Kept,
    /// It is now.
    Running,
    /// It was, and never is again.
    Done,
}

/// Somebody's signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// Of the key that made it. Whose that is, the target knows.
    pub fingerprint: Fingerprint,
    /// The SSHSIG in base64, without its armour.
    pub sig: String,
    /// When it came, Unix time.
    pub at: u64,
}

/// Where approvals are kept.
pub trait Approvals: Send + Sync {
    /// How many approvals are asked for in a person's name, and open.
    fn count(&self, person: &PersonName) -> Answer<'_, usize>;
    /// Keeps an approval that is asked for from now on, durably. `Error::Full` when its person has too many.
    fn ask(&self, approval: Approval) -> Answer<'_, ()>;
    /// The open approval for this very call, or else the newest that is over.
    fn newest(&self, same: &Digest) -> Answer<'_, Option<Approval>>;
    /// The approval of this id, whosever it is.
    fn find(&self, id: &ApprovalId) -> Answer<'_, Option<Approval>>;
    /// The approvals of a task, oldest first.
    fn of_task(&self, task: &TaskId) -> Answer<'_, Vec<Approval>>;
    /// Every approval that is open, oldest first.
    fn all_open(&self) -> Answer<'_, Vec<Approval>>;
    /// Every approval that is open although its time is up or its task is over, but for what is being carried out.
    fn due(&self, now: u64) -> Answer<'_, Vec<Approval>>;
    /// Keeps one more signature, durably, after which the approval is in this state. `Error::Taken` where it is not open.
    fn sign(&self, id: &ApprovalId, signed: Signed, state: ApprovalState) -> Answer<'_, ()>;
    /// Ends an approval, durably, and forgets its bytes. `Error::Taken` where it is not open.
    fn end(&self, id: &ApprovalId, state: ApprovalState, now: u64) -> Answer<'_, ()>;
    /// More people have to sign than were asked: it waits again.
    fn need(&self, id: &ApprovalId, needed: u8, now: u64) -> Answer<'_, ()>;
    /// Whoever asked was told of its end.
    fn tell(&self, id: &ApprovalId) -> Answer<'_, ()>;
    /// Keeps a request that begins, as [`super::Store::begin`] does, if these bytes are approved and nobody else carries them out:
    /// else `Error::Taken`. Where it is settled as refused, or as not sent, they may begin once more.
    fn carry_out(
        &self,
        approval: &ApprovalId,
        task: &TaskId,
        request: Request,
        payload: &str,
        now: u64,
    ) -> Answer<'_, ()>;
}
