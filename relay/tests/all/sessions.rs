//! One session: lines in order, answers in order, and patience that begins with one's turn.

use std::time::{Duration, Instant};

use relay::session::{Error, Host, Login, Session, Trust};
use wire::lines::RelayLine;
use wire::seal::Sealed;

use crate::target::{self, Manner};
use crate::world::{GOOD, HOST_CA, key};

const TASK: &str = "0192e4a0-7f00-7000-8000-00000000000a";

async fn session(manner: Manner) -> Session {
    let target = target::serve(key(30), manner, GOOD).await;
    let host = Host {
        name: "web-1".parse().unwrap(),
        address: target.address,
        trust: Trust::Ca(key(HOST_CA).public().clone()),
    };
    let (task, task_key, receipt, now) = (TASK.parse().unwrap(), key(60), key(30), relay::serve::now());
    let certificate = crate::ca::certificate(&key(10), TASK, "web-1", task_key.public(), (now - 30, now + 300));
    let login = Login {
        task: &task,
        host: &host,
        key: &task_key,
        certificate: &certificate,
        receipt_key: receipt.public(),
        now: relay::serve::now,
    };
    Session::open(&login).await.unwrap()
}

fn request(number: u32) -> RelayLine {
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

#[tokio::test]
async fn patience_begins_when_the_requests_before_are_answered() {
    let session = session(Manner::Slow(300)).await;
    let patience = Duration::from_millis(700);
    let lines: Vec<RelayLine> = (1..=4).map(request).collect();
    let begun = Instant::now();
    let (one, two, three, four) = tokio::join!(
        session.ask(&lines[0], patience),
        session.ask(&lines[1], patience),
        session.ask(&lines[2], patience),
        session.ask(&lines[3], patience),
    );
    assert!(begun.elapsed() >= Duration::from_millis(1200), "one after the other");
    for (line, answer) in lines.iter().zip([one, two, three, four]) {
        let RelayLine::Request(sealed, _) = line else {
            panic!("a request")
        };
        let digest = wire::ids::Digest::of(sealed.payload.as_bytes());
        assert!(answer.unwrap().outcome.payload.contains(digest.as_str()), "in order");
    }
}

/// REQ-SESSION-19
#[tokio::test]
async fn an_answer_that_does_not_come_ends_the_session() {
    let session = session(Manner::Mute).await;
    let patience = Duration::from_millis(200);
    let lines = [request(1), request(2)];
    let (one, two) = tokio::join!(
        session.ask(&lines[0], patience),
        session.ask(&lines[1], Duration::from_secs(60))
    );
    assert!(
        matches!(one, Err(Error::TimedOut(after)) if after == patience),
        "{one:?}"
    );
    assert!(matches!(two, Err(Error::NoAnswer(_))), "{two:?}");
    assert!(!session.is_alive());
    let three = session.ask(&request(3), patience).await;
    assert!(
        matches!(three, Err(Error::NotSent(_))),
        "nothing of it can have arrived: {three:?}"
    );
}
