//! Answers that clients have not read yet: so many bytes for each connection, and so many in all.
//!
//! A client that asks and does not read makes the relay hold what it was answered. Beyond its own bound its connection is
//! cut; beyond the bound of all, the connection that holds most is cut, so that whoever reads is not harmed by whoever does
//! not. Calls of a connection that was cut come to their end and are recorded like any other's.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use tokio::sync::watch;

use crate::lock::lock;

/// Bytes that one connection may be behind: as many answers as it may have asked for, of 512 KiB each, twice what an action may show in text.
const OF_ONE: usize = 32 * 1024 * 1024;
/// Bytes that all may be behind together.
const OF_ALL: usize = 128 * 1024 * 1024;

/// The bounds, and what is held.
#[derive(Debug)]
pub struct Answers {
    of_one: usize,
    of_all: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Bytes of all connections that are not cut.
    all: usize,
    /// The next connection's number.
    next: u64,
    connections: BTreeMap<u64, Connection>,
}

#[derive(Debug)]
struct Connection {
    bytes: usize,
    cut: watch::Sender<bool>,
}

/// A connection's account.
#[derive(Debug)]
pub struct Account {
    answers: Arc<Answers>,
    number: u64,
    cut: watch::Receiver<bool>,
}

/// Bytes that are counted until this is dropped.
#[derive(Debug)]
#[must_use = "what is not held is not counted"]
pub struct Bytes {
    answers: Arc<Answers>,
    number: u64,
    bytes: usize,
}

impl Default for Answers {
    fn default() -> Self {
        Self::new(OF_ONE, OF_ALL)
    }
}

impl Answers {
    /// Nothing is held yet.
    #[must_use]
    pub fn new(of_one: usize, of_all: usize) -> Self {
        Self {
            of_one,
            of_all,
            held: Mutex::default(),
        }
    }

    /// An account for a new connection.
    #[must_use]
    pub fn account(self: &Arc<Self>) -> Account {
        let (sender, cut) = watch::channel(false);
        let mut held = self.held();
        let number = held.next;
        held.next = number.wrapping_add(1);
        held.connections.insert(number, Connection { bytes: 0, cut: sender });
        Account {
            answers: Arc::clone(self),
            number,
            cut,
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        lock(&self.held)
    }
}

impl Held {
    /// Ends a connection. What it holds goes with it, and counts no more.
    fn cut(&mut self, number: u64) {
        if let Some(connection) = self.connections.remove(&number) {
            self.all = self.all.saturating_sub(connection.bytes);
            connection.cut.send_replace(true);
        }
    }
}

impl Account {
    /// Counts an answer's bytes. `None` when the connection was cut, now or before. One answer alone always fits.
    pub fn hold(&self, bytes: usize) -> Option<Bytes> {
        let mut held = self.answers.held();
        let own = held.connections.get_mut(&self.number)?;
        if own.bytes > 0 && own.bytes.saturating_add(bytes) > self.answers.of_one {
            held.cut(self.number);
            return None;
        }
        own.bytes = own.bytes.saturating_add(bytes);
        held.all = held.all.saturating_add(bytes);
        while held.all > self.answers.of_all {
            let most = held.connections.iter().max_by_key(|(_, connection)| connection.bytes);
            let most = most.map(|(number, _)| *number)?;
            held.cut(most);
        }
        held.connections.contains_key(&self.number).then(|| Bytes {
            answers: Arc::clone(&self.answers),
            number: self.number,
            bytes,
        })
    }

    /// Cuts the connection.
    pub fn cut(&self) {
        self.answers.held().cut(self.number);
    }

    /// Returns once the connection was cut.
    pub async fn is_cut(&self) {
        // Without its sender it was cut as well.
        let _ = self.cut.clone().wait_for(|cut| *cut).await;
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.cut();
    }
}

impl Drop for Bytes {
    fn drop(&mut self) {
        let mut held = self.answers.held();
        let Some(own) = held.connections.get_mut(&self.number) else {
            return;
        };
        own.bytes = own.bytes.saturating_sub(self.bytes);
        held.all = held.all.saturating_sub(self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_connection_that_is_too_far_behind_is_cut_and_one_answer_alone_fits() {
        let answers = Arc::new(Answers::new(100, 1000));
        let (slow, other) = (answers.account(), answers.account());
        drop(slow.hold(500).unwrap());
        let first = slow.hold(60).unwrap();
        let second = slow.hold(40).unwrap();
        let beside = other.hold(100).unwrap();
        assert!(slow.hold(1).is_none());
        slow.is_cut().await;
        assert!(slow.hold(1).is_none(), "it stays cut");
        assert_eq!(answers.held().all, 100, "only the other one counts");
        drop((first, second, beside));
        assert_eq!(answers.held().all, 0);
        assert!(other.hold(100).is_some());
    }

    #[tokio::test]
    async fn where_all_are_too_far_behind_the_one_that_holds_most_is_cut() {
        let answers = Arc::new(Answers::new(100, 150));
        let (much, little, late) = (answers.account(), answers.account(), answers.account());
        let _much = [much.hold(50).unwrap(), much.hold(40).unwrap()];
        let _little = little.hold(50).unwrap();
        let _late = late.hold(20).unwrap();
        much.is_cut().await;
        assert!(much.hold(1).is_none());
        assert!(little.hold(1).is_some() && late.hold(1).is_some());
        drop((much, little, late));
        assert_eq!(answers.held().all, 0);
        assert!(answers.held().connections.is_empty());
    }

    #[tokio::test]
    async fn an_answer_beyond_the_bound_of_all_ends_its_own_connection() {
        let answers = Arc::new(Answers::new(100, 150));
        let account = answers.account();
        assert!(account.hold(151).is_none());
        account.is_cut().await;
    }
}
