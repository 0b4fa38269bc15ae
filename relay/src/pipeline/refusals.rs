//! The part of the story that says no: each refusal stands in one log before it is answered. Whoever refuses records it;
//! where they cannot, the relay does.

use audit::{Decision, Draft, Event};
use wire::{Code, Requester};

use super::{MESSAGE_BYTES, Relay};
use crate::call::Caller;
use crate::error::{About, Refusal, RefusedBy};

impl Relay {
    /// Records a refusal, once, unless it stands in the log of whoever refused.
    pub(super) async fn record_refusal(&self, requester: &Requester, mut refusal: Refusal) -> Refusal {
        // Without a log of our own there is nowhere left to say so.
        let no_log = refusal.by == RefusedBy::Relay && refusal.code == Code::LogUnavailable;
        if refusal.record.is_some() || no_log || is_recorded_elsewhere(&refusal) {
            return refusal;
        }
        let draft = Draft {
            requester: Some(requester.clone()),
            decision: Some(Decision::Deny),
            code: Some(refusal.code),
            message: Some(said(&refusal)),
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

/// A refusal as a record says it: in the relay's log, so whoever else it was is named.
pub(super) fn said(refusal: &Refusal) -> String {
    let message = match refusal.by {
        RefusedBy::Relay | RefusedBy::Sshd => refusal.message.clone(),
        by => format!("{}: {}", by.as_str(), refusal.message),
    };
    wire::text::escaped(&message, MESSAGE_BYTES)
}

/// Whether whoever refused has a record of it.
pub(super) fn is_recorded_elsewhere(refusal: &Refusal) -> bool {
    match refusal.by {
        RefusedBy::Relay | RefusedBy::Sshd => false,
        RefusedBy::Ca => !matches!(refusal.code, Code::LogUnavailable | Code::CaUnavailable),
        // Before a request there is none: what is wrong with a target's own files or log keeps it from writing, and a
        // peer that has asked for nothing is counted there.
        RefusedBy::Target => refusal.about.request.is_some(),
    }
}
