//! The one helper of every hostile test: the Code is right, the evidence is in the log of the tier that refused, and
//! nothing ran anywhere.
//!
//! Where sshd or the kernel refuses there is no Code: what the attacker was told stands in its place, and no log of any
//! tier has changed.

use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::control::{CA_LOG, RELAY_LOG};
use crate::records;
use crate::stack::Stack;
use crate::target::{LOG, Target};

/// Who has to refuse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By<'a> {
    /// The relay.
    Relay,
    /// The CA.
    Ca,
    /// The target of this name.
    Target(&'a str),
}

/// What a refusal leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Leaves {
    /// Exactly one `refused` record with the Code: the peer had proved itself.
    Record,
    /// One more in the count of strangers, and no line of its own.
    Count,
    /// Nothing in any log of any tier: the attack did not get as far as a program of ours that had opened one.
    Nothing,
}

/// A file that an attack would make if its text were ever executed, on whichever machine.
pub const CANARY: &str = "/tmp/canary";

/// Where a target counts those that proved nothing until their minute is over.
const COUNTER: &str = "/var/lib/writ/strangers";

/// What the logs say before and after.
#[derive(Debug, PartialEq, Eq)]
struct Evidence {
    refused_with_code: usize,
    refused: usize,
    strangers_with_code: u64,
    strangers: u64,
    intents: usize,
    /// Of all tiers, without what a log writes of itself: its genesis, and the minute's count of those counted above.
    records: usize,
}

/// Runs `attack`, whose value is the Code that the attacker was told, and asserts all of it. Where there can be no Code
/// ([`Leaves::Nothing`]) `code` is what else the attacker was told: sshd's words, an exit code.
pub fn assert_refused(
    stack: &Stack,
    by: By<'_>,
    leaves: Leaves,
    code: &str,
    attack: impl FnOnce() -> Result<String>,
) -> Result<()> {
    let before = Evidence::of(stack, by, code)?;
    let told = attack().with_context(|| format!("the attack that {code} should stop did not get an answer"))?;
    ensure!(told == code, "told {told}, not {code}");
    let after = Evidence::of(stack, by, code)?;
    let (records, strangers) = match leaves {
        Leaves::Record => (1, 0),
        Leaves::Count => (0, 1),
        Leaves::Nothing => (0, 0),
    };
    let expected = Evidence {
        refused_with_code: before.refused_with_code + records,
        refused: before.refused + records,
        strangers_with_code: before.strangers_with_code + strangers,
        strangers: before.strangers + strangers,
        intents: before.intents,
        // A relay that refuses, or passes a refusal on, has also recorded the call.
        records: if leaves == Leaves::Nothing {
            before.records
        } else {
            after.records
        },
    };
    ensure!(
        after == expected,
        "{by:?} was to refuse with {code} and left {after:?}, not {expected:?}"
    );
    ensure!(!canary(stack), "the canary is there: something ran");
    Ok(())
}

/// Whether the canary exists on any machine of the stack.
pub fn canary(stack: &Stack) -> bool {
    let roots = stack
        .targets
        .iter()
        .map(|target| target.root())
        .chain([stack.control.root()]);
    roots.into_iter().any(|root| root.at(CANARY).exists())
}

/// How many intents all targets hold together.
pub fn intents(stack: &Stack) -> Result<usize> {
    stack
        .targets
        .iter()
        .map(|target| Ok(records::count(&target.records()?, "intent", None)))
        .sum()
}

/// How many strangers a target has counted since its log began.
pub fn strangers(target: &Target) -> Result<u64> {
    Ok(count_strangers(&target.records()?, &target.root().at(COUNTER), "").0)
}

/// Those of the records and those of the counter, all together and with this Code.
fn count_strangers(records: &[Value], counter: &Path, code: &str) -> (u64, u64) {
    let pending = pending(counter);
    let counted = records.iter().filter(|record| records::is(record, "strangers"));
    counted.chain([&pending]).fold((0, 0), |(all, with_code), counted| {
        let number = |pointer: &str| counted.pointer(pointer).and_then(Value::as_u64).unwrap_or_default();
        (all + number("/count"), with_code + number(&format!("/codes/{code}")))
    })
}

/// What the last of a target's strangers said, as its log will have it: in the counter, or in the minute's record.
pub fn last_stranger(target: &Target) -> Result<String> {
    let waiting = pending(&target.root().at(COUNTER));
    let text = if waiting.get("count").and_then(Value::as_u64).unwrap_or_default() > 0 {
        records::of(&waiting, "text").map(str::to_owned)
    } else {
        let records = target.records()?;
        let last = records.iter().rev().find(|record| records::is(record, "strangers"));
        last.and_then(|record| records::of(record, "message"))
            .map(str::to_owned)
    };
    text.context("nobody was counted")
}

/// Those that were counted and not recorded yet.
fn pending(counter: &Path) -> Value {
    std::fs::read(counter)
        .ok()
        .and_then(|bytes| serde_json::from_slice(bytes.trim_ascii_end()).ok())
        .unwrap_or_default()
}

/// How many records there are in all logs of the stack, but for those that logs write of themselves.
fn all_records(stack: &Stack) -> Result<usize> {
    let mut logs = vec![stack.control.records_relay()?, stack.control.records_ca()?];
    for target in &stack.targets {
        logs.push(target.records()?);
    }
    let own = |record: &&Value| records::is(record, "genesis") || records::is(record, "strangers");
    Ok(logs.iter().flatten().filter(|record| !own(record)).count())
}

impl Evidence {
    fn of(stack: &Stack, by: By<'_>, code: &str) -> Result<Evidence> {
        let (log, counter) = match by {
            By::Relay => (
                stack.control.root().at(RELAY_LOG),
                stack.control.root().at("var/lib/writ-relay/strangers"),
            ),
            By::Ca => (
                stack.control.root().at(CA_LOG),
                stack.control.root().at("var/lib/writ-ca/strangers"),
            ),
            By::Target(name) => {
                let root = stack.target(name)?.root();
                (root.at(LOG), root.at(COUNTER))
            }
        };
        let all = records::read(&log)?;
        let (strangers, strangers_with_code) = count_strangers(&all, &counter, code);
        Ok(Evidence {
            refused_with_code: records::count(&all, "refused", Some(code)),
            refused: records::count(&all, "refused", None),
            strangers_with_code,
            strangers,
            intents: intents(stack)?,
            records: all_records(stack)?,
        })
    }
}
