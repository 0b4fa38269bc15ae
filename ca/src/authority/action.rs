//! Authorizing one request of an open task: whose it is, whether it is what the CA knows the action to be, what policy says.
//!
//! Every check that a target makes of a request and that can be made here is made here, with the CA's own books, inventory
//! and catalogue, before anything is recorded: what is signed is a digest of bytes that were understood.

use std::sync::MutexGuard;

use catalogue::{ArgFault, Entry, Target, Terms};
use wire::ids::Fingerprint;
use wire::{Payload, Risk, limits};

use super::{Authority, Books, Peer, Wish, find_target, scene};
use crate::call::{ActionCredential, AuthorizeAction, Authorized, Refused, Sketch, Wanting};
use crate::error::Error;
use crate::issued::Facts;
use crate::policy::{Ask, Verdict};
use crate::record::{Covers, Judged, Pinned};

impl Authority {
    /// Certifies the key of an open task for one request, unless people have to approve it who have not.
    ///
    /// # Errors
    /// [`Refused`], recorded.
    pub fn authorize_action(&self, peer: &Peer, call: &AuthorizeAction) -> Result<Authorized, Refused> {
        self.try_authorize(peer, call)
            .map_err(|error| self.refuse(peer, Sketch::from(&call.asked), error))
    }

    fn try_authorize(&self, peer: &Peer, call: &AuthorizeAction) -> Result<Authorized, Error> {
        let mut books = self.books();
        let now = (self.clock)();
        let payload = call.asked.payload();
        books.quotas.take_of_relay(&peer.relay, now)?;
        let key = Fingerprint::of(&call.key);
        let facts = books
            .issued
            .find(&payload.task_id, &peer.relay.name, &payload.target, &key, now)?;
        check_facts(payload, &facts)?;
        self.admit(peer, &mut books, &facts.requester.person, now)?;
        let target = find_target(peer, &mut books, &payload.target)?;
        check_key(payload, &target)?;
        check_end(payload, now)?;
        let entry = self
            .catalogue
            .find(&payload.action)
            .ok_or_else(|| Error::UnknownAction(payload.action.clone()))?;
        let terms = check_action(payload, entry)?;
        let risk = terms.risk;
        let (policies, wanted) = judge_request(&books, peer, &target, payload, &facts, risk, now)?;

        let approvals = terms.approvals.max(wanted);
        check_ahead(
            payload,
            limits::ahead_s(approvals, entry.manifest().approval_window_s()),
            now,
        )?;
        let pinned = Pinned {
            request_id: payload.request_id.clone(),
            request_sha256: call.asked.sha256().clone(),
            action: payload.action.clone(),
            mode: payload.mode,
            risk,
            manifest: entry.digest().clone(),
            approvals,
            relay: payload.witness.relay.clone(),
        };
        if approvals > call.held {
            let judged = Judged {
                task_id: payload.task_id.clone(),
                target: payload.target.clone(),
                facts,
                pinned,
                policies,
                held: call.held,
            };
            return self.want(books, judged).map(Authorized::Wanting);
        }
        let wish = Wish {
            task_id: &payload.task_id,
            facts,
            target: target.name(),
            key: &call.key,
            covers: Covers::Request(Box::new(pinned)),
            policies,
            now,
            // No longer than the request itself can begin on a target whose clock is behind.
            until: (now.saturating_add(limits::ACTION_CERTIFICATE_MAX_S))
                .min(payload.expires.saturating_add(limits::SKEW_S)),
        };
        let (certificate, issue) = self.certify(books, peer, wish)?;
        Ok(Authorized::Certified(ActionCredential {
            certificate,
            valid_after: issue.valid_after,
            valid_before: issue.valid_before,
            policy: issue.policy,
            approvals,
            policies: issue.policies,
        }))
    }

    /// Allowed, and not signed: the record says so, and the relay learns how many people to ask.
    fn want(&self, books: MutexGuard<'_, Books>, judged: Judged) -> Result<Wanting, Error> {
        let policy = books.policy.digest().clone();
        let written = self.records.judged(judged)?;
        drop(books);
        let recorded = written.settle()?;
        let Judged { pinned, policies, .. } = recorded.subject();
        Ok(Wanting {
            approvals: pinned.approvals,
            policy,
            policies: policies.clone(),
        })
    }
}

/// The policies that allow the request, arguments and all, and how many approvals they want.
fn judge_request(
    books: &Books,
    peer: &Peer,
    target: &Target,
    payload: &Payload,
    facts: &Facts,
    risk: Risk,
    now: u64,
) -> Result<(Vec<String>, u8), Error> {
    let scene = scene(&books.policy, books, peer, target, (&payload.task_id, facts), now)?;
    let verdict = scene.judge(&Ask {
        action: &payload.action,
        risk,
        mode: payload.mode,
        args: Some(&payload.args),
    })?;
    match verdict {
        Verdict::Allow { by, approvals } => Ok((by, approvals)),
        Verdict::Deny { by } => Err(Error::PolicyDenied {
            action: Some(payload.action.clone()),
            by,
        }),
    }
}

/// A request is its task's: for the same person and brain, for the same reason.
fn check_facts(payload: &Payload, facts: &Facts) -> Result<(), Error> {
    if payload.requester != facts.requester {
        return Err(Error::RequesterMismatch);
    }
    if payload.reason != facts.reason {
        return Err(Error::TaskMismatch("reason"));
    }
    Ok(())
}

/// The host that is meant is the one that was enrolled, not one that took over its name.
fn check_key(payload: &Payload, target: &Target) -> Result<(), Error> {
    if payload.target_key == Fingerprint::of(target.receipt_key()) {
        Ok(())
    } else {
        Err(Error::WrongTarget(payload.target.clone()))
    }
}

/// As a target judges it, with the same tolerance.
fn check_end(payload: &Payload, now: u64) -> Result<(), Error> {
    if now >= payload.expires.saturating_add(limits::SKEW_S) {
        return Err(Error::RequestExpired(now - payload.expires));
    }
    Ok(())
}

/// As a target judges it: nobody but people is waited for, and they are for as long as the manifest says.
fn check_ahead(payload: &Payload, ahead_s: u64, now: u64) -> Result<(), Error> {
    if payload.expires > now.saturating_add(ahead_s + limits::SKEW_S) {
        return Err(Error::ExpiresTooFar(payload.expires - now));
    }
    Ok(())
}

/// What the request would run is what the CA's copy of the manifest says, and what that risks in its mode.
fn check_action(payload: &Payload, entry: &Entry) -> Result<Terms, Error> {
    let manifest = entry.manifest();
    if payload.manifest != *entry.digest() {
        return Err(Error::ManifestChanged(payload.action.clone()));
    }
    let terms = manifest
        .in_mode(payload.mode)
        .ok_or_else(|| Error::NoDryRun(payload.action.clone()))?;
    let checked = manifest.check_args(&payload.args).map_err(Error::Arguments)?;
    // What policy reads and an approver signs is all that the program gets: no default may come in behind them.
    let left_out = checked.args().keys().filter(|name| !payload.args.contains_key(*name));
    let faults: Vec<ArgFault> = left_out
        .map(|name| ArgFault {
            path: name.clone(),
            what: "is left out; a payload has every argument, defaults filled in".to_owned(),
        })
        .collect();
    if faults.is_empty() {
        Ok(terms)
    } else {
        Err(Error::Arguments(faults))
    }
}
