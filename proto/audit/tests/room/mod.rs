//! A folder of its own for a log, and ways to harm it.

#![allow(dead_code, reason = "not every test file harms a log in every way")]
#![allow(clippy::unwrap_used, reason = "a test's own files")]

use std::path::{Path, PathBuf};

use audit::{Draft, Event, Expected, Kind, Log, Own, Report, Setup, Tier, Who, verify};
use wire::ids::Head;

/// A log in a temporary folder.
pub(crate) struct Room(tempfile::TempDir);

impl Room {
    /// In memory where there is enough of it: what these tests show does not depend on a disk, but waits long for a busy one.
    pub(crate) fn new() -> Self {
        let memory = Path::new("/dev/shm");
        let bytes = nix::sys::statvfs::statvfs(memory).map_or(0, |fs| fs.blocks_available() * fs.fragment_size());
        let dir = if bytes > 1 << 28 {
            tempfile::tempdir_in(memory)
        } else {
            tempfile::tempdir()
        };
        Self::within(dir.unwrap())
    }

    pub(crate) fn on_disk() -> Self {
        Self::within(tempfile::tempdir().unwrap())
    }

    fn within(dir: tempfile::TempDir) -> Self {
        let room = Self(dir);
        std::fs::create_dir(room.folder()).unwrap();
        room
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.0.path().join("log")
    }

    pub(crate) fn open(&self, segment_bytes: u64) -> Log {
        open(self.0.path(), Tier::Target, segment_bytes)
    }

    /// A log of records 1 to `last` in segments of at least `segment_bytes`, and the head of each from record 2 on.
    pub(crate) fn filled(last: u64, segment_bytes: u64) -> (Self, Vec<Head>) {
        let room = Self::new();
        let mut log = room.open(segment_bytes);
        let heads = (2..=last).map(|number| log.append(&draft(number)).unwrap()).collect();
        (room, heads)
    }

    /// All segments, in order.
    pub(crate) fn segments(&self) -> Vec<PathBuf> {
        let mut paths: Vec<_> = std::fs::read_dir(self.folder())
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        paths.sort();
        paths
    }

    pub(crate) fn bytes(&self) -> Vec<(PathBuf, Vec<u8>)> {
        self.segments()
            .into_iter()
            .map(|path| (path.clone(), std::fs::read(path).unwrap()))
            .collect()
    }

    /// Puts the folder back to what it held.
    pub(crate) fn restore(&self, bytes: &[(PathBuf, Vec<u8>)]) {
        for path in self.segments() {
            std::fs::remove_file(path).unwrap();
        }
        for (path, bytes) in bytes {
            std::fs::write(path, bytes).unwrap();
        }
    }

    pub(crate) fn report(&self, heads: &[Head]) -> Report {
        verify(&[self.folder()], &Expected::new(heads.iter().cloned()))
    }

    /// The first fault: its kind and the record that it names.
    pub(crate) fn fault(&self, heads: &[Head]) -> Option<(Kind, Option<u64>)> {
        let report = self.report(heads);
        let fault = report
            .logs
            .iter()
            .filter_map(|log| log.fault.as_ref())
            .chain(&report.faults)
            .next();
        assert_eq!(fault.is_none(), report.ok);
        fault.map(|fault| (fault.kind, fault.seq))
    }
}

pub(crate) fn open(room: &Path, tier: Tier, segment_bytes: u64) -> Log {
    let who = Who {
        tier,
        host: "web-1".to_owned(),
        build: "test".to_owned(),
    };
    let setup = Setup {
        segment_bytes,
        ..Setup::default()
    };
    Log::open_with(&room.join("log"), &room.join("lock"), who, Box::new(Own), setup).unwrap()
}

pub(crate) fn draft(number: u64) -> Draft {
    Draft {
        message: Some(format!("record {number}")),
        ..Draft::new(Event::Refused)
    }
}

/// The lines of one segment.
pub(crate) fn lines(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes
        .split_inclusive(|byte| *byte == b'\n')
        .map(<[u8]>::to_vec)
        .collect()
}
