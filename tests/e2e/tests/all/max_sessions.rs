//! A target whose sshd gives one connection fewer sessions than a relay asks for: its calls wait for one another.

use std::time::Duration;

use harness::spawn::wait_for;
use harness::{ALICE, McpClient, Options, Stack, effects, processes, records};
use serde_json::{Value, json};

/// What the administrator of this sshd gives. Of two values that fit it takes the first, and files in order of their names.
const SESSIONS: usize = 3;
const CONFIG: &str = "etc/ssh/sshd_config.d/10-sessions.conf";

const CHANGES: usize = 8;
const READS: usize = 4;

/// All changes wait at it.
const GATE: &str = "gate";

fn send(client: &mut McpClient, tool: &str, arguments: Value) -> u64 {
    let call = json!({ "name": tool, "arguments": arguments });
    client.send("tools/call", call).unwrap()
}

/// REQ-SESSION-24
#[test]
fn calls_of_a_task_are_all_answered_by_an_sshd_that_gives_it_three_sessions() {
    let mut stack = Stack::start(&Options {
        targets: vec!["web-1"],
        ..effects::options()
    })
    .unwrap();
    let target = stack.target_mut("web-1").unwrap();
    let text = format!("Match User agent-runner\n    MaxSessions {SESSIONS}\n");
    target.root().file(CONFIG, 0o644, text).unwrap();
    target.stop_sshd();
    target.start_sshd().unwrap();
    let effective = target.sshd_says("agent-runner").unwrap();
    assert!(effective.contains("\nmaxsessions 3\n"), "{effective}");

    let mut client = stack.client(ALICE).unwrap();
    let open = json!({ "reason": "a test", "targets": ["web-1"] });
    let task = client.call_ok("open_task", open).unwrap()["task_id"].clone();
    let changes: Vec<u64> = (0..CHANGES)
        .map(|number| {
            let args = json!({ "word": format!("w{number}"), "before": GATE });
            let call = json!({ "target": "web-1", "task_id": task, "action": effects::ACTION, "args": args });
            send(&mut client, "run_action", call)
        })
        .collect();
    let target = stack.target("web-1").unwrap();
    wait_for("as many changes as there are sessions", Duration::from_secs(20), || {
        Ok(processes::with_argument(GATE).len() == SESSIONS)
    })
    .unwrap();
    let reads: Vec<u64> = (0..READS)
        .map(|_| {
            let call = json!({ "target": "web-1", "task_id": task, "path": "/var/log/shop/web.log", "lines": 1 });
            send(&mut client, "tail_log", call)
        })
        .collect();
    // Somebody has asked for one more.
    wait_for("sshd's no", Duration::from_secs(20), || {
        Ok(target.sshd_log().contains("no more sessions"))
    })
    .unwrap();
    assert_eq!(processes::with_argument(GATE).len(), SESSIONS);
    effects::open(target, GATE).unwrap();

    for called in client
        .called(&[changes, reads].concat(), Duration::from_secs(50))
        .unwrap()
    {
        assert!(!called.is_error, "{}", called.value);
    }
    let mut words = effects::all(target).unwrap();
    words.sort();
    assert_eq!(
        words,
        (0..CHANGES).map(|number| format!("w{number}")).collect::<Vec<_>>()
    );
    let intents = records::count(&target.records().unwrap(), "intent", None);
    assert_eq!(intents, CHANGES + READS, "nothing was sent twice");
    let log = target.sshd_log();
    assert_eq!(log.matches("Accepted publickey").count(), 1, "on one connection: {log}");
}
