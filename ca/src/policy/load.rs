//! Reading a policy file: every fault with its line, and nothing in force that has one.

use std::collections::{BTreeMap, BTreeSet};

use cedar_policy::{Effect, ParseErrors, PolicySet, ValidationMode, ValidationResult, Validator};
use grpc::policies::{ID_BYTES, is_id};
use miette::Diagnostic;
use wire::ids::Digest;

use super::arguments::{AboutArguments, mentions_arguments};
use super::fault::{Fault, Lines};
use super::names::{self, Stray, Weight};
use super::schema::{self, World};
use super::{Facts, MAX_APPROVALS, MAX_BYTES, Policy};

impl Policy {
    /// Reads policies from a file's bytes, for a CA whose world is this. An empty file is an empty set, which denies
    /// everything.
    ///
    /// # Errors
    /// Every fault that can be told at once: first whether it can be read at all; then what is wrong with each policy, by
    /// its line.
    pub fn load(bytes: &[u8], world: &World<'_>) -> Result<Self, Vec<Fault>> {
        let text = readable(bytes).map_err(|fault| vec![fault])?;
        let lines = Lines::new(text);
        let set: PolicySet = text.parse().map_err(|errors| unparsed(&errors, &lines))?;
        let mut faults: Vec<Fault> = set
            .templates()
            .map(|template| Fault {
                line: lines.of_policy(template.id().as_ref()),
                policy: Some(template.id().to_string()),
                what: "it is a template, which nothing links".to_owned(),
                next: Some("write the person or the target in place of ?principal and ?resource".to_owned()),
            })
            .collect();
        let (mut facts, mut notes) = (BTreeMap::new(), Vec::new());
        let mut seen = BTreeSet::new();
        let mut about_arguments = AboutArguments::Of(BTreeSet::new());
        for policy in set.policies() {
            let mut told = Vec::new();
            let fact = facts_of(policy, &lines, &mut told);
            if !seen.insert(fact.name.clone()) {
                told.push(Stray::fault(
                    "two policies have this id",
                    "give each its own: records name it",
                ));
            }
            match policy.to_json() {
                Ok(json) => {
                    told.extend(names::strays(policy, &json, world));
                    if mentions_arguments(&json) {
                        about_arguments.add(policy.action_constraint());
                    }
                }
                Err(what) => told.push(Stray::fault(&what.to_string(), "write it in a simpler way")),
            }
            for stray in told {
                let list = match stray.weight {
                    Weight::Fault => &mut faults,
                    Weight::Note => &mut notes,
                };
                list.push(fact.fault(stray.what, Some(stray.next)));
            }
            facts.insert(policy.id().clone(), fact);
        }
        let found =
            validate(&set, world).map_err(|what| vec![Fault::of_file(what, "report it: it is no fault of yours")])?;
        for error in found.validation_errors() {
            let Some(fact) = facts.get(error.policy_id()) else {
                continue;
            };
            faults.push(invalid(error, fact, &lines, world));
        }
        if !faults.is_empty() {
            return Err(in_order(faults));
        }
        Ok(Self {
            set,
            facts,
            about_arguments,
            digest: Digest::of(bytes),
            notes: in_order(notes),
        })
    }

    /// What keeps a file's bytes from being read as policies at all, where there is no world to check them against.
    #[must_use]
    pub fn unreadable(bytes: &[u8]) -> Vec<Fault> {
        match readable(bytes) {
            Err(fault) => vec![fault],
            Ok(text) => match text.parse::<PolicySet>() {
                Ok(_) => Vec::new(),
                Err(errors) => unparsed(&errors, &Lines::new(text)),
            },
        }
    }
}

impl Facts {
    pub(super) fn fault(&self, what: String, next: Option<String>) -> Fault {
        Fault {
            line: self.line,
            policy: Some(self.name.clone()),
            what,
            next,
        }
    }
}

impl Stray {
    fn fault(what: &str, next: &str) -> Self {
        Self {
            weight: Weight::Fault,
            what: what.to_owned(),
            next: next.to_owned(),
        }
    }
}

/// The text of a file, if its readers see all of it.
fn readable(bytes: &[u8]) -> Result<&str, Fault> {
    if bytes.len() > MAX_BYTES {
        return Err(Fault::of_file(format!("longer than {MAX_BYTES} bytes"), "shorten it"));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| Fault::of_file("not UTF-8", "write it anew"))?;
    // Also in comments: an override there can make a policy look like another one.
    let hidden = |c: char| !matches!(c, '\n' | '\t') && wire::text::is_hidden(c);
    match text.char_indices().find(|(_, c)| hidden(*c)) {
        None => Ok(text),
        Some((at, c)) => Err(Fault {
            line: Some(Lines::new(text).of_byte(at)),
            ..Fault::of_file(
                format!("a character that is not shown, {}", c.escape_unicode()),
                "take it out",
            )
        }),
    }
}

fn unparsed(errors: &ParseErrors, lines: &Lines<'_>) -> Vec<Fault> {
    let fault = |error: &cedar_policy::ParseError| Fault {
        line: lines.of_error(error),
        policy: None,
        what: error.to_string(),
        next: error.help().map(|help| help.to_string()),
    };
    errors.iter().map(fault).collect()
}

/// A policy's annotations, each of which is known: a mistyped one would be silently ignored.
fn facts_of(policy: &cedar_policy::Policy, lines: &Lines<'_>, told: &mut Vec<Stray>) -> Facts {
    let own = policy.id().to_string();
    let mut facts = Facts {
        line: lines.of_policy(&own),
        name: own,
        named: false,
        approvals: 0,
    };
    for (key, value) in policy.annotations() {
        match key {
            "id" if is_id(value) => {
                value.clone_into(&mut facts.name);
                facts.named = true;
            }
            "id" => told.push(Stray::fault(
                "the @id is not of its shape",
                &format!("write 1 to {ID_BYTES} of A-Z a-z 0-9 . _ - in it, beginning with a letter or digit"),
            )),
            "approvals" if policy.effect() == Effect::Forbid => told.push(Stray::fault(
                "@approvals stands on a forbid, which nobody can approve away",
                "move it to the permit that is to want approvals",
            )),
            "approvals" => match approvals(value) {
                Some(wanted) => facts.approvals = wanted,
                None => told.push(Stray::fault(
                    "@approvals is no number of approvals",
                    &format!("write @approvals(\"1\") to @approvals(\"{MAX_APPROVALS}\"), or leave it out for none"),
                )),
            },
            "description" => {}
            other => told.push(Stray::fault(
                &format!("there is no annotation @{other}"),
                "write @id, @approvals or @description",
            )),
        }
    }
    facts
}

/// One digit and nothing else: a sign, a space or a leading zero is not what anybody means.
fn approvals(text: &str) -> Option<u8> {
    let number: u8 = text.parse().ok()?;
    (number.to_string() == text && (1..=MAX_APPROVALS).contains(&number)).then_some(number)
}

pub(super) fn validate(set: &PolicySet, world: &World<'_>) -> Result<ValidationResult, String> {
    let schema = schema::schema(world)?;
    Ok(Validator::new(schema).validate(set, ValidationMode::Strict))
}

fn invalid(error: &cedar_policy::ValidationError, fact: &Facts, lines: &Lines<'_>, world: &World<'_>) -> Fault {
    let next = match error {
        cedar_policy::ValidationError::UnrecognizedActionId(_) => {
            let known: Vec<&str> = world.catalogue.iter().map(|(name, _)| name.as_str()).collect();
            let known = format!("the CA's catalogue has {}", known.join(", "));
            Some(
                error
                    .help()
                    .map_or_else(|| known.clone(), |help| format!("{help} {known}")),
            )
        }
        _ => error.help().map(|help| help.to_string()),
    };
    Fault {
        line: lines.of_error(error).or(fact.line),
        ..fact.fault(without_policy(&error.to_string()), next)
    }
}

/// Cedar begins with "for policy `policy0`, ": its name for it, and ours is said already.
pub(super) fn without_policy(text: &str) -> String {
    let rest = text.strip_prefix("for policy `").and_then(|rest| rest.split_once('`'));
    rest.map_or(text, |(_, rest)| rest.trim_start_matches([',', ':', ' ']))
        .to_owned()
}

/// By their lines, each once.
pub(super) fn in_order(mut faults: Vec<Fault>) -> Vec<Fault> {
    faults.sort_by_key(|fault| fault.line);
    faults.dedup();
    faults
}
