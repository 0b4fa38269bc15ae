//! Mutexes whose poison says nothing: every change under them is one call, so a panic cannot leave half of one.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks a mutex, whoever panicked while they held it.
pub(crate) fn lock<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
