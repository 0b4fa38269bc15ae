//! Requests that people have to approve: no certificate before that, one record that says so, and more time for those alone.

use audit::{ApprovalState, Decision, Event};
use serde_json::json;
use wire::{Code, Mode, Payload, limits};

use crate::room::now;
use crate::stand::{ALL, Stand, bytes};

/// Two people have to approve it.
fn drop_table(stand: &Stand) -> Payload {
    stand.payload("drop_table", json!({"table": "carts"}))
}

/// REQ-CARPC-30, REQ-CARPC-31
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_lacks_approvals_is_judged_and_recorded_and_nothing_is_signed() {
    let stand = Stand::new().await;
    let payload = drop_table(&stand);
    for held in [0, 1] {
        let before = stand.running.records().len();
        let answer = stand.ask_holding(held, &payload).await.unwrap();
        assert_eq!((answer.certificate.as_str(), answer.approvals), ("", 2));
        assert_eq!((answer.valid_after, answer.valid_before), (0, 0));
        assert_eq!(answer.policies, ["all"]);
        let records = stand.running.records();
        assert_eq!(records.len(), before + 1);
        let draft = records.last().unwrap().draft.clone();
        let approval = draft.approval.unwrap();
        assert_eq!((draft.event, draft.decision), (Event::Judge, Some(Decision::Allow)));
        assert_eq!(
            (approval.state, approval.needed, u32::from(approval.held)),
            (ApprovalState::Waiting, 2, held)
        );
        assert_eq!(draft.request_id, Some(payload.request_id.clone()));
        assert_eq!(draft.request_sha256, Some(wire::ids::Digest::of(&bytes(&payload))));
        assert!(draft.cert.is_none());
    }
    assert!(!stand.running.events().contains(&Event::Authorize));
    for held in [2, 8] {
        let credential = stand.ask_holding(held, &payload).await.unwrap();
        assert!(!credential.certificate.is_empty());
        assert_eq!(stand.running.events().last(), Some(&Event::Authorize));
    }
    stand.stop().await;
}

/// REQ-CARPC-31: what policy denies nobody is asked to approve.
#[tokio::test(flavor = "multi_thread")]
async fn what_policy_denies_is_denied_whatever_the_relay_says_it_holds() {
    let stand = Stand::with_policy(&format!(
        "{ALL}\n@id(\"no\") forbid(principal, action == Action::\"drop_table\", resource);"
    ))
    .await;
    let payload = drop_table(&stand);
    stand.refuses(&payload, Code::PolicyDenied).await;
    stand.ask_holding(8, &payload).await.unwrap_err();
    let mut call = stand.asking(bytes(&payload));
    call.approvals_held = 9;
    stand.running.refuses_authorize(&call, Code::ArgumentsInvalid).await;
    assert!(!stand.running.events().contains(&Event::Judge));
    stand.stop().await;
}

/// REQ-CARPC-15
#[tokio::test(flavor = "multi_thread")]
async fn a_request_is_good_for_longer_where_people_are_waited_for_and_nowhere_else() {
    const WINDOW: u64 = 600;
    let by_policy = "permit(principal, action == Action::\"tail_log\", resource);
        @id(\"asked\") @approvals(\"1\") permit(principal, action == Action::\"count\", resource);
        @id(\"drop\") permit(principal, action == Action::\"drop_table\", resource);";
    let stand = Stand::with_policy(by_policy).await;
    let dry = |stand: &Stand| Payload {
        mode: Mode::DryRun,
        ..drop_table(stand)
    };
    let until = |payload: Payload, ahead_s: u64| Payload {
        expires: now() + ahead_s,
        ..payload
    };
    let skew = limits::SKEW_S;
    let default = limits::APPROVAL_WINDOW_DEFAULT_S;
    for (payload, longest) in [
        (drop_table(&stand), WINDOW),
        (stand.count(), default),
        (dry(&stand), limits::REQUEST_MAX_S),
    ] {
        stand.ask_holding(2, &until(payload.clone(), longest)).await.unwrap();
        stand.ask_holding(0, &until(payload.clone(), 5)).await.unwrap();
        let sent = bytes(&until(payload, longest + skew + 5));
        for held in [0, 2] {
            let mut call = stand.asking(sent.clone());
            call.approvals_held = held;
            stand.running.refuses_authorize(&call, Code::ExpiresTooFar).await;
        }
    }
    stand.stop().await;
}
