//! Refusing a relay: one record, then the answer; and the refusals that are counted instead.

use std::sync::{MutexGuard, PoisonError};

use tracing::{error, warn};
use wire::limits;

use super::{Authority, Peer};
use crate::call::{Refused, Sketch};
use crate::error::{Error, chain};
use crate::record::Refusal;
use crate::repeats::{Due, Kind, Note, Repeats};

impl Authority {
    /// Refuses a relay: one record, then the answer. Without the record the answer is that there is no log. A refusal of
    /// which there are too many is counted, and recorded with others like it.
    pub fn refuse(&self, peer: &Peer, sketch: Sketch, error: Error) -> Refused {
        let message = chain(&error);
        // Bounded: the text may repeat what was sent.
        let why = wire::text::escaped(&message, limits::MESSAGE);
        warn!(relay = %peer.relay.name, code = %error.code(), why, "refused");
        if matches!(error, Error::Log(_)) {
            // There is nowhere to record it; trying again would only hold up the next call.
            return Refused::of(&error);
        }
        // Only persons that the configuration knows: names that a call makes up are not counted apart.
        let person = sketch.requester.as_ref().map(|requester| requester.person.clone());
        let person = person.filter(|person| peer.relay.persons.contains(person));
        let kind: Kind = (peer.relay.name.clone(), person, error.code());
        let alone = peer.relay.refusals_per_minute;
        let note = self.repeats().note(kind.clone(), alone, &why, (self.clock)());
        let count = match note {
            Note::Later => return Refused::of(&error),
            Note::Alone => None,
            Note::Counted(count) => Some(count),
        };
        let recorded = self.records.refused(Refusal {
            relay: peer.relay.name.clone(),
            sketch,
            code: error.code(),
            message,
            policies: error.policies().to_vec(),
            count,
        });
        match recorded {
            Ok(_) => Refused::of(&error),
            Err(cause) => {
                if let Some(count) = count {
                    self.repeats().give_back(&kind, count);
                }
                let cause = Error::Log(cause);
                error!(why = chain(&cause), "failed to record a refusal");
                Refused::of(&cause)
            }
        }
    }

    /// Records what was counted, strangers and refusals, if it is time.
    pub fn count_strangers(&self) {
        let now = (self.clock)();
        if let Err(cause) = self.records.strangers_due(now) {
            error!(%cause, "failed to record strangers");
        }
        self.record_repeats(now, false);
    }

    /// Records the refusals that were counted, all of them, before the CA stops.
    pub fn count_last(&self) {
        self.record_repeats((self.clock)(), true);
    }

    fn record_repeats(&self, now: u64, all: bool) {
        let due = self.repeats().due(now, all);
        for Due { kind, count, message } in due {
            let recorded = self.records.refused(Refusal {
                relay: kind.0.clone(),
                sketch: Sketch::default(),
                code: kind.2,
                message,
                policies: Vec::new(),
                count: Some(count),
            });
            if let Err(cause) = recorded {
                error!(%cause, "failed to record refusals that were counted");
                self.repeats().give_back(&kind, count);
            }
        }
    }

    fn repeats(&self) -> MutexGuard<'_, Repeats> {
        // Counts are whole at every point.
        self.repeats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
