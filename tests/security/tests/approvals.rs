//! Approvals, against a real target: a relay that has everything the relay and the CA have runs nothing that people did not
//! approve, as they approved it, once.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where; its name is its documentation"
)]

use harness::evil::{code, outcome};
use harness::stack::{new_id, now};
use harness::{By, Changed, EvilRelay, Leaves, Opened, Stack, Target, assert_refused, effects, records};
use openssh::key::SigningKey;
use openssh::sshsig;
use security::approvals::{Person, approval, line, on, statement};
use security::changes::{payload, permit};
use security::maze::{maze, reader, sha256, shown};
use security::{LOG, WEB, add_action, stack, still_serves, tell};
use serde_json::{Map, Value, json};

/// Where the target looks who may approve.
const APPROVERS: &str = "etc/writ/approvers";

/// What such an action's manifest says of how long people may take, in seconds.
const WINDOW: u64 = 600;

fn target(stack: &Stack) -> &Target {
    stack.target(WEB).unwrap()
}

/// A target with an action that needs two people's approval, Carol and Dave who may give it, and a live task.
struct Scene<'a> {
    stack: &'a Stack,
    relay: EvilRelay,
    carol: Person,
    dave: Person,
    approvers: Changed,
    _action: Changed,
}

impl<'a> Scene<'a> {
    fn new(stack: &'a Stack) -> Self {
        let wants = format!("risk = \"destroy\"\napprovals = 2\napproval_window_s = {WINDOW}");
        let manifest = effects::manifest().replace("risk = \"change\"", &wants);
        let action = add_action(target(stack), effects::ACTION, &manifest).unwrap();
        let (carol, dave) = (
            Person::with_file("ed25519").unwrap(),
            Person::with_file("ecdsa").unwrap(),
        );
        let both = carol.line("carol", "").unwrap() + &dave.line("dave", "").unwrap();
        Self {
            stack,
            relay: EvilRelay::start(stack, WEB).unwrap(),
            carol,
            dave,
            approvers: Changed::write(target(stack).root(), APPROVERS, both).unwrap(),
            _action: action,
        }
    }

    /// A request that nobody has made yet, which counts one effect under its own id.
    fn payload(&self) -> Map<String, Value> {
        let mut payload = payload(&self.relay, &new_id());
        payload.insert("expires".to_owned(), json!(now() + WINDOW - 100));
        payload
    }

    /// An approval of exactly this by these.
    fn approved(&self, payload: &Map<String, Value>, by: &[&Person]) -> Value {
        let on = [on(payload).unwrap()];
        let text = statement(payload, &on).unwrap();
        let sigs: Vec<String> = by.iter().map(|person| person.approve(&text).unwrap()).collect();
        approval(&on, &sigs)
    }

    /// Sends a request with what the CA would give it, and this approval.
    fn send(&mut self, payload: &Map<String, Value>, approval: &Value) -> Value {
        self.relay
            .present(&permit(self.stack, &self.relay, payload, |_, _| {}).unwrap())
            .unwrap();
        let line = line(&self.relay, payload, approval).unwrap();
        self.relay.ask(&line).unwrap()
    }

    /// That it is refused with this Code and a text that has these words, recorded, and that nothing ran.
    fn refuses(&mut self, payload: &Map<String, Value>, approval: &Value, expected: &str, what: &str) {
        let stack = self.stack;
        let mut said = String::new();
        assert_refused(stack, By::Target(WEB), Leaves::Record, expected, || {
            let answer = self.send(payload, approval);
            said = outcome(&answer).unwrap()["message"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            Ok(code(&answer))
        })
        .unwrap_or_else(|error| panic!("{what}: {error:#}: {said}"));
        assert!(said.contains(what), "{said:?} and not {what:?}");
        assert_eq!(self.effects(payload), 0);
        let records = target(stack).records().unwrap();
        let last = records.iter().rfind(|record| records::is(record, "refused")).unwrap();
        assert_eq!((&last["code"], last.get("approvals")), (&json!(expected), None));
    }

    fn effects(&self, payload: &Map<String, Value>) -> usize {
        effects::count(target(self.stack), payload["args"]["word"].as_str().unwrap()).unwrap()
    }

    /// The approvals in the newest record of this event.
    fn recorded(&self, event: &str, payload: &Map<String, Value>) -> Value {
        let records = target(self.stack).records().unwrap();
        let own = |record: &&Value| records::is(record, event) && record["request_id"] == payload["request_id"];
        records.iter().rfind(own).unwrap()["approvals"].clone()
    }
}

fn fingerprint(person: &Person) -> String {
    let key = ssh_key::PublicKey::from_openssh(&person.public().unwrap()).unwrap();
    key.fingerprint(ssh_key::HashAlg::Sha256).to_string()
}

/// Signed with `ssh-keygen -Y sign` and the words of the spec: it runs, once, and the log says who wanted it.
/// REQ-APPROVAL-6, REQ-APPROVAL-7, REQ-STATEMENT-9
#[test]
fn what_two_people_signed_runs_once_and_is_recorded_with_their_names() {
    let stack = stack();
    let mut scene = Scene::new(&stack);
    let asked = scene.payload();
    let approval = scene.approved(&asked, &[&scene.carol, &scene.dave]);
    let answer = scene.send(&asked, &approval);
    assert_eq!(code(&answer), "none", "{answer}");
    assert_eq!(scene.effects(&asked), 1);
    let who = json!([
        {"principal": "carol", "fingerprint": fingerprint(&scene.carol), "kind": "ssh-ed25519"},
        {"principal": "dave", "fingerprint": fingerprint(&scene.dave), "kind": "ecdsa-sha2-nistp256"},
    ]);
    assert_eq!(
        (scene.recorded("intent", &asked), scene.recorded("result", &asked)),
        (who.clone(), who)
    );
    // approval_reused: the very same again, with everything that it needs.
    let again = scene.send(&asked, &approval);
    assert_eq!(outcome(&again).unwrap()["replayed"], true, "{again}");
    assert_eq!(scene.effects(&asked), 1);
    still_serves(&mut scene.relay).unwrap();
}

/// REQ-APPROVER-3, REQ-APPROVER-5, REQ-APPROVER-6
#[test]
fn a_security_key_and_a_certificate_of_the_approvers_ca_approve() {
    let stack = stack();
    let mut scene = Scene::new(&stack);
    let (token, ca) = (Person::with_token(), Person::with_file("ed25519").unwrap());
    let file = token.line("erin", "namespaces=\"approve.v1@writ.internal\" ").unwrap()
        + &ca
            .line("frank,grace", "cert-authority,valid-before=\"20990101Z\" ")
            .unwrap();
    scene.approvers.set(file).unwrap();
    let frank = scene.dave.certified(&ca, &["-n", "frank", "-V", "-1m:+10m"]).unwrap();
    let asked = scene.payload();
    let approval = scene.approved(&asked, &[&token, &frank]);
    let answer = scene.send(&asked, &approval);
    assert_eq!((code(&answer).as_str(), scene.effects(&asked)), ("none", 1), "{answer}");
    let who = json!([
        {"principal": "erin", "fingerprint": fingerprint(&token), "kind": "sk-ssh-ed25519@openssh.com"},
        {"principal": "frank", "fingerprint": fingerprint(&frank), "kind": "ecdsa-sha2-nistp256-cert-v01@openssh.com"},
    ]);
    assert_eq!(scene.recorded("intent", &asked), who);
}

/// REQ-APPROVAL-3
#[test]
fn a_default_that_the_signers_did_not_read_is_refused() {
    let stack = stack();
    let mut scene = Scene::new(&stack);
    let mut asked = scene.payload();
    let left_out = asked["args"].as_object_mut().unwrap().remove("after");
    assert_eq!(left_out, Some(json!("")), "it has a default, which says the same");
    let approval = scene.approved(&asked, &[&scene.carol, &scene.dave]);
    scene.refuses(&asked, &approval, "arguments_invalid", "has every argument");
    still_serves(&mut scene.relay).unwrap();
}

/// A name, a request, what comes beside it, and the Code and words that stop it.
type Attempt = (&'static str, Map<String, Value>, Value, String, String);

/// Every approval that is good but for one thing.
#[test]
fn approvals_that_do_not_count_are_refused_and_recorded() {
    let stack = stack();
    let mut scene = Scene::new(&stack);
    let mut rows = Vec::new();
    let two = "it needs the approvals of 2 people, and has those of 1";
    let other_key = Person::with_file("ed25519").unwrap();
    let stranger = Person::with_file("ed25519").unwrap();
    let requester = Person::with_file("ed25519").unwrap();
    let over = Person::with_file("ed25519").unwrap();
    let task_ca = Person::with_key(&stack.control.task_ca().unwrap()).unwrap();
    let token = Person::with_token();
    let people = [
        scene.carol.line("carol", "").unwrap(),
        scene.dave.line("dave", "").unwrap(),
        other_key.line("carol", "").unwrap(),
        requester.line("alice", "").unwrap(),
        over.line("erin", "valid-before=\"20250101Z\" ").unwrap(),
        task_ca.line("frank", "").unwrap(),
        token.line("grace", "").unwrap(),
    ];
    scene.approvers.set(people.concat()).unwrap();
    // Beside Carol's, which is good: who else signed the right text.
    let untouched = token.untouched().unwrap();
    let certified = scene
        .dave
        .certified(&task_ca, &["-n", "frank", "-V", "-1m:+10m"])
        .unwrap();
    let table: [(&'static str, Option<&Person>, &str, &str); 8] = [
        ("approval_missing", None, "approval_missing", two),
        ("two_signatures_one_key", Some(&scene.carol), "approval_missing", two),
        ("two_keys_of_one_person", Some(&other_key), "approval_missing", two),
        (
            "approver_unknown",
            Some(&stranger),
            "approver_unknown",
            "find the key among those that may sign",
        ),
        (
            "approver_expired",
            Some(&over),
            "approver_expired",
            "a key that is not valid any more",
        ),
        (
            "approver_is_requester",
            Some(&requester),
            "approver_is_requester",
            "it is alice's, who asks",
        ),
        (
            "approver_key_from_task_ca",
            Some(&task_ca),
            "approver_unknown",
            "a key of a machine",
        ),
        (
            "sig_sk_without_touch",
            Some(&untouched),
            "approval_invalid",
            "a security key that was not touched",
        ),
    ];
    let mut asked: Vec<Attempt> = Vec::new();
    for (name, second, code, what) in table {
        let payload = scene.payload();
        let by: Vec<&Person> = [Some(&scene.carol), second].into_iter().flatten().collect();
        let approval = scene.approved(&payload, &by);
        asked.push((name, payload, approval, code.to_owned(), what.to_owned()));
    }
    // The two of them, and another text, line or purpose.
    let both = [&scene.carol, &scene.dave];
    let mut other = |name: &'static str, code: &str, what: &str, make: &dyn Fn(&Map<String, Value>) -> Value| {
        let payload = scene.payload();
        let approval = make(&payload);
        asked.push((name, payload, approval, code.to_owned(), what.to_owned()));
    };
    let sign = |text: &str| -> Vec<String> { both.iter().map(|person| person.approve(text).unwrap()).collect() };
    let unsigned = "failed to verify the signature";
    other("approval_other_args", "approval_invalid", unsigned, &|payload| {
        let mut meant = payload.clone();
        meant["args"]["word"] = json!("harmless");
        approval(
            &[on(payload).unwrap()],
            &sign(&statement(&meant, &[on(payload).unwrap()]).unwrap()),
        )
    });
    other("approval_other_reason", "approval_invalid", unsigned, &|payload| {
        let mut meant = payload.clone();
        meant["reason"] = json!("another test");
        approval(
            &[on(payload).unwrap()],
            &sign(&statement(&meant, &[on(payload).unwrap()]).unwrap()),
        )
    });
    other(
        "approval_reused",
        "approval_invalid",
        "another request on this target was approved",
        &|payload| {
            let mut before = payload.clone();
            before["request_id"] = json!(new_id());
            let on = [on(&before).unwrap()];
            approval(&on, &sign(&statement(payload, &on).unwrap()))
        },
    );
    other(
        "approval_other_target",
        "approval_invalid",
        "this request is not among those that were approved",
        &|payload| {
            let mut there = payload.clone();
            there["target"] = json!("db-1");
            there["target_key"] = json!(fingerprint(&stranger));
            let on = [on(&there).unwrap()];
            approval(&on, &sign(&statement(payload, &on).unwrap()))
        },
    );
    other(
        "approval_twice_here",
        "approval_invalid",
        "another request on this target was approved",
        &|payload| {
            let mut second = payload.clone();
            second["request_id"] = json!(new_id());
            let mut lines = [on(payload).unwrap(), on(&second).unwrap()];
            lines.sort();
            approval(&lines, &sign(&statement(payload, &lines).unwrap()))
        },
    );
    other(
        "approval_on_is_prose",
        "approval_invalid",
        "names no target, key and digest",
        &|payload| {
            let mut lines = [on(payload).unwrap(), "web-9 and nothing else".to_owned()];
            lines.sort();
            approval(&lines, &sign(&statement(payload, &lines).unwrap()))
        },
    );
    other(
        "sig_wrong_namespace",
        "approval_invalid",
        "a signature of another namespace",
        &|payload| {
            let text = statement(payload, &[on(payload).unwrap()]).unwrap();
            let sigs: Vec<String> = both
                .iter()
                .map(|person| person.sign(sshsig::REQUEST, &text).unwrap())
                .collect();
            approval(&[on(payload).unwrap()], &sigs)
        },
    );
    other(
        "approval_is_a_word",
        "approval_invalid",
        "failed to read an SSHSIG signature",
        &|payload| approval(&[on(payload).unwrap()], &["approved".to_owned(), "yes".to_owned()]),
    );
    for (name, payload, approval, code, what) in &asked {
        println!("{name}");
        scene.refuses(payload, approval, code, what);
        rows.push(*name);
    }
    // With the task CA as an approvers' CA, too.
    scene
        .approvers
        .set(scene.carol.line("carol", "").unwrap() + &task_ca.line("frank", "cert-authority ").unwrap())
        .unwrap();
    let payload = scene.payload();
    let forged = scene.approved(&payload, &[&scene.carol, &certified]);
    scene.refuses(&payload, &forged, "approver_unknown", "a key of a machine");
    tell("approvals", rows.len() + 1);
    still_serves(&mut scene.relay).unwrap();
}

/// The time in which people may sign ends, and is not as long as a relay likes. REQ-APPROVAL-10
#[test]
fn approval_expired() {
    let stack = stack();
    let mut scene = Scene::new(&stack);
    for (expires, code, what) in [
        (now() - 31, "request_expired", "it expired 3"),
        (now() + WINDOW + 60, "expires_too_far", "and may in 600 s"),
    ] {
        let mut payload = scene.payload();
        payload.insert("expires".to_owned(), json!(expires));
        let approval = scene.approved(&payload, &[&scene.carol, &scene.dave]);
        scene.refuses(&payload, &approval, code, what);
    }
    // What nobody has to approve has no longer time than ever.
    let plain = add_action(
        target(&stack),
        "count_again",
        &effects::manifest().replace(effects::ACTION, "count_again"),
    );
    let _plain = plain.unwrap();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    let mut asked = relay.payload("count_again", json!({"word": new_id(), "before": "", "after": ""}));
    asked.insert("expires".to_owned(), json!(now() + 95));
    relay
        .present(&permit(&stack, &relay, &asked, |_, _| {}).unwrap())
        .unwrap();
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "expires_too_far", || {
        Ok(code(&relay.send(&asked)?))
    })
    .unwrap();
}

/// REQ-APPROVER-1, REQ-APPROVER-2, REQ-APPROVAL-9
#[test]
fn with_a_file_that_cannot_be_used_nobody_approves() {
    let stack = stack();
    let mut scene = Scene::new(&stack);
    let good = scene.carol.line("carol", "").unwrap() + &scene.dave.line("dave", "").unwrap();
    let mut tries = 0;
    let mut refused = |scene: &mut Scene<'_>, code: &str, what: &str| {
        let payload = scene.payload();
        let approval = scene.approved(&payload, &[&scene.carol, &scene.dave]);
        scene.refuses(&payload, &approval, code, what);
        tries += 1;
    };
    for (line, what) in [
        ("mallory * ssh-ed25519 AAAA\n", "/etc/writ/approvers: line 3: "),
        ("* ssh-ed25519 AAAA\n", "/etc/writ/approvers: line 3: "),
        (
            "# fine\n\ncarol no-touch-required ssh-ed25519 AAAA\n",
            "/etc/writ/approvers: line 5: ",
        ),
    ] {
        scene.approvers.set(format!("{good}{line}")).unwrap();
        refused(&mut scene, "config_invalid", what);
    }
    scene.approvers.set(&good).unwrap();
    let path = scene.approvers.path().to_owned();
    for (uid, mode) in [(0, 0o666), (0, 0o664), (1, 0o644)] {
        scene.approvers.own(uid, mode).unwrap();
        refused(
            &mut scene,
            "config_invalid",
            "it must belong to root, and nobody else may write it",
        );
    }
    scene.approvers.own(0, 0o644).unwrap();
    std::fs::remove_file(&path).unwrap();
    refused(&mut scene, "approver_unknown", "find the key among those that may sign");
    std::os::unix::fs::symlink("/etc/hostname", &path).unwrap();
    refused(&mut scene, "config_invalid", "/etc/writ/approvers: ");
    std::fs::remove_file(&path).unwrap();
    // And as it should be: what stopped those stops nothing else.
    scene.approvers.set(&good).unwrap();
    let payload = scene.payload();
    let approval = scene.approved(&payload, &[&scene.carol, &scene.dave]);
    assert_eq!(code(&scene.send(&payload, &approval)), "none");
    assert_eq!(scene.effects(&payload), 1);
    tell("files of approvers", tries);
}

/// REQ-APPROVAL-8
#[test]
fn where_a_touch_is_required_a_key_in_a_file_approves_nothing() {
    let stack = stack();
    let mut scene = Scene::new(&stack);
    let tokens = [Person::with_token(), Person::with_token()];
    let file = scene.carol.line("carol", "").unwrap()
        + &tokens[0].line("erin", "").unwrap()
        + &tokens[1].line("frank", "").unwrap();
    scene.approvers.set(file).unwrap();
    let config = Changed::keep(target(&stack).root(), "etc/writ/target.toml").unwrap();
    // Before the first table.
    config
        .set(format!(
            "require_touch = true\n{}",
            config.before().replace("require_touch = false\n", "")
        ))
        .unwrap();
    // A session reads its configuration when it begins.
    scene.relay = EvilRelay::start(&stack, WEB).unwrap();
    let payload = scene.payload();
    let approval = scene.approved(&payload, &[&scene.carol, &tokens[0]]);
    scene.refuses(
        &payload,
        &approval,
        "approver_unknown",
        "this target wants a security key, and it is ssh-ed25519",
    );
    let payload = scene.payload();
    let approval = scene.approved(&payload, &[&tokens[1], &tokens[0]]);
    assert_eq!(code(&scene.send(&payload, &approval)), "none");
    assert_eq!(scene.effects(&payload), 1);
}

/// Where policy wants a person's yes to a read, that yes is for one look. REQ-APPROVAL-6, REQ-LEDGER-1
#[test]
fn an_approved_read_is_shown_once() {
    let stack = stack();
    let mut scene = Scene::new(&stack);
    let mut asked = scene.relay.payload("tail_log", json!({"path": LOG, "lines": 1}));
    // The manifest of a read sets no window: ten minutes.
    asked.insert("expires".to_owned(), json!(now() + 590));
    let wants = |scene: &mut Scene<'_>| {
        let permit = permit(scene.stack, &scene.relay, &asked, |_, grant| {
            grant["approvals"] = json!(1)
        })
        .unwrap();
        scene.relay.present(&permit).unwrap();
    };
    wants(&mut scene);
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "approval_missing", || {
        Ok(code(&scene.relay.send(&asked)?))
    })
    .unwrap();
    let line = line(&scene.relay, &asked, &scene.approved(&asked, &[&scene.carol])).unwrap();
    let ask = |scene: &mut Scene<'_>| {
        wants(scene);
        let answer = scene.relay.ask(&line).unwrap();
        assert_eq!(code(&answer), "none", "{answer}");
        (outcome(&answer).unwrap()["replayed"].clone(), answer["output"].clone())
    };
    let (first, output) = ask(&mut scene);
    assert_eq!((first, ask(&mut scene)), (json!(false), (json!(true), output)));
    let records = target(&stack).records().unwrap();
    let own = |event: &str| {
        let of_it = |record: &&Value| records::is(record, event) && record["request_id"] == asked["request_id"];
        records.iter().filter(of_it).count()
    };
    assert_eq!((own("intent"), own("result")), (1, 1));
    // After a restart of the machine that took the ledger with it the log knows that it was shown.
    let root = target(&stack).root();
    let log = root.at("var/log/writ/00000000000000000001.jsonl");
    let here = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let before = std::fs::read_to_string(&log).unwrap();
    std::fs::write(&log, before.replace(here.trim(), &new_id())).unwrap();
    for claim in std::fs::read_dir(root.at("var/lib/writ/ledger")).unwrap() {
        std::fs::remove_file(claim.unwrap().path()).unwrap();
    }
    let task = Opened {
        task_id: scene.relay.task.task_id.clone(),
        key: SigningKey::from_openssh(&scene.relay.task.key.to_openssh().unwrap()).unwrap(),
        certificate: scene.relay.task.certificate.clone(),
    };
    scene.relay = EvilRelay::log_in(&stack, WEB, task).unwrap();
    scene.relay.present_own().unwrap();
    assert_eq!(ask(&mut scene), (json!(true), Value::Null));
}

/// What is approved with a file is approved by its content: another content at the same path is refused, and the approval is
/// still good for the one that it names.
#[test]
fn pinned_file_changed() {
    let stack = stack();
    let mut scene = Scene::new(&stack);
    let root = maze(&stack).unwrap();
    let wants = format!("risk = \"destroy\"\napprovals = 1\napproval_window_s = {WINDOW}");
    let manifest = reader("run_file", "/var/log/maze", "pin = true\n").replace("risk = \"read\"", &wants);
    let _action = add_action(target(&stack), "run_file", &manifest).unwrap();
    scene.relay = EvilRelay::start(&stack, WEB).unwrap();
    let approved = "drop view orders_old;\n";
    let args = json!({"path": {"path": "/var/log/maze/file", "sha256": sha256(approved)}});
    let mut asked = scene.relay.payload("run_file", args);
    asked.insert("expires".to_owned(), json!(now() + WINDOW - 100));
    let approval = scene.approved(&asked, &[&scene.carol]);
    let file = root.join("var/log/maze/file");
    for content in [
        "drop table orders;\n",
        "",
        "drop view orders_old;\ndrop table orders;\n",
    ] {
        std::fs::write(&file, content).unwrap();
        assert_refused(&stack, By::Target(WEB), Leaves::Record, "file_changed", || {
            Ok(code(&scene.send(&asked, &approval)))
        })
        .unwrap();
    }
    // The digest of the other content, under the approval of this one.
    let mut other = asked.clone();
    other["args"]["path"]["sha256"] = json!(sha256("drop table orders;\n"));
    std::fs::write(&file, "drop table orders;\n").unwrap();
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "approval_invalid", || {
        Ok(code(&scene.send(&other, &approval)))
    })
    .unwrap();
    std::fs::write(&file, approved).unwrap();
    let answer = scene.send(&asked, &approval);
    assert_eq!((code(&answer).as_str(), shown(&answer)), ("none", approved), "{answer}");
    tell("pinned_file_changed", 4);
}
