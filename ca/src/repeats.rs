//! Refusals that repeat themselves: counted, and recorded once a minute, so that a hijacked relay cannot fill the disk with
//! the CA's no.
//!
//! What is refused because there is too much of it is counted from the second on. Every other refusal is recorded by itself, as
//! long as a relay has no more of them in a minute than its configuration says. The counts are in memory only: a CA that is killed loses
//! those of its last minute.

use std::collections::BTreeMap;

use wire::Code;
use wire::ids::{PersonName, RelayName};

/// Shortest time between two records of what is counted, in seconds.
const EVERY_S: u64 = 60;

/// What is counted together.
pub type Kind = (RelayName, Option<PersonName>, Code);

/// The counts. Bounded: relays and persons are those of the configuration, and Codes are few.
#[derive(Debug, Default)]
pub struct Repeats {
    counts: BTreeMap<Kind, Count>,
    alone: BTreeMap<RelayName, (u64, u64)>,
}

#[derive(Debug, Default)]
struct Count {
    /// When it was recorded last, Unix seconds.
    recorded: Option<u64>,
    /// How many came since.
    count: u64,
    /// What the last one was told.
    message: String,
}

/// What to do about a refusal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Note {
    /// Record it by itself, with all that is known of it.
    Alone,
    /// Record it, and say that it stands for so many.
    Counted(u64),
    /// It is counted; a later record says so.
    Later,
}

/// A record that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// What was counted.
    pub kind: Kind,
    /// How many.
    pub count: u64,
    /// What the last one was told.
    pub message: String,
}

impl Repeats {
    /// Takes note of a refusal of a relay that has so many recorded one by one in a minute.
    #[must_use]
    pub fn note(&mut self, kind: Kind, alone: u64, message: &str, now: u64) -> Note {
        if kind.2 != Code::RateLimited && self.is_alone(&kind.0, alone, now) {
            return Note::Alone;
        }
        let count = self.counts.entry(kind).or_default();
        count.count = count.count.saturating_add(1).min((1 << 53) - 1);
        message.clone_into(&mut count.message);
        if count.is_due(now) {
            Note::Counted(count.settle(now))
        } else {
            Note::Later
        }
    }

    /// The records that are due; all of what was counted, when the CA stops.
    #[must_use]
    pub fn due(&mut self, now: u64, all: bool) -> Vec<Due> {
        let due = self
            .counts
            .iter_mut()
            .filter(|(_, count)| count.count > 0 && (all || count.is_due(now)));
        due.map(|(kind, count)| Due {
            kind: kind.clone(),
            message: count.message.clone(),
            count: count.settle(now),
        })
        .collect()
    }

    /// What could not be recorded is counted on.
    pub fn give_back(&mut self, kind: &Kind, back: u64) {
        if let Some(count) = self.counts.get_mut(kind) {
            count.count = count.count.saturating_add(back).min((1 << 53) - 1);
            count.recorded = None;
        }
    }

    /// Whether the relay has room for another record of its own in this minute.
    fn is_alone(&mut self, relay: &RelayName, most: u64, now: u64) -> bool {
        let (since, count) = self.alone.entry(relay.clone()).or_insert((now, 0));
        if now.abs_diff(*since) >= EVERY_S {
            (*since, *count) = (now, 0);
        }
        *count = count.saturating_add(1);
        *count <= most
    }
}

impl Count {
    fn is_due(&self, now: u64) -> bool {
        self.recorded.is_none_or(|last| now.abs_diff(last) >= EVERY_S)
    }

    fn settle(&mut self, now: u64) -> u64 {
        self.recorded = Some(now);
        std::mem::take(&mut self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(relay: &str, person: Option<&str>, code: Code) -> Kind {
        (relay.parse().unwrap(), person.map(|name| name.parse().unwrap()), code)
    }

    /// REQ-RECORD-20
    #[test]
    fn a_flood_of_quota_refusals_is_one_record_a_minute_and_none_is_lost() {
        let mut repeats = Repeats::default();
        let limited = kind("relay-1", Some("alice"), Code::RateLimited);
        let mut counts = Vec::new();
        for second in 0..=120 {
            for _ in 0..10 {
                match repeats.note(limited.clone(), 300, "no", 1000 + second) {
                    Note::Counted(count) => counts.push(count),
                    Note::Later => {}
                    Note::Alone => panic!("counted from the first on"),
                }
            }
        }
        assert_eq!(counts, [1, 600, 600]);
        assert!(repeats.due(1121, false).is_empty());
        assert_eq!(repeats.due(1180, false)[0].count, 9);
        assert!(repeats.due(1180, true).is_empty(), "nobody came since");
        repeats.give_back(&limited, 9);
        assert_eq!(repeats.due(1181, false)[0].count, 9, "what could not be recorded");
    }

    /// REQ-RECORD-20
    #[test]
    fn other_refusals_are_recorded_one_by_one_until_a_relay_has_too_many() {
        let mut repeats = Repeats::default();
        let denied = kind("relay-1", None, Code::PolicyDenied);
        let alone = (0..10_000).filter(|_| repeats.note(denied.clone(), 300, "no", 1000) == Note::Alone);
        assert_eq!(alone.count(), 300);
        let due = repeats.due(1000, true);
        assert_eq!(
            (due.len(), due[0].count),
            (1, 10_000 - 300 - 1),
            "one of them was recorded at once"
        );
        assert_eq!(
            repeats.note(kind("relay-2", None, Code::PolicyDenied), 300, "no", 1000),
            Note::Alone
        );
        assert_eq!(repeats.note(denied, 300, "no", 1060), Note::Alone, "the next minute");
    }
}
