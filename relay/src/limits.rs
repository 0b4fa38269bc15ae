//! How much of a relay there is for whom: the numbers, and nothing that counts.
//!
//! Each has a default that a person at work does not notice, and a configuration may set another.

use std::num::NonZeroU32;
use std::time::Duration;

/// How fast calls may come: so many a minute for as long as they like, and so many at once after a rest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Calls a minute.
    pub per_minute: NonZeroU32,
    /// Calls at once.
    pub burst: NonZeroU32,
}

/// What one person, one target, one account and all together may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Calls of one person, of all their clients together.
    pub person: Rate,
    /// Actions on one target, of all persons together.
    pub target: Rate,
    /// Calls of one person that are under way at once.
    pub person_calls: NonZeroU32,
    /// Calls of one person that wait for one of theirs to end.
    pub person_waiting: u32,
    /// Connections of one account.
    pub uid_connections: NonZeroU32,
    /// How long calls that are under way may take to end after a stop was asked for.
    pub drain: Duration,
}

const fn some(number: u32) -> NonZeroU32 {
    match NonZeroU32::new(number) {
        Some(number) => number,
        None => NonZeroU32::MIN,
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            person: Rate {
                per_minute: some(1200),
                burst: some(300),
            },
            target: Rate {
                per_minute: some(600),
                burst: some(200),
            },
            person_calls: some(64),
            person_waiting: 64,
            uid_connections: some(16),
            drain: Duration::from_secs(20),
        }
    }
}
