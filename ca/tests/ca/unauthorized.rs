//! Every way to ask for a request that is not the task's, not the catalogue's or not policy's: the Code, one record that
//! names the request, nothing signed.

use std::sync::atomic::Ordering;

use audit::{Event, Record};
use serde_json::{Value, json};
use wire::{Code, Mode, Payload, limits};

use crate::room::{file, key, open, policies_of, target};
use crate::stand::{ALL, COUNT, Stand, bytes};

/// REQ-CARPC-14, REQ-JSON-4
#[tokio::test(flavor = "multi_thread")]
async fn bytes_that_are_no_payload_are_refused_and_named_by_their_hash() {
    let stand = Stand::new().await;
    let good = String::from_utf8(bytes(&stand.count())).unwrap();
    let swap = |from: &str, to: &str| {
        assert!(good.contains(from), "{from}");
        good.replacen(from, to, 1).into_bytes()
    };
    let deep = format!("{}1{}", "[".repeat(20), "]".repeat(20));
    let mut bad_utf8 = good.clone().into_bytes();
    let at = good.find("look at the log").unwrap();
    bad_utf8[at] = 0xff;
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("nothing", Vec::new()),
        ("json_dup_key", swap("\"v\":1", "\"v\":1,\"v\":1")),
        ("json_dup_key in arguments", swap("\"by\":1", "\"by\":1,\"by\":9")),
        ("json_unknown_field", swap("\"v\":1", "\"v\":1,\"admin\":true")),
        (
            "json_unknown_field, long",
            swap("\"v\":1", &format!("\"v\":1,\"{}\":1", "k".repeat(60_000))),
        ),
        ("json_deep", swap("\"by\":1", &format!("\"by\":{deep}"))),
        ("json_big_int", swap("\"by\":1", "\"by\":9007199254740993")),
        ("a fraction", swap("\"by\":1", "\"by\":1.0")),
        ("null", swap("\"by\":1", "\"by\":null")),
        ("json_trailing", [good.as_bytes(), b"{}"].concat()),
        ("json_bad_utf8", bad_utf8),
        ("a NUL", swap("look at the log", "look\\u0000")),
        (
            "two principals",
            swap("\"target\":\"web-1\"", "\"target\":\"web-1,root\""),
        ),
        (
            "an action's principal",
            swap("\"target\":\"web-1\"", "\"target\":\"action/web-1\""),
        ),
        (
            "an array for an object",
            swap(
                "{\"brain\":\"claude\",\"person\":\"alice\",\"proof\":\"relay\"}",
                "[\"claude\",\"alice\",\"relay\"]",
            ),
        ),
        (
            "a digest",
            b"239f59ed55e737c77147cf55ad0c1b030b6d7ee748a7426952f9b852d5a935e5".to_vec(),
        ),
        ("too long", vec![b' '; limits::PAYLOAD + 1]),
    ];
    for (name, sent) in &table {
        let record = stand.refuses_bytes(sent.clone(), Code::PayloadMalformed).await;
        assert_eq!((record.draft.task_id, record.draft.request_id), (None, None), "{name}");
    }
    stand
        .refuses_bytes(swap("\"v\":1", "\"v\":2"), Code::VersionUnsupported)
        .await;
    println!("{0} attacks, {0} refused", table.len() + 1);
    stand.ask(&stand.count()).await.unwrap();
    stand.stop().await;
}

/// REQ-CARPC-2
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_is_too_long_or_has_no_key_is_refused() {
    let stand = Stand::new().await;
    let payload = stand.count();
    for other in ["", "rm -rf /", &format!("{} comment", stand.call.public_key)] {
        let mut call = stand.asking(bytes(&payload));
        call.public_key = other.into();
        let record = stand.running.refuses_authorize(&call, Code::ArgumentsInvalid).await;
        assert_eq!(record.draft.request_id, Some(payload.request_id.clone()));
    }
    let call = stand.asking(vec![b' '; limits::PAYLOAD + 8 * 1024]);
    stand.running.refuses_authorize(&call, Code::MessageTooLong).await;
    stand.stop().await;
}

type Change = fn(&mut Payload);

/// Refuses what each change makes of a request that would be granted.
async fn refuses_each(stand: &Stand, table: &[(Code, Change)]) -> Vec<Record> {
    let mut records = Vec::new();
    for (code, change) in table {
        let mut payload = stand.count();
        change(&mut payload);
        records.push(stand.refuses(&payload, *code).await);
    }
    println!("{0} attacks, {0} refused", table.len());
    stand.ask(&stand.count()).await.unwrap();
    records
}

/// REQ-CARPC-15
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_its_tasks_is_refused() {
    let stand = Stand::new().await;
    let table: [(Code, Change); 11] = [
        (Code::UnknownTask, |p| p.task_id = open(1).task_id.parse().unwrap()),
        (Code::UnknownTask, |p| p.target = "web-2".parse().unwrap()),
        (Code::UnknownTask, |p| p.target = "db-1".parse().unwrap()),
        (Code::RequesterMismatch, |p| p.requester.person = "bob".parse().unwrap()),
        (Code::RequesterMismatch, |p| {
            p.requester.person = "mallory".parse().unwrap()
        }),
        (Code::RequesterMismatch, |p| {
            p.requester.brain = "another".parse().unwrap()
        }),
        (Code::RequesterMismatch, |p| p.requester.proof = wire::Proof::Signature),
        (Code::TaskMismatch, |p| p.reason = "something else".parse().unwrap()),
        (Code::WrongTarget, |p| {
            p.target_key = wire::ids::Fingerprint::of(key(102).public())
        }),
        (Code::ExpiresTooFar, |p| p.expires += limits::SKEW_S + 5),
        (Code::RequestExpired, |p| {
            p.expires -= limits::REQUEST_MAX_S + limits::SKEW_S + 5
        }),
    ];
    refuses_each(&stand, &table).await;
    stand.stop().await;
}

/// REQ-CARPC-15
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_not_the_tasks_is_refused_also_after_it_was_replaced() {
    let stand = Stand::new().await;
    let payload = stand.count();
    let mut call = stand.asking(bytes(&payload));
    call.public_key = key(2).public().to_openssh();
    stand.running.refuses_authorize(&call, Code::KeyMismatch).await;
    let mut replacing = stand.call.clone();
    replacing.public_key = call.public_key.clone();
    stand.running.open(&replacing).await.unwrap();
    stand.refuses(&payload, Code::KeyMismatch).await;
    stand.running.authorize(&call).await.unwrap();
    stand.stop().await;
}

/// REQ-CARPC-15, REQ-CARPC-6
#[tokio::test(flavor = "multi_thread")]
async fn an_ended_task_and_time_that_went_on_are_refused() {
    let stand = Stand::new().await;
    let mut payload = stand.count();
    stand
        .room
        .ahead
        .store(limits::REQUEST_MAX_S + limits::SKEW_S - 5, Ordering::SeqCst);
    stand.ask(&payload).await.unwrap();
    let stand = stand
        .again(|room| {
            room.ahead
                .store(limits::REQUEST_MAX_S + limits::SKEW_S + 1, Ordering::SeqCst)
        })
        .await;
    stand
        .running
        .refuses_authorize(&stand.asking(bytes(&payload)), Code::RequestExpired)
        .await;
    stand.room.ahead.store(limits::TASK_MAX_S + 1, Ordering::SeqCst);
    payload.expires += limits::TASK_MAX_S;
    stand
        .running
        .refuses_authorize(&stand.asking(bytes(&payload)), Code::TaskEnded)
        .await;
    stand.stop().await;
}

/// REQ-CARPC-16
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_not_what_the_catalogue_says_is_refused() {
    let stand = Stand::new().await;
    fn with(payload: &mut Payload, args: Value) {
        payload.args = args.as_object().unwrap().clone();
    }
    let table: [(Code, Change); 10] = [
        (Code::UnknownAction, |p| p.action = "rm_rf".parse().unwrap()),
        (Code::ManifestChanged, |p| p.manifest = wire::ids::Digest::zero()),
        // The manifest of one action does not stand for another.
        (Code::ManifestChanged, |p| p.action = "drop_table".parse().unwrap()),
        (Code::ModeUnsupported, |p| p.mode = Mode::DryRun),
        (Code::ArgumentsInvalid, |p| with(p, json!({}))),
        (Code::ArgumentsInvalid, |p| {
            with(p, json!({"counter": "three", "by": 1}))
        }),
        (Code::ArgumentsInvalid, |p| with(p, json!({"counter": "one", "by": 10}))),
        (Code::ArgumentsInvalid, |p| {
            with(p, json!({"counter": "one", "by": "1"}))
        }),
        (Code::ArgumentsInvalid, |p| {
            with(p, json!({"counter": "one", "by": 1, "as": "root"}))
        }),
        // A default is sent, not left to whoever runs it.
        (Code::ArgumentsInvalid, |p| with(p, json!({"counter": "one"}))),
    ];
    let records = refuses_each(&stand, &table).await;
    assert!(records[9].draft.message.as_ref().unwrap().contains("by: is left out"));
    let many: serde_json::Map<String, Value> = (0..1000).map(|n| (format!("x{n}"), json!(1))).collect();
    let mut payload = stand.count();
    payload.args = many;
    let call = stand.asking(bytes(&payload));
    let record = stand.running.refuses_authorize(&call, Code::ArgumentsInvalid).await;
    assert!(record.draft.message.unwrap().len() <= limits::MESSAGE);
    stand.stop().await;
}

/// REQ-CARPC-16
#[tokio::test(flavor = "multi_thread")]
async fn manifest_changed() {
    let stand = Stand::new().await;
    let known = stand.count();
    let stand = stand
        .again(|room| {
            file(
                &room.config.catalogue_dir.join("count.toml"),
                &COUNT.replace("maximum = 9", "maximum = 90"),
            )
        })
        .await;
    stand.refuses(&known, Code::ManifestChanged).await;
    stand.ask(&stand.count()).await.unwrap();
    stand.stop().await;
}

/// REQ-CARPC-15, REQ-CARPC-3
#[tokio::test(flavor = "multi_thread")]
async fn what_the_ca_was_told_since_the_task_was_opened_counts() {
    let names = |names: &[&str]| names.iter().map(|name| name.parse().unwrap()).collect();
    let stand = Stand::new().await;
    let stand = stand
        .again(|room| room.config.relays[0].persons = ["carol".parse().unwrap()].into())
        .await;
    stand.refuses(&stand.count(), Code::PersonUnmapped).await;
    let stand = stand
        .again(|room| room.config.relays[1].persons = ["alice".parse().unwrap()].into())
        .await;
    stand.refuses(&stand.count(), Code::PersonNotOfThisRelay).await;
    let stand = stand
        .again(|room| {
            room.config.relays[0].persons = ["alice".parse().unwrap()].into();
            room.config.relays[0].targets = ca::config::Targets::Only(names(&["web-2"]));
        })
        .await;
    stand.refuses(&stand.count(), Code::TargetNotOfThisRelay).await;
    let stand = stand
        .again(|room| room.config.relays[0].targets = ca::config::Targets::All)
        .await;
    // The inventory is read again without a restart: another host has the name now, then none.
    file(&stand.room.config.inventory, &target("web-1", 109, &[]).stanza());
    stand.refuses(&stand.count(), Code::WrongTarget).await;
    file(&stand.room.config.inventory, "");
    stand.refuses(&stand.count(), Code::UnknownTarget).await;
    stand.stop().await;
}

/// REQ-CARPC-17
#[tokio::test(flavor = "multi_thread")]
async fn policy_empty_denies_requests_too() {
    let stand = Stand::new().await.again(|room| file(&room.config.policy, "")).await;
    let record = stand.refuses(&stand.count(), Code::PolicyDenied).await;
    assert_eq!(record.draft.policy, None);
    let tail = stand.payload("tail_log", json!({"path": "/var/log/syslog", "lines": 1}));
    stand.refuses(&tail, Code::PolicyDenied).await;
    stand.stop().await;
}

/// REQ-CARPC-9, REQ-CARPC-17
#[tokio::test(flavor = "multi_thread")]
async fn policy_error_refuses_requests_too() {
    // Cedar by itself would skip the failing forbid and permit.
    let failing = "@id(\"sum\") forbid(principal, action == Action::\"count\", resource) when { (context.args.by + 1) * 9223372036854775807 == 1 };";
    let stand = Stand::with_policy(&format!("{ALL}\n{failing}")).await;
    let record = stand.refuses(&stand.count(), Code::PolicyError).await;
    assert_eq!(record.draft.policy.as_deref(), Some(&["sum".to_owned()][..]));
    let status = stand.ask(&stand.count()).await.unwrap_err();
    assert!(status.message().contains("evaluate sum"), "{}", status.message());
    stand.stop().await;
}

/// REQ-CARPC-17, REQ-CARPC-11
#[tokio::test(flavor = "multi_thread")]
async fn policy_forbids_by_risk_by_action_and_by_argument_and_is_named() {
    for (id, scope, when) in [
        ("no-change", "action", "context.risk == \"change\""),
        ("no-count", "action == Action::\"count\"", "true"),
        (
            "no-one",
            "action == Action::\"count\"",
            "context.args.counter == \"one\" && context.args.by >= 1",
        ),
        (
            "not-here",
            "action == Action::\"count\"",
            "resource.labels has env && resource.labels.env == \"demo\"",
        ),
    ] {
        let forbid = format!("@id(\"{id}\") forbid(principal, {scope}, resource) when {{ {when} }};");
        let stand = Stand::with_policy(&format!("{ALL}\n{forbid}")).await;
        let payload = stand.count();
        let record = stand.refuses(&payload, Code::PolicyDenied).await;
        assert_eq!(record.draft.policy.as_deref(), Some(&[id.to_owned()][..]));
        let status = stand.ask(&payload).await.unwrap_err();
        assert!(
            status.message().contains(id) && status.message().contains("allows count"),
            "{}",
            status.message()
        );
        assert_eq!(policies_of(&status), [id]);
        stand.stop().await;
    }
    // And a policy that speaks of no change permits none.
    let reads = "permit(principal, action, resource) when { context.risk == \"read\" };";
    let stand = Stand::with_policy(reads).await;
    stand.refuses(&stand.count(), Code::PolicyDenied).await;
    assert!(!stand.running.events().contains(&Event::Authorize));
    stand.stop().await;
}
