//! A log read back by its own writer: what it holds since some time, in order.
//!
//! Nothing is verified here but each line's spelling; `verify` judges copies. The log is opened with the rights that it is
//! written with.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};

use wire::ids::Head;

use crate::clock::rfc3339;
use crate::error::Error;
use crate::log::Log;
use crate::record::{MAX_LINE, Record};
use crate::tail::head_of;

impl Log {
    /// Visits the records since `since` (Unix seconds), oldest first, and some that are older: whole segments are read.
    ///
    /// A line that was not written to its end is passed over; so is whatever others append meanwhile.
    ///
    /// # Errors
    /// [`Error::Io`] and [`Error::Broken`].
    pub fn since(&self, since: u64, visit: &mut dyn FnMut(Record, Head)) -> Result<(), Error> {
        // Times in records have one width, so that they sort as texts.
        let since = rfc3339(since.saturating_mul(1000));
        let folder = self.folder();
        let mut wanted = Vec::new();
        for first in folder.list()?.into_iter().rev() {
            let Some(file) = folder.segment(first)? else { continue };
            let begins = Lines::of(first, file).next()?.map(|(record, _)| record.envelope.ts);
            wanted.push(first);
            if begins.is_some_and(|begins| begins < since) {
                break;
            }
        }
        for first in wanted.into_iter().rev() {
            let Some(file) = folder.segment(first)? else { continue };
            let mut lines = Lines::of(first, file);
            while let Some((record, head)) = lines.next()? {
                visit(record, head);
            }
        }
        Ok(())
    }
}

/// The records of one segment.
struct Lines {
    first: u64,
    file: BufReader<File>,
    number: u64,
}

impl Lines {
    fn of(first: u64, file: File) -> Self {
        Self {
            first,
            file: BufReader::with_capacity(256 * 1024, file),
            number: 0,
        }
    }

    /// The next whole line; none at the end, and before a line without its end.
    fn next(&mut self) -> Result<Option<(Record, Head)>, Error> {
        let mut line = Vec::new();
        let most = MAX_LINE as u64 + 1;
        (&mut self.file)
            .take(most)
            .read_until(b'\n', &mut line)
            .map_err(Error::io("read the log back"))?;
        if line.last() != Some(&b'\n') {
            return Ok(None);
        }
        self.number += 1;
        let broken = |what| Error::Broken {
            segment: self.first,
            what: format!(
                "line {} is no record: {what} (writ-audit verify tells more)",
                self.number
            ),
        };
        let record = Record::parse(&line).map_err(broken)?;
        let head = head_of(&record.envelope, &line);
        Ok(Some((record, head)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use crate::clock::{Moment, Outside};
    use crate::log::{Setup, Who};
    use crate::record::{Draft, Event, Tier};
    use crate::rights::Own;

    /// A clock that a test sets, one second a record.
    struct Steps(AtomicU64);

    impl Outside for Steps {
        fn now(&self) -> std::io::Result<Moment> {
            Ok(Moment {
                unix_ms: (self.0.fetch_add(1, Ordering::Relaxed) + 1) * 1000,
                ..crate::Machine.now()?
            })
        }

        fn boot_id(&self) -> std::io::Result<String> {
            crate::Machine.boot_id()
        }

        fn nonce(&self) -> std::io::Result<[u8; 16]> {
            crate::Machine.nonce()
        }
    }

    fn log(folder: &Path, segment_bytes: u64) -> Log {
        std::fs::create_dir_all(folder.join("log")).unwrap();
        let who = Who {
            tier: Tier::Target,
            host: "web-1".into(),
            build: "test".into(),
        };
        let setup = Setup {
            segment_bytes,
            lock_wait: Duration::from_millis(200),
            outside: Box::new(Steps(AtomicU64::new(1_000_000))),
        };
        Log::open_with(&folder.join("log"), &folder.join("lock"), who, Box::new(Own), setup).unwrap()
    }

    fn seqs(log: &Log, since: u64) -> Vec<u64> {
        let mut seqs = Vec::new();
        log.since(since, &mut |record, head| {
            assert_eq!(record.envelope.seq, head.seq);
            seqs.push(head.seq);
        })
        .unwrap();
        seqs
    }

    #[test]
    fn what_was_written_since_is_read_back_in_order_over_all_segments() {
        let room = tempfile::tempdir().unwrap();
        let mut log = log(room.path(), 1);
        for _ in 0..9 {
            log.append(&Draft::new(Event::Start)).unwrap();
        }
        assert_eq!(seqs(&log, 0), (1..=10).collect::<Vec<_>>());
        assert_eq!(seqs(&log, 1_000_008), [7, 8, 9, 10]);
        assert_eq!(seqs(&log, 2_000_000), [10]);
    }

    #[test]
    fn a_line_that_was_not_finished_is_passed_over_and_one_that_is_none_is_named() {
        let room = tempfile::tempdir().unwrap();
        let mut log = log(room.path(), 1 << 20);
        log.append(&Draft::new(Event::Start)).unwrap();
        let path = room.path().join("log").join(crate::folder::name(1));
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, [&whole[..], b"{\"v\":1"].concat()).unwrap();
        assert_eq!(seqs(&log, 0), [1, 2]);
        std::fs::write(&path, [&whole[..], b"{\"v\":1}\n"].concat()).unwrap();
        let error = log.since(0, &mut |_, _| {}).unwrap_err();
        assert!(matches!(error, Error::Broken { segment: 1, .. }), "{error:?}");
    }
}
