//! Writes that are cut off: nothing that was answered is lost, and the log goes on without a restart.
//!
//! One test in a process of its own, because a file size limit counts for the whole process.

#![allow(clippy::unwrap_used, reason = "tests")]

mod room;

use audit::Error;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use room::{Room, draft};
use wire::ids::Head;

const SEGMENT: u64 = 1 << 20;

/// Runs `what` while no file of this process can become longer than `bytes`.
fn limited<T>(bytes: u64, what: impl FnOnce() -> T) -> T {
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    setrlimit(Resource::RLIMIT_FSIZE, bytes, hard).unwrap();
    let done = what();
    setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
    done
}

/// REQ-RECORD-10, REQ-RECORD-12
#[test]
fn short_writes_at_every_byte_and_cuts_at_every_byte_lose_nothing_that_was_answered() {
    // The kernel would end the process where it can also just refuse the write.
    SigSet::from(Signal::SIGXFSZ).thread_block().unwrap();
    short_write_at_every_byte();
    short_writes_in_a_row();
    cut_at_every_byte_of_the_last_three_records();
    cut_at_every_byte_of_the_genesis_line();
}

fn short_write_at_every_byte() {
    let length = {
        let (room, _) = Room::filled(3, SEGMENT);
        room::lines(&room.bytes()[0].1)[2].len() as u64
    };
    for from in (0..length).step_by(16) {
        let room = Room::new();
        let mut log = room.open(SEGMENT);
        let mut heads: Vec<Head> = vec![log.append(&draft(3)).unwrap()];
        for bytes in from..length.min(from + 16) {
            let segment = room.segments().pop().unwrap();
            let size = std::fs::metadata(&segment).unwrap().len();
            let refused = limited(size + bytes, || log.append(&draft(3)));
            assert!(matches!(refused, Err(Error::Io { .. })), "{bytes}: {refused:?}");
            assert_eq!(std::fs::metadata(&segment).unwrap().len(), size + bytes);
            assert_eq!(room.report(&heads).logs[0].torn_tail.is_some(), bytes > 0);
            heads.push(log.append(&draft(3)).unwrap());
            let report = room.report(&heads);
            assert!(report.ok, "{bytes}: {report:?}");
            assert_eq!(report.logs[0].torn_writes, bytes + 1 - from.max(1));
        }
    }
    println!("{length} short writes, {length} recovered");
}

fn short_writes_in_a_row() {
    let room = Room::new();
    let mut log = room.open(SEGMENT);
    let mut heads = vec![log.append(&draft(0)).unwrap()];
    for tries in [1, 2, 5] {
        let size = std::fs::metadata(room.segments().pop().unwrap()).unwrap().len();
        assert!(limited(size + 9, || log.append(&draft(0))).is_err());
        for attempt in 0..tries {
            assert!(limited(50 + attempt, || log.append(&draft(0))).is_err());
        }
        assert!(room.report(&heads).ok);
        heads.push(log.append(&draft(0)).unwrap());
        assert!(room.report(&heads).ok);
        assert_eq!(room.open(SEGMENT).head(), *heads.last().unwrap());
    }
}

fn cut_at_every_byte_of_the_last_three_records() {
    let (room, heads) = Room::filled(6, SEGMENT);
    let whole = room.bytes();
    let (path, bytes) = &whole[0];
    let length: usize = room::lines(bytes).iter().rev().take(3).map(Vec::len).sum();
    for cut in bytes.len() - length..bytes.len() {
        room.restore(&whole);
        std::fs::write(path, &bytes[..cut]).unwrap();
        let left: Vec<_> = heads
            .iter()
            .take(bytes[..cut].iter().filter(|b| **b == b'\n').count() - 1)
            .cloned()
            .collect();
        let at_newline = bytes[cut - 1] == b'\n';
        let report = room.report(&left);
        assert!(
            report.ok && report.logs[0].torn_tail.is_none() == at_newline,
            "cut at {cut}: {report:?}"
        );
        assert!(!room.report(&heads).ok, "who holds the heads sees that some are gone");
        let mut log = room.open(SEGMENT);
        log.append(&draft(0)).unwrap();
        let report = room.report(&left);
        assert!(
            report.ok && report.logs[0].torn_writes == u64::from(!at_newline),
            "cut at {cut}: {report:?}"
        );
        assert!(
            std::fs::read(path).unwrap().starts_with(&bytes[..cut]),
            "nothing is cut"
        );
    }
    println!("{length} cuts, {length} recovered");
}

fn cut_at_every_byte_of_the_genesis_line() {
    let (room, _) = Room::filled(1, SEGMENT);
    let whole = room.bytes();
    let (path, bytes) = &whole[0];
    for cut in 0..bytes.len() {
        room.restore(&whole);
        std::fs::write(path, &bytes[..cut]).unwrap();
        room.open(SEGMENT).append(&draft(0)).unwrap();
        assert!(room.report(&[]).ok, "cut at {cut}: {:?}", room.report(&[]));
    }
}
