//! The relay is killed, or the wire is cut, while changes run: what became of each is learnt, and nothing runs twice.

use std::time::{Duration, Instant};

use harness::spawn::wait_for;
use harness::{effects, processes, records};
use serde_json::{Value, json};

use crate::scene::{self, Claim, Scene, count, words};

const IN_FLIGHT: usize = 20;
/// The arguments that name a gate, and the gates of those that wait at each.
const BEFORE: &str = "before";
const AFTER: &str = "after";
const GATES: [&str; 2] = ["gate-before", "gate-after"];
/// How long something may take that has to happen; a program that waits at a gate has more time than that.
const SOON: Duration = Duration::from_secs(20);
/// Fewer bytes than a relay sends when it asks: keys, a login, a certificate, a request.
const ASKED: u64 = 4000;
/// How long a payload is good, with the tolerance for clocks, and what asking may take.
const KNOWN_WITHIN: Duration = Duration::from_secs(180);

#[test]
fn a_relay_killed_with_twenty_changes_in_flight_knows_each_of_them_afterwards() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    let tasks: Vec<Value> = (0..4).map(|_| scene::task(&mut client)).collect();
    let mut sent = Vec::new();
    for number in 0..IN_FLIGHT {
        let (task, word) = (&tasks[number % tasks.len()], words());
        // Half of them wait before their effect, half of them after it: none has ended when the relay is killed.
        let args = json!({ "word": word, (if number % 2 == 0 { BEFORE } else { AFTER }): GATES[number % 2] });
        let call = json!({ "name": "run_action", "arguments": count(task, effects::ACTION, args) });
        client.send("tools/call", call).unwrap();
        sent.push(word);
    }
    wait_for("the first effects, with all changes on record", SOON, || {
        let relay = scene.stack.control.records_relay()?;
        Ok(records::count(&relay, "request", None) == IN_FLIGHT && !effects::all(scene.target())?.is_empty())
    })
    .unwrap();
    scene.stack.control.stop_relay();
    let relay = scene.stack.control.records_relay().unwrap();
    assert_eq!(records::count(&relay, "outcome", None), 0, "none of them has ended");
    effects::open(scene.target(), GATES[1]).unwrap();
    scene.stack.control.start_relay().unwrap();
    effects::open(scene.target(), GATES[0]).unwrap();
    let back = Instant::now();
    let mut client = scene.client();
    let mut ends = Vec::new();
    wait_for("the ends of all", KNOWN_WITHIN, || {
        ends = tasks
            .iter()
            .flat_map(|task| scene::requests(&mut client, task))
            .collect();
        for request in &ends {
            let status = request["status"].as_str().unwrap();
            assert!(["ok", "failed", "unknown"].contains(&status), "{request}");
            // Until it is known the client is told to look.
            assert_eq!(request.get("next").is_some(), status == "unknown", "{request}");
        }
        Ok(ends.iter().all(|request| request["status"] != "unknown"))
    })
    .unwrap();
    let known = back.elapsed();
    assert_eq!(ends.len(), IN_FLIGHT);
    let ok = ends.iter().filter(|request| request["status"] == "ok").count();
    for request in ends.iter().filter(|request| request["status"] == "failed") {
        let code = request["code"].as_str().unwrap();
        assert!(["not_sent", "request_expired"].contains(&code), "{request}");
    }
    let done: Vec<usize> = sent.iter().map(|word| scene.effects(word)).collect();
    assert!(done.iter().all(|effects| *effects <= 1), "{done:?}");
    assert_eq!(
        done.iter().sum::<usize>(),
        ok,
        "what is said to be done was done, and nothing else"
    );
    scene.books();
    println!(
        "{IN_FLIGHT} in flight at the kill: {ok} were done, {} never ran; known after {known:?}",
        IN_FLIGHT - ok
    );
}

#[test]
fn a_change_whose_connection_is_cut_while_it_runs_is_waited_for_and_not_run_again() {
    let scene = Scene::new();
    let mut client = scene.client();
    let (task, word) = (scene::task(&mut client), words());
    let args = json!({ "word": word, "before": GATES[0], "after": GATES[1] });
    let call = json!({ "name": "run_action", "arguments": count(&task, effects::ACTION, args) });
    let answer = client.send("tools/call", call).unwrap();
    // Before the effect and after it.
    for (effects, gate) in GATES.into_iter().enumerate() {
        // The relay has come back, and more than a greeting has passed.
        wait_for("the program, and a connection", SOON, || {
            let connections = scene.wire.passed();
            let asked = connections.get(effects).is_some_and(|(target, _)| *target > ASKED);
            Ok(asked && !processes::with_argument(&word).is_empty() && scene.effects(&word) == effects)
        })
        .unwrap();
        scene.wire.sever();
        effects::open(scene.target(), gate).unwrap();
    }
    let result = client.answer(answer, Duration::from_secs(45)).unwrap();
    let said = &result["structuredContent"];
    assert_eq!(
        (&said["status"], &said["replayed"]),
        (&json!("ok"), &json!(true)),
        "{said}"
    );
    assert_eq!(said["untrusted"]["output"], format!("done {word}\n"));
    assert_eq!(scene.effects(&word), 1);
    scene.books();
}

#[test]
fn a_change_of_which_nobody_can_be_asked_is_unknown_and_known_once_somebody_can() {
    let scene = Scene::new();
    let mut client = scene.client();
    let (task, word) = (scene::task(&mut client), words());
    let args = json!({ "word": word, "before": GATES[0] });
    let call = json!({ "name": "run_action", "arguments": count(&task, effects::QUICK, args) });
    let answer = client.send("tools/call", call).unwrap();
    wait_for("the program", SOON, || Ok(!processes::with_argument(&word).is_empty())).unwrap();
    scene.wire.dark(true);
    scene.wire.sever();
    effects::open(scene.target(), GATES[0]).unwrap();
    let called = client.called(&[answer], Duration::from_secs(55)).unwrap().remove(0);
    assert_eq!(scene.judge(&called, &word), Claim::Unknown);
    assert_eq!(scene.effects(&word), 1, "it went on without us");
    let request = scene::requests(&mut client, &task).remove(0);
    assert_eq!(
        (&request["status"], &request["code"]),
        (&json!("unknown"), &json!("outcome_unknown"))
    );
    assert_eq!(request["next"], called.value["next"]);
    scene.wire.dark(false);
    wait_for("the truth", Duration::from_secs(60), || {
        Ok(scene::requests(&mut client, &task)[0]["status"] == "ok")
    })
    .unwrap();
    assert!(scene::requests(&mut client, &task)[0].get("next").is_none());
    assert_eq!(scene.effects(&word), 1);
    scene.books();
}

#[test]
fn a_task_that_is_closed_while_its_change_runs_gives_the_answer_first() {
    let scene = Scene::new();
    let mut client = scene.client();
    let (task, word) = (scene::task(&mut client), words());
    let args = json!({ "word": word, "before": GATES[0] });
    let call = json!({ "name": "run_action", "arguments": count(&task, effects::ACTION, args) });
    let change = client.send("tools/call", call).unwrap();
    wait_for("the program", SOON, || Ok(!processes::with_argument(&word).is_empty())).unwrap();
    let mut closes = scene.client();
    let close = json!({ "name": "close_task", "arguments": { "task_id": task } });
    let close = closes.send("tools/call", close).unwrap();
    wait_for("the end of the task", SOON, || {
        Ok(client.call_ok("task_status", json!({ "task_id": task }))?["open"] == false)
    })
    .unwrap();
    assert_eq!(scene.effects(&word), 0, "its change waits still");
    effects::open(scene.target(), GATES[0]).unwrap();
    let change = client.called(&[change], SOON).unwrap().remove(0);
    let close = closes.called(&[close], SOON).unwrap().remove(0);
    let answers = [change, close];
    assert_eq!(scene.judge(&answers[0], &word), Claim::Done);
    assert_eq!(answers[1].value["closed"], true, "{}", answers[1].value);
    let args = json!({ "word": word });
    let late = client.call("run_action", count(&task, effects::ACTION, args)).unwrap();
    assert_eq!(late.code(), "task_ended");
    scene.books();
}
