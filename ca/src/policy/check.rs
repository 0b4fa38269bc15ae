//! What is allowed to stand in a policy and is most likely not meant: that it can never match, that it allows everything,
//! that it can fail, that it names nobody.

use cedar_policy::{ActionConstraint, Effect, PolicySet, PrincipalConstraint, ResourceConstraint, ValidationWarning};
use serde_json::{Value, json};
use wire::ids::ActionName;

use super::fault::Fault;
use super::load::{in_order, validate, without_policy};
use super::schema::World;
use super::{Facts, Policy};

impl Policy {
    /// Everything in policies that could be loaded that their owner should look at, by line.
    #[must_use]
    pub fn findings(&self, world: &World<'_>) -> Vec<Fault> {
        let mut found = self.notes.clone();
        if let Ok(result) = validate(&self.set, world) {
            for warning in result.validation_warnings() {
                let Some(facts) = self.facts.get(warning.policy_id()) else {
                    continue;
                };
                found.push(doubtful(warning, facts));
            }
        }
        for policy in self.set.policies() {
            let Some(facts) = self.facts.get(policy.id()) else {
                continue;
            };
            let mut note = |what: &str, next: &str| found.push(facts.fault(what.to_owned(), Some(next.to_owned())));
            if !facts.named {
                note(
                    "it has no @id, and another name when a policy is put before it",
                    "give it one: records and refusals name it",
                );
            }
            let Ok(json) = policy.to_json() else { continue };
            if allows_everything(policy, &json, world) {
                note(
                    "it allows everybody everything everywhere",
                    "name the actions in its scope, or the persons, or the targets",
                );
            }
            for what in failing(&json["conditions"]) {
                note(
                    &format!("{what}: then every call that it is asked about is refused"),
                    "compare without it, or make sure that it cannot",
                );
            }
        }
        in_order(found)
    }

    /// One line for each action: how it is judged.
    #[must_use]
    pub fn summary(&self, world: &World<'_>) -> Vec<(ActionName, &'static str)> {
        let each = |(name, entry): (&ActionName, &catalogue::Entry)| {
            let how = match entry.manifest().risk() {
                wire::Risk::Read if !self.is_about_arguments_of(name) => {
                    "in each task's certificate, where it is allowed"
                }
                wire::Risk::Read => "each request by itself, since a policy looks at its arguments",
                wire::Risk::Change | wire::Risk::Destroy => "each request by itself",
            };
            (name.clone(), how)
        };
        world.catalogue.iter().map(each).collect()
    }
}

fn doubtful(warning: &ValidationWarning, facts: &Facts) -> Fault {
    let (what, next) = match warning {
        ValidationWarning::ImpossiblePolicy(_) | ValidationWarning::InvalidActionApplication(_) => (
            "it can never match: what it asks for is false for every call".to_owned(),
            "correct it, or take it out",
        ),
        other => (
            without_policy(&other.to_string()),
            "write it with letters of one script: some of these look like others",
        ),
    };
    facts.fault(what, Some(next.to_owned()))
}

/// A permit for every person, action and target whose conditions, if it has any, are always true.
fn allows_everything(policy: &cedar_policy::Policy, json: &Value, world: &World<'_>) -> bool {
    let everybody = match policy.principal_constraint() {
        PrincipalConstraint::Any => true,
        // Everybody is in the one group, and a person.
        PrincipalConstraint::In(uid) => uid.type_name().to_string() == "Group",
        PrincipalConstraint::Is(_) => true,
        _ => false,
    };
    let everywhere = matches!(
        policy.resource_constraint(),
        ResourceConstraint::Any | ResourceConstraint::Is(_)
    );
    // A list of all actions is somebody's decision about each, and does not grow by itself.
    let everything = matches!(policy.action_constraint(), ActionConstraint::Any);
    policy.effect() == Effect::Permit && everybody && everywhere && everything && always(json, world)
}

/// Whether a policy's conditions are true for every call: then their opposite can never match, and the validator says so.
fn always(json: &Value, world: &World<'_>) -> bool {
    let conditions = json["conditions"].as_array().cloned().unwrap_or_default();
    let each = conditions.iter().map(|condition| match condition["kind"].as_str() {
        Some("unless") => json!({ "!": { "arg": condition["body"] } }),
        _ => condition["body"].clone(),
    });
    let Some(all) = each.reduce(|left, right| json!({ "&&": { "left": left, "right": right } })) else {
        return true;
    };
    let mut opposite = json.clone();
    opposite["conditions"] = json!([{ "kind": "unless", "body": all }]);
    let Ok(opposite) = cedar_policy::Policy::from_json(None, opposite) else {
        return false;
    };
    let Ok(set) = PolicySet::from_policies([opposite]) else {
        return false;
    };
    validate(&set, world).is_ok_and(|result| {
        result
            .validation_warnings()
            .any(|warning| matches!(warning, ValidationWarning::ImpossiblePolicy(_)))
    })
}

/// What can fail of an expression that the validator accepted: arithmetic, and a look at an entity that is not the call's.
fn failing(json: &Value) -> Vec<String> {
    let mut found = Vec::new();
    match json {
        Value::Array(items) => items.iter().for_each(|item| found.extend(failing(item))),
        Value::Object(map) => {
            for (operator, operands) in map {
                let fits = |(least, most)| least >= i128::from(i64::MIN) && most <= i128::from(i64::MAX);
                if matches!(operator.as_str(), "+" | "-" | "*" | "neg") && !fits(bounds(json)) {
                    let shown = if operator == "neg" { "-" } else { operator };
                    found.push(format!("`{shown}` can go beyond 64 bits"));
                }
                if operator == "." && operands["left"]["Value"]["__entity"].is_object() {
                    let id = operands["left"]["Value"]["__entity"]["id"].as_str().unwrap_or_default();
                    found.push(format!(
                        "\"{id}\" is looked at, which is known only where it is the call's own target"
                    ));
                }
                found.extend(failing(operands));
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    found.sort();
    found.dedup();
    found
}

/// The least and the most that a number can be. What comes from a call is below 2^53 in magnitude; of what is not
/// understood, all that 64 bits hold.
fn bounds(json: &Value) -> (i128, i128) {
    const ALL: (i128, i128) = (i64::MIN as i128, i64::MAX as i128);
    const SENT: i128 = 1 << 53;
    let Some((operator, operands)) = json.as_object().and_then(|map| map.iter().next()) else {
        return ALL;
    };
    let pair = || (bounds(&operands["left"]), bounds(&operands["right"]));
    match operator.as_str() {
        "Value" => operands.as_i64().map_or(ALL, |number| (number.into(), number.into())),
        "." => (-SENT, SENT),
        "neg" => {
            let (least, most) = bounds(&operands["arg"]);
            (most.saturating_neg(), least.saturating_neg())
        }
        "+" => {
            let (left, right) = pair();
            (left.0.saturating_add(right.0), left.1.saturating_add(right.1))
        }
        "-" => {
            let (left, right) = pair();
            (left.0.saturating_sub(right.1), left.1.saturating_sub(right.0))
        }
        "*" => {
            let (left, right) = pair();
            let ends = [left.0, left.1].map(|l| [right.0, right.1].map(|r| l.saturating_mul(r)));
            let ends = ends.as_flattened();
            let least = ends.iter().min().copied().unwrap_or(ALL.0);
            (least, ends.iter().max().copied().unwrap_or(ALL.1))
        }
        _ => ALL,
    }
}
