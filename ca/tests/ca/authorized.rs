//! What an action certificate says, asked of OpenSSH's own tool and of the check that targets make.

use std::sync::atomic::Ordering;

use audit::Event;
use grpc::v1;
use openssh::certificate::{self, Error};
use serde_json::json;
use wire::ids::{Digest, Fingerprint};
use wire::{FORCE_COMMAND, Grant, Kind, Mode, Risk, limits};

use crate::minted::{checked, keygen, shown_under};
use crate::room::{key, now};
use crate::stand::{Stand, bytes};

/// The grant, after the check that a target makes.
fn grant_of(credential: &v1::ActionCertificate) -> Grant {
    let longest_s = limits::ACTION_CERTIFICATE_MAX_S;
    let certificate = checked(&credential.certificate, "action/web-1", longest_s).unwrap();
    Grant::parse(certificate.grant().as_bytes()).unwrap()
}

/// REQ-CERT-21
#[tokio::test(flavor = "multi_thread")]
async fn ssh_keygen_shows_a_certificate_that_logs_in_nowhere() {
    let stand = Stand::new().await;
    let credential = stand.ask(&stand.count()).await.unwrap();
    let shown = keygen(stand.room.dir.path(), &credential.certificate);
    let has = |text: &str| shown.lines().any(|line| line.trim() == text);
    assert!(
        has("Type: ssh-ed25519-cert-v01@openssh.com user certificate"),
        "{shown}"
    );
    assert!(has(&format!("Key ID: \"{}\"", stand.call.task_id)), "{shown}");
    let key = key(1).public().fingerprint();
    assert!(
        has(&format!("Public key: ED25519-CERT {key}")),
        "the task's own key: {shown}"
    );
    assert_eq!(shown_under(&shown, "Principals:"), ["action/web-1"], "{shown}");
    assert_eq!(
        shown_under(&shown, "Critical Options:"),
        [
            &*format!("force-command {FORCE_COMMAND}"),
            "source-address 127.0.0.0/8,10.1.2.3/32"
        ],
        "{shown}"
    );
    assert!(!shown.contains("permit-"), "{shown}");
    // Where a task certificate is wanted it is none: no file that lists targets lists its principal.
    let logging_in = checked(&credential.certificate, "web-1", limits::TASK_CERTIFICATE_MAX_S);
    assert_eq!(logging_in.unwrap_err(), Error::Principals);
    stand.stop().await;
}

/// REQ-CARPC-18, REQ-CARPC-20, REQ-CERT-17, REQ-GRANT-2
#[tokio::test(flavor = "multi_thread")]
async fn the_grant_pins_the_request_and_names_the_record_that_is_older_than_it() {
    let stand = Stand::new().await;
    let payload = stand.count();
    let credential = stand.ask(&payload).await.unwrap();
    let grant = grant_of(&credential);
    assert_eq!(grant.kind, Kind::Action);
    assert_eq!((&grant.task_id, &grant.target), (&payload.task_id, &payload.target));
    assert_eq!(grant.actions, std::slice::from_ref(&payload.action));
    assert_eq!(grant.requester, payload.requester);
    assert_eq!(grant.request_sha256, Some(Digest::of(&bytes(&payload))));
    assert_eq!(grant.manifest, Some(payload.manifest.clone()));
    assert_eq!((grant.approvals, grant.krl), (Some(0), Some(0)));
    assert_eq!(grant.policy.as_str(), credential.policy);
    assert_eq!(credential.policies, ["all"]);

    let records = stand.running.records();
    let record = records.last().unwrap();
    assert_eq!(grant.witness.ca.seq, record.envelope.seq);
    let draft = &record.draft;
    assert_eq!(draft.event, Event::Authorize);
    assert_eq!(draft.task_id, Some(payload.task_id.clone()));
    assert_eq!(draft.request_id, Some(payload.request_id.clone()));
    assert_eq!(draft.request_sha256, grant.request_sha256);
    assert_eq!(draft.requester, Some(payload.requester.clone()));
    assert_eq!(draft.reason, Some(payload.reason.clone()));
    assert_eq!(
        (&draft.target, &draft.action),
        (&Some(payload.target), &Some(payload.action))
    );
    assert_eq!((draft.risk, draft.mode), (Some(Risk::Change), Some(Mode::Run)));
    assert_eq!(draft.manifest, Some(payload.manifest));
    assert_eq!(draft.policy.as_deref(), Some(&["all".to_owned()][..]));
    let witness = draft.witness.as_ref().unwrap();
    assert_eq!(witness.relay.as_ref(), Some(&payload.witness.relay));
    let cert = draft.cert.as_ref().unwrap();
    let read = certificate::read(&credential.certificate).unwrap();
    assert_eq!(cert.serial.as_str(), read.serial().to_string());
    assert_eq!(cert.key, Some(Fingerprint::of(key(1).public())));
    assert_eq!(cert.valid_before, Some(read.valid_before()));
    stand.stop().await;
}

/// REQ-CARPC-14
#[tokio::test(flavor = "multi_thread")]
async fn digest_not_of_the_payload() {
    // There is no digest to send. Two spellings of one request are two requests, each signed as the bytes that it was.
    let stand = Stand::new().await;
    let payload = stand.count();
    let plain = bytes(&payload);
    let spaced = serde_json::to_vec_pretty(&payload).unwrap();
    assert_ne!(plain, spaced);
    for sent in [plain, spaced] {
        let credential = stand.running.authorize(&stand.asking(sent.clone())).await.unwrap();
        assert_eq!(grant_of(&credential).request_sha256, Some(Digest::of(&sent)));
        let records = stand.running.records();
        assert_eq!(records.last().unwrap().draft.request_sha256, Some(Digest::of(&sent)));
    }
    stand.stop().await;
}

/// REQ-CERT-22
#[tokio::test(flavor = "multi_thread")]
async fn it_lives_no_longer_than_a_minute_its_request_and_its_task() {
    let stand = Stand::new().await;
    let life = |credential: &v1::ActionCertificate| (credential.valid_before - credential.valid_after) as u64;
    let (longest, skew) = (limits::ACTION_CERTIFICATE_MAX_S, limits::SKEW_S);
    let mut payload = stand.count();
    payload.expires = now() + limits::REQUEST_MAX_S;
    let credential = stand.ask(&payload).await.unwrap();
    assert_eq!(life(&credential), longest + skew);
    assert!(now().abs_diff(credential.valid_after as u64 + skew) <= 2, "back-dated");

    payload.expires = now() + 5;
    let credential = stand.ask(&payload).await.unwrap();
    assert_eq!(
        credential.valid_before as u64,
        payload.expires + skew,
        "the request's end"
    );

    stand.room.ahead.store(limits::TASK_MAX_S - 20, Ordering::SeqCst);
    payload.expires = now() + limits::TASK_MAX_S;
    let credential = stand.ask(&payload).await.unwrap();
    let opened = grant_of_late(&credential).opened;
    assert_eq!(
        credential.valid_before as u64,
        opened + limits::TASK_MAX_S,
        "the task's end"
    );
    stand.stop().await;
}

/// The grant, whatever the time.
fn grant_of_late(credential: &v1::ActionCertificate) -> Grant {
    let read = certificate::read(&credential.certificate).unwrap();
    let (_, text) = read.extensions().iter().next().unwrap();
    Grant::parse(text.as_bytes()).unwrap()
}

/// REQ-CARPC-19
#[tokio::test(flavor = "multi_thread")]
async fn the_grant_demands_the_approvals_of_the_manifest() {
    let stand = Stand::new().await;
    let mut payload = stand.payload("drop_table", json!({"table": "carts"}));
    let credential = stand.ask_holding(2, &payload).await.unwrap();
    assert_eq!((credential.approvals, grant_of(&credential).approvals), (2, Some(2)));
    let risk = |stand: &Stand| stand.running.records().last().unwrap().draft.risk;
    assert_eq!(risk(&stand), Some(Risk::Destroy));
    // Trying it out is another mode, with the risk that the manifest gives to that.
    payload.mode = Mode::DryRun;
    let credential = stand.ask(&payload).await.unwrap();
    assert_eq!(risk(&stand), Some(Risk::Read));
    // It is what people decide by, so nobody signs it.
    assert_eq!((credential.approvals, grant_of(&credential).approvals), (0, Some(0)));
    stand.stop().await;
}

/// REQ-CARPC-17, REQ-CARPC-8
#[tokio::test(flavor = "multi_thread")]
async fn policy_on_args_of_a_read_is_judged_by_the_arguments_of_each_request() {
    let stand = Stand::with_policy(
        "@id(\"all\") permit(principal, action, resource);
         @id(\"no-shadow\") forbid(principal, action == Action::\"tail_log\", resource) when { context has args && (context.args.path like \"/var/log/secret/*\" || context.args.lines > 100) };",
    )
    .await;
    assert_eq!(
        stand.reads,
        ["check_health", "read_file"],
        "the task's own certificate does not cover it"
    );
    let tail = |path: &str, lines: u32| stand.payload("tail_log", json!({"path": path, "lines": lines}));
    let credential = stand.ask(&tail("/var/log/syslog", 100)).await.unwrap();
    assert_eq!(grant_of(&credential).actions[0].as_str(), "tail_log");
    let before = stand.running.events().len();
    for (path, lines) in [("/var/log/secret/x", 1), ("/var/log/syslog", 101)] {
        let call = stand.asking(bytes(&tail(path, lines)));
        let record = stand.running.refuses_authorize(&call, wire::Code::PolicyDenied).await;
        assert_eq!(record.draft.policy.as_deref(), Some(&["no-shadow".to_owned()][..]));
    }
    assert_eq!(stand.running.events()[before..], [Event::Refused, Event::Refused]);
    stand.stop().await;
}

/// REQ-CARPC-21
#[tokio::test(flavor = "multi_thread")]
async fn a_lost_answer_is_asked_for_again_and_a_restart_changes_nothing() {
    let stand = Stand::new().await;
    let payload = stand.count();
    let first = stand.ask(&payload).await.unwrap();
    let second = stand.ask(&payload).await.unwrap();
    let stand = stand.again(|_| {}).await;
    let third = stand.ask(&payload).await.unwrap();
    let mut serials = std::collections::BTreeSet::new();
    for credential in [&first, &second, &third] {
        serials.insert(certificate::read(&credential.certificate).unwrap().serial());
        assert_eq!(grant_of(credential).request_sha256, grant_of(&first).request_sha256);
    }
    assert_eq!(serials.len(), 3);
    let events = stand.running.events();
    let authorized = events.iter().filter(|event| **event == Event::Authorize);
    assert_eq!(authorized.count(), 3, "each has its record");
    stand.stop().await;
}
