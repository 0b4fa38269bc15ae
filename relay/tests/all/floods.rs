//! Clients that want more than there is: the bounds hold, the Code says so, and others are served.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use relay::limits::{Limits, Rate};
use serde_json::{Value, json};

use crate::binary::Room;
use crate::kills;
use crate::target::Manner;
use crate::world::{ALICE, BOB, NOBODY, World};

fn number(number: u32) -> NonZeroU32 {
    number.try_into().unwrap()
}

/// A world with these rates and a clock that stands until it is set.
async fn world(person: (u32, u32), target: (u32, u32)) -> (World, Arc<AtomicU64>) {
    let mut world = World::new(Manner::Says("text".into())).await;
    let rate = |(per_minute, burst)| Rate {
        per_minute: number(per_minute),
        burst: number(burst),
    };
    let limits = Limits {
        person: rate(person),
        target: rate(target),
        ..Limits::default()
    };
    let seconds = Arc::new(AtomicU64::new(0));
    let clock = Arc::clone(&seconds);
    world.limit(
        limits,
        Arc::new(move || Duration::from_secs(clock.load(Ordering::SeqCst))),
    );
    (world, seconds)
}

fn refused(world: &World) -> Vec<Value> {
    let of = |record: &Value| record["event"] == "refused";
    world.records().into_iter().filter(of).collect()
}

#[tokio::test]
async fn a_person_who_calls_too_fast_is_rate_limited_and_does_not_fill_the_log() {
    let (world, seconds) = world((60, 10), (600, 600)).await;
    let (mut alice, mut bob) = (world.client(ALICE).await, world.client(BOB).await);
    let mut other = world.client(ALICE).await;
    for _ in 0..5 {
        assert!(!alice.call("list_targets", json!({})).await.1);
        // What is refused for another reason counts too: each of these is a record.
        assert_eq!(other.call("tail_log", json!({})).await.0["code"], "arguments_invalid");
    }
    let before = world.records().len();
    for _ in 0..50 {
        for (client, tool) in [(&mut alice, "list_targets"), (&mut other, "tail_log")] {
            let (said, is_error) = client.call(tool, json!({})).await;
            assert!(is_error);
            assert_eq!(
                (&said["code"], &said["retryable"]),
                (&json!("rate_limited"), &json!(true)),
                "{said}"
            );
            assert!(said["message"].as_str().unwrap().contains("in 1 s"), "{said}");
        }
    }
    assert_eq!(world.records().len(), before + 1, "one record for a hundred refusals");
    assert!(!bob.call("list_targets", json!({})).await.1, "others are served");
    seconds.store(60, Ordering::SeqCst);
    for _ in 0..10 {
        assert!(!alice.call("list_targets", json!({})).await.1);
    }
    assert!(alice.call("list_targets", json!({})).await.1);
    let counted = refused(&world);
    let counts: Vec<_> = counted.iter().filter_map(|record| record["count"].as_u64()).collect();
    assert_eq!(counts, [1, 100], "{counted:?}");
    let last = counted.last().unwrap();
    assert_eq!(
        (&last["code"], &last["requester"]["person"]),
        (&json!("rate_limited"), &json!("alice"))
    );
}

#[tokio::test]
async fn a_target_that_is_asked_too_often_is_left_alone() {
    let (world, seconds) = world((600, 600), (6, 3)).await;
    let (mut alice, mut bob) = (world.client(ALICE).await, world.client(BOB).await);
    let tail = |target: &str| json!({ "target": target, "path": "/var/log/x.log", "reason": "why" });
    assert_eq!(alice.call("tail_log", tail("web-1")).await.0["status"], "ok");
    for client in [&mut alice, &mut bob] {
        assert_eq!(client.call("tail_log", tail("web-1")).await.0["status"], "ok");
    }
    for client in [&mut alice, &mut bob] {
        let (said, _) = client.call("tail_log", tail("web-1")).await;
        assert_eq!(
            (&said["code"], &said["record"].is_u64()),
            (&json!("rate_limited"), &true),
            "{said}"
        );
        assert!(said["message"].as_str().unwrap().contains("in 10 s"), "{said}");
    }
    assert_eq!(world.seen.requests.lock().unwrap().len(), 3);
    for name in 0..100 {
        let (said, _) = alice.call("tail_log", tail(&format!("nowhere-{name}"))).await;
        assert_eq!(said["code"], "unknown_target", "{said}");
    }
    seconds.store(10, Ordering::SeqCst);
    assert_eq!(bob.call("tail_log", tail("web-1")).await.0["status"], "ok");
    assert_eq!(alice.call("tail_log", tail("web-1")).await.0["code"], "rate_limited");
    // What was counted and is due is recorded by the clock alone.
    seconds.store(70, Ordering::SeqCst);
    let before = refused(&world).len();
    world.relay.record_repeats(false).await;
    let counted = refused(&world);
    assert_eq!(counted.len(), before + 1, "{counted:?}");
    assert_eq!(counted.last().unwrap()["count"], 1);
}

#[tokio::test]
async fn calls_that_are_taken_back_stay_counted_and_others_have_their_places() {
    let world = World::new(Manner::Mute).await;
    let (mut alice, mut bob) = (world.client(ALICE).await, world.client(BOB).await);
    let opened = alice
        .call("open_task", json!({ "reason": "why", "targets": ["web-1"] }))
        .await;
    assert!(!opened.1, "{}", opened.0);
    let arguments = json!({ "target": "web-1", "path": "/var/log/x.log" });
    for id in 1000..1128 {
        let params = json!({ "name": "tail_log", "arguments": arguments });
        alice
            .send(json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string())
            .await;
        let params = json!({ "requestId": id, "reason": "changed its mind" });
        alice
            .send(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params }).to_string())
            .await;
    }
    // The connection is free again; the person is not.
    let another = json!({ "reason": "why", "targets": ["web-1"] });
    let (said, _) = alice.call("open_task", another.clone()).await;
    assert_eq!(said["code"], "capacity", "{said}");
    assert!(world.relay.gate.under_way() <= 64);
    let mut second = world.client(ALICE).await;
    assert_eq!(second.call("open_task", another).await.0["code"], "capacity");
    // What touches no target has places of its own: the way out is never closed.
    let task = json!({ "task_id": opened.0["task_id"] });
    for (tool, arguments) in [
        ("list_targets", json!({})),
        ("server_info", json!({})),
        ("task_status", task.clone()),
        ("close_task", task),
    ] {
        let (said, is_error) = second.call(tool, arguments).await;
        assert!(!is_error, "{tool}: {said}");
    }
    for _ in 0..100 {
        assert!(!bob.call("list_targets", json!({})).await.1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_strangers_is_counted_without_a_turn_at_the_log() {
    let world = World::new(Manner::Says("text".into())).await;
    let mut first = world.client(NOBODY).await;
    assert_eq!(first.call("list_targets", json!({})).await.0["code"], "person_unmapped");
    let lock = world.log_folder().with_file_name("state").join("log.lock");
    let lock = std::fs::File::options().write(true).open(lock).unwrap();
    lock.lock().unwrap();
    let began = std::time::Instant::now();
    for _ in 0..4 {
        let mut stranger = world.client(NOBODY).await;
        for _ in 0..50 {
            let (said, _) = stranger.call("list_targets", json!({})).await;
            assert_eq!(said["code"], "person_unmapped", "{said}");
        }
        stranger.send("no message").await;
        assert_eq!(
            stranger.read().await.unwrap()["error"]["data"]["code"],
            "line_malformed"
        );
    }
    // A write would have waited five seconds for the lock.
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    lock.unlock().unwrap();
    world.relay.record_repeats(true).await;
    let counts: Vec<_> = world
        .records()
        .iter()
        .filter(|record| record["event"] == "strangers")
        .map(|record| record["count"].as_u64().unwrap())
        .collect();
    assert_eq!(counts, [1, 204], "and none is lost");
}

#[tokio::test]
async fn a_client_that_never_begins_keeps_no_place() {
    let world = World::new(Manner::Mute).await;
    let mut begun = world.client(ALICE).await;
    let mut silent = world.raw(ALICE);
    let gone = tokio::time::timeout(Duration::from_secs(40), silent.read()).await;
    assert_eq!(gone.unwrap(), None, "it is told to go");
    assert!(
        !begun.call("list_targets", json!({})).await.1,
        "who has begun may be silent"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_account_has_so_many_connections_and_the_next_is_told_so() {
    let room = kills::room(Manner::Mute, crate::ca::Facts::generous()).await;
    room.limit("uid_connections = 3");
    tokio::task::spawn_blocking(move || connections(&room)).await.unwrap();
}

fn connections(room: &Room) {
    let mut relay = kills::serve(room);
    let mut clients: Vec<_> = (0..3).map(|number| kills::Client::connect(room, number)).collect();
    let said = kills::Client::raw(room).read().unwrap();
    assert_eq!(said["error"]["data"]["code"], "capacity", "{said}");
    let turned_away = room.records().pop().unwrap();
    assert_eq!(
        (&turned_away["event"], &turned_away["code"], &turned_away["count"]),
        (&json!("strangers"), &json!("capacity"), &json!(1))
    );
    assert!(clients[0].call("list_targets", &json!({})).is_some());
    clients.pop();
    let until = std::time::Instant::now() + Duration::from_secs(10);
    let mut again = kills::Client::raw(room);
    let params =
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "c", "version": "1" } });
    // The relay has to see that the other one left.
    while again
        .ask("initialize", &params)
        .is_none_or(|answer| answer["error"].is_object())
    {
        assert!(std::time::Instant::now() < until, "a place that was left is free");
        again = kills::Client::raw(room);
    }
    relay.kill().unwrap();
    relay.wait().unwrap();
}
