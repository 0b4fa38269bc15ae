//! Certificates and grants that the CA would never sign, shown to agent-exec by somebody who has the CA's key; and
//! certificates with which sshd must not let anybody in.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::time::Duration;

use anyhow::Result;
use harness::forge::{Forge, GRANT, HOST};
use harness::stack::{new_id, now};
use harness::{By, Leaves, Stack, assert_refused};
use openssh::key::SigningKey;
use security::{LOG, WEB, forged, grant_of, granted, logged_in, stack, still_serves, tell};
use serde_json::{Value, json};

type Change = fn(&mut Forge, &mut Value);

/// A name, the CA that signs, and what is wrong.
type AtLogin<'a> = (&'a str, &'a SigningKey, fn(&mut Forge));

/// Presents a certificate in-band and asserts its refusal; then shows that the session has gained nothing by it.
fn refused_in_band(
    stack: &Stack,
    name: &str,
    code: &str,
    certificate: impl FnOnce(&harness::EvilRelay) -> Result<String>,
) {
    let mut relay = logged_in(stack).unwrap();
    let text = certificate(&relay).unwrap();
    assert_refused(stack, By::Target(WEB), Leaves::Count, code, || {
        relay.present(&text)?;
        Ok(harness::evil::code(&relay.session.line()?))
    })
    .unwrap_or_else(|error| panic!("{name}: {error:?}"));
    let answer = relay.call("tail_log", json!({"path": LOG, "lines": 1})).unwrap();
    assert_eq!(harness::evil::code(&answer), "certificate_missing", "{name}");
    // A refused line changes nothing: the honest certificate is still welcome.
    relay.present_own().unwrap();
    still_serves(&mut relay).unwrap_or_else(|error| panic!("{name}: {error:?}"));
}

#[test]
fn certificates_that_the_ca_would_never_sign_are_refused_in_band() {
    let stack = stack();
    let table: Vec<(&str, &str, Change)> = vec![
        ("cert_host_type", "certificate_type", |forge, _| forge.kind = HOST),
        ("cert_empty_principals", "certificate_principals", |forge, _| {
            forge.principals.clear()
        }),
        ("cert_second_principal", "certificate_principals", |forge, _| {
            forge.principals.push("root".to_owned())
        }),
        ("cert_comma_principal", "certificate_principals", |forge, _| {
            forge.principals = vec!["web-1,root".to_owned()]
        }),
        ("cert_other_principal", "certificate_principals", |forge, _| {
            forge.principals = vec!["web-2".to_owned()]
        }),
        ("action_cert_as_task_cert", "certificate_principals", |forge, _| {
            forge.principals = vec!["action/web-1".to_owned()];
        }),
        ("cert_forever", "certificate_lifetime", |forge, _| {
            forge.valid_after = 0;
            forge.valid_before = u64::MAX;
        }),
        ("cert_ttl_over_max", "certificate_lifetime", |forge, _| {
            forge.valid_before = forge.valid_after + 931
        }),
        ("cert_no_time_at_all", "certificate_lifetime", |forge, _| {
            forge.valid_before = forge.valid_after
        }),
        ("cert_not_yet_valid", "certificate_not_yet_valid", |forge, _| {
            forge.valid_after = now() + 120;
            forge.valid_before = now() + 240;
        }),
        ("cert_expired", "certificate_expired", |forge, _| {
            forge.valid_after = now() - 300;
            forge.valid_before = now() - 31;
        }),
        ("cert_no_grant", "grant_missing", |forge, _| forge.extensions.clear()),
        ("cert_two_grants", "certificate_malformed", |forge, grant| {
            forge.extensions = vec![
                (GRANT.to_owned(), grant.to_string()),
                (GRANT.to_owned(), grant.to_string()),
            ];
        }),
        ("cert_unsorted_extensions", "certificate_malformed", |forge, _| {
            forge.extensions.push(("a@writ.internal".to_owned(), "x".to_owned()));
        }),
        ("cert_permit_pty", "certificate_options", |forge, _| {
            forge.extensions.push(("permit-pty".to_owned(), String::new()));
        }),
        ("cert_unsorted_options", "certificate_malformed", |forge, _| {
            forge.critical.reverse()
        }),
        ("cert_no_force_command", "certificate_options", |forge, _| {
            forge.critical.remove(0);
        }),
        ("cert_other_force_command", "certificate_options", |forge, _| {
            forge.critical[0].1 = "/bin/sh".to_owned()
        }),
        ("cert_no_source_address", "certificate_options", |forge, _| {
            forge.critical.remove(1);
        }),
        ("cert_unknown_critical_option", "certificate_options", |forge, _| {
            forge.critical.push(("verify-required".to_owned(), String::new()));
        }),
        ("grant_for_other_target", "grant_mismatch", |_, grant| {
            grant["target"] = json!("web-2")
        }),
        ("grant_for_other_task", "grant_mismatch", |_, grant| {
            grant["task_id"] = json!(new_id())
        }),
        ("grant_of_an_old_task", "grant_mismatch", |_, grant| {
            grant["opened"] = json!(now() - 9 * 3600)
        }),
        ("grant_from_the_future", "grant_mismatch", |_, grant| {
            grant["opened"] = json!(now() + 3600)
        }),
        ("grant_over_4k", "grant_malformed", |_, grant| {
            let names: Vec<String> = (0..100)
                .map(|n| format!("an_action_with_a_rather_long_name_number_{n:03}"))
                .collect();
            grant["actions"] = json!(names);
        }),
        ("grant_other_version", "version_unsupported", |_, grant| {
            grant["v"] = json!(2)
        }),
        ("grant_unknown_field", "grant_malformed", |_, grant| {
            grant["root"] = json!(true)
        }),
        ("grant_no_actions", "grant_malformed", |_, grant| {
            grant["actions"] = json!([])
        }),
        ("grant_unsorted_actions", "grant_malformed", |_, grant| {
            grant["actions"] = json!(["tail_log", "read_file"])
        }),
        ("grant_doubled_action", "grant_malformed", |_, grant| {
            grant["actions"] = json!(["tail_log", "tail_log"])
        }),
        ("grant_kind_action_without_its_pins", "grant_malformed", |_, grant| {
            grant["kind"] = json!("action")
        }),
        ("grant_kind_action", "grant_mismatch", |_, grant| {
            grant["kind"] = json!("action");
            grant["actions"] = json!(["tail_log"]);
            grant["request_sha256"] = json!("0".repeat(64));
            grant["manifest"] = json!("0".repeat(64));
            grant["approvals"] = json!(0);
            grant["krl"] = json!(0);
        }),
        ("grant_doubled_key", "grant_malformed", |forge, grant| {
            let text = grant.to_string().replacen('{', "{\"v\":1,", 1);
            forge.extensions = vec![(GRANT.to_owned(), text)];
        }),
        ("grant_as_array", "grant_malformed", |forge, grant| {
            let fields: Vec<&Value> = grant.as_object().unwrap().values().collect();
            forge.extensions = vec![(GRANT.to_owned(), json!(fields).to_string())];
        }),
    ];
    let mut attacks = table.len();
    for (name, code, change) in table {
        refused_in_band(&stack, name, code, |relay| forged(&stack, relay, change));
    }

    let other_ca = SigningKey::from_seed(&[9; 32].into()).unwrap();
    refused_in_band(&stack, "cert_wrong_ca", "certificate_untrusted", |relay| {
        let grant = grant_of(&relay.task.certificate)?.to_string();
        stack
            .honest_forge(WEB, &relay.task.task_id, &grant)
            .sign(relay.task.key.public(), &other_ca)
    });
    // Signed by the key that it certifies: a certificate needs nobody's help to say so.
    refused_in_band(&stack, "cert_signed_by_itself", "certificate_untrusted", |relay| {
        let grant = grant_of(&relay.task.certificate)?.to_string();
        stack
            .honest_forge(WEB, &relay.task.task_id, &grant)
            .sign(relay.task.key.public(), &relay.task.key)
    });
    // A certificate is public data: another task's, presented in this session.
    let stolen = stack.open_task(WEB).unwrap();
    refused_in_band(&stack, "cert_of_another_key", "key_mismatch", |_| {
        Ok(stolen.certificate.clone())
    });
    refused_in_band(&stack, "cert_bit_flipped", "certificate_untrusted", |relay| {
        // The last characters are the signature's.
        let mut text = relay.task.certificate.clone().into_bytes();
        let at = text.len() - 10;
        text[at] = if text[at] == b'A' { b'B' } else { b'A' };
        Ok(String::from_utf8(text)?)
    });
    for (name, change) in [
        (
            "cert_comment",
            (|text| format!("{text} root@web-1")) as fn(&str) -> String,
        ),
        ("cert_trailing_newline", |text| format!("{text}\n")),
        ("cert_as_key", |text| {
            text.replace("ssh-ed25519-cert-v01@openssh.com", "ssh-ed25519")
        }),
        ("cert_garbage", |_| "AAAA".to_owned()),
        ("cert_empty", |_| String::new()),
    ] {
        refused_in_band(&stack, name, "certificate_malformed", |relay| {
            Ok(change(&relay.task.certificate))
        });
        attacks += 1;
    }
    tell("certificates shown to agent-exec", attacks + 4);
}

#[test]
fn the_targets_own_ceiling_is_below_what_a_ca_may_sign() {
    let stack = stack();
    let config = stack.target(WEB).unwrap().root().at("etc/writ/target.toml");
    let before = std::fs::read_to_string(&config).unwrap();
    std::fs::write(
        &config,
        before.replace("task_max_lifetime_s = 900", "task_max_lifetime_s = 60"),
    )
    .unwrap();
    let mut relay = logged_in(&stack).unwrap();
    let told = assert_refused(&stack, By::Target(WEB), Leaves::Count, "certificate_lifetime", || {
        relay.present_own()?;
        Ok(harness::evil::code(&relay.session.line()?))
    });
    std::fs::write(&config, before).unwrap();
    told.unwrap();
}

#[test]
fn cert_expired_on_open_connection() {
    let stack = stack();
    let mut relay = logged_in(&stack).unwrap();
    // Over for 27 s, which the tolerance still covers for a little while.
    let ending = forged(&stack, &relay, |forge, _| forge.valid_before = now() - 27).unwrap();
    relay.present(&ending).unwrap();
    still_serves(&mut relay).unwrap();
    std::thread::sleep(Duration::from_secs(1));
    let deadline = std::time::Instant::now() + Duration::from_secs(10);
    let certificate_ends = openssh::certificate::read(&ending).unwrap().valid_before() + 30;
    while now() < certificate_ends && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(50));
    }
    // agent-exec ends such a session by itself; a request that is on its way at that moment is refused.
    let payload = relay.payload("tail_log", json!({"path": LOG, "lines": 1}));
    let before = harness::refused::intents(&stack).unwrap();
    match relay.send(&payload) {
        Ok(answer) => assert_eq!(harness::evil::code(&answer), "certificate_expired"),
        Err(_) => {
            assert!(!relay.session.is_open() || relay.session.raw_line(Duration::from_secs(5)).unwrap().is_none())
        }
    }
    assert_eq!(harness::refused::intents(&stack).unwrap(), before, "nothing may run");
}

#[test]
fn a_renewal_for_another_task_is_refused_and_the_session_goes_on() {
    let stack = stack();
    let mut relay = granted(&stack, &[]).unwrap();
    still_serves(&mut relay).unwrap();
    let id = new_id();
    let other = forged(&stack, &relay, |forge, grant| {
        forge.key_id.clone_from(&id);
        grant["task_id"] = json!(id);
    })
    .unwrap();
    assert_refused(&stack, By::Target(WEB), Leaves::Count, "wrong_task", || {
        relay.present(&other)?;
        Ok(harness::evil::code(&relay.session.line()?))
    })
    .unwrap();
    still_serves(&mut relay).unwrap();
}

/// sshd refuses all of these the same way, before agent-exec exists: its log is the evidence.
#[test]
fn sshd_lets_nobody_in_with_such_a_certificate() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let task = stack.open_task(WEB).unwrap();
    let grant = grant_of(&task.certificate).unwrap().to_string();
    let ca = stack.control.task_ca().unwrap();
    let other_ca = SigningKey::from_seed(&[9; 32].into()).unwrap();
    let table: Vec<AtLogin<'_>> = vec![
        ("cert_host_type", &ca, |forge| forge.kind = HOST),
        ("cert_wrong_ca", &other_ca, |_| {}),
        ("cert_empty_principals", &ca, |forge| forge.principals.clear()),
        ("cert_of_another_target", &ca, |forge| {
            forge.principals = vec!["web-2".to_owned()]
        }),
        ("cert_comma_principal", &ca, |forge| {
            forge.principals = vec!["x,web-1".to_owned()]
        }),
        ("action_cert_used_to_log_in", &ca, |forge| {
            forge.principals = vec!["action/web-1".to_owned()]
        }),
        ("cert_expired", &ca, |forge| {
            forge.valid_after = now() - 600;
            forge.valid_before = now() - 60;
        }),
        ("cert_not_yet_valid", &ca, |forge| {
            forge.valid_after = now() + 600;
            forge.valid_before = now() + 900;
        }),
        ("cert_unknown_critical_option", &ca, |forge| {
            forge.critical.push(("zzz@writ.internal".to_owned(), "x".to_owned()))
        }),
        ("source_from_elsewhere", &ca, |forge| {
            forge.critical[1].1 = "192.0.2.0/24".to_owned()
        }),
    ];
    let attacks = table.len();
    for (name, ca, change) in table {
        let mut forge = stack.honest_forge(WEB, &task.task_id, &grant);
        change(&mut forge);
        let certificate = forge.sign(task.key.public(), ca).unwrap();
        let before = target.records().unwrap().len();
        let output = stack
            .login(&task.key, &certificate)
            .unwrap()
            .run(target, &["-T"], &["writ.v1"], b"")
            .unwrap();
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(255), "{name}: {errors}");
        assert!(errors.contains("Permission denied (publickey)"), "{name}: {errors}");
        assert_eq!(target.records().unwrap().len(), before, "{name} reached agent-exec");
    }
    // A certificate without its key is public data.
    let thief = SigningKey::from_seed(&[5; 32].into()).unwrap();
    let output = stack
        .login(&thief, &task.certificate)
        .unwrap()
        .run(target, &["-T"], &["writ.v1"], b"")
        .unwrap();
    assert_eq!(output.status.code(), Some(255), "a stolen certificate");
    // And an honest one is still welcome.
    let output = stack
        .login(&task.key, &task.certificate)
        .unwrap()
        .run(target, &["-T"], &["writ.v1"], b"")
        .unwrap();
    assert!(
        String::from_utf8_lossy(&output.stdout).starts_with("{\"hello\":"),
        "{output:?}"
    );
    tell("certificates shown to sshd", attacks + 1);
}

#[test]
fn sshd_refuses_a_serial_that_its_revocation_list_names() {
    let stack = stack();
    let target = stack.target("web-2").unwrap();
    let task = stack.open_task("web-2").unwrap();
    let login = stack.login(&task.key, &task.certificate).unwrap();
    let hello = |what: &str| {
        let output = login.run(target, &["-T"], &["writ.v1"], b"").unwrap();
        (
            String::from_utf8_lossy(&output.stdout).starts_with("{\"hello\":"),
            format!("{what}: {output:?}"),
        )
    };
    let (welcome, output) = hello("before");
    assert!(welcome, "{output}");
    let serial = openssh::certificate::read(&task.certificate).unwrap().serial();
    let krl = target.root().at("etc/writ/krl");
    let before = std::fs::read(&krl).unwrap();
    target
        .root()
        .file("tmp/revoked", 0o644, format!("serial: {serial}\n"))
        .unwrap();
    target
        .as_root(
            "/usr/bin/ssh-keygen",
            &[
                "-q",
                "-k",
                "-f",
                "/etc/writ/krl",
                "-s",
                "/etc/writ/ca.pub",
                "/tmp/revoked",
            ],
            b"",
        )
        .unwrap();
    let (welcome, output) = hello("revoked");
    std::fs::write(&krl, before).unwrap();
    assert!(!welcome, "{output}");
    assert!(hello("after").0);
}
