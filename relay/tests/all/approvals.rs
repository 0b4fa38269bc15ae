//! Actions that people have to approve: asked for once, approved elsewhere, carried out with the very bytes that were signed.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use audit::ApprovalState;
use openssh::key::SigningKey;
use openssh::sshsig;
use relay::call::Shown;
use relay::error::Refusal;
use relay::store::{DENIED_S, OPEN_APPROVALS, Step};
use serde_json::{Value, json};
use wire::ids::{ApprovalId, Digest};
use wire::lines::RelayLine;
use wire::{Code, Payload, Status, limits, statement};

use crate::client::Client;
use crate::target::{Gate, Manner};
use crate::world::{ALICE, BOB, World, key, until};

/// The account that brings signatures.
const OPERATOR: u32 = 1009;

fn says() -> Manner {
    Manner::Says("done\n".into())
}

/// A call that one person has to approve, by its manifest.
fn drain(unit: &str) -> Value {
    json!({ "action": "drain", "target": "web-1", "reason": "why", "args": { "unit": unit } })
}

async fn call(client: &mut Client, arguments: &Value) -> (Value, bool) {
    client.call("run_action", arguments.clone()).await
}

/// Asks, and is told whom to ask.
async fn ask(client: &mut Client, arguments: &Value) -> ApprovalId {
    let (said, is_error) = call(client, arguments).await;
    assert!(is_error);
    assert_eq!(said["code"], "approval_required", "{said}");
    said["approval"]["approval_id"].as_str().unwrap().parse().unwrap()
}

async fn signature(world: &World, id: &ApprovalId, key: &SigningKey) -> String {
    let text = world.relay.show_approval(id).await.unwrap().statement.unwrap();
    sshsig::sign(key, sshsig::APPROVE, text.as_bytes()).unwrap()
}

async fn approve(world: &World, id: &ApprovalId, seed: u8) -> Result<Shown, Refusal> {
    let signature = signature(world, id, &key(seed)).await;
    world.relay.approve_request(id, &signature, OPERATOR).await
}

/// What has reached the target: each request's bytes, and the approval beside it.
fn sent(world: &World) -> Vec<(String, Option<wire::lines::Approval>)> {
    let lines = world.seen.lines.lock().unwrap();
    let request = |line: &RelayLine| match line {
        RelayLine::Request(sealed, approval) => Some((sealed.payload.clone(), approval.clone())),
        _ => None,
    };
    lines.iter().filter_map(request).collect()
}

/// The records of what became of approvals, in short.
fn steps(world: &World) -> Vec<(String, u64, u64)> {
    let records = world.records();
    let of = records.iter().filter(|record| record["event"] == "approval");
    of.map(|record| {
        let approval = &record["approval"];
        let number = |key: &str| approval[key].as_u64().unwrap();
        (
            approval["state"].as_str().unwrap().to_owned(),
            number("held"),
            number("needed"),
        )
    })
    .collect()
}

fn step(state: &str, held: u64, needed: u64) -> (String, u64, u64) {
    (state.to_owned(), held, needed)
}

/// REQ-ASK-1, REQ-ASK-2, REQ-ASK-3
#[tokio::test]
async fn a_call_that_people_have_to_approve_is_answered_at_once_with_whom_to_tell() {
    let world = World::new(says()).await;
    let mut client = world.client(ALICE).await;
    let (said, is_error) = call(&mut client, &drain("shop")).await;
    assert!(is_error);
    assert_eq!(
        (&said["code"], &said["refused_by"], &said["retryable"]),
        (&json!("approval_required"), &json!("relay"), &json!(true)),
        "{said}"
    );
    let id = said["approval"]["approval_id"].as_str().unwrap();
    let next = said["next"].as_str().unwrap();
    assert!(next.contains(&format!("writ-relay approvals show {id}")), "{next}");
    assert!(next.contains(said["task_id"].as_str().unwrap()), "{next}");
    let approval = &said["approval"];
    assert_eq!(
        (
            &approval["state"],
            &approval["needed"],
            &approval["held"],
            &approval["targets"]
        ),
        (&json!("waiting"), &json!(1), &json!(0), &json!(["web-1"]))
    );
    let (asked, ends) = (approval["asked"].as_u64().unwrap(), approval["ends"].as_u64().unwrap());
    assert_eq!(ends, asked + 600, "as long as the manifest says");
    assert!(sent(&world).is_empty());
    assert_eq!(world.events(), ["open", "request", "approval", "outcome"]);
    let records = world.records();
    assert_eq!(steps(&world), [step("waiting", 0, 1)]);
    let (asks, ended) = (&records[3], &records[4]);
    assert_eq!(
        (&asks["approval"]["id"], &asks["task_id"]),
        (&json!(id), &said["task_id"])
    );
    assert_ne!(
        asks["request_id"], said["request_id"],
        "what is approved has an id of its own"
    );
    assert_eq!(
        (&ended["status"], &ended["code"]),
        (&json!("refused"), &json!("approval_required"))
    );
    assert_eq!(said["record"], ended["seq"]);
    let (status, _) = client.call("task_status", json!({ "task_id": said["task_id"] })).await;
    assert_eq!(status["approvals"], json!([approval]));
    assert!(world.relay.store.unsettled().await.unwrap().is_empty());
}

/// REQ-ASK-2
#[tokio::test]
async fn what_policy_denies_nobody_is_asked_to_approve() {
    let world = World::new(says()).await;
    let mut client = world.client(ALICE).await;
    client
        .call("open_task", json!({ "reason": "why", "targets": ["web-1"] }))
        .await;
    *world.ca.says_no.lock().unwrap() = Some(Code::PolicyDenied);
    let (said, _) = call(&mut client, &drain("shop")).await;
    assert_eq!(
        (&said["code"], &said["refused_by"]),
        (&json!("policy_denied"), &json!("ca"))
    );
    assert!(world.relay.open_approvals().await.unwrap().is_empty());
    assert!(steps(&world).is_empty() && sent(&world).is_empty());
}

/// REQ-ASK-4
#[tokio::test]
async fn the_same_call_joins_what_waits_and_another_does_not() {
    let world = World::new(says()).await;
    let mut client = world.client(ALICE).await;
    let first = ask(&mut client, &drain("shop")).await;
    let before = world.events().len();
    assert_eq!(ask(&mut client, &drain("shop")).await, first);
    assert_eq!(world.events()[before..], ["refused"], "one record for each no");
    let record = world.records().pop().unwrap();
    assert_eq!(record["code"], "approval_required");
    // A default that is left out is the same as when it is said.
    let mut left_out = drain("shop");
    left_out.as_object_mut().unwrap().remove("args");
    assert_eq!(ask(&mut client, &left_out).await, first);

    let other = ask(&mut client, &drain("other")).await;
    assert_ne!(other, first, "other arguments");
    let stranger = ask(&mut world.client(BOB).await, &drain("shop")).await;
    assert_ne!(stranger, first, "another person");
    let mut brain = world.raw(ALICE);
    brain.initialize("another").await;
    assert_ne!(ask(&mut brain, &drain("shop")).await, first, "another brain");
    let (task, _) = client
        .call("open_task", json!({ "reason": "why", "targets": ["web-1"] }))
        .await;
    let mut elsewhere = drain("shop");
    elsewhere["task_id"] = task["task_id"].clone();
    assert_ne!(ask(&mut client, &elsewhere).await, first, "another task");
    assert_eq!(world.relay.open_approvals().await.unwrap().len(), 5);
    assert!(sent(&world).is_empty());
}

/// REQ-ASK-4
#[tokio::test]
async fn two_same_calls_at_the_same_time_ask_once() {
    let world = World::new(says()).await;
    let (mut one, mut two) = (world.client(ALICE).await, world.client(ALICE).await);
    one.call("open_task", json!({ "reason": "why", "targets": ["web-1"] }))
        .await;
    world.ca.slow_ms.store(100, Ordering::SeqCst);
    let arguments = drain("shop");
    let (first, second) = tokio::join!(ask(&mut one, &arguments), ask(&mut two, &arguments));
    assert_eq!(first, second);
    assert_eq!(
        world.ca.authorized.lock().unwrap().len(),
        2,
        "they were at the CA together"
    );
    assert_eq!(steps(&world), [step("waiting", 0, 1)]);
    assert_eq!(world.relay.open_approvals().await.unwrap().len(), 1);
}

/// REQ-ASK-5, REQ-ASK-6, REQ-STATEMENT-5
#[tokio::test]
async fn an_approved_call_is_carried_out_with_the_bytes_that_were_signed_and_once() {
    let world = World::new(says()).await;
    let mut client = world.client(ALICE).await;
    let id = ask(&mut client, &drain("shop")).await;
    let text = world.relay.show_approval(&id).await.unwrap().statement.unwrap();
    let view = approve(&world, &id, 60).await.unwrap().view;
    assert_eq!((view.state, view.held, view.open), (ApprovalState::Approved, 1, true));
    assert!(sent(&world).is_empty(), "the relay does nothing by itself");
    let kept = world.relay.store.approving().find(&id).await.unwrap().unwrap();
    let frozen = kept.on[0].payload.clone().unwrap();

    let (said, is_error) = call(&mut client, &drain("shop")).await;
    assert!(!is_error, "{said}");
    assert_eq!(
        (&said["status"], &said["request_id"]),
        (&json!("ok"), &json!(kept.on[0].request))
    );
    let sent = sent(&world);
    let [(payload, Some(approval))] = sent.as_slice() else {
        panic!("{sent:?}")
    };
    assert_eq!(*payload, frozen, "the very bytes");
    assert_eq!(
        world.ca.authorized.lock().unwrap().last(),
        Some(payload),
        "and the CA's"
    );
    // As a target does it: the text from its own payload and the lines.
    let parsed = Payload::parse(payload.as_bytes()).unwrap();
    assert_eq!(approval.on, [statement::on_line(&parsed, payload.as_bytes())]);
    assert_eq!(statement::render(&parsed, &approval.on), text);
    let signed = sshsig::verify_person(&approval.sigs[0], sshsig::APPROVE, text.as_bytes()).unwrap();
    assert_eq!(
        signed.key().fingerprint(),
        wire::ids::Fingerprint::of(key(60).public()).as_str()
    );

    assert_eq!(
        world.events(),
        [
            "open", "request", "approval", "outcome", "approval", "request", "outcome"
        ]
    );
    assert_eq!(steps(&world), [step("waiting", 0, 1), step("approved", 1, 1)]);
    let signs = &world.records()[5];
    assert_eq!(signs["approval"]["fingerprint"], signed.key().fingerprint());
    assert_eq!(signs["request_id"], said["request_id"]);
    assert_eq!(signs["message"], format!("brought by uid {OPERATOR}"));
    let (status, _) = client.call("task_status", json!({ "task_id": said["task_id"] })).await;
    assert_eq!(status["approvals"][0]["state"], "done", "{status}");
    // Once more is another thing to approve.
    assert_ne!(ask(&mut client, &drain("shop")).await, id);
    assert_eq!(self::sent(&world).len(), 1);
    let late = approve_with(&world, &id, "AAAA").await;
    assert_eq!(late.code, Code::UnknownApproval);
}

async fn approve_with(world: &World, id: &ApprovalId, signature: &str) -> Refusal {
    world.relay.approve_request(id, signature, OPERATOR).await.unwrap_err()
}

/// REQ-ASK-2, REQ-ASK-5
#[tokio::test]
async fn as_many_keys_sign_as_policy_wants_and_each_counts_once() {
    let world = World::new(says()).await;
    world.ca.approvals.store(2, Ordering::SeqCst);
    let mut client = world.client(ALICE).await;
    let restart = json!({ "action": "restart", "target": "web-1", "reason": "why" });
    let (said, _) = call(&mut client, &restart).await;
    assert_eq!(said["approval"]["needed"], 2, "{said}");
    let lasts = said["approval"]["ends"].as_u64().unwrap() - said["approval"]["asked"].as_u64().unwrap();
    assert_eq!(lasts, limits::APPROVAL_WINDOW_DEFAULT_S, "its manifest says nothing");
    let id = said["approval"]["approval_id"].as_str().unwrap().parse().unwrap();
    for (seed, state, held) in [
        (60, ApprovalState::Waiting, 1),
        (60, ApprovalState::Waiting, 1),
        (61, ApprovalState::Approved, 2),
        (61, ApprovalState::Approved, 2),
    ] {
        let view = approve(&world, &id, seed).await.unwrap().view;
        assert_eq!((view.state, view.held), (state, held), "{seed}");
    }
    assert_eq!(
        steps(&world),
        [step("waiting", 0, 2), step("waiting", 1, 2), step("approved", 2, 2)]
    );
    let (said, is_error) = call(&mut client, &restart).await;
    assert!(!is_error, "{said}");
    assert_eq!(sent(&world)[0].1.as_ref().unwrap().sigs.len(), 2);
}

/// REQ-ASK-5
#[tokio::test]
async fn a_mistake_in_a_signature_is_said_at_once_recorded_and_changes_nothing() {
    let world = World::new(says()).await;
    let mut client = world.client(ALICE).await;
    let (id, other) = (
        ask(&mut client, &drain("shop")).await,
        ask(&mut client, &drain("other")).await,
    );
    let text = world.relay.show_approval(&id).await.unwrap().statement.unwrap();
    let signed = |namespace, text: &str| sshsig::sign(&key(60), namespace, text.as_bytes()).unwrap();
    let good = signed(sshsig::APPROVE, &text);
    let mut cut = good.clone();
    cut.truncate(good.len() - 4);
    let table = [
        ("another text", signature(&world, &other, &key(60)).await),
        ("another namespace", signed(sshsig::REQUEST, &text)),
        ("a file's namespace", signed("file", &text)),
        ("a newline less", signed(sshsig::APPROVE, text.trim_end())),
        ("nothing", String::new()),
        ("no base64", "rm -rf /".to_owned()),
        ("cut off", cut),
        ("something behind it", format!("{good}AAAA")),
        (
            "its armour",
            format!("-----BEGIN SSH SIGNATURE-----\n{good}\n-----END SSH SIGNATURE-----\n"),
        ),
        ("too long", "A".repeat(8192)),
    ];
    let count = table.len();
    for (name, signature) in table {
        let before = world.records().len();
        let refusal = approve_with(&world, &id, &signature).await;
        assert_eq!(refusal.code, Code::ApprovalInvalid, "{name}");
        let records = world.records().split_off(before);
        assert_eq!(records.len(), 1, "{name}");
        assert_eq!(
            (&records[0]["event"], &records[0]["code"], &records[0]["decision"]),
            (&json!("refused"), &json!("approval_invalid"), &json!("deny")),
            "{name}"
        );
        assert!(records[0]["task_id"].is_string() && records[0]["request_id"].is_string());
        let view = world.relay.show_approval(&id).await.unwrap().view;
        assert_eq!((view.state, view.held), (ApprovalState::Waiting, 0), "{name}");
    }
    println!("{count} attacks, {count} refused");
    assert_eq!(ask(&mut client, &drain("shop")).await, id);
    assert!(sent(&world).is_empty());
    world.relay.approve_request(&id, &good, OPERATOR).await.unwrap();
    let nobody = "0192e4a0-7f00-7000-8000-00000000000f".parse().unwrap();
    assert_eq!(approve_with(&world, &nobody, &good).await.code, Code::UnknownApproval);
    assert_eq!(
        world.relay.deny_request(&nobody, OPERATOR).await.unwrap_err().code,
        Code::UnknownApproval
    );
}

/// REQ-ASK-7
#[tokio::test]
async fn a_no_is_final_for_ten_minutes() {
    let world = World::new(says()).await;
    let mut client = world.client(ALICE).await;
    let id = ask(&mut client, &drain("shop")).await;
    let good = signature(&world, &id, &key(60)).await;
    let view = world.relay.deny_request(&id, OPERATOR).await.unwrap().view;
    assert_eq!((view.state, view.open), (ApprovalState::Denied, false));
    for _ in 0..2 {
        let before = world.events().len();
        let (said, is_error) = call(&mut client, &drain("shop")).await;
        assert!(is_error);
        assert_eq!(
            (
                &said["code"],
                &said["retryable"],
                &said["refused_by"],
                &said["approval"]["state"]
            ),
            (
                &json!("approval_denied"),
                &json!(false),
                &json!("relay"),
                &json!("denied")
            ),
            "{said}"
        );
        assert_eq!(world.events()[before..], ["refused"]);
        assert_eq!(said["record"], world.records().pop().unwrap()["seq"]);
    }
    assert_eq!(approve_with(&world, &id, &good).await.code, Code::ApprovalDenied);
    assert_eq!(
        world.relay.deny_request(&id, OPERATOR).await.unwrap_err().code,
        Code::ApprovalDenied
    );
    let shown = world.relay.show_approval(&id).await.unwrap();
    assert_eq!(shown.statement, None, "there is nothing to sign any more");
    ask(&mut client, &drain("other")).await;
    // Another was denied longer ago than that: whoever asked is told once, then people are asked anew.
    let old = ask(&mut client, &drain("third")).await;
    let long_ago = relay::serve::now() - DENIED_S;
    let approving = world.relay.store.approving();
    approving.end(&old, ApprovalState::Denied, long_ago).await.unwrap();
    assert_eq!(call(&mut client, &drain("third")).await.0["code"], "approval_denied");
    assert_ne!(ask(&mut client, &drain("third")).await, old);
    let denied: Vec<_> = world
        .records()
        .into_iter()
        .filter(|record| record["approval"]["state"] == "denied")
        .collect();
    assert_eq!(denied.len(), 1);
    assert_eq!(denied[0]["message"], format!("denied by uid {OPERATOR}"));
    assert!(sent(&world).is_empty());
}

/// REQ-ASK-7
#[tokio::test]
async fn what_was_approved_can_be_denied_until_it_is_carried_out() {
    let world = World::new(says()).await;
    let mut client = world.client(ALICE).await;
    let id = ask(&mut client, &drain("shop")).await;
    approve(&world, &id, 60).await.unwrap();
    world.relay.deny_request(&id, OPERATOR).await.unwrap();
    let (said, _) = call(&mut client, &drain("shop")).await;
    assert_eq!(said["code"], "approval_denied", "{said}");
    assert!(sent(&world).is_empty());
}

static AHEAD: AtomicU64 = AtomicU64::new(0);

fn later() -> u64 {
    relay::serve::now() + AHEAD.load(Ordering::SeqCst)
}

/// REQ-ASK-8
#[tokio::test]
async fn an_approval_ends_with_its_time_which_is_said_once_and_the_next_call_asks_anew() {
    let mut world = World::new(says()).await;
    world.clock(later);
    let mut client = world.client(ALICE).await;
    let (waits, signed) = (
        ask(&mut client, &drain("shop")).await,
        ask(&mut client, &drain("other")).await,
    );
    approve(&world, &signed, 60).await.unwrap();
    let good = signature(&world, &waits, &key(60)).await;
    AHEAD.store(599, Ordering::SeqCst);
    assert_eq!(ask(&mut client, &drain("shop")).await, waits);
    AHEAD.store(601, Ordering::SeqCst);
    assert_eq!(approve_with(&world, &waits, &good).await.code, Code::ApprovalExpired);
    for unit in ["shop", "other"] {
        let (said, _) = call(&mut client, &drain(unit)).await;
        assert_eq!(
            (&said["code"], &said["retryable"], &said["approval"]["state"]),
            (&json!("approval_expired"), &json!(true), &json!("expired")),
            "{said}"
        );
    }
    AHEAD.store(0, Ordering::SeqCst);
    assert_ne!(ask(&mut client, &drain("shop")).await, waits);
    let third = ask(&mut client, &drain("third")).await;
    AHEAD.store(601, Ordering::SeqCst);
    world.relay.sweep().await;
    world.relay.sweep().await;
    assert!(world.relay.open_approvals().await.unwrap().is_empty());
    AHEAD.store(0, Ordering::SeqCst);
    assert_eq!(call(&mut client, &drain("third")).await.0["code"], "approval_expired");
    assert_ne!(ask(&mut client, &drain("third")).await, third);
    let expired = |step: &&(String, u64, u64)| step.0 == "expired";
    assert_eq!(steps(&world).iter().filter(expired).count(), 4, "each once");
    assert!(sent(&world).is_empty());
}

/// REQ-ASK-8
#[tokio::test]
async fn an_approval_ends_with_its_task() {
    let world = World::new(says()).await;
    let mut client = world.client(ALICE).await;
    let id = ask(&mut client, &drain("shop")).await;
    let task = world.relay.show_approval(&id).await.unwrap().task;
    client.call("close_task", json!({ "task_id": task.as_str() })).await;
    world.relay.sweep().await;
    let view = world.relay.show_approval(&id).await.unwrap().view;
    assert_eq!((view.state, view.open), (ApprovalState::Expired, false));
    assert_ne!(ask(&mut client, &drain("shop")).await, id, "in a new task");
}

/// REQ-ASK-9
#[tokio::test]
async fn what_waits_and_what_was_signed_outlives_the_relay() {
    let world = World::new(says()).await;
    let id = ask(&mut world.client(ALICE).await, &drain("shop")).await;
    let world = world.restart().await;
    assert_eq!(ask(&mut world.client(ALICE).await, &drain("shop")).await, id);
    approve(&world, &id, 60).await.unwrap();
    let world = world.restart().await;
    let (said, is_error) = call(&mut world.client(ALICE).await, &drain("shop")).await;
    assert!(!is_error, "{said}");
    assert_eq!(sent(&world).len(), 1);
}

/// REQ-ASK-6
#[tokio::test]
async fn nothing_is_lost_of_an_approval_where_the_ca_or_the_target_refuses() {
    let world = World::new(Manner::Refuses(Code::ApproverUnknown, "carol is nobody".into())).await;
    let mut client = world.client(ALICE).await;
    let id = ask(&mut client, &drain("shop")).await;
    approve(&world, &id, 60).await.unwrap();
    *world.ca.says_no.lock().unwrap() = Some(Code::LogUnavailable);
    let (said, _) = call(&mut client, &drain("shop")).await;
    assert_eq!(
        (&said["code"], &said["refused_by"]),
        (&json!("log_unavailable"), &json!("ca"))
    );
    assert!(sent(&world).is_empty());
    *world.ca.says_no.lock().unwrap() = None;
    let (said, _) = call(&mut client, &drain("shop")).await;
    assert_eq!(
        (&said["code"], &said["refused_by"]),
        (&json!("approver_unknown"), &json!("target")),
        "{said}"
    );
    // Somebody whom the target knows signs too.
    approve(&world, &id, 61).await.unwrap();
    call(&mut client, &drain("shop")).await;
    let sent = sent(&world);
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0].0, sent[1].0, "the same bytes, under the same id");
    let sigs = |at: usize| sent[at].1.as_ref().unwrap().sigs.len();
    assert_eq!((sigs(0), sigs(1)), (1, 2));
    let kept = world.relay.store.approving().find(&id).await.unwrap().unwrap();
    assert_eq!((kept.open, kept.on[0].step), (true, Step::Kept));
}

/// REQ-ASK-2
#[tokio::test]
async fn policy_that_wants_more_than_were_asked_is_asked_for_more() {
    let world = World::new(says()).await;
    let mut client = world.client(ALICE).await;
    let id = ask(&mut client, &drain("shop")).await;
    approve(&world, &id, 60).await.unwrap();
    world.ca.approvals.store(2, Ordering::SeqCst);
    assert_eq!(ask(&mut client, &drain("shop")).await, id);
    assert!(sent(&world).is_empty());
    assert_eq!(steps(&world).last(), Some(&step("waiting", 1, 2)));
    assert_eq!(ask(&mut client, &drain("shop")).await, id);
    approve(&world, &id, 61).await.unwrap();
    let (said, is_error) = call(&mut client, &drain("shop")).await;
    assert!(!is_error, "{said}");
}

/// REQ-ASK-6
#[tokio::test]
async fn an_approved_call_that_is_under_way_is_not_begun_again() {
    let gate = Gate::closed();
    let world = World::new(Manner::Waits(gate.clone())).await;
    let mut client = world.client(ALICE).await;
    let id = ask(&mut client, &drain("shop")).await;
    approve(&world, &id, 60).await.unwrap();
    let mut other = world.client(ALICE).await;
    let arguments = drain("shop");
    let carried_out = call(&mut client, &arguments);
    let meanwhile = async {
        let step = async || world.relay.store.approving().find(&id).await.unwrap().unwrap().on[0].step;
        until("it is under way", async || step().await == Step::Running).await;
        let (said, _) = call(&mut other, &arguments).await;
        assert_eq!(
            (&said["code"], &said["retryable"]),
            (&json!("in_progress"), &json!(true)),
            "{said}"
        );
        assert_eq!(
            world.relay.deny_request(&id, OPERATOR).await.unwrap_err().code,
            Code::InProgress
        );
        gate.open();
    };
    let ((said, is_error), ()) = tokio::join!(carried_out, meanwhile);
    assert!(!is_error, "{said}");
    assert_eq!(sent(&world).len(), 1);
}

/// REQ-CHANGE-5, REQ-ASK-6
#[tokio::test]
async fn an_approved_call_whose_answer_is_lost_is_asked_for_with_its_approval() {
    let world = World::new(Manner::LeavesOnce).await;
    let mut client = world.client(ALICE).await;
    let id = ask(&mut client, &drain("shop")).await;
    approve(&world, &id, 60).await.unwrap();
    let (said, is_error) = call(&mut client, &drain("shop")).await;
    assert!(!is_error, "{said}");
    let sent = sent(&world);
    assert_eq!(
        (sent.len(), &sent[0]),
        (2, &sent[1]),
        "byte for byte, approval included"
    );
    assert!(sent[0].1.is_some());
}

/// REQ-ASK-6, REQ-CHANGE-7
#[tokio::test]
async fn an_approved_call_of_which_nobody_knows_is_unknown_and_never_made_anew() {
    let world = World::new(says()).await;
    let mut client = world.client(ALICE).await;
    let id = ask(&mut client, &drain("shop")).await;
    approve(&world, &id, 60).await.unwrap();
    drop(client);
    let approving = world.relay.store.approving();
    let kept = approving.find(&id).await.unwrap().unwrap();
    let one = &kept.on[0];
    let request = relay::store::Request {
        id: one.request.clone(),
        target: one.target.clone(),
        action: kept.action.clone(),
        risk: wire::Risk::Change,
        mode: kept.mode,
        sha256: one.sha256.clone(),
        phase: relay::store::Phase::Recorded,
        end: None,
    };
    let payload = one.payload.clone().unwrap();
    let now = relay::serve::now();
    let draft = |event, status, code| audit::Draft {
        task_id: Some(kept.task.clone()),
        request_id: Some(one.request.clone()),
        status,
        code,
        ..audit::Draft::new(event)
    };
    let records = &world.relay.records;
    // It was begun, refused by the CA, begun again, and sent; then the relay was killed.
    for end in [Some((Status::Refused, Code::LogUnavailable)), None] {
        approving
            .carry_out(&id, &kept.task, request.clone(), &payload, now)
            .await
            .unwrap();
        assert!(
            approving
                .carry_out(&id, &kept.task, request.clone(), &payload, now)
                .await
                .is_err()
        );
        records.append(draft(audit::Event::Request, None, None)).await.unwrap();
        world.relay.store.sent(&kept.task, &one.request).await.unwrap();
        if let Some((status, code)) = end {
            records
                .append(draft(audit::Event::Outcome, Some(status), Some(code)))
                .await
                .unwrap();
            world
                .relay
                .store
                .settle(&kept.task, &one.request, status, Some(code))
                .await
                .unwrap();
        }
    }
    let world = world.restart().await;
    let last = world.records().pop().unwrap();
    assert_eq!(
        (&last["event"], &last["status"], &last["request_id"]),
        (&json!("outcome"), &json!("unknown"), &json!(one.request)),
        "the refusal was of the time before"
    );
    let view = world.relay.show_approval(&id).await.unwrap().view;
    assert!(!view.open);
    assert_ne!(ask(&mut world.client(ALICE).await, &drain("shop")).await, id);
    assert!(sent(&world).is_empty());
    assert_eq!(Digest::of(payload.as_bytes()), one.sha256);
}

/// REQ-ASK-10
#[tokio::test]
async fn one_person_has_so_many_approvals_open_and_another_is_not_kept_out() {
    let world = World::new(says()).await;
    let mut client = world.client(ALICE).await;
    let mut first = None;
    for number in 0..OPEN_APPROVALS {
        let id = ask(&mut client, &drain(&format!("unit-{number}"))).await;
        first.get_or_insert(id);
    }
    let asked = steps(&world).len();
    let (said, _) = call(&mut client, &drain("one-more")).await;
    assert_eq!(
        (&said["code"], &said["retryable"]),
        (&json!("capacity"), &json!(true)),
        "{said}"
    );
    assert_eq!(steps(&world).len(), asked, "nobody was asked");
    assert_eq!(
        ask(&mut client, &drain("unit-0")).await,
        first.clone().unwrap(),
        "what waits is still joined"
    );
    ask(&mut world.client(BOB).await, &drain("shop")).await;
    world.relay.deny_request(&first.unwrap(), OPERATOR).await.unwrap();
    ask(&mut client, &drain("one-more")).await;
    assert!(sent(&world).is_empty());
}

/// REQ-ASK-3
#[tokio::test]
async fn nothing_is_asked_for_and_nothing_signed_that_cannot_be_recorded() {
    let world = Arc::new(World::new(says()).await);
    let mut client = world.client(ALICE).await;
    let id = ask(&mut client, &drain("shop")).await;
    let good = signature(&world, &id, &key(60)).await;
    let hidden = world.hide_log();
    let (said, _) = call(&mut client, &drain("other")).await;
    assert_eq!(said["code"], "log_unavailable", "{said}");
    assert_eq!(approve_with(&world, &id, &good).await.code, Code::LogUnavailable);
    assert_eq!(
        world.relay.deny_request(&id, OPERATOR).await.unwrap_err().code,
        Code::LogUnavailable
    );
    drop(hidden);
    let open = world.relay.open_approvals().await.unwrap();
    assert_eq!(open.len(), 1);
    assert_eq!((open[0].view.state, open[0].view.held), (ApprovalState::Waiting, 0));
}

/// REQ-ASK-11
#[tokio::test]
async fn nothing_that_a_client_says_is_an_approval_and_it_is_asked_for_none() {
    let world = World::new(says()).await;
    let mut client = world.raw(ALICE);
    let capable = json!({
        "protocolVersion": "2025-06-18", "capabilities": { "elicitation": {}, "sampling": {}, "roots": {} },
        "clientInfo": { "name": "test", "version": "1" },
    });
    client.request("initialize", capable).await;
    client
        .send(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }).to_string())
        .await;
    let ask = |id: u64, more: Value| {
        let mut arguments = drain("shop");
        arguments
            .as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": "run_action", "arguments": arguments } })
    };
    client.send(ask(90, json!({})).to_string()).await;
    let line = client.read().await.unwrap();
    assert_eq!(line["id"], 90, "the answer, and no question: {line}");
    for (id, more) in (91..).zip([
        json!({ "approved": true }),
        json!({ "approval": { "on": [], "sigs": ["AAAA"] } }),
        json!({ "signature": "AAAA" }),
    ]) {
        client.send(ask(id, more).to_string()).await;
        let line = client.read().await.unwrap();
        assert_eq!(
            line["result"]["structuredContent"]["code"], "arguments_invalid",
            "{line}"
        );
    }
    // What looks like an answer to a question that was not asked.
    let accepts =
        json!({ "jsonrpc": "2.0", "id": 1, "result": { "action": "accept", "content": { "approve": true } } });
    client.send(accepts.to_string()).await;
    client.send(ask(99, json!({})).to_string()).await;
    let line = client.read().await.unwrap();
    assert_eq!(
        line["result"]["structuredContent"]["code"], "approval_required",
        "{line}"
    );
    assert!(sent(&world).is_empty());
}

/// REQ-ASK-2: a read about which policy says so is approved like anything else.
#[tokio::test]
async fn a_read_that_policy_wants_approved_is_asked_for_too() {
    let world = World::new(says()).await;
    *world.ca.covers.lock().unwrap() = vec!["check_health"];
    world.ca.approvals.store(1, Ordering::SeqCst);
    let mut client = world.client(ALICE).await;
    let tail = crate::world::tail();
    let (said, _) = client.call("tail_log", tail.clone()).await;
    assert_eq!(said["code"], "approval_required", "{said}");
    let id = said["approval"]["approval_id"].as_str().unwrap().parse().unwrap();
    approve(&world, &id, 60).await.unwrap();
    let (said, is_error) = client.call("tail_log", tail).await;
    assert!(!is_error, "{said}");
    assert!(sent(&world)[0].1.is_some());
}
