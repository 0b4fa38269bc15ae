//! One request id for two requests of a task: a read is not claimed, so a relay that was taken over may give it the id of a
//! change that is under way. What becomes of the change is told by its own bytes alone.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where; its name is its documentation"
)]

use std::fs::File;
use std::time::Duration;

use harness::evil::{code, outcome};
use harness::spawn::wait_for;
use harness::stack::new_id;
use harness::{Changed, EvilRelay, Opened, Stack, Target, effects, processes};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use openssh::key::SigningKey;
use openssh::sshsig;
use security::changes::{payload, permit};
use security::{WEB, add_action, granted, stack};
use serde_json::{Map, Value, json};

const SOON: Duration = Duration::from_secs(20);

/// A read that waits at gates as the change does.
const LOOK: &str = "look_slowly";

/// How often two requests are sent at once until they were recorded in the order that matters.
const TRIES: usize = 40;

fn target(stack: &Stack) -> &Target {
    stack.target(WEB).unwrap()
}

/// A target with both actions for as long as the second value lives, and a session of a task that grants the read.
fn ready(stack: &Stack) -> (EvilRelay, [Changed; 2]) {
    let look = effects::manifest()
        .replace(effects::ACTION, LOOK)
        .replace("risk = \"change\"", "risk = \"read\"");
    let actions = [
        add_action(target(stack), effects::ACTION, &effects::manifest()).unwrap(),
        add_action(target(stack), LOOK, &look).unwrap(),
    ];
    let mut relay = granted(stack, &[LOOK]).unwrap();
    // The certificate that was just presented is the one with which other sessions begin.
    relay.task.certificate = security::forged(stack, &relay, |_, grant| {
        grant["actions"] = json!(["check_health", LOOK, "read_file", "tail_log"]);
    })
    .unwrap();
    (relay, actions)
}

/// Another session of the same task.
fn again(stack: &Stack, relay: &EvilRelay) -> EvilRelay {
    let task = Opened {
        task_id: relay.task.task_id.clone(),
        key: SigningKey::from_openssh(&relay.task.key.to_openssh().unwrap()).unwrap(),
        certificate: relay.task.certificate.clone(),
    };
    let mut relay = EvilRelay::log_in(stack, WEB, task).unwrap();
    relay.present_own().unwrap();
    relay
}

fn line(relay: &EvilRelay, payload: &Map<String, Value>) -> String {
    let text = serde_json::to_string(payload).unwrap();
    EvilRelay::line(&text, &relay.task.key, sshsig::REQUEST).unwrap()
}

/// A change that waits behind its effect for a gate that nobody opens, and the read that has its id.
fn twins(relay: &EvilRelay, word: &str) -> (Map<String, Value>, Map<String, Value>) {
    let mut change = payload(relay, word);
    change["args"]["after"] = json!(format!("{word}-never"));
    let mut look = relay.payload(
        LOOK,
        json!({"word": format!("{word}-look"), "before": word, "after": ""}),
    );
    look["request_id"] = change["request_id"].clone();
    (change, look)
}

/// Ends the agent-exec that stands behind a program with this word.
fn kill_supervisor(word: &str) {
    let program = processes::with_argument(word).remove(0);
    let supervisor = Pid::from_raw(i32::try_from(program.parent().unwrap()).unwrap());
    kill(supervisor, Signal::SIGKILL).unwrap();
    wait_for("the end", SOON, || Ok(processes::with_argument(word).is_empty())).unwrap();
}

/// The actions whose intents stand in the log under the id, in order.
fn intents(stack: &Stack, payload: &Map<String, Value>) -> Vec<String> {
    let all = target(stack).records().unwrap();
    let own = all
        .iter()
        .filter(|record| record["request_id"] == payload["request_id"] && record["event"] == "intent");
    own.map(|record| record["action"].as_str().unwrap().to_owned())
        .collect()
}

/// Asks for the change until something else than that it is under way is said.
fn told(session: &mut EvilRelay, certificate: &str, line: &str) -> Value {
    session.present(certificate).unwrap();
    let answer = session.ask(line).unwrap();
    outcome(&answer).unwrap_or_else(|| panic!("{answer}"))
}

/// The read began before the change, and ended after the change was cut off: its end is not the change's. REQ-LEDGER-5
#[test]
fn the_result_of_a_read_with_its_id_is_not_the_end_of_a_change() {
    let stack = stack();
    let (mut relay, _actions) = ready(&stack);
    let word = new_id();
    let (change, look) = twins(&relay, &word);
    let mut other = again(&stack, &relay);
    other.session.send(line(&other, &look)).unwrap();
    wait_for("the read", SOON, || {
        Ok(!processes::with_argument(&format!("{word}-look")).is_empty())
    })
    .unwrap();
    let certificate = permit(&stack, &relay, &change, |_, _| {}).unwrap();
    relay.present(&certificate).unwrap();
    relay.session.send(line(&relay, &change)).unwrap();
    wait_for("the effect", SOON, || {
        Ok(effects::count(target(&stack), &word).unwrap() == 1)
    })
    .unwrap();
    kill_supervisor(&format!("{word}-never"));
    effects::open(target(&stack), &word).unwrap();
    assert_eq!(code(&other.session.line().unwrap()), "none", "the read itself is fine");
    assert_eq!(intents(&stack, &change), [LOOK, effects::ACTION]);

    let mut later = again(&stack, &relay);
    let told = told(&mut later, &certificate, &line(&relay, &change));
    assert_eq!(
        (&told["status"], &told["code"]),
        (&json!("unknown"), &json!("outcome_unknown")),
        "{told}"
    );
    assert_eq!(effects::count(target(&stack), &word).unwrap(), 1);
}

/// The read was looked up before the change was claimed, and recorded behind it: the change has an intent of its own, and
/// is not done once more. REQ-LEDGER-5
#[test]
fn a_read_with_its_id_does_not_hide_the_intent_of_a_change() {
    let stack = stack();
    let (relay, _actions) = ready(&stack);
    let lock = File::options()
        .write(true)
        .open(target(&stack).root().at("var/lib/writ/log.lock"))
        .unwrap();
    for attempt in 1..=TRIES {
        let word = new_id();
        let (change, look) = twins(&relay, &word);
        effects::open(target(&stack), &word).unwrap();
        let mut sessions = [again(&stack, &relay), again(&stack, &relay)];
        let certificate = permit(&stack, &relay, &change, |_, _| {}).unwrap();
        // While nobody can write the log both get as far as that.
        lock.lock().unwrap();
        sessions[0].session.send(line(&relay, &look)).unwrap();
        sessions[1].present(&certificate).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        sessions[1].session.send(line(&relay, &change)).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        lock.unlock().unwrap();
        wait_for("the effect", SOON, || {
            Ok(effects::count(target(&stack), &word).unwrap() == 1)
        })
        .unwrap();
        assert_eq!(code(&sessions[0].session.line().unwrap()), "none");
        kill_supervisor(&format!("{word}-never"));
        let order = intents(&stack, &change);
        let mut later = again(&stack, &relay);
        later.present(&certificate).unwrap();
        later.session.send(line(&relay, &change)).unwrap();
        let answer = later.session.line_within(Duration::from_secs(3));
        let effects = effects::count(target(&stack), &word).unwrap();
        assert_eq!(
            effects, 1,
            "attempt {attempt}, recorded as {order:?}: it was done once more"
        );
        let told = outcome(&answer.unwrap()).unwrap();
        assert_eq!(
            (&told["status"], &told["replayed"]),
            (&json!("unknown"), &json!(true)),
            "{told}"
        );
        if order == [effects::ACTION, LOOK] {
            println!("a read hides no change: {attempt} attempts, 1 effect each");
            return;
        }
    }
    panic!("in {TRIES} attempts the read was never recorded behind the change");
}
