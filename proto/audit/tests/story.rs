//! Replay tells the story of a task from copies of three logs, and says what is missing or does not fit.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use audit::{
    Cert, Decision, Draft, Event, Log, Moment, Outside, Own, Replay, Setup, Tier, Who, Witness, render, replay,
};
use wire::ids::{Digest, Head, Serial, TaskId};
use wire::{Code, Status};

/// A clock that the tiers of a room share, a second a look.
struct Ticks(Arc<AtomicU64>);

impl Outside for Ticks {
    fn now(&self) -> std::io::Result<Moment> {
        let unix_ms = self.0.fetch_add(1000, Ordering::SeqCst);
        Ok(Moment { unix_ms, mono_us: 1 })
    }
    fn nonce(&self) -> std::io::Result<[u8; 16]> {
        Ok([7; 16])
    }
    fn boot_id(&self) -> std::io::Result<String> {
        Ok("boot".to_owned())
    }
}

struct Room {
    dir: tempfile::TempDir,
    now: Arc<AtomicU64>,
}

impl Room {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
            now: Arc::new(AtomicU64::new(1_772_366_400_000)),
        }
    }

    fn log(&self, tier: Tier, host: &str) -> Log {
        let dir = self.dir.path().join(tier.as_str());
        let _ = std::fs::create_dir(&dir);
        let who = Who {
            tier,
            host: host.to_owned(),
            build: "test".to_owned(),
        };
        let setup = Setup {
            outside: Box::new(Ticks(Arc::clone(&self.now))),
            ..Setup::default()
        };
        Log::open_with(&dir, &dir.with_extension("lock"), who, Box::new(Own), setup).unwrap()
    }

    fn paths(&self, tiers: &[Tier]) -> Vec<PathBuf> {
        tiers.iter().map(|tier| self.dir.path().join(tier.as_str())).collect()
    }

    fn replay(&self, tiers: &[Tier]) -> Replay {
        replay(&task(), &self.paths(tiers))
    }
}

const ALL: [Tier; 3] = [Tier::Relay, Tier::Ca, Tier::Target];

fn task() -> TaskId {
    "0192e4a0-7f00-7000-8000-00000000000a".parse().unwrap()
}

fn of_task(event: Event) -> Draft {
    Draft {
        task_id: Some(task()),
        target: Some("web-1".parse().unwrap()),
        ..Draft::new(event)
    }
}

fn of_call(event: Event, number: u64) -> Draft {
    Draft {
        request_id: Some(format!("0192e4a0-7f00-7000-8001-{number:012}").parse().unwrap()),
        action: Some("tail_log".parse().unwrap()),
        ..of_task(event)
    }
}

fn cert(serial: u64) -> Option<Cert> {
    Some(Cert {
        serial: Serial::of(serial),
        key_id: task().to_string(),
        ca: format!("SHA256:{}", "A".repeat(43)).parse().unwrap(),
        key: None,
        valid_before: Some(1_772_366_700),
    })
}

fn requester(person: &str) -> Option<wire::Requester> {
    Some(wire::Requester {
        brain: "demo".parse().unwrap(),
        person: person.parse().unwrap(),
        proof: wire::Proof::Relay,
    })
}

/// One call that went well and one that was refused.
fn told() -> Room {
    let room = Room::new();
    let mut relay = room.log(Tier::Relay, "relay-1");
    let mut ca = room.log(Tier::Ca, "ca-1");
    let mut target = room.log(Tier::Target, "web-1");
    let who = Draft {
        requester: requester("alice"),
        reason: Some("why is checkout slow\u{202e}\u{200b}?".parse().unwrap()),
        ..of_task(Event::Open)
    };
    relay.append(&who).unwrap();
    let head = ca
        .append(&Draft {
            decision: Some(Decision::Allow),
            cert: cert(77),
            ..of_task(Event::Issue)
        })
        .unwrap();
    relay.append(&of_call(Event::Request, 1)).unwrap();
    let witness = Some(Witness {
        ca: Some(head),
        ..Witness::default()
    });
    let argv = ["/usr/libexec/writ/inspect", "tail", "-n", "\u{1b}[2J x"]
        .map(str::to_owned)
        .to_vec();
    target
        .intend(&Draft {
            argv: Some(argv),
            cert: cert(77),
            witness,
            ..of_call(Event::Intent, 1)
        })
        .unwrap();
    let result = Draft {
        status: Some(Status::Ok),
        exit_code: Some(0),
        duration_ms: Some(3),
        output: Some(audit::Output {
            bytes: 20_000,
            sha256: Digest::of(b"output"),
        }),
        ..of_call(Event::Result, 1)
    };
    target.append(&result).unwrap();
    relay
        .append(&Draft {
            status: Some(Status::Ok),
            ..of_call(Event::Outcome, 1)
        })
        .unwrap();
    relay.append(&of_call(Event::Request, 2)).unwrap();
    let refused = Draft {
        decision: Some(Decision::Deny),
        code: Some(Code::PathRefused),
        message: Some("it is \x1b]0;pwned\x07 outside".to_owned()),
        ..of_call(Event::Refused, 2)
    };
    target.append(&refused).unwrap();
    let code = Some(Code::PathRefused);
    relay
        .append(&Draft {
            status: Some(Status::Refused),
            code,
            ..of_call(Event::Outcome, 2)
        })
        .unwrap();
    relay.append(&of_task(Event::Close)).unwrap();
    // Of other tasks nothing is told.
    relay
        .append(&Draft {
            message: Some(task().to_string()),
            ..Draft::new(Event::Stop)
        })
        .unwrap();
    room
}

#[test]
fn the_story_of_a_task_is_told_in_order_with_who_and_why() {
    let replay = told().replay(&ALL);
    assert!(replay.verified);
    assert_eq!(replay.notes, Vec::<String>::new());
    assert_eq!(replay.requester.as_ref().unwrap().person.as_str(), "alice");
    let events: Vec<_> = replay.timeline.iter().map(|step| step.record.event.as_str()).collect();
    let expected = [
        "open", "issue", "request", "intent", "result", "outcome", "request", "refused", "outcome", "close",
    ];
    assert_eq!(events, expected);
    let [ok, refused] = &replay.calls[..] else {
        panic!("{:?}", replay.calls)
    };
    assert_eq!(
        (ok.status, ok.exit_code, ok.duration_ms),
        (Some(Status::Ok), Some(0), Some(3))
    );
    assert_eq!(ok.serial.as_ref().unwrap().as_str(), "77");
    assert_eq!(ok.output.as_ref().unwrap().sha256, Digest::of(b"output"));
    assert_eq!(
        (refused.status, &refused.codes[..]),
        (Some(Status::Refused), &[Code::PathRefused][..])
    );
    let json: serde_json::Value = serde_json::to_value(&replay).unwrap();
    assert_eq!(json["calls"][0]["argv"][1], "tail");
    assert_eq!(json["timeline"][3]["record"]["witness"]["ca"]["seq"], 2);
}

/// REQ-TEXT-2
#[test]
fn text_from_records_reaches_no_terminal_unescaped() {
    let room = told();
    let text = render::replay(&room.replay(&ALL));
    assert!(text.contains("why is checkout slow\\u{202e}\\u{200b}?"), "{text}");
    assert!(text.contains("\\u{1b}[2J") && text.contains("\\u{1b}]0;pwned\\u{7}"));
    assert!(text.chars().all(|c| c == '\n' || (' '..='~').contains(&c)), "{text}");
    println!("{text}");
}

#[test]
fn order_within_a_log_is_kept_when_its_clock_goes_back() {
    let room = told();
    room.now.fetch_sub(3_600_000, Ordering::SeqCst);
    let mut target = room.log(Tier::Target, "web-1");
    target.intend(&of_call(Event::Intent, 3)).unwrap();
    target.append(&of_call(Event::Result, 3)).unwrap();
    room.now.fetch_add(3_600_000, Ordering::SeqCst);
    let replay = room.replay(&[Tier::Target]);
    let seqs: Vec<_> = replay.timeline.iter().map(|step| step.head.seq).collect();
    assert!(seqs.is_sorted(), "{seqs:?}");
}

#[test]
fn the_cas_word_on_a_request_stands_between_request_and_intent_whatever_its_clock_says() {
    for ca_ms in [-5_000_i64, 0, 5_000] {
        let room = Room::new();
        let [mut relay, mut target] =
            [(Tier::Relay, "relay-1"), (Tier::Target, "web-1")].map(|(t, host)| room.log(t, host));
        let mut ca = room.log(Tier::Ca, "ca-1");
        relay.append(&of_call(Event::Request, 1)).unwrap();
        room.now.fetch_add(ca_ms.cast_unsigned(), Ordering::SeqCst);
        let authorized = Draft {
            cert: cert(78),
            ..of_call(Event::Authorize, 1)
        };
        ca.append(&authorized).unwrap();
        room.now.fetch_sub(ca_ms.cast_unsigned(), Ordering::SeqCst);
        let intent = Draft {
            cert: cert(78),
            ..of_call(Event::Intent, 1)
        };
        target.intend(&intent).unwrap();
        target.append(&of_call(Event::Result, 1)).unwrap();
        relay.append(&of_call(Event::Outcome, 1)).unwrap();
        let replay = room.replay(&ALL);
        let events: Vec<_> = replay.timeline.iter().map(|step| step.record.event.as_str()).collect();
        assert_eq!(
            events,
            ["request", "authorize", "intent", "result", "outcome"],
            "{ca_ms} ms"
        );
        assert_eq!(replay.notes, Vec::<String>::new());
    }
}

#[test]
fn what_is_missing_or_does_not_fit_is_said() {
    let has = |replay: &Replay, text: &str| {
        assert!(
            replay.notes.iter().any(|note| note.contains(text)),
            "{text}: {:?}",
            replay.notes
        );
    };
    let room = told();
    has(&room.replay(&[Tier::Ca, Tier::Target]), "no log of a relay was given");
    has(&room.replay(&[Tier::Relay, Tier::Target]), "no log of a CA was given");
    assert!(!room.replay(&[]).verified);

    let mut target = room.log(Tier::Target, "web-1");
    target
        .intend(&Draft {
            cert: cert(78),
            ..of_call(Event::Intent, 9)
        })
        .unwrap();
    let unfinished = room.replay(&ALL);
    has(&unfinished, "target web-1 #5: intent without result");
    has(&unfinished, "target web-1 #5: no relay's log has this request");
    has(&unfinished, "target web-1 #5: no CA's log has this certificate");
    assert_eq!(unfinished.calls[2].status, None);

    target
        .append(&Draft {
            requester: requester("mallory"),
            ..of_call(Event::Result, 9)
        })
        .unwrap();
    has(&room.replay(&ALL), "2 different answers to who asked");

    let empty = Room::new();
    empty.log(Tier::Relay, "relay-1");
    has(&empty.replay(&[Tier::Relay]), "no record of this task");
    let mut only = empty.log(Tier::Target, "web-1");
    only.append(&of_task(Event::Refused)).unwrap();
    has(
        &empty.replay(&[Tier::Relay, Tier::Target]),
        "no log of a relay has a record of this task",
    );
}

#[test]
fn a_log_that_does_not_verify_is_told_and_said() {
    let room = told();
    let segment = room.dir.path().join("target").join("00000000000000000001.jsonl");
    let text = std::fs::read_to_string(&segment).unwrap().replace("20000", "20001");
    std::fs::write(&segment, text).unwrap();
    let replay = room.replay(&ALL);
    assert!(!replay.verified);
    assert!(replay.notes[0].contains("the log of target web-1 does not verify"));
    assert!(render::replay(&replay).contains("FAULT: chain_broken at record 3"));
}

#[test]
fn delete_whole_task_from_one_log_is_found() {
    let room = told();
    let head = |path: &Path| -> Head {
        let report = audit::verify(&[path.to_owned()], &audit::Expected::default());
        report.logs[0].head.clone().unwrap()
    };
    let segment = room.dir.path().join("relay").join("00000000000000000001.jsonl");
    let before = head(&segment);
    let text = std::fs::read_to_string(&segment).unwrap();
    let kept: String = text
        .split_inclusive('\n')
        .filter(|line| !line.contains("\"task_id\""))
        .collect();
    std::fs::write(&segment, kept).unwrap();
    assert!(!room.replay(&ALL).verified);
    assert_ne!(head(&segment), before);
}

/// A relay that was taken over sends other bytes under the id of a change that was done, so that a refusal is the last word
/// on that id: what was done is told all the same.
#[test]
fn what_was_done_does_not_hide_behind_a_refusal_under_its_id() {
    let room = told();
    let mut target = room.log(Tier::Target, "web-1");
    let of = |bytes: &[u8], action: &str, event| Draft {
        request_sha256: Some(Digest::of(bytes)),
        action: Some(action.parse().unwrap()),
        ..of_call(event, 9)
    };
    let change = |event| of(b"change", "restart_service", event);
    target.intend(&change(Event::Intent)).unwrap();
    let result = Draft {
        status: Some(Status::Ok),
        exit_code: Some(0),
        ..change(Event::Result)
    };
    target.append(&result).unwrap();
    let refused = |code, draft: Draft| Draft {
        decision: Some(Decision::Deny),
        status: Some(Status::Refused),
        code: Some(code),
        message: Some("no".to_owned()),
        ..draft
    };
    for event in [
        refused(Code::Halted, change(Event::Refused)),
        refused(Code::RequestIdReused, of(b"read", "tail_log", Event::Refused)),
    ] {
        target.append(&event).unwrap();
    }
    let replay = room.replay(&ALL);
    let [.., done, other] = &replay.calls[..] else {
        panic!("{:?}", replay.calls)
    };
    assert_eq!(done.request_id, other.request_id);
    let said = |call: &audit::Call| (call.action.as_ref().unwrap().to_string(), call.status, call.exit_code);
    assert_eq!(said(done), ("restart_service".to_owned(), Some(Status::Ok), Some(0)));
    assert_eq!((done.message.as_deref(), &done.codes[..]), (None, &[Code::Halted][..]));
    assert_eq!(said(other), ("tail_log".to_owned(), Some(Status::Refused), None));
    let note = format!("2 different requests have the id {}", done.request_id);
    assert!(replay.notes.contains(&note), "{:?}", replay.notes);
}

/// Asked for again while it is under way it is refused; that is not what became of it, and nobody knows what did.
#[test]
fn a_refusal_is_not_the_end_of_what_was_begun() {
    let room = told();
    let mut target = room.log(Tier::Target, "web-1");
    target.intend(&of_call(Event::Intent, 9)).unwrap();
    let refused = Draft {
        status: Some(Status::Refused),
        code: Some(Code::InProgress),
        ..of_call(Event::Refused, 9)
    };
    target.append(&refused).unwrap();
    let replay = room.replay(&ALL);
    let call = replay.calls.last().unwrap();
    assert_eq!((call.status, &call.codes[..]), (None, &[Code::InProgress][..]));
    assert!(replay.notes.iter().any(|note| note.contains("intent without result")));
}
