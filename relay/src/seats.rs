//! One seat for each (task, target): its key, its certificate, its session. Never shared by two tasks.
//!
//! Keys are made here, live in memory only, and are cleared when the seat goes (ssh-key clears them on drop).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use openssh::key::{KeyError, SigningKey};
use rand::TryRng as _;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, OwnedSemaphorePermit, RwLock, Semaphore, watch};
use wire::ids::{TargetName, TaskId};
use zeroize::Zeroizing;

use crate::error::Refusal;
use crate::issuer::Issued;
use crate::lock::lock;
use crate::session::{Bounds, Connection};
use crate::store::Owner;

/// Connections of all tasks together, where nobody configured another number.
pub const CONNECTIONS: usize = 512;
/// Longest wait for the room of a connection that is being closed.
const ROOM: Duration = Duration::from_secs(3);

/// What a connection may have, where nobody configured otherwise.
pub const BOUNDS: Bounds = Bounds {
    channels: 8,
    channel_idle: Duration::from_secs(30),
    connection_idle: Duration::from_secs(300),
};

/// A task's place on one target.
pub struct Seat {
    /// The task.
    pub task: TaskId,
    /// The target.
    pub target: TargetName,
    /// The task's key here.
    pub key: SigningKey,
    /// Held by whoever asks the CA for the next certificate: whoever comes second waits and finds it there.
    pub renewing: tokio::sync::Mutex<()>,
    /// What there is now. Nobody waits to look.
    held: watch::Sender<Held>,
    /// The connection that is being opened, or how that ended.
    dial: Mutex<Option<watch::Receiver<Option<Dialled>>>>,
    /// Held by each change that is under way, all at once; by whoever waits until there is none.
    changing: Arc<RwLock<()>>,
}

/// What changes in a seat.
pub struct Held {
    /// The newest certificate.
    pub issued: Issued,
    /// How many there were before.
    pub number: u64,
    /// When it came, Unix time.
    pub since: u64,
    /// The connection, once one was opened.
    connection: Option<Arc<Connection>>,
    /// Whether the seat was given up: nothing begins on it any more.
    pub given_up: bool,
}

/// A connection that was opened, or why not.
pub type Dialled = Result<Arc<Connection>, Refusal>;

/// The end of a connection's opening that is under way.
pub type Opening = watch::Receiver<Option<Dialled>>;

/// Where a connection comes from.
pub enum Line {
    /// It stands.
    Stands(Arc<Connection>),
    /// It is being opened, for whoever was the first to need it.
    Opens(Opening),
}

impl Seat {
    /// A seat with its first certificate and no connection.
    #[must_use]
    pub fn new(task: TaskId, target: TargetName, key: SigningKey, issued: Issued, now: u64) -> Self {
        Self {
            task,
            target,
            key,
            renewing: tokio::sync::Mutex::default(),
            held: watch::Sender::new(Held {
                issued,
                number: 0,
                since: now,
                connection: None,
                given_up: false,
            }),
            dial: Mutex::default(),
            changing: Arc::default(),
        }
    }

    /// The newest certificate.
    #[must_use]
    pub fn issued(&self) -> Issued {
        self.held.borrow().issued.clone()
    }

    /// What there is, now and from now on. It keeps no seat.
    #[must_use]
    pub fn watch(&self) -> watch::Receiver<Held> {
        self.held.subscribe()
    }

    /// Puts a new certificate in the place of the one before, and presents it where a connection stands.
    pub fn renewed(&self, issued: Issued, now: u64) {
        self.held.send_modify(|held| {
            if let Some(connection) = &held.connection {
                connection.present(&issued.certificate);
            }
            held.issued = issued;
            held.number += 1;
            held.since = now;
        });
    }

    /// The connection that stands, or the one that is being opened; `open` opens one where there is neither.
    pub fn line(&self, open: impl FnOnce(watch::Sender<Option<Dialled>>)) -> Line {
        let mut dial = lock(&self.dial);
        if let Some(opening) = dial.as_ref().filter(|opening| opening.borrow().is_none()) {
            // Of an opening that failed without a word its receiver tells.
            if opening.has_changed().is_ok() {
                return Line::Opens(opening.clone());
            }
        }
        if let Some(connection) = self.connection() {
            if connection.is_alive() {
                return Line::Stands(connection);
            }
            connection.retire();
        }
        let (end, opening) = watch::channel(None);
        open(end);
        *dial = Some(opening.clone());
        Line::Opens(opening)
    }

    /// Forgets an opening that has ended: who waits for it has its end.
    pub fn opened(&self) {
        lock(&self.dial).take_if(|opening| opening.borrow().is_some());
    }

    /// Takes a connection that was opened with this certificate. False, and it is closed, where the seat was given up.
    pub fn connected(&self, connection: &Arc<Connection>, certificate: &str) -> bool {
        let mut taken = false;
        self.held.send_modify(|held| {
            taken = !held.given_up;
            if taken {
                if held.issued.certificate != certificate {
                    connection.present(&held.issued.certificate);
                }
                held.connection = Some(Arc::clone(connection));
            }
        });
        if !taken {
            connection.close("the task has ended, or the relay");
        }
        taken
    }

    /// The connection, if there is one, whether it stands or not.
    #[must_use]
    pub fn connection(&self) -> Option<Arc<Connection>> {
        self.held.borrow().connection.clone()
    }

    /// Does some work, unless the seat is given up before it is done: then the work is dropped where it stands.
    pub async fn unless_given_up<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut held = self.held.subscribe();
        tokio::select! {
            biased;
            _ = held.wait_for(|held| held.given_up) => None,
            done = work => Some(done),
        }
    }

    /// Begins a change: until what is returned is dropped, whoever ends the task waits for it. `None` where the task has
    /// ended.
    pub async fn begin_change(&self) -> Option<OwnedRwLockReadGuard<()>> {
        self.unless_given_up(Arc::clone(&self.changing).read_owned()).await
    }

    /// Waits until no change is under way. None begins until what is returned is dropped.
    pub async fn no_changes(&self) -> OwnedRwLockWriteGuard<()> {
        Arc::clone(&self.changing).write_owned().await
    }

    /// Ends the connection, and says whether one stood.
    pub fn close(&self, why: &str) -> bool {
        let mut connection = None;
        self.held.send_modify(|held| connection = held.connection.take());
        let Some(connection) = connection.filter(|connection| connection.is_alive()) else {
            return false;
        };
        connection.close(why);
        true
    }

    /// From now on nothing begins on it.
    pub fn give_up(&self) {
        self.held.send_modify(|held| held.given_up = true);
    }
}

/// Why there is no new key.
#[derive(Debug, thiserror::Error)]
#[error("make a key")]
pub struct NoKey;

impl From<KeyError> for NoKey {
    fn from(_: KeyError) -> Self {
        Self
    }
}

/// A new ed25519 key from the kernel's randomness.
///
/// # Errors
/// [`NoKey`] when the kernel has none.
pub fn new_key() -> Result<SigningKey, NoKey> {
    let mut seed = Zeroizing::new([0; 32]);
    rand::rngs::SysRng
        .try_fill_bytes(seed.as_mut_slice())
        .map_err(|_| NoKey)?;
    Ok(SigningKey::from_seed(&seed)?)
}

/// Held by whoever opens a task for an owner on a target.
pub type Turn = tokio::sync::Mutex<()>;

/// All seats that are taken.
pub struct Seats {
    taken: Mutex<HashMap<(TaskId, TargetName), Arc<Seat>>>,
    turns: Mutex<HashMap<(Owner, TargetName), Weak<Turn>>>,
    /// By how many seconds each target's clock was ahead of ours when it was last seen.
    clocks: Mutex<HashMap<TargetName, i64>>,
    bounds: Bounds,
    /// One for each connection that there may be.
    rooms: Arc<Semaphore>,
}

impl Default for Seats {
    fn default() -> Self {
        Self::new(BOUNDS, CONNECTIONS)
    }
}

impl Seats {
    /// No seat yet, and at most so many connections at a time.
    #[must_use]
    pub fn new(bounds: Bounds, connections: usize) -> Self {
        Self {
            taken: Mutex::default(),
            turns: Mutex::default(),
            clocks: Mutex::default(),
            bounds,
            rooms: Arc::new(Semaphore::new(connections)),
        }
    }

    /// What each connection may have.
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        self.bounds
    }

    /// Room for one more connection. Where there is none, the one that nobody has used for longest is closed for it: it
    /// is opened again when its task needs it. `None` when all are in use.
    pub async fn room(&self) -> Option<OwnedSemaphorePermit> {
        if let Ok(room) = Arc::clone(&self.rooms).try_acquire_owned() {
            return Some(room);
        }
        self.oldest_idle()?.close("another task needed its room");
        let room = Arc::clone(&self.rooms).acquire_owned();
        tokio::time::timeout(ROOM, room).await.ok()?.ok()
    }

    fn oldest_idle(&self) -> Option<Arc<Connection>> {
        let seats: Vec<_> = lock(&self.taken).values().cloned().collect();
        let idle = seats.iter().filter_map(|seat| {
            let connection = seat.connection()?;
            Some((connection.idle_since()?, connection))
        });
        let oldest = idle.min_by_key(|(since, _)| *since)?;
        Some(oldest.1)
    }

    /// By how many seconds a target's clock was ahead of ours when it was last seen.
    #[must_use]
    pub fn ahead_s(&self, target: &TargetName) -> Option<i64> {
        lock(&self.clocks).get(target).copied()
    }

    /// Remembers it.
    pub fn saw_clock(&self, target: &TargetName, ahead_s: i64) {
        lock(&self.clocks).insert(target.clone(), ahead_s);
    }

    /// Takes a new seat.
    pub fn take(&self, seat: Arc<Seat>) {
        lock(&self.taken).insert((seat.task.clone(), seat.target.clone()), seat);
    }

    /// The seat of a task on a target.
    #[must_use]
    pub fn find(&self, task: &TaskId, target: &TargetName) -> Option<Arc<Seat>> {
        lock(&self.taken).get(&(task.clone(), target.clone())).cloned()
    }

    /// The seats of a task.
    #[must_use]
    pub fn of(&self, task: &TaskId) -> Vec<Arc<Seat>> {
        let taken = lock(&self.taken);
        let of_task = taken.iter().filter(|((of, _), _)| of == task);
        of_task.map(|(_, seat)| Arc::clone(seat)).collect()
    }

    /// Gives up all seats of a task: nothing begins on them from now on. Their keys go when the last user is done.
    pub fn leave(&self, task: &TaskId) -> Vec<Arc<Seat>> {
        let mut taken = lock(&self.taken);
        let left: Vec<_> = taken
            .extract_if(|(of, _), _| of == task)
            .map(|(_, seat)| seat)
            .collect();
        left.iter().for_each(|seat| seat.give_up());
        left
    }

    /// Gives up one seat.
    pub fn leave_one(&self, seat: &Seat) {
        lock(&self.taken).remove(&(seat.task.clone(), seat.target.clone()));
        seat.give_up();
    }

    /// Gives up every seat.
    pub fn leave_all(&self) -> Vec<Arc<Seat>> {
        let left: Vec<_> = lock(&self.taken).drain().map(|(_, seat)| seat).collect();
        left.iter().for_each(|seat| seat.give_up());
        left
    }

    /// A turn to open a task for an owner on a target: two calls at once become one task, not two.
    #[must_use]
    pub fn turn(&self, owner: &Owner, target: &TargetName) -> Arc<Turn> {
        let mut turns = lock(&self.turns);
        turns.retain(|_, turn| turn.strong_count() > 0);
        let place = (owner.clone(), target.clone());
        if let Some(turn) = turns.get(&place).and_then(Weak::upgrade) {
            return turn;
        }
        let turn = Arc::new(Turn::default());
        turns.insert(place, Arc::downgrade(&turn));
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_new() {
        assert_ne!(new_key().unwrap().public(), new_key().unwrap().public());
    }

    fn seat() -> Seat {
        let issued = Issued {
            certificate: String::new(),
            valid_before: 0,
            receipt_key: new_key().unwrap().public().clone(),
            actions: Arc::default(),
            task_ends: 0,
        };
        let task = "0192e4a0-7f00-7000-8000-00000000000a".parse().unwrap();
        Seat::new(task, "web-1".parse().unwrap(), new_key().unwrap(), issued, 0)
    }

    #[tokio::test]
    async fn a_change_that_meets_the_end_of_its_task_does_not_begin() {
        let seat = Arc::new(seat());
        let under_way = seat.begin_change().await.unwrap();
        let ending = {
            let seat = Arc::clone(&seat);
            tokio::spawn(async move { seat.no_changes().await })
        };
        tokio::task::yield_now().await;
        assert!(!ending.is_finished());
        let late = {
            let seat = Arc::clone(&seat);
            tokio::spawn(async move { seat.begin_change().await.is_some() })
        };
        drop(under_way);
        let none_begins = ending.await.unwrap();
        seat.give_up();
        drop(none_begins);
        assert!(!late.await.unwrap());
        assert!(seat.begin_change().await.is_none());
    }

    #[tokio::test]
    async fn whoever_finds_a_connection_being_opened_waits_for_the_same() {
        let seat = seat();
        let mut ends = Vec::new();
        for _ in 0..3 {
            assert!(matches!(seat.line(|end| ends.push(end)), Line::Opens(_)));
        }
        assert_eq!(ends.len(), 1);
        // One that ended without a word, as one that panicked, is nobody's.
        ends.clear();
        assert!(matches!(seat.line(|end| ends.push(end)), Line::Opens(_)));
        let failed = Refusal::new(wire::Code::Unreachable, &crate::error::About::default());
        ends.remove(0).send_replace(Some(Err(failed)));
        assert!(matches!(seat.line(|end| ends.push(end)), Line::Opens(_)));
        assert_eq!(ends.len(), 1, "the next one tries anew");
    }

    #[test]
    fn one_owner_has_one_turn_at_a_time_on_one_target() {
        let seats = Seats::default();
        let owner = |person: &str| Owner {
            person: person.parse().unwrap(),
            brain: "claude".parse().unwrap(),
        };
        let web: TargetName = "web-1".parse().unwrap();
        let first = seats.turn(&owner("alice"), &web);
        let second = seats.turn(&owner("alice"), &web);
        let other = seats.turn(&owner("bob"), &web);
        let held = first.try_lock().unwrap();
        assert!(second.try_lock().is_err());
        assert!(other.try_lock().is_ok());
        drop(held);
        assert!(second.try_lock().is_ok());
    }
}
