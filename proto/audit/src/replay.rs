//! Replay: the story of one task, out of the logs of all tiers that are given.
//!
//! Who asked for it and why, what happened in order, and what became of each call. It tells what it was told: where a log
//! does not verify, where tiers contradict each other, and where a record is missing that must be there, it says so.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use serde::Serialize;
use wire::ids::{ActionName, Digest, Head, Reason, RequestId, Serial, TargetName, TaskId};
use wire::{Code, Mode, Requester, Risk, Status};

use crate::record::{Approval, Draft, Event, Output, Record, Tier};
use crate::verify::{Expected, Fault, LogReport, examine};

/// The story of a task.
#[derive(Debug, Serialize)]
pub struct Replay {
    /// The task.
    pub task_id: TaskId,
    /// True when every log given verifies.
    pub verified: bool,
    /// Who asked; absent when no record says. Where records disagree, the first that says, and a note.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requester: Option<Requester>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The logs given.
    pub logs: Vec<LogReport>,
    /// What is wrong with what was given, beside what is wrong within a log.
    pub faults: Vec<Fault>,
    /// What a reader must know: what is missing, and what does not fit.
    pub notes: Vec<String>,
    /// Each call of the task, in the order in which they first appear.
    pub calls: Vec<Call>,
    /// All records of the task: by time, and each log's in the order of the log.
    pub timeline: Vec<Step>,
}

/// One record of the task.
#[derive(Debug, Serialize)]
pub struct Step {
    /// When its writer says it was.
    pub ts: String,
    /// Which tier.
    pub tier: Tier,
    /// Which of that tier.
    pub host: String,
    /// Where it stands.
    pub head: Head,
    /// What it says.
    pub record: Draft,
}

/// One call: a request, and what the tiers say became of it. Of several records that say the same thing the target's
/// counts, then the CA's; and of one that was begun, what became of that, however often it was refused besides.
#[derive(Debug, Serialize)]
pub struct Call {
    /// Its id.
    pub request_id: RequestId,
    /// Where.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<TargetName>,
    /// What.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub action: Option<ActionName>,
    /// Its risk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub risk: Option<Risk>,
    /// Whether to do it or to show it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mode: Option<Mode>,
    /// Who asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requester: Option<Requester>,
    /// Why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The program and its arguments.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub argv: Option<Vec<String>>,
    /// What became of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<Status>,
    /// Every Code that a tier gave, in the order of the timeline.
    pub codes: Vec<Code>,
    /// What stands beside the first of them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Exit code.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,
    /// Signal that ended it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,
    /// How long it ran, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub duration_ms: Option<u64>,
    /// What it wrote.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Output>,
    /// What it wrote on standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stderr: Option<Output>,
    /// Serial of the certificate that it stood under.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial: Option<Serial>,
    /// Who approved it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub approvals: Option<Vec<Approval>>,
}

impl Step {
    /// Where it stands, in words.
    fn place(&self) -> String {
        format!("{} {} #{}", self.tier.as_str(), self.host, self.head.seq)
    }
}

/// Tells the story of `task` out of segments and folders of segments of any number of logs, which it verifies.
#[must_use]
pub fn replay(task: &TaskId, paths: &[PathBuf]) -> Replay {
    let (report, found) = examine(paths, &Expected::default(), Some(task));
    let timeline = merge(found);
    let mut replay = Replay {
        task_id: task.clone(),
        verified: report.ok,
        requester: first(&timeline, |draft| &draft.requester),
        reason: first(&timeline, |draft| &draft.reason),
        logs: report.logs,
        faults: report.faults,
        notes: Vec::new(),
        calls: by_call(&timeline).iter().map(|(id, steps)| call(id, steps)).collect(),
        timeline,
    };
    replay.notes = notes(&replay);
    replay
}

/// One order of all records: always the earliest of those that stand next in their logs. A record waits for its cause, an
/// answer for its intent, whatever the clocks of the two machines say.
fn merge(logs: Vec<Vec<(Record, Head)>>) -> Vec<Step> {
    let mut left: BTreeMap<(RequestId, u8), usize> = BTreeMap::new();
    for (record, _) in logs.iter().flatten() {
        if let Some(key) = stage(&record.draft) {
            *left.entry(key).or_default() += 1;
        }
    }
    let mut logs: Vec<_> = logs.into_iter().map(|log| log.into_iter().peekable()).collect();
    let mut timeline = Vec::new();
    loop {
        let heads = logs.iter_mut().enumerate().filter_map(|(at, log)| {
            let record = &log.peek()?.0;
            let waits = stage(&record.draft)
                .is_some_and(|(id, stage)| left.range((id.clone(), 0)..(id, stage)).next().is_some());
            Some((waits, record.envelope.ts.clone(), at))
        });
        let Some((_, _, at)) = heads.min() else { return timeline };
        if let Some(key) = logs[at].peek().and_then(|(record, _)| stage(&record.draft))
            && let Some(count) = left.get_mut(&key)
        {
            *count -= 1;
            if *count == 0 {
                left.remove(&key);
            }
        }
        timeline.extend(logs[at].next().map(|(record, head)| Step {
            ts: record.envelope.ts,
            tier: record.envelope.tier,
            host: record.envelope.host,
            head,
            record: record.draft,
        }));
    }
}

/// Where a record stands in the story of its request: one with a smaller number can be its cause.
fn stage(draft: &Draft) -> Option<(RequestId, u8)> {
    let stage = match draft.event {
        Event::Request => 1,
        Event::Authorize => 2,
        Event::Intent => 3,
        Event::Result | Event::Refused => 4,
        Event::Outcome => 5,
        _ => return None,
    };
    draft.request_id.clone().map(|id| (id, stage))
}

/// The first thing that a record says of a kind.
fn first<T: Clone>(timeline: &[Step], of: impl Fn(&Draft) -> &Option<T>) -> Option<T> {
    timeline.iter().find_map(|step| of(&step.record).clone())
}

/// The records of each call. An id is the relay's word: one that was taken over may give it to two requests, and what became
/// of one is not what became of the other. A record without a digest goes with the first of them.
fn by_call(timeline: &[Step]) -> Vec<(&RequestId, Vec<&Step>)> {
    let mut calls: Vec<(&RequestId, Option<&Digest>, Vec<&Step>)> = Vec::new();
    let mut of_id: BTreeMap<&RequestId, Vec<usize>> = BTreeMap::new();
    for step in timeline {
        let Some(id) = &step.record.request_id else { continue };
        let sha256 = step.record.request_sha256.as_ref();
        let known = of_id.entry(id).or_default();
        let is_its = |at: &&usize| {
            let own = calls.get(**at).and_then(|(_, own, _)| *own);
            own.is_none() || sha256.is_none() || own == sha256
        };
        let found = known.iter().find(is_its).copied();
        match found.and_then(|at| calls.get_mut(at)) {
            Some((_, own, steps)) => {
                *own = own.or(sha256);
                steps.push(step);
            }
            None => {
                known.push(calls.len());
                calls.push((id, sha256, vec![step]));
            }
        }
    }
    calls.into_iter().map(|(id, _, steps)| (id, steps)).collect()
}

fn call(id: &RequestId, steps: &[&Step]) -> Call {
    // Asked once more while it is under way, or later, it may be refused: that is not what became of it.
    let began = steps.iter().any(|step| step.record.event == Event::Intent);
    let counts = |step: &&&Step| !(began && step.tier == Tier::Target && step.record.event == Event::Refused);
    // Whom to believe first: who did it, who allowed it, who asked for it. Of one tier the latest word counts.
    let mut words: Vec<_> = steps.iter().rev().filter(counts).collect();
    words.sort_by_key(|step| match step.tier {
        Tier::Target => 0,
        Tier::Ca => 1,
        Tier::Relay => 2,
    });
    macro_rules! word {
        ($field:ident) => {
            words.iter().find_map(|step| step.record.$field.clone())
        };
    }
    let mut codes: Vec<Code> = Vec::new();
    for code in steps.iter().filter_map(|step| step.record.code) {
        if !codes.contains(&code) {
            codes.push(code);
        }
    }
    let refused = || {
        words
            .iter()
            .any(|m| m.record.event == Event::Refused)
            .then_some(Status::Refused)
    };
    Call {
        request_id: id.clone(),
        target: word!(target),
        action: word!(action),
        risk: word!(risk),
        mode: word!(mode),
        requester: word!(requester),
        reason: word!(reason),
        argv: word!(argv),
        status: word!(status).or_else(refused),
        codes,
        message: word!(message),
        exit_code: word!(exit_code),
        signal: word!(signal),
        duration_ms: word!(duration_ms),
        output: word!(output),
        stderr: word!(stderr),
        serial: word!(cert).map(|cert| cert.serial),
        approvals: word!(approvals),
    }
}

/// What is missing and what does not fit.
fn notes(replay: &Replay) -> Vec<String> {
    let mut notes = Vec::new();
    for log in replay.logs.iter().filter(|log| log.fault.is_some()) {
        let (tier, host) = (log.tier.map_or("a", Tier::as_str), log.host.as_deref().unwrap_or("?"));
        notes.push(format!(
            "the log of {tier} {host} does not verify: nothing from it can be relied on"
        ));
    }
    if replay.timeline.is_empty() {
        notes.push("no record of this task is in the logs given".to_owned());
        return notes;
    }
    for tier in [Tier::Relay, Tier::Ca, Tier::Target] {
        let name = match tier {
            Tier::Relay => "relay",
            Tier::Ca => "CA",
            Tier::Target => "target",
        };
        if !replay.logs.iter().any(|log| log.tier == Some(tier)) {
            notes.push(format!("no log of a {name} was given"));
        } else if !replay.timeline.iter().any(|step| step.tier == tier) {
            notes.push(format!("no log of a {name} has a record of this task"));
        }
    }
    disagreements(&replay.timeline, &mut notes);
    twins(&replay.calls, &mut notes);
    unfinished(replay, &mut notes);
    unheard_of(replay, &mut notes);
    notes
}

/// Tiers that say different things about who asked and why.
fn disagreements(timeline: &[Step], notes: &mut Vec<String>) {
    let (mut requesters, mut reasons) = (BTreeSet::new(), BTreeSet::new());
    for step in timeline {
        requesters.extend(step.record.requester.as_ref().map(|r| (&r.brain, &r.person)));
        reasons.extend(step.record.reason.as_ref());
    }
    for (what, count) in [("who asked", requesters.len()), ("why", reasons.len())] {
        if count > 1 {
            notes.push(format!("the records name {count} different answers to {what}"));
        }
    }
}

/// Requests that were given one id: no honest relay does that.
fn twins(calls: &[Call], notes: &mut Vec<String>) {
    let mut counts: BTreeMap<&RequestId, usize> = BTreeMap::new();
    for call in calls {
        *counts.entry(&call.request_id).or_default() += 1;
    }
    for (id, count) in counts.into_iter().filter(|(_, count)| *count > 1) {
        notes.push(format!("{count} different requests have the id {id}"));
    }
}

/// Things that were announced and never told the end of.
fn unfinished(replay: &Replay, notes: &mut Vec<String>) {
    for (begin, end) in [(Event::Intent, Event::Result), (Event::Request, Event::Outcome)] {
        let mut open: Vec<&Step> = Vec::new();
        for step in &replay.timeline {
            let of_it = |other: &&Step| {
                let same = other.head.log == step.head.log && other.record.request_id == step.record.request_id;
                same && other.record.request_sha256 == step.record.request_sha256
            };
            if step.record.event == begin {
                open.push(step);
            } else if step.record.event == end
                && let Some(at) = open.iter().position(of_it)
            {
                open.remove(at);
            }
        }
        let [begin, end] = [begin, end].map(Event::as_str);
        notes.extend(
            open.iter()
                .map(|step| format!("{}: {begin} without {end}: what became of it is unknown", step.place())),
        );
    }
}

/// What a target did that the logs of the other tiers, where they were given, do not know.
fn unheard_of(replay: &Replay, notes: &mut Vec<String>) {
    let given = |tier| replay.logs.iter().any(|log| log.tier == Some(tier));
    let said = |tier| {
        replay
            .timeline
            .iter()
            .filter(move |step| step.tier == tier)
            .map(|step| &step.record)
    };
    let requests: BTreeSet<_> = said(Tier::Relay)
        .filter_map(|record| record.request_id.as_ref())
        .collect();
    let serials: BTreeSet<_> = said(Tier::Ca)
        .filter_map(|record| Some(record.cert.as_ref()?.serial.as_str()))
        .collect();
    for step in replay.timeline.iter().filter(|step| step.record.event == Event::Intent) {
        let at = step.place();
        let unasked = step.record.request_id.as_ref().is_some_and(|id| !requests.contains(id));
        if given(Tier::Relay) && unasked {
            notes.push(format!("{at}: no relay's log has this request"));
        }
        let serial = step.record.cert.as_ref().map(|cert| cert.serial.as_str());
        if given(Tier::Ca) && serial.is_some_and(|serial| !serials.contains(serial)) {
            notes.push(format!("{at}: no CA's log has this certificate"));
        }
    }
}
