//! Whether a policy looks at arguments. An action about whose arguments some policy speaks is never part of a task's
//! certificate: that one is signed before there are any.

use std::collections::BTreeSet;

use cedar_policy::{ActionConstraint, EntityUid};
use serde_json::Value;

/// Actions for which some policy mentions `context.args`.
pub(super) enum AboutArguments {
    /// One of those policies has no action in its scope.
    Every,
    /// Those in the scopes.
    Of(BTreeSet<EntityUid>),
}

impl AboutArguments {
    /// Adds the actions of a policy that mentions them.
    pub(super) fn add(&mut self, scope: ActionConstraint) {
        let more = match scope {
            ActionConstraint::Any => None,
            ActionConstraint::Eq(one) => Some(vec![one]),
            // Actions have no parents here, so being in one is being it.
            ActionConstraint::In(several) => Some(several),
        };
        match (self, more) {
            (Self::Of(actions), Some(more)) => actions.extend(more),
            (this, None) => *this = Self::Every,
            (Self::Every, Some(_)) => {}
        }
    }

    /// Whether the action is one of them.
    pub(super) fn has(&self, action: &EntityUid) -> bool {
        match self {
            Self::Every => true,
            Self::Of(actions) => actions.contains(action),
        }
    }
}

/// Whether a policy, in Cedar's JSON form, could see `context.args`: it reads or tests that attribute, or uses
/// `context` in any way other than reading or testing one other attribute.
pub(super) fn mentions_arguments(json: &Value) -> bool {
    match json {
        Value::Array(items) => items.iter().any(mentions_arguments),
        Value::Object(map) => map.iter().any(|(key, value)| match key.as_str() {
            "Var" => value == "context",
            "." | "has" if value.get("left").is_some_and(is_context) => !is_other_attribute(value.get("attr")),
            _ => mentions_arguments(value),
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

fn is_context(expression: &Value) -> bool {
    expression.as_object().is_some_and(|map| map.len() == 1)
        && expression.get("Var").is_some_and(|var| var == "context")
}

/// `"risk"`, or `["risk", …]` as in `context has risk.level`: not the arguments.
fn is_other_attribute(attribute: Option<&Value>) -> bool {
    let first = match attribute {
        Some(Value::Array(path)) => path.first(),
        other => other,
    };
    first.and_then(Value::as_str).is_some_and(|name| name != "args")
}
