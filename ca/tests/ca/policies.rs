//! What policy can decide by, asked of the running CA: approvals, time, age, counts, mode.

use std::sync::atomic::Ordering;

use audit::Event;
use openssh::certificate;
use serde_json::json;
use wire::{Code, Grant, Mode};

use crate::room::{Room, key, open, renewal};
use crate::stand::{ALL, Stand, bytes};

/// The approvals that the grant demands, whatever the time.
fn demanded(certificate: &str) -> Option<u8> {
    let read = certificate::read(certificate).unwrap();
    let (_, text) = read.extensions().iter().next().unwrap();
    Grant::parse(text.as_bytes()).unwrap().approvals
}

/// REQ-CARPC-19
#[tokio::test(flavor = "multi_thread")]
async fn the_grant_demands_the_most_approvals_of_deciding_permits_and_manifest() {
    let permit = |id: &str, wanted: &str, action: &str| {
        format!("@id(\"{id}\") {wanted} permit(principal, action == Action::\"{action}\", resource);")
    };
    for (policies, action, approvals) in [
        (vec![permit("one", "@approvals(\"1\")", "count")], "count", 1),
        (
            vec![
                permit("one", "@approvals(\"1\")", "count"),
                permit("three", "@approvals(\"3\")", "count"),
            ],
            "count",
            3,
        ),
        (
            vec![permit("two", "@approvals(\"2\")", "count"), permit("none", "", "count")],
            "count",
            2,
        ),
        // The manifest of drop_table wants two by itself.
        (vec![permit("none", "", "drop_table")], "drop_table", 2),
        (vec![permit("one", "@approvals(\"1\")", "drop_table")], "drop_table", 2),
        (
            vec![permit("three", "@approvals(\"3\")", "drop_table")],
            "drop_table",
            3,
        ),
    ] {
        let reads = permit("reads", "", "tail_log");
        let stand = Stand::with_policy(&format!("{reads}\n{}", policies.join("\n"))).await;
        let args = if action == "count" {
            json!({"counter": "one", "by": 1})
        } else {
            json!({"table": "carts"})
        };
        let credential = stand.ask_holding(3, &stand.payload(action, args)).await.unwrap();
        let found = (credential.approvals, demanded(&credential.certificate));
        assert_eq!(found, (u32::from(approvals), Some(approvals)), "{policies:?}");
        stand.stop().await;
    }
}

/// REQ-CARPC-8, REQ-CARPC-19, REQ-POLICY-5
#[tokio::test(flavor = "multi_thread")]
async fn a_read_that_wants_approvals_is_in_no_task() {
    let stand = Stand::with_policy(&format!(
        "{ALL}\n@id(\"asked\") @approvals(\"2\") permit(principal, action == Action::\"read_file\", resource);"
    ))
    .await;
    assert_eq!(stand.reads, ["check_health", "tail_log"]);
    let payload = stand.payload(
        "read_file",
        json!({"path": "/var/log/syslog", "offset": 0, "limit": 100}),
    );
    let credential = stand.ask_holding(2, &payload).await.unwrap();
    assert_eq!(demanded(&credential.certificate), Some(2));
    assert_eq!(credential.policies, ["all", "asked"]);
    stand.stop().await;
}

/// REQ-POLICY-1
#[tokio::test(flavor = "multi_thread")]
async fn counts_end_a_task_that_asks_too_often_also_after_a_restart() {
    let stand = Stand::with_policy(&format!(
        "{ALL}\n@id(\"two-each\") forbid(principal, action == Action::\"count\", resource) when {{ context.counts.task_requests >= 2 }};"
    ))
    .await;
    stand.ask(&stand.count()).await.unwrap();
    let stand = stand.again(|_| {}).await;
    stand.ask(&stand.count()).await.unwrap();
    let denied = |stand: &Stand| stand.asking(bytes(&stand.count()));
    let record = stand
        .running
        .refuses_authorize(&denied(&stand), Code::PolicyDenied)
        .await;
    assert_eq!(record.draft.policy.as_deref(), Some(&["two-each".to_owned()][..]));
    let stand = stand.again(|_| {}).await;
    stand
        .running
        .refuses_authorize(&denied(&stand), Code::PolicyDenied)
        .await;
    let authorized = stand
        .running
        .events()
        .into_iter()
        .filter(|event| *event == Event::Authorize);
    assert_eq!(authorized.count(), 2);
    stand.stop().await;
}

/// REQ-POLICY-1
#[tokio::test(flavor = "multi_thread")]
async fn targets_age_time_and_weekday_are_judged_at_each_renewal() {
    for (condition, seconds) in [
        ("context.task_age_s > 3600", 3601),
        (
            "context.time.durationSince(datetime(\"2020-01-01\")) > duration(\"0ms\") && context.task_age_s > 60",
            61,
        ),
        ("context.counts.task_targets > 1", 0),
        ("context.counts.person_targets > 1", 0),
    ] {
        let room = Room::with_policy(&format!(
            "@id(\"all\") permit(principal, action, resource); @id(\"over\") forbid(principal, action, resource) when {{ {condition} }};"
        ));
        let running = room.serve().await;
        let call = open(1);
        running.open(&call).await.unwrap();
        running.renew(&renewal(&call)).await.unwrap();
        if seconds == 0 {
            let mut second = call.clone();
            second.target = "web-2".into();
            second.public_key = key(2).public().to_openssh();
            running.open(&second).await.unwrap();
        }
        room.ahead.store(seconds, Ordering::SeqCst);
        let record = running.refuses_renewal(&renewal(&call), Code::PolicyDenied).await;
        assert_eq!(
            record.draft.policy.as_deref(),
            Some(&["over".to_owned()][..]),
            "{condition}"
        );
        running.stop().await;
    }
}

/// REQ-POLICY-1
#[tokio::test(flavor = "multi_thread")]
async fn showing_and_doing_are_told_apart() {
    let only_shown = "@id(\"reads\") permit(principal, action == Action::\"tail_log\", resource);
        @id(\"shown\") permit(principal, action == Action::\"drop_table\", resource) when { context.mode == \"dry_run\" };";
    let stand = Stand::with_policy(only_shown).await;
    let mut payload = stand.payload("drop_table", json!({"table": "carts"}));
    stand.refuses(&payload, Code::PolicyDenied).await;
    payload.mode = Mode::DryRun;
    let credential = stand.ask(&payload).await.unwrap();
    assert_eq!(credential.policies, ["shown"]);
    stand.stop().await;
}
