//! tests/vectors/record.json: a small log as this crate writes it, and lines that are no records.
//!
//! After a change of the format: `cargo test -p writ-audit --test vectors -- --ignored write_vectors`, then read the diff.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed test says why")]

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use audit::{Cert, Decision, Draft, Event, Log, Moment, Output, Outside, Own, Record, Setup, Tier, Who, Witness};
use serde::{Deserialize, Serialize};
use wire::ids::{Digest, Fingerprint, Head, LogId, Serial};
use wire::{Code, Mode, Proof, Requester, Resources, Risk, Status};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    spec: String,
    cases: Vec<Case>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    expect: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    why: Option<String>,
    text: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sha256: Option<String>,
}

/// A clock that goes a millisecond at a time, and no randomness.
struct Fixed(AtomicU64);

impl Outside for Fixed {
    fn now(&self) -> io::Result<Moment> {
        let ms = self.0.fetch_add(1, Ordering::Relaxed);
        Ok(Moment {
            unix_ms: 1_800_000_000_000 + ms,
            mono_us: 7_000_000 + 1000 * ms,
        })
    }

    fn nonce(&self) -> io::Result<[u8; 16]> {
        Ok([7; 16])
    }

    fn boot_id(&self) -> io::Result<String> {
        Ok("6f1c7c1e-5c0e-4b52-9d1b-0c2f5d6e7a8b".to_owned())
    }
}

fn log(folder: &Path, tier: Tier, host: &str, from_ms: u64) -> Log {
    let who = Who {
        tier,
        host: host.to_owned(),
        build: "v0.1.0".to_owned(),
    };
    let setup = Setup {
        outside: Box::new(Fixed(AtomicU64::new(from_ms))),
        ..Setup::default()
    };
    Log::open_with(&folder.join("log"), &folder.join("lock"), who, Box::new(Own), setup).unwrap()
}

fn head(log: &str, seq: u64) -> Head {
    Head {
        log: LogId::of_genesis(log.as_bytes()),
        seq,
        hash: Digest::of(format!("{log} {seq}").as_bytes()),
    }
}

/// What the payload of payload.json makes a target write.
fn about(event: Event) -> Draft {
    let fingerprint = |text: &str| -> Fingerprint { text.parse().unwrap() };
    Draft {
        task_id: Some("0192e4a0-7f00-7000-8000-00000000000a".parse().unwrap()),
        request_id: Some("0192e4a0-7f00-7000-8000-00000000000b".parse().unwrap()),
        request_sha256: Some(Digest::of(b"the payload")),
        requester: Some(Requester {
            brain: "claude-code".parse().unwrap(),
            person: "alice".parse().unwrap(),
            proof: Proof::Relay,
        }),
        reason: Some("the shop answers slowly".parse().unwrap()),
        target: Some("web-1".parse().unwrap()),
        action: Some("tail_log".parse().unwrap()),
        mode: Some(Mode::Run),
        cert: Some(Cert {
            serial: Serial::of(4_242_424_242_424_242),
            key_id: "0192e4a0-7f00-7000-8000-00000000000a".to_owned(),
            ca: fingerprint("SHA256:fe85JkIjo8VPe+XqXJGH5Mau1EMFdK1OdKvJUFicyA8"),
            key: Some(fingerprint("SHA256:4A9jyZBOhnKZvcGQ6TRFbf5Gymb41AfYvYaVmWHD+G4")),
            valid_before: Some(1_800_000_300),
        }),
        witness: Some(Witness {
            relay: Some(head("relay", 7)),
            ca: Some(head("ca", 12)),
            target: None,
        }),
        ..Draft::new(event)
    }
}

fn intent() -> Draft {
    Draft {
        risk: Some(Risk::Read),
        manifest: Some(Digest::of(b"tail_log.toml")),
        argv: Some(
            ["/usr/libexec/writ/inspect", "tail", "-n", "1"]
                .map(str::to_owned)
                .to_vec(),
        ),
        decision: Some(Decision::Allow),
        ..about(Event::Intent)
    }
}

fn result() -> Draft {
    Draft {
        risk: Some(Risk::Read),
        manifest: Some(Digest::of(b"tail_log.toml")),
        status: Some(Status::Ok),
        exit_code: Some(0),
        duration_ms: Some(1),
        output: Some(Output {
            bytes: 18,
            sha256: Digest::of(b"GET /cart/400 200\n"),
        }),
        stderr: Some(Output {
            bytes: 0,
            sha256: Digest::of(b""),
        }),
        resources: Some(Resources {
            cpu_user_ms: 0,
            cpu_system_ms: 1,
            max_rss_kib: 512,
        }),
        walls: Some(Vec::new()),
        ..about(Event::Result)
    }
}

fn refused() -> Draft {
    Draft {
        decision: Some(Decision::Deny),
        status: Some(Status::Refused),
        code: Some(Code::PathRefused),
        message: Some("path: it is not beneath a directory that the action allows".to_owned()),
        ..about(Event::Refused)
    }
}

fn strangers() -> Draft {
    Draft {
        code: Some(Code::OriginalCommand),
        message: Some("rm -rf / \\u{1b}[2J".to_owned()),
        count: Some(40),
        codes: Some([("line_malformed".to_owned(), 3), ("original_command".to_owned(), 37)].into()),
        ..Draft::new(Event::Strangers)
    }
}

/// What a CA writes before it signs for one request.
fn authorize() -> Draft {
    let request = about(Event::Authorize);
    Draft {
        action: Some("restart_service".parse().unwrap()),
        risk: Some(Risk::Change),
        manifest: Some(Digest::of(b"restart_service.toml")),
        relay: Some("relay-1".parse().unwrap()),
        opened: Some(1_799_999_900),
        decision: Some(Decision::Allow),
        policy: Some(vec!["operators-restart".to_owned()]),
        cert: request.cert.clone().map(|cert| Cert {
            serial: Serial::of(5_777_163_909_482_735_190),
            valid_before: Some(1_800_000_060),
            ..cert
        }),
        witness: Some(Witness {
            relay: Some(head("relay", 7)),
            ..Witness::default()
        }),
        ..request
    }
}

/// The beginning of a CA's log.
fn of_a_ca() -> String {
    let room = tempfile::tempdir().unwrap();
    let folder = room.path().join("log");
    fs::create_dir(&folder).unwrap();
    log(room.path(), Tier::Ca, "ca-1", 0).append(&authorize()).unwrap();
    fs::read_to_string(folder.join("00000000000000000001.jsonl")).unwrap()
}

/// A log with a torn write in it: its segments, in order.
fn segments() -> Vec<String> {
    let room = tempfile::tempdir().unwrap();
    let folder = room.path().join("log");
    fs::create_dir(&folder).unwrap();
    let mut first = log(room.path(), Tier::Target, "web-1", 0);
    for draft in [intent(), result(), refused(), strangers()] {
        first.append(&draft).unwrap();
    }
    let mut torn = OpenOptions::new()
        .append(true)
        .open(folder.join("00000000000000000001.jsonl"))
        .unwrap();
    torn.write_all(b"{\"v\":1,\"seq\":6,\"pre").unwrap();
    drop((first, torn));
    log(room.path(), Tier::Target, "web-1", 1000);
    let mut names: Vec<PathBuf> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    names.sort();
    names.iter().map(|name| fs::read_to_string(name).unwrap()).collect()
}

fn make() -> File {
    let (segments, of_a_ca) = (segments(), of_a_ca());
    let names = [
        "genesis",
        "intent",
        "result",
        "refused",
        "strangers",
        "torn bytes",
        "torn",
        "genesis of a CA",
        "authorize",
    ];
    let lines = segments
        .iter()
        .chain([&of_a_ca])
        .flat_map(|segment| segment.split_inclusive('\n'));
    let mut cases: Vec<Case> = names
        .into_iter()
        .zip(lines)
        .map(|(name, line)| Case {
            name: name.to_owned(),
            expect: if line.ends_with('\n') { "ok" } else { "refused" }.to_owned(),
            why: (!line.ends_with('\n')).then(|| "a write that was cut off: bytes without a newline".to_owned()),
            text: line.to_owned(),
            sha256: Some(Digest::of(line.as_bytes()).to_string()),
        })
        .collect();
    let genesis = cases[0].text.clone();
    let intent = cases[1].text.clone();
    let bad = |name: &str, why: &str, from: &str, to: &str, text: &str| {
        assert!(text.contains(from), "{name}");
        Case {
            name: name.to_owned(),
            expect: "refused".to_owned(),
            why: Some(why.to_owned()),
            text: text.replacen(from, to, 1),
            sha256: None,
        }
    };
    cases.extend([
        bad("a space", "not the one spelling", ",\"seq\"", ", \"seq\"", &intent),
        bad(
            "reordered keys",
            "not the one spelling",
            "\"v\":1,\"seq\":2",
            "\"seq\":2,\"v\":1",
            &intent,
        ),
        bad(
            "null",
            "not the one spelling",
            "\"mode\":\"run\"",
            "\"mode\":null",
            &intent,
        ),
        bad(
            "an unknown key",
            "not a key of this version",
            "\"mode\":\"run\"",
            "\"mode\":\"run\",\"more\":1",
            &intent,
        ),
        bad(
            "an unknown event",
            "not an event of this version",
            "\"intent\"",
            "\"hunch\"",
            &intent,
        ),
        bad("version", "a version that is not known", "\"v\":1", "\"v\":2", &intent),
        bad("number 0", "numbers begin with 1", "\"seq\":2", "\"seq\":0", &intent),
        bad(
            "2^53",
            "a number out of range",
            "\"seq\":2",
            "\"seq\":9007199254740992",
            &intent,
        ),
        bad("two newlines", "more than one line", "\n", "\n\n", &intent),
        bad(
            "a genesis with a log id",
            "it does not name what is derived from it",
            ",\"ts\"",
            ",\"log\":\"00000000000000000000000000000000\",\"ts\"",
            &genesis,
        ),
        bad(
            "a genesis that follows",
            "prev is 64 zeros",
            "\"prev\":\"0",
            "\"prev\":\"1",
            &genesis,
        ),
        bad(
            "a record without a log id",
            "only a genesis line has none",
            "\"log\":",
            "\"lug\":",
            &intent,
        ),
    ]);
    File {
        spec: "docs/spec/record.md".to_owned(),
        cases,
    }
}

fn path() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/vectors/record.json")
}

fn print(file: &File) -> String {
    format!("{}\n", serde_json::to_string_pretty(file).unwrap())
}

#[test]
#[ignore = "writes the file that the other tests compare with; read the diff before it is committed"]
fn write_vectors() {
    fs::write(path(), print(&make())).unwrap();
}

#[test]
fn the_file_is_what_the_code_gives() {
    assert!(
        fs::read_to_string(path()).unwrap() == print(&make()),
        "record.json is not what the code gives"
    );
}

/// REQ-RECORD-1, REQ-RECORD-3, REQ-RECORD-4, REQ-RECORD-11
#[test]
fn records_are_read_as_the_vectors_say_and_chained() {
    let file: File = serde_json::from_slice(&fs::read(path()).unwrap()).unwrap();
    let mut prev = Digest::zero();
    for case in file.cases {
        let read = Record::parse(case.text.as_bytes());
        assert_eq!(read.is_ok(), case.expect == "ok", "{}: {:?}", case.name, read.err());
        if let Ok(record) = read {
            if record.draft.event == Event::Genesis {
                prev = Digest::zero();
            }
            assert_eq!(record.envelope.prev, prev, "{}", case.name);
            prev = Digest::of(case.text.as_bytes());
            assert_eq!(Some(prev.to_string()), case.sha256, "{}", case.name);
        }
    }
}
