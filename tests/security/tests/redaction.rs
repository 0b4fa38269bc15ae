//! Secrets in what an action shows and in how it was called: gone at the target, whatever the relay asks for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where; its name is its documentation"
)]

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::evil::{code, outcome};
use harness::{EvilRelay, Stack};
use security::maze::{sha256, shown};
use security::{WEB, add_action, granted, stack};
use serde_json::{Value, json};

/// Where the secrets lie.
const FILE: &str = "/var/log/shop/secrets.log";
/// Stands in every secret of the tests and nowhere else.
const SECRET: &str = "hunter2Hunter2";

fn lay(stack: &Stack, text: &str) {
    stack.target(WEB).unwrap().root().file(FILE, 0o644, text).unwrap();
}

/// The text of an answer, decoded where it is base64.
fn text(answer: &Value) -> String {
    assert_eq!(code(answer), "none", "{answer}");
    match outcome(answer).unwrap()["output"]["encoding"].as_str() {
        Some("base64") => String::from_utf8(STANDARD.decode(shown(answer)).unwrap()).unwrap(),
        _ => shown(answer).to_owned(),
    }
}

fn range(relay: &mut EvilRelay, offset: usize, limit: usize, encoding: Option<&str>) -> Value {
    let mut args = json!({"path": FILE, "offset": offset, "limit": limit});
    if let Some(encoding) = encoding {
        args["encoding"] = encoding.into();
    }
    relay.call("read_file", args).unwrap()
}

/// REQ-REDACT-1, REQ-REDACT-3, REQ-REDACT-5
#[test]
fn redaction_base64_no_bypass() {
    let stack = stack();
    let line = format!("2026 login password={SECRET} from=db-1\n");
    lay(&stack, &line);
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    let answers = [
        relay.call("tail_log", json!({"path": FILE, "lines": 1})).unwrap(),
        range(&mut relay, 0, 1000, None),
        range(&mut relay, 0, 1000, Some("text")),
        range(&mut relay, 0, 1000, Some("base64")),
    ];
    for answer in &answers {
        assert_eq!(text(answer), "2026 login password=[redacted:password] from=db-1\n");
        let output = &outcome(answer).unwrap()["output"];
        assert_eq!(output["redactions"], 1, "{answer}");
        // Both hashes: of what the program wrote, and of what was sent.
        assert_eq!(output["sha256"], sha256(&line), "{answer}");
        assert_eq!(output["sent_sha256"], sha256(shown(answer)), "{answer}");
    }
    let records = std::fs::read_dir(stack.target(WEB).unwrap().root().at("var/log/writ")).unwrap();
    for file in records {
        assert!(!std::fs::read_to_string(file.unwrap().path()).unwrap().contains(SECRET));
    }
}

/// REQ-REDACT-7, REQ-REDACT-8: whoever asks for a file bit by bit gets no bit of a secret.
#[test]
fn redaction_ranges_no_bypass() {
    let stack = stack();
    let before = "a line of no interest\n".repeat(250);
    let secret = format!("token={SECRET}0123456789abcdef{SECRET}");
    let whole = format!("{before}{secret}\nthe end\n");
    lay(&stack, &whole);
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    let value = before.len() + "token=".len();
    let mut asked = 0;
    for width in [1, 2, 5, 13] {
        let mut pieces = String::new();
        for offset in (before.len()..whole.len()).step_by(width) {
            let answer = range(&mut relay, offset, width, None);
            let piece = text(&answer);
            let inside = offset.max(value)..(offset + width).min(before.len() + secret.len());
            if !inside.is_empty() {
                assert!(piece.contains("[redacted:"), "{width} from {offset}: {answer}");
                // Of the bytes of the value none is left: what is beside the mark stood beside the value.
                let rest: String = piece.replace("[redacted:token]", "");
                assert_eq!(
                    rest.len(),
                    (offset + width).min(whole.len()) - offset - inside.len(),
                    "{offset}: {answer}"
                );
            }
            pieces.push_str(&piece.replace("[redacted:token]", ""));
            asked += 1;
        }
        assert_eq!(pieces, "token=\nthe end\n", "{width}");
    }
    println!("redaction_ranges_no_bypass: {asked} attacks, {asked} refused");
}

/// A secret behind a range's end, and a private key whose first line lies before it.
#[test]
fn what_a_range_cuts_off_is_known_by_what_stands_around_it() {
    let stack = stack();
    let token = format!("ghp_{}", "aB3".repeat(12));
    lay(&stack, &format!("login with {token} today\n"));
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    // Ten bytes of forty: by itself too short to be one.
    let answer = range(&mut relay, 0, 21, None);
    assert!(!text(&answer).contains("ghp_aB3"), "{answer}");
    let body = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQC7VJTUt9Us8cKj\n".repeat(40);
    let key = format!("-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n");
    lay(&stack, &format!("{key}after\n"));
    for offset in [28, 100, 1000, 2500] {
        let answer = range(&mut relay, offset, 64, None);
        assert_eq!(text(&answer), "[redacted:private-key]", "{offset}: {answer}");
    }
    let answer = range(&mut relay, key.len(), 64, None);
    assert_eq!(
        (
            text(&answer).as_str(),
            &outcome(&answer).unwrap()["output"]["redactions"]
        ),
        ("after\n", &json!(0))
    );
}

/// REQ-REDACT-1: what was run is recorded, and no secret with it.
#[test]
fn secrets_in_arguments_are_not_in_the_record() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let manifest = "name = \"call_api\"\ntitle = \"Call\"\ndescription = \"Calls.\"\nrisk = \"read\"\ntimeout_ms = 3000\n\
         [args]\nrequired = [\"header\"]\nproperties.header = { type = \"string\", maxLength = 200 }\n\
         [exec]\nprogram = \"/usr/bin/echo\"\nargv = [\"{header}\"]\n[sandbox]\nprofile = \"reader\"\n";
    let _action = add_action(target, "call_api", manifest).unwrap();
    let mut relay = granted(&stack, &["call_api"]).unwrap();
    let args = json!({"header": format!("Authorization: Bearer {SECRET}")});
    let answer = relay.call("call_api", args).unwrap();
    assert_eq!(text(&answer), "Authorization: Bearer [redacted:authorization]\n");
    let records = target.records().unwrap();
    let argv = &records.iter().rfind(|record| record["event"] == "intent").unwrap()["argv"];
    assert_eq!(
        argv,
        &json!(["/usr/bin/echo", "Authorization: Bearer [redacted:authorization]"])
    );
    assert!(!json!(records).to_string().contains(SECRET));
}
