//! Another policy without a restart: what comes into force, what does not, and what the log says of both.

use std::collections::BTreeMap;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use audit::{Decision, Event, Record};
use ca::start;
use grpc::v1;
use wire::ids::Digest;
use wire::{Code, Grant};

use crate::minted::grant_of;
use crate::room::{Room, Running, SHIPPED_POLICY, file, now, open, renewal, target};

/// As administrators are told to do it.
fn put(path: &Path, text: &str) {
    let beside = path.with_extension("new");
    file(&beside, text);
    fs::rename(beside, path).unwrap();
}

async fn described(running: &Running) -> v1::DescribeReply {
    let reply = running.client.clone().describe(v1::DescribeRequest {}).await;
    reply.unwrap().into_inner()
}

/// Asks until the CA says so.
async fn until(running: &Running, what: &str, wanted: impl Fn(&v1::DescribeReply) -> bool) -> v1::DescribeReply {
    let began = Instant::now();
    loop {
        let said = described(running).await;
        if wanted(&said) {
            return said;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{what}: {said:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn changes(running: &Running) -> Vec<Record> {
    let records = running.records().into_iter();
    records.filter(|record| record.draft.event == Event::Policy).collect()
}

const NO_ALICE: &str = "@id(\"all\") permit(principal, action, resource);
    @id(\"no-alice\") forbid(principal == Person::\"alice\", action, resource);";

/// REQ-POLICY-6
#[tokio::test(flavor = "multi_thread")]
async fn a_new_policy_comes_into_force_without_a_restart_and_is_recorded_before() {
    let room = Room::new();
    let running = room.serve().await;
    let call = open(1);
    running.open(&call).await.unwrap();
    put(&room.config.policy, NO_ALICE);
    let (old, new) = (Digest::of(SHIPPED_POLICY.as_bytes()), Digest::of(NO_ALICE.as_bytes()));
    let said = until(&running, "the new one", |said| said.policy == new.as_str()).await;
    assert_eq!(said.policy_fault, "");
    // Also what is open: each renewal is judged by the policy of the day.
    let record = running.refuses_renewal(&renewal(&call), Code::PolicyDenied).await;
    assert_eq!(record.draft.policy.as_deref(), Some(&["no-alice".to_owned()][..]));
    running.refuses_open(&open(2), Code::PolicyDenied).await;
    put(&room.config.policy, SHIPPED_POLICY);
    until(&running, "the old one again", |said| said.policy == old.as_str()).await;
    let credential = running.renew(&renewal(&call)).await.unwrap();
    assert_eq!(credential.policy, old.as_str());

    let changes = changes(&running);
    let messages: Vec<_> = changes
        .iter()
        .map(|record| record.draft.message.clone().unwrap())
        .collect();
    assert_eq!(
        messages,
        [
            format!("policy {new} comes into force after {old}"),
            format!("policy {old} comes into force after {new}"),
        ]
    );
    assert!(
        changes
            .iter()
            .all(|record| record.draft.decision == Some(Decision::Allow))
    );
    running.stop().await;
}

/// REQ-POLICY-6
#[tokio::test(flavor = "multi_thread")]
async fn a_broken_new_policy_leaves_the_old_one_in_force_loudly() {
    let room = Room::new();
    let running = room.serve().await;
    let old = Digest::of(SHIPPED_POLICY.as_bytes());
    let path = &room.config.policy;
    type Break = fn(&Path);
    let table: [(&str, Break, &str); 7] = [
        ("no Cedar", |path| put(path, "permit(principal, action"), "line 1"),
        (
            "an unknown action",
            |path| {
                put(
                    path,
                    "@id(\"a\") permit(principal, action == Action::\"rm_rf\", resource);",
                )
            },
            "policy a: unrecognized action",
        ),
        (
            "an unknown label",
            |path| {
                put(
                    path,
                    "@id(\"b\") forbid(principal, action, resource) when { resource.labels has enw };",
                )
            },
            "enw",
        ),
        (
            "a mistyped annotation",
            |path| put(path, "@approval(\"2\") permit(principal, action, resource);"),
            "@approval",
        ),
        (
            "a file that others may write",
            |path| {
                put(path, "permit(principal, action, resource);");
                fs::set_permissions(path, Permissions::from_mode(0o666)).unwrap();
            },
            "chmod go-w",
        ),
        ("no file", |path| fs::remove_file(path).unwrap(), "No such file"),
        ("a folder", |path| fs::create_dir(path).unwrap(), "not a file"),
    ];
    for (n, (name, breaking, part)) in table.iter().enumerate() {
        breaking(path);
        let said = until(&running, name, |said| said.policy_fault.contains(part)).await;
        assert_eq!(said.policy, old.as_str(), "{name}");
        let credential = running.open(&open(1)).await.unwrap();
        assert_eq!(credential.policy, old.as_str(), "{name}");
        let changes = changes(&running);
        assert_eq!(changes.len(), n + 1, "{name}: one record, however long it stays so");
        let draft = &changes[n].draft;
        assert_eq!(
            (draft.decision, draft.code),
            (Some(Decision::Deny), Some(Code::ConfigInvalid))
        );
        let message = draft.message.as_ref().unwrap();
        assert!(
            message.starts_with(&format!("policy {old} stays in force: ")),
            "{message}"
        );
        assert!(message.contains(part), "{name}: {message}");
    }
    println!("{0} attacks, {0} refused", table.len());
    fs::remove_dir(path).unwrap();
    put(path, SHIPPED_POLICY);
    until(&running, "mended", |said| said.policy_fault.is_empty()).await;
    assert_eq!(changes(&running).len(), table.len() + 1);
    running.stop().await;
}

/// REQ-POLICY-6
#[tokio::test(flavor = "multi_thread")]
async fn no_certificate_is_judged_by_one_policy_and_recorded_under_another() {
    let text = |id: &str| format!("@id(\"{id}\") permit(principal, action, resource);");
    let room = Room::with_policy(&text("p0"));
    let running = room.serve().await;
    let done = Arc::new(AtomicBool::new(false));
    let callers: Vec<_> = (0..4)
        .map(|_| {
            let (mut client, done) = (running.client.clone(), Arc::clone(&done));
            tokio::spawn(async move {
                let (mut grants, call) = (Vec::new(), open(1));
                // One task again and again: a relay may have so many, and this is fast.
                while !done.load(Ordering::SeqCst) {
                    let credential = client.open_task(call.clone()).await.unwrap().into_inner();
                    grants.push(Grant::parse(grant_of(&credential.certificate, "web-1").as_bytes()).unwrap());
                }
                grants
            })
        })
        .collect();
    let mut ids = BTreeMap::from([(Digest::of(text("p0").as_bytes()), "p0".to_owned())]);
    for n in 1..=4 {
        let id = format!("p{n}");
        put(&room.config.policy, &text(&id));
        let digest = Digest::of(text(&id).as_bytes());
        until(&running, &id, |said| said.policy == digest.as_str()).await;
        ids.insert(digest, id);
    }
    done.store(true, Ordering::SeqCst);
    let mut grants = Vec::new();
    for caller in callers {
        grants.extend(caller.await.unwrap());
    }
    let records: BTreeMap<u64, Record> = running.records().into_iter().map(|r| (r.envelope.seq, r)).collect();
    for grant in &grants {
        let record = &records[&grant.witness.ca.seq];
        assert_eq!(record.draft.policy.as_deref(), Some(&[ids[&grant.policy].clone()][..]));
    }
    // And what the log says between two changes is one policy's.
    let mut in_force = "p0".to_owned();
    let mut seen = 0;
    for record in records.values() {
        match record.draft.event {
            Event::Policy => {
                let message = record.draft.message.as_ref().unwrap();
                let digest: Digest = message.split(' ').nth(1).unwrap().parse().unwrap();
                in_force.clone_from(&ids[&digest]);
                seen += 1;
            }
            Event::Issue => assert_eq!(record.draft.policy.as_deref(), Some(&[in_force.clone()][..])),
            _ => {}
        }
    }
    assert_eq!(seen, 4);
    println!("{} certificates, {seen} changes of policy", grants.len());
    assert!(grants.len() > 20);
    running.stop().await;
}

/// REQ-POLICY-3
#[tokio::test(flavor = "multi_thread")]
async fn labels_that_go_change_decisions_and_never_break_the_policy_in_force() {
    let text = "@id(\"demo\") permit(principal, action, resource) when { resource.labels has env && resource.labels.env == \"demo\" };";
    let mut room = Room::with_policy(text);
    let running = room.serve().await;
    running.open(&open(1)).await.unwrap();
    let labelled = fs::read_to_string(&room.config.inventory).unwrap();
    put(&room.config.inventory, &target("web-1", 101, &[]).stanza());
    // The next call sees the new labels; the policy is as it was, and says no.
    let record = running.refuses_open(&open(2), Code::PolicyDenied).await;
    assert_eq!(record.draft.policy, None);
    let said = until(&running, "told", |said| said.policy_fault.contains("env")).await;
    assert_eq!(said.policy, Digest::of(text.as_bytes()).as_str());
    assert_eq!(changes(&running).len(), 1);
    running.stop().await;
    // A start would refuse it, since a label that is mistyped looks the same, unless it is declared.
    let load = |room: &Room| start::load(room.config.clone(), Box::new(now)).map(drop);
    let faults = load(&room).unwrap_err();
    assert!(faults[0].contains("declare it: labels"), "{faults:?}");
    room.config.labels = ["env".parse().unwrap()].into();
    load(&room).unwrap();
    room.config.labels.clear();
    put(&room.config.inventory, &labelled);
    load(&room).unwrap();
}

/// REQ-POLICY-3
#[tokio::test(flavor = "multi_thread")]
async fn a_label_that_comes_lets_a_policy_in_that_was_refused() {
    let room = Room::new();
    let running = room.serve().await;
    let text = "@id(\"tier\") permit(principal, action, resource) when { resource.labels has tier && resource.labels.tier == \"1\" };";
    put(&room.config.policy, text);
    until(&running, "refused", |said| said.policy_fault.contains("tier")).await;
    put(&room.config.inventory, &target("web-1", 101, &[("tier", "1")]).stanza());
    until(&running, "in force", |said| {
        said.policy == Digest::of(text.as_bytes()).as_str()
    })
    .await;
    assert_eq!(described(&running).await.policy_fault, "");
    running.open(&open(1)).await.unwrap();
    running.stop().await;
}
