//! Dry runs: an action that is tried out is asked for as what its trial risks, and nobody can take its answer for the deed.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};
use wire::lines::RelayLine;
use wire::{Code, Mode, Payload};

use crate::target::Manner;
use crate::world::{ALICE, World};

fn trial(action: &str) -> Value {
    json!({ "action": action, "target": "web-1", "reason": "why", "mode": "dry_run" })
}

fn says() -> Manner {
    Manner::Says("would restart\n".into())
}

/// REQ-TOOL-6, REQ-TOOL-7
#[tokio::test]
async fn a_dry_run_travels_as_one_and_its_answer_says_that_nothing_was_changed() {
    let world = World::new(says()).await;
    let mut client = world.client(ALICE).await;
    let own = json!({ "target": "web-1", "unit": "cron", "reason": "why", "mode": "dry_run" });
    let mut by_run_action = trial("restart_service");
    by_run_action["args"] = json!({ "unit": "cron" });
    let mut task = Value::Null;
    for (tool, call) in [("restart_service", own), ("run_action", by_run_action)] {
        let (said, is_error) = client.call(tool, call).await;
        assert!(!is_error, "{said}");
        assert_eq!(
            (&said["mode"], &said["status"], &said["untrusted"]["output"]),
            (&json!("dry_run"), &json!("ok"), &json!("would restart\n"))
        );
        assert!(
            said["note"].as_str().unwrap().starts_with("nothing was changed"),
            "{said}"
        );
        task = said["task_id"].clone();
    }
    // The deed itself, to compare.
    let (said, _) = client
        .call(
            "restart_service",
            json!({ "target": "web-1", "unit": "cron", "mode": "run" }),
        )
        .await;
    assert_eq!((&said["mode"], said.get("note")), (&json!("run"), None), "{said}");
    let sent = world.seen.requests.lock().unwrap().clone();
    let modes: Vec<Mode> = sent.iter().map(|payload| payload.mode).collect();
    assert_eq!(modes, [Mode::DryRun, Mode::DryRun, Mode::Run]);
    let judged = world.ca.authorized.lock().unwrap().clone();
    let judged: Vec<Mode> = judged
        .iter()
        .map(|text| Payload::parse(text.as_bytes()).unwrap().mode)
        .collect();
    assert_eq!(judged, modes, "the CA sees what the target sees");
    let records = world.records();
    let requests = records.iter().filter(|record| record["event"] == "request");
    let said: Vec<(&Value, &Value)> = requests.map(|record| (&record["mode"], &record["risk"])).collect();
    let (dry, run) = ((&json!("dry_run"), &json!("read")), (&json!("run"), &json!("change")));
    assert_eq!(said, [dry, dry, run]);
    let (status, _) = client.call("task_status", json!({ "task_id": task })).await;
    let shown: Vec<&Value> = status["requests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| &one["mode"])
        .collect();
    assert_eq!(shown, [&json!("dry_run"), &json!("dry_run"), &json!("run")]);
}

/// A change has one effect whatever is lost, so it is asked for again by its id; what only reads is not.
#[tokio::test]
async fn a_dry_run_that_only_reads_and_gets_no_answer_may_be_tried_again() {
    let world = World::new(Manner::Leaves).await;
    let mut client = world.client(ALICE).await;
    let (said, is_error) = client.call("run_action", trial("restart_service")).await;
    assert!(is_error);
    assert_eq!(
        (&said["code"], &said["retryable"]),
        (&json!("session_lost"), &json!(true)),
        "{said}"
    );
    assert!(said["next"].as_str().unwrap().contains("mode dry_run"), "{said}");
    assert!(world.relay.store.unsettled().await.unwrap().is_empty());
    assert!(world.seen.asked_for.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_dry_run_that_changes_something_is_approved_like_its_action() {
    let world = World::new(Manner::Leaves).await;
    let mut client = world.client(ALICE).await;
    let (said, _) = client.call("run_action", trial("wipe_cache")).await;
    assert_eq!(said["code"], "approval_required", "{said}");
    let lines = world.seen.lines.lock().unwrap();
    assert_eq!(said["approval"]["mode"], "dry_run");
    assert!(!lines.iter().any(|line| matches!(line, RelayLine::Request(..))));
}

/// REQ-TOOL-6
#[tokio::test]
async fn what_has_no_dry_run_is_not_done_instead() {
    let world = World::new(says()).await;
    let mut client = world.client(ALICE).await;
    for action in ["restart", "tail_log"] {
        let mut call = trial(action);
        call["args"] = json!({ "path": "/var/log/x" });
        let (said, is_error) = client.call("run_action", call).await;
        assert!(is_error);
        assert_eq!(said["code"], Code::ModeUnsupported.as_str(), "{said}");
        assert!(said["next"].as_str().unwrap().contains("find_actions"), "{said}");
    }
    // A tool whose action cannot be tried out has no such argument.
    let call = json!({ "target": "web-1", "path": "/var/log/x", "reason": "why", "mode": "dry_run" });
    let (said, _) = client.call("tail_log", call).await;
    assert_eq!(said["code"], "arguments_invalid", "{said}");
    for mode in [json!("DRY_RUN"), json!("dry-run"), json!(true), json!(null), json!("")] {
        let mut call = trial("restart_service");
        call["mode"] = mode.clone();
        let (said, _) = client.call("run_action", call).await;
        assert_eq!(said["code"], "arguments_invalid", "{mode}: {said}");
    }
    assert_eq!(world.ca.opened.load(Ordering::SeqCst), 0);
}
