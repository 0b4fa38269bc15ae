//! What goes wrong without anybody's malice: a clear Code, nothing run, nothing lost, and the processes live on.

use std::fs;
use std::io::Write as _;

use harness::control::{CA_LOG, RELAY_LOG};
use harness::root::Root;
use harness::target::LOG;
use harness::{ALICE, By, Leaves, McpClient, Options, Stack, Target, assert_refused, refused};
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

/// Calls for a log of this target, and asserts that the relay refuses with this Code and nothing runs.
fn relay_refuses(stack: &Stack, client: &mut McpClient, target: &str, code: &str, retryable: bool) {
    assert_refused(stack, By::Relay, Leaves::Record, code, || {
        let called = client.call("tail_log", tail(target))?;
        assert_eq!(called.value["retryable"], retryable, "{}", called.value);
        Ok(called.code().to_owned())
    })
    .unwrap_or_else(|error| panic!("{target}: {error:?}"));
}

#[test]
fn an_unreachable_target_is_said_to_be_that_and_others_go_on() {
    let mut stack = Stack::usual().unwrap();
    stack.target_mut("web-2").unwrap().stop_sshd();
    let mut client = stack.client(ALICE).unwrap();
    relay_refuses(&stack, &mut client, "web-2", "unreachable", true);
    client.call_ok("tail_log", tail("web-1")).unwrap();
    stack.target_mut("web-2").unwrap().start_sshd().unwrap();
    client.call_ok("tail_log", tail("web-2")).unwrap();
}

/// Gives a target another host key, as a machine that was set up anew, or another machine, would have one.
fn change_host_key(target: &mut Target) {
    target.stop_sshd();
    for file in [
        "ssh_host_ed25519_key",
        "ssh_host_ed25519_key.pub",
        "ssh_host_ed25519_key-cert.pub",
    ] {
        fs::remove_file(target.root().at("etc/ssh").join(file)).unwrap();
    }
    let key = "/etc/ssh/ssh_host_ed25519_key";
    target
        .as_root(
            "/usr/bin/ssh-keygen",
            &["-q", "-t", "ed25519", "-N", "", "-f", key],
            b"",
        )
        .unwrap();
    target.start_sshd().unwrap();
}

/// REQ-SESSION-14
fn nobody_tried_to_log_in(stack: &Stack) {
    let log = stack.target("web-1").unwrap().sshd_log();
    assert!(
        !log.contains("Accepted") && !log.contains("Failed") && !log.contains("authenticating"),
        "{log}"
    );
    assert_eq!(refused::intents(stack).unwrap(), 0);
}

/// REQ-CERT-19
#[test]
fn a_host_without_its_certificate_gets_no_authentication() {
    let mut stack = Stack::usual().unwrap();
    change_host_key(stack.target_mut("web-1").unwrap());
    let mut client = stack.client(ALICE).unwrap();
    relay_refuses(&stack, &mut client, "web-1", "host_key_unknown", false);
    nobody_tried_to_log_in(&stack);
}

/// REQ-INVENTORY-3, REQ-SESSION-14
#[test]
fn a_pinned_host_key_is_recognised_and_a_changed_one_gets_no_authentication() {
    let mut stack = Stack::usual().unwrap();
    let control = stack.control.root();
    let inventory = fs::read_to_string(control.at("/etc/writ/inventory.toml")).unwrap();
    let host_ca = inventory.lines().find(|line| line.starts_with("host_ca")).unwrap();
    let web_2 = fs::read_to_string(
        stack
            .target("web-2")
            .unwrap()
            .root()
            .at("/etc/ssh/ssh_host_ed25519_key.pub"),
    )
    .unwrap();
    let pin = |key: &str| {
        let key: Vec<&str> = key.split_whitespace().take(2).collect();
        format!("host_key = \"{}\"", key.join(" "))
    };
    // web-2's own key for web-2, and for web-1 a key that it does not have.
    let (first, second) = inventory.split_at(inventory.find("[target.web-2]").unwrap());
    let pinned = [
        first.replace(host_ca, &pin(&web_2)),
        second.replace(host_ca, &pin(&web_2)),
    ]
    .concat();
    control.file("/etc/writ/inventory.toml", 0o644, pinned).unwrap();
    stack.control.stop_relay();
    stack.control.start_relay().unwrap();
    let mut client = stack.client(ALICE).unwrap();
    relay_refuses(&stack, &mut client, "web-1", "host_key_changed", false);
    nobody_tried_to_log_in(&stack);
    client.call_ok("tail_log", tail("web-2")).unwrap();
}

/// REQ-RECORD-5, REQ-RECORD-6, REQ-PAYLOAD-19, REQ-CARPC-10
#[test]
fn a_full_disk_under_any_log_stops_what_would_not_be_recorded_and_nothing_else() {
    let mut stack = Stack::start(&Options {
        log_disk_kib: Some(8192),
        ..Options::default()
    })
    .unwrap();
    let mut client = stack.client(ALICE).unwrap();
    // A task is open, so that only the tier in question has to write for the next call.
    client.call_ok("tail_log", tail("web-1")).unwrap();
    let target = stack.target("web-1").unwrap().root();
    let open = || json!({"targets": ["web-2"], "reason": "a test"});
    for (root, log, tool, arguments) in [
        (target, LOG, "tail_log", tail("web-1")),
        (stack.control.root(), RELAY_LOG, "tail_log", tail("web-1")),
        (stack.control.root(), CA_LOG, "open_task", open()),
    ] {
        let filler = fill(root, log);
        // Space that was reserved for results before the disk was full may still be used; then it is refused, and stays so.
        let refused = (0..4000).find_map(|_| {
            let called = client.call(tool, arguments.clone()).unwrap();
            if tool == "open_task" && !called.is_error {
                client
                    .call_ok("close_task", json!({"task_id": called.value["task_id"]}))
                    .unwrap();
            }
            called.is_error.then_some(called)
        });
        let called = refused.unwrap_or_else(|| panic!("{log}: nothing was refused"));
        assert_eq!(called.code(), "log_unavailable", "{log}: {}", called.value);
        let before = refused::intents(&stack).unwrap();
        let called = client.call(tool, arguments.clone()).unwrap();
        assert_eq!(called.code(), "log_unavailable", "{log}: {}", called.value);
        assert_eq!(refused::intents(&stack).unwrap(), before, "{log}: something ran");
        fs::remove_file(filler).unwrap();
        client
            .call_ok(tool, arguments)
            .unwrap_or_else(|error| panic!("{log} has space again: {error}"));
    }
    // Both processes have lived through all of it.
    stack.control.check().unwrap();
    whole(&stack);
}

#[test]
fn a_full_disk_under_the_store_stops_every_call_before_anything_is_sent_and_none_once_there_is_space() {
    const STATE: &str = "/var/lib/writ-relay";
    let mut stack = Stack::usual().unwrap();
    stack.control.stop_relay();
    stack.control.root().small_disk(STATE, 2048).unwrap();
    stack.control.start_relay().unwrap();
    let mut client = stack.client(ALICE).unwrap();
    client.call_ok("tail_log", tail("web-1")).unwrap();
    let filler = fill(stack.control.root(), STATE);
    // The last page of the store's own log may still have room.
    let refused = (0..100).find(|_| client.call("tail_log", tail("web-1")).unwrap().is_error);
    assert!(refused.is_some(), "nothing was refused");
    relay_refuses(&stack, &mut client, "web-1", "store_unavailable", true);
    relay_refuses(&stack, &mut client, "web-2", "store_unavailable", true);
    fs::remove_file(filler).unwrap();
    for target in ["web-1", "web-2"] {
        client.call_ok("tail_log", tail(target)).unwrap();
    }
    stack.control.check().unwrap();
    whole(&stack);
}

/// Every log is whole.
pub(crate) fn whole(stack: &Stack) {
    let said = harness::evidence::Evidence::copy(stack, "after")
        .unwrap()
        .verify()
        .unwrap();
    assert_eq!(said.exit, 0, "{:?}", said.faults());
}
