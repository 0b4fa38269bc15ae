//! What is wrong with a policy file: which policy, which line, what, and what to do next.

use std::fmt;

use miette::Diagnostic;
use wire::text::escaped;

/// Longest text of one fault, in bytes.
const WHAT_BYTES: usize = 400;

/// One thing that is wrong with a policy file. Its text is one line of printable ASCII, whatever the file holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Line of the file, from 1, where one is to blame.
    pub line: Option<usize>,
    /// The policy, where one is to blame.
    pub policy: Option<String>,
    /// What is wrong.
    pub what: String,
    /// What to do: one imperative, where there is more to say than "mend it".
    pub next: Option<String>,
}

impl Fault {
    /// A fault of the whole file.
    pub(super) fn of_file(what: impl Into<String>, next: &str) -> Self {
        Self {
            line: None,
            policy: None,
            what: what.into(),
            next: Some(next.to_owned()),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.line, &self.policy) {
            (Some(line), Some(policy)) => write!(out, "line {line}, policy {}: ", escaped(policy, 80))?,
            (Some(line), None) => write!(out, "line {line}: ")?,
            (None, Some(policy)) => write!(out, "policy {}: ", escaped(policy, 80))?,
            (None, None) => {}
        }
        out.write_str(&escaped(&self.what, WHAT_BYTES))?;
        match &self.next {
            Some(next) => write!(out, "; {}", escaped(next, WHAT_BYTES)),
            None => Ok(()),
        }
    }
}

/// A policy file's text, by its lines.
pub(super) struct Lines<'a> {
    text: &'a str,
    /// Where each policy begins, in order.
    policies: Vec<usize>,
}

impl<'a> Lines<'a> {
    /// Finds where policies begin: at the first token of the file and after each `;`, which nothing but the end of a policy,
    /// a string or a comment holds.
    pub(super) fn new(text: &'a str) -> Self {
        let mut policies = Vec::new();
        let (mut within, mut string, mut comment, mut escape) = (false, false, false, false);
        let mut chars = text.char_indices().peekable();
        while let Some((at, c)) = chars.next() {
            if comment {
                comment = c != '\n';
            } else if string {
                string = escape || c != '"';
                escape = !escape && c == '\\';
            } else if c == '/' && chars.peek().is_some_and(|(_, next)| *next == '/') {
                comment = true;
            } else if c == ';' {
                within = false;
            } else if !c.is_whitespace() {
                string = c == '"';
                if !within {
                    within = true;
                    policies.push(at);
                }
            }
        }
        Self { text, policies }
    }

    /// The line of a byte of the text.
    pub(super) fn of_byte(&self, at: usize) -> usize {
        let before = self.text.as_bytes().iter().take(at);
        1 + before.filter(|byte| **byte == b'\n').count()
    }

    /// The line on which the policy begins that Cedar calls `policy3`.
    pub(super) fn of_policy(&self, id: &str) -> Option<usize> {
        let number: usize = id.strip_prefix("policy")?.parse().ok()?;
        self.policies.get(number).map(|at| self.of_byte(*at))
    }

    /// The line that one of Cedar's errors names.
    pub(super) fn of_error(&self, error: &dyn Diagnostic) -> Option<usize> {
        let label = error.labels()?.next()?;
        Some(self.of_byte(label.offset()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_begins_behind_the_end_of_the_one_before() {
        let text = "// a; b\n@id(\"a;\\\";\") // c;\npermit (principal, action, resource); permit\n(principal, action, resource);\n\n\n  forbid (principal, action, resource);";
        let lines = Lines::new(text);
        let found: Vec<_> = (0..4).map(|n| lines.of_policy(&format!("policy{n}"))).collect();
        assert_eq!(found, [Some(2), Some(3), Some(7), None]);
        assert_eq!(lines.of_policy("other"), None);
    }

    #[test]
    fn a_fault_is_one_line_of_printable_text() {
        let fault = Fault {
            line: Some(3),
            policy: Some("a\u{202e}b".to_owned()),
            what: "x\ny".to_owned(),
            next: Some("mend it".to_owned()),
        };
        assert_eq!(fault.to_string(), "line 3, policy a\\u{202e}b: x\\u{a}y; mend it");
    }
}
