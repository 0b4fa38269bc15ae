//! Refusals of peers that proved nothing: counted, and recorded once a minute, so that a stranger cannot fill the disk.
//!
//! The count lives in one small file that processes share under its own lock. What stands in the file is a count and no
//! evidence: where it cannot be read it begins at zero.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use wire::Code;
use wire::ids::Head;

use crate::error::Error;
use crate::lock;
use crate::log::{Log, open_own};
use crate::record::{Draft, Event};
use crate::rights::Rights;

/// Shortest time between two such records, in seconds.
const EVERY_S: u64 = 60;

/// Longest wait for the counter: less than for the log, whose lock is taken inside.
const WAIT: Duration = Duration::from_secs(2);

/// Longest text that is kept of a stranger, in bytes.
const TEXT: usize = 200;

/// The counter's length on disk: always the same, so that writing it never changes the file's length.
const LENGTH: usize = 4096;

/// A counter of refused strangers.
pub struct Strangers {
    file: File,
}

/// What stands in the file, as one line of JSON filled up with spaces.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Count {
    /// When the last record was written, Unix seconds.
    recorded: u64,
    /// How many came since.
    count: u64,
    /// For which reasons.
    codes: BTreeMap<Code, u64>,
    /// What the last one said, escaped and cut.
    text: String,
}

impl Strangers {
    /// Opens the counter at `path`, 0600, made when it is missing.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn open(path: &Path, rights: &dyn Rights) -> Result<Self, Error> {
        Ok(Self {
            file: open_own(path, rights).map_err(Error::io("open the counter of strangers"))?,
        })
    }

    /// Counts one refused stranger, and records all of them when the last record is a minute old. `now` is in Unix seconds;
    /// the answer is the record's head when there is one.
    ///
    /// # Errors
    /// Any [`Error`]. The stranger may then not have been counted; nothing else is wrong.
    pub fn note(&mut self, log: &mut Log, code: Code, text: &str, now: u64) -> Result<Option<Head>, Error> {
        let _held = lock::take(&self.file, WAIT)?;
        let mut count = self.read();
        count.count = count.count.saturating_add(1).min((1 << 53) - 1);
        *count.codes.entry(code).or_default() += 1;
        count.text = wire::text::escaped(text, TEXT);
        self.settle(count, log, now)
    }

    /// Records those that were counted more than a minute ago and not recorded. For the start of a process.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn flush_due(&mut self, log: &mut Log, now: u64) -> Result<Option<Head>, Error> {
        let _held = lock::take(&self.file, WAIT)?;
        let count = self.read();
        if count.count == 0 {
            Ok(None)
        } else {
            self.settle(count, log, now)
        }
    }

    /// Records what is due, and keeps the rest.
    fn settle(&self, count: Count, log: &mut Log, now: u64) -> Result<Option<Head>, Error> {
        // A clock that went back must not silence the records until it has caught up.
        if (count.recorded..count.recorded.saturating_add(EVERY_S)).contains(&now) {
            self.write(&count)?;
            return Ok(None);
        }
        let code = count.codes.iter().max_by_key(|(_, n)| **n).map(|(code, _)| *code);
        let draft = Draft {
            code,
            message: Some(count.text),
            count: Some(count.count),
            codes: Some(
                count
                    .codes
                    .iter()
                    .map(|(code, n)| (code.as_str().to_owned(), *n))
                    .collect(),
            ),
            ..Draft::new(Event::Strangers)
        };
        // The record first: whoever is killed in between counts some twice, and loses none.
        let head = log.append(&draft)?;
        self.write(&Count {
            recorded: now,
            ..Count::default()
        })?;
        Ok(Some(head))
    }

    fn read(&self) -> Count {
        let mut bytes = [0; LENGTH];
        let line = self
            .file
            .read_exact_at(&mut bytes, 0)
            .ok()
            .map(|()| bytes.trim_ascii_end());
        line.and_then(|line| serde_json::from_slice(line).ok())
            .unwrap_or_default()
    }

    fn write(&self, count: &Count) -> Result<(), Error> {
        let mut line = serde_json::to_vec(count).map_err(Error::Draft)?;
        line.resize(LENGTH, b' ');
        self.file.write_all_at(&line, 0).map_err(Error::io("count a stranger"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Who;
    use crate::record::{Record, Tier};
    use crate::rights::Own;

    struct Room {
        dir: tempfile::TempDir,
        log: Log,
    }

    impl Room {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let who = Who {
                tier: Tier::Target,
                host: "web-1".into(),
                build: "test".into(),
            };
            std::fs::create_dir(dir.path().join("log")).unwrap();
            let log = Log::open(&dir.path().join("log"), &dir.path().join("lock"), who, Box::new(Own)).unwrap();
            Self { dir, log }
        }

        fn strangers(&self) -> Strangers {
            Strangers::open(&self.dir.path().join("strangers"), &Own).unwrap()
        }

        fn records(&self) -> Vec<Record> {
            let text = std::fs::read(self.dir.path().join("log").join(crate::folder::name(1))).unwrap();
            text.split_inclusive(|byte| *byte == b'\n')
                .map(|line| Record::parse(line).unwrap())
                .skip(1)
                .collect()
        }
    }

    /// REQ-RECORD-13
    #[test]
    fn a_flood_of_strangers_is_one_record_a_minute_and_none_is_lost() {
        let mut room = Room::new();
        for second in 0..=120_u64 {
            for _ in 0..10 {
                // A process of its own each time, as on a target.
                room.strangers()
                    .note(&mut room.log, Code::LineMalformed, "\x1b[2J", 1000 + second)
                    .unwrap();
            }
        }
        let records = room.records();
        assert_eq!(
            records.iter().map(|r| r.draft.count.unwrap()).collect::<Vec<_>>(),
            [1, 600, 600]
        );
        assert_eq!(records[1].draft.message.as_deref(), Some("\\u{1b}[2J"));
        assert_eq!(
            records[1].draft.codes.as_ref().unwrap()[Code::LineMalformed.as_str()],
            600
        );
        assert!(room.strangers().flush_due(&mut room.log, 1179).unwrap().is_none());
        assert!(room.strangers().flush_due(&mut room.log, 1180).unwrap().is_some());
        assert!(
            room.strangers().flush_due(&mut room.log, 1240).unwrap().is_none(),
            "nobody came since"
        );
        assert_eq!(room.records().iter().map(|r| r.draft.count.unwrap()).sum::<u64>(), 1210);
    }

    #[test]
    fn garbage_in_the_counter_begins_at_zero_and_a_clock_that_went_back_silences_nothing() {
        let mut room = Room::new();
        for garbage in ["", "{", "\0\0\0", &"9".repeat(5000), "{\"recorded\":99999999999}"] {
            std::fs::write(room.dir.path().join("strangers"), garbage).unwrap();
            assert!(
                room.strangers()
                    .note(&mut room.log, Code::LineMalformed, "x", 1000)
                    .unwrap()
                    .is_some(),
                "{garbage}"
            );
        }
        assert!(
            room.strangers()
                .note(&mut room.log, Code::LineMalformed, "x", 900)
                .unwrap()
                .is_some()
        );
        assert!(
            room.strangers()
                .note(&mut room.log, Code::LineMalformed, "x", 901)
                .unwrap()
                .is_none()
        );
    }
}
