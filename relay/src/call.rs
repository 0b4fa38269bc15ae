//! What comes in through a door and what goes out: a call, and the reply to it, as values.

use std::collections::BTreeMap;

use audit::ApprovalState;
use serde_json::{Map, Value};
use wire::ids::{
    ActionName, ApprovalId, BrainName, Digest, Fingerprint, Head, PersonName, Reason, RequestId, TargetName, TaskId,
};
use wire::{Code, Encoding, Mode, Risk, Status};

use crate::error::{About, Refusal};
use crate::rules::RelayMode;

/// Actions that have a tool of their own, where the relay's catalogue has them. `run_action` calls every action.
pub const TOOLS: [&str; 5] = [
    "tail_log",
    "read_file",
    "check_health",
    "restart_service",
    "run_migration",
];

/// Tools that touch no target. They have places of their own, so that whoever waits for many answers can still ask what
/// became of them.
pub const DESK: [&str; 5] = [
    "list_targets",
    "task_status",
    "close_task",
    "find_actions",
    "server_info",
];

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The uid of the client, from the kernel.
    pub uid: u32,
    /// The person behind that uid; `None` when the configuration names none.
    pub person: Option<PersonName>,
    /// What the client calls itself.
    pub brain: BrainName,
}

/// What is asked for.
#[derive(Debug, Clone)]
pub enum Call {
    /// Which targets there are.
    ListTargets,
    /// A task on some targets.
    OpenTask {
        /// Why.
        reason: Reason,
        /// Where: at least one, each once.
        targets: Vec<TargetName>,
    },
    /// What became of a task and its requests.
    TaskStatus {
        /// Which.
        task: TaskId,
    },
    /// The end of a task.
    CloseTask {
        /// Which.
        task: TaskId,
    },
    /// An action on a target.
    Act(Act),
    /// Which actions there are.
    FindActions(Search),
    /// Who this relay is and whether all is well.
    ServerInfo,
}

impl Call {
    /// Whether it is a call of one of the tools of the [`DESK`].
    #[must_use]
    pub fn is_for_the_desk(&self) -> bool {
        match self {
            Self::ListTargets
            | Self::TaskStatus { .. }
            | Self::CloseTask { .. }
            | Self::FindActions(_)
            | Self::ServerInfo => true,
            Self::OpenTask { .. } | Self::Act(_) => false,
        }
    }

    /// What it names.
    #[must_use]
    pub fn about(&self) -> About {
        match self {
            Self::Act(act) => About {
                action: Some(act.action.clone()),
                target: Some(act.target.clone()),
                task: act.task.clone(),
                mode: Some(act.mode),
                ..About::default()
            },
            Self::TaskStatus { task } | Self::CloseTask { task } => About {
                task: Some(task.clone()),
                ..About::default()
            },
            Self::OpenTask { .. } | Self::ListTargets | Self::FindActions(_) | Self::ServerInfo => About::default(),
        }
    }
}

/// An action on a target.
#[derive(Debug, Clone)]
pub struct Act {
    /// What.
    pub action: ActionName,
    /// Where.
    pub target: TargetName,
    /// In which task; `None` joins the caller's open task on the target, or opens one.
    pub task: Option<TaskId>,
    /// Why; needed when a task is opened by this.
    pub reason: Option<Reason>,
    /// Whether to do it or to try it out.
    pub mode: Mode,
    /// The arguments as sent, not yet checked.
    pub args: Map<String, Value>,
}

/// What actions are looked for by. What is left out fits every action.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// Words, one of which is enough; those that have more of them come first.
    pub words: Vec<String>,
    /// Where they are to be called.
    pub target: Option<TargetName>,
    /// What they risk.
    pub risk: Option<Risk>,
    /// Where the answer before this one ended, in its words.
    pub cursor: Option<String>,
}

/// What is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    /// To [`Call::ListTargets`].
    Targets(Vec<Listed>),
    /// To [`Call::OpenTask`].
    Opened(Opened),
    /// To [`Call::TaskStatus`].
    Status(TaskView),
    /// To [`Call::CloseTask`].
    Closed {
        /// Which task.
        task: TaskId,
        /// How many sessions were ended.
        sessions: usize,
        /// The number of the relay's record.
        record: u64,
    },
    /// To [`Call::Act`].
    Done(Box<Done>),
    /// To [`Call::FindActions`].
    Found(Found),
    /// To [`Call::ServerInfo`].
    Server(Box<ServerView>),
}

/// A target as callers see it.
#[derive(Debug, Clone)]
pub struct Listed {
    /// Its name.
    pub target: TargetName,
    /// What the inventory says of it.
    pub labels: BTreeMap<String, String>,
    /// The caller's open task there.
    pub task: Option<TaskId>,
}

/// Actions that were found.
#[derive(Debug, Clone)]
pub struct Found {
    /// Some of them, the best first.
    pub actions: Vec<FoundAction>,
    /// How many there are in all.
    pub count: usize,
    /// What the next question says for those that follow; `None` where none do.
    pub cursor: Option<String>,
}

/// An action as callers see it.
#[derive(Debug, Clone)]
pub struct FoundAction {
    /// Its name.
    pub action: ActionName,
    /// A few words.
    pub title: String,
    /// What it does.
    pub description: String,
    /// The closed JSON Schema of its arguments.
    pub args: Value,
    /// How many people must sign.
    pub approvals: u8,
    /// Doing it.
    pub run: Reach,
    /// Trying it out, where it can be.
    pub dry_run: Option<Reach>,
}

/// How far this relay lets an action go, in one mode. The CA and the target are still to be asked.
#[derive(Debug, Clone)]
pub struct Reach {
    /// What it risks.
    pub risk: Risk,
    /// Where it may be called.
    pub targets: Names,
    /// What is in the way elsewhere, or with some arguments.
    pub denied: Vec<Barrier>,
}

/// What is in the way of an action.
#[derive(Debug, Clone)]
pub struct Barrier {
    /// The rule's id, or [`crate::rules::READONLY`].
    pub by: String,
    /// Whether every call is refused there, or that depends on the arguments.
    pub always: bool,
    /// Where.
    pub targets: Names,
}

/// Names of targets: the first of them, and how many there are.
#[derive(Debug, Clone, Default)]
pub struct Names {
    /// The first ones.
    pub first: Vec<TargetName>,
    /// All of them.
    pub count: usize,
}

/// A task that was opened.
#[derive(Debug, Clone)]
pub struct Opened {
    /// Its id.
    pub task: TaskId,
    /// When it ends by itself, Unix time.
    pub ends: u64,
    /// Where it is open.
    pub targets: Vec<TargetName>,
    /// Where it was not opened, and why not.
    pub refused: Vec<(TargetName, Refusal)>,
    /// The number of the relay's newest record about it.
    pub record: u64,
}

/// A task as its owner sees it.
#[derive(Debug, Clone)]
pub struct TaskView {
    /// Its id.
    pub task: TaskId,
    /// Why it exists.
    pub reason: Reason,
    /// Whether it can still be used.
    pub open: bool,
    /// When it was opened, Unix time.
    pub opened: u64,
    /// When it ends by itself, Unix time.
    pub ends: u64,
    /// Its targets, and when the certificate on each ends; `None` where it has none: the task is over, or was not used
    /// since the relay was started.
    pub targets: Vec<(TargetName, Option<u64>)>,
    /// Its newest requests, oldest first: id, target, action, and what became of each.
    pub requests: Vec<crate::store::Request>,
    /// What people were asked to approve in it, oldest first.
    pub approvals: Vec<ApprovalView>,
}

/// Something that people are, or were, asked to approve, as whoever asked for it sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApprovalView {
    /// Its id.
    pub id: ApprovalId,
    /// How far it has come.
    pub state: ApprovalState,
    /// Whether something can still become of it. What is approved and not open was carried out.
    pub open: bool,
    /// What.
    pub action: ActionName,
    /// To do it, or to try it out.
    pub mode: Mode,
    /// Where.
    pub targets: Vec<TargetName>,
    /// How many people must sign.
    pub needed: u8,
    /// How many keys have signed. Whose they are, the target finds out.
    pub held: usize,
    /// When they were asked, Unix time.
    pub asked: u64,
    /// Until when it can be approved and carried out, Unix time.
    pub ends: u64,
}

/// The same as the people see it who are asked.
#[derive(Debug, Clone)]
pub struct Shown {
    /// What it is, and how far it has come.
    pub view: ApprovalView,
    /// In which task.
    pub task: TaskId,
    /// For whom.
    pub person: PersonName,
    /// Through which brain.
    pub brain: BrainName,
    /// Why, in their words.
    pub reason: Reason,
    /// The keys that have signed.
    pub signed: Vec<Fingerprint>,
    /// The text to sign, where it was wanted and something can still become of it.
    pub statement: Option<String>,
}

/// An action that the target answered, and did not refuse.
#[derive(Debug, Clone)]
pub struct Done {
    /// The task.
    pub task: TaskId,
    /// The request.
    pub request: RequestId,
    /// Where.
    pub target: TargetName,
    /// What.
    pub action: ActionName,
    /// How dangerous that is, in its mode.
    pub risk: Risk,
    /// Whether it was done or tried out.
    pub mode: Mode,
    /// What became of it.
    pub status: Status,
    /// Why, unless it is `ok`.
    pub code: Option<Code>,
    /// Exit code of the program.
    pub exit_code: Option<i32>,
    /// How long it ran, in milliseconds.
    pub duration_ms: u64,
    /// Whether some of the output was not sent.
    pub truncated: bool,
    /// How many bytes the program wrote to standard output.
    pub output_bytes: u64,
    /// How `output` stands for bytes.
    pub encoding: Encoding,
    /// Whether the target's manifest is another than the relay's copy.
    pub manifest_differs: bool,
    /// Seconds that were waited because clocks differ: the certificate was not valid yet.
    pub waited_s: u64,
    /// Whether the target had carried it out when it was asked once more.
    pub replayed: bool,
    /// The number of the target's record.
    pub record: Option<u64>,
    /// Standard output, as the target sent it.
    pub output: String,
    /// Standard error, as the target sent it.
    pub stderr: String,
    /// What the target says about the Code.
    pub message: Option<String>,
}

/// The relay as callers see it.
#[derive(Debug, Clone)]
pub struct ServerView {
    /// The relay's name.
    pub relay: String,
    /// SHA-256 of its configuration.
    pub config: Digest,
    /// The newest record of its log that is durable.
    pub head: Head,
    /// The CA's build, and by how many seconds its clock is ahead; or the Code of why it cannot be reached.
    pub ca: Result<(String, i64), Code>,
    /// What of the separation of accounts is missing, in words. Empty when nothing is.
    pub boundary_missing: Vec<String>,
    /// The person that the caller acts for.
    pub person: Option<PersonName>,
    /// What the relay is for.
    pub mode: RelayMode,
}
