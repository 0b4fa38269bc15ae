//! What a policy may speak of, as a Cedar schema: made from the catalogue, the inventory and the configuration.
//!
//! A policy is checked against it, strictly, before it is in force: an action, an argument or a label that is not there and a
//! comparison of two types are faults, and not a `forbid` that never forbids. Nobody writes it: `writ-ca policy schema`
//! prints it.
//!
//! - Every action has its own `context`, and in it the `args` of its own manifest. They are not optional: where a request is
//!   judged they are there, and an action about whose arguments any policy speaks is judged in no other way. An argument
//!   that a caller may leave out, and that has no default, is optional.
//! - Labels are optional strings: one for each key that some target has or the configuration declares. Strict validation
//!   makes a policy ask (`has`) before it reads, so that no change of the inventory can make a policy fail that is in
//!   force.

use std::collections::BTreeSet;

use catalogue::{Catalogue, Inventory, Manifest};
use cedar_policy::{Schema, SchemaFragment};
use serde_json::{Map, Value, json};
use wire::ids::{PersonName, RelayName, TargetName};

use crate::config::Config;

/// The one group: every person of the configuration is in it.
pub const PERSONS: &str = "persons";

/// What exists.
#[derive(Debug, Clone)]
pub struct World<'a> {
    /// The CA's copy of what can be asked for.
    pub catalogue: &'a Catalogue,
    /// Keys of labels.
    pub labels: BTreeSet<String>,
    /// Everybody whom some relay may speak for.
    pub persons: BTreeSet<PersonName>,
    /// Every target of the inventory.
    pub targets: BTreeSet<TargetName>,
    /// Every relay.
    pub relays: BTreeSet<RelayName>,
}

impl<'a> World<'a> {
    /// The world of a CA.
    #[must_use]
    pub fn new(config: &Config, catalogue: &'a Catalogue, inventory: &Inventory) -> Self {
        Self {
            catalogue,
            labels: labels(config, inventory),
            persons: config.persons().into_iter().cloned().collect(),
            targets: inventory.iter().map(|target| target.name().clone()).collect(),
            relays: config.relays.iter().map(|relay| relay.name.clone()).collect(),
        }
    }
}

/// The label keys that a policy may name: those that some target has, and those that the configuration declares.
#[must_use]
pub fn labels(config: &Config, inventory: &Inventory) -> BTreeSet<String> {
    let found = inventory.iter().flat_map(|target| target.labels().keys().cloned());
    let declared = config.labels.iter().map(|key| key.as_str().to_owned());
    declared.chain(found).collect()
}

/// The schema, to check policies with.
///
/// # Errors
/// What Cedar does not understand of it: a fault of ours.
pub(super) fn schema(world: &World<'_>) -> Result<Schema, String> {
    Schema::from_json_value(json(world)).map_err(|error| error.to_string())
}

/// The schema as people and their tools read it.
///
/// # Errors
/// What Cedar does not understand of it: a fault of ours.
pub fn text(world: &World<'_>) -> Result<String, String> {
    let fragment = SchemaFragment::from_json_value(json(world)).map_err(|error| error.to_string())?;
    fragment.to_cedarschema().map_err(|error| error.to_string())
}

fn json(world: &World<'_>) -> Value {
    let labels: Map<String, Value> = world
        .labels
        .iter()
        .map(|key| (key.clone(), optional(json!({ "type": "String" }))))
        .collect();
    let actions: Map<String, Value> = world
        .catalogue
        .iter()
        .map(|(name, entry)| (name.to_string(), action(entry.manifest())))
        .collect();
    json!({ "": {
        "entityTypes": {
            "Group": { "enum": [PERSONS] },
            "Person": { "memberOfTypes": ["Group"] },
            "Target": { "shape": record(&json!({ "labels": record(&Value::Object(labels)) })) },
        },
        "actions": actions,
    } })
}

fn action(manifest: &Manifest) -> Value {
    let counts = ["task_requests", "task_targets", "person_requests", "person_targets"];
    let counts: Map<String, Value> = counts
        .into_iter()
        .map(|name| (name.to_owned(), json!({ "type": "Long" })))
        .collect();
    let context = json!({
        "brain": { "type": "String" },
        "proof": { "type": "String" },
        "relay": { "type": "String" },
        "risk": { "type": "String" },
        "mode": { "type": "String" },
        "time": { "type": "Extension", "name": "datetime" },
        "weekday": { "type": "Long" },
        "task_age_s": { "type": "Long" },
        "counts": record(&Value::Object(counts)),
        "args": args(manifest),
    });
    json!({ "appliesTo": {
        "principalTypes": ["Person"],
        "resourceTypes": ["Target"],
        "context": record(&context),
    } })
}

fn args(manifest: &Manifest) -> Value {
    let declared = manifest.input_schema();
    let fields: Map<String, Value> = manifest
        .schema()
        .properties()
        .iter()
        .map(|(name, property)| {
            let kind = kind(&declared["properties"][name]);
            let kind = if property.always_there() { kind } else { optional(kind) };
            (name.clone(), kind)
        })
        .collect();
    record(&Value::Object(fields))
}

/// The type of an argument, by what the manifest's JSON Schema says of it.
fn kind(declared: &Value) -> Value {
    match declared["type"].as_str() {
        Some("integer") => json!({ "type": "Long" }),
        Some("boolean") => json!({ "type": "Boolean" }),
        // A list is seen as the set of its items.
        Some("array") => json!({ "type": "Set", "element": kind(&declared["items"]) }),
        // A file that is approved by its content.
        Some("object") => record(&json!({ "path": { "type": "String" }, "sha256": { "type": "String" } })),
        _ => json!({ "type": "String" }),
    }
}

fn record(attributes: &Value) -> Value {
    json!({ "type": "Record", "attributes": attributes })
}

fn optional(mut kind: Value) -> Value {
    kind["required"] = Value::Bool(false);
    kind
}
