//! The part of the story that sends: the CA's consent where one is needed, the first question and its answer.

use std::sync::Arc;
use std::time::Duration;

use openssh::key::PublicKey;
use tokio::time::Instant;
use wire::ids::Fingerprint;
use wire::lines::RelayLine;
use wire::{Code, Risk};

use super::again::Asking;
use super::panics::caught;
use super::request::{Begun, Built, Recorded, Subject};
use super::seat::{Hello, Reached};
use super::verdict::{self, Missed, Unanswered, Verified};
use super::{MARGIN, Relay};
use crate::error::Refusal;
use crate::issuer::{Issued, Word};
use crate::records::Written;
use crate::seats::Seat;
use crate::session::{self, Session};

/// How long a change whose answer did not come is asked for while its caller waits.
const PURSUIT: Duration = Duration::from_secs(10);

/// A request that may be sent: with the certificate that it needs beside the task's, if any, and signed.
#[must_use]
pub(super) struct Permitted {
    lines: Vec<RelayLine>,
    /// When its own certificate ends, Unix time: without it the bytes begin nowhere.
    ends: u64,
}

/// What the CA says to a request that it does not refuse.
#[must_use]
pub(super) enum Consent {
    /// It may be sent.
    Given(Permitted),
    /// It may be once so many people have approved it.
    Wants(u8),
}

impl Relay {
    /// What the task's certificate does not cover, the CA judges with its arguments, while the request's record becomes
    /// durable. Its no ends the request: nothing of it was sent.
    pub(super) async fn permitted(
        &self,
        seat: &Seat,
        issued: &Issued,
        begun: Begun,
    ) -> Result<(Recorded, Result<Consent, Unanswered>), Refusal> {
        let judge = async |built: &Built, written| {
            let judged = caught(self.judged(seat, issued, built, written)).await;
            judged.unwrap_or_else(|| Err(Unanswered::unsent(Refusal::new(Code::Internal, &built.asked.about))))
        };
        let (recorded, judged) = self.record(begun, &seat.key, judge).await?;
        let consent = judged.map(|(word, sealed)| {
            let (certificate, ends) = match word {
                Some(Word::Wants(approvals)) => return Consent::Wants(approvals),
                Some(Word::Permit(permit)) => (Some(RelayLine::Certificate(permit.certificate)), permit.valid_before),
                None => (None, u64::MAX),
            };
            let signatures = recorded.built.granted().map(|granted| granted.signatures.clone());
            let request = RelayLine::Request(sealed, signatures);
            let lines = certificate.into_iter().chain([request]).collect();
            Consent::Given(Permitted { lines, ends })
        });
        Ok((recorded, consent))
    }

    async fn judged(
        &self,
        seat: &Seat,
        issued: &Issued,
        built: &Built,
        written: Written,
    ) -> Result<Option<Word>, Unanswered> {
        let about = &built.asked.about;
        if built.asked.is_covered_by(issued) {
            return Ok(None);
        }
        if !written.stands().await {
            // The CA learns of nothing that is not in our log. Why it is not, whoever waits for the record is told.
            return Err(Unanswered::unsent(Refusal::new(Code::Internal, about)));
        }
        let held = built.granted().map_or(0, |granted| granted.held);
        let word = self
            .issuer
            .authorize_action(&seat.task, &seat.target, seat.key.public(), &built.payload, held)
            .await
            .map_err(|error| Unanswered::unsent(Refusal::issuer(error, about)))?;
        Ok(Some(word))
    }

    /// A session for a request, waited for no longer than its bytes are good.
    async fn lease(
        self: &Arc<Self>,
        seat: &Arc<Seat>,
        reached: Option<Reached>,
        recorded: &Recorded,
        until: Instant,
    ) -> Result<(Session, Issued), Unanswered> {
        let built = &recorded.built;
        let good_for = Duration::from_secs(built.expires.saturating_sub((self.now)()));
        let hello = match built.asked.risk {
            Risk::Read => Hello::OnItsWay,
            Risk::Change | Risk::Destroy => Hello::Heard,
        };
        let until = until.min(Instant::now() + good_for);
        let session = self.session(seat, reached, hello, &built.asked.about, until);
        session.await.map_err(Unanswered::unsent)
    }

    /// Asks, in one session. Where the answer to a change does not come it is asked for again.
    pub(super) async fn send(
        self: &Arc<Self>,
        seat: &Arc<Seat>,
        reached: Reached,
        recorded: &Recorded,
        permitted: Permitted,
        until: Instant,
    ) -> Result<Verified, Unanswered> {
        let asked = caught(self.ask(seat, reached, recorded, permitted, until)).await;
        asked.unwrap_or_else(|| {
            // It may have left, whatever it was that failed here.
            let about = &recorded.built.asked.about;
            Err(match recorded.built.asked.risk {
                Risk::Read => Unanswered::failed(Refusal::new(Code::Internal, about)),
                Risk::Change | Risk::Destroy => Unanswered::unknown(Code::Internal.text(), about),
            })
        })
    }

    async fn ask(
        self: &Arc<Self>,
        seat: &Arc<Seat>,
        reached: Reached,
        recorded: &Recorded,
        permitted: Permitted,
        until: Instant,
    ) -> Result<Verified, Unanswered> {
        let built = &recorded.built;
        let about = &built.asked.about;
        let Permitted { lines, ends } = permitted;
        let patience = built.asked.timeout + MARGIN;
        let reads = built.asked.risk == Risk::Read;
        let (mut session, mut issued) = self.lease(seat, Some(reached), recorded, until).await?;
        let target_key = Some(Fingerprint::of(&issued.receipt_key));
        let pursued = Instant::now() + patience + PURSUIT;
        let mut answer = deliver(&session, &issued.receipt_key, &built.subject, &lines, patience).await;
        if reads && matches!(answer, Err(Missed::Session(session::Error::NotSent(_)))) {
            // It broke before anything left: on another, as if it had never been there. It has a place, which may be the one
            // that there is.
            drop(session);
            (session, issued) = self.lease(seat, None, recorded, until).await?;
            answer = deliver(&session, &issued.receipt_key, &built.subject, &lines, patience).await;
        }
        // Not kept for the one user that it had: asking again takes the session that there is then.
        drop(session);
        let missed = match answer {
            Ok(verified) => return Ok(verified),
            Err(missed) if reads => return Err(Unanswered::read(&missed, about)),
            Err(missed) => missed,
        };
        match &missed {
            missed if missed.never_began() => Err(Unanswered::unsent(missed.refusal(about))),
            // Whoever speaks for the target is asked nothing more while somebody waits.
            Missed::Forged(_) => Err(Unanswered::unknown(missed.why(about), about)),
            Missed::Session(error) => {
                let asking = Asking {
                    subject: &built.subject,
                    expires: built.expires.min(ends),
                    expired: false,
                    target_key,
                };
                self.ask_again(seat, asking, &lines, error, pursued).await
            }
        }
    }
}

/// Sends lines as one unit and believes the answer to the last of them, or does not.
pub(super) async fn deliver(
    session: &Session,
    receipt_key: &PublicKey,
    subject: &Subject,
    lines: &[RelayLine],
    patience: Duration,
) -> Result<Verified, Missed> {
    let answer = session.ask(lines, patience).await.map_err(|error| {
        if matches!(error, session::Error::TimedOut(_)) {
            // Nobody else is sent that way before it is known to lead anywhere.
            session.retire();
        }
        Missed::Session(error)
    })?;
    match verdict::verify(answer, receipt_key, &subject.sha256) {
        Ok(mut verified) => {
            verified.certificate_refused = session.certificate_refused();
            verified.waited_s = session.waited_s();
            Ok(verified)
        }
        Err(what) => {
            // Somebody speaks for the target who is not it: nothing more is asked of this session.
            tracing::error!(target_name = %subject.target, what, "a receipt of the target does not hold");
            session.close("a receipt of the target did not hold");
            Err(Missed::Forged(what))
        }
    }
}
