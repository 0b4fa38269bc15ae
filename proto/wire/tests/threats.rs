//! What docs/threat-model.md and docs/known-attacks.md say that a test shows is shown by a test of that name.
//!
//! A name is written as a link, [`name`][file], and the file stands at the foot of the page. It is a test function of that
//! file, or the name of a row in one of its tables of attacks. A row that names none is a claim that nothing holds. Names
//! are printed with `cargo test -p writ-wire --test threats -- --nocapture`.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test says why")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// The column of a table that names tests.
const SHOWN_BY: &str = "shown by";

/// The heading below which stands what no test shows.
const NOT_YET: &str = "Not protected yet";

/// How a row of known-attacks.md begins its last cell where there is nothing to show.
const DOES_NOT_APPLY: &str = "does not apply";

/// One row of a table.
struct Row<'a> {
    line: usize,
    heading: &'a str,
    /// What stands in the column of tests, where the table has one.
    shown_by: Option<&'a str>,
}

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs")
}

fn cells(line: &str) -> Vec<&str> {
    let inner = line.trim().trim_start_matches('|').trim_end_matches('|');
    inner.split('|').map(str::trim).collect()
}

/// All rows of all tables, without headers and the lines below them.
fn rows(text: &str) -> Vec<Row<'_>> {
    let (mut rows, mut heading, mut column, mut within) = (Vec::new(), "", None, false);
    for (number, line) in text.lines().enumerate() {
        if let Some(title) = line.strip_prefix('#') {
            heading = title.trim_start_matches('#').trim();
        }
        let is_row = line.starts_with('|');
        if is_row && !within {
            column = cells(line).iter().position(|cell| *cell == SHOWN_BY);
        } else if is_row && !line.starts_with("|--") {
            rows.push(Row {
                line: number + 1,
                heading,
                shown_by: column.map(|column| cells(line).get(column).copied().unwrap_or_default()),
            });
        }
        within = is_row;
    }
    rows
}

/// The names in a text that are links, each with the label of its file; and what is left of the text.
fn links(text: &str) -> (Vec<(&str, &str)>, String) {
    let (mut links, mut rest, mut left) = (Vec::new(), text, String::new());
    while let Some((before, link)) = rest.split_once("[`") {
        left.push_str(before);
        let parts = link.split_once("`][").and_then(|(name, after)| {
            let (file, after) = after.split_once(']')?;
            Some((name, file, after))
        });
        let Some((name, file, after)) = parts else {
            left.push_str("[`");
            rest = link;
            continue;
        };
        links.push((name, file));
        rest = after;
    }
    (links, left + rest)
}

/// The files at the foot of a page, by label.
fn files(text: &str) -> BTreeMap<&str, &str> {
    let defined = text
        .lines()
        .filter_map(|line| line.strip_prefix('[')?.split_once("]: "));
    defined.filter(|(label, _)| !label.contains('`')).collect()
}

fn is_attribute_of_a_test(line: &str) -> bool {
    let line = line.trim();
    line == "#[test]" || line.starts_with("#[tokio::test")
}

/// Whether a source has a test function of this name.
fn has_test(source: &str, name: &str) -> bool {
    let lines: Vec<&str> = source.lines().collect();
    let function = format!("fn {name}(");
    let found = lines.iter().position(|line| {
        let line = line.trim_start();
        line.strip_prefix("async ").unwrap_or(line).starts_with(&function)
    });
    let above = found.map(|at| lines[..at].iter().rev());
    above.is_some_and(|mut above| {
        let near = above
            .by_ref()
            .take_while(|line| line.trim_start().starts_with(['#', '/']));
        near.into_iter().any(|line| is_attribute_of_a_test(line))
    })
}

/// Whether a source of tests has a table with a row of this name.
fn has_row(source: &str, name: &str) -> bool {
    let quoted = format!("\"{name}\"");
    let mut code = source.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.any(|line| line.contains(&quoted)) && source.lines().any(is_attribute_of_a_test)
}

/// Everything that is wrong with a page, and how many names of how many files it holds.
fn check(page: &str) -> (Vec<String>, usize, usize) {
    let text = fs::read_to_string(docs().join(page)).unwrap();
    let files = files(&text);
    let mut wrong = Vec::new();
    let mut say = |line: usize, what: String| wrong.push(format!("docs/{page}:{line}: {what}"));

    let all = rows(&text);
    assert!(!all.is_empty(), "{page} has no table");
    for row in all {
        match row.shown_by {
            None if row.heading == NOT_YET => {}
            None => say(row.line, format!("a table without the column {SHOWN_BY}")),
            Some(_) if row.heading == NOT_YET => say(row.line, format!("a claim below {NOT_YET}")),
            Some(cell) => {
                let (names, left) = links(cell);
                if left.contains('`') {
                    say(row.line, format!("a name that is no link: {left}"));
                }
                if names.is_empty() && !cell.starts_with(DOES_NOT_APPLY) {
                    say(row.line, "a row without a test".to_owned());
                }
            }
        }
    }

    let (mut names, mut used) = (BTreeSet::new(), BTreeSet::new());
    for (number, line) in text.lines().enumerate() {
        for (name, label) in links(line).0 {
            used.insert(label);
            let source = files.get(label).map(|file| fs::read_to_string(docs().join(file)));
            match source {
                None => say(number + 1, format!("{label} is no file of this page")),
                Some(Err(error)) => say(number + 1, format!("{label}: {error}")),
                Some(Ok(source)) if has_test(&source, name) || has_row(&source, name) => {
                    names.insert((name, label));
                }
                Some(Ok(_)) => say(number + 1, format!("{} has no test and no row {name}", files[label])),
            }
        }
    }
    for label in files.keys().filter(|label| !used.contains(**label)) {
        say(0, format!("{label} is at the foot and nowhere else"));
    }
    (wrong, names.len(), used.len())
}

#[test]
fn every_test_that_the_threat_model_and_the_known_attacks_name_is_there() {
    let mut wrong = Vec::new();
    for page in ["threat-model.md", "known-attacks.md"] {
        let (faults, names, files) = check(page);
        println!("docs/{page}: {names} names in {files} files");
        wrong.extend(faults);
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn what_does_not_apply_is_said_of_known_attacks_only() {
    let text = fs::read_to_string(docs().join("threat-model.md")).unwrap();
    let excused = rows(&text).into_iter().filter_map(|row| row.shown_by);
    assert_eq!(excused.filter(|cell| cell.starts_with(DOES_NOT_APPLY)).count(), 0);
}

#[test]
fn names_are_read_where_they_stand() {
    let page = "# One\n\n| a | shown by |\n|---|---|\n| `x` | [`good`][f], [`a row`][g] |\n| y | `bad` |\n\n\
                ## Not protected yet\n\n| a | b |\n|---|---|\n| z | |\n\n[f]: ../f.rs\n";
    let rows = rows(page);
    let shown: Vec<_> = rows.iter().map(|row| (row.line, row.heading, row.shown_by)).collect();
    let expected = [
        (5, "One", Some("[`good`][f], [`a row`][g]")),
        (6, "One", Some("`bad`")),
        (12, NOT_YET, None),
    ];
    assert_eq!(shown, expected);
    assert_eq!(
        links("[`good`][f], [`a row`][g]; [`torn").0,
        [("good", "f"), ("a row", "g")]
    );
    assert_eq!(links("x `bad` [`good`][f]").1, "x `bad` ");
    assert_eq!(files(page), BTreeMap::from([("f", "../f.rs")]));
}

#[test]
fn a_name_is_a_test_or_a_row_and_not_any_word() {
    let source = "/// REQ\n#[test]\n#[allow(x)]\nfn one() {}\n\nfn helper() {}\n\n#[tokio::test]\nasync fn two() {\n    \
                  let table = [(\"row\", 1)];\n    // \"comment\"\n}\n";
    assert!(has_test(source, "one") && has_test(source, "two"));
    assert!(!has_test(source, "helper") && !has_test(source, "on") && !has_test(source, "three"));
    assert!(has_row(source, "row") && !has_row(source, "comment") && !has_row(source, "ro"));
    assert!(!has_row("fn main() { println!(\"row\") }", "row"));
}
