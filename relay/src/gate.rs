//! The gate that every call of a person goes through: how fast, how many at once, how many waiting, how many bytes of
//! answers unread, and no more at all once the relay is told to stop.
//!
//! A place is held until the work of its call is over, whoever still waits for the answer: a client that takes its calls
//! back, or goes away, frees nothing by it. No person can hold them all, and calls that touch no target have some of their
//! own, the desk. What the gate refuses is counted, because a
//! record for each would let a flood fill the disk: one record a minute for each person and Code.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use wire::Code;
use wire::ids::{PersonName, TargetName};

use crate::limits::{Limits, Rate};
use crate::lock::lock;

pub use answers::{Account, Answers, Bytes};
pub use repeats::Repeats;
pub use strangers::Strangers;

mod answers;
mod repeats;
mod strangers;

/// Calls that may be under way at once, of all persons together.
const CALLS: usize = 256;
/// Calls of one person that may be at the desk at once, and as many that may wait.
const AT_THE_DESK: usize = 32;
/// Longest wait for a place.
const WAIT: Duration = Duration::from_secs(30);
/// What one call costs of a bucket: a minute in milliseconds, so that a rate for each minute fills it in whole numbers.
const CALL: u64 = 60_000;

/// A clock that never goes back, from an origin of its own.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Why a call is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// The person's calls come too fast.
    Person {
        /// How many a minute are taken.
        per_minute: u32,
        /// After how many seconds the next one is.
        wait_s: u64,
    },
    /// Actions on the target come too fast.
    Target {
        /// How many a minute are taken, of all persons.
        per_minute: u32,
        /// After how many seconds the next one is.
        wait_s: u64,
    },
    /// As many calls of the person wait as may.
    Full,
    /// No place became free in time.
    Late,
    /// The relay is being stopped.
    Stopping,
}

impl Denied {
    /// Its Code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Person { .. } | Self::Target { .. } => Code::RateLimited,
            Self::Full | Self::Late => Code::Capacity,
            Self::Stopping => Code::Stopping,
        }
    }

    /// What is behind the Code, for people.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::Person { per_minute, wait_s } => {
                format!("one person has {per_minute} calls a minute; the next is taken in {wait_s} s")
            }
            Self::Target { per_minute, wait_s } => {
                format!("the target takes {per_minute} actions a minute; the next is taken in {wait_s} s")
            }
            Self::Full => "as many calls of this person are under way and waiting as may be".to_owned(),
            Self::Late => format!("no other call ended within {} s", WAIT.as_secs()),
            Self::Stopping => "what is under way is finished; call again when it is back".to_owned(),
        }
    }
}

/// The gate.
pub struct Gate {
    limits: Limits,
    clock: Clock,
    buckets: Mutex<Buckets>,
    all: Arc<Semaphore>,
    stage: watch::Sender<Stage>,
    under_way: Arc<watch::Sender<usize>>,
    /// What was refused here and is not yet recorded.
    pub repeats: Repeats,
    /// Who proved nothing, and is not yet recorded.
    pub strangers: Strangers,
    /// What clients have not read yet.
    pub answers: Arc<Answers>,
}

/// How far a relay has come with its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Stage {
    /// Calls are let in.
    Open,
    /// No call is let in any more.
    Closed,
    /// No call is under way: clients get what they were answered, and have to go.
    Over,
}

/// Who has how much left. Bounded: persons are those of the configuration, targets those of the inventory.
#[derive(Default)]
struct Buckets {
    persons: HashMap<PersonName, Person>,
    targets: HashMap<TargetName, Bucket>,
}

struct Person {
    bucket: Bucket,
    calls: Queue,
    desk: Queue,
}

/// One line of calls.
#[derive(Clone)]
struct Queue {
    /// One for each call that is under way or waits.
    room: Arc<Semaphore>,
    /// One for each that is under way.
    places: Arc<Semaphore>,
}

/// Fills with time, and each call takes [`CALL`] out.
struct Bucket {
    level: u64,
    since: Duration,
}

/// Held by a call until its work is over.
#[must_use = "a call without a place is not counted"]
pub struct Place {
    _room: OwnedSemaphorePermit,
    _own: OwnedSemaphorePermit,
    /// None at the desk.
    _all: Option<OwnedSemaphorePermit>,
    _working: Working,
}

/// Held by whatever has to be done before the relay ends.
#[must_use = "what is not held is not waited for"]
pub struct Working {
    under_way: Arc<watch::Sender<usize>>,
}

impl Drop for Working {
    fn drop(&mut self) {
        self.under_way.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// The machine's own clock, from now on.
#[must_use]
pub fn clock() -> Clock {
    let origin = std::time::Instant::now();
    Arc::new(move || origin.elapsed())
}

impl Default for Gate {
    fn default() -> Self {
        Self::new(Limits::default(), clock())
    }
}

impl Gate {
    /// An open gate.
    #[must_use]
    pub fn new(limits: Limits, clock: Clock) -> Self {
        Self {
            limits,
            clock,
            buckets: Mutex::default(),
            all: Arc::new(Semaphore::new(CALLS)),
            stage: watch::Sender::new(Stage::Open),
            under_way: Arc::new(watch::Sender::new(0)),
            repeats: Repeats::default(),
            strangers: Strangers::default(),
            answers: Arc::default(),
        }
    }

    /// The time by the gate's own clock.
    #[must_use]
    pub fn now(&self) -> Duration {
        (self.clock)()
    }

    /// A place for a call of a person, on a target of the inventory where it acts on one. Waits while the person's other
    /// calls, or all calls together, are as many as may be; who came first is first.
    ///
    /// # Errors
    /// Any [`Denied`].
    pub async fn enter(&self, person: &PersonName, target: Option<&TargetName>) -> Result<Place, Denied> {
        self.admit(|| self.pay(person, target, |person| &person.calls), Some(&self.all))
            .await
    }

    /// A place at the desk: for a call that touches no target, and so has places of its own. Whoever has as many calls under
    /// way as may be can still ask what became of them, and end their tasks.
    ///
    /// # Errors
    /// Any [`Denied`].
    pub async fn enter_desk(&self, person: &PersonName) -> Result<Place, Denied> {
        self.admit(|| self.pay(person, None, |person| &person.desk), None).await
    }

    async fn admit(
        &self,
        pay: impl FnOnce() -> Result<Queue, Denied>,
        all: Option<&Arc<Semaphore>>,
    ) -> Result<Place, Denied> {
        let mut stage = self.stage.subscribe();
        if *stage.borrow() > Stage::Open {
            return Err(Denied::Stopping);
        }
        let Queue { room, places } = pay()?;
        let room = room.try_acquire_owned().map_err(|_| Denied::Full)?;
        let both = async {
            let own = places.acquire_owned().await.ok()?;
            Some(match all {
                Some(all) => (own, Some(Arc::clone(all).acquire_owned().await.ok()?)),
                None => (own, None),
            })
        };
        let held = tokio::select! {
            biased;
            _ = stage.wait_for(|stage| *stage > Stage::Open) => return Err(Denied::Stopping),
            held = tokio::time::timeout(WAIT, both) => held,
        };
        let (own, all) = held.ok().flatten().ok_or(Denied::Late)?;
        Ok(Place {
            _room: room,
            _own: own,
            _all: all,
            _working: self.work().ok_or(Denied::Stopping)?,
        })
    }

    /// Counts something that has to be done before the relay ends; `None` once it is being stopped.
    pub fn work(&self) -> Option<Working> {
        self.under_way.send_modify(|count| *count = count.saturating_add(1));
        let working = Working {
            under_way: Arc::clone(&self.under_way),
        };
        // Whoever stops closes first and counts then: one of the two sees the other.
        (*self.stage.borrow() == Stage::Open).then_some(working)
    }

    /// Lets nobody in any more, those who wait included.
    pub fn close(&self) {
        self.stage.send_replace(Stage::Closed);
    }

    /// Tells every connection to end, once its client has what it was answered.
    pub fn dismiss(&self) {
        self.stage.send_replace(Stage::Over);
    }

    /// Returns once the relay is being stopped.
    pub async fn is_closed(&self) {
        // The sender is ours: it cannot be gone.
        let _ = self.stage.subscribe().wait_for(|stage| *stage > Stage::Open).await;
    }

    /// Returns once connections have to end.
    pub async fn is_over(&self) {
        // The sender is ours: it cannot be gone.
        let _ = self.stage.subscribe().wait_for(|stage| *stage == Stage::Over).await;
    }

    /// Waits until no call is under way.
    pub async fn empty(&self) {
        // The sender is ours: it cannot be gone.
        let _ = self.under_way.subscribe().wait_for(|count| *count == 0).await;
    }

    /// How many calls are under way.
    #[must_use]
    pub fn under_way(&self) -> usize {
        *self.under_way.borrow()
    }

    /// Takes one call out of both buckets, or out of neither. Gives the line that is its own.
    fn pay(
        &self,
        person: &PersonName,
        target: Option<&TargetName>,
        line: impl FnOnce(&Person) -> &Queue,
    ) -> Result<Queue, Denied> {
        let now = self.now();
        let limits = &self.limits;
        let mut buckets = lock(&self.buckets);
        let Buckets { persons, targets } = &mut *buckets;
        let own = persons
            .entry(person.clone())
            .or_insert_with(|| Person::new(limits, now));
        let rate = limits.person;
        own.bucket.fill(rate, now);
        own.bucket.missing_s(rate).map_err(|wait_s| Denied::Person {
            per_minute: rate.per_minute.get(),
            wait_s,
        })?;
        if let Some(target) = target {
            let rate = limits.target;
            let bucket = targets.entry(target.clone()).or_insert_with(|| Bucket::full(rate, now));
            bucket.fill(rate, now);
            bucket.missing_s(rate).map_err(|wait_s| Denied::Target {
                per_minute: rate.per_minute.get(),
                wait_s,
            })?;
            bucket.level = bucket.level.saturating_sub(CALL);
        }
        own.bucket.level = own.bucket.level.saturating_sub(CALL);
        Ok(line(own).clone())
    }
}

impl Person {
    fn new(limits: &Limits, now: Duration) -> Self {
        let number = |number: u32| usize::try_from(number).unwrap_or(CALLS);
        Self {
            bucket: Bucket::full(limits.person, now),
            calls: Queue::new(number(limits.person_calls.get()), number(limits.person_waiting)),
            desk: Queue::new(AT_THE_DESK, AT_THE_DESK),
        }
    }
}

impl Queue {
    fn new(places: usize, waiting: usize) -> Self {
        Self {
            room: Arc::new(Semaphore::new(places.saturating_add(waiting))),
            places: Arc::new(Semaphore::new(places)),
        }
    }
}

impl Bucket {
    fn full(rate: Rate, now: Duration) -> Self {
        Self {
            level: u64::from(rate.burst.get()).saturating_mul(CALL),
            since: now,
        }
    }

    fn fill(&mut self, rate: Rate, now: Duration) {
        let passed = u64::try_from(now.saturating_sub(self.since).as_millis()).unwrap_or(u64::MAX);
        let more = passed.saturating_mul(rate.per_minute.get().into());
        let full = u64::from(rate.burst.get()).saturating_mul(CALL);
        self.level = self.level.saturating_add(more).min(full);
        // Only what was counted: parts of a millisecond stay for the next time.
        self.since = self.since.saturating_add(Duration::from_millis(passed));
    }

    /// In how many seconds the next call is paid for, where it is not.
    fn missing_s(&self, rate: Rate) -> Result<(), u64> {
        let missing = CALL.saturating_sub(self.level);
        if missing == 0 {
            return Ok(());
        }
        Err(missing.div_ceil(u64::from(rate.per_minute.get()).saturating_mul(1000)))
    }
}

#[cfg(test)]
mod tests;
