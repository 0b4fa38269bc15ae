//! A service under a real supervisor is listed, looked at and restarted through an MCP client: as root, by sudo, with its own
//! certificate, looked at afterwards, and all of it in the evidence.

use harness::evidence::Evidence;
use harness::services::{self, Supervisor};
use harness::{ALICE, Options, Stack, records};
use serde_json::{Value, json};

/// Beside the shipped policy.
const MAY: &str = r#"
@id("services")
permit (
    principal,
    action in [Action::"restart_service", Action::"service_status", Action::"list_services"],
    resource == Target::"web-1"
);
"#;

fn start() -> Stack {
    let policy = [include_str!("../../../../deploy/ca/policy.cedar"), MAY].concat();
    Stack::start(&Options {
        policy: Some(policy),
        ..Options::default()
    })
    .unwrap()
}

fn call(action: &str, args: Value) -> Value {
    json!({"action": action, "target": "web-1", "args": args, "reason": "a test"})
}

fn said(answer: &Value) -> &str {
    answer["untrusted"]["output"].as_str().unwrap()
}

#[test]
fn a_service_is_restarted_as_root_and_looked_at_and_the_evidence_has_it() {
    let stack = start();
    let web = stack.target("web-1").unwrap();
    let supervisor = Supervisor::start(web).unwrap();
    let mut client = stack.client(ALICE).unwrap();
    let before = services::pid(web, "shop").unwrap();
    let other = services::pid(web, "cart").unwrap();
    let status = |client: &mut harness::McpClient| {
        let answer = client
            .call_ok("run_action", call("service_status", json!({"unit": "shop"})))
            .unwrap();
        said(&answer).to_owned()
    };
    assert_eq!(status(&mut client), format!("service shop: run, pid {before}\n"));

    let answer = client
        .call_ok("run_action", call("restart_service", json!({"unit": "shop"})))
        .unwrap();
    let after = services::pid(web, "shop").unwrap();
    assert_ne!(before, after);
    assert_eq!(services::pid(web, "cart").unwrap(), other, "and no other");
    assert!(said(&answer).contains("ok: run: shop"), "{answer}");
    assert_eq!(status(&mut client), format!("service shop: run, pid {after}\n"));
    let list = client.call_ok("run_action", call("list_services", json!({}))).unwrap();
    assert_eq!(said(&list), format!("cart: run, pid {other}\nshop: run, pid {after}\n"));

    let of_it: Vec<Value> = web
        .records()
        .unwrap()
        .into_iter()
        .filter(|record| records::of(record, "action") == Some("restart_service"))
        .collect();
    let events: Vec<_> = of_it.iter().filter_map(|record| records::of(record, "event")).collect();
    assert_eq!(events, ["intent", "result"]);
    let argv = json!([
        "/usr/bin/sudo",
        "-n",
        "-u",
        "root",
        "--",
        "/usr/bin/sv",
        "-w",
        "20",
        "restart",
        "shop"
    ]);
    assert_eq!(of_it[0]["argv"], argv);
    assert_eq!(
        of_it[0]["message"],
        "service_status will be asked whether it came about"
    );
    for record in &of_it {
        assert_eq!(record["walls"], json!(["no_sandbox", "sudo:root"]));
        assert_eq!(
            (records::of(record, "risk"), records::of(record, "mode")),
            (Some("change"), Some("run"))
        );
    }
    assert_eq!(
        (records::of(&of_it[1], "status"), records::of(&of_it[1], "code")),
        (Some("ok"), None)
    );

    // A unit that is not on the list goes no further than the relay, and so does a target that policy does not name.
    let refused = client
        .call("run_action", call("restart_service", json!({"unit": "ssh"})))
        .unwrap();
    assert_eq!(refused.code(), "arguments_invalid");
    let mut elsewhere = call("restart_service", json!({"unit": "shop"}));
    elsewhere["target"] = json!("web-2");
    assert_eq!(client.call("run_action", elsewhere).unwrap().code(), "policy_denied");
    assert_eq!(services::pid(web, "shop").unwrap(), after);

    drop(supervisor);
    let gone = client
        .call("run_action", call("service_status", json!({"unit": "shop"})))
        .unwrap();
    assert_eq!(gone.code(), "exit_nonzero");
    let evidence = Evidence::copy(&stack, "copies").unwrap();
    let verified = evidence.verify().unwrap();
    assert_eq!(verified.exit, 0, "{:?}", verified.faults());
    let replayed = evidence.replay_text(answer["task_id"].as_str().unwrap()).unwrap();
    assert!(replayed.contains("restart_service"), "{replayed}");
}

/// It was done, and nobody can see that: the client is told both.
#[test]
fn a_restart_that_does_not_show_is_verify_failed() {
    let stack = start();
    let web = stack.target("web-1").unwrap();
    let _supervisor = Supervisor::start(web).unwrap();
    let before = services::pid(web, "shop").unwrap();
    // As runsv makes it where nobody made it before: only root sees into it.
    web.root().folder("etc/sv/shop/supervise", 0o700, (0, 0)).unwrap();
    let mut client = stack.client(ALICE).unwrap();
    let failed = client
        .call("run_action", call("restart_service", json!({"unit": "shop"})))
        .unwrap();
    assert_eq!(failed.code(), "verify_failed", "{}", failed.value);
    let message = failed
        .value
        .pointer("/untrusted/message")
        .or(failed.value.get("message"));
    assert!(message.unwrap().to_string().contains("exit code 0"), "{}", failed.value);
    let task = failed.value["task_id"].as_str().unwrap().to_owned();
    let next = failed.value["next"].as_str().unwrap();
    assert!(
        next.contains("do not call") && next.contains("restart_service"),
        "{next}"
    );
    assert_ne!(services::pid(web, "shop").unwrap(), before, "it was restarted");
    let result = web
        .records()
        .unwrap()
        .into_iter()
        .rfind(|record| records::is(record, "result"))
        .unwrap();
    assert_eq!(
        (records::of(&result, "status"), records::of(&result, "code")),
        (Some("failed"), Some("verify_failed"))
    );
    assert_eq!(records::of(&result, "task_id"), Some(task.as_str()));
}
