//! What the program says with its exit code: 0 verified, 1 cannot be read or is not there, 2 not verified.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::Path;
use std::process::{Command, Output};

use audit::{Draft, Event, Log, Own, Tier, Who, Witness};
use wire::ids::Head;

const TASK: &str = "0192e4a0-7f00-7000-8000-00000000000a";

fn run(arguments: &[&str]) -> (i32, Output) {
    let output = Command::new(env!("CARGO_BIN_EXE_writ-audit"))
        .args(arguments)
        .output()
        .unwrap();
    (output.status.code().unwrap(), output)
}

fn log(dir: &Path) -> Head {
    let who = Who {
        tier: Tier::Target,
        host: "web-1".to_owned(),
        build: "test".to_owned(),
    };
    let mut log = Log::open(dir, &dir.with_extension("lock"), who, Box::new(Own)).unwrap();
    log.append(&Draft {
        task_id: Some(TASK.parse().unwrap()),
        ..Draft::new(Event::Refused)
    })
    .unwrap();
    log.append(&Draft::new(Event::Stop)).unwrap()
}

/// REQ-RECORD-14
#[test]
fn exit_codes_are_0_clean_1_unreadable_2_not_verified() {
    let room = tempfile::tempdir().unwrap();
    let [good, bad, empty] = ["good", "bad", "empty"].map(|name| {
        let dir = room.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        dir
    });
    let head = log(&good);
    log(&bad);
    let segment = bad.join("00000000000000000001.jsonl");
    let text = std::fs::read_to_string(&segment).unwrap().replacen("web-1", "web-2", 1);
    std::fs::write(&segment, text).unwrap();
    let [good, bad, empty] = [&good, &bad, &empty].map(|dir| dir.to_str().unwrap());
    let vouched = format!("{}:{}:{}", head.log, head.seq, head.hash);
    let later = format!("{}:{}:{}", head.log, head.seq + 1, head.hash);

    let other_task = TASK.replace('a', "b");
    let table: [(&[&str], i32); 15] = [
        (&["verify", good], 0),
        (&["verify", good, "--json"], 0),
        (&["verify", good, "--head", &vouched], 0),
        (&["verify", good, "--head", &later], 2),
        (&["verify", bad], 2),
        (&["verify", good, bad], 2),
        (&["verify", empty], 2),
        (&["verify", "/nonexistent"], 1),
        (&["verify", "/nonexistent", bad], 2),
        (&["verify"], 2),
        (&["replay", TASK, good], 0),
        (&["replay", TASK, bad], 2),
        (&["replay", &other_task, good], 1),
        (&["replay", "x", good], 2),
        (&["--version"], 0),
    ];
    for (arguments, code) in table {
        let (got, output) = run(arguments);
        assert_eq!(got, code, "{arguments:?}: {output:?}");
    }
}

#[test]
fn json_is_one_object_and_names_the_first_bad_record() {
    let room = tempfile::tempdir().unwrap();
    let dir = room.path().join("log");
    std::fs::create_dir(&dir).unwrap();
    let head = log(&dir);
    let dir_text = dir.to_str().unwrap().to_owned();
    let (_, output) = run(&["verify", "--json", &dir_text]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(report["ok"], true);
    assert_eq!(report["logs"][0]["head"]["hash"], head.hash.as_str());
    let segment = dir.join("00000000000000000001.jsonl");
    let text = std::fs::read_to_string(&segment)
        .unwrap()
        .replace("\"refused\"", "\"start\"");
    std::fs::write(&segment, text).unwrap();
    let (_, output) = run(&["verify", "--json", &dir_text]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        (&report["ok"], &report["logs"][0]["fault"]["seq"]),
        (&false.into(), &2.into())
    );
    assert_eq!(report["logs"][0]["fault"]["kind"], "chain_broken");
    let (_, output) = run(&["replay", "--json", TASK, &dir_text]);
    let replay: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&replay["verified"], &replay["task_id"]), (&false.into(), &TASK.into()));
}

#[test]
fn logs_given_together_vouch_for_each_other_in_text_and_json() {
    let room = tempfile::tempdir().unwrap();
    let [web, relay] = ["web", "relay"].map(|name| {
        let dir = room.path().join(name);
        std::fs::create_dir(&dir).unwrap();
        dir
    });
    let head = log(&web);
    let who = Who {
        tier: Tier::Relay,
        host: "relay-1".to_owned(),
        build: "test".to_owned(),
    };
    let mut own = Log::open(&relay, &relay.with_extension("lock"), who, Box::new(Own)).unwrap();
    let target = Some(Head { seq: 2, ..head.clone() });
    let mut outcome = |target| {
        let witness = Some(Witness {
            target,
            ..Witness::default()
        });
        own.append(&Draft {
            witness,
            ..Draft::new(Event::Outcome)
        })
        .unwrap()
    };
    let last = outcome(Some(head.clone()));
    let [web, relay] = [&web, &relay].map(|dir| dir.to_str().unwrap());

    let (code, output) = run(&["verify", web, relay]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(code, 0, "{text}");
    assert!(
        text.contains("target web-1 is vouched for up to 3 by relay relay-1; 0 of 3 records nobody else has seen"),
        "{text}"
    );
    assert!(
        text.contains("relay relay-1 is vouched for by nobody; 2 of 2"),
        "{text}"
    );
    assert!(text.contains(": nobody vouches for any of it"), "{text}");

    let (_, output) = run(&["verify", "--json", web, relay]);
    let report: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let of = |tier: &str| {
        let logs = report["logs"].as_array().unwrap().iter();
        logs.clone().find(|log| log["tier"] == tier).unwrap()
    };
    let vouched = &of("target")["vouched"][0];
    assert_eq!(
        (&vouched["by"], &vouched["seq"]),
        (&last.log.as_str().into(), &3.into())
    );
    assert_eq!(
        (&of("target")["unwitnessed"], &of("relay")["unwitnessed"]),
        (&0.into(), &2.into())
    );
    assert_eq!(of("target")["torn"], serde_json::json!([]));
    assert!(report["notes"].as_array().unwrap().len() == 1);

    // Another hash for record 2 than its own: the relay lies, or the target does.
    outcome(target);
    let (code, output) = run(&["verify", web, relay]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(code, 2, "{text}");
    assert!(text.contains("head_differs at record 2"), "{text}");
    assert_eq!(run(&["verify", web]).0, 0, "alone it knows of nothing");
}

#[test]
fn help_names_every_verb_and_version_names_the_build() {
    let (_, help) = run(&["--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    assert!(help.contains("verify") && help.contains("replay"));
    let (_, version) = run(&["--version"]);
    assert!(
        String::from_utf8(version.stdout)
            .unwrap()
            .contains(option_env!("BUILD_ID").unwrap_or("unknown"))
    );
}
