//! The relay's own log, for a program with many calls at once.
//!
//! Every append waits until its record is durable. Appends block, so they run on threads that may; they take turns for
//! the write and wait for the disk together. Peers that proved nothing are counted and recorded once a minute.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use audit::{Draft, Error, Event, Log, Own, Strangers, Tier, Who};
use wire::ids::{Head, RelayName, RequestId};
use wire::{Code, Status};

/// The log and the counter of strangers. Cheap to clone.
#[derive(Clone)]
pub struct Records {
    log: Arc<Mutex<Log>>,
    strangers: Arc<Mutex<Strangers>>,
}

impl Records {
    /// Opens the log, and begins it when the folder is empty. `lock` stands in a folder that nobody else enters; the
    /// counter of strangers stands beside it.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn open(folder: &Path, lock: &Path, relay: &RelayName) -> Result<Self, Error> {
        let who = Who {
            tier: Tier::Relay,
            host: relay.to_string(),
            build: wire::build::id().to_owned(),
        };
        let log = Log::open(folder, lock, who, Box::new(Own))?;
        let strangers = Strangers::open(&lock.with_file_name("strangers"), &Own)?;
        Ok(Self {
            log: Arc::new(Mutex::new(log)),
            strangers: Arc::new(Mutex::new(strangers)),
        })
    }

    /// Appends a record and returns once it is durable. Goes on when the caller stops waiting.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn append(&self, draft: Draft) -> Result<Head, Error> {
        let log = Arc::clone(&self.log);
        blocking(move || {
            let pending = log.lock().unwrap_or_else(PoisonError::into_inner).write(&draft)?;
            pending.settle()
        })
        .await
    }

    /// The newest record.
    pub async fn head(&self) -> Option<Head> {
        let log = Arc::clone(&self.log);
        tokio::task::spawn_blocking(move || log.lock().unwrap_or_else(PoisonError::into_inner).head())
            .await
            .ok()
    }

    /// What the log says became of these requests, as far as it does. It is read from `since` on, Unix seconds.
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
            let log = log.lock().unwrap_or_else(PoisonError::into_inner);
            log.since(since, &mut |record, _| {
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

    /// Counts a peer that proved nothing. Gives the record's head when one was due.
    pub async fn note_stranger(&self, code: Code, text: String, now: u64) -> Option<Head> {
        let this = self.clone();
        let noted = blocking(move || {
            let mut strangers = this.strangers.lock().unwrap_or_else(PoisonError::into_inner);
            let mut log = this.log.lock().unwrap_or_else(PoisonError::into_inner);
            strangers.note(&mut log, code, &text, now)
        });
        noted.await.unwrap_or_else(|error| {
            tracing::error!(%error, "a refused stranger could not be counted");
            None
        })
    }

    /// Records strangers that were counted more than a minute ago.
    pub async fn flush_strangers(&self, now: u64) {
        let this = self.clone();
        let flushed = blocking(move || {
            let mut strangers = this.strangers.lock().unwrap_or_else(PoisonError::into_inner);
            let mut log = this.log.lock().unwrap_or_else(PoisonError::into_inner);
            strangers.flush_due(&mut log, now)
        });
        if let Err(error) = flushed.await {
            tracing::error!(%error, "counted strangers could not be recorded");
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(gone) => Err(Error::Io {
            what: "write the log: its thread is gone",
            source: std::io::Error::other(gone),
        }),
    }
}
