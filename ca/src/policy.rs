//! May this person do this action on this target. Cedar is known here and in the files below `policy/`, and nowhere else.
//!
//! No policy means no. A policy that fails while it is evaluated is a refusal, also when another one permits: Cedar by
//! itself skips it, and a skipped `forbid` would be a permit. What could fail, names nothing, or compares two types is
//! refused when the file is read: [`schema`] says what there is.
//!
//! What a policy is asked about:
//! - `principal`: `Person::"alice"`, in `Group::"persons"` as every person of the configuration is;
//! - `action`: `Action::"tail_log"`, an entity without parents;
//! - `resource`: `Target::"web-1"` with the attribute `labels`, a record of strings from the CA's inventory;
//! - `context`: `brain`, `proof`, `relay`, `risk`, `mode`, strings; `time`, `weekday`, `task_age_s`, `counts`; and `args`, a
//!   record, where one request is judged. An action for which some policy mentions `args` is never part of a task's
//!   grant.
//!
//! A policy is named by its `@id`. `@approvals("2")` on a `permit` is what it wants where it decides: the most that any
//! deciding policy wants is what is needed.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{Authorizer, Decision, PolicyId, PolicySet};
use wire::ids::{ActionName, Digest};

mod arguments;
pub mod check;
mod fault;
mod load;
mod names;
mod scene;
pub mod schema;
pub mod test;

use arguments::AboutArguments;
pub use fault::Fault;
use scene::Stage;
pub use scene::{Ask, Circumstances};
pub use schema::World;

/// The largest policy file that is read, in bytes.
pub const MAX_BYTES: usize = 1 << 20;

/// Most approvals that a policy can want: as many as a request can bring.
pub const MAX_APPROVALS: u8 = 8;

/// The policies in force.
pub struct Policy {
    set: PolicySet,
    facts: BTreeMap<PolicyId, Facts>,
    about_arguments: AboutArguments,
    digest: Digest,
    notes: Vec<Fault>,
}

/// What stands in a file beside what a policy means.
#[derive(Debug, Clone)]
struct Facts {
    name: String,
    named: bool,
    line: Option<usize>,
    approvals: u8,
}

/// The answer, with the names of the policies that decided (sorted; none when nothing permits).
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// Some policy permits and none forbids.
    Allow {
        /// Those that permit.
        by: Vec<String>,
        /// The most approvals that any of them wants.
        approvals: u8,
    },
    /// A policy forbids, or none permits.
    Deny {
        /// Those that forbid.
        by: Vec<String>,
    },
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

/// One call before the policies: ask about each of its actions.
pub struct Scene<'a> {
    policy: &'a Policy,
    stage: Stage,
}

impl Policy {
    /// SHA-256 of the file.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }

    /// How many policies there are; none denies everything.
    #[must_use]
    pub fn count(&self) -> usize {
        self.facts.len()
    }

    /// Whether some policy for this action looks at its arguments.
    #[must_use]
    pub fn is_about_arguments_of(&self, action: &ActionName) -> bool {
        scene::action(action).is_none_or(|uid| self.about_arguments.has(&uid))
    }

    /// Puts a call before the policies.
    ///
    /// # Errors
    /// [`PolicyError`] when the call cannot be put in Cedar's words.
    pub fn scene(&self, call: &Circumstances<'_>) -> Result<Scene<'_>, PolicyError> {
        let stage = Stage::new(call).map_err(unspoken)?;
        Ok(Scene { policy: self, stage })
    }

    fn name(&self, id: &PolicyId) -> String {
        self.facts
            .get(id)
            .map_or_else(|| id.to_string(), |facts| facts.name.clone())
    }
}

impl Scene<'_> {
    /// Judges one question of the call.
    ///
    /// # Errors
    /// [`PolicyError`] if any policy failed, whatever the others say.
    pub fn judge(&self, ask: &Ask<'_>) -> Result<Verdict, PolicyError> {
        let policy = self.policy;
        let request = self.stage.ask(ask).map_err(unspoken)?;
        let response = Authorizer::new().is_authorized(&request, &policy.set, self.stage.entities());
        let mut failed = BTreeSet::new();
        let mut what = None;
        for error in response.diagnostics().errors() {
            let cedar_policy::AuthorizationError::PolicyEvaluationError(error) = error;
            failed.insert(policy.name(error.policy_id()));
            what.get_or_insert_with(|| error.inner().to_string());
        }
        if let Some(what) = what {
            return Err(PolicyError {
                policies: failed.into_iter().collect(),
                what,
            });
        }
        let deciding = || response.diagnostics().reason();
        let by: BTreeSet<String> = deciding().map(|id| policy.name(id)).collect();
        let by = by.into_iter().collect();
        Ok(match response.decision() {
            Decision::Allow => {
                let wanted = deciding()
                    .filter_map(|id| policy.facts.get(id))
                    .map(|facts| facts.approvals);
                let approvals = wanted.max().unwrap_or(0);
                Verdict::Allow { by, approvals }
            }
            Decision::Deny => Verdict::Deny { by },
        })
    }
}

fn unspoken(what: String) -> PolicyError {
    PolicyError {
        policies: Vec::new(),
        what,
    }
}

#[cfg(test)]
mod tests;
