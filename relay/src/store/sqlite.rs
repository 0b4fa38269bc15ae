//! The store in a file of SQLite: one thread has the connection and does one thing after the other.
//!
//! SQLite calls block, so no task of the runtime makes one; and what a caller who went away has asked for is still done.
//!
//! A commit is a write into the page cache: it outlives the process and costs some ten microseconds. The disk is waited
//! for where a power cut must not undo what was said: `synchronous` is `FULL` for those commits, which brings everything
//! before them to the disk as well, and `NORMAL` for the others, which keeps the file whole and may lose the newest.

use std::collections::{BTreeMap, VecDeque};
use std::path::Path;
use std::thread::JoinHandle;

use rusqlite::{Connection, Transaction, TransactionBehavior};
use serde::de::DeserializeOwned;
use serde::de::IntoDeserializer as _;
use serde::de::value::{Error as NotAWord, StrDeserializer};
use tokio::sync::{mpsc, oneshot};
use wire::ids::{RequestId, TargetName, TaskId};
use wire::{Code, Risk, Status};

use super::requests::End;
use super::{Answer, Approvals, Error, Owner, Request, Store, Task, Unsettled, Unusable, file, requests, tasks};

/// Questions that may wait for the thread; who comes later waits for a place.
const QUEUE: usize = 256;

/// A store in a file.
#[derive(Debug)]
pub struct Sqlite {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<JoinHandle<()>>,
}

type Job = Box<dyn FnOnce(&mut Kept) + Send>;

/// Whether a commit has to outlive a power cut.
#[derive(Clone, Copy)]
pub(super) enum Survives {
    Kill,
    PowerCut,
}

/// What the thread has.
pub(super) struct Kept {
    pub(super) connection: Connection,
    /// Ends that could not be written when they came.
    owed: VecDeque<End>,
}

impl Sqlite {
    /// Opens the store in this file, or makes it.
    ///
    /// # Errors
    /// Any [`Unusable`].
    pub fn open(path: &Path) -> Result<Self, Unusable> {
        Self::over(file::open(path)?).map_err(|error| Unusable::Machine {
            path: path.to_owned(),
            what: error.to_string(),
        })
    }

    pub(super) fn over(connection: Connection) -> std::io::Result<Self> {
        let (jobs, mut queue) = mpsc::channel::<Job>(QUEUE);
        let mut kept = Kept {
            connection,
            owed: VecDeque::new(),
        };
        let work = move || {
            while let Some(job) = queue.blocking_recv() {
                job(&mut kept);
            }
        };
        let thread = std::thread::Builder::new().name("store".to_owned()).spawn(work)?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
        })
    }

    /// Has the thread do something, after what is owed.
    pub(super) fn work<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Kept) -> Result<T, Error> + Send + 'static,
    ) -> Answer<'_, T> {
        self.have(move |kept| kept.pay().and_then(|()| work(kept)))
    }

    /// Has the thread do something.
    pub(super) fn have<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Kept) -> Result<T, Error> + Send + 'static,
    ) -> Answer<'_, T> {
        let gone = || Error::Unavailable("its thread is gone".to_owned());
        Box::pin(async move {
            let (done, answer) = oneshot::channel();
            let job: Job = Box::new(move |kept| {
                // Whoever asked may have gone: what they asked for is done.
                let _ = done.send(work(kept));
            });
            let jobs = self.jobs.as_ref().ok_or_else(gone)?;
            jobs.send(job).await.map_err(|_| gone())?;
            answer.await.map_err(|_| gone())?
        })
    }
}

impl Drop for Sqlite {
    /// Everything that was asked for is done, and the file is closed.
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Kept {
    /// Writes the ends that could not be written before. While they cannot, nothing that is read here would be true.
    fn pay(&mut self) -> Result<(), Error> {
        while let Some(end) = self.owed.pop_front() {
            // Whole: a request that is settled and still being carried out would be so for ever.
            if let Err(error) = self.committed(|change| requests::settle(change, &end)) {
                self.owed.push_front(end);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Changes something whole or not at all.
    pub(super) fn change<T>(
        &mut self,
        survives: Survives,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let durable = matches!(survives, Survives::PowerCut);
        if durable {
            self.connection.pragma_update(None, "synchronous", "FULL")?;
        }
        let done = self.committed(work);
        if durable {
            // Where it cannot be set back, the next commits wait for the disk too, and nothing else is different.
            let _ = self.connection.pragma_update(None, "synchronous", "NORMAL");
        }
        done
    }

    fn committed<T>(&mut self, work: impl FnOnce(&Transaction<'_>) -> Result<T, Error>) -> Result<T, Error> {
        let change = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&change)?;
        change.commit()?;
        Ok(done)
    }
}

#[cfg(test)]
impl Kept {
    /// No page more than so many, or than there are.
    pub(super) fn limit(&self, pages: u32) -> Result<(), Error> {
        let set = |_: &rusqlite::Row<'_>| Ok(());
        Ok(self
            .connection
            .pragma_update_and_check(None, "max_page_count", pages, set)?)
    }

    pub(super) fn read_only(&self, yes: bool) -> Result<(), Error> {
        Ok(self.connection.pragma_update(None, "query_only", yes)?)
    }
}

impl Store for Sqlite {
    fn open(&self, task: Task, now: u64) -> Answer<'_, ()> {
        self.work(move |kept| kept.change(Survives::Kill, |change| tasks::open(change, &task, now)))
    }

    fn reach(&self, id: &TaskId, target: &TargetName, ends: u64) -> Answer<'_, bool> {
        let (id, target) = (id.clone(), target.clone());
        self.work(move |kept| kept.change(Survives::Kill, |change| tasks::reach(change, &id, &target, ends)))
    }

    fn task(&self, owner: &Owner, id: &TaskId) -> Answer<'_, Option<Task>> {
        let (owner, id) = (owner.clone(), id.clone());
        self.work(move |kept| tasks::find(&kept.connection, &owner, &id))
    }

    fn open_on(&self, owner: &Owner, target: &TargetName, now: u64) -> Answer<'_, Option<Task>> {
        let (owner, target) = (owner.clone(), target.clone());
        self.work(move |kept| tasks::open_on(&kept.connection, &owner, &target, now))
    }

    fn places(&self, owner: &Owner, now: u64) -> Answer<'_, BTreeMap<TargetName, TaskId>> {
        let owner = owner.clone();
        self.work(move |kept| tasks::places(&kept.connection, &owner, now))
    }

    fn close(&self, owner: &Owner, id: &TaskId, now: u64) -> Answer<'_, Option<Task>> {
        let (owner, id) = (owner.clone(), id.clone());
        self.work(move |kept| kept.change(Survives::PowerCut, |change| tasks::close(change, &owner, &id, now)))
    }

    fn expire(&self, now: u64) -> Answer<'_, Vec<Task>> {
        self.work(move |kept| {
            kept.change(Survives::Kill, |change| {
                requests::forget(change, now)?;
                tasks::expire(change, now)
            })
        })
    }

    fn begin(&self, task: &TaskId, request: Request, payload: &str, now: u64) -> Answer<'_, ()> {
        let task = task.clone();
        let payload = (request.risk != Risk::Read).then(|| payload.to_owned());
        self.work(move |kept| {
            kept.change(Survives::Kill, |change| {
                requests::begin(change, &task, &request, payload.as_deref(), now)
            })
        })
    }

    fn sent(&self, task: &TaskId, request: &RequestId) -> Answer<'_, ()> {
        let (task, request) = (task.clone(), request.clone());
        self.work(move |kept| kept.change(Survives::PowerCut, |change| requests::sent(change, &task, &request)))
    }

    fn settle(&self, task: &TaskId, request: &RequestId, status: Status, code: Option<Code>) -> Answer<'_, ()> {
        let end = End {
            task: task.clone(),
            request: request.clone(),
            status,
            code,
        };
        self.have(move |kept| {
            kept.owed.push_back(end);
            kept.pay()
        })
    }

    fn give_up(&self, task: &TaskId, request: &RequestId) -> Answer<'_, ()> {
        let (task, request) = (task.clone(), request.clone());
        self.work(move |kept| requests::give_up(&kept.connection, &task, &request))
    }

    fn requests(&self, task: &TaskId) -> Answer<'_, Vec<Request>> {
        let task = task.clone();
        self.work(move |kept| requests::of_task(&kept.connection, &task))
    }

    fn unsettled(&self) -> Answer<'_, Vec<Unsettled>> {
        self.work(|kept| requests::unsettled(&kept.connection))
    }

    fn approving(&self) -> &dyn Approvals {
        self
    }
}

impl From<rusqlite::Error> for Error {
    fn from(error: rusqlite::Error) -> Self {
        Self::Unavailable(error.to_string())
    }
}

/// A text of the database as the value that it must be.
pub(super) fn parsed<T: DeserializeOwned>(text: &str) -> Result<T, Error> {
    let word: StrDeserializer<'_, NotAWord> = text.into_deserializer();
    T::deserialize(word).map_err(|error| Error::Unavailable(format!("it holds what is not ours: {error}")))
}
