//! Arguments of a call, taken out one by one: what is wrong with any is noted, and all of it is said at once.

use std::collections::BTreeSet;
use std::str::FromStr;

use serde_json::{Map, Value};
use wire::ids::{ActionName, Reason, TargetName, TaskId};
use wire::{Code, Mode, Risk};

use crate::call::{Act, Call, Search};
use crate::error::{About, Refusal};

/// Most targets that one task may be opened on at once.
pub(super) const TARGETS: usize = 64;
/// Longest text of words to look for, in characters.
pub(super) const WORDS: usize = 200;
/// Longest cursor, in characters.
pub(super) const CURSOR: usize = 64;

/// Where an action is to be run, in which task, why, and whether it is.
struct Place {
    target: Option<TargetName>,
    task: Option<TaskId>,
    reason: Option<Reason>,
    mode: Mode,
}

/// Arguments that are taken out one by one.
pub(super) struct Fields {
    map: Map<String, Value>,
    faults: Vec<String>,
}

/// Whether a tool takes a mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Modes {
    /// `mode` is one of its arguments.
    Both,
    /// Its action can only be done.
    Run,
}

impl Fields {
    pub(super) fn of(map: Map<String, Value>) -> Self {
        Self {
            map,
            faults: Vec::new(),
        }
    }

    /// One of these words; `None` where there is none of them.
    fn word<T: Copy>(&mut self, key: &str, words: &[(&str, T)]) -> Option<T> {
        let value = self.map.remove(key)?;
        let found = words.iter().find(|(word, _)| value == *word);
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.faults.push(format!("{key}: must be {}", words.join(" or ")));
        }
        found.map(|(_, value)| *value)
    }

    /// A text of so many characters.
    fn text(&mut self, key: &str, longest: usize) -> Option<String> {
        match self.map.remove(key)? {
            Value::String(text) if text.chars().count() <= longest => Some(text),
            _ => {
                self.faults
                    .push(format!("{key}: must be a string of at most {longest} characters"));
                None
            }
        }
    }

    pub(super) fn search(mut self) -> Result<Call, Refusal> {
        let words = self.text("words", WORDS).unwrap_or_default().to_lowercase();
        let search = Search {
            words: words.split_whitespace().map(str::to_owned).collect(),
            target: self.optional("target"),
            risk: self.word(
                "risk",
                &[Risk::Read, Risk::Change, Risk::Destroy].map(|risk| (risk.as_str(), risk)),
            ),
            cursor: self.text("cursor", CURSOR),
        };
        self.finish(Call::FindActions(search))
    }

    fn optional<T: FromStr>(&mut self, key: &str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        match self.map.remove(key)? {
            Value::String(text) => match text.parse() {
                Ok(value) => Some(value),
                Err(error) => {
                    self.faults.push(format!("{key}: failed to {error}"));
                    None
                }
            },
            _ => {
                self.faults.push(format!("{key}: must be a string"));
                None
            }
        }
    }

    pub(super) fn required<T: FromStr>(&mut self, key: &str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        if !self.map.contains_key(key) {
            self.faults.push(format!("{key}: is missing"));
        }
        self.optional(key)
    }

    pub(super) fn targets(&mut self) -> Option<Vec<TargetName>> {
        let Some(Value::Array(items)) = self.map.remove("targets") else {
            self.faults
                .push("targets: must be a list of names from list_targets".to_owned());
            return None;
        };
        let names: Option<Vec<TargetName>> = items.iter().map(|item| item.as_str()?.parse().ok()).collect();
        let distinct = names
            .as_ref()
            .map_or(0, |names| names.iter().collect::<BTreeSet<_>>().len());
        if names.is_none() || distinct != items.len() || !(1..=TARGETS).contains(&items.len()) {
            self.faults.push(format!(
                "targets: must be 1 to {TARGETS} names from list_targets, each once"
            ));
            return None;
        }
        names
    }

    /// A task id that is none is answered like one that is nobody's.
    pub(super) fn task(&mut self, required: bool) -> Result<Option<TaskId>, Refusal> {
        match self.map.remove("task_id") {
            Some(Value::String(text)) => text
                .parse()
                .map(Some)
                .map_err(|_| Refusal::new(Code::UnknownTask, &About::default())),
            Some(_) => {
                self.faults.push("task_id: must be a string".to_owned());
                Ok(None)
            }
            None => {
                if required {
                    self.faults.push("task_id: is missing".to_owned());
                }
                Ok(None)
            }
        }
    }

    pub(super) fn act(mut self, action: ActionName, modes: Modes) -> Result<Call, Refusal> {
        let place = self.place(modes)?;
        // What is left are the action's own arguments: the manifest's schema is closed and judges them.
        let args = std::mem::take(&mut self.map);
        self.finish_act(Some(action), place, args)
    }

    pub(super) fn run_action(mut self) -> Result<Call, Refusal> {
        let action = self.required::<ActionName>("action");
        let place = self.place(Modes::Both)?;
        let args = match self.map.remove("args") {
            None => Map::new(),
            Some(Value::Object(args)) => args,
            Some(_) => {
                self.faults.push("args: must be an object".to_owned());
                Map::new()
            }
        };
        self.finish_act(action, place, args)
    }

    /// What every action takes.
    fn place(&mut self, modes: Modes) -> Result<Place, Refusal> {
        let mode = match modes {
            Modes::Both => self.word("mode", &[Mode::Run, Mode::DryRun].map(|mode| (mode.as_str(), mode))),
            Modes::Run => None,
        };
        Ok(Place {
            mode: mode.unwrap_or(Mode::Run),
            target: self.required("target"),
            task: self.task(false)?,
            reason: self.optional("reason"),
        })
    }

    fn finish_act(self, action: Option<ActionName>, place: Place, args: Map<String, Value>) -> Result<Call, Refusal> {
        let Place {
            target,
            task,
            reason,
            mode,
        } = place;
        let about = About {
            action: action.clone(),
            target: target.clone(),
            mode: Some(mode),
            ..About::default()
        };
        let act = action.zip(target).map(|(action, target)| {
            Call::Act(Act {
                action,
                target,
                task,
                reason,
                mode,
                args,
            })
        });
        self.finish_some(act, about)
    }

    pub(super) fn finish(self, call: Call) -> Result<Call, Refusal> {
        self.finish_some(Some(call), About::default())
    }

    pub(super) fn finish_some(mut self, call: Option<Call>, about: About) -> Result<Call, Refusal> {
        for key in self.map.keys() {
            self.faults.push(format!(
                "{}: is not an argument of this tool",
                wire::text::escaped(key, 64)
            ));
        }
        match call {
            Some(call) if self.faults.is_empty() => Ok(call),
            _ => Err(Refusal::because(Code::ArgumentsInvalid, self.faults.join("; "), &about)),
        }
    }
}
