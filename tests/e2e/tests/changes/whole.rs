//! A change when nothing is broken, and when the CA is.

use std::time::{Duration, Instant};

use harness::{ALICE, Options, Stack, effects, records};
use serde_json::{Value, json};

use crate::scene::{self, Claim, Scene, WEB, count, words};

/// REQ-CARPC-18, REQ-RECORD-5
#[test]
fn a_change_runs_once_and_each_tier_has_recorded_it_before_the_next_one() {
    let scene = Scene::new();
    let mut client = scene.client();
    let word = words();
    let call = json!({ "action": effects::ACTION, "target": WEB, "reason": "a test", "args": { "word": word } });
    let called = client.call("run_action", call).unwrap();
    assert_eq!(scene.judge(&called, &word), Claim::Done);
    assert_eq!(called.value["untrusted"]["output"], format!("done {word}\n"));
    assert!(called.value.get("replayed").is_none(), "{}", called.value);
    let requests = scene::requests(&mut client, &called.value["task_id"]);
    assert_eq!((requests.len(), &requests[0]["status"]), (1, &json!("ok")));
    let moment = |log: &[Value], event: &str| -> String {
        let fits = |record: &&Value| {
            records::is(record, event) && records::of(record, "request_id") == called.value["request_id"].as_str()
        };
        let found: Vec<&Value> = log.iter().filter(fits).collect();
        assert_eq!(found.len(), 1, "{event}");
        records::of(found[0], "ts").unwrap().to_owned()
    };
    let control = &scene.stack.control;
    let (relay, ca) = (control.records_relay().unwrap(), control.records_ca().unwrap());
    let target = scene.target().records().unwrap();
    let story = [
        moment(&relay, "request"),
        moment(&ca, "authorize"),
        moment(&target, "intent"),
        moment(&target, "result"),
        moment(&relay, "outcome"),
    ];
    assert!(story.is_sorted(), "{story:?}");
    scene.books();
}

/// An action that policy gives nobody, and one that the catalogue lacks.
#[test]
fn what_policy_does_not_give_is_refused_by_the_ca_and_does_not_run() {
    let stack = Stack::start(&Options {
        targets: vec![WEB],
        policy: None,
        ..effects::options()
    })
    .unwrap();
    let mut client = stack.client(ALICE).unwrap();
    let task = scene::task(&mut client);
    let word = words();
    let called = client
        .call("run_action", count(&task, effects::ACTION, json!({ "word": word })))
        .unwrap();
    assert_eq!(
        (called.code(), &called.value["refused_by"]),
        ("policy_denied", &json!("ca")),
        "{}",
        called.value
    );
    let called = client.call("run_action", count(&task, "bash", json!({}))).unwrap();
    assert_eq!(called.code(), "unknown_action");
    assert_eq!(effects::count(stack.target(WEB).unwrap(), &word).unwrap(), 0);
}

/// Of a certificate, in seconds.
const LIFETIME: u32 = 15;

#[test]
fn without_the_ca_changes_wait_and_reads_go_on_until_their_certificate_ends() {
    let mut stack = Stack::start(&Options {
        targets: vec![WEB],
        task_lifetime_s: LIFETIME,
        ..effects::options()
    })
    .unwrap();
    let mut client = stack.client(ALICE).unwrap();
    let task = scene::task(&mut client);
    let read = json!({ "target": WEB, "path": "/var/log/shop/web.log", "lines": 1, "task_id": task });
    let word = words();
    let change = count(&task, effects::ACTION, json!({ "word": word }));
    client.call_ok("tail_log", read.clone()).unwrap();
    stack.control.stop_ca();
    let away = Instant::now();
    let mut reads = 0;
    let end = loop {
        let called = client.call("run_action", change.clone()).unwrap();
        assert_eq!(
            (called.code(), &called.value["retryable"]),
            ("ca_unavailable", &json!(true)),
            "{}",
            called.value
        );
        let called = client.call("tail_log", read.clone()).unwrap();
        if called.is_error {
            break called;
        }
        reads += 1;
        assert!(away.elapsed() < Duration::from_secs(u64::from(LIFETIME) + 5));
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(end.code(), "ca_unavailable", "{}", end.value);
    assert!(away.elapsed() > Duration::from_secs(5), "{:?}", away.elapsed());
    let target = stack.target(WEB).unwrap();
    assert_eq!(effects::count(target, &word).unwrap(), 0);
    stack.control.start_ca().unwrap();
    client.call_ok("run_action", change).unwrap();
    client.call_ok("tail_log", read).unwrap();
    assert_eq!(effects::count(stack.target(WEB).unwrap(), &word).unwrap(), 1);
    println!("{reads} reads without a CA, until {:?} after it went", away.elapsed());
}
