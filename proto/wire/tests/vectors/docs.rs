//! The blocks of docs/spec that quote a vector: ```` ```json payload.json#run ````.
//!
//! A block is the text of that case, or the field named behind a dot (`#run.sig`). JSON is laid out for reading: spaces
//! between its tokens do not count. A block of TOML names a file of the repository instead.

use std::fs;
use std::path::PathBuf;

use super::{folder, root};

/// Everything in which a spec and the vectors differ.
pub(super) fn faults() -> Vec<String> {
    let mut faults = Vec::new();
    for path in specs() {
        let text = fs::read_to_string(&path).unwrap();
        let mut count = 0;
        let again = replace(&text, &mut |info, body| {
            count += 1;
            let wanted = quoted(info);
            if squeeze(info, body) != squeeze(info, &wanted) {
                faults.push(format!("{}: {info} is shown otherwise", path.display()));
            }
            wanted
        });
        if count > 0 && again != text {
            faults.push(format!("{}: not laid out as write_vectors does it", path.display()));
        }
    }
    faults
}

/// Fills the blocks anew.
pub(super) fn write() {
    for path in specs() {
        let text = fs::read_to_string(&path).unwrap();
        let again = replace(&text, &mut |info, _| quoted(info));
        if again != text {
            fs::write(&path, again).unwrap();
        }
    }
}

fn specs() -> Vec<PathBuf> {
    let mut specs: Vec<PathBuf> = fs::read_dir(root().join("docs/spec"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect();
    specs.sort();
    specs
}

/// A text with the body of each quoting block replaced.
fn replace(text: &str, body_of: &mut dyn FnMut(&str, &str) -> String) -> String {
    let mut out = String::new();
    let mut lines = text.split_inclusive('\n');
    while let Some(line) = lines.next() {
        out.push_str(line);
        let info = line
            .trim_end()
            .strip_prefix("```")
            .filter(|info| info.contains(".json#"));
        if let Some(info) = info {
            let body: String = lines.by_ref().take_while(|line| !line.starts_with("```")).collect();
            out.push_str(&body_of(info, &body));
            out.push_str("```\n");
        }
    }
    out
}

/// What a block must show, with a newline at its end.
fn quoted(info: &str) -> String {
    let (language, place) = info.split_once(' ').unwrap();
    if language == "toml" {
        return fs::read_to_string(root().join(place)).unwrap();
    }
    let (file, name) = place.split_once('#').unwrap();
    let (name, field) = name.split_once('.').unwrap_or((name, "text"));
    let text = fs::read(folder().join(file)).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&text).unwrap();
    let cases = file["cases"].as_array().unwrap();
    let case = cases.iter().find(|case| case["name"] == name);
    let case = case.unwrap_or_else(|| panic!("no case {place}"));
    let text = case[field].as_str().unwrap_or_else(|| panic!("no text in {place}"));
    let text = if language == "json" {
        laid_out(text)
    } else {
        text.to_owned()
    };
    format!("{}\n", text.trim_end_matches('\n'))
}

fn squeeze(info: &str, body: &str) -> String {
    if info.starts_with("json ") {
        compact(body)
    } else {
        body.to_owned()
    }
}

/// JSON without the spaces between its tokens.
fn compact(text: &str) -> String {
    let mut out = String::new();
    let (mut quoted, mut escaped) = (false, false);
    for c in text.chars() {
        if quoted || !c.is_ascii_whitespace() {
            out.push(c);
        }
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = quoted,
            '"' => quoted = !quoted,
            _ => {}
        }
    }
    out
}

/// Widest object or array that stays on one line, in bytes.
const WIDTH: usize = 110;

/// JSON laid out for reading. Its tokens and their order stay as they are, which no JSON library promises.
fn laid_out(text: &str) -> String {
    let mut out = String::new();
    lay_out(&mut text.chars().collect::<Vec<_>>().as_slice(), 0, &mut out);
    out
}

fn lay_out(from: &mut &[char], depth: usize, out: &mut String) {
    match from[0] {
        open @ ('{' | '[') => {
            let close = if open == '{' { '}' } else { ']' };
            *from = &from[1..];
            let mut items = Vec::new();
            while from[0] != close {
                let mut item = String::new();
                if open == '{' {
                    lay_out(from, depth + 1, &mut item);
                    assert_eq!(from[0], ':');
                    *from = &from[1..];
                    item.push_str(": ");
                }
                lay_out(from, depth + 1, &mut item);
                items.push(item);
                if from[0] == ',' {
                    *from = &from[1..];
                }
            }
            *from = &from[1..];
            let line = items.join(", ");
            let short = line.len() + 2 * depth <= WIDTH && !line.contains('\n');
            if items.is_empty() || (short && depth > 0) {
                out.push_str(&format!("{open}{line}{close}"));
            } else {
                let indent = "  ".repeat(depth + 1);
                let lines = items.join(&format!(",\n{indent}"));
                out.push_str(&format!("{open}\n{indent}{lines}\n{}{close}", "  ".repeat(depth)));
            }
        }
        '"' => {
            let mut escaped = false;
            let end = from[1..].iter().position(|c| {
                let end = *c == '"' && !escaped;
                escaped = *c == '\\' && !escaped;
                end
            });
            let (token, rest) = from.split_at(end.unwrap() + 2);
            out.extend(token);
            *from = rest;
        }
        _ => {
            let end = from
                .iter()
                .position(|c| matches!(c, ',' | '}' | ']'))
                .unwrap_or(from.len());
            let (token, rest) = from.split_at(end);
            out.extend(token);
            *from = rest;
        }
    }
}
