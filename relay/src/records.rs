//! The relay's own log, for a program with many calls at once.
//!
//! Every append waits until its record is durable. Appends block, so they run on threads that may; they take turns for
//! the write and wait for the disk together.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex};

use audit::{Draft, Error, Event, Log, Own, Tier, Who};
use wire::ids::{Head, RelayName, RequestId};
use wire::{Code, Status};

use crate::lock::lock;

/// The log.
pub struct Records {
    log: Arc<Mutex<Log>>,
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
            log: Arc::new(Mutex::new(log)),
        })
    }

    /// Appends a record and returns once it is durable. Goes on when the caller stops waiting.
    ///
    /// # Errors
    /// Any [`Error`].
    pub async fn append(&self, draft: Draft) -> Result<Head, Error> {
        let log = Arc::clone(&self.log);
        blocking(move || {
            let pending = lock(&log).write(&draft)?;
            pending.settle()
        })
        .await
    }

    /// The newest record.
    pub async fn head(&self) -> Option<Head> {
        let log = Arc::clone(&self.log);
        tokio::task::spawn_blocking(move || lock(&log).head()).await.ok()
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
            let log = lock(&log);
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
