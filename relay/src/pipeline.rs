//! The story of a call.
//!
//! A client asks for an action on a target. The relay checks the arguments against its copy of the catalogue, finds the
//! target, joins or opens a task (the CA decides), takes the session of that task on that target, builds the payload,
//! records that it is about to ask, signs, sends, verifies the target's signed answer, records it, and hands it up.
//!
//! What the task's certificate does not cover (every change, and a read about whose arguments a policy speaks) the CA judges
//! request by request, once its record was written here, while that becomes durable, and before it is sent. Where people have
//! to approve it the call ends with that, and goes on with the bytes that they approved when it is made again.
//!
//! Each step gives the value that the next one needs, and nothing else makes one: no record, no request; no verified
//! signature, no outcome. A step that says no ends the call with one Code, in one record of whoever refused. A change whose
//! answer does not come is asked for again, under the same id and with the same bytes, and never made anew.

mod again;
mod approving;
mod asking;
mod find;
mod later;
mod panics;
mod refusals;
mod request;
mod restart;
mod ruled;
mod seat;
mod send;
mod tasks;
mod verdict;
mod views;

use std::sync::Arc;
use std::time::Duration;

use catalogue::{Catalogue, HostTrust, Inventory, Terms};
use tokio::time::{Instant, timeout_at};
use wire::ids::{Digest, TargetName};
use wire::{Code, Proof, Requester, Risk};

use crate::call::{Act, Call, Caller, Done, Reply};
use crate::error::{About, Refusal};
use crate::gate::Gate;
use crate::issuer::{Issued, Issuer};
use crate::people::People;
use crate::records::Records;
use crate::rules::{Rules, What};
use crate::seats::Seats;
use crate::session::{Host, Trust};
use crate::store::{Owner, Store, Task};

use send::Consent;

pub use later::Turns;
pub use restart::NotTakenUp;

/// What the network and the target's own work may take beyond an action's own time.
const MARGIN: Duration = Duration::from_secs(10);
/// How long a call may wait for others before it is refused: for its turn, a connection, a session.
const PATIENCE: Duration = Duration::from_secs(30);
/// Most actions that are named to somebody who asked for one that is none.
const NAMED: usize = 64;
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
    /// What it refuses whatever the CA would say.
    pub rules: Rules,
    /// Tasks and requests.
    pub store: Box<dyn Store>,
    /// The CA.
    pub issuer: Issuer,
    /// The relay's own log.
    pub records: Records,
    /// Keys, certificates, sessions.
    pub seats: Seats,
    /// How many calls there may be, and how fast.
    pub gate: Gate,
    /// Who asks for a change that nobody waits for any more.
    pub turns: Turns,
    /// Held by whoever brings an approval further, one after the other: each step is recorded before it is kept.
    pub approving: tokio::sync::Mutex<()>,
    /// The clock, Unix seconds.
    pub now: fn() -> u64,
}

/// A call whose action, arguments and target are known to be right, as far as the relay can tell, and that it does not refuse
/// by itself.
struct Asked {
    act: Act,
    args: serde_json::Map<String, serde_json::Value>,
    manifest: Digest,
    /// In the call's mode.
    risk: Risk,
    timeout: Duration,
    /// How long people may take to approve it, where its manifest says so.
    window_s: Option<u64>,
    about: About,
}

impl Asked {
    /// Whether the task's own certificate is all that it needs: nobody is asked for anything more.
    fn is_covered_by(&self, issued: &Issued) -> bool {
        self.risk == Risk::Read && issued.actions.contains(&self.act.action)
    }
}

impl Relay {
    /// Answers one call. Every refusal of the relay's own is in its log before it is answered.
    ///
    /// # Errors
    /// The one [`Refusal`] that ended the call.
    pub async fn call(self: Arc<Self>, caller: Caller, call: Call) -> Result<Reply, Refusal> {
        let Some(requester) = Self::requester(&caller) else {
            return Err(self.refuse_stranger(&caller).await);
        };
        let _place = self.let_in(&requester, &call).await?;
        let until = Instant::now() + PATIENCE;
        match self.answer(&caller, &requester, call, until).await {
            Ok(reply) => Ok(reply),
            Err(refusal) => Err(self.record_refusal(&requester, refusal).await),
        }
    }

    async fn answer(
        self: &Arc<Self>,
        caller: &Caller,
        requester: &Requester,
        call: Call,
        until: Instant,
    ) -> Result<Reply, Refusal> {
        match call {
            Call::Act(act) => {
                let done = self.act(requester, act, until).await?;
                Ok(Reply::Done(Box::new(done)))
            }
            Call::OpenTask { reason, targets } => self.open_task(requester, reason, targets).await.map(Reply::Opened),
            Call::TaskStatus { task } => self.task_status(requester, &task).await.map(Reply::Status),
            Call::CloseTask { task } => self.close_task(requester, &task).await,
            Call::ListTargets => self.list_targets(requester).await.map(Reply::Targets),
            Call::FindActions(search) => self.find_actions(requester, &search).map(Reply::Found),
            Call::ServerInfo => Ok(Reply::Server(Box::new(self.server_info(caller).await))),
        }
    }

    /// An action, from the call to the outcome.
    async fn act(self: &Arc<Self>, requester: &Requester, act: Act, until: Instant) -> Result<Done, Refusal> {
        let mut asked = self.check(requester, act)?;
        let task = self.join(requester, &asked, until).await?;
        asked.about.task = Some(task.id.clone());
        let seat = self.seat(&task, &asked.act.target, &asked.about, until).await?;
        let granted = if asked.is_covered_by(&seat.issued()) {
            None
        } else {
            self.standing(requester, &task, &asked).await?
        };
        let reached = self.reach(&seat, &asked.about, until).await?;
        // Until its end: who closes the task waits for it.
        let _changing = match asked.risk {
            Risk::Read => None,
            Risk::Change | Risk::Destroy => {
                let ended = || Refusal::new(Code::TaskEnded, &asked.about);
                Some(seat.begin_change().await.ok_or_else(ended)?)
            }
        };
        let built = match granted {
            Some(granted) => granted.into_built(&task, asked, (self.now)()),
            None => self.build(requester, &task, &reached.issued, asked).await?,
        };
        let begun = self.begin(requester, &task, built).await?;
        // A session last: while the CA judges, and however long, it is another call's.
        let (recorded, permitted) = self.permitted(&seat, &reached.issued, begun).await?;
        let told = match permitted {
            Ok(Consent::Given(permitted)) => self.send(&seat, reached, &recorded, permitted, until).await,
            Ok(Consent::Wants(needed)) => Err(self.ask_people(requester, &task, &recorded.built, needed).await),
            Err(refusal) => Err(refusal),
        };
        self.conclude(&task, recorded, told).await
    }

    /// The action is in the catalogue, its arguments fit, the target is in the inventory, and no rule of this relay is in the
    /// way.
    fn check(&self, requester: &Requester, act: Act) -> Result<Asked, Refusal> {
        let about = About {
            action: Some(act.action.clone()),
            target: Some(act.target.clone()),
            mode: Some(act.mode),
            ..About::default()
        };
        let Some(target) = self.inventory.find(act.target.as_str()) else {
            let detail = tasks::not_in_the_inventory(&[act.target.as_str()]);
            return Err(Refusal::because(Code::UnknownTarget, detail, &about));
        };
        let Some(entry) = self.catalogue.find(&act.action) else {
            let names: Vec<&str> = self
                .catalogue
                .iter()
                .take(NAMED)
                .map(|(name, _)| name.as_str())
                .collect();
            let detail = format!("the relay's catalogue has {}", names.join(", "));
            return Err(Refusal::because(Code::UnknownAction, detail, &about));
        };
        let manifest = entry.manifest();
        // How many people have to approve it, the CA says, and then the target.
        let Terms { risk, .. } = manifest
            .in_mode(act.mode)
            .ok_or_else(|| Refusal::because(Code::ModeUnsupported, "the action has no dry run", &about))?;
        self.ruled_by_mode(manifest, risk, &about)?;
        let checked = manifest.check_args(&act.args).map_err(|faults| {
            let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
            Refusal::because(Code::ArgumentsInvalid, faults.join("; "), &about)
        })?;
        // With the defaults that were filled in: what is left out is not what is not asked for.
        let what = What {
            action: &act.action,
            risk,
            args: Some(checked.args()),
        };
        self.ruled(requester, target, Some(what), &about)?;
        Ok(Asked {
            args: checked.args().clone(),
            manifest: entry.digest().clone(),
            risk,
            timeout: Duration::from_millis(manifest.patience_ms()),
            window_s: manifest.approval_window_s(),
            about,
            act,
        })
    }

    /// The task that was named, or the caller's open task on the target, or a new one.
    async fn join(self: &Arc<Self>, requester: &Requester, asked: &Asked, until: Instant) -> Result<Task, Refusal> {
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
        let Ok(_turn) = timeout_at(until, turn.lock()).await else {
            return Err(Refusal::new(Code::CaUnavailable, &asked.about));
        };
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
