//! Files that change while an action reads them: other folders, links, generations and contents in their place.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where; its name is its documentation"
)]

use std::fs;
use std::os::unix::fs::{FileExt as _, symlink};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use harness::evil::code;
use harness::{By, EvilRelay, Leaves, assert_refused};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use security::maze::{INSIDE, maze, reader, sha256, shown};
use security::{WEB, add_action, granted, stack};
use serde_json::{Value, json};

/// Says that it is over when it is dropped: also where a test fails, whose other thread would go on for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn read(relay: &mut EvilRelay, path: &str) -> Value {
    relay.call("tail_log", json!({"path": path, "lines": 5})).unwrap()
}

/// A folder of the path and a link to elsewhere change places a million times while the path is read.
#[test]
fn path_swap_race() {
    const FLIPS: u64 = 1_000_000;
    let stack = stack();
    let root = maze(&stack).unwrap();
    fs::create_dir(root.join("var/log/maze/swap")).unwrap();
    fs::write(root.join("var/log/maze/swap/file"), INSIDE).unwrap();
    symlink("/var/lib/outside", root.join("var/log/maze/lure")).unwrap();
    let (folder, lure) = (root.join("var/log/maze/swap"), root.join("var/log/maze/lure"));
    let (flips, done) = (AtomicU64::new(0), AtomicBool::new(false));
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    let (mut inside, mut refused) = (0_u64, 0_u64);
    std::thread::scope(|threads| {
        let _over = Over(&done);
        threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                renameat2(AT_FDCWD, &folder, AT_FDCWD, &lure, RenameFlags::RENAME_EXCHANGE).unwrap();
                flips.fetch_add(1, Ordering::Relaxed);
            }
        });
        while flips.load(Ordering::Relaxed) < FLIPS || inside == 0 || refused == 0 {
            let answer = read(&mut relay, "/var/log/maze/swap/file");
            match (code(&answer).as_str(), shown(&answer)) {
                ("none", INSIDE) => inside += 1,
                ("path_refused", "") => refused += 1,
                _ => panic!("{answer}"),
            }
        }
    });
    println!(
        "path_swap_race: {} flips, {} reads: {inside} inside, {refused} refused, 0 outside",
        flips.into_inner(),
        inside + refused
    );
}

/// Logs are renamed away and made anew, and cut and written again, while they are read.
#[test]
fn path_rotate_during_tail() {
    const READS: u64 = 300;
    let stack = stack();
    let root = maze(&stack).unwrap();
    let log = root.join("var/log/maze/app.log");
    let generation = |number: u64| {
        (1..=5)
            .map(|line| format!("generation {number} line {line}\n"))
            .collect::<String>()
    };
    fs::write(&log, generation(0)).unwrap();
    let done = AtomicBool::new(false);
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    let mut last = 0_u64;
    let (mut whole, mut between) = (0_u64, 0_u64);
    std::thread::scope(|threads| {
        let _over = Over(&done);
        threads.spawn(|| {
            let mut number = 0;
            while !done.load(Ordering::Relaxed) {
                number += 1;
                fs::rename(&log, log.with_extension("1")).unwrap();
                let next = log.with_extension("next");
                fs::write(&next, generation(number)).unwrap();
                fs::rename(&next, &log).unwrap();
            }
        });
        while whole < READS || between == 0 {
            let answer = read(&mut relay, "/var/log/maze/app.log");
            match code(&answer).as_str() {
                "none" => {
                    let text = shown(&answer);
                    let number = text
                        .split(' ')
                        .nth(1)
                        .and_then(|word| word.parse().ok())
                        .unwrap_or(u64::MAX);
                    // One generation, whole, and none that is older than one that was seen.
                    assert_eq!(text, generation(number), "{answer}");
                    assert!(number >= last, "{number} after {last}");
                    last = number;
                    whole += 1;
                }
                "path_not_found" => between += 1,
                other => panic!("{other}: {answer}"),
            }
        }
    });
    println!("path_rotate_during_tail: {whole} whole, {between} between two files, generation {last}");
    // Cut to nothing and written again in place: what is read are lines of the file, and never anything else.
    done.store(false, Ordering::Relaxed);
    std::thread::scope(|threads| {
        let _over = Over(&done);
        threads.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                fs::write(&log, generation(7)).unwrap();
            }
        });
        for _ in 0..READS {
            let answer = read(&mut relay, "/var/log/maze/app.log");
            assert_eq!(code(&answer), "none", "{answer}");
            assert!(generation(7).starts_with(shown(&answer)), "{answer}");
        }
    });
}

/// An action whose file is approved by its content shows that content or nothing, whoever writes the file meanwhile.
#[test]
fn pinned_file_changed() {
    let stack = stack();
    let root = maze(&stack).unwrap();
    let manifest = reader("read_pinned", "/var/log/maze", "pin = true\n");
    let _action = add_action(stack.target(WEB).unwrap(), "read_pinned", &manifest).unwrap();
    let mut relay = granted(&stack, &["read_pinned"]).unwrap();
    let approved = "approved\n".repeat(10_000);
    let args = json!({"path": {"path": "/var/log/maze/file", "sha256": sha256(&approved)}});
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "file_changed", || {
        Ok(code(&relay.call("read_pinned", args.clone())?))
    })
    .unwrap();
    let file = root.join("var/log/maze/file");
    fs::write(&file, &approved).unwrap();
    let answer = relay.call("read_pinned", args.clone()).unwrap();
    assert_eq!(shown(&answer), "approved\n".repeat(5), "{answer}");
    // One character of it is written over and over, in place: a check that read the file twice would be passed by another.
    let (done, mut whole, mut changed) = (AtomicBool::new(false), 0, 0);
    std::thread::scope(|threads| {
        let _over = Over(&done);
        threads.spawn(|| {
            let open = fs::File::options().write(true).open(&file).unwrap();
            let place = approved.len() as u64 - 9;
            while !done.load(Ordering::Relaxed) {
                for letter in [b"A", b"a"] {
                    open.write_all_at(letter, place).unwrap();
                }
            }
        });
        while whole < 50 || changed < 50 {
            let answer = relay.call("read_pinned", args.clone()).unwrap();
            match (code(&answer).as_str(), shown(&answer)) {
                ("none", text) if text == "approved\n".repeat(5) => whole += 1,
                ("file_changed", "") => changed += 1,
                _ => panic!("{answer}"),
            }
        }
    });
    println!("pinned_file_changed: {whole} as approved, {changed} refused, 0 otherwise");
}
