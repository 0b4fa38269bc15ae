//! What every store does with approvals.

use super::*;

fn frozen(number: u32, target: &str) -> Frozen {
    let payload = format!("{{\"n\":{number}}}");
    Frozen {
        request: id(number),
        target: target.parse().unwrap(),
        sha256: Digest::of(payload.as_bytes()),
        payload: Some(payload),
        step: Step::Kept,
    }
}

fn approval(number: u32, asked: u64, on: Vec<Frozen>) -> Approval {
    let task = task(1, "alice", 0);
    Approval {
        id: format!("0192e4a0-7f00-7000-9000-{number:012x}").parse().unwrap(),
        task: task.id,
        owner: task.owner,
        reason: task.reason,
        action: "drain".parse().unwrap(),
        mode: Mode::Run,
        same: Digest::of(&number.to_le_bytes()),
        state: ApprovalState::Waiting,
        needed: 1,
        asked,
        ends: asked + 600,
        since: asked,
        open: true,
        told: false,
        on,
        signed: Vec::new(),
    }
}

fn signed(seed: u8) -> Signed {
    let key = openssh::key::SigningKey::from_seed(&zeroize::Zeroizing::new([seed; 32])).unwrap();
    Signed {
        fingerprint: wire::ids::Fingerprint::of(key.public()),
        sig: "AAAA".to_owned(),
        at: 10,
    }
}

async fn open_store() -> Sqlite {
    let store = store();
    Store::open(&store, task(1, "alice", 0), 0).await.unwrap();
    store
}

/// REQ-ASK-9
#[tokio::test]
async fn an_approval_of_one_target_or_of_256_comes_back_as_it_was_kept() {
    let store = open_store().await;
    for (number, count) in [(1, 1), (2, 256)] {
        let on = (0..count)
            .map(|at| frozen(1000 * number + at, &format!("web-{at:03}")))
            .collect();
        let mut kept = approval(number, 5, on);
        store.ask(kept.clone()).await.unwrap();
        assert_eq!(store.find(&kept.id).await, Ok(Some(kept.clone())));
        store.sign(&kept.id, signed(1), ApprovalState::Approved).await.unwrap();
        (kept.state, kept.since) = (ApprovalState::Approved, 10);
        kept.signed.push(signed(1));
        assert_eq!(store.newest(&kept.same).await, Ok(Some(kept.clone())));
        assert!(
            store.sign(&kept.id, signed(1), ApprovalState::Approved).await.is_err(),
            "twice"
        );
        // Each target by itself, and the last one ends it.
        for (done, one) in (1..).zip(&kept.on) {
            let request = Request {
                id: one.request.clone(),
                ..request(0, Risk::Change)
            };
            let payload = one.payload.clone().unwrap();
            store
                .carry_out(&kept.id, &kept.task, request, &payload, 20)
                .await
                .unwrap();
            store.settle(&kept.task, &one.request, Status::Ok, None).await.unwrap();
            let now = store.find(&kept.id).await.unwrap().unwrap();
            assert_eq!(now.open, done < kept.on.len());
        }
        let over = store.find(&kept.id).await.unwrap().unwrap();
        assert!(
            over.on
                .iter()
                .all(|one| one.step == Step::Done && one.payload.is_none())
        );
    }
}

/// REQ-ASK-6
#[tokio::test]
async fn approved_bytes_are_one_callers_until_they_are_settled_and_again_only_where_nothing_came_of_them() {
    let store = open_store().await;
    let kept = approval(1, 5, vec![frozen(1, "web-1")]);
    store.ask(kept.clone()).await.unwrap();
    let begin = async |now| {
        let payload = kept.on[0].payload.clone().unwrap();
        store
            .carry_out(&kept.id, &kept.task, request(1, Risk::Destroy), &payload, now)
            .await
    };
    assert_eq!(begin(20).await, Err(Error::Taken), "nobody has signed");
    store.sign(&kept.id, signed(1), ApprovalState::Approved).await.unwrap();
    assert_eq!(begin(605).await, Err(Error::Taken), "it has expired");
    for (status, code) in [
        (Status::Refused, Code::ApproverUnknown),
        (Status::Failed, Code::NotSent),
    ] {
        begin(20).await.unwrap();
        assert_eq!(begin(20).await, Err(Error::Taken));
        assert!(store.due(1000).await.unwrap().is_empty(), "it is under way");
        store.settle(&kept.task, &id(1), status, Some(code)).await.unwrap();
    }
    begin(20).await.unwrap();
    assert_eq!(store.requests(&kept.task).await.unwrap().len(), 1);
    let unknown = Some(Code::OutcomeUnknown);
    store
        .settle(&kept.task, &id(1), Status::Unknown, unknown)
        .await
        .unwrap();
    assert_eq!(begin(20).await, Err(Error::Taken));
    assert_eq!(store.unsettled().await.unwrap().len(), 1, "it is still asked for");
    assert_eq!(store.end(&kept.id, ApprovalState::Denied, 30).await, Err(Error::Taken));
}

/// REQ-ASK-4, REQ-ASK-10
#[tokio::test]
async fn approvals_that_are_over_are_bounded_and_a_no_that_counts_is_not_forgotten() {
    let store = open_store().await;
    let one = approval(0, 0, vec![frozen(0, "web-1")]);
    store.ask(one.clone()).await.unwrap();
    let mut twice = approval(1, 0, vec![frozen(1, "web-1")]);
    twice.same = one.same.clone();
    assert!(store.ask(twice).await.is_err(), "one at a time for the same call");
    store.end(&one.id, ApprovalState::Denied, 500).await.unwrap();
    let many = u32::try_from(PAST_APPROVALS).unwrap() + 20;
    for number in 1..many {
        store
            .ask(approval(number, 1, vec![frozen(number, "web-1")]))
            .await
            .unwrap();
        store
            .end(&approval(number, 1, vec![]).id, ApprovalState::Expired, 501)
            .await
            .unwrap();
    }
    let kept = store.of_task(&one.task).await.unwrap();
    assert_eq!(kept.len(), PAST_APPROVALS + 2, "those, the newest and the no");
    assert_eq!(kept[0].id, one.id);
    store
        .ask(approval(many, 500 + DENIED_S, vec![frozen(many, "web-1")]))
        .await
        .unwrap();
    assert_eq!(store.find(&one.id).await, Ok(None), "it counts no more");
    for number in 2000..2000 + u32::try_from(OPEN_APPROVALS).unwrap() - 1 {
        store
            .ask(approval(number, 1, vec![frozen(number, "web-1")]))
            .await
            .unwrap();
    }
    assert_eq!(store.count(&one.owner.person).await, Ok(OPEN_APPROVALS));
    assert_eq!(
        store.ask(approval(9, 1, vec![frozen(9, "web-1")])).await,
        Err(Error::Full)
    );
}
