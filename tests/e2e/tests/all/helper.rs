//! The helper of hostile tests sees what it must see, in each tier; and it fails where it must.

use harness::{BOB, By, EvilRelay, Leaves, RELAY, STRANGER, Stack, assert_refused, evil};
use serde_json::{Value, json};

fn ca_code(answer: &Value) -> String {
    answer
        .pointer("/refused/code")
        .and_then(Value::as_str)
        .unwrap_or("none")
        .to_owned()
}

/// REQ-CARPC-1, REQ-CARPC-3, REQ-CARPC-11, REQ-SESSION-12
#[test]
fn a_refusal_of_each_tier_is_seen_with_its_code_and_record() {
    // A stack of its own: others would write records meanwhile.
    let stack = Stack::usual().unwrap();
    let mut relay = EvilRelay::start(&stack, "web-1").unwrap();
    let answer = relay
        .call("tail_log", json!({"path": "/var/log/shop/web.log", "lines": 1}))
        .unwrap();
    assert_eq!(evil::code(&answer), "none", "{answer}");
    assert_eq!(answer["output"], "2026-01-01T10:06:40Z GET /cart/400 200\n");

    assert_refused(&stack, By::Target("web-1"), Leaves::Record, "path_refused", || {
        Ok(evil::code(&relay.call(
            "read_file",
            json!({"path": "/etc/shadow", "offset": 0, "limit": 1, "encoding": "text"}),
        )?))
    })
    .unwrap();
    assert_refused(&stack, By::Target("web-1"), Leaves::Count, "line_malformed", || {
        Ok(evil::code(&relay.ask("{}")?))
    })
    .unwrap();

    let open = |person: &str| {
        json!({
            "task_id": harness::stack::new_id(), "brain": "harness", "person": person, "proof": "relay", "reason": "a test",
            "target": "web-1", "public_key": relay.task.key.public().to_openssh(),
        })
    };
    assert_refused(&stack, By::Ca, Leaves::Record, "person_unmapped", || {
        Ok(ca_code(&stack.ca_call(RELAY, "open_task", &open("bob"))?))
    })
    .unwrap();
    let mut bob = stack.client(BOB).unwrap();
    assert_refused(&stack, By::Ca, Leaves::Record, "person_unmapped", || {
        let call = json!({"target": "web-1", "path": "/var/log/shop/web.log", "reason": "a test"});
        Ok(bob.call("tail_log", call)?.code().to_owned())
    })
    .unwrap();

    // A stranger does not even reach the socket; and a helper that saw nothing must say so.
    let unreachable = stack.ca_call(STRANGER, "describe", &json!({})).unwrap();
    assert!(unreachable.get("unreachable").is_some(), "{unreachable}");
    let nothing = assert_refused(&stack, By::Ca, Leaves::Record, "relay_unknown", || {
        Ok("relay_unknown".to_owned())
    });
    assert!(nothing.is_err());
}
