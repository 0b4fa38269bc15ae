//! The lock under which records are written: flock on a file of its own.
//!
//! Never on the log itself, so that somebody who may only read the log cannot hold up its writers.

use std::fs::{File, TryLockError};
use std::thread;
use std::time::{Duration, Instant};

use crate::error::Error;

/// Longest wait for the lock.
pub(crate) const WAIT: Duration = Duration::from_secs(5);

/// The lock, held until this is dropped.
#[must_use]
pub(crate) struct Held<'a>(&'a File);

/// Takes the lock of `file`, waiting at most `wait`.
///
/// flock(2) has no timeout, hence the polling. Pauses grow to 1 ms: the lock is held for some 20 µs, and a longer sleep
/// would leave it idle while many wait.
pub(crate) fn take(file: &File, wait: Duration) -> Result<Held<'_>, Error> {
    let end = Instant::now() + wait;
    let mut pause = Duration::from_micros(20);
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Held(file)),
            Err(TryLockError::WouldBlock) if Instant::now() < end => {
                thread::sleep(pause);
                pause = (pause * 2).min(Duration::from_millis(1));
            }
            Err(TryLockError::WouldBlock) => {
                return Err(Error::Busy {
                    waited_ms: wait.as_millis(),
                });
            }
            Err(TryLockError::Error(source)) => {
                return Err(Error::Io {
                    what: "lock the log",
                    source,
                });
            }
        }
    }
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        // Cannot fail on an open descriptor; and if it could, closing the file at the end of the process unlocks too.
        let _ = self.0.unlock();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-RECORD-7
    #[test]
    fn a_second_taker_gives_up_after_the_wait_and_succeeds_once_it_is_free() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let [one, two] = [0, 1].map(|_| File::options().write(true).open(file.path()).unwrap());
        let held = take(&one, WAIT).unwrap();
        let before = Instant::now();
        assert!(matches!(
            take(&two, Duration::from_millis(40)),
            Err(Error::Busy { waited_ms: 40 })
        ));
        assert!(before.elapsed() >= Duration::from_millis(40));
        drop(held);
        assert!(take(&two, Duration::ZERO).is_ok());
    }
}
