//! What bounds one value, and TOML values as the JSON values that they stand for.

use regex_syntax::hir::Look;
use serde_json::{Map, Value, json};

use super::object::texts;
use super::{Kind, MAX_ITEMS, MAX_LENGTH};
use crate::table::{Table, article};
use crate::text;

/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 512;

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

/// The keywords that bound a value of this kind; finite choices and the least integer are handed back.
pub(super) fn bounds(
    table: &mut Table<'_>,
    kind: Kind,
    schema: &mut Map<String, Value>,
) -> (Option<Vec<Value>>, Option<i64>) {
    let mut choices = if kind == Kind::Boolean {
        Some(vec![json!(false), json!(true)])
    } else {
        None
    };
    if kind != Kind::Array {
        if let Some(value) = table.take("enum") {
            let values = list_of(table, "enum", kind, value);
            if values
                .iter()
                .enumerate()
                .any(|(at, value)| values.iter().take(at).any(|earlier| earlier == value))
            {
                table.fault("enum", "lists a value twice");
            }
            schema.insert("enum".to_owned(), Value::Array(values.clone()));
            choices = Some(values);
        }
        if let Some(value) = table
            .take("const")
            .and_then(|value| value_of(table, "const", kind, value))
        {
            schema.insert("const".to_owned(), value.clone());
            choices = Some(vec![value]);
        }
    }
    let mut minimum = None;
    match kind {
        Kind::Boolean => {}
        Kind::Integer => {
            minimum = range(table, "minimum", "maximum", schema);
            if let Some(choices) = &choices {
                minimum = choices.iter().filter_map(Value::as_i64).min();
            }
        }
        Kind::String => string_bounds(table, schema, choices.is_some()),
        Kind::Array => array_bounds(table, schema),
    }
    (choices, minimum)
}

fn string_bounds(table: &mut Table<'_>, schema: &mut Map<String, Value>, finite: bool) {
    let before = table.faults().count();
    let least = table.integer("minLength", 0, MAX_LENGTH);
    let most = table.integer("maxLength", 1, MAX_LENGTH);
    if most.is_none() && !finite && table.faults().count() == before {
        table.fault(
            "maxLength",
            format!("is missing: a string needs a maxLength of at most {MAX_LENGTH}, or an enum"),
        );
    }
    ordered(table, "minLength", least, most);
    keep(schema, "minLength", least);
    keep(schema, "maxLength", most);
    if let Some(pattern) = table.string("pattern") {
        if let Err(what) = check_pattern(&pattern) {
            table.fault("pattern", what);
        }
        schema.insert("pattern".to_owned(), Value::String(pattern));
    }
}

fn array_bounds(table: &mut Table<'_>, schema: &mut Map<String, Value>) {
    let least = table.integer("minItems", 0, MAX_ITEMS);
    let most = table.demand_integer("maxItems", 1, MAX_ITEMS);
    ordered(table, "minItems", least, most);
    keep(schema, "minItems", least);
    keep(schema, "maxItems", most);
    if let Some(unique) = table.boolean("uniqueItems") {
        schema.insert("uniqueItems".to_owned(), Value::Bool(unique));
    }
    let before = table.faults().count();
    let items = table.table("items");
    let Some(mut items) = table.demand("items", items, before) else {
        return;
    };
    let Some(kind) = kind(&mut items, false) else { return };
    let mut inner = Map::new();
    inner.insert("type".to_owned(), json!(kind.keyword()));
    texts(&mut items, &mut inner);
    bounds(&mut items, kind, &mut inner);
    items.finish_with(|key| match key {
        "default" | "examples" => "does not apply to the items of an array".to_owned(),
        key if KEYWORDS.contains(&key) => format!("does not apply to {}", kind.article()),
        _ => not_in_subset(),
    });
    schema.insert("items".to_owned(), Value::Object(inner));
}

/// Two integers of which the first may not be greater; the first is handed back.
fn range(table: &mut Table<'_>, low: &str, high: &str, schema: &mut Map<String, Value>) -> Option<i64> {
    let mut bound = |key: &str| {
        let value = table.take(key)?;
        let value = value_of(table, key, Kind::Integer, value)?;
        schema.insert(key.to_owned(), value.clone());
        value.as_i64()
    };
    let (least, most) = (bound(low), bound(high));
    if let (Some(least), Some(most)) = (least, most)
        && least > most
    {
        table.fault(low, format!("is greater than {high}"));
    }
    least
}

fn ordered(table: &Table<'_>, low: &str, least: Option<u64>, most: Option<u64>) {
    if let (Some(least), Some(most)) = (least, most)
        && least > most
    {
        table.fault(low, "is greater than the bound at the other end");
    }
}

fn keep(schema: &mut Map<String, Value>, key: &str, value: Option<u64>) {
    if let Some(value) = value {
        schema.insert(key.to_owned(), json!(value));
    }
}

/// A pattern must be anchored at both ends in every alternative, and its engine must take it.
fn check_pattern(pattern: &str) -> Result<(), String> {
    if pattern.len() > MAX_PATTERN {
        return Err(format!("is longer than {MAX_PATTERN} bytes"));
    }
    if let Some(hidden) = text::hidden(pattern) {
        return Err(format!(
            "has a character that is not shown, {}",
            hidden.escape_unicode()
        ));
    }
    let parsed = regex_syntax::parse(pattern)
        .map_err(|_| "is not understood by the linear-time engine (no look-around, no back-references)".to_owned())?;
    let at = parsed.properties();
    if at.look_set_prefix().contains(Look::Start) && at.look_set_suffix().contains(Look::End) {
        Ok(())
    } else {
        Err("must be anchored: ^ at the start and $ at the end of every alternative, as in ^(?:a|b)$".to_owned())
    }
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
