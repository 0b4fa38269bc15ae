//! Too much of what is allowed, and too much of what is not: refused, told when to come back, and no way to fill the disk.

use std::sync::atomic::Ordering;

use audit::{Event, Record};
use wire::Code;

use crate::room::{Room, Running, code_of, key, open, renewal};
use crate::stand::{Stand, bytes};

fn refusals(running: &Running) -> Vec<Record> {
    let records = running.records().into_iter();
    records.filter(|record| record.draft.event == Event::Refused).collect()
}

/// REQ-CARPC-22
#[tokio::test(flavor = "multi_thread")]
async fn quota_exceeded_by_a_relay_is_refused_until_there_is_room_again() {
    let mut room = Room::new();
    room.config.relays[0].calls_per_minute = 2;
    let running = room.serve().await;
    let call = open(1);
    running.open(&call).await.unwrap();
    running.renew(&renewal(&call)).await.unwrap();
    let before = running.records().len();
    // Every call that could mint, and those that would be refused for something else.
    let mut unmapped = open(2);
    unmapped.person = "mallory".into();
    for status in [
        running.open(&open(2)).await.map(drop),
        running.renew(&renewal(&call)).await.map(drop),
        running.open(&unmapped).await.map(drop),
    ] {
        let status = status.unwrap_err();
        assert_eq!(code_of(&status), Code::RateLimited);
        assert_eq!(status.code(), tonic::Code::Unavailable, "asking again later can help");
        assert!(
            status.message().contains("relay-1 has 2 calls a minute"),
            "{}",
            status.message()
        );
        let (_, wait) = status.message().rsplit_once(" in ").unwrap();
        let wait: u64 = wait.trim_end_matches(" s").parse().unwrap();
        assert!((1..=30).contains(&wait), "{}", status.message());
    }
    assert!(
        !running.events()[before..].contains(&Event::Issue),
        "nothing was signed"
    );
    room.ahead.store(31, Ordering::SeqCst);
    running.renew(&renewal(&call)).await.unwrap();
    let status = running.open(&open(3)).await.unwrap_err();
    assert_eq!(code_of(&status), Code::RateLimited);
    running.stop().await;
}

/// REQ-CARPC-22
#[tokio::test(flavor = "multi_thread")]
async fn quota_exceeded_by_a_person_is_said_of_requests_too() {
    let stand = Stand::new()
        .await
        .again(|room| room.config.relays[0].person_calls_per_minute = 3)
        .await;
    for _ in 0..3 {
        stand.ask(&stand.count()).await.unwrap();
    }
    let call = stand.asking(bytes(&stand.count()));
    let record = stand.running.refuses_authorize(&call, Code::RateLimited).await;
    assert_eq!(record.draft.count, Some(1));
    assert_eq!(record.draft.requester.unwrap().person.as_str(), "alice");
    assert!(record.draft.message.unwrap().contains("alice has 3 calls a minute"));
    stand.stop().await;
}

/// REQ-RECORD-20, REQ-CARPC-22
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_over_the_quota_is_one_record_a_minute() {
    let mut room = Room::new();
    room.config.relays[0].calls_per_minute = 1;
    let running = room.serve().await;
    running.open(&open(1)).await.unwrap();
    for _ in 0..500 {
        let status = running.open(&open(1)).await.unwrap_err();
        assert_eq!(code_of(&status), Code::RateLimited);
    }
    let counted = |running: &Running| {
        refusals(running)
            .iter()
            .map(|r| r.draft.count.unwrap())
            .collect::<Vec<_>>()
    };
    assert_eq!(counted(&running), [1]);
    room.ahead.store(61, Ordering::SeqCst);
    running.open(&open(1)).await.unwrap();
    running.open(&open(1)).await.unwrap_err();
    assert_eq!(
        counted(&running),
        [1, 500],
        "those of the minute, and the one that is told now"
    );
    running.open(&open(1)).await.unwrap_err();
    let log_dir = room.config.log_dir.clone();
    running.stop().await;
    let last = crate::room::records(&log_dir);
    let last: Vec<_> = last.iter().filter_map(|record| record.draft.count).collect();
    assert_eq!(last, [1, 500, 1], "a stop loses none");
}

/// REQ-RECORD-20
#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_refusals_is_counted_when_there_are_too_many() {
    let mut room = Room::with_policy("");
    room.config.relays[0].refusals_per_minute = 30;
    let running = room.serve().await;
    let flood = 230;
    for n in 0..flood {
        let mut call = open(1);
        if n % 2 == 1 {
            call.person = format!("nobody-{n}");
        }
        let status = running.open(&call).await.unwrap_err();
        assert_ne!(
            code_of(&status),
            Code::RateLimited,
            "what is wrong is said, also when it is not recorded alone"
        );
    }
    let found = refusals(&running);
    let alone = found.iter().filter(|record| record.draft.count.is_none()).count();
    assert_eq!(alone, 30);
    assert_eq!(
        found.len(),
        32,
        "one more for each Code, however many names were made up"
    );
    let log_dir = room.config.log_dir.clone();
    running.stop().await;
    let last = crate::room::records(&log_dir);
    let counted: u64 = last.iter().filter_map(|record| record.draft.count).sum();
    assert_eq!(alone as u64 + counted, flood, "none is lost");
}

/// REQ-CARPC-22
#[tokio::test(flavor = "multi_thread")]
async fn one_relays_flood_leaves_the_others_their_quota() {
    let mut room = Room::new();
    let relays = &mut room.config.relays;
    relays[0].calls_per_minute = 1;
    relays[1].calls_per_minute = 1;
    let running = room.serve().await;
    let mut call = open(1);
    running.open(&call).await.unwrap();
    running.open(&call).await.unwrap_err();
    running.stop().await;
    // The same account is the other relay now: its quota is its own, and a restart begins with all of it.
    let [first, second, ..] = &mut room.config.relays[..] else {
        panic!("two relays")
    };
    std::mem::swap(&mut first.known_by, &mut second.known_by);
    let running = room.serve().await;
    call.person = "bob".into();
    call.task_id = open(1).task_id;
    call.public_key = key(3).public().to_openssh();
    running.open(&call).await.unwrap();
    running.open(&call).await.unwrap_err();
    running.stop().await;
}

/// One person asks without an end, and so does one whom nobody knows: another person is served as if they were not there.
/// REQ-CARPC-22
#[tokio::test(flavor = "multi_thread")]
async fn one_persons_flood_leaves_the_others_of_the_relay_their_quota() {
    let mut room = Room::new();
    let relay = &mut room.config.relays[0];
    relay.persons.insert("bob".parse().unwrap());
    (relay.calls_per_minute, relay.person_calls_per_minute) = (12, 4);
    let running = room.serve().await;
    let mut refused = 0;
    for person in ["alice", "mallory"] {
        for _ in 0..60 {
            let mut call = open(1);
            call.person = person.into();
            refused += u32::from(running.open(&call).await.is_err());
        }
    }
    assert_eq!(refused, 2 * 60 - 4, "alice has hers, and no more");
    let mut call = open(2);
    call.person = "bob".into();
    for n in 0..4 {
        let served = running.open(&call).await;
        assert!(served.is_ok(), "bob's call {n}: {:?}", served.unwrap_err());
        call.task_id = open(2).task_id;
    }
    assert_eq!(code_of(&running.open(&call).await.unwrap_err()), Code::RateLimited);
    // What the relay has for all is counted all the same.
    relay_is_bounded(&running).await;
    running.stop().await;
}

/// Calls that are nobody's in particular use up what the relay has.
async fn relay_is_bounded(running: &Running) {
    let unknown = renewal(&open(3));
    let mut codes = Vec::new();
    while codes.last() != Some(&Code::RateLimited) && codes.len() < 20 {
        codes.push(code_of(&running.renew(&unknown).await.unwrap_err()));
    }
    assert!((4..=6).contains(&codes.len()), "{codes:?}");
}
