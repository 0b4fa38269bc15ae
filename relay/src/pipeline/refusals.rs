//! The part of the story that says no: each refusal stands in one log before it is answered. Whoever refuses records it;
//! where they cannot, the relay does.

use audit::{Decision, Draft, Event};
use wire::ids::{Head, TargetName};
use wire::{Code, Mode, Requester, Risk};

use super::{MESSAGE_BYTES, Relay};
use crate::call::{Call, Caller};
use crate::error::{About, Refusal, RefusedBy};
use crate::gate::{Denied, Place};

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
            mode: refusal.about.mode,
            policy: deciding(&refusal),
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
            Some(requester) => match self.gate.enter(&requester.person, None).await {
                Ok(_place) => self.record_refusal(&requester, refusal).await,
                Err(denied) => self.deny(&requester, &denied, &About::default()).await,
            },
            None => self.refuse_stranger(caller).await,
        }
    }

    /// A place for a call.
    pub(super) async fn let_in(&self, requester: &Requester, call: &Call) -> Result<Place, Refusal> {
        let about = call.about();
        let entered = if call.is_for_the_desk() {
            self.gate.enter_desk(&requester.person).await
        } else {
            // A name that is no target's is refused later, and nothing is kept about it.
            let known = |name: &&TargetName| self.inventory.find(name.as_str()).is_some();
            let target = about.target.as_ref().filter(known);
            self.gate.enter(&requester.person, target).await
        };
        match entered {
            Ok(place) => Ok(place),
            Err(denied) => Err(self.deny(requester, &denied, &about).await),
        }
    }

    /// What the gate refused: counted, so that whoever calls too fast cannot fill the disk.
    async fn deny(&self, requester: &Requester, denied: &Denied, about: &About) -> Refusal {
        let refusal = Refusal::because(denied.code(), denied.detail(), about);
        self.count(requester, refusal).await
    }

    /// Too many requests of one connection: counted like what the gate refuses.
    pub async fn refuse_one_too_many(&self, caller: &Caller) -> Refusal {
        let Some(requester) = Self::requester(caller) else {
            return self.refuse_stranger(caller).await;
        };
        let detail = "as many requests of this connection are under way as may be";
        let refusal = Refusal::because(Code::Capacity, detail, &About::default());
        self.count(&requester, refusal).await
    }

    /// A call that failed here, nobody knows how far it had come. Whatever has an effect is to be looked at.
    pub async fn failed(&self, caller: &Caller, mut about: About) -> Refusal {
        let entry = about.action.as_ref().and_then(|action| self.catalogue.find(action));
        let mode = about.mode.unwrap_or(Mode::Run);
        about.look =
            entry.is_some_and(|entry| entry.manifest().in_mode(mode).map(|terms| terms.risk) != Some(Risk::Read));
        let refusal = Refusal::new(Code::Internal, &about);
        match Self::requester(caller) {
            Some(requester) => self.record_refusal(&requester, refusal).await,
            None => refusal,
        }
    }

    async fn count(&self, requester: &Requester, refusal: Refusal) -> Refusal {
        let message = wire::text::escaped(&refusal.message, MESSAGE_BYTES);
        let now = self.gate.now();
        let Some(draft) = self.gate.repeats.note(requester, refusal.code, &message, now) else {
            return refusal;
        };
        match self.records.append(draft.clone()).await {
            Ok(head) => Refusal {
                record: Some(head.seq),
                ..refusal
            },
            Err(error) => {
                self.gate.repeats.give_back(&draft);
                Refusal::log(&error, &refusal.about)
            }
        }
    }

    /// Records what the gate refused and counted, where a record is due; all of it when the relay stops.
    pub async fn record_repeats(&self, all: bool) {
        for draft in self.gate.repeats.due(self.gate.now(), all) {
            if let Err(error) = self.records.append(draft.clone()).await {
                self.gate.repeats.give_back(&draft);
                tracing::error!(%error, "refused calls that were counted cannot be recorded");
            }
        }
        if let Some(draft) = self.gate.strangers.due(self.gate.now(), all) {
            self.record_strangers(draft).await;
        }
    }

    /// Counts a peer that proved nothing, and records all of them where that is due.
    pub async fn note_stranger(&self, code: Code, text: &str) -> Option<Head> {
        let draft = self.gate.strangers.note(code, text, self.gate.now())?;
        self.record_strangers(draft).await
    }

    async fn record_strangers(&self, draft: Draft) -> Option<Head> {
        match self.records.append(draft.clone()).await {
            Ok(head) => Some(head),
            Err(error) => {
                self.gate.strangers.give_back(&draft);
                tracing::error!(%error, "refused strangers that were counted cannot be recorded");
                None
            }
        }
    }

    /// A uid that is nobody in the configuration: counted, so that it cannot fill the disk.
    pub(super) async fn refuse_stranger(&self, caller: &Caller) -> Refusal {
        let text = format!("uid {} is no person", caller.uid);
        let detail = format!("uid {} is not in the relay's configuration", caller.uid);
        let head = self.note_stranger(Code::PersonUnmapped, &text).await;
        let refusal = Refusal::because(Code::PersonUnmapped, detail, &About::default());
        Refusal {
            record: head.map(|head| head.seq),
            ..refusal
        }
    }

    /// A line that is no message: counted like a stranger, since nothing in it can be believed.
    pub async fn note_bad_line(&self, uid: u32, code: Code) {
        self.note_stranger(code, &format!("uid {uid} sent what is no message"))
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

/// The rules or policies that decided, as a record names them.
pub(super) fn deciding(refusal: &Refusal) -> Option<Vec<String>> {
    Some(refusal.policy.clone()).filter(|ids| !ids.is_empty())
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
