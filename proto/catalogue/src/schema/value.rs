//! What bounds one value, and TOML values as the JSON values that they stand for.

use std::ops::RangeInclusive;

use serde_json::{Map, Value, json};

use super::object::texts;
use super::pattern::Pattern;
use super::rule::{Choice, Repeats, Rule, Shape, Single};
use super::{Kind, MAX_ITEMS, MAX_LENGTH};
use crate::table::{Table, article};
use crate::text;

/// Every keyword of the subset, to tell one that stands in the wrong place from one that is not known at all.
pub(super) const KEYWORDS: [&str; 18] = [
    "type",
    "properties",
    "required",
    "enum",
    "const",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "items",
    "minItems",
    "maxItems",
    "uniqueItems",
    "default",
    "title",
    "description",
    "examples",
];

/// Said of a keyword that manifests may not use.
pub(super) fn not_in_subset() -> String {
    "is not in the subset of JSON Schema that manifests may use".to_owned()
}

/// The value of `type`.
pub(super) fn kind(table: &mut Table<'_>, array_allowed: bool) -> Option<Kind> {
    match table.demand_string("type")?.as_str() {
        "string" => Some(Kind::String),
        "integer" => Some(Kind::Integer),
        "boolean" => Some(Kind::Boolean),
        "array" if array_allowed => Some(Kind::Array),
        other => {
            let known = if array_allowed {
                "string, integer, boolean or array"
            } else {
                "string, integer or boolean"
            };
            table.fault("type", format!("must be {known}, not \"{}\"", text::quoted(other)));
            None
        }
    }
}

/// The keywords that bound a value of this kind, as the rule that they make. Where one of them is at fault the rule is less
/// than what was meant, and the fault keeps it from being used.
pub(super) fn rule(table: &mut Table<'_>, kind: Kind, schema: &mut Map<String, Value>) -> Rule {
    Rule::One(match kind {
        Kind::Array => return several(table, schema),
        Kind::Boolean => Single {
            choice: choice(table, kind, schema),
            shape: Shape::Boolean,
        },
        Kind::Integer => Single {
            choice: choice(table, kind, schema),
            shape: Shape::Integer(range(table, schema)),
        },
        Kind::String => {
            let choice = choice(table, kind, schema);
            let shape = string(table, schema, choice.listed.is_some() || choice.fixed.is_some());
            Single { shape, choice }
        }
    })
}

fn choice(table: &mut Table<'_>, kind: Kind, schema: &mut Map<String, Value>) -> Choice {
    let listed = table.take("enum").map(|value| list_of(table, "enum", kind, value));
    if let Some(values) = &listed {
        if values
            .iter()
            .enumerate()
            .any(|(at, value)| values.iter().take(at).any(|earlier| earlier == value))
        {
            table.fault("enum", "lists a value twice");
        }
        schema.insert("enum".to_owned(), json!(values));
    }
    let fixed = table
        .take("const")
        .and_then(|value| value_of(table, "const", kind, value));
    if let Some(value) = &fixed {
        schema.insert("const".to_owned(), value.clone());
    }
    Choice { listed, fixed }
}

fn string(table: &mut Table<'_>, schema: &mut Map<String, Value>, finite: bool) -> Shape {
    let before = table.faults().count();
    let least = table.integer("minLength", 0, MAX_LENGTH);
    let most = table.integer("maxLength", 1, MAX_LENGTH);
    if most.is_none() && !finite && table.faults().count() == before {
        table.fault(
            "maxLength",
            format!("is missing: a string needs a maxLength of at most {MAX_LENGTH}, or an enum"),
        );
    }
    let length = span(table, schema, ("minLength", least), ("maxLength", most), MAX_LENGTH);
    let pattern = table.string("pattern").and_then(|text| {
        schema.insert("pattern".to_owned(), json!(text));
        Pattern::parse(&text).map_err(|what| table.fault("pattern", what)).ok()
    });
    Shape::String { length, pattern }
}

fn several(table: &mut Table<'_>, schema: &mut Map<String, Value>) -> Rule {
    let least = table.integer("minItems", 0, MAX_ITEMS);
    let most = table.demand_integer("maxItems", 1, MAX_ITEMS);
    let count = span(table, schema, ("minItems", least), ("maxItems", most), MAX_ITEMS);
    let unique = table.boolean("uniqueItems");
    if let Some(unique) = unique {
        schema.insert("uniqueItems".to_owned(), Value::Bool(unique));
    }
    Rule::Several {
        items: items(table, schema).unwrap_or_else(Single::nothing),
        count,
        repeats: if unique == Some(true) {
            Repeats::Refused
        } else {
            Repeats::Allowed
        },
    }
}

fn items(table: &mut Table<'_>, schema: &mut Map<String, Value>) -> Option<Single> {
    let before = table.faults().count();
    let items = table.table("items");
    let mut items = table.demand("items", items, before)?;
    let kind = kind(&mut items, false)?;
    let mut inner = Map::new();
    inner.insert("type".to_owned(), json!(kind.keyword()));
    texts(&mut items, &mut inner);
    let rule = rule(&mut items, kind, &mut inner);
    items.finish_with(|key| match key {
        "default" | "examples" => "does not apply to the items of an array".to_owned(),
        key if KEYWORDS.contains(&key) => format!("does not apply to {}", kind.article()),
        _ => not_in_subset(),
    });
    schema.insert("items".to_owned(), Value::Object(inner));
    match rule {
        Rule::One(single) => Some(single),
        // Not where `kind` was told so.
        Rule::Several { .. } | Rule::Pinned { .. } => None,
    }
}

/// `minimum` and `maximum`; without them what can be sent at all.
fn range(table: &mut Table<'_>, schema: &mut Map<String, Value>) -> RangeInclusive<i64> {
    let mut bound = |key: &str| {
        let value = table.take(key)?;
        let value = value_of(table, key, Kind::Integer, value)?;
        schema.insert(key.to_owned(), value.clone());
        value.as_i64()
    };
    let (least, most) = (bound("minimum"), bound("maximum"));
    if let (Some(least), Some(most)) = (least, most)
        && least > most
    {
        table.fault("minimum", "is greater than maximum");
    }
    least.unwrap_or(1 - wire::limits::INTEGER)..=most.unwrap_or(wire::limits::INTEGER - 1)
}

/// A least and a greatest size, of which the first may not be greater.
fn span(
    table: &Table<'_>,
    schema: &mut Map<String, Value>,
    least: (&str, Option<u64>),
    most: (&str, Option<u64>),
    limit: u64,
) -> RangeInclusive<u64> {
    if let (Some(low), Some(high)) = (least.1, most.1)
        && low > high
    {
        table.fault(least.0, "is greater than the bound at the other end");
    }
    for (key, value) in [least, most] {
        if let Some(value) = value {
            schema.insert(key.to_owned(), json!(value));
        }
    }
    least.1.unwrap_or(0)..=most.1.unwrap_or(limit)
}

/// A TOML value as the JSON value of this kind.
pub(super) fn value_of(table: &Table<'_>, key: &str, kind: Kind, value: toml::Value) -> Option<Value> {
    match (kind, value) {
        (Kind::String, toml::Value::String(found)) => {
            if let Some(hidden) = text::hidden(&found) {
                table.fault(
                    key,
                    format!("has a character that is not shown, {}", hidden.escape_unicode()),
                );
                return None;
            }
            if found.chars().count() as u64 > MAX_LENGTH {
                table.fault(key, format!("has a string of more than {MAX_LENGTH} characters"));
                return None;
            }
            Some(Value::String(found))
        }
        (Kind::Integer, toml::Value::Integer(found)) => {
            if found.unsigned_abs() >= wire::limits::INTEGER.unsigned_abs() {
                table.fault(
                    key,
                    "must be below 2^53 in magnitude: readers in other languages round beyond it",
                );
                return None;
            }
            Some(json!(found))
        }
        (Kind::Boolean, toml::Value::Boolean(found)) => Some(Value::Bool(found)),
        (Kind::Array, toml::Value::Array(found)) => {
            let plain: Option<Vec<Value>> = found.into_iter().map(plain_value).collect();
            if plain.is_none() {
                table.fault(key, "must be an array of strings, integers or booleans");
            }
            plain.map(Value::Array)
        }
        (kind, other) => {
            table.fault(key, format!("must be {}, not {}", kind.article(), article(&other)));
            None
        }
    }
}

fn plain_value(value: toml::Value) -> Option<Value> {
    match value {
        toml::Value::String(found) if text::hidden(&found).is_none() => Some(Value::String(found)),
        toml::Value::Integer(found) => Some(json!(found)),
        toml::Value::Boolean(found) => Some(Value::Bool(found)),
        _ => None,
    }
}

/// A TOML array as JSON values of this kind.
pub(super) fn list_of(table: &Table<'_>, key: &str, kind: Kind, value: toml::Value) -> Vec<Value> {
    let toml::Value::Array(values) = value else {
        table.fault(key, format!("must be an array, not {}", article(&value)));
        return Vec::new();
    };
    if values.is_empty() || values.len() as u64 > MAX_ITEMS {
        table.fault(key, format!("must have 1 to {MAX_ITEMS} values"));
    }
    values
        .into_iter()
        .filter_map(|value| value_of(table, key, kind, value))
        .collect()
}
