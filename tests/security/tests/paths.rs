//! Paths that lead, or could lead, out of the folders that an action allows; and files that are no ordinary ones.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where; its name is its documentation"
)]

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::time::{Duration, Instant};

use harness::evil::{code, outcome};
use harness::{By, EvilRelay, Leaves, Stack, assert_refused};
use security::maze::{INSIDE, OUTSIDE, maze, reader, sha256, shown};
use security::{WEB, add_action, granted, stack, still_serves, tell};
use serde_json::{Value, json};

fn read(relay: &mut EvilRelay, path: &str) -> Value {
    relay.call("tail_log", json!({"path": path, "lines": 5})).unwrap()
}

fn refused(stack: &Stack, name: &str, expected: &str, call: impl FnOnce() -> anyhow::Result<Value>) {
    assert_refused(stack, By::Target(WEB), Leaves::Record, expected, || {
        let begun = Instant::now();
        let answer = call()?;
        // Whatever the path names, it is never waited for.
        anyhow::ensure!(
            begun.elapsed() < Duration::from_secs(1),
            "{:?}: {answer}",
            begun.elapsed()
        );
        anyhow::ensure!(!answer.to_string().contains(OUTSIDE), "{answer}");
        Ok(code(&answer))
    })
    .unwrap_or_else(|error| panic!("{name}: {error:?}"));
}

/// Asks for each path with this action, and expects that all are refused with this Code.
fn table(name: &str, action: &str, within: Option<&str>, expected: &str, paths: &[&str]) {
    let stack = stack();
    maze(&stack).unwrap();
    let _action =
        within.map(|within| add_action(stack.target(WEB).unwrap(), action, &reader(action, within, "")).unwrap());
    let mut relay = granted(&stack, &[action]).unwrap();
    for path in paths {
        let args = if within.is_some() {
            json!({ "path": path })
        } else {
            json!({"path": path, "lines": 5})
        };
        refused(&stack, &format!("{name} {path}"), expected, || relay.call(action, args));
    }
    // Beside them what is harmless, so that it is not everything that is refused.
    assert_eq!(shown(&read(&mut relay, "/var/log/maze/deep/file")), INSIDE);
    still_serves(&mut relay).unwrap();
    tell(name, paths.len());
}

#[test]
fn path_prefix_sibling() {
    let paths = ["/var/log-evil/file", "/var/logs/file", "/var/log", "/var/lo"];
    table("path_prefix_sibling", "tail_log", None, "path_refused", &paths);
}

#[test]
fn path_dotdot() {
    let paths = [
        "/var/log/../lib/outside/file",
        "/var/log/maze/../../lib/outside/file",
        "/var/log/maze/deep/../file",
        "/var/log/./maze/file",
        "/var/log//maze/file",
        "/var/log/maze/file/",
        "/var/log/maze/file/.",
        "/var/log/..",
        "//var/log/maze/file",
    ];
    table("path_dotdot", "tail_log", None, "path_refused", &paths);
    let paths = ["var/log/maze/file", "../../etc/passwd", ""];
    table(
        "path_dotdot, not absolute",
        "tail_log",
        None,
        "arguments_invalid",
        &paths,
    );
}

#[test]
fn path_symlink_final() {
    let paths = [
        "/var/log/maze/link",
        "/var/log/maze/relative",
        "/var/log/maze/magic",
        // Also one that stays inside: whoever owns it can change where it leads.
        "/var/log/maze/harmless",
        "/var/log/maze/folder",
    ];
    table("path_symlink_final", "tail_log", None, "path_refused", &paths);
}

#[test]
fn path_symlink_mid() {
    let paths = ["/var/log/maze/folder/file", "/var/log/maze/folder/../file"];
    table("path_symlink_mid", "tail_log", None, "path_refused", &paths);
}

#[test]
fn path_magic() {
    let paths = [
        "/proc/self/root/var/lib/outside/file",
        "/proc/self/cwd/var/lib/outside/file",
        "/proc/thread-self/root/etc/passwd",
        "/proc/self/fd/0",
        "/proc/self/exe",
        "/proc/self/ns/mnt",
    ];
    table("path_magic", "read_proc", Some("/proc"), "path_refused", &paths);
}

#[test]
fn path_fifo() {
    let paths = [
        "/var/log/maze/fifo",
        "/var/log/maze/socket",
        "/var/log/maze",
        "/var/log/maze/deep",
    ];
    table("path_fifo", "tail_log", None, "path_refused", &paths);
}

#[test]
fn path_device() {
    let paths = ["/dev/null", "/dev/zero", "/dev/urandom"];
    table("path_device", "read_dev", Some("/dev"), "path_refused", &paths);
}

#[test]
fn path_hardlink() {
    let paths = ["/var/log/maze/hard", "/var/log/maze/second"];
    table("path_hardlink", "tail_log", None, "path_refused", &paths);
}

#[test]
fn path_newline() {
    let paths = [
        "/var/log/maze/file\n/var/lib/outside/file",
        "/var/log/shop/line\n",
        "/var/log/maze\n/file",
        "/var/log/maze/file\r",
        "/var/log/maze/file\u{1b}[2J",
    ];
    // Also where there is such a file.
    stack()
        .target(WEB)
        .unwrap()
        .root()
        .file("var/log/shop/line\n", 0o644, OUTSIDE)
        .unwrap();
    table("path_newline", "tail_log", None, "arguments_invalid", &paths);
}

#[test]
fn path_unicode() {
    let paths = [
        // What looks like another name is another name: nothing is folded, composed, trimmed or decoded.
        "/var/log/maze/cafe\u{301}",
        "/var/log/maze/\u{ff0e}\u{ff0e}/\u{ff0e}\u{ff0e}/lib/outside/file",
        "/var/log/maze/..\u{2215}..\u{2215}lib/outside/file",
        "/var/log/maze/%2e%2e/%2e%2e/lib/outside/file",
        "/var/log/maze/file\u{200b}",
        "/var/log/maze/\u{202e}elif",
        "/var/log/maze/FILE",
        "/var/log/maze/file ",
        "/var/log/maze/f\u{131}le",
    ];
    table("path_unicode", "tail_log", None, "path_not_found", &paths);
    let stack = stack();
    let root = stack.target(WEB).unwrap().root();
    root.file("var/log/maze/caf\u{e9}", 0o644, INSIDE).unwrap();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    assert_eq!(shown(&read(&mut relay, "/var/log/maze/caf\u{e9}")), INSIDE);
    assert_eq!(code(&read(&mut relay, "/var/log/maze/cafe\u{301}")), "path_not_found");
}

/// Longer than anything that is answered, and mostly holes: read at its end, where it is wanted, and bounded elsewhere.
#[test]
fn files_over_the_limit_and_sparse_files_are_read_within_bounds() {
    let stack = stack();
    let root = maze(&stack).unwrap();
    let (long, holes) = (root.join("var/log/maze/long"), root.join("var/log/maze/holes"));
    let line = format!("{}\n", "x".repeat(99));
    fs::write(&long, line.repeat(100_000)).unwrap();
    let file = fs::File::create(&holes).unwrap();
    file.set_len(1 << 40).unwrap();
    file.write_all_at(b"\nlast but one\nlast\n", 1 << 40).unwrap();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();

    let answer = relay
        .call("tail_log", json!({"path": "/var/log/maze/long", "lines": 5000}))
        .unwrap();
    let told = outcome(&answer).unwrap();
    assert_eq!(
        (told["output"]["bytes"].as_u64(), &told["output"]["truncated"]),
        (Some(500_000), &json!(true))
    );
    assert_eq!(shown(&answer).len(), 262_144);
    assert_eq!(told["output"]["sha256"], sha256(&line.repeat(5000)));

    let answer = relay
        .call("tail_log", json!({"path": "/var/log/maze/holes", "lines": 2}))
        .unwrap();
    assert_eq!(shown(&answer), "last but one\nlast\n", "{answer}");
    let args = json!({"path": "/var/log/maze/holes", "offset": (1_u64 << 40) - 10, "limit": 16});
    let answer = relay.call("read_file", args).unwrap();
    assert_eq!(outcome(&answer).unwrap()["output"]["bytes"], 16, "{answer}");
    let args = json!({"path": "/var/log/maze/holes", "offset": 1_u64 << 41, "limit": 16});
    let answer = relay.call("read_file", args).unwrap();
    assert_eq!((code(&answer).as_str(), shown(&answer)), ("none", ""), "{answer}");
    // More lines than it has: a terabyte of nothing is looked through until the deadline, in little memory.
    let _action = add_action(
        stack.target(WEB).unwrap(),
        "read_maze",
        &reader("read_maze", "/var/log/maze", ""),
    )
    .unwrap();
    let mut relay = granted(&stack, &["read_maze"]).unwrap();
    let answer = relay.call("read_maze", json!({"path": "/var/log/maze/holes"})).unwrap();
    let told = outcome(&answer).unwrap();
    assert_eq!(
        (told["status"].as_str(), code(&answer).as_str()),
        (Some("timed_out"), "deadline_exceeded"),
        "{answer}"
    );
    assert!(
        told["resources"]["max_rss_kib"].as_u64().unwrap() < 8 * 1024,
        "{answer}"
    );
    still_serves(&mut relay).unwrap();
}
