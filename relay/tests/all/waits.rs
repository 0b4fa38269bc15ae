//! Nobody waits for what is not theirs: a host that is silent, a CA that takes its time, a change that runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use relay::seats::{BOUNDS, CONNECTIONS, Seats};
use relay::session::Bounds;
use serde_json::json;

use crate::sessions::SOON;
use crate::target::{Gate, Manner};
use crate::world::{ALICE, World, tail, until};

fn says() -> Manner {
    Manner::Says("a line\n".into())
}

#[tokio::test]
async fn calls_to_a_silent_host_share_one_connection_and_its_failure() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let world = World::at(&listener.local_addr().unwrap().to_string()).await;
    let mut client = world.client(ALICE).await;
    let open = json!({ "reason": "why", "targets": ["web-1"] });
    let (task, _) = client.call("open_task", open).await;
    let begun = Instant::now();
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let mut client = world.client(ALICE).await;
        calls.spawn(async move { client.call("tail_log", tail()).await.0 });
    }
    // It says nothing, for as long as it is there.
    let _silent = listener.accept().await.unwrap();
    let asked = Instant::now();
    let (status, _) = client.call("task_status", json!({ "task_id": task["task_id"] })).await;
    assert_eq!(status["open"], true, "{status}");
    assert!(
        asked.elapsed() < Duration::from_secs(2),
        "whoever looks does not wait for it"
    );
    for said in calls.join_all().await {
        assert_eq!(
            (&said["code"], &said["retryable"]),
            (&json!("unreachable"), &json!(true)),
            "{said}"
        );
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    let another = tokio::time::timeout(Duration::from_millis(200), listener.accept()).await;
    assert!(another.is_err(), "it was tried once for all of them");
}

#[tokio::test]
async fn reads_do_not_wait_for_a_ca_that_is_slow_while_their_certificate_is_good() {
    const LIFE_S: u64 = 24;
    let world = World::new(says()).await;
    world.ca.life_s.store(LIFE_S, Ordering::SeqCst);
    let begun = Instant::now();
    let mut client = world.client(ALICE).await;
    let (said, is_error) = client.call("tail_log", tail()).await;
    assert!(!is_error, "{said}");
    world.ca.slow_ms.store(60_000, Ordering::SeqCst);
    tokio::time::sleep((begun + Duration::from_secs(LIFE_S * 2 / 3)).saturating_duration_since(Instant::now())).await;
    until("the renewal", async || world.ca.renewed.load(Ordering::SeqCst) > 0).await;
    // The last five seconds of a certificate are not begun with.
    while begun.elapsed() < Duration::from_secs(LIFE_S - 7) {
        let asked = Instant::now();
        let (said, is_error) = client.call("tail_log", tail()).await;
        assert!(!is_error, "{said}");
        assert!(asked.elapsed() < Duration::from_secs(1), "{:?}", asked.elapsed());
        // Below the rate of a target.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_change_that_the_ca_judges_takes_no_session_from_a_read() {
    let bounds = Bounds { channels: 1, ..BOUNDS };
    let world = World::with_seats(says(), Seats::new(bounds, CONNECTIONS)).await;
    let (mut one, mut two) = (world.client(ALICE).await, world.client(ALICE).await);
    let (said, is_error) = one.call("tail_log", tail()).await;
    assert!(!is_error, "{said}");
    world.ca.slow_ms.store(3000, Ordering::SeqCst);
    let change = json!({ "action": "restart", "target": "web-1" });
    let change = tokio::spawn(async move { one.call("run_action", change).await });
    until("the CA is asked", async || {
        !world.ca.authorized.lock().unwrap().is_empty()
    })
    .await;
    let (said, is_error) = two.call("tail_log", tail()).await;
    assert!(!is_error, "{said}");
    assert!(!change.is_finished());
    let (said, is_error) = change.await.unwrap();
    assert!(!is_error, "{said}");
    assert_eq!(world.seen.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_task_whose_time_is_up_waits_for_its_change() {
    static LATE: AtomicBool = AtomicBool::new(false);
    fn clock() -> u64 {
        relay::serve::now() + if LATE.load(Ordering::SeqCst) { 28_801 } else { 0 }
    }
    let mut world = World::new(Manner::Slow(1500)).await;
    Arc::get_mut(&mut world.relay).unwrap().now = clock;
    let mut client = world.client(ALICE).await;
    let change = json!({ "action": "restart", "target": "web-1", "reason": "why" });
    let change = tokio::spawn(async move { client.call("run_action", change).await });
    until("it is sent", async || !world.seen.requests.lock().unwrap().is_empty()).await;
    LATE.store(true, Ordering::SeqCst);
    world.relay.sweep().await;
    let (said, is_error) = change.await.unwrap();
    assert!(!is_error, "{said}");
    assert_eq!(said["status"], "ok");
    until("the end of the task", async || {
        world.events().last().is_some_and(|event| event == "close")
    })
    .await;
    assert_eq!(world.events(), ["open", "request", "outcome", "close"]);
    until("its session ends", async || world.seen.open.load(Ordering::SeqCst) == 0).await;
}

#[tokio::test]
async fn a_ca_that_does_not_answer_is_asked_once_for_all_targets_of_a_task() {
    let world = World::new(says()).await;
    *world.ca.says_no.lock().unwrap() = Some(wire::Code::CaUnavailable);
    let targets = json!({ "reason": "why", "targets": ["web-1", "web-2", "denied-1"] });
    let (said, _) = world.client(ALICE).await.call("open_task", targets).await;
    assert_eq!(said["code"], "ca_unavailable", "{said}");
    assert_eq!(world.ca.opened.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn a_task_that_is_closed_while_it_is_opened_elsewhere_is_open_nowhere() {
    let world = World::new(says()).await;
    let (mut one, mut two) = (world.client(ALICE).await, world.client(ALICE).await);
    world.ca.slow_ms.store(2000, Ordering::SeqCst);
    let targets = json!({ "reason": "why", "targets": ["web-1", "web-2"] });
    let opening = tokio::spawn(async move { one.call("open_task", targets).await.0 });
    let mut task = String::new();
    until("the first target", async || {
        let (listed, _) = two.call("list_targets", json!({})).await;
        let mut tasks = listed["targets"].as_array().unwrap().iter();
        let found = tasks.find_map(|target| target["task_id"].as_str());
        task = found.unwrap_or_default().to_owned();
        found.is_some()
    })
    .await;
    let (closed, is_error) = two.call("close_task", json!({ "task_id": task })).await;
    assert!(!is_error, "{closed}");
    let opened = opening.await.unwrap();
    assert_eq!(opened["targets"], json!(["web-1"]), "{opened}");
    assert_eq!(opened["refused"][0]["code"], "task_ended", "{opened}");
    let task = task.parse().unwrap();
    assert_eq!(world.relay.seats.of(&task).len(), 0, "no key is kept");
}

/// REQ-SESSION-21
#[tokio::test]
async fn a_connection_ends_with_its_certificate_where_there_is_no_other() {
    const LIFE_S: u64 = 9;
    let world = World::new(says()).await;
    world.ca.life_s.store(LIFE_S, Ordering::SeqCst);
    let mut client = world.client(ALICE).await;
    let (said, is_error) = client.call("tail_log", tail()).await;
    assert!(!is_error, "{said}");
    let begun = Instant::now();
    world.ca.no_renewal.store(true, Ordering::SeqCst);
    assert_eq!(world.seen.open.load(Ordering::SeqCst), 1);
    until("the end of its session", async || {
        world.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
    // Not with the CA's no, which came at two thirds of its life: until its end it was good for what was under way.
    assert!(
        begun.elapsed() > Duration::from_secs(LIFE_S - 2),
        "{:?}",
        begun.elapsed()
    );
    let (said, _) = client.call("tail_log", tail()).await;
    assert_eq!(
        (&said["code"], &said["refused_by"]),
        (&json!("policy_denied"), &json!("ca")),
        "{said}"
    );
    assert_eq!(
        world.seen.connections.load(Ordering::SeqCst),
        1,
        "nobody connects with it"
    );
}

/// REQ-SESSION-25
#[tokio::test]
async fn a_read_that_is_asked_once_more_does_not_wait_for_its_own_place() {
    static PASSED_S: AtomicU64 = AtomicU64::new(0);
    fn clock() -> u64 {
        relay::serve::now() + PASSED_S.load(Ordering::SeqCst)
    }
    let (gate, bounds) = (Gate::closed(), Bounds { channels: 1, ..BOUNDS });
    let mut world = World::with_seats(Manner::HelloAgain(gate.clone()), Seats::new(bounds, CONNECTIONS)).await;
    world.clock(clock);
    world.ca.life_s.store(20, Ordering::SeqCst);
    let mut client = world.client(ALICE).await;
    let (said, is_error) = client.call("tail_log", tail()).await;
    assert!(!is_error, "{said}");
    let task = said["task_id"].as_str().unwrap().parse().unwrap();
    let connection = world.relay.seats.of(&task)[0].connection().unwrap();
    let only = connection.session(SOON).await.unwrap();
    let read = tokio::spawn(async move { client.call("tail_log", tail()).await });
    until("it waits for the one place", async || {
        world.events() == ["open", "request", "outcome", "request"]
    })
    .await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    // By the time that it has it the certificate has to be renewed, and until it is the channel goes.
    PASSED_S.store(16, Ordering::SeqCst);
    world.ca.life_s.store(300, Ordering::SeqCst);
    world.ca.slow_ms.store(1000, Ordering::SeqCst);
    drop(only);
    until("the CA is asked", async || world.ca.renewed.load(Ordering::SeqCst) > 0).await;
    gate.open();
    until("its channel is over", async || {
        world.seen.open.load(Ordering::SeqCst) == 0
    })
    .await;
    let (said, is_error) = read.await.unwrap();
    assert!(!is_error, "{said}");
    assert_eq!(world.seen.connections.load(Ordering::SeqCst), 1);
    assert_eq!(world.seen.sessions.load(Ordering::SeqCst), 2, "on another channel");
    assert_eq!(world.seen.requests.lock().unwrap().len(), 2, "it left once");
}

#[tokio::test]
async fn a_change_waits_for_a_hello_no_longer_than_its_bytes_are_good() {
    static PASSED_S: AtomicU64 = AtomicU64::new(0);
    fn clock() -> u64 {
        relay::serve::now() + PASSED_S.load(Ordering::SeqCst)
    }
    let mut world = World::new(Manner::IsSilent(1)).await;
    world.clock(clock);
    *world.ca.meanwhile.lock().unwrap() = Some(Box::new(|| PASSED_S.store(29, Ordering::SeqCst)));
    let begun = Instant::now();
    let change = json!({ "action": "restart", "target": "web-1", "reason": "why" });
    let (said, _) = world.client(ALICE).await.call("run_action", change).await;
    assert_eq!(
        (&said["code"], &said["retryable"]),
        (&json!("unreachable"), &json!(true)),
        "{said}"
    );
    assert!(said["message"].as_str().unwrap().contains("hello"), "{said}");
    // A hello may take five.
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
}
