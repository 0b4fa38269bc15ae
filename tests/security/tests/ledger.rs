//! The ledger of a target has an end: what is full takes no change and loses no answer, and what is old makes room.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where"
)]

use std::fs::{File, FileTimes};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use harness::evil::{code, outcome};
use harness::stack::new_id;
use harness::{By, EXEC, EvilRelay, Leaves, Target, assert_refused, effects};
use security::changes::{carry_out, payload};
use security::{WEB, add_action, stack, still_serves};
use serde_json::{Map, Value, json};

/// Most answers that are kept, and for how long: docs/spec/ledger.md.
const CLAIMS: usize = 4096;
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);
const A_MINUTE: Duration = Duration::from_secs(60);

const LEDGER: &str = "var/lib/writ/ledger";

fn claims(target: &Target) -> Vec<PathBuf> {
    let files = std::fs::read_dir(target.root().at(LEDGER)).unwrap();
    let is_claim = |path: &PathBuf| path.file_name().unwrap().len() == 64;
    files.map(|file| file.unwrap().path()).filter(is_claim).collect()
}

/// The claim of a request.
fn claim_of(target: &Target, payload: &Map<String, Value>) -> PathBuf {
    let id = payload["request_id"].as_str().unwrap();
    let holds = |path: &PathBuf| std::fs::read_to_string(path).is_ok_and(|text| text.contains(id));
    claims(target).into_iter().find(holds).unwrap()
}

/// Answers of other requests like this one, until there are as many as may be.
fn fill(target: &Target, like: &Path) {
    let text = std::fs::read_to_string(like).unwrap();
    for _ in claims(target).len()..CLAIMS {
        let name = [new_id(), new_id()].concat().replace('-', "");
        target
            .root()
            .file_of(&format!("{LEDGER}/{name}"), 0o600, (EXEC.uid, EXEC.gid), &text)
            .unwrap();
    }
    assert_eq!(claims(target).len(), CLAIMS);
}

/// Makes it as if an answer had been given so long ago.
fn age(claim: &Path, age: Duration) {
    let then = FileTimes::new().set_modified(SystemTime::now() - age);
    let file = File::options().write(true).open(claim).unwrap();
    file.set_times(then).unwrap();
}

/// REQ-LEDGER-8
#[test]
fn a_full_ledger_takes_no_change_until_an_answer_is_older_than_a_day() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let _action = add_action(target, effects::ACTION, &effects::manifest()).unwrap();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    let effect = |word: &str| effects::count(target, word).unwrap();
    let (first, second, third) = (new_id(), new_id(), new_id());

    let done = payload(&relay, &first);
    let answer = carry_out(&stack, &mut relay, &done).unwrap();
    assert_eq!(code(&answer), "none", "{answer}");
    let kept = claim_of(target, &done);
    fill(target, &kept);
    // A session counts before its first claim, and then now and again.
    let mut other = EvilRelay::start(&stack, WEB).unwrap();
    let asked = payload(&other, &second);
    // Not one of them is a day old yet.
    for claim in claims(target) {
        age(&claim, KEPT - A_MINUTE * 5);
    }
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "capacity", || {
        Ok(code(&carry_out(&stack, &mut other, &asked)?))
    })
    .unwrap();
    assert_eq!((effect(&second), claims(target).len()), (0, CLAIMS));
    still_serves(&mut other).unwrap();
    let by_id = json!({"outcome": done["request_id"]}).to_string();
    let again = relay.ask(&by_id).unwrap();
    assert_eq!(
        (&again["output"], &outcome(&again).unwrap()["replayed"]),
        (&answer["output"], &json!(true))
    );

    // Three are: what was refused is taken now.
    let others = claims(target).into_iter().filter(|claim| *claim != kept);
    let old: Vec<PathBuf> = others.take(3).collect();
    for claim in &old {
        age(claim, KEPT + A_MINUTE);
    }
    assert_eq!(code(&carry_out(&stack, &mut other, &asked).unwrap()), "none");
    assert_eq!((effect(&second), claims(target).len()), (1, CLAIMS - 2));
    assert!(old.iter().all(|claim| !claim.exists()), "what was old is gone");
    assert_eq!(outcome(&relay.ask(&by_id).unwrap()).unwrap()["replayed"], true);

    // An answer that is old is there for as long as nobody needs its place.
    age(&kept, KEPT + A_MINUTE);
    assert_eq!(outcome(&relay.ask(&by_id).unwrap()).unwrap()["replayed"], true);
    fill(target, &kept);
    let mut other = EvilRelay::start(&stack, WEB).unwrap();
    let last = payload(&other, &third);
    assert_eq!(code(&carry_out(&stack, &mut other, &last).unwrap()), "none");
    assert_eq!(code(&relay.ask(&by_id).unwrap()), "unknown_request");
    assert_eq!((effect(&first), effect(&third)), (1, 1));
}
