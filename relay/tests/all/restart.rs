//! A relay that was ended in the middle, and the one that is started in its place.

use std::sync::atomic::Ordering;

use relay::store::{Phase, Request};
use serde_json::{Value, json};
use wire::ids::{Digest, RequestId, TaskId};
use wire::{Code, Risk, Status};

use crate::target::Manner;
use crate::world::{ALICE, BOB, World};

fn tail(task: &Value) -> Value {
    json!({ "target": "web-1", "path": "/var/log/x.log", "task_id": task })
}

async fn opened(world: &World) -> (Value, TaskId) {
    let mut client = world.client(ALICE).await;
    let (task, _) = client
        .call("open_task", json!({ "reason": "why", "targets": ["web-1"] }))
        .await;
    let id = task["task_id"].as_str().unwrap().parse().unwrap();
    (task["task_id"].clone(), id)
}

fn id(number: u32) -> RequestId {
    format!("0192e4a0-7f00-7000-8000-{number:012x}").parse().unwrap()
}

/// A request as a relay leaves it that is ended here.
async fn leave(world: &World, task: &TaskId, number: u32, risk: Risk, phase: Phase) {
    let payload = format!("{{\"number\":{number}}}");
    let request = Request {
        id: id(number),
        target: "web-1".parse().unwrap(),
        action: "tail_log".parse().unwrap(),
        risk,
        mode: wire::Mode::Run,
        sha256: Digest::of(payload.as_bytes()),
        phase: if risk == Risk::Read { phase } else { Phase::Recorded },
        end: None,
    };
    let store = &world.relay.store;
    store.begin(task, request, &payload, relay::serve::now()).await.unwrap();
    if risk != Risk::Read && phase == Phase::Sent {
        store.sent(task, &id(number)).await.unwrap();
    }
}

#[tokio::test]
async fn a_task_of_before_a_restart_is_used_on_without_its_client_doing_anything() {
    let world = World::new(Manner::Says("one\n".into())).await;
    let mut client = world.client(ALICE).await;
    let mut first = tail(&Value::Null);
    first.as_object_mut().unwrap().remove("task_id");
    first["reason"] = "why".into();
    let (said, _) = client.call("tail_log", first).await;
    let task = said["task_id"].clone();
    drop(client);
    let world = world.restart().await;
    let mut client = world.client(ALICE).await;
    let (targets, _) = client.call("list_targets", json!({})).await;
    assert_eq!(targets["targets"][1]["task_id"], task);
    let (status, _) = client.call("task_status", json!({ "task_id": task })).await;
    assert_eq!((&status["open"], &status["reason"]), (&json!(true), &json!("why")));
    assert_eq!(status["requests"][0]["status"], "ok");
    assert!(
        status["targets"][0].get("certificate_ends").is_none(),
        "keys were in memory"
    );
    let (again, is_error) = client.call("tail_log", tail(&task)).await;
    assert!(!is_error, "{again}");
    // Joined by who asks and where, as before.
    let (joined, _) = client
        .call("tail_log", json!({ "target": "web-1", "path": "/var/log/x.log" }))
        .await;
    assert_eq!((&again["task_id"], &joined["task_id"]), (&task, &task));
    assert_eq!(world.ca.opened.load(Ordering::SeqCst), 2, "one new key for the task");
    assert_eq!(world.seen.connections.load(Ordering::SeqCst), 2);
    let (of_another, _) = world.client(BOB).await.call("tail_log", tail(&task)).await;
    assert_eq!(of_another["code"], "unknown_task");
    let (closed, is_error) = client.call("close_task", json!({ "task_id": task })).await;
    assert!(!is_error, "{closed}");
    drop(client);
    let world = world.restart().await;
    let (said, _) = world.client(ALICE).await.call("tail_log", tail(&task)).await;
    assert_eq!(said["code"], "task_ended");
}

#[tokio::test]
async fn two_calls_at_once_after_a_restart_make_one_key() {
    let world = World::new(Manner::Says("one\n".into())).await;
    let (task, _) = opened(&world).await;
    let world = world.restart().await;
    let (mut one, mut two) = (world.client(ALICE).await, world.client(ALICE).await);
    let ((one, _), (two, _)) = tokio::join!(one.call("tail_log", tail(&task)), two.call("tail_log", tail(&task)));
    assert_eq!((&one["status"], &two["status"]), (&json!("ok"), &json!("ok")));
    assert_eq!(world.ca.opened.load(Ordering::SeqCst), 2);
    assert_eq!(world.seen.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn the_ca_decides_again_after_a_restart() {
    let world = World::new(Manner::Says("one\n".into())).await;
    let (task, _) = opened(&world).await;
    let world = world.restart().await;
    *world.ca.says_no.lock().unwrap() = Some(Code::PolicyDenied);
    let (said, is_error) = world.client(ALICE).await.call("tail_log", tail(&task)).await;
    assert!(is_error);
    assert_eq!(
        (&said["code"], &said["refused_by"], &said["task_id"]),
        (&json!("policy_denied"), &json!("ca"), &task)
    );
    assert!(world.seen.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn every_request_that_was_under_way_is_in_a_known_state_after_a_restart() {
    let world = World::new(Manner::Says("one\n".into())).await;
    let (task, task_id) = opened(&world).await;
    leave(&world, &task_id, 1, Risk::Read, Phase::Sent).await;
    leave(&world, &task_id, 2, Risk::Change, Phase::Recorded).await;
    leave(&world, &task_id, 3, Risk::Change, Phase::Sent).await;
    leave(&world, &task_id, 4, Risk::Destroy, Phase::Sent).await;
    // The log has its end, and the store did not come to it.
    leave(&world, &task_id, 5, Risk::Change, Phase::Sent).await;
    let end = audit::Draft {
        task_id: Some(task_id.clone()),
        request_id: Some(id(5)),
        status: Some(Status::Failed),
        code: Some(Code::ExitNonzero),
        ..audit::Draft::new(audit::Event::Outcome)
    };
    world.relay.records.append(end).await.unwrap();
    // Only these: what is unknown is asked for behind the open door, which opens the task on the target once more.
    let outcomes = |world: &World| -> Vec<Value> {
        let records = world.records().into_iter();
        records.filter(|record| record["event"] == "outcome").collect()
    };
    let before = outcomes(&world).len();
    let world = world.restart().await;
    let expected = [
        (1, "failed", "session_lost"),
        (2, "failed", "not_sent"),
        (3, "unknown", "outcome_unknown"),
        (4, "unknown", "outcome_unknown"),
        (5, "failed", "exit_nonzero"),
    ];
    let (status, _) = world
        .client(ALICE)
        .await
        .call("task_status", json!({ "task_id": task }))
        .await;
    let requests = status["requests"].as_array().unwrap();
    assert_eq!(requests.len(), expected.len(), "{status}");
    for (request, (number, status, code)) in requests.iter().zip(expected) {
        assert_eq!(
            (&request["request_id"], &request["status"], &request["code"]),
            (&json!(id(number).as_str()), &json!(status), &json!(code))
        );
    }
    let mut recorded: Vec<_> = outcomes(&world)[before..]
        .iter()
        .map(|record| {
            assert_eq!(record["task_id"], task);
            let text = |key: &str| record[key].as_str().unwrap().to_owned();
            (text("request_id"), text("status"), text("code"))
        })
        .collect();
    recorded.sort();
    let wanted = expected[..4]
        .iter()
        .map(|(number, status, code)| (id(*number).to_string(), (*status).to_owned(), (*code).to_owned()));
    assert_eq!(
        recorded,
        wanted.collect::<Vec<_>>(),
        "what the log knew is not said twice"
    );

    // What has an effect and is unknown can be asked for, with the very bytes, after any number of restarts.
    let asked_for = async |world: &World| -> Vec<(RequestId, Option<String>)> {
        let left = world.relay.store.unsettled().await.unwrap();
        left.into_iter().map(|one| (one.request.id, one.payload)).collect()
    };
    let bytes = |number: u32| Some(format!("{{\"number\":{number}}}"));
    let unknown = [(id(3), bytes(3)), (id(4), bytes(4))];
    assert_eq!(asked_for(&world).await, unknown);
    let before = outcomes(&world).len();
    let world = world.restart().await;
    assert_eq!(asked_for(&world).await, unknown);
    assert_eq!(outcomes(&world).len(), before, "and it is said once");
}

#[tokio::test]
async fn a_task_that_is_closed_while_its_key_is_made_anew_keeps_none() {
    let world = World::new(Manner::Says("one\n".into())).await;
    let (task, id) = opened(&world).await;
    let world = world.restart().await;
    world.ca.slow_ms.store(500, Ordering::SeqCst);
    let (mut one, mut two) = (world.client(ALICE).await, world.client(ALICE).await);
    let closing = async {
        while world.ca.opened.load(Ordering::SeqCst) < 2 {
            tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        }
        two.call("close_task", json!({ "task_id": task })).await
    };
    let ((said, _), (closed, is_error)) = tokio::join!(one.call("tail_log", tail(&task)), closing);
    assert!(!is_error, "{closed}");
    assert_eq!(said["code"], "task_ended", "{said}");
    assert!(world.relay.seats.find(&id, &"web-1".parse().unwrap()).is_none());
    assert!(world.seen.requests.lock().unwrap().is_empty());
}
