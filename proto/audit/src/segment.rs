//! One segment of a log, judged by itself: what it holds, and the first thing in it that is wrong.
//!
//! Streams: memory does not grow with the file. What must be true between segments is judged in `verify`.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use memchr::memmem::Finder;
use nix::fcntl::OFlag;
use wire::ids::{Digest, Head, LogId, TaskId};

use crate::folder::first_of;
use crate::record::{Event, MAX_LINE, Record, Tier, Torn};
use crate::tail::head_of;
use crate::verify::{Fault, Heads, Kind, Vouching};

/// How much is read at a time.
const CHUNK: usize = 1 << 20;

/// What a segment's records are looked at for, beside being verified.
pub(crate) struct Look<'a> {
    /// Heads that somebody vouches for.
    pub(crate) heads: &'a Heads,
    /// Keep the records of this task.
    pub(crate) task: Option<(&'a TaskId, Finder<'a>)>,
}

/// What a segment holds.
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    /// The number in its name, or of its first record where it has another name.
    pub(crate) first: Option<u64>,
    pub(crate) log: Option<LogId>,
    pub(crate) tier: Option<Tier>,
    pub(crate) host: Option<String>,
    /// The first record.
    pub(crate) begin: Option<Begin>,
    /// The last record that is as it must be.
    pub(crate) end: Option<Head>,
    pub(crate) records: u64,
    /// How many of them stand behind all that anybody vouches for.
    pub(crate) unwitnessed: u64,
    pub(crate) bytes: u64,
    /// What stands behind the last newline: at most `MAX_LINE` bytes.
    pub(crate) rest: Vec<u8>,
    pub(crate) fault: Option<Fault>,
    /// The records of the task that was looked for, each with its head.
    pub(crate) found: Vec<(Record, Head)>,
}

/// How a segment begins.
pub(crate) struct Begin {
    pub(crate) seq: u64,
    pub(crate) prev: Digest,
    pub(crate) genesis: bool,
    pub(crate) torn: Option<Torn>,
}

/// Opens a segment. Whoever wrote the folder may have laid anything there under a segment's name.
///
/// `O_NONBLOCK`: a FIFO without a writer must not hold the verifier for ever. `O_NOFOLLOW`: a folder holds its segments
/// itself, and a link could lead to a device (a link that was given by name has been resolved before). The type is asked
/// of what was opened, so that nothing can be put in its place in between.
fn open(path: &Path) -> io::Result<File> {
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::other("not a regular file"))
    }
}

/// Where reading a segment came to an end.
pub(crate) struct End {
    /// How many bytes were read.
    bytes: u64,
    /// What stands behind the last line that was looked at. More than `MAX_LINE` bytes: a line that is too long.
    rest: Vec<u8>,
}

/// Shows each line of a segment, with its newline, to `look`, until that says that it has seen enough.
pub(crate) fn lines(path: &Path, mut look: impl FnMut(&[u8]) -> bool) -> io::Result<End> {
    let mut file = open(path)?;
    let mut buffer = vec![0; CHUNK + MAX_LINE];
    let (mut kept, mut bytes) = (0, 0);
    loop {
        let read = match file.read(&mut buffer[kept..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            read => read?,
        };
        bytes += read as u64;
        let whole = &buffer[..kept + read];
        let (mut from, mut enough) = (0, read == 0);
        for at in memchr::memchr_iter(b'\n', whole) {
            enough |= !look(&whole[from..=at]);
            from = at + 1;
            if enough {
                break;
            }
        }
        let rest = from..whole.len();
        if enough || rest.len() > MAX_LINE {
            return Ok(End {
                bytes,
                rest: whole[rest].to_vec(),
            });
        }
        kept = rest.len();
        buffer.copy_within(rest, 0);
    }
}

/// The log that a segment says it belongs to, in its first line.
pub(crate) fn log_of(path: &Path) -> io::Result<Option<LogId>> {
    let mut log = None;
    lines(path, |line| {
        log = Record::parse(line).ok().map(|record| record.envelope.log_of(line));
        false
    })?;
    Ok(log)
}

impl Segment {
    /// Reads and judges a segment.
    pub(crate) fn read(path: &Path, look: &Look<'_>) -> io::Result<Self> {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let mut segment = Self {
            path: path.to_owned(),
            first: first_of(name),
            log: None,
            tier: None,
            host: None,
            begin: None,
            end: None,
            records: 0,
            unwitnessed: 0,
            bytes: 0,
            rest: Vec::new(),
            fault: None,
            found: Vec::new(),
        };
        let end = lines(path, |line| {
            segment.line(line, look);
            segment.fault.is_none()
        })?;
        segment.bytes = end.bytes;
        if segment.fault.is_none() && end.rest.len() > MAX_LINE {
            segment.refuse(
                Kind::Malformed,
                segment.next(),
                format!("a line of more than {MAX_LINE} bytes"),
            );
        }
        if segment.fault.is_none() {
            segment.rest = end.rest;
        }
        Ok(segment)
    }

    /// The number that the next record must have; 0 where that is not known.
    fn next(&self) -> u64 {
        self.end.as_ref().map_or(self.first.unwrap_or(0), |head| head.seq + 1)
    }

    fn refuse(&mut self, kind: Kind, seq: u64, what: String) {
        self.fault = Some(Fault {
            kind,
            seq: (seq > 0).then_some(seq),
            segment: Some(self.path.clone()),
            what,
        });
    }

    /// Judges the next line.
    fn line(&mut self, line: &[u8], look: &Look<'_>) {
        let record = match Record::parse(line) {
            Ok(record) => record,
            Err(what) => return self.refuse(Kind::Malformed, self.next(), what),
        };
        let envelope = &record.envelope;
        let head = head_of(envelope, line);
        let (seq, next) = (head.seq, self.next());
        let event = record.draft.event;
        if let Some(last) = &self.end {
            if seq != next {
                let kind = if seq > next { Kind::SeqGap } else { Kind::DuplicateSeq };
                return self.refuse(kind, next.min(seq), format!("record {seq} stands where {next} must"));
            }
            if envelope.prev != last.hash {
                return self.refuse(
                    Kind::ChainBroken,
                    last.seq,
                    format!(
                        "record {} is not the line that record {seq} was written after",
                        last.seq
                    ),
                );
            }
            if self.log.as_ref() != Some(&head.log) || self.tier != Some(envelope.tier) {
                return self.refuse(Kind::Foreign, seq, "a record of another log".to_owned());
            }
            if matches!(event, Event::Genesis | Event::Torn) {
                return self.refuse(Kind::Malformed, seq, format!("{} within a segment", event.as_str()));
            }
        } else {
            if self.first.is_some_and(|first| first != seq) {
                return self.refuse(
                    Kind::SeqGap,
                    next.min(seq),
                    format!("the segment begins with record {seq}"),
                );
            }
            self.first = Some(seq);
            self.log = Some(head.log.clone());
            self.tier = Some(envelope.tier);
            self.host = Some(envelope.host.clone());
            self.begin = Some(Begin {
                seq,
                prev: envelope.prev.clone(),
                genesis: event == Event::Genesis,
                torn: envelope.torn.clone(),
            });
        }
        match look.heads.see(&head) {
            Vouching::Known => {}
            Vouching::Unknown => self.unwitnessed += 1,
            Vouching::Other(by) => {
                let what = format!("not the record that {by} vouches for");
                return self.refuse(Kind::HeadDiffers, seq, what);
            }
        }
        self.records += 1;
        if let Some((task, finder)) = &look.task
            && finder.find(line).is_some()
            && record.draft.task_id.as_ref() == Some(task)
        {
            self.found.push((record, head.clone()));
        }
        self.end = Some(head);
    }
}
