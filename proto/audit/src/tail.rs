//! Where a log ends: its last record, and what has to be written next.
//!
//! Found from the files alone, so that a process that was killed anywhere leaves nothing to clean up. A line is a record
//! once its newline stands; bytes behind the last newline of a segment are torn, stay where they are, and keep the number
//! that their record would have had. So every segment has a name of its own and no number is used twice.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use wire::ids::{Digest, Head};

use crate::error::Error;
use crate::folder::Folder;
use crate::record::{Envelope, MAX_LINE, Record, Tier, Torn};

/// How much of a segment's end is read: the longest torn line behind the longest whole one, and the newline before it.
const WINDOW: u64 = 2 * MAX_LINE as u64 + 1;

/// The end of a log.
#[derive(Clone)]
pub(crate) struct Tail {
    /// The last segment.
    pub(crate) file: Arc<File>,
    /// Its first number, which is its name.
    pub(crate) segment: u64,
    /// Its length in bytes.
    pub(crate) size: u64,
    /// The number of the next record; unless `ready`, also the name of the segment that it belongs in.
    pub(crate) next: u64,
    /// The last record's head; none when there is no record yet.
    pub(crate) head: Option<Head>,
    /// Whose log it is; none when there is no record yet.
    pub(crate) tier: Option<Tier>,
    /// Torn bytes that no record names yet.
    pub(crate) torn: Option<Torn>,
    /// True when the last segment ends with a record, so that the next one can follow there.
    pub(crate) ready: bool,
    /// Up to where this process knows that space is reserved in the last segment.
    pub(crate) reserved: u64,
}

impl Tail {
    /// Finds the end of a log; none when the folder holds no segment.
    pub(crate) fn find(folder: &Folder) -> Result<Option<Self>, Error> {
        let firsts = folder.list()?;
        // Back to the last segment that holds a record; behind it there can only be torn bytes and one empty segment.
        let mut pieces = Vec::new();
        let mut last = None;
        for &first in firsts.iter().rev() {
            let piece = Piece::read(folder, first)?;
            let record = piece.record.clone();
            pieces.push(piece);
            if record.is_some() {
                last = record;
                break;
            }
        }
        pieces.reverse();

        let Some(begin) = pieces.first() else { return Ok(None) };
        let mut next = last.as_ref().map_or(begin.first, |(record, _)| record.envelope.seq + 1);
        let mut torn: Option<(Torn, Sha256)> = None;
        let last_first = pieces.last().map_or(begin.first, |piece| piece.first);
        for piece in &pieces {
            if piece.record.is_none() && (piece.first != next || (piece.size == 0 && piece.first != last_first)) {
                return Err(piece.broken("not the segment that must follow"));
            }
            if piece.rest.is_empty() {
                continue;
            }
            let (found, hash) = torn.get_or_insert_with(|| {
                (
                    Torn {
                        segment: piece.first,
                        bytes: 0,
                        sha256: Digest::zero(),
                    },
                    Sha256::new(),
                )
            });
            found.bytes += piece.rest.len() as u64;
            hash.update(&piece.rest);
            next += 1;
        }

        let Some(end) = pieces.pop() else { return Ok(None) };
        let (head, tier) = last
            .map(|(record, line)| (head_of(&record.envelope, &line), record.envelope.tier))
            .unzip();
        Ok(Some(Self {
            ready: end.record.is_some() && end.rest.is_empty(),
            file: Arc::new(end.file),
            segment: end.first,
            size: end.size,
            next,
            head,
            tier,
            torn: torn.map(|(found, hash)| Torn {
                sha256: Digest::from_bytes(&hash.finalize().into()),
                ..found
            }),
            reserved: 0,
        }))
    }

    /// The end of the log now, given where it was when this was found. Call it under the lock.
    ///
    /// No other process can have appended without either making this segment longer or beginning the one named `next`.
    pub(crate) fn follow(self, folder: &Folder) -> Result<Self, Error> {
        let meta = self.file.metadata().map_err(Error::io("look at the log"))?;
        let broken = |what: &str| Error::Broken {
            segment: self.segment,
            what: what.to_owned(),
        };
        if meta.nlink() == 0 {
            return Err(broken("it was removed"));
        }
        if meta.size() < self.size {
            return Err(broken("it is shorter than it was"));
        }
        let grown = meta.size() - self.size;
        if self.ready
            && grown <= WINDOW
            && let Some(tail) = self.grown(grown)?
            && folder.segment(tail.next)?.is_none()
        {
            return Ok(tail);
        }
        let found = Self::find(folder)?.ok_or_else(|| broken("it was removed"))?;
        let seq = |tail: &Self| tail.head.as_ref().map_or(0, |head| head.seq);
        if seq(&found) < seq(&self) || found.head.as_ref().map(|h| &h.log) != self.head.as_ref().map(|h| &h.log) {
            return Err(broken("the log ends before a record that was in it"));
        }
        let reserved = if found.segment == self.segment {
            self.reserved
        } else {
            0
        };
        Ok(Self { reserved, ..found })
    }

    /// True when nothing was appended since this was found.
    pub(crate) fn stands(&self, folder: &Folder) -> bool {
        self.ready
            && self.file.metadata().is_ok_and(|meta| meta.size() == self.size)
            && folder.segment(self.next).is_ok_and(|file| file.is_none())
    }

    /// This end, moved over whole lines that others appended; none when those bytes do not end with a newline.
    fn grown(&self, grown: u64) -> Result<Option<Self>, Error> {
        if grown == 0 {
            return Ok(Some(self.clone()));
        }
        let bytes = read_at(&self.file, self.size, grown)?;
        let Some((b'\n', lines)) = bytes.split_last() else {
            return Ok(None);
        };
        let line = &bytes[memchr::memrchr(b'\n', lines).map_or(0, |at| at + 1)..];
        let record = Record::parse(line).map_err(|what| Error::Broken {
            segment: self.segment,
            what,
        })?;
        Ok(Some(Self {
            size: self.size + grown,
            next: record.envelope.seq + 1,
            head: Some(head_of(&record.envelope, line)),
            ..self.clone()
        }))
    }
}

/// The head that a record is, given with its line.
pub(crate) fn head_of(envelope: &Envelope, line: &[u8]) -> Head {
    Head {
        log: envelope.log_of(line),
        seq: envelope.seq,
        hash: Digest::of(line),
    }
}

/// The end of one segment.
struct Piece {
    file: File,
    first: u64,
    size: u64,
    /// Its last whole record, with its line.
    record: Option<(Record, Vec<u8>)>,
    /// What stands behind its last newline.
    rest: Vec<u8>,
}

impl Piece {
    fn read(folder: &Folder, first: u64) -> Result<Self, Error> {
        let broken = |what: String| Error::Broken { segment: first, what };
        let file = folder
            .segment(first)?
            .ok_or_else(|| broken("it was removed".to_owned()))?;
        let size = file.metadata().map_err(Error::io("look at the log"))?.size();
        let from = size.saturating_sub(WINDOW);
        let mut window = read_at(&file, from, size - from)?;
        let rest = window.split_off(memchr::memrchr(b'\n', &window).map_or(0, |at| at + 1));
        if rest.len() > MAX_LINE {
            return Err(broken("a line longer than a record".to_owned()));
        }
        let record = match window.split_last() {
            None if from > 0 => return Err(broken("a line longer than a record".to_owned())),
            None => None,
            Some((_, lines)) => {
                let begin = memchr::memrchr(b'\n', lines).map(|at| at + 1);
                let line = match begin {
                    Some(begin) => window.split_off(begin),
                    None if from == 0 => window,
                    None => return Err(broken("a line longer than a record".to_owned())),
                };
                Some((Record::parse(&line).map_err(broken)?, line))
            }
        };
        Ok(Self {
            file,
            first,
            size,
            record,
            rest,
        })
    }

    fn broken(&self, what: &str) -> Error {
        Error::Broken {
            segment: self.first,
            what: what.to_owned(),
        }
    }
}

fn read_at(file: &File, from: u64, bytes: u64) -> Result<Vec<u8>, Error> {
    // At most WINDOW, so the conversion cannot fail on a machine with 32-bit addresses either.
    let mut buffer = vec![0; usize::try_from(bytes).unwrap_or(0)];
    file.read_exact_at(&mut buffer, from)
        .map_err(Error::io("read the end of the log"))?;
    Ok(buffer)
}
