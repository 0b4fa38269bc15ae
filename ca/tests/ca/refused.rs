//! Every way to ask for too much: the Code, one record, nothing signed.

use audit::{Cert, Draft, Event, Log, Own, Tier, Who};
use ca::config::{Config, KnownBy};
use ca::issued::OPEN_MAX;
use grpc::v1;
use prost::Message;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use wire::ids::{Fingerprint, Serial};
use wire::{Code, Proof, Requester};

use crate::minted::grant_of;
use crate::room::{Room, Running, code_of, file, key, now, open, own_uid, policies_of, renewal};

/// REQ-CARPC-1
#[tokio::test(flavor = "multi_thread")]
async fn wrong_peer_on_ca_socket() {
    let mut room = Room::new();
    room.config.relays[0].known_by = KnownBy::Uid(own_uid() + 2);
    let running = room.serve().await;
    let call = open(1);
    for _ in 0..3 {
        let refusals = [
            running.open(&call).await.map(drop),
            running.renew(&renewal(&call)).await.map(drop),
            running
                .authorize(&v1::AuthorizeActionRequest::default())
                .await
                .map(drop),
            running.client.clone().describe(v1::DescribeRequest {}).await.map(drop),
        ];
        for refusal in refusals {
            assert_eq!(code_of(&refusal.unwrap_err()), Code::RelayUnknown);
        }
    }
    // Twelve strangers, and not twelve records: the first is told at once, the others with the next minute's.
    assert_eq!(running.events(), [Event::Genesis, Event::Start, Event::Strangers]);
    assert!(
        running.records()[2]
            .draft
            .message
            .as_ref()
            .unwrap()
            .contains(&format!("uid {}", own_uid()))
    );
    running.stop().await;
}

/// REQ-CARPC-8
#[tokio::test(flavor = "multi_thread")]
async fn policy_empty_denies() {
    let room = Room::with_policy("");
    let running = room.serve().await;
    running.refuses_open(&open(1), Code::PolicyDenied).await;
    let status = running.open(&open(1)).await.unwrap_err();
    assert!(policies_of(&status).is_empty(), "no policy decided");
    running.stop().await;
}

/// REQ-CARPC-12
#[tokio::test(flavor = "multi_thread")]
async fn of_many_policies_that_deny_the_refusal_names_the_first() {
    let forbid = |n| format!("@id(\"no-{n:060}\") forbid(principal, action, resource);\n");
    let policy: String = (0..100).map(forbid).collect();
    let room = Room::with_policy(&format!("permit(principal, action, resource);\n{policy}"));
    let running = room.serve().await;
    let record = running.refuses_open(&open(1), Code::PolicyDenied).await;
    let first: Vec<String> = (0..grpc::policies::MOST).map(|n| format!("no-{n:060}")).collect();
    assert_eq!(record.draft.policy.as_ref(), Some(&first));
    let status = running.open(&open(1)).await.unwrap_err();
    assert_eq!(policies_of(&status), first);
    running.stop().await;
}

/// REQ-CARPC-9
#[tokio::test(flavor = "multi_thread")]
async fn policy_error_refuses() {
    // Cedar by itself would skip the failing forbid and permit.
    let room = Room::with_policy(
        "permit(principal, action, resource);
         @id(\"night-shift\") forbid(principal, action, resource) when { Target::\"web-9\".labels has env };",
    );
    let running = room.serve().await;
    let record = running.refuses_open(&open(1), Code::PolicyError).await;
    assert_eq!(record.draft.policy.as_deref(), Some(&["night-shift".to_owned()][..]));
    let status = running.open(&open(1)).await.unwrap_err();
    assert_eq!(policies_of(&status), ["night-shift"], "those that failed");
    running.stop().await;
}

/// REQ-CARPC-11
#[tokio::test(flavor = "multi_thread")]
async fn policy_forbid_is_named_in_the_refusal_and_the_record() {
    let room = Room::with_policy(
        "permit(principal, action, resource);
         @id(\"no-alice\") forbid(principal == Person::\"alice\", action, resource);",
    );
    let running = room.serve().await;
    let call = open(1);
    let record = running.refuses_open(&call, Code::PolicyDenied).await;
    assert_eq!(record.draft.policy.as_deref(), Some(&["no-alice".to_owned()][..]));
    assert_eq!(record.draft.requester.unwrap().person.as_str(), "alice");
    let status = running.open(&call).await.unwrap_err();
    assert!(status.message().contains("no-alice"), "{}", status.message());
    assert_eq!(policies_of(&status), ["no-alice"]);
    running.stop().await;
}

/// REQ-CARPC-8, REQ-GRANT-4
#[tokio::test(flavor = "multi_thread")]
async fn policy_on_args_of_a_read() {
    // Whatever the policy says about the arguments: the action leaves the task's grant.
    let room = Room::with_policy(
        "permit(principal, action, resource);
         forbid(principal, action == Action::\"read_file\", resource) when { context.args.path like \"/etc/*\" };",
    );
    let running = room.serve().await;
    let credential = running.open(&open(1)).await.unwrap();
    assert_eq!(credential.actions, ["check_health", "tail_log"]);
    assert!(!grant_of(&credential.certificate, "web-1").contains("read_file"));
    running.stop().await;

    let room = Room::with_policy(
        "permit(principal, action, resource) when { context.args has path && context.args.path == \"/var/log/syslog\" };",
    );
    let running = room.serve().await;
    running.refuses_open(&open(1), Code::PolicyDenied).await;
    running.stop().await;
}

/// REQ-CARPC-3
#[tokio::test(flavor = "multi_thread")]
async fn person_unmapped() {
    let room = Room::new();
    let running = room.serve().await;
    let mut call = open(1);
    call.person = "mallory".into();
    running.refuses_open(&call, Code::PersonUnmapped).await;
    running.stop().await;
}

/// REQ-CARPC-3
#[tokio::test(flavor = "multi_thread")]
async fn person_not_of_this_relay() {
    let room = Room::new();
    let running = room.serve().await;
    let mut call = open(1);
    call.person = "bob".into();
    running.refuses_open(&call, Code::PersonNotOfThisRelay).await;
    running.stop().await;
}

/// REQ-CARPC-3
#[tokio::test(flavor = "multi_thread")]
async fn target_not_of_this_relay_and_unknown_target() {
    let room = Room::new();
    let running = room.serve().await;
    let mut call = open(1);
    call.target = "db-1".into();
    running.refuses_open(&call, Code::TargetNotOfThisRelay).await;
    call.target = "gone".into();
    running.refuses_open(&call, Code::UnknownTarget).await;
    running.stop().await;
}

/// REQ-CARPC-2, REQ-CARPC-11
#[tokio::test(flavor = "multi_thread")]
async fn cert_comma_principal() {
    let room = Room::new();
    let running = room.serve().await;
    for name in ["web-1,root", "web-1,web-2", "root\n", "action/web-1", "*", ""] {
        let mut call = open(1);
        call.target = name.into();
        let record = running.refuses_open(&call, Code::ArgumentsInvalid).await;
        assert_eq!(record.draft.task_id.unwrap().as_str(), call.task_id);
        assert_eq!(record.draft.target, None);
    }
    running.stop().await;
}

/// REQ-CARPC-2, REQ-CARPC-12
#[tokio::test(flavor = "multi_thread")]
async fn fields_that_are_not_of_their_shape_are_refused() {
    let room = Room::new();
    let running = room.serve().await;
    let ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc=";
    let changes: [fn(&mut v1::OpenTaskRequest); 8] = [
        |c| c.task_id = "not-a-uuid".into(),
        |c| c.task_id = c.task_id.to_uppercase(),
        |c| c.brain = "a\u{1b}[2J".into(),
        |c| c.person = "alice\nbob".into(),
        |c| c.proof = "signature".into(),
        |c| c.reason = " ".into(),
        |c| c.public_key = "rm -rf /".into(),
        |c| c.public_key.push_str(" a comment"),
    ];
    for change in changes {
        let mut call = open(1);
        change(&mut call);
        running.refuses_open(&call, Code::ArgumentsInvalid).await;
    }
    let mut call = open(1);
    call.public_key = ecdsa.into();
    running.refuses_open(&call, Code::ArgumentsInvalid).await;
    running.stop().await;
}

/// A call with everything that a relay might wish for and the protocol has no field for.
#[derive(Clone, PartialEq, Message)]
struct Wishes {
    #[prost(string, tag = "1")]
    task_id: String,
    #[prost(string, tag = "2")]
    brain: String,
    #[prost(string, tag = "3")]
    person: String,
    #[prost(string, tag = "4")]
    proof: String,
    #[prost(string, tag = "5")]
    reason: String,
    #[prost(string, tag = "6")]
    target: String,
    #[prost(string, tag = "7")]
    public_key: String,
    #[prost(int64, tag = "8")]
    lifetime_s: i64,
    #[prost(string, tag = "9")]
    source_address: String,
    #[prost(string, repeated, tag = "10")]
    principals: Vec<String>,
    #[prost(string, repeated, tag = "11")]
    actions: Vec<String>,
}

async fn wish(running: &Running) -> v1::TaskCertificate {
    let call = open(1);
    let wishes = Wishes {
        task_id: call.task_id,
        brain: call.brain,
        person: call.person,
        proof: call.proof,
        reason: call.reason,
        target: call.target,
        public_key: call.public_key,
        lifetime_s: 86_400,
        source_address: "0.0.0.0/0".into(),
        principals: vec!["root".into()],
        actions: vec!["restart_service".into()],
    };
    let endpoint = format!("unix:{}", running.socket().display());
    let channel = Endpoint::from_shared(endpoint).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/writ.ca.v1.Ca/OpenTask");
    let codec = tonic_prost::ProstCodec::<Wishes, v1::TaskCertificate>::default();
    client
        .unary(tonic::Request::new(wishes), path, codec)
        .await
        .unwrap()
        .into_inner()
}

/// REQ-CERT-16
#[tokio::test(flavor = "multi_thread")]
async fn ttl_over_max() {
    let mut room = Room::new();
    room.config.task_lifetime_s = 900;
    let running = room.serve().await;
    let credential = wish(&running).await;
    assert_eq!(
        credential.valid_before - credential.valid_after,
        930,
        "the configuration's lifetime and the skew"
    );
    running.stop().await;
}

/// REQ-CERT-16
#[tokio::test(flavor = "multi_thread")]
async fn source_from_elsewhere() {
    let room = Room::new();
    let running = room.serve().await;
    let credential = wish(&running).await;
    let read = openssh::certificate::read(&credential.certificate).unwrap();
    assert_eq!(read.critical_options()["source-address"], "127.0.0.0/8,10.1.2.3/32");
    assert_eq!(read.valid_principals(), ["web-1"]);
    assert_eq!(credential.actions, ["check_health", "read_file", "tail_log"]);
    running.stop().await;
}

/// REQ-CARPC-7
#[tokio::test(flavor = "multi_thread")]
async fn quota_exceeded() {
    let room = Room::new();
    certified_before(&room.config, OPEN_MAX - 1);
    let running = room.serve().await;
    let last = open(1);
    running.open(&last).await.unwrap();
    running.refuses_open(&open(2), Code::Capacity).await;
    // What is open can go on: another certificate for the same key takes no other place.
    running.renew(&renewal(&last)).await.unwrap();
    running.stop().await;
}

/// A log of this CA that tells of so many keys that relay-1 has open, one for each of as many targets.
fn certified_before(config: &Config, keys: usize) {
    let who = Who {
        tier: Tier::Ca,
        host: "here".into(),
        build: "test".into(),
    };
    let mut log = Log::open(&config.log_dir, &config.log_lock(), who, Box::new(Own)).unwrap();
    let key = Fingerprint::of(key(9).public());
    let mut last = None;
    for n in 0..keys {
        let draft = Draft {
            task_id: Some("0192e4a0-7f00-7000-8000-00000000000a".parse().unwrap()),
            requester: Some(Requester {
                brain: "claude".parse().unwrap(),
                person: "alice".parse().unwrap(),
                proof: Proof::Relay,
            }),
            reason: Some("many hosts".parse().unwrap()),
            relay: Some("relay-1".parse().unwrap()),
            opened: Some(now()),
            target: Some(format!("t{n}").parse().unwrap()),
            cert: Some(Cert {
                serial: Serial::of(1),
                key_id: "0192e4a0-7f00-7000-8000-00000000000a".into(),
                ca: key.clone(),
                key: Some(key.clone()),
                valid_before: Some(now() + 300),
            }),
            ..Draft::new(Event::Issue)
        };
        last = Some(log.write(&draft).unwrap());
    }
    last.unwrap().settle().unwrap();
}

/// REQ-GRANT-1
#[tokio::test(flavor = "multi_thread")]
async fn a_grant_over_4k_is_refused_before_it_is_recorded() {
    let room = Room::with_policy("permit(principal, action, resource);");
    let shipped = std::fs::read_to_string(room.config.catalogue_dir.join("check_health.toml")).unwrap();
    for n in 0..70 {
        let name = format!("{}_{n}", "a".repeat(58));
        let text = shipped.replace("name = \"check_health\"", &format!("name = \"{name}\""));
        file(&room.config.catalogue_dir.join(format!("{name}.toml")), &text);
    }
    let running = room.serve().await;
    running.refuses_open(&open(1), Code::ConfigInvalid).await;
    running.stop().await;
}

/// REQ-CARPC-2, REQ-CARPC-11
#[tokio::test(flavor = "multi_thread")]
async fn a_message_that_is_too_long_and_a_call_that_is_none_are_recorded_too() {
    let room = Room::new();
    let running = room.serve().await;
    let mut call = open(1);
    call.reason = "x".repeat(1 << 20);
    running.refuses_open(&call, Code::MessageTooLong).await;

    let channel = Endpoint::from_shared(format!("unix:{}", running.socket().display()))
        .unwrap()
        .connect()
        .await
        .unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    let path = PathAndQuery::from_static("/writ.ca.v1.Ca/GiveMeTheKey");
    let codec = tonic_prost::ProstCodec::<v1::DescribeRequest, v1::DescribeReply>::default();
    let refusal = client
        .unary(tonic::Request::new(v1::DescribeRequest {}), path, codec)
        .await;
    assert_eq!(code_of(&refusal.unwrap_err()), Code::ProtocolError);
    assert_eq!(running.records().last().unwrap().draft.code, Some(Code::ProtocolError));
    running.open(&open(1)).await.unwrap();
    running.stop().await;
}
