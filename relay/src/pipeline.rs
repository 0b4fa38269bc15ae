//! The story of a call.
//!
//! A client asks for an action on a target. The relay checks the arguments against its copy of the catalogue, finds the
//! target, joins or opens a task (the CA decides), takes the session of that task on that target, builds the payload,
//! records that it is about to ask, signs, sends, verifies the target's signed answer, records it, and hands it up.
//!
//! Each step gives the value that the next one needs, and nothing else makes one: no record, no request; no verified
//! signature, no outcome. A step that says no ends the call with one Code, in one record of whoever refused.

mod refusals;
mod restart;
mod seat;
mod tasks;
mod verdict;
mod views;

use std::sync::Arc;
use std::time::Duration;

use audit::{Draft, Event, Output, Witness};
use catalogue::{Catalogue, HostTrust, Inventory};
use openssh::sshsig;
use tokio::sync::Semaphore;
use wire::ids::{Digest, Fingerprint, RequestId, TargetName, TaskId};
use wire::lines::{Answer, RelayLine};
use wire::seal::Sealed;
use wire::{Code, Mode, Payload, PayloadWitness, Proof, Requester, Risk, Status, Stream};

use crate::call::{Act, Call, Caller, Done, Reply};
use crate::error::{About, Refusal};
use crate::issuer::Issuer;
use crate::people::People;
use crate::records::Records;
use crate::seats::{Seat, Seats};
use crate::session::{Host, Session, Trust};
use crate::store::{Owner, Phase, Request, Store, Task};

pub use restart::NotTakenUp;
use verdict::Verified;

/// Calls that may be on their way at once, of all clients together.
const CALLS: usize = 256;
/// What the network and the target's own work may take beyond an action's own time.
const MARGIN: Duration = Duration::from_secs(10);
/// Longest text that is put into a record.
const MESSAGE_BYTES: usize = 500;

/// Everything that a call needs.
pub struct Relay {
    /// The relay's name.
    pub name: wire::ids::RelayName,
    /// SHA-256 of its configuration.
    pub config: Digest,
    /// Who may call.
    pub people: People,
    /// Which targets there are.
    pub inventory: Inventory,
    /// The relay's copy of the catalogue.
    pub catalogue: Catalogue,
    /// Tasks and requests.
    pub store: Box<dyn Store>,
    /// The CA.
    pub issuer: Issuer,
    /// The relay's own log.
    pub records: Records,
    /// Keys, certificates, sessions.
    pub seats: Seats,
    /// Calls on their way.
    pub busy: Arc<Semaphore>,
    /// The clock, Unix seconds.
    pub now: fn() -> u64,
}

/// A call whose action, arguments and target are known to be right, as far as the relay can tell.
struct Asked {
    act: Act,
    args: serde_json::Map<String, serde_json::Value>,
    manifest: Digest,
    risk: Risk,
    timeout: Duration,
    about: About,
}

/// The bytes of a request, not yet recorded.
struct Built {
    asked: Asked,
    request: RequestId,
    payload: String,
    sha256: Digest,
}

/// A request whose record is durable: the only thing that is ever signed.
#[must_use = "a recorded request is sent, or its end is recorded"]
struct Recorded {
    built: Built,
}

impl Relay {
    /// How many calls may be on their way at once.
    #[must_use]
    pub fn places() -> Arc<Semaphore> {
        Arc::new(Semaphore::new(CALLS))
    }

    /// Answers one call. Every refusal of the relay's own is in its log before it is answered.
    ///
    /// # Errors
    /// The one [`Refusal`] that ended the call.
    pub async fn call(self: Arc<Self>, caller: Caller, call: Call) -> Result<Reply, Refusal> {
        let Some(requester) = Self::requester(&caller) else {
            return Err(self.refuse_stranger(&caller).await);
        };
        let result = match self.busy.try_acquire() {
            Ok(_place) => self.answer(&caller, &requester, call).await,
            Err(_) => Err(Refusal::new(Code::Capacity, &About::default())),
        };
        match result {
            Ok(reply) => Ok(reply),
            Err(refusal) => Err(self.record_refusal(&requester, refusal).await),
        }
    }

    async fn answer(self: &Arc<Self>, caller: &Caller, requester: &Requester, call: Call) -> Result<Reply, Refusal> {
        match call {
            Call::Act(act) => self.act(requester, act).await.map(|done| Reply::Done(Box::new(done))),
            Call::OpenTask { reason, targets } => self.open_task(requester, reason, targets).await.map(Reply::Opened),
            Call::TaskStatus { task } => self.task_status(requester, &task).await.map(Reply::Status),
            Call::CloseTask { task } => self.close_task(requester, &task).await,
            Call::ListTargets => self.list_targets(requester).await.map(Reply::Targets),
            Call::ServerInfo => Ok(Reply::Server(Box::new(self.server_info(caller).await))),
        }
    }

    /// An action, from the call to the outcome.
    async fn act(self: &Arc<Self>, requester: &Requester, act: Act) -> Result<Done, Refusal> {
        let mut asked = self.check(act)?;
        let task = self.join(requester, &asked).await?;
        asked.about.task = Some(task.id.clone());
        let seat = self.seat(&task, &asked.act.target, &asked.about).await?;
        let (session, issued) = self.session(&seat, &asked.about).await?;
        let built = self.build(requester, &task, &issued, asked).await?;
        let recorded = self.record_request(requester, &task, built).await?;
        let answer = self.send(&seat, &session, &recorded).await;
        self.conclude(&task, &session, &issued.receipt_key, recorded, answer)
            .await
    }

    /// The action is in the catalogue, its arguments fit, the target is in the inventory.
    fn check(&self, act: Act) -> Result<Asked, Refusal> {
        let about = About {
            action: Some(act.action.clone()),
            target: Some(act.target.clone()),
            ..About::default()
        };
        if self.inventory.find(act.target.as_str()).is_none() {
            let detail = tasks::not_in_the_inventory(&[act.target.as_str()]);
            return Err(Refusal::because(Code::UnknownTarget, detail, &about));
        }
        let Some(entry) = self.catalogue.find(&act.action) else {
            return Err(Refusal::new(Code::UnknownAction, &about));
        };
        let checked = entry.manifest().check_args(&act.args).map_err(|faults| {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            Refusal::because(Code::ArgumentsInvalid, faults.join("; "), &about)
        })?;
        Ok(Asked {
            args: checked.args().clone(),
            manifest: entry.digest().clone(),
            risk: entry.manifest().risk(),
            timeout: Duration::from_millis(entry.manifest().timeout_ms()),
            about,
            act,
        })
    }

    /// The task that was named, or the caller's open task on the target, or a new one.
    async fn join(self: &Arc<Self>, requester: &Requester, asked: &Asked) -> Result<Task, Refusal> {
        let owner = Self::owner(requester);
        if let Some(id) = &asked.act.task {
            let about = About {
                task: Some(id.clone()),
                ..asked.about.clone()
            };
            let task = self
                .store
                .task(&owner, id)
                .await
                .map_err(|error| Refusal::store(&error, &asked.about))?
                .ok_or_else(|| Refusal::new(Code::UnknownTask, &asked.about))?;
            if !task.is_open((self.now)()) {
                return Err(Refusal::new(Code::TaskEnded, &about));
            }
            if !task.targets.contains(&asked.act.target) {
                let detail =
                    "the task is not open on this target; leave task_id out and give a reason, or open another";
                return Err(Refusal::because(Code::ArgumentsInvalid, detail, &about));
            }
            return Ok(task);
        }
        let turn = self.seats.turn(&owner, &asked.act.target);
        let _turn = turn.lock().await;
        let open = self.store.open_on(&owner, &asked.act.target, (self.now)()).await;
        if let Some(task) = open.map_err(|error| Refusal::store(&error, &asked.about))? {
            return Ok(task);
        }
        let reason = asked
            .act
            .reason
            .clone()
            .ok_or_else(|| Refusal::new(Code::ReasonRequired, &asked.about))?;
        let opened = self
            .open_task(requester, reason, vec![asked.act.target.clone()])
            .await
            .map_err(|mut refusal| {
                refusal.about.action = asked.about.action.clone();
                refusal
            })?;
        self.store
            .task(&owner, &opened.task)
            .await
            .map_err(|error| Refusal::store(&error, &asked.about))?
            .ok_or_else(|| Refusal::new(Code::Internal, &asked.about))
    }

    /// The exact bytes that will be signed.
    async fn build(
        &self,
        requester: &Requester,
        task: &Task,
        issued: &crate::issuer::Issued,
        mut asked: Asked,
    ) -> Result<Built, Refusal> {
        let about = asked.about.clone();
        let internal = || Refusal::new(Code::Internal, &about);
        let request: RequestId = uuid::Uuid::now_v7().to_string().parse().map_err(|_| internal())?;
        asked.about.request = Some(request.clone());
        let relay = self.records.head().await.ok_or_else(internal)?;
        let latest = (self.now)().saturating_add(wire::limits::REQUEST_MAX_S);
        let payload = Payload {
            v: wire::VERSION,
            task_id: task.id.clone(),
            request_id: request.clone(),
            requester: requester.clone(),
            reason: task.reason.clone(),
            target: asked.act.target.clone(),
            target_key: Fingerprint::of(&issued.receipt_key),
            action: asked.act.action.clone(),
            // Our own copy's, not what the target's hello says: the target has to see when the two differ.
            manifest: asked.manifest.clone(),
            args: std::mem::take(&mut asked.args),
            mode: Mode::Run,
            expires: latest.min(issued.valid_before).min(task.ends),
            witness: PayloadWitness { relay },
        };
        let payload = serde_json::to_string(&payload).map_err(|_| internal())?;
        if payload.len() > wire::limits::PAYLOAD {
            return Err(Refusal::because(
                Code::ArgumentsInvalid,
                "they are too long together",
                &asked.about,
            ));
        }
        Ok(Built {
            sha256: Digest::of(payload.as_bytes()),
            asked,
            request,
            payload,
        })
    }

    /// What is about to be asked is durable in the relay's log before anything of it leaves. The store has it first, so that
    /// a start finds every request that the log has no end of.
    async fn record_request(&self, requester: &Requester, task: &Task, built: Built) -> Result<Recorded, Refusal> {
        let draft = Draft {
            requester: Some(requester.clone()),
            reason: Some(task.reason.clone()),
            risk: Some(built.asked.risk),
            manifest: Some(built.asked.manifest.clone()),
            mode: Some(Mode::Run),
            ..self.draft(Event::Request, &built)
        };
        let request = Request {
            id: built.request.clone(),
            target: built.asked.act.target.clone(),
            action: built.asked.act.action.clone(),
            risk: built.asked.risk,
            sha256: built.sha256.clone(),
            phase: match built.asked.risk {
                Risk::Read => Phase::Sent,
                Risk::Change | Risk::Destroy => Phase::Recorded,
            },
            end: None,
        };
        self.store
            .begin(&task.id, request, &built.payload, (self.now)())
            .await
            .map_err(|error| Refusal::store(&error, &built.asked.about))?;
        if let Err(error) = self.records.append(draft).await {
            let refusal = Refusal::log(&error, &built.asked.about);
            self.settle(&task.id, &built.request, Status::Refused, Some(refusal.code))
                .await;
            return Err(refusal);
        }
        Ok(Recorded { built })
    }

    /// Remembers what became of a request. The log has it; what cannot be written now the store writes before it says
    /// anything else.
    async fn settle(&self, task: &TaskId, request: &RequestId, status: Status, code: Option<Code>) {
        if let Err(error) = self.store.settle(task, request, status, code).await {
            tracing::error!(%error, %task, %request, "the end of a request is not in the store yet");
        }
    }

    /// Signs with the task's key and asks. What comes back is not yet believed.
    async fn send(&self, seat: &Seat, session: &Session, recorded: &Recorded) -> Result<Answer, Refusal> {
        let built = &recorded.built;
        let about = &built.asked.about;
        let sig = sshsig::sign(&seat.key, sshsig::REQUEST, built.payload.as_bytes())
            .map_err(|_| Refusal::because(Code::NotSent, "it could not be signed", about))?;
        if built.asked.risk != Risk::Read {
            let sent = self.store.sent(&seat.task, &built.request).await;
            sent.map_err(|error| Refusal::store(&error, about))?;
        }
        let line = RelayLine::Request(
            Sealed {
                payload: built.payload.clone(),
                sig,
            },
            None,
        );
        let answer = session.ask(&[line], built.asked.timeout + MARGIN).await;
        answer.map_err(|error| Refusal::session(&error, about))
    }

    /// Believes the answer or not, records which, and hands it up.
    async fn conclude(
        &self,
        task: &Task,
        session: &Session,
        receipt_key: &openssh::key::PublicKey,
        recorded: Recorded,
        answer: Result<Answer, Refusal>,
    ) -> Result<Done, Refusal> {
        let built = recorded.built;
        let about = &built.asked.about;
        let verified = match answer {
            Ok(answer) => verdict::verify(answer, receipt_key, &built.sha256).map_err(|what| {
                // Somebody speaks for the target who is not it: nothing more is asked of this session.
                tracing::error!(target_name = %built.asked.act.target, what, "a receipt of the target does not hold");
                session.close("a receipt of the target did not hold");
                Refusal::because(Code::ReceiptInvalid, what, about)
            }),
            Err(refusal) => Err(refusal),
        };
        let draft = match &verified {
            Ok(verified) => self.outcome_draft(&built, verified),
            Err(refusal) => Draft {
                status: Some(verdict::status_of(refusal.code, refusal.by)),
                code: Some(refusal.code),
                message: Some(wire::text::escaped(&refusal.message, MESSAGE_BYTES)),
                ..self.draft(Event::Outcome, &built)
            },
        };
        let (status, code) = (draft.status.unwrap_or(Status::Unknown), draft.code);
        let head = match self.records.append(draft).await {
            Ok(head) => head,
            Err(error) => {
                tracing::error!(%error, "an answer came and cannot be recorded");
                self.settle(&task.id, &built.request, Status::Unknown, Some(error.code()))
                    .await;
                let detail = "the answer came, and could not be recorded";
                return Err(Refusal::because(error.code(), detail, about));
            }
        };
        self.settle(&task.id, &built.request, status, code).await;
        let verified = verified.map_err(|refusal| Refusal {
            record: Some(head.seq),
            ..refusal
        })?;
        if verified.outcome.status == Status::Refused {
            return Err(verdict::refusal(verified, session.certificate_refused(), about));
        }
        Ok(verdict::done(verified, task.id.clone(), built.request, built.asked.act))
    }

    /// What every record about a request says.
    fn draft(&self, event: Event, built: &Built) -> Draft {
        Draft {
            task_id: built.asked.about.task.clone(),
            request_id: Some(built.request.clone()),
            request_sha256: Some(built.sha256.clone()),
            target: Some(built.asked.act.target.clone()),
            action: Some(built.asked.act.action.clone()),
            ..Draft::new(event)
        }
    }

    fn outcome_draft(&self, built: &Built, verified: &Verified) -> Draft {
        let outcome = &verified.outcome;
        let sum = |stream: &Stream| Output {
            bytes: stream.bytes,
            sha256: stream.sha256.clone(),
        };
        Draft {
            status: Some(outcome.status),
            code: outcome.code,
            exit_code: outcome.exit_code,
            signal: outcome.signal,
            duration_ms: Some(outcome.duration_ms),
            output: outcome.output.as_ref().map(sum),
            stderr: outcome.stderr.as_ref().map(sum),
            resources: outcome.resources,
            manifest: outcome.manifest.clone(),
            witness: outcome.head.clone().map(|head| Witness {
                target: Some(head),
                ..Witness::default()
            }),
            ..self.draft(Event::Outcome, built)
        }
    }

    fn requester(caller: &Caller) -> Option<Requester> {
        let person = caller.person.clone()?;
        Some(Requester {
            brain: caller.brain.clone(),
            person,
            proof: Proof::Relay,
        })
    }

    fn owner(requester: &Requester) -> Owner {
        Owner {
            person: requester.person.clone(),
            brain: requester.brain.clone(),
        }
    }

    /// Where a target is and how it is recognised.
    fn host(&self, name: &TargetName) -> Option<Host> {
        self.inventory.find(name.as_str()).map(host)
    }
}

/// A target of the inventory as something to connect to.
#[must_use]
pub fn host(target: &catalogue::Target) -> Host {
    let trust = match target.host() {
        HostTrust::Key(key) => Trust::Key(key.clone()),
        HostTrust::Ca(ca) => Trust::Ca(ca.clone()),
    };
    Host {
        name: target.name().clone(),
        address: target.address().to_owned(),
        trust,
    }
}
