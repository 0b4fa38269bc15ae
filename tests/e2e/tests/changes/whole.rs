//! A change when nothing is broken, and when the CA is.

use std::time::{Duration, Instant};

use harness::spawn::wait_for;
use harness::stack::now;
use harness::{ALICE, McpClient, Options, Stack, effects, records};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::scene::{self, Claim, Scene, WEB, count, words};

/// REQ-CARPC-18, REQ-RECORD-5
#[test]
fn a_change_runs_once_and_each_tier_has_recorded_it_before_the_next_one() {
    let scene = Scene::new();
    let mut client = scene.client();
    let word = words();
    let call = json!({ "action": effects::ACTION, "target": WEB, "reason": "a test", "args": { "word": word } });
    let called = client.call("run_action", call).unwrap();
    assert_eq!(scene.judge(&called, &word), Claim::Done);
    assert_eq!(called.value["untrusted"]["output"], format!("done {word}\n"));
    assert!(called.value.get("replayed").is_none(), "{}", called.value);
    let requests = scene::requests(&mut client, &called.value["task_id"]);
    assert_eq!((requests.len(), &requests[0]["status"]), (1, &json!("ok")));
    let moment = |log: &[Value], event: &str| -> String {
        let fits = |record: &&Value| {
            records::is(record, event) && records::of(record, "request_id") == called.value["request_id"].as_str()
        };
        let found: Vec<&Value> = log.iter().filter(fits).collect();
        assert_eq!(found.len(), 1, "{event}");
        records::of(found[0], "ts").unwrap().to_owned()
    };
    let control = &scene.stack.control;
    let (relay, ca) = (control.records_relay().unwrap(), control.records_ca().unwrap());
    let target = scene.target().records().unwrap();
    let story = [
        moment(&relay, "request"),
        moment(&ca, "authorize"),
        moment(&target, "intent"),
        moment(&target, "result"),
        moment(&relay, "outcome"),
    ];
    assert!(story.is_sorted(), "{story:?}");
    scene.books();
}

/// An action that policy gives nobody, and one that the catalogue lacks.
#[test]
fn what_policy_does_not_give_is_refused_by_the_ca_and_does_not_run() {
    let stack = Stack::start(&Options {
        targets: vec![WEB],
        policy: None,
        ..effects::options()
    })
    .unwrap();
    let mut client = stack.client(ALICE).unwrap();
    let task = scene::task(&mut client);
    let word = words();
    let called = client
        .call("run_action", count(&task, effects::ACTION, json!({ "word": word })))
        .unwrap();
    assert_eq!(
        (called.code(), &called.value["refused_by"]),
        ("policy_denied", &json!("ca")),
        "{}",
        called.value
    );
    let called = client.call("run_action", count(&task, "bash", json!({}))).unwrap();
    assert_eq!(called.code(), "unknown_action");
    assert_eq!(effects::count(stack.target(WEB).unwrap(), &word).unwrap(), 0);
}

/// A call needs a certificate with so much life, in seconds; and as much as whole seconds hide.
const LEFT: u64 = 5 + 1;

#[test]
fn without_the_ca_changes_wait_and_reads_go_on_until_their_certificate_ends() {
    let mut stack = short_lived(20);
    let mut client = stack.client(ALICE).unwrap();
    let task = scene::task(&mut client);
    let word = words();
    let change = count(&task, effects::ACTION, json!({ "word": word }));
    client.call_ok("tail_log", read(&task)).unwrap();
    stack.control.stop_ca();
    let ends = certificate_ends(&mut client, &task);
    let mut reads = 0;
    let end = loop {
        let called = client.call("run_action", change.clone()).unwrap();
        assert_eq!(
            (called.code(), &called.value["retryable"]),
            ("ca_unavailable", &json!(true)),
            "{}",
            called.value
        );
        let begun = now();
        let called = client.call("tail_log", read(&task)).unwrap();
        if called.is_error {
            break called;
        }
        assert!(begun < ends, "a read with a certificate that has ended");
        reads += 1;
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(end.code(), "ca_unavailable", "{}", end.value);
    assert!(
        now() + LEFT >= ends,
        "refused {} s before its certificate ends",
        ends - now()
    );
    assert!(reads > 0, "no read was made before the certificate ended");
    let target = stack.target(WEB).unwrap();
    assert_eq!(effects::count(target, &word).unwrap(), 0);
    stack.control.start_ca().unwrap();
    client.call_ok("run_action", change).unwrap();
    client.call_ok("tail_log", read(&task)).unwrap();
    assert_eq!(effects::count(stack.target(WEB).unwrap(), &word).unwrap(), 1);
    println!("{reads} reads without a CA");
}

/// Longest that a read may take while nobody but the CA is in trouble. Whoever waited for a CA that is frozen would wait for
/// ten seconds.
const AT_ONCE: Duration = Duration::from_secs(1);

/// Of a certificate, in seconds: it is to be renewed after two thirds of that, and good for a call for some seconds more.
const LIFETIME: u32 = 30;

/// The CA takes connections and says nothing, as one whose disk hangs.
#[test]
fn ca_slow_reads_go_on_while_the_ca_is_frozen_and_their_certificate_is_good() {
    let stack = short_lived(LIFETIME);
    let mut client = stack.client(ALICE).unwrap();
    let task = scene::task(&mut client);
    client.call_ok("tail_log", read(&task)).unwrap();
    let ends = certificate_ends(&mut client, &task);
    let frozen = Frozen::ca(&stack);
    let mut took = Vec::new();
    while now() + LEFT < ends {
        took.push(reads_at_once(&mut client, &task));
        std::thread::sleep(Duration::from_millis(50));
    }
    drop(frozen);
    client.call_ok("tail_log", read(&task)).unwrap();
    let longest = took.iter().max().unwrap();
    println!("{} reads with a frozen CA, the longest {longest:?}", took.len());
}

/// Changes, and how many channels a connection has: as many changes are on record, however they wait for the CA.
const WAITING: usize = 12;
const CHANNELS: usize = 8;

#[test]
fn ca_slow_changes_that_wait_for_a_frozen_ca_keep_no_read_waiting() {
    let stack = Stack::start(&Options {
        targets: vec![WEB],
        ..effects::options()
    })
    .unwrap();
    let (mut client, mut changes) = (stack.client(ALICE).unwrap(), stack.client(ALICE).unwrap());
    let task = scene::task(&mut client);
    client.call_ok("tail_log", read(&task)).unwrap();
    let frozen = Frozen::ca(&stack);
    let words: Vec<String> = (0..WAITING).map(|_| words()).collect();
    let sent: Vec<u64> = words
        .iter()
        .map(|word| {
            let call = count(&task, effects::ACTION, json!({ "word": word }));
            let call = json!({ "name": "run_action", "arguments": call });
            changes.send("tools/call", call).unwrap()
        })
        .collect();
    wait_for("the changes", Duration::from_secs(20), || {
        let relay = stack.control.records_relay()?;
        Ok(records::count(&relay, "request", None) > CHANNELS)
    })
    .unwrap();
    let longest = (0..5).map(|_| reads_at_once(&mut client, &task)).max().unwrap();
    drop(frozen);
    println!("{WAITING} changes wait for a frozen CA; the longest of 5 reads {longest:?}");
    let answers = changes.called(&sent, Duration::from_secs(60)).unwrap();
    for (called, word) in answers.iter().zip(&words) {
        let effects = effects::count(stack.target(WEB).unwrap(), word).unwrap();
        assert_eq!(effects == 1, scene::claim(called) == Claim::Done, "{}", called.value);
    }
    scene::books(&stack);
}

/// Reads, and says how long it took, which must not be long.
fn reads_at_once(client: &mut McpClient, task: &Value) -> Duration {
    let begun = Instant::now();
    let called = client.call("tail_log", read(task)).unwrap();
    let took = begun.elapsed();
    assert!(!called.is_error && took < AT_ONCE, "{took:?}: {}", called.value);
    took
}

/// A stack whose certificates live for so many seconds.
fn short_lived(task_lifetime_s: u32) -> Stack {
    Stack::start(&Options {
        targets: vec![WEB],
        task_lifetime_s,
        ..effects::options()
    })
    .unwrap()
}

fn read(task: &Value) -> Value {
    json!({ "target": WEB, "path": "/var/log/shop/web.log", "lines": 1, "task_id": task })
}

/// When the certificate of a task ends, Unix time.
fn certificate_ends(client: &mut McpClient, task: &Value) -> u64 {
    let status = client.call_ok("task_status", json!({ "task_id": task })).unwrap();
    status["targets"][0]["certificate_ends"].as_u64().unwrap()
}

/// A process that is stopped for as long as this lives.
struct Frozen(Pid);

impl Frozen {
    fn ca(stack: &Stack) -> Frozen {
        let (_, ca) = stack.control.pids();
        let ca = Pid::from_raw(ca.unwrap().try_into().unwrap());
        kill(ca, Signal::SIGSTOP).unwrap();
        Frozen(ca)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGCONT);
    }
}
