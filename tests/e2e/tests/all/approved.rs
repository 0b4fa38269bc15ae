//! An action that people have to approve, the whole way: asked for by a client, shown and signed on the relay's host with
//! `ssh-keygen`, carried out by a real target that knows who signed, and once.

use std::process::{Command, Stdio};

use harness::evidence::Evidence;
use harness::{ALICE, Options, RELAY, Stack, effects, records};
use serde_json::json;

const WEB: &str = "web-1";

/// A change that one person has to approve, and counts.
const ACTION: &str = "count_approved";

fn stack() -> Stack {
    let mut options = Options {
        targets: vec![WEB],
        ..effects::options()
    };
    let manifest = effects::manifest().replace(effects::ACTION, ACTION).replace(
        "timeout_ms = 30000",
        "timeout_ms = 30000\napprovals = 1\napproval_window_s = 300",
    );
    options.actions.push((ACTION, manifest));
    let may = format!("@id(\"{ACTION}\")\npermit (principal, action == Action::\"{ACTION}\", resource);\n");
    options.policy = options.policy.map(|policy| policy + &may);
    Stack::start(&options).unwrap()
}

fn keygen(arguments: &[&str]) {
    let done = Command::new("ssh-keygen")
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
}

/// REQ-ASK-1, REQ-ASK-5, REQ-ASK-6, REQ-ASK-9, REQ-ASK-12, REQ-APPROVAL-7
#[test]
fn a_change_waits_for_a_person_who_signs_it_with_ssh_keygen_and_then_runs_once() {
    let mut stack = stack();
    let at = |name: &str| stack.folder().join(name).to_str().unwrap().to_owned();
    let (key, statement) = (at("carol"), at("statement.txt"));
    keygen(&["-q", "-t", "ed25519", "-N", "", "-C", "carol", "-f", &key]);
    let public = std::fs::read_to_string(format!("{key}.pub")).unwrap();
    let web = stack.target(WEB).unwrap();
    web.root()
        .file(
            "etc/writ/approvers",
            0o644,
            format!("carol namespaces=\"approve.v1@writ.internal\" {public}"),
        )
        .unwrap();
    let mut client = stack.client(ALICE).unwrap();
    let call = json!({ "action": ACTION, "target": WEB, "reason": "a test", "args": { "word": "approved" } });
    let called = client.call("run_action", call.clone()).unwrap();
    assert_eq!(called.code(), "approval_required", "{}", called.value);
    let id = called.value["approval"]["approval_id"].as_str().unwrap().to_owned();
    assert_eq!(effects::count(web, "approved").unwrap(), 0);

    // Clients have no way in.
    let clients = stack
        .control
        .run(ALICE, "writ-relay", &["approvals", "deny", &id], b"")
        .unwrap();
    assert_eq!(clients.status.code(), Some(1), "{clients:?}");
    let shown = stack
        .control
        .run_ok(RELAY, "writ-relay", &["approvals", "show", &id], b"")
        .unwrap();
    std::fs::write(&statement, &shown).unwrap();
    keygen(&[
        "-q",
        "-Y",
        "sign",
        "-n",
        "approve.v1@writ.internal",
        "-f",
        &key,
        &statement,
    ]);
    let signature = std::fs::read(format!("{statement}.sig")).unwrap();
    // What waits outlives the relay, and so does what was signed.
    drop(client);
    stack.control.stop_relay();
    stack.control.start_relay().unwrap();
    let approve = ["approvals", "approve", &id, "--signature", "-"];
    stack.control.run_ok(RELAY, "writ-relay", &approve, &signature).unwrap();
    assert_eq!(
        effects::count(stack.target(WEB).unwrap(), "approved").unwrap(),
        0,
        "nothing runs by itself"
    );
    stack.control.stop_relay();
    stack.control.start_relay().unwrap();

    let mut client = stack.client(ALICE).unwrap();
    let done = client.call_ok("run_action", call.clone()).unwrap();
    assert_eq!(done["untrusted"]["output"], "done approved\n", "{done}");
    let web = stack.target(WEB).unwrap();
    let logged = web.records().unwrap();
    let result = logged.iter().rfind(|record| records::is(record, "result")).unwrap();
    assert_eq!(result["approvals"][0]["principal"], "carol", "{result}");
    assert_eq!(result["request_id"], done["request_id"]);
    // Once more is another thing to approve.
    let again = client.call("run_action", call).unwrap();
    assert_eq!(again.code(), "approval_required", "{}", again.value);
    assert_ne!(again.value["approval"]["approval_id"], id.as_str());
    assert_eq!(effects::count(web, "approved").unwrap(), 1);
    let said = Evidence::copy(&stack, "approved").unwrap().verify().unwrap();
    assert_eq!(said.exit, 0, "{:?}", said.faults());
}
