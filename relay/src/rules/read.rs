//! `mode` and `[[deny]]` of `relay.toml`: what is written, well formed and not yet compared with what there is.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde_json::Value;
use toml::Value as Toml;
use wire::Risk;

use super::{Condition, READONLY, RelayMode, Rule, is_plain};
use crate::config::Fields;

/// Most rules: whoever needs more needs policy.
const RULES: usize = 256;
/// Most values in a list of a rule.
const VALUES: usize = 64;
/// Longest id of a rule.
const ID: usize = 63;
/// Longest text of a rule, in bytes.
const TEXT: usize = 200;

/// The relay's mode.
pub(crate) fn mode(fields: &mut Fields) -> RelayMode {
    match fields.optional_text("mode").as_deref() {
        None => RelayMode::default(),
        Some(word) => [RelayMode::Normal, RelayMode::Readonly]
            .into_iter()
            .find(|mode| mode.as_str() == word)
            .unwrap_or_else(|| {
                fields.fault("mode", "must be \"normal\" or \"readonly\"");
                RelayMode::Readonly
            }),
    }
}

/// The deny rules, as far as each can be read by itself.
pub(crate) fn rules(fields: &mut Fields) -> Vec<Rule> {
    let tables = fields.tables("deny");
    if tables.len() > RULES {
        fields.fault("deny", format_args!("must be at most {RULES} rules"));
    }
    let mut rules: Vec<Rule> = Vec::new();
    for mut table in tables {
        if let Some(rule) = rule(&mut table) {
            if rules.iter().any(|other| other.id == rule.id) {
                table.fault("id", "stands twice");
            }
            rules.push(rule);
        }
        fields.take_faults(table);
    }
    rules
}

fn rule(table: &mut Fields) -> Option<Rule> {
    let id = table.text("id").filter(|id| {
        let fits = is_id(id);
        if !fits {
            table.fault(
                "id",
                format_args!("must be 1 to {ID} of a-z 0-9 - _, and not {READONLY}"),
            );
        }
        fits
    });
    let why = table.optional_text("why").filter(|why| {
        let fits = !why.trim().is_empty() && why.len() <= TEXT && wire::text::hidden(why).is_none();
        if !fits {
            table.fault(
                "why",
                format_args!("must be one line of at most {TEXT} bytes that is all shown"),
            );
        }
        fits
    });
    let rule = Rule {
        id: id.unwrap_or_default(),
        why,
        persons: words(table, "persons"),
        brains: words(table, "brains"),
        targets: words(table, "targets"),
        labels: labels(table),
        actions: words(table, "actions"),
        risk: words::<RiskWord>(table, "risk")
            .into_iter()
            .map(|RiskWord(risk)| risk)
            .collect(),
        args: args(table),
    };
    if !table.has_faults() && rule.says_nothing() {
        table.fault("id", "has no condition beside it: it would deny everything");
    }
    if !rule.args.is_empty() && rule.actions.is_empty() {
        table.fault("actions", "must say whose args they are");
    }
    Some(rule).filter(|rule| !rule.id.is_empty())
}

impl Rule {
    fn says_nothing(&self) -> bool {
        let who = self.persons.is_empty() && self.brains.is_empty();
        let at = self.targets.is_empty() && self.labels.is_empty();
        who && at && self.actions.is_empty() && self.risk.is_empty() && self.args.is_empty()
    }
}

fn is_id(id: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_');
    (1..=ID).contains(&id.len()) && id.bytes().all(fits) && id != READONLY
}

struct RiskWord(Risk);

impl FromStr for RiskWord {
    type Err = &'static str;

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        let risks = [Risk::Read, Risk::Change, Risk::Destroy];
        let risk = risks.into_iter().find(|risk| risk.as_str() == word);
        risk.map(Self).ok_or("must be read, change or destroy")
    }
}

/// One value, or a list of them, each once.
fn several(table: &mut Fields, key: &str, value: Toml) -> Vec<Toml> {
    let values = match value {
        Toml::Array(values) => values,
        value => vec![value],
    };
    if values.is_empty() || values.len() > VALUES {
        table.fault(
            key,
            format_args!("must be 1 to {VALUES} values; leave it out to say nothing of it"),
        );
    }
    let twice = (1..values.len()).find(|at| values[..*at].contains(&values[*at]));
    if let Some(at) = twice {
        table.fault(&format!("{key}[{at}]"), "stands twice");
    }
    values
}

fn words<T: FromStr>(table: &mut Fields, key: &str) -> Vec<T>
where
    T::Err: std::fmt::Display,
{
    let Some(value) = table.take(key) else {
        return Vec::new();
    };
    let mut words = Vec::new();
    for (at, value) in several(table, key, value).iter().enumerate() {
        let at = format!("{key}[{at}]");
        match value.as_str().map(str::parse) {
            Some(Ok(word)) => words.push(word),
            Some(Err(error)) => table.fault(&at, error),
            None => table.fault(&at, "must be a string"),
        }
    }
    words
}

fn labels(table: &mut Fields) -> BTreeMap<String, Vec<String>> {
    let mut labels = BTreeMap::new();
    for (key, value) in table.entries("labels") {
        let at = format!("labels.{}", wire::text::escaped(&key, 64));
        let mut values = Vec::new();
        for value in several(table, &at, value) {
            match value {
                Toml::String(text) => values.push(text),
                _ => table.fault(&at, "must be a string, or a list of them"),
            }
        }
        labels.insert(key, values);
    }
    labels
}

fn args(table: &mut Fields) -> BTreeMap<String, Condition> {
    let mut args = BTreeMap::new();
    for (name, value) in table.entries("args") {
        let at = format!("args.{}", wire::text::escaped(&name, 64));
        if let Some(condition) = condition(table, &at, value) {
            args.insert(name, condition);
        }
    }
    args
}

fn condition(table: &mut Fields, at: &str, value: Toml) -> Option<Condition> {
    let Toml::Table(parts) = value else {
        let values = several(table, at, value).into_iter().filter_map(|value| match value {
            Toml::String(text) => Some(Value::String(text)),
            Toml::Integer(number) => Some(Value::from(number)),
            Toml::Boolean(value) => Some(Value::Bool(value)),
            _ => {
                table.fault(at, "must be texts, integers, or true and false");
                None
            }
        });
        return Some(Condition::Is(values.collect()));
    };
    let mut parts = parts.into_iter();
    let (Some((word, value)), None) = (parts.next(), parts.next()) else {
        table.fault(at, "must be values, { starts_with = … } or { beneath = … }");
        return None;
    };
    let mut texts = Vec::new();
    for value in several(table, at, value) {
        match value {
            Toml::String(text) if !super::fold(&text).is_empty() => texts.push(text),
            _ => table.fault(at, "must be texts that are not empty"),
        }
    }
    match word.as_str() {
        "starts_with" => Some(Condition::StartsWith(texts)),
        "beneath" => {
            if !texts.iter().all(|text| is_plain(text)) {
                table.fault(
                    at,
                    "must be absolute paths without . or .., a doubled slash, or one at the end",
                );
            }
            Some(Condition::Beneath(texts))
        }
        _ => {
            table.fault(at, "must be values, { starts_with = … } or { beneath = … }");
            None
        }
    }
}
