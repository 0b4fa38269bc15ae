//! One seat for each (task, target): its key, its certificate, its session. Never shared by two tasks.
//!
//! Keys are made here, live in memory only, and are cleared when the seat goes (ssh-key clears them on drop).

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use openssh::key::{KeyError, SigningKey};
use rand::TryRng as _;
use tokio::sync::Notify;
use wire::ids::{TargetName, TaskId};
use zeroize::Zeroizing;

use crate::issuer::Issued;
use crate::session::Session;
use crate::store::Owner;

/// A task's place on one target.
pub struct Seat {
    /// The task.
    pub task: TaskId,
    /// The target.
    pub target: TargetName,
    /// The task's key here.
    pub key: SigningKey,
    /// Held while the certificate or the session changes: whoever comes second waits and finds it done.
    pub held: tokio::sync::Mutex<Held>,
    /// Told when a call renewed the certificate, and when the seat is given up.
    pub changed: Arc<Notify>,
}

/// What changes in a seat.
pub struct Held {
    /// The newest certificate.
    pub issued: Issued,
    /// When it came, Unix time.
    pub since: u64,
    /// The session, once one was opened.
    pub session: Option<Arc<Session>>,
}

impl Seat {
    /// A seat with its first certificate and no session.
    #[must_use]
    pub fn new(task: TaskId, target: TargetName, key: SigningKey, issued: Issued, now: u64) -> Self {
        let held = tokio::sync::Mutex::new(Held {
            issued,
            since: now,
            session: None,
        });
        Self {
            task,
            target,
            key,
            held,
            changed: Arc::new(Notify::new()),
        }
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
#[derive(Default)]
pub struct Seats {
    taken: Mutex<HashMap<(TaskId, TargetName), Arc<Seat>>>,
    turns: Mutex<HashMap<(Owner, TargetName), Weak<Turn>>>,
}

impl Seats {
    /// Takes a new seat.
    pub fn take(&self, seat: Arc<Seat>) {
        lock(&self.taken).insert((seat.task.clone(), seat.target.clone()), seat);
    }

    /// The seat of a task on a target.
    #[must_use]
    pub fn find(&self, task: &TaskId, target: &TargetName) -> Option<Arc<Seat>> {
        lock(&self.taken).get(&(task.clone(), target.clone())).cloned()
    }

    /// Gives up all seats of a task. Their keys go when the last user is done.
    pub fn leave(&self, task: &TaskId) -> Vec<Arc<Seat>> {
        let mut taken = lock(&self.taken);
        let places: Vec<_> = taken.keys().filter(|(of, _)| of == task).cloned().collect();
        places.iter().filter_map(|place| taken.remove(place)).collect()
    }

    /// Gives up every seat.
    pub fn leave_all(&self) -> Vec<Arc<Seat>> {
        lock(&self.taken).drain().map(|(_, seat)| seat).collect()
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
