//! Whether a change came about, and what would come of one: the look afterwards, and the dry run.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where; its name is its documentation"
)]

use std::time::{Duration, Instant};

use harness::evil::{code, outcome};
use harness::stack::new_id;
use harness::{By, Changed, EvilRelay, Leaves, Stack, Target, assert_refused};
use security::changes::{self, carry_out};
use security::{WEB, add_action, granted, stack, tell};
use serde_json::{Map, Value, json};

fn target(stack: &Stack) -> &Target {
    stack.target(WEB).unwrap()
}

/// A manifest whose program is this perl, which gets a word; `more` stands before `[args]`, `tables` at the end.
fn manifest(name: &str, risk: &str, perl: &str, more: &str, tables: &str) -> String {
    format!(
        "name = \"{name}\"\ntitle = \"A program\"\ndescription = \"Does something.\"\nrisk = \"{risk}\"\ntimeout_ms = 5000\n{more}\n\
         [args]\nrequired = [\"word\"]\nproperties.word = {{ type = \"string\", maxLength = 100 }}\n\
         [exec]\nprogram = \"/usr/bin/perl\"\nargv = {}\n[sandbox]\nprofile = \"tool\"\n{tables}\n",
        argv(perl)
    )
}

/// Braces are a template's, so the program stands in hexadecimal.
fn argv(perl: &str) -> String {
    let program: String = perl.bytes().map(|byte| format!("{byte:02x}")).collect();
    format!("[\"-e\", \"eval pack 'H*', '{program}'; die $@ if $@\", \"{{word}}\"]")
}

/// Adds a line to a file: an effect that can be counted.
const DO_IT: &str = "open F, '>>', '/tmp/done'; print F \"$ARGV[0]\\n\"; print \"done $ARGV[0]\\n\"";
/// Says whether a file of this name is there, and that somebody looked.
const LOOK: &str = "open F, '>>', '/tmp/looked'; print F \"$ARGV[0]\\n\"; exit(-e \"/tmp/shown-$ARGV[0]\" ? 0 : 7)";

/// Two actions, the second of which tells whether the first came about, and what they leave behind.
struct Scene<'a> {
    stack: &'a Stack,
    relay: EvilRelay,
    word: String,
    _files: Vec<Changed>,
}

impl<'a> Scene<'a> {
    fn new(stack: &'a Stack, change: &str, look: &str) -> Scene<'a> {
        let root = target(stack).root();
        let word = new_id();
        let mut files: Vec<Changed> = ["tmp/done", "tmp/looked", &format!("tmp/shown-{word}")]
            .iter()
            .map(|file| Changed::keep(root, file).unwrap())
            .collect();
        files.push(add_action(target(stack), "do_it", change).unwrap());
        files.push(add_action(target(stack), "look_at_it", look).unwrap());
        Scene {
            relay: EvilRelay::start(stack, WEB).unwrap(),
            stack,
            word,
            _files: files,
        }
    }

    fn payload(&self, mode: &str) -> Map<String, Value> {
        let mut payload = self.relay.payload("do_it", json!({"word": self.word}));
        payload.insert("mode".to_owned(), json!(mode));
        payload
    }

    fn carry_out(&mut self, payload: &Map<String, Value>) -> Value {
        carry_out(self.stack, &mut self.relay, payload).unwrap()
    }

    /// How often the word was written to a file.
    fn count(&self, file: &str) -> usize {
        let text = std::fs::read_to_string(target(self.stack).root().at(file)).unwrap_or_default();
        text.lines().filter(|line| *line == self.word).count()
    }

    fn records(&self, payload: &Map<String, Value>) -> Vec<Value> {
        let all = target(self.stack).records().unwrap();
        all.into_iter()
            .filter(|record| record["request_id"] == payload["request_id"])
            .collect()
    }
}

fn verified(wait_ms: u64) -> String {
    let verify = format!("[verify]\naction = \"look_at_it\"\nargs = {{ word = \"{{word}}\" }}\nwait_ms = {wait_ms}\n");
    manifest("do_it", "change", DO_IT, "", &verify)
}

fn looks() -> String {
    manifest("look_at_it", "read", LOOK, "", "")
}

/// REQ-OUTCOME-11
#[test]
fn a_change_is_ok_as_soon_as_its_effect_shows() {
    let stack = stack();
    let mut scene = Scene::new(&stack, &verified(10_000), &looks());
    let payload = scene.payload("run");
    let shown = target(&stack).root().at(&format!("tmp/shown-{}", scene.word));
    let begun = Instant::now();
    let answer = std::thread::scope(|scope| {
        scope.spawn(|| {
            std::thread::sleep(Duration::from_millis(600));
            std::fs::write(&shown, "").unwrap();
        });
        scene.carry_out(&payload)
    });
    assert_eq!(
        (code(&answer).as_str(), answer["output"].as_str()),
        ("none", Some(&*format!("done {}\n", scene.word)))
    );
    assert!(begun.elapsed() >= Duration::from_millis(600), "nobody looked");
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "it looked on: {:?}",
        begun.elapsed()
    );
    assert!(scene.count("tmp/looked") >= 2 && scene.count("tmp/done") == 1);
    let records = scene.records(&payload);
    assert_eq!(records.len(), 2);
    assert_eq!(records[0]["message"], "look_at_it will be asked whether it came about");
}

/// REQ-OUTCOME-11, REQ-LEDGER-1
#[test]
fn verify_failed() {
    let stack = stack();
    let mut scene = Scene::new(&stack, &verified(500), &looks());
    let payload = scene.payload("run");
    let answer = scene.carry_out(&payload);
    let told = outcome(&answer).unwrap();
    assert_eq!(
        (told["status"].as_str(), code(&answer).as_str()),
        (Some("failed"), "verify_failed")
    );
    assert_eq!(told["exit_code"], 0, "{told}");
    assert_eq!(
        told["message"],
        "it ended with exit code 0, and look_at_it does not show its effect within 500 ms: exit code 7"
    );
    assert_eq!(
        answer["output"],
        json!(format!("done {}\n", scene.word)),
        "the effect is stated"
    );
    let records = scene.records(&payload);
    assert_eq!(
        (records[1]["status"].as_str(), records[1]["code"].as_str()),
        (Some("failed"), Some("verify_failed"))
    );
    assert_eq!(records[1]["message"], told["message"]);
    // Asking again gives the same answer and does nothing, whatever would show now.
    std::fs::write(target(&stack).root().at(&format!("tmp/shown-{}", scene.word)), "").unwrap();
    let again = scene.relay.send(&payload).unwrap();
    assert_eq!(
        (code(&again).as_str(), &outcome(&again).unwrap()["replayed"]),
        ("verify_failed", &json!(true))
    );
    assert_eq!(scene.count("tmp/done"), 1);
}

#[test]
fn a_look_that_takes_too_long_is_ended_and_a_change_that_failed_is_not_looked_at() {
    let stack = stack();
    let slow = manifest("look_at_it", "read", "sleep 60", "", "").replace("timeout_ms = 5000", "timeout_ms = 60000");
    let mut scene = Scene::new(&stack, &verified(700), &slow);
    let payload = scene.payload("run");
    let begun = Instant::now();
    let answer = scene.carry_out(&payload);
    assert_eq!(code(&answer), "verify_failed");
    assert!(
        outcome(&answer).unwrap()["message"]
            .as_str()
            .unwrap()
            .ends_with("it took too long")
    );
    assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
    drop(scene);

    let fails = verified(700).replace(&argv(DO_IT), &argv("exit 3"));
    let mut scene = Scene::new(&stack, &fails, &looks());
    let payload = scene.payload("run");
    assert_eq!(code(&scene.carry_out(&payload)), "exit_nonzero");
    assert_eq!(scene.count("tmp/looked"), 0);
}

/// A change whose effect nobody could see is not made.
#[test]
fn a_change_that_could_not_be_verified_is_refused_before_it_is_made() {
    let stack = stack();
    let word = "properties.word = { type = \"string\", maxLength = 100 }";
    let rows = [
        ("not a read", manifest("look_at_it", "change", LOOK, "", "")),
        (
            "another argument",
            looks()
                .replace(word, "properties.other = { type = \"string\", maxLength = 100 }")
                .replace("[\"word\"]", "[\"other\"]")
                .replace("{word}", "{other}"),
        ),
        (
            "a value that does not fit",
            looks().replace(word, "properties.word = { type = \"string\", enum = [\"x\"] }"),
        ),
        (
            "no program",
            looks().replace("/usr/bin/perl", "/usr/bin/no-such-program"),
        ),
        ("a broken manifest", looks().replace("risk", "rysk")),
    ];
    for (name, look) in &rows {
        let mut scene = Scene::new(&stack, &verified(500), look);
        let payload = scene.payload("run");
        assert_refused(&stack, By::Target(WEB), Leaves::Record, "manifest_invalid", || {
            Ok(code(&scene.carry_out(&payload)))
        })
        .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(scene.count("tmp/done"), 0, "{name}");
    }
    let mut scene = Scene::new(&stack, &verified(500), &looks());
    std::fs::remove_file(target(&stack).root().at("etc/writ/actions.d/look_at_it.toml")).unwrap();
    let payload = scene.payload("run");
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "manifest_invalid", || {
        Ok(code(&scene.carry_out(&payload)))
    })
    .unwrap();
    tell("verify", rows.len() + 1);
}

fn tried(risk: &str, own: &str, more: &str) -> String {
    let dry_run = format!(
        "[dry_run]\nrisk = \"{own}\"\nargv = {}\n[verify]\naction = \"look_at_it\"\nargs = {{ word = \"{{word}}\" }}\nwait_ms = 100\n",
        argv("print \"would do $ARGV[0]\\n\"")
    );
    manifest("do_it", risk, DO_IT, more, &dry_run)
}

/// What the ledger holds of a request.
fn claims(stack: &Stack, payload: &Map<String, Value>) -> usize {
    let ledger = target(stack).root().at("var/lib/writ/ledger");
    let id = payload["request_id"].as_str().unwrap();
    let files = std::fs::read_dir(ledger).unwrap().map(|entry| entry.unwrap().path());
    files
        .filter(|file| std::fs::read_to_string(file).is_ok_and(|text| text.contains(id)))
        .count()
}

/// REQ-PAYLOAD-14, REQ-LEDGER-1
#[test]
fn a_dry_run_shows_what_would_be_done_and_is_not_the_change() {
    let stack = stack();
    let mut scene = Scene::new(&stack, &tried("change", "read", ""), &looks());
    let dry = scene.payload("dry_run");
    let answer = scene.carry_out(&dry);
    assert_eq!(
        (code(&answer).as_str(), answer["output"].as_str()),
        ("none", Some(&*format!("would do {}\n", scene.word)))
    );
    assert_eq!(
        (scene.count("tmp/done"), scene.count("tmp/looked"), claims(&stack, &dry)),
        (0, 0, 0)
    );
    let records = scene.records(&dry);
    assert_eq!(records.len(), 2);
    for record in &records {
        assert_eq!(
            (record["mode"].as_str(), record["risk"].as_str()),
            (Some("dry_run"), Some("read"))
        );
    }
    // It is a read: a repeat is done again, and needs a certificate again, because each is good for once.
    assert_refused(
        &stack,
        By::Target(WEB),
        Leaves::Record,
        "action_certificate_missing",
        || Ok(code(&scene.relay.send(&dry)?)),
    )
    .unwrap();
    assert_eq!(outcome(&scene.carry_out(&dry)).unwrap()["replayed"], false);

    // The change itself is another request, and its id is its own.
    let mut real = dry.clone();
    real.insert("mode".to_owned(), json!("run"));
    std::fs::write(target(&stack).root().at(&format!("tmp/shown-{}", scene.word)), "").unwrap();
    assert_eq!(code(&scene.carry_out(&real)), "none");
    assert_eq!((scene.count("tmp/done"), claims(&stack, &real)), (1, 1));
    // Now the id stands for the change.
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "request_id_reused", || {
        Ok(code(&scene.carry_out(&dry)))
    })
    .unwrap();
}

#[test]
fn a_dry_run_needs_what_the_action_needs() {
    let stack = stack();
    let mut scene = Scene::new(&stack, &tried("change", "read", ""), &looks());
    let dry = scene.payload("dry_run");
    let missing = "action_certificate_missing";
    assert_refused(&stack, By::Target(WEB), Leaves::Record, missing, || {
        Ok(code(&scene.relay.send(&dry)?))
    })
    .unwrap();
    // Whatever a task's grant lists.
    let mut other = granted(&stack, &["do_it"]).unwrap();
    let mut payload = other.payload("do_it", json!({"word": "x"}));
    payload.insert("mode".to_owned(), json!("dry_run"));
    assert_refused(&stack, By::Target(WEB), Leaves::Record, missing, || {
        Ok(code(&other.send(&payload)?))
    })
    .unwrap();
    // A certificate for the dry run is none for the change.
    let certificate = changes::permit(&stack, &scene.relay, &dry, |_, _| {}).unwrap();
    scene.relay.present(&certificate).unwrap();
    let mut real = dry.clone();
    real.insert("mode".to_owned(), json!("run"));
    assert_refused(&stack, By::Target(WEB), Leaves::Record, missing, || {
        Ok(code(&scene.relay.send(&real)?))
    })
    .unwrap();
    assert_eq!(scene.count("tmp/done"), 0);
    drop(scene);

    let mut scene = Scene::new(&stack, &manifest("do_it", "change", DO_IT, "", ""), &looks());
    let dry = scene.payload("dry_run");
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "mode_unsupported", || {
        Ok(code(&scene.carry_out(&dry)))
    })
    .unwrap();
    assert_eq!(scene.count("tmp/done"), 0);
    tell("dry runs", 4);
}

/// Approvals are for effects: people look at what a dry run shows, and sign then.
#[test]
fn the_dry_run_of_what_needs_approvals_needs_none_where_it_only_looks() {
    let stack = stack();
    let approvals = "approvals = 1\napproval_window_s = 600";
    let mut scene = Scene::new(&stack, &tried("destroy", "read", approvals), &looks());
    let dry = scene.payload("dry_run");
    assert_eq!(code(&scene.carry_out(&dry)), "none");
    let real = scene.payload("run");
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "approval_missing", || {
        Ok(code(&scene.carry_out(&real)))
    })
    .unwrap();
    drop(scene);
    // One that may itself change something is a change.
    let mut scene = Scene::new(&stack, &tried("destroy", "change", approvals), &looks());
    let dry = scene.payload("dry_run");
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "approval_missing", || {
        Ok(code(&scene.carry_out(&dry)))
    })
    .unwrap();
    assert_eq!(scene.count("tmp/done"), 0);
}
