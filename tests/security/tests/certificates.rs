//! Certificates and grants that the CA would never sign, shown to agent-exec by somebody who has the CA's key; and
//! certificates with which sshd must not let anybody in.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says so by a panic; its name is its documentation"
)]

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::forge::{Forge, GRANT, HOST};
use harness::stack::{new_id, now};
use harness::{By, Changed, EvilRelay, Leaves, Stack, assert_refused};
use openssh::key::SigningKey;
use openssh::sshsig;
use security::{LOG, WEB, forged, grant_of, granted, logged_in, stack, still_serves, tell};
use serde_json::{Value, json};

type Change = fn(&mut Forge, &mut Value);

/// A name, the CA that signs, and what becomes of an honest certificate before it does.
type AtLogin<'a> = (&'a str, &'a SigningKey, fn(&mut Forge));

/// Presents a certificate in-band and asserts its refusal; then shows that the session has gained nothing by it.
fn refused_in_band(stack: &Stack, name: &str, code: &str, certificate: impl FnOnce(&EvilRelay) -> Result<String>) {
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

/// What is wrong with the certificate itself.
fn wrong_certificates() -> Vec<(&'static str, &'static str, Change)> {
    vec![
        // REQ-CERT-3
        ("cert_host_type", "certificate_type", |forge, _| forge.kind = HOST),
        // REQ-CERT-4
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
        ("action_cert_as_task_cert", "certificate_missing", |forge, _| {
            forge.principals = vec!["action/web-1".to_owned()];
        }),
        // REQ-CERT-5
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
        // REQ-CERT-6
        ("cert_not_yet_valid", "certificate_not_yet_valid", |forge, _| {
            forge.valid_after = now() + 120;
            forge.valid_before = now() + 240;
        }),
        // REQ-CERT-7
        ("cert_expired", "certificate_expired", |forge, _| {
            forge.valid_after = now() - 300;
            forge.valid_before = now() - 31;
        }),
        // REQ-CERT-9
        ("cert_no_grant", "grant_missing", |forge, _| forge.extensions.clear()),
        // REQ-CERT-1
        ("cert_two_grants", "certificate_malformed", |forge, grant| {
            forge.extensions = vec![
                (GRANT.to_owned(), grant.to_string()),
                (GRANT.to_owned(), grant.to_string()),
            ];
        }),
        ("cert_unsorted_extensions", "certificate_malformed", |forge, _| {
            forge.extensions.push(("a@writ.internal".to_owned(), "x".to_owned()));
        }),
        // REQ-CERT-10
        ("cert_permit_pty", "certificate_options", |forge, _| {
            forge.extensions.push(("permit-pty".to_owned(), String::new()));
        }),
        // REQ-CERT-1
        ("cert_unsorted_options", "certificate_malformed", |forge, _| {
            forge.critical.reverse()
        }),
        // REQ-CERT-8
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
    ]
}

/// What is wrong with the grant in it.
fn wrong_grants() -> Vec<(&'static str, &'static str, Change)> {
    vec![
        // REQ-CERT-12
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
        // REQ-GRANT-1
        ("grant_over_4k", "grant_malformed", |_, grant| {
            let names: Vec<String> = (0..100)
                .map(|n| format!("an_action_with_a_rather_long_name_number_{n:03}"))
                .collect();
            grant["actions"] = json!(names);
        }),
        // REQ-CERT-11
        ("grant_other_version", "version_unsupported", |_, grant| {
            grant["v"] = json!(2)
        }),
        // REQ-GRANT-1
        ("grant_unknown_field", "grant_malformed", |_, grant| {
            grant["root"] = json!(true)
        }),
        ("grant_no_actions", "grant_malformed", |_, grant| {
            grant["actions"] = json!([])
        }),
        // REQ-GRANT-3
        ("grant_unsorted_actions", "grant_malformed", |_, grant| {
            grant["actions"] = json!(["tail_log", "read_file"])
        }),
        ("grant_doubled_action", "grant_malformed", |_, grant| {
            grant["actions"] = json!(["tail_log", "tail_log"])
        }),
        // REQ-GRANT-2
        ("grant_kind_action_without_its_pins", "grant_malformed", |_, grant| {
            grant["kind"] = json!("action")
        }),
        // REQ-CERT-12
        ("grant_kind_action", "grant_mismatch", |_, grant| {
            grant["kind"] = json!("action");
            grant["actions"] = json!(["tail_log"]);
            grant["request_sha256"] = json!("0".repeat(64));
            grant["manifest"] = json!("0".repeat(64));
            grant["approvals"] = json!(0);
            grant["krl"] = json!(0);
        }),
        // REQ-JSON-3
        ("grant_doubled_key", "grant_malformed", |forge, grant| {
            let text = grant.to_string().replacen('{', "{\"v\":1,", 1);
            forge.extensions = vec![(GRANT.to_owned(), text)];
        }),
        // REQ-JSON-9
        ("grant_as_array", "grant_malformed", |forge, grant| {
            let fields: Vec<&Value> = grant.as_object().unwrap().values().collect();
            forge.extensions = vec![(GRANT.to_owned(), json!(fields).to_string())];
        }),
    ]
}

/// REQ-SESSION-8: after each, the honest certificate is as welcome as before.
#[test]
fn certificates_that_the_ca_would_never_sign_are_refused_in_band() {
    let stack = stack();
    let (certificates, grants) = (wrong_certificates(), wrong_grants());
    let attacks = certificates.len() + grants.len();
    for (name, code, change) in certificates.into_iter().chain(grants) {
        refused_in_band(&stack, name, code, |relay| forged(&stack, relay, change));
    }
    tell("certificates and grants, signed by the CA's key", attacks);
}

/// REQ-CERT-1, REQ-CERT-2, REQ-CERT-13
#[test]
fn certificates_that_somebody_else_signed_or_spelt_are_refused_in_band() {
    let stack = stack();
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
    let spelt = [
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
    ];
    for (name, change) in spelt {
        refused_in_band(&stack, name, "certificate_malformed", |relay| {
            Ok(change(&relay.task.certificate))
        });
    }
    tell("certificates of others", spelt.len() + 4);
}

/// REQ-CERT-5
#[test]
fn the_targets_own_ceiling_is_below_what_a_ca_may_sign() {
    let stack = stack();
    let config = Changed::keep(stack.target(WEB).unwrap().root(), "etc/writ/target.toml").unwrap();
    let lower = config
        .before()
        .replace("task_max_lifetime_s = 900", "task_max_lifetime_s = 60");
    assert_ne!(lower, config.before());
    config.set(lower).unwrap();
    let mut relay = logged_in(&stack).unwrap();
    assert_refused(&stack, By::Target(WEB), Leaves::Count, "certificate_lifetime", || {
        relay.present_own()?;
        Ok(harness::evil::code(&relay.session.line()?))
    })
    .unwrap();
}

/// A request that is on its way when the certificate ends is refused; a session that is idle then is ended.
///
/// REQ-CERT-15, REQ-PAYLOAD-5, REQ-SESSION-10, REQ-SESSION-11
#[test]
fn cert_expired_on_open_connection() {
    let stack = stack();
    let (mut busy, mut idle) = (logged_in(&stack).unwrap(), logged_in(&stack).unwrap());
    // Over for 27 s, which the tolerance still covers for a little while.
    let mut ends = 0;
    for relay in [&mut busy, &mut idle] {
        let ending = forged(&stack, relay, |forge, _| forge.valid_before = now() - 27).unwrap();
        relay.present(&ending).unwrap();
        still_serves(relay).unwrap();
        ends = openssh::certificate::read(&ending).unwrap().valid_before() + 30;
    }
    let payload = busy.payload("tail_log", json!({"path": LOG, "lines": 1}));
    let line = EvilRelay::line(&Value::from(payload).to_string(), &busy.task.key, sshsig::REQUEST).unwrap();
    let (begin, end) = line.split_at(line.len() / 2);
    busy.session.send_raw(begin).unwrap();
    assert!(now() < ends, "the request began too late");
    std::thread::sleep(Duration::from_millis((ends - now()) * 1000 + 500));
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "certificate_expired", || {
        busy.session.send(end)?;
        Ok(harness::evil::code(&busy.session.line()?))
    })
    .unwrap();
    assert_refused(&stack, By::Target(WEB), Leaves::Nothing, "the session is over", || {
        let _ = idle.session.send(&line);
        let said = idle.session.raw_line(Duration::from_secs(5))?;
        ensure!(said.is_none(), "{said:?}");
        Ok("the session is over".to_owned())
    })
    .unwrap();
}

/// REQ-CERT-14, REQ-SESSION-8
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

/// A name, the CA that signs, and what is wrong.
fn at_login<'a>(ca: &'a SigningKey, other_ca: &'a SigningKey) -> Vec<AtLogin<'a>> {
    vec![
        ("cert_host_type", ca, |forge| forge.kind = HOST),
        ("cert_wrong_ca", other_ca, |_| {}),
        ("cert_empty_principals", ca, |forge| forge.principals.clear()),
        ("cert_of_another_target", ca, |forge| {
            forge.principals = vec!["web-2".to_owned()]
        }),
        ("cert_comma_principal", ca, |forge| {
            forge.principals = vec!["x,web-1".to_owned()]
        }),
        ("action_cert_used_to_log_in", ca, |forge| {
            forge.principals = vec!["action/web-1".to_owned()]
        }),
        ("cert_expired", ca, |forge| {
            forge.valid_after = now() - 600;
            forge.valid_before = now() - 60;
        }),
        ("cert_not_yet_valid", ca, |forge| {
            forge.valid_after = now() + 600;
            forge.valid_before = now() + 900;
        }),
        ("cert_unknown_critical_option", ca, |forge| {
            forge.critical.push(("zzz@writ.internal".to_owned(), "x".to_owned()))
        }),
        ("source_from_elsewhere", ca, |forge| {
            forge.critical[1].1 = "192.0.2.0/24".to_owned()
        }),
    ]
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
    let denied = "Permission denied (publickey)";
    let not_let_in = |name: &str, key: &SigningKey, certificate: &str| {
        assert_refused(&stack, By::Target(WEB), Leaves::Nothing, denied, || {
            let login = stack.login(key, certificate)?;
            let output = login.run(target, &["-T"], &["writ.v1"], b"")?;
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            ensure!(
                output.status.code() == Some(255) && errors.contains(denied) && output.stdout.is_empty(),
                "{output:?}"
            );
            Ok(denied.to_owned())
        })
        .unwrap_or_else(|error| panic!("{name}: {error:?}"));
    };
    let table = at_login(&ca, &other_ca);
    let attacks = table.len() + 1;
    for (name, ca, change) in table {
        let mut forge = stack.honest_forge(WEB, &task.task_id, &grant);
        change(&mut forge);
        not_let_in(name, &task.key, &forge.sign(task.key.public(), ca).unwrap());
    }
    // A certificate without its key is public data.
    let thief = SigningKey::from_seed(&[5; 32].into()).unwrap();
    not_let_in("a stolen certificate", &thief, &task.certificate);
    // And an honest one is still welcome.
    let login = stack.login(&task.key, &task.certificate).unwrap();
    let output = login.run(target, &["-T"], &["writ.v1"], b"").unwrap();
    assert!(output.stdout.starts_with(b"{\"hello\":"), "{output:?}");
    tell("certificates shown to sshd", attacks);
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
    let krl = Changed::keep(target.root(), "etc/writ/krl").unwrap();
    let list = format!("serial: {serial}\n");
    let list = Changed::write(target.root(), "tmp/revoked", list).unwrap();
    let of = "/etc/writ/ca.pub";
    let arguments = ["-q", "-k", "-f", "/etc/writ/krl", "-s", of, "/tmp/revoked"];
    target.as_root("/usr/bin/ssh-keygen", &arguments, b"").unwrap();
    drop(list);
    let (welcome, output) = hello("revoked");
    assert!(!welcome, "{output}");
    drop(krl);
    assert!(hello("after").0);
}
