//! Arguments are checked by rules of our own (docs/adr/0008). What they accept is what JSON Schema accepts, and a library that
//! knows all of JSON Schema says so: over drawn schemas, over those that are shipped, and at the edges by hand.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test says why"
)]

use std::cell::Cell;
use std::path::Path;

use catalogue::Manifest;
use jsonschema::{PatternOptions, Validator};
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};
use serde_json::{Map, Value, json};

mod draw;

use draw::{arguments, drawn, manifest};

/// What is said of arguments that no schema speaks of: paths, and elements of argv.
const BESIDES: [&str; 4] = [
    "begins with - or @",
    "has a control character",
    "is not an absolute path",
    "cannot be the name of a probe",
];

fn oracle(manifest: &Manifest) -> Validator {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex().size_limit(1 << 20))
        .build(&manifest.input_schema())
        .unwrap()
}

/// What the wire's strict reader lets through: nothing is null, and a number is an integer below 2^53, written as one.
fn sendable(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(_) | Value::String(_) => true,
        Value::Number(number) => number.as_i64().is_some_and(|n| n.unsigned_abs() < 1 << 53),
        Value::Array(items) => items.iter().all(sendable),
        Value::Object(parts) => parts.values().all(sendable),
    }
}

/// Compares the verdicts, and hands back what they were.
fn verdict(manifest: &Manifest, oracle: &Validator, args: &Map<String, Value>) -> Result<bool, TestCaseError> {
    let checked = manifest.check_args(args);
    if !args.values().all(sendable) {
        prop_assert!(checked.is_err(), "{:?}", args);
        return Ok(false);
    }
    let besides = |what: &str| BESIDES.iter().any(|known| what.contains(known));
    let ours = checked.map_or_else(|faults| faults.iter().all(|fault| besides(&fault.what)), |_| true);
    let mut filled = args.clone();
    manifest.fill_defaults(&mut filled);
    let theirs = oracle.is_valid(&Value::Object(filled));
    prop_assert_eq!(ours, theirs, "{:?} against {}", args, manifest.input_schema());
    Ok(ours)
}

/// What every drawn manifest begins with.
const HEAD: &str = "name = \"x\"\ntitle = \"x\"\ndescription = \"x\"\nrisk = \"read\"\ntimeout_ms = 1000\n";

/// How many arguments were accepted and how many refused: both must be many, or nothing is shown.
#[derive(Default)]
struct Tally {
    accepted: Cell<u32>,
    refused: Cell<u32>,
}

impl Tally {
    fn count(&self, accepted: bool) {
        let side = if accepted { &self.accepted } else { &self.refused };
        side.set(side.get() + 1);
    }

    fn told(&self, least: u32) {
        let (accepted, refused) = (self.accepted.get(), self.refused.get());
        println!("{accepted} arguments accepted, {refused} refused, as JSON Schema says");
        assert!(accepted >= least && refused >= least, "too few of one side");
    }
}

fn run<S: Strategy>(cases: u32, strategy: S, test: impl Fn(S::Value) -> Result<(), TestCaseError>) {
    let config = ProptestConfig {
        cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    match TestRunner::new(config).run(&strategy, test) {
        Ok(()) => {}
        Err(TestError::Fail(why, _)) => panic!("{why}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

/// REQ-MANIFEST-10
#[test]
fn drawn_arguments_are_accepted_where_json_schema_accepts_them() {
    let tally = Tally::default();
    run(
        3000,
        (manifest(), prop::collection::vec(arguments(), 12)),
        |(text, arguments)| {
            // Not every drawn manifest is good: a default may not fit, a minimum may lie above its maximum.
            let Ok(manifest) = Manifest::parse(text.as_bytes()) else {
                return Ok(());
            };
            let oracle = oracle(&manifest);
            for arguments in &arguments {
                tally.count(verdict(&manifest, &oracle, &drawn(&manifest, arguments))?);
            }
            Ok(())
        },
    );
    tally.told(5000);
}

/// REQ-MANIFEST-10
#[test]
fn arguments_of_the_shipped_actions_are_accepted_where_json_schema_accepts_them() {
    let tally = Tally::default();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("actions.d");
    for file in std::fs::read_dir(folder).unwrap() {
        let manifest = Manifest::parse(&std::fs::read(file.unwrap().path()).unwrap()).unwrap();
        let oracle = oracle(&manifest);
        run(1000, arguments(), |arguments| {
            tally.count(verdict(&manifest, &oracle, &drawn(&manifest, &arguments))?);
            Ok(())
        });
    }
    tally.told(100);
}

/// REQ-MANIFEST-7, REQ-MANIFEST-8, REQ-MANIFEST-10
#[test]
fn the_edges_are_those_of_json_schema() {
    let largest = (1_i64 << 53) - 1;
    let at_most_256 =
        |items: &str| format!("type = 'array', maxItems = 256, uniqueItems = true, items = {{ {items} }}");
    let integers = at_most_256("type = 'integer'");
    let texts = at_most_256("type = 'string', maxLength = 4");
    // (keywords, what is accepted, what is refused)
    let table: &[(&str, &[Value], &[Value])] = &[
        // characters, not bytes, not what a reader sees as one
        (
            "type = 'string', minLength = 2, maxLength = 2",
            &[json!("éé"), json!("😀😀"), json!("e\u{301}"), json!("\n\n")],
            &[
                json!("é"),
                json!("😀"),
                json!("ééé"),
                json!("e\u{301}\u{301}"),
                json!(""),
            ],
        ),
        (
            "type = 'string', maxLength = 1",
            &[json!(""), json!("日")],
            &[json!(1), json!(["a"]), json!({}), json!(false)],
        ),
        (
            "type = 'string', enum = ['1', 'true', 'é']",
            &[json!("1"), json!("true"), json!("é")],
            &[json!(1), json!(true), json!("e\u{301}"), json!("É"), json!("")],
        ),
        (
            "type = 'string', enum = ['a', 'b'], const = 'b'",
            &[json!("b")],
            &[json!("a"), json!("c")],
        ),
        (
            "type = 'string', enum = ['abc', 'a'], maxLength = 2",
            &[json!("a")],
            &[json!("abc")],
        ),
        (
            "type = 'integer', enum = [1, 0]",
            &[json!(0), json!(1)],
            &[json!(true), json!(false), json!("1"), json!(2)],
        ),
        ("type = 'integer', const = 7, maximum = 6", &[], &[json!(7), json!(6)]),
        (
            "type = 'integer', minimum = -1, maximum = 1",
            &[json!(-1), json!(0), json!(1)],
            &[json!(-2), json!(2)],
        ),
        (
            "type = 'integer'",
            &[json!(largest), json!(-largest)],
            &[json!("0"), json!([0]), json!({ "a": 0 })],
        ),
        (
            "type = 'boolean'",
            &[json!(true), json!(false)],
            &[json!(0), json!("true"), json!([])],
        ),
        ("type = 'boolean', const = true", &[json!(true)], &[json!(false)]),
        ("type = 'boolean', enum = [false]", &[json!(false)], &[json!(true)]),
        (
            &integers,
            &[json!([]), json!([1, 2, -1, 0]), (0..256).collect()],
            &[
                json!([1, 2, 1]),
                json!([0, 0]),
                (0..257).collect(),
                json!([[1]]),
                json!([1, "1"]),
                json!({ "0": 1 }),
            ],
        ),
        (
            &texts,
            &[json!(["é", "e\u{301}", ""])],
            &[json!(["é", "é"]), json!(["abcde"]), json!([1]), json!(["a", [], []])],
        ),
        (
            "type = 'array', minItems = 2, maxItems = 2, items = { type = 'boolean' }",
            &[json!([true, true])],
            &[json!([true]), json!([true, true, true]), json!([true, 1])],
        ),
        // the classes of ECMA-262, and an engine that reads the rest as it is written
        (
            r"type = 'string', maxLength = 9, pattern = '^\d+$'",
            &[json!("07")],
            &[json!("٣"), json!("7\n"), json!("")],
        ),
        (
            r"type = 'string', maxLength = 9, pattern = '^\D$'",
            &[json!("٣"), json!("a")],
            &[json!("7")],
        ),
        (
            r"type = 'string', maxLength = 9, pattern = '^[\w.]+$'",
            &[json!("a_9.")],
            &[json!("é"), json!("a-"), json!("ſ")],
        ),
        (
            r"type = 'string', maxLength = 9, pattern = '^[^\w]$'",
            &[json!("é"), json!("-")],
            &[json!("a"), json!("_")],
        ),
        (
            r"type = 'string', maxLength = 9, pattern = '^\s$'",
            &[
                json!(" "),
                json!("\u{b}"),
                json!("\u{a0}"),
                json!("\u{2029}"),
                json!("\u{feff}"),
            ],
            &[json!("\u{85}"), json!("\u{200b}"), json!("a")],
        ),
        (
            r"type = 'string', maxLength = 9, pattern = '^[^\s\d]$'",
            &[json!("a"), json!("٣")],
            &[json!("\u{feff}"), json!("1")],
        ),
        (
            r"type = 'string', maxLength = 9, pattern = '^.$'",
            &[json!("é"), json!("😀")],
            &[json!("\n"), json!("ab"), json!("")],
        ),
        (
            r"type = 'string', maxLength = 9, pattern = '^(?:a|)$'",
            &[json!("a"), json!("")],
            &[json!("b"), json!("a\n")],
        ),
        (
            r"type = 'string', maxLength = 9, pattern = '^\p{Lu}+$'",
            &[json!("É")],
            &[json!("é")],
        ),
    ];
    for (keywords, accepted, refused) in table {
        let manifest =
            format!("{HEAD}[args]\nproperties.p = {{ {keywords} }}\n[exec]\nprogram = '/bin/x'\nargv = []\n");
        let manifest = Manifest::parse(manifest.as_bytes()).unwrap();
        let oracle = oracle(&manifest);
        for (value, expected) in (accepted.iter().map(|v| (v, true))).chain(refused.iter().map(|v| (v, false))) {
            let args = Map::from_iter([("p".to_owned(), value.clone())]);
            assert_eq!(
                verdict(&manifest, &oracle, &args).unwrap(),
                expected,
                "{value} for {keywords}"
            );
        }
        // The one place where JSON Schema knows more: there 1.0 is an integer. No strict reader hands one over.
        for value in [
            json!(1.0),
            json!(-0.0),
            json!(1_i64 << 53),
            json!(-(1_i64 << 53)),
            json!(null),
        ] {
            let args = Map::from_iter([("p".to_owned(), value)]);
            assert!(manifest.check_args(&args).is_err(), "{args:?} for {keywords}");
        }
    }
}
