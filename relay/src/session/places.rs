//! Which channel of a connection a call gets.
//!
//! A connection has one place for each channel that it may have. Whoever wants to ask takes a place, and with it a channel
//! that nobody uses or a new one; who finds no place waits in line. A place comes back when its answer has come.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use super::channel::{Certificate, Channel};
use super::dial::LoggedIn;
use super::quick::Hold;
use super::{Bounds, Error, Far};
use crate::lock::lock;

/// Calls that may wait for a place of one connection.
const QUEUE: usize = 64;

/// A connection with the task logged in, and its channels.
pub(super) struct Places {
    connection: LoggedIn,
    far: Far,
    bounds: Bounds,
    /// The first channel: whoever opens the connection wants to know what its hello tells.
    first: Arc<Channel>,
    /// One for each channel that there may be.
    free: Arc<Semaphore>,
    queued: AtomicUsize,
    state: Mutex<State>,
    /// Told when the keeper has to look again.
    changed: Notify,
}

struct State {
    certificate: Certificate,
    /// All that are open, at most as many as there are places.
    channels: Vec<Arc<Channel>>,
    /// Those that nobody uses, and since when. The last one is taken first, so that the first ones become old.
    idle: Vec<(Arc<Channel>, Instant)>,
    /// By how many it is used.
    uses: usize,
    /// When a use began or ended.
    used: Instant,
    /// No place is given any more, and the connection ends when the last has come back.
    retired: bool,
    /// Why the connection is over, once it is.
    over: Option<String>,
}

/// A connection in use, until it is dropped: it is not idle, and where it was retired it does not end.
pub struct InUse(Arc<Places>);

impl InUse {
    fn begin(places: &Arc<Places>) -> Self {
        let mut state = places.state();
        state.uses += 1;
        state.used = Instant::now();
        Self(Arc::clone(places))
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut state = self.0.state();
        state.uses = state.uses.saturating_sub(1);
        state.used = Instant::now();
        let ends = state.retired && state.uses == 0;
        drop(state);
        if ends {
            self.0.changed.notify_one();
        }
    }
}

/// A channel for one user, until it is dropped.
pub(super) struct Place {
    pub(super) channel: Arc<Channel>,
    places: InUse,
    /// Let go last: whoever gets it finds the channel.
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        let places = &self.places.0;
        if self.channel.is_alive() {
            places.state().idle.push((Arc::clone(&self.channel), Instant::now()));
            return;
        }
        // Where it is no good, the next one asks on another connection.
        places.forget(&mut places.state());
    }
}

/// Why a channel's connection is not asked on any more, if it is not.
fn broken(channel: &Arc<Channel>) -> Option<Error> {
    channel
        .refused()
        .map(Error::LineRefused)
        .or_else(|| channel.unbelieved())
}

/// What the keeper of a connection has to do next.
enum Next {
    Look(Instant),
    End(String),
}

impl Places {
    /// Opens the first channel.
    pub(super) async fn open(
        connection: LoggedIn,
        far: Far,
        certificate: &str,
        bounds: Bounds,
    ) -> Result<Arc<Self>, Error> {
        let certificate = Certificate {
            number: 1,
            text: certificate.into(),
        };
        let channel = Channel::open(&connection, &far, &certificate).await?;
        let now = Instant::now();
        Ok(Arc::new(Self {
            connection,
            far,
            bounds,
            first: Arc::clone(&channel),
            free: Arc::new(Semaphore::new(bounds.channels)),
            queued: AtomicUsize::new(0),
            state: Mutex::new(State {
                certificate,
                channels: vec![Arc::clone(&channel)],
                idle: vec![(channel, now)],
                uses: 0,
                used: now,
                retired: false,
                over: None,
            }),
            changed: Notify::new(),
        }))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change of it is one call: a panic cannot leave half of one.
        lock(&self.state)
    }

    pub(super) fn certificate(&self) -> Certificate {
        self.state().certificate.clone()
    }

    /// Why nothing more is asked here, where the target refused the connection's certificate or its hello was none.
    fn broken(&self) -> Option<Error> {
        self.state().channels.iter().find_map(broken)
    }

    /// Whether places are given, as far as is known.
    pub(super) fn is_alive(&self) -> bool {
        let over = {
            let state = self.state();
            state.retired || state.over.is_some()
        };
        !over && !self.connection.handle.is_closed() && self.broken().is_none()
    }

    /// How many seconds the target's clock was ahead of ours, by its first hello; `None` where that cannot be believed.
    pub(super) async fn ahead_s(&self) -> Option<i64> {
        Some(self.first.greeted().await.ok()?.ahead_s)
    }

    /// Since when nobody uses any channel; `None` while somebody does.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let state = self.state();
        (state.uses == 0).then_some(state.used)
    }

    /// Keeps it from being idle.
    pub(super) fn in_use(self: &Arc<Self>) -> InUse {
        InUse::begin(self)
    }

    /// A place, in the order of asking.
    ///
    /// Where sshd gives no further channel the connection has one place less from then on, and whoever met that waits
    /// for one of the others.
    pub(super) async fn take(self: &Arc<Self>, patience: Duration) -> Result<Place, Error> {
        let until = Instant::now() + patience;
        // Also on the way to a place: a connection that is closed for nobody's using it is closed under nobody.
        let _in_use = self.in_use();
        loop {
            let permit = self.permit(until).await?;
            if let Some(channel) = self.idle_channel()? {
                return Ok(self.place(channel, permit));
            }
            // By itself, so that a channel is never left half open by a caller who goes away.
            let places = Arc::clone(self);
            let opened = tokio::spawn(async move { places.grow(permit).await }).await;
            match opened {
                Ok(Ok(Some(place))) => return Ok(place),
                Ok(Ok(None)) => {}
                Ok(Err(error)) => return Err(error),
                Err(_) => return Err(Error::NotSent("the opening of a channel failed".to_owned())),
            }
        }
    }

    async fn permit(&self, until: Instant) -> Result<OwnedSemaphorePermit, Error> {
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Ok(permit);
        }
        let Some(_waits) = Waits::begin(&self.queued) else {
            return Err(Error::Busy);
        };
        match tokio::time::timeout_at(until, Arc::clone(&self.free).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(Error::NotSent(self.why())),
            Err(_) => Err(Error::Busy),
        }
    }

    fn why(&self) -> String {
        self.state().over.clone().unwrap_or("the connection is over".to_owned())
    }

    fn idle_channel(&self) -> Result<Option<Arc<Channel>>, Error> {
        let mut state = self.state();
        if let Some(why) = &state.over {
            return Err(Error::NotSent(why.clone()));
        }
        let is_broken = |channel: &Arc<Channel>| Some((Arc::clone(channel), broken(channel)?));
        if let Some((channel, error)) = state.channels.iter().find_map(is_broken) {
            // From now on, whatever becomes of that channel: only what is under way goes on here.
            self.retire_in(&mut state);
            drop(state);
            return Err(self.unasked(&channel, error));
        }
        while let Some((channel, _)) = state.idle.pop() {
            if channel.is_alive() {
                return Ok(Some(channel));
            }
        }
        self.forget(&mut state);
        Ok(None)
    }

    /// Forgets the channels that are over. Where one of them says that nothing more is to be asked here, that is not forgotten.
    fn forget(&self, state: &mut State) {
        let mut is_no_good = false;
        state.channels.retain(|channel| {
            let is_alive = channel.is_alive();
            is_no_good |= !is_alive && broken(channel).is_some();
            is_alive
        });
        if is_no_good {
            self.retire_in(state);
        }
    }

    fn place(self: &Arc<Self>, channel: Arc<Channel>, permit: OwnedSemaphorePermit) -> Place {
        Place {
            channel,
            places: self.in_use(),
            _permit: permit,
        }
    }

    /// One channel more; `None` where sshd gives no more than there are.
    async fn grow(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Result<Option<Place>, Error> {
        let certificate = self.certificate();
        match Channel::open(&self.connection, &self.far, &certificate).await {
            Ok(channel) => {
                let mut state = self.state();
                if let Some(why) = &state.over {
                    channel.end(why);
                    return Err(Error::NotSent(why.clone()));
                }
                state.channels.push(Arc::clone(&channel));
                drop(state);
                // From now on there is something to close before the connection.
                self.changed.notify_one();
                Ok(Some(self.place(channel, permit)))
            }
            Err(Error::ChannelRefused) if self.state().channels.iter().any(|channel| channel.is_alive()) => {
                permit.forget();
                tracing::info!(target_name = %self.far.name, "sshd gives no further channel on this connection");
                Ok(None)
            }
            // The last one is over here, and not yet there.
            Err(Error::ChannelRefused) => {
                self.retire();
                Err(Error::NotSent("sshd opens no channel".to_owned()))
            }
            // What broke is the connection: the caller asks on another.
            Err(Error::Unreachable(why)) if self.has_broken(&why) => Err(Error::NotSent(why)),
            // It leads nowhere, as far as is known; those who wait on it go on waiting.
            Err(Error::Unreachable(why)) => {
                self.retire();
                Err(Error::NotSent(why))
            }
            Err(error) => Err(error),
        }
    }

    /// From now on this certificate is presented: on every open channel at once, and in any case before its next request.
    pub(super) fn present(&self, text: &str) {
        let (certificate, channels) = {
            let mut state = self.state();
            state.certificate = Certificate {
                number: state.certificate.number + 1,
                text: text.into(),
            };
            (state.certificate.clone(), state.channels.clone())
        };
        for channel in channels {
            let (certificate, name) = (certificate.clone(), self.far.name.clone());
            // Not waited for: a target that does not read holds back its own channel only.
            tokio::spawn(async move {
                if let Err(error) = channel.present(&certificate).await {
                    tracing::info!(target_name = %name, %error, "a renewed certificate was not presented");
                }
            });
        }
    }

    /// Ends the connection at once. Whoever waits for an answer learns `why`.
    pub(super) fn end(&self, why: &str) {
        let channels = {
            let mut state = self.state();
            if state.over.is_none() {
                state.over = Some(why.to_owned());
            }
            state.idle.clear();
            std::mem::take(&mut state.channels)
        };
        self.free.close();
        for channel in channels {
            channel.end(why);
        }
        self.changed.notify_one();
    }

    /// Whether the connection broke, as far as SSH knows: then it ends, and whoever waits learns `why`.
    pub(super) fn has_broken(&self, why: &str) -> bool {
        let broken = self.connection.handle.is_closed();
        if broken {
            self.end(why);
        }
        broken
    }

    /// What is in the way of somebody who has asked nothing yet. A channel that went before its hello speaks for the target
    /// only where it is the first of a connection that stands; else there is another connection to ask on.
    pub(super) fn unasked(&self, channel: &Arc<Channel>, error: Error) -> Error {
        match error {
            Error::Unreachable(why) if self.has_broken(&why) || !Arc::ptr_eq(channel, &self.first) => {
                Error::NotSent(why)
            }
            error => error,
        }
    }

    /// Gives no more places. The connection ends when nobody uses it any more.
    pub(super) fn retire(&self) {
        self.retire_in(&mut self.state());
    }

    fn retire_in(&self, state: &mut State) {
        state.retired = true;
        self.free.close();
        self.changed.notify_one();
    }

    /// Keeps the connection until it is over: closes what nobody uses, says goodbye, and lets the room go.
    pub(super) async fn keep(self: Arc<Self>, mut hold: Hold, room: OwnedSemaphorePermit) {
        let why = loop {
            let until = match self.look() {
                Next::End(why) => break why,
                Next::Look(until) => until,
            };
            tokio::select! {
                () = self.changed.notified() => {}
                () = hold.gone() => break "the connection broke".to_owned(),
                () = tokio::time::sleep_until(until) => {}
            }
        };
        tracing::debug!(target_name = %self.far.name, %why, "connection over");
        self.end(&why);
        self.connection.leave().await;
        drop((hold, room));
    }

    /// Closes channels that were not used for a while, but never the last, and says when to look again.
    fn look(&self) -> Next {
        let now = Instant::now();
        let mut state = self.state();
        if let Some(why) = &state.over {
            return Next::End(why.clone());
        }
        if state.uses == 0 {
            let why = if state.retired {
                Some("another connection has taken its place")
            } else {
                (now >= state.used + self.bounds.connection_idle).then_some("nobody has used it for a while")
            };
            if let Some(why) = why {
                // Before anybody else looks.
                state.over = Some(why.to_owned());
                return Next::End(why.to_owned());
            }
        }
        // While it is used nothing says until when.
        let idle_since = if state.uses == 0 { state.used } else { now };
        let mut next = idle_since + self.bounds.connection_idle;
        self.forget(&mut state);
        state.idle.retain(|(channel, _)| channel.is_alive());
        let mut open = state.channels.len();
        let mut closed = Vec::new();
        state.idle.retain(|(channel, since)| {
            let due = *since + self.bounds.channel_idle;
            if open > 1 && now >= due {
                open -= 1;
                closed.push(Arc::clone(channel));
                return false;
            }
            if open > 1 {
                next = next.min(due);
            }
            true
        });
        if open > 1 {
            // The ones in use now may be idle, and due, by then.
            next = next.min(now + self.bounds.channel_idle);
        }
        drop(state);
        for channel in closed {
            channel.end("nobody has used it for a while");
        }
        Next::Look(next)
    }
}

/// Somebody in the line.
struct Waits<'a>(&'a AtomicUsize);

impl<'a> Waits<'a> {
    fn begin(queued: &'a AtomicUsize) -> Option<Self> {
        let waits = Self(queued);
        (queued.fetch_add(1, Ordering::Relaxed) < QUEUE).then_some(waits)
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
