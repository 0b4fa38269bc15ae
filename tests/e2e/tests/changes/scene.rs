//! A stack in which effects are counted, a wire to its target that breaks when it is told to, and what an answer has to be.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};

use harness::cut::Wire;
use harness::evidence::Evidence;
use harness::mcp::Called;
use harness::{ALICE, McpClient, Options, Stack, Target, effects, records};
use serde_json::{Value, json};

pub(crate) const WEB: &str = "web-1";

pub(crate) struct Scene {
    pub(crate) stack: Stack,
    pub(crate) wire: Wire,
}

/// What an answer claims about the effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Claim {
    Done,
    NeverDone,
    Unknown,
}

impl Scene {
    pub(crate) fn new() -> Scene {
        let options = Options {
            targets: vec![WEB],
            ..effects::options()
        };
        let mut stack = Stack::start(&options).unwrap();
        let wire = Wire::to(stack.target(WEB).unwrap().address()).unwrap();
        let Stack { control, targets, .. } = &mut stack;
        control.reroute(&targets[0], &wire.address().to_string()).unwrap();
        Scene { stack, wire }
    }

    pub(crate) fn client(&self) -> McpClient {
        self.stack.client(ALICE).unwrap()
    }

    pub(crate) fn target(&self) -> &Target {
        self.stack.target(WEB).unwrap()
    }

    pub(crate) fn effects(&self, word: &str) -> usize {
        effects::count(self.target(), word).unwrap()
    }

    /// Checks an answer against what was done until now, and against everything that a client may make of it.
    pub(crate) fn judge(&self, called: &Called, word: &str) -> Claim {
        let (claim, effects) = (claim(called), self.effects(word));
        let fits = match claim {
            Claim::Done => effects == 1,
            Claim::NeverDone => effects == 0,
            Claim::Unknown => effects <= 1,
        };
        assert!(fits, "{effects} effects of {word}, and the answer was {}", called.value);
        if claim == Claim::Unknown {
            let next = called.value["next"].as_str().unwrap();
            assert_eq!(called.value["retryable"], false, "{}", called.value);
            assert!(next.contains("task_status") && next.contains("only reads"), "{next}");
        }
        claim
    }

    /// See [`books`].
    pub(crate) fn books(&self) {
        books(&self.stack);
    }
}

/// What holds of all logs, whatever happened: each request that was recorded has an end that stands, no request was run
/// twice, and what is said to be done is on record where it was done.
pub(crate) fn books(stack: &Stack) {
    let relay = stack.control.records_relay().unwrap();
    let targets: Vec<Value> = stack
        .targets
        .iter()
        .flat_map(|target| target.records().unwrap())
        .collect();
    let ends = ends(&relay);
    let mut intents: BTreeMap<String, usize> = BTreeMap::new();
    for record in targets.iter().filter(|record| records::is(record, "intent")) {
        *intents.entry(id(record)).or_default() += 1;
    }
    let ok = ends_in(&targets, "result", "ok");
    for record in relay.iter().filter(|record| records::is(record, "request")) {
        let id = id(record);
        let end = ends.get(&id).unwrap_or_else(|| panic!("{record} has no end"));
        let ran = intents.remove(&id).unwrap_or_default();
        match (end.0.as_str(), end.1.as_str()) {
            ("ok", _) => assert!(ran == 1 && ok.contains(&id), "{record}"),
            ("refused", _) | (_, "not_sent" | "request_expired") => assert_eq!(ran, 0, "{record}: {end:?}"),
            _ => assert!(ran <= 1, "{record}: {end:?}"),
        }
    }
    assert!(
        intents.is_empty(),
        "requests that the relay has no record of: {intents:?}"
    );
    let said = Evidence::copy(stack, &format!("after-{}", words()))
        .unwrap()
        .verify()
        .unwrap();
    assert_eq!(said.exit, 0, "{:?}", said.faults());
}

/// Codes of a change that has no outcome: it never began, and never will. Most are of who could not be reached or understood
/// before anything was sent.
const NEVER: [&str; 8] = [
    "not_sent",
    "request_expired",
    "session_lost",
    "unreachable",
    "protocol_error",
    "capacity",
    "ca_unavailable",
    "task_ended",
];

/// What an answer says of the effect. Every other answer is a fault of whoever gave it.
pub(crate) fn claim(called: &Called) -> Claim {
    match (called.is_error, called.code(), called.value["status"].as_str()) {
        (false, _, Some("ok")) => Claim::Done,
        (true, "outcome_unknown", _) => Claim::Unknown,
        (true, code, None) if NEVER.contains(&code) => Claim::NeverDone,
        _ => panic!("neither done, nor not done, nor unknown: {}", called.value),
    }
}

/// A word that nobody has written yet.
pub(crate) fn words() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("w{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The arguments of a call that counts an effect.
pub(crate) fn count(task: &Value, action: &str, args: Value) -> Value {
    count_on(WEB, task, action, args)
}

/// The same on any target.
pub(crate) fn count_on(target: &str, task: &Value, action: &str, args: Value) -> Value {
    json!({ "action": action, "target": target, "task_id": task, "args": args })
}

/// A new task of its own.
pub(crate) fn task(client: &mut McpClient) -> Value {
    let opened = client
        .call_ok("open_task", json!({ "reason": "a test", "targets": [WEB] }))
        .unwrap();
    opened["task_id"].clone()
}

/// What became of a task's requests, as its owner sees them.
pub(crate) fn requests(client: &mut McpClient, task: &Value) -> Vec<Value> {
    let status = client.call_ok("task_status", json!({ "task_id": task })).unwrap();
    status["requests"].as_array().unwrap().clone()
}

fn id(record: &Value) -> String {
    records::of(record, "request_id").unwrap_or_default().to_owned()
}

/// The newest end of each request: its status and its Code, if it has one.
fn ends(relay: &[Value]) -> BTreeMap<String, (String, String)> {
    let outcomes = relay.iter().filter(|record| records::is(record, "outcome"));
    let word = |record: &Value, key: &str| records::of(record, key).unwrap_or_default().to_owned();
    outcomes
        .map(|record| (id(record), (word(record, "status"), word(record, "code"))))
        .collect()
}

fn ends_in(log: &[Value], event: &str, status: &str) -> BTreeSet<String> {
    let fits = |record: &&Value| records::is(record, event) && records::of(record, "status") == Some(status);
    log.iter().filter(fits).map(id).collect()
}
