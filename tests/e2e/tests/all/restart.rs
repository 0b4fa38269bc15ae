//! The relay is killed with actions under way: the next one knows what became of each, and the task goes on.

use std::time::{Duration, Instant};

use harness::spawn::wait_for;
use harness::{ALICE, Options, Stack, effects, records};
use serde_json::{Value, json};

const UNDER_WAY: usize = 20;
/// How many tasks they are spread over: one alone has fewer sessions on a target than that.
const TASKS: usize = 3;

/// A read that lasts until nobody waits for it any more.
const NAP: &str = "name = \"nap\"\ntitle = \"Nap\"\ndescription = \"Does nothing.\"\nrisk = \"read\"\ntimeout_ms = 600000\n[args]\n\
                   [exec]\nprogram = \"/usr/bin/sleep\"\nargv = [\"3599.75\"]\n[sandbox]\nprofile = \"reader\"\n";

/// How many records of this event the relay's log has.
fn count(stack: &Stack, event: &str) -> usize {
    let log = stack.control.records_relay().unwrap();
    log.iter().filter(|record| records::is(record, event)).count()
}

#[test]
fn a_relay_that_is_killed_with_twenty_actions_under_way_knows_the_state_of_each_and_goes_on() {
    let options = effects::options();
    let permit = "permit (principal, action == Action::\"nap\", resource);\n";
    let mut stack = Stack::start(&Options {
        targets: vec!["web-1"],
        actions: options.actions.into_iter().chain([("nap", NAP.into())]).collect(),
        policy: options.policy.map(|policy| policy + permit),
        ..Options::default()
    })
    .unwrap();
    let tail = |more: Value| {
        let mut arguments = json!({"target": "web-1", "path": "/var/log/shop/web.log", "lines": 1});
        arguments
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        arguments
    };
    let mut client = stack.client(ALICE).unwrap();
    let first = client.call_ok("tail_log", tail(json!({"reason": "a test"}))).unwrap();
    let task = &first["task_id"];
    let open = json!({"reason": "more", "targets": ["web-1"]});
    let more = (1..TASKS).map(|_| client.call_ok("open_task", open.clone()).unwrap()["task_id"].clone());
    let tasks: Vec<Value> = std::iter::once(task.clone()).chain(more.collect::<Vec<_>>()).collect();
    for task in tasks.iter().cycle().take(UNDER_WAY) {
        let arguments = json!({"target": "web-1", "action": "nap", "args": {}, "task_id": task});
        let call = json!({"name": "run_action", "arguments": arguments});
        client.send("tools/call", call).unwrap();
    }
    wait_for("the requests", Duration::from_secs(20), || {
        Ok(count(&stack, "request") == UNDER_WAY + 1)
    })
    .unwrap();
    stack.control.stop_relay();
    assert_eq!(count(&stack, "outcome"), 1, "none of them has ended");

    let begun = Instant::now();
    stack.control.start_relay().unwrap();
    let back = begun.elapsed();
    assert_eq!(
        count(&stack, "outcome"),
        UNDER_WAY + 1,
        "settled before anybody is let in"
    );
    let mut client = stack.client(ALICE).unwrap();
    let mut requests = Vec::new();
    for task in &tasks {
        let status = client.call_ok("task_status", json!({"task_id": task})).unwrap();
        assert_eq!(status["open"], true, "{status}");
        requests.extend(status["requests"].as_array().unwrap().clone());
    }
    let status = client.call_ok("task_status", json!({"task_id": task})).unwrap();
    assert_eq!(status["reason"], "a test");
    let lost = requests
        .iter()
        .filter(|request| request["status"] == "failed" && request["code"] == "session_lost");
    assert_eq!(
        (requests.len(), lost.count()),
        (UNDER_WAY + 1, UNDER_WAY),
        "{requests:?}"
    );

    // The key is gone with the process; the CA puts another in its place, and the client has done nothing for it.
    client.call_ok("tail_log", tail(json!({"task_id": task}))).unwrap();
    for more in &tasks[1..] {
        client.call_ok("close_task", json!({"task_id": more})).unwrap();
    }
    let joined = client.call_ok("tail_log", tail(json!({}))).unwrap();
    assert_eq!(&joined["task_id"], task, "also where the task is not named");
    let ca = stack.control.records_ca().unwrap();
    let issued = ca
        .iter()
        .filter(|record| records::is(record, "issue") && records::of(record, "task_id") == task.as_str());
    assert_eq!(issued.count(), 2);
    client.call_ok("close_task", json!({"task_id": task})).unwrap();
    super::faults::whole(&stack);
    println!(
        "{UNDER_WAY} under way at the kill; serving again after {} ms",
        back.as_millis()
    );
}
