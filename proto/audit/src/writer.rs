//! Writing under the lock: torn bytes named, segments begun, space reserved, one line at the end.
//!
//! Each step leaves files from which the end of the log can be found again, wherever the process is killed.

use std::io::Write;
use std::sync::Arc;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use wire::ids::{Digest, Head};

use crate::clock::rfc3339;
use crate::error::Error;
use crate::folder::Folder;
use crate::log::{Setup, Who};
use crate::record::{self, Draft, Envelope, Event, MAX_LINE, VERSION};
use crate::tail::{Tail, head_of};

/// Space kept free behind every record that is not a result: 64 results of full length.
pub(crate) const RESERVE: u64 = 64 * MAX_LINE as u64;

/// What appending needs, without the state that it changes. All of it runs under the lock.
pub(crate) struct Writer<'a> {
    pub(crate) folder: &'a Folder,
    pub(crate) who: &'a Who,
    pub(crate) setup: &'a Setup,
    pub(crate) boot_id: &'a str,
}

impl Writer<'_> {
    pub(crate) fn append(&self, tail: Option<Tail>, known: &Head, draft: &Draft) -> Result<Tail, Error> {
        let mut tail = match tail {
            Some(tail) => tail.follow(self.folder)?,
            None => self.find_again(known)?,
        };
        self.make_ready(&mut tail)?;
        if !draft.event.ends_something() && tail.size >= self.setup.segment_bytes {
            tail = self.next_segment(&tail)?;
        }
        self.put(&mut tail, draft, None)?;
        Ok(tail)
    }

    /// The end of the log after a failure.
    fn find_again(&self, known: &Head) -> Result<Tail, Error> {
        let gone = || Error::Broken {
            segment: known.seq,
            what: "a record that was in it is gone".to_owned(),
        };
        let tail = Tail::find(self.folder)?.ok_or_else(gone)?;
        match &tail.head {
            Some(head) if head.log == known.log && head.seq >= known.seq => Ok(tail),
            _ => Err(gone()),
        }
    }

    /// Brings a log into the state in which a record can follow: begun, and torn bytes named.
    pub(crate) fn make_ready(&self, tail: &mut Tail) -> Result<(), Error> {
        if tail.ready {
            return Ok(());
        }
        if tail.size > 0 {
            *tail = self.next_segment(tail)?;
        } else {
            // Whoever made this empty segment may not have come to make it durable.
            self.folder.sync()?;
        }
        if tail.head.is_none() {
            let nonce = self.setup.outside.nonce().map_err(Error::io("get random bytes"))?;
            self.put(tail, &Draft::new(Event::Genesis), Some(hex(&nonce)))
        } else if tail.torn.is_some() {
            self.put(tail, &Draft::new(Event::Torn), None)
        } else {
            Ok(())
        }
    }

    /// Begins the segment that follows the end of the log.
    ///
    /// The old one is made durable first: or a power failure could lose its last record and keep one that follows it.
    fn next_segment(&self, tail: &Tail) -> Result<Tail, Error> {
        tail.file
            .sync_data()
            .map_err(Error::io("make a segment of the log durable"))?;
        let begun = self.begin(tail.next)?;
        Ok(Tail {
            file: begun.file,
            segment: begun.segment,
            size: 0,
            ready: false,
            reserved: begun.reserved,
            ..tail.clone()
        })
    }

    /// Makes the segment `first`, with space reserved in it.
    pub(crate) fn begin(&self, first: u64) -> Result<Tail, Error> {
        let file = Arc::new(self.folder.create(first)?);
        let mut tail = Tail {
            file,
            segment: first,
            size: 0,
            next: first,
            head: None,
            tier: None,
            torn: None,
            ready: false,
            reserved: 0,
        };
        // A segment without that space must not become the end of the log, or results in flight would find none.
        if let Err(error) = reserve(&mut tail, MAX_LINE as u64) {
            self.folder.take_back(first);
            return Err(error);
        }
        self.folder.sync()?;
        Ok(tail)
    }

    /// Writes one record at the end.
    fn put(&self, tail: &mut Tail, draft: &Draft, nonce: Option<String>) -> Result<(), Error> {
        let now = self.setup.outside.now().map_err(Error::io("read the clock"))?;
        let envelope = Envelope {
            v: VERSION,
            seq: tail.next,
            prev: tail.head.as_ref().map_or_else(Digest::zero, |head| head.hash.clone()),
            log: tail.head.as_ref().map(|head| head.log.clone()),
            ts: rfc3339(now.unix_ms),
            mono: now.mono_us,
            boot_id: self.boot_id.to_owned(),
            tier: self.who.tier,
            host: self.who.host.clone(),
            build: self.who.build.clone(),
            nonce,
            torn: tail.torn.take(),
        };
        let line = record::spell(&envelope, draft)?;
        if !draft.event.ends_something() {
            reserve(tail, line.len() as u64)?;
        }
        (&*tail.file).write_all(&line).map_err(Error::io("write a record"))?;
        tail.size += line.len() as u64;
        tail.next += 1;
        tail.ready = true;
        tail.tier = Some(envelope.tier);
        tail.head = Some(head_of(&envelope, &line));
        Ok(())
    }
}

/// Reserves space for `bytes` and the results that must fit behind them. Where there is room, for as much again, so that a
/// busy process asks seldom.
fn reserve(tail: &mut Tail, bytes: u64) -> Result<(), Error> {
    if tail.reserved >= tail.size + bytes + RESERVE {
        return Ok(());
    }
    let generous = allocate(tail, bytes + 2 * RESERVE);
    generous
        .or_else(|_| allocate(tail, bytes + RESERVE))
        .map_err(|errno| Error::NoSpace(errno.into()))
}

fn allocate(tail: &mut Tail, length: u64) -> Result<(), Errno> {
    let [from, len] = [tail.size, length].map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    while let Err(errno) = fallocate(&tail.file, FallocateFlags::FALLOC_FL_KEEP_SIZE, from, len) {
        if errno != Errno::EINTR {
            return Err(errno);
        }
    }
    tail.reserved = tail.size + length;
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}
