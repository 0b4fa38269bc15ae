//! The relay's own log, for a program with many calls at once.
//!
//! Every append waits until its record is durable. Appends block, so they run on threads that may; they take turns for
//! the write and wait for the disk together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use audit::{Draft, Error, Event, Log, Own, Tier, Who};
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle, spawn_blocking};
use wire::ids::{Head, RelayName, RequestId};
use wire::{Code, Status};

use crate::lock::lock;

/// The log.
pub struct Records {
    log: Arc<Mutex<Log>>,
    /// The newest record of which this process knows that it is durable.
    durable: Arc<Mutex<Head>>,
}

/// A record that is being appended.
#[must_use = "what the record announces is done once it is durable"]
pub struct Appending {
    /// That it stands in the log, where no end of this process takes it away.
    pub written: Written,
    /// That no power cut does.
    pub durable: Durable,
}

/// The first half of an append.
pub struct Written {
    told: oneshot::Receiver<()>,
}

/// The second half of an append.
#[must_use = "a record that is not durable announces nothing"]
pub struct Durable {
    work: JoinHandle<Result<Head, Error>>,
}

impl Written {
    /// Whether it was written; why not, its [`Durable`] says.
    pub async fn stands(self) -> bool {
        self.told.await.is_ok()
    }
}

impl Durable {
    /// Waits until it is.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn settle(self) -> Result<Head, Error> {
        ended(self.work.await)
    }
}

impl Records {
    /// Opens the log, and begins it when the folder is empty. `lock_file` stands in a folder that nobody else enters.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn open(folder: &Path, lock_file: &Path, relay: &RelayName) -> Result<Self, Error> {
        let who = Who {
            tier: Tier::Relay,
            host: relay.to_string(),
            build: wire::build::id().to_owned(),
        };
        let log = Log::open(folder, lock_file, who, Box::new(Own))?;
        Ok(Self {
            durable: Arc::new(Mutex::new(log.head())),
            log: Arc::new(Mutex::new(log)),
        })
    }

    /// Appends a record and returns once it is durable. Goes on when the caller stops waiting.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn append(&self, draft: Draft) -> Result<Head, Error> {
        self.begin(draft).durable.settle().await
    }

    /// Begins to append a record, for a caller that has something to do until it is durable. It becomes so whether anybody
    /// waits or not.
    pub fn begin(&self, draft: Draft) -> Appending {
        let (log, durable) = (Arc::clone(&self.log), Arc::clone(&self.durable));
        let (wrote, told) = oneshot::channel();
        let work = spawn_blocking(move || {
            let pending = lock(&log).write(&draft)?;
            // Nobody may want to know.
            let _ = wrote.send(());
            let head = pending.settle()?;
            let mut newest = lock(&durable);
            if newest.seq < head.seq || newest.log != head.log {
                *newest = head.clone();
            }
            Ok(head)
        });
        Appending {
            written: Written { told },
            durable: Durable { work },
        }
    }

    /// The newest record that no power cut takes away: what others may be told of this log.
    pub fn head(&self) -> Head {
        lock(&self.durable).clone()
    }

    /// What the log says became of these requests, as far as it does. One that people approved may have begun more than once:
    /// then the last time counts. It is read from `since` on, Unix seconds.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn outcomes(
        &self,
        since: u64,
        requests: BTreeSet<RequestId>,
    ) -> Result<BTreeMap<RequestId, (Status, Option<Code>)>, Error> {
        let log = Arc::clone(&self.log);
        blocking(move || {
            let mut found = BTreeMap::new();
            let log = lock(&log);
            log.since(since, &mut |record, _| {
                if let (Event::Request, Some(request)) = (record.draft.event, &record.draft.request_id) {
                    found.remove(request);
                }
                let Draft {
                    event: Event::Outcome,
                    request_id: Some(request),
                    status: Some(status),
                    code,
                    ..
                } = record.draft
                else {
                    return;
                };
                if requests.contains(&request) {
                    found.insert(request, (status, code));
                }
            })?;
            Ok(found)
        })
        .await
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    ended(spawn_blocking(work).await)
}

fn ended<T>(work: Result<Result<T, Error>, JoinError>) -> Result<T, Error> {
    work.unwrap_or_else(|gone| {
        Err(Error::Io {
            what: "write the log: its thread is gone",
            source: std::io::Error::other(gone),
        })
    })
}
