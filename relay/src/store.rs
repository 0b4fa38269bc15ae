//! Tasks and requests, as their owners may see them.
//!
//! A task belongs to one person and brain. Somebody else's task is answered exactly like one that does not exist.
//! What is kept is bounded: open tasks for each person, requests for each task, closed tasks in all. No key is here.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use wire::ids::{ActionName, BrainName, PersonName, Reason, RequestId, TargetName, TaskId};
use wire::{Code, Status};

/// Open tasks that one person may have at once, whatever their brains call themselves.
pub const OPEN_TASKS: usize = 32;
/// Open tasks in all.
const ALL_OPEN_TASKS: usize = 4096;
/// Requests that are remembered of one task; older ones are in the log.
const REQUESTS: usize = 256;
/// Tasks that are over and still remembered, in all.
const OVER: usize = 1024;

/// Whom a task belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Owner {
    /// The human.
    pub person: PersonName,
    /// What the client calls itself.
    pub brain: BrainName,
}

/// One unit of intent.
#[derive(Debug, Clone)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Whose it is.
    pub owner: Owner,
    /// Why it exists.
    pub reason: Reason,
    /// When it was opened, Unix time.
    pub opened: u64,
    /// When it ends by itself, Unix time; later than `opened`.
    pub ends: u64,
    /// Where it is open.
    pub targets: BTreeSet<TargetName>,
    /// Whether its owner closed it.
    pub closed: bool,
}

impl Task {
    /// Whether it can be used at this time.
    #[must_use]
    pub fn is_open(&self, now: u64) -> bool {
        !self.closed && now < self.ends
    }
}

/// One call, as it is remembered.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its id.
    pub id: RequestId,
    /// Where.
    pub target: TargetName,
    /// What.
    pub action: ActionName,
    /// What became of it; `None` while it runs.
    pub end: Option<(Status, Option<Code>)>,
}

/// The owner has too many open tasks, or everybody together has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("keep another open task")]
pub struct Full;

/// Where tasks and requests are kept.
pub trait Store: Send + Sync {
    /// Keeps a new task.
    ///
    /// # Errors
    /// [`Full`].
    fn open(&self, task: Task, now: u64) -> Result<(), Full>;
    /// Adds a target to an open task, which ends no later than `ends`.
    fn reach(&self, id: &TaskId, target: TargetName, ends: u64);
    /// The task of this id, if it is this owner's; also when it is over.
    fn task(&self, owner: &Owner, id: &TaskId) -> Option<Task>;
    /// The owner's newest open task on a target.
    fn open_on(&self, owner: &Owner, target: &TargetName, now: u64) -> Option<Task>;
    /// Ends a task. `None` when it is not this owner's.
    fn close(&self, owner: &Owner, id: &TaskId) -> Option<Task>;
    /// Remembers a request that begins.
    fn begin(&self, task: &TaskId, request: Request);
    /// Remembers what became of it.
    fn settle(&self, task: &TaskId, request: &RequestId, status: Status, code: Option<Code>);
    /// The requests of a task, oldest first.
    fn requests(&self, task: &TaskId) -> Vec<Request>;
    /// Tasks whose time is up and that nobody closed; each is given once, and is closed by that.
    fn expire(&self, now: u64) -> Vec<Task>;
}

/// In memory: a restart forgets, and every task of before is unknown.
#[derive(Debug, Default)]
pub struct Memory {
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    tasks: HashMap<TaskId, (Task, VecDeque<Request>)>,
    over: VecDeque<TaskId>,
}

impl Kept {
    fn end(&mut self, id: &TaskId) -> Option<Task> {
        let (task, _) = self.tasks.get_mut(id)?;
        task.closed = true;
        let task = task.clone();
        self.over.push_back(id.clone());
        if self.over.len() > OVER
            && let Some(oldest) = self.over.pop_front()
        {
            self.tasks.remove(&oldest);
        }
        Some(task)
    }
}

impl Memory {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        // Every change below is whole before the lock is given back, also in a panic.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store for Memory {
    fn open(&self, task: Task, now: u64) -> Result<(), Full> {
        let mut kept = self.kept();
        let open = kept.tasks.values().filter(|(other, _)| other.is_open(now));
        let (all, own) = open.fold((0, 0), |(all, own), (other, _)| {
            (all + 1, own + usize::from(other.owner.person == task.owner.person))
        });
        if own >= OPEN_TASKS || all >= ALL_OPEN_TASKS {
            return Err(Full);
        }
        kept.tasks.insert(task.id.clone(), (task, VecDeque::new()));
        Ok(())
    }

    fn reach(&self, id: &TaskId, target: TargetName, ends: u64) {
        if let Some((task, _)) = self.kept().tasks.get_mut(id) {
            task.targets.insert(target);
            task.ends = task.ends.min(ends);
        }
    }

    fn task(&self, owner: &Owner, id: &TaskId) -> Option<Task> {
        self.kept()
            .tasks
            .get(id)
            .map(|(task, _)| task)
            .filter(|task| &task.owner == owner)
            .cloned()
    }

    fn open_on(&self, owner: &Owner, target: &TargetName, now: u64) -> Option<Task> {
        let kept = self.kept();
        let open = kept.tasks.values().map(|(task, _)| task);
        // Ids are time-ordered (UUID version 7), so they settle which of two in one second is newer.
        open.filter(|task| &task.owner == owner && task.is_open(now) && task.targets.contains(target))
            .max_by_key(|task| (task.opened, task.id.clone()))
            .cloned()
    }

    fn close(&self, owner: &Owner, id: &TaskId) -> Option<Task> {
        let mut kept = self.kept();
        let task = kept
            .tasks
            .get(id)
            .map(|(task, _)| task)
            .filter(|task| &task.owner == owner)
            .cloned()?;
        if task.closed { Some(task) } else { kept.end(id) }
    }

    fn begin(&self, task: &TaskId, request: Request) {
        if let Some((_, requests)) = self.kept().tasks.get_mut(task) {
            if requests.len() >= REQUESTS {
                requests.pop_front();
            }
            requests.push_back(request);
        }
    }

    fn settle(&self, task: &TaskId, request: &RequestId, status: Status, code: Option<Code>) {
        let mut kept = self.kept();
        let found = kept
            .tasks
            .get_mut(task)
            .and_then(|(_, requests)| requests.iter_mut().rev().find(|one| &one.id == request));
        if let Some(found) = found {
            found.end = Some((status, code));
        }
    }

    fn requests(&self, task: &TaskId) -> Vec<Request> {
        self.kept()
            .tasks
            .get(task)
            .map(|(_, requests)| requests.iter().cloned().collect())
            .unwrap_or_default()
    }

    fn expire(&self, now: u64) -> Vec<Task> {
        let mut kept = self.kept();
        let ended = |task: &Task| !task.closed && now >= task.ends;
        let ids: Vec<TaskId> = kept
            .tasks
            .values()
            .map(|(task, _)| task)
            .filter(|task| ended(task))
            .map(|task| task.id.clone())
            .collect();
        ids.iter().filter_map(|id| kept.end(id)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(person: &str) -> Owner {
        Owner {
            person: person.parse().unwrap(),
            brain: "claude".parse().unwrap(),
        }
    }

    fn task(number: u32, person: &str, opened: u64) -> Task {
        Task {
            id: format!("0192e4a0-7f00-7000-8000-{number:012x}").parse().unwrap(),
            owner: owner(person),
            reason: "why".parse().unwrap(),
            opened,
            ends: opened + 100,
            targets: BTreeSet::from(["web-1".parse().unwrap()]),
            closed: false,
        }
    }

    #[test]
    fn task_of_other_principal_is_like_unknown() {
        let store = Memory::default();
        let one = task(1, "alice", 0);
        store.open(one.clone(), 0).unwrap();
        assert!(store.task(&owner("alice"), &one.id).is_some());
        assert!(store.task(&owner("bob"), &one.id).is_none());
        assert!(store.close(&owner("bob"), &one.id).is_none());
        let mut other_brain = owner("alice");
        other_brain.brain = "cursor".parse().unwrap();
        assert!(store.task(&other_brain, &one.id).is_none());
        assert!(store.task(&owner("alice"), &one.id).unwrap().is_open(0));
    }

    #[test]
    fn a_call_joins_the_newest_open_task_on_the_target() {
        let store = Memory::default();
        let web = "web-1".parse().unwrap();
        for (number, opened) in [(1, 0), (2, 10), (3, 10)] {
            store.open(task(number, "alice", opened), 0).unwrap();
        }
        assert_eq!(
            store.open_on(&owner("alice"), &web, 20).unwrap().id,
            task(3, "alice", 0).id
        );
        store.close(&owner("alice"), &task(3, "alice", 0).id).unwrap();
        assert_eq!(
            store.open_on(&owner("alice"), &web, 20).unwrap().id,
            task(2, "alice", 0).id
        );
        assert!(store.open_on(&owner("alice"), &web, 110).is_none());
        assert!(store.open_on(&owner("alice"), &"web-2".parse().unwrap(), 20).is_none());
        assert!(store.open_on(&owner("bob"), &web, 20).is_none());
    }

    #[test]
    fn tasks_requests_and_the_past_are_bounded() {
        let store = Memory::default();
        for number in 0..u32::try_from(OPEN_TASKS).unwrap() {
            store.open(task(number, "alice", 0), 0).unwrap();
        }
        assert_eq!(store.open(task(999, "alice", 0), 0), Err(Full));
        assert_eq!(store.open(task(999, "bob", 0), 0), Ok(()));
        assert_eq!(store.expire(100).len(), OPEN_TASKS + 1);
        assert!(store.expire(100).is_empty());
        assert_eq!(store.open(task(1000, "alice", 100), 100), Ok(()));
        for number in 2000..5000 {
            store.open(task(number, "carol", 200), 200).unwrap();
            store.close(&owner("carol"), &task(number, "carol", 0).id).unwrap();
        }
        assert!(store.kept().tasks.len() <= OVER + 2);
        let id = task(1000, "alice", 0).id;
        for number in 0..1000 {
            let request_id: RequestId = format!("0192e4a0-7f00-7000-8000-{number:012x}").parse().unwrap();
            let request = Request {
                id: request_id.clone(),
                target: "web-1".parse().unwrap(),
                action: "tail_log".parse().unwrap(),
                end: None,
            };
            store.begin(&id, request);
            store.settle(&id, &request_id, Status::Ok, None);
        }
        assert_eq!(store.requests(&id).len(), REQUESTS);
        assert!(store.requests(&id).iter().all(|request| request.end.is_some()));
    }
}
