//! The part of the story that keeps a task's session: a certificate that is always fresh, a connection that is there.
//!
//! A session is never used after its certificate's end. A background renewer asks the CA again at two thirds of each
//! certificate's life and presents the answer in-band; where it could not, the next call asks, and gets the CA's no.

use std::sync::{Arc, Weak};
use std::time::Duration;

use wire::Code;

use super::Relay;
use crate::error::{About, Refusal};
use crate::issuer::{self, Issued};
use crate::seats::{Held, Seat};
use crate::session::{Login, Session};

/// A certificate with less life than this is renewed before it is used, in seconds.
const SHORTEST_S: u64 = 5;
/// How long the renewer waits before it asks a CA again that did not answer.
const AGAIN: Duration = Duration::from_secs(5);

impl Relay {
    /// The seat's session, with a certificate that is valid now: the one that stands, or a new one.
    pub(super) async fn session(&self, seat: &Seat, about: &About) -> Result<(Arc<Session>, Issued), Refusal> {
        let mut held = seat.held.lock().await;
        if held.issued.valid_before < (self.now)().saturating_add(SHORTEST_S) {
            self.renew(seat, &mut held)
                .await
                .map_err(|error| Refusal::issuer(error, about))?;
            seat.changed.notify_one();
        }
        if let Some(session) = held.session.as_ref().filter(|session| session.is_alive()) {
            return Ok((Arc::clone(session), held.issued.clone()));
        }
        let host = self
            .host(&seat.target)
            .ok_or_else(|| Refusal::new(Code::UnknownTarget, about))?;
        let login = Login {
            task: &seat.task,
            host: &host,
            key: &seat.key,
            certificate: &held.issued.certificate,
            receipt_key: &held.issued.receipt_key,
            now: self.now,
        };
        let session = Session::open(&login)
            .await
            .map_err(|error| Refusal::session(&error, about))?;
        if self.seats.find(&seat.task, &seat.target).is_none() {
            return Err(Refusal::new(Code::TaskEnded, about));
        }
        let session = Arc::new(session);
        held.session = Some(Arc::clone(&session));
        Ok((session, held.issued.clone()))
    }

    /// Asks the CA for the next certificate of the same key, and presents it where a session stands.
    async fn renew(&self, seat: &Seat, held: &mut Held) -> Result<(), issuer::Error> {
        held.issued = self
            .issuer
            .renew_task(&seat.task, &seat.target, seat.key.public())
            .await?;
        held.since = (self.now)();
        if let Some(session) = held.session.take_if(|session| !session.is_alive()) {
            session.close("it is over");
        }
        if let Some(session) = &held.session
            && let Err(error) = session.present(&held.issued.certificate).await
        {
            // The next call opens another session.
            tracing::info!(task = %seat.task, target_name = %seat.target, %error, "the session is gone");
        }
        Ok(())
    }

    /// Renews a seat's certificate until the seat is given up.
    pub(super) fn keep_fresh(self: &Arc<Self>, seat: &Arc<Seat>) {
        let changed = Arc::clone(&seat.changed);
        // Weak: the renewer keeps no key alive.
        let (relay, seat) = (Arc::downgrade(self), Arc::downgrade(seat));
        tokio::spawn(async move {
            while let Some(wait) = until_due(&relay, &seat).await {
                tokio::time::sleep(wait).await;
                match refresh(&relay, &seat).await {
                    Fresh::Renewed => {}
                    Fresh::Later => tokio::time::sleep(AGAIN).await,
                    // Nothing to keep fresh until a call has asked the CA with success.
                    Fresh::Ended => changed.notified().await,
                    Fresh::Gone => return,
                }
            }
        });
    }
}

/// What became of one renewal.
enum Fresh {
    /// The certificate is new.
    Renewed,
    /// The CA did not answer, and the certificate still has some life.
    Later,
    /// There is no certificate any more, or the CA says no; the session is closed when its certificate ends.
    Ended,
    /// The seat was given up.
    Gone,
}

/// How long until two thirds of the certificate's life are over. `None` when the seat is gone.
async fn until_due(relay: &Weak<Relay>, seat: &Weak<Seat>) -> Option<Duration> {
    let (relay, seat) = (relay.upgrade()?, seat.upgrade()?);
    let held = seat.held.lock().await;
    let life = held.issued.valid_before.saturating_sub(held.since);
    Some(Duration::from_secs(
        (held.since + life * 2 / 3).saturating_sub((relay.now)()),
    ))
}

async fn refresh(relay: &Weak<Relay>, seat: &Weak<Seat>) -> Fresh {
    let (Some(relay), Some(seat)) = (relay.upgrade(), seat.upgrade()) else {
        return Fresh::Gone;
    };
    if relay.seats.find(&seat.task, &seat.target).is_none() {
        return Fresh::Gone;
    }
    let mut held = seat.held.lock().await;
    let Err(error) = relay.renew(&seat, &mut held).await else {
        return Fresh::Renewed;
    };
    tracing::warn!(task = %seat.task, target_name = %seat.target, %error, "no new certificate");
    let left = Duration::from_secs(held.issued.valid_before.saturating_sub((relay.now)()));
    if left > AGAIN && !matches!(error, issuer::Error::Refused { .. }) {
        return Fresh::Later;
    }
    if let Some(session) = held.session.take() {
        drop(held);
        // Until its very end the certificate is good for what is under way.
        tokio::time::sleep(left).await;
        session.close("its certificate has ended");
    }
    Fresh::Ended
}
