//! Refusals that repeat themselves: counted, and recorded once a minute, so that whoever calls too fast cannot fill the
//! disk with the relay's no.
//!
//! The first of a minute is recorded at once; the next record says how many came since. The counts are in memory only: a
//! relay that is killed loses those of its last minute, and one that is stopped writes them.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use audit::{Decision, Draft, Event};
use wire::ids::PersonName;
use wire::{Code, Requester};

use crate::lock::lock;

/// Shortest time between two records of one person and Code.
const EVERY: Duration = Duration::from_secs(60);

/// The counts. Bounded: persons are those of the configuration, and the gate knows three Codes.
#[derive(Default)]
pub struct Repeats {
    counts: Mutex<BTreeMap<(PersonName, Code), Count>>,
}

struct Count {
    /// When the last record was due.
    recorded: Option<Duration>,
    /// How many came since.
    count: u64,
    /// Who the last one was for.
    requester: Requester,
    /// What it was told.
    message: String,
}

impl Repeats {
    /// Counts one. Gives the record that is due by it, if one is.
    #[must_use]
    pub fn note(&self, requester: &Requester, code: Code, message: &str, now: Duration) -> Option<Draft> {
        let mut counts = self.counts();
        let count = counts.entry((requester.person.clone(), code)).or_insert_with(|| Count {
            recorded: None,
            count: 0,
            requester: requester.clone(),
            message: String::new(),
        });
        count.count = count.count.saturating_add(1).min((1 << 53) - 1);
        count.requester = requester.clone();
        message.clone_into(&mut count.message);
        if count.recorded.is_some_and(|last| now < last.saturating_add(EVERY)) {
            return None;
        }
        Some(count.settle(code, now))
    }

    /// The records that are a minute due, or all when the relay stops.
    #[must_use]
    pub fn due(&self, now: Duration, all: bool) -> Vec<Draft> {
        let mut counts = self.counts();
        let is_due = |count: &Count| all || count.recorded.is_none_or(|last| now >= last.saturating_add(EVERY));
        let due = counts.iter_mut().filter(|(_, count)| count.count > 0 && is_due(count));
        due.map(|((_, code), count)| count.settle(*code, now)).collect()
    }

    /// A record that could not be written: what it counted is counted on.
    pub fn give_back(&self, draft: &Draft) {
        let (Some(requester), Some(code), Some(back)) = (&draft.requester, draft.code, draft.count) else {
            return;
        };
        if let Some(count) = self.counts().get_mut(&(requester.person.clone(), code)) {
            count.count = count.count.saturating_add(back).min((1 << 53) - 1);
            count.recorded = None;
        }
    }

    fn counts(&self) -> MutexGuard<'_, BTreeMap<(PersonName, Code), Count>> {
        lock(&self.counts)
    }
}

impl Count {
    fn settle(&mut self, code: Code, now: Duration) -> Draft {
        self.recorded = Some(now);
        Draft {
            requester: Some(self.requester.clone()),
            decision: Some(Decision::Deny),
            code: Some(code),
            message: Some(self.message.clone()),
            count: Some(std::mem::take(&mut self.count)),
            ..Draft::new(Event::Refused)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requester(person: &str) -> Requester {
        Requester {
            brain: "claude".parse().unwrap(),
            person: person.parse().unwrap(),
            proof: wire::Proof::Relay,
        }
    }

    /// REQ-RECORD-20
    #[test]
    fn a_flood_of_refused_calls_is_one_record_a_minute_and_none_is_lost() {
        let repeats = Repeats::default();
        let mut records = Vec::new();
        for second in 0..=120 {
            let now = Duration::from_secs(1000 + second);
            for _ in 0..10 {
                records.extend(repeats.note(&requester("alice"), Code::RateLimited, "no", now));
            }
        }
        let counts: Vec<_> = records.iter().map(|record| record.count.unwrap()).collect();
        assert_eq!(counts, [1, 600, 600]);
        let now = Duration::from_secs(1121);
        assert!(repeats.due(now, false).is_empty());
        assert_eq!(repeats.due(now + EVERY, false)[0].count, Some(9));
        assert!(repeats.due(now + EVERY, true).is_empty(), "nobody came since");
    }

    #[test]
    fn persons_and_codes_are_counted_apart_and_a_stop_gives_what_is_left() {
        let repeats = Repeats::default();
        let now = Duration::from_secs(5);
        assert!(repeats.note(&requester("alice"), Code::RateLimited, "a", now).is_some());
        assert!(repeats.note(&requester("bob"), Code::RateLimited, "b", now).is_some());
        assert!(repeats.note(&requester("alice"), Code::Capacity, "c", now).is_some());
        assert!(repeats.note(&requester("alice"), Code::RateLimited, "d", now).is_none());
        assert!(repeats.due(now, false).is_empty());
        let left = repeats.due(now, true);
        assert_eq!(left.len(), 1);
        assert_eq!((left[0].count, left[0].message.as_deref()), (Some(1), Some("d")));
    }

    #[test]
    fn what_could_not_be_recorded_is_recorded_with_the_next() {
        let repeats = Repeats::default();
        let now = Duration::from_secs(5);
        let lost = repeats.note(&requester("alice"), Code::Capacity, "x", now).unwrap();
        repeats.give_back(&lost);
        let next = repeats.note(&requester("alice"), Code::Capacity, "x", now).unwrap();
        assert_eq!(next.count, Some(2));
    }
}
