//! The CA's own log: what is recorded before something is signed, and the proof that it was.
//!
//! [`Recorded`] is made here and nowhere else, after the record is durable. A certificate is laid out from it, so the
//! log is never younger than a signature and never says something else.

use std::fmt;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use audit::{
    ApprovalState, Approving, Cert, Decision, Draft, Event, Log, Own, Pending, Record, Strangers, Tier, Who, Witness,
};
use openssh::key::PublicKey;
use wire::ids::{ActionName, Digest, Fingerprint, Head, RelayName, RequestId, Serial, TargetName, TaskId};
use wire::{Code, Kind, Mode, Risk};

use crate::call::Sketch;
use crate::issued::Facts;

/// Longest text in a record, in bytes; what is beyond is cut.
const MESSAGE_BYTES: usize = 500;

/// Most policy ids in a record; what is beyond is left out, as in the answer.
const POLICIES: usize = grpc::policies::MOST;

/// The CA's log.
pub struct Records {
    pen: Mutex<Pen>,
}

struct Pen {
    log: Log,
    strangers: Strangers,
}

/// What became durable before anybody could act on it: the subject, and the head of its record.
///
/// ```compile_fail,E0451
/// // Nobody but the log can say that something was recorded.
/// fn pretend(issue: ca::record::Issue, head: wire::Head) -> ca::record::Recorded<ca::record::Issue> {
///     ca::record::Recorded { subject: issue, head }
/// }
/// ```
#[derive(Debug)]
#[must_use = "what was recorded is now to be done"]
pub struct Recorded<T> {
    subject: T,
    head: Head,
}

/// What stands in the log and is not durable yet. Nothing can be done with it but wait.
#[must_use = "nothing may be done before it is durable"]
pub struct Written<T> {
    subject: T,
    pending: Pending,
}

impl<T> Written<T> {
    /// What was written.
    pub fn subject(&self) -> &T {
        &self.subject
    }

    /// Waits for the disk, together with whoever else waits.
    ///
    /// # Errors
    /// [`audit::Error`]; then nothing may be done.
    pub fn settle(self) -> Result<Recorded<T>, audit::Error> {
        Ok(Recorded {
            head: self.pending.settle()?,
            subject: self.subject,
        })
    }
}

impl<T> Recorded<T> {
    /// What was recorded.
    pub fn subject(&self) -> &T {
        &self.subject
    }

    /// For whoever does it: consumed, so that one record stands for one signature.
    pub(crate) fn into_parts(self) -> (T, Head) {
        (self.subject, self.head)
    }
}

/// Whether a certificate is the first for its key or another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Occasion {
    /// The task is opened on this target.
    Open,
    /// The certificate before this one ends soon.
    Renew,
}

/// What a certificate covers, which is also what kind of certificate it is.
#[derive(Debug, Clone)]
pub enum Covers {
    /// A task: these read actions, strictly sorted.
    Reads {
        /// Opened or renewed.
        occasion: Occasion,
        /// What the grant lists.
        actions: Vec<ActionName>,
    },
    /// One request of a task.
    Request(Box<Pinned>),
}

/// The one request that an action certificate covers, and what it was judged by.
#[derive(Debug, Clone)]
pub struct Pinned {
    /// Its id.
    pub request_id: RequestId,
    /// SHA-256 of its bytes.
    pub request_sha256: Digest,
    /// What it asks for.
    pub action: ActionName,
    /// To do it, or to show it.
    pub mode: Mode,
    /// What that risks, by the CA's copy of the manifest.
    pub risk: Risk,
    /// SHA-256 of that copy.
    pub manifest: Digest,
    /// How many approvals the grant demands.
    pub approvals: u8,
    /// The head of the relay's log that the request names.
    pub relay: Head,
}

/// A request that policy allows and that people have not approved yet.
#[derive(Debug, Clone)]
pub struct Judged {
    /// The task.
    pub task_id: TaskId,
    /// Where.
    pub target: TargetName,
    /// Whose task it is.
    pub facts: Facts,
    /// The request, and what it was judged by.
    pub pinned: Pinned,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// How many approvals the relay says it holds.
    pub held: u8,
}

impl fmt::Display for Covers {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Reads { actions, .. } => write!(out, "{} read actions", actions.len()),
            Self::Request(pinned) => write!(out, "{} in {}", pinned.action, pinned.request_id),
        }
    }
}

impl Covers {
    /// The kind of the grant.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Reads { .. } => Kind::Task,
            Self::Request(_) => Kind::Action,
        }
    }

    /// What the grant lists.
    #[must_use]
    pub fn actions(&self) -> Vec<ActionName> {
        match self {
            Self::Reads { actions, .. } => actions.clone(),
            Self::Request(pinned) => vec![pinned.action.clone()],
        }
    }

    /// The request that the grant pins, if it pins one.
    #[must_use]
    pub fn pinned(&self) -> Option<&Pinned> {
        match self {
            Self::Reads { .. } => None,
            Self::Request(pinned) => Some(pinned),
        }
    }
}

/// A task's or an action's certificate that is to be signed.
#[derive(Debug, Clone)]
pub struct Issue {
    /// The task; becomes the key id.
    pub task_id: TaskId,
    /// Its facts.
    pub facts: Facts,
    /// Where; the principal is made of it.
    pub target: TargetName,
    /// The key that is certified.
    pub key: PublicKey,
    /// What it is good for.
    pub covers: Covers,
    /// Digest of the policy in force.
    pub policy: Digest,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// Serial number, below 2^63.
    pub serial: u64,
    /// First second of validity, Unix time.
    pub valid_after: u64,
    /// First second after it.
    pub valid_before: u64,
    /// The key that is to sign.
    pub ca: Fingerprint,
}

/// A target's host certificate that is to be signed.
#[derive(Debug, Clone)]
pub struct Enrolment {
    /// The target; becomes key id and principal.
    pub target: TargetName,
    /// Its SSH host key, which is certified.
    pub host_key: PublicKey,
    /// The key that signs its Outcomes.
    pub receipt_key: PublicKey,
    /// Serial number, below 2^63.
    pub serial: u64,
    /// First second of validity, Unix time.
    pub valid_after: u64,
    /// First second after it.
    pub valid_before: u64,
    /// The key that is to sign.
    pub ca: Fingerprint,
}

/// A refusal of a relay that proved itself. What could not be read of the call is absent.
#[derive(Debug, Clone)]
pub struct Refusal {
    /// Who asked.
    pub relay: RelayName,
    /// For what.
    pub sketch: Sketch,
    /// Why it was refused.
    pub code: Code,
    /// The same for people.
    pub message: String,
    /// The policies that decided.
    pub policies: Vec<String>,
    /// For how many like it it stands, where they are counted.
    pub count: Option<u64>,
}

impl Records {
    /// Opens the log in `folder`, or begins it when the folder is empty. `lock` and the counter of strangers lie in
    /// `state_dir`, where no reader of the log comes.
    ///
    /// # Errors
    /// [`audit::Error`].
    pub fn open(folder: &Path, lock: &Path, state_dir: &Path, host: String) -> Result<Self, audit::Error> {
        let who = Who {
            tier: Tier::Ca,
            host,
            build: wire::build::id().to_owned(),
        };
        let log = Log::open(folder, lock, who, Box::new(Own))?;
        let strangers = Strangers::open(&state_dir.join("strangers"), &Own)?;
        Ok(Self {
            pen: Mutex::new(Pen { log, strangers }),
        })
    }

    /// Writes that a task's or an action's certificate is about to be signed.
    ///
    /// # Errors
    /// [`audit::Error`]; then nothing may be signed.
    pub fn issue(&self, issue: Issue) -> Result<Written<Issue>, audit::Error> {
        let pending = self.pen().log.write(&Draft {
            task_id: Some(issue.task_id.clone()),
            requester: Some(issue.facts.requester.clone()),
            reason: Some(issue.facts.reason.clone()),
            relay: Some(issue.facts.relay.clone()),
            opened: Some(issue.facts.opened),
            target: Some(issue.target.clone()),
            decision: Some(Decision::Allow),
            policy: Some(first(&issue.policies)),
            cert: Some(Cert {
                serial: Serial::of(issue.serial),
                key_id: issue.task_id.to_string(),
                ca: issue.ca.clone(),
                key: Some(Fingerprint::of(&issue.key)),
                valid_before: Some(issue.valid_before),
            }),
            ..about(&issue.covers)
        })?;
        Ok(Written {
            subject: issue,
            pending,
        })
    }

    /// Writes that a request was allowed, and that nothing is signed for it before people have approved it.
    ///
    /// # Errors
    /// [`audit::Error`].
    pub fn judged(&self, judged: Judged) -> Result<Written<Judged>, audit::Error> {
        let Judged { facts, pinned, .. } = &judged;
        let pending = self.pen().log.write(&Draft {
            task_id: Some(judged.task_id.clone()),
            requester: Some(facts.requester.clone()),
            reason: Some(facts.reason.clone()),
            relay: Some(facts.relay.clone()),
            opened: Some(facts.opened),
            target: Some(judged.target.clone()),
            decision: Some(Decision::Allow),
            policy: Some(first(&judged.policies)),
            approval: Some(Approving {
                id: None,
                state: ApprovalState::Waiting,
                needed: pinned.approvals,
                held: judged.held,
                fingerprint: None,
            }),
            ..about_request(pinned, Event::Judge)
        })?;
        Ok(Written {
            subject: judged,
            pending,
        })
    }

    /// Records that a host certificate is about to be signed.
    ///
    /// # Errors
    /// [`audit::Error`]; then nothing may be signed.
    pub fn enroll(&self, enrolment: Enrolment) -> Result<Recorded<Enrolment>, audit::Error> {
        let receipt = Fingerprint::of(&enrolment.receipt_key);
        let head = self.append(&Draft {
            target: Some(enrolment.target.clone()),
            decision: Some(Decision::Allow),
            message: Some(format!("receipt key {receipt}")),
            cert: Some(Cert {
                serial: Serial::of(enrolment.serial),
                key_id: enrolment.target.to_string(),
                ca: enrolment.ca.clone(),
                key: Some(Fingerprint::of(&enrolment.host_key)),
                valid_before: Some(enrolment.valid_before),
            }),
            ..Draft::new(Event::Enroll)
        })?;
        Ok(Recorded {
            subject: enrolment,
            head,
        })
    }

    /// Records a refusal.
    ///
    /// # Errors
    /// [`audit::Error`].
    pub fn refused(&self, refusal: Refusal) -> Result<Head, audit::Error> {
        let sketch = refusal.sketch;
        self.append(&Draft {
            task_id: sketch.task_id,
            request_id: sketch.request_id,
            request_sha256: sketch.request_sha256,
            requester: sketch.requester,
            reason: sketch.reason,
            relay: Some(refusal.relay),
            target: sketch.target,
            action: sketch.action,
            decision: Some(Decision::Deny),
            status: Some(wire::Status::Refused),
            code: Some(refusal.code),
            message: Some(cut(&refusal.message)),
            count: refusal.count,
            policy: (!refusal.policies.is_empty()).then(|| first(&refusal.policies)),
            ..Draft::new(Event::Refused)
        })
    }

    /// Records that another policy comes into force, or that it cannot.
    ///
    /// # Errors
    /// [`audit::Error`]; then it does not.
    pub fn policy(&self, decision: Decision, message: &str) -> Result<Head, audit::Error> {
        let code = (decision == Decision::Deny).then_some(Code::ConfigInvalid);
        self.append(&Draft {
            decision: Some(decision),
            code,
            message: Some(cut(message)),
            ..Draft::new(Event::Policy)
        })
    }

    /// Counts a stranger; records all of them once a minute.
    ///
    /// # Errors
    /// [`audit::Error`].
    pub fn stranger(&self, code: Code, text: &str, now: u64) -> Result<(), audit::Error> {
        let Pen { log, strangers } = &mut *self.pen();
        strangers.note(log, code, text, now).map(drop)
    }

    /// Records the strangers that were counted, if the last such record is a minute old.
    ///
    /// # Errors
    /// [`audit::Error`].
    pub fn strangers_due(&self, now: u64) -> Result<(), audit::Error> {
        let Pen { log, strangers } = &mut *self.pen();
        strangers.flush_due(log, now).map(drop)
    }

    /// Visits the records since `since` (Unix seconds), and some that are older; see [`Log::since`].
    ///
    /// # Errors
    /// [`audit::Error`].
    pub fn since(&self, since: u64, visit: &mut dyn FnMut(Record)) -> Result<(), audit::Error> {
        self.pen().log.since(since, &mut |record, _| visit(record))
    }

    /// Records something about the CA itself: that it starts, stops, got its keys.
    ///
    /// # Errors
    /// [`audit::Error`].
    pub fn own(&self, event: Event, message: &str) -> Result<Head, audit::Error> {
        self.append(&Draft {
            message: Some(cut(message)),
            ..Draft::new(event)
        })
    }

    /// The newest record.
    #[must_use]
    pub fn head(&self) -> Head {
        self.pen().log.head()
    }

    fn append(&self, draft: &Draft) -> Result<Head, audit::Error> {
        // The pen is given back before the wait, so that calls at the same time wait for the disk together.
        let pending = self.pen().log.write(draft)?;
        pending.settle()
    }

    fn pen(&self) -> MutexGuard<'_, Pen> {
        // After a panic elsewhere the log itself is whole: it finds its end anew.
        self.pen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a record says of what a certificate covers.
fn about(covers: &Covers) -> Draft {
    match covers {
        Covers::Reads { occasion, actions } => Draft {
            actions: Some(actions.clone()),
            ..Draft::new(match occasion {
                Occasion::Open => Event::Issue,
                Occasion::Renew => Event::Renew,
            })
        },
        Covers::Request(pinned) => about_request(pinned, Event::Authorize),
    }
}

/// What a record says of one request.
fn about_request(pinned: &Pinned, event: Event) -> Draft {
    Draft {
        request_id: Some(pinned.request_id.clone()),
        request_sha256: Some(pinned.request_sha256.clone()),
        action: Some(pinned.action.clone()),
        mode: Some(pinned.mode),
        risk: Some(pinned.risk),
        manifest: Some(pinned.manifest.clone()),
        witness: Some(Witness {
            relay: Some(pinned.relay.clone()),
            ..Witness::default()
        }),
        ..Draft::new(event)
    }
}

fn cut(text: &str) -> String {
    wire::text::escaped(text, MESSAGE_BYTES)
}

fn first(policies: &[String]) -> Vec<String> {
    policies.iter().take(POLICIES).cloned().collect()
}
