//! What is open: which task, for whom, through which relay, on which targets with which key.
//!
//! Nothing here is stored: it is rebuilt at start from the CA's own log, which is the truth, and changed only by what
//! was recorded.

use std::collections::BTreeMap;

use wire::ids::{Fingerprint, PersonName, Reason, RelayName, TargetName, TaskId};
use wire::limits::TASK_MAX_S;
use wire::{Kind, Requester};

use crate::error::Error;

/// How long the id of an ended task is remembered, so that it is not opened again under the eyes of a target whose
/// ledger still knows it, in seconds.
pub const REMEMBER_S: u64 = 24 * 60 * 60;

/// How far back a log must be read to know everything that is remembered, in seconds.
pub const LOOK_BACK_S: u64 = TASK_MAX_S + REMEMBER_S;

/// Most certified keys of open tasks that one person can have through one relay: memory is bounded also against a hijacked
/// relay, since the persons are named in the configuration, and no person can use up what another needs.
pub const OPEN_MAX: usize = 20_000;

/// All tasks that are open or ended lately.
#[derive(Debug, Default)]
pub struct Issued {
    tasks: BTreeMap<TaskId, Task>,
    open: BTreeMap<(RelayName, PersonName), Share>,
    swept: u64,
}

/// What one person has of tasks that are open, through one relay.
#[derive(Debug, Clone, Copy, Default)]
struct Share {
    keys: usize,
    requests: u64,
}

/// What came before a call, of tasks that are open: what policy may count by. The certificate that is asked for is not
/// among it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Action certificates that the task has had.
    pub task_requests: u64,
    /// Targets on which the task is open.
    pub task_targets: u64,
    /// Action certificates that open tasks of this person have had through this relay.
    pub person_requests: u64,
    /// Keys that are certified for open tasks of this person through this relay: one for each task and target.
    pub person_targets: u64,
}

/// The facts of a task, which its first certificate fixed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// For whom.
    pub requester: Requester,
    /// Why.
    pub reason: Reason,
    /// Through which relay.
    pub relay: RelayName,
    /// When it was opened, Unix seconds.
    pub opened: u64,
}

#[derive(Debug)]
struct Task {
    facts: Facts,
    keys: BTreeMap<TargetName, Fingerprint>,
    /// How many action certificates it has had.
    requests: u64,
}

/// One certificate, as the log tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The task.
    pub task_id: TaskId,
    /// Its facts.
    pub facts: Facts,
    /// Where.
    pub target: TargetName,
    /// The key that was certified.
    pub key: Fingerprint,
    /// For the task, or for one request of it.
    pub kind: Kind,
}

impl Facts {
    /// First second after the task, whatever is renewed.
    #[must_use]
    pub fn ends(&self) -> u64 {
        self.opened.saturating_add(TASK_MAX_S)
    }

    /// Who counts for its size: a person, through a relay.
    fn owner(&self) -> (RelayName, PersonName) {
        (self.relay.clone(), self.requester.person.clone())
    }
}

impl Issued {
    /// Takes in what was recorded.
    pub fn note(&mut self, entry: Entry) {
        let share = self.open.entry(entry.facts.owner()).or_default();
        let task = self.tasks.entry(entry.task_id).or_insert_with(|| Task {
            facts: entry.facts,
            keys: BTreeMap::new(),
            requests: 0,
        });
        match entry.kind {
            Kind::Task => {
                if task.keys.insert(entry.target, entry.key).is_none() {
                    share.keys += 1;
                }
            }
            Kind::Action => {
                task.requests += 1;
                share.requests += 1;
            }
        }
    }

    /// What came before a call for this task, under these facts.
    #[must_use]
    pub fn counts(&self, task_id: &TaskId, facts: &Facts) -> Counts {
        let task = self.tasks.get(task_id);
        let share = self.open.get(&facts.owner()).copied().unwrap_or_default();
        Counts {
            task_requests: task.map_or(0, |task| task.requests),
            task_targets: task.map_or(0, |task| task.keys.len() as u64),
            person_requests: share.requests,
            person_targets: share.keys as u64,
        }
    }

    /// The facts under which a call opens a task, or joins one that is open: then every fact must be the same.
    /// `wanted.opened` is the time of the call; what comes back has the time of the first one.
    ///
    /// # Errors
    /// [`Error::TaskMismatch`], [`Error::TaskEnded`], [`Error::Capacity`].
    pub fn open(&self, task_id: &TaskId, target: &TargetName, wanted: Facts) -> Result<Facts, Error> {
        let now = wanted.opened;
        let task = self.tasks.get(task_id);
        let open = self.open.get(&wanted.owner()).map_or(0, |share| share.keys);
        if open >= OPEN_MAX && !task.is_some_and(|task| task.keys.contains_key(target)) {
            return Err(Error::Capacity(open));
        }
        let Some(Task { facts, .. }) = task else {
            return Ok(wanted);
        };
        if facts.relay != wanted.relay {
            return Err(Error::TaskMismatch("relay"));
        }
        if facts.requester != wanted.requester {
            return Err(Error::TaskMismatch("requester"));
        }
        if facts.reason != wanted.reason {
            return Err(Error::TaskMismatch("reason"));
        }
        live(task_id, facts, now)
    }

    /// The facts of a task that this relay has open on this target with this key.
    ///
    /// # Errors
    /// [`Error::UnknownTask`] (also for another relay's task: it learns nothing), [`Error::KeyMismatch`],
    /// [`Error::TaskEnded`].
    pub fn find(
        &self,
        task_id: &TaskId,
        relay: &RelayName,
        target: &TargetName,
        key: &Fingerprint,
        now: u64,
    ) -> Result<Facts, Error> {
        let unknown = || Error::UnknownTask(task_id.clone());
        let task = self
            .tasks
            .get(task_id)
            .filter(|task| task.facts.relay == *relay)
            .ok_or_else(unknown)?;
        let certified = task.keys.get(target).ok_or_else(unknown)?;
        if certified != key {
            return Err(Error::KeyMismatch);
        }
        live(task_id, &task.facts, now)
    }

    /// Forgets what nobody needs any more; at most once a minute, since it looks at everything.
    pub fn sweep(&mut self, now: u64) {
        if now.abs_diff(self.swept) < 60 {
            return;
        }
        self.swept = now;
        self.tasks
            .retain(|_, task| now < task.facts.ends().saturating_add(REMEMBER_S));
        self.open.clear();
        for task in self.tasks.values().filter(|task| now < task.facts.ends()) {
            let share = self.open.entry(task.facts.owner()).or_default();
            share.keys += task.keys.len();
            share.requests += task.requests;
        }
    }

    /// How many tasks are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether none is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }
}

fn live(task_id: &TaskId, facts: &Facts, now: u64) -> Result<Facts, Error> {
    if now < facts.ends() {
        Ok(facts.clone())
    } else {
        Err(Error::TaskEnded(task_id.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use wire::{Code, Proof};

    const NOW: u64 = 1_800_000_000;

    fn id(n: u8) -> TaskId {
        format!("0192e4a0-7f00-7000-8000-0000000000{n:02}").parse().unwrap()
    }

    fn facts(opened: u64) -> Facts {
        let requester = Requester {
            brain: "claude".parse().unwrap(),
            person: "alice".parse().unwrap(),
            proof: Proof::Relay,
        };
        Facts {
            requester,
            reason: "look".parse().unwrap(),
            relay: "relay-1".parse().unwrap(),
            opened,
        }
    }

    fn web_1() -> TargetName {
        "web-1".parse().unwrap()
    }

    fn key(n: u8) -> Fingerprint {
        format!("SHA256:{}", char::from(b'A' + n).to_string().repeat(43))
            .parse()
            .unwrap()
    }

    fn entry(task: u8, target: &str) -> Entry {
        Entry {
            task_id: id(task),
            facts: facts(NOW),
            target: target.parse().unwrap(),
            key: key(1),
            kind: Kind::Task,
        }
    }

    fn code(result: Result<Facts, Error>) -> Option<Code> {
        result.err().map(|error| error.code())
    }

    /// REQ-CARPC-4
    #[test]
    fn a_task_keeps_the_facts_of_its_first_certificate() {
        let mut issued = Issued::default();
        assert_eq!(issued.open(&id(1), &web_1(), facts(NOW)).unwrap(), facts(NOW));
        issued.note(entry(1, "web-1"));
        assert_eq!(
            issued.open(&id(1), &web_1(), facts(NOW + 99)).unwrap().opened,
            NOW,
            "joined, not opened again"
        );
        let mut other = facts(NOW);
        other.reason = "else".parse().unwrap();
        assert_eq!(code(issued.open(&id(1), &web_1(), other)), Some(Code::TaskMismatch));
        let mut other = facts(NOW);
        other.relay = "relay-2".parse().unwrap();
        assert_eq!(code(issued.open(&id(1), &web_1(), other)), Some(Code::TaskMismatch));
        let mut other = facts(NOW);
        other.requester.person = "mallory".parse().unwrap();
        assert_eq!(code(issued.open(&id(1), &web_1(), other)), Some(Code::TaskMismatch));
    }

    /// REQ-CARPC-5, REQ-CARPC-6
    #[test]
    fn a_renewal_needs_the_same_relay_target_and_key() {
        let mut issued = Issued::default();
        issued.note(entry(1, "web-1"));
        let find = |relay: &str, target: &str, k: u8, now| {
            code(issued.find(&id(1), &relay.parse().unwrap(), &target.parse().unwrap(), &key(k), now))
        };
        assert_eq!(find("relay-1", "web-1", 1, NOW + 1), None);
        assert_eq!(find("relay-2", "web-1", 1, NOW + 1), Some(Code::UnknownTask));
        assert_eq!(find("relay-1", "web-2", 1, NOW + 1), Some(Code::UnknownTask));
        assert_eq!(find("relay-1", "web-1", 2, NOW + 1), Some(Code::KeyMismatch));
        assert_eq!(find("relay-1", "web-1", 1, NOW + TASK_MAX_S - 1), None);
        assert_eq!(find("relay-1", "web-1", 1, NOW + TASK_MAX_S), Some(Code::TaskEnded));
    }

    /// REQ-CARPC-6
    #[test]
    fn an_ended_task_is_not_opened_again_while_it_is_remembered() {
        let mut issued = Issued::default();
        issued.note(entry(1, "web-1"));
        let later = NOW + LOOK_BACK_S - 1;
        issued.sweep(later);
        assert_eq!(code(issued.open(&id(1), &web_1(), facts(later))), Some(Code::TaskEnded));
        issued.sweep(later + 61);
        assert!(issued.is_empty());
    }

    /// REQ-POLICY-1
    #[test]
    fn what_came_before_is_counted_for_the_task_and_for_the_person() {
        let mut issued = Issued::default();
        let counts = |issued: &Issued, task: u8| {
            let c = issued.counts(&id(task), &facts(NOW));
            [c.task_requests, c.task_targets, c.person_requests, c.person_targets]
        };
        assert_eq!(counts(&issued, 1), [0; 4]);
        for (task, target) in [(1, "web-1"), (1, "web-1"), (1, "web-2"), (2, "web-1")] {
            issued.note(entry(task, target));
        }
        for task in [1, 1, 2] {
            let kind = Kind::Action;
            issued.note(Entry {
                kind,
                ..entry(task, "web-1")
            });
        }
        assert_eq!(counts(&issued, 1), [2, 2, 3, 3]);
        assert_eq!(counts(&issued, 2), [1, 1, 3, 3]);
        assert_eq!(counts(&issued, 3), [0, 0, 3, 3]);
        issued.sweep(NOW + 1);
        assert_eq!(counts(&issued, 1), [2, 2, 3, 3], "sweeping counts anew");
        let mut other = facts(NOW);
        other.relay = "relay-2".parse().unwrap();
        assert_eq!(issued.counts(&id(3), &other), Counts::default());
        issued.sweep(NOW + TASK_MAX_S);
        assert_eq!(counts(&issued, 3), [0; 4], "ended");
    }

    /// REQ-CARPC-7
    #[test]
    fn quota_exceeded_by_one_relay_leaves_room_for_another_and_ends_with_its_tasks() {
        let mut issued = Issued::default();
        for n in 0..OPEN_MAX {
            issued.note(entry(1, &format!("t{n}")));
        }
        assert_eq!(code(issued.open(&id(2), &web_1(), facts(NOW))), Some(Code::Capacity));
        let mut other = facts(NOW);
        other.relay = "relay-2".parse().unwrap();
        assert_eq!(code(issued.open(&id(2), &web_1(), other)), None);
        let mut other = facts(NOW);
        other.requester.person = "bob".parse().unwrap();
        assert_eq!(
            code(issued.open(&id(2), &web_1(), other)),
            None,
            "one person cannot use up another's share"
        );
        issued.sweep(NOW + TASK_MAX_S);
        assert_eq!(code(issued.open(&id(2), &web_1(), facts(NOW + TASK_MAX_S))), None);
    }
}
