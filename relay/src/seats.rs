//! One seat for each (task, target): its key, its certificate, its session. Never shared by two tasks.
//!
//! Keys are made here, live in memory only, and are cleared when the seat goes (ssh-key clears them on drop).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use openssh::key::{KeyError, SigningKey};
use rand::TryRng as _;
use tokio::sync::{Notify, OwnedSemaphorePermit, RwLock, Semaphore, watch};
use wire::ids::{TargetName, TaskId};
use zeroize::Zeroizing;

use crate::issuer::Issued;
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
    /// Held while the certificate or the connection changes: whoever comes second waits and finds it done.
    pub held: tokio::sync::Mutex<Held>,
    /// Told when a call renewed the certificate, and when the seat is given up.
    pub changed: Arc<Notify>,
    /// Held by each change that is under way, all at once; by whoever waits until there is none.
    pub changing: RwLock<()>,
    /// Whether the seat was given up: nothing begins on it any more.
    given_up: watch::Sender<bool>,
}

/// What changes in a seat.
pub struct Held {
    /// The newest certificate.
    pub issued: Issued,
    /// When it came, Unix time.
    pub since: u64,
    /// The connection, once one was opened.
    pub connection: Option<Arc<Connection>>,
}

impl Seat {
    /// A seat with its first certificate and no session.
    #[must_use]
    pub fn new(task: TaskId, target: TargetName, key: SigningKey, issued: Issued, now: u64) -> Self {
        let held = tokio::sync::Mutex::new(Held {
            issued,
            since: now,
            connection: None,
        });
        Self {
            task,
            target,
            key,
            held,
            changed: Arc::new(Notify::new()),
            changing: RwLock::default(),
            given_up: watch::Sender::new(false),
        }
    }

    /// Does some work, unless the seat is given up before it is done: then the work is dropped where it stands.
    pub async fn unless_given_up<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut given_up = self.given_up.subscribe();
        tokio::select! {
            biased;
            _ = given_up.wait_for(|given_up| *given_up) => None,
            done = work => Some(done),
        }
    }

    /// Ends the connection, if one stands. Called after the seat was given up, so that nobody opens another.
    pub async fn close(&self, why: &str) -> bool {
        self.changed.notify_one();
        let connection = self.held.lock().await.connection.take();
        let Some(connection) = connection.filter(|connection| connection.is_alive()) else {
            return false;
        };
        connection.close(why);
        true
    }

    fn give_up(&self) {
        self.given_up.send_replace(true);
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
            // Held: it is being opened, or used.
            let connection = seat.held.try_lock().ok()?.connection.clone()?;
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

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each change of these maps is one call: a panic cannot leave half of one.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_new() {
        assert_ne!(new_key().unwrap().public(), new_key().unwrap().public());
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
