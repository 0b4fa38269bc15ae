//! Decisions that the owners of a policy expect, in a file beside it, and whether the policy makes them.
//!
//! A test is judged as a call is: the same catalogue, defaults filled in, the same words for Cedar. What it says of persons,
//! targets and times is made up where the file declares it, so that a policy can be tested before anybody has it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use catalogue::{Entry, Inventory, Terms};
use serde::Deserialize;
use serde_json::{Map, Value};
use toml::Spanned;
use toml::value::Datetime;
use wire::ids::{ActionName, PersonName, RelayName, TargetName};
use wire::text::escaped;
use wire::{Mode, Proof, Risk};

use super::schema::World;
use super::{Ask, Circumstances, Policy, Verdict};
use crate::issued::Counts;

/// The largest file of tests that is read, in bytes.
pub const MAX_BYTES: u64 = 1 << 20;

/// When a test is judged that names no time: 2027-01-15T08:00:00Z, a Friday.
const TIME: u64 = 1_800_000_000;

/// What became of a file of tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// One line for each test, in order.
    pub lines: Vec<String>,
    /// How many decided otherwise than expected.
    pub failed: usize,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    persons: BTreeSet<String>,
    #[serde(default)]
    target: BTreeMap<String, Host>,
    #[serde(default)]
    test: Vec<Spanned<Case>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Host {
    #[serde(default)]
    labels: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    person: String,
    action: String,
    target: String,
    expect: Expect,
    by: Option<BTreeSet<String>>,
    approvals: Option<u8>,
    in_task: Option<bool>,
    args: Option<toml::Table>,
    #[serde(default)]
    mode: How,
    brain: Option<String>,
    relay: Option<String>,
    time: Option<Datetime>,
    #[serde(default)]
    task_age_s: u32,
    #[serde(default)]
    counts: Before,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Expect {
    Allow,
    Deny,
    Error,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum How {
    #[default]
    Run,
    DryRun,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Before {
    task_requests: u32,
    task_targets: u32,
    person_requests: u32,
    person_targets: u32,
}

/// What a policy said of a case.
struct Found {
    verdict: Expect,
    by: BTreeSet<String>,
    approvals: u8,
    in_task: bool,
    why: Option<String>,
}

/// Judges every test of a file.
///
/// # Errors
/// What is wrong with the file: then nothing was judged.
pub fn run(text: &str, policy: &Policy, world: &World<'_>, inventory: &Inventory) -> Result<Report, Vec<String>> {
    let file: File = toml::from_str(text).map_err(|error| vec![unread(&error, text)])?;
    if file.test.is_empty() {
        return Err(vec![
            "there is no [[test]] in it; write one for each decision".to_owned(),
        ]);
    }
    let mut report = Report {
        lines: Vec::new(),
        failed: 0,
    };
    let mut faults = Vec::new();
    let mut seen = BTreeSet::new();
    for case in &file.test {
        let line = line_of(text, case.span().start);
        let case = case.as_ref();
        let name = escaped(&case.name, 120);
        if !seen.insert(&case.name) {
            faults.push(format!(
                "line {line}, {name}: two tests have this name; give each its own"
            ));
        }
        match judge(case, &file, policy, world, inventory) {
            Err(what) => faults.push(format!("line {line}, {name}: {what}")),
            Ok(found) => match differences(case, &found).as_slice() {
                [] => report.lines.push(format!("ok      {name}")),
                differences => {
                    report.failed += 1;
                    report
                        .lines
                        .push(format!("FAILED  {name} (line {line}): {}", differences.join("; ")));
                }
            },
        }
    }
    if faults.is_empty() { Ok(report) } else { Err(faults) }
}

fn judge(case: &Case, file: &File, policy: &Policy, world: &World<'_>, inventory: &Inventory) -> Result<Found, String> {
    let person: PersonName = parse("person", &case.person)?;
    if !file.persons.contains(&case.person) && !world.persons.contains(&person) {
        return Err(format!(
            "nobody speaks for {person}; add it to `persons`, or to ca.toml"
        ));
    }
    let target: TargetName = parse("target", &case.target)?;
    let labels = match (file.target.get(&case.target), inventory.find(&case.target)) {
        (Some(host), _) => &host.labels,
        (None, Some(known)) => known.labels(),
        (None, None) => {
            return Err(format!(
                "there is no target {target}; add [target.{target}] to this file"
            ));
        }
    };
    let relay: RelayName = match (&case.relay, world.relays.first()) {
        (Some(name), _) => parse("relay", name)?,
        (None, Some(first)) => first.clone(),
        (None, None) => return Err("there is no relay; name one".to_owned()),
    };
    let brain: wire::ids::BrainName = parse("brain", case.brain.as_deref().unwrap_or("claude-code"))?;
    let action: ActionName = parse("action", &case.action)?;
    let entry = world.catalogue.find(&action).ok_or_else(|| {
        let known: Vec<&str> = world.catalogue.iter().map(|(name, _)| name.as_str()).collect();
        format!(
            "there is no action {action}; the CA's catalogue has {}",
            known.join(", ")
        )
    })?;
    let mode = mode_of(case.mode);
    let Terms { risk, approvals: least } = entry
        .manifest()
        .in_mode(mode)
        .ok_or_else(|| format!("{action} has no dry run; take mode out"))?;
    let by_itself = risk != Risk::Read || policy.is_about_arguments_of(&action) || case.args.is_some();
    let args = if by_itself { Some(arguments(case, entry)?) } else { None };
    let now = case.time.map_or(Ok(TIME), |time| {
        unix(&time).ok_or("time must be a date and time in UTC since 1970, as 2027-01-15T08:00:00Z")
    })?;
    let call = Circumstances {
        person: &person,
        target: &target,
        labels,
        brain: brain.as_str(),
        proof: Proof::Relay.as_str(),
        relay: &relay,
        now,
        opened: now.saturating_sub(case.task_age_s.into()),
        counts: Counts {
            task_requests: case.counts.task_requests.into(),
            task_targets: case.counts.task_targets.into(),
            person_requests: case.counts.person_requests.into(),
            person_targets: case.counts.person_targets.into(),
        },
    };
    let ask = Ask {
        action: &action,
        risk,
        mode,
        args: args.as_ref(),
    };
    let verdict = policy.scene(&call).and_then(|scene| scene.judge(&ask));
    let set = |by: Vec<String>| by.into_iter().collect();
    Ok(match verdict {
        Ok(Verdict::Allow { by, approvals }) => Found {
            verdict: Expect::Allow,
            by: set(by),
            approvals: approvals.max(least),
            in_task: risk == Risk::Read && approvals == 0 && !policy.is_about_arguments_of(&action),
            why: None,
        },
        Ok(Verdict::Deny { by }) => Found::without(Expect::Deny, set(by), None),
        Err(error) => Found::without(Expect::Error, set(error.policies), Some(error.what)),
    })
}

impl Found {
    fn without(verdict: Expect, by: BTreeSet<String>, why: Option<String>) -> Self {
        Self {
            verdict,
            by,
            approvals: 0,
            in_task: false,
            why,
        }
    }
}

fn mode_of(how: How) -> Mode {
    match how {
        How::Run => Mode::Run,
        How::DryRun => Mode::DryRun,
    }
}

/// All arguments, as a relay would send them: defaults filled in.
fn arguments(case: &Case, entry: &Entry) -> Result<Map<String, Value>, String> {
    let given = match serde_json::to_value(case.args.clone().unwrap_or_default()) {
        Ok(Value::Object(given)) => given,
        _ => return Err("args must be a table".to_owned()),
    };
    let checked = entry.manifest().check_args(&given).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        format!("args: {}", faults.join("; "))
    })?;
    Ok(checked.args().clone())
}

/// What the policy said otherwise than expected.
fn differences(case: &Case, found: &Found) -> Vec<String> {
    let mut differences = Vec::new();
    if found.verdict != case.expect {
        let why = found.why.as_ref().map(|why| format!(": {}", escaped(why, 200)));
        differences.push(format!(
            "expected {}, got {} {}{}",
            case.expect,
            found.verdict,
            by(&found.by),
            why.unwrap_or_default()
        ));
    } else if let Some(wanted) = case.by.as_ref().filter(|wanted| **wanted != found.by) {
        differences.push(format!("expected {}, got {}", by(wanted), by(&found.by)));
    }
    if let Some(wanted) = case.approvals.filter(|wanted| *wanted != found.approvals) {
        differences.push(format!("expected {wanted} approvals, got {}", found.approvals));
    }
    if let Some(wanted) = case.in_task.filter(|wanted| *wanted != found.in_task) {
        let told = |inside| {
            if inside {
                "in each task's certificate"
            } else {
                "judged by itself"
            }
        };
        differences.push(format!("expected it {}, got it {}", told(wanted), told(found.in_task)));
    }
    differences
}

fn by(policies: &BTreeSet<String>) -> String {
    if policies.is_empty() {
        return "by no policy".to_owned();
    }
    let names: Vec<String> = policies.iter().map(|name| escaped(name, 80)).collect();
    format!("by {}", names.join(", "))
}

impl fmt::Display for Expect {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
            Self::Error => "error",
        })
    }
}

fn parse<T>(what: &str, text: &str) -> Result<T, String>
where
    T: std::str::FromStr<Err: fmt::Display>,
{
    text.parse()
        .map_err(|error| format!("{what} \"{}\": {error}", escaped(text, 80)))
}

fn unread(error: &toml::de::Error, text: &str) -> String {
    let what = escaped(error.message(), 200);
    match error.span() {
        Some(span) => format!("line {}: {what}", line_of(text, span.start)),
        None => what,
    }
}

fn line_of(text: &str, at: usize) -> usize {
    1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count()
}

/// Unix seconds of a time in UTC.
fn unix(time: &Datetime) -> Option<u64> {
    let (date, clock) = (time.date?, time.time?);
    if !matches!(time.offset?, toml::value::Offset::Z) {
        return None;
    }
    // Days since 1970-01-01 (Howard Hinnant, `days_from_civil`); years begin in March.
    let (year, month) = (i64::from(date.year), i64::from(date.month));
    let year = if month <= 2 { year - 1 } else { year };
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + i64::from(date.day) - 1;
    let days = 365 * year + year / 4 - year / 100 + year / 400 + day_of_year - 719_468;
    let days = u64::try_from(days).ok()?;
    let seconds = u64::from(clock.second.unwrap_or(0));
    Some(days * 86_400 + u64::from(clock.hour) * 3600 + u64::from(clock.minute) * 60 + seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_that_date_says() {
        // date -u -d 2027-01-15T08:00:00Z +%s
        for (text, seconds) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2027-01-15T08:00:00Z", Some(1_800_000_000)),
            ("2024-02-29T23:59:59Z", Some(1_709_251_199)),
            ("2000-03-01T00:00:00Z", Some(951_868_800)),
            ("1969-12-31T23:59:59Z", None),
            ("2027-01-15T08:00:00+01:00", None),
            ("2027-01-15T08:00:00", None),
            ("2027-01-15", None),
        ] {
            assert_eq!(unix(&text.parse().unwrap()), seconds, "{text}");
        }
    }
}
