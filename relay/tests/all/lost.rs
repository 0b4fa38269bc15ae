//! A change whose answer was lost, and what may be said of it: nothing that is not known, and everything that is.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use relay::pipeline::Relay;
use relay::store::{Answer, Owner, Phase, Request, Store, Task, Unsettled};
use serde_json::{Value, json};
use wire::ids::{Digest, RequestId, TargetName, TaskId};
use wire::{Code, Risk, Status};

use crate::target::Manner;
use crate::world::{ALICE, World, tail, until};

fn restart() -> Value {
    json!({ "action": "restart", "target": "web-1", "reason": "why" })
}

async fn unsettled(relay: &Relay) -> Vec<(RequestId, Phase)> {
    let left = relay.store.unsettled().await.unwrap();
    left.into_iter()
        .map(|one| (one.request.id, one.request.phase))
        .collect()
}

fn id(number: u32) -> RequestId {
    format!("0192e4a0-7f00-7000-8000-{number:012x}").parse().unwrap()
}

/// A change that was sent by a relay that is gone. Gives the hash of its bytes.
async fn leave(world: &World, task: &TaskId, target: &str, number: u32) -> Digest {
    let payload = format!("{{\"number\":{number}}}");
    let sha256 = Digest::of(payload.as_bytes());
    let request = Request {
        id: id(number),
        target: target.parse().unwrap(),
        action: "restart".parse().unwrap(),
        risk: Risk::Change,
        mode: wire::Mode::Run,
        sha256: sha256.clone(),
        phase: Phase::Recorded,
        end: None,
    };
    let store = &world.relay.store;
    store.begin(task, request, &payload, relay::serve::now()).await.unwrap();
    store.sent(task, &id(number)).await.unwrap();
    sha256
}

async fn opened(world: &World, targets: Value) -> (Value, TaskId) {
    let mut client = world.client(ALICE).await;
    let (task, _) = client
        .call("open_task", json!({ "reason": "why", "targets": targets }))
        .await;
    (
        task["task_id"].clone(),
        task["task_id"].as_str().unwrap().parse().unwrap(),
    )
}

fn outcomes(world: &World) -> Vec<Value> {
    let records = world.records().into_iter();
    records.filter(|record| record["event"] == "outcome").collect()
}

/// REQ-CHANGE-6
#[tokio::test]
async fn a_line_that_is_refused_says_that_nothing_began_only_where_the_target_had_not_looked_into_it() {
    for code in [
        Code::LineMalformed,
        Code::CertificateMissing,
        Code::PayloadMalformed,
        Code::SignatureInvalid,
    ] {
        let world = World::new(Manner::RefusesLine(code)).await;
        let (said, _) = world.client(ALICE).await.call("run_action", restart()).await;
        assert_eq!(
            (&said["code"], &said["refused_by"]),
            (&json!(code), &json!("target")),
            "{said}"
        );
        assert_eq!(world.seen.requests.lock().unwrap().len(), 1, "{code}");
        assert!(unsettled(&world.relay).await.is_empty(), "{code}");
    }
    for code in [Code::Internal, Code::Halted, Code::InProgress, Code::LogUnavailable] {
        let world = World::new(Manner::RefusesLine(code)).await;
        let (said, is_error) = world.client(ALICE).await.call("run_action", restart()).await;
        assert!(
            !is_error,
            "{code}: it may have been carried out, so it is asked for: {said}"
        );
        let requests = world.seen.requests.lock().unwrap().clone();
        assert_eq!((requests.len(), &requests[0]), (2, &requests[1]), "{code}");
        assert_eq!(world.events(), ["open", "request", "outcome"], "{code}");
    }
}

/// REQ-CHANGE-6
#[tokio::test]
async fn bytes_that_expired_when_they_came_again_say_nothing_of_those_that_came_before() {
    let world = World::new(Manner::ClaimsMeanwhile).await;
    let (said, is_error) = world.client(ALICE).await.call("run_action", restart()).await;
    assert!(!is_error, "it was carried out: {said}");
    assert_eq!(world.seen.requests.lock().unwrap().len(), 2);
    assert_eq!(world.seen.asked_for.lock().unwrap().len(), 1, "then by its id");
    assert_eq!(world.events(), ["open", "request", "outcome"]);
    assert!(unsettled(&world.relay).await.is_empty());
}

static STEPPED_S: AtomicU64 = AtomicU64::new(0);

fn stepping() -> u64 {
    relay::serve::now() + STEPPED_S.load(Ordering::SeqCst)
}

/// REQ-CHANGE-6
#[tokio::test]
async fn a_step_of_the_relays_clock_is_no_proof_that_a_change_never_ran() {
    let mut world = World::new(Manner::LosesAChange).await;
    world.clock(stepping);
    let (mut one, mut two) = (world.client(ALICE).await, world.client(ALICE).await);
    let opened = one
        .call("open_task", json!({ "reason": "why", "targets": ["web-1"] }))
        .await;
    assert!(!opened.1, "{}", opened.0);
    // Two channels, of which one is there when the other is lost.
    while world.seen.sessions.load(Ordering::SeqCst) < 2 {
        tokio::join!(one.call("tail_log", tail()), two.call("tail_log", tail()));
    }
    // Between the making of its bytes and their sending.
    *world.ca.meanwhile.lock().unwrap() = Some(Box::new(|| STEPPED_S.store(100, Ordering::SeqCst)));
    let (said, is_error) = one.call("run_action", restart()).await;
    assert!(!is_error, "the target takes the bytes still: {said}");
    let requests = world.seen.requests.lock().unwrap().clone();
    let changes = requests.iter().filter(|one| one.action.as_str() == "restart");
    assert_eq!(changes.count(), 2);
}

#[tokio::test]
async fn where_nothing_has_left_somebodys_no_is_what_is_answered() {
    // The connection goes while it is written that the change may be under way.
    let world = meddled(Manner::LetsInOnce(200), "sent", Does::Waits(Duration::from_millis(600))).await;
    let (said, _) = world.client(ALICE).await.call("run_action", restart()).await;
    assert_eq!(
        (&said["code"], &said["refused_by"], &said["retryable"]),
        (&json!("login_refused"), &json!("sshd"), &json!(false)),
        "{said}"
    );
    assert_eq!(outcomes(&world).pop().unwrap()["status"], "refused");
    assert!(unsettled(&world.relay).await.is_empty());
}

/// REQ-CHANGE-7
#[tokio::test]
async fn a_change_whose_receipt_does_not_hold_is_unknown_with_the_receipt_named() {
    for manner in [Manner::ForgesOutcomes, Manner::AnswersAnother, Manner::SwapsOutput] {
        let world = World::new(manner.clone()).await;
        let (said, _) = world.client(ALICE).await.call("run_action", restart()).await;
        assert_eq!(
            (&said["code"], &said["retryable"]),
            (&json!("outcome_unknown"), &json!(false)),
            "{manner:?}"
        );
        assert!(
            said["message"]
                .as_str()
                .unwrap()
                .contains("verify the target's signature"),
            "{said}"
        );
        assert!(said["next"].as_str().unwrap().contains("task_status"), "{said}");
        let outcome = outcomes(&world).remove(0);
        assert_eq!(
            (&outcome["status"], &outcome["code"]),
            (&json!("unknown"), &json!("outcome_unknown"))
        );
        assert_eq!(world.seen.requests.lock().unwrap().len(), 1, "{manner:?}");
    }
}

#[tokio::test]
async fn a_change_that_was_refused_and_could_not_be_recorded_is_not_said_to_be_answered() {
    let world = World::new(Manner::Says("done\n".into())).await;
    let (_, task) = opened(&world, json!(["web-1"])).await;
    let world = Arc::new(world);
    // The CA's no, and then a log that cannot be written.
    let hidden = Arc::new(std::sync::Mutex::new(None));
    let (hides, of) = (Arc::clone(&hidden), Arc::downgrade(&world));
    *world.ca.meanwhile.lock().unwrap() = Some(Box::new(move || {
        *hides.lock().unwrap() = Some(of.upgrade().unwrap().hide_log());
    }));
    world.ca.approvals.store(1, Ordering::SeqCst);
    let (said, _) = world.client(ALICE).await.call("run_action", restart()).await;
    drop(hidden.lock().unwrap().take());
    assert_eq!(said["code"], "log_unavailable", "{said}");
    let message = said["message"].as_str().unwrap();
    assert!(message.contains("nothing was done"), "{message}");
    let requests = world.relay.store.requests(&task).await.unwrap();
    assert_eq!(requests[0].end.unwrap().0, Status::Refused);
    assert!(world.seen.requests.lock().unwrap().is_empty());
}

/// REQ-CHANGE-8
#[tokio::test]
async fn what_an_earlier_relay_left_unknown_is_asked_for_by_its_id_and_never_delivered() {
    let world = World::new(Manner::Says("done\n".into())).await;
    let (task, task_id) = opened(&world, json!(["web-1"])).await;
    let kept = leave(&world, &task_id, "web-1", 1).await;
    leave(&world, &task_id, "web-1", 2).await;
    world.seen.kept.lock().unwrap().insert(id(1), kept);
    let world = world.restart().await;
    until("the first is learnt, the second cannot be yet", async || {
        unsettled(&world.relay).await == [(id(2), Phase::Sent)] && world.seen.asked_for.lock().unwrap().len() >= 2
    })
    .await;
    let mut asked_for = world.seen.asked_for.lock().unwrap().clone();
    asked_for.sort();
    assert_eq!(asked_for, [id(1), id(2)], "each once so far");
    assert!(world.seen.requests.lock().unwrap().is_empty(), "nothing is delivered");
    assert_eq!(world.ca.authorized.lock().unwrap().len(), 0);
    let (status, _) = world
        .client(ALICE)
        .await
        .call("task_status", json!({ "task_id": task }))
        .await;
    let said: Vec<_> = status["requests"]
        .as_array()
        .unwrap()
        .iter()
        .map(|request| request["status"].as_str().unwrap())
        .collect();
    assert_eq!(said, ["ok", "unknown"]);
    let of_one = |record: &Value| record["request_id"] == id(1).as_str();
    let ends: Vec<_> = outcomes(&world).into_iter().filter(of_one).collect();
    assert_eq!(
        ends.iter()
            .map(|end| end["status"].as_str().unwrap())
            .collect::<Vec<_>>(),
        ["unknown", "ok"],
        "what is learnt is one more record"
    );
}

/// REQ-CHANGE-8
#[tokio::test]
async fn that_nobody_asks_any_more_is_said_in_the_log_and_in_the_tasks_status() {
    let world = World::new(Manner::Says("done\n".into())).await;
    let (task, task_id) = opened(&world, json!(["web-1"])).await;
    leave(&world, &task_id, "web-1", 1).await;
    *world.ca.says_no.lock().unwrap() = Some(Code::PolicyDenied);
    let world = world.restart().await;
    until("it is given up", async || unsettled(&world.relay).await.is_empty()).await;
    let (status, _) = world
        .client(ALICE)
        .await
        .call("task_status", json!({ "task_id": task }))
        .await;
    let request = &status["requests"][0];
    assert_eq!((&status["open"], &request["status"]), (&json!(true), &json!("unknown")));
    assert!(
        request["message"].as_str().unwrap().contains("not asked for any more"),
        "{request}"
    );
    let ends = outcomes(&world);
    assert_eq!(ends.len(), 2);
    let message = ends[1]["message"].as_str().unwrap();
    assert!(
        message.contains("not asked for any more") && message.contains("it says no"),
        "{message}"
    );
    assert_eq!(ends[1]["status"], "unknown");
}

#[tokio::test]
async fn a_target_that_does_not_answer_holds_up_no_question_to_another() {
    let world = World::new(Manner::Says("done\n".into())).await;
    let (_, task) = opened(&world, json!(["web-1", "web-2"])).await;
    for number in 100..120 {
        leave(&world, &task, "web-2", number).await;
    }
    let kept = leave(&world, &task, "web-1", 200).await;
    world.seen.kept.lock().unwrap().insert(id(200), kept);
    *world.ca.hangs.lock().unwrap() = Some("web-2");
    let world = world.restart().await;
    let begun = Instant::now();
    until("it is learnt", async || {
        !unsettled(&world.relay).await.contains(&(id(200), Phase::Sent))
    })
    .await;
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "before one question is given up"
    );
    assert_eq!(unsettled(&world.relay).await.len(), 20);
}

/// What a store does when it has done what it was asked.
#[derive(Clone, Copy)]
enum Does {
    Panics,
    Waits(Duration),
}

/// A store that does something else at one of its answers.
struct Meddled {
    store: Box<dyn Store>,
    at: &'static str,
    does: Does,
}

impl Meddled {
    fn after<'a, T: Send + 'a>(&'a self, what: &'static str, answer: Answer<'a, T>) -> Answer<'a, T> {
        Box::pin(async move {
            let answer = answer.await;
            match self.does {
                Does::Panics => assert!(self.at != what, "as the test says"),
                Does::Waits(time) if self.at == what => tokio::time::sleep(time).await,
                Does::Waits(_) => {}
            }
            answer
        })
    }
}

impl Store for Meddled {
    fn open(&self, task: Task, now: u64) -> Answer<'_, ()> {
        self.store.open(task, now)
    }
    fn reach(&self, id: &TaskId, target: &TargetName, ends: u64) -> Answer<'_, bool> {
        self.store.reach(id, target, ends)
    }
    fn task(&self, owner: &Owner, id: &TaskId) -> Answer<'_, Option<Task>> {
        self.after("task", self.store.task(owner, id))
    }
    fn open_on(&self, owner: &Owner, target: &TargetName, now: u64) -> Answer<'_, Option<Task>> {
        self.after("open_on", self.store.open_on(owner, target, now))
    }
    fn places(&self, owner: &Owner, now: u64) -> Answer<'_, BTreeMap<TargetName, TaskId>> {
        self.store.places(owner, now)
    }
    fn close(&self, owner: &Owner, id: &TaskId, now: u64) -> Answer<'_, Option<Task>> {
        self.store.close(owner, id, now)
    }
    fn expire(&self, now: u64) -> Answer<'_, Vec<Task>> {
        self.store.expire(now)
    }
    fn begin(&self, task: &TaskId, request: Request, payload: &str, now: u64) -> Answer<'_, ()> {
        self.store.begin(task, request, payload, now)
    }
    fn sent(&self, task: &TaskId, request: &RequestId) -> Answer<'_, ()> {
        self.after("sent", self.store.sent(task, request))
    }
    fn settle(&self, task: &TaskId, request: &RequestId, status: Status, code: Option<Code>) -> Answer<'_, ()> {
        self.store.settle(task, request, status, code)
    }
    fn give_up(&self, task: &TaskId, request: &RequestId) -> Answer<'_, ()> {
        self.store.give_up(task, request)
    }
    fn requests(&self, task: &TaskId) -> Answer<'_, Vec<Request>> {
        self.store.requests(task)
    }
    fn unsettled(&self) -> Answer<'_, Vec<Unsettled>> {
        self.store.unsettled()
    }
    fn approving(&self) -> &dyn relay::store::Approvals {
        self.store.approving()
    }
}

async fn meddled(manner: Manner, at: &'static str, does: Does) -> World {
    let mut world = World::new(manner).await;
    world.wrap_store(|store| Box::new(Meddled { store, at, does }));
    world
}

async fn panicking(at: &'static str) -> World {
    meddled(Manner::Says("done\n".into()), at, Does::Panics).await
}

static PANICS: AtomicBool = AtomicBool::new(false);

fn panics_once() -> u64 {
    assert!(!PANICS.swap(false, Ordering::SeqCst), "as the test says");
    relay::serve::now()
}

/// REQ-CHANGE-7
#[tokio::test]
async fn a_panic_once_a_change_may_have_left_leaves_it_unknown_recorded_and_asked_for() {
    let mut world = World::new(Manner::Says("done\n".into())).await;
    world.clock(panics_once);
    // What looks at the clock next is what sends.
    *world.ca.meanwhile.lock().unwrap() = Some(Box::new(|| PANICS.store(true, Ordering::SeqCst)));
    let mut client = world.client(ALICE).await;
    let (said, _) = client.call("run_action", restart()).await;
    assert_eq!(
        (&said["code"], &said["retryable"]),
        (&json!("outcome_unknown"), &json!(false)),
        "{said}"
    );
    assert!(said["task_id"].is_string() && said["request_id"].is_string(), "{said}");
    assert!(said["next"].as_str().unwrap().contains("task_status"), "{said}");
    assert_eq!(world.events(), ["open", "request", "outcome"]);
    assert_eq!(said["record"], world.records().pop().unwrap()["seq"]);
    let (status, _) = client.call("task_status", json!({ "task_id": said["task_id"] })).await;
    assert_eq!(status["requests"][0]["status"], "unknown", "{status}");
    until("it is asked for", async || {
        let asked_for = world.seen.asked_for.lock().unwrap();
        asked_for.iter().any(|id| said["request_id"] == id.as_str())
    })
    .await;
    assert!(world.seen.requests.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_panic_while_the_store_is_told_that_a_change_may_leave_ends_it_before_it_does() {
    let world = panicking("sent").await;
    let (said, _) = world.client(ALICE).await.call("run_action", restart()).await;
    assert_eq!(
        (&said["code"], &said["refused_by"]),
        (&json!("internal"), &json!("relay")),
        "{said}"
    );
    assert_eq!(world.events(), ["open", "request", "outcome"]);
    let end = world.records().pop().unwrap();
    assert_eq!((&end["status"], &end["code"]), (&json!("refused"), &json!("internal")));
    assert!(world.seen.requests.lock().unwrap().is_empty());
    assert!(unsettled(&world.relay).await.is_empty());
}

#[tokio::test]
async fn a_panic_anywhere_else_is_answered_with_what_is_known_and_recorded() {
    let world = panicking("open_on").await;
    let mut client = world.client(ALICE).await;
    for (tool, arguments, look) in [("run_action", restart(), true), ("tail_log", tail(), false)] {
        let (said, _) = client.call(tool, arguments).await;
        assert_eq!(
            (&said["code"], &said["retryable"]),
            (&json!("internal"), &json!(false)),
            "{said}"
        );
        assert_eq!(said["next"].as_str().unwrap().contains("task_status"), look, "{said}");
        let record = world.records().pop().unwrap();
        assert_eq!(
            (&record["event"], &record["code"], &record["target"], &record["seq"]),
            (&json!("refused"), &json!("internal"), &json!("web-1"), &said["record"])
        );
    }
}
