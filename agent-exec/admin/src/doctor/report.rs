//! What doctor says: one line for what is well, and for what is not also why it matters and the command that mends it.

use std::fmt::Write as _;

use serde::Serialize;

/// Something that doctor checks.
#[derive(Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, in every kind of output.
    pub name: &'static str,
    /// What must be so.
    pub what: &'static str,
    /// What could happen otherwise.
    pub why: &'static str,
    /// How it is mended, in general; a finding says it with its own paths.
    pub mend: &'static str,
}

/// How a check came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// As it must be.
    Fine,
    /// Nothing that is wrong, and something that an administrator should know: also what could not be looked at.
    Notice,
    /// Not as it must be.
    Finding,
}

/// One thing that was said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Said {
    /// About what.
    pub check: &'static Check,
    /// How it came out.
    pub verdict: Verdict,
    /// What was seen.
    pub what: String,
    /// The command that mends it.
    pub mend: Option<String>,
}

/// An element of `--json`.
#[derive(Serialize)]
struct Element<'a> {
    check: &'a str,
    ok: bool,
    what: &'a str,
    why: Option<&'a str>,
    mend: Option<&'a str>,
}

/// Everything that was said, in order.
#[derive(Debug, Default)]
pub struct Report {
    target: Option<String>,
    said: Vec<Said>,
}

impl Report {
    /// An empty one, about the target of this name where it is known.
    pub(crate) fn new(target: Option<String>) -> Self {
        Self {
            target,
            said: Vec::new(),
        }
    }

    /// Says that something is not as it must be. What comes from files and programs is shown escaped.
    pub(crate) fn finding(&mut self, check: &'static Check, what: impl AsRef<str>, mend: impl Into<String>) {
        self.say(check, Verdict::Finding, what.as_ref(), Some(mend.into()));
    }

    /// Says something that an administrator should know.
    pub(crate) fn notice(&mut self, check: &'static Check, what: impl AsRef<str>, mend: impl Into<String>) {
        self.say(check, Verdict::Notice, what.as_ref(), Some(mend.into()));
    }

    /// Ends a check: where nothing was said about it, all is well.
    pub(crate) fn settle(&mut self, check: &'static Check, fine: impl AsRef<str>) {
        if !self.said.iter().any(|said| said.check == check) {
            self.say(check, Verdict::Fine, fine.as_ref(), None);
        }
    }

    fn say(&mut self, check: &'static Check, verdict: Verdict, what: &str, mend: Option<String>) {
        self.said.push(Said {
            check,
            verdict,
            what: escaped(what),
            mend: mend.map(|mend| escaped(&mend)),
        });
    }

    /// What was said.
    #[must_use]
    pub fn said(&self) -> &[Said] {
        &self.said
    }

    /// How many things came out so.
    #[must_use]
    pub fn count(&self, verdict: Verdict) -> usize {
        self.said.iter().filter(|said| said.verdict == verdict).count()
    }

    /// 0 all clear, 2 findings.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        if self.count(Verdict::Finding) == 0 { 0 } else { 2 }
    }

    /// For people: what is well in one line each, then notices, then findings, then the sum.
    #[must_use]
    pub fn text(&self) -> String {
        let width = self.said.iter().map(|said| said.check.name.len()).max().unwrap_or(0);
        let mut text = String::new();
        for (verdict, word) in [
            (Verdict::Fine, "ok"),
            (Verdict::Notice, "notice"),
            (Verdict::Finding, "FINDING"),
        ] {
            for said in self.said.iter().filter(|said| said.verdict == verdict) {
                let mut line = |word: &str, name: &str, rest: &str| {
                    // Writing to a String cannot fail.
                    let _ = writeln!(text, "{word:<7}  {name:<width$}  {rest}");
                };
                line(word, said.check.name, &said.what);
                if verdict == Verdict::Finding {
                    line("", "", &format!("why   {}", said.check.why));
                }
                if let Some(mend) = &said.mend {
                    line("", "", &format!("mend  {mend}"));
                }
            }
        }
        let target = self.target.as_deref().unwrap_or("this host");
        let notices = number(self.count(Verdict::Notice), "notice");
        let sum = match self.count(Verdict::Finding) {
            0 => "all clear".to_owned(),
            findings => number(findings, "finding"),
        };
        let _ = write!(text, "\n{target}: {sum}, {notices}");
        text
    }

    /// For programs: an array of `{check, ok, what, why, mend}`, `why` and `mend` null where all is well. A notice is `ok`
    /// and has both.
    #[must_use]
    pub fn json(&self) -> String {
        let elements: Vec<Element<'_>> = self
            .said
            .iter()
            .map(|said| Element {
                check: said.check.name,
                ok: said.verdict != Verdict::Finding,
                what: &said.what,
                why: (said.verdict != Verdict::Fine).then_some(said.check.why),
                mend: said.mend.as_deref(),
            })
            .collect();
        serde_json::to_string(&elements).unwrap_or_default()
    }
}

fn number(count: usize, word: &str) -> String {
    match count {
        0 => format!("no {word}s"),
        1 => format!("1 {word}"),
        more => format!("{more} {word}s"),
    }
}

/// One line whatever a file or a program said.
fn escaped(text: &str) -> String {
    text.trim()
        .chars()
        .flat_map(|c| {
            let shown: Box<dyn Iterator<Item = char>> = if c.is_control() {
                Box::new(c.escape_default())
            } else {
                Box::new(std::iter::once(c))
            };
            shown
        })
        .collect()
}

#[cfg(test)]
impl Report {
    /// The names of the checks that found something, in order, each once.
    pub(crate) fn found(&self) -> Vec<&'static str> {
        let mut names: Vec<_> = self
            .said
            .iter()
            .filter(|said| said.verdict == Verdict::Finding)
            .map(|said| said.check.name)
            .collect();
        names.dedup();
        names
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Check = Check {
        name: "a",
        what: "a is so",
        why: "or b",
        mend: "make a so",
    };
    const LONG: Check = Check { name: "long_name", ..A };

    #[test]
    fn text_is_aligned_and_ends_with_the_sum() {
        let mut report = Report::new(Some("web-1".to_owned()));
        report.settle(&A, "a is so");
        assert_eq!(report.text(), "ok       a  a is so\n\nweb-1: all clear, no notices");
        assert_eq!(report.exit_code(), 0);
        report.finding(&LONG, "it is\nnot", "rm it");
        report.settle(&LONG, "it is");
        let expected = "ok       a          a is so\n\
                        FINDING  long_name  it is\\nnot\n                    why   or b\n                    mend  rm it\n\
                        \nweb-1: 1 finding, no notices";
        assert_eq!(report.text(), expected);
        assert_eq!(report.exit_code(), 2);
    }

    #[test]
    fn json_says_why_and_how_to_mend_for_all_that_is_not_fine() {
        let mut report = Report::new(None);
        report.settle(&A, "fine");
        report.notice(&LONG, "look", "do");
        assert_eq!(
            report.json(),
            r#"[{"check":"a","ok":true,"what":"fine","why":null,"mend":null},{"check":"long_name","ok":true,"what":"look","why":"or b","mend":"do"}]"#
        );
        assert_eq!(report.exit_code(), 0);
    }
}
