//! The CA as relays on other machines meet it: who is let in at the port, what each of them may ask for, and keys that are
//! replaced while calls are made.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use audit::{Event, Record};
use ca::config::KnownBy;
use grpc::v1::ca_client::CaClient;
use grpc::{tls, v1};
use hyper_util::rt::TokioIo;
use openssh::key::PublicKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::codegen::StdError;
use tonic::codegen::http::Uri;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tower::service_fn;
use wire::Code;

use crate::naked;
use crate::room::{Room, Running, code_of, connect, file, key, open, renewal};
use crate::stand::{ALL, Stand, bytes, payload};

/// The CA's own key, those of relay-1 and relay-2 when they are elsewhere, and one that nobody is known by.
const CA: u8 = 70;
const FIRST: u8 = 71;
const SECOND: u8 = 72;
const NOBODY: u8 = 79;

/// What only an operator may ask for, wherever that will be served.
const OPERATORS: [&str; 5] = ["Revoke", "Halt", "Enroll", "SetPolicy", "AcceptDivergence"];

/// Lets relays on other machines in: relay-2 is one.
fn open_port(room: &mut Room) {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    room.config.tls_listen = Some(free.local_addr().unwrap());
    own_key(room, CA);
    far(room, 1, SECOND);
}

fn room() -> Room {
    let mut room = Room::with_policy(ALL);
    open_port(&mut room);
    room
}

/// Puts a relay on another machine.
fn far(room: &mut Room, relay: usize, seed: u8) {
    let path = keys_of(room, relay);
    lines(&path, &[seed]);
    room.config.relays[relay].known_by = KnownBy::Keys(path);
}

fn keys_of(room: &Room, relay: usize) -> PathBuf {
    room.dir.path().join(format!("relay-{}.pub", relay + 1))
}

/// As an administrator does it: written beside, and moved.
fn lines(path: &Path, seeds: &[u8]) {
    let text: String = seeds
        .iter()
        .map(|seed| key(*seed).public().to_openssh() + "\n")
        .collect();
    file(&path.with_extension("new"), &text);
    fs::rename(path.with_extension("new"), path).unwrap();
}

fn own_key(room: &Room, seed: u8) {
    let (next, path) = (room.config.key_dir.join("tls.next"), room.config.key_dir.join("tls"));
    assert!(grpc::keys::create(&next, &key(seed)).unwrap());
    fs::rename(next, path).unwrap();
}

fn port(room: &Room) -> SocketAddr {
    room.config.tls_listen.unwrap()
}

/// The connections of whoever has this key, believing any CA.
fn channel(room: &Room, seed: u8) -> Channel {
    channel_to(port(room), seed, |_| true)
}

fn channel_to(address: SocketAddr, seed: u8, known: impl Fn(&PublicKey) -> bool + Send + Sync + 'static) -> Channel {
    let tls = tls::Client::new(&key(seed), known).unwrap();
    let connector = service_fn(move |_: Uri| {
        let tls = tls.clone();
        async move {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Ok::<_, StdError>(TokioIo::new(tls.connect(stream).await?))
        }
    });
    endpoint().connect_with_connector_lazy(connector)
}

/// The connections of somebody who shows no certificate.
fn naked(room: &Room) -> Channel {
    let address = port(room);
    endpoint().connect_with_connector_lazy(service_fn(move |_: Uri| async move {
        let stream = TcpStream::connect(address).await?;
        Ok::<_, StdError>(TokioIo::new(naked::connect(stream).await?))
    }))
}

/// The connections of somebody who does not know of TLS.
fn plain(room: &Room) -> Channel {
    let address = port(room);
    endpoint().connect_with_connector_lazy(service_fn(move |_: Uri| async move {
        Ok::<_, StdError>(TokioIo::new(TcpStream::connect(address).await?))
    }))
}

fn endpoint() -> Endpoint {
    Endpoint::from_static("http://ca.writ.internal").timeout(Duration::from_secs(20))
}

async fn describe(channel: &Channel) -> Result<v1::DescribeReply, Status> {
    let mut client = CaClient::new(channel.clone());
    client
        .describe(v1::DescribeRequest {})
        .await
        .map(tonic::Response::into_inner)
}

/// One try of every call that there is, and of those that operators will have.
async fn all_calls(channel: &Channel) -> Vec<(&'static str, Result<(), Status>)> {
    let mut client = CaClient::new(channel.clone());
    let call = open(1);
    let authorize = v1::AuthorizeActionRequest::default();
    let mut tries = vec![
        ("Describe", describe(channel).await.map(drop)),
        ("OpenTask", client.open_task(call.clone()).await.map(drop)),
        ("RenewTask", client.renew_task(renewal(&call)).await.map(drop)),
        ("AuthorizeAction", client.authorize_action(authorize).await.map(drop)),
    ];
    for name in OPERATORS {
        tries.push((name, by_name(channel, name).await));
    }
    tries
}

async fn by_name(channel: &Channel, name: &str) -> Result<(), Status> {
    let mut client = tonic::client::Grpc::new(channel.clone());
    let ready = client.ready().await;
    ready.map_err(|error| Status::unavailable(error.to_string()))?;
    let path = PathAndQuery::try_from(format!("/writ.ca.v1.Ca/{name}")).unwrap();
    let codec = tonic_prost::ProstCodec::<v1::DescribeRequest, v1::DescribeReply>::default();
    let request = Request::new(v1::DescribeRequest {});
    client.unary(request, path, codec).await.map(drop)
}

/// Waits for the record of strangers, and checks that there is no other beside the beginning.
async fn only_strangers(running: &Running) -> Record {
    let until = Instant::now() + Duration::from_secs(10);
    while running.records().len() < 3 {
        assert!(Instant::now() < until, "nobody was counted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(running.events(), [Event::Genesis, Event::Start, Event::Strangers]);
    running.records().remove(2)
}

/// How many strangers wait for the next minute's record.
fn counted(room: &Room) -> u64 {
    let text = fs::read_to_string(room.config.state_dir.join("strangers")).unwrap();
    let count: serde_json::Value = serde_json::from_str(text.trim()).unwrap();
    count["count"].as_u64().unwrap()
}

/// REQ-CARPC-24
#[tokio::test(flavor = "multi_thread")]
async fn no_client_cert() {
    let room = room();
    let running = room.serve().await;
    let tries = all_calls(&naked(&room)).await;
    for (name, tried) in &tries {
        let status = tried.as_ref().expect_err(name);
        assert!(
            status.metadata().get(grpc::CODE).is_none(),
            "{name} came as far as a call: {status:?}"
        );
    }
    let record = only_strangers(&running).await;
    assert_eq!(record.draft.code, Some(Code::RelayUnknown));
    let text = record.draft.message.unwrap();
    assert!(
        text.contains("let 127.0.0.1 in") && text.contains("shows none"),
        "{text}"
    );
    println!("{0} attacks, {0} refused", tries.len());
    describe(&channel(&room, SECOND)).await.unwrap();
    running.stop().await;
}

/// REQ-CARPC-23, REQ-CARPC-24
#[tokio::test(flavor = "multi_thread")]
async fn wrong_peer_on_ca_port() {
    let room = room();
    let running = room.serve().await;
    let mut tries = all_calls(&channel(&room, NOBODY)).await;
    let text = only_strangers(&running).await.draft.message.unwrap();
    assert!(text.contains(&key(NOBODY).public().fingerprint()), "{text}");
    tries.extend(all_calls(&plain(&room)).await);
    // The keys that are known elsewhere are nobody's here: the CA's own, and that of a task.
    tries.extend(all_calls(&channel(&room, CA)).await);
    tries.extend(all_calls(&channel(&room, 1)).await);
    for (name, tried) in &tries {
        let status = tried.as_ref().expect_err(name);
        assert!(
            status.metadata().get(grpc::CODE).is_none(),
            "{name} came as far as a call: {status:?}"
        );
    }
    assert_eq!(running.events().len(), 3, "not one record each");
    println!("{0} attacks, {0} refused", tries.len());
    describe(&channel(&room, SECOND)).await.unwrap();
    running.stop().await;
}

/// REQ-CARPC-3, REQ-CARPC-5, REQ-CARPC-15, REQ-CARPC-23
#[tokio::test(flavor = "multi_thread")]
async fn other_relay_cert() {
    let stand = Stand::with_policy(ALL).await;
    let stand = stand
        .again(|room| {
            open_port(room);
            far(room, 0, FIRST);
        })
        .await;
    let mut first = CaClient::new(channel(&stand.room, FIRST));
    let mut second = CaClient::new(channel(&stand.room, SECOND));
    assert_eq!(describe(&channel(&stand.room, FIRST)).await.unwrap().relay, "relay-1");
    assert_eq!(describe(&channel(&stand.room, SECOND)).await.unwrap().relay, "relay-2");

    // What relay-1 opened goes on by its key; relay-2 may speak for bob, and reach everything.
    let mine = stand.call.clone();
    first.renew_task(renewal(&mine)).await.unwrap();
    let wish = |change: fn(&mut v1::OpenTaskRequest)| {
        let mut call = open(9);
        call.person = "bob".into();
        change(&mut call);
        call
    };
    let joined = v1::OpenTaskRequest {
        task_id: mine.task_id.clone(),
        ..wish(|_| {})
    };
    let posing = v1::OpenTaskRequest {
        brain: mine.brain.clone(),
        reason: mine.reason.clone(),
        ..joined.clone()
    };
    let count = stand.count();
    let before = stand.running.records().len();
    let refusals = [
        (
            second
                .open_task(wish(|call| call.person = "alice".into()))
                .await
                .map(drop),
            Code::PersonNotOfThisRelay,
        ),
        (
            second
                .open_task(wish(|call| call.person = "carol".into()))
                .await
                .map(drop),
            Code::PersonUnmapped,
        ),
        (
            second
                .open_task(wish(|call| call.target = "gone".into()))
                .await
                .map(drop),
            Code::UnknownTarget,
        ),
        (second.open_task(joined).await.map(drop), Code::TaskMismatch),
        (second.open_task(posing).await.map(drop), Code::TaskMismatch),
        (
            second.open_task(mine.clone()).await.map(drop),
            Code::PersonNotOfThisRelay,
        ),
        (second.renew_task(renewal(&mine)).await.map(drop), Code::UnknownTask),
        (
            second.authorize_action(stand.asking(bytes(&count))).await.map(drop),
            Code::UnknownTask,
        ),
        (
            first.open_task(wish(|_| {})).await.map(drop),
            Code::PersonNotOfThisRelay,
        ),
        (
            first
                .open_task(wish(|call| {
                    call.person = "alice".into();
                    call.target = "db-1".into();
                }))
                .await
                .map(drop),
            Code::TargetNotOfThisRelay,
        ),
    ];
    let attacks = refusals.len();
    for (n, (refusal, code)) in refusals.into_iter().enumerate() {
        assert_eq!(code_of(&refusal.unwrap_err()), code, "{n}");
    }
    let records = stand.running.records().split_off(before);
    assert_eq!(records.len(), attacks);
    for (n, record) in records.iter().enumerate() {
        assert_eq!(record.draft.event, Event::Refused, "{n}");
        let relay = if n < attacks - 2 { "relay-2" } else { "relay-1" };
        assert_eq!(record.draft.relay.as_ref().unwrap().as_str(), relay, "{n}");
    }
    println!("{attacks} attacks, {attacks} refused");
    first.authorize_action(stand.asking(bytes(&count))).await.unwrap();
    second.open_task(wish(|_| {})).await.unwrap();

    // At the socket this account is nobody's any more: a relay is known one way.
    let near = connect(&stand.room.config.socket).await;
    let refused = near.clone().open_task(mine).await.unwrap_err();
    assert_eq!(code_of(&refused), Code::RelayUnknown);
    stand.stop().await;
}

/// REQ-CARPC-2, REQ-CARPC-11
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_has_no_operators_calls() {
    let room = room();
    let running = room.serve().await;
    let far = channel(&room, SECOND);
    for name in OPERATORS {
        let refused = by_name(&far, name).await.unwrap_err();
        assert_eq!(code_of(&refused), Code::ProtocolError, "{name}");
        let record = running.records().pop().unwrap().draft;
        assert_eq!(
            (record.event, record.code),
            (Event::Refused, Some(Code::ProtocolError)),
            "{name}"
        );
        assert_eq!(record.relay.unwrap().as_str(), "relay-2");
    }
    println!("{0} attacks, {0} refused", OPERATORS.len());
    running.stop().await;
}

/// REQ-CARPC-23
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_taken_out_is_refused_with_the_next_call_on_an_open_connection() {
    let room = room();
    let running = room.serve().await;
    let (path, far) = (keys_of(&room, 1), channel(&room, SECOND));
    describe(&far).await.unwrap();
    for seeds in [&[][..], &[NOBODY]] {
        lines(&path, seeds);
        let attacks = all_calls(&far).await;
        for (name, tried) in attacks {
            assert_eq!(code_of(&tried.unwrap_err()), Code::RelayUnknown, "{name}");
        }
        // And nobody gets a new one.
        assert!(describe(&channel(&room, SECOND)).await.is_err());
        lines(&path, &[NOBODY, SECOND]);
        describe(&far).await.unwrap();
    }
    fs::remove_file(&path).unwrap();
    assert_eq!(code_of(&describe(&far).await.unwrap_err()), Code::RelayUnknown);
    // Whoever is known otherwise has nothing to do with it.
    running.client.clone().describe(v1::DescribeRequest {}).await.unwrap();
    running.stop().await;
}

/// REQ-CARPC-29
#[tokio::test(flavor = "multi_thread")]
async fn both_keys_are_replaced_under_load_and_no_call_fails() {
    const NEXT_CA: u8 = 80;
    const NEXT: u8 = 82;
    let room = room();
    let running = room.serve().await;
    let path = keys_of(&room, 1);
    let old = channel_to(port(&room), SECOND, |shown| shown == key(CA).public());
    describe(&old).await.unwrap();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let load = |channel: Channel| {
        let stop = Arc::clone(&stop);
        tokio::spawn(async move {
            let mut calls = 0;
            while !stop.load(std::sync::atomic::Ordering::SeqCst) {
                describe(&channel).await.unwrap();
                calls += 1;
            }
            calls
        })
    };
    let mut loads: Vec<_> = (0..4).map(|_| load(old.clone())).collect();
    // The relay's next key is made known, then used, beside the one that goes.
    lines(&path, &[SECOND, NEXT]);
    let new = channel_to(port(&room), NEXT, |shown| shown == key(CA).public());
    loads.extend((0..4).map(|_| load(new.clone())));
    describe(&new).await.unwrap();
    // The CA's next key: whoever connects from now on sees it, and who is connected notices nothing.
    own_key(&room, NEXT_CA);
    let newest = channel_to(port(&room), NEXT, |shown| shown == key(NEXT_CA).public());
    describe(&newest).await.unwrap();
    let stale = channel_to(port(&room), NEXT, |shown| shown == key(CA).public());
    assert!(describe(&stale).await.is_err(), "the old key is gone");
    loads.extend((0..4).map(|_| load(newest.clone())));
    // A key that cannot be read leaves the one before.
    let own = room.config.key_dir.join("tls");
    fs::write(&own, "half a k").unwrap();
    describe(&channel_to(port(&room), NEXT, |shown| shown == key(NEXT_CA).public()))
        .await
        .unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, std::sync::atomic::Ordering::SeqCst);
    let mut calls = Vec::new();
    for load in loads {
        calls.push(load.await.unwrap());
    }
    assert!(calls.iter().all(|calls| *calls > 0), "{calls:?}");
    println!("{} calls, none failed", calls.iter().sum::<i32>());
    // The old pin goes last.
    lines(&path, &[NEXT]);
    assert_eq!(code_of(&describe(&old).await.unwrap_err()), Code::RelayUnknown);
    describe(&newest).await.unwrap();
    running.stop().await;
}

/// REQ-CARPC-28
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_half_open_handshakes_keeps_nobody_out() {
    const FLOOD: u64 = 400;
    let room = room();
    let running = room.serve().await;
    let known = channel(&room, SECOND);
    describe(&known).await.unwrap();
    let mut flood = Vec::new();
    for n in 0..FLOOD {
        let mut stream = TcpStream::connect(port(&room)).await.unwrap();
        if n % 2 == 0 {
            stream.write_all(b"\x16\x03\x01\x01\x00\x01").await.unwrap();
        }
        flood.push(stream);
    }
    // At the socket, on a connection that is open, and on a new one: in less time than a handshake may take.
    let begun = Instant::now();
    running.client.clone().describe(v1::DescribeRequest {}).await.unwrap();
    describe(&known).await.unwrap();
    describe(&channel(&room, SECOND)).await.unwrap();
    assert!(begun.elapsed() < tls::HANDSHAKE, "{:?}", begun.elapsed());
    // All of them are let go, the oldest first, and counted: the first in a record, the others with the next minute's.
    for mut stream in flood {
        assert!(
            !matches!(stream.read_u8().await, Ok(byte) if byte != 0x15),
            "it was answered"
        );
    }
    let until = Instant::now() + Duration::from_secs(20);
    while counted(&room) < FLOOD - 1 {
        assert!(Instant::now() < until, "{} were counted", counted(&room));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(counted(&room), FLOOD - 1);
    only_strangers(&running).await;
    println!("{FLOOD} attacks, {FLOOD} refused");
    running.stop().await;
}

/// REQ-CARPC-28
#[tokio::test(flavor = "multi_thread")]
async fn a_key_has_so_many_connections_and_others_have_theirs() {
    let mut room = room();
    far(&mut room, 0, FIRST);
    let running = room.serve().await;
    let mut channels = Vec::new();
    for _ in 0..16 {
        let one = channel(&room, SECOND);
        describe(&one).await.unwrap();
        channels.push(one);
    }
    assert!(describe(&channel(&room, SECOND)).await.is_err());
    let record = only_strangers(&running).await.draft;
    assert_eq!(record.code, Some(Code::Capacity));
    describe(&channel(&room, FIRST)).await.unwrap();
    describe(&channels[0]).await.unwrap();
    channels.pop();
    let until = Instant::now() + Duration::from_secs(10);
    while describe(&channel(&room, SECOND)).await.is_err() {
        assert!(Instant::now() < until, "no place was given back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    running.stop().await;
}

/// REQ-CARPC-23
#[test]
fn a_start_refuses_keys_that_would_not_do() {
    let refused = |change: fn(&mut Room)| {
        let mut room = room();
        change(&mut room);
        match ca::start::load(room.config, ca::start::clock()) {
            Ok(_) => panic!("it would start"),
            Err(faults) => faults.join("\n"),
        }
    };
    type Change = fn(&mut Room);
    let table: [(Change, &str); 6] = [
        (
            |room| fs::remove_file(room.config.key_dir.join("tls")).unwrap(),
            "writ-ca init makes it",
        ),
        (|room| own_key(room, 201), "tls is a key that signs certificates"),
        (
            |room| fs::remove_file(keys_of(room, 1)).unwrap(),
            "relay-2.pub: No such file",
        ),
        (
            |room| file(&keys_of(room, 1), "nonsense"),
            "line 1: failed to read an OpenSSH key",
        ),
        (|room| lines(&keys_of(room, 1), &[1, 2, 3]), "more than 2 keys"),
        (|room| far(room, 0, SECOND), "relay-2 and relay-1 have one key"),
    ];
    for (change, what) in table {
        let faults = refused(change);
        assert!(faults.contains(what), "{what} not in {faults}");
        assert_eq!(faults.lines().count(), 1, "{faults}");
    }
}

/// What a call costs more where the relay is elsewhere: much less than the disk that it waits for.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_over_tls_costs_little_more_than_one_at_the_socket() {
    const CALLS: usize = 300;
    let stand = Stand::with_policy(ALL).await.again(open_port).await;
    let mine = open(2);
    let other = v1::OpenTaskRequest {
        person: "bob".into(),
        ..open(3)
    };
    let mut ends = [
        (stand.running.client.clone(), mine),
        (CaClient::new(channel(&stand.room, SECOND)), other),
    ];
    let manifest = fs::read(stand.room.config.catalogue_dir.join("count.toml")).unwrap();
    let mut wishes = Vec::new();
    for (client, call) in &mut ends {
        client.open_task(call.clone()).await.unwrap();
        let args = serde_json::json!({"counter": "one", "by": 1});
        wishes.push(v1::AuthorizeActionRequest {
            payload: bytes(&payload(call, "count", &manifest, args)),
            public_key: call.public_key.clone(),
            approvals_held: 0,
        });
    }
    // One call at each end in turn: whatever else the machine does happens to both.
    let mut times = [Vec::new(), Vec::new()];
    for n in 0..2 * CALLS {
        let end = n % 2;
        let begun = Instant::now();
        ends[end].0.authorize_action(wishes[end].clone()).await.unwrap();
        times[end].push(begun.elapsed());
    }
    let [near, far] = times.map(|mut times| {
        times.sort();
        times[CALLS / 2]
    });
    println!("AuthorizeAction, median of {CALLS}: {near:?} at the socket, {far:?} over TLS");
    assert!(far < near + Duration::from_millis(5), "{near:?}, {far:?}");
    stand.stop().await;
}
