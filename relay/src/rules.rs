//! What this relay refuses whatever the CA would say: its mode, and its deny rules.
//!
//! Deny wins: a rule can only take away, and no order of rules matters. A rule fits where every key that it has fits, and of
//! a list one value is enough. Where a rule cannot be shown not to fit it fits: an argument that is left out, a list that is
//! empty, a path that is not plain. Texts are compared without regard to case, white space and characters that are not
//! shown, since another spelling can mean the same to a program.
//!
//! Pure: whoever asks records what is said. It is an early filter, for one relay: policy is the CA's, and targets check
//! everything again. What a client calls itself is its own word, so a rule about a brain keeps out only honest ones.

use std::collections::BTreeMap;

use catalogue::Target;
use serde_json::{Map, Value};
use wire::ids::{ActionName, BrainName, PersonName, TargetName};
use wire::{Requester, Risk};

mod known;
mod read;

pub use known::Known;
pub(crate) use read::{mode, rules};

/// What stands in a record in the place of a rule's id where the mode refused.
pub const READONLY: &str = "readonly";

/// What a relay is for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum RelayMode {
    /// Everything that policy allows.
    #[default]
    Normal,
    /// What only reads: actions of that risk, and dry runs that have it.
    Readonly,
}

impl RelayMode {
    /// As it is configured and shown.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "normal",
            Self::Readonly => READONLY,
        }
    }
}

/// One deny rule. Each list that is not empty, and each map that is not, is a condition.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    id: String,
    why: Option<String>,
    persons: Vec<PersonName>,
    brains: Vec<BrainName>,
    targets: Vec<TargetName>,
    labels: BTreeMap<String, Vec<String>>,
    actions: Vec<ActionName>,
    risk: Vec<Risk>,
    args: BTreeMap<String, Condition>,
}

/// What a rule says of an argument. Of the values one is enough.
#[derive(Debug, Clone, PartialEq)]
enum Condition {
    /// It is this.
    Is(Vec<Value>),
    /// It is a text that begins so.
    StartsWith(Vec<String>),
    /// It is the path of this folder or of what lies beneath it, by whole components.
    Beneath(Vec<String>),
}

/// How a rule fits what is known of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// It does not, whatever else comes to be known.
    No,
    /// That depends on what is not known yet.
    Open,
    /// It does.
    Yes,
}

/// What is known of a call.
#[derive(Debug, Clone, Copy)]
pub struct Question<'a> {
    /// Who asks.
    pub requester: &'a Requester,
    /// Where.
    pub target: &'a Target,
    /// What is to be done there; `None` where only a task is opened.
    pub what: Option<What<'a>>,
}

/// What is to be done.
#[derive(Debug, Clone, Copy)]
pub struct What<'a> {
    /// The action.
    pub action: &'a ActionName,
    /// What it risks in the mode that it is called in.
    pub risk: Risk,
    /// Its arguments, checked, with defaults filled in; `None` where nobody has chosen them yet.
    pub args: Option<&'a Map<String, Value>>,
}

/// What the rules say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[must_use = "what is denied is to be refused"]
pub struct Judgement<'a> {
    /// The rules that deny it. Any is enough.
    pub denied: Vec<&'a str>,
    /// The rules that deny it for some arguments, where nobody has chosen them yet.
    pub depends: Vec<&'a str>,
    why: Option<&'a str>,
}

impl Judgement<'_> {
    /// Why, in the words of the rules that deny it.
    #[must_use]
    pub fn detail(&self) -> String {
        let (rules, deny) = match self.denied.len() {
            1 => ("rule", "denies"),
            _ => ("rules", "deny"),
        };
        let text = format!("the relay's {rules} {} {deny} it", self.denied.join(", "));
        match self.why {
            Some(why) => format!("{text}: {why}"),
            None => text,
        }
    }
}

/// All of a relay's own refusals.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    mode: RelayMode,
    deny: Vec<Rule>,
}

impl Rules {
    /// The relay's mode.
    #[must_use]
    pub fn mode(&self) -> RelayMode {
        self.mode
    }

    /// How many deny rules there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.deny.len()
    }

    /// Whether there is no deny rule.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.deny.is_empty()
    }

    /// Whether the relay's mode lets through what has this risk.
    #[must_use]
    pub fn mode_lets(&self, risk: Risk) -> bool {
        match (self.mode, risk) {
            (RelayMode::Normal, _) | (RelayMode::Readonly, Risk::Read) => true,
            (RelayMode::Readonly, Risk::Change | Risk::Destroy) => false,
        }
    }

    /// What the deny rules say of a call, as far as it is known.
    pub fn judge(&self, question: &Question<'_>) -> Judgement<'_> {
        let mut judgement = Judgement::default();
        let brain = fold(question.requester.brain.as_str());
        for rule in &self.deny {
            match rule.fits(question, &brain) {
                Fit::No => {}
                Fit::Open => judgement.depends.push(&rule.id),
                Fit::Yes => {
                    judgement.denied.push(&rule.id);
                    judgement.why = judgement.why.or(rule.why.as_deref());
                }
            }
        }
        judgement
    }
}

impl Rule {
    /// `brain` is the requester's, as it is compared.
    fn fits(&self, question: &Question<'_>, brain: &str) -> Fit {
        let Question {
            requester,
            target,
            what,
        } = question;
        let label = |(key, values): (&String, &Vec<String>)| {
            let found = target.labels().get(key);
            values.iter().any(|value| found == Some(value))
        };
        let is_there = among(&self.targets, |named| named == target.name())
            && self.labels.iter().all(label)
            && among(&self.persons, |person| *person == requester.person)
            && among(&self.brains, |named| fold(named.as_str()) == brain);
        if is_there { self.fits_what(*what) } else { Fit::No }
    }

    fn fits_what(&self, what: Option<What<'_>>) -> Fit {
        let Some(what) = what else {
            let says_nothing = self.actions.is_empty() && self.risk.is_empty() && self.args.is_empty();
            return if says_nothing { Fit::Yes } else { Fit::Open };
        };
        if !among(&self.actions, |action| action == what.action) || !among(&self.risk, |risk| *risk == what.risk) {
            return Fit::No;
        }
        let args = self.args.iter().map(|(name, condition)| match what.args {
            Some(args) => condition.fits(args.get(name)),
            None => Fit::Open,
        });
        args.min().unwrap_or(Fit::Yes)
    }
}

/// Whether one of a rule's values fits; a rule without any says nothing of it.
fn among<T>(values: &[T], fits: impl Fn(&T) -> bool) -> bool {
    values.is_empty() || values.iter().any(fits)
}

impl Condition {
    fn fits(&self, value: Option<&Value>) -> Fit {
        let fits = match value {
            // Nobody knows what a program makes of it.
            None => true,
            Some(Value::Array(items)) => items.is_empty() || items.iter().any(|item| self.fits_one(item)),
            // A file that is approved by its content.
            Some(Value::Object(parts)) => parts.get("path").is_none_or(|path| self.fits_one(path)),
            Some(value) => self.fits_one(value),
        };
        if fits { Fit::Yes } else { Fit::No }
    }

    fn fits_one(&self, value: &Value) -> bool {
        let Value::String(text) = value else {
            // A number or a yes or no. One of which the rule speaks as of a text is none that the catalogue lets in.
            return !matches!(self, Self::Is(values) if !values.contains(value));
        };
        if self.is_about_paths() && !is_plain(text) {
            return true;
        }
        let text = fold(text);
        match self {
            Self::Is(values) => values.iter().filter_map(Value::as_str).any(|value| fold(value) == text),
            Self::StartsWith(beginnings) => beginnings.iter().any(|beginning| text.starts_with(&fold(beginning))),
            Self::Beneath(folders) => folders.iter().any(|folder| is_beneath(&text, &fold(folder))),
        }
    }

    /// Whether it speaks of paths: then what is none, or another spelling of one, could be any of them.
    fn is_about_paths(&self) -> bool {
        let is_path = |text: &str| text.starts_with('/');
        match self {
            Self::Is(values) => values.iter().filter_map(Value::as_str).any(is_path),
            Self::StartsWith(beginnings) => beginnings.iter().any(|text| is_path(text)),
            Self::Beneath(_) => true,
        }
    }
}

/// Whether a path is absolute, has no part that is empty, `.` or `..`, and no slash at its end.
fn is_plain(path: &str) -> bool {
    let parts = path.strip_prefix('/');
    parts.is_some_and(|parts| parts.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

fn is_beneath(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// A text as it is compared.
fn fold(text: &str) -> String {
    let shown = text.chars().filter(|c| *c != ' ' && !wire::text::is_hidden(*c));
    shown.flat_map(char::to_lowercase).collect()
}
