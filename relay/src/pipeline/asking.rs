//! The part of the story that asks people: an action that they have to approve is not waited for. Its bytes are frozen, the
//! caller is told whom to ask, and the same call, made again, goes on with the same bytes once they have signed.
//!
//! Nothing that an MCP client says is an approval. What counts as one, the target decides; the relay holds signatures.

use audit::{ApprovalState, Approving, Decision, Draft, Event};
use serde_json::Value;
use wire::ids::{ApprovalId, Digest, Fingerprint, RequestId};
use wire::lines::Approval as Signatures;
use wire::{Code, Payload, Requester, limits, statement};

use super::request::{Built, Subject};
use super::verdict::Unanswered;
use super::{Asked, Relay};
use crate::call::ApprovalView;
use crate::error::{About, Refusal};
use crate::store::{self, Approval, DENIED_S, Frozen, OPEN_APPROVALS, Step, Task};

/// Bytes that as many people have signed as were asked to, and that nobody carries out.
#[must_use]
pub(super) struct Granted {
    pub(super) approval: ApprovalId,
    /// How many signatures there are.
    pub(super) held: u8,
    /// As they travel.
    pub(super) signatures: Signatures,
    request: RequestId,
    sha256: Digest,
    payload: String,
    ends: u64,
}

impl Granted {
    /// The request that was approved, for a call that is the same.
    pub(super) fn into_built(self, task: &Task, mut asked: Asked, now: u64) -> Built {
        asked.about.request = Some(self.request.clone());
        let subject = Subject {
            task: task.id.clone(),
            request: self.request.clone(),
            sha256: self.sha256.clone(),
            target: asked.act.target.clone(),
            action: asked.act.action.clone(),
        };
        let (payload, expires) = (self.payload.clone(), self.ends);
        Built::approved(asked, subject, payload, expires, now, self)
    }
}

impl Relay {
    /// What people were asked before about this very call: nothing, or bytes that they have approved. Where they were asked
    /// and have not approved, that is the answer.
    pub(super) async fn standing(
        &self,
        requester: &Requester,
        task: &Task,
        asked: &Asked,
    ) -> Result<Option<Granted>, Refusal> {
        let about = &asked.about;
        let unavailable = |error: store::Error| Refusal::store(&error, about);
        let same = same(requester, task, asked);
        let newest = self.store.approving().newest(&same).await.map_err(unavailable)?;
        let Some(mut approval) = newest else {
            return Ok(None);
        };
        let now = (self.now)();
        if approval.open && now >= approval.ends && !approval.is_running() {
            approval = self.lapse(&approval).await.map_err(|error| error.into_refusal(about))?;
        }
        match approval.state {
            ApprovalState::Waiting | ApprovalState::Approved if !approval.open => Ok(None),
            ApprovalState::Waiting => Err(waiting(&approval, about)),
            ApprovalState::Approved => {
                let here = approval.on.iter().find(|one| one.target == asked.act.target);
                match here.map(|frozen| (frozen.step, frozen)) {
                    Some((Step::Kept, frozen)) => Ok(granted(&approval, frozen)),
                    Some((Step::Running, _)) => {
                        let detail = "the same call is under way";
                        Err(Refusal::because(Code::InProgress, detail, about).asking(view(&approval)))
                    }
                    Some((Step::Done, _)) | None => Ok(None),
                }
            }
            ApprovalState::Denied if approval.told && now >= approval.since.saturating_add(DENIED_S) => Ok(None),
            ApprovalState::Expired if approval.told => Ok(None),
            ApprovalState::Denied => {
                self.store.approving().tell(&approval.id).await.map_err(unavailable)?;
                let left_s = approval.since.saturating_add(DENIED_S).saturating_sub(now);
                let detail = format!("it is refused without asking anybody for {left_s} s more");
                Err(Refusal::because(Code::ApprovalDenied, detail, about).asking(view(&approval)))
            }
            ApprovalState::Expired => {
                self.store.approving().tell(&approval.id).await.map_err(unavailable)?;
                let detail = format!("{} of {} had signed", approval.signed.len(), approval.needed);
                Err(Refusal::because(Code::ApprovalExpired, detail, about).asking(view(&approval)))
            }
        }
    }

    /// The CA allows the request once so many people have approved it: they are asked, and the caller is told so. Nothing of
    /// it is sent.
    pub(super) async fn ask_people(&self, requester: &Requester, task: &Task, built: &Built, needed: u8) -> Unanswered {
        let asked = match built.granted() {
            Some(granted) => self.ask_more(&granted.approval, needed, &built.asked.about).await,
            None => self.ask_anew(requester, task, built, needed).await,
        };
        Unanswered::unsent(match asked {
            Ok(approval) => waiting(&approval, &built.asked.about),
            Err(refusal) => refusal,
        })
    }

    /// Freezes a request and asks people to approve it, unless somebody else has asked for the same meanwhile.
    async fn ask_anew(
        &self,
        requester: &Requester,
        task: &Task,
        built: &Built,
        needed: u8,
    ) -> Result<Approval, Refusal> {
        let (asked, about) = (&built.asked, &built.asked.about);
        let unavailable = |error: store::Error| Refusal::store(&error, about);
        let _turn = self.approving.lock().await;
        let same = same(requester, task, asked);
        let standing = self.store.approving().newest(&same).await.map_err(unavailable)?;
        if let Some(approval) = standing.filter(|approval| approval.open) {
            return Ok(approval);
        }
        let count = self
            .store
            .approving()
            .count(&requester.person)
            .await
            .map_err(unavailable)?;
        if count >= OPEN_APPROVALS {
            let detail = format!(
                "{count} approvals are asked for in your name, and more are not: people sign or deny them, or their time ends"
            );
            return Err(Refusal::because(Code::Capacity, detail, about));
        }
        let internal = || Refusal::new(Code::Internal, about);
        let id = uuid::Uuid::now_v7().to_string().parse().map_err(|_| internal())?;
        let now = (self.now)();
        let ends = now
            .saturating_add(limits::ahead_s(needed, asked.window_s))
            .min(task.ends);
        let frozen = self.freeze(built, ends).ok_or_else(internal)?;
        let approval = Approval {
            id,
            task: task.id.clone(),
            owner: task.owner.clone(),
            reason: task.reason.clone(),
            action: asked.act.action.clone(),
            mode: asked.act.mode,
            same,
            state: ApprovalState::Waiting,
            needed,
            asked: now,
            ends,
            since: now,
            open: true,
            told: false,
            on: vec![frozen],
            signed: Vec::new(),
        };
        self.record_approval(&approval, ApprovalState::Waiting, None, None)
            .await
            .map_err(|error| Refusal::log(&error, about))?;
        self.store
            .approving()
            .ask(approval.clone())
            .await
            .map_err(unavailable)?;
        Ok(approval)
    }

    /// Policy wants more people than were asked: it waits again, and what was signed stays.
    async fn ask_more(&self, id: &ApprovalId, needed: u8, about: &About) -> Result<Approval, Refusal> {
        let unavailable = |error: store::Error| Refusal::store(&error, about);
        let _turn = self.approving.lock().await;
        let found = self.store.approving().find(id).await.map_err(unavailable)?;
        let mut approval = found.ok_or_else(|| Refusal::new(Code::UnknownApproval, about))?;
        approval.needed = needed;
        approval.state = ApprovalState::Waiting;
        self.record_approval(
            &approval,
            ApprovalState::Waiting,
            None,
            Some("policy wants more approvals"),
        )
        .await
        .map_err(|error| Refusal::log(&error, about))?;
        self.store
            .approving()
            .need(id, needed, (self.now)())
            .await
            .map_err(unavailable)?;
        Ok(approval)
    }

    /// The same request with an id of its own, good for as long as people may take.
    fn freeze(&self, built: &Built, ends: u64) -> Option<Frozen> {
        let mut payload = Payload::parse(built.payload.as_bytes()).ok()?;
        payload.request_id = uuid::Uuid::now_v7().to_string().parse().ok()?;
        payload.expires = ends;
        payload.witness.relay = self.records.head();
        let text = serde_json::to_string(&payload).ok()?;
        (text.len() <= limits::PAYLOAD).then(|| Frozen {
            request: payload.request_id,
            target: payload.target,
            sha256: Digest::of(text.as_bytes()),
            payload: Some(text),
            step: Step::Kept,
        })
    }

    /// Records how far an approval has come, for each of its requests.
    pub(super) async fn record_approval(
        &self,
        approval: &Approval,
        state: ApprovalState,
        newest: Option<&Fingerprint>,
        message: Option<&str>,
    ) -> Result<(), audit::Error> {
        let held = approval.signed.len() + usize::from(newest.is_some());
        for one in &approval.on {
            let draft = Draft {
                task_id: Some(approval.task.clone()),
                request_id: Some(one.request.clone()),
                request_sha256: Some(one.sha256.clone()),
                requester: Some(Requester {
                    brain: approval.owner.brain.clone(),
                    person: approval.owner.person.clone(),
                    proof: wire::Proof::Relay,
                }),
                reason: Some(approval.reason.clone()),
                target: Some(one.target.clone()),
                action: Some(approval.action.clone()),
                mode: Some(approval.mode),
                decision: (state == ApprovalState::Denied).then_some(Decision::Deny),
                approval: Some(Approving {
                    id: Some(approval.id.clone()),
                    state,
                    needed: approval.needed,
                    held: u8::try_from(held).unwrap_or(u8::MAX),
                    fingerprint: newest.cloned(),
                }),
                message: message.map(str::to_owned),
                ..Draft::new(Event::Approval)
            };
            self.records.append(draft).await?;
        }
        Ok(())
    }
}

impl Approval {
    /// Whether something of it is carried out just now.
    pub(super) fn is_running(&self) -> bool {
        self.on.iter().any(|one| one.step == Step::Running)
    }

    /// The lines that an approver signs beside what is to be done; `None` once the bytes are gone.
    pub(super) fn on_lines(&self) -> Option<Vec<String>> {
        let line = |one: &Frozen| {
            let bytes = one.payload.as_ref()?.as_bytes();
            Some(statement::on_line(&Payload::parse(bytes).ok()?, bytes))
        };
        let mut on: Vec<String> = self.on.iter().map(line).collect::<Option<_>>()?;
        on.sort();
        Some(on)
    }
}

/// As whoever asked sees it.
pub(super) fn view(approval: &Approval) -> ApprovalView {
    ApprovalView {
        id: approval.id.clone(),
        state: approval.state,
        open: approval.open,
        action: approval.action.clone(),
        mode: approval.mode,
        targets: approval.on.iter().map(|one| one.target.clone()).collect(),
        needed: approval.needed,
        held: approval.signed.len(),
        asked: approval.asked,
        ends: approval.ends,
    }
}

fn waiting(approval: &Approval, about: &About) -> Refusal {
    let (held, needed) = (approval.signed.len(), approval.needed);
    let detail = format!("{held} of {needed} have signed");
    Refusal::because(Code::ApprovalRequired, detail, about).asking(view(approval))
}

fn granted(approval: &Approval, frozen: &Frozen) -> Option<Granted> {
    Some(Granted {
        approval: approval.id.clone(),
        held: u8::try_from(approval.signed.len()).ok()?,
        signatures: Signatures {
            on: approval.on_lines()?,
            sigs: approval.signed.iter().map(|one| one.sig.clone()).collect(),
        },
        request: frozen.request.clone(),
        sha256: frozen.sha256.clone(),
        payload: frozen.payload.clone()?,
        ends: approval.ends,
    })
}

/// What makes two calls the same one: everything that an approver reads but for the time, and the manifest.
fn same(requester: &Requester, task: &Task, asked: &Asked) -> Digest {
    let text = serde_json::json!([
        requester.person.as_str(),
        requester.brain.as_str(),
        task.id.as_str(),
        asked.act.action.as_str(),
        asked.act.mode.as_str(),
        asked.manifest.as_str(),
        [asked.act.target.as_str()],
        ordered(&Value::Object(asked.args.clone())),
    ]);
    Digest::of(text.to_string().as_bytes())
}

/// The keys of every object in their order: a build may keep them as they were written.
fn ordered(value: &Value) -> Value {
    match value {
        Value::Object(object) => {
            let mut fields: Vec<_> = object
                .iter()
                .map(|(name, value)| (name.clone(), ordered(value)))
                .collect();
            fields.sort_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(fields.into_iter().collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(ordered).collect()),
        plain => plain.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments_are_the_same_in_whatever_order_they_come() {
        let value = |text: &str| serde_json::from_str::<Value>(text).unwrap();
        let one = value(r#"{"a":{"y":1,"x":[{"q":1,"p":2}]},"b":2}"#);
        let two = value(r#"{"b":2,"a":{"x":[{"p":2,"q":1}],"y":1}}"#);
        assert_eq!(ordered(&one).to_string(), ordered(&two).to_string());
        let other = value(r#"{"b":2,"a":{"x":[{"p":2,"q":1}],"y":"1"}}"#);
        assert_ne!(ordered(&one).to_string(), ordered(&other).to_string());
    }
}
