//! The part of the story that people tell: what waits for them, what it says, their signatures, their no.
//!
//! A signature is checked here so that whoever made it learns of a mistake at once. That decides nothing: whose key it is, and
//! whether it counts, is the target's to say. Each step stands in the log before it is in the store, so that nothing came
//! about that is not recorded.

use std::sync::Arc;

use audit::{ApprovalState, Decision, Draft, Event};
use openssh::sshsig;
use wire::ids::{ApprovalId, Fingerprint};
use wire::{Code, Payload, limits, statement};

use super::asking::view;
use super::{MESSAGE_BYTES, Relay};
use crate::call::Shown;
use crate::error::{About, Refusal};
use crate::store::{self, Approval, Signed};

/// Why an approval did not come further.
pub(super) enum Stuck {
    Log(audit::Error),
    Store(store::Error),
}

impl Stuck {
    pub(super) fn into_refusal(self, about: &About) -> Refusal {
        match self {
            Self::Log(error) => Refusal::log(&error, about),
            Self::Store(error) => Refusal::store(&error, about),
        }
    }
}

impl From<audit::Error> for Stuck {
    fn from(error: audit::Error) -> Self {
        Self::Log(error)
    }
}

impl From<store::Error> for Stuck {
    fn from(error: store::Error) -> Self {
        Self::Store(error)
    }
}

impl Relay {
    /// What waits for people, or is approved and not carried out, oldest first.
    ///
    /// # Errors
    /// The store's.
    pub async fn open_approvals(&self) -> Result<Vec<Shown>, Refusal> {
        let open = self.store.approving().all_open().await;
        let open = open.map_err(|error| Refusal::store(&error, &About::default()))?;
        Ok(open.iter().map(|approval| shown(approval, None)).collect())
    }

    /// One approval, with the text that is to be signed.
    ///
    /// # Errors
    /// `unknown_approval`, or the store's.
    pub async fn show_approval(&self, id: &ApprovalId) -> Result<Shown, Refusal> {
        let approval = self.found(id).await?;
        let text = text(&approval);
        Ok(shown(&approval, text))
    }

    /// Takes somebody's signature, which was brought by an account of this machine.
    ///
    /// # Errors
    /// A [`Refusal`], recorded: nothing was changed.
    pub async fn approve_request(&self, id: &ApprovalId, signature: &str, uid: u32) -> Result<Shown, Refusal> {
        let _turn = self.approving.lock().await;
        let mut approval = self.found(id).await?;
        let taken = self.take_signature(&mut approval, signature, uid).await;
        self.answered(&approval, taken, uid).await
    }

    async fn take_signature(&self, approval: &mut Approval, signature: &str, uid: u32) -> Result<(), Refusal> {
        let about = about(approval);
        self.still(approval)?;
        let gone = || Refusal::new(Code::UnknownApproval, &about);
        let text = text(approval).ok_or_else(gone)?;
        let signed = sshsig::verify_person(signature, sshsig::APPROVE, text.as_bytes())
            .map_err(|error| Refusal::because(Code::ApprovalInvalid, format!("failed to {error}"), &about))?;
        let fingerprint: Fingerprint = signed
            .key()
            .fingerprint()
            .parse()
            .map_err(|_| Refusal::new(Code::Internal, &about))?;
        if approval.signed.iter().any(|one| one.fingerprint == fingerprint) {
            // Whoever brings it once more may not know that it came.
            return Ok(());
        }
        if approval.signed.len() >= limits::APPROVAL_SIGS {
            let detail = "it has as many signatures as it may; deny it, and have it asked for anew";
            return Err(Refusal::because(Code::Capacity, detail, &about));
        }
        let enough = approval.signed.len() + 1 >= usize::from(approval.needed);
        let state = if enough {
            ApprovalState::Approved
        } else {
            ApprovalState::Waiting
        };
        let message = format!("brought by uid {uid}");
        self.record_approval(approval, state, Some(&fingerprint), Some(&message))
            .await
            .map_err(|error| Refusal::log(&error, &about))?;
        let signed = Signed {
            fingerprint,
            sig: signature.to_owned(),
            at: (self.now)(),
        };
        self.store
            .approving()
            .sign(&approval.id, signed.clone(), state)
            .await
            .map_err(|error| Refusal::store(&error, &about))?;
        approval.signed.push(signed);
        approval.state = state;
        Ok(())
    }

    /// Takes somebody's no. The same call is refused for a while, and then asked for anew.
    ///
    /// # Errors
    /// A [`Refusal`], recorded: nothing was changed.
    pub async fn deny_request(&self, id: &ApprovalId, uid: u32) -> Result<Shown, Refusal> {
        let _turn = self.approving.lock().await;
        let mut approval = self.found(id).await?;
        let denied = match self.still(&approval) {
            Ok(()) => {
                let message = format!("denied by uid {uid}");
                self.end(&mut approval, ApprovalState::Denied, &message)
                    .await
                    .map_err(|stuck| stuck.into_refusal(&about(&approval)))
            }
            Err(refusal) => Err(refusal),
        };
        self.answered(&approval, denied, uid).await
    }

    /// Something can still become of it, and nothing is being done with it.
    fn still(&self, approval: &Approval) -> Result<(), Refusal> {
        let about = about(approval);
        if approval.open && (self.now)() < approval.ends {
            if approval.is_running() {
                return Err(Refusal::because(Code::InProgress, "it is being carried out", &about));
            }
            return Ok(());
        }
        let code = match approval.state {
            ApprovalState::Denied => Code::ApprovalDenied,
            // Carried out: there is nothing left of it to decide.
            ApprovalState::Approved if !approval.open => Code::UnknownApproval,
            ApprovalState::Expired | ApprovalState::Waiting | ApprovalState::Approved => Code::ApprovalExpired,
        };
        Err(Refusal::new(code, &about))
    }

    /// Ends an approval of which the time is up, if nobody was faster.
    pub(super) async fn lapse(&self, approval: &Approval) -> Result<Approval, Stuck> {
        let _turn = self.approving.lock().await;
        let Some(mut now) = self.store.approving().find(&approval.id).await? else {
            return Ok(approval.clone());
        };
        if now.open && !now.is_running() {
            self.end(&mut now, ApprovalState::Expired, "its time was up, or its task is over")
                .await?;
        }
        Ok(now)
    }

    /// Ends approvals of which the time is up, or whose task is over. Called every few seconds.
    pub(super) async fn lapse_due(self: &Arc<Self>) {
        let due = match self.store.approving().due((self.now)()).await {
            Ok(due) => due,
            Err(error) => return tracing::error!(%error, "approvals whose time is up cannot be ended"),
        };
        for approval in due {
            if let Err(stuck) = self.lapse(&approval).await {
                let refusal = stuck.into_refusal(&about(&approval));
                tracing::error!(approval = %approval.id, why = %refusal.message, "its time is up, and it cannot be ended");
            }
        }
    }

    async fn end(&self, approval: &mut Approval, state: ApprovalState, message: &str) -> Result<(), Stuck> {
        self.record_approval(approval, state, None, Some(message)).await?;
        self.store.approving().end(&approval.id, state, (self.now)()).await?;
        (approval.state, approval.open, approval.since) = (state, false, (self.now)());
        Ok(())
    }

    async fn found(&self, id: &ApprovalId) -> Result<Approval, Refusal> {
        let found = self.store.approving().find(id).await;
        let found = found.map_err(|error| Refusal::store(&error, &About::default()))?;
        found.ok_or_else(|| Refusal::new(Code::UnknownApproval, &About::default()))
    }

    /// A no of ours to somebody on this machine is recorded like every other.
    async fn answered(&self, approval: &Approval, done: Result<(), Refusal>, uid: u32) -> Result<Shown, Refusal> {
        let Err(mut refusal) = done else {
            return Ok(shown(approval, None));
        };
        if refusal.code == Code::LogUnavailable {
            return Err(refusal);
        }
        let one = approval.on.first();
        let draft = Draft {
            task_id: Some(approval.task.clone()),
            request_id: one.map(|one| one.request.clone()),
            request_sha256: one.map(|one| one.sha256.clone()),
            target: one.map(|one| one.target.clone()),
            action: Some(approval.action.clone()),
            mode: Some(approval.mode),
            decision: Some(Decision::Deny),
            code: Some(refusal.code),
            message: Some(wire::text::escaped(
                &format!("uid {uid}: approval {}: {}", approval.id, refusal.message),
                MESSAGE_BYTES,
            )),
            ..Draft::new(Event::Refused)
        };
        match self.records.append(draft).await {
            Ok(head) => refusal.record = Some(head.seq),
            Err(error) => return Err(Refusal::log(&error, &refusal.about)),
        }
        Err(refusal)
    }
}

/// The text that is signed; `None` once nothing can become of it.
fn text(approval: &Approval) -> Option<String> {
    let on = approval.on_lines()?;
    // Those of one approval differ only in what the text has in its lines `on`.
    let payload = approval.on.first()?.payload.as_ref()?;
    let payload = Payload::parse(payload.as_bytes()).ok()?;
    Some(statement::render(&payload, &on))
}

fn about(approval: &Approval) -> About {
    About {
        task: Some(approval.task.clone()),
        request: approval.on.first().map(|one| one.request.clone()),
        target: approval.on.first().map(|one| one.target.clone()),
        action: Some(approval.action.clone()),
        mode: Some(approval.mode),
        ..About::default()
    }
}

fn shown(approval: &Approval, statement: Option<String>) -> Shown {
    Shown {
        view: view(approval),
        task: approval.task.clone(),
        person: approval.owner.person.clone(),
        brain: approval.owner.brain.clone(),
        reason: approval.reason.clone(),
        signed: approval.signed.iter().map(|one| one.fingerprint.clone()).collect(),
        statement,
    }
}
