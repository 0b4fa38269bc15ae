//! Many processes append to one log at once, and some of them are killed.

#![allow(clippy::unwrap_used, reason = "tests")]

mod room;

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use audit::Tier;
use room::{Room, draft};

/// So small that segments begin all the time.
const SEGMENT: u64 = 128 << 10;

/// Tells the process below where its log is and how many records it has to append.
const ROOM: &str = "AUDIT_TEST_ROOM";

#[test]
#[ignore = "not a test: the process that the tests below start many times"]
fn appender() {
    let Some((room, count)) = std::env::var(ROOM)
        .ok()
        .and_then(|text| Some(text.split_once(' ')?).map(|(count, room)| (room.to_owned(), count.to_owned())))
    else {
        return;
    };
    let mut log = room::open(Path::new(&room), Tier::Target, SEGMENT);
    let mut out = std::io::stdout().lock();
    for number in 0..count.parse().unwrap() {
        let head = log.append(&draft(number)).unwrap();
        // Only what was answered is told.
        writeln!(out, "head {} {} {}", head.log, head.seq, head.hash).unwrap();
    }
}

fn start(room: &Room, count: u64) -> Child {
    let folder = room.folder();
    Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "appender", "--nocapture", "--test-threads=1"])
        .env(ROOM, format!("{count} {}", folder.parent().unwrap().display()))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

fn heads(child: &mut Child) -> Vec<wire::ids::Head> {
    let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    lines
        .filter_map(|line| {
            // The test harness writes its own words on the same line as the first of ours.
            let words: Vec<_> = line.split_once("head ")?.1.split(' ').map(str::to_owned).collect();
            let [log, seq, hash] = words.try_into().ok()?;
            Some(wire::ids::Head {
                log: log.parse().ok()?,
                seq: seq.parse().ok()?,
                hash: hash.parse().ok()?,
            })
        })
        .collect()
}

/// REQ-RECORD-4, REQ-RECORD-7
#[test]
fn sixty_four_processes_append_a_thousand_records_each_in_one_order() {
    let room = Room::on_disk();
    let mut children: Vec<_> = (0..64).map(|_| start(&room, 1000)).collect();
    let told: Vec<_> = std::thread::scope(|scope| {
        let readers: Vec<_> = children.iter_mut().map(|child| scope.spawn(|| heads(child))).collect();
        readers.into_iter().flat_map(|reader| reader.join().unwrap()).collect()
    });
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(told.len(), 64_000);
    let report = room.report(&told);
    assert!(report.ok, "{report:?}");
    assert_eq!((report.logs[0].records, report.logs[0].torn_writes), (64_001, 0));
    assert!(report.logs[0].segments > 100);
}

/// REQ-RECORD-5, REQ-RECORD-10
#[test]
fn processes_that_are_killed_anywhere_lose_nothing_that_they_told() {
    let room = Room::on_disk();
    let mut told = Vec::new();
    for round in 0..20 {
        let mut children: Vec<_> = (0..8).map(|_| start(&room, 100_000)).collect();
        std::thread::sleep(Duration::from_millis(20 + 13 * round));
        for child in &mut children {
            child.kill().unwrap();
        }
        for mut child in children {
            told.extend(heads(&mut child));
            child.wait().unwrap();
        }
        let report = room.report(&told);
        assert!(report.ok, "{report:?}");
    }
    assert!(told.len() > 100);
    println!("{} records told, {} found", told.len(), told.len());
}
