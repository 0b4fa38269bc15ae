//! The part of the story that asks again, while somebody waits: what became of a change whose answer did not come.
//!
//! A change is one run of bytes under one request id, for ever. As long as a target takes them they are delivered again, with
//! the certificate that was given for them: its ledger makes that at most one effect. Later only the id is asked for.
//! Nothing here makes a new request.

use std::sync::Arc;
use std::time::Duration;

use openssh::key::PublicKey;
use rand::RngExt as _;
use tokio::time::Instant;
use wire::Code;
use wire::limits::SKEW_S;
use wire::lines::RelayLine;

use super::request::Subject;
use super::send::deliver;
use super::verdict::{self, Unanswered, Verified, Word};
use super::{MARGIN, Relay};
use crate::error::Refusal;
use crate::seats::Seat;
use crate::session::Session;

/// The first pause before a change is asked for again, and the longest while somebody waits.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// What whole seconds may hide of two clocks' difference.
const ROUNDED_S: u64 = 2;

/// A change that was sent, and everything that may ever be sent of it.
pub(super) struct Asking<'a> {
    pub(super) subject: &'a Subject,
    /// Until when its bytes are good, Unix time.
    pub(super) expires: u64,
    /// Its certificate and the signed bytes; empty where only its id is asked for.
    pub(super) lines: &'a [RelayLine],
    /// Nothing of it has ever left.
    pub(super) nothing_left: bool,
}

impl Relay {
    /// Asks until the target has said what became of the change, or the caller waits no longer. `why` is what was in the way
    /// the first time.
    pub(super) async fn ask_again(
        self: &Arc<Self>,
        seat: &Arc<Seat>,
        asking: &Asking<'_>,
        mut why: String,
        until: Instant,
    ) -> Result<Verified, Unanswered> {
        let about = asking.subject.about();
        let (mut pauses, mut nothing_left) = (Pauses::new(PAUSES), asking.nothing_left);
        let mut lines = asking.lines;
        while pauses.wait(until).await {
            let (session, issued) = match self.session(seat, None, &about, until).await {
                Ok(reached) => reached,
                Err(refusal) => {
                    why.clone_from(&refusal.message);
                    if refusal.retryable() {
                        continue;
                    }
                    // Somebody's no: asking again changes nothing.
                    break;
                }
            };
            let asking = Asking { lines, ..*asking };
            let left = until.saturating_duration_since(Instant::now());
            why = match self.ask_once(&session, &issued.receipt_key, &asking, left).await {
                Word::Told(verified) => return Ok(*verified),
                Word::NeverRan => return Err(Unanswered::never_ran(&about)),
                Word::Unsent(what) => {
                    why = what;
                    continue;
                }
                Word::Nothing(what) | Word::NotYet(what) => what,
                Word::Refused(what) => {
                    lines = &[];
                    what
                }
            };
            nothing_left = false;
        }
        if nothing_left {
            return Err(Unanswered::unsent(Refusal::because(Code::NotSent, why, &about)));
        }
        let may_begin = asking.over().saturating_sub((self.now)());
        let detail = format!("{why}; it may have been carried out, and may still begin for {may_begin} s");
        Err(Unanswered::unknown(Refusal::because(
            Code::OutcomeUnknown,
            detail,
            &about,
        )))
    }

    /// Asks once: by delivering the same bytes again while the target takes them, else by the id.
    pub(super) async fn ask_once(
        &self,
        session: &Session,
        receipt_key: &PublicKey,
        asking: &Asking<'_>,
        left: Duration,
    ) -> Word {
        let about = asking.subject.about();
        let id = [RelayLine::Outcome(asking.subject.request.clone())];
        let there = (self.now)().saturating_add_signed(session.ahead_s());
        let (lines, patience) = if there < asking.expires && !asking.lines.is_empty() {
            (asking.lines, left)
        } else {
            (id.as_slice(), left.min(MARGIN))
        };
        let answer = deliver(session, receipt_key, asking.subject, lines, patience).await;
        // Judged by the time before it was asked: what the target takes no more at that time it never takes again.
        verdict::word(answer, there >= asking.over(), &about)
    }
}

impl Asking<'_> {
    /// From when on the target takes it no more, by the target's clock.
    pub(super) fn over(&self) -> u64 {
        self.expires.saturating_add(SKEW_S + ROUNDED_S)
    }
}

/// Pauses between questions: each twice as long as the one before, and each by chance somewhat shorter, so that many who
/// lost the same connection do not come back together.
pub(super) struct Pauses {
    next: Duration,
    longest: Duration,
}

impl Pauses {
    pub(super) fn new((first, longest): (Duration, Duration)) -> Self {
        Self { next: first, longest }
    }

    /// The next pause.
    pub(super) fn next(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(self.longest);
        pause.mul_f64(rand::rng().random_range(0.5..1.0))
    }

    /// Waits; false when it would take longer than `until`.
    async fn wait(&mut self, until: Instant) -> bool {
        let end = Instant::now() + self.next();
        if end >= until {
            return false;
        }
        tokio::time::sleep_until(end).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_their_bound_and_are_never_all_alike() {
        let bound = Duration::from_secs(2);
        let all = || {
            let mut pauses = Pauses::new((Duration::from_millis(50), bound));
            std::array::from_fn::<Duration, 12, _>(|_| pauses.next())
        };
        let (one, two) = (all(), all());
        assert_ne!(one, two);
        assert!(
            one[0] < Duration::from_millis(50) && one[0] >= Duration::from_millis(25),
            "{one:?}"
        );
        assert!(
            one[11] >= bound / 2 && one.iter().all(|pause| *pause < bound),
            "{one:?}"
        );
    }

    #[tokio::test]
    async fn a_pause_that_would_last_too_long_is_not_begun() {
        let mut pauses = Pauses::new((Duration::from_secs(3600), Duration::from_secs(3600)));
        assert!(!pauses.wait(Instant::now() + Duration::from_secs(60)).await);
    }
}
