//! What must be true between the segments of one log.

use sha2::{Digest as _, Sha256};
use wire::ids::{Digest, Head};

use super::{Fault, Kind, LogReport, TornPlace};
use crate::record::{Record, Torn};
use crate::segment::Segment;

/// Segments by log, each log's in order. One without a record belongs to the log in whose folder it lies.
pub(super) fn group(segments: Vec<Segment>) -> Vec<Vec<Segment>> {
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
pub(super) fn join(segments: Vec<Segment>) -> (LogReport, Vec<(Record, Head)>) {
    let mut report = LogReport {
        log: segments.iter().find_map(|s| s.log.clone()),
        tier: segments.iter().find_map(|s| s.tier),
        host: segments.iter().find_map(|s| s.host.clone()),
        segments: segments.len() as u64,
        bytes: segments.iter().map(|s| s.bytes).sum(),
        records: 0,
        unwitnessed: 0,
        vouched: Vec::new(),
        first_seq: None,
        head: None,
        torn_writes: 0,
        torn: Vec::new(),
        torn_tail: None,
        fault: None,
    };
    let mut found = Vec::new();
    let first = segments[0].first.unwrap_or(0);
    let mut seam = Seam {
        next: first,
        free: first,
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
                report.torn.extend(seam.place());
            }
            report.records += segment.records;
            report.unwitnessed += segment.unwitnessed;
            seam.pass(&segment);
            report.head = segment.end.or(report.head);
            report.fault = segment.fault;
        }
        // What was written is worth reading even where it cannot be relied on.
        found.extend(segment.found);
    }
    if report.fault.is_none() {
        report.torn_tail = seam.torn();
        report.torn.extend(seam.place());
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
    /// The number behind the last record, from which on there can only be torn bytes: at most `next`.
    free: u64,
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

    /// Where those torn bytes are.
    fn place(&self) -> Option<TornPlace> {
        let (_, bytes, _) = self.torn.as_ref()?;
        Some(TornPlace {
            seq: self.free,
            numbers: self.next - self.free,
            bytes: *bytes,
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
            self.free = self.next;
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
