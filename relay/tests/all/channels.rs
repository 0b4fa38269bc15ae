//! A channel that is no good, beside others that are: it costs nobody anything that had not left.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use relay::seats::BOUNDS;
use relay::session::{Bounds, Error};
use serde_json::json;
use wire::Code;

use crate::sessions::{Far, SOON, ask, request, until};
use crate::target::Manner;
use crate::world::{ALICE, World, tail};

fn restart() -> serde_json::Value {
    json!({ "action": "restart", "target": "web-1", "reason": "why" })
}

/// REQ-SESSION-25
#[tokio::test]
async fn a_change_whose_channel_goes_before_its_hello_goes_out_on_another_connection() {
    for manner in [Manner::Dies(2), Manner::IsSilent(2)] {
        let world = World::new(manner.clone()).await;
        let mut client = world.client(ALICE).await;
        let (read, is_error) = client.call("tail_log", tail()).await;
        assert!(!is_error, "{read}");
        // Somebody else has the first channel, which is good.
        let task = read["task_id"].as_str().unwrap().parse().unwrap();
        let connection = world.relay.seats.of(&task)[0].connection().unwrap();
        let first = connection.session(SOON).await.unwrap();
        first.greeted().await.unwrap();
        let (said, is_error) = client.call("run_action", restart()).await;
        assert!(!is_error, "{manner:?}: nothing of it had left: {said}");
        let requests = world.seen.requests.lock().unwrap().clone();
        assert_eq!(requests.len(), 2, "{manner:?}: it left once");
        assert_eq!(world.seen.connections.load(Ordering::SeqCst), 2);
        assert!(!connection.is_alive(), "{manner:?}: nobody else is sent that way");
        drop(first);
    }
}

/// REQ-SESSION-25
#[tokio::test]
async fn whoever_finds_a_connection_with_such_a_channel_asks_on_another() {
    let far = Far::new(Manner::Dies(2)).await;
    let connection = far.connect(BOUNDS).await.unwrap();
    let first = connection.session(SOON).await.unwrap();
    first.greeted().await.unwrap();
    let second = connection.session(SOON).await.unwrap();
    let error = second.greeted().await.unwrap_err();
    assert!(matches!(error, Error::NotSent(_)), "{error}");
    let error = connection.session(SOON).await.unwrap_err();
    assert!(matches!(error, Error::NotSent(_)), "{error}");
    assert!(!connection.is_alive());
    ask(&first, 1).await.unwrap();
    assert_eq!(far.count(), (1, 2), "what is under way goes on");
}

/// REQ-SESSION-25
#[tokio::test]
async fn the_first_channel_of_a_connection_speaks_for_the_target() {
    let world = World::new(Manner::Dies(1)).await;
    let (said, _) = world.client(ALICE).await.call("run_action", restart()).await;
    assert_eq!(said["code"], "unreachable", "{said}");
    assert_eq!(world.seen.connections.load(Ordering::SeqCst), 1);
    assert!(world.seen.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_connection_of_which_somebody_learns_that_it_is_no_good_ends_at_once() {
    let far = Far::new(Manner::RefusesCertificate(Code::CertificateRevoked)).await;
    let connection = far.connect(BOUNDS).await.unwrap();
    until("the certificate is refused", || !connection.is_alive()).await;
    let error = connection.session(SOON).await.unwrap_err();
    assert!(matches!(error, Error::LineRefused(Code::CertificateRevoked)), "{error}");
    until("sshd sees its end", || far.seen.open.load(Ordering::SeqCst) == 0).await;
}

/// REQ-SESSION-15
#[tokio::test]
async fn whoever_asks_after_a_hello_that_does_not_hold_is_told_why() {
    let far = Far::new(Manner::ForgesHello).await;
    let connection = far.connect(BOUNDS).await.unwrap();
    let session = connection.session(SOON).await.unwrap();
    let error = session.greeted().await.unwrap_err();
    assert!(matches!(error, Error::Receipt(_)), "{error}");
    let error = session.ask(&[request(1)], SOON).await.unwrap_err();
    assert!(matches!(error, Error::Receipt(_)), "{error}");
    // One that only went says nothing of the target: what did not leave can leave elsewhere.
    let far = Far::new(Manner::Dies(1)).await;
    let connection = far.connect(BOUNDS).await.unwrap();
    let session = connection.session(SOON).await.unwrap();
    let error = session.greeted().await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
    let error = session.ask(&[request(1)], SOON).await.unwrap_err();
    assert!(matches!(error, Error::NotSent(_)), "{error}");
}

/// REQ-SESSION-15
#[tokio::test]
async fn a_connection_whose_hello_did_not_hold_stays_unused_when_its_channel_is_forgotten() {
    let far = Far::new(Manner::ForgesHello).await;
    // While it is used its keeper looks again each time that this is over.
    let bounds = Bounds {
        connection_idle: Duration::from_millis(50),
        ..BOUNDS
    };
    let connection = far.connect(bounds).await.unwrap();
    let _in_use = connection.in_use();
    assert_eq!(connection.ahead_s().await, None);
    let begun = Instant::now();
    while begun.elapsed() < bounds.connection_idle * 10 {
        assert!(!connection.is_alive(), "after {:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let error = connection.session(SOON).await.unwrap_err();
    assert!(matches!(error, Error::NotSent(_)), "{error}");
    assert_eq!(far.count(), (1, 1), "no other channel of it");
}

#[tokio::test]
async fn a_session_that_the_target_gives_up_is_over_and_its_connection_is_not() {
    let far = Far::new(Manner::GivesUpOnce).await;
    let connection = far.connect(BOUNDS).await.unwrap();
    let session = connection.session(SOON).await.unwrap();
    let begun = Instant::now();
    let error = ask(&session, 1).await.unwrap_err();
    assert!(matches!(error, Error::NoAnswer(_)), "{error}");
    assert!(begun.elapsed() < SOON / 2, "at once");
    drop(session);
    ask(&connection.session(SOON).await.unwrap(), 2).await.unwrap();
    assert_eq!(far.count(), (1, 2));
}

#[tokio::test]
async fn why_a_certificate_was_refused_is_not_forgotten_when_the_target_waits_no_longer_for_another() {
    let far = Far::new(Manner::GivesUpWaiting(Code::CertificateRevoked)).await;
    let connection = far.connect(BOUNDS).await.unwrap();
    until("the certificate is refused", || !connection.is_alive()).await;
    let error = connection.session(SOON).await.unwrap_err();
    assert!(matches!(error, Error::LineRefused(Code::CertificateRevoked)), "{error}");
}

/// REQ-SESSION-24
#[tokio::test]
async fn a_connection_is_not_closed_under_somebody_whose_channel_is_being_opened() {
    let far = Far::new(Manner::OpensSlowly(600)).await;
    let bounds = Bounds {
        connection_idle: Duration::from_millis(100),
        ..BOUNDS
    };
    let connection = far.connect(bounds).await.unwrap();
    let first = connection.session(SOON).await.unwrap();
    first.greeted().await.unwrap();
    let second = connection.session(SOON);
    tokio::pin!(second);
    let early = tokio::time::timeout(Duration::from_millis(50), &mut second).await;
    assert!(early.is_err(), "it is on its way");
    drop(first);
    ask(&second.await.unwrap(), 1).await.unwrap();
    assert_eq!(far.count(), (1, 2));
}

#[tokio::test]
async fn a_channel_that_takes_no_byte_is_given_up() {
    let far = Far::new(Manner::TakesNothing).await;
    let error = far.connect(BOUNDS).await.unwrap_err();
    assert!(error.to_string().contains("no channel within 5 s"), "{error}");
}
