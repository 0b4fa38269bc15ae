//! The part of the story that asks again, while somebody waits: what became of a change whose answer did not come.
//!
//! A change is one run of bytes under one request id, for ever. As long as a target takes them they are delivered again, with
//! the certificate that was given for them: its ledger makes that at most one effect. Later only the id is asked for.
//! Nothing here makes a new request.

use std::sync::Arc;
use std::time::Duration;

use openssh::key::PublicKey;
use tokio::time::Instant;
use wire::Code;
use wire::ids::Fingerprint;
use wire::limits::SKEW_S;
use wire::lines::RelayLine;

use super::request::Subject;
use super::seat::Hello;
use super::send::deliver;
use super::verdict::{self, Unanswered, Verified, Word};
use super::{MARGIN, Relay};
use crate::error::Refusal;
use crate::pauses::Pauses;
use crate::seats::Seat;
use crate::session::{self, Session};

/// The first pause before a change is asked for again, and the longest while somebody waits, before chance.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(2));
/// What whole seconds may hide of two clocks' difference.
const ROUNDED_S: u64 = 2;

/// Why a host is not asked.
pub(super) const ANOTHER: &str = "the target has another receipt key than when it was sent";

/// A change of which somebody asks what became.
pub(super) struct Asking<'a> {
    pub(super) subject: &'a Subject,
    /// Until when its bytes are good, Unix time.
    pub(super) expires: u64,
    /// The target has said itself that it takes the bytes no more.
    pub(super) expired: bool,
    /// Which host it was sent to, where that is known: another one by that name knows nothing, and would say so.
    pub(super) target_key: Option<Fingerprint>,
}

impl Relay {
    /// Asks until the target has said what became of the change, or the caller waits no longer. `lines` are its certificate
    /// and the signed bytes, `missed` is what was in the way the first time.
    pub(super) async fn ask_again(
        self: &Arc<Self>,
        seat: &Arc<Seat>,
        mut asking: Asking<'_>,
        mut lines: &[RelayLine],
        missed: &session::Error,
        until: Instant,
    ) -> Result<Verified, Unanswered> {
        let about = asking.subject.about();
        let mut nothing_left = matches!(missed, session::Error::NotSent(_));
        let mut why = format!("failed to {missed}");
        let mut pauses = Pauses::new(PAUSES);
        while pauses.wait(until).await {
            let (session, issued) = match self.session(seat, None, Hello::Heard, &about, until).await {
                Ok(reached) => reached,
                Err(refusal) => {
                    if refusal.retryable() {
                        why = refusal.message;
                        continue;
                    }
                    // Somebody's no: asking again changes nothing. Where nothing has left, it is all there is to say.
                    if nothing_left {
                        return Err(Unanswered::unsent(refusal));
                    }
                    why = refusal.message;
                    break;
                }
            };
            if nothing_left && session.target_now() >= asking.expires {
                // There is nothing to ask for, and it is too late to send it.
                break;
            }
            if asking.is_of_another(&issued.receipt_key) {
                why = ANOTHER.to_owned();
                break;
            }
            let left = until.saturating_duration_since(Instant::now());
            let word = self.ask_once(&session, &issued.receipt_key, &asking, lines, left).await;
            why = match word {
                Word::Told(verified) => return Ok(*verified),
                Word::NeverRan => return Err(Unanswered::never_ran(&about)),
                Word::Unsent(what) => {
                    why = what;
                    continue;
                }
                // As if nothing had left: it was not looked into.
                Word::Unread(refusal) if nothing_left => return Err(Unanswered::unsent(refusal)),
                Word::Unread(refusal) => refusal.message,
                Word::Nothing(what) | Word::NotYet(what) => what,
                // The first bytes of it that ever left.
                Word::Refused(verified) if nothing_left => return Ok(*verified),
                Word::Refused(verified) => {
                    lines = &[];
                    asking.expired |= verified.outcome.code == Some(Code::RequestExpired);
                    verdict::refusal(*verified, &about).message
                }
            };
            nothing_left = false;
        }
        if nothing_left {
            return Err(Unanswered::unsent(Refusal::because(Code::NotSent, why, &about)));
        }
        let may_begin = asking.over().saturating_sub((self.now)());
        let detail = format!("{why}; it may have been carried out, and may still begin for {may_begin} s");
        Err(Unanswered::unknown(detail, &about))
    }

    /// Asks once: by delivering the same bytes again while there are any and the target takes them, else by the id.
    pub(super) async fn ask_once(
        &self,
        session: &Session,
        receipt_key: &PublicKey,
        asking: &Asking<'_>,
        bytes: &[RelayLine],
        left: Duration,
    ) -> Word {
        let about = asking.subject.about();
        let id = [RelayLine::Outcome(asking.subject.request.clone())];
        let there = session.target_now();
        let (lines, patience) = if there < asking.expires && !bytes.is_empty() {
            (bytes, left)
        } else {
            (id.as_slice(), left.min(MARGIN))
        };
        let answer = deliver(session, receipt_key, asking.subject, lines, patience).await;
        // Judged by the time before it was asked: what the target takes no more at that time it never takes again.
        verdict::word(answer, asking.expired || there >= asking.over(), &about)
    }
}

impl Asking<'_> {
    /// Whether this is the receipt key of another host than the one that it was sent to.
    pub(super) fn is_of_another(&self, receipt_key: &PublicKey) -> bool {
        let sent_to = self.target_key.as_ref();
        sent_to.is_some_and(|key| *key != Fingerprint::of(receipt_key))
    }

    /// From when on the target takes it no more, by the target's clock.
    pub(super) fn over(&self) -> u64 {
        self.expires.saturating_add(SKEW_S + ROUNDED_S)
    }
}
