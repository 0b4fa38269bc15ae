//! How many certificates a relay, and each person through it, may ask for in a minute.
//!
//! A refused call counts like any other: what is bounded is the work, and the records. But one that is refused because its
//! person has had theirs, or is none of the relay's, takes nothing of what the relay has for all: no person can use it up.
//! In memory only: a restart begins with full quotas. Bounded: relays and persons are those of the configuration.

use std::collections::BTreeMap;

use wire::ids::{PersonName, RelayName};

use crate::config::Relay;
use crate::error::Error;

/// What one call takes of a quota, so that one of `n` a minute comes back in whole units each second.
const CALL: u64 = 60;

/// The quotas of every relay and person that has called.
#[derive(Debug, Default)]
pub struct Quotas {
    relays: BTreeMap<RelayName, Left>,
    persons: BTreeMap<(RelayName, PersonName), Left>,
}

/// What is left of one.
#[derive(Debug, Clone, Copy)]
struct Left {
    units: u64,
    at: u64,
}

impl Quotas {
    /// Takes one call out of the relay's quota.
    ///
    /// # Errors
    /// [`Error::Quota`].
    pub fn take_of_relay(&mut self, relay: &Relay, now: u64) -> Result<(), Error> {
        let per_minute = relay.calls_per_minute;
        let full = Left::full(per_minute, now);
        let left = self.relays.entry(relay.name.clone()).or_insert(full);
        left.take(per_minute, now).map_err(|wait_s| Error::Quota {
            whose: relay.name.to_string(),
            per_minute,
            wait_s,
        })
    }

    /// Gives a call back that took nothing of the relay's but the asking.
    pub fn give_back_to_relay(&mut self, relay: &Relay) {
        let full = relay.calls_per_minute.saturating_mul(CALL);
        if let Some(left) = self.relays.get_mut(&relay.name) {
            left.units = left.units.saturating_add(CALL).min(full);
        }
    }

    /// Takes one call out of the quota of a person whom this relay may speak for.
    ///
    /// # Errors
    /// [`Error::Quota`].
    pub fn take_of_person(&mut self, relay: &Relay, person: &PersonName, now: u64) -> Result<(), Error> {
        let per_minute = relay.person_calls_per_minute;
        let full = Left::full(per_minute, now);
        let left = self.persons.entry((relay.name.clone(), person.clone())).or_insert(full);
        left.take(per_minute, now).map_err(|wait_s| Error::Quota {
            whose: person.to_string(),
            per_minute,
            wait_s,
        })
    }
}

impl Left {
    fn full(per_minute: u64, now: u64) -> Self {
        Self {
            units: per_minute.saturating_mul(CALL),
            at: now,
        }
    }

    /// Takes one call, or says in how many seconds there is one.
    fn take(&mut self, per_minute: u64, now: u64) -> Result<(), u64> {
        // A clock that went back brings nothing, and takes nothing.
        let back = now.saturating_sub(self.at).saturating_mul(per_minute);
        let full = per_minute.saturating_mul(CALL);
        self.units = self.units.saturating_add(back).min(full);
        self.at = now;
        match self.units.checked_sub(CALL) {
            Some(units) => {
                self.units = units;
                Ok(())
            }
            None => Err((CALL - self.units).div_ceil(per_minute.max(1))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Targets;
    use wire::Code;

    fn relay(name: &str, calls_per_minute: u64, person_calls_per_minute: u64) -> Relay {
        Relay {
            name: name.parse().unwrap(),
            known_by: crate::config::KnownBy::Uid(1),
            persons: ["alice".parse().unwrap(), "bob".parse().unwrap()].into(),
            targets: Targets::All,
            source_addresses: Vec::new(),
            calls_per_minute,
            person_calls_per_minute,
            refusals_per_minute: 1,
        }
    }

    fn taken(mut take: impl FnMut() -> Result<(), Error>, most: usize) -> usize {
        (0..most).take_while(|_| take().is_ok()).count()
    }

    /// REQ-CARPC-22
    #[test]
    fn quota_exceeded_is_said_with_its_end_and_comes_back_evenly() {
        let mut quotas = Quotas::default();
        let relay = relay("relay-1", 90, 9);
        assert_eq!(taken(|| quotas.take_of_relay(&relay, 1000), 1000), 90);
        let error = quotas.take_of_relay(&relay, 1000).unwrap_err();
        assert_eq!(error.code(), Code::RateLimited);
        assert!(error.code().retryable());
        assert!(error.to_string().contains("90 calls a minute"), "{error}");
        assert!(error.to_string().contains("in 1 s"), "{error}");
        assert_eq!(taken(|| quotas.take_of_relay(&relay, 1002), 1000), 3, "1.5 a second");
        assert_eq!(
            taken(|| quotas.take_of_relay(&relay, 9000), 1000),
            90,
            "never more than a minute's"
        );
    }

    /// REQ-CARPC-22
    #[test]
    fn quota_of_one_person_or_relay_is_not_anothers() {
        let mut quotas = Quotas::default();
        let (one, two) = (relay("relay-1", 90, 6), relay("relay-2", 90, 6));
        let (alice, bob) = ("alice".parse().unwrap(), "bob".parse().unwrap());
        assert_eq!(taken(|| quotas.take_of_person(&one, &alice, 1000), 100), 6);
        let error = quotas.take_of_person(&one, &alice, 1000).unwrap_err();
        assert!(error.to_string().contains("alice has 6 calls a minute"), "{error}");
        assert!(error.to_string().contains("in 10 s"), "{error}");
        assert_eq!(taken(|| quotas.take_of_person(&one, &bob, 1000), 100), 6);
        assert_eq!(taken(|| quotas.take_of_person(&two, &alice, 1000), 100), 6);
    }

    /// REQ-CARPC-22
    #[test]
    fn what_is_given_back_to_a_relay_is_never_more_than_a_minutes() {
        let mut quotas = Quotas::default();
        let relay = relay("relay-1", 5, 5);
        quotas.give_back_to_relay(&relay);
        assert_eq!(taken(|| quotas.take_of_relay(&relay, 1000), 100), 5);
        quotas.give_back_to_relay(&relay);
        assert_eq!(taken(|| quotas.take_of_relay(&relay, 1000), 100), 1);
        (0..9).for_each(|_| quotas.give_back_to_relay(&relay));
        assert_eq!(taken(|| quotas.take_of_relay(&relay, 1000), 100), 5);
    }

    #[test]
    fn a_clock_that_goes_back_brings_nothing() {
        let mut quotas = Quotas::default();
        let relay = relay("relay-1", 60, 60);
        assert_eq!(taken(|| quotas.take_of_relay(&relay, 1000), 100), 60);
        assert_eq!(taken(|| quotas.take_of_relay(&relay, 900), 100), 0);
        assert_eq!(taken(|| quotas.take_of_relay(&relay, 901), 100), 1);
    }
}
