//! What is done to one tier's log shows against the logs of the others, which hold its heads.
//!
//! The attacks are those of docs/threat-model.md, each twice where it can be: as the edit of a file, and with all records
//! behind it chained anew, as somebody does it who owns the machine. REQ-RECORD-15, REQ-RECORD-16.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::path::PathBuf;

use audit::{Draft, Event, Expected, Fault, Kind, Log, LogReport, Own, Report, Tier, Who, Witness, verify};
use wire::ids::{Digest, Head};

const CALLS: u64 = 8;

/// The logs of a relay, a CA and a target in which calls were recorded.
struct World {
    dir: tempfile::TempDir,
    relay: Log,
    ca: Log,
    target: Log,
    /// The target's head in the answer to each call.
    answers: Vec<Head>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let [relay, ca, target] = [Tier::Relay, Tier::Ca, Tier::Target].map(|tier| {
            std::fs::create_dir(dir.path().join(tier.as_str())).unwrap();
            open(&dir, tier)
        });
        let mut world = Self {
            dir,
            relay,
            ca,
            target,
            answers: Vec::new(),
        };
        (0..CALLS).for_each(|call| world.call(call));
        world
    }

    /// One call. The target's records of call N, counted from 0, are 2N + 2 and 2N + 3; two calls are a task.
    fn call(&mut self, number: u64) {
        let draft = |event, witness| Draft {
            task_id: Some(task(number / 2)),
            request_id: Some(format!("0192e4a0-7f00-7000-8001-{number:012}").parse().unwrap()),
            witness: Some(witness),
            ..Draft::new(event)
        };
        let none = Witness::default;
        let asked = self.relay.append(&draft(Event::Open, none())).unwrap();
        let target = self.answers.last().cloned();
        let known = Witness {
            relay: Some(asked.clone()),
            target,
            ..none()
        };
        let issued = self.ca.append(&draft(Event::Issue, known)).unwrap();
        self.relay.append(&draft(Event::Request, none())).unwrap();
        let signed = Witness {
            relay: Some(asked),
            ca: Some(issued),
            ..none()
        };
        self.target.append(&draft(Event::Intent, signed.clone())).unwrap();
        let answer = self.target.append(&draft(Event::Result, signed)).unwrap();
        self.answers.push(answer.clone());
        self.outcome(number, answer);
    }

    /// What the relay says that the target answered.
    fn outcome(&mut self, number: u64, target: Head) {
        let draft = Draft {
            task_id: Some(task(number / 2)),
            witness: Some(Witness {
                target: Some(target),
                ..Witness::default()
            }),
            ..Draft::new(Event::Outcome)
        };
        self.relay.append(&draft).unwrap();
    }

    fn file(&self, tier: Tier) -> PathBuf {
        self.dir.path().join(tier.as_str()).join("00000000000000000001.jsonl")
    }

    fn lines(&self, tier: Tier) -> Vec<String> {
        let text = std::fs::read_to_string(self.file(tier)).unwrap();
        text.split_inclusive('\n').map(str::to_owned).collect()
    }

    fn lay(&self, lines: &[String]) {
        std::fs::write(self.file(Tier::Target), lines.concat()).unwrap();
    }

    fn of(&self, tiers: &[Tier]) -> Report {
        let paths: Vec<_> = tiers.iter().map(|tier| self.dir.path().join(tier.as_str())).collect();
        verify(&paths, &Expected::default())
    }

    fn report(&self) -> Report {
        self.of(&[Tier::Relay, Tier::Ca, Tier::Target])
    }

    /// The one thing that is wrong.
    fn fault(&self) -> Option<(Kind, Option<u64>)> {
        only(&self.report()).map(|fault| (fault.kind, fault.seq))
    }

    /// The target's log becomes `lines`, as they are and chained anew; each is found as it must be.
    fn attack(&self, lines: &[String], by_chain: (Kind, u64), by_heads: (Kind, u64)) {
        let before = self.lines(Tier::Target);
        assert_eq!(self.fault(), None);
        self.lay(lines);
        assert_eq!(self.fault(), Some((by_chain.0, Some(by_chain.1))), "as it is");
        self.lay(&chained(lines));
        assert!(self.of(&[Tier::Target]).ok, "a chain alone cannot know");
        assert_eq!(self.fault(), Some((by_heads.0, Some(by_heads.1))), "chained anew");
        self.lay(&before);
    }
}

fn task(number: u64) -> wire::ids::TaskId {
    format!("0192e4a0-7f00-7000-8000-{number:012}").parse().unwrap()
}

fn open(dir: &tempfile::TempDir, tier: Tier) -> Log {
    let who = Who {
        tier,
        host: format!("{}-1", tier.as_str()),
        build: "test".to_owned(),
    };
    let folder = dir.path().join(tier.as_str());
    Log::open(&folder, &folder.with_extension("lock"), who, Box::new(Own)).unwrap()
}

fn only(report: &Report) -> Option<Fault> {
    let in_logs = report.logs.iter().filter_map(|log| log.fault.clone());
    let faults: Vec<_> = in_logs.chain(report.faults.iter().cloned()).collect();
    assert_eq!(faults.is_empty(), report.ok);
    assert!(faults.len() < 2, "{faults:?}");
    faults.into_iter().next()
}

fn log_of(report: &Report, tier: Tier) -> &LogReport {
    report.logs.iter().find(|log| log.tier == Some(tier)).unwrap()
}

/// The lines with numbers and hashes that fit, as whoever owns the machine can write them.
fn chained(lines: &[String]) -> Vec<String> {
    let mut chained: Vec<String> = Vec::new();
    for line in lines {
        let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
        let [seq, prev] = ["seq", "prev"].map(|key| record[key].take().to_string());
        let last = chained
            .last()
            .map_or_else(Digest::zero, |last| Digest::of(last.as_bytes()));
        let line = line.replacen(
            &format!("\"seq\":{seq},"),
            &format!("\"seq\":{},", chained.len() + 1),
            1,
        );
        chained.push(line.replacen(&prev, &format!("\"{last}\""), 1));
    }
    chained
}

#[test]
fn logs_that_were_left_alone_vouch_for_each_other() {
    let world = World::new();
    let report = world.report();
    assert!(report.ok, "{report:?}");
    assert_eq!(report.notes, Vec::<String>::new());
    let [relay, ca, target] = [Tier::Relay, Tier::Ca, Tier::Target].map(|tier| log_of(&report, tier));
    let vouched = |log: &LogReport| -> Vec<_> {
        let mut vouched: Vec<_> = log
            .vouched
            .iter()
            .map(|vouched| (vouched.by.clone(), vouched.seq))
            .collect();
        vouched.sort();
        vouched
    };
    let by = |pairs: &[(&LogReport, u64)]| -> Vec<_> {
        let mut pairs: Vec<_> = pairs.iter().map(|(log, seq)| (log.log.clone(), *seq)).collect();
        pairs.sort();
        pairs
    };
    // The relay: 1 genesis, 3 a call; the CA: 1 and 1; the target: 1 and 2, of which the CA heard one call later.
    assert_eq!(vouched(target), by(&[(relay, 2 * CALLS + 1), (ca, 2 * CALLS - 1)]));
    assert_eq!(vouched(relay), by(&[(ca, 3 * CALLS - 1), (target, 3 * CALLS - 1)]));
    assert_eq!(vouched(ca), by(&[(target, CALLS + 1)]));
    assert_eq!([relay.unwitnessed, ca.unwitnessed, target.unwitnessed], [2, 0, 0]);
}

/// REQ-RECORD-18.
#[test]
fn what_nobody_vouches_for_is_counted() {
    let mut world = World::new();
    for _ in 0..3 {
        world.target.append(&Draft::new(Event::Strangers)).unwrap();
    }
    let report = world.report();
    assert_eq!((report.ok, log_of(&report, Tier::Target).unwitnessed), (true, 3));
    let alone = world.of(&[Tier::Target]);
    let target = log_of(&alone, Tier::Target);
    assert_eq!((target.unwitnessed, target.vouched.len()), (target.records, 0));
    let head = world.answers.last().unwrap().clone();
    let paths = [world.dir.path().join("target")];
    let with_head = verify(&paths, &Expected::new([head.clone()]));
    let target = log_of(&with_head, Tier::Target);
    assert_eq!(target.unwitnessed, 3);
    assert_eq!((target.vouched[0].by.clone(), target.vouched[0].seq), (None, head.seq));
}

#[test]
fn edit_old() {
    let world = World::new();
    let mut lines = world.lines(Tier::Target);
    lines[5] = lines[5].replace("target-1", "target-2");
    world.attack(&lines, (Kind::ChainBroken, 6), (Kind::HeadDiffers, 7));
}

#[test]
fn insert() {
    let world = World::new();
    let mut lines = world.lines(Tier::Target);
    lines.insert(5, lines[5].clone());
    world.attack(&lines, (Kind::DuplicateSeq, 6), (Kind::HeadDiffers, 7));
}

#[test]
fn delete() {
    let world = World::new();
    let mut lines = world.lines(Tier::Target);
    lines.remove(5);
    world.attack(&lines, (Kind::SeqGap, 6), (Kind::HeadDiffers, 7));
}

#[test]
fn delete_the_last_answer() {
    let world = World::new();
    let lines = world.lines(Tier::Target);
    let last = lines.len() as u64;
    world.lay(&lines[..lines.len() - 1]);
    assert_eq!(world.fault(), Some((Kind::HeadMissing, Some(last))));
}

#[test]
fn swap_two() {
    let world = World::new();
    let mut lines = world.lines(Tier::Target);
    lines.swap(5, 6);
    world.attack(&lines, (Kind::SeqGap, 6), (Kind::HeadDiffers, 7));
}

#[test]
fn delete_whole_task() {
    let world = World::new();
    let lines = world.lines(Tier::Target);
    let of_task = |line: &&String| line.contains(task(1).as_str());
    assert_eq!(lines.iter().filter(of_task).count(), 4);
    let kept: Vec<_> = lines.iter().filter(|line| !of_task(line)).cloned().collect();
    world.attack(&kept, (Kind::SeqGap, 6), (Kind::HeadDiffers, 7));
    // The last task: nothing follows it that could differ.
    let kept: Vec<_> = lines
        .iter()
        .filter(|line| !line.contains(task(3).as_str()))
        .cloned()
        .collect();
    world.lay(&kept);
    assert_eq!(world.fault(), Some((Kind::HeadMissing, Some(15))));
}

#[test]
fn rollback_snapshot() {
    let mut world = World::new();
    let snapshot = world.lines(Tier::Target);
    world.call(CALLS);
    world.lay(&snapshot);
    assert!(world.of(&[Tier::Target]).ok, "a chain alone cannot know");
    assert_eq!(world.fault(), Some((Kind::HeadMissing, Some(2 * CALLS + 3))));
}

#[test]
fn truncate_then_resume() {
    let mut world = World::new();
    let lines = world.lines(Tier::Target);
    world.lay(&lines[..7]);
    world.target = open(&world.dir, Tier::Target);
    // More calls than were cut, so that the highest head that anybody knows is there.
    (0..2 * CALLS).for_each(|call| world.call(CALLS + call));
    assert!(world.of(&[Tier::Target]).ok, "a chain alone cannot know");
    assert_eq!(world.fault(), Some((Kind::HeadDiffers, Some(9))));
}

#[test]
fn truncate_then_resume_behind_torn_bytes() {
    let mut world = World::new();
    let lines = world.lines(Tier::Target);
    // Record 17, the last answer, has its number kept by one byte.
    std::fs::write(world.file(Tier::Target), lines[..16].concat() + "{").unwrap();
    world.target = open(&world.dir, Tier::Target);
    (0..CALLS).for_each(|call| world.call(CALLS + call));
    assert!(world.of(&[Tier::Target]).ok, "a chain alone cannot know");
    let report = world.report();
    assert_eq!(world.fault(), Some((Kind::HeadMissing, Some(17))));
    let fault = only(&report).unwrap();
    assert!(fault.what.contains("torn bytes hold its number"), "{fault:?}");
    assert!(
        report.notes[0].contains("torn bytes at 17 (1 numbers, 1 bytes)"),
        "{:?}",
        report.notes
    );
}

#[test]
fn relay_invents_head() {
    let last = |world: &World| world.answers.last().unwrap().clone();
    let mut world = World::new();
    let (head, relay) = (last(&world), log_of(&world.report(), Tier::Relay).log.clone().unwrap());
    world.outcome(
        CALLS,
        Head {
            seq: head.seq + 1,
            ..head
        },
    );
    let fault = only(&world.report()).unwrap();
    assert_eq!((fault.kind, fault.seq), (Kind::HeadMissing, Some(2 * CALLS + 2)));
    assert!(fault.what.contains(&format!("log {relay} vouches for it")), "{fault:?}");

    let mut world = World::new();
    let hash = Digest::of(b"invented");
    let head = Head {
        seq: 4,
        hash,
        ..last(&world)
    };
    world.outcome(CALLS, head);
    assert_eq!(world.fault(), Some((Kind::HeadDiffers, Some(4))));
}

#[test]
fn fork_two_callers() {
    // One target, two histories: each caller saw another answer under the same number.
    let mut world = World::new();
    let lines = world.lines(Tier::Target);
    world.call(CALLS);
    let seq = 2 * CALLS + 3;
    let shown = world.lines(Tier::Target);
    world.lay(&lines);
    world.target = open(&world.dir, Tier::Target);
    world.call(CALLS);
    assert_eq!(world.fault(), Some((Kind::HeadDiffers, Some(seq))));
    world.lay(&shown);
    assert_eq!(world.fault(), Some((Kind::HeadDiffers, Some(seq))), "nor the other one");
}

/// REQ-RECORD-18.
#[test]
fn a_log_in_the_place_of_another_is_noted() {
    let mut world = World::new();
    let old = log_of(&world.report(), Tier::Target).log.clone().unwrap();
    std::fs::remove_file(world.file(Tier::Target)).unwrap();
    world.target = open(&world.dir, Tier::Target);
    let report = world.report();
    let new = log_of(&report, Tier::Target).log.clone().unwrap();
    let has = |text: &str| {
        assert!(
            report.notes.iter().any(|note| note.contains(text)),
            "{:?}",
            report.notes
        )
    };
    has(&format!("log {new}: nobody vouches for any of it"));
    has(&format!("log {old}: not given, and log"));
    has("vouches for it up to record 17");
}

#[test]
fn witnesses_are_heard_in_every_segment_and_a_file_that_cannot_be_read_is_a_fault() {
    let mut world = World::new();
    // The relay's log in two segments: those of the first calls, and a link instead of the second.
    let lines = world.lines(Tier::Relay);
    let second = world.dir.path().join("relay").join(format!("{:020}.jsonl", 11));
    std::fs::write(world.file(Tier::Relay), lines[..10].concat()).unwrap();
    std::fs::write(&second, lines[10..].concat()).unwrap();
    assert_eq!(world.fault(), None);
    let target = world.lines(Tier::Target);
    for kept in [2, target.len() - 1] {
        world.lay(&target[..kept]);
        let missing = kept as u64 + 1;
        assert_eq!(world.fault(), Some((Kind::HeadMissing, Some(missing))));
    }
    world.lay(&target);
    world.target = open(&world.dir, Tier::Target);
    std::fs::remove_file(&second).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &second).unwrap();
    assert!(world.report().faults.iter().any(|fault| fault.kind == Kind::Unreadable));
}

/// REQ-RECORD-19.
#[test]
fn a_log_that_is_written_meanwhile_has_no_fault() {
    let mut world = World::new();
    let paths = ["relay", "ca", "target"].map(|tier| world.dir.path().join(tier));
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut looks = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) || looks == 0 {
                let report = verify(&paths, &Expected::default());
                assert!(report.ok, "{report:?}");
                looks += 1;
            }
            looks
        });
        (0..200).for_each(|call| world.call(CALLS + call));
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        println!("{} looks", reader.join().unwrap());
    });
}
