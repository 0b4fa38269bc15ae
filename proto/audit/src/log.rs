//! A log that many processes append to at once.
//!
//! Promises: records are in one order without gaps; [`Log::append`] returns only after its record is durable; where a
//! record cannot be written nothing is lost of what was; a write that was cut off is set aside and named by the next
//! record. Never: cuts, renames or rewrites a byte; holds the lock while the disk works, but to begin a segment.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nix::fcntl::OFlag;
use wire::ids::Head;

use crate::clock::{Machine, Outside};
use crate::error::Error;
use crate::folder::Folder;
use crate::lock;
use crate::record::{Draft, Tier};
use crate::rights::Rights;
use crate::tail::Tail;
use crate::writer::Writer;

/// A segment is not continued beyond this length, in bytes.
const SEGMENT: u64 = 64 << 20;

/// Whose log it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Who {
    /// The tier.
    pub tier: Tier,
    /// Which of that tier: the name of the target or relay, or the CA's host.
    pub host: String,
    /// The build that writes, `wire::build::id`.
    pub build: String,
}

/// What tests set otherwise. Nothing of it can be configured.
pub struct Setup {
    /// Length at which a new segment begins, in bytes.
    pub segment_bytes: u64,
    /// Longest wait for the lock.
    pub lock_wait: Duration,
    /// Time and randomness.
    pub outside: Box<dyn Outside>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            segment_bytes: SEGMENT,
            lock_wait: lock::WAIT,
            outside: Box::new(Machine),
        }
    }
}

/// A log, open for appending. Other processes may have it open too.
pub struct Log {
    folder: Folder,
    lock: File,
    who: Who,
    setup: Setup,
    boot_id: String,
    /// Where the log ended when this process last held the lock; none after a failure, so that it is found anew.
    tail: Option<Tail>,
    /// The newest record that this process knows.
    head: Head,
}

/// A record that is written and not yet durable.
#[must_use = "nothing may be done that a record announces before it is durable"]
pub struct Pending {
    file: Arc<File>,
    head: Head,
}

impl Pending {
    /// Waits until the record is durable.
    ///
    /// # Errors
    /// [`Error::Io`]: the record stands in the log, but may be gone after a power failure.
    pub fn settle(self) -> Result<Head, Error> {
        self.file.sync_data().map_err(Error::io("make a record durable"))?;
        Ok(self.head)
    }
}

impl Log {
    /// Opens the log in `folder`, and begins it when the folder is empty. `lock` is a file outside of the folder, made
    /// when it is missing. Both are opened now, once; segments are opened later, beneath the folder, with `rights`.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn open(folder: &Path, lock: &Path, who: Who, rights: Box<dyn Rights>) -> Result<Self, Error> {
        Self::open_with(folder, lock, who, rights, Setup::default())
    }

    /// [`Log::open`], for tests.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn open_with(
        folder: &Path,
        lock: &Path,
        who: Who,
        rights: Box<dyn Rights>,
        setup: Setup,
    ) -> Result<Self, Error> {
        let folder = Folder::open(folder, rights)?;
        let lock = open_own(lock, folder.rights()).map_err(Error::io("open the lock of the log"))?;
        let boot_id = setup.outside.boot_id().map_err(Error::io("read the boot id"))?;
        let held = lock::take(&lock, setup.lock_wait)?;
        let writer = Writer {
            folder: &folder,
            who: &who,
            setup: &setup,
            boot_id: &boot_id,
        };
        let mut tail = match Tail::find(&folder)? {
            Some(tail) => tail,
            None => writer.begin(1)?,
        };
        if let Some(tier) = tail.tier.filter(|tier| *tier != who.tier) {
            return Err(Error::OtherLog(tier.as_str().to_owned()));
        }
        let begun = !tail.ready;
        writer.make_ready(&mut tail)?;
        drop(held);
        if begun {
            tail.file.sync_data().map_err(Error::io("make a record durable"))?;
        }
        let head = tail.head.clone().ok_or_else(|| Error::Broken {
            segment: tail.segment,
            what: "no record".into(),
        })?;
        Ok(Self {
            folder,
            lock,
            who,
            setup,
            boot_id,
            tail: Some(tail),
            head,
        })
    }

    /// Appends a record and returns once it is durable.
    ///
    /// # Errors
    /// Any [`Error`]. The log is as before, or holds the record without a promise, and the next append finds out which.
    pub fn append(&mut self, draft: &Draft) -> Result<Head, Error> {
        self.write(draft)?.settle()
    }

    /// Appends an intent: like [`Log::append`], and space for its result is reserved before.
    ///
    /// In truth every record but a result leaves that space free, so that no flood of other records can eat it.
    ///
    /// # Errors
    /// Any [`Error`]; [`Error::NoSpace`] when the result might not fit.
    pub fn intend(&mut self, draft: &Draft) -> Result<Head, Error> {
        debug_assert!(!draft.event.ends_something());
        self.append(draft)
    }

    /// Writes a record without waiting until it is durable. For callers that share the log behind a mutex: give the mutex
    /// back, then [`Pending::settle`], and many wait for the disk together.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn write(&mut self, draft: &Draft) -> Result<Pending, Error> {
        let held = lock::take(&self.lock, self.setup.lock_wait)?;
        // Taken out, so that after any failure the end is looked for anew.
        let tail = self.tail.take();
        let writer = Writer {
            folder: &self.folder,
            who: &self.who,
            setup: &self.setup,
            boot_id: &self.boot_id,
        };
        let tail = writer.append(tail, &self.head, draft)?;
        drop(held);
        if let Some(head) = &tail.head {
            self.head = head.clone();
        }
        let pending = Pending {
            file: Arc::clone(&tail.file),
            head: self.head.clone(),
        };
        self.tail = Some(tail);
        Ok(pending)
    }

    /// Where its segments lie.
    pub(crate) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The newest record in the log, read anew without the lock; the newest that this process knows where that fails.
    /// Its record may not be durable yet.
    #[must_use]
    pub fn head(&self) -> Head {
        if self.tail.as_ref().is_some_and(|tail| tail.stands(&self.folder)) {
            return self.head.clone();
        }
        let found = Tail::find(&self.folder).ok().flatten().and_then(|tail| tail.head);
        found
            .filter(|head| head.seq >= self.head.seq && head.log == self.head.log)
            .unwrap_or_else(|| self.head.clone())
    }
}

/// Opens a file of ours for reading and writing, 0600, made when it is missing.
pub(crate) fn open_own(path: &Path, rights: &dyn Rights) -> io::Result<File> {
    rights.with(&mut || {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags((OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW).bits())
            .open(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::name;
    use crate::record::{Event, MAX_LINE, Record};
    use crate::rights::Own;
    use crate::writer::RESERVE;
    use std::io::Write;
    use std::path::PathBuf;
    use wire::ids::Digest;

    struct Room(tempfile::TempDir);

    impl Room {
        fn new() -> Self {
            let room = Self(tempfile::tempdir().unwrap());
            std::fs::create_dir(room.0.path().join("log")).unwrap();
            room
        }

        fn open_as(&self, tier: Tier, segment_bytes: u64) -> Result<Log, Error> {
            let who = Who {
                tier,
                host: "web-1".into(),
                build: "test".into(),
            };
            let setup = Setup {
                segment_bytes,
                lock_wait: Duration::from_millis(200),
                ..Setup::default()
            };
            Log::open_with(
                &self.0.path().join("log"),
                &self.0.path().join("lock"),
                who,
                Box::new(Own),
                setup,
            )
        }

        fn open(&self) -> Log {
            self.open_as(Tier::Target, SEGMENT).unwrap()
        }

        fn segment(&self, first: u64) -> PathBuf {
            self.0.path().join("log").join(name(first))
        }

        fn records(&self) -> Vec<Record> {
            let firsts = self.open().folder.list().unwrap();
            let bytes = firsts
                .into_iter()
                .map(|first| std::fs::read(self.segment(first)).unwrap());
            bytes
                .flat_map(|bytes| {
                    let lines = bytes.split_inclusive(|byte| *byte == b'\n');
                    lines.filter_map(|line| Record::parse(line).ok()).collect::<Vec<_>>()
                })
                .collect()
        }
    }

    /// REQ-RECORD-3, REQ-RECORD-4
    #[test]
    fn a_log_begins_with_a_genesis_line_and_each_record_names_the_last() {
        let room = Room::new();
        let mut log = room.open();
        let genesis = log.head();
        let one = log.append(&Draft::new(Event::Start)).unwrap();
        let two = log.intend(&Draft::new(Event::Intent)).unwrap();
        assert_eq!([genesis.seq, one.seq, two.seq], [1, 2, 3]);
        let bytes = std::fs::read(room.segment(1)).unwrap();
        let lines: Vec<_> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
        assert_eq!(genesis.hash, Digest::of(lines[0]));
        assert_eq!(genesis.log.as_str(), &genesis.hash.as_str()[..32]);
        let records = room.records();
        assert_eq!(records[0].envelope.prev, Digest::zero());
        assert_eq!(
            [&records[1].envelope.prev, &records[2].envelope.prev],
            [&genesis.hash, &one.hash]
        );
        assert_eq!(two.hash, Digest::of(lines[2]));
        assert_eq!(room.open().head(), two);
    }

    #[test]
    fn two_logs_of_the_same_host_have_different_ids() {
        assert_ne!(Room::new().open().head().log, Room::new().open().head().log);
    }

    /// REQ-RECORD-4, REQ-RECORD-9
    #[test]
    fn two_writers_see_each_others_records_also_across_segments() {
        let room = Room::new();
        let mut logs = [0, 1].map(|_| room.open_as(Tier::Target, 1).unwrap());
        for round in 0..10 {
            let head = logs[round % 2].append(&Draft::new(Event::Start)).unwrap();
            assert_eq!(head.seq, round as u64 + 2);
            assert_eq!(logs[1 - round % 2].head(), head);
        }
        assert_eq!(logs[0].folder.list().unwrap(), (1..=11).collect::<Vec<_>>());
    }

    /// REQ-RECORD-9
    #[test]
    fn a_result_never_begins_a_segment() {
        let room = Room::new();
        let mut log = room.open_as(Tier::Target, 1).unwrap();
        log.intend(&Draft::new(Event::Intent)).unwrap();
        log.append(&Draft::new(Event::Result)).unwrap();
        log.append(&Draft::new(Event::Result)).unwrap();
        log.append(&Draft::new(Event::Stop)).unwrap();
        assert_eq!(log.folder.list().unwrap(), [1, 2, 5]);
    }

    #[test]
    fn the_log_of_another_tier_is_not_continued() {
        let room = Room::new();
        room.open();
        assert!(matches!(room.open_as(Tier::Ca, SEGMENT), Err(Error::OtherLog(_))));
    }

    /// REQ-RECORD-10, REQ-RECORD-11
    #[test]
    fn a_torn_tail_stays_and_the_next_segment_names_it() {
        let room = Room::new();
        let mut log = room.open();
        let head = log.append(&Draft::new(Event::Start)).unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(room.segment(1))
            .unwrap()
            .write_all(b"{\"v\":1,")
            .unwrap();
        assert_eq!(room.open().head().seq, 4, "opening recovers");
        let next = log.append(&Draft::new(Event::Stop)).unwrap();
        assert_eq!(next.seq, 5);
        let records = room.records();
        assert_eq!(records[2].draft.event, Event::Torn);
        assert_eq!(records[2].envelope.prev, head.hash);
        let torn = records[2].envelope.torn.clone().unwrap();
        assert_eq!(
            (torn.segment, torn.bytes, torn.sha256),
            (1, 7, Digest::of(b"{\"v\":1,"))
        );
        assert!(std::fs::read(room.segment(1)).unwrap().ends_with(b"{\"v\":1,"));
    }

    /// REQ-RECORD-11
    #[test]
    fn torn_segments_in_a_row_are_named_together() {
        let room = Room::new();
        let mut log = room.open();
        std::fs::write(room.segment(2), "").unwrap();
        let append = |first, text: &str| {
            std::fs::OpenOptions::new()
                .append(true)
                .create(true)
                .open(room.segment(first))
                .unwrap()
                .write_all(text.as_bytes())
                .unwrap();
        };
        append(2, "abc");
        append(3, "de");
        append(4, "");
        log.append(&Draft::new(Event::Start)).unwrap();
        let torn = room.records()[1].envelope.torn.clone().unwrap();
        assert_eq!((torn.segment, torn.bytes, torn.sha256), (2, 5, Digest::of(b"abcde")));
        assert_eq!(log.head().seq, 5);
    }

    /// REQ-RECORD-10
    #[test]
    fn a_genesis_line_that_was_torn_is_begun_again() {
        let room = Room::new();
        std::fs::write(room.segment(1), "{\"v\"").unwrap();
        let mut log = room.open();
        assert_eq!(log.append(&Draft::new(Event::Start)).unwrap().seq, 3);
        assert_eq!(room.records()[0].envelope.torn.as_ref().unwrap().bytes, 4);
    }

    #[test]
    fn given_a_log_that_lost_records_then_nothing_is_appended() {
        let room = Room::new();
        let mut log = room.open();
        log.append(&Draft::new(Event::Start)).unwrap();
        let bytes = std::fs::read(room.segment(1)).unwrap();
        for cut in [bytes.len() - 1, bytes.len() / 2, 0] {
            File::options()
                .write(true)
                .open(room.segment(1))
                .unwrap()
                .set_len(cut as u64)
                .unwrap();
            assert!(
                matches!(log.append(&Draft::new(Event::Start)), Err(Error::Broken { .. })),
                "{cut}"
            );
            std::fs::write(room.segment(1), &bytes).unwrap();
            log.append(&Draft::new(Event::Start)).unwrap();
            std::fs::write(room.segment(1), &bytes).unwrap();
            log = room.open();
        }
        std::fs::remove_file(room.segment(1)).unwrap();
        assert!(matches!(
            log.append(&Draft::new(Event::Start)),
            Err(Error::Broken { .. })
        ));
    }

    #[test]
    fn a_last_line_that_is_no_record_is_not_continued() {
        let room = Room::new();
        room.open();
        std::fs::OpenOptions::new()
            .append(true)
            .open(room.segment(1))
            .unwrap()
            .write_all(b"{}\n")
            .unwrap();
        assert!(matches!(
            room.open_as(Tier::Target, SEGMENT),
            Err(Error::Broken { segment: 1, .. })
        ));
    }

    /// REQ-RECORD-7
    #[test]
    fn a_lock_that_others_hold_ends_the_wait() {
        let room = Room::new();
        let mut log = room.open();
        let lock = File::options().write(true).open(room.0.path().join("lock")).unwrap();
        let held = lock::take(&lock, Duration::ZERO).unwrap();
        assert!(matches!(log.append(&Draft::new(Event::Start)), Err(Error::Busy { .. })));
        drop(held);
        assert_eq!(log.append(&Draft::new(Event::Start)).unwrap().seq, 2);
    }

    /// REQ-RECORD-7
    #[test]
    fn log_lock_held_by_reader_does_not_hold_up_the_writer() {
        let room = Room::new();
        let mut log = room.open();
        let reader = File::open(room.segment(1)).unwrap();
        reader.lock().unwrap();
        assert!(log.append(&Draft::new(Event::Start)).is_ok());
    }

    /// REQ-RECORD-6
    #[test]
    fn space_for_results_is_reserved_and_does_not_lengthen_the_segment() {
        use std::os::unix::fs::MetadataExt;
        let room = Room::new();
        room.open().intend(&Draft::new(Event::Intent)).unwrap();
        let meta = std::fs::metadata(room.segment(1)).unwrap();
        assert!(meta.blocks() * 512 >= meta.len() + RESERVE);
        assert!(meta.len() < 4096);
    }

    /// REQ-RECORD-2
    #[test]
    fn a_draft_that_is_too_long_leaves_the_log_as_it_was() {
        let room = Room::new();
        let mut log = room.open();
        let long = Draft {
            message: Some("x".repeat(MAX_LINE)),
            ..Draft::new(Event::Refused)
        };
        assert!(matches!(log.append(&long), Err(Error::TooLong { .. })));
        assert_eq!(log.append(&Draft::new(Event::Start)).unwrap().seq, 2);
    }

    #[test]
    fn every_file_is_opened_with_the_rights_that_were_given() {
        use std::sync::atomic::{AtomicBool, Ordering};
        struct Switch(Arc<AtomicBool>);
        impl Rights for Switch {
            fn with(&self, open: &mut dyn FnMut() -> io::Result<File>) -> io::Result<File> {
                if self.0.load(Ordering::SeqCst) {
                    open()
                } else {
                    Err(io::ErrorKind::PermissionDenied.into())
                }
            }
        }
        let room = Room::new();
        let allowed = Arc::new(AtomicBool::new(true));
        let who = Who {
            tier: Tier::Target,
            host: "web-1".into(),
            build: "test".into(),
        };
        let (folder, lock) = (room.0.path().join("log"), room.0.path().join("lock"));
        let open = || Log::open(&folder, &lock, who.clone(), Box::new(Switch(Arc::clone(&allowed))));
        let mut log = open().unwrap();
        allowed.store(false, Ordering::SeqCst);
        assert!(open().is_err());
        assert!(matches!(log.append(&Draft::new(Event::Start)), Err(Error::Io { .. })));
        assert_eq!(log.head().seq, 1);
        allowed.store(true, Ordering::SeqCst);
        assert_eq!(log.append(&Draft::new(Event::Start)).unwrap().seq, 2);
    }
}
