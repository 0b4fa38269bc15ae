//! Peers that proved nothing: counted, and recorded together once a minute, so that a flood of them fills no disk.
//!
//! Whoever is counted costs a few bytes and no write: nobody who may call waits for them. The first of a minute is recorded
//! at once; the next record says how many came since. The counts are in memory only: a relay that is killed loses those of
//! its last minute, and one that is stopped writes them.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use audit::{Draft, Event};
use wire::Code;

use crate::lock::lock;

/// Shortest time between two records.
const EVERY: Duration = Duration::from_secs(60);
/// Longest text that is kept of a stranger, in bytes.
const TEXT: usize = 200;

/// The counts. Bounded: there are only so many Codes.
#[derive(Default)]
pub struct Strangers {
    counted: Mutex<Counted>,
}

#[derive(Default)]
struct Counted {
    /// When the last record was due.
    recorded: Option<Duration>,
    /// How many came since, for each reason.
    codes: BTreeMap<Code, u64>,
    /// What is known of the last one, escaped and cut.
    text: String,
}

impl Strangers {
    /// Counts one. Gives the record that is due by it, if one is.
    #[must_use]
    pub fn note(&self, code: Code, text: &str, now: Duration) -> Option<Draft> {
        let mut counted = lock(&self.counted);
        *counted.codes.entry(code).or_default() += 1;
        counted.text = wire::text::escaped(text, TEXT);
        counted.is_due(now).then(|| counted.settle(now))
    }

    /// The record that is a minute due, or of whatever there is when the relay stops.
    #[must_use]
    pub fn due(&self, now: Duration, all: bool) -> Option<Draft> {
        let mut counted = lock(&self.counted);
        (!counted.codes.is_empty() && (all || counted.is_due(now))).then(|| counted.settle(now))
    }

    /// A record that could not be written: what it counted is counted on.
    pub fn give_back(&self, draft: &Draft) {
        let mut counted = lock(&self.counted);
        for (code, back) in draft.codes.iter().flatten() {
            if let Some(code) = Code::ALL.iter().find(|known| known.as_str() == code) {
                *counted.codes.entry(*code).or_default() += back;
            }
        }
        if counted.text.is_empty() {
            counted.text = draft.message.clone().unwrap_or_default();
        }
    }
}

impl Counted {
    fn is_due(&self, now: Duration) -> bool {
        self.recorded.is_none_or(|last| now >= last.saturating_add(EVERY))
    }

    fn settle(&mut self, now: Duration) -> Draft {
        self.recorded = Some(now);
        let codes = std::mem::take(&mut self.codes);
        Draft {
            code: codes.iter().max_by_key(|(_, count)| **count).map(|(code, _)| *code),
            message: Some(std::mem::take(&mut self.text)),
            count: Some(codes.values().sum()),
            codes: Some(
                codes
                    .iter()
                    .map(|(code, count)| (code.as_str().to_owned(), *count))
                    .collect(),
            ),
            ..Draft::new(Event::Strangers)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-RECORD-13
    #[test]
    fn a_flood_of_strangers_is_one_record_a_minute_and_none_is_lost() {
        let strangers = Strangers::default();
        let mut records = Vec::new();
        for second in 0..=120 {
            let now = Duration::from_secs(1000 + second);
            for number in 0..10 {
                let code = if number < 7 {
                    Code::PersonUnmapped
                } else {
                    Code::LineMalformed
                };
                records.extend(strangers.note(code, "\x1b[2J", now));
            }
        }
        let counts: Vec<_> = records.iter().map(|record| record.count.unwrap()).collect();
        assert_eq!(counts, [1, 600, 600]);
        assert_eq!(records[1].message.as_deref(), Some("\\u{1b}[2J"));
        let codes = records[1].codes.as_ref().unwrap();
        assert_eq!(
            (
                codes[Code::PersonUnmapped.as_str()],
                codes[Code::LineMalformed.as_str()]
            ),
            (420, 180)
        );
        assert_eq!(records[1].code, Some(Code::PersonUnmapped));
        let now = Duration::from_secs(1121);
        assert!(strangers.due(now, false).is_none());
        assert_eq!(strangers.due(now + EVERY, false).unwrap().count, Some(9));
        assert!(strangers.due(now + EVERY * 2, true).is_none(), "nobody came since");
    }

    #[test]
    fn what_could_not_be_recorded_is_recorded_a_minute_later_or_at_the_stop() {
        let strangers = Strangers::default();
        let now = Duration::from_secs(5);
        let lost = strangers.note(Code::Capacity, "one", now).unwrap();
        strangers.give_back(&lost);
        // Not with the next one: a log that cannot be written is not tried for each of a flood.
        assert!(strangers.note(Code::Capacity, "two", now).is_none());
        let next = strangers.due(now, true).unwrap();
        assert_eq!((next.count, next.message.as_deref()), (Some(2), Some("two")));
    }
}
