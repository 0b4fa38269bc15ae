//! Tasks, requests and approvals, as their owners may see them and as the next start finds them.
//!
//! A task belongs to one person and brain. Somebody else's task is answered exactly like one that does not exist.
//! What is kept is bounded: open tasks for each person and in all, requests for each task, tasks that are over. No key is
//! here, and no output.
//!
//! The log is the truth; the store is an index of it, so that a relay which was killed goes on where it was. What it has
//! said yes to outlives the process. It outlives a power cut where that matters: that a change was sent, and that a task
//! was closed; of the rest a power cut may take the last seconds.
//!
//! [`Store`] says what a store does and knows no database; [`Sqlite`] is the one there is.

mod approval;
mod approvals;
mod file;
mod requests;
mod sqlite;
mod tasks;

use std::collections::{BTreeMap, BTreeSet};
use std::pin::Pin;

use wire::ids::{ActionName, BrainName, Digest, PersonName, Reason, RequestId, TargetName, TaskId};
use wire::{Code, Mode, Risk, Status};

pub use approval::{Approval, Approvals, DENIED_S, Frozen, OPEN_APPROVALS, PAST_APPROVALS, Signed, Step};
pub use file::{Unusable, check};
pub use sqlite::Sqlite;

/// Open tasks that one person may have at once, whatever their brains call themselves.
pub const OPEN_TASKS: usize = 32;
/// Open tasks in all.
pub const ALL_OPEN_TASKS: usize = 4096;
/// Requests that are remembered of one task; older ones are in the log.
pub const REQUESTS: usize = 256;
/// Tasks that are over and still remembered, in all.
pub const OVER: usize = 1024;
/// How long what is unknown stays to be asked for, in seconds: no target keeps an Outcome for longer.
pub const ASKABLE_S: u64 = 24 * 60 * 60;

/// Whom a task belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The human.
    pub person: PersonName,
    /// What the client calls itself.
    pub brain: BrainName,
}

/// One unit of intent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Whose it is.
    pub owner: Owner,
    /// Why it exists.
    pub reason: Reason,
    /// When it was opened, Unix time.
    pub opened: u64,
    /// When it ends by itself, Unix time; later than `opened`.
    pub ends: u64,
    /// Where it is open.
    pub targets: BTreeSet<TargetName>,
    /// Whether it was ended, by its owner or because its time was up.
    pub closed: bool,
}

impl Task {
    /// Whether it can be used at this time.
    #[must_use]
    pub fn is_open(&self, now: u64) -> bool {
        !self.closed && now < self.ends
    }
}

/// How far a request has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Nothing of it was sent.
    Recorded,
    /// It is about to be signed, and some of it may have been sent. A request that only reads begins here: there is nothing to be careful about.
    Sent,
    /// Nobody will learn more.
    Settled,
}

/// One call, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// Where.
    pub target: TargetName,
    /// What.
    pub action: ActionName,
    /// How dangerous that is, in its mode.
    pub risk: Risk,
    /// Whether it was to be done or tried out.
    pub mode: Mode,
    /// SHA-256 of its payload.
    pub sha256: Digest,
    /// How far it has come.
    pub phase: Phase,
    /// What became of it; `None` while it is under way. With the phase `Sent`: what was known when it was last looked at.
    pub end: Option<(Status, Option<Code>)>,
}

/// A request of which more can be learnt: it is under way, or the relay that sent it is gone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsettled {
    /// Its task, which may be over.
    pub task: Task,
    /// The request; its phase is not `Settled`.
    pub request: Request,
    /// The bytes that were frozen when it began. There for each change and destroy, and never for a read.
    pub payload: Option<String>,
    /// When it began, Unix time.
    pub begun: u64,
}

/// Why the store did not do it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// One of its bounds is reached.
    #[error("keep more")]
    Full,
    /// It is not to be had any more: somebody else came first, or its time was up.
    #[error("take what somebody else has taken")]
    Taken,
    /// It cannot be read or written now. Nothing of what was asked was done.
    #[error("use the store: {0}")]
    Unavailable(String),
}

impl Error {
    /// Its Code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Full => Code::Capacity,
            Self::Taken => Code::InProgress,
            Self::Unavailable(_) => Code::StoreUnavailable,
        }
    }
}

/// What a store answers, once it has. What was asked is done, or not, also when nobody waits any more.
pub type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<T, Error>> + Send + 'a>>;

/// Where tasks and requests are kept. Answers come in the order in which the questions were asked.
pub trait Store: Send + Sync {
    /// Keeps a new task. [`Error::Full`] when its owner, or everybody together, has too many.
    fn open(&self, task: Task, now: u64) -> Answer<'_, ()>;
    /// Adds a target to an open task, which ends no later than `ends`.
    fn reach(&self, id: &TaskId, target: &TargetName, ends: u64) -> Answer<'_, bool>;
    /// The task of this id, if it is this owner's; also when it is over.
    fn task(&self, owner: &Owner, id: &TaskId) -> Answer<'_, Option<Task>>;
    /// The owner's newest open task on a target.
    fn open_on(&self, owner: &Owner, target: &TargetName, now: u64) -> Answer<'_, Option<Task>>;
    /// The owner's newest open task on each target where there is one.
    fn places(&self, owner: &Owner, now: u64) -> Answer<'_, BTreeMap<TargetName, TaskId>>;
    /// Ends a task, durably. `None` when it is not this owner's.
    fn close(&self, owner: &Owner, id: &TaskId, now: u64) -> Answer<'_, Option<Task>>;
    /// Ends tasks whose time is up, gives each of them once, and settles what was unknown for [`ASKABLE_S`].
    fn expire(&self, now: u64) -> Answer<'_, Vec<Task>>;
    /// Keeps a request that begins, in its phase and without an end. The payload of a change or destroy is kept until it is
    /// known what became of it. [`Error::Full`] when too much of the task is not settled.
    fn begin(&self, task: &TaskId, request: Request, payload: &str, now: u64) -> Answer<'_, ()>;
    /// Some of the request is about to leave. Durable once it is answered.
    fn sent(&self, task: &TaskId, request: &RequestId) -> Answer<'_, ()>;
    /// Remembers what became of a request. A change or destroy of which that is `unknown` stays in its phase. What cannot be
    /// written now is written before anything else is answered.
    fn settle(&self, task: &TaskId, request: &RequestId, status: Status, code: Option<Code>) -> Answer<'_, ()>;
    /// Nobody will learn more of a request of which the end is `unknown`.
    fn give_up(&self, task: &TaskId, request: &RequestId) -> Answer<'_, ()>;
    /// The requests of a task, oldest first.
    fn requests(&self, task: &TaskId) -> Answer<'_, Vec<Request>>;
    /// Every request that is not settled, oldest first. One without an end is under way in this process, but for those that
    /// a start finds; one that is `unknown` can be asked for by its id.
    fn unsettled(&self) -> Answer<'_, Vec<Unsettled>>;
    /// What people are asked to approve.
    fn approving(&self) -> &dyn Approvals;
}

#[cfg(test)]
mod tests;
