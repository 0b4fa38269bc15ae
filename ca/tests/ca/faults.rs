//! Where the log cannot be written nothing is signed, the CA lives on, and recovers when there is space again.

use std::fs;
use std::process::Command;

use audit::Event;
use grpc::v1;
use serde_json::json;
use wire::Code;
use wire::ids::Fingerprint;

use crate::binary::{Site, as_ordinary_user};
use crate::room::{code_of, connect, key, open, records, renewal};
use crate::stand::{bytes, payload};

/// Limits how long files of that process may get; none lifts it again.
fn limit(pid: u32, bytes: Option<u64>) {
    let soft = bytes.map_or("unlimited".to_owned(), |bytes| bytes.to_string());
    let done = Command::new("prlimit")
        .arg("--pid")
        .arg(pid.to_string())
        .arg(format!("--fsize={soft}:"))
        .status();
    assert!(done.unwrap().success());
}

fn issued(site: &Site) -> usize {
    records(&site.log())
        .iter()
        .filter(|record| matches!(record.draft.event, Event::Issue | Event::Renew | Event::Authorize))
        .count()
}

/// REQ-CARPC-10, REQ-CARPC-18, REQ-CERT-17, REQ-RECORD-5
#[tokio::test(flavor = "multi_thread")]
async fn given_no_log_space_then_nothing_is_signed_and_it_recovers_without_a_restart() {
    if !as_ordinary_user("faults::given_no_log_space_then_nothing_is_signed_and_it_recovers_without_a_restart") {
        return;
    }
    let site = Site::new();
    site.fine(&["init"], "");
    site.enroll_web_1();
    let mut child = site.serve();
    let mut client = connect(&site.socket()).await;
    let call = open(1);
    client.open_task(call.clone()).await.unwrap();
    let mut granted = 1;
    let manifest = fs::read(site.dir.path().join("actions.d/tail_log.toml")).unwrap();
    let mut tail = payload(
        &call,
        "tail_log",
        &manifest,
        json!({"path": "/var/log/syslog", "lines": 1}),
    );
    tail.target_key = Fingerprint::of(key(12).public());
    let request = v1::AuthorizeActionRequest {
        payload: bytes(&tail),
        public_key: call.public_key.clone(),
        approvals_held: 0,
    };
    // The write fails whole, then within a record, at several places; then not a byte more fits anywhere.
    for room in [0, 1, 100, 700] {
        let newest = fs::read_dir(site.log())
            .unwrap()
            .map(|e| e.unwrap().path())
            .max()
            .unwrap();
        limit(child.id(), Some(fs::metadata(newest).unwrap().len() + room));
        let refusal = client.open_task(open(1)).await.unwrap_err();
        assert_eq!(code_of(&refusal), Code::LogUnavailable, "{room}");
        limit(child.id(), Some(0));
        let refusal = client.renew_task(renewal(&call)).await.unwrap_err();
        assert_eq!(code_of(&refusal), Code::LogUnavailable, "{room}");
        let refusal = client.authorize_action(request.clone()).await.unwrap_err();
        assert_eq!(code_of(&refusal), Code::LogUnavailable, "{room}");
        // A refusal that cannot be recorded says so, and not what it would have said.
        let mut unmapped = open(1);
        unmapped.person = "mallory".into();
        let refusal = client.open_task(unmapped).await.unwrap_err();
        assert_eq!(code_of(&refusal), Code::LogUnavailable, "{room}");
        limit(child.id(), None);
        client.renew_task(renewal(&call)).await.unwrap();
        client.authorize_action(request.clone()).await.unwrap();
        granted += 2;
        assert_eq!(issued(&site), granted, "{room}: one certificate, one record");
    }
    assert!(child.is_alive(), "it lives on");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_folder_that_is_gone_refuses_and_what_is_broken_is_not_started_on() {
    if !as_ordinary_user("faults::a_log_folder_that_is_gone_refuses_and_what_is_broken_is_not_started_on") {
        return;
    }
    let site = Site::new();
    site.fine(&["init"], "");
    let segment = fs::read_dir(site.log()).unwrap().next().unwrap().unwrap().path();
    let whole = fs::read(&segment).unwrap();
    // Somebody edits a record of the past: the log is the truth, and this is not one.
    let edited = String::from_utf8(whole.clone())
        .unwrap()
        .replacen("\"init\"", "\"xnit\"", 1);
    fs::write(&segment, edited).unwrap();
    assert!(site.refused(&["check-config"], "").contains("line 2"));
    fs::write(&segment, whole).unwrap();
    site.fine(&["check-config"], "");
    fs::rename(site.log(), site.dir.path().join("elsewhere")).unwrap();
    assert!(site.refused(&["check-config"], "").contains("log: No such file"));
}
