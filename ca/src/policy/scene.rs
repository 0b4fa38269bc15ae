//! One call as policies see it: what they are asked about is put together here, once for all actions of the call.
//!
//! Built value by value: Cedar's own reader of JSON would take some objects for entities and extensions.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::LazyLock;

use cedar_policy::{Context, Entities, Entity, EntityId, EntityTypeName, EntityUid, Request, RestrictedExpression};
use serde_json::{Map, Value};
use wire::ids::{ActionName, PersonName, RelayName, TargetName};
use wire::{Mode, Risk};

use super::schema::PERSONS;
use crate::issued::Counts;

/// One call, whichever actions it is about.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// Who wants it done.
    pub person: &'a PersonName,
    /// Where.
    pub target: &'a TargetName,
    /// The target's labels, in the CA's inventory.
    pub labels: &'a BTreeMap<String, String>,
    /// Which AI client, as the relay calls it.
    pub brain: &'a str,
    /// How the person is known.
    pub proof: &'a str,
    /// Which relay asks.
    pub relay: &'a RelayName,
    /// The CA's clock, Unix seconds.
    pub now: u64,
    /// When the task was opened, Unix seconds.
    pub opened: u64,
    /// What came before.
    pub counts: Counts,
}

/// One question of the call.
#[derive(Debug, Clone, Copy)]
pub struct Ask<'a> {
    /// What.
    pub action: &'a ActionName,
    /// Its risk in its mode, in the CA's copy of the catalogue.
    pub risk: Risk,
    /// To do it, or to show it.
    pub mode: Mode,
    /// All arguments of the one request that is judged; absent where the question is about every request of the action.
    pub args: Option<&'a Map<String, Value>>,
}

/// A call, in Cedar's words.
pub(super) struct Stage {
    person: EntityUid,
    target: EntityUid,
    entities: Entities,
    context: Vec<(String, RestrictedExpression)>,
}

/// The names of the entity types, read once.
struct Types {
    group: EntityTypeName,
    person: EntityTypeName,
    action: EntityTypeName,
    target: EntityTypeName,
}

static TYPES: LazyLock<Option<Types>> = LazyLock::new(|| {
    Some(Types {
        group: "Group".parse().ok()?,
        person: "Person".parse().ok()?,
        action: "Action".parse().ok()?,
        target: "Target".parse().ok()?,
    })
});

fn types() -> Result<&'static Types, String> {
    TYPES
        .as_ref()
        .ok_or_else(|| "a name of ours is no entity type".to_owned())
}

fn uid(kind: &EntityTypeName, name: &str) -> EntityUid {
    EntityUid::from_type_name_and_id(kind.clone(), EntityId::new(name))
}

/// The entity of an action.
pub(super) fn action(name: &ActionName) -> Option<EntityUid> {
    Some(uid(&types().ok()?.action, name.as_str()))
}

impl Stage {
    pub(super) fn new(call: &Circumstances<'_>) -> Result<Self, String> {
        let types = types()?;
        let persons = uid(&types.group, PERSONS);
        let person = uid(&types.person, call.person.as_str());
        let target = uid(&types.target, call.target.as_str());
        let labels = call.labels.iter().map(|(k, v)| (k.clone(), string(v)));
        let labels = RestrictedExpression::new_record(labels).map_err(|e| e.to_string())?;
        let attributes = HashMap::from([("labels".to_owned(), labels)]);
        let entities = Entities::from_entities(
            [
                Entity::with_uid(persons.clone()),
                Entity::new_no_attrs(person.clone(), HashSet::from([persons])),
                Entity::new(target.clone(), attributes, HashSet::new()).map_err(|e| e.to_string())?,
            ],
            None,
        )
        .map_err(|e| e.to_string())?;
        let context = [
            ("brain", string(call.brain)),
            ("proof", string(call.proof)),
            ("relay", string(call.relay.as_str())),
            (
                "time",
                RestrictedExpression::new_datetime(audit::rfc3339(call.now.saturating_mul(1000))),
            ),
            ("weekday", long(weekday(call.now))),
            ("task_age_s", long(call.now.saturating_sub(call.opened))),
            ("counts", counts(call.counts)?),
        ];
        Ok(Self {
            person,
            target,
            entities,
            context: context
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        })
    }

    pub(super) fn ask(&self, ask: &Ask<'_>) -> Result<Request, String> {
        let mut context = self.context.clone();
        context.push(("risk".to_owned(), string(ask.risk.as_str())));
        context.push(("mode".to_owned(), string(ask.mode.as_str())));
        if let Some(args) = ask.args {
            context.push(("args".to_owned(), record(args)?));
        }
        let context = Context::from_pairs(context).map_err(|e| e.to_string())?;
        let action = uid(&types()?.action, ask.action.as_str());
        Request::new(self.person.clone(), action, self.target.clone(), context, None).map_err(|e| e.to_string())
    }

    pub(super) fn entities(&self) -> &Entities {
        &self.entities
    }
}

/// 1 is Monday, 7 is Sunday, in UTC. The first of January 1970 was a Thursday.
fn weekday(now: u64) -> u64 {
    (now / 86_400 + 3) % 7 + 1
}

fn counts(counts: Counts) -> Result<RestrictedExpression, String> {
    let fields = [
        ("task_requests", counts.task_requests),
        ("task_targets", counts.task_targets),
        ("person_requests", counts.person_requests),
        ("person_targets", counts.person_targets),
    ];
    let fields = fields.map(|(name, count)| (name.to_owned(), long(count)));
    RestrictedExpression::new_record(fields).map_err(|e| e.to_string())
}

fn string(text: &str) -> RestrictedExpression {
    RestrictedExpression::new_string(text.to_owned())
}

fn long(number: u64) -> RestrictedExpression {
    RestrictedExpression::new_long(i64::try_from(number).unwrap_or(i64::MAX))
}

/// Arguments as Cedar sees them: text, whole numbers, booleans and records as they are, a list as the set of its items.
fn record(args: &Map<String, Value>) -> Result<RestrictedExpression, String> {
    let fields: Result<Vec<_>, String> = args
        .iter()
        .map(|(name, value)| Ok((name.clone(), expression(value)?)))
        .collect();
    RestrictedExpression::new_record(fields?).map_err(|e| e.to_string())
}

fn expression(value: &Value) -> Result<RestrictedExpression, String> {
    Ok(match value {
        Value::Bool(value) => RestrictedExpression::new_bool(*value),
        Value::String(text) => string(text),
        Value::Number(number) => {
            RestrictedExpression::new_long(number.as_i64().ok_or("an argument that is no whole number")?)
        }
        Value::Array(items) => {
            RestrictedExpression::new_set(items.iter().map(expression).collect::<Result<Vec<_>, _>>()?)
        }
        Value::Object(fields) => record(fields)?,
        Value::Null => return Err("an argument that is null".to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weekdays_are_those_of_the_calendar() {
        // date -u -d @N +%u
        for (seconds, day) in [(0, 4), (86_399, 4), (86_400, 5), (1_800_000_000, 5), (1_735_689_599, 2)] {
            assert_eq!(weekday(seconds), day, "{seconds}");
        }
    }
}
