//! The names in a policy that Cedar's validator leaves alone, although nothing has them.
//!
//! To Cedar a `has` of something that is never there is simply false, any id is a good id of a person, and any text may be
//! compared with a risk. Here each is a fault: `forbid (…) when { resource.labels has enviroment }` would never forbid.
//! What is written so that its shape hides what it reads (an attribute of an `if`, say) is left to the validator.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use cedar_policy::{ActionConstraint, EntityUid, Policy};
use serde_json::Value;
use wire::ids::{PersonName, RelayName, TargetName};
use wire::{Mode, Proof, Risk};

use super::schema::World;

/// What `context` has; what `args` has is the manifest's to say.
const CONTEXT: [&str; 10] = [
    "brain",
    "proof",
    "relay",
    "risk",
    "mode",
    "time",
    "weekday",
    "task_age_s",
    "counts",
    "args",
];

/// A name that stands for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stray {
    /// How bad that is.
    pub(super) weight: Weight,
    /// What is wrong.
    pub(super) what: String,
    /// What to do.
    pub(super) next: String,
}

/// Whether a stray name keeps a policy from being in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Weight {
    /// It can never stand for anything.
    Fault,
    /// It stands for nothing now: a person who left, a target that is to come.
    Note,
}

/// Everything in a policy that names nothing.
pub(super) fn strays(policy: &Policy, json: &Value, world: &World<'_>) -> Vec<Stray> {
    let mut found = Vec::new();
    let mut entities: Vec<EntityUid> = policy.entity_literals();
    entities.sort_by_key(ToString::to_string);
    entities.dedup();
    for entity in &entities {
        found.extend(stray_entity(entity, world));
    }
    let mut walk = Walk {
        world,
        args: arguments(policy, world),
        found,
    };
    walk.expression(json.get("conditions").unwrap_or(&Value::Null));
    let mut found = walk.found;
    found.dedup();
    found
}

/// An id that no name can have, or that nobody has now. Actions and groups are the validator's.
fn stray_entity(entity: &EntityUid, world: &World<'_>) -> Option<Stray> {
    let id = entity.id().unescaped();
    match entity.type_name().to_string().as_str() {
        "Person" => named::<PersonName>("person", id, "ca.toml", |name| world.persons.contains(name)),
        "Target" => named::<TargetName>("target", id, "the CA's inventory", |name| world.targets.contains(name)),
        _ => None,
    }
}

fn named<T>(what: &str, id: &str, place: &str, known: impl Fn(&T) -> bool) -> Option<Stray>
where
    T: std::str::FromStr<Err: Display>,
{
    match id.parse::<T>() {
        Ok(name) if known(&name) => None,
        Ok(_) => Some(Stray {
            weight: Weight::Note,
            what: format!("there is no {what} \"{id}\" in {place}"),
            next: format!("correct the name, or take it out: nothing that it says is about any {what}"),
        }),
        Err(error) => Some(Stray {
            weight: Weight::Fault,
            what: format!("\"{id}\" is the name of no {what}: {error}"),
            next: "write the name as it stands in the configuration: letters that only look like it are others"
                .to_owned(),
        }),
    }
}

/// The arguments of the actions that the policy's scope leaves, each with the texts that it can have where they are few.
fn arguments(policy: &Policy, world: &World<'_>) -> BTreeMap<String, Option<BTreeSet<String>>> {
    let scope: Option<BTreeSet<String>> = match policy.action_constraint() {
        ActionConstraint::Any => None,
        ActionConstraint::Eq(one) => Some([one.id().unescaped().to_owned()].into()),
        ActionConstraint::In(several) => Some(several.iter().map(|uid| uid.id().unescaped().to_owned()).collect()),
    };
    let within = |name: &str| scope.as_ref().is_none_or(|scope| scope.contains(name));
    let entries = world.catalogue.iter().filter(|(name, _)| within(name.as_str()));
    let mut arguments: BTreeMap<String, Option<BTreeSet<String>>> = BTreeMap::new();
    for (name, property) in entries.flat_map(|(_, entry)| entry.manifest().schema().properties()) {
        let texts: Option<BTreeSet<String>> = property
            .choices()
            .map(|values| values.iter().filter_map(Value::as_str).map(str::to_owned).collect());
        arguments
            .entry(name.clone())
            .and_modify(|known| match (known.as_mut(), &texts) {
                (Some(known), Some(more)) => known.extend(more.iter().cloned()),
                _ => *known = None,
            })
            .or_insert(texts);
    }
    arguments
}

struct Walk<'a> {
    world: &'a World<'a>,
    args: BTreeMap<String, Option<BTreeSet<String>>>,
    found: Vec<Stray>,
}

impl Walk<'_> {
    /// Every expression within, in Cedar's JSON form.
    fn expression(&mut self, json: &Value) {
        match json {
            Value::Array(items) => items.iter().for_each(|item| self.expression(item)),
            Value::Object(map) => {
                for (operator, operands) in map {
                    match operator.as_str() {
                        "." | "has" => self.attribute(operands),
                        "==" | "!=" => {
                            let (left, right) = (&operands["left"], &operands["right"]);
                            self.compared(left, right);
                            self.compared(right, left);
                        }
                        "contains" => {
                            let listed = operands["left"]["Set"].as_array().cloned().unwrap_or_default();
                            for item in &listed {
                                self.compared(&operands["right"], item);
                            }
                        }
                        _ => {}
                    }
                    self.expression(operands);
                }
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
        }
    }

    /// An attribute that is read or asked for.
    fn attribute(&mut self, operands: &Value) {
        let Some(mut path) = path(&operands["left"]) else {
            return;
        };
        match &operands["attr"] {
            Value::String(name) => path.push(name.clone()),
            // `context has args.path`
            Value::Array(names) => path.extend(names.iter().filter_map(Value::as_str).map(str::to_owned)),
            _ => return,
        }
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let stray = match path.as_slice() {
            ["principal", name, ..] => unknown(
                "a person",
                name,
                &[],
                "compare the person itself: principal == Person::\"…\"",
            ),
            ["resource", name, ..] if *name != "labels" => {
                unknown("a target", name, &["labels".to_owned()], "write resource.labels")
            }
            ["resource", "labels", key, ..] if !self.world.labels.contains(*key) => {
                let known: Vec<String> = self.world.labels.iter().cloned().collect();
                let next = "correct it, enroll a target that has it, or declare it: labels = [\"…\"] in ca.toml";
                unknown("no target, of the labels,", key, &known, next)
            }
            ["context", name, ..] if !CONTEXT.contains(name) => {
                unknown("context", name, &CONTEXT.map(str::to_owned), "correct it")
            }
            ["context", "args", name, ..] if !self.args.contains_key(*name) => {
                let known: Vec<String> = self.args.keys().cloned().collect();
                unknown(
                    "no action of this policy, of its arguments,",
                    name,
                    &known,
                    "correct it",
                )
            }
            _ => return,
        };
        self.found.push(stray);
    }

    /// A text that is compared with something that has only so many.
    fn compared(&mut self, left: &Value, right: &Value) {
        let Some(text) = right["Value"].as_str() else { return };
        let Some(path) = path(left) else { return };
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        let (what, known) = match path.as_slice() {
            ["context", "risk"] => (
                "risk",
                [Risk::Read, Risk::Change, Risk::Destroy].map(Risk::as_str).to_vec(),
            ),
            ["context", "mode"] => ("mode", [Mode::Run, Mode::DryRun].map(Mode::as_str).to_vec()),
            ["context", "proof"] => {
                let proofs = [Proof::Relay, Proof::Token, Proof::Signature];
                ("proof", proofs.map(Proof::as_str).to_vec())
            }
            ["context", "relay"] => {
                let stray = named::<RelayName>("relay", text, "ca.toml", |name| self.world.relays.contains(name));
                self.found.extend(stray);
                return;
            }
            ["context", "args", name] => {
                self.found.extend(self.never_sent(name, text));
                return;
            }
            _ => return,
        };
        if !known.contains(&text) {
            self.found.push(Stray {
                weight: Weight::Fault,
                what: format!("\"{text}\" is no {what}"),
                next: format!("write one of {}", known.join(", ")),
            });
        }
    }
}

impl Walk<'_> {
    /// A text that no request has there: its manifest has others. Catalogues change more often than policies, so that this is
    /// for the owner to look at.
    fn never_sent(&self, argument: &str, text: &str) -> Option<Stray> {
        let known = self.args.get(argument)?.as_ref()?;
        let shown: Vec<String> = known.iter().take(8).map(|known| format!("\"{known}\"")).collect();
        (!known.contains(text)).then(|| Stray {
            weight: Weight::Note,
            what: format!("no action of this policy takes \"{text}\" as `{argument}`"),
            next: format!("write one of {}", shown.join(", ")),
        })
    }
}

fn unknown(owner: &str, name: &str, known: &[String], next: &str) -> Stray {
    let known = match known {
        [] => "there are none".to_owned(),
        known => format!("there are {}", known.join(", ")),
    };
    let what = match owner.strip_prefix("no ") {
        Some(owner) => format!("no {owner} has `{name}`; {known}"),
        None => format!("{owner} has no `{name}`; {known}"),
    };
    Stray {
        weight: Weight::Fault,
        what,
        next: next.to_owned(),
    }
}

/// `context.args.path` as its parts. An entity that is written out stands for its kind.
fn path(json: &Value) -> Option<Vec<String>> {
    if let Some(var) = json["Var"].as_str() {
        return Some(vec![var.to_owned()]);
    }
    let entity = &json["Value"]["__entity"]["type"];
    match entity.as_str() {
        Some("Person") => return Some(vec!["principal".to_owned()]),
        Some("Target") => return Some(vec!["resource".to_owned()]),
        _ => {}
    }
    let access = json.get(".")?;
    let mut path = path(&access["left"])?;
    path.push(access["attr"].as_str()?.to_owned());
    Some(path)
}
