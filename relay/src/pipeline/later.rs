//! The part of the story that goes on when nobody waits: a change of which nobody knows is asked for by its id, for a day.
//!
//! Nothing is delivered here: whoever was told that it is unknown may be looking, and must not be overtaken by an effect that
//! begins now. What is learnt is recorded, and stands in the task's status from then on.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use wire::ids::Fingerprint;
use wire::limits::REQUEST_MAX_S;
use wire::{Code, Payload};

use super::again::{Asking, Pauses};
use super::request::Subject;
use super::verdict::{Unanswered, Word};
use super::{MARGIN, PATIENCE, Relay};
use crate::error::{Refusal, RefusedBy};
use crate::store::{ASKABLE_S, Unsettled};

/// The first pause, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(300));
/// Changes that are asked for at once, of all tasks together: callers come first.
static TURNS: Semaphore = Semaphore::const_new(8);

/// A change of which nobody knows.
struct Lost {
    left: Unsettled,
    subject: Subject,
    expires: u64,
    /// Which host it was sent to.
    target_key: Option<Fingerprint>,
}

impl Lost {
    fn asking(&self) -> Asking<'_> {
        Asking {
            subject: &self.subject,
            expires: self.expires,
            lines: &[],
            nothing_left: false,
        }
    }
}

/// What one question has brought.
enum Learnt {
    /// All there is to learn, or all that will be.
    Enough,
    /// Nothing; it may be asked again, not before so many seconds have passed.
    Nothing(u64),
}

impl Relay {
    /// Asks for a change until it is known what became of it, or nobody can know any more.
    pub(super) fn ask_later(self: &Arc<Self>, left: Unsettled) {
        let payload = left.payload.as_deref().unwrap_or_default();
        let payload = Payload::parse(payload.as_bytes()).ok();
        let lost = Lost {
            subject: Subject::left(&left),
            // The latest that it can be.
            expires: payload
                .as_ref()
                .map_or(left.begun + REQUEST_MAX_S, |payload| payload.expires),
            target_key: payload.map(|payload| payload.target_key),
            left,
        };
        // Weak: a relay that ends does not wait for it, and the next one goes on.
        let relay = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut pauses = Pauses::new(PAUSES);
            while let Some(relay) = relay.upgrade() {
                let Learnt::Nothing(at_least) = relay.ask_for(&lost).await else {
                    return;
                };
                drop(relay);
                tokio::time::sleep(pauses.next().max(Duration::from_secs(at_least))).await;
            }
        });
    }

    async fn ask_for(self: &Arc<Self>, lost: &Lost) -> Learnt {
        let now = (self.now)();
        if now >= lost.left.begun.saturating_add(ASKABLE_S) {
            return Learnt::Enough;
        }
        let Ok(_turn) = TURNS.acquire().await else {
            return Learnt::Enough;
        };
        let word = match self.word_of(lost).await {
            Ok(word) => word,
            // Policy's no is for as long as the policy; everything else may change.
            Err(refusal) if refusal.by == RefusedBy::Ca && !refusal.retryable() => return Learnt::Enough,
            Err(refusal) if matches!(refusal.code, Code::TaskEnded | Code::UnknownTask) => return Learnt::Enough,
            Err(refusal) => {
                tracing::info!(request = %lost.subject.request, why = %refusal.message, "still not known");
                return Learnt::Nothing(0);
            }
        };
        let draft = match &word {
            Word::Told(verified) => lost.subject.told(verified),
            Word::NeverRan => lost.subject.untold(&Unanswered::never_ran(&lost.subject.about())),
            // Before that nobody can say that it will never begin.
            Word::NotYet(_) => return Learnt::Nothing(lost.asking().over().saturating_sub(now).min(REQUEST_MAX_S)),
            Word::Nothing(_) | Word::Unsent(_) | Word::Refused(_) => return Learnt::Nothing(0),
        };
        match self.record_end(&lost.subject, draft, true).await {
            Ok(_) => Learnt::Enough,
            Err(error) => {
                tracing::error!(%error, request = %lost.subject.request, "what became of it cannot be recorded");
                Learnt::Nothing(0)
            }
        }
    }

    /// The target's word, asked in a session of the task that is open still.
    async fn word_of(self: &Arc<Self>, lost: &Lost) -> Result<Word, Refusal> {
        let about = lost.subject.about();
        let (owner, id) = (&lost.left.task.owner, &lost.left.task.id);
        let task = self.store.task(owner, id).await;
        let task = task.map_err(|error| Refusal::store(&error, &about))?;
        let task = task
            .filter(|task| task.is_open((self.now)()))
            .ok_or_else(|| Refusal::new(Code::TaskEnded, &about))?;
        let until = Instant::now() + PATIENCE;
        let seat = self.seat(&task, &lost.subject.target, &about, until).await?;
        let (session, issued) = self.session(&seat, None, &about, until).await?;
        if lost
            .target_key
            .as_ref()
            .is_some_and(|key| *key != Fingerprint::of(&issued.receipt_key))
        {
            // Another host by that name knows nothing, and would say so.
            return Err(Refusal::new(Code::TaskEnded, &about));
        }
        Ok(self
            .ask_once(&session, &issued.receipt_key, &lost.asking(), MARGIN)
            .await)
    }
}
