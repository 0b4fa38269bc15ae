//! Bad manifests, each with the fault that it must be told.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test says why"
)]

use catalogue::{Element, Exec, Manifest, Privilege, Profile};
use serde_json::json;

const GOOD: &str = r#"
name = "tail_log"
title = "Tail a log"
description = "Last lines of a log."
risk = "read"
timeout_ms = 10_000
[args]
required = ["path"]
properties.path = { type = "string", maxLength = 4096 }
properties.lines = { type = "integer", minimum = 1, maximum = 5000, default = 50 }
properties.unit = { type = "string", maxLength = 20, pattern = "^[a-z]+$", default = "x" }
[file.path]
within = ["/var/log"]
[exec]
program = "/usr/libexec/writ/inspect"
argv = ["tail", "-n", "{lines}", "{unit}"]
stdin = "{path}"
[limits]
output_bytes = 262_144
[sandbox]
profile = "reader"
"#;

fn faults(text: &str) -> Vec<String> {
    match Manifest::parse(text.as_bytes()) {
        Ok(_) => Vec::new(),
        Err(faults) => {
            assert!(!faults.is_empty(), "a refusal names its reason");
            faults.iter().map(ToString::to_string).collect()
        }
    }
}

#[test]
fn the_manifest_that_the_bad_ones_start_from_is_good() {
    assert_eq!(faults(GOOD), [""; 0]);
}

/// REQ-MANIFEST-2, REQ-MANIFEST-3, REQ-MANIFEST-4, REQ-MANIFEST-5, REQ-MANIFEST-6, REQ-MANIFEST-7, REQ-MANIFEST-8, REQ-MANIFEST-9, REQ-MANIFEST-12, REQ-MANIFEST-13, REQ-MANIFEST-14, REQ-MANIFEST-15, REQ-MANIFEST-16, REQ-MANIFEST-17, REQ-TEXT-3
#[test]
fn each_bad_manifest_is_refused_by_the_name_of_its_fault() {
    let lines = r#"properties.lines = { type = "integer", minimum = 1, maximum = 5000, default = 50 }"#;
    let path = r#"properties.path = { type = "string", maxLength = 4096 }"#;
    let pattern = r#"pattern = "^[a-z]+$""#;
    let argv = r#"argv = ["tail", "-n", "{lines}", "{unit}"]"#;
    // (what stands in the good one, what stands there instead, the key at fault, a part of what is said)
    #[rustfmt::skip]
    let table: &[(&str, &str, &str, &str)] = &[
        // the frame
        ("name = \"tail_log\"", "", "name", "is missing"),
        ("name = \"tail_log\"", "name = \"Tail-Log\"", "name", "a-z 0-9 _"),
        ("name = \"tail_log\"", "name = 7", "name", "must be a string, not an integer"),
        ("name = \"tail_log\"", "name = \"tail_log\"\nname = \"x\"", "line 3", ""),
        ("title = \"Tail a log\"", "", "title", "is missing"),
        ("title = \"Tail a log\"", "title = \"Tail\\na log\"", "title", "not shown, \\u{a}"),
        ("title = \"Tail a log\"", "title = \"\\u202egol a liaT\"", "title", "not shown, \\u{202e}"),
        ("title = \"Tail a log\"", "title = \"  \"", "title", "1 to 80 characters"),
        ("description = \"Last", "description = \"\\u001b[2JLast", "description", "not shown, \\u{1b}"),
        ("description = \"Last", "description = \"\\U000e0041Last", "description", "not shown"),
        ("risk = \"read\"", "", "risk", "is missing"),
        ("risk = \"read\"", "risk = \"none\"", "risk", "read, change or destroy"),
        ("timeout_ms = 10_000", "", "timeout_ms", "is missing"),
        ("timeout_ms = 10_000", "timeout_ms = 0", "timeout_ms", "must be 1 to 600000, not 0"),
        ("timeout_ms = 10_000", "timeout_ms = 600_001", "timeout_ms", "must be 1 to 600000"),
        ("timeout_ms = 10_000", "timeout_ms = 1.5", "timeout_ms", "not a float"),
        ("timeout_ms = 10_000", "timeout_s = 10", "timeout_s", "is not a known key"),
        ("[sandbox]", "shell = true\n[sandbox]", "limits.shell", "is not a known key"),
        ("[sandbox]", "[sandboxes]", "sandboxes", "is not a known key"),
        ("profile = \"reader\"", "profile = \"none\"", "sandbox.profile", "reader or tool"),
        ("output_bytes = 262_144", "output_bytes = 524_289", "limits.output_bytes", "must be 1 to 524288"),
        ("output_bytes = 262_144", "output_bytes = 0", "limits.output_bytes", "must be 1"),
        ("[limits]\noutput_bytes = 262_144", "limits = 5", "exec.limits", "is not a known key"),
        // what only an effect has
        ("timeout_ms", "approvals = 1\ntimeout_ms", "approvals", "change or destroy"),
        ("timeout_ms", "approval_window_s = 600\ntimeout_ms", "approval_window_s", "change or destroy"),
        ("timeout_ms", "privilege = \"sudo\"\ntimeout_ms", "privilege", "change or destroy"),
        ("[sandbox]", "[dry_run]\nargv = []\nrisk = \"read\"\n[sandbox]", "dry_run", "change or destroy"),
        ("[sandbox]", "[verify]\naction = \"x\"\n[sandbox]", "verify", "change or destroy"),
        ("risk = \"read\"", "risk = \"destroy\"", "approvals", "1 or more for risk destroy"),
        ("risk = \"read\"", "risk = \"change\"\napprovals = 1", "approval_window_s", "is missing"),
        ("risk = \"read\"", "risk = \"change\"\napprovals = 9\napproval_window_s = 60", "approvals", "0 to 8"),
        ("risk = \"read\"", "risk = \"change\"\nprivilege = \"root\"", "privilege", "must be \"sudo\""),
        ("risk = \"read\"", "risk = \"change\"\nprivilege = \"sudo\"", "privilege", "enum or const for the argument lines"),
        ("risk = \"read\"", "risk = \"change\"\nverify = { action = \"Bad\" }", "verify.action", "a-z 0-9 _"),
        ("risk = \"read\"", "risk = \"change\"\nverify = { action = \"x\", args = { a = \"{nope}\" } }", "verify.args", "{nope}"),
        ("risk = \"read\"", "risk = \"change\"\ndry_run = { argv = [], risk = \"change\" }", "dry_run.risk", "less than"),
        // the schema: nothing open
        ("[args]", "[args]\nadditionalProperties = true", "args.additionalProperties", "must be left out"),
        ("[args]", "[args]\nadditionalProperties = false", "args.additionalProperties", "must be left out"),
        ("[args]", "[args]\ntype = \"array\"", "args.type", "must be \"object\""),
        ("[args]", "[args]\npatternProperties = {}", "args.patternProperties", "subset"),
        ("[args]", "[args]\n\"$ref\" = \"#\"", "args.\"$ref\"", "subset"),
        ("[args]", "[args]\nmaxLength = 5", "args.maxLength", "as a whole"),
        ("required = [\"path\"]", "required = [\"path\", \"gone\"]", "args.required", "\"gone\", which is not in properties"),
        ("required = [\"path\"]", "required = [\"path\", \"path\"]", "args.required", "twice"),
        ("required = [\"path\"]", "required = \"path\"", "args.required", "an array of strings"),
        ("required = [\"path\"]", "", "file.path", "must be in args.required"),
        ("required = [\"path\"]", "required = [\"path\", \"lines\"]", "args.properties.lines.default", "required"),
        (path, "properties.path = { type = \"string\" }", "args.properties.path.maxLength", "is missing"),
        (path, "properties.path = { type = \"string\", maxLength = 4097 }", "args.properties.path.maxLength", "1 to 4096"),
        (path, "properties.path = { type = \"string\", maxLength = 9, minLength = 10 }", "args.properties.path.minLength", "greater"),
        (path, "properties.path = { type = \"string\", maxLength = 9, format = \"uri\" }", "args.properties.path.format", "subset"),
        (path, "properties.path = { type = \"string\", maxLength = 9, minimum = 1 }", "args.properties.path.minimum", "does not apply to a string"),
        (path, "properties.path = { type = \"integer\" }", "file.path", "must be a string"),
        (path, "properties.path = { maxLength = 9 }", "args.properties.path.type", "is missing"),
        (path, "properties.path = { type = [\"string\"], maxLength = 9 }", "args.properties.path.type", "must be a string"),
        (path, "properties.path = { anyOf = [], type = \"string\", maxLength = 9 }", "args.properties.path.anyOf", "subset"),
        (lines, "properties.lines = { type = \"number\", default = 50 }", "args.properties.lines.type", "\"number\""),
        (lines, "properties.lines = { type = \"object\" }", "args.properties.lines.type", "\"object\""),
        (lines, "properties.lines = { type = \"null\" }", "args.properties.lines.type", "\"null\""),
        (lines, "properties.lines = 5", "args.properties.lines", "must be a table"),
        (lines, "properties.lines = { type = \"integer\", minimum = 1, maximum = 10, default = 50 }", "args.properties.lines.default", "50 is greater than the maximum of 10"),
        (lines, "properties.lines = { type = \"integer\", minimum = 1, default = 5, examples = [0] }", "args.properties.lines.examples", "less than the minimum"),
        (lines, "properties.lines = { type = \"integer\", minimum = 1, default = \"5\" }", "args.properties.lines.default", "must be an integer, not a string"),
        (lines, "properties.lines = { type = \"integer\", minimum = 1.0, default = 5 }", "args.properties.lines.minimum", "not a float"),
        (lines, "properties.lines = { type = \"integer\", minimum = 9, maximum = 1, default = 5 }", "args.properties.lines.minimum", "greater than maximum"),
        (lines, "properties.lines = { type = \"integer\", minimum = 1, maximum = 9007199254740992, default = 5 }", "args.properties.lines.maximum", "2^53"),
        (lines, "properties.lines = { type = \"integer\", exclusiveMinimum = 0, default = 5 }", "args.properties.lines.exclusiveMinimum", "subset"),
        (lines, "properties.lines = { type = \"integer\", multipleOf = 2, default = 5 }", "args.properties.lines.multipleOf", "subset"),
        (lines, "properties.lines = { type = \"integer\", enum = [], default = 5 }", "args.properties.lines.enum", "1 to 256 values"),
        (lines, "properties.lines = { type = \"integer\", enum = [5, 5], default = 5 }", "args.properties.lines.enum", "twice"),
        (lines, "properties.lines = { type = \"integer\", enum = [1979-05-27], default = 5 }", "args.properties.lines.enum", "not a date"),
        (lines, "properties.lines = { type = \"array\", maxItems = 3, items = { type = \"integer\", maximum = 9 }, default = [1, 10] }", "args.properties.lines.default", "item 1: 10 is greater than the maximum of 9"),
        (lines, "properties.lines = { type = \"array\", maxItems = 3, items = { type = \"integer\" }, default = [9007199254740992] }", "args.properties.lines.default", "item 0"),
        (lines, "properties.Lines = { type = \"integer\" }", "args.properties.Lines", "a-z 0-9 _"),
        (lines, "properties.task_id = { type = \"integer\" }", "args.properties.task_id", "another name"),
        (lines, "properties.lines = { type = \"array\", items = { type = \"string\", maxLength = 5 } }", "args.properties.lines.maxItems", "is missing"),
        (lines, "properties.lines = { type = \"array\", maxItems = 257, items = { type = \"boolean\" } }", "args.properties.lines.maxItems", "1 to 256"),
        (lines, "properties.lines = { type = \"array\", maxItems = 5 }", "args.properties.lines.items", "is missing"),
        (lines, "properties.lines = { type = \"array\", maxItems = 5, items = { type = \"string\" } }", "args.properties.lines.items.maxLength", "is missing"),
        (lines, "properties.lines = { type = \"array\", maxItems = 5, items = { type = \"array\" } }", "args.properties.lines.items.type", "integer or boolean"),
        (lines, "properties.lines = { type = \"array\", maxItems = 5, items = { type = \"boolean\", default = true } }", "args.properties.lines.items.default", "items of an array"),
        // patterns
        (pattern, "pattern = \"[a-z]+\"", "args.properties.unit.pattern", "anchored"),
        (pattern, "pattern = \"^[a-z]+\"", "args.properties.unit.pattern", "anchored"),
        (pattern, "pattern = \"^a|b$\"", "args.properties.unit.pattern", "anchored"),
        (pattern, "pattern = \"(?m)^[a-z]+$\"", "args.properties.unit.pattern", "anchored"),
        (pattern, "pattern = \"^(a\"", "args.properties.unit.pattern", "linear-time"),
        (pattern, "pattern = \"^(?!x)[a-z]+$\"", "args.properties.unit.pattern", "linear-time"),
        (pattern, "pattern = '^(a)\\1$'", "args.properties.unit.pattern", "linear-time"),
        (pattern, "pattern = '^(?:[a-z]{1000}){1000}$'", "args.properties.unit.pattern", "does not compile"),
        (pattern, "pattern = '^[[:alpha:]]+$'", "args.properties.unit.pattern", "readers differ"),
        (pattern, "pattern = '^[[a]$|x]$'", "args.properties.unit.pattern", "readers differ"),
        (pattern, "pattern = '^[a-z&&[^x]]+$'", "args.properties.unit.pattern", "readers differ"),
        (pattern, "pattern = '^[a-z&&x]+$'", "args.properties.unit.pattern", "readers differ"),
        (pattern, "pattern = '^[--z]+$'", "args.properties.unit.pattern", "readers differ"),
        (pattern, "pattern = '^[a-z~~x]+$'", "args.properties.unit.pattern", "readers differ"),
        (pattern, r"pattern = '^[x\a]$'", "args.properties.unit.pattern", "readers differ"),
        (pattern, r"pattern = '^x\a?$'", "args.properties.unit.pattern", "readers differ"),
        (pattern, "pattern = \"^[0-9]+$\"", "args.properties.unit.default", "does not match"),
        // files and the template
        ("within = [\"/var/log\"]", "", "file.path.within", "at least one"),
        ("within = [\"/var/log\"]", "within = [\"var/log\"]", "file.path.within", "absolute"),
        ("within = [\"/var/log\"]", "within = [\"/var/../etc\"]", "file.path.within", "absolute"),
        ("within = [\"/var/log\"]", "within = [\"/\"]", "file.path.within", "below /"),
        ("within = [\"/var/log\"]", "within = [\"/var/log\"]\nfollow = true", "file.path.follow", "is not a known key"),
        ("[file.path]", "[file.other]", "file.other", "not an argument"),
        ("stdin = \"{path}\"", "", "exec.stdin", "must be \"{path}\""),
        ("stdin = \"{path}\"", "stdin = \"{unit}\"", "exec.stdin", "[file.unit] is missing"),
        ("stdin = \"{path}\"", "stdin = \"/etc/shadow\"", "exec.stdin", "exactly one {name}"),
        ("program = \"/usr/libexec/writ/inspect\"", "", "exec.program", "is missing"),
        ("program = \"/usr/libexec/writ/inspect\"", "program = \"inspect\"", "exec.program", "absolute"),
        ("program = \"/usr/libexec/writ/inspect\"", "program = \"/usr/../bin/x\"", "exec.program", "absolute"),
        ("program = \"/usr/libexec/writ/inspect\"", "program = \"/bin/sh\"", "exec.argv", "gives an argument to sh"),
        ("program = \"/usr/libexec/writ/inspect\"", "program = \"/bin/x\"\nshell = true", "exec.shell", "is not a known key"),
        (argv, "argv = [\"{gone}\"]", "exec.argv", "{gone} is not an argument"),
        (argv, "argv = [\"--lines={lines}\"]", "exec.argv", "exactly one {name}"),
        (argv, "argv = [\"{lines}{lines}\"]", "exec.argv", "exactly one {name}"),
        (argv, "argv = [\"{}\"]", "exec.argv", "exactly one {name}"),
        (argv, "argv = [\"a\\nb\"]", "exec.argv", "control character"),
        (argv, "argv = [\"{path}\"]", "exec.argv", "never by its path"),
        (argv, "argv = [5]", "exec.argv", "array of strings only"),
        (lines, "properties.lines = { type = \"integer\", minimum = 1 }", "exec.argv", "args.required or have a default"),
        (lines, "properties.lines = { type = \"integer\", minimum = -1, default = 5 }", "exec.argv", "minimum of 0 or more"),
        (lines, "properties.lines = { type = \"integer\", default = 5 }", "exec.argv", "minimum of 0 or more"),
        (lines, "properties.lines = { type = \"string\", enum = [\"a\", \"--all\"], default = \"a\" }", "exec.argv", "lists \"--all\""),
        (lines, "properties.lines = { type = \"array\", maxItems = 2, items = { type = \"boolean\" }, default = [true] }", "exec.argv", "is an array"),
        ("stdin =", "encoding = \"{unit}\"\nstdin =", "exec.encoding", "enum [\"text\", \"base64\"]"),
        ("stdin =", "offset = \"{unit}\"\nstdin =", "exec.offset", "an integer argument"),
        ("stdin =", "offset = \"{none}\"\nstdin =", "exec.offset", "an integer argument"),
        ("stdin =", "offset = \"{lines}5\"\nstdin =", "exec.offset", "exactly one {name}"),
        ("stdin = \"{path}\"", "offset = \"{lines}\"", "exec.offset", "stdin is missing"),
        ("stdin =", "probe = \"{unit}\"\noffset = \"{lines}\"\nstdin =", "exec.offset", "does not go with probe"),
        ("stdin =", "probe = \"{unit}\"\nstdin =", "exec.stdin", "does not go with probe"),
        ("stdin =", "probe = \"{lines}\"\nstdin =", "exec.probe", "must be a string"),
    ];
    for (from, to, key, what) in table {
        assert_eq!(GOOD.matches(from).count().min(1), 1, "{from} is not in the good one");
        let text = GOOD.replacen(from, to, 1);
        let told = faults(&text);
        assert!(
            told.iter()
                .any(|line| line.starts_with(&format!("{key}:")) && line.contains(what)),
            "{to}\nwanted {key}: …{what}…\ntold {told:#?}"
        );
    }
    println!("{} bad manifests, each refused by name", table.len());
}

/// REQ-MANIFEST-7
#[test]
fn a_listed_text_is_no_longer_than_any_argument_may_be() {
    let listed = |length: usize| {
        let choice = format!("type = \"string\", enum = [\"x\", \"{}\"]", "é".repeat(length));
        GOOD.replacen("type = \"string\", maxLength = 20, pattern = \"^[a-z]+$\"", &choice, 1)
    };
    assert_eq!(faults(&listed(4096)), [""; 0]);
    let told = faults(&listed(4097));
    assert!(
        told[0].starts_with("args.properties.unit.enum: has a string of more than 4096"),
        "{told:?}"
    );
}

/// REQ-MANIFEST-2
#[test]
fn all_faults_are_told_at_once() {
    let text = GOOD
        .replacen("risk = \"read\"", "risk = \"none\"", 1)
        .replacen("timeout_ms = 10_000", "timeout_ms = 0\nbogus = 1", 1)
        .replacen("maxLength = 4096", "maxLength = 0", 1)
        .replacen("{lines}", "{gone}", 1)
        .replacen("profile = \"reader\"", "profile = \"x\"", 1);
    assert_eq!(faults(&text).len(), 6, "{:#?}", faults(&text));
}

/// REQ-MANIFEST-2
#[test]
fn a_manifest_is_refused_before_parsing_where_it_is_too_long_or_not_text() {
    let long = format!("{GOOD}\n#{}", "x".repeat(64 * 1024));
    assert!(faults(&long)[0].contains("more than 65536 bytes"));
    assert!(
        Manifest::parse(b"name = \"\xff\"").unwrap_err()[0]
            .to_string()
            .contains("UTF-8")
    );
    assert!(faults("name = ")[0].starts_with("line 1"));
    assert!(!faults("").is_empty());
}

#[test]
fn an_action_with_an_effect_has_all_its_keys() {
    let text = r#"
        name = "restart_service"
        title = "Restart a service"
        description = "Restarts one of the listed services."
        risk = "change"
        timeout_ms = 60_000
        approvals = 1
        approval_window_s = 900
        privilege = "sudo"
        [args]
        required = ["unit"]
        properties.unit = { type = "string", enum = ["nginx.service", "app.service"] }
        properties.wait = { type = "boolean", default = true }
        [exec]
        program = "/usr/bin/systemctl"
        argv = ["restart", "{unit}", "{wait}"]
        [dry_run]
        argv = ["status", "{unit}"]
        risk = "read"
        [verify]
        action = "check_health"
        args = { probe = "{unit}", deep = true }
    "#;
    let manifest = Manifest::parse(text.as_bytes()).unwrap();
    assert_eq!((manifest.approvals(), manifest.approval_window_s()), (1, Some(900)));
    assert_eq!(manifest.privilege(), Privilege::Sudo);
    assert_eq!(
        manifest.dry_run().unwrap().argv[1],
        Element::Argument("unit".to_owned())
    );
    assert_eq!(manifest.verify().unwrap().args["probe"], json!("{unit}"));
    assert_eq!(
        manifest.profile(),
        Profile::Reader,
        "the narrowest where nothing is said"
    );
    assert!(matches!(manifest.exec(), Exec::Program { stdin: None, .. }));

    let too_many = text.replace(
        "\"app.service\"",
        &(0..200).map(|n| format!("\"s{n}\"")).collect::<Vec<_>>().join(", "),
    );
    assert!(
        faults(&too_many)[0].contains("804 command lines"),
        "{:?}",
        faults(&too_many)
    );
}

#[test]
fn a_pinned_file_is_sent_with_its_digest() {
    let text = GOOD.replacen("within = [\"/var/log\"]", "within = [\"/var/log\"]\npin = true", 1);
    let manifest = Manifest::parse(text.as_bytes()).unwrap();
    let schema = manifest.input_schema();
    assert_eq!(schema["properties"]["path"]["required"], json!(["path", "sha256"]));
    assert_eq!(schema["properties"]["path"]["additionalProperties"], json!(false));
    let sha256 = "0".repeat(64);
    let args = json!({ "path": { "path": "/var/log/x", "sha256": sha256 } });
    let checked = manifest.check_args(args.as_object().unwrap()).unwrap();
    assert_eq!(checked.stdin().unwrap().sha256, Some(sha256.as_str()));
    for bad in [
        json!({ "path": "/var/log/x" }),
        json!({ "path": { "path": "/var/log/x" } }),
        json!({ "path": { "path": "/var/log/x", "sha256": "00" } }),
        json!({ "path": { "path": "/var/log/x", "sha256": sha256, "mode": "rw" } }),
    ] {
        assert!(manifest.check_args(bad.as_object().unwrap()).is_err(), "{bad}");
    }
}
