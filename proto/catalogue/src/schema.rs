//! The schema of an action's arguments: a closed subset of JSON Schema, linted, then compiled.
//!
//! Models see it, three tiers check with it, and approvers read what it let through, so it can say only what all of them
//! understand: one object of strings, integers, booleans and arrays of these, everything bounded, nothing open. Patterns
//! run on an engine that takes linear time, and are anchored: `/bin/true` must not pass for containing `true`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jsonschema::{PatternOptions, Validator};
use regex_syntax::hir::Look;
use serde_json::{Map, Value, json};

use crate::args;
use crate::fault::Faults;
use crate::table::{Table, article};
use crate::text;

/// Longest string that an argument may be, in characters.
pub const MAX_LENGTH: u64 = 4096;
/// Most items that an array may have, and most values that an enum may list.
pub const MAX_ITEMS: u64 = 256;
/// Most arguments that an action may have.
pub const MAX_ARGUMENTS: usize = 32;
/// Longest pattern, in bytes, and the largest program that one may compile to.
const MAX_PATTERN: usize = 512;
const MAX_PATTERN_PROGRAM: usize = 1 << 20;

/// Names that a call has for itself, beside the arguments of its action.
const RESERVED: [&str; 8] = [
    "action",
    "args",
    "mode",
    "reason",
    "request_id",
    "target",
    "targets",
    "task_id",
];

/// Every keyword of the subset, to tell one that stands in the wrong place from one that is not known at all.
const KEYWORDS: [&str; 18] = [
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

/// A linted schema and what compiles from it.
#[derive(Debug, Clone)]
pub struct Schema {
    closed: Value,
    properties: BTreeMap<String, Property>,
    validator: Arc<Validator>,
}

/// What an argument is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Text of bounded length.
    String,
    /// A whole number below 2^53 in magnitude.
    Integer,
    /// True or false.
    Boolean,
    /// Several of one kind, which is not itself an array.
    Array,
}

/// One argument.
#[derive(Debug, Clone)]
pub struct Property {
    kind: Kind,
    required: bool,
    default: Option<Value>,
    choices: Option<Vec<Value>>,
    minimum: Option<i64>,
}

impl Property {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// Whether there is always a value: it is required or has a default.
    #[must_use]
    pub fn always_there(&self) -> bool {
        self.required || self.default.is_some()
    }

    /// The value where the caller gives none.
    #[must_use]
    pub fn default(&self) -> Option<&Value> {
        self.default.as_ref()
    }

    /// The finite list of values it can have, by enum or const, or because it is a boolean.
    #[must_use]
    pub fn choices(&self) -> Option<&[Value]> {
        self.choices.as_deref()
    }

    /// The least value of an integer.
    pub(crate) fn minimum(&self) -> Option<i64> {
        self.minimum
    }
}

impl Schema {
    /// The JSON Schema, closed, with all the texts: what a model is shown.
    #[must_use]
    pub fn json(&self) -> &Value {
        &self.closed
    }

    /// The arguments by name.
    #[must_use]
    pub fn properties(&self) -> &BTreeMap<String, Property> {
        &self.properties
    }

    /// The compiled check.
    pub(crate) fn validator(&self) -> &Validator {
        &self.validator
    }

    /// Reads `[args]`. An argument in `pinned` is declared as a string and sent as `{path, sha256}`.
    /// The properties come back even where faults keep the whole from compiling, so that more can be told at once.
    pub(crate) fn read(
        table: Option<Table<'_>>,
        pinned: &BTreeSet<&str>,
        faults: &Faults,
    ) -> (BTreeMap<String, Property>, Option<Schema>) {
        let before = faults.count();
        let mut read = Reading::default();
        let path = table
            .as_ref()
            .map_or_else(|| "args".to_owned(), |table| table.path().to_owned());
        if let Some(table) = table {
            read.object(table, pinned);
        }
        if faults.count() > before {
            return (read.properties, None);
        }
        let mut closed = json!({ "type": "object", "properties": read.schemas, "additionalProperties": false });
        if !read.required.is_empty() {
            closed["required"] = json!(read.required);
        }
        let validator = match compile(&closed) {
            Ok(validator) => Arc::new(validator),
            Err(what) => {
                faults.add(path, what);
                return (read.properties, None);
            }
        };
        check_samples(&validator, &read.samples, faults);
        let schema = Schema {
            closed,
            properties: read.properties.clone(),
            validator,
        };
        (read.properties, Some(schema))
    }
}

fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .with_pattern_options(PatternOptions::regex().size_limit(MAX_PATTERN_PROGRAM))
        .build(schema)
        .map_err(|error| format!("does not compile: {}", text::quoted(&error.to_string())))
}

/// Defaults and examples must themselves be accepted, or a model is shown what will be refused.
fn check_samples(validator: &Validator, samples: &[Sample], faults: &Faults) {
    for sample in samples {
        let mut object = Map::new();
        object.insert(sample.name.clone(), sample.value.clone());
        for fault in args::validate(validator, &Value::Object(object), &[]) {
            // Other required arguments are missing here, of course.
            if fault.path == sample.name {
                faults.add(
                    sample.path.clone(),
                    format!("does not fit its own schema: {}", fault.what),
                );
            }
        }
    }
}

/// A default or an example, and where it stands.
struct Sample {
    name: String,
    value: Value,
    path: String,
}

/// What has been read so far.
#[derive(Default)]
struct Reading {
    schemas: Map<String, Value>,
    properties: BTreeMap<String, Property>,
    required: Vec<String>,
    samples: Vec<Sample>,
}

impl Reading {
    fn object(&mut self, mut table: Table<'_>, pinned: &BTreeSet<&str>) {
        if table.string("type").is_some_and(|kind| kind != "object") {
            table.fault("type", "must be \"object\" here, or left out");
        }
        let required = table.strings("required").unwrap_or_default();
        let properties = table.table("properties").map(Table::tables).unwrap_or_default();
        if properties.len() > MAX_ARGUMENTS {
            table.fault("properties", format!("has more than {MAX_ARGUMENTS} arguments"));
        }
        for name in &required {
            if !properties.iter().any(|(known, _)| known == name) {
                table.fault(
                    "required",
                    format!("names \"{}\", which is not in properties", text::quoted(name)),
                );
            }
            if self.required.contains(name) {
                table.fault("required", format!("names \"{}\" twice", text::quoted(name)));
            }
            self.required.push(name.clone());
        }
        for (name, property) in properties {
            self.property(name, property, pinned);
        }
        table.finish_with(|key| match key {
            "additionalProperties" => "must be left out: unknown arguments are always refused".to_owned(),
            key if KEYWORDS.contains(&key) => "does not apply to the arguments as a whole".to_owned(),
            _ => not_in_subset(),
        });
    }

    fn property(&mut self, name: String, mut table: Table<'_>, pinned: &BTreeSet<&str>) {
        let path = table.path().to_owned();
        if !text::is_argument_name(&name) {
            table
                .faults()
                .add(&path, "must be called by 1 to 63 of a-z 0-9 _, beginning with a letter");
        }
        if RESERVED.contains(&name.as_str()) {
            table
                .faults()
                .add(&path, "must have another name: calls use this one for themselves");
        }
        let Some(kind) = kind(&mut table, true) else { return };
        let mut schema = Map::new();
        schema.insert("type".to_owned(), json!(kind.keyword()));
        texts(&mut table, &mut schema);
        let (choices, minimum) = bounds(&mut table, kind, &mut schema);
        let pin = pinned.contains(name.as_str());
        let default = table
            .take("default")
            .and_then(|value| value_of(&table, "default", kind, value));
        if let Some(default) = &default {
            if pin {
                table.fault("default", "must be left out: a pinned file has no default");
            }
            schema.insert("default".to_owned(), default.clone());
            self.samples.push(Sample {
                name: name.clone(),
                value: default.clone(),
                path: table.path_of("default"),
            });
        }
        if let Some(examples) = table.take("examples") {
            let examples = list_of(&table, "examples", kind, examples);
            if !pin {
                self.samples.extend(examples.iter().map(|value| Sample {
                    name: name.clone(),
                    value: value.clone(),
                    path: table.path_of("examples"),
                }));
            }
            schema.insert("examples".to_owned(), Value::Array(examples));
        }
        let required = self.required.contains(&name);
        if required && default.is_some() {
            table.fault("default", "has no use for an argument that is required");
        }
        table.finish_with(|key| {
            if KEYWORDS.contains(&key) {
                format!("does not apply to {}", kind.article())
            } else {
                not_in_subset()
            }
        });
        self.properties.insert(
            name.clone(),
            Property {
                kind,
                required,
                default,
                choices,
                minimum,
            },
        );
        self.schemas.insert(
            name,
            if pin {
                pinned_file(schema)
            } else {
                Value::Object(schema)
            },
        );
    }
}

/// The effective schema of a file that is approved by its content.
fn pinned_file(mut path: Map<String, Value>) -> Value {
    let description = path.remove("description");
    let mut schema = json!({
        "type": "object",
        "properties": {
            "path": path,
            "sha256": { "type": "string", "minLength": 64, "maxLength": 64, "pattern": "^[0-9a-f]{64}$" },
        },
        "required": ["path", "sha256"],
        "additionalProperties": false,
    });
    if let Some(description) = description {
        schema["description"] = description;
    }
    schema
}

impl Kind {
    fn keyword(self) -> &'static str {
        match self {
            Kind::String => "string",
            Kind::Integer => "integer",
            Kind::Boolean => "boolean",
            Kind::Array => "array",
        }
    }

    fn article(self) -> &'static str {
        match self {
            Kind::String => "a string",
            Kind::Integer => "an integer",
            Kind::Boolean => "a boolean",
            Kind::Array => "an array",
        }
    }
}

fn not_in_subset() -> String {
    "is not in the subset of JSON Schema that manifests may use".to_owned()
}

fn kind(table: &mut Table<'_>, array_allowed: bool) -> Option<Kind> {
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

/// `title` and `description`, which models read.
fn texts(table: &mut Table<'_>, schema: &mut Map<String, Value>) {
    for (key, longest) in [("title", 80), ("description", 1000)] {
        if let Some(found) = table.string(key) {
            check_shown(table, key, &found, longest);
            schema.insert(key.to_owned(), Value::String(found));
        }
    }
}

/// Notes what is wrong with a text that is shown to people and models.
pub(crate) fn check_shown(table: &Table<'_>, key: &str, found: &str, longest: usize) {
    if let Some(hidden) = text::hidden(found) {
        table.fault(
            key,
            format!("has a character that is not shown, {}", hidden.escape_unicode()),
        );
    }
    let length = found.chars().count();
    if found.trim().is_empty() || length > longest {
        table.fault(key, format!("must have 1 to {longest} characters, not {length}"));
    }
}

/// The keywords that bound a value of this kind; finite choices and the least integer are handed back.
fn bounds(table: &mut Table<'_>, kind: Kind, schema: &mut Map<String, Value>) -> (Option<Vec<Value>>, Option<i64>) {
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
fn value_of(table: &Table<'_>, key: &str, kind: Kind, value: toml::Value) -> Option<Value> {
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

fn list_of(table: &Table<'_>, key: &str, kind: Kind, value: toml::Value) -> Vec<Value> {
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
