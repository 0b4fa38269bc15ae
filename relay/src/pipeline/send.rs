//! The part of the story that sends: the CA's consent where one is needed, the line that a change crosses once, the first
//! question and its answer.

use std::sync::Arc;
use std::time::Duration;

use openssh::key::PublicKey;
use openssh::sshsig;
use tokio::time::Instant;
use wire::lines::RelayLine;
use wire::seal::Sealed;
use wire::{Code, Risk};

use super::again::Asking;
use super::panics::caught;
use super::request::{Recorded, Subject};
use super::verdict::{self, Missed, Unanswered, Verified};
use super::{MARGIN, Relay, approvals_of};
use crate::error::Refusal;
use crate::issuer::Issued;
use crate::seats::Seat;
use crate::session::Session;

/// How long a change whose answer did not come is asked for while its caller waits.
const PURSUIT: Duration = Duration::from_secs(10);

/// A request that may be sent: the certificate that it needs beside the task's, if any.
#[must_use]
pub(super) struct Permitted {
    certificate: Option<RelayLine>,
}

impl Relay {
    /// What the task's certificate does not cover, the CA judges with its arguments. Its no ends the request: nothing of it
    /// was sent.
    pub(super) async fn permitted(
        &self,
        seat: &Seat,
        issued: &Issued,
        recorded: &Recorded,
    ) -> Result<Permitted, Unanswered> {
        let judged = caught(self.judged(seat, issued, recorded)).await;
        judged.unwrap_or_else(|| {
            let about = &recorded.built.asked.about;
            Err(Unanswered::unsent(Refusal::new(Code::Internal, about)))
        })
    }

    async fn judged(&self, seat: &Seat, issued: &Issued, recorded: &Recorded) -> Result<Permitted, Unanswered> {
        let built = &recorded.built;
        let about = &built.asked.about;
        if built.asked.risk == Risk::Read && issued.actions.contains(&built.subject.action) {
            return Ok(Permitted { certificate: None });
        }
        let permit = self
            .issuer
            .authorize_action(&seat.task, &seat.target, seat.key.public(), &built.payload)
            .await
            .map_err(|error| Unanswered::unsent(Refusal::issuer(error, about)))?;
        if permit.approvals > 0 {
            let detail = approvals_of(permit.approvals);
            return Err(Unanswered::unsent(Refusal::because(
                Code::ApprovalMissing,
                detail,
                about,
            )));
        }
        Ok(Permitted {
            certificate: Some(RelayLine::Certificate(permit.certificate)),
        })
    }

    /// Signs with the task's key and asks, in one session. Of a change it is durable before the first byte that it may be
    /// under way; where its answer does not come it is asked for again.
    pub(super) async fn send(
        self: &Arc<Self>,
        seat: &Seat,
        session: Session,
        receipt_key: &PublicKey,
        recorded: &Recorded,
        permitted: Permitted,
    ) -> Result<Verified, Unanswered> {
        let asked = caught(self.ask(seat, session, receipt_key, recorded, permitted)).await;
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
        seat: &Seat,
        session: Session,
        receipt_key: &PublicKey,
        recorded: &Recorded,
        permitted: Permitted,
    ) -> Result<Verified, Unanswered> {
        let built = &recorded.built;
        let about = &built.asked.about;
        let sig = sshsig::sign(&seat.key, sshsig::REQUEST, built.payload.as_bytes())
            .map_err(|_| Unanswered::unsent(Refusal::because(Code::NotSent, "it could not be signed", about)))?;
        let payload = built.payload.clone();
        let mut lines = Vec::from_iter(permitted.certificate);
        lines.push(RelayLine::Request(Sealed { payload, sig }, None));
        let patience = built.asked.timeout + MARGIN;
        let reads = built.asked.risk == Risk::Read;
        if !reads {
            let sent = self.store.sent(&seat.task, &built.subject.request).await;
            sent.map_err(|error| Unanswered::unsent(Refusal::store(&error, about)))?;
        }
        let until = Instant::now() + patience + PURSUIT;
        let answer = deliver(&session, receipt_key, &built.subject, &lines, patience).await;
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
                    expires: built.expires,
                    expired: false,
                };
                self.ask_again(seat, asking, &lines, error, until).await
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
    let answer = session.ask(lines, patience).await.map_err(Missed::Session)?;
    match verdict::verify(answer, receipt_key, &subject.sha256) {
        Ok(mut verified) => {
            verified.certificate_refused = session.certificate_refused();
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
