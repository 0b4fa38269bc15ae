//! The connection is cut after byte n of a whole change, for every n that is asked for, in each direction.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use harness::cut::{Cut, Towards};
use harness::spawn::wait_for;
use harness::{McpClient, effects};
use serde_json::{Value, json};

use crate::scene::{self, Claim, Scene, count, words};

/// How many bytes a task's first change takes on its connection, from the first byte to its answer.
fn bytes(scene: &Scene, client: &mut McpClient) -> [(Towards, u64); 2] {
    let (task, word) = (scene::task(client), words());
    let call = count(&task, effects::ACTION, json!({ "word": word }));
    let called = client.call("run_action", call).unwrap();
    assert_eq!(scene.judge(&called, &word), Claim::Done);
    let (target, relay) = *scene.wire.passed().last().unwrap();
    client.call_ok("close_task", json!({ "task_id": task })).unwrap();
    [(Towards::Target, target), (Towards::Relay, relay)]
}

/// By how many bytes a direction may be shorter than it was the first time: numbers in what is said are not all as long, and
/// what is encrypted is padded.
const SHORTER: u64 = 64;

/// Every so-many-eth byte of both directions, and in any case the last that every connection has.
fn cuts(bytes: [(Towards, u64); 2], every: u64) -> Vec<Cut> {
    let of = |(towards, bytes): (Towards, u64)| {
        let numbers = (0..bytes - SHORTER).rev().step_by(usize::try_from(every).unwrap());
        numbers.map(move |after| Cut { towards, after })
    };
    bytes.into_iter().flat_map(of).collect()
}

/// What was claimed, and how the answer came.
type Claims = BTreeMap<(Claim, String), usize>;

/// Cuts one connection after another, each in a task of its own that then finds the wire whole.
fn cut_each(scene: &Scene, client: &mut McpClient, cuts: &[Cut]) -> Claims {
    let mut claims = Claims::new();
    let mut done = Vec::new();
    for cut in cuts {
        let (task, word) = (scene::task(client), words());
        let before = scene.wire.cuts();
        scene.wire.cut([*cut]);
        let call = count(&task, effects::ACTION, json!({ "word": word }));
        let called = client.call("run_action", call).unwrap();
        assert_eq!(
            scene.wire.cuts(),
            before + 1,
            "{cut:?} cuts a connection before its answer is given"
        );
        let claim = scene.judge(&called, &word);
        let how = if called.value["replayed"] == true {
            "replayed"
        } else {
            called.code()
        };
        *claims.entry((claim, how.to_owned())).or_default() += 1;
        done.push((word, claim));
        client.call_ok("close_task", json!({ "task_id": task })).unwrap();
    }
    // What was true when it was said is true still.
    let all = effects::all(scene.target()).unwrap();
    for (word, claim) in &done {
        let effects = all.iter().filter(|line| *line == word).count();
        let fits = effects == usize::from(*claim == Claim::Done) || *claim == Claim::Unknown && effects <= 1;
        assert!(fits, "{word}: {claim:?}, and {effects} effects");
    }
    scene.books();
    claims
}

/// Cuts after every so-many-eth byte, on so many stacks at once.
fn sweep(every: u64, stacks: usize) {
    let begun = Instant::now();
    let scene = Scene::new();
    let bytes = bytes(&scene, &mut scene.client());
    drop(scene);
    let cuts = cuts(bytes, every);
    let mut claims = Claims::new();
    thread::scope(|scope| {
        // Each takes every so-many-eth of them, so that all take as long.
        let share = |number| cuts.iter().skip(number).step_by(stacks).copied().collect();
        let shares: Vec<Vec<Cut>> = (0..stacks).map(share).collect();
        let at_work: Vec<_> = shares
            .into_iter()
            .map(|share| {
                scope.spawn(move || {
                    let scene = Scene::new();
                    cut_each(&scene, &mut scene.client(), &share)
                })
            })
            .collect();
        for one in at_work {
            for (claim, times) in one.join().unwrap() {
                *claims.entry(claim).or_default() += times;
            }
        }
    });
    let replayed = claims.keys().any(|(_, how)| how == "replayed");
    assert!(replayed, "some answers were lost and asked for again: {claims:?}");
    println!(
        "{} cuts, every {every} bytes of {bytes:?}, in {:?}: {claims:?}",
        cuts.len(),
        begun.elapsed()
    );
}

#[test]
fn a_change_that_is_cut_anywhere_has_at_most_one_effect_and_an_honest_answer() {
    sweep(157, 1);
}

#[test]
#[ignore = "minutes: the whole of what the test above does with a stride"]
fn a_change_that_is_cut_after_each_byte_has_at_most_one_effect_and_an_honest_answer() {
    sweep(1, 6);
}

/// How many bytes of each direction the end of a first change is: its certificate and request, and their answer.
const LATE: u64 = 2400;

/// After the cut nobody answers any more, until the caller has got an answer.
#[test]
fn a_change_that_is_cut_for_good_is_never_said_to_be_done_or_not_done_without_knowing() {
    let scene = Scene::new();
    let mut client = scene.client();
    let bytes = bytes(&scene, &mut client);
    // Where it can matter: the end of both directions, with the request and the answer in it.
    let late: Vec<Cut> = cuts(bytes, 201)
        .into_iter()
        .filter(|cut| {
            let (_, all) = bytes.into_iter().find(|(towards, _)| *towards == cut.towards).unwrap();
            all - cut.after < LATE
        })
        .collect();
    let sent: Vec<(Value, String)> = late.iter().map(|_| (scene::task(&mut client), words())).collect();
    scene.wire.cut(late.iter().copied());
    scene.wire.dark(true);
    let calls: Vec<u64> = sent
        .iter()
        .map(|(task, word)| {
            let call = count(task, effects::QUICK, json!({ "word": word }));
            client
                .send("tools/call", json!({ "name": "run_action", "arguments": call }))
                .unwrap()
        })
        .collect();
    let mut claims: BTreeMap<Claim, usize> = BTreeMap::new();
    let mut said = Vec::new();
    let answers = client.called(&calls, Duration::from_secs(90)).unwrap();
    for (called, (_, word)) in answers.iter().zip(&sent) {
        let claim = scene.judge(called, word);
        *claims.entry(claim).or_default() += 1;
        said.push(claim);
    }
    assert!(claims.contains_key(&Claim::Unknown), "{claims:?}");
    assert_eq!(
        scene.wire.cuts() + scene.wire.take_back(),
        late.len(),
        "who connected was cut"
    );
    scene.wire.dark(false);
    // Those of which nobody knew are learnt, and what was said of the others stands.
    let mut known = Vec::new();
    wait_for("the truth", Duration::from_secs(180), || {
        known = sent
            .iter()
            .map(|(task, _)| scene::requests(&mut client, task).pop())
            .collect();
        Ok(known.iter().flatten().all(|request| request["status"] != "unknown"))
    })
    .unwrap();
    for (((_, word), claim), request) in sent.iter().zip(&said).zip(&known) {
        let effects = scene.effects(word);
        let status = request
            .as_ref()
            .map_or("refused", |request| request["status"].as_str().unwrap());
        assert_eq!(effects == 1, status == "ok", "{word}: {effects} effects, {request:?}");
        assert!(
            effects <= 1 && (*claim != Claim::NeverDone || effects == 0),
            "{word}: {claim:?}"
        );
    }
    let learnt = known
        .iter()
        .flatten()
        .filter(|request| request["status"] == "ok")
        .count();
    scene.books();
    println!(
        "{} cut for good: {claims:?}; {learnt} turned out to be done",
        late.len()
    );
}
