//! `[args]`: the one object, and each argument of it.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::rule::Rule;
use super::value::{KEYWORDS, kind, list_of, not_in_subset, rule, value_of};
use super::{MAX_ARGUMENTS, Property};
use crate::table::Table;
use crate::text;

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

/// A default or an example, and where it stands.
pub(super) struct Sample {
    pub(super) name: String,
    pub(super) value: Value,
    pub(super) path: String,
}

/// What has been read so far.
#[derive(Default)]
pub(super) struct Reading {
    pub(super) schemas: Map<String, Value>,
    pub(super) properties: BTreeMap<String, Property>,
    pub(super) required: Vec<String>,
    pub(super) samples: Vec<Sample>,
}

impl Reading {
    /// Reads `[args]`.
    pub(super) fn object(&mut self, mut table: Table<'_>, pinned: &BTreeSet<&str>) {
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
        let pin = pinned.contains(name.as_str());
        let rule = match rule(&mut table, kind, &mut schema) {
            Rule::One(path) if pin => Rule::Pinned { path },
            rule => rule,
        };
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
                rule,
                required,
                default,
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

/// `title` and `description`, which models read.
pub(super) fn texts(table: &mut Table<'_>, schema: &mut Map<String, Value>) {
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
