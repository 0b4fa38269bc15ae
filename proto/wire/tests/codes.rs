//! The table of docs/spec/codes.md is [`Code::ALL`], in its order and in its words.
//!
//! After a Code was added: `cargo test -p writ-wire --test codes -- --ignored write_codes`.
#![allow(clippy::unwrap_used, reason = "a failed test says why")]

use std::fs;
use std::path::{Path, PathBuf};

use wire::Code;
use wire::code::Fault;

const HEAD: &str = "| code | failed to … | ask again | whose fault |\n|---|---|---|---|\n";

fn spec() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/spec/codes.md")
}

fn table() -> String {
    let rows = Code::ALL.iter().map(|code| {
        let again = if code.retryable() { "later" } else { "no" };
        let fault = match code.fault() {
            Fault::Caller => "caller",
            Fault::Policy => "policy",
            Fault::Peer => "peer",
            Fault::Machine => "machine",
            Fault::Program => "program",
        };
        format!("| `{code}` | {} | {again} | {fault} |\n", code.text())
    });
    rows.fold(HEAD.to_owned(), |table, row| table + &row)
}

/// The spec before its table, the table, and what follows.
fn parts(text: &str) -> (&str, &str, &str) {
    let begin = text.find("| code |").unwrap();
    let length = text[begin..].find("\n\n").map_or(text.len() - begin, |end| end + 1);
    (&text[..begin], &text[begin..begin + length], &text[begin + length..])
}

/// REQ-CODE-1, REQ-CODE-4
#[test]
fn the_table_of_the_spec_is_every_code() {
    let text = fs::read_to_string(spec()).unwrap();
    assert_eq!(parts(&text).1, table());
}

#[test]
#[ignore = "writes the table that the other test compares with"]
fn write_codes() {
    let text = fs::read_to_string(spec()).unwrap();
    let (before, _, after) = parts(&text);
    fs::write(spec(), format!("{before}{}{after}", table())).unwrap();
}
