//! A task's life: opened once, joined, renewed for the same key, ended after eight hours, whatever restarts meanwhile.

use std::sync::atomic::Ordering;

use audit::Event;
use wire::{Code, limits};

use crate::minted::grant_of;
use crate::room::{Room, file, key, open, renewal, target};

/// REQ-CARPC-4
#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_joined_on_other_targets_and_refused_other_facts() {
    let room = Room::new();
    let running = room.serve().await;
    let call = open(1);
    let first = running.open(&call).await.unwrap();
    room.ahead.store(60, Ordering::SeqCst);
    let mut other_target = call.clone();
    other_target.target = "web-2".into();
    other_target.public_key = key(2).public().to_openssh();
    let second = running.open(&other_target).await.unwrap();
    assert_eq!(second.opened, first.opened, "one task, one age");
    assert_eq!(second.receipt_key, key(102).public().to_openssh());

    for (what, change) in [
        (
            "reason",
            (|c| c.reason = "something else".into()) as fn(&mut grpc::v1::OpenTaskRequest),
        ),
        ("brain", |c| c.brain = "another".into()),
    ] {
        let mut call = call.clone();
        change(&mut call);
        let record = running.refuses_open(&call, Code::TaskMismatch).await;
        assert_eq!(record.draft.task_id.unwrap().as_str(), call.task_id, "{what}");
    }
    running.stop().await;
}

/// REQ-CARPC-4
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_for_again() {
    let room = Room::new();
    let running = room.serve().await;
    let call = open(1);
    running.open(&call).await.unwrap();
    running.open(&call).await.unwrap();
    // A relay that restarted has lost the key, and the task is still its own.
    let mut new_key = call.clone();
    new_key.public_key = key(2).public().to_openssh();
    running.open(&new_key).await.unwrap();
    running.refuses_renewal(&renewal(&call), Code::KeyMismatch).await;
    running.renew(&renewal(&new_key)).await.unwrap();
    running.stop().await;
}

/// REQ-CARPC-5, REQ-CERT-18
#[tokio::test(flavor = "multi_thread")]
async fn a_renewal_is_for_the_same_key_of_an_open_task() {
    let room = Room::new();
    let running = room.serve().await;
    let call = open(1);
    running.refuses_renewal(&renewal(&call), Code::UnknownTask).await;
    running.open(&call).await.unwrap();
    running.renew(&renewal(&call)).await.unwrap();
    let mut other_key = renewal(&call);
    other_key.public_key = key(2).public().to_openssh();
    running.refuses_renewal(&other_key, Code::KeyMismatch).await;
    let mut other_target = renewal(&call);
    other_target.target = "web-2".into();
    running.refuses_renewal(&other_target, Code::UnknownTask).await;
    running.stop().await;
}

/// REQ-CARPC-6
#[tokio::test(flavor = "multi_thread")]
async fn a_task_ends_after_eight_hours_and_its_last_certificate_ends_with_it() {
    let room = Room::new();
    let running = room.serve().await;
    let call = open(1);
    let first = running.open(&call).await.unwrap();
    assert_eq!(first.ends, first.opened + limits::TASK_MAX_S as i64);
    room.ahead.store(limits::TASK_MAX_S - 100, Ordering::SeqCst);
    let last = running.renew(&renewal(&call)).await.unwrap();
    assert_eq!(last.valid_before, first.ends, "clipped");
    assert_eq!(last.opened, first.opened);
    room.ahead.store(limits::TASK_MAX_S + 1, Ordering::SeqCst);
    running.refuses_renewal(&renewal(&call), Code::TaskEnded).await;
    running.refuses_open(&call, Code::TaskEnded).await;
    running.stop().await;
}

/// REQ-CARPC-6
#[tokio::test(flavor = "multi_thread")]
async fn a_restart_continues_from_the_log() {
    let room = Room::new();
    let running = room.serve().await;
    let call = open(1);
    let first = running.open(&call).await.unwrap();
    running.stop().await;
    room.ahead.store(30, Ordering::SeqCst);

    let running = room.serve().await;
    let renewed = running.renew(&renewal(&call)).await.unwrap();
    assert_eq!((renewed.opened, renewed.ends), (first.opened, first.ends));
    let mut other = call.clone();
    other.reason = "something else".into();
    running.refuses_open(&other, Code::TaskMismatch).await;
    let events = running.events();
    use Event::{Genesis, Issue, Refused, Renew, Start, Stop};
    assert_eq!(events, [Genesis, Start, Issue, Stop, Start, Renew, Refused]);
    running.stop().await;
}

/// REQ-CERT-18
#[tokio::test(flavor = "multi_thread")]
async fn every_renewal_is_judged_again() {
    let by_label = "@id(\"demo-only\") permit(principal, action, resource) when { resource.labels has env && resource.labels.env == \"demo\" };";
    let room = Room::with_policy(by_label);
    let running = room.serve().await;
    let call = open(1);
    running.open(&call).await.unwrap();
    // The operator takes the label away: the inventory is read again without a restart.
    file(
        &room.config.inventory,
        &target("web-1", 101, &[("env", "production")]).stanza(),
    );
    running.refuses_renewal(&renewal(&call), Code::PolicyDenied).await;
    file(&room.config.inventory, "");
    running.refuses_renewal(&renewal(&call), Code::UnknownTarget).await;
    running.stop().await;

    // Or takes the person away from the relay.
    let mut room = room;
    file(
        &room.config.inventory,
        &target("web-1", 101, &[("env", "demo")]).stanza(),
    );
    room.config.relays[0].persons = ["carol".parse().unwrap()].into();
    let running = room.serve().await;
    running.refuses_renewal(&renewal(&call), Code::PersonUnmapped).await;
    running.stop().await;
}

/// REQ-CARPC-4
#[tokio::test(flavor = "multi_thread")]
async fn of_calls_at_the_same_time_one_fixes_the_facts() {
    let room = Room::new();
    let running = room.serve().await;
    let call = open(1);
    let mut callers = Vec::new();
    for n in 0..16 {
        let mut call = call.clone();
        call.reason = format!("reason {}", n % 4);
        let mut client = running.client.clone();
        callers.push(tokio::spawn(async move { client.open_task(call).await.is_ok() }));
    }
    let mut granted = 0;
    for caller in callers {
        granted += usize::from(caller.await.unwrap());
    }
    assert_eq!(granted, 4, "the four that say the same");
    let reasons: std::collections::BTreeSet<_> = running
        .records()
        .into_iter()
        .filter(|r| r.draft.event == Event::Issue)
        .map(|r| r.draft.reason)
        .collect();
    assert_eq!(reasons.len(), 1);
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_description_says_who_the_caller_is() {
    let room = Room::new();
    let running = room.serve().await;
    let said = running
        .client
        .clone()
        .describe(grpc::v1::DescribeRequest {})
        .await
        .unwrap()
        .into_inner();
    assert_eq!((said.relay.as_str(), said.task_lifetime_s), ("relay-1", 300));
    assert_eq!(said.task_ca, key(201).public().to_openssh());
    assert_eq!(said.host_ca, key(200).public().to_openssh());
    assert_eq!(
        (said.persons, said.targets),
        (vec!["alice".to_owned()], vec!["web-1".to_owned(), "web-2".to_owned()])
    );
    let head = said.head.unwrap();
    assert_eq!(head.seq, running.records().last().unwrap().envelope.seq);
    let call = open(1);
    let grant = grant_of(&running.open(&call).await.unwrap().certificate, "web-1");
    assert!(grant.contains(&format!("\"log\":\"{}\"", head.log)));
    running.stop().await;
}
