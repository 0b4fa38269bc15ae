//! What is linked into the program that runs on targets, compared with a list that somebody read.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::process::Command;

/// `cargo tree -p agent-exec -e normal`, each package's name once.
fn linked() -> BTreeSet<String> {
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let arguments = [
        "tree",
        "--locked",
        "-p",
        "agent-exec",
        "-e",
        "normal",
        "--prefix",
        "none",
        "--format",
        "{lib}|{p}",
    ];
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .args(["--manifest-path", manifest])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let name = |line: &str| line.split_once('|')?.1.split(' ').next().map(str::to_owned);
    text.lines().filter_map(name).collect()
}

#[test]
fn the_packages_of_agent_exec_are_those_of_the_checked_in_list() {
    let listed: BTreeSet<String> = include_str!("../packages.txt")
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let linked = linked();
    let new: Vec<_> = linked.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(&linked).collect();
    assert!(
        new.is_empty() && gone.is_empty(),
        "not listed: {new:?}; listed and not linked: {gone:?}"
    );
}

#[test]
fn no_runtime_and_no_network_library_is_among_them() {
    let linked = linked();
    for package in [
        "tokio",
        "tonic",
        "rustls",
        "rmcp",
        "russh",
        "hyper",
        "h2",
        "reqwest",
        "aws-lc-rs",
        "ring",
        "openssl-sys",
    ] {
        assert!(!linked.contains(package), "{package}");
    }
}
