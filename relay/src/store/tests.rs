//! What every store does, whatever it is made of; and what this one does when it cannot write.

use audit::ApprovalState;

use super::*;

mod approvals;

fn store() -> Sqlite {
    Sqlite::over(file::nowhere()).unwrap()
}

fn owner(person: &str) -> Owner {
    Owner {
        person: person.parse().unwrap(),
        brain: "claude".parse().unwrap(),
    }
}

fn task(number: u32, person: &str, opened: u64) -> Task {
    Task {
        id: format!("0192e4a0-7f00-7000-8000-{number:012x}").parse().unwrap(),
        owner: owner(person),
        reason: "why".parse().unwrap(),
        opened,
        ends: opened + 100,
        targets: BTreeSet::from(["web-1".parse().unwrap()]),
        closed: false,
    }
}

fn id(number: u32) -> RequestId {
    format!("0192e4a0-7f00-7000-8000-{number:012x}").parse().unwrap()
}

fn request(number: u32, risk: Risk) -> Request {
    Request {
        id: id(number),
        target: "web-1".parse().unwrap(),
        action: "restart_service".parse().unwrap(),
        risk,
        mode: Mode::Run,
        sha256: Digest::of(b"{}"),
        phase: if risk == Risk::Read {
            Phase::Sent
        } else {
            Phase::Recorded
        },
        end: None,
    }
}

#[tokio::test]
async fn a_task_comes_back_as_it_was_kept() {
    let store = store();
    let mut one = task(1, "alice", 7);
    store.open(one.clone(), 7).await.unwrap();
    assert_eq!(store.task(&owner("alice"), &one.id).await, Ok(Some(one.clone())));
    assert_eq!(store.reach(&one.id, &"web-2".parse().unwrap(), 50).await, Ok(true));
    one.targets.insert("web-2".parse().unwrap());
    one.ends = 50;
    assert_eq!(store.task(&owner("alice"), &one.id).await, Ok(Some(one.clone())));
    assert_eq!(store.expire(49).await, Ok(vec![]));
    one.closed = true;
    assert_eq!(store.expire(50).await, Ok(vec![one.clone()]));
    // Whoever was still opening it somewhere learns that it is over.
    assert_eq!(store.reach(&one.id, &"web-3".parse().unwrap(), 50).await, Ok(false));
    assert_eq!(store.task(&owner("alice"), &one.id).await, Ok(Some(one.clone())));
    assert_eq!(store.expire(50).await, Ok(vec![]));
    assert_eq!(store.task(&owner("alice"), &one.id).await, Ok(Some(one)));
}

#[tokio::test]
async fn task_of_other_principal_is_like_unknown() {
    let store = store();
    let one = task(1, "alice", 0);
    store.open(one.clone(), 0).await.unwrap();
    assert!(store.task(&owner("alice"), &one.id).await.unwrap().is_some());
    assert!(store.task(&owner("bob"), &one.id).await.unwrap().is_none());
    assert!(store.close(&owner("bob"), &one.id, 0).await.unwrap().is_none());
    let mut other_brain = owner("alice");
    other_brain.brain = "cursor".parse().unwrap();
    assert!(store.task(&other_brain, &one.id).await.unwrap().is_none());
    assert!(store.places(&other_brain, 0).await.unwrap().is_empty());
    let still = store.task(&owner("alice"), &one.id).await.unwrap().unwrap();
    assert!(still.is_open(0));
}

#[tokio::test]
async fn a_call_joins_the_newest_open_task_on_the_target() {
    let store = store();
    let (web_1, web_2) = ("web-1".parse().unwrap(), "web-2".parse().unwrap());
    for (number, opened) in [(1, 0), (2, 10), (3, 10)] {
        store.open(task(number, "alice", opened), 0).await.unwrap();
    }
    store.reach(&task(1, "alice", 0).id, &web_2, 1000).await.unwrap();
    let alice = owner("alice");
    let newest = async |target, now| store.open_on(&alice, target, now).await.unwrap().map(|task| task.id);
    assert_eq!(newest(&web_1, 20).await, Some(task(3, "alice", 0).id));
    let places = store.places(&alice, 20).await.unwrap();
    assert_eq!(places[&web_1], task(3, "alice", 0).id);
    assert_eq!(places[&web_2], task(1, "alice", 0).id);
    store.close(&alice, &task(3, "alice", 0).id, 20).await.unwrap().unwrap();
    assert_eq!(newest(&web_1, 20).await, Some(task(2, "alice", 0).id));
    assert_eq!(newest(&web_1, 110).await, None);
    assert_eq!(newest(&"web-3".parse().unwrap(), 20).await, None);
    assert_eq!(store.open_on(&owner("bob"), &web_1, 20).await, Ok(None));
}

#[tokio::test]
async fn tasks_and_the_past_are_bounded() {
    let store = store();
    for number in 0..u32::try_from(OPEN_TASKS).unwrap() {
        store.open(task(number, "alice", 0), 0).await.unwrap();
    }
    assert_eq!(store.open(task(999, "alice", 0), 0).await, Err(Error::Full));
    assert_eq!(store.open(task(999, "bob", 0), 0).await, Ok(()));
    assert_eq!(store.expire(100).await.unwrap().len(), OPEN_TASKS + 1);
    assert_eq!(store.open(task(1000, "alice", 100), 100).await, Ok(()));
    // One whose change is unknown outlives the others.
    store
        .begin(&task(0, "alice", 0).id, request(1, Risk::Change), "{}", 100)
        .await
        .unwrap();
    for number in 2000..2000 + u32::try_from(OVER).unwrap() {
        store.open(task(number, "carol", 200), 200).await.unwrap();
        let closed = store.close(&owner("carol"), &task(number, "carol", 0).id, 200).await;
        assert!(closed.unwrap().unwrap().closed);
    }
    for (number, person, there) in [
        (0, "alice", true),
        (1, "alice", false),
        (999, "bob", false),
        (1000, "alice", true),
    ] {
        let found = store.task(&owner(person), &task(number, person, 0).id).await.unwrap();
        assert_eq!(found.is_some(), there, "{number}");
    }
    let kept = (2000..2000 + u32::try_from(OVER).unwrap()).map(|number| task(number, "carol", 0).id);
    let mut over = 0;
    for id in kept {
        over += usize::from(store.task(&owner("carol"), &id).await.unwrap().is_some());
    }
    assert_eq!(over, OVER - 1, "with the one that is not forgotten");
}

#[tokio::test]
async fn requests_are_bounded_and_what_is_not_settled_is_never_among_the_forgotten() {
    let store = store();
    let one = task(1, "alice", 0);
    store.open(one.clone(), 0).await.unwrap();
    store.begin(&one.id, request(0, Risk::Change), "{}", 0).await.unwrap();
    for number in 1..1000 {
        store
            .begin(&one.id, request(number, Risk::Read), "{}", 0)
            .await
            .unwrap();
        store.settle(&one.id, &id(number), Status::Ok, None).await.unwrap();
    }
    let kept = store.requests(&one.id).await.unwrap();
    assert_eq!(kept.len(), REQUESTS);
    assert_eq!((&kept[0].id, &kept[1].id), (&id(0), &id(1000 - 255)));
    for number in 1000..1255 {
        store
            .begin(&one.id, request(number, Risk::Read), "{}", 0)
            .await
            .unwrap();
    }
    let full = store.begin(&one.id, request(1255, Risk::Read), "{}", 0).await;
    assert_eq!(full, Err(Error::Full), "all of them are under way");
    assert_eq!(store.unsettled().await.unwrap().len(), REQUESTS);
}

#[tokio::test]
async fn a_change_keeps_its_bytes_until_it_is_known_what_became_of_it() {
    let store = store();
    let one = task(1, "alice", 0);
    store.open(one.clone(), 0).await.unwrap();
    let left = async || store.unsettled().await.unwrap();
    store
        .begin(&one.id, request(1, Risk::Destroy), "bytes", 5)
        .await
        .unwrap();
    let begun = Unsettled {
        task: one.clone(),
        request: request(1, Risk::Destroy),
        payload: Some("bytes".to_owned()),
        begun: 5,
    };
    assert_eq!(left().await, [begun]);
    store.sent(&one.id, &id(1)).await.unwrap();
    store
        .settle(&one.id, &id(1), Status::Unknown, Some(Code::OutcomeUnknown))
        .await
        .unwrap();
    let unknown = left().await;
    assert_eq!(unknown[0].payload.as_deref(), Some("bytes"));
    assert_eq!(unknown[0].request.phase, Phase::Sent);
    assert_eq!(
        unknown[0].request.end,
        Some((Status::Unknown, Some(Code::OutcomeUnknown)))
    );
    store.settle(&one.id, &id(1), Status::Ok, None).await.unwrap();
    assert!(left().await.is_empty());
    // Of two answers the first counts, and what is settled is never sent again.
    store.settle(&one.id, &id(1), Status::Failed, None).await.unwrap();
    assert_eq!(store.requests(&one.id).await.unwrap()[0].end, Some((Status::Ok, None)));
    assert!(store.sent(&one.id, &id(1)).await.is_err());

    // What nobody will ever know is unknown, and is not asked for.
    store
        .begin(&one.id, request(3, Risk::Change), "bytes", 5)
        .await
        .unwrap();
    store.sent(&one.id, &id(3)).await.unwrap();
    store.give_up(&one.id, &id(3)).await.unwrap();
    assert_eq!(left().await.len(), 1, "it has no end to stay with");
    store
        .settle(&one.id, &id(3), Status::Unknown, Some(Code::OutcomeUnknown))
        .await
        .unwrap();
    store.give_up(&one.id, &id(3)).await.unwrap();
    assert!(left().await.is_empty());
    let end = store.requests(&one.id).await.unwrap()[1].end;
    assert_eq!(end, Some((Status::Unknown, Some(Code::OutcomeUnknown))));

    // A read's bytes are not kept, and nobody asks again for what it would have said.
    store.begin(&one.id, request(2, Risk::Read), "bytes", 5).await.unwrap();
    assert_eq!(left().await[0].payload, None);
    store
        .settle(&one.id, &id(2), Status::Unknown, Some(Code::OutcomeUnknown))
        .await
        .unwrap();
    assert!(left().await.is_empty());
}

#[tokio::test]
async fn what_was_unknown_for_a_day_is_settled_as_that() {
    let store = store();
    let one = task(1, "alice", 0);
    store.open(one.clone(), 0).await.unwrap();
    for number in [1, 2] {
        store
            .begin(&one.id, request(number, Risk::Change), "{}", 10)
            .await
            .unwrap();
        store.sent(&one.id, &id(number)).await.unwrap();
    }
    store.settle(&one.id, &id(1), Status::Unknown, None).await.unwrap();
    store.expire(10 + ASKABLE_S).await.unwrap();
    assert_eq!(store.unsettled().await.unwrap().len(), 2);
    store.expire(11 + ASKABLE_S).await.unwrap();
    let left = store.unsettled().await.unwrap();
    assert_eq!(left.len(), 1, "what is under way has no end yet");
    assert_eq!(left[0].request.id, id(2));
    let settled = &store.requests(&one.id).await.unwrap()[0];
    assert_eq!(
        (settled.phase, settled.end),
        (Phase::Settled, Some((Status::Unknown, None)))
    );
}

#[tokio::test]
async fn the_same_request_begins_once() {
    let store = store();
    let one = task(1, "alice", 0);
    store.open(one.clone(), 0).await.unwrap();
    store
        .begin(&one.id, request(1, Risk::Change), "first", 0)
        .await
        .unwrap();
    assert!(
        store
            .begin(&one.id, request(1, Risk::Change), "second", 0)
            .await
            .is_err()
    );
    assert_eq!(store.unsettled().await.unwrap()[0].payload.as_deref(), Some("first"));
    let of_no_task = store
        .begin(&task(2, "alice", 0).id, request(1, Risk::Read), "{}", 0)
        .await;
    assert!(matches!(of_no_task, Err(Error::Unavailable(_))));
}

#[tokio::test]
async fn what_has_no_room_is_refused_and_is_taken_again_once_there_is_some() {
    let store = store();
    let one = task(1, "alice", 0);
    store.open(one.clone(), 0).await.unwrap();
    // A full disk, as SQLite knows one of its own: no page more than there is.
    store.have(|kept| kept.limit(1)).await.unwrap();
    let bytes = "x".repeat(60_000);
    let refused = store.begin(&one.id, request(1, Risk::Change), &bytes, 0).await;
    assert_eq!(refused.unwrap_err().code(), Code::StoreUnavailable);
    assert!(
        store.requests(&one.id).await.unwrap().is_empty(),
        "whole or not at all, and it can be read"
    );
    store.have(|kept| kept.limit(u32::MAX - 1)).await.unwrap();
    store.begin(&one.id, request(1, Risk::Change), &bytes, 0).await.unwrap();
}

#[tokio::test]
async fn an_end_that_could_not_be_written_is_owed_and_nothing_else_is_answered_before() {
    let store = store();
    let one = task(1, "alice", 0);
    store.open(one.clone(), 0).await.unwrap();
    store.begin(&one.id, request(1, Risk::Read), "{}", 0).await.unwrap();
    store.have(|kept| kept.read_only(true)).await.unwrap();
    assert!(store.settle(&one.id, &id(1), Status::Ok, None).await.is_err());
    assert!(
        store.requests(&one.id).await.is_err(),
        "it would say that the request is under way"
    );
    store.have(|kept| kept.read_only(false)).await.unwrap();
    assert_eq!(store.requests(&one.id).await.unwrap()[0].end, Some((Status::Ok, None)));
}

#[tokio::test]
async fn what_was_asked_for_is_done_when_nobody_waits_and_is_there_when_the_file_is_opened_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.sqlite");
    let store = Sqlite::open(&path).unwrap();
    let one = task(1, "alice", 0);
    {
        let open = store.open(one.clone(), 0);
        let begin = store.begin(&one.id, request(1, Risk::Change), "{}", 0);
        open.await.unwrap();
        tokio::select! {
            biased;
            _ = begin => {}
            () = std::future::ready(()) => {}
        }
    }
    drop(store);
    let store = Sqlite::open(&path).unwrap();
    assert_eq!(store.task(&one.owner, &one.id).await, Ok(Some(one.clone())));
    assert_eq!(store.unsettled().await.unwrap().len(), 1);
}
