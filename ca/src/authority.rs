//! The story of a call: who asks, what is open, what policy says, record, sign.
//!
//! Each step returns what the next one needs. This is the one story of a call, told here as far as all calls share it; what
//! is a task's alone is in `tasks`, what is one request's in `action`. `enroll`, `init` and `start` are the stories of the
//! other verbs, and no other file tells one. What widens a certificate comes from the configuration and from policy
//! under the relay's identity, never from the call.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use catalogue::{Catalogue, Target};
use openssh::key::PublicKey;
use tracing::{error, info};
use wire::ids::{ActionName, Fingerprint, PersonName, TargetName, TaskId};
use wire::{Risk, limits};

use crate::call::{Description, Refused, Sketch};
use crate::certificate;
use crate::config::{Config, Relay};
use crate::error::Error;
use crate::inventory::Shelf;
use crate::issued::{Entry, Facts, Issued};
use crate::policy::{Circumstances, Policy, PolicyError, Scene};
use crate::quota::Quotas;
use crate::random;
use crate::record::{Covers, Issue, Records};
use crate::repeats::Repeats;
use crate::roster::{Caller, Roster};
use crate::signer::Signer;

mod action;
mod policies;
mod refusals;
mod tasks;

use policies::Watch;

/// The CA at work.
pub struct Authority {
    config: Config,
    roster: Roster,
    catalogue: Catalogue,
    signer: Signer,
    host_ca: PublicKey,
    records: Records,
    clock: Clock,
    books: Mutex<Books>,
    repeats: Mutex<Repeats>,
    watch: Mutex<Watch>,
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

/// What calls change. Held until the record is written: two calls about one task are judged one after the other, and what
/// a policy judged is recorded under that policy.
struct Books {
    issued: Issued,
    shelf: Shelf,
    quotas: Quotas,
    policy: Arc<Policy>,
    /// Why what stands in the policy's file is not in force.
    policy_fault: Option<String>,
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
        let watch = Mutex::new(Watch::new(&config));
        let books = Mutex::new(Books {
            issued,
            shelf,
            quotas: Quotas::default(),
            policy: Arc::new(policy),
            policy_fault: None,
        });
        Self {
            config,
            roster,
            catalogue,
            signer,
            host_ca,
            records,
            clock,
            books,
            repeats: Mutex::default(),
            watch,
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
        let (inventory, policy, policy_fault) = {
            let mut books = self.books();
            let inventory = books.shelf.current();
            (inventory, books.policy.digest().clone(), books.policy_fault.clone())
        };
        let inventory = inventory.map_err(|cause| self.refuse(peer, Sketch::default(), cause.into()))?;
        let reachable = inventory
            .iter()
            .map(Target::name)
            .filter(|name| peer.relay.targets.include(name));
        Ok(Description {
            relay: peer.relay.name.clone(),
            task_ca: self.signer.public().to_openssh(),
            host_ca: self.host_ca.to_openssh(),
            policy,
            policy_fault,
            head: self.records.head(),
            now: (self.clock)(),
            task_lifetime_s: self.config.task_lifetime_s,
            persons: peer.relay.persons.iter().cloned().collect(),
            targets: reachable.cloned().collect(),
        })
    }

    /// Records that the CA starts, or stops as it was told to.
    ///
    /// # Errors
    /// [`Error::Log`]; without that record nothing is served.
    pub fn record_own(&self, event: audit::Event) -> Result<(), Error> {
        let message = format!(
            "task ca {} policy {}",
            self.signer.public().fingerprint(),
            self.books().policy.digest()
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

    /// A person through a relay has so many calls a minute, and is one that the relay may speak for. Whoever is not let in
    /// uses up nothing of the relay's, which is for the others.
    fn admit(&self, peer: &Peer, books: &mut Books, person: &PersonName, now: u64) -> Result<(), Error> {
        let known = self.check_person(peer, person);
        let admitted = known.and_then(|()| books.quotas.take_of_person(&peer.relay, person, now));
        if admitted.is_err() {
            books.quotas.give_back_to_relay(&peer.relay);
        }
        admitted
    }

    /// What every certificate goes through once it was judged: recorded, noted, signed. The books come along, so that
    /// what is open is still what was judged when the record is written.
    fn certify(&self, mut books: MutexGuard<'_, Books>, peer: &Peer, wish: Wish<'_>) -> Result<(String, Issue), Error> {
        let issue = Issue {
            task_id: wish.task_id.clone(),
            target: wish.target.clone(),
            key: wish.key.clone(),
            covers: wish.covers,
            policy: books.policy.digest().clone(),
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

/// Puts a call of a task before the policies in force.
fn scene<'p>(
    policy: &'p Policy,
    books: &Books,
    peer: &Peer,
    target: &Target,
    task: (&TaskId, &Facts),
    now: u64,
) -> Result<Scene<'p>, PolicyError> {
    let (task_id, facts) = task;
    policy.scene(&Circumstances {
        person: &facts.requester.person,
        target: target.name(),
        labels: target.labels(),
        brain: facts.requester.brain.as_str(),
        proof: facts.requester.proof.as_str(),
        relay: &peer.relay.name,
        now,
        opened: facts.opened,
        counts: books.issued.counts(task_id, facts),
    })
}

fn entry_of(issue: &Issue) -> Entry {
    Entry {
        task_id: issue.task_id.clone(),
        facts: issue.facts.clone(),
        target: issue.target.clone(),
        key: Fingerprint::of(&issue.key),
        kind: issue.covers.kind(),
    }
}
