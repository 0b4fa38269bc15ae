//! Every change to a log is found, and the first record that cannot be relied on is named.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

mod room;

use std::fs::File;
use std::os::unix::fs::FileExt;

use audit::{Expected, Kind, verify};
use room::{Room, draft, lines};

const ONE_SEGMENT: u64 = 1 << 20;

#[test]
fn byte_flip_at_every_byte_is_found() {
    // Three segments, so that flips hit their seams too.
    let (room, heads) = Room::filled(9, 1000);
    let last = heads.last().cloned().unwrap();
    let whole = room.bytes();
    assert!(whole.len() >= 3);
    assert_eq!(room.fault(&[]), None);
    let (mut flips, mut seq) = (0, 0);
    for (path, bytes) in &whole {
        let mut record = seq;
        for (at, byte) in bytes.iter().enumerate() {
            if at == 0 || bytes[at - 1] == b'\n' {
                record += 1;
            }
            for mask in [0x01, 0x20, 0x80] {
                let file = File::options().write(true).open(path).unwrap();
                file.write_all_at(&[byte ^ mask], at as u64).unwrap();
                let by_chain = room.fault(&[]);
                if record < last.seq {
                    let (_, named) = by_chain.expect("found without any head");
                    assert!(named.unwrap() <= record, "byte {at} of record {record}: {named:?}");
                }
                assert!(
                    room.fault(std::slice::from_ref(&last)).is_some(),
                    "byte {at} of the last record"
                );
                file.write_all_at(&[*byte], at as u64).unwrap();
                flips += 1;
            }
        }
        seq = record;
    }
    println!("{flips} flips, {flips} found");
}

#[test]
fn attacks_on_a_segment_are_found_and_the_first_bad_record_is_named() {
    let (room, heads) = Room::filled(9, ONE_SEGMENT);
    let whole = room.bytes();
    let (path, bytes) = &whole[0];
    let good = lines(bytes);
    let other = lines(&Room::filled(9, ONE_SEGMENT).0.bytes()[0].1);
    let text = |line: &[u8]| String::from_utf8(line.to_vec()).unwrap();
    let edited = |from: &str, to: &str| {
        let changed = text(&good[4]).replace(from, to).into_bytes();
        assert_ne!(changed, good[4]);
        [&good[..4], &[changed], &good[5..]].concat()
    };
    let last = heads.last().cloned().unwrap();
    type Attack = (&'static str, Vec<Vec<u8>>, (Kind, Option<u64>));
    let table: Vec<Attack> = vec![
        ("edit_old", edited("record 5", "record 6"), (Kind::ChainBroken, Some(5))),
        (
            "edit of a hash",
            edited("\"prev\":\"", "\"prev\":\"0").clone(),
            (Kind::Malformed, Some(5)),
        ),
        (
            "edit of the host",
            edited("web-1", "web-2"),
            (Kind::ChainBroken, Some(5)),
        ),
        (
            "edit of the tier",
            edited("\"target\"", "\"relay\""),
            (Kind::Foreign, Some(5)),
        ),
        (
            "edit of the number",
            edited("\"seq\":5", "\"seq\":6"),
            (Kind::SeqGap, Some(5)),
        ),
        (
            "an added key",
            edited("\"event\"", "\"x\":1,\"event\""),
            (Kind::Malformed, Some(5)),
        ),
        (
            "an added space",
            edited("\"event\"", " \"event\""),
            (Kind::Malformed, Some(5)),
        ),
        (
            "insert a copy",
            [&good[..5], &good[4..]].concat(),
            (Kind::DuplicateSeq, Some(5)),
        ),
        (
            "insert from another log",
            [&good[..4], &other[4..5], &good[4..]].concat(),
            (Kind::ChainBroken, Some(4)),
        ),
        (
            "insert an empty line",
            [&good[..4], &[b"\n".to_vec()], &good[4..]].concat(),
            (Kind::Malformed, Some(5)),
        ),
        ("delete", [&good[..4], &good[5..]].concat(), (Kind::SeqGap, Some(5))),
        (
            "delete and renumber",
            [
                &good[..4],
                &[text(&good[5]).replace("\"seq\":6", "\"seq\":5").into_bytes()],
            ]
            .concat(),
            (Kind::ChainBroken, Some(4)),
        ),
        (
            "swap_two",
            [&good[..4], &good[5..6], &good[4..5], &good[6..]].concat(),
            (Kind::SeqGap, Some(5)),
        ),
        ("delete the beginning", good[1..].to_vec(), (Kind::SeqGap, Some(1))),
        (
            "a second genesis",
            [&good[..4], &good[..1]].concat(),
            (Kind::DuplicateSeq, Some(1)),
        ),
        (
            "cut a line in the middle",
            edited("\"event\":\"refused\"", ""),
            (Kind::Malformed, Some(5)),
        ),
        ("take a newline away", edited("\n", ""), (Kind::Malformed, Some(5))),
        (
            "zeros",
            [&good[..4], &[vec![0; 700]], &good[5..]].concat(),
            (Kind::Malformed, Some(5)),
        ),
        (
            "an endless line",
            [&good[..4], &[vec![b'x'; 3 << 20]]].concat(),
            (Kind::Malformed, Some(5)),
        ),
        ("delete the end", good[..7].to_vec(), (Kind::HeadMissing, Some(9))),
        (
            "cut the end in a line",
            [&good[..8], &[good[8][..90].to_vec()]].concat(),
            (Kind::HeadMissing, Some(9)),
        ),
        ("another log altogether", other, (Kind::HeadMissing, Some(9))),
    ];
    for (name, lines, expected) in &table {
        std::fs::write(path, lines.concat()).unwrap();
        assert_eq!(room.fault(std::slice::from_ref(&last)), Some(*expected), "{name}");
    }
    println!("{} attacks, {} found", table.len(), table.len());
}

#[test]
fn attacks_on_the_files_of_a_log_are_found() {
    let (room, heads) = Room::filled(9, 1000);
    let whole = room.bytes();
    let first = |at: usize| -> u64 { whole[at].0.file_stem().unwrap().to_str().unwrap().parse().unwrap() };
    let last = heads.last().cloned().unwrap();
    type Attack<'a> = (&'static str, Box<dyn Fn() + 'a>, (Kind, Option<u64>));
    let remove = |at: usize| move |whole: &[(std::path::PathBuf, Vec<u8>)]| std::fs::remove_file(&whole[at].0).unwrap();
    let table: Vec<Attack<'_>> = vec![
        (
            "the first segment is gone",
            Box::new(|| remove(0)(&whole)),
            (Kind::NotAnchored, Some(first(1))),
        ),
        (
            "a segment is gone",
            Box::new(|| remove(1)(&whole)),
            (Kind::SeqGap, Some(first(1))),
        ),
        (
            "the last segment is gone",
            Box::new(|| remove(whole.len() - 1)(&whole)),
            (Kind::HeadMissing, Some(last.seq)),
        ),
        (
            "a segment is empty",
            Box::new(|| std::fs::write(&whole[1].0, "").unwrap()),
            (Kind::SeqGap, Some(first(1))),
        ),
        (
            "a segment has another name",
            Box::new(|| std::fs::rename(&whole[1].0, room.folder().join(format!("{:020}.jsonl", 99))).unwrap()),
            (Kind::SeqGap, Some(first(1))),
        ),
        (
            "a segment was moved to the end",
            Box::new(|| std::fs::rename(&whole[0].0, room.folder().join(format!("{:020}.jsonl", 99))).unwrap()),
            (Kind::NotAnchored, Some(first(1))),
        ),
        (
            "a segment stands twice",
            Box::new(|| {
                std::fs::copy(&whole[1].0, room.folder().join("copy.jsonl")).unwrap();
            }),
            (Kind::DuplicateSeq, Some(first(1))),
        ),
        (
            "a segment of something else",
            Box::new(|| std::fs::write(room.folder().join("x.jsonl"), "{}\n").unwrap()),
            (Kind::Malformed, None),
        ),
        (
            "a segment is cut within a line",
            Box::new(|| std::fs::write(&whole[1].0, &whole[1].1[..whole[1].1.len() - 9]).unwrap()),
            (Kind::TornInMiddle, Some(first(2) - 1)),
        ),
        (
            "a segment has a torn end that nobody names",
            Box::new(|| std::fs::write(&whole[1].0, [&whole[1].1[..], b"{"].concat()).unwrap()),
            (Kind::TornInMiddle, Some(first(2))),
        ),
    ];
    for (name, attack, expected) in &table {
        attack();
        assert_eq!(room.fault(std::slice::from_ref(&last)), Some(*expected), "{name}");
        room.restore(&whole);
        assert_eq!(room.fault(std::slice::from_ref(&last)), None, "{name}: put back");
    }
    println!("{} attacks, {} found", table.len(), table.len());
}

#[test]
fn torn_bytes_that_were_changed_later_are_found() {
    let (room, _) = Room::filled(3, ONE_SEGMENT);
    let path = room.segments()[0].clone();
    let torn = |bytes: &[u8]| std::fs::write(&path, [&std::fs::read(&path).unwrap()[..], bytes].concat()).unwrap();
    torn(b"{\"v\":1,\"seq\"");
    room.open(ONE_SEGMENT).append(&draft(5)).unwrap();
    assert_eq!(room.fault(&[]), None);
    let whole = room.bytes();
    let bytes = &whole[0].1;
    for harmed in [[&bytes[..], b"x"].concat(), bytes[..bytes.len() - 1].to_vec(), {
        let mut bytes = bytes.clone();
        *bytes.last_mut().unwrap() ^= 1;
        bytes
    }] {
        std::fs::write(&path, harmed).unwrap();
        assert_eq!(room.fault(&[]), Some((Kind::TornInMiddle, Some(4))));
    }
    // Torn bytes that were taken away whole, or given an end.
    std::fs::write(&path, &bytes[..bytes.len() - 12]).unwrap();
    assert_eq!(room.fault(&[]), Some((Kind::SeqGap, Some(4))));
    std::fs::write(&path, [&bytes[..], b"\n"].concat()).unwrap();
    assert_eq!(room.fault(&[]), Some((Kind::Malformed, Some(4))));
}

#[test]
fn rollback_snapshot_and_truncate_then_resume_show_against_a_head_that_others_hold() {
    let (room, heads) = Room::filled(5, ONE_SEGMENT);
    let snapshot = room.bytes();
    let last = room.open(ONE_SEGMENT).append(&draft(6)).unwrap();
    room.restore(&snapshot);
    assert_eq!(room.fault(&[]), None, "a chain alone cannot know");
    assert_eq!(
        room.fault(std::slice::from_ref(&last)),
        Some((Kind::HeadMissing, Some(6)))
    );
    room.open(ONE_SEGMENT).append(&draft(66)).unwrap();
    assert_eq!(room.fault(&heads), None);
    assert_eq!(
        room.fault(std::slice::from_ref(&last)),
        Some((Kind::HeadDiffers, Some(6)))
    );
    let forked = wire::ids::Head {
        hash: wire::ids::Digest::of(b"fork"),
        ..heads[0].clone()
    };
    assert_eq!(
        room.fault(&[heads[0].clone(), forked]),
        Some((Kind::HeadDiffers, Some(2)))
    );
}

/// REQ-RECORD-16.
#[test]
fn torn_bytes_in_place_of_a_record_that_is_vouched_for_are_found() {
    let (room, heads) = Room::filled(9, ONE_SEGMENT);
    let whole = room.bytes();
    let mut attacks = 0;
    for cut in 2..=9_u64 {
        for numbers in [1, 2, 5] {
            room.restore(&whole);
            let kept = lines(&whole[0].1)[..cut as usize - 1].concat();
            std::fs::write(&whole[0].0, [&kept[..], b"{"].concat()).unwrap();
            for number in 1..numbers {
                std::fs::write(room.folder().join(format!("{:020}.jsonl", cut + number)), "{").unwrap();
            }
            // The honest writer goes on, beyond what was there.
            let mut log = room.open(ONE_SEGMENT);
            let new: Vec<_> = (0..9).map(|number| log.append(&draft(number)).unwrap()).collect();

            let report = room.report(&new);
            assert!(report.ok, "without the old heads it is like a crash: {report:?}");
            let place = report.logs[0].torn[0];
            assert_eq!((place.seq, place.numbers, place.bytes), (cut, numbers, numbers));
            assert!(
                report.notes[0].contains("must be proven by heads"),
                "{:?}",
                report.notes
            );

            for head in &heads {
                let fault = room.fault(&[std::slice::from_ref(head), &new].concat());
                let expected = match head.seq {
                    seq if seq < cut => None,
                    seq if seq < cut + numbers => Some((Kind::HeadMissing, Some(seq))),
                    // A record of the new history.
                    seq => Some((Kind::HeadDiffers, Some(seq))),
                };
                assert_eq!(fault, expected, "cut at {cut}, {numbers} numbers, head {}", head.seq);
                attacks += u64::from(expected.is_some());
            }
        }
    }
    println!("{attacks} attacks, {attacks} found");
}

/// REQ-RECORD-17.
#[test]
fn every_torn_place_is_in_the_report() {
    let (room, _) = Room::filled(3, ONE_SEGMENT);
    let torn = |bytes: &str| {
        use std::io::Write;
        let last = room.segments().pop().unwrap();
        File::options()
            .append(true)
            .open(last)
            .unwrap()
            .write_all(bytes.as_bytes())
            .unwrap();
    };
    let places = || {
        let report = room.report(&[]);
        assert!(report.ok);
        report.logs[0]
            .torn
            .iter()
            .map(|place| (place.seq, place.numbers, place.bytes))
            .collect::<Vec<_>>()
    };
    assert_eq!((places(), room.report(&[]).notes), (vec![], vec![]));
    torn("{\"v");
    assert_eq!(places(), [(4, 1, 3)], "also at the end");
    room.open(ONE_SEGMENT).append(&draft(6)).unwrap();
    torn("{");
    std::fs::write(room.folder().join("00000000000000000008.jsonl"), "{}").unwrap();
    room.open(ONE_SEGMENT);
    assert_eq!(places(), [(4, 1, 3), (7, 2, 3)]);
    let note = room.report(&[]).notes.concat();
    assert!(note.contains("at 4, 7..8 (3 numbers, 6 bytes)"), "{note}");
}

#[test]
fn nothing_empty_and_unreadable_are_failures() {
    let empty = tempfile::tempdir().unwrap();
    let kinds = |paths: &[std::path::PathBuf]| {
        let report = verify(paths, &Expected::default());
        assert!(!report.ok);
        let faults = report
            .logs
            .iter()
            .filter_map(|log| log.fault.as_ref())
            .chain(&report.faults);
        faults.map(|fault| fault.kind).collect::<Vec<_>>()
    };
    assert_eq!(kinds(&[]), [Kind::NoLog]);
    assert_eq!(kinds(&[empty.path().to_owned()]), [Kind::NoLog]);
    assert_eq!(kinds(&[empty.path().join("none")]), [Kind::Unreadable]);
    assert_eq!(kinds(&["/dev/null".into()]), [Kind::Unreadable]);
    std::fs::write(empty.path().join("00000000000000000001.jsonl"), "").unwrap();
    assert_eq!(kinds(&[empty.path().to_owned()]), [Kind::NotAnchored]);
    std::fs::write(empty.path().join("00000000000000000001.jsonl"), "{").unwrap();
    assert_eq!(kinds(&[empty.path().to_owned()]), [Kind::NotAnchored]);
    // One bad among good ones is enough.
    let (room, _) = Room::filled(3, ONE_SEGMENT);
    assert_eq!(kinds(&[room.folder(), empty.path().join("none")]), [Kind::Unreadable]);
}

/// REQ-RECORD-14.
#[test]
fn what_is_no_regular_file_is_unreadable_and_never_waited_for() {
    let laid = |lay: &dyn Fn(&std::path::Path)| {
        let (room, heads) = Room::filled(3, ONE_SEGMENT);
        lay(&room.folder().join("00000000000000000004.jsonl"));
        let (done, wait) = std::sync::mpsc::channel();
        std::thread::spawn(move || done.send(room.fault(&heads)));
        wait.recv_timeout(std::time::Duration::from_secs(20)).expect("it hangs")
    };
    let unreadable = Some((Kind::Unreadable, None));
    let mode = nix::sys::stat::Mode::S_IRWXU;
    assert_eq!(laid(&|path| nix::unistd::mkfifo(path, mode).unwrap()), unreadable);
    assert_eq!(laid(&|path| std::fs::create_dir(path).unwrap()), unreadable);
    for to in [
        "/dev/zero",
        "/dev/null",
        "/proc/self/environ",
        "00000000000000000001.jsonl",
    ] {
        let link = |path: &std::path::Path| std::os::unix::fs::symlink(to, path).unwrap();
        assert_eq!(laid(&link), unreadable, "{to}");
    }
    let socket = |path: &std::path::Path| drop(std::os::unix::net::UnixListener::bind(path).unwrap());
    assert_eq!(laid(&socket), unreadable);
    // A link that the caller names is the caller's.
    let (room, heads) = Room::filled(3, ONE_SEGMENT);
    let link = room.folder().with_extension("link");
    std::os::unix::fs::symlink(&room.segments()[0], &link).unwrap();
    assert!(verify(&[link], &Expected::new(heads)).ok);
}

#[test]
fn segments_may_be_given_in_any_order_from_any_folder_and_many_logs_at_once() {
    let (one, _) = Room::filled(9, 1000);
    let (two, _) = Room::filled(4, ONE_SEGMENT);
    let elsewhere = tempfile::tempdir().unwrap();
    let mut paths: Vec<_> = one.segments().into_iter().rev().collect();
    let copy = elsewhere.path().join("renamed-by-somebody");
    std::fs::copy(paths.remove(1), &copy).unwrap();
    paths.extend([copy, two.folder(), two.segments()[0].clone()]);
    let report = verify(&paths, &Expected::default());
    assert!(report.ok, "{report:?}");
    let mut records: Vec<_> = report.logs.iter().map(|log| log.records).collect();
    records.sort_unstable();
    assert_eq!(records, [4, 9]);
}
