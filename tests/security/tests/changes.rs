//! Changes: only under a certificate for that very request, and each at most once, whatever is cut off where.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where; its name is its documentation"
)]

use std::time::Duration;

use harness::evil::{code, outcome};
use harness::forge::Forge;
use harness::spawn::wait_for;
use harness::stack::new_id;
use harness::{By, Changed, EvilRelay, Leaves, Stack, Target, assert_refused, effects, processes, records};
use openssh::key::SigningKey;
use security::changes::{carry_out, payload, permit};
use security::{WEB, add_action, granted, stack, still_serves, tell};
use serde_json::{Map, Value, json};

/// How long something may take that has to happen; a program that waits at a gate has more time than that.
const SOON: Duration = Duration::from_secs(20);

fn target(stack: &Stack) -> &Target {
    stack.target(WEB).unwrap()
}

/// A live task on a target that has the change, for as long as the second value lives.
fn ready(stack: &Stack) -> (EvilRelay, Changed) {
    let action = add_action(target(stack), effects::ACTION, &effects::manifest()).unwrap();
    (EvilRelay::start(stack, WEB).unwrap(), action)
}

/// A word that no other test writes.
fn word() -> String {
    new_id()
}

fn effects_of(stack: &Stack, word: &str) -> usize {
    effects::count(target(stack), word).unwrap()
}

/// What the log holds of a request, by events.
fn events(stack: &Stack, payload: &Map<String, Value>) -> Vec<String> {
    let all = target(stack).records().unwrap();
    let own = all
        .iter()
        .filter(|record| record["request_id"] == payload["request_id"]);
    own.map(|record| record["event"].as_str().unwrap().to_owned()).collect()
}

/// Another session of the same task, as after a connection that was lost.
fn again(stack: &Stack, relay: &EvilRelay) -> EvilRelay {
    let task = harness::Opened {
        task_id: relay.task.task_id.clone(),
        key: SigningKey::from_openssh(&relay.task.key.to_openssh().unwrap()).unwrap(),
        certificate: relay.task.certificate.clone(),
    };
    let mut relay = EvilRelay::log_in(stack, WEB, task).unwrap();
    relay.present_own().unwrap();
    relay
}

/// REQ-LEDGER-1, REQ-PAYLOAD-12
#[test]
fn a_change_runs_once_under_its_own_certificate() {
    let stack = stack();
    let (mut relay, _action) = ready(&stack);
    let word = word();
    let payload = payload(&relay, &word);
    let answer = carry_out(&stack, &mut relay, &payload).unwrap();
    assert_eq!(
        (code(&answer).as_str(), answer["output"].as_str()),
        ("none", Some(&*format!("done {word}\n")))
    );
    assert_eq!(effects_of(&stack, &word), 1);
    let records = target(&stack).records().unwrap();
    let own = |event: &str| {
        let found = records.iter().rfind(|record| records::is(record, event));
        found.unwrap_or_else(|| panic!("no {event}")).clone()
    };
    // The record names the certificate that covered it, which is not the one that logged in.
    let serial = &outcome(&answer).unwrap()["serial"];
    assert_eq!(
        (&own("intent")["cert"]["serial"], &own("result")["cert"]["serial"]),
        (serial, serial)
    );
    assert_eq!(own("intent")["risk"], "change");
    still_serves(&mut relay).unwrap();
}

type Change = fn(&mut Forge, &mut Value);
type Other = fn(&mut Map<String, Value>);

/// Certificates that are refused when they are presented, and the request after each for the lack of one.
fn wrong_certificates() -> Vec<(&'static str, &'static str, Change)> {
    vec![
        ("action_cert_over_60s", "certificate_lifetime", |forge, _| {
            forge.valid_before = forge.valid_after + 91
        }),
        ("action_cert_expired", "certificate_expired", |forge, _| {
            forge.valid_before -= 100;
            forge.valid_after -= 100;
        }),
        ("action_cert_not_yet_valid", "certificate_not_yet_valid", |forge, _| {
            forge.valid_before += 100;
            forge.valid_after += 100;
        }),
        ("action_cert_host_type", "certificate_type", |forge, _| forge.kind = 2),
        ("action_cert_two_principals", "certificate_principals", |forge, _| {
            forge.principals.push("web-1".to_owned())
        }),
        ("action_cert_other_target", "grant_mismatch", |_, grant| {
            grant["target"] = json!("web-2")
        }),
        ("action_cert_other_task_in_grant", "wrong_task", |_, grant| {
            grant["task_id"] = json!(new_id())
        }),
        ("action_cert_other_task", "wrong_task", |forge, grant| {
            forge.key_id = new_id();
            grant["task_id"] = json!(forge.key_id);
        }),
        ("action_cert_other_person", "grant_mismatch", |_, grant| {
            grant["requester"]["person"] = json!("bob")
        }),
        ("action_cert_other_relay", "grant_mismatch", |_, grant| {
            grant["relay"] = json!("other")
        }),
        ("action_cert_other_opening", "grant_mismatch", |_, grant| {
            grant["opened"] = json!(grant["opened"].as_u64().unwrap() - 1)
        }),
        ("action_cert_of_a_task_grant", "grant_mismatch", |_, grant| {
            for key in ["request_sha256", "manifest", "approvals", "krl"] {
                grant.as_object_mut().unwrap().remove(key);
            }
            grant["kind"] = json!("task");
        }),
        ("action_cert_no_pin", "grant_malformed", |_, grant| {
            grant.as_object_mut().unwrap().remove("request_sha256");
        }),
        ("action_cert_two_actions", "grant_malformed", |_, grant| {
            grant["actions"] = json!(["count_effect", "tail_log"])
        }),
        ("action_cert_permits_pty", "certificate_options", |forge, _| {
            forge.extensions.push(("permit-pty".to_owned(), String::new()))
        }),
        ("krl_stale", "krl_stale", |_, grant| grant["krl"] = json!(1)),
    ]
}

/// REQ-CERT-24, REQ-CERT-26, REQ-CERT-27
#[test]
fn certificates_for_a_change_that_the_ca_would_never_sign_are_refused() {
    let stack = stack();
    let (mut relay, _action) = ready(&stack);
    let rows = wrong_certificates();
    for (name, expected, change) in &rows {
        let word = word();
        let payload = payload(&relay, &word);
        let certificate = permit(&stack, &relay, &payload, change).unwrap();
        assert_refused(&stack, By::Target(WEB), Leaves::Count, expected, || {
            relay.present(&certificate)?;
            Ok(code(&relay.session.line()?))
        })
        .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_refused(
            &stack,
            By::Target(WEB),
            Leaves::Record,
            "action_certificate_missing",
            || Ok(code(&relay.send(&payload)?)),
        )
        .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(effects_of(&stack, &word), 0, "{name}");
    }
    let word = word();
    let honest = payload(&relay, &word);
    assert_eq!(code(&carry_out(&stack, &mut relay, &honest).unwrap()), "none");
    tell("action certificates", rows.len());
}

/// Certificates that are good, for something else than what is asked. REQ-CERT-28
#[test]
fn action_cert_other_request() {
    let stack = stack();
    let (mut relay, _action) = ready(&stack);
    let word = word();
    let judged = payload(&relay, &word);
    let rows: [(&str, &str, Other); 4] = [
        ("action_cert_other_request", "action_certificate_missing", |p| {
            p["args"]["word"] = json!("other")
        }),
        ("action_cert_other_id", "action_certificate_missing", |p| {
            p["request_id"] = json!(new_id())
        }),
        ("action_cert_other_reason", "action_certificate_missing", |p| {
            p["reason"] = json!("another")
        }),
        ("action_cert_other_expiry", "action_certificate_missing", |p| {
            p["expires"] = json!(p["expires"].as_u64().unwrap() - 1)
        }),
    ];
    for (name, expected, change) in rows {
        relay
            .present(&permit(&stack, &relay, &judged, |_, _| {}).unwrap())
            .unwrap();
        let mut asked = judged.clone();
        change(&mut asked);
        assert_refused(&stack, By::Target(WEB), Leaves::Record, expected, || {
            Ok(code(&relay.send(&asked)?))
        })
        .unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
    assert_eq!(effects_of(&stack, &word) + effects_of(&stack, "other"), 0);
    tell("action_cert_other_request", 4);
}

/// One that was signed for the key of another session. REQ-CERT-25
#[test]
fn action_cert_other_session() {
    let stack = stack();
    let (mut relay, _action) = ready(&stack);
    let other = EvilRelay::start(&stack, WEB).unwrap();
    let asked = payload(&relay, &word());
    let stolen = permit(&stack, &other, &asked, |_, _| {}).unwrap();
    assert_refused(&stack, By::Target(WEB), Leaves::Count, "key_mismatch", || {
        relay.present(&stolen)?;
        Ok(code(&relay.session.line()?))
    })
    .unwrap();
}

/// REQ-CERT-23, REQ-PAYLOAD-12
#[test]
fn action_cert_missing() {
    let stack = stack();
    let (mut relay, _action) = ready(&stack);
    let asked = payload(&relay, &word());
    assert_refused(
        &stack,
        By::Target(WEB),
        Leaves::Record,
        "action_certificate_missing",
        || Ok(code(&relay.send(&asked)?)),
    )
    .unwrap();
    // Before a task's certificate there is nothing that it could be compared with.
    let mut early = EvilRelay::log_in(&stack, WEB, stack.open_task(WEB).unwrap()).unwrap();
    let certificate = permit(&stack, &early, &asked, |_, _| {}).unwrap();
    assert_refused(&stack, By::Target(WEB), Leaves::Count, "certificate_missing", || {
        early.present(&certificate)?;
        Ok(code(&early.session.line()?))
    })
    .unwrap();
}

/// Its principal stands in no principals file.
#[test]
fn action_cert_used_to_log_in() {
    let stack = stack();
    let (relay, _action) = ready(&stack);
    let certificate = permit(&stack, &relay, &payload(&relay, &word()), |_, _| {}).unwrap();
    let login = stack.login(&relay.task.key, &certificate).unwrap();
    assert_refused(&stack, By::Target(WEB), Leaves::Nothing, "Permission denied", || {
        let output = login.run(target(&stack), &["-T"], &["writ.v1"], b"")?;
        anyhow::ensure!(output.stdout.is_empty(), "{output:?}");
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(text.contains("Permission denied"), "{text}");
        Ok("Permission denied".to_owned())
    })
    .unwrap();
}

/// The manifest that policy looked at, the one that the request names and the target's own are one.
#[test]
fn manifest_changed() {
    let stack = stack();
    let (mut relay, _action) = ready(&stack);
    let word = word();
    let zero = "0".repeat(64);
    let mut rows = 0;
    for (in_request, in_grant) in [(true, false), (false, true), (true, true)] {
        let mut asked = payload(&relay, &word);
        if in_request {
            asked["manifest"] = json!(zero);
        }
        let honest = relay.hello["manifests"][effects::ACTION].clone();
        let certificate = permit(&stack, &relay, &asked, |_, grant| {
            grant["manifest"] = if in_grant { json!(zero) } else { honest };
        })
        .unwrap();
        relay.present(&certificate).unwrap();
        assert_refused(&stack, By::Target(WEB), Leaves::Record, "manifest_changed", || {
            Ok(code(&relay.send(&asked)?))
        })
        .unwrap();
        rows += 1;
    }
    // Root changes it after everything was signed.
    let asked = payload(&relay, &word);
    relay
        .present(&permit(&stack, &relay, &asked, |_, _| {}).unwrap())
        .unwrap();
    let changed = effects::manifest().replace("Adds one line", "Adds 1 line");
    let later = add_action(target(&stack), effects::ACTION, &changed).unwrap();
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "manifest_changed", || {
        Ok(code(&relay.send(&asked)?))
    })
    .unwrap();
    drop(later);
    assert_eq!(effects_of(&stack, &word), 0);
    tell("manifest_changed", rows + 1);
}

/// REQ-PAYLOAD-15
#[test]
fn approval_missing() {
    let stack = stack();
    let (mut relay, _action) = ready(&stack);
    let word = word();
    let asked = payload(&relay, &word);
    let by_policy = permit(&stack, &relay, &asked, |_, grant| grant["approvals"] = json!(1)).unwrap();
    relay.present(&by_policy).unwrap();
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "approval_missing", || {
        Ok(code(&relay.send(&asked)?))
    })
    .unwrap();
    assert_eq!(effects_of(&stack, &word), 0);
}

/// The same bytes again: the stored answer, marked, and no second effect; in this session and in any other of the task.
/// REQ-LEDGER-2, REQ-PAYLOAD-20
#[test]
fn request_replayed() {
    let stack = stack();
    let (mut relay, _action) = ready(&stack);
    let word = word();
    let asked = payload(&relay, &word);
    let first = carry_out(&stack, &mut relay, &asked).unwrap();
    let mut other = again(&stack, &relay);
    let id = asked["request_id"].as_str().unwrap();
    let by_id = json!({"outcome": id}).to_string();
    let answers = [
        relay.send(&asked).unwrap(),
        carry_out(&stack, &mut relay, &asked).unwrap(),
        relay.ask(&by_id).unwrap(),
        other.send(&asked).unwrap(),
        other.ask(&by_id).unwrap(),
    ];
    let told = outcome(&first).unwrap();
    assert_eq!(told["replayed"], false);
    for answer in &answers {
        let mut again = outcome(answer).unwrap();
        assert_eq!(again["replayed"], true);
        assert_eq!(answer["output"], first["output"]);
        for key in ["replayed", "now"] {
            again[key] = told[key].clone();
        }
        assert_eq!(again, told);
    }
    assert_eq!(effects_of(&stack, &word), 1);
    assert_eq!(events(&stack, &asked), ["intent", "result"]);
}

/// Whatever has expired since, a live certificate of the task may ask; and nobody else. REQ-LEDGER-6, REQ-LEDGER-7
#[test]
fn an_answer_is_given_again_to_its_task_alone() {
    let stack = stack();
    let (mut relay, _action) = ready(&stack);
    let asked = payload(&relay, &word());
    carry_out(&stack, &mut relay, &asked).unwrap();
    let by_id = json!({"outcome": asked["request_id"]}).to_string();
    let mut stranger = EvilRelay::start(&stack, WEB).unwrap();
    assert_eq!(code(&stranger.ask(&by_id).unwrap()), "unknown_request");
    let mut early = EvilRelay::log_in(&stack, WEB, stack.open_task(WEB).unwrap()).unwrap();
    assert_eq!(code(&early.ask(&by_id).unwrap()), "certificate_missing");
    let halt = Changed::write(target(&stack).root(), "etc/writ/halt", "").unwrap();
    assert_eq!(code(&relay.ask(&by_id).unwrap()), "halted");
    assert_eq!(code(&relay.send(&asked).unwrap()), "halted");
    drop(halt);
    assert_eq!(code(&relay.ask(&by_id).unwrap()), "none");
}

/// REQ-LEDGER-3
#[test]
fn request_id_reused() {
    let stack = stack();
    let (mut relay, _action) = ready(&stack);
    let (one, two) = (word(), word());
    let asked = payload(&relay, &one);
    carry_out(&stack, &mut relay, &asked).unwrap();
    let mut other = payload(&relay, &two);
    other["request_id"] = asked["request_id"].clone();
    relay
        .present(&permit(&stack, &relay, &other, |_, _| {}).unwrap())
        .unwrap();
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "request_id_reused", || {
        Ok(code(&relay.send(&other)?))
    })
    .unwrap();
    assert_eq!((effects_of(&stack, &one), effects_of(&stack, &two)), (1, 0));
}

/// The same line in twenty sessions at once: one effect, and everybody is told of that one or that it is on its way.
/// REQ-LEDGER-4
#[test]
fn request_in_progress() {
    let stack = stack();
    let (relay, _action) = ready(&stack);
    let word = word();
    let mut asked = payload(&relay, &word);
    asked["args"]["after"] = json!(word);
    let certificate = permit(&stack, &relay, &asked, |_, _| {}).unwrap();
    let mut sessions: Vec<EvilRelay> = (0..20).map(|_| again(&stack, &relay)).collect();
    let line = EvilRelay::line(
        &serde_json::to_string(&asked).unwrap(),
        &relay.task.key,
        openssh::sshsig::REQUEST,
    )
    .unwrap();
    for session in &mut sessions {
        session.present(&certificate).unwrap();
        session.session.send(&line).unwrap();
    }
    // The one that is at it waits for its gate, and everybody else is told so.
    let mut codes: Vec<Option<String>> = vec![None; sessions.len()];
    wait_for("what all others are told", Duration::from_secs(60), || {
        for (code_of, session) in codes.iter_mut().zip(&sessions).filter(|(code_of, _)| code_of.is_none()) {
            *code_of = session.session.line_within(Duration::ZERO).ok().map(|line| code(&line));
        }
        Ok(codes.iter().flatten().count() == 19)
    })
    .unwrap();
    assert!(codes.iter().flatten().all(|code| code == "in_progress"), "{codes:?}");
    effects::open(target(&stack), &word).unwrap();
    let carries_out = codes.iter().position(Option::is_none).unwrap();
    assert_eq!(code(&sessions[carries_out].session.line().unwrap()), "none");
    assert_eq!(effects_of(&stack, &word), 1);
    for session in &mut sessions {
        let answer = session.ask(&line).unwrap();
        assert_eq!(outcome(&answer).unwrap()["replayed"], true);
    }
    assert_eq!(effects_of(&stack, &word), 1);
    println!("request_in_progress: 20 at once, 1 answered, 19 told to wait, 1 effect");
}

/// Nobody waits any more: it is finished, recorded, and the answer is there for whoever asks. REQ-SESSION-13
#[test]
fn client_gone_during_change() {
    let stack = stack();
    let (mut relay, _action) = ready(&stack);
    let word = word();
    let mut asked = payload(&relay, &word);
    asked["args"]["before"] = json!(word);
    relay
        .present(&permit(&stack, &relay, &asked, |_, _| {}).unwrap())
        .unwrap();
    let line = EvilRelay::line(
        &serde_json::to_string(&asked).unwrap(),
        &relay.task.key,
        openssh::sshsig::REQUEST,
    )
    .unwrap();
    relay.session.send(&line).unwrap();
    wait_for("the program", SOON, || Ok(!processes::with_argument(&word).is_empty())).unwrap();
    relay.session.kill();
    effects::open(target(&stack), &word).unwrap();
    wait_for(
        "the result",
        SOON,
        || Ok(events(&stack, &asked) == ["intent", "result"]),
    )
    .unwrap();
    assert_eq!(effects_of(&stack, &word), 1);
    let answer = again(&stack, &relay).ask(&line).unwrap();
    assert_eq!(
        (code(&answer).as_str(), &outcome(&answer).unwrap()["replayed"]),
        ("none", &json!(true))
    );
    assert_eq!(answer["output"], format!("done {word}\n"));
    assert_eq!(effects_of(&stack, &word), 1);
}

/// agent-exec is killed while the program runs, before or after its effect: nobody knows, and that is what is said, for
/// ever; the program ends with its supervisor. REQ-LEDGER-5
#[test]
fn a_change_whose_supervisor_was_killed_is_unknown_and_stays_so() {
    let stack = stack();
    for (moment, effects) in [("before", 0), ("after", 1)] {
        let (mut relay, _action) = ready(&stack);
        let word = word();
        let mut asked = payload(&relay, &word);
        // Nobody ever opens its gate.
        asked["args"][moment] = json!(word);
        relay
            .present(&permit(&stack, &relay, &asked, |_, _| {}).unwrap())
            .unwrap();
        let text = serde_json::to_string(&asked).unwrap();
        let line = EvilRelay::line(&text, &relay.task.key, openssh::sshsig::REQUEST).unwrap();
        relay.session.send(&line).unwrap();
        wait_for("the program", SOON, || {
            Ok(!processes::with_argument(&word).is_empty() && effects_of(&stack, &word) == effects)
        })
        .unwrap();
        let program = processes::with_argument(&word).remove(0);
        let supervisor = nix::unistd::Pid::from_raw(i32::try_from(program.parent().unwrap()).unwrap());
        nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).unwrap();
        wait_for("the end", SOON, || Ok(processes::with_argument(&word).is_empty())).unwrap();
        assert_eq!(events(&stack, &asked), ["intent"], "{moment}");
        let mut later = again(&stack, &relay);
        for _ in 0..3 {
            let answer = later.ask(&line).unwrap();
            let told = outcome(&answer).unwrap();
            assert_eq!(
                (told["status"].as_str(), code(&answer).as_str()),
                (Some("unknown"), "outcome_unknown")
            );
            assert_eq!(told["replayed"], true);
        }
        // Said once in the log, by whoever found it.
        assert_eq!(events(&stack, &asked), ["intent", "result"], "{moment}");
        assert_eq!(effects_of(&stack, &word), effects, "{moment}");
    }
}

/// No space for a claim or for the intent: refused, nothing runs, and the same request runs when there is space again.
/// REQ-LEDGER-9
#[test]
fn a_change_that_cannot_be_claimed_does_not_run() {
    let stack = stack();
    let (mut relay, _action) = ready(&stack);
    let word = word();
    let asked = payload(&relay, &word);
    let root = target(&stack).root();
    root.small_disk("var/lib/writ", 256).unwrap();
    let mut later = again(&stack, &relay);
    still_serves(&mut later).unwrap();
    let mut filler = std::fs::File::create(root.at("var/lib/writ/filler")).unwrap();
    while std::io::Write::write_all(&mut filler, &[0; 4096]).is_ok() {}
    drop(filler);
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "log_unavailable", || {
        Ok(code(&carry_out(&stack, &mut later, &asked)?))
    })
    .unwrap();
    assert_eq!(effects_of(&stack, &word), 0);
    std::fs::remove_file(root.at("var/lib/writ/filler")).unwrap();
    assert_eq!(code(&carry_out(&stack, &mut later, &asked).unwrap()), "none");
    later.session.finish();
    relay.session.finish();
    root.unmount("var/lib/writ").unwrap();
    assert_eq!(effects_of(&stack, &word), 1);
}

/// A read under an action certificate is one that policy judged with its arguments. REQ-PAYLOAD-13
#[test]
fn a_read_that_no_task_grant_lists_runs_under_its_own_certificate() {
    let stack = stack();
    let (_, _action) = ready(&stack);
    let mut relay = granted(&stack, &[]).unwrap();
    let asked = relay.payload("tail_log", json!({"path": security::LOG, "lines": 1}));
    let certificate = permit(&stack, &relay, &asked, |_, grant| {
        grant["actions"] = json!(["tail_log"])
    })
    .unwrap();
    relay.present(&certificate).unwrap();
    assert_eq!(code(&relay.send(&asked).unwrap()), "none");
}

/// The machine went down with a change and a read on their way. REQ-LEDGER-10
#[test]
fn after_a_restart_of_the_machine_the_log_makes_the_ledger_anew() {
    let stack = stack();
    let (mut relay, _action) = ready(&stack);
    let root = target(&stack).root();
    let done = payload(&relay, &word());
    let first = carry_out(&stack, &mut relay, &done).unwrap();
    let word = word();
    let mut asked = payload(&relay, &word);
    // Nobody ever opens its gate.
    asked["args"]["after"] = json!(word);
    relay
        .present(&permit(&stack, &relay, &asked, |_, _| {}).unwrap())
        .unwrap();
    let text = serde_json::to_string(&asked).unwrap();
    let line = EvilRelay::line(&text, &relay.task.key, openssh::sshsig::REQUEST).unwrap();
    relay.session.send(&line).unwrap();
    wait_for("the effect", SOON, || Ok(effects_of(&stack, &word) == 1)).unwrap();
    let program = processes::with_argument(&word).remove(0);
    let supervisor = nix::unistd::Pid::from_raw(i32::try_from(program.parent().unwrap()).unwrap());
    nix::sys::signal::kill(supervisor, nix::sys::signal::Signal::SIGKILL).unwrap();
    wait_for("the end", SOON, || Ok(processes::with_argument(&word).is_empty())).unwrap();
    // Everything so far was in another start of the machine, and of the ledger only one answer was on the disk.
    let log = root.at("var/log/writ/00000000000000000001.jsonl");
    let here = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let records = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, records.replace(here.trim(), &new_id())).unwrap();
    let ledger = root.at("var/lib/writ/ledger");
    std::fs::remove_file(ledger.join("boot")).unwrap();
    let lost: Vec<_> = std::fs::read_dir(&ledger)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    for file in &lost {
        let text = std::fs::read_to_string(file).unwrap();
        if !text.contains(done["request_id"].as_str().unwrap()) {
            std::fs::remove_file(file).unwrap();
        }
    }

    let mut later = again(&stack, &relay);
    assert_eq!(events(&stack, &asked), ["intent", "result"], "written before the hello");
    let answer = later.ask(&line).unwrap();
    let told = outcome(&answer).unwrap();
    assert_eq!(
        (told["status"].as_str(), &told["replayed"]),
        (Some("unknown"), &json!(true))
    );
    assert_eq!(effects_of(&stack, &word), 1);
    let kept = later.send(&done).unwrap();
    assert_eq!(
        (&kept["output"], &outcome(&kept).unwrap()["replayed"]),
        (&first["output"], &json!(true))
    );
    let others = records
        .lines()
        .filter(|line| line.contains("\"event\":\"intent\""))
        .count();
    let now = std::fs::read_to_string(&log).unwrap();
    let results = now.lines().filter(|line| line.contains("\"event\":\"result\"")).count();
    assert_eq!(results, others, "every intent has its end");
}

/// A ledger that lost its answers tells what the log knows. REQ-LEDGER-5, REQ-LEDGER-8
#[test]
fn an_answer_that_was_lost_is_told_from_the_log() {
    let stack = stack();
    let (mut relay, _action) = ready(&stack);
    let word = word();
    let asked = payload(&relay, &word);
    let first = carry_out(&stack, &mut relay, &asked).unwrap();
    let ledger = target(&stack).root().at("var/lib/writ/ledger");
    let id = asked["request_id"].as_str().unwrap();
    let claim = std::fs::read_dir(&ledger)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .find(|path| std::fs::read_to_string(path).is_ok_and(|text| text.contains(id)))
        .unwrap();
    let text = std::fs::read_to_string(&claim).unwrap();
    let first_line = text.lines().next().unwrap();
    // Cut off anywhere in its second line.
    for cut in [0, 1, 100, text.len() - first_line.len() - 2] {
        std::fs::write(&claim, &text[..first_line.len() + 1 + cut]).unwrap();
        let answer = relay.send(&asked).unwrap();
        let (told, was) = (outcome(&answer).unwrap(), outcome(&first).unwrap());
        assert_eq!(
            (told["status"].as_str(), &told["replayed"]),
            (Some("ok"), &json!(true)),
            "{answer}"
        );
        assert_eq!(
            (&told["exit_code"], &told["head"], &told["serial"]),
            (&was["exit_code"], &was["head"], &was["serial"])
        );
        assert!(answer.get("output").is_none() && told["message"].as_str().unwrap().contains("from the log"));
    }
    assert_eq!(effects_of(&stack, &word), 1);
    assert_eq!(events(&stack, &asked), ["intent", "result"]);
}
