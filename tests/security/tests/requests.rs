//! Requests from a relay that was taken over: it has a live task and says what it likes.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says so by a panic; its name is its documentation"
)]

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::evil::code;
use harness::stack::{new_id, now};
use harness::{By, Changed, EvilRelay, Leaves, Stack, assert_refused};
use openssh::key::SigningKey;
use openssh::sshsig;
use security::{LOG, WEB, add_action, granted, logged_in, stack, still_serves, tell};
use serde_json::{Map, Value, json};

fn refused(stack: &Stack, leaves: Leaves, name: &str, expected: &str, attack: impl FnOnce() -> Result<Value>) {
    assert_refused(stack, By::Target(WEB), leaves, expected, || Ok(code(&attack()?)))
        .unwrap_or_else(|error| panic!("{name}: {error:?}"));
}

fn honest(relay: &EvilRelay) -> Map<String, Value> {
    relay.payload("tail_log", json!({"path": LOG, "lines": 1}))
}

type Change = fn(&mut Map<String, Value>);

/// A name, and what becomes of an honest text.
type Rewrite = (&'static str, fn(&str) -> String);

/// What is wrong with the payload: a name, the Code, and what becomes of an honest one.
fn wrong_payloads() -> Vec<(&'static str, &'static str, Change)> {
    vec![
        // REQ-PAYLOAD-6
        ("request_for_other_target", "wrong_target", |p| {
            p["target"] = json!("web-2")
        }),
        ("request_for_other_target_key", "wrong_target", |p| {
            p["target_key"] = json!(format!("SHA256:{}", "A".repeat(43)))
        }),
        // REQ-PAYLOAD-7
        ("request_of_other_task", "wrong_task", |p| {
            p["task_id"] = json!(new_id())
        }),
        // REQ-PAYLOAD-8
        ("request_for_other_person", "requester_mismatch", |p| {
            p["requester"]["person"] = json!("bob")
        }),
        ("request_of_other_brain", "requester_mismatch", |p| {
            p["requester"]["brain"] = json!("another")
        }),
        ("request_with_better_proof", "requester_mismatch", |p| {
            p["requester"]["proof"] = json!("signature")
        }),
        // REQ-PAYLOAD-10
        ("request_expired", "request_expired", |p| {
            p["expires"] = json!(now() - 31)
        }),
        ("request_expires_too_far", "expires_too_far", |p| {
            p["expires"] = json!(now() + 120)
        }),
        // REQ-PAYLOAD-11
        ("request_for_unknown_action", "unknown_action", |p| {
            p["action"] = json!("rm_rf")
        }),
        // REQ-PAYLOAD-14
        ("request_dry_run_of_a_read", "mode_unsupported", |p| {
            p["mode"] = json!("dry_run")
        }),
        // REQ-PAYLOAD-4, REQ-JSON-10
        ("version_unsupported", "version_unsupported", |p| p["v"] = json!(2)),
        // REQ-JSON-4
        ("json_unknown_field", "payload_malformed", |p| {
            p.insert("sudo".to_owned(), json!(true));
        }),
        ("json_missing_field", "payload_malformed", |p| {
            p.remove("reason");
        }),
        // REQ-JSON-6
        ("json_null", "payload_malformed", |p| p["reason"] = Value::Null),
        // REQ-JSON-5
        ("json_float", "payload_malformed", |p| p["args"]["lines"] = json!(1.5)),
        ("json_big_int", "payload_malformed", |p| {
            p["args"]["lines"] = json!(9_007_199_254_740_992_u64)
        }),
        // REQ-JSON-8
        ("json_deep", "payload_malformed", |p| {
            p["args"]["path"] = json!([[[[[[[[1]]]]]]]])
        }),
        // REQ-JSON-7
        ("json_nul", "payload_malformed", |p| {
            p["args"]["path"] = json!("/var/log/shop/web.log\0.txt")
        }),
        ("reason_with_a_newline", "payload_malformed", |p| {
            p["reason"] = json!("a\nb")
        }),
    ]
}

/// What is wrong with its arguments.
fn wrong_arguments() -> Vec<(&'static str, &'static str, Change)> {
    vec![
        // REQ-PAYLOAD-16, REQ-MANIFEST-4
        ("args_unknown", "arguments_invalid", |p| {
            p["args"]["follow"] = json!(true)
        }),
        ("args_missing", "arguments_invalid", |p| p["args"] = json!({"lines": 1})),
        ("args_wrong_type", "arguments_invalid", |p| {
            p["args"]["lines"] = json!("1")
        }),
        ("args_over_the_maximum", "arguments_invalid", |p| {
            p["args"]["lines"] = json!(5001)
        }),
        ("args_under_the_minimum", "arguments_invalid", |p| {
            p["args"]["lines"] = json!(0)
        }),
        ("args_path_too_long", "arguments_invalid", |p| {
            p["args"]["path"] = json!(format!("/var/log/{}", "a".repeat(4096)))
        }),
        ("args_path_as_list", "arguments_invalid", |p| {
            p["args"]["path"] = json!([LOG])
        }),
        // REQ-PAYLOAD-17, REQ-MANIFEST-20
        ("path_outside", "path_refused", |p| {
            p["args"]["path"] = json!("/etc/shadow")
        }),
        // REQ-MANIFEST-19
        ("path_dotdot", "path_refused", |p| {
            p["args"]["path"] = json!("/var/log/../../etc/shadow")
        }),
        // REQ-MANIFEST-21
        ("path_symlink_final", "path_refused", |p| {
            p["args"]["path"] = json!("/var/log/shop/link.log")
        }),
        ("path_of_another_account", "path_refused", |p| {
            p["args"]["path"] = json!("/var/log/shop/private.log")
        }),
        ("path_own_evidence", "path_refused", |p| {
            p["args"]["path"] = json!("/var/log/writ/00000000000000000001.jsonl")
        }),
        // REQ-MANIFEST-23
        ("path_missing", "path_not_found", |p| {
            p["args"]["path"] = json!("/var/log/shop/none.log")
        }),
    ]
}

/// Texts that no JSON writer would write.
fn wrong_texts() -> Vec<Rewrite> {
    vec![
        // REQ-JSON-3
        ("json_dup_key", |text| text.replacen('{', "{\"mode\":\"run\",", 1)),
        ("json_dup_key_deep", |text| {
            text.replace("\"lines\":1", "\"lines\":1,\"lines\":2")
        }),
        // REQ-JSON-2
        ("json_trailing", |text| format!("{text}{{}}")),
        // REQ-JSON-5
        ("json_minus_zero", |text| text.replace("\"lines\":1", "\"lines\":-0")),
        ("json_whole_float", |text| text.replace("\"lines\":1", "\"lines\":1.0")),
        ("json_exponent", |text| text.replace("\"lines\":1", "\"lines\":1e0")),
        // REQ-JSON-9
        ("json_array_of_fields", |text| {
            let whole: Map<String, Value> = serde_json::from_str(text).unwrap();
            Value::from_iter(whole.values().cloned()).to_string()
        }),
        ("json_requester_as_array", |text| {
            let mut whole: Value = serde_json::from_str(text).unwrap();
            whole["requester"] = json!(["harness", "alice", "relay"]);
            whole.to_string()
        }),
        ("json_not", |_| "tail -n 1 /etc/shadow".to_owned()),
        ("json_empty", |_| String::new()),
    ]
}

#[test]
fn requests_that_are_signed_and_wrong_are_refused_and_recorded() {
    let stack = stack();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    still_serves(&mut relay).unwrap();
    let (payloads, arguments, texts) = (wrong_payloads(), wrong_arguments(), wrong_texts());
    let attacks = payloads.len() + arguments.len() + texts.len();
    for (name, expected, change) in payloads.into_iter().chain(arguments) {
        let mut payload = honest(&relay);
        change(&mut payload);
        refused(&stack, Leaves::Record, name, expected, || relay.send(&payload));
    }
    for (name, change) in &texts {
        let text = change(&serde_json::to_string(&honest(&relay)).unwrap());
        refused(&stack, Leaves::Record, name, "payload_malformed", || {
            relay.send_text(&text)
        });
    }
    still_serves(&mut relay).unwrap();
    tell("signed requests", attacks);
}

/// A name, the Code, and the line.
type Lines = Vec<(&'static str, &'static str, String)>;

fn line(payload: &str, sig: &str) -> String {
    json!({"payload": payload, "sig": sig}).to_string()
}

/// An honest text under signatures that are not the session's key's own for it.
fn wrong_signatures(relay: &EvilRelay, text: &str) -> Lines {
    let other = SigningKey::from_seed(&[3; 32].into()).unwrap();
    let sig = sshsig::sign(&relay.task.key, sshsig::REQUEST, text.as_bytes()).unwrap();
    let signed = |key: &SigningKey, namespace: &str| EvilRelay::line(text, key, namespace).unwrap();
    let blob = STANDARD.decode(&sig).unwrap();
    let mut flipped = blob.clone();
    *flipped.last_mut().unwrap() ^= 1;
    let with = |bytes: &[&[u8]]| line(text, &STANDARD.encode(bytes.concat()));
    let pem = format!("-----BEGIN SSH SIGNATURE-----\n{sig}\n-----END SSH SIGNATURE-----\n");
    vec![
        // REQ-SIG-5
        (
            "request_wrong_key",
            "signature_invalid",
            signed(&other, sshsig::REQUEST),
        ),
        // REQ-SIG-4
        (
            "sig_wrong_namespace outcome",
            "signature_invalid",
            signed(&relay.task.key, sshsig::OUTCOME),
        ),
        (
            "sig_wrong_namespace file",
            "signature_invalid",
            signed(&relay.task.key, "file"),
        ),
        (
            "sig_over_other_bytes",
            "signature_invalid",
            line(&format!("{text} "), &sig),
        ),
        ("sig_empty", "signature_invalid", line(text, "")),
        // REQ-SIG-2, REQ-SIG-3
        ("sig_prefix_garbage", "signature_invalid", with(&[b"x", &blob])),
        ("sig_trailing_text", "signature_invalid", with(&[&blob, b"x"])),
        ("sig_armoured", "signature_invalid", line(text, &pem)),
        ("sig_bit_flipped", "signature_invalid", with(&[&flipped])),
        // REQ-SIG-6
        (
            "sig_sha1_rsa",
            "signature_invalid",
            line(text, &STANDARD.encode(foreign("ssh-rsa", "ssh-rsa", 256))),
        ),
        (
            "sig_rsa_sha512",
            "signature_invalid",
            line(text, &STANDARD.encode(foreign("ssh-rsa", "rsa-sha2-512", 256))),
        ),
        ("sig_sk_without_touch", "signature_invalid", {
            line(
                text,
                &STANDARD.encode(foreign("sk-ssh-ed25519@openssh.com", "sk-ssh-ed25519@openssh.com", 64)),
            )
        }),
    ]
}

/// Lines that have not one meaning, or none that is served yet.
fn wrong_lines(relay: &EvilRelay, text: &str) -> Lines {
    let sig = sshsig::sign(&relay.task.key, sshsig::REQUEST, text.as_bytes()).unwrap();
    vec![
        // REQ-SESSION-1
        (
            "request_unsigned",
            "line_malformed",
            json!({"payload": text}).to_string(),
        ),
        (
            "line_unknown_key",
            "line_malformed",
            json!({"payload": text, "sig": sig, "shell": "id"}).to_string(),
        ),
        (
            "line_dup_key",
            "line_malformed",
            line(text, &sig).replacen('{', "{\"sig\":\"\",", 1),
        ),
        (
            "line_two_meanings",
            "line_malformed",
            json!({"payload": text, "sig": sig, "certificate": "x"}).to_string(),
        ),
        ("line_array", "line_malformed", json!([text, sig]).to_string()),
        ("line_trailing", "line_malformed", format!("{} x", line(text, &sig))),
        ("line_empty", "line_malformed", String::new()),
        ("line_shell", "line_malformed", "id; touch /tmp/canary".to_owned()),
        ("line_approvals_too_many", "line_malformed", {
            json!({"payload": text, "sig": sig, "approval": {"on": ["a"], "sigs": vec![""; 9]}}).to_string()
        }),
        (
            "krl_not_served_yet",
            "line_unsupported",
            json!({"krl": "AAAA", "sig": sig}).to_string(),
        ),
        (
            "outcome_of_no_request",
            "unknown_request",
            json!({"outcome": new_id()}).to_string(),
        ),
    ]
}

/// REQ-SESSION-12, REQ-PAYLOAD-1, REQ-PAYLOAD-3
#[test]
fn requests_that_prove_nothing_are_refused_and_counted() {
    let stack = stack();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    still_serves(&mut relay).unwrap();
    let text = serde_json::to_string(&honest(&relay)).unwrap();
    let mut table = wrong_signatures(&relay, &text);
    table.extend(wrong_lines(&relay, &text));
    let attacks = table.len();
    for (name, expected, attack) in table {
        refused(&stack, Leaves::Count, name, expected, || relay.ask(&attack));
    }
    // Bytes that are not UTF-8, and then the same session goes on.
    refused(&stack, Leaves::Count, "json_bad_utf8", "line_malformed", || {
        relay.session.send(b"{\"payload\":\"\xff\",\"sig\":\"\"}")?;
        relay.session.line()
    });
    still_serves(&mut relay).unwrap();
    // A line that does not end within its limit ends the session: nothing says where the next one begins.
    refused(&stack, Leaves::Count, "line_too_long", "line_malformed", || {
        relay.session.send(vec![b'x'; 300 * 1024])?;
        relay.session.line()
    });
    assert_eq!(
        relay.session.raw_line(std::time::Duration::from_secs(10)).unwrap(),
        None,
        "the session goes on"
    );
    // Before any certificate nothing is believed, however well it is signed.
    let mut relay = logged_in(&stack).unwrap();
    let payload = honest(&relay);
    refused(
        &stack,
        Leaves::Count,
        "request_before_certificate",
        "certificate_missing",
        || relay.send(&payload),
    );
    tell("requests that prove nothing", attacks + 3);
}

/// An SSHSIG blob of a key type that no machine uses here, with a made-up signature.
fn foreign(key_type: &str, algorithm: &str, size: usize) -> Vec<u8> {
    let put = |parts: &[&[u8]]| -> Vec<u8> {
        parts
            .iter()
            .flat_map(|part| {
                u32::try_from(part.len())
                    .unwrap()
                    .to_be_bytes()
                    .into_iter()
                    .chain(part.to_vec())
            })
            .collect()
    };
    let key = match key_type {
        "ssh-rsa" => put(&[key_type.as_bytes(), &[1, 0, 1], &[&[0][..], &[0x9b; 256]].concat()]),
        _ => put(&[key_type.as_bytes(), &[7; 32], b"ssh:"]),
    };
    let mut signature = put(&[algorithm.as_bytes(), &vec![1; size]]);
    if key_type.starts_with("sk-") {
        // No flag is set: nobody touched the device.
        signature.extend([0, 0, 0, 0, 1]);
    }
    let version = 1_u32.to_be_bytes();
    [
        &b"SSHSIG"[..],
        &version,
        &put(&[&key, sshsig::REQUEST.as_bytes(), b"", b"sha512", &signature]),
    ]
    .concat()
}

/// REQ-PAYLOAD-13
#[test]
fn grant_action_not_listed() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let _action = add_action(target, "show_words", &words("show_words", "read")).unwrap();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    let payload = relay.payload("show_words", json!({"word": "x"}));
    let name = "grant_action_not_listed";
    refused(&stack, Leaves::Record, name, "action_not_granted", || {
        relay.send(&payload)
    });
}

/// REQ-PAYLOAD-12
#[test]
fn task_cert_for_change() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    for risk in ["change", "destroy"] {
        let name = format!("{risk}_something");
        let _action = add_action(target, &name, &words(&name, risk)).unwrap();
        // Whatever its grant lists.
        let mut relay = granted(&stack, &[&name]).unwrap();
        for mode in ["run", "dry_run"] {
            let mut payload = relay.payload(&name, json!({"word": "x"}));
            payload["mode"] = json!(mode);
            refused(&stack, Leaves::Record, &name, "action_certificate_missing", || {
                relay.send(&payload)
            });
        }
    }
}

/// REQ-PAYLOAD-9
#[test]
fn halted() {
    let stack = stack();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    still_serves(&mut relay).unwrap();
    let halt = Changed::write(stack.target(WEB).unwrap().root(), "etc/writ/halt", "").unwrap();
    let mut refused_while = |name: &str| {
        let payload = honest(&relay);
        refused(&stack, Leaves::Record, name, "halted", || relay.send(&payload));
    };
    refused_while("halted");
    // A link to nowhere is a halt file too: anything but a clear "not there" is.
    std::fs::remove_file(halt.path()).unwrap();
    std::os::unix::fs::symlink("/nowhere", halt.path()).unwrap();
    refused_while("halted by a link");
    drop(halt);
    still_serves(&mut relay).unwrap();
}

/// REQ-CERT-15, REQ-PAYLOAD-5
#[test]
fn a_ca_that_is_trusted_no_more_ends_what_its_certificates_may_do() {
    let stack = stack();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    still_serves(&mut relay).unwrap();
    let other = SigningKey::from_seed(&[9; 32].into()).unwrap();
    let root = stack.target(WEB).unwrap().root();
    let trusted = Changed::write(root, "etc/writ/ca.pub", other.public().to_openssh()).unwrap();
    let payload = honest(&relay);
    refused(&stack, Leaves::Record, "another CA", "certificate_untrusted", || {
        relay.send(&payload)
    });
    drop(trusted);
    still_serves(&mut relay).unwrap();
}

/// REQ-PAYLOAD-20
#[test]
fn a_read_may_be_repeated_until_it_expires() {
    let stack = stack();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    let payload = honest(&relay);
    for _ in 0..2 {
        assert_eq!(code(&relay.send(&payload).unwrap()), "none");
    }
}

fn words(name: &str, risk: &str) -> String {
    let approvals = if risk == "destroy" {
        "approvals = 1\napproval_window_s = 600\n"
    } else {
        ""
    };
    format!(
        "name = \"{name}\"\ntitle = \"Words\"\ndescription = \"Shows a word.\"\nrisk = \"{risk}\"\ntimeout_ms = 1000\n{approvals}\
         [args]\nrequired = [\"word\"]\nproperties.word = {{ type = \"string\", maxLength = 100 }}\n\
         [exec]\nprogram = \"/usr/bin/echo\"\nargv = [\"{{word}}\"]\n[sandbox]\nprofile = \"reader\"\n"
    )
}
