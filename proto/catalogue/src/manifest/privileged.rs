//! The command lines of a privileged action: all of them, one by one, because sudoers lists each.
//!
//! A rule of sudoers is a text in which many characters mean something, and sudo compares it with all arguments joined by
//! blanks (sudoers(5)). So a privileged action's words are of few characters, none of which is a wildcard, a quote or a
//! blank, and no word is empty: an empty one would be sudoers' word for no arguments at all.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Element, Exec, Manifest, Privilege};
use crate::args::word;

/// Whether a word of a command line means itself in sudoers, where `,`, `:` and `=` stand behind a backslash.
pub(super) fn is_plain(word: &str) -> bool {
    !word.is_empty()
        && word
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./@%+,:=".contains(&b))
}

impl Manifest {
    /// Every command line that a privileged action can come to, its dry run's too: the program, then its arguments. None
    /// twice. Empty for an action without privilege.
    #[must_use]
    pub fn command_lines(&self) -> Vec<Vec<String>> {
        let (Privilege::Sudo, Exec::Program { program, argv, .. }) = (self.privilege, &self.exec) else {
            return Vec::new();
        };
        let program = program.display().to_string();
        let mut lines = Vec::new();
        for template in std::iter::once(argv).chain(self.dry_run.as_ref().map(|dry_run| &dry_run.argv)) {
            for chosen in self.choices(template) {
                let words = template.iter().map(|element| match element {
                    Element::Constant(text) => text.clone(),
                    Element::Argument(name) => chosen.get(name.as_str()).cloned().unwrap_or_default(),
                });
                let line: Vec<String> = std::iter::once(program.clone()).chain(words).collect();
                if !lines.contains(&line) {
                    lines.push(line);
                }
            }
        }
        lines
    }

    /// Every choice of values for the arguments of a template; one without any, where it has none.
    fn choices<'a>(&'a self, template: &'a [Element]) -> Vec<BTreeMap<&'a str, String>> {
        let mut all = vec![BTreeMap::new()];
        for element in template {
            let Element::Argument(name) = element else { continue };
            let values = self
                .schema
                .properties()
                .get(name)
                .and_then(|property| property.choices());
            let words: Vec<String> = values.unwrap_or_default().iter().filter_map(word).collect();
            all = all
                .into_iter()
                .flat_map(|chosen| match chosen.contains_key(name.as_str()) {
                    true => vec![chosen],
                    false => words
                        .iter()
                        .map(|word| {
                            let mut more = chosen.clone();
                            more.insert(name.as_str(), word.clone());
                            more
                        })
                        .collect(),
                })
                .collect();
        }
        all
    }
}

/// The values that an argument of a privileged action may have and sudoers could not express.
pub(super) fn unfit(values: &[Value]) -> Option<String> {
    let words = values.iter().filter_map(word);
    words.into_iter().find(|word| !is_plain(word))
}
