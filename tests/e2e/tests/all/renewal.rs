//! A task that lives longer than its certificate.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use harness::{ALICE, Options, Stack, records};
use serde_json::{Value, json};

/// Of a certificate, in seconds: two thirds of it are over after 10.
const LIFETIME: u32 = 15;

/// REQ-SESSION-20, REQ-SESSION-21, REQ-CERT-18, REQ-CARPC-5
#[test]
fn a_certificate_is_renewed_on_the_open_session_before_it_ends() {
    let stack = Stack::start(&Options {
        targets: vec!["web-1"],
        task_lifetime_s: LIFETIME,
        ..Options::default()
    })
    .unwrap();
    let mut client = stack.client(ALICE).unwrap();
    let mut arguments = json!({"target": "web-1", "path": "/var/log/shop/web.log", "lines": 1, "reason": "a test"});
    let begun = Instant::now();
    let mut calls = 0;
    while begun.elapsed() < Duration::from_secs(u64::from(LIFETIME) + 7) {
        let read = client.call_ok("tail_log", arguments.clone()).unwrap();
        arguments["task_id"] = read["task_id"].clone();
        calls += 1;
        std::thread::sleep(Duration::from_millis(500));
    }

    let target = stack.target("web-1").unwrap();
    let log = target.sshd_log();
    let logins: Vec<&str> = log.lines().filter(|line| line.contains("Accepted publickey")).collect();
    assert_eq!(logins.len(), 1, "one connection serves the whole task: {logins:?}");
    let ca = stack.control.records_ca().unwrap();
    let task = arguments["task_id"].as_str().unwrap();
    let of_task = |event: &str| -> Vec<&Value> {
        let fits = |record: &&Value| records::is(record, event) && records::of(record, "task_id") == Some(task);
        ca.iter().filter(fits).collect()
    };
    assert_eq!(of_task("issue").len(), 1);
    let renewals = of_task("renew").len();
    assert!((1..=3).contains(&renewals), "{renewals} renewals");

    // The target has seen each of them: its records name the certificate that each request stood under.
    let records = target.records().unwrap();
    let results: Vec<&Value> = records.iter().filter(|record| records::is(record, "result")).collect();
    assert_eq!(results.len(), calls);
    let serials: BTreeSet<&str> = results
        .iter()
        .filter_map(|record| record["cert"]["serial"].as_str())
        .collect();
    assert_eq!(serials.len(), 1 + renewals, "{serials:?}");
}
