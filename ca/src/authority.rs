//! The story of a call: who asks, what is open, what policy says, record, sign.
//!
//! Each step returns what the next one needs. This is the one story of a call; `enroll`, `init` and `start` are those of
//! the other verbs, and no other file tells one. What widens a certificate comes from the configuration and from policy
//! under the relay's identity, never from the call.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use catalogue::Target;
use openssh::key::PublicKey;
use tracing::{error, info, warn};
use wire::Risk;
use wire::ids::{ActionName, Fingerprint, PersonName, TargetName, TaskId};
use wire::limits::SKEW_S;

use crate::call::{Credential, Description, OpenTask, Refused, RenewTask, Sketch};
use crate::certificate;
use crate::config::{Config, Relay};
use crate::error::{Error, chain};
use crate::inventory::Shelf;
use crate::issued::{Entry, Facts, Issued};
use crate::policy::{Policy, Question, Verdict};
use crate::random;
use crate::record::{Issue, Occasion, Records, Refusal};
use crate::signer::Signer;

/// The CA at work.
pub struct Authority {
    config: Config,
    relays: Vec<Arc<Relay>>,
    policy: Policy,
    reads: Vec<ActionName>,
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
    /// The read actions of its catalogue, sorted.
    pub reads: Vec<ActionName>,
    /// Signs task certificates.
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

/// A relay that the kernel vouched for. Only [`Authority::recognise`] makes one, and every call wants one.
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
            reads,
            signer,
            host_ca,
            records,
            shelf,
            issued,
            clock,
        } = parts;
        let relays = config.relays.iter().cloned().map(Arc::new).collect();
        let books = Mutex::new(Books { issued, shelf });
        Self {
            config,
            relays,
            policy,
            reads,
            signer,
            host_ca,
            records,
            clock,
            books,
        }
    }

    /// Which relay this is, by the uid that the kernel names. A stranger is counted, not recorded one by one.
    ///
    /// # Errors
    /// [`Refused`] with `relay_unknown`.
    pub fn recognise(&self, uid: Option<u32>) -> Result<Peer, Refused> {
        match self.relays.iter().find(|relay| uid == Some(relay.uid)) {
            Some(relay) => Ok(Peer {
                relay: Arc::clone(relay),
            }),
            None => {
                let error = Error::Stranger(uid);
                if let Err(cause) = self.records.stranger(error.code(), &error.to_string(), (self.clock)()) {
                    error!(%cause, "failed to count a stranger");
                }
                Err(Refused::of(&error))
            }
        }
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

    /// Opens a task on a target, or joins one that is open there or elsewhere.
    ///
    /// # Errors
    /// [`Refused`], recorded.
    pub fn open_task(&self, peer: &Peer, call: &OpenTask) -> Result<Credential, Refused> {
        self.try_open(peer, call)
            .map_err(|error| self.refuse(peer, call.into(), error))
    }

    /// Certifies the same key of an open task again.
    ///
    /// # Errors
    /// [`Refused`], recorded.
    pub fn renew_task(&self, peer: &Peer, call: &RenewTask) -> Result<Credential, Refused> {
        self.try_renew(peer, call)
            .map_err(|error| self.refuse(peer, call.into(), error))
    }

    /// Refuses a relay: one record, then the answer. Without the record the answer is that there is no log.
    pub fn refuse(&self, peer: &Peer, sketch: Sketch, error: Error) -> Refused {
        warn!(relay = %peer.relay.name, code = %error.code(), why = chain(&error), "refused");
        if matches!(error, Error::Log(_)) {
            // There is nowhere to record it; trying again would only hold up the next call.
            return Refused::of(&error);
        }
        let recorded = self.records.refused(Refusal {
            relay: peer.relay.name.clone(),
            task_id: sketch.task_id,
            requester: sketch.requester,
            reason: sketch.reason,
            target: sketch.target,
            code: error.code(),
            message: chain(&error),
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

    fn try_open(&self, peer: &Peer, call: &OpenTask) -> Result<Credential, Error> {
        let mut books = self.books();
        let now = (self.clock)();
        self.check_person(peer, &call.requester.person)?;
        let target = find_target(peer, &mut books, &call.target)?;
        books.issued.sweep(now);
        let wanted = Facts {
            requester: call.requester.clone(),
            reason: call.reason.clone(),
            relay: peer.relay.name.clone(),
            opened: now,
        };
        let facts = books.issued.open(&call.task_id, &call.target, wanted)?;
        self.issue(
            books,
            peer,
            &target,
            Wish {
                occasion: Occasion::Open,
                task_id: &call.task_id,
                facts,
                key: &call.key,
                now,
            },
        )
    }

    fn try_renew(&self, peer: &Peer, call: &RenewTask) -> Result<Credential, Error> {
        let mut books = self.books();
        let now = (self.clock)();
        let key = Fingerprint::of(&call.key);
        let facts = books
            .issued
            .find(&call.task_id, &peer.relay.name, &call.target, &key, now)?;
        self.check_person(peer, &facts.requester.person)?;
        let target = find_target(peer, &mut books, &call.target)?;
        self.issue(
            books,
            peer,
            &target,
            Wish {
                occasion: Occasion::Renew,
                task_id: &call.task_id,
                facts,
                key: &call.key,
                now,
            },
        )
    }

    /// From here on an opened task and a renewed one are the same: judge, record, note, sign.
    fn issue(
        &self,
        mut books: MutexGuard<'_, Books>,
        peer: &Peer,
        target: &Target,
        wish: Wish<'_>,
    ) -> Result<Credential, Error> {
        let (actions, policies) = self.judge(peer, target, &wish.facts)?;
        let issue = Issue {
            occasion: wish.occasion,
            task_id: wish.task_id.clone(),
            target: target.name().clone(),
            key: wish.key.clone(),
            actions,
            policy: self.policy.digest().clone(),
            policies,
            serial: random::serial()?,
            valid_after: wish.now.saturating_sub(SKEW_S),
            valid_before: (wish.now + self.config.task_lifetime_s).min(wish.facts.ends()),
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
        let unsigned = certificate::task(recorded, &peer.relay.source_addresses, nonce)?;
        let certificate = self.signer.sign(unsigned)?;

        info!(relay = %peer.relay.name, task = %wish.task_id, target = %target.name(), occasion = ?wish.occasion, "issued");
        Ok(credential(certificate, issue, target))
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

    /// The read actions that policy allows without a look at arguments, and the policies that said so.
    fn judge(&self, peer: &Peer, target: &Target, facts: &Facts) -> Result<(Vec<ActionName>, Vec<String>), Error> {
        let mut actions = Vec::new();
        let (mut allowed, mut denied) = (BTreeSet::new(), BTreeSet::new());
        for action in self
            .reads
            .iter()
            .filter(|action| !self.policy.is_about_arguments_of(action))
        {
            let verdict = self.policy.judge(&Question {
                person: &facts.requester.person,
                action,
                risk: Risk::Read,
                target: target.name(),
                labels: target.labels(),
                brain: facts.requester.brain.as_str(),
                proof: facts.requester.proof.as_str(),
                relay: &peer.relay.name,
            })?;
            match verdict {
                Verdict::Allow(by) => {
                    actions.push(action.clone());
                    allowed.extend(by);
                }
                Verdict::Deny(by) => denied.extend(by),
            }
        }
        if actions.is_empty() {
            return Err(Error::PolicyDenied {
                by: denied.into_iter().collect(),
            });
        }
        Ok((actions, allowed.into_iter().collect()))
    }

    fn books(&self) -> MutexGuard<'_, Books> {
        // What a panic leaves behind is at most a task that was not noted, which the next call or start mends.
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What opening and renewing have in common.
struct Wish<'a> {
    occasion: Occasion,
    task_id: &'a TaskId,
    facts: Facts,
    key: &'a PublicKey,
    now: u64,
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

fn credential(certificate: String, issue: Issue, target: &Target) -> Credential {
    Credential {
        certificate,
        valid_after: issue.valid_after,
        valid_before: issue.valid_before,
        receipt_key: target.receipt_key().to_openssh(),
        actions: issue.actions,
        policy: issue.policy,
        opened: issue.facts.opened,
        ends: issue.facts.ends(),
    }
}
