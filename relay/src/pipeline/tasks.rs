//! The part of the story that opens, shows and closes tasks.

use std::collections::BTreeSet;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use audit::{Draft, Event};
use tokio::task::JoinSet;
use tokio::time::timeout;
use wire::ids::{Reason, TargetName, TaskId};
use wire::limits::TASK_MAX_S;
use wire::{Code, Proof, Requester};

use super::Relay;
use super::asking::view;
use crate::call::{Opened, Reply, TaskView};
use crate::error::{About, Refusal};
use crate::seats::{Seat, new_key};
use crate::store::{self, Task};

/// How long a task that is closed waits for its changes.
const CLOSING: Duration = Duration::from_secs(30);

impl Relay {
    /// A new task. The CA decides for each target; a task that is open nowhere is not opened.
    pub(super) async fn open_task(
        self: &Arc<Self>,
        requester: &Requester,
        reason: Reason,
        targets: Vec<TargetName>,
    ) -> Result<Opened, Refusal> {
        let about = About {
            target: targets.first().cloned(),
            ..About::default()
        };
        let unknown = |target: &&TargetName| self.inventory.find(target.as_str()).is_none();
        let unknown: Vec<&str> = targets.iter().filter(unknown).map(TargetName::as_str).collect();
        if !unknown.is_empty() {
            let detail = not_in_the_inventory(&unknown);
            return Err(Refusal::because(Code::UnknownTarget, detail, &About::default()));
        }
        let id: TaskId = uuid::Uuid::now_v7()
            .to_string()
            .parse()
            .map_err(|_| Refusal::new(Code::Internal, &about))?;
        let now = (self.now)();
        let task = Task {
            id: id.clone(),
            owner: Self::owner(requester),
            reason,
            opened: now,
            ends: now.saturating_add(TASK_MAX_S),
            targets: BTreeSet::new(),
            closed: false,
        };
        let owner = task.owner.clone();
        self.store.open(task.clone(), now).await.map_err(|error| match error {
            store::Error::Full => {
                let detail = "too many tasks are open; close_task ends one, and task ids are in list_targets";
                Refusal::because(Code::Capacity, detail, &about)
            }
            store::Error::Taken | store::Error::Unavailable(_) => Refusal::store(&error, &about),
        })?;
        let mut opened = Opened {
            task: id.clone(),
            ends: task.ends,
            targets: Vec::new(),
            refused: Vec::new(),
            record: 0,
        };
        let mut refused: Vec<(TargetName, Refusal)> = Vec::new();
        for target in targets {
            // A CA that does not answer is not asked once more for each of the others.
            if let Some((_, silent)) = refused.iter().find(|(_, other)| other.code == Code::CaUnavailable) {
                let mut refusal = silent.clone();
                refusal.about.target = Some(target.clone());
                refused.push((target, refusal));
                continue;
            }
            let opened_on = match self.ruled_here(requester, &target) {
                Ok(()) => self.open_on(requester, &task, &target).await,
                Err(refusal) => Err(refusal),
            };
            match opened_on {
                Ok((ends, record)) => {
                    opened.ends = opened.ends.min(ends);
                    opened.record = record;
                    opened.targets.push(target);
                }
                Err(refusal) => refused.push((target, refusal)),
            }
        }
        let mut refused = refused.into_iter();
        let answer = if opened.targets.is_empty() {
            refused.next()
        } else {
            None
        };
        for (target, refusal) in refused {
            let refusal = self.record_refusal(requester, refusal).await;
            opened.refused.push((target, refusal));
        }
        match answer {
            // Recorded by whoever answers with it.
            Some((_, refusal)) => {
                if let Err(error) = self.store.close(&owner, &id, (self.now)()).await {
                    tracing::error!(%error, task = %id, "a task that is open nowhere stays in the store until its time is up");
                }
                Err(refusal)
            }
            None => Ok(opened),
        }
    }

    /// One target of a new task: a key, the CA's certificate for it, a record, a seat.
    pub(super) async fn open_on(
        self: &Arc<Self>,
        requester: &Requester,
        task: &Task,
        target: &TargetName,
    ) -> Result<(u64, u64), Refusal> {
        let about = About {
            target: Some(target.clone()),
            ..About::default()
        };
        let key = new_key().map_err(|_| Refusal::new(Code::Internal, &about))?;
        let issued = self
            .issuer
            .open_task(&task.id, requester, &task.reason, target, key.public())
            .await
            .map_err(|error| Refusal::issuer(error, &about))?;
        let draft = Draft {
            task_id: Some(task.id.clone()),
            requester: Some(requester.clone()),
            reason: Some(task.reason.clone()),
            target: Some(target.clone()),
            ..Draft::new(Event::Open)
        };
        let head = self
            .records
            .append(draft)
            .await
            .map_err(|error| Refusal::log(&error, &about))?;
        let ends = issued.task_ends;
        let seat = Arc::new(Seat::new(task.id.clone(), target.clone(), key, issued, (self.now)()));
        // Before the task is known to be there: whoever finds a place without a seat makes another key.
        self.seats.take(Arc::clone(&seat));
        // Whoever ends the task does so in the store first and gives its seats up then: one of the two sees the other.
        let reached = match self.store.reach(&task.id, target, ends).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::new(Code::TaskEnded, &about)),
            Err(error) => Err(Refusal::store(&error, &about)),
        };
        if let Err(refusal) = reached {
            self.seats.leave_one(&seat);
            return Err(refusal);
        }
        self.keep_fresh(&seat);
        Ok((ends, head.seq))
    }

    /// A task as its owner may see it.
    pub(super) async fn task_status(&self, requester: &Requester, id: &TaskId) -> Result<TaskView, Refusal> {
        let task = self
            .store
            .task(&Self::owner(requester), id)
            .await
            .map_err(|error| Refusal::store(&error, &About::default()))?
            .ok_or_else(|| Refusal::new(Code::UnknownTask, &About::default()))?;
        let requests = self.store.requests(id).await;
        let requests = requests.map_err(|error| Refusal::store(&error, &About::default()))?;
        let approvals = self.store.approving().of_task(id).await;
        let approvals = approvals.map_err(|error| Refusal::store(&error, &About::default()))?;
        let mut targets = Vec::new();
        for target in &task.targets {
            let ends = self.seats.find(id, target).map(|seat| seat.issued().valid_before);
            targets.push((target.clone(), ends));
        }
        Ok(TaskView {
            open: task.is_open((self.now)()),
            reason: task.reason,
            opened: task.opened,
            ends: task.ends,
            targets,
            requests,
            approvals: approvals.iter().map(view).collect(),
            task: task.id,
        })
    }

    /// Ends a task: nothing more begins, changes that are under way get their answers, then sessions are closed and keys
    /// forgotten, whatever else fails.
    pub(super) async fn close_task(&self, requester: &Requester, id: &TaskId) -> Result<Reply, Refusal> {
        let owner = Self::owner(requester);
        let unavailable = |error| Refusal::store(&error, &About::default());
        let task = self.store.task(&owner, id).await.map_err(unavailable)?;
        let task = task.ok_or_else(|| Refusal::new(Code::UnknownTask, &About::default()))?;
        let about = About {
            task: Some(task.id.clone()),
            ..About::default()
        };
        let closed = self.store.close(&owner, id, (self.now)()).await;
        let seats = self.leave(id, "the task was closed").await;
        closed.map_err(|error| Refusal::store(&error, &about))?;
        let record = self
            .record_close(&task, "closed by its owner")
            .await
            .map_err(|error| Refusal::log(&error, &about))?;
        Ok(Reply::Closed {
            task: task.id,
            sessions: seats,
            record,
        })
    }

    /// Gives up a task's seats and ends their connections, and says how many stood. Changes that are under way are waited for:
    /// cut off, each would be one of which nobody knows. None begins meanwhile.
    async fn leave(&self, id: &TaskId, why: &'static str) -> usize {
        let ends = self.seats.of(id).into_iter().map(|seat| async move {
            let mut no_changes = pin!(seat.no_changes());
            let ended = timeout(CLOSING, no_changes.as_mut()).await;
            if ended.is_err() {
                tracing::warn!(task = %seat.task, target_name = %seat.target, "a change did not end before its task did");
            }
            // Before those are let on who waited behind this.
            seat.give_up();
        });
        ends.collect::<JoinSet<_>>().join_all().await;
        Self::give_up(&self.seats.leave(id), why)
    }

    /// Ends tasks whose time is up. Called every few seconds.
    pub async fn sweep(self: &Arc<Self>) {
        let now = (self.now)();
        let over = self.store.expire(now).await.unwrap_or_else(|error| {
            tracing::error!(%error, "tasks whose time is up cannot be ended");
            Vec::new()
        });
        for task in over {
            // By itself: one whose changes take their time holds up no other. The relay's own end waits for all of them.
            let (relay, working) = (Arc::clone(self), self.gate.work());
            let is_closing = working.is_none();
            let ended = tokio::spawn(async move {
                const WHY: &str = "its time was up";
                let _working = working;
                relay.leave(&task.id, WHY).await;
                if let Err(error) = relay.record_close(&task, WHY).await {
                    tracing::error!(%error, task = %task.id, "the end of a task cannot be recorded");
                }
            });
            if is_closing {
                let _ = ended.await;
            }
        }
        self.lapse_due().await;
    }

    /// Ends every session and forgets every key.
    pub fn leave_all(&self) {
        Self::give_up(&self.seats.leave_all(), "the relay was stopped");
    }

    async fn record_close(&self, task: &Task, why: &str) -> Result<u64, audit::Error> {
        let draft = Draft {
            task_id: Some(task.id.clone()),
            requester: Some(Requester {
                brain: task.owner.brain.clone(),
                person: task.owner.person.clone(),
                proof: Proof::Relay,
            }),
            message: Some(why.to_owned()),
            ..Draft::new(Event::Close)
        };
        self.records.append(draft).await.map(|head| head.seq)
    }
}

/// Which targets the relay does not know.
pub(super) fn not_in_the_inventory(names: &[&str]) -> String {
    let are = if names.len() == 1 { "is" } else { "are" };
    format!("{} {are} not in the relay's inventory", names.join(", "))
}
