//! Where the time of a cold task goes, step by step, against a real sshd.

use harness::{ALICE, Options, Stack};
use serde_json::json;

const TASKS: usize = 25;

#[test]
#[ignore = "it measures: on a machine that does anything else its figures say nothing"]
fn no_step_of_a_cold_task_waits_for_an_acknowledgement() {
    let stack = Stack::start(&Options {
        targets: vec!["web-1"],
        ..Options::default()
    })
    .unwrap();
    let mut client = stack.client(ALICE).unwrap();
    let mut whole = Vec::new();
    for _ in 0..TASKS {
        let begun = std::time::Instant::now();
        let arguments = json!({"target": "web-1", "path": "/var/log/shop/web.log", "lines": 1, "reason": "to measure"});
        let said = client.call_ok("tail_log", arguments).unwrap();
        whole.push(begun.elapsed().as_micros());
        client
            .call_ok("close_task", json!({"task_id": said["task_id"]}))
            .unwrap();
    }
    let log = stack.control.errors_of("writ-relay");
    let steps = ["tcp_us", "verified_us", "login_us", "channel_us"];
    println!("a cold call: {} us", median(&mut whole));
    for step in steps {
        let mut all: Vec<u128> = log
            .lines()
            .filter_map(|line| line.split_once(&format!("{step}=")))
            .map(|(_, rest)| rest.split_whitespace().next().unwrap().parse().unwrap())
            .collect();
        assert_eq!(all.len(), TASKS, "{step} in\n{log}");
        let typical = median(&mut all);
        println!("{step}: {typical}, from {} to {}", all[0], all[TASKS - 1]);
        // A delayed acknowledgement waits for 40 ms; none of the steps has that much to do.
        assert!(typical < 38_000, "{step}: {typical}");
    }
}

fn median(all: &mut [u128]) -> u128 {
    all.sort_unstable();
    all[all.len() / 2]
}
