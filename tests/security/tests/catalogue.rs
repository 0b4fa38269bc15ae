//! Arguments that a program could take for something else, and catalogues that an administrator got wrong.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use harness::evil::code;
use harness::refused::canary;
use harness::{By, EvilRelay, Leaves, Stack, assert_refused};
use security::{LOG, WEB, granted, stack, still_serves, tell};
use serde_json::{Value, json};

/// A manifest that hands one word of the caller's to a program.
fn words(name: &str) -> String {
    format!(
        "name = \"{name}\"\ntitle = \"Words\"\ndescription = \"Shows a word.\"\nrisk = \"read\"\ntimeout_ms = 1000\n\
         [args]\nrequired = [\"word\"]\nproperties.word = {{ type = \"string\", maxLength = 100 }}\n\
         [exec]\nprogram = \"/usr/bin/echo\"\nargv = [\"first\", \"{{word}}\", \"last\"]\n[sandbox]\nprofile = \"reader\"\n"
    )
}

fn with_words(stack: &Stack) -> EvilRelay {
    stack
        .target(WEB)
        .unwrap()
        .add_action("show_words", &words("show_words"))
        .unwrap();
    granted(stack, &["show_words"]).unwrap()
}

#[test]
fn arg_leading_dash_and_arg_response_file_and_arg_dashdash() {
    let stack = stack();
    let mut relay = with_words(&stack);
    let attacks = [
        "--help",
        "-H root@x",
        "-",
        "--",
        "@/etc/shadow",
        "@",
        "-\n",
        "--output=/tmp/canary",
    ];
    for word in attacks {
        let payload = relay.payload("show_words", json!({ "word": word }));
        assert_refused(&stack, By::Target(WEB), Leaves::Record, "arguments_invalid", || {
            Ok(code(&relay.send(&payload)?))
        })
        .unwrap_or_else(|error| panic!("{word:?}: {error:?}"));
    }
    tell("words that a program reads as options", attacks.len());
}

#[test]
fn meta_corpus() {
    let stack = stack();
    let mut relay = with_words(&stack);
    let touch = "touch /tmp/canary";
    let corpus = [
        format!(";{touch}"),
        format!("; {touch} #"),
        format!("$({touch})"),
        format!("`{touch}`"),
        format!("| {touch}"),
        format!("&& {touch}"),
        format!("x\n{touch}\n"),
        format!("x\r\n{touch}"),
        format!("'; {touch}; '"),
        format!("\"; {touch}; \""),
        format!("${{IFS}}{touch}"),
        "() { :;}; touch /tmp/canary".to_owned(),
        "%s%s%s%n".to_owned(),
        "*".to_owned(),
        "~root".to_owned(),
        "a b\tc".to_owned(),
        "\u{202e}\u{200b}\u{e0041}".to_owned(),
        "first last".to_owned(),
    ];
    let mut literal = 0;
    for word in &corpus {
        let answer = relay.call("show_words", json!({ "word": word })).unwrap();
        match code(&answer).as_str() {
            "none" => {
                // One argument went in whole and one came out whole.
                assert_eq!(answer["output"].as_str().unwrap(), format!("first {word} last\n"));
                literal += 1;
            }
            refused => assert_eq!(refused, "arguments_invalid", "{word:?}"),
        }
        assert!(!canary(&stack), "{word:?} ran");
    }
    let payload = relay.payload("show_words", json!({"word": "a\0b"}));
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "payload_malformed", || {
        Ok(code(&relay.send(&payload)?))
    })
    .unwrap();
    println!(
        "meta corpus: {} words, {literal} literal, {} refused",
        corpus.len() + 1,
        corpus.len() + 1 - literal
    );
}

#[test]
fn argv_shape_in_the_record_is_the_templates() {
    let stack = stack();
    let mut relay = with_words(&stack);
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

#[test]
fn a_faulty_catalogue_runs_nothing_and_lint_names_the_fault() {
    let stack = stack();
    let root = stack.target(WEB).unwrap().root();
    let file = root.at("etc/writ/actions.d/tail_log.toml");
    let honest = std::fs::read_to_string(&file).unwrap();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    still_serves(&mut relay).unwrap();
    assert_eq!(lint(&stack).0, Some(0), "{:?}", lint(&stack));
    let table: Vec<(&str, &str, String)> = vec![
        ("catalogue_unknown_key", "shell", format!("shell = true\n{honest}")),
        ("catalogue_unclassified", "risk", honest.replace("risk = \"read\"", "")),
        (
            "catalogue_open_schema",
            "additionalProperties",
            honest.replace("[args]", "[args]\nadditionalProperties = true"),
        ),
        (
            "catalogue_other_name",
            "name",
            honest.replace("name = \"tail_log\"", "name = \"read_log\""),
        ),
        (
            "catalogue_relative_program",
            "program",
            honest.replace("\"/usr/libexec/writ/inspect\"", "\"inspect\""),
        ),
        ("catalogue_not_toml", "tail_log", "tail -n 200".to_owned()),
        ("catalogue_empty", "tail_log", String::new()),
    ];
    let mut attacks = table.len();
    let attack = |relay: &mut EvilRelay, name: &str| {
        let payload = relay.payload("tail_log", json!({"path": LOG, "lines": 1}));
        assert_refused(&stack, By::Target(WEB), Leaves::Record, "manifest_invalid", || {
            Ok(code(&relay.send(&payload)?))
        })
        .unwrap_or_else(|error| panic!("{name}: {error:?}"));
    };
    for (name, word, text) in table {
        std::fs::write(&file, text).unwrap();
        attack(&mut relay, name);
        let (exit, said) = lint(&stack);
        assert!(
            exit == Some(2) && said.contains(word),
            "{name}: lint exits {exit:?} and says {said}"
        );
    }
    std::fs::write(&file, &honest).unwrap();
    // The file itself.
    let target = stack.target(WEB).unwrap();
    for (name, mode) in [
        ("catalogue_world_writable", "0646"),
        ("catalogue_group_writable", "0664"),
    ] {
        target
            .as_root("/bin/chmod", &[mode, "/etc/writ/actions.d/tail_log.toml"], b"")
            .unwrap();
        attack(&mut relay, name);
        assert_eq!(lint(&stack).0, Some(2), "{name}");
        target
            .as_root("/bin/chmod", &["0644", "/etc/writ/actions.d/tail_log.toml"], b"")
            .unwrap();
        attacks += 1;
    }
    target
        .as_root(
            "/bin/chown",
            &["agent-runner", "/etc/writ/actions.d/tail_log.toml"],
            b"",
        )
        .unwrap();
    attack(&mut relay, "catalogue_of_another_account");
    target
        .as_root("/bin/chown", &["root", "/etc/writ/actions.d/tail_log.toml"], b"")
        .unwrap();
    std::fs::rename(&file, root.at("etc/writ/elsewhere.toml")).unwrap();
    std::os::unix::fs::symlink("/etc/writ/elsewhere.toml", &file).unwrap();
    attack(&mut relay, "catalogue_symlink");
    assert_eq!(lint(&stack).0, Some(2), "catalogue_symlink");
    std::fs::remove_file(&file).unwrap();
    std::fs::rename(root.at("etc/writ/elsewhere.toml"), &file).unwrap();
    // The folder.
    target
        .as_root("/bin/chmod", &["0777", "/etc/writ/actions.d"], b"")
        .unwrap();
    attack(&mut relay, "catalogue_folder_world_writable");
    target
        .as_root("/bin/chmod", &["0755", "/etc/writ/actions.d"], b"")
        .unwrap();
    let folder = root.at("etc/writ/actions.d");
    std::fs::rename(&folder, root.at("etc/writ/away")).unwrap();
    attack(&mut relay, "no_catalogue_denies");
    std::fs::rename(root.at("etc/writ/away"), &folder).unwrap();
    still_serves(&mut relay).unwrap();
    tell("catalogues", attacks + 4);
}

#[test]
fn a_program_that_others_may_write_is_not_run() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    for (mode, owner) in [
        ("0777", "root"),
        ("0775", "root"),
        ("0755", "agent-runner"),
        ("4755", "root"),
    ] {
        target
            .as_root("/bin/chown", &[owner, "/usr/libexec/writ/inspect"], b"")
            .unwrap();
        target
            .as_root("/bin/chmod", &[mode, "/usr/libexec/writ/inspect"], b"")
            .unwrap();
        let payload = relay.payload("tail_log", json!({"path": LOG, "lines": 1}));
        assert_refused(&stack, By::Target(WEB), Leaves::Record, "manifest_invalid", || {
            Ok(code(&relay.send(&payload)?))
        })
        .unwrap_or_else(|error| panic!("{mode} {owner}: {error:?}"));
    }
    target
        .as_root("/bin/chown", &["root", "/usr/libexec/writ/inspect"], b"")
        .unwrap();
    target
        .as_root("/bin/chmod", &["0755", "/usr/libexec/writ/inspect"], b"")
        .unwrap();
    still_serves(&mut relay).unwrap();
}

#[test]
fn stranger_cannot_fill_log() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    still_serves(&mut relay).unwrap();
    let payload = serde_json::to_string(&relay.payload("tail_log", json!({"path": LOG, "lines": 1}))).unwrap();
    let line = json!({"payload": payload, "sig": "AAAA"}).to_string();
    let before = target.records().unwrap().len();
    let begun = std::time::Instant::now();
    for _ in 0..10_000 {
        let answer: Value = relay.ask(&line).unwrap();
        assert_eq!(code(&answer), "signature_invalid");
    }
    let minutes = usize::try_from(begun.elapsed().as_secs() / 60).unwrap();
    let grown = target.records().unwrap().len() - before;
    assert!(
        grown <= minutes + 2,
        "{grown} records for 10,000 bad signatures in {:?}",
        begun.elapsed()
    );
    still_serves(&mut relay).unwrap();
    println!(
        "10000 attacks, 10000 refused, {grown} records, {} ms",
        begun.elapsed().as_millis()
    );
}
