//! The part of the story that says no: each refusal of the relay's own stands in its log once, before it is answered.

use audit::{Decision, Draft, Event};
use wire::{Code, Requester};

use super::{MESSAGE_BYTES, Relay};
use crate::call::Caller;
use crate::error::{About, Refusal, RefusedBy};

impl Relay {
    /// The relay's own refusals are recorded here, once; those of CA and target are in their logs.
    pub(super) async fn record_refusal(&self, requester: &Requester, mut refusal: Refusal) -> Refusal {
        let ours = matches!(refusal.by, RefusedBy::Relay | RefusedBy::Sshd);
        if !ours || refusal.record.is_some() || refusal.code == Code::LogUnavailable {
            return refusal;
        }
        let draft = Draft {
            requester: Some(requester.clone()),
            decision: Some(Decision::Deny),
            code: Some(refusal.code),
            message: Some(audit::show::ascii(&refusal.message, MESSAGE_BYTES)),
            task_id: refusal.about.task.clone(),
            request_id: refusal.about.request.clone(),
            target: refusal.about.target.clone(),
            action: refusal.about.action.clone(),
            ..Draft::new(Event::Refused)
        };
        match self.records.append(draft).await {
            Ok(head) => refusal.record = Some(head.seq),
            Err(error) => return Refusal::log(&error, &refusal.about),
        }
        refusal
    }

    /// Refuses what could not even become a call.
    pub async fn refuse(&self, caller: &Caller, refusal: Refusal) -> Refusal {
        match Self::requester(caller) {
            Some(requester) => self.record_refusal(&requester, refusal).await,
            None => self.refuse_stranger(caller).await,
        }
    }

    /// A uid that is nobody in the configuration: counted, so that it cannot fill the disk.
    pub(super) async fn refuse_stranger(&self, caller: &Caller) -> Refusal {
        let text = format!("uid {} is no person", caller.uid);
        let detail = format!("uid {} is not in the relay's configuration", caller.uid);
        let head = self
            .records
            .note_stranger(Code::PersonUnmapped, text, (self.now)())
            .await;
        let refusal = Refusal::because(Code::PersonUnmapped, detail, &About::default());
        Refusal {
            record: head.map(|head| head.seq),
            ..refusal
        }
    }

    /// A line that is no message: counted like a stranger, since nothing in it can be believed.
    pub async fn note_bad_line(&self, uid: u32, code: Code) {
        self.records
            .note_stranger(code, format!("uid {uid} sent what is no message"), (self.now)())
            .await;
    }
}
