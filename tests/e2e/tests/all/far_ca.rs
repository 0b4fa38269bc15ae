//! A relay and a CA that are known to each other by keys, over TLS: the whole way to a target and back, keys that are
//! replaced under load, and a relay that is cut off.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use harness::control::{CA_KEYS, CA_TLS, RELAY_KEYS, RELAY_TLS};
use harness::ids::ROOT;
use harness::{ALICE, CA, McpClient, Options, RELAY, Stack, WayToCa, records};
use serde_json::{Value, json};
use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::{LineEnding, PrivateKey};

/// Each read of a file is judged by itself, so that each asks the CA.
const POLICY: &str = "permit(principal, action, resource);
    @id(\"not-there\") forbid(principal, action == Action::\"read_file\", resource) when { context.args.path like \"/root/*\" };";

fn stack() -> Stack {
    Stack::start(&Options {
        targets: vec!["web-1"],
        policy: Some(POLICY.to_owned()),
        ca: WayToCa::Tls,
        ..Options::default()
    })
    .unwrap()
}

fn task(client: &mut McpClient) -> Value {
    let tail = json!({"target": "web-1", "path": "/var/log/shop/web.log", "lines": 1, "reason": "a test"});
    client.call_ok("tail_log", tail).unwrap()["task_id"].clone()
}

fn read(task: &Value) -> Value {
    json!({"target": "web-1", "path": "/var/log/shop/web.log", "task_id": task})
}

/// REQ-CARPC-23, REQ-CARPC-24
#[test]
fn a_relay_on_another_machine_is_served_over_tls_the_whole_way_and_cut_off_by_its_key() {
    let stack = stack();
    let mut client = stack.client(ALICE).unwrap();
    let task = task(&mut client);
    client.call_ok("read_file", read(&task)).unwrap();
    let ca = stack.control.records_ca().unwrap();
    let of_relay = |event: &str| {
        let fits = |record: &&Value| records::is(record, event) && records::of(record, "relay") == Some("relay-1");
        ca.iter().filter(fits).count()
    };
    assert_eq!(
        (of_relay("issue"), of_relay("authorize"), of_relay("refused")),
        (1, 1, 0)
    );
    let info = client.call_ok("server_info", json!({})).unwrap();
    assert_eq!(info["boundary_missing"], json!([]), "{info}");
    let said = stack
        .control
        .run_ok(RELAY, "writ-relay", &["check-config"], b"")
        .unwrap();
    assert!(
        String::from_utf8(said)
            .unwrap()
            .starts_with("key of this relay: ssh-ed25519 ")
    );
    // The account of the relay is nobody at the CA's socket now.
    let near = stack.ca_call(RELAY, "describe", &json!({})).unwrap();
    assert_eq!(near.pointer("/refused/code"), Some(&json!("relay_unknown")), "{near}");

    let key = std::fs::read_to_string(stack.control.root().at(RELAY_KEYS)).unwrap();
    stack.control.replace(RELAY_KEYS, 0o644, ROOT, "").unwrap();
    let called = client.call("read_file", read(&task)).unwrap();
    assert_eq!(
        (called.code(), &called.value["refused_by"]),
        ("relay_unknown", &json!("ca")),
        "{}",
        called.value
    );
    stack.control.replace(RELAY_KEYS, 0o644, ROOT, &key).unwrap();
    client.call_ok("read_file", read(&task)).unwrap();
}

/// REQ-CARPC-29
#[test]
fn both_sides_keys_are_replaced_while_requests_are_authorized_and_none_fails() {
    let stack = stack();
    let stop = AtomicBool::new(false);
    let control = &stack.control;
    let root = |file: &str| std::fs::read_to_string(control.root().at(file)).unwrap();
    let calls = thread::scope(|scope| {
        let loads: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = stack.client(ALICE).unwrap();
                    let task = task(&mut client);
                    let mut calls = 0_u32;
                    while !stop.load(Ordering::SeqCst) {
                        client.call_ok("read_file", read(&task)).unwrap();
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        // Each side's keys, each step with calls before and after it.
        for (own, who, named) in [(RELAY_TLS, RELAY, RELAY_KEYS), (CA_TLS, CA, CA_KEYS)] {
            let (private, public) = new_key();
            let old = root(named);
            thread::sleep(Duration::from_millis(400));
            control.replace(named, 0o644, ROOT, &format!("{old}{public}")).unwrap();
            thread::sleep(Duration::from_millis(400));
            control.replace(own, 0o600, who, &private).unwrap();
            thread::sleep(Duration::from_millis(400));
            control.replace(named, 0o644, ROOT, &public).unwrap();
        }
        thread::sleep(Duration::from_millis(400));
        stop.store(true, Ordering::SeqCst);
        loads.into_iter().map(|load| load.join().unwrap()).sum::<u32>()
    });
    let refused = |record: &&Value| records::is(record, "refused") || records::is(record, "strangers");
    let ca = control.records_ca().unwrap();
    assert_eq!(ca.iter().filter(refused).count(), 0);
    assert!(calls >= 4);
    println!("{calls} requests, none failed");
}

/// As ssh-keygen writes it: the private key, and the line of its public half.
fn new_key() -> (String, String) {
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&rand::random()));
    let key = PrivateKey::new(pair, "").unwrap();
    let private = key.to_openssh(LineEnding::LF).unwrap().to_string();
    (private, key.public_key().to_openssh().unwrap() + "\n")
}
