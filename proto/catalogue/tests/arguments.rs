//! Hostile arguments, and the one property that matters: whatever is accepted, the command keeps its shape.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test says why"
)]

use catalogue::{Element, Exec, Manifest};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

const MANIFEST: &str = r#"
name = "probe_it"
title = "Probe it"
description = "Has an argument of every kind."
risk = "read"
timeout_ms = 1000
[args]
required = ["word", "path"]
properties.word = { type = "string", maxLength = 100 }
properties.free = { type = "string", maxLength = 200, default = "" }
properties.code = { type = "string", maxLength = 8, pattern = "^[a-z]+$", default = "abc" }
properties.size = { type = "string", enum = ["small", "large"], default = "small" }
properties.fixed = { type = "integer", const = 7, default = 7 }
properties.number = { type = "integer", minimum = 0, maximum = 1000, default = 5 }
properties.flag = { type = "boolean", default = false }
properties.list = { type = "array", maxItems = 3, minItems = 1, uniqueItems = true, items = { type = "integer", maximum = 9 } }
properties.path = { type = "string", minLength = 1, maxLength = 4096 }
[file.path]
within = ["/var/log"]
[exec]
program = "/usr/bin/probe-it"
argv = ["-v", "{word}", "--", "{free}", "{code}", "{size}", "{fixed}", "{number}", "{flag}", "@end"]
stdin = "{path}"
"#;

fn manifest() -> Manifest {
    Manifest::parse(MANIFEST.as_bytes()).unwrap()
}

fn with(key: &str, value: Value) -> Map<String, Value> {
    let mut args = json!({ "word": "w", "path": "/var/log/x" })
        .as_object()
        .cloned()
        .unwrap();
    args.insert(key.to_owned(), value);
    args
}

/// What is told, one line a fault.
fn told(args: &Map<String, Value>) -> Vec<String> {
    match manifest().check_args(args) {
        Ok(_) => Vec::new(),
        Err(faults) => {
            assert!(!faults.is_empty());
            faults.iter().map(ToString::to_string).collect()
        }
    }
}

/// REQ-MANIFEST-10, REQ-MANIFEST-13
#[test]
fn good_arguments_fill_the_template() {
    let checked = manifest().check_args(&with("flag", json!(true))).unwrap();
    assert_eq!(
        checked.argv(),
        ["-v", "w", "--", "", "abc", "small", "7", "5", "true", "@end"]
    );
    assert_eq!(
        checked.args().len(),
        8,
        "defaults are filled in, what is optional stays absent"
    );
}

/// REQ-MANIFEST-4, REQ-MANIFEST-7, REQ-MANIFEST-10, REQ-MANIFEST-11, REQ-MANIFEST-20
#[test]
fn hostile_values_are_refused_by_name() {
    let table: &[(&str, Value, &str)] = &[
        // arg_leading_dash, arg_response_file, arg_dashdash
        ("word", json!("--help"), "word: \"--help\" begins with - or @"),
        ("word", json!("-H root@x"), "word: \"-H root@x\" begins with - or @"),
        ("word", json!("-"), "word: \"-\" begins with - or @"),
        ("word", json!("--"), "word: \"--\" begins with - or @"),
        (
            "word",
            json!("@/etc/shadow"),
            "word: \"@/etc/shadow\" begins with - or @",
        ),
        ("free", json!("--"), "free: \"--\" begins with - or @"),
        // meta_corpus: what no argv may hold; the rest is literal
        ("word", json!("a\nb"), "word: has a control character"),
        ("word", json!("a\rb"), "word: has a control character"),
        ("word", json!("\u{1b}[2J"), "word: has a control character"),
        ("word", json!("a\0b"), "word: has a NUL"),
        ("word", json!("\u{9b}x"), "word: has a control character"),
        ("path", json!("/var/log/a\nb"), "path: has a control character"),
        ("path", json!("/var/log/a\0b"), "path: has a NUL"),
        (
            "path",
            json!("var/log/x"),
            "path: \"var/log/x\" is not an absolute path",
        ),
        ("path", json!(""), "path: \"\" is shorter than 1 characters"),
        // kinds and bounds
        ("word", json!(5), "word: 5 is not of type string"),
        ("word", json!(null), "word: is null"),
        ("word", json!(["w"]), "word: an array is not of type string"),
        ("word", json!({ "$ref": "#" }), "word: an object is not of type string"),
        ("word", json!("w".repeat(101)), "is longer than 100 characters"),
        ("code", json!("ABC"), "code: \"ABC\" does not match ^[a-z]+$"),
        ("code", json!("abc\n"), "code: \"abc\\u{a}\" does not match"),
        (
            "size",
            json!("huge"),
            "size: \"huge\" is not one of \"small\", \"large\"",
        ),
        ("fixed", json!(8), "fixed: 8 is not 7"),
        (
            "number",
            json!(6000),
            "number: 6000 is greater than the maximum of 1000",
        ),
        ("number", json!(-1), "number: -1 is less than the minimum of 0"),
        ("number", json!("5"), "number: \"5\" is not of type integer"),
        ("number", json!(5.0), "number: 5.0 is not an integer"),
        ("number", json!(5.5), "number: 5.5 is not an integer"),
        ("number", json!(true), "number: true is not of type integer"),
        (
            "number",
            json!(9_007_199_254_740_992_i64),
            "is not an integer below 2^53",
        ),
        ("number", json!(u64::MAX), "is not an integer below 2^53"),
        ("flag", json!("true"), "flag: \"true\" is not of type boolean"),
        ("flag", json!(1), "flag: 1 is not of type boolean"),
        ("list", json!([]), "list: has fewer than 1 items"),
        ("list", json!([1, 2, 3, 4]), "list: has more than 3 items"),
        ("list", json!([1, 1]), "list: has the same item twice"),
        ("list", json!([1, 10]), "list.1: 10 is greater than the maximum of 9"),
        ("list", json!([1.5]), "list.0: 1.5 is not an integer"),
        // names
        (
            "shell",
            json!("sh"),
            "shell: is not an argument of this action; known are code, fixed",
        ),
        ("Word", json!("w"), "Word: is not an argument of this action"),
        ("a/b~c", json!("w"), "a/b~c: is not an argument of this action"),
        (
            "\u{202e}\n",
            json!("w"),
            "\\u{202e}\\u{a}: is not an argument of this action",
        ),
    ];
    for (key, value, expected) in table {
        let lines = told(&with(key, value.clone()));
        assert!(
            lines.iter().any(|line| line.contains(expected)),
            "{key} = {value}\nwanted {expected}\ntold {lines:#?}"
        );
    }
    println!("{} hostile arguments, each refused by name", table.len());
}

#[test]
fn shell_metacharacters_are_passed_as_they_stand() {
    for text in [
        ";id",
        "$(id)",
        "`id`",
        "|id",
        "&",
        "a b",
        "*",
        "~",
        "{lines}",
        "%s",
        "../../etc",
        "é",
        "'\"\\",
    ] {
        let checked = manifest().check_args(&with("word", json!(text))).unwrap();
        assert_eq!(checked.argv()[1], text);
    }
}

/// REQ-MANIFEST-10
#[test]
fn everything_wrong_is_told_at_once_and_missing_ones_by_name() {
    let args = json!({ "number": 6000, "flag": 1, "bogus": 2 });
    let mut lines = told(args.as_object().unwrap());
    lines.sort();
    let starts = ["bogus: ", "flag: ", "number: ", "path: is missing", "word: is missing"];
    assert_eq!(lines.len(), starts.len(), "{lines:#?}");
    assert!(
        lines.iter().zip(starts).all(|(line, start)| line.starts_with(start)),
        "{lines:#?}"
    );
}

/// REQ-MANIFEST-10
#[test]
fn a_text_that_is_too_long_is_told_so_and_not_searched_as_well() {
    let lines = told(&with("code", json!("A".repeat(9))));
    assert_eq!(lines, ["code: \"AAAAAAAAA\" is longer than 8 characters"]);
}

/// REQ-TEXT-1
#[test]
fn foreign_text_in_messages_is_escaped_and_cut() {
    for key in ["word", "code", "size", "path", "number"] {
        for line in told(&with(key, json!("\u{1b}".repeat(4000)))) {
            assert!(
                line.len() < 250 && line.is_ascii() && !line.contains('\u{1b}'),
                "{line:?}"
            );
        }
    }
    let lines = told(&with(&"k".repeat(5000), json!(1)));
    assert!(lines.iter().all(|line| line.len() < 300), "{lines:?}");
}

/// A value that a caller could send.
fn value() -> impl Strategy<Value = Value> {
    let text = prop_oneof![
        any::<String>(),
        "[-@]{0,2}[a-z]{0,6}",
        Just("--".to_owned()),
        "[ -~]{0,120}",
        "/var/log/[a-z.\n]{0,10}",
        Just("small".to_owned()),
    ];
    let leaf = prop_oneof![
        text.prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (0..1100_i64).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        Just(Value::Null),
    ];
    leaf.prop_recursive(2, 8, 4, |inner| {
        prop::collection::vec(inner, 0..4).prop_map(Value::Array)
    })
}

/// An argument with a value that is mostly right.
fn plausible() -> impl Strategy<Value = (String, Value)> {
    prop_oneof![
        ("[-@]?[ -~é]{0,60}").prop_map(|text| ("free".to_owned(), Value::from(text))),
        (0..1100_i64).prop_map(|number| ("number".to_owned(), Value::from(number))),
        any::<bool>().prop_map(|flag| ("flag".to_owned(), Value::from(flag))),
        "[a-z]{1,9}".prop_map(|code| ("code".to_owned(), Value::from(code))),
        prop::sample::select(vec!["small", "large", "huge"]).prop_map(|size| ("size".to_owned(), Value::from(size))),
        prop::collection::vec(0..10_i64, 1..3).prop_map(|list| ("list".to_owned(), Value::from(list))),
    ]
}

/// An argument with any value at all.
fn wild() -> impl Strategy<Value = (String, Value)> {
    let names = vec![
        "word", "free", "code", "size", "fixed", "number", "flag", "list", "path",
    ];
    (
        prop_oneof![prop::sample::select(names).prop_map(str::to_owned), "[a-z]{1,4}"],
        value(),
    )
}

fn arguments() -> impl Strategy<Value = Map<String, Value>> {
    let wild = prop_oneof![2 => Just(Vec::new()), 1 => prop::collection::vec(wild(), 1..3)];
    (
        prop::collection::vec(plausible(), 0..5),
        wild,
        "[-@]?[!-~]{1,9}",
        "/[a-z/]{0,9}",
    )
        .prop_map(|(plausible, wild, word, path)| {
            let mut args = Map::new();
            args.insert("word".to_owned(), Value::from(word));
            args.insert("path".to_owned(), Value::from(path));
            args.extend(plausible);
            args.extend(wild);
            args
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    /// argv_shape
    /// REQ-MANIFEST-11, REQ-MANIFEST-13
    #[test]
    fn accepted_arguments_never_change_the_shape_of_the_command(args in arguments()) {
        let manifest = shared();
        let Exec::Program { argv: template, .. } = manifest.exec() else { panic!("it runs a program") };
        if let Ok(checked) = manifest.check_args(&args) {
            prop_assert_eq!(checked.argv().len(), template.len());
            for (element, made) in template.iter().zip(checked.argv()) {
                match element {
                    Element::Constant(constant) => prop_assert_eq!(constant, made),
                    Element::Argument(_) => {
                        prop_assert!(!made.starts_with(['-', '@']), "{}", made);
                        prop_assert!(!made.chars().any(char::is_control), "{:?}", made);
                    }
                }
            }
            // What was checked is what was sent, with defaults beside it.
            for (key, value) in &args {
                prop_assert_eq!(checked.args().get(key), Some(value));
            }
            // Checking again changes nothing: relay and target see the same.
            prop_assert_eq!(manifest.check_args(checked.args()).unwrap(), checked);
        }
    }
}

fn shared() -> &'static Manifest {
    static MANIFEST: std::sync::OnceLock<Manifest> = std::sync::OnceLock::new();
    MANIFEST.get_or_init(manifest)
}
