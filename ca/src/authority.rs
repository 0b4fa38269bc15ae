//! The story of a call: who asks, what is open, what policy says, record, sign.
//!
//! Each step returns what the next one needs. This is the one story of a call, told here as far as all calls share it; what
//! is a task's alone is in `tasks`, what is one request's in `action`. `enroll`, `init` and `start` are the stories of the
//! other verbs, and no other file tells one. What widens a certificate comes from the configuration and from policy
//! under the relay's identity, never from the call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use catalogue::{Catalogue, Target};
use openssh::key::PublicKey;
use serde_json::{Map, Value};
use tracing::{error, info, warn};
use wire::ids::{ActionName, Fingerprint, PersonName, TargetName, TaskId};
use wire::{Requester, Risk, limits};

use crate::call::{Description, Refused, Sketch};
use crate::certificate;
use crate::config::{Config, Relay};
use crate::error::{Error, chain};
use crate::inventory::Shelf;
use crate::issued::{Entry, Facts, Issued};
use crate::policy::{Policy, PolicyError, Question, Verdict};
use crate::random;
use crate::record::{Covers, Issue, Records, Refusal};
use crate::roster::{Caller, Roster};
use crate::signer::Signer;

mod action;
mod tasks;

/// The CA at work.
pub struct Authority {
    config: Config,
    roster: Roster,
    policy: Policy,
    catalogue: Catalogue,
    signer: Signer,
    host_ca: PublicKey,
    records: Records,
    clock: Clock,
    books: Mutex<Books>,
}

/// Unix seconds.
pub type Clock = Box<dyn Fn() -> u64 + Send + Sync>;

/// What an authority is made of; a start brings it together.
pub struct Parts {
    /// What it was told.
    pub config: Config,
    /// Who may do what where.
    pub policy: Policy,
    /// What can be asked for.
    pub catalogue: Catalogue,
    /// Signs tasks' and actions' certificates.
    pub signer: Signer,
    /// Signs nothing here; told to relays.
    pub host_ca: PublicKey,
    /// Its log.
    pub records: Records,
    /// Its inventory.
    pub shelf: Shelf,
    /// What is open, from its log.
    pub issued: Issued,
    /// Its clock.
    pub clock: Clock,
}

/// What calls change. Held until the record is written: two calls about one task are judged one after the other.
struct Books {
    issued: Issued,
    shelf: Shelf,
}

/// A relay that the kernel or its key vouched for. Only [`Authority::recognise`] makes one, and every call wants one.
///
/// ```compile_fail,E0451
/// // A relay cannot say who it is.
/// fn pretend(relay: std::sync::Arc<ca::config::Relay>) -> ca::authority::Peer { ca::authority::Peer { relay } }
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Peer {
    relay: Arc<Relay>,
}

impl Authority {
    /// Puts an authority to work.
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts {
            config,
            policy,
            catalogue,
            signer,
            host_ca,
            records,
            shelf,
            issued,
            clock,
        } = parts;
        let roster = Roster::new(&config.relays);
        let books = Mutex::new(Books { issued, shelf });
        Self {
            config,
            roster,
            policy,
            catalogue,
            signer,
            host_ca,
            records,
            clock,
            books,
        }
    }

    /// Which relay this is, by the uid that the kernel names or the key that TLS has checked. Asked for each call: who was
    /// known when the connection was made need not be any more.
    ///
    /// # Errors
    /// [`Refused`] with `relay_unknown`.
    pub fn recognise(&self, caller: Option<Caller>) -> Result<Peer, Refused> {
        match caller.as_ref().and_then(|caller| self.roster.find(caller)) {
            Some(relay) => Ok(Peer { relay }),
            None => Err(self.turn_away(&Error::Stranger(caller))),
        }
    }

    /// Whether a relay is known by it. Nobody is counted.
    #[must_use]
    pub fn knows(&self, caller: &Caller) -> bool {
        self.roster.find(caller).is_some()
    }

    /// Refuses somebody who proved nothing: counted, not recorded one by one.
    pub fn turn_away(&self, error: &Error) -> Refused {
        if let Err(cause) = self.records.stranger(error.code(), &error.to_string(), (self.clock)()) {
            error!(%cause, "failed to count a stranger");
        }
        Refused::of(error)
    }

    /// Who the CA is, and what it thinks of the caller.
    ///
    /// # Errors
    /// [`Refused`] when the inventory cannot be read.
    pub fn describe(&self, peer: &Peer) -> Result<Description, Refused> {
        let inventory = self
            .books()
            .shelf
            .current()
            .map_err(|cause| self.refuse(peer, Sketch::default(), cause.into()))?;
        let reachable = inventory
            .iter()
            .map(Target::name)
            .filter(|name| peer.relay.targets.include(name));
        Ok(Description {
            relay: peer.relay.name.clone(),
            task_ca: self.signer.public().to_openssh(),
            host_ca: self.host_ca.to_openssh(),
            policy: self.policy.digest().clone(),
            head: self.records.head(),
            now: (self.clock)(),
            task_lifetime_s: self.config.task_lifetime_s,
            persons: peer.relay.persons.iter().cloned().collect(),
            targets: reachable.cloned().collect(),
        })
    }

    /// Refuses a relay: one record, then the answer. Without the record the answer is that there is no log.
    pub fn refuse(&self, peer: &Peer, sketch: Sketch, error: Error) -> Refused {
        let message = chain(&error);
        // Bounded: the text may repeat what was sent.
        let why = wire::text::escaped(&message, limits::MESSAGE);
        warn!(relay = %peer.relay.name, code = %error.code(), why, "refused");
        if matches!(error, Error::Log(_)) {
            // There is nowhere to record it; trying again would only hold up the next call.
            return Refused::of(&error);
        }
        let recorded = self.records.refused(Refusal {
            relay: peer.relay.name.clone(),
            sketch,
            code: error.code(),
            message,
            policies: error.policies().to_vec(),
        });
        match recorded {
            Ok(_) => Refused::of(&error),
            Err(cause) => {
                let cause = Error::Log(cause);
                error!(why = chain(&cause), "failed to record a refusal");
                Refused::of(&cause)
            }
        }
    }

    /// Records the strangers that were counted, if it is time.
    pub fn count_strangers(&self) {
        if let Err(cause) = self.records.strangers_due((self.clock)()) {
            error!(%cause, "failed to record strangers");
        }
    }

    /// Records that the CA starts, or stops as it was told to.
    ///
    /// # Errors
    /// [`Error::Log`]; without that record nothing is served.
    pub fn record_own(&self, event: audit::Event) -> Result<(), Error> {
        let message = format!(
            "task ca {} policy {}",
            self.signer.public().fingerprint(),
            self.policy.digest()
        );
        self.records.own(event, &message)?;
        Ok(())
    }

    /// A relay speaks for its own persons; one that nobody speaks for is told apart from another relay's.
    fn check_person(&self, peer: &Peer, person: &PersonName) -> Result<(), Error> {
        if peer.relay.persons.contains(person) {
            Ok(())
        } else if self.config.persons().contains(person) {
            Err(Error::PersonNotOfThisRelay(person.clone()))
        } else {
            Err(Error::PersonUnmapped(person.clone()))
        }
    }

    /// Asks policy about one action for one requester on one target; with arguments where one request is judged.
    fn judge(&self, peer: &Peer, target: &Target, case: &Case<'_>) -> Result<Verdict, PolicyError> {
        self.policy.judge(&Question {
            person: &case.requester.person,
            action: case.action,
            risk: case.risk,
            target: target.name(),
            labels: target.labels(),
            brain: case.requester.brain.as_str(),
            proof: case.requester.proof.as_str(),
            relay: &peer.relay.name,
            args: case.args,
        })
    }

    /// What every certificate goes through once it was judged: recorded, noted, signed. The books come along, so that
    /// what is open is still what was judged when the record is written.
    fn certify(&self, mut books: MutexGuard<'_, Books>, peer: &Peer, wish: Wish<'_>) -> Result<(String, Issue), Error> {
        let issue = Issue {
            task_id: wish.task_id.clone(),
            target: wish.target.clone(),
            key: wish.key.clone(),
            covers: wish.covers,
            policy: self.policy.digest().clone(),
            policies: wish.policies,
            serial: random::serial()?,
            valid_after: wish.now.saturating_sub(limits::SKEW_S),
            valid_before: wish.until.min(wish.facts.ends()),
            ca: Fingerprint::of(self.signer.public()),
            facts: wish.facts,
        };
        let nonce = random::bytes()?;
        certificate::check_grant(&issue)?;

        let written = self.records.issue(issue)?;
        let issue = written.subject().clone();
        books.issued.note(entry_of(&issue));
        // Others may go on while this call waits for the disk: what is open is decided by what is written.
        drop(books);
        let recorded = written.settle()?;
        let unsigned = certificate::user(recorded, &peer.relay.source_addresses, nonce)?;
        let certificate = self.signer.sign(unsigned)?;

        info!(relay = %peer.relay.name, task = %issue.task_id, target = %issue.target, covers = %issue.covers, "issued");
        Ok((certificate, issue))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // What a panic leaves behind is at most a task that was not noted, which the next call or start mends.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What policy is asked about.
struct Case<'a> {
    requester: &'a Requester,
    action: &'a ActionName,
    risk: Risk,
    args: Option<&'a Map<String, Value>>,
}

/// A certificate that was judged and may be made.
struct Wish<'a> {
    task_id: &'a TaskId,
    facts: Facts,
    target: &'a TargetName,
    key: &'a PublicKey,
    covers: Covers,
    policies: Vec<String>,
    now: u64,
    /// When it ends, unless the task ends before.
    until: u64,
}

/// The read actions of a catalogue, sorted.
pub(crate) fn reads(catalogue: &Catalogue) -> impl Iterator<Item = &ActionName> {
    catalogue
        .iter()
        .filter(|(_, entry)| entry.manifest().risk() == Risk::Read)
        .map(|(name, _)| name)
}

fn find_target(peer: &Peer, books: &mut Books, name: &TargetName) -> Result<Target, Error> {
    if !peer.relay.targets.include(name) {
        return Err(Error::TargetNotOfThisRelay(name.clone()));
    }
    let inventory = books.shelf.current()?;
    inventory
        .find(name.as_str())
        .cloned()
        .ok_or_else(|| Error::UnknownTarget(name.clone()))
}

fn entry_of(issue: &Issue) -> Entry {
    Entry {
        task_id: issue.task_id.clone(),
        facts: issue.facts.clone(),
        target: issue.target.clone(),
        key: Fingerprint::of(&issue.key),
    }
}
