//! May this person do this action on this target: the one file that knows Cedar.
//!
//! No policy means no. A policy that fails while it is evaluated is a refusal, also when another one permits: Cedar by
//! itself skips it, and a skipped `forbid` would be a permit.
//!
//! What a policy is asked about:
//! - `principal`: `Person::"alice"`, in `Group::"persons"` as every person of the configuration is;
//! - `action`: `Action::"tail_log"`, an entity without parents;
//! - `resource`: `Target::"web-1"` with the attribute `labels`, a record of strings from the CA's inventory;
//! - `context`: `brain`, `proof`, `relay`, `risk`, strings; and `args`, a record, where one request is judged. An action for
//!   which some policy mentions `args` is never part of a task's grant.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use cedar_policy::{
    ActionConstraint, Authorizer, Context, Decision, Entities, Entity, EntityId, EntityTypeName, EntityUid, PolicyId,
    PolicySet, Request, RestrictedExpression,
};
use serde_json::{Map, Value};
use wire::Risk;
use wire::ids::{ActionName, Digest, PersonName, RelayName, TargetName};

/// The largest policy file that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// The policies in force.
pub struct Policy {
    set: PolicySet,
    names: BTreeMap<PolicyId, String>,
    about_arguments: AboutArguments,
    digest: Digest,
}

/// Actions for which some policy mentions `context.args`.
enum AboutArguments {
    /// One of those policies has no action in its scope.
    Every,
    /// Those in the scopes.
    Of(BTreeSet<EntityUid>),
}

/// One question to the policies.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who wants it done.
    pub person: &'a PersonName,
    /// What.
    pub action: &'a ActionName,
    /// Its risk, in the CA's copy of the catalogue.
    pub risk: Risk,
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
    /// All arguments of the one request that is judged; absent where the question is about every request of the action.
    pub args: Option<&'a Map<String, Value>>,
}

/// The answer, with the names of the policies that decided (sorted; none when nothing permits).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Some policy permits and none forbids.
    Allow(Vec<String>),
    /// A policy forbids, or none permits.
    Deny(Vec<String>),
}

/// A policy could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("evaluate {}: {what}", policies.join(", "))]
pub struct PolicyError {
    /// The names of the policies that failed, sorted.
    pub policies: Vec<String>,
    /// Why the first one did.
    pub what: String,
}

impl Policy {
    /// Reads policies from a file's bytes. An empty file is an empty set, which denies everything.
    ///
    /// # Errors
    /// Every fault: not UTF-8, not Cedar, a template (nothing links one here), two policies with one `@id`.
    pub fn parse(bytes: &[u8]) -> Result<Self, Vec<String>> {
        if bytes.len() > MAX_BYTES {
            return Err(vec![format!("longer than {MAX_BYTES} bytes")]);
        }
        let text = std::str::from_utf8(bytes).map_err(|_| vec!["not UTF-8".to_owned()])?;
        let set: PolicySet = text
            .parse()
            .map_err(|errors: cedar_policy::ParseErrors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let mut faults = Vec::new();
        for template in set.templates() {
            faults.push(format!("{}: a template, which nothing links", template.id()));
        }
        let mut names = BTreeMap::new();
        let mut seen = BTreeSet::new();
        let mut about_arguments = AboutArguments::Of(BTreeSet::new());
        for policy in set.policies() {
            let name = policy
                .annotation("id")
                .filter(|id| !id.is_empty())
                .map_or_else(|| policy.id().to_string(), str::to_owned);
            if !seen.insert(name.clone()) {
                faults.push(format!("{name}: two policies have this id"));
            }
            match policy.to_json() {
                Ok(json) if mentions_arguments(&json) => about_arguments.add(policy.action_constraint()),
                Ok(_) => {}
                Err(what) => faults.push(format!("{name}: {what}")),
            }
            names.insert(policy.id().clone(), name);
        }
        if !faults.is_empty() {
            return Err(faults);
        }
        Ok(Self {
            set,
            names,
            about_arguments,
            digest: Digest::of(bytes),
        })
    }

    /// SHA-256 of the file.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How many policies there are; none denies everything.
    #[must_use]
    pub fn count(&self) -> usize {
        self.names.len()
    }

    /// Whether some policy for this action looks at its arguments.
    #[must_use]
    pub fn is_about_arguments_of(&self, action: &ActionName) -> bool {
        match &self.about_arguments {
            AboutArguments::Every => true,
            AboutArguments::Of(actions) => entity("Action", action.as_str()).is_none_or(|uid| actions.contains(&uid)),
        }
    }

    /// Judges one question.
    ///
    /// # Errors
    /// [`PolicyError`] if any policy failed, whatever the others say.
    pub fn judge(&self, question: &Question<'_>) -> Result<Verdict, PolicyError> {
        let (request, entities) = question.ask().map_err(|what| PolicyError {
            policies: Vec::new(),
            what,
        })?;
        let response = Authorizer::new().is_authorized(&request, &self.set, &entities);
        let mut failed = BTreeSet::new();
        let mut what = None;
        for error in response.diagnostics().errors() {
            let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
            failed.insert(self.name(error.policy_id()));
            what.get_or_insert_with(|| error.inner().to_string());
        }
        if let Some(what) = what {
            return Err(PolicyError {
                policies: failed.into_iter().collect(),
                what,
            });
        }
        let deciding: BTreeSet<String> = response.diagnostics().reason().map(|id| self.name(id)).collect();
        let deciding = deciding.into_iter().collect();
        Ok(match response.decision() {
            Decision::Allow => Verdict::Allow(deciding),
            Decision::Deny => Verdict::Deny(deciding),
        })
    }

    fn name(&self, id: &PolicyId) -> String {
        self.names.get(id).cloned().unwrap_or_else(|| id.to_string())
    }
}

impl AboutArguments {
    fn add(&mut self, scope: ActionConstraint) {
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
}

impl Question<'_> {
    fn ask(&self) -> Result<(Request, Entities), String> {
        let uid = |kind, name| entity(kind, name).ok_or_else(|| format!("{kind} is not an entity type"));
        let persons = uid("Group", "persons")?;
        let person = uid("Person", self.person.as_str())?;
        let action = uid("Action", self.action.as_str())?;
        let target = uid("Target", self.target.as_str())?;
        let labels = self
            .labels
            .iter()
            .map(|(k, v)| (k.clone(), RestrictedExpression::new_string(v.clone())));
        let labels = RestrictedExpression::new_record(labels).map_err(|e| e.to_string())?;
        let attributes = HashMap::from([("labels".to_owned(), labels)]);
        let entities = Entities::from_entities(
            [
                Entity::with_uid(persons.clone()),
                Entity::new_no_attrs(person.clone(), HashSet::from([persons])),
                Entity::with_uid(action.clone()),
                Entity::new(target.clone(), attributes, HashSet::new()).map_err(|e| e.to_string())?,
            ],
            None,
        )
        .map_err(|e| e.to_string())?;
        let mut context = vec![
            (
                "brain".to_owned(),
                RestrictedExpression::new_string(self.brain.to_owned()),
            ),
            (
                "proof".to_owned(),
                RestrictedExpression::new_string(self.proof.to_owned()),
            ),
            (
                "relay".to_owned(),
                RestrictedExpression::new_string(self.relay.to_string()),
            ),
            (
                "risk".to_owned(),
                RestrictedExpression::new_string(self.risk.as_str().to_owned()),
            ),
        ];
        if let Some(args) = self.args {
            context.push(("args".to_owned(), record(args)?));
        }
        let context = Context::from_pairs(context).map_err(|e| e.to_string())?;
        let request = Request::new(person, action, target, context, None).map_err(|e| e.to_string())?;
        Ok((request, entities))
    }
}

/// Arguments as Cedar sees them: text, whole numbers, booleans and records as they are, a list as the set of its items.
/// Built value by value: Cedar's own reader of JSON would take some objects for entities and extensions.
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
        Value::String(text) => RestrictedExpression::new_string(text.clone()),
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

fn entity(kind: &str, name: &str) -> Option<EntityUid> {
    let kind: EntityTypeName = kind.parse().ok()?;
    Some(EntityUid::from_type_name_and_id(kind, EntityId::new(name)))
}

/// Whether a policy, in Cedar's JSON form, could see `context.args`: it reads or tests that attribute, or uses
/// `context` in any way other than reading or testing one other attribute.
fn mentions_arguments(json: &Value) -> bool {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        Policy::parse(text.as_bytes()).unwrap()
    }

    fn judge(text: &str, person: &str, action: &str) -> Result<Verdict, PolicyError> {
        judge_with(text, person, action, None)
    }

    fn judge_with(text: &str, person: &str, action: &str, args: Option<&Value>) -> Result<Verdict, PolicyError> {
        policy(text).judge(&Question {
            person: &person.parse().unwrap(),
            action: &action.parse().unwrap(),
            risk: Risk::Read,
            target: &"web-1".parse().unwrap(),
            labels: &BTreeMap::from([("env".to_owned(), "demo".to_owned())]),
            brain: "claude",
            proof: "relay",
            relay: &"relay-1".parse().unwrap(),
            args: args.and_then(Value::as_object),
        })
    }

    const SHIPPED: &str = include_str!("../../deploy/ca/policy.cedar");

    /// REQ-GRANT-4
    #[test]
    fn the_shipped_policy_allows_the_read_actions_and_no_other() {
        for action in ["tail_log", "read_file", "check_health"] {
            assert_eq!(
                judge(SHIPPED, "alice", action),
                Ok(Verdict::Allow(vec!["shipped-reads".to_owned()])),
                "{action}"
            );
            assert!(!policy(SHIPPED).is_about_arguments_of(&action.parse().unwrap()));
        }
        assert_eq!(judge(SHIPPED, "alice", "restart_service"), Ok(Verdict::Deny(vec![])));
    }

    #[test]
    fn an_empty_file_denies_everything() {
        assert_eq!(policy("").count(), 0);
        assert_eq!(
            judge("// nothing yet\n", "alice", "tail_log"),
            Ok(Verdict::Deny(vec![]))
        );
    }

    #[test]
    fn a_forbid_wins_and_is_named() {
        let text = "permit(principal, action, resource); @id(\"no-demo\") forbid(principal, action, resource) when { resource.labels has env && resource.labels.env == \"demo\" };";
        assert_eq!(
            judge(text, "alice", "tail_log"),
            Ok(Verdict::Deny(vec!["no-demo".to_owned()]))
        );
    }

    /// REQ-CARPC-9
    #[test]
    fn an_error_in_one_policy_is_an_error_although_another_permits() {
        for failing in [
            "forbid(principal, action, resource) when { context.shift == \"night\" };",
            "@id(\"typo\") permit(principal, action, resource) when { resource.labels.environment == \"prod\" };",
            "forbid(principal, action, resource) when { context.brain > 3 };",
        ] {
            let text = format!("permit(principal, action, resource); {failing}");
            assert!(judge(&text, "alice", "tail_log").is_err(), "{failing}");
        }
        let named = judge(
            "@id(\"typo\") forbid(principal, action, resource) when { context.x == 1 };",
            "alice",
            "tail_log",
        );
        assert_eq!(named.unwrap_err().policies, ["typo"]);
    }

    /// REQ-CARPC-8, REQ-GRANT-4
    #[test]
    fn any_way_to_see_the_arguments_is_a_mention() {
        for condition in [
            "context.args.path like \"/var/*\"",
            "context[\"args\"].path == \"x\"",
            "context has args",
            "context has args.path",
            "context == {}",
            "{\"a\": context}.a.args.path == \"x\"",
            "(if true then context else context).args.path == \"x\"",
            "!(context has brain && context.args has lines)",
            "[context].contains(context)",
        ] {
            let text = format!("forbid(principal, action == Action::\"tail_log\", resource) unless {{ {condition} }};");
            let policy = policy(&text);
            assert!(
                policy.is_about_arguments_of(&"tail_log".parse().unwrap()),
                "{condition}"
            );
            assert!(
                !policy.is_about_arguments_of(&"read_file".parse().unwrap()),
                "{condition}"
            );
        }
    }

    /// REQ-CARPC-8
    #[test]
    fn other_uses_of_context_are_no_mention() {
        for condition in [
            "context.brain == \"args\"",
            "context has risk",
            "resource.labels has args",
            "context has risk.args",
            "\"context.args\" == \"x\"",
        ] {
            let text = format!("permit(principal, action, resource) when {{ {condition} }};");
            assert!(
                !policy(&text).is_about_arguments_of(&"tail_log".parse().unwrap()),
                "{condition}"
            );
        }
    }

    /// REQ-CARPC-17
    #[test]
    fn arguments_are_seen_with_their_types() {
        let args = serde_json::json!({
            "path": "/var/log/x", "lines": 5, "big": 9_007_199_254_740_991_i64, "follow": false, "tags": ["a", "b"],
            "file": {"path": "/etc/x", "sha256": "00"}, "user": {"__entity": {"type": "Person", "id": "alice"}},
        });
        let verdict = |condition: &str| {
            let text = format!("permit(principal, action, resource) when {{ {condition} }};");
            judge_with(&text, "alice", "tail_log", Some(&args))
        };
        for condition in [
            "context.args.path like \"/var/*\"",
            "context.args.lines + 1 == 6",
            "context.args.big > 9007199254740990",
            "!context.args.follow",
            "context.args.tags.containsAll([\"b\", \"a\"]) && !context.args.tags.contains(\"c\")",
            "context.args.file.path == \"/etc/x\" && context.args.file has sha256",
            "!(context.args has missing)",
            "context.args.user != principal && context.args.user has __entity",
        ] {
            assert!(matches!(verdict(condition), Ok(Verdict::Allow(_))), "{condition}");
        }
        for condition in ["context.args.missing == 1", "context.args.lines like \"5\""] {
            assert!(verdict(condition).is_err(), "{condition}");
        }
        for strange in [serde_json::json!({"x": null}), serde_json::json!({"x": [0.5]})] {
            let all = "permit(principal, action, resource);";
            assert!(
                judge_with(all, "alice", "tail_log", Some(&strange)).is_err(),
                "{strange}"
            );
        }
    }

    /// REQ-CARPC-8
    #[test]
    fn a_policy_without_an_action_in_its_scope_is_about_every_action() {
        let text = "permit(principal, action, resource) when { action == Action::\"x\" && context.args.y };";
        assert!(policy(text).is_about_arguments_of(&"tail_log".parse().unwrap()));
        let text = "permit(principal, action in [Action::\"a\", Action::\"b\"], resource) when { context.args.y };";
        assert!(policy(text).is_about_arguments_of(&"b".parse().unwrap()));
        assert!(!policy(text).is_about_arguments_of(&"c".parse().unwrap()));
    }

    #[test]
    fn a_broken_file_a_template_and_a_repeated_id_are_refused() {
        assert!(Policy::parse(b"permit(principal, action, resource)").is_err());
        assert!(Policy::parse(b"\xff").is_err());
        assert!(Policy::parse(b"permit(principal == ?principal, action, resource);").is_err());
        assert!(
            Policy::parse(
                b"@id(\"a\") permit(principal, action, resource); @id(\"a\") forbid(principal, action, resource);"
            )
            .is_err()
        );
    }
}
