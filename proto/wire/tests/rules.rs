//! The rules of docs/spec and the tests that keep them: a test names its rules in a line of its doc comment.
//!
//! A name that the spec does not have is a rule that is gone, or a slip of the pen, and fails. Rules that no test names
//! are printed (`cargo test -p writ-wire --test rules -- --nocapture`): each is a promise that nothing holds.
#![allow(clippy::unwrap_used, reason = "a failed test says why")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// What every name of a rule begins with.
const PREFIX: &str = concat!("REQ", "-");

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The names of rules in a text, in order: the prefix, capitals, a hyphen, a number.
fn names(text: &str) -> Vec<&str> {
    text.match_indices(PREFIX)
        .filter_map(|(at, _)| {
            let rest = &text[at + PREFIX.len()..];
            let word = rest.find(|c: char| !c.is_ascii_uppercase()).filter(|word| *word > 0)?;
            let number = rest[word..].strip_prefix('-')?;
            let digits = number.find(|c: char| !c.is_ascii_digit()).unwrap_or(number.len());
            (digits > 0).then(|| &text[at..at + PREFIX.len() + word + 1 + digits])
        })
        .collect()
}

/// Every file below a folder with this extension. What is built and what git keeps is left out.
fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let (entry, path) = {
            let entry = entry.unwrap();
            (entry.file_type().unwrap(), entry.path())
        };
        let hidden = path
            .file_name()
            .is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if entry.is_dir() && !hidden && !path.ends_with("target/debug") && !path.join("CACHEDIR.TAG").exists() {
            files(&path, extension, found);
        } else if entry.is_file() && path.extension().is_some_and(|is| is == extension) {
            found.push(path);
        }
    }
}

#[test]
fn every_rule_that_a_test_names_is_in_the_spec() {
    let (mut rules, mut twice) = (BTreeSet::new(), Vec::new());
    let mut specs = Vec::new();
    files(&root().join("docs/spec"), "md", &mut specs);
    for path in specs {
        let text = fs::read_to_string(path).unwrap();
        // Where a rule is stated its name is bold; elsewhere it is referred to.
        for rule in text.split("**").filter(|part| names(part) == [*part]) {
            if !rules.insert(rule.to_owned()) {
                twice.push(rule.to_owned());
            }
        }
    }
    assert!(!rules.is_empty());
    assert_eq!(twice, Vec::<String>::new(), "stated twice");

    let (mut kept, mut unknown) = (BTreeSet::new(), Vec::new());
    let mut sources = Vec::new();
    files(&root(), "rs", &mut sources);
    for path in sources {
        let text = fs::read_to_string(&path).unwrap();
        for name in names(&text) {
            if rules.contains(name) {
                kept.insert(name.to_owned());
            } else {
                unknown.push(format!("{}: {name}", path.display()));
            }
        }
    }
    let open: Vec<&String> = rules.difference(&kept).collect();
    println!("{} rules, {} named by a test; no test names:", rules.len(), kept.len());
    for rule in open {
        println!("  {rule}");
    }
    assert_eq!(unknown, Vec::<String>::new(), "docs/spec has no such rule");
}

#[test]
fn names_are_found_where_they_stand() {
    let text = format!("/// {PREFIX}GRANT-12, {PREFIX}X-1.\n{PREFIX}… {PREFIX}-1 {PREFIX}A- {PREFIX}a-1");
    let expected = [format!("{PREFIX}GRANT-12"), format!("{PREFIX}X-1")];
    assert_eq!(names(&text), expected);
}
