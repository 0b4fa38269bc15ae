//! What goes wrong without anybody's malice: a clear Code, nothing run, nothing lost, and the processes live on.

use std::fs;
use std::io::Write as _;

use harness::control::{CA_LOG, RELAY_LOG};
use harness::root::Root;
use harness::target::LOG;
use harness::{ALICE, Options, Stack, refused};
use serde_json::{Value, json};

fn tail(target: &str) -> Value {
    json!({"target": target, "path": "/var/log/shop/web.log", "lines": 1, "reason": "a test"})
}

/// Writes until the disk is full.
fn fill(root: &Root, log: &str) -> std::path::PathBuf {
    let path = root.at(log).join("filler");
    let mut file = fs::File::create(&path).unwrap();
    for size in [4096, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
    path
}

#[test]
fn an_unreachable_target_is_said_to_be_that_and_others_go_on() {
    let mut stack = Stack::usual().unwrap();
    stack.target_mut("web-2").unwrap().stop_sshd();
    let mut client = stack.client(ALICE).unwrap();
    let called = client.call("tail_log", tail("web-2")).unwrap();
    assert_eq!(called.code(), "unreachable", "{}", called.value);
    assert_eq!(called.value["retryable"], true, "{}", called.value);
    client.call_ok("tail_log", tail("web-1")).unwrap();
    stack.target_mut("web-2").unwrap().start_sshd().unwrap();
    client.call_ok("tail_log", tail("web-2")).unwrap();
}

#[test]
fn a_changed_host_key_ends_before_any_authentication() {
    let mut stack = Stack::usual().unwrap();
    let target = stack.target_mut("web-1").unwrap();
    target.stop_sshd();
    for file in [
        "ssh_host_ed25519_key",
        "ssh_host_ed25519_key.pub",
        "ssh_host_ed25519_key-cert.pub",
    ] {
        fs::remove_file(target.root().at("etc/ssh").join(file)).unwrap();
    }
    target
        .as_root(
            "/usr/bin/ssh-keygen",
            &["-q", "-t", "ed25519", "-N", "", "-f", "/etc/ssh/ssh_host_ed25519_key"],
            b"",
        )
        .unwrap();
    target.start_sshd().unwrap();
    let called = stack.client(ALICE).unwrap().call("tail_log", tail("web-1")).unwrap();
    assert_eq!(called.code(), "host_key_changed", "{}", called.value);
    let log = stack.target("web-1").unwrap().sshd_log();
    assert!(!log.contains("Accepted") && !log.contains("Failed"), "{log}");
    assert_eq!(refused::intents(&stack).unwrap(), 0);
}

#[test]
fn a_full_disk_under_any_log_stops_what_would_not_be_recorded_and_nothing_else() {
    let stack = Stack::start(&Options {
        log_disk_kib: Some(512),
        ..Options::default()
    })
    .unwrap();
    let mut client = stack.client(ALICE).unwrap();
    // A task is open, so that only the tier in question has to write for the next call.
    client.call_ok("tail_log", tail("web-1")).unwrap();
    let pids = stack.control.pids();

    let target = stack.target("web-1").unwrap().root();
    for (root, log, arguments) in [
        (target, LOG, tail("web-1")),
        (stack.control.root(), RELAY_LOG, tail("web-1")),
        (stack.control.root(), CA_LOG, tail("web-2")),
    ] {
        let before = refused::intents(&stack).unwrap();
        let filler = fill(root, log);
        let called = client.call("tail_log", arguments.clone()).unwrap();
        assert_eq!(called.code(), "log_unavailable", "{log}: {}", called.value);
        assert_eq!(refused::intents(&stack).unwrap(), before, "{log}: something ran");
        fs::remove_file(filler).unwrap();
        client
            .call_ok("tail_log", arguments)
            .unwrap_or_else(|error| panic!("{log} has space again: {error}"));
    }
    assert_eq!(stack.control.pids(), pids);
    whole(&stack);
}

/// Every log is whole.
fn whole(stack: &Stack) {
    let said = harness::evidence::Evidence::copy(stack, "after")
        .unwrap()
        .verify()
        .unwrap();
    assert_eq!(said.exit, 0, "{}", said.report);
}
