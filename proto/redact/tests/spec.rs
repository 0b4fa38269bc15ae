//! The spec's table of kinds is the code's, and its example is what comes out.

#![allow(clippy::unwrap_used, missing_docs)]

use redact::{Kind, redact_text};

const SPEC: &str = include_str!("../../../docs/spec/redaction.md");

/// The block of the spec whose fence is marked so.
fn block(name: &str) -> &'static str {
    let (_, rest) = SPEC.split_once(&format!("```text {name}\n")).unwrap();
    rest.split_once("```").unwrap().0
}

#[test]
fn the_table_of_the_spec_is_the_tables_of_the_code() {
    let (_, kinds) = SPEC.split_once("## Kinds").unwrap();
    let rows: Vec<_> = kinds
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.strip_suffix(" |")?.split_once("` | "))
        .collect();
    let kinds: Vec<_> = Kind::ALL.iter().map(|kind| (kind.name(), kind.finds())).collect();
    assert_eq!(rows, kinds);
}

#[test]
fn the_example_of_the_spec_is_what_comes_out() {
    let (shown, count) = redact_text(block("before"));
    assert_eq!(shown, block("after"));
    assert_eq!(count, 5);
}
