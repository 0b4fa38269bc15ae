//! A disk that is really full, and a folder and segments that really are append-only.
//!
//! The first needs a user namespace for a small tmpfs, the second root and a file system with attributes. Where the machine
//! has neither, the tests say so and show nothing.

#![allow(clippy::unwrap_used, reason = "tests")]

mod room;

use std::path::Path;
use std::process::Command;

use audit::{Draft, Error, Event, Expected, MAX_LINE, Tier};
use room::{Room, draft};

/// Tells the process below where its small disk is.
const DISK: &str = "AUDIT_TEST_DISK";

const SEGMENT: u64 = 64 << 20;

/// REQ-RECORD-5, REQ-RECORD-6
#[test]
fn given_no_log_space_then_intents_are_refused_and_results_still_fit() {
    let dir = tempfile::tempdir().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=6m none {0} && exec {1} --ignored --exact on_a_small_disk --nocapture",
        dir.path().display(),
        std::env::current_exe().unwrap().display()
    );
    let unshare = |script: &str| {
        Command::new("unshare")
            .args(["-rm", "sh", "-c", script])
            .env(DISK, dir.path())
            .output()
    };
    if !unshare("true").is_ok_and(|output| output.status.success()) {
        println!("not shown: no user namespaces here");
        return;
    }
    let output = unshare(&script).unwrap();
    assert!(output.status.success(), "{output:?}");
}

#[test]
#[ignore = "not a test: the process that the test above starts on a small disk"]
fn on_a_small_disk() {
    let Ok(disk) = std::env::var(DISK) else { return };
    let disk = Path::new(&disk);
    std::fs::create_dir(disk.join("log")).unwrap();
    let mut log = room::open(disk, Tier::Target, SEGMENT);
    let padding = "x".repeat(MAX_LINE - 600);
    let of = |event| Draft {
        message: Some(padding.clone()),
        ..Draft::new(event)
    };
    let verified = |head: &wire::ids::Head| {
        let report = audit::verify(&[disk.join("log")], &Expected::new([head.clone()]));
        assert!(
            report.ok && report.logs[0].torn_writes == 0 && report.logs[0].torn_tail.is_none(),
            "{report:?}"
        );
    };

    // Somebody else fills the disk while calls are in flight.
    let head = log.intend(&of(Event::Intent)).unwrap();
    let ballast = disk.join("ballast");
    assert!(std::fs::write(&ballast, vec![1; 8 << 20]).is_err(), "the disk is full");
    let refused = loop {
        match log.intend(&of(Event::Intent)) {
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(refused, Error::NoSpace(_)), "{refused:?}");
    assert!(
        matches!(log.append(&of(Event::Refused)), Err(Error::NoSpace(_))),
        "nothing eats the space of results"
    );
    let mut last = head;
    for _ in 0..64 {
        last = log.append(&of(Event::Result)).unwrap();
    }
    verified(&last);

    // And without a restart it goes on when there is space again.
    std::fs::remove_file(&ballast).unwrap();
    last = log.intend(&of(Event::Intent)).unwrap();
    verified(&last);
}

/// REQ-RECORD-8, REQ-RECORD-10
#[test]
fn a_folder_and_segments_that_are_append_only_work_also_when_a_write_was_torn() {
    let room = Room::on_disk();
    room.open(600).append(&draft(2)).unwrap();
    let chattr = |flag: &str| {
        let paths = room.segments().into_iter().chain([room.folder()]);
        paths
            .map(|path| Command::new("chattr").arg(flag).arg(path).output())
            .all(|o| o.is_ok_and(|o| o.status.success()))
    };
    if !chattr("+a") {
        println!("not shown: needs root and a file system with attributes");
        return;
    }
    let torn = || {
        use std::io::Write;
        let last = room.segments().pop().unwrap();
        std::fs::OpenOptions::new()
            .append(true)
            .open(last)
            .unwrap()
            .write_all(b"{\"v\"")
            .unwrap();
    };
    let mut log = room.open(600);
    for round in 0..6 {
        log.append(&draft(round)).unwrap();
        chattr("+a");
        if round % 3 == 0 {
            torn();
        }
    }
    let report = room.report(&[log.head()]);
    let shrunk = std::fs::OpenOptions::new()
        .write(true)
        .open(&room.segments()[0])
        .is_ok();
    chattr("-a");
    assert!(report.ok && report.logs[0].torn_writes == 2, "{report:?}");
    assert!(!shrunk, "the attribute really stood");
}
