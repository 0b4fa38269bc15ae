//! The schema of an action's arguments: a closed subset of JSON Schema, linted, then compiled.
//!
//! Models see it, three tiers check with it, and approvers read what it let through, so it can say only what all of them
//! understand: one object of strings, integers, booleans and arrays of these, everything bounded, nothing open. Patterns
//! run on an engine that takes linear time, and are anchored: `/bin/true` must not pass for containing `true`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jsonschema::{PatternOptions, Validator};
use serde_json::{Map, Value, json};

use crate::args;
use crate::fault::Faults;
use crate::table::Table;
use crate::text;

mod object;
mod value;

pub(crate) use object::check_shown;
use object::{Reading, Sample};

/// Longest string that an argument may be, in characters.
pub const MAX_LENGTH: u64 = 4096;
/// Most items that an array may have, and most values that an enum may list.
pub const MAX_ITEMS: u64 = 256;
/// Most arguments that an action may have.
pub const MAX_ARGUMENTS: usize = 32;
/// The largest program that a pattern may compile to.
const MAX_PATTERN_PROGRAM: usize = 1 << 20;

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
