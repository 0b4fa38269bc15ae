//! The binary, told to stop with calls under way: each has one end in the log, and its client an answer or no connection.

use std::os::unix::net::UnixStream;
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::binary::Room;
use crate::ca::Facts;
use crate::kills::{Client, log, room, serve, tail};
use crate::target::{Gate, Manner};

const CLIENTS: usize = 10;
const CALLS: usize = 20;

fn term(relay: &Child) {
    kill(Pid::from_raw(relay.id().cast_signed()), Signal::SIGTERM).unwrap();
}

/// How many requests the log has, and that none has more than one end.
fn requests(room: &Room) -> (usize, usize) {
    let log = log(room);
    assert!(log.values().all(|times| *times == 1), "{log:?}");
    let count = |event: &str| log.keys().filter(|(_, of)| of == event).count();
    (count("request"), count("outcome"))
}

/// Clients with tasks of their own, and so many calls of theirs under way.
fn under_way(room: &Room) -> Vec<Client> {
    let mut clients: Vec<_> = (0..CLIENTS).map(|number| Client::connect(room, number)).collect();
    for client in &mut clients {
        let opened = client.call("open_task", &json!({ "reason": "why", "targets": ["web-1"] }));
        assert!(opened.unwrap()["task_id"].is_string());
        for _ in 0..CALLS / CLIENTS {
            client.begin("tail_log", &tail(json!({})));
        }
    }
    let until = Instant::now() + Duration::from_secs(20);
    while requests(room).0 < CALLS {
        assert!(Instant::now() < until, "{:?}", requests(room));
        std::thread::sleep(Duration::from_millis(5));
    }
    clients
}

fn content(answer: &Value) -> &Value {
    &answer["result"]["structuredContent"]
}

/// A call while the relay stops: refused, with a Code that says to come again.
fn is_told_to_come_again(client: &mut Client) {
    let said = client.call("server_info", &json!({})).unwrap();
    assert_eq!(
        (&said["code"], &said["retryable"]),
        (&json!("stopping"), &json!(true)),
        "{said}"
    );
}

/// Runs a test against a room whose CA and target go on beside it, on threads of their own.
async fn with(manner: Manner, ca: &Arc<Facts>, limits: &str, test: impl FnOnce(&Room) + Send + 'static) {
    let room = room(manner, Arc::clone(ca)).await;
    room.limit(limits);
    tokio::task::spawn_blocking(move || test(&room)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_told_to_stop_finishes_twenty_calls_and_begins_none() {
    let ca = Facts::generous();
    let facts = Arc::clone(&ca);
    let gate = Gate::closed();
    with(Manner::Waits(gate.clone()), &ca, "drain_s = 60", move |room| {
        let mut relay = serve(room);
        let mut stranger = Client::connect(room, 99);
        let mut clients = under_way(room);
        let certificates = facts.opened.load(Ordering::SeqCst);
        term(&relay);
        let until = Instant::now() + Duration::from_secs(10);
        while UnixStream::connect(room.at("run/relay.sock")).is_ok() {
            assert!(Instant::now() < until, "the door is open");
            std::thread::sleep(Duration::from_millis(5));
        }
        is_told_to_come_again(&mut stranger);
        let opened = stranger.call("open_task", &json!({ "reason": "why", "targets": ["web-1"] }));
        assert_eq!(opened.unwrap()["code"], "stopping");
        gate.open();
        for client in &mut clients {
            for _ in 0..CALLS / CLIENTS {
                let answer = client.read().unwrap();
                assert_eq!(content(&answer)["status"], "ok", "{answer}");
            }
            assert!(client.read().is_none(), "its connection is closed then");
        }
        assert_eq!(relay.wait().unwrap().code(), Some(0));
        assert_eq!(requests(room), (CALLS, CALLS));
        assert_eq!(facts.opened.load(Ordering::SeqCst), certificates);
        assert_eq!(facts.renewed.load(Ordering::SeqCst), 0);
        // Refused calls are recorded before the end is.
        let records = room.records();
        let (last, before) = records.split_last().unwrap();
        assert_eq!(last["event"], "stop");
        let refused = before.iter().filter(|record| record["code"] == "stopping");
        assert_eq!(refused.map(|record| record["count"].as_u64().unwrap()).sum::<u64>(), 2);
    })
    .await;
}

/// One client's change, begun.
fn change(room: &Room) -> Client {
    let mut client = Client::connect(room, 0);
    let opened = client.call("open_task", &json!({ "reason": "why", "targets": ["web-1"] }));
    assert!(opened.unwrap()["task_id"].is_string());
    client.begin("run_action", &json!({ "action": "restart", "target": "web-1" }));
    client
}

fn until(what: &str, is: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(20);
    while !is() {
        assert!(Instant::now() < end, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_is_under_way_is_finished_before_the_end() {
    let ca = Facts::generous();
    let facts = Arc::clone(&ca);
    let gate = Gate::closed();
    with(Manner::Waits(gate.clone()), &ca, "drain_s = 60", move |room| {
        let mut relay = serve(room);
        let mut client = change(room);
        until("it is authorized", || !facts.authorized.lock().unwrap().is_empty());
        term(&relay);
        until("the door is closed", || {
            UnixStream::connect(room.at("run/relay.sock")).is_err()
        });
        gate.open();
        let answer = client.read().unwrap();
        assert_eq!(content(&answer)["status"], "ok", "{answer}");
        assert!(client.read().is_none());
        assert_eq!(relay.wait().unwrap().code(), Some(0));
        assert_eq!(requests(room), (1, 1));
        assert_eq!(room.records().last().unwrap()["event"], "stop");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_the_ca_is_judging_is_judged_and_carried_out_before_the_end() {
    let ca = Facts::generous();
    ca.slow_ms.store(1500, Ordering::SeqCst);
    let facts = Arc::clone(&ca);
    with(Manner::Says("done".into()), &ca, "drain_s = 60", move |room| {
        let mut relay = serve(room);
        let mut client = change(room);
        until("the CA is asked", || !facts.authorized.lock().unwrap().is_empty());
        term(&relay);
        let answer = client.read().unwrap();
        assert_eq!(content(&answer)["status"], "ok", "{answer}");
        assert_eq!(relay.wait().unwrap().code(), Some(0));
        assert_eq!(requests(room), (1, 1));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_which_the_ca_was_not_asked_before_the_stop_is_not_sent() {
    let ca = Facts::generous();
    let facts = Arc::clone(&ca);
    // The connection takes its time, and then the CA would be asked.
    with(Manner::HangsUp(4), &ca, "drain_s = 60", move |room| {
        let mut relay = serve(room);
        let mut client = change(room);
        std::thread::sleep(Duration::from_millis(200));
        term(&relay);
        let answer = client.read().unwrap();
        let said = content(&answer);
        assert_eq!(
            (&said["code"], &said["retryable"]),
            (&json!("stopping"), &json!(true)),
            "{said}"
        );
        assert_eq!(relay.wait().unwrap().code(), Some(0));
        assert!(facts.authorized.lock().unwrap().is_empty());
        let (begun, ended) = requests(room);
        assert_eq!(begun, ended);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_that_does_not_end_in_time_is_unknown_and_asked_for_by_the_next_relay() {
    with(Manner::Mute, &Facts::generous(), "drain_s = 1", |room| {
        let mut relay = serve(room);
        let mut client = change(room);
        until("it is recorded", || requests(room).0 == 1);
        std::thread::sleep(Duration::from_millis(300));
        term(&relay);
        let answer = client.read().unwrap();
        assert_eq!(content(&answer)["code"], "outcome_unknown", "{answer}");
        assert_eq!(content(&answer)["retryable"], false);
        assert_eq!(relay.wait().unwrap().code(), Some(0));
        assert_eq!(requests(room), (1, 1));
        let stopped = room.records().len();
        assert_eq!(
            room.records().last().unwrap()["event"],
            "stop",
            "nothing is recorded after it"
        );
        let mut relay = serve(room);
        let task = json!({ "task_id": content(&answer)["task_id"] });
        let status = Client::connect(room, 0).call("task_status", &task).unwrap();
        assert_eq!(status["requests"][0]["status"], "unknown", "{status}");
        assert!(
            status["requests"][0]["message"]
                .as_str()
                .unwrap()
                .contains("is asked for it")
        );
        until("its key is made anew to ask", || {
            room.records()[stopped..].iter().any(|record| record["event"] == "open")
        });
        term(&relay);
        assert_eq!(relay.wait().unwrap().code(), Some(0));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_that_do_not_end_in_time_are_ended_and_recorded() {
    with(Manner::Mute, &Facts::generous(), "drain_s = 1", |room| {
        let mut relay = serve(room);
        let mut clients = under_way(room);
        let asked = Instant::now();
        term(&relay);
        for client in &mut clients {
            for _ in 0..CALLS / CLIENTS {
                let answer = client.read().unwrap();
                let said = content(&answer);
                assert!(said["record"].is_u64(), "{answer}");
                assert!(
                    said["message"].as_str().unwrap().contains("the relay was stopped"),
                    "{answer}"
                );
            }
            assert!(client.read().is_none());
        }
        assert_eq!(relay.wait().unwrap().code(), Some(0));
        assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
        assert_eq!(requests(room), (CALLS, CALLS));
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_it_at_once_and_the_next_start_settles_what_was_under_way() {
    with(Manner::Mute, &Facts::generous(), "drain_s = 600", |room| {
        let mut relay = serve(room);
        let mut stranger = Client::connect(room, 99);
        let mut clients = under_way(room);
        term(&relay);
        let until = Instant::now() + Duration::from_secs(10);
        while stranger.call("server_info", &json!({})).unwrap()["code"] != "stopping" {
            assert!(Instant::now() < until, "it does not stop");
        }
        assert!(relay.try_wait().unwrap().is_none());
        let asked = Instant::now();
        term(&relay);
        assert_eq!(relay.wait().unwrap().code(), Some(1), "it did not end as it should");
        assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());
        assert!(clients.iter_mut().all(|client| client.read().is_none()));
        assert_ne!(room.records().last().unwrap()["event"], "stop");
        let mut relay = serve(room);
        assert_eq!(requests(room), (CALLS, CALLS));
        term(&relay);
        assert_eq!(relay.wait().unwrap().code(), Some(0));
    })
    .await;
}
