//! The part of the story that keeps a task's sessions: a certificate that is always fresh, a connection that is there.
//!
//! A session is never used after its certificate's end. A background renewer asks the CA again at two thirds of each
//! certificate's life and presents the answer in-band; where it could not, the next call asks, and gets the CA's no. A call
//! whose certificate is good waits for no CA.
//! There is one connection at a time: whoever finds it being opened waits for it, and has its failure too.

use std::sync::{Arc, Weak};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use wire::ids::TargetName;
use wire::{Code, Proof, Requester};

use super::Relay;
use crate::error::{About, Refusal};
use crate::issuer::{self, Issued};
use crate::seats::{Dialled, Held, Line, Seat};
use crate::session::{Connection, Error, InUse, Login, Session};
use crate::store::Task;

/// A certificate with less life than this is renewed before it is used, in seconds.
const SHORTEST_S: u64 = 5;
/// How many seconds the renewer waits before it asks a CA again that did not answer.
const AGAIN_S: u64 = 5;
/// How many connections may end under a call before it has asked anything.
const CONNECTIONS: u32 = 3;

/// A certificate that is valid, and a connection that stands and is kept for whoever has this.
pub(super) struct Reached {
    pub(super) issued: Issued,
    connection: Arc<Connection>,
    _in_use: InUse,
}

/// Whether the target's hello was heard before a session is given out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hello {
    /// It was: the clock of what may have an effect was compared.
    Heard,
    /// It may be on its way: what only reads goes out to meet it, and saves its time.
    OnItsWay,
}

impl Relay {
    /// The task's seat on a target: the one that is taken, or, after a start, one with a new key.
    pub(super) async fn seat(
        self: &Arc<Self>,
        task: &Task,
        target: &TargetName,
        about: &About,
        until: Instant,
    ) -> Result<Arc<Seat>, Refusal> {
        if let Some(seat) = self.seats.find(&task.id, target) {
            return Ok(seat);
        }
        let turn = self.seats.turn(&task.owner, target);
        let Ok(_turn) = timeout_at(until, turn.lock()).await else {
            return Err(Refusal::new(Code::CaUnavailable, about));
        };
        if let Some(seat) = self.seats.find(&task.id, target) {
            return Ok(seat);
        }
        let requester = Requester {
            brain: task.owner.brain.clone(),
            person: task.owner.person.clone(),
            proof: Proof::Relay,
        };
        let opened = self.open_on(&requester, task, target).await;
        opened.map_err(|refusal| Refusal {
            about: Box::new(about.clone()),
            ..refusal
        })?;
        let ended = || Refusal::new(Code::TaskEnded, about);
        self.seats.find(&task.id, target).ok_or_else(ended)
    }

    /// A certificate that is valid now, and a connection that stands. No session is taken yet.
    pub(super) async fn reach(
        self: &Arc<Self>,
        seat: &Arc<Seat>,
        about: &About,
        until: Instant,
    ) -> Result<Reached, Refusal> {
        let reached = seat.unless_given_up(async {
            self.freshen(seat, about, until).await?;
            let connection = self.connection(seat, about, until).await?;
            Ok(Reached {
                issued: seat.issued(),
                _in_use: connection.in_use(),
                connection,
            })
        });
        let ended = || Err(Refusal::new(Code::TaskEnded, about));
        reached.await.unwrap_or_else(ended)
    }

    /// A session for one call, with a certificate that is valid now: of the connection that was reached, of the one that
    /// stands, or of a new one.
    pub(super) async fn session(
        self: &Arc<Self>,
        seat: &Arc<Seat>,
        reached: Option<Reached>,
        hello: Hello,
        about: &About,
        until: Instant,
    ) -> Result<(Session, Issued), Refusal> {
        let session = seat
            .unless_given_up(self.take_session(seat, reached, hello, about, until))
            .await;
        session.unwrap_or_else(|| Err(Refusal::new(Code::TaskEnded, about)))
    }

    async fn take_session(
        self: &Arc<Self>,
        seat: &Arc<Seat>,
        mut reached: Option<Reached>,
        hello: Hello,
        about: &About,
        until: Instant,
    ) -> Result<(Session, Issued), Refusal> {
        let mut ended = String::new();
        for _ in 0..CONNECTIONS {
            self.freshen(seat, about, until).await?;
            // In use until there is a session.
            let reached = reached.take();
            let connection = match &reached {
                Some(reached) => Arc::clone(&reached.connection),
                None => self.connection(seat, about, until).await?,
            };
            let session = async {
                let session = connection
                    .session(until.saturating_duration_since(Instant::now()))
                    .await?;
                if hello == Hello::Heard {
                    let late = |_| Error::Unreachable("no hello for as long as the request can wait".to_owned());
                    timeout_at(until, session.greeted()).await.map_err(late)??;
                }
                Ok(session)
            };
            match session.await {
                Ok(session) => {
                    // It may have been waited for, longer than the certificate lived.
                    self.freshen(seat, about, until).await?;
                    return Ok((session, seat.issued()));
                }
                // It ended, and nothing was asked on it.
                Err(Error::NotSent(why)) => ended = why,
                Err(error) => return Err(Refusal::session(&error, about)),
            }
        }
        Err(Refusal::because(Code::SessionLost, ended, about))
    }

    /// The seat's connection: the one that stands, or a new one.
    async fn connection(
        self: &Arc<Self>,
        seat: &Arc<Seat>,
        about: &About,
        until: Instant,
    ) -> Result<Arc<Connection>, Refusal> {
        let mut opening = match seat.line(|end| self.open(seat, end)) {
            Line::Stands(connection) => return Ok(connection),
            Line::Opens(opening) => opening,
        };
        let dialled = match timeout_at(until, opening.wait_for(Option::is_some)).await {
            Ok(Ok(dialled)) => dialled.clone(),
            Ok(Err(_)) => None,
            Err(_) => {
                let detail = "no connection was opened in time";
                return Err(Refusal::because(Code::Unreachable, detail, about));
            }
        };
        let failed = || {
            Err(Refusal::because(
                Code::SessionLost,
                "opening the connection failed",
                about,
            ))
        };
        dialled.unwrap_or_else(failed).map_err(|refusal| Refusal {
            about: Box::new(about.clone()),
            ..refusal
        })
    }

    /// Opens a connection for everybody who waits for it, on a task of its own: whoever asked for it may go away.
    fn open(self: &Arc<Self>, seat: &Arc<Seat>, end: watch::Sender<Option<Dialled>>) {
        let (relay, seat) = (Arc::clone(self), Arc::clone(seat));
        tokio::spawn(async move {
            let dialled = seat.unless_given_up(relay.dial(&seat)).await;
            let connection = dialled
                .as_ref()
                .and_then(|dialled| dialled.as_ref().ok())
                .map(Arc::clone);
            let ended = || Err(Refusal::new(Code::TaskEnded, &About::default()));
            end.send_replace(Some(dialled.unwrap_or_else(ended)));
            seat.opened();
            let Some(connection) = connection else { return };
            if let Some(ahead_s) = connection.ahead_s().await {
                relay.seats.saw_clock(&seat.target, ahead_s);
            }
        });
    }

    async fn dial(&self, seat: &Seat) -> Dialled {
        let about = &About::default();
        let host = self
            .host(&seat.target)
            .ok_or_else(|| Refusal::new(Code::UnknownTarget, about))?;
        let full = || Refusal::because(Code::Capacity, "as many connections are in use as there may be", about);
        let room = self.seats.room().await.ok_or_else(full)?;
        let issued = seat.issued();
        let login = Login {
            task: &seat.task,
            host: &host,
            key: &seat.key,
            certificate: &issued.certificate,
            receipt_key: &issued.receipt_key,
            now: self.now,
            ahead_s: self.seats.ahead_s(&seat.target),
        };
        let opened = Connection::open(&login, self.seats.bounds(), room).await;
        let connection = Arc::new(opened.map_err(|error| Refusal::session(&error, about))?);
        if seat.connected(&connection, &issued.certificate) {
            Ok(connection)
        } else {
            Err(Refusal::new(Code::TaskEnded, about))
        }
    }

    /// Renews a certificate that has too little life left for a call.
    async fn freshen(&self, seat: &Seat, about: &About, until: Instant) -> Result<(), Refusal> {
        let is_good = || seat.issued().valid_before >= (self.now)().saturating_add(SHORTEST_S);
        if is_good() {
            return Ok(());
        }
        let Ok(_turn) = timeout_at(until, seat.renewing.lock()).await else {
            return Err(Refusal::new(Code::CaUnavailable, about));
        };
        if is_good() {
            return Ok(());
        }
        self.renew(seat).await.map_err(|error| Refusal::issuer(error, about))
    }

    /// Asks the CA for the next certificate of the same key. Called in a turn of the seat's.
    async fn renew(&self, seat: &Seat) -> Result<(), issuer::Error> {
        let issued = self
            .issuer
            .renew_task(&seat.task, &seat.target, seat.key.public())
            .await?;
        seat.renewed(issued, (self.now)());
        Ok(())
    }

    /// Ends the connections of seats that were given up, and says how many stood.
    pub(super) fn give_up(seats: &[Arc<Seat>], why: &'static str) -> usize {
        seats.iter().filter(|seat| seat.close(why)).count()
    }

    /// Renews a seat's certificate until the seat is given up.
    pub(super) fn keep_fresh(self: &Arc<Self>, seat: &Arc<Seat>) {
        // Weak: the renewer keeps no key alive.
        let (relay, held, seat) = (Arc::downgrade(self), seat.watch(), Arc::downgrade(seat));
        tokio::spawn(keep(relay, seat, held));
    }
}

async fn keep(relay: Weak<Relay>, seat: Weak<Seat>, mut held: watch::Receiver<Held>) {
    loop {
        let Some(now) = relay.upgrade().map(|relay| (relay.now)()) else {
            return;
        };
        let (number, due) = {
            let held = held.borrow_and_update();
            let life = held.issued.valid_before.saturating_sub(held.since);
            (held.number, held.since + life * 2 / 3)
        };
        match change(&mut held, number, Some(due.saturating_sub(now))).await {
            Change::Gone => return,
            Change::Newer => continue,
            Change::None => {}
        }
        let changed = match refresh(&relay, &seat).await {
            Fresh::Renewed => continue,
            Fresh::Later => change(&mut held, number, Some(AGAIN_S)).await,
            // Nothing to keep fresh until a call has asked the CA with success.
            Fresh::Ended(left) => match change(&mut held, number, Some(left)).await {
                Change::None => {
                    end_of_certificate(&relay, &seat);
                    change(&mut held, number, None).await
                }
                changed => changed,
            },
            Fresh::Gone => return,
        };
        if matches!(changed, Change::Gone) {
            return;
        }
    }
}

/// What has become of a seat.
enum Change {
    /// There is another certificate than the one of that number.
    Newer,
    /// It was given up.
    Gone,
    /// Nothing, in that time.
    None,
}

/// Waits for a change, for so many seconds where they are given.
async fn change(held: &mut watch::Receiver<Held>, number: u64, seconds: Option<u64>) -> Change {
    let waited = async {
        match held.wait_for(|held| held.given_up || held.number != number).await {
            Ok(held) if !held.given_up => Change::Newer,
            _ => Change::Gone,
        }
    };
    match seconds {
        None => waited.await,
        Some(seconds) => timeout(Duration::from_secs(seconds), waited)
            .await
            .unwrap_or(Change::None),
    }
}

/// What became of one renewal.
enum Fresh {
    /// The certificate is new.
    Renewed,
    /// The CA did not answer, and the certificate still has some life.
    Later,
    /// There will be no other certificate, or not in time. This one is good for so many seconds.
    Ended(u64),
    /// The seat was given up.
    Gone,
}

async fn refresh(relay: &Weak<Relay>, seat: &Weak<Seat>) -> Fresh {
    let (Some(relay), Some(seat)) = (relay.upgrade(), seat.upgrade()) else {
        return Fresh::Gone;
    };
    let renewed = seat.unless_given_up(async {
        let _turn = seat.renewing.lock().await;
        relay.renew(&seat).await
    });
    let error = match renewed.await {
        None => return Fresh::Gone,
        Some(Ok(())) => return Fresh::Renewed,
        Some(Err(error)) => error,
    };
    let left = seat.issued().valid_before.saturating_sub((relay.now)());
    tracing::warn!(task = %seat.task, target_name = %seat.target, %error, "no new certificate");
    if left > AGAIN_S && !matches!(error, issuer::Error::Refused { .. }) {
        return Fresh::Later;
    }
    Fresh::Ended(left)
}

/// Ends the connection whose certificate has ended: until then it was good for what was under way.
fn end_of_certificate(relay: &Weak<Relay>, seat: &Weak<Seat>) {
    if let (Some(relay), Some(seat)) = (relay.upgrade(), seat.upgrade())
        && seat.issued().valid_before <= (relay.now)()
    {
        seat.close("its certificate has ended");
    }
}
