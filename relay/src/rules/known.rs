//! The deny rules beside what there is: a rule that names what is nowhere protects nothing, so it is a fault.

use std::collections::BTreeSet;

use catalogue::schema::{Kind, Property};
use catalogue::{Catalogue, Inventory, Manifest};
use serde_json::Value;
use wire::Risk;
use wire::ids::PersonName;

use super::{Condition, RelayMode, Rule, Rules, fold};
use crate::config::Fault;

/// What rules may speak of.
#[derive(Debug, Clone, Copy)]
pub struct Known<'a> {
    /// Who may call.
    pub persons: &'a [(u32, PersonName)],
    /// The targets.
    pub inventory: &'a Inventory,
    /// The actions.
    pub catalogue: &'a Catalogue,
}

impl Rules {
    /// Rules that speak only of what is known.
    ///
    /// # Errors
    /// Every fault of every rule.
    pub fn new(mode: RelayMode, deny: Vec<Rule>, known: &Known<'_>) -> Result<Self, Vec<Fault>> {
        let mut faults = Vec::new();
        for rule in &deny {
            let mut note = |key: &str, what: &str| faults.push(Fault::new(format!("deny {}: {key}: {what}", rule.id)));
            rule.check(known, &mut note);
        }
        if faults.is_empty() {
            Ok(Self { mode, deny })
        } else {
            Err(faults)
        }
    }
}

impl Rule {
    fn check(&self, known: &Known<'_>, note: &mut dyn FnMut(&str, &str)) {
        let persons: BTreeSet<&PersonName> = known.persons.iter().map(|(_, name)| name).collect();
        each(note, "persons", &self.persons, "is no [[person]]", |person| {
            persons.contains(person)
        });
        each(note, "targets", &self.targets, "is not in the inventory", |target| {
            known.inventory.find(target.as_str()).is_some()
        });
        each(note, "actions", &self.actions, "is not in the catalogue", |action| {
            known.catalogue.find(action).is_some()
        });
        for (key, values) in &self.labels {
            let has = |value: &&String| {
                known
                    .inventory
                    .iter()
                    .any(|target| target.labels().get(key) == Some(*value))
            };
            if !values.iter().all(|value| has(&value)) {
                let at = format!("labels.{}", wire::text::escaped(key, 64));
                note(&at, "has a value that no target of the inventory has");
            }
        }
        let manifests: Vec<&Manifest> = self
            .actions
            .iter()
            .filter_map(|action| Some(known.catalogue.find(action)?.manifest()))
            .collect();
        let can_have = |risk: &Risk| {
            let tried = |manifest: &Manifest| manifest.dry_run().map(|dry_run| dry_run.risk);
            manifests
                .iter()
                .any(|manifest| manifest.risk() == *risk || tried(manifest) == Some(*risk))
        };
        if !manifests.is_empty() && !self.risk.is_empty() && !self.risk.iter().any(can_have) {
            note("risk", "is that of none of its actions");
        }
        for (name, condition) in &self.args {
            let at = format!("args.{}", wire::text::escaped(name, 64));
            for manifest in &manifests {
                let what = match manifest.schema().properties().get(name) {
                    Some(property) => condition.fault(property, manifest.files().contains_key(name)),
                    None => Some("is no argument of it".to_owned()),
                };
                if let Some(what) = what {
                    note(&at, &format!("{what} (action {})", manifest.name()));
                }
            }
        }
    }
}

/// Notes each of a rule's values that is not there, by its place.
fn each<T>(note: &mut dyn FnMut(&str, &str), key: &str, values: &[T], what: &str, is_there: impl Fn(&T) -> bool) {
    for (at, value) in values.iter().enumerate() {
        if !is_there(value) {
            note(&format!("{key}[{at}]"), what);
        }
    }
}

impl Condition {
    /// Why no value that the argument can have fits, or not all fit that are meant.
    fn fault(&self, property: &Property, is_file: bool) -> Option<String> {
        let is_text = property.kind_of_one() == Kind::String;
        match self {
            Self::Is(_) | Self::StartsWith(_) if is_file => Some("is a path: say { beneath = … }".to_owned()),
            Self::Is(values) => {
                let can_be = values.iter().all(|value| property.is_one(value));
                (!can_be).then(|| "has a value that the argument cannot have".to_owned())
            }
            Self::Beneath(_) if !is_file => Some("is no path: say values or { starts_with = … }".to_owned()),
            Self::StartsWith(_) if !is_text => Some("is no text: say values".to_owned()),
            Self::StartsWith(beginnings) => {
                let choices = property.choices()?;
                let begins = |beginning: &String| {
                    let texts = choices.iter().filter_map(Value::as_str);
                    texts.into_iter().any(|text| fold(text).starts_with(&fold(beginning)))
                };
                let all = beginnings.iter().all(begins);
                (!all).then(|| "begins like no value that the argument can have".to_owned())
            }
            Self::Beneath(_) => None,
        }
    }
}
