//! Opening a task on a target and renewing its certificate: what is open, which reads policy allows, then the signature.

use std::collections::BTreeSet;
use std::sync::MutexGuard;

use catalogue::Target;
use openssh::key::PublicKey;
use wire::ids::{ActionName, Fingerprint, TaskId};
use wire::{Mode, Risk};

use super::{Authority, Books, Peer, Wish, find_target, reads, scene};
use crate::call::{Credential, OpenTask, Refused, RenewTask};
use crate::error::Error;
use crate::issued::Facts;
use crate::policy::{Ask, Verdict};
use crate::record::{Covers, Issue, Occasion};

impl Authority {
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

    fn try_open(&self, peer: &Peer, call: &OpenTask) -> Result<Credential, Error> {
        let mut books = self.books();
        let now = (self.clock)();
        books.quotas.take_of_relay(&peer.relay, now)?;
        self.admit(peer, &mut books, &call.requester.person, now)?;
        let target = find_target(peer, &mut books, &call.target)?;
        books.issued.sweep(now);
        let wanted = Facts {
            requester: call.requester.clone(),
            reason: call.reason.clone(),
            relay: peer.relay.name.clone(),
            opened: now,
        };
        let facts = books.issued.open(&call.task_id, &call.target, wanted)?;
        let task = Opened {
            occasion: Occasion::Open,
            task_id: &call.task_id,
            key: &call.key,
            now,
        };
        self.issue(books, peer, &target, facts, task)
    }

    fn try_renew(&self, peer: &Peer, call: &RenewTask) -> Result<Credential, Error> {
        let mut books = self.books();
        let now = (self.clock)();
        books.quotas.take_of_relay(&peer.relay, now)?;
        let key = Fingerprint::of(&call.key);
        let facts = books
            .issued
            .find(&call.task_id, &peer.relay.name, &call.target, &key, now)?;
        self.admit(peer, &mut books, &facts.requester.person, now)?;
        let target = find_target(peer, &mut books, &call.target)?;
        let task = Opened {
            occasion: Occasion::Renew,
            task_id: &call.task_id,
            key: &call.key,
            now,
        };
        self.issue(books, peer, &target, facts, task)
    }

    /// From here on an opened task and a renewed one are the same: judge, then certify.
    fn issue(
        &self,
        books: MutexGuard<'_, Books>,
        peer: &Peer,
        target: &Target,
        facts: Facts,
        task: Opened<'_>,
    ) -> Result<Credential, Error> {
        let (actions, policies) = self.judge_reads(&books, peer, target, &facts, &task)?;
        let wish = Wish {
            task_id: task.task_id,
            facts,
            target: target.name(),
            key: task.key,
            covers: Covers::Reads {
                occasion: task.occasion,
                actions,
            },
            policies,
            now: task.now,
            until: task.now.saturating_add(self.config.task_lifetime_s),
        };
        let (certificate, issue) = self.certify(books, peer, wish)?;
        Ok(credential(certificate, issue, target))
    }

    /// The read actions that policy allows without a look at arguments and without an approval, and the policies that said
    /// so. One that wants approvals is allowed too, each request by itself.
    fn judge_reads(
        &self,
        books: &Books,
        peer: &Peer,
        target: &Target,
        facts: &Facts,
        task: &Opened<'_>,
    ) -> Result<(Vec<ActionName>, Vec<String>), Error> {
        let policy = &books.policy;
        let scene = scene(policy, books, peer, target, (task.task_id, facts), task.now)?;
        let mut actions = Vec::new();
        let (mut allowed, mut denied) = (BTreeSet::new(), BTreeSet::new());
        for action in reads(&self.catalogue).filter(|action| !policy.is_about_arguments_of(action)) {
            let verdict = scene.judge(&Ask {
                action,
                risk: Risk::Read,
                mode: Mode::Run,
                args: None,
            })?;
            match verdict {
                Verdict::Allow { by, approvals: 0 } => {
                    actions.push(action.clone());
                    allowed.extend(by);
                }
                Verdict::Allow { by, .. } | Verdict::Deny { by } => denied.extend(by),
            }
        }
        if actions.is_empty() {
            return Err(Error::PolicyDenied {
                action: None,
                by: denied.into_iter().collect(),
            });
        }
        Ok((actions, allowed.into_iter().collect()))
    }
}

/// What opening and renewing have in common.
struct Opened<'a> {
    occasion: Occasion,
    task_id: &'a TaskId,
    key: &'a PublicKey,
    now: u64,
}

fn credential(certificate: String, issue: Issue, target: &Target) -> Credential {
    Credential {
        certificate,
        valid_after: issue.valid_after,
        valid_before: issue.valid_before,
        receipt_key: target.receipt_key().to_openssh(),
        actions: issue.covers.actions(),
        policy: issue.policy,
        opened: issue.facts.opened,
        ends: issue.facts.ends(),
    }
}
