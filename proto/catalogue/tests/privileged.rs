//! Command lines of privileged actions: finitely many, each of words that sudoers can express, and no request becomes another.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test says why")]

use catalogue::{Exec, Manifest};
use serde_json::{Map, Value, json};

const GOOD: &str = r#"
name = "restart_service"
title = "Restart"
description = "Restarts one of the listed services."
risk = "change"
timeout_ms = 30_000
privilege = "sudo"
[args]
required = ["unit"]
properties.unit = { type = "string", enum = ["a.service", "b@1.service"] }
properties.how = { type = "string", enum = ["fail", "replace", "isolate"], default = "fail" }
properties.hard = { type = "boolean", default = false }
properties.level = { type = "integer", const = 7, default = 7 }
properties.note = { type = "string", enum = ["x", "y"] }
[exec]
program = "/usr/bin/systemctl"
argv = ["restart", "{how}", "{hard}", "{level}", "{unit}", "{unit}"]
"#;

fn manifest(text: &str) -> Manifest {
    Manifest::parse(text.as_bytes()).unwrap_or_else(|faults| panic!("{faults:#?}"))
}

fn faults(text: &str) -> Vec<String> {
    let faults = Manifest::parse(text.as_bytes()).unwrap_err();
    faults.iter().map(ToString::to_string).collect()
}

fn args(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

/// REQ-MANIFEST-27
#[test]
fn privileged_argv_is_finite_and_every_accepted_request_is_on_the_list() {
    let manifest = manifest(GOOD);
    let lines = manifest.command_lines();
    assert_eq!(
        lines.len(),
        2 * 3 * 2,
        "an argument that the template does not name makes no line"
    );
    let mut seen = Vec::new();
    for unit in ["a.service", "b@1.service"] {
        for how in ["fail", "replace", "isolate"] {
            for hard in [true, false] {
                for note in ["x", "y"] {
                    let sent = json!({"unit": unit, "how": how, "hard": hard, "level": 7, "note": note});
                    let checked = manifest.check_args(&args(sent)).unwrap();
                    let Exec::Program { program, .. } = manifest.exec() else {
                        panic!()
                    };
                    let mut line = vec![program.display().to_string()];
                    line.extend_from_slice(checked.argv());
                    assert!(lines.contains(&line), "{line:?}");
                    seen.push(line);
                }
            }
        }
    }
    seen.sort();
    seen.dedup();
    assert_eq!(seen.len(), lines.len(), "a line that nobody can ask for");
    for bad in [
        json!({"unit": "c.service"}),
        json!({"unit": "a.service b@1.service"}),
        json!({"unit": "a.service", "how": ""}),
        json!({"unit": "a.service", "level": 8}),
        json!({"unit": "*"}),
        json!({"unit": ["a.service"]}),
    ] {
        assert!(manifest.check_args(&args(bad.clone())).is_err(), "{bad}");
    }
}

/// REQ-MANIFEST-27
#[test]
fn the_dry_run_of_a_privileged_action_is_on_the_list_too() {
    let text = format!("{GOOD}[dry_run]\nargv = [\"is-active\", \"{{unit}}\"]\nrisk = \"read\"\n");
    let lines = manifest(&text).command_lines();
    assert_eq!(lines.len(), 12 + 2);
    assert!(lines.contains(&vec![
        "/usr/bin/systemctl".to_owned(),
        "is-active".to_owned(),
        "b@1.service".to_owned()
    ]));
    let checked = manifest(&text).check_args(&args(json!({"unit": "a.service"}))).unwrap();
    assert_eq!(
        checked.dry_run(),
        Some(&["is-active".to_owned(), "a.service".to_owned()][..])
    );
    assert_eq!(
        manifest(GOOD)
            .check_args(&args(json!({"unit": "a.service"})))
            .unwrap()
            .dry_run(),
        None
    );
}

/// REQ-MANIFEST-27
#[test]
fn an_action_without_privilege_has_no_lines() {
    let text = GOOD.replace("privilege = \"sudo\"\n", "");
    assert!(manifest(&text).command_lines().is_empty());
}

/// What sudoers would read as something else than itself, in the template, in a value and in the program. REQ-MANIFEST-28
#[test]
fn words_that_sudoers_cannot_express_are_refused() {
    let words = [
        "", " ", "a b", "*", "a?", "[a]", "!a", "\\\\", "\\\"", "'", "#", "a#b", "(a)", "^a$", "~", "$a", "`", ";",
        "&", "|", "<", "é",
    ];
    for word in words {
        let constant = GOOD.replace("\"restart\"", &format!("\"{word}\""));
        let value = GOOD.replace("\"a.service\"", &format!("\"{word}\""));
        let dry_run = format!("{GOOD}[dry_run]\nargv = [\"{word}\"]\nrisk = \"read\"\n");
        for text in [constant, value, dry_run] {
            let faults = faults(&text);
            assert!(
                faults.iter().any(|fault| fault.starts_with("privilege: wants a word")),
                "{word:?}: {faults:?}"
            );
        }
    }
    for program in ["/usr/bin/a b", "/usr/bin/*", "/usr/bin/a\\\\b", "/usr/bin/#a"] {
        let text = GOOD.replace("/usr/bin/systemctl", program);
        assert!(faults(&text)[0].contains("sudoers lists it"), "{program}");
    }
    for fine in ["a:b", "a,b", "a=b", "%i", "a@b", "+x", "-x", "--x=y", "a_b.c/d"] {
        manifest(&GOOD.replace("\"restart\"", &format!("\"{fine}\"")));
    }
}

/// REQ-MANIFEST-29
#[test]
fn a_privileged_action_says_of_itself_no_sandbox_and_no_probe() {
    let caged = format!("{GOOD}[sandbox]\nprofile = \"reader\"\n");
    assert!(faults(&caged)[0].starts_with("sandbox: does not go with privilege"));
    assert_eq!(
        manifest(GOOD).limits().file_bytes,
        16 << 20,
        "it writes, as a tool does"
    );
    let probe = GOOD.replace(
        "program = \"/usr/bin/systemctl\"\nargv = [\"restart\", \"{how}\", \"{hard}\", \"{level}\", \"{unit}\", \"{unit}\"]",
        "probe = \"{unit}\"",
    );
    assert!(faults(&probe).iter().any(|fault| fault.contains("needs a program")));
}

/// REQ-MANIFEST-30
#[test]
fn patience_is_the_time_of_everything_that_may_follow() {
    let plain = GOOD.replace("privilege = \"sudo\"\n", "");
    assert_eq!(manifest(&plain).patience_ms(), 30_000);
    assert_eq!(manifest(GOOD).patience_ms(), 35_000);
    let verified = |wait: &str| format!("{GOOD}[verify]\naction = \"service_status\"\n{wait}");
    assert_eq!(manifest(&verified("")).patience_ms(), 40_000);
    assert_eq!(manifest(&verified("wait_ms = 700")).patience_ms(), 35_700);
    for bad in ["wait_ms = 0", "wait_ms = 60_001"] {
        assert!(faults(&verified(bad))[0].starts_with("verify.wait_ms: must be 100 to 60000"));
    }
}

#[test]
fn what_verifies_is_asked_with_the_values_of_the_request() {
    let text = format!(
        "{GOOD}[verify]\naction = \"service_status\"\nargs = {{ unit = \"{{unit}}\", lines = 3, deep = true, word = \"unit\" }}\n"
    );
    let manifest = manifest(&text);
    let own = manifest.check_args(&args(json!({"unit": "a.service"}))).unwrap();
    let asked = manifest.verify().unwrap().args_for(own.args());
    assert_eq!(
        Value::Object(asked),
        json!({"unit": "a.service", "lines": 3, "deep": true, "word": "unit"})
    );
}
