//! A task's sessions on one target: one connection, lines in order on each channel, and as many channels as there are calls.

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use relay::seats::BOUNDS;
use relay::session::{Bounds, Connection, Error, Host, Login, Session, Trust};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use wire::Code;
use wire::lines::{Answer, RelayLine};
use wire::seal::Sealed;

use crate::target::{self, Gate, Manner, Seen};
use crate::world::{GOOD, HOST_CA, key};

const TASK: &str = "0192e4a0-7f00-7000-8000-00000000000a";
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// A target and what is needed to connect to it.
pub(crate) struct Far {
    host: Host,
    pub(crate) seen: Arc<Seen>,
}

impl Far {
    pub(crate) async fn new(manner: Manner) -> Self {
        let target = target::serve(key(30), manner, GOOD).await;
        let host = Host {
            name: "web-1".parse().unwrap(),
            address: target.address,
            trust: Trust::Ca(key(HOST_CA).public().clone()),
        };
        Self {
            host,
            seen: target.seen,
        }
    }

    pub(crate) async fn connect(&self, bounds: Bounds) -> Result<Connection, Error> {
        let now = relay::serve::now();
        self.connect_with(bounds, certificate(now - 30), relay::serve::now)
            .await
    }

    async fn connect_with(&self, bounds: Bounds, certificate: String, now: fn() -> u64) -> Result<Connection, Error> {
        let (task, task_key, receipt) = (TASK.parse().unwrap(), key(60), key(30));
        let login = Login {
            task: &task,
            host: &self.host,
            key: &task_key,
            certificate: &certificate,
            receipt_key: receipt.public(),
            now,
            ahead_s: None,
        };
        let room = Arc::new(Semaphore::new(1)).try_acquire_owned().unwrap();
        Connection::open(&login, bounds, room).await
    }

    pub(crate) fn count(&self) -> (usize, usize) {
        let load = |count: &std::sync::atomic::AtomicUsize| count.load(Ordering::SeqCst);
        (load(&self.seen.connections), load(&self.seen.sessions))
    }
}

fn certificate(valid_after: u64) -> String {
    let validity = (valid_after, valid_after + 330);
    crate::ca::certificate(&key(10), TASK, "web-1", key(60).public(), validity)
}

fn channels(channels: usize) -> Bounds {
    Bounds { channels, ..BOUNDS }
}

pub(crate) fn request(number: u32) -> RelayLine {
    let payload = serde_json::json!({
        "v": 1, "task_id": TASK, "request_id": format!("0192e4a0-7f00-7000-8000-{number:012}"),
        "requester": { "brain": "b", "person": "p", "proof": "relay" }, "reason": "why", "target": "web-1",
        "target_key": key(30).public().fingerprint(), "action": "tail_log", "manifest": "0".repeat(64), "args": {},
        "mode": "run", "expires": 1, "witness": { "relay": { "log": "0".repeat(32), "seq": 1, "hash": "0".repeat(64) } },
    });
    RelayLine::Request(
        Sealed {
            payload: payload.to_string(),
            sig: String::new(),
        },
        None,
    )
}

fn is_answer_to(answer: &Answer, line: &RelayLine) -> bool {
    let RelayLine::Request(sealed, _) = line else {
        panic!("a request")
    };
    let digest = wire::ids::Digest::of(sealed.payload.as_bytes());
    answer.outcome.payload.contains(digest.as_str())
}

pub(crate) async fn ask(session: &Session, number: u32) -> Result<Answer, Error> {
    let line = request(number);
    let answer = session.ask(std::slice::from_ref(&line), SOON).await?;
    assert!(is_answer_to(&answer, &line), "the answer to {number}");
    Ok(answer)
}

/// Waits until something is so, which it has to become soon.
pub(crate) async fn until(what: &str, so: impl Fn() -> bool) {
    let end = Instant::now() + Duration::from_secs(10);
    while !so() {
        assert!(Instant::now() < end, "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn patience_begins_when_the_requests_before_are_answered() {
    let far = Far::new(Manner::Slow(1000)).await;
    let connection = far.connect(BOUNDS).await.unwrap();
    let session = connection.session(SOON).await.unwrap();
    // Less than all four take, and much more than one does.
    let patience = Duration::from_secs(3);
    let lines: Vec<RelayLine> = (1..=4).map(request).collect();
    let begun = Instant::now();
    let (one, two, three, four) = tokio::join!(
        session.ask(&lines[0..1], patience),
        session.ask(&lines[1..2], patience),
        session.ask(&lines[2..3], patience),
        session.ask(&lines[3..4], patience),
    );
    assert!(begun.elapsed() >= Duration::from_secs(4), "one after the other");
    for (line, answer) in lines.iter().zip([one, two, three, four]) {
        assert!(is_answer_to(&answer.unwrap(), line), "in order");
    }
}

/// REQ-SESSION-19
#[tokio::test]
async fn an_answer_that_does_not_come_ends_the_session() {
    let far = Far::new(Manner::Mute).await;
    let connection = far.connect(BOUNDS).await.unwrap();
    let session = connection.session(SOON).await.unwrap();
    let patience = Duration::from_millis(200);
    let lines = [request(1), request(2)];
    let (one, two) = tokio::join!(session.ask(&lines[0..1], patience), session.ask(&lines[1..2], SOON));
    assert!(
        matches!(one, Err(Error::TimedOut(after)) if after == patience),
        "{one:?}"
    );
    assert!(matches!(two, Err(Error::NoAnswer(_))), "{two:?}");
    let three = session.ask(&[request(3)], patience).await;
    assert!(
        matches!(three, Err(Error::NotSent(_))),
        "nothing of it can have arrived: {three:?}"
    );
    drop(session);
    let session = connection.session(SOON).await.unwrap();
    until("the channel is closed", || far.seen.open.load(Ordering::SeqCst) == 1).await;
    drop(session);
    assert_eq!(far.count(), (1, 2), "another session, on the same connection");
}

/// REQ-SESSION-20, REQ-SESSION-24
#[tokio::test]
async fn calls_at_the_same_time_get_channels_of_one_connection_and_the_rest_wait_in_line() {
    let gate = Gate::closed();
    let far = Far::new(Manner::Waits(gate.clone())).await;
    let connection = Arc::new(far.connect(channels(3)).await.unwrap());
    let (has_one, mut begun) = tokio::sync::mpsc::unbounded_channel();
    let calls = (0..12).map(|number| {
        let (connection, has_one) = (Arc::clone(&connection), has_one.clone());
        tokio::spawn(async move {
            let session = connection.session(SOON).await.unwrap();
            has_one.send(number).unwrap();
            ask(&session, number).await.unwrap();
        })
    });
    let mut at_work = Vec::new();
    for call in calls {
        at_work.push(call);
        // The order of asking is that of the numbers.
        tokio::task::yield_now().await;
    }
    until("three ask at once", || far.seen.requests.lock().unwrap().len() == 3).await;
    let mut order: Vec<u32> = std::iter::from_fn(|| begun.try_recv().ok()).collect();
    order.sort_unstable();
    assert_eq!(order, [0, 1, 2], "nobody else has a channel");
    gate.open();
    for call in at_work {
        call.await.unwrap();
    }
    let order: Vec<u32> = std::iter::from_fn(|| begun.try_recv().ok()).collect();
    assert_eq!(order, (3..12).collect::<Vec<_>>(), "one after the other");
    assert_eq!(far.count(), (1, 3));
}

/// REQ-SESSION-24
#[tokio::test]
async fn a_channel_that_sshd_refuses_costs_no_call_anything() {
    let far = Far::new(Manner::Sessions(2, 50)).await;
    let connection = Arc::new(far.connect(channels(8)).await.unwrap());
    let calls = (0..20).map(|number| {
        let connection = Arc::clone(&connection);
        tokio::spawn(async move {
            let session = connection.session(SOON).await?;
            ask(&session, number).await
        })
    });
    for call in calls.collect::<Vec<_>>() {
        call.await.unwrap().unwrap();
    }
    assert_eq!(far.count(), (1, 2));
}

#[tokio::test]
async fn who_waits_for_a_session_is_told_when_there_are_too_many_or_it_takes_too_long() {
    let far = Far::new(Manner::Mute).await;
    let connection = Arc::new(far.connect(channels(1)).await.unwrap());
    let _session = connection.session(SOON).await.unwrap();
    let begun = Instant::now();
    let late = connection.session(Duration::from_millis(100)).await;
    assert!(matches!(late, Err(Error::Busy)), "{late:?}");
    assert!(begun.elapsed() >= Duration::from_millis(100));
    let waiting: Vec<_> = (0..64)
        .map(|_| {
            let connection = Arc::clone(&connection);
            tokio::spawn(async move { connection.session(SOON).await.map(drop) })
        })
        .collect();
    // All of them begin to wait before the next one asks; the runtime runs a few dozen tasks at a turn.
    for _ in 0..64 {
        tokio::task::yield_now().await;
    }
    let begun = Instant::now();
    let one_more = connection.session(SOON).await;
    assert!(matches!(one_more, Err(Error::Busy)), "{one_more:?}");
    assert!(begun.elapsed() < SOON / 2, "at once");
    connection.close("the test is over");
    for waits in waiting {
        let ended = waits.await.unwrap();
        assert!(matches!(ended, Err(Error::NotSent(_))), "{ended:?}");
    }
}

/// REQ-SESSION-24
#[tokio::test]
async fn channels_and_connections_that_nobody_uses_are_closed() {
    let far = Far::new(Manner::Says("ok".into())).await;
    let bounds = Bounds {
        channels: 4,
        channel_idle: Duration::from_millis(100),
        ..BOUNDS
    };
    let connection = far.connect(bounds).await.unwrap();
    let sessions = futures_of(4, || connection.session(SOON)).await;
    assert_eq!(far.seen.open.load(Ordering::SeqCst), 4);
    drop(sessions);
    until("all channels but one are closed", || {
        far.seen.open.load(Ordering::SeqCst) == 1
    })
    .await;
    ask(&connection.session(SOON).await.unwrap(), 1).await.unwrap();
    assert_eq!(far.count(), (1, 4), "the last channel is used again");

    let bounds = Bounds {
        connection_idle: Duration::from_millis(300),
        ..bounds
    };
    let connection = far.connect(bounds).await.unwrap();
    let session = connection.session(SOON).await.unwrap();
    tokio::time::sleep(bounds.connection_idle * 2).await;
    assert!(connection.is_alive(), "a session is in use");
    ask(&session, 2).await.unwrap();
    drop(session);
    until("the connection is closed", || !connection.is_alive()).await;
    until("sshd sees its end", || far.seen.open.load(Ordering::SeqCst) == 1).await;
}

async fn futures_of<F: Future<Output = Result<Session, Error>>>(count: usize, one: impl Fn() -> F) -> Vec<Session> {
    let mut sessions = Vec::new();
    for _ in 0..count {
        let session = one().await.unwrap();
        session.greeted().await.unwrap();
        sessions.push(session);
    }
    sessions
}

/// REQ-SESSION-21
#[tokio::test]
async fn a_renewed_certificate_is_presented_on_every_channel_before_its_next_request() {
    let far = Far::new(Manner::Says("ok".into())).await;
    let connection = far.connect(channels(3)).await.unwrap();
    let sessions = futures_of(3, || connection.session(SOON)).await;
    let presented = || far.seen.certificates.load(Ordering::SeqCst);
    assert_eq!(presented(), 3, "each session has its own");
    connection.present(&certificate(relay::serve::now() - 20));
    for session in &sessions {
        ask(session, 1).await.unwrap();
    }
    assert_eq!(presented(), 6, "before the answers, and once on each");
    connection.present(&certificate(relay::serve::now() - 10));
    drop(sessions);
    until("also where nobody asks", || presented() == 9).await;
}

#[tokio::test]
async fn a_certificate_of_one_request_goes_right_before_it_and_its_refusal_is_that_request_s() {
    let far = Far::new(Manner::RefusesBeside(Code::CertificateLifetime)).await;
    let connection = far.connect(BOUNDS).await.unwrap();
    let session = connection.session(SOON).await.unwrap();
    let unit = [RelayLine::Certificate(certificate(relay::serve::now())), request(1)];
    let answer = session.ask(&unit, SOON).await.unwrap();
    assert!(answer.outcome.payload.contains("action_certificate_missing"));
    assert_eq!(session.certificate_refused(), Some(Code::CertificateLifetime));
    ask(&session, 2).await.unwrap();
    assert_eq!(session.certificate_refused(), None, "it was about the request before");
    assert!(connection.is_alive(), "a refused line changes nothing");
}

#[tokio::test]
async fn an_outcome_is_asked_for_like_anything_else() {
    let far = Far::new(Manner::Says("ok".into())).await;
    let connection = far.connect(BOUNDS).await.unwrap();
    let session = connection.session(SOON).await.unwrap();
    let id = "0192e4a0-7f00-7000-8000-000000000001".parse().unwrap();
    let answer = session.ask(&[RelayLine::Outcome(id)], SOON).await;
    assert!(
        matches!(answer, Err(Error::LineRefused(Code::UnknownRequest))),
        "{answer:?}"
    );
    ask(&session, 2).await.unwrap();
}

#[tokio::test]
async fn a_session_whose_caller_went_away_is_the_next_one_s_when_its_answer_has_come() {
    let gate = Gate::closed();
    let far = Far::new(Manner::Waits(gate.clone())).await;
    let connection = far.connect(channels(1)).await.unwrap();
    let session = connection.session(SOON).await.unwrap();
    // Gives up when its request has been read.
    tokio::select! {
        answer = ask(&session, 1) => panic!("{answer:?}"),
        () = until("the request is read", || far.seen.requests.lock().unwrap().len() == 1) => {}
    }
    drop(session);
    let next = connection.session(SOON);
    tokio::pin!(next);
    let early = tokio::time::timeout(Duration::from_millis(200), &mut next).await;
    assert!(early.is_err(), "not before");
    gate.open();
    let session = next.await.unwrap();
    ask(&session, 2).await.unwrap();
    assert_eq!(far.count(), (1, 1));
}

/// REQ-SESSION-25
#[tokio::test]
async fn a_connection_that_breaks_before_the_login_is_tried_again_and_a_refusal_is_not() {
    for (manner, connections, logins) in [(Manner::HangsUp(3), 4, 1), (Manner::HangsUpInLogin(2), 3, 3)] {
        let far = Far::new(manner.clone()).await;
        let connection = far.connect(BOUNDS).await.unwrap();
        ask(&connection.session(SOON).await.unwrap(), 1).await.unwrap();
        assert_eq!(far.count(), (connections, 1), "{manner:?}");
        assert_eq!(far.seen.logins.load(Ordering::SeqCst), logins, "{manner:?}");
    }
    let far = Far::new(Manner::HangsUp(usize::MAX)).await;
    let begun = Instant::now();
    let error = far.connect(BOUNDS).await.unwrap_err();
    assert!(matches!(error, Error::Unreachable(_)), "{error}");
    assert_eq!(far.count(), (6, 0));
    assert!((Duration::from_millis(1500)..Duration::from_secs(8)).contains(&begun.elapsed()));
    let far = Far::new(Manner::NoLogin).await;
    let error = far.connect(BOUNDS).await.unwrap_err();
    assert!(matches!(error, Error::LoginRefused(_)), "{error}");
    assert_eq!(far.count(), (1, 0), "a refusal is final");
}

/// REQ-SESSION-21
#[tokio::test]
async fn a_certificate_that_is_valid_soon_is_waited_for_and_a_later_one_is_not_used() {
    /// A clock that stands.
    fn standing() -> u64 {
        static NOW: LazyLock<u64> = LazyLock::new(relay::serve::now);
        *NOW
    }
    let far = Far::new(Manner::Says("ok".into())).await;
    let at = |ahead: u64| far.connect_with(BOUNDS, certificate(standing() + ahead), standing);
    let connection = at(2).await.unwrap();
    let session = connection.session(SOON).await.unwrap();
    assert_eq!(session.waited_s(), 2, "its call is told");
    session.greeted().await.unwrap();
    drop(session);
    assert_eq!(connection.session(SOON).await.unwrap().waited_s(), 0, "and no other");
    assert_eq!(far.count(), (1, 1));
    let error = at(40).await.unwrap_err();
    assert!(matches!(error, Error::NotYetValid(40)), "{error}");
    assert_eq!(far.count(), (1, 1), "not tried");
}

/// REQ-SESSION-26
#[tokio::test]
async fn a_peer_that_falls_silent_is_given_up() {
    let mut far = Far::new(Manner::Mute).await;
    let (listener, behind) = (
        TcpListener::bind("127.0.0.1:0").await.unwrap(),
        far.host.address.clone(),
    );
    far.host.address = listener.local_addr().unwrap().to_string();
    let silence = Arc::new(tokio::sync::Notify::new());
    let falls = Arc::clone(&silence);
    tokio::spawn(async move {
        let (mut near, _) = listener.accept().await.unwrap();
        let mut far = TcpStream::connect(behind).await.unwrap();
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut near, &mut far) => panic!("somebody hung up"),
            () = falls.notified() => {}
        }
        // Both stay open: nobody is told anything.
        std::future::pending::<()>().await;
    });
    let connection = far.connect(BOUNDS).await.unwrap();
    let session = connection.session(SOON).await.unwrap();
    session.greeted().await.unwrap();
    silence.notify_one();
    let begun = Instant::now();
    let answer = session.ask(&[request(1)], Duration::from_secs(180)).await;
    assert!(matches!(answer, Err(Error::NoAnswer(_))), "{answer:?}");
    let took = begun.elapsed();
    assert!(
        (Duration::from_secs(15)..Duration::from_secs(90)).contains(&took),
        "{took:?}"
    );
    assert!(!connection.is_alive());
}

#[tokio::test]
async fn a_panic_in_a_connection_s_task_costs_that_call_only() {
    let far = Far::new(Manner::Says("ok".into())).await;
    let standing = far.connect(BOUNDS).await.unwrap();
    let valid = certificate(relay::serve::now() - 30);
    let outcome = far.connect_with(BOUNDS, valid, panics_in_the_connection_s_task).await;
    assert!(matches!(outcome, Err(Error::Unreachable(_))), "{outcome:?}");
    ask(&standing.session(SOON).await.unwrap(), 1).await.unwrap();
    let another = far.connect(BOUNDS).await.unwrap();
    ask(&another.session(SOON).await.unwrap(), 2).await.unwrap();
}

/// The caller asks for the time first, for its certificate; then the connection's own task does, for the host's.
fn panics_in_the_connection_s_task() -> u64 {
    static ASKED: AtomicBool = AtomicBool::new(false);
    assert!(
        !ASKED.swap(true, Ordering::SeqCst),
        "a fault inside the connection's task"
    );
    relay::serve::now()
}

/// Fails where the relay logs what a target wrote to its standard error: inside the task that reads the channel.
struct FailsToLog;

impl tracing::Subscriber for FailsToLog {
    fn enabled(&self, metadata: &tracing::Metadata<'_>) -> bool {
        *metadata.level() == tracing::Level::WARN && metadata.target().contains("hello")
    }
    fn new_span(&self, _: &tracing::span::Attributes<'_>) -> tracing::span::Id {
        tracing::span::Id::from_u64(1)
    }
    fn record(&self, _: &tracing::span::Id, _: &tracing::span::Record<'_>) {}
    fn record_follows_from(&self, _: &tracing::span::Id, _: &tracing::span::Id) {}
    fn event(&self, _: &tracing::Event<'_>) {
        panic!("a fault inside the channel's task");
    }
    fn enter(&self, _: &tracing::span::Id) {}
    fn exit(&self, _: &tracing::span::Id) {}
}

#[tokio::test]
async fn a_panic_in_a_channel_s_task_costs_that_call_only() {
    let far = Far::new(Manner::Mutters).await;
    let connection = far.connect(BOUNDS).await.unwrap();
    let first = connection.session(SOON).await.unwrap();
    let second = connection.session(SOON).await.unwrap();
    let fails = tracing::subscriber::set_default(FailsToLog);
    let lost = ask(&first, 1).await;
    drop(fails);
    assert!(matches!(lost, Err(Error::NoAnswer(_))), "{lost:?}");
    ask(&second, 2).await.unwrap();
    drop(first);
    let third = connection.session(SOON).await.unwrap();
    ask(&third, 3).await.unwrap();
    assert_eq!(far.count(), (1, 3), "another channel of the same connection");
}
