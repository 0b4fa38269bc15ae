//! The part of the story that keeps a task's sessions: a certificate that is always fresh, a connection that is there.
//!
//! A session is never used after its certificate's end. A background renewer asks the CA again at two thirds of each
//! certificate's life and presents the answer in-band; where it could not, the next call asks, and gets the CA's no.
//! There is one connection at a time: whoever finds it being opened waits for it.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use wire::Code;

use super::Relay;
use crate::error::{About, Refusal};
use crate::issuer::{self, Issued};
use crate::seats::{Held, Seat};
use crate::session::{Connection, Error, Login, Session};

/// A certificate with less life than this is renewed before it is used, in seconds.
const SHORTEST_S: u64 = 5;
/// How long the renewer waits before it asks a CA again that did not answer.
const AGAIN: Duration = Duration::from_secs(5);
/// Longest wait for a session when all of the connection are in use.
const PATIENCE: Duration = Duration::from_secs(30);
/// How many connections may end under a call before it has asked anything.
const CONNECTIONS: u32 = 3;

impl Relay {
    /// A session for one call, with a certificate that is valid now: of the connection that stands, or of a new one.
    pub(super) async fn session(&self, seat: &Seat, about: &About) -> Result<(Session, Issued), Refusal> {
        let session = seat.unless_given_up(self.take_session(seat, about)).await;
        session.unwrap_or_else(|| Err(Refusal::new(Code::TaskEnded, about)))
    }

    async fn take_session(&self, seat: &Seat, about: &About) -> Result<(Session, Issued), Refusal> {
        let until = Instant::now() + PATIENCE;
        let mut ended = String::new();
        for _ in 0..CONNECTIONS {
            let connection = self.connection(seat, about).await?;
            match connection.session(until - Instant::now()).await {
                Ok(session) => {
                    // It may have been waited for, longer than the certificate lived.
                    let mut held = seat.held.lock().await;
                    self.freshen(seat, &mut held, about).await?;
                    return Ok((session, held.issued.clone()));
                }
                // It ended, and nothing was asked on it.
                Err(Error::NotSent(why)) => ended = why,
                Err(error) => return Err(Refusal::session(&error, about)),
            }
        }
        Err(Refusal::because(Code::SessionLost, ended, about))
    }

    /// The seat's connection: the one that stands, or a new one.
    async fn connection(&self, seat: &Seat, about: &About) -> Result<Arc<Connection>, Refusal> {
        let mut held = seat.held.lock().await;
        self.freshen(seat, &mut held, about).await?;
        if let Some(connection) = &held.connection {
            if connection.is_alive() {
                return Ok(Arc::clone(connection));
            }
            connection.retire();
        }
        held.connection = None;
        let host = self
            .host(&seat.target)
            .ok_or_else(|| Refusal::new(Code::UnknownTarget, about))?;
        let full = || Refusal::because(Code::Capacity, "as many connections are in use as there may be", about);
        let room = self.seats.room().await.ok_or_else(full)?;
        let login = Login {
            task: &seat.task,
            host: &host,
            key: &seat.key,
            certificate: &held.issued.certificate,
            receipt_key: &held.issued.receipt_key,
            now: self.now,
            ahead_s: self.seats.ahead_s(&seat.target),
        };
        let opened = Connection::open(&login, self.seats.bounds(), room).await;
        let connection = Arc::new(opened.map_err(|error| Refusal::session(&error, about))?);
        self.seats.saw_clock(&seat.target, connection.ahead_s());
        held.connection = Some(Arc::clone(&connection));
        Ok(connection)
    }

    /// Renews a certificate that has too little life left for a call.
    async fn freshen(&self, seat: &Seat, held: &mut Held, about: &About) -> Result<(), Refusal> {
        if held.issued.valid_before < (self.now)().saturating_add(SHORTEST_S) {
            let renewed = self.renew(seat, held).await;
            renewed.map_err(|error| Refusal::issuer(error, about))?;
            seat.changed.notify_one();
        }
        Ok(())
    }

    /// Asks the CA for the next certificate of the same key, and presents it where a connection stands.
    async fn renew(&self, seat: &Seat, held: &mut Held) -> Result<(), issuer::Error> {
        held.issued = self
            .issuer
            .renew_task(&seat.task, &seat.target, seat.key.public())
            .await?;
        held.since = (self.now)();
        if let Some(connection) = &held.connection {
            connection.present(&held.issued.certificate);
        }
        Ok(())
    }

    /// Ends the connections of seats that were given up, all at once, and says how many stood.
    pub(super) async fn give_up(&self, seats: Vec<Arc<Seat>>, why: &'static str) -> usize {
        let closing: JoinSet<bool> = seats
            .into_iter()
            .map(|seat| async move { seat.close(why).await })
            .collect();
        let closed = closing.join_all().await;
        closed.into_iter().filter(|stood| *stood).count()
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
                    Fresh::Ended(left) => {
                        if tokio::time::timeout(left, changed.notified()).await.is_err() {
                            end(&relay, &seat).await;
                            changed.notified().await;
                        }
                    }
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
    /// There will be no other certificate, or not in time. This one is good for so long.
    Ended(Duration),
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
    let renewed = seat.unless_given_up(async {
        let mut held = seat.held.lock().await;
        let renewed = relay.renew(&seat, &mut held).await;
        (renewed, held.issued.valid_before.saturating_sub((relay.now)()))
    });
    let (error, left) = match renewed.await {
        None => return Fresh::Gone,
        Some((Ok(()), _)) => return Fresh::Renewed,
        Some((Err(error), left)) => (error, Duration::from_secs(left)),
    };
    tracing::warn!(task = %seat.task, target_name = %seat.target, %error, "no new certificate");
    if left > AGAIN && !matches!(error, issuer::Error::Refused { .. }) {
        return Fresh::Later;
    }
    Fresh::Ended(left)
}

/// Ends the connection whose certificate has ended: until then it was good for what was under way.
async fn end(relay: &Weak<Relay>, seat: &Weak<Seat>) {
    if let (Some(relay), Some(seat)) = (relay.upgrade(), seat.upgrade()) {
        let mut held = seat.held.lock().await;
        if held.issued.valid_before <= (relay.now)()
            && let Some(connection) = held.connection.take()
        {
            connection.close("its certificate has ended");
        }
    }
}
