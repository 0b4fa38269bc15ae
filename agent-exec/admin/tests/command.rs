//! The program as it is called: help, version, exit codes.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test says why"
)]

use std::process::{Command, Output};

fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_writ-target"))
        .args(args)
        .output()
        .unwrap()
}

#[test]
fn help_and_version_are_there_for_every_verb() {
    for args in [
        &["--help"][..],
        &["enroll", "--help"],
        &["catalogue", "--help"],
        &["catalogue", "lint", "--help"],
        &["explain", "--help"],
        &["doctor", "--help"],
    ] {
        let output = run(args);
        assert!(output.status.success() && !output.stdout.is_empty(), "{args:?}");
    }
    let version = String::from_utf8(run(&["--version"]).stdout).unwrap();
    assert!(
        version.starts_with("writ-target 0.") && version.contains(" build "),
        "{version}"
    );
}

#[test]
fn what_is_refused_exits_2_and_says_why() {
    for args in [
        &[][..],
        &["bogus"],
        &["enroll", "--replace-ca"],
        &["enroll", "--config", "/no/such/target.toml"],
        &["catalogue", "lint", "/no/such/folder"],
        &["explain"],
        &["explain", "../target"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
}
