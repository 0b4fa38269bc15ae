//! The text that an approver signs: a pure function of the payload, so that the target can write it again.
//!
//! Printable ASCII only. One field a line, in a fixed order, and no value can hold a line end, so no argument can look
//! like another field; nor can one be pushed to where a terminal breaks its line, by blanks that nobody counts.
//! Spec: docs/spec/statement.md.

use serde_json::Value;

use crate::ids::{Digest, Fingerprint, TargetName};
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
        escape_into(&mut out, value);
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

/// A value, escaped; so is a blank that begins it or follows another.
fn escape_into(out: &mut String, value: &str) {
    let mut before = ' ';
    for c in value.chars() {
        match c {
            ' ' if before == ' ' => text::escape_char_into(out, c),
            _ => text::escape_into(out, c.encode_utf8(&mut [0; 4])),
        }
        before = c;
    }
}

/// The line of `on` for one payload: which target, which key, which bytes.
#[must_use]
pub fn on_line(payload: &Payload, bytes: &[u8]) -> String {
    on_line_of(payload, &Digest::of(bytes))
}

/// The same where the digest of the bytes is known.
#[must_use]
pub fn on_line_of(payload: &Payload, sha256: &Digest) -> String {
    format!("{} {} {sha256}", payload.target, payload.target_key)
}

/// The target and the target's key of an `on` line; `None` where it is not of that shape.
#[must_use]
pub fn read_on_line(line: &str) -> Option<(TargetName, Fingerprint)> {
    let mut fields = line.split(' ');
    let (target, key, sha256) = (fields.next()?, fields.next()?, fields.next()?);
    sha256.parse::<Digest>().ok()?;
    let read = (target.parse().ok()?, key.parse().ok()?);
    fields.next().is_none().then_some(read)
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

    /// The escapes undone; `None` where the text is not one that [`render`] writes.
    fn unescaped(text: &str) -> Option<String> {
        let mut out = String::new();
        let mut rest = text;
        while let Some(c) = rest.chars().next() {
            if let Some(after) = rest.strip_prefix("\\u{") {
                let (number, after) = after.split_once('}')?;
                out.push(char::from_u32(u32::from_str_radix(number, 16).ok()?)?);
                rest = after;
            } else if let Some(after) = rest.strip_prefix("\\\\") {
                out.push('\\');
                rest = after;
            } else {
                out.push(c);
                rest = &rest[c.len_utf8()..];
            }
        }
        Some(out)
    }

    /// What a careful reader takes from a Statement: each field's name and its value.
    fn read(text: &str) -> Option<Vec<(String, String)>> {
        let field = |line: &str| {
            let (name, value) = line.split_once(": ")?;
            Some((name.to_owned(), unescaped(value)?))
        };
        text.strip_suffix('\n')?.split('\n').map(field).collect()
    }

    /// Text as an attacker writes it: line ends, escapes, marks of direction, blanks, names of fields.
    fn hostile() -> impl proptest::strategy::Strategy<Value = String> {
        let piece = proptest::sample::select(vec![
            "\n",
            "\r\n",
            "\u{1b}[2J",
            "\u{202e}",
            "\u{2066}",
            "\u{200b}",
            " ",
            "   ",
            "on: ",
            "argument: ",
            "mode: run",
            "\\",
            "\\u{20}",
            "\\n",
            "\"",
            "\" = \"",
            "a",
            "\u{430}",
            "\u{ff1a}",
            "{",
            "}",
            "\u{e0041}",
            "\u{a0}",
            "0",
            "=",
        ]);
        proptest::strategy::Strategy::prop_map(proptest::collection::vec(piece, 0..8), |pieces| pieces.concat())
    }

    /// Any payload: what an approver reads of it, and what its digest alone stands for.
    fn payload() -> impl proptest::strategy::Strategy<Value = Payload> {
        use proptest::collection::btree_map;
        use proptest::prelude::*;
        let value = prop_oneof![
            hostile().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            any::<bool>().prop_map(Value::from),
            proptest::collection::vec(hostile(), 0..3).prop_map(Value::from),
            (hostile(), hostile()).prop_map(|(path, sha256)| serde_json::json!({"path": path, "sha256": sha256})),
        ];
        let args = btree_map(hostile(), value, 0..4);
        let names = ("[ab]", "[ab]", "[ab]", 0_u64..3, any::<bool>(), 0_u64..3);
        (args, hostile(), names).prop_map(|(args, reason, (person, target, action, expires, run, seq))| {
            let mut payload = example();
            payload.args = args.into_iter().collect();
            payload.reason = format!("r{}", reason.replace(char::is_control, " ")).parse().unwrap();
            payload.requester.person = person.parse().unwrap();
            payload.target = target.parse().unwrap();
            payload.action = action.parse().unwrap();
            payload.expires += expires;
            payload.mode = if run { crate::Mode::Run } else { crate::Mode::DryRun };
            payload.witness.relay.seq = 1 + seq;
            payload
        })
    }

    /// REQ-STATEMENT-6
    #[test]
    fn blanks_that_nobody_counts_are_shown() {
        let mut payload = example();
        payload.reason = "tidy up   on: web-9".parse().unwrap();
        payload.args.insert("path".to_owned(), "  x".into());
        let text = render(&payload, &[]);
        assert!(text.contains("\nreason: tidy up \\u{20}\\u{20}on: web-9\n"), "{text}");
        assert!(text.contains("\nargument: \"path\" = \" \\u{20}x\"\n"), "{text}");
        assert!(!text.contains("  "));
    }

    /// REQ-STATEMENT-5
    #[test]
    fn an_on_line_names_a_target_its_key_and_a_digest() {
        let payload = example();
        let line = on_line(&payload, b"bytes");
        assert_eq!(
            read_on_line(&line),
            Some((payload.target.clone(), payload.target_key.clone()))
        );
        for other in [
            "",
            "web-1",
            "nothing else is touched",
            &line[1..].to_uppercase(),
            &format!("{line} "),
            &format!(" {line}"),
            &line.replace(' ', "  "),
            &line[..line.len() - 1],
        ] {
            assert_eq!(read_on_line(other), None, "{other}");
        }
    }

    proptest::proptest! {
        /// REQ-STATEMENT-6, REQ-STATEMENT-10
        #[test]
        fn two_payloads_never_share_a_statement(a in payload(), b in payload(), near in proptest::bool::ANY) {
            // Half of them alike but for their arguments.
            let b = if near { Payload { args: b.args, ..a.clone() } } else { b };
            let bytes = |payload: &Payload| serde_json::to_vec(payload).unwrap();
            let whole = |payload: &Payload| render(payload, &[on_line(payload, &bytes(payload))]);
            proptest::prop_assert_eq!(whole(&a) == whole(&b), a == b);
            // What an approver reads, without a digest that nobody can read.
            let shown = |payload: &Payload| Payload {
                target: example().target,
                witness: example().witness,
                ..payload.clone()
            };
            proptest::prop_assert_eq!(render(&a, &[]) == render(&b, &[]), shown(&a) == shown(&b));
        }

        /// REQ-STATEMENT-1, REQ-STATEMENT-3, REQ-STATEMENT-6
        #[test]
        fn a_statement_has_one_reading(payload in payload()) {
            let on = on_line(&payload, b"bytes");
            let text = render(&payload, std::slice::from_ref(&on));
            proptest::prop_assert!(text.bytes().all(|byte| byte == b'\n' || (b' '..=b'~').contains(&byte)), "{}", text);
            proptest::prop_assert!(!text.contains("  "), "{}", text);
            let fields = read(&text).unwrap();
            let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
            let arguments = vec!["argument"; payload.args.len()];
            let order = [
                &["statement", "task", "person", "brain", "proof", "reason", "action"][..], &arguments, &["mode", "expires", "on"],
            ];
            proptest::prop_assert_eq!(names, order.concat());
            let value = |name: &str| fields.iter().find(|(found, _)| found == name).unwrap().1.clone();
            proptest::prop_assert_eq!(value("reason"), payload.reason.as_str());
            proptest::prop_assert_eq!(value("on"), on);
            let mut found = serde_json::Map::new();
            for (_, argument) in fields.iter().filter(|(name, _)| name == "argument") {
                // The name is a JSON string, so what ends it is its quote.
                let mut stream = serde_json::Deserializer::from_str(argument).into_iter::<Value>();
                let name = stream.next().unwrap().unwrap();
                let rest = argument[stream.byte_offset()..].strip_prefix(" = ").unwrap();
                found.insert(name.as_str().unwrap().to_owned(), serde_json::from_str(rest).unwrap());
            }
            proptest::prop_assert_eq!(found, payload.args);
        }
    }
}
