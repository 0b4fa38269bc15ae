//! A client of another implementation, PyPI's `mcp`, in both of the ways that it can begin.

use std::process::Command;

use harness::ALICE;
use serde_json::Value;

use crate::STACK;

const DRIVE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/mcp-client/drive.py");

fn drive(mode: &str) -> Value {
    let relay = STACK.control.command(ALICE, "writ-relay");
    let mut command = Command::new(STACK.world().mcp_client().unwrap());
    command
        .args([DRIVE, mode])
        .arg(relay.get_program())
        .args(relay.get_args())
        .arg("stdio");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn check(seen: &Value) {
    for tool in [
        "list_targets",
        "open_task",
        "task_status",
        "close_task",
        "tail_log",
        "read_file",
        "check_health",
        "find_actions",
        "run_action",
        "server_info",
    ] {
        assert!(
            seen["tools"].as_array().unwrap().contains(&Value::from(tool)),
            "no {tool} in {}",
            seen["tools"]
        );
    }
    assert_eq!(seen["read_is_error"], false, "{seen}");
    assert_eq!(
        seen["read"]["untrusted"]["output"].as_str().unwrap().lines().count(),
        3,
        "{seen}"
    );
    assert_eq!(seen["refused_is_error"], true, "{seen}");
    assert_eq!(seen["refused"]["code"], "path_refused", "{seen}");
}

#[test]
fn a_client_of_another_implementation_that_initialises_gets_its_log() {
    check(&drive("legacy"));
}

#[test]
fn a_client_of_another_implementation_that_chooses_the_protocol_gets_its_log() {
    check(&drive("auto"));
}
