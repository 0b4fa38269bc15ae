//! Arguments that a program could take for something else, and catalogues that an administrator got wrong.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says so by a panic; its name is its documentation"
)]

use std::os::unix::fs::symlink;

use harness::evil::code;
use harness::target::AGENT_EXEC;
use harness::{By, Changed, EvilRelay, Leaves, RUNNER, Stack, assert_refused, refused};
use security::{LOG, WEB, add_action, granted, stack, still_serves, tell};
use serde_json::{Value, json};

/// A manifest that hands one word of the caller's to a program.
fn words(name: &str) -> String {
    format!(
        "name = \"{name}\"\ntitle = \"Words\"\ndescription = \"Shows a word.\"\nrisk = \"read\"\ntimeout_ms = 1000\n\
         [args]\nrequired = [\"word\"]\nproperties.word = {{ type = \"string\", maxLength = 100 }}\n\
         [exec]\nprogram = \"/usr/bin/echo\"\nargv = [\"first\", \"{{word}}\", \"last\"]\n[sandbox]\nprofile = \"reader\"\n"
    )
}

/// A relay whose task lists that action, and the action itself for as long as the second value lives.
fn with_words(stack: &Stack) -> (EvilRelay, Changed) {
    let action = add_action(stack.target(WEB).unwrap(), "show_words", &words("show_words")).unwrap();
    (granted(stack, &["show_words"]).unwrap(), action)
}

fn word_refused(stack: &Stack, relay: &mut EvilRelay, word: &str, expected: &str) {
    let payload = relay.payload("show_words", json!({ "word": word }));
    assert_refused(stack, By::Target(WEB), Leaves::Record, expected, || {
        Ok(code(&relay.send(&payload)?))
    })
    .unwrap_or_else(|error| panic!("{word:?}: {error:?}"));
}

fn words_refused(name: &str, words: &[&str]) {
    let stack = stack();
    let (mut relay, _action) = with_words(&stack);
    for word in words {
        word_refused(&stack, &mut relay, word, "arguments_invalid");
    }
    tell(name, words.len());
}

/// REQ-MANIFEST-11
#[test]
fn arg_leading_dash() {
    words_refused(
        "arg_leading_dash",
        &["--help", "-H root@x", "-", "-\n", "--output=/tmp/canary"],
    );
}

/// REQ-MANIFEST-11
#[test]
fn arg_response_file() {
    words_refused("arg_response_file", &["@/etc/shadow", "@", "@@"]);
}

/// REQ-MANIFEST-11
#[test]
fn arg_dashdash() {
    words_refused("arg_dashdash", &["--", "---", "-- x"]);
}

/// REQ-MANIFEST-11, REQ-MANIFEST-13, REQ-JSON-7
#[test]
fn meta_corpus() {
    let stack = stack();
    let (mut relay, _action) = with_words(&stack);
    let touch = "touch /tmp/canary";
    let literal = [
        format!(";{touch}"),
        format!("; {touch} #"),
        format!("$({touch})"),
        format!("`{touch}`"),
        format!("| {touch}"),
        format!("&& {touch}"),
        format!("'; {touch}; '"),
        format!("\"; {touch}; \""),
        format!("${{IFS}}{touch}"),
        "() { :;}; touch /tmp/canary".to_owned(),
        "%s%s%s%n".to_owned(),
        "*".to_owned(),
        "~root".to_owned(),
        "\u{202e}\u{200b}\u{e0041}".to_owned(),
        "first last".to_owned(),
    ];
    for word in &literal {
        // One argument goes in whole and comes out whole: the only program that ran is the one of the manifest.
        let before = refused::intents(&stack).unwrap();
        let answer = relay.call("show_words", json!({ "word": word })).unwrap();
        assert_eq!(code(&answer), "none", "{word:?}");
        assert_eq!(answer["output"].as_str(), Some(format!("first {word} last\n").as_str()));
        assert_eq!(refused::intents(&stack).unwrap(), before + 1, "{word:?}");
        assert!(!refused::canary(&stack), "{word:?} ran");
    }
    let control = [
        format!("x\n{touch}\n"),
        format!("x\r\n{touch}"),
        "a b\tc".to_owned(),
        "\u{1b}]0;x\u{7}".to_owned(),
    ];
    for word in &control {
        word_refused(&stack, &mut relay, word, "arguments_invalid");
    }
    word_refused(&stack, &mut relay, "a\0b", "payload_malformed");
    let refused = control.len() + 1;
    let (all, literal) = (literal.len() + refused, literal.len());
    println!("meta corpus: {all} words, {literal} literal, {refused} refused");
}

/// REQ-MANIFEST-13
#[test]
fn argv_shape_in_the_record_is_the_templates() {
    let stack = stack();
    let (mut relay, _action) = with_words(&stack);
    assert_eq!(
        code(&relay.call("show_words", json!({"word": "a b  c"})).unwrap()),
        "none"
    );
    let records = stack.target(WEB).unwrap().records().unwrap();
    let intent = records.iter().rev().find(|record| record["event"] == "intent").unwrap();
    assert_eq!(intent["argv"], json!(["/usr/bin/echo", "first", "a b  c", "last"]));
}

/// What `writ-target catalogue lint` says on the target.
fn lint(stack: &Stack) -> (Option<i32>, String) {
    let output = stack
        .target(WEB)
        .unwrap()
        .run(harness::ROOT, "/usr/sbin/writ-target", &["catalogue", "lint"], b"")
        .unwrap();
    (
        output.status.code(),
        format!(
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        ),
    )
}

/// The manifest that is tampered with.
const TAIL: &str = "etc/writ/actions.d/tail_log.toml";

/// A name, a word that lint has to say, and what the file has become.
fn faulty(honest: &str) -> Vec<(&'static str, &'static str, String)> {
    vec![
        // REQ-MANIFEST-2
        ("catalogue_unknown_key", "shell", format!("shell = true\n{honest}")),
        ("catalogue_unclassified", "risk", honest.replace("risk = \"read\"", "")),
        // REQ-MANIFEST-4
        (
            "catalogue_open_schema",
            "additionalProperties",
            honest.replace("[args]", "[args]\nadditionalProperties = true"),
        ),
        // REQ-MANIFEST-3
        (
            "catalogue_other_name",
            "name",
            honest.replace("name = \"tail_log\"", "name = \"read_log\""),
        ),
        // REQ-MANIFEST-12
        (
            "catalogue_relative_program",
            "program",
            honest.replace("\"/usr/libexec/writ/inspect\"", "\"inspect\""),
        ),
        ("catalogue_not_toml", "tail_log", "tail -n 200".to_owned()),
        ("catalogue_empty", "tail_log", String::new()),
    ]
}

/// Asks for what should be served, and is refused because of the catalogue.
fn not_served(stack: &Stack, relay: &mut EvilRelay, name: &str) {
    let payload = relay.payload("tail_log", json!({"path": LOG, "lines": 1}));
    assert_refused(stack, By::Target(WEB), Leaves::Record, "manifest_invalid", || {
        Ok(code(&relay.send(&payload)?))
    })
    .unwrap_or_else(|error| panic!("{name}: {error:?}"));
}

/// REQ-PAYLOAD-11
#[test]
fn a_faulty_catalogue_runs_nothing_and_lint_names_the_fault() {
    let stack = stack();
    let root = stack.target(WEB).unwrap().root();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    still_serves(&mut relay).unwrap();
    assert_eq!(lint(&stack).0, Some(0), "{:?}", lint(&stack));
    let file = Changed::keep(root, TAIL).unwrap();
    let table = faulty(&file.before());
    for (name, word, text) in &table {
        file.set(text).unwrap();
        not_served(&stack, &mut relay, name);
        let (exit, said) = lint(&stack);
        assert!(
            exit == Some(2) && said.contains(word),
            "{name}: lint exits {exit:?} and says {said}"
        );
    }
    drop(file);
    still_serves(&mut relay).unwrap();
    tell("manifests", table.len());
}

/// REQ-MANIFEST-1
#[test]
fn a_catalogue_that_others_could_have_written_runs_nothing_and_lint_names_it() {
    let stack = stack();
    let root = stack.target(WEB).unwrap().root();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    let mut attacks = 0;
    let mut attack = |name: &str| {
        not_served(&stack, &mut relay, name);
        assert_eq!(lint(&stack).0, Some(2), "{name}");
        attacks += 1;
    };
    // The file itself.
    for (name, owner, mode) in [
        ("catalogue_world_writable", 0, 0o646),
        ("catalogue_group_writable", 0, 0o664),
        ("catalogue_of_another_account", RUNNER.uid, 0o644),
    ] {
        let file = Changed::keep(root, TAIL).unwrap();
        file.own(owner, mode).unwrap();
        attack(name);
    }
    {
        let file = Changed::keep(root, TAIL).unwrap();
        let _elsewhere = Changed::write(root, "etc/writ/elsewhere.toml", file.before()).unwrap();
        std::fs::remove_file(file.path()).unwrap();
        symlink("/etc/writ/elsewhere.toml", file.path()).unwrap();
        attack("catalogue_symlink");
    }
    // The folder.
    let folder = Changed::keep(root, "etc/writ/actions.d").unwrap();
    folder.own(0, 0o777).unwrap();
    attack("catalogue_folder_world_writable");
    folder.own(RUNNER.uid, 0o755).unwrap();
    attack("catalogue_folder_of_another_account");
    folder.restore().unwrap();
    folder.move_away().unwrap();
    attack("no_catalogue_denies");
    drop(folder);
    still_serves(&mut relay).unwrap();
    tell("owners and modes of the catalogue", attacks);
}

/// REQ-PAYLOAD-18
#[test]
fn a_program_that_others_may_write_is_not_run() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    let program = Changed::keep(target.root(), "usr/libexec/writ/inspect").unwrap();
    for (mode, owner) in [(0o777, 0), (0o775, 0), (0o755, RUNNER.uid), (0o4755, 0)] {
        program.own(owner, mode).unwrap();
        not_served(&stack, &mut relay, &format!("{mode:o} {owner}"));
    }
    drop(program);
    still_serves(&mut relay).unwrap();
}

/// Runs `attack` and asserts that as many strangers were counted, and that the log has grown by lines a minute.
fn counted(stack: &Stack, what: &str, attacks: u64, attack: impl FnOnce()) {
    let target = stack.target(WEB).unwrap();
    let (before, counted_before) = (target.records().unwrap().len(), refused::strangers(target).unwrap());
    let begun = std::time::Instant::now();
    attack();
    let minutes = usize::try_from(begun.elapsed().as_secs() / 60).unwrap();
    let grown = target.records().unwrap().len() - before;
    assert!(
        grown <= minutes + 2,
        "{grown} records for {attacks} {what} in {:?}",
        begun.elapsed()
    );
    assert_eq!(refused::strangers(target).unwrap() - counted_before, attacks, "{what}");
    println!(
        "{what}: {attacks} attacks, {attacks} refused, {grown} records, {} ms",
        begun.elapsed().as_millis()
    );
}

/// REQ-SESSION-12, REQ-RECORD-13
#[test]
fn stranger_cannot_fill_log() {
    let stack = stack();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    still_serves(&mut relay).unwrap();
    let payload = serde_json::to_string(&relay.payload("tail_log", json!({"path": LOG, "lines": 1}))).unwrap();
    let line = json!({"payload": payload, "sig": "AAAA"}).to_string();
    counted(&stack, "bad signatures", 10_000, || {
        for _ in 0..10_000 {
            let answer: Value = relay.ask(&line).unwrap();
            assert_eq!(code(&answer), "signature_invalid");
        }
    });
    still_serves(&mut relay).unwrap();
}

/// Sessions by hand, as the account that may log in: no login, no certificate, or another command.
///
/// REQ-SESSION-12, REQ-RECORD-13
#[test]
fn stranger_cannot_fill_log_by_unauthenticated_runs() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    still_serves(&mut relay).unwrap();
    let line = serde_json::to_string(&json!({"payload": "{}", "sig": "AAAA"})).unwrap();
    for (what, each, expected) in [
        (
            "runs without a certificate",
            format!("printf '%s\\n' '{line}' | {AGENT_EXEC}"),
            "certificate_missing",
        ),
        (
            "runs with another command",
            format!("SSH_ORIGINAL_COMMAND=\"rm -rf $n\" {AGENT_EXEC} </dev/null"),
            "original_command",
        ),
    ] {
        let script = format!("n=0; while [ $n -lt 300 ]; do n=$((n + 1)); {each}; done");
        counted(&stack, what, 300, || {
            let output = target.run(RUNNER, "/bin/sh", &["-c", &script], b"").unwrap();
            let told = String::from_utf8_lossy(&output.stdout);
            let answers = told.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let codes: Vec<String> = answers
                .map(|answer| code(&answer))
                .filter(|code| code != "none")
                .collect();
            assert_eq!(codes, vec![expected; 300], "{output:?}");
        });
    }
    still_serves(&mut relay).unwrap();
}
