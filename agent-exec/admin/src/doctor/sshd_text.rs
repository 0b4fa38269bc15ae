//! The text of sshd's configuration: every line with the block it stands in, files that it includes among them.
//!
//! `sshd -T` says what is in force and not where it comes from, and it answers for one login only.

use std::path::{Path, PathBuf};

use super::tools;

const SSHD_CONFIG: &str = "/etc/ssh/sshd_config";
/// Files that include each other end somewhere.
const MAX_DEPTH: u32 = 8;

/// One directive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) file: PathBuf,
    /// Counted from 1.
    pub(super) number: usize,
    /// What follows `Match`, in lower case; none in the global part.
    pub(super) within: Option<String>,
    /// In lower case.
    pub(super) keyword: String,
    pub(super) value: String,
}

impl Line {
    /// Whether its block may be one that agent-runner's logins are in. Conditions on anything but the user count as met.
    pub(super) fn may_apply_to(&self, user: &str) -> bool {
        let within = self.within.as_deref().unwrap_or_default();
        let mut words = within.split_whitespace();
        match words.find(|word| *word == "user").and_then(|_| words.next()) {
            Some(patterns) => patterns
                .split(',')
                .any(|pattern| fits(pattern.as_bytes(), user.as_bytes())),
            None => true,
        }
    }

    /// The command that takes it out of force and leaves it to be seen.
    pub(super) fn comment_out(&self) -> String {
        format!("sed -i '{}s/^/#/' {}", self.number, self.file.display())
    }
}

/// All directives, in the order in which sshd reads them.
pub(super) fn look() -> Vec<Line> {
    let mut lines = Vec::new();
    walk(Path::new(SSHD_CONFIG), None, 0, &mut lines);
    lines
}

/// A `Match` of an included file ends with it.
fn walk(file: &Path, outer: Option<&str>, depth: u32, lines: &mut Vec<Line>) {
    let Ok(Some(text)) = tools::read(file) else {
        return;
    };
    let mut within = outer.map(str::to_owned);
    for (at, line) in text.lines().enumerate() {
        let line = line.trim();
        let is_gap = |c: char| c.is_whitespace() || c == '=';
        let (keyword, rest) = line.split_once(is_gap).unwrap_or((line, ""));
        let value = rest.trim_start_matches(is_gap).trim_end().trim_matches('"');
        let words = || value.split_whitespace().map(|word| word.trim_matches('"'));
        match keyword.to_lowercase().as_str() {
            "match" => {
                let condition = words().collect::<Vec<_>>().join(" ");
                within = Some(condition.to_lowercase().replace('=', " "));
            }
            "include" if depth < MAX_DEPTH => {
                for included in words().flat_map(included) {
                    walk(&included, within.as_deref(), depth + 1, lines);
                }
            }
            comment if comment.is_empty() || comment.starts_with('#') => {}
            keyword => lines.push(Line {
                file: file.to_owned(),
                number: at + 1,
                within: within.clone(),
                keyword: keyword.to_owned(),
                value: value.to_owned(),
            }),
        }
    }
}

/// The files that an `Include` names, in order; with `*` and `?` in the last part of the path, as everybody writes them.
fn included(pattern: &str) -> Vec<PathBuf> {
    let path = Path::new("/etc/ssh").join(pattern);
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    if !name.contains(['*', '?', '[']) {
        return vec![path];
    }
    let folder = path.parent().unwrap_or(Path::new("/"));
    let mut found: Vec<PathBuf> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| fits(name.as_bytes(), entry.file_name().as_encoded_bytes()))
        .map(|entry| entry.path())
        .collect();
    found.sort();
    found
}

/// Whether a name fits a pattern. A `[` fits anything: better one file too many than one too few.
fn fits(pattern: &[u8], name: &[u8]) -> bool {
    match (pattern.split_first(), name.split_first()) {
        (None, None) | (Some((b'[', _)), _) => true,
        (Some((b'*', rest)), found) => fits(rest, name) || found.is_some_and(|(_, name)| fits(pattern, name)),
        (Some((b'?', rest)), Some((_, name))) => fits(rest, name),
        (Some((wanted, rest)), Some((found, name))) => wanted == found && fits(rest, name),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_found_in_whatever_block_and_file_they_stand() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::write(at("a.conf"), "Match User agent-runner\n  TrustedUserCAKeys /a\n").unwrap();
        std::fs::write(at("b.conf"), "trustedusercakeys=\"/b\"\n").unwrap();
        std::fs::write(at("c.txt"), "TrustedUserCAKeys /not-included\n").unwrap();
        let main = format!(
            "Include {}/*.conf\n# TrustedUserCAKeys /comment\n\nMatch User=deploy Address 10.0.0.0/8\n PermitTTY  yes\n\
             Match all\nTrustedUserCAKeys none\n",
            folder.path().display()
        );
        std::fs::write(at("main"), main).unwrap();
        let mut lines = Vec::new();
        walk(&at("main"), None, 0, &mut lines);
        let found: Vec<_> = lines
            .iter()
            .map(|line| {
                (
                    line.within.as_deref(),
                    line.keyword.as_str(),
                    line.value.as_str(),
                    line.number,
                )
            })
            .collect();
        assert_eq!(
            found,
            [
                (Some("user agent-runner"), "trustedusercakeys", "/a", 2),
                (None, "trustedusercakeys", "/b", 1),
                (Some("user deploy address 10.0.0.0/8"), "permittty", "yes", 5),
                (Some("all"), "trustedusercakeys", "none", 7)
            ]
        );
    }

    #[test]
    fn a_block_for_another_user_is_not_agent_runners() {
        for (within, expected) in [
            (None, true),
            (Some("all"), true),
            (Some("address 10.0.0.0/8"), true),
            (Some("user deploy,agent-*"), true),
            (Some("user agent-runner"), true),
            (Some("user deploy address 10.0.0.0/8"), false),
            (Some("group user"), true),
        ] {
            let line = Line {
                file: PathBuf::new(),
                number: 1,
                within: within.map(str::to_owned),
                keyword: String::new(),
                value: String::new(),
            };
            assert_eq!(line.may_apply_to("agent-runner"), expected, "{within:?}");
        }
    }

    #[test]
    fn a_file_that_includes_itself_comes_to_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("loop");
        std::fs::write(&path, format!("Include {}\n", path.display())).unwrap();
        walk(&path, None, 0, &mut Vec::new());
    }

    #[test]
    fn patterns_fit_as_a_shell_would_have_it() {
        for (pattern, name, expected) in [
            ("*.conf", "50-writ.conf", true),
            ("*.conf", "50-writ.conf.new", false),
            ("5?-*", "50-writ.conf", true),
            ("a", "b", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern.as_bytes(), name.as_bytes()), expected, "{pattern} {name}");
        }
    }
}
