//! The part of the story that goes on when nobody waits: a change of which nobody knows is asked for by its id, for a day.
//!
//! Nothing is delivered here: whoever was told that it is unknown may be looking, and must not be overtaken by an effect that
//! begins now. What is learnt is recorded, and stands in the task's status from then on; so is that nobody asks any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use tokio::sync::{Mutex as Turn, OwnedMutexGuard};
use tokio::time::Instant;
use wire::ids::{Fingerprint, TargetName};
use wire::limits::REQUEST_MAX_S;
use wire::{Code, Payload};

use super::again::{ANOTHER, Asking};
use super::panics::caught;
use super::request::Subject;
use super::seat::Hello;
use super::verdict::{Unanswered, Word};
use super::{MARGIN, PATIENCE, Relay};
use crate::error::{Refusal, RefusedBy};
use crate::lock::lock;
use crate::pauses::Pauses;
use crate::store::{ASKABLE_S, Unsettled};

/// The first pause, and the longest, before chance.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));

/// Whose turn it is to ask. On each target one change is asked for at a time, so that a host which is gone keeps nobody
/// waiting but those who ask for it, and is not asked by all of them at once when it is back.
#[derive(Debug, Default)]
pub struct Turns(Mutex<HashMap<TargetName, Weak<Turn<()>>>>);

impl Turns {
    async fn on(&self, target: &TargetName) -> OwnedMutexGuard<()> {
        let turn = {
            let mut turns = lock(&self.0);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let turn = turns.get(target).and_then(Weak::upgrade).unwrap_or_default();
            turns.insert(target.clone(), Arc::downgrade(&turn));
            turn
        };
        turn.lock_owned().await
    }
}

/// A change of which nobody knows.
struct Lost {
    left: Unsettled,
    subject: Subject,
    expires: u64,
    target_key: Option<Fingerprint>,
}

impl Lost {
    fn new(mut left: Unsettled) -> Self {
        // It may be kept for a day, and its bytes are never sent again.
        let payload = left.payload.take().unwrap_or_default();
        let payload = Payload::parse(payload.as_bytes()).ok();
        Self {
            subject: Subject::left(&left),
            // The latest that it can be.
            expires: payload
                .as_ref()
                .map_or(left.begun + REQUEST_MAX_S, |payload| payload.expires),
            target_key: payload.map(|payload| payload.target_key),
            left,
        }
    }

    fn asking(&self) -> Asking<'_> {
        Asking {
            subject: &self.subject,
            expires: self.expires,
            expired: false,
            target_key: self.target_key.clone(),
        }
    }
}

/// What comes after a question.
enum Next {
    /// Another, not before so much time has passed.
    Ask(Duration),
    /// None. The next start may ask again.
    End,
    /// None, ever, and why.
    Never(Refusal),
}

impl Relay {
    /// Asks for a change until it is known what became of it, or nobody can know any more.
    pub(super) fn ask_later(self: &Arc<Self>, left: Unsettled) {
        let lost = Lost::new(left);
        // Weak: a relay that ends does not wait for it, and the next one goes on.
        let relay = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut pauses = Pauses::new(PAUSES);
            while let Some(relay) = relay.upgrade() {
                // One that fails in us is asked again, as any other.
                match caught(relay.ask_for(&lost)).await.unwrap_or(Next::Ask(Duration::ZERO)) {
                    Next::Ask(at_least) => {
                        drop(relay);
                        tokio::time::sleep(pauses.next().max(at_least)).await;
                    }
                    Next::Never(why) => return relay.leave_unknown(&lost, why).await,
                    Next::End => return,
                }
            }
        });
    }

    async fn ask_for(self: &Arc<Self>, lost: &Lost) -> Next {
        let soon = Next::Ask(Duration::ZERO);
        let now = (self.now)();
        if now >= lost.left.begun.saturating_add(ASKABLE_S) {
            // The store settles it by itself.
            return Next::End;
        }
        let word = tokio::select! {
            biased;
            () = self.gate.is_closed() => return Next::End,
            word = self.word_of(lost) => word,
        };
        let word = match word {
            Ok(word) => word,
            Err(Unaskable::Now(refusal)) => {
                tracing::info!(request = %lost.subject.request, why = %refusal.message, "still not known");
                return soon;
            }
            Err(Unaskable::Ever(refusal)) => return Next::Never(refusal),
        };
        let draft = match &word {
            Word::Told(verified) => lost.subject.told(verified),
            Word::NeverRan => lost.subject.untold(&Unanswered::never_ran(&lost.subject.about())),
            // Before that nobody can say that it will never begin.
            Word::NotYet(_) => {
                let left_s = lost.asking().over().saturating_sub(now).min(REQUEST_MAX_S);
                return Next::Ask(Duration::from_secs(left_s));
            }
            Word::Nothing(_) | Word::Unsent(_) | Word::Unread(_) | Word::Refused(_) => return soon,
        };
        let Some(_working) = self.gate.work() else {
            return Next::End;
        };
        match self.record_end(&lost.subject, draft, true).await {
            Ok(_) => Next::End,
            Err(error) => {
                tracing::error!(%error, request = %lost.subject.request, "what became of it cannot be recorded");
                soon
            }
        }
    }

    /// Nobody asks any more: so it is said, in the log and in the task's status.
    async fn leave_unknown(&self, lost: &Lost, why: Refusal) {
        let Some(_working) = self.gate.work() else {
            return;
        };
        let why = format!("{}; it is not asked for any more", why.message);
        let draft = lost.subject.untold(&Unanswered::unknown(why, &lost.subject.about()));
        if let Err(error) = self.record_end(&lost.subject, draft, true).await {
            tracing::error!(%error, request = %lost.subject.request, "that it is not asked for any more cannot be recorded");
        }
    }

    /// The target's word, asked in a session of the task that is open still.
    async fn word_of(self: &Arc<Self>, lost: &Lost) -> Result<Word, Unaskable> {
        let about = lost.subject.about();
        let _turn = self.turns.on(&lost.subject.target).await;
        let (owner, id) = (&lost.left.task.owner, &lost.left.task.id);
        let task = self.store.task(owner, id).await;
        let task = task.map_err(|error| Unaskable::Now(Refusal::store(&error, &about)))?;
        let task = task
            .filter(|task| task.is_open((self.now)()))
            .ok_or_else(|| Unaskable::Ever(Refusal::new(Code::TaskEnded, &about)))?;
        let until = Instant::now() + PATIENCE;
        let seat = self.seat(&task, &lost.subject.target, &about, until).await?;
        let (session, issued) = self.session(&seat, None, Hello::Heard, &about, until).await?;
        let asking = lost.asking();
        if asking.is_of_another(&issued.receipt_key) {
            return Err(Unaskable::Ever(Refusal::because(Code::ReceiptInvalid, ANOTHER, &about)));
        }
        Ok(self.ask_once(&session, &issued.receipt_key, &asking, &[], MARGIN).await)
    }
}

/// Why a target was not asked.
enum Unaskable {
    /// It can be later.
    Now(Refusal),
    /// It never will be.
    Ever(Refusal),
}

impl From<Refusal> for Unaskable {
    /// Policy's no is for as long as the policy; everything else may change.
    fn from(refusal: Refusal) -> Self {
        if refusal.by == RefusedBy::Ca && !refusal.retryable() {
            return Self::Ever(refusal);
        }
        Self::Now(refusal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_host_that_is_gone_keeps_nobody_waiting_but_those_who_ask_for_it() {
        let turns = Turns::default();
        let target = |name: &str| name.parse::<TargetName>().unwrap();
        let held = turns.on(&target("gone-1")).await;
        let wait = Duration::from_millis(50);
        for other in 0..100 {
            let _turn = tokio::time::timeout(wait, turns.on(&target(&format!("web-{other}"))))
                .await
                .unwrap();
        }
        assert!(tokio::time::timeout(wait, turns.on(&target("gone-1"))).await.is_err());
        drop(held);
        let _turn = tokio::time::timeout(wait, turns.on(&target("gone-1"))).await.unwrap();
        assert!(lock(&turns.0).len() <= 2, "those that nobody waits for are forgotten");
    }
}
