//! What the value of an argument must be, and whether a value is that.
//!
//! A rule is made by the reader of the manifest, from the keywords that it has linted, and a caller's value is checked
//! against it by this file and by nothing else. The time that takes is linear in the size of the value, and a type of value that
//! a rule does not name is refused. Every fault is told, but that a text which is too long does not match either.

use std::collections::HashSet;
use std::ops::RangeInclusive;
use std::slice;

use serde_json::Value;

use super::Kind;
use super::pattern::Pattern;
use crate::args::{ArgFault, fault, join};
use crate::text;

static BOTH: [Value; 2] = [Value::Bool(false), Value::Bool(true)];

/// A file's digest, beside its path.
const DIGEST: Single = Single {
    shape: Shape::Digest,
    choice: Choice {
        listed: None,
        fixed: None,
    },
};

/// What an argument must be.
#[derive(Debug, Clone)]
pub(super) enum Rule {
    /// A value without parts.
    One(Single),
    /// An array.
    Several {
        items: Single,
        count: RangeInclusive<u64>,
        repeats: Repeats,
    },
    /// A file that is approved by its content: `{path, sha256}` and nothing else.
    Pinned { path: Single },
}

/// Whether an array may hold a value twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeats {
    Allowed,
    Refused,
}

/// What a value without parts must be.
#[derive(Debug, Clone)]
pub(super) struct Single {
    pub(super) shape: Shape,
    pub(super) choice: Choice,
}

/// What kind of value, and within which bounds.
#[derive(Debug, Clone)]
pub(super) enum Shape {
    String {
        /// In Unicode characters, as JSON Schema counts.
        length: RangeInclusive<u64>,
        pattern: Option<Pattern>,
    },
    Integer(RangeInclusive<i64>),
    Boolean,
    /// A SHA-256 in lower-case hexadecimal.
    Digest,
}

/// The values to choose from, where they are finite: `enum` and `const`.
#[derive(Debug, Clone)]
pub(super) struct Choice {
    pub(super) listed: Option<Vec<Value>>,
    pub(super) fixed: Option<Value>,
}

impl Rule {
    /// Notes everything that is wrong with a value.
    pub(super) fn check(&self, path: &str, value: &Value, faults: &mut Vec<ArgFault>) {
        match (self, value) {
            (Self::One(single), value) => single.check(path, value, faults),
            (Self::Several { items, count, repeats }, Value::Array(values)) => {
                let found = values.len() as u64;
                if found > *count.end() {
                    faults.push(fault(path, format!("has more than {} items", count.end())));
                }
                if found < *count.start() {
                    faults.push(fault(path, format!("has fewer than {} items", count.start())));
                }
                let mut seen = HashSet::new();
                if *repeats == Repeats::Refused && !values.iter().all(|value| seen.insert(value)) {
                    faults.push(fault(path, "has the same item twice".to_owned()));
                }
                for (index, value) in values.iter().enumerate() {
                    items.check(&join(path, &index.to_string()), value, faults);
                }
            }
            (Self::Pinned { path: rule }, Value::Object(parts)) => {
                let rules = [("path", rule), ("sha256", &DIGEST)];
                for (name, value) in parts {
                    match rules.iter().find(|(known, _)| known == name) {
                        Some((_, rule)) => rule.check(&join(path, name), value, faults),
                        None => faults.push(unknown(path, name, ["path", "sha256"].into_iter())),
                    }
                }
                for (name, _) in rules {
                    if !parts.contains_key(name) {
                        faults.push(missing(path, name));
                    }
                }
            }
            (Self::Several { .. }, other) => faults.push(wrong_type(path, other, "array")),
            (Self::Pinned { .. }, other) => faults.push(wrong_type(path, other, "object")),
        }
    }

    /// The rule for one value: of an array for an item, of a pinned file for its path.
    pub(super) fn single(&self) -> &Single {
        match self {
            Self::One(single) | Self::Several { items: single, .. } | Self::Pinned { path: single } => single,
        }
    }

    /// What the manifest calls it: a pinned file is declared as the string that its path is.
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Several { .. } => Kind::Array,
            Self::One(single) | Self::Pinned { path: single } => single.shape.kind(),
        }
    }

    /// The finite list of values that it allows.
    pub(super) fn choices(&self) -> Option<&[Value]> {
        match self {
            Self::Several { .. } => None,
            Self::One(single) | Self::Pinned { path: single } => single.choices(),
        }
    }

    /// The least integer that it allows.
    pub(super) fn minimum(&self) -> Option<i64> {
        match self {
            Self::One(Single {
                shape: Shape::Integer(range),
                ..
            }) => match self.choices() {
                Some(values) => values.iter().filter_map(Value::as_i64).min(),
                None => Some(*range.start()),
            },
            _ => None,
        }
    }
}

impl Single {
    /// Allows nothing: what stands for a rule that could not be read.
    pub(super) fn nothing() -> Self {
        let choice = Choice {
            listed: Some(Vec::new()),
            fixed: None,
        };
        Self {
            shape: Shape::Boolean,
            choice,
        }
    }

    fn choices(&self) -> Option<&[Value]> {
        let fixed = self.choice.fixed.as_ref().map(slice::from_ref);
        let both = matches!(self.shape, Shape::Boolean).then_some(&BOTH[..]);
        fixed.or(self.choice.listed.as_deref()).or(both)
    }

    pub(super) fn kind(&self) -> Kind {
        self.shape.kind()
    }

    pub(super) fn check(&self, path: &str, value: &Value, faults: &mut Vec<ArgFault>) {
        let mut note = |what: String| faults.push(fault(path, what));
        match (&self.shape, value, value.as_i64()) {
            (Shape::String { length, pattern }, Value::String(found), _) => {
                let characters = found.chars().count() as u64;
                if characters < *length.start() {
                    note(format!(
                        "{} is shorter than {} characters",
                        shown(value),
                        length.start()
                    ));
                }
                // A text that is too long is not searched as well: a caller would say how much time that takes.
                if characters > *length.end() {
                    note(format!("{} is longer than {} characters", shown(value), length.end()));
                } else if let Some(pattern) = pattern.as_ref().filter(|pattern| !pattern.matches(found)) {
                    note(unmatched(value, pattern.as_str()));
                }
            }
            (Shape::Digest, Value::String(found), _) => {
                if found.len() != 64 || !found.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
                    note(unmatched(value, "^[0-9a-f]{64}$"));
                }
            }
            (Shape::Integer(range), _, Some(number)) => {
                if number > *range.end() {
                    note(format!("{number} is greater than the maximum of {}", range.end()));
                }
                if number < *range.start() {
                    note(format!("{number} is less than the minimum of {}", range.start()));
                }
            }
            (Shape::Boolean, Value::Bool(_), _) => {}
            (shape, other, _) => faults.push(wrong_type(path, other, shape.kind().keyword())),
        }
        if let Some(values) = self.choice.listed.as_ref().filter(|values| !values.contains(value)) {
            faults.push(fault(
                path,
                format!("{} is not one of {}", shown(value), choices(values)),
            ));
        }
        if let Some(fixed) = self.choice.fixed.as_ref().filter(|fixed| *fixed != value) {
            faults.push(fault(path, format!("{} is not {}", shown(value), shown(fixed))));
        }
    }
}

impl Shape {
    fn kind(&self) -> Kind {
        match self {
            Self::String { .. } | Self::Digest => Kind::String,
            Self::Integer(_) => Kind::Integer,
            Self::Boolean => Kind::Boolean,
        }
    }
}

fn unmatched(found: &Value, pattern: &str) -> String {
    format!("{} does not match {}", shown(found), text::quoted(pattern))
}

fn wrong_type(path: &str, found: &Value, wanted: &str) -> ArgFault {
    fault(path, format!("{} is not of type {wanted}", shown(found)))
}

/// A name that is none of those that are known.
pub(super) fn unknown<'a>(path: &str, name: &str, known: impl Iterator<Item = &'a str>) -> ArgFault {
    let known: Vec<&str> = known.collect();
    let offer = if known.is_empty() {
        "there are none".to_owned()
    } else {
        format!("known are {}", known.join(", "))
    };
    let what = format!("is not an argument of this action; {offer}");
    fault(&join(path, &text::quoted(name)), what)
}

/// A value that must be there and is not.
pub(super) fn missing(path: &str, name: &str) -> ArgFault {
    fault(&join(path, name), "is missing".to_owned())
}

/// A value for a message: strings in quotes, escaped and cut; anything with parts by its kind only.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(found) => format!("\"{}\"", text::quoted(found)),
        Value::Array(_) => "an array".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    }
}

fn choices(values: &[Value]) -> String {
    let all: Vec<String> = values.iter().map(shown).collect();
    match all.get(..8) {
        Some(first) if all.len() > 8 => format!("{} and {} more", first.join(", "), all.len() - 8),
        _ => all.join(", "),
    }
}
