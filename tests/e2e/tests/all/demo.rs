//! `make demo ARGS=--json`: what the transcript shows is asserted here, step by step.

use std::process::Command;

use serde_json::Value;

use crate::STACK;

/// REQ-OUTCOME-3, REQ-RECORD-14, REQ-SESSION-20
#[test]
fn the_demo_shows_what_it_says() {
    let program = STACK.world().program("harness").unwrap();
    let output = Command::new(program).args(["demo", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let demo: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(demo["ok"], true);
    let steps = demo["steps"].as_array().unwrap();
    let names: Vec<&str> = steps.iter().map(|step| step["step"].as_str().unwrap()).collect();
    assert_eq!(
        names,
        [
            "stack",
            "tail_log",
            "read_file",
            "stolen",
            "restart",
            "forbidden",
            "replay",
            "verify",
            "flipped"
        ]
    );
    let facts = |step: usize, key: &str| steps[step]["facts"][key].clone();

    assert!(facts(0, "sshd").as_str().unwrap().starts_with("OpenSSH_"));
    assert_eq!(facts(1, "status"), "ok");
    assert!(facts(1, "last").as_str().unwrap().contains("GET /cart/400"));
    assert!(facts(1, "again_ms").as_f64().unwrap() < facts(1, "first_ms").as_f64().unwrap());
    assert_eq!(facts(2, "code"), "path_refused");
    assert_eq!(facts(2, "by"), "web-1");
    assert!(facts(2, "record").as_u64().unwrap() > 0);
    assert_eq!(facts(3, "by"), "sshd");
    assert_ne!(facts(4, "before"), facts(4, "after"));
    assert_eq!(facts(4, "walls"), serde_json::json!(["no_sandbox", "sudo:root"]));
    assert_eq!(facts(4, "argv")[0], "/usr/bin/sudo");
    assert_eq!(facts(5, "code"), "policy_denied");
    assert_eq!(facts(5, "policy"), serde_json::json!(["no-restarts-on-web-2"]));
    assert_eq!(
        facts(5, "answer")["policy"],
        facts(5, "policy"),
        "and the client is told"
    );
    assert_eq!(facts(6, "task_id"), facts(1, "task_id"));
    // The task was opened, certified, used three times (one refused) and closed: at least that many records.
    assert!(facts(6, "timeline").as_u64().unwrap() >= 10);
    assert_eq!(facts(7, "exit"), 0);
    assert_eq!(facts(7, "logs"), 4);
    assert_eq!(facts(8, "exit"), 2);
    assert!(facts(8, "fault")["seq"].as_u64().is_some());
}
