//! Verification: are these files whole logs, unchanged since they were written?
//!
//! Needs the files and nothing else. Fails closed: what is missing, empty, unreadable or without a genesis line is a
//! fault. What a chain alone cannot show is that its end is missing; for that, give it the heads that others vouch for.
//!
//! Bytes without a newline at the very end of a log are noted and no fault. A crash leaves them, no record with them was
//! ever answered, and who can cut a log's end can do it between two lines as well: only a head shows either.

mod files;
mod join;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use serde::Serialize;
use wire::ids::{Digest, Head, LogId, TaskId};

use crate::record::{Record, Tier, Torn};
use crate::segment::{Look, Segment};

use files::{each, files};
use join::{group, join};

/// What was found in the logs given.
#[derive(Debug, Serialize)]
pub struct Report {
    /// True when at least one log was given, all are whole, and nothing could not be read.
    pub ok: bool,
    /// Each log.
    pub logs: Vec<LogReport>,
    /// What is wrong with what was given, beside what is wrong within a log.
    pub faults: Vec<Fault>,
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
    /// Number of the first record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_seq: Option<u64>,
    /// The last record before any fault: number and hash.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub head: Option<Head>,
    /// How many torn writes are set aside and named by a later record.
    pub torn_writes: u64,
    /// Bytes without a newline at the end: a write that was cut off and never answered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub torn_tail: Option<Torn>,
    /// The first thing that is wrong.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<Fault>,
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

/// Heads that somebody vouches for, which the logs must hold.
#[derive(Debug, Default)]
pub struct Expected(BTreeMap<String, BTreeMap<u64, Digest>>, Vec<Head>);

impl Expected {
    /// From heads.
    pub fn new(heads: impl IntoIterator<Item = Head>) -> Self {
        let mut expected = Self::default();
        for head in heads {
            let log = expected.0.entry(head.log.as_str().to_owned()).or_default();
            // Two heads with one number and two hashes: no log can hold both, so the first to be found differs.
            log.entry(head.seq)
                .and_modify(|hash| {
                    if *hash != head.hash {
                        *hash = Digest::zero()
                    }
                })
                .or_insert_with(|| head.hash.clone());
            expected.1.push(head);
        }
        expected
    }

    pub(crate) fn contradicts(&self, head: &Head) -> bool {
        !self.0.is_empty()
            && self
                .0
                .get(head.log.as_str())
                .and_then(|log| log.get(&head.seq))
                .is_some_and(|hash| *hash != head.hash)
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
    let (files, mut faults) = files(paths);
    let look = Look {
        expected,
        task: task.map(|task| (task, memchr::memmem::Finder::new(task.as_str().as_bytes()))),
    };
    let mut segments = Vec::new();
    for (path, read) in files.iter().zip(each(&files, |path| Segment::read(path, &look))) {
        match read {
            Ok(segment) => segments.push(segment),
            Err(error) => faults.push(unreadable(path, &error)),
        }
    }
    let (logs, found): (Vec<_>, Vec<_>) = group(segments).into_iter().map(join).unzip();
    if logs.is_empty() && faults.is_empty() {
        faults.push(Fault {
            kind: Kind::NoLog,
            seq: None,
            segment: None,
            what: "no log was given".to_owned(),
        });
    }
    for head in &expected.1 {
        let log = logs
            .iter()
            .find(|report: &&LogReport| report.log.as_ref() == Some(&head.log));
        let there =
            log.is_some_and(|log| log.fault.is_some() || log.head.as_ref().is_some_and(|last| last.seq >= head.seq));
        if !there {
            let what = format!(
                "record {} of log {} is not there, and somebody vouches for it",
                head.seq, head.log
            );
            faults.push(Fault {
                kind: Kind::HeadMissing,
                seq: Some(head.seq),
                segment: None,
                what,
            });
        }
    }
    let ok = faults.is_empty() && logs.iter().all(|log| log.fault.is_none());
    (Report { ok, logs, faults }, found)
}

fn unreadable(path: &Path, error: &io::Error) -> Fault {
    Fault {
        kind: Kind::Unreadable,
        seq: None,
        segment: Some(path.to_owned()),
        what: error.to_string(),
    }
}
