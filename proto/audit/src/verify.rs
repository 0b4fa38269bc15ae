//! Verification: are these files whole logs, unchanged since they were written?
//!
//! Needs the files and nothing else. Fails closed: what is missing, empty, unreadable or without a genesis line is a
//! fault. What a chain alone cannot show is that its end is missing; for that, give it the heads that others vouch for.
//!
//! Bytes without a newline at the very end of a log are noted and no fault. A crash leaves them, no record with them was
//! ever answered, and who can cut a log's end can do it between two lines as well: only a head shows either.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde::Serialize;
use sha2::{Digest as _, Sha256};
use wire::ids::{Digest, Head, LogId, TaskId};

use crate::record::{Record, Tier, Torn};
use crate::segment::{Look, Segment};

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
    for (path, read) in files.iter().zip(read_all(&files, &look)) {
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

/// All segments that are meant, each once.
fn files(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<Fault>) {
    let (mut files, mut faults) = (Vec::new(), Vec::new());
    for path in paths {
        let found = if path.is_dir() {
            list(path)
        } else {
            path.canonicalize().map(|path| vec![path])
        };
        match found {
            Ok(found) if found.is_empty() => {
                let what = "a folder without segments".to_owned();
                faults.push(Fault {
                    kind: Kind::NoLog,
                    seq: None,
                    segment: Some(path.clone()),
                    what,
                });
            }
            Ok(found) => files.extend(found),
            Err(error) => faults.push(unreadable(path, &error)),
        }
    }
    files.sort();
    files.dedup();
    (files, faults)
}

/// Everything in a folder that says it is a segment: also what is not named like one, to be found wanting.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in folder.canonicalize()?.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            found.push(path);
        }
    }
    Ok(found)
}

/// Reads segments side by side: their order plays no part before they are joined.
fn read_all(files: &[PathBuf], look: &Look<'_>) -> Vec<io::Result<Segment>> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut done = Vec::new();
        while let at = next.fetch_add(1, Ordering::Relaxed)
            && let Some(path) = files.get(at)
        {
            done.push((at, Segment::read(path, look)));
        }
        done
    };
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8)
        .min(files.len());
    let mut done: Vec<_> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let mut done = work();
        for other in others {
            // A worker that panicked leaves its files unread, which the count below turns into a failure.
            done.extend(other.join().unwrap_or_default());
        }
        done
    });
    done.sort_by_key(|(at, _)| *at);
    let mut read: Vec<_> = done.into_iter().map(|(_, read)| read).collect();
    read.resize_with(files.len(), || Err(io::Error::other("not read")));
    read
}

/// Segments by log, each log's in order. One without a record belongs to the log in whose folder it lies.
fn group(segments: Vec<Segment>) -> Vec<Vec<Segment>> {
    let (named, nameless): (Vec<_>, Vec<_>) = segments.into_iter().partition(|segment| segment.log.is_some());
    let mut logs: Vec<Vec<Segment>> = Vec::new();
    for segment in named {
        match logs.iter_mut().find(|log| log[0].log == segment.log) {
            Some(log) => log.push(segment),
            None => logs.push(vec![segment]),
        }
    }
    for segment in nameless {
        let near = |other: &Segment| other.path.parent() == segment.path.parent();
        match logs.iter_mut().find(|log| log.iter().any(near)) {
            Some(log) => log.push(segment),
            None => logs.push(vec![segment]),
        }
    }
    for log in &mut logs {
        log.sort_by_key(|segment| segment.first);
    }
    logs
}

/// Judges what must be true between the segments of one log.
fn join(segments: Vec<Segment>) -> (LogReport, Vec<(Record, Head)>) {
    let mut report = LogReport {
        log: segments.iter().find_map(|s| s.log.clone()),
        tier: segments.iter().find_map(|s| s.tier),
        host: segments.iter().find_map(|s| s.host.clone()),
        segments: segments.len() as u64,
        bytes: segments.iter().map(|s| s.bytes).sum(),
        records: 0,
        first_seq: None,
        head: None,
        torn_writes: 0,
        torn_tail: None,
        fault: None,
    };
    let mut found = Vec::new();
    let mut seam = Seam {
        next: segments[0].first.unwrap_or(0),
        torn: None,
    };
    let count = segments.len();
    for (at, segment) in segments.into_iter().enumerate() {
        if report.fault.is_none() {
            report.fault = seam.fault(&segment, report.head.as_ref(), at + 1 == count);
        }
        if report.fault.is_none() {
            if let Some(begin) = &segment.begin {
                report.first_seq.get_or_insert(begin.seq);
                report.torn_writes += u64::from(begin.torn.is_some());
            }
            report.records += segment.records;
            seam.pass(&segment);
            report.head = segment.end.or(report.head);
            report.fault = segment.fault;
        }
        // What was written is worth reading even where it cannot be relied on.
        found.extend(segment.found);
    }
    if report.fault.is_none() {
        report.torn_tail = seam.torn();
        if report.head.is_none() {
            let what = "no record".to_owned();
            report.fault = Some(Fault {
                kind: Kind::NotAnchored,
                seq: None,
                segment: None,
                what,
            });
        }
    }
    (report, found)
}

/// What the next segment must continue.
struct Seam {
    /// The number of its first record.
    next: u64,
    /// Torn bytes that no record names yet: where they begin, how many, their hash.
    torn: Option<(u64, u64, Sha256)>,
}

impl Seam {
    fn torn(&self) -> Option<Torn> {
        let (segment, bytes, hash) = self.torn.clone()?;
        Some(Torn {
            segment,
            bytes,
            sha256: Digest::from_bytes(&hash.finalize().into()),
        })
    }

    /// What is wrong with how a segment continues the log.
    fn fault(&self, segment: &Segment, last: Option<&Head>, is_last: bool) -> Option<Fault> {
        let fault = |kind, seq, what: &str| {
            Some(Fault {
                kind,
                seq: Some(seq),
                segment: Some(segment.path.clone()),
                what: what.to_owned(),
            })
        };
        let first = segment.first.unwrap_or(0);
        if let Some(begin) = &segment.begin {
            match last {
                None if !begin.genesis => return fault(Kind::NotAnchored, first, "no genesis line before it"),
                Some(_) if begin.genesis => return fault(Kind::DuplicateSeq, first, "a second genesis line"),
                _ => {}
            }
        }
        if let (Some(torn), Some(begin)) = (self.torn(), &segment.begin)
            && begin.torn.as_ref() != Some(&torn)
        {
            let at = last.map_or(torn.segment, |last| last.seq + 1);
            return fault(
                Kind::TornInMiddle,
                at,
                "the line that ends before it is torn, and it does not say so",
            );
        }
        if first > self.next {
            return fault(
                Kind::SeqGap,
                self.next,
                &format!("the segment begins with {first}, not with {}", self.next),
            );
        }
        if first < self.next {
            return fault(
                Kind::DuplicateSeq,
                first,
                &format!("the segment begins with {first}, not with {}", self.next),
            );
        }
        let Some(begin) = &segment.begin else {
            let empty = segment.bytes == 0 && !is_last;
            return if empty {
                fault(Kind::SeqGap, first, "an empty segment within the log")
            } else {
                None
            };
        };
        if let Some(last) = last
            && begin.prev != last.hash
        {
            let what = format!(
                "record {} is not the line that record {first} was written after",
                last.seq
            );
            return fault(Kind::ChainBroken, last.seq, &what);
        }
        if begin.torn.is_some() && self.torn.is_none() {
            return fault(Kind::TornInMiddle, first, "it names torn bytes that are not there");
        }
        None
    }

    fn pass(&mut self, segment: &Segment) {
        if let Some(end) = &segment.end {
            self.next = end.seq + 1;
            self.torn = None;
        }
        if !segment.rest.is_empty() {
            let begin = segment.first.unwrap_or(0);
            let (_, bytes, hash) = self.torn.get_or_insert_with(|| (begin, 0, Sha256::new()));
            *bytes += segment.rest.len() as u64;
            hash.update(&segment.rest);
            self.next += 1;
        }
    }
}
