//! The relay is killed, or the wire is cut, while changes run: what became of each is learnt, and nothing runs twice.

use std::time::{Duration, Instant};

use harness::spawn::wait_for;
use harness::{effects, processes, records};
use serde_json::{Value, json};

use crate::scene::{self, Claim, Scene, count, words};

const IN_FLIGHT: usize = 20;
/// How long a payload is good, with the tolerance for clocks, and what asking may take.
const KNOWN_WITHIN: Duration = Duration::from_secs(100);

#[test]
fn a_relay_killed_with_twenty_changes_in_flight_knows_each_of_them_afterwards() {
    let mut scene = Scene::new();
    let mut client = scene.client();
    let tasks: Vec<Value> = (0..4).map(|_| scene::task(&mut client)).collect();
    let mut sent = Vec::new();
    for number in 0..IN_FLIGHT {
        let (task, word) = (&tasks[number % tasks.len()], words());
        let args = json!({ "word": word, "before_ms": 300, "after_ms": 300 });
        let call = json!({ "name": "run_action", "arguments": count(task, effects::ACTION, args) });
        client.send("tools/call", call).unwrap();
        sent.push(word);
    }
    wait_for(
        "the first effects, with all changes on record",
        Duration::from_secs(20),
        || {
            let relay = scene.stack.control.records_relay()?;
            let ended = records::count(&relay, "outcome", None);
            assert!(ended < IN_FLIGHT / 2, "{ended} have ended already");
            Ok(records::count(&relay, "request", None) == IN_FLIGHT && !effects::all(scene.target())?.is_empty())
        },
    )
    .unwrap();
    scene.stack.control.stop_relay();
    scene.stack.control.start_relay().unwrap();
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
    let args = json!({ "word": word, "before_ms": 1000, "after_ms": 1000 });
    let call = json!({ "name": "run_action", "arguments": count(&task, effects::ACTION, args) });
    let answer = client.send("tools/call", call).unwrap();
    // Before the effect and after it.
    for effects in [0, 1] {
        wait_for("the program", Duration::from_secs(10), || {
            Ok(!processes::with_argument(&word).is_empty() && scene.effects(&word) == effects)
        })
        .unwrap();
        scene.wire.sever();
    }
    let result = client.answer(answer, Duration::from_secs(30)).unwrap();
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
    let args = json!({ "word": word, "before_ms": 500 });
    let call = json!({ "name": "run_action", "arguments": count(&task, effects::QUICK, args) });
    let answer = client.send("tools/call", call).unwrap();
    wait_for("the program", Duration::from_secs(10), || {
        Ok(!processes::with_argument(&word).is_empty())
    })
    .unwrap();
    scene.wire.dark(true);
    scene.wire.sever();
    let called = client.called(&[answer], Duration::from_secs(40)).unwrap().remove(0);
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
    let args = json!({ "word": word, "before_ms": 1000 });
    let call = json!({ "name": "run_action", "arguments": count(&task, effects::ACTION, args) });
    let change = client.send("tools/call", call).unwrap();
    wait_for("the program", Duration::from_secs(10), || {
        Ok(!processes::with_argument(&word).is_empty())
    })
    .unwrap();
    let close = json!({ "name": "close_task", "arguments": { "task_id": task } });
    let close = client.send("tools/call", close).unwrap();
    let answers = client.called(&[change, close], Duration::from_secs(30)).unwrap();
    assert_eq!(scene.judge(&answers[0], &word), Claim::Done);
    assert_eq!(answers[1].value["closed"], true, "{}", answers[1].value);
    let args = json!({ "word": word });
    let late = client.call("run_action", count(&task, effects::ACTION, args)).unwrap();
    assert_eq!(late.code(), "task_ended");
    scene.books();
}
