//! The gate with a clock of its own, and without a target or a client.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;

/// A clock that goes on when it is told to.
#[derive(Clone, Default)]
struct Ticks(Arc<AtomicU64>);

impl Ticks {
    fn pass(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::SeqCst);
    }

    fn clock(&self) -> Clock {
        let ticks = Arc::clone(&self.0);
        Arc::new(move || Duration::from_millis(ticks.load(Ordering::SeqCst)))
    }
}

fn number(number: u32) -> std::num::NonZeroU32 {
    number.try_into().unwrap()
}

fn rate(per_minute: u32, burst: u32) -> Rate {
    Rate {
        per_minute: number(per_minute),
        burst: number(burst),
    }
}

fn person(name: &str) -> PersonName {
    name.parse().unwrap()
}

fn target(name: &str) -> TargetName {
    name.parse().unwrap()
}

/// How many of so many calls are let in.
async fn let_in(gate: &Gate, who: &str, on: Option<&str>, calls: u32) -> u32 {
    let on = on.map(target);
    let mut count = 0;
    for _ in 0..calls {
        count += u32::from(gate.enter(&person(who), on.as_ref()).await.is_ok());
    }
    count
}

#[tokio::test]
async fn a_person_has_a_burst_and_then_so_many_calls_a_minute() {
    let ticks = Ticks::default();
    let limits = Limits {
        person: rate(30, 5),
        ..Limits::default()
    };
    let gate = Gate::new(limits, ticks.clock());
    assert_eq!(let_in(&gate, "alice", None, 20).await, 5);
    let denied = gate.enter(&person("alice"), None).await.err().unwrap();
    assert_eq!(
        denied,
        Denied::Person {
            per_minute: 30,
            wait_s: 2
        }
    );
    assert_eq!(denied.code(), Code::RateLimited);
    assert!(denied.detail().contains("in 2 s"), "{}", denied.detail());
    assert_eq!(let_in(&gate, "bob", None, 20).await, 5, "others are not slowed down");
    ticks.pass(1999);
    assert_eq!(let_in(&gate, "alice", None, 1).await, 0);
    ticks.pass(1);
    assert_eq!(
        let_in(&gate, "alice", None, 9).await,
        1,
        "the wait that was said is the wait"
    );
    let mut taken = 0;
    for _ in 0..60_000 / 7 {
        ticks.pass(7);
        taken += let_in(&gate, "alice", None, 1).await;
    }
    assert!((29..=30).contains(&taken), "{taken} calls in a minute");
    ticks.pass(u64::MAX / 2);
    assert_eq!(
        let_in(&gate, "alice", None, 20).await,
        5,
        "a rest gives a burst and no more"
    );
}

#[tokio::test]
async fn a_target_has_a_rate_of_its_own_for_all_persons_together() {
    let ticks = Ticks::default();
    let limits = Limits {
        target: rate(60, 3),
        person: rate(60, 4),
        ..Limits::default()
    };
    let gate = Gate::new(limits, ticks.clock());
    assert_eq!(let_in(&gate, "alice", Some("web-1"), 2).await, 2);
    assert_eq!(let_in(&gate, "bob", Some("web-1"), 9).await, 1);
    let denied = gate.enter(&person("bob"), Some(&target("web-1"))).await.err().unwrap();
    assert_eq!(
        denied,
        Denied::Target {
            per_minute: 60,
            wait_s: 1
        }
    );
    // What a target refused did not cost its person anything.
    assert_eq!(let_in(&gate, "bob", Some("web-2"), 9).await, 3);
    assert_eq!(let_in(&gate, "alice", None, 9).await, 2);
    ticks.pass(1000);
    assert_eq!(let_in(&gate, "alice", Some("web-1"), 9).await, 1);
}

#[tokio::test]
async fn calls_that_are_taken_back_keep_their_places_and_one_person_never_has_them_all() {
    let limits = Limits {
        person: rate(100_000, 100_000),
        ..Limits::default()
    };
    let gate = Arc::new(Gate::new(limits, Ticks::default().clock()));
    let mut held = Vec::new();
    for _ in 0..64 {
        held.push(gate.enter(&person("alice"), None).await.unwrap());
    }
    let alice = person("alice");
    let mut waiting: Vec<_> = (0..64).map(|_| Box::pin(gate.enter(&alice, None))).collect();
    for one in &mut waiting {
        assert!(futures_are_pending(one.as_mut()).await);
    }
    assert_eq!(gate.enter(&alice, None).await.err(), Some(Denied::Full));
    assert_eq!(let_in(&gate, "bob", None, 128).await, 128, "there is room for others");
    assert_eq!(gate.under_way(), 64);
    held.pop();
    // The first who waits is the first who goes on.
    assert!(futures_are_pending(waiting[1].as_mut()).await);
    held.push(waiting.remove(0).await.unwrap());
    assert_eq!(gate.under_way(), 64);
    // Whoever waits no more has no place.
    waiting.clear();
    drop(held);
    assert_eq!(gate.under_way(), 0);
    assert_eq!(let_in(&gate, "alice", None, 100).await, 100);
}

#[tokio::test]
async fn the_desk_has_places_of_its_own_and_a_bound() {
    let limits = Limits {
        person: rate(100_000, 100_000),
        person_calls: number(1),
        person_waiting: 0,
        ..Limits::default()
    };
    let gate = Gate::new(limits, Ticks::default().clock());
    let alice = person("alice");
    let _call = gate.enter(&alice, None).await.unwrap();
    assert_eq!(gate.enter(&alice, None).await.err(), Some(Denied::Full));
    let mut held = Vec::new();
    for _ in 0..AT_THE_DESK {
        held.push(gate.enter_desk(&alice).await.unwrap());
    }
    assert_eq!(gate.under_way(), 1 + AT_THE_DESK, "they are waited for like any other");
    let mut waiting: Vec<_> = (0..AT_THE_DESK).map(|_| Box::pin(gate.enter_desk(&alice))).collect();
    for one in &mut waiting {
        assert!(futures_are_pending(one.as_mut()).await);
    }
    assert_eq!(gate.enter_desk(&alice).await.err(), Some(Denied::Full));
    held.pop();
    let _place = waiting.remove(0).await.unwrap();
    gate.close();
    assert_eq!(gate.enter_desk(&alice).await.err(), Some(Denied::Stopping));
}

#[tokio::test]
async fn what_has_to_be_done_before_the_end_is_waited_for_and_nothing_begins_after() {
    let gate = Gate::default();
    let working = gate.work().unwrap();
    let mut closed = Box::pin(gate.is_closed());
    assert!(futures_are_pending(closed.as_mut()).await);
    gate.close();
    closed.await;
    assert!(gate.work().is_none());
    let mut empty = Box::pin(gate.empty());
    assert!(futures_are_pending(empty.as_mut()).await);
    drop(working);
    empty.await;
}

#[tokio::test]
async fn a_gate_that_closes_lets_nobody_in_and_is_empty_when_the_last_is_out() {
    let gate = Gate::new(
        Limits {
            person_calls: number(1),
            ..Limits::default()
        },
        Ticks::default().clock(),
    );
    let alice = person("alice");
    let first = gate.enter(&alice, None).await.unwrap();
    let mut second = Box::pin(gate.enter(&alice, None));
    assert!(futures_are_pending(second.as_mut()).await);
    gate.close();
    assert_eq!(second.await.err(), Some(Denied::Stopping), "who waits is told");
    assert_eq!(gate.enter(&alice, None).await.err(), Some(Denied::Stopping));
    assert!(Code::Stopping.retryable());
    let mut empty = Box::pin(gate.empty());
    assert!(futures_are_pending(empty.as_mut()).await);
    drop(first);
    empty.await;
}

/// Whether a future waits when it is asked once.
async fn futures_are_pending<F: Future>(mut future: std::pin::Pin<&mut F>) -> bool {
    std::future::poll_fn(|context| std::task::Poll::Ready(future.as_mut().poll(context).is_pending())).await
}
