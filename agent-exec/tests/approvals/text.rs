//! What was signed: this request, as it is, on this target, in time.

use agent_exec::order;
use openssh::sshsig;
use serde_json::json;
use wire::Code;
use wire::lines::Approval;

use crate::scene::{CAROL, DAVE, Scene};
use crate::stage::{NOW, key};

/// REQ-APPROVAL-1, REQ-APPROVAL-7
#[test]
fn as_many_people_as_are_needed_and_their_keys_are_named() {
    let scene = Scene::new(2);
    let by = scene.with(vec![scene.signed(CAROL), scene.signed(DAVE)]).unwrap();
    let one = |name: &str, seed| {
        (
            name.to_owned(),
            key(seed).public().fingerprint(),
            "ssh-ed25519".to_owned(),
        )
    };
    assert_eq!(by, [one("carol", CAROL), one("dave", DAVE)]);
    // Nobody is asked who may approve where nobody has to.
    let none = Scene::new(0);
    let fine = order::approved(&none.request(), Scene::near(&none), None, || panic!("asked"));
    assert_eq!(fine.unwrap().by(), []);
    let approval = Approval {
        on: vec![Scene::on(&none.payload)],
        sigs: vec![none.signed(CAROL)],
    };
    let refused = order::approved(&none.request(), Scene::near(&none), Some(&approval), || panic!("asked"));
    assert_eq!(refused.unwrap_err().code, Code::LineMalformed);
}

/// REQ-APPROVAL-1
#[test]
fn approval_missing() {
    let scene = Scene::new(2);
    let nothing = order::approved(&scene.request(), scene.wanted().unwrap(), None, || panic!("asked"));
    let refusal = nothing.unwrap_err();
    assert_eq!(refusal.code, Code::ApprovalMissing);
    assert_eq!(
        refusal.message,
        "it needs the approvals of 2 people, and none came with it"
    );
    let refusal = scene.with(vec![scene.signed(CAROL)]).unwrap_err();
    assert_eq!(refusal.code, Code::ApprovalMissing);
    assert_eq!(
        refusal.message,
        "it needs the approvals of 2 people, and has those of 1"
    );
}

/// REQ-APPROVAL-3
#[test]
fn approval_other_args() {
    let scene = Scene::new(1);
    let mut other = scene.payload.clone();
    other["args"] = json!({"table": "order"});
    // What was signed, brought for what was not: with the lines of one, and of the other.
    let text = Scene::text(&other, &[Scene::on(&other)]);
    let signature = sshsig::sign(&key(CAROL), sshsig::APPROVE, text.as_bytes()).unwrap();
    scene.refuses(
        &signature,
        Code::ApprovalInvalid,
        "signature 1: failed to verify the signature",
    );
    let refusal = scene.judge(vec![Scene::on(&other)], vec![signature]).unwrap_err();
    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (Code::ApprovalInvalid, ANOTHER_HERE)
    );
    // Each field that is signed.
    for (field, value) in [
        ("reason", json!("because")),
        ("mode", json!("dry_run")),
        ("expires", json!(NOW + 599)),
        ("action", json!("drop_tables")),
        (
            "requester",
            json!({"brain": "claude", "person": "alicia", "proof": "relay"}),
        ),
        (
            "requester",
            json!({"brain": "clause", "person": "alice", "proof": "relay"}),
        ),
        (
            "requester",
            json!({"brain": "claude", "person": "alice", "proof": "token"}),
        ),
        ("task_id", json!("0192e4a0-7f00-7000-8000-000000000002")),
    ] {
        let mut other = scene.payload.clone();
        other[field] = value;
        let text = Scene::text(&other, &[Scene::on(&scene.payload)]);
        let signature = sshsig::sign(&key(CAROL), sshsig::APPROVE, text.as_bytes()).unwrap();
        scene.refuses(&signature, Code::ApprovalInvalid, "failed to verify the signature");
    }
}

const ANOTHER_HERE: &str = "another request on this target was approved by the same text";
const NOT_AMONG: &str = "this request is not among those that were approved";
const NO_LINE: &str = "a line of what was approved names no target, key and digest";

/// REQ-APPROVAL-2
#[test]
fn approval_other_target() {
    let scene = Scene::new(1);
    let mut there = scene.payload.clone();
    there["target"] = json!("web-2");
    there["target_key"] = json!(wire::ids::Fingerprint::of(key(99).public()));
    let judge = |on: Vec<String>| {
        let text = Scene::text(&scene.payload, &on);
        let signature = sshsig::sign(&key(CAROL), sshsig::APPROVE, text.as_bytes()).unwrap();
        scene
            .judge(on, vec![signature])
            .map(drop)
            .map_err(|refusal| (refusal.code, refusal.message))
    };
    let invalid = |what: &str| Err((Code::ApprovalInvalid, what.to_owned()));
    assert_eq!(judge(vec![Scene::on(&there)]), invalid(NOT_AMONG));
    // A fan-out: one signature, several targets.
    let (own, other) = (Scene::on(&scene.payload), Scene::on(&there));
    assert_eq!(judge(vec![own.clone(), other.clone()]), Ok(()));
    assert_eq!(
        judge(vec![other.clone(), own.clone()]),
        invalid("approval.on: 1 to 256 lines, strictly sorted")
    );
    assert_eq!(
        judge(vec![own.clone(), own.clone()]),
        invalid("approval.on: 1 to 256 lines, strictly sorted")
    );
    assert_eq!(judge(vec![]), invalid("approval.on: 1 to 256 lines, strictly sorted"));
    // The same target twice, by its name, by its key, and under another name.
    let mut twice = scene.payload.clone();
    twice["request_id"] = json!("0192e4a0-7f00-7000-8000-00000000000b");
    let mut renamed = twice.clone();
    renamed["target"] = json!("web-9");
    let mut rekeyed = twice.clone();
    rekeyed["target_key"] = there["target_key"].clone();
    for second in [&twice, &renamed, &rekeyed] {
        let mut on = vec![own.clone(), Scene::on(second)];
        on.sort();
        assert_eq!(judge(on), invalid(ANOTHER_HERE), "{second}");
    }
    for text in [
        "web-3 and nothing else",
        "x",
        "",
        "web-3 SHA256:x y",
        &format!("{other} {other}"),
    ] {
        let mut on = vec![own.clone(), text.to_owned()];
        on.sort();
        assert_eq!(judge(on), invalid(NO_LINE), "{text}");
    }
}

/// The payload says until when, and the manifest how long that may be. REQ-PAYLOAD-10, REQ-PAYLOAD-15
#[test]
fn approval_expired() {
    let scene = Scene::new(1);
    let payload = scene.request().payload().clone();
    assert_eq!(order::timely(&payload, NOW + 629), Ok(()));
    assert_eq!(
        order::timely(&payload, NOW + 630).unwrap_err().code,
        Code::RequestExpired
    );
    let mut late = Scene::new(1);
    late.payload["expires"] = json!(NOW + 631);
    assert_eq!(late.wanted().unwrap_err().code, Code::ExpiresTooFar);
}

/// An approval is for one request: the ledger lets that run once, and no other is it. REQ-APPROVAL-2, REQ-APPROVAL-6
#[test]
fn approval_reused() {
    let scene = Scene::new(1);
    let signature = scene.signed(CAROL);
    let mut again = Scene::new(1);
    again.payload["request_id"] = json!("0192e4a0-7f00-7000-8000-00000000000b");
    let refusal = again
        .judge(vec![Scene::on(&scene.payload)], vec![signature.clone()])
        .unwrap_err();
    assert_eq!(
        (refusal.code, refusal.message.as_str()),
        (Code::ApprovalInvalid, ANOTHER_HERE)
    );
    again.refuses(&signature, Code::ApprovalInvalid, "failed to verify the signature");
}
