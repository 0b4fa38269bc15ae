//! The text that an approver signs: a pure function of the payload, so that the target can write it again.
//!
//! Printable ASCII only. One field a line, in a fixed order, and no value can hold a line end, so no argument can look
//! like another field. Spec: docs/spec/statement.md.

use serde_json::Value;

use crate::payload::Payload;
use crate::text;

/// The first line; another version has another text.
const TITLE: &str = "Writ approval, version 1";

/// Renders what is to be approved: `on` holds a line `<target> <target_key> <request_sha256>` for each target, sorted.
#[must_use]
pub fn render(payload: &Payload, on: &[String]) -> String {
    let mut out = String::new();
    let mut line = |name: &str, value: &str| {
        out.push_str(name);
        out.push_str(": ");
        text::escape_into(&mut out, value);
        out.push('\n');
    };
    line("statement", TITLE);
    line("task", payload.task_id.as_str());
    line("person", payload.requester.person.as_str());
    line("brain", payload.requester.brain.as_str());
    line("proof", payload.requester.proof.as_str());
    line("reason", payload.reason.as_str());
    line("action", payload.action.as_str());
    let mut args: Vec<_> = payload.args.iter().collect();
    args.sort_by_key(|(name, _)| *name);
    for (name, value) in args {
        // Both halves as JSON strings or literals: the first unescaped quote ends the name, whatever it holds.
        line(
            "argument",
            &format!("{} = {}", Value::from(name.as_str()), sorted(value)),
        );
    }
    line("mode", payload.mode.as_str());
    line("expires", &format!("{} (Unix seconds)", payload.expires));
    for target in on {
        line("on", target);
    }
    out
}

/// The JSON of a value, with the keys of every object in order: a build may keep them as they were written, and the text
/// must not depend on the build.
fn sorted(value: &Value) -> String {
    match value {
        Value::Object(object) => {
            let mut fields: Vec<_> = object.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            let field = |(name, value): (&String, &Value)| format!("{}:{}", Value::from(name.as_str()), sorted(value));
            format!("{{{}}}", fields.into_iter().map(field).collect::<Vec<_>>().join(","))
        }
        Value::Array(items) => format!("[{}]", items.iter().map(sorted).collect::<Vec<_>>().join(",")),
        plain => plain.to_string(),
    }
}

/// The line of `on` for one payload: which target, which key, which bytes.
#[must_use]
pub fn on_line(payload: &Payload, bytes: &[u8]) -> String {
    format!(
        "{} {} {}",
        payload.target,
        payload.target_key,
        crate::ids::Digest::of(bytes)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::tests::example;

    /// REQ-STATEMENT-1, REQ-STATEMENT-2, REQ-STATEMENT-4
    #[test]
    fn a_statement_has_a_field_a_line() {
        let payload = example();
        let text = render(&payload, &["web-1 SHA256:x y".to_owned()]);
        assert!(text.starts_with("statement: Writ approval, version 1\ntask: 0192e4a0"));
        assert!(
            text.contains("\nargument: \"lines\" = 20\nargument: \"path\" = \"/var/log/app.log\"\nmode: run\n"),
            "{text}"
        );
        assert!(text.ends_with("\non: web-1 SHA256:x y\n"));
    }

    /// REQ-STATEMENT-3
    #[test]
    fn the_keys_of_an_argument_have_one_order() {
        let mut payload = example();
        let pinned: Value = serde_json::from_str(r#"{"sha256":"b","path":["c",{"z":1,"a":2}]}"#).unwrap();
        payload.args.insert("file".to_owned(), pinned);
        let text = render(&payload, &[]);
        assert!(
            text.contains(r#"argument: "file" = {"path":["c",{"a":2,"z":1}],"sha256":"b"}"#),
            "{text}"
        );
    }

    /// REQ-STATEMENT-6
    #[test]
    fn a_hostile_argument_cannot_look_like_a_field() {
        let mut payload = example();
        payload
            .args
            .insert("path".to_owned(), "x\non: other \u{202e}\u{1b}[2J".into());
        let text = render(&payload, &[]);
        assert!(text.is_ascii());
        assert!(!text.contains("\non: "));
        assert!(text.contains("\\\\n"), "{text}");
    }

    proptest::proptest! {
        /// REQ-STATEMENT-6
        #[test]
        fn two_payloads_never_share_a_statement(a: String, b: String, key_a: String, key_b: String) {
            let statement = |key: &str, value: &str| {
                let mut payload = example();
                payload.args.insert(key.to_owned(), value.into());
                render(&payload, &[])
            };
            let same = statement(&key_a, &a) == statement(&key_b, &b);
            proptest::prop_assert_eq!(same, (&key_a, &a) == (&key_b, &b));
        }
    }
}
