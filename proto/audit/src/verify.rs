//! Verification: are these files whole logs, unchanged since they were written?
//!
//! Needs the files and nothing else. Fails closed: what is missing, empty, unreadable or without a genesis line is a
//! fault. What a chain alone cannot show is that its end is missing, or that all of it was written anew. For that there are
//! the heads that others vouch for: those that the logs given carry of each other, and those that the caller brings.
//!
//! Bytes without a newline at the very end of a log are noted and no fault. A crash leaves them, no record with them was
//! ever answered, and who can cut a log's end can do it between two lines as well: only a head shows either.

mod files;
mod heads;
mod join;
mod witness;

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use wire::ids::{Head, LogId, TaskId};

use crate::record::{Record, Tier, Torn};
use crate::segment::{Look, Segment};

use files::{each, files};
pub use heads::Expected;
use heads::{Class, Missing};
pub(crate) use heads::{Heads, Vouching};
use join::{group, join};
use witness::{Gathered, gather};

/// How much of a list is told in a note.
const TOLD: usize = 8;

/// What was found in the logs given.
#[derive(Debug, Serialize)]
pub struct Report {
    /// True when at least one log was given, all are whole, and nothing could not be read.
    pub ok: bool,
    /// Each log.
    pub logs: Vec<LogReport>,
    /// What is wrong with what was given, beside what is wrong within a log.
    pub faults: Vec<Fault>,
    /// What is not wrong, and must be known all the same.
    pub notes: Vec<String>,
}

/// What was found in one log.
#[derive(Debug, Serialize)]
pub struct LogReport {
    /// Its id; absent when no record could be read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log: Option<LogId>,
    /// Which tier wrote it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tier: Option<Tier>,
    /// Which of that tier.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub host: Option<String>,
    /// How many segments were given.
    pub segments: u64,
    /// How many bytes they hold, up to a fault.
    pub bytes: u64,
    /// How many records were verified.
    pub records: u64,
    /// Who vouches for records of this log, and up to which.
    pub vouched: Vec<Vouched>,
    /// How many of the records nobody vouches for: those behind the highest head. They could be cut off unseen.
    pub unwitnessed: u64,
    /// Number of the first record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_seq: Option<u64>,
    /// The last record before any fault: number and hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// How many torn writes are set aside and named by a later record.
    pub torn_writes: u64,
    /// Every place where torn bytes stand instead of records, also at the end. A crash leaves them before anything was
    /// answered; whoever cuts a log can leave them too, and the files alone do not tell one from the other.
    pub torn: Vec<TornPlace>,
    /// Bytes without a newline at the end: a write that was cut off and never answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torn_tail: Option<Torn>,
    /// The first thing that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
}

/// Somebody vouches for a log up to a record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Vouched {
    /// The log whose records hold the head; absent for the caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<LogId>,
    /// The highest number.
    pub seq: u64,
}

/// Torn bytes, and the numbers that they keep from being used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct TornPlace {
    /// The first number.
    pub seq: u64,
    /// How many numbers in a row.
    pub numbers: u64,
    /// How many bytes.
    pub bytes: u64,
}

impl TornPlace {
    fn holds(&self, seq: u64) -> bool {
        seq >= self.seq && seq - self.seq < self.numbers
    }
}

impl LogReport {
    /// What torn bytes leave open, when there are any.
    fn torn_note(&self) -> Option<String> {
        let (numbers, bytes) = self.torn.iter().fold((0, 0), |(numbers, bytes), place| {
            (numbers + place.numbers, bytes + place.bytes)
        });
        let mut places: Vec<_> = self.torn.iter().take(TOLD).map(TornPlace::to_string).collect();
        if self.torn.len() > TOLD {
            places.push(format!("{} more places", self.torn.len() - TOLD));
        }
        (numbers > 0).then(|| {
            format!(
                "log {}: torn bytes at {} ({numbers} numbers, {bytes} bytes): whatever was answered before must be proven by heads",
                self.log.as_ref().map_or("?", LogId::as_str),
                places.join(", "),
            )
        })
    }
}

impl fmt::Display for TornPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.seq)?;
        if self.numbers > 1 {
            write!(f, "..{}", self.seq + self.numbers - 1)?;
        }
        Ok(())
    }
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// What kind of thing.
    pub kind: Kind,
    /// The first record that cannot be relied on; absent where no number is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The file, where it is about one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub segment: Option<PathBuf>,
    /// In words.
    pub what: String,
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// No log was given, or a folder without segments.
    NoLog,
    /// A file or folder cannot be read.
    Unreadable,
    /// The log does not begin with its genesis line.
    NotAnchored,
    /// A record is not the one that the next was written after.
    ChainBroken,
    /// A record is missing.
    SeqGap,
    /// A number stands twice.
    DuplicateSeq,
    /// A line is no record.
    Malformed,
    /// A record of another log stands here.
    Foreign,
    /// A line without an end inside of the log that no record names, or another than it names.
    TornInMiddle,
    /// A record is not the one that somebody vouches for.
    HeadDiffers,
    /// A record that somebody vouches for is not there.
    HeadMissing,
}

impl Kind {
    /// The word of the report.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NoLog => "no_log",
            Self::Unreadable => "unreadable",
            Self::NotAnchored => "not_anchored",
            Self::ChainBroken => "chain_broken",
            Self::SeqGap => "seq_gap",
            Self::DuplicateSeq => "duplicate_seq",
            Self::Malformed => "malformed",
            Self::Foreign => "foreign",
            Self::TornInMiddle => "torn_in_middle",
            Self::HeadDiffers => "head_differs",
            Self::HeadMissing => "head_missing",
        }
    }
}

/// Judges logs, given as segments and as folders of segments, in any order; one call may be given many logs.
#[must_use]
pub fn verify(paths: &[PathBuf], expected: &Expected) -> Report {
    examine(paths, expected, None).0
}

/// [`verify`], and the records of one task, log after log in the order of the report.
pub(crate) fn examine(
    paths: &[PathBuf],
    expected: &Expected,
    task: Option<&TaskId>,
) -> (Report, Vec<Vec<(Record, Head)>>) {
    in_rounds(paths, expected, task, heads::ROOM)
}

/// One round, or as many as it takes when not all heads fit into `room`. The first that finds something wrong is the last.
fn in_rounds(
    paths: &[PathBuf],
    expected: &Expected,
    task: Option<&TaskId>,
    room: usize,
) -> (Report, Vec<Vec<(Record, Head)>>) {
    let mut left = vec![Class::default()];
    loop {
        let gathered = gather(paths, expected, left.pop().unwrap_or_default(), room);
        left.extend(&gathered.left);
        let done = round(paths, &gathered, task);
        if !done.0.ok || left.is_empty() {
            return done;
        }
    }
}

/// Judges logs, and whether they hold what was vouched for.
fn round(paths: &[PathBuf], gathered: &Gathered, task: Option<&TaskId>) -> (Report, Vec<Vec<(Record, Head)>>) {
    let (files, mut faults) = files(paths);
    let heads = &gathered.heads;
    let look = Look {
        heads,
        task: task.map(|task| (task, memchr::memmem::Finder::new(task.as_str().as_bytes()))),
    };
    let mut segments = Vec::new();
    let mut unread: BTreeMap<_, _> = gathered.unread.iter().collect();
    for (path, read) in files.iter().zip(each(&files, |path| Segment::read(path, &look))) {
        match read {
            Ok(segment) => segments.push(segment),
            Err(error) => {
                faults.push(unreadable(path, &error));
                unread.remove(path);
            }
        }
    }
    faults.extend(unread.into_iter().map(|(path, error)| unreadable(path, error)));
    let (mut logs, found): (Vec<_>, Vec<_>) = group(segments).into_iter().map(join).unzip();
    for report in &mut logs {
        report.vouched = report.log.as_ref().map(|log| heads.vouched(log)).unwrap_or_default();
    }
    if logs.is_empty() && faults.is_empty() {
        faults.push(Fault {
            kind: Kind::NoLog,
            seq: None,
            segment: None,
            what: "no log was given".to_owned(),
        });
    }
    faults.extend(heads.missing().iter().filter_map(|missing| not_there(missing, &logs)));
    let ok = faults.is_empty() && logs.iter().all(|log| log.fault.is_none());
    let notes = notes(&logs, heads);
    let report = Report {
        ok,
        logs,
        faults,
        notes,
    };
    (report, found)
}

/// What verification leaves open.
fn notes(logs: &[LogReport], heads: &Heads) -> Vec<String> {
    let mut notes: Vec<String> = logs.iter().filter_map(LogReport::torn_note).collect();
    // Alone no log is vouched for. Among others it may be one that was put in another's place.
    let lonely = |log: &&LogReport| logs.len() > 1 && log.vouched.is_empty();
    notes.extend(logs.iter().filter(lonely).map(|log| {
        let id = log.log.as_ref().map_or("?", LogId::as_str);
        format!("log {id}: nobody vouches for any of it")
    }));
    let mut absent: Vec<_> = heads
        .absent()
        .map(|(log, seq, by)| format!("log {log}: not given, and log {by} vouches for it up to record {seq}"))
        .collect();
    if absent.len() > TOLD {
        let more = absent.split_off(TOLD).len();
        absent.push(format!("{more} more logs that others vouch for were not given"));
    }
    notes.extend(absent);
    notes
}

/// What is wrong when a head was not there; nothing where its log has a fault that may have hidden it.
fn not_there(missing: &Missing<'_>, logs: &[LogReport]) -> Option<Fault> {
    let Missing { log, seq, by, more } = missing;
    let found = logs.iter().find(|report| report.log.as_ref() == Some(log));
    if found.is_some_and(|found| found.fault.is_some()) {
        return None;
    }
    let torn = found.is_some_and(|found| found.torn.iter().any(|place| place.holds(*seq)));
    let why = match found.and_then(|found| found.head.as_ref()) {
        _ if torn => "torn bytes hold its number".to_owned(),
        Some(last) => format!("the log ends with record {}", last.seq),
        None => "the log was not given".to_owned(),
    };
    let mut what = format!("record {seq} of log {log} is not there, and {by} vouches for it: {why}");
    if *more > 0 {
        let _ = write!(what, "; nor are {more} more that were vouched for");
    }
    Some(Fault {
        kind: Kind::HeadMissing,
        seq: Some(*seq),
        segment: None,
        what,
    })
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    Fault {
        kind: Kind::Unreadable,
        seq: None,
        segment: Some(path.to_owned()),
        what: error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::{Log, Who};
    use crate::record::{Draft, Event, Witness};
    use crate::rights::Own;

    #[test]
    fn in_many_rounds_as_in_one_every_head_is_looked_for() {
        let dir = tempfile::tempdir().unwrap();
        let paths = [Tier::Relay, Tier::Target].map(|tier| dir.path().join(tier.as_str()));
        let open = |tier: Tier| {
            let folder = dir.path().join(tier.as_str());
            std::fs::create_dir(&folder).unwrap();
            let who = Who {
                tier,
                host: "a".to_owned(),
                build: "test".to_owned(),
            };
            Log::open(&folder, &folder.with_extension("lock"), who, Box::new(Own)).unwrap()
        };
        let (mut relay, mut target) = (open(Tier::Relay), open(Tier::Target));
        let mut add = |head: Option<Head>| {
            let target = Some(head.unwrap_or_else(|| target.append(&Draft::new(Event::Stop)).unwrap()));
            let witness = Some(Witness {
                target,
                ..Witness::default()
            });
            let outcome = Draft {
                witness,
                ..Draft::new(Event::Outcome)
            };
            relay.append(&outcome).unwrap();
        };
        (0..100).for_each(|_| add(None));
        let look = |room| in_rounds(&paths, &Expected::default(), None, room).0;
        for room in [4, 16, 64, 1000] {
            assert!(look(room).ok, "room for {room}");
        }
        let of_target = |log: &LogReport| log.head.clone().filter(|_| log.tier == Some(Tier::Target));
        let head = look(1000).logs.iter().find_map(of_target).unwrap();
        let invented = Head { seq: 202, ..head };
        add(Some(invented));
        for room in [4, 16, 64, 1000] {
            let report = look(room);
            assert_eq!(
                (report.faults.len(), report.faults[0].seq),
                (1, Some(202)),
                "room for {room}"
            );
        }
    }
}
