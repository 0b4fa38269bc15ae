//! The part of the story that searches the catalogue for whoever does not know what an action is called.
//!
//! What the relay's own rules exclude is said, not left out: who looks for a way to restart a service, and is shown none,
//! looks for another way. What the CA's policy says is not known here; it is asked when an action is called.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use catalogue::{Manifest, Target};
use serde_json::Value;
use wire::ids::{ActionName, Digest};
use wire::{Code, Mode, Requester, Risk};

use super::{Relay, tasks};
use crate::call::{Barrier, Found, FoundAction, Names, Reach, Search};
use crate::error::{About, Refusal};
use crate::rules::{Question, READONLY, What};

/// Most actions of one answer.
const PAGE: usize = 10;
/// Most bytes of schemas in one answer, but for its first action.
const SCHEMAS: usize = 96 * 1024;
/// Most targets that are named; the others are counted.
const NAMED: usize = 64;

/// How well an action fits: how many of the words it has, and how much these weigh.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Score {
    words: usize,
    weight: usize,
}

impl Relay {
    /// Actions of the relay's catalogue, the best first.
    pub(super) fn find_actions(&self, requester: &Requester, search: &Search) -> Result<Found, Refusal> {
        let about = About::default();
        let places: Vec<&Target> = match &search.target {
            None => self.inventory.iter().collect(),
            Some(name) => match self.inventory.find(name.as_str()) {
                Some(target) => vec![target],
                None => {
                    let detail = tasks::not_in_the_inventory(&[name.as_str()]);
                    return Err(Refusal::because(Code::UnknownTarget, detail, &about));
                }
            },
        };
        let mut fits: Vec<(Reverse<Score>, &ActionName, &Manifest)> = self
            .catalogue
            .iter()
            .map(|(name, entry)| (name, entry.manifest()))
            .filter(|(_, manifest)| search.risk.is_none_or(|risk| manifest.risk() == risk))
            .filter_map(|(name, manifest)| Some((Reverse(score(manifest, &search.words)?), name, manifest)))
            .collect();
        fits.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
        let order = mark(fits.iter().map(|(_, name, _)| *name));
        let begin = match &search.cursor {
            None => 0,
            Some(cursor) => place(cursor, &order).ok_or_else(|| {
                let detail = "cursor: it is of another search; leave it out to begin";
                Refusal::because(Code::ArgumentsInvalid, detail, &about)
            })?,
        };
        let mut found = Found {
            actions: Vec::new(),
            count: fits.len(),
            cursor: None,
        };
        let mut bytes = 0_usize;
        for (at, (_, _, manifest)) in fits.iter().enumerate().skip(begin) {
            let args = manifest.input_schema();
            bytes = bytes.saturating_add(args.to_string().len());
            let is_full = found.actions.len() >= PAGE || bytes > SCHEMAS;
            if is_full && !found.actions.is_empty() {
                found.cursor = Some(format!("{at}.{order}"));
                break;
            }
            found.actions.push(FoundAction {
                action: manifest.name().clone(),
                title: manifest.title().to_owned(),
                description: manifest.description().to_owned(),
                args,
                approvals: manifest.approvals(),
                run: self.reaches(requester, manifest, manifest.risk(), &places),
                dry_run: manifest
                    .in_mode(Mode::DryRun)
                    .map(|terms| self.reaches(requester, manifest, terms.risk, &places)),
            });
        }
        Ok(found)
    }

    /// How far the relay's own rules let an action go.
    fn reaches(&self, requester: &Requester, manifest: &Manifest, risk: Risk, places: &[&Target]) -> Reach {
        let mut reach = Reach {
            risk,
            targets: Names::default(),
            denied: Vec::new(),
        };
        let mut barriers: BTreeMap<(&str, bool), Names> = BTreeMap::new();
        for &target in places {
            let judgement = self.rules.judge(&Question {
                requester,
                target,
                what: Some(What {
                    action: manifest.name(),
                    risk,
                    args: None,
                }),
            });
            let mode = (!self.rules.mode_lets(risk)).then_some(READONLY);
            let denied = judgement.denied.iter().copied().chain(mode).map(|rule| (rule, true));
            let depends = judgement.depends.iter().copied().map(|rule| (rule, false));
            let mut is_open = true;
            for (rule, always) in denied.chain(depends) {
                is_open &= !always;
                barriers.entry((rule, always)).or_default().note(target);
            }
            if is_open {
                reach.targets.note(target);
            }
        }
        reach.denied = barriers
            .into_iter()
            .map(|((by, always), targets)| Barrier {
                by: by.to_owned(),
                always,
                targets,
            })
            .collect();
        reach
    }
}

impl Names {
    fn note(&mut self, target: &Target) {
        self.count += 1;
        if self.first.len() < NAMED {
            self.first.push(target.name().clone());
        }
    }
}

/// How well an action fits the words: `None` where it has none of them.
fn score(manifest: &Manifest, words: &[String]) -> Option<Score> {
    let texts = [
        (8, manifest.name().as_str().to_lowercase()),
        (4, manifest.title().to_lowercase()),
        (2, manifest.description().to_lowercase()),
        (1, about_args(manifest).to_lowercase()),
    ];
    let mut score = Score { words: 0, weight: 0 };
    for word in words {
        let has = texts.iter().filter(|(_, text)| text.contains(word.as_str()));
        let weight: usize = has.map(|(weight, _)| weight).sum();
        score.weight += weight;
        score.words += usize::from(weight > 0);
    }
    (words.is_empty() || score.words > 0).then_some(score)
}

/// The names of an action's arguments, what is said of them, and the values that they list.
fn about_args(manifest: &Manifest) -> String {
    let schema = manifest.input_schema();
    let properties = schema.get("properties").and_then(Value::as_object);
    let mut text = String::new();
    for (name, property) in properties.into_iter().flatten() {
        text.push_str(name);
        for key in ["title", "description", "enum", "const", "examples"] {
            if let Some(value) = property.get(key) {
                text.push(' ');
                text.push_str(&value.to_string());
            }
        }
        text.push(' ');
    }
    text
}

/// What a cursor is good for: the same actions in the same order.
fn mark<'a>(names: impl Iterator<Item = &'a ActionName>) -> String {
    let names: Vec<&str> = names.map(ActionName::as_str).collect();
    Digest::of(names.join("\n").as_bytes())
        .as_str()
        .chars()
        .take(12)
        .collect()
}

fn place(cursor: &str, order: &str) -> Option<usize> {
    let (at, of) = cursor.split_once('.')?;
    (of == order).then(|| at.parse().ok()).flatten()
}
