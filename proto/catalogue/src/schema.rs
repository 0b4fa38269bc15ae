//! The schema of an action's arguments: a closed subset of JSON Schema, linted, and checked against by rules of our own.
//!
//! Models see it, three tiers check with it, and approvers read what it let through, so it can say only what all of them
//! understand: one object of strings, integers, booleans and arrays of these, everything bounded, nothing open. Patterns
//! run on an engine that takes linear time, and are anchored: `/bin/true` must not pass for containing `true`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use crate::args::ArgFault;
use crate::fault::Faults;
use crate::table::Table;

mod object;
mod pattern;
mod rule;
mod value;

pub(crate) use object::check_shown;
use object::{Reading, Sample};
use rule::Rule;

/// Longest string that an argument may be, in characters.
pub const MAX_LENGTH: u64 = 4096;
/// Most items that an array may have, and most values that an enum may list.
pub const MAX_ITEMS: u64 = 256;
/// Most arguments that an action may have.
pub const MAX_ARGUMENTS: usize = 32;

/// A linted schema, and the rules that are the same in another form.
#[derive(Debug, Clone)]
pub struct Schema {
    closed: Value,
    properties: BTreeMap<String, Property>,
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
    rule: Rule,
    required: bool,
    default: Option<Value>,
}

impl Property {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.rule.kind()
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
        self.rule.choices()
    }

    /// What one value of it is: of an array an item.
    #[must_use]
    pub fn kind_of_one(&self) -> Kind {
        self.rule.single().kind()
    }

    /// Whether one value of it can be this: of an array an item, of a pinned file its path.
    #[must_use]
    pub fn is_one(&self, value: &Value) -> bool {
        let mut faults = Vec::new();
        self.rule.single().check("", value, &mut faults);
        faults.is_empty()
    }

    /// The least value of an integer.
    pub(crate) fn minimum(&self) -> Option<i64> {
        self.rule.minimum()
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

    /// Everything that is wrong with arguments: first with those that are there, then those that are missing, by name.
    pub(crate) fn check(&self, args: &Map<String, Value>) -> Vec<ArgFault> {
        let mut faults = Vec::new();
        for (name, value) in args {
            match self.properties.get(name) {
                Some(property) => property.rule.check(name, value, &mut faults),
                None => faults.push(rule::unknown("", name, self.properties.keys().map(String::as_str))),
            }
        }
        let missing = |(name, property): &(&String, &Property)| property.required && !args.contains_key(*name);
        faults.extend(
            self.properties
                .iter()
                .filter(missing)
                .map(|(name, _)| rule::missing("", name)),
        );
        faults
    }

    /// Reads `[args]`. An argument in `pinned` is declared as a string and sent as `{path, sha256}`.
    /// The properties come back even where faults keep the whole from being used, so that more can be told at once.
    pub(crate) fn read(
        table: Option<Table<'_>>,
        pinned: &BTreeSet<&str>,
        faults: &Faults,
    ) -> (BTreeMap<String, Property>, Option<Schema>) {
        let before = faults.count();
        let mut read = Reading::default();
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
        check_samples(&read.properties, &read.samples, faults);
        let schema = Schema {
            closed,
            properties: read.properties.clone(),
        };
        (read.properties, Some(schema))
    }
}

/// Defaults and examples must themselves be accepted, or a model is shown what will be refused.
fn check_samples(properties: &BTreeMap<String, Property>, samples: &[Sample], faults: &Faults) {
    for sample in samples {
        let mut found = Vec::new();
        if let Some(property) = properties.get(&sample.name) {
            property.rule.check("", &sample.value, &mut found);
        }
        for ArgFault { path, what } in found {
            let item = if path.is_empty() {
                path
            } else {
                format!("item {path}: ")
            };
            faults.add(
                sample.path.clone(),
                format!("does not fit its own schema: {item}{what}"),
            );
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
