//! Action certificates: each covers the one request whose bytes it pins, in the session of its task, once.
//!
//! Pure, like the rest of `order`.

use std::collections::BTreeMap;

use openssh::certificate::{self, UserCertificate, UserTerms};
use wire::ids::{Digest, Serial};
use wire::{Code, FORCE_COMMAND, GRANT_EXTENSION, Grant, Kind, limits};

use super::{Knowledge, Task, Verified, unread};
use crate::error::Refusal;

/// Most that a session holds and has not used.
const HELD: usize = 16;

/// An action certificate that was accepted in this session.
///
/// ```compile_fail
/// // It has no other door than `Permits::accept`.
/// let permit = agent_exec::order::Permit { certificate: todo!(), grant: todo!(), request: todo!(), manifest: todo!() };
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Permit {
    certificate: UserCertificate,
    grant: Grant,
    request: Digest,
    manifest: Digest,
}

impl Permit {
    /// The certificate.
    pub fn certificate(&self) -> &UserCertificate {
        &self.certificate
    }

    /// What it permits.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Its serial number.
    #[must_use]
    pub fn serial(&self) -> Serial {
        Serial::of(self.certificate.serial())
    }

    /// SHA-256 of the manifest that policy looked at.
    #[must_use]
    pub fn manifest(&self) -> &Digest {
        &self.manifest
    }

    /// How many approvals policy wants.
    #[must_use]
    pub fn approvals(&self) -> u8 {
        self.grant.approvals.unwrap_or(u8::MAX)
    }
}

/// What a session was given and has not used, by the request that each is for.
#[derive(Debug, Default)]
pub struct Permits(BTreeMap<Digest, Permit>);

impl Permits {
    /// Accepts an action certificate: everything that it says is what the session's task certificate says.
    ///
    /// # Errors
    /// [`Refusal`]; the session keeps what it had.
    pub fn accept(&mut self, text: &str, knowledge: &Knowledge<'_>, task: Option<&Task>) -> Result<(), Refusal> {
        let task = task.ok_or_else(|| Refusal::new(Code::CertificateMissing))?;
        let principal = Kind::Action.principal(knowledge.target);
        let terms = UserTerms {
            cas: knowledge.cas,
            principal: &principal,
            force_command: FORCE_COMMAND,
            grant: GRANT_EXTENSION,
            now: knowledge.now,
            skew_s: limits::SKEW_S,
            max_lifetime_s: limits::ACTION_CERTIFICATE_MAX_S + limits::SKEW_S,
        };
        let certificate = certificate::check_user(text, &terms)?;
        let grant =
            Grant::parse(certificate.grant().as_bytes()).map_err(|error| unread(&error, Code::GrantMalformed))?;
        let mismatch = |what: &str| Refusal::because(Code::GrantMismatch, what);
        if certificate.key() != task.certificate.key() {
            return Err(Refusal::new(Code::KeyMismatch));
        }
        if grant.kind != Kind::Action {
            return Err(mismatch("the grant is not an action's"));
        }
        if certificate.key_id() != task.grant.task_id.as_str() || grant.task_id != task.grant.task_id {
            return Err(Refusal::new(Code::WrongTask));
        }
        if &grant.target != knowledge.target {
            return Err(mismatch(
                "the grant names another target than the certificate's principal",
            ));
        }
        let same = grant.requester == task.grant.requester
            && grant.relay == task.grant.relay
            && grant.opened == task.grant.opened;
        if !same {
            return Err(mismatch(
                "requester, relay or opening are not those of the task's certificate",
            ));
        }
        // No revocation list is kept here yet: its number is 0.
        if grant.krl.is_none_or(|least| least > 0) {
            return Err(Refusal::new(Code::KrlStale));
        }
        let (Some(request), Some(manifest)) = (grant.request_sha256.clone(), grant.manifest.clone()) else {
            return Err(mismatch("the grant pins no request"));
        };
        self.0
            .retain(|_, held| held.certificate.check_time(knowledge.now, limits::SKEW_S).is_ok());
        if self.0.len() >= HELD && !self.0.contains_key(&request) {
            return Err(Refusal::because(
                Code::Capacity,
                format!("the session holds {HELD} action certificates that it has not used"),
            ));
        }
        let permit = Permit {
            certificate,
            grant,
            request: request.clone(),
            manifest,
        };
        self.0.insert(request, permit);
        Ok(())
    }

    /// Takes out the permit for a request; it is gone with that, whatever becomes of the request.
    #[must_use]
    pub fn take(&mut self, request: &Verified) -> Option<Permit> {
        self.0.remove(request.sha256())
    }
}

/// Whether a certificate claims to be an action's: which of the two checks it has to pass.
#[must_use]
pub fn is_for_an_action(text: &str, knowledge: &Knowledge<'_>) -> bool {
    certificate::read(text).is_ok_and(|read| {
        let principal = Kind::Action.principal(knowledge.target);
        read.valid_principals().contains(&principal)
    })
}

/// A permit that stands now for this request: the CA is still trusted, its time has not run out, and what it names is what
/// is asked.
///
/// # Errors
/// [`Refusal`].
pub(super) fn check(permit: &Permit, request: &Verified, knowledge: &Knowledge<'_>) -> Result<(), Refusal> {
    permit.certificate.check_time(knowledge.now, limits::SKEW_S)?;
    if !knowledge.cas.contains(permit.certificate.ca()) {
        return Err(Refusal::because(
            Code::CertificateUntrusted,
            "the CA of the action certificate is not trusted any more",
        ));
    }
    if permit.request != *request.sha256() || !permit.grant.actions.contains(&request.payload().action) {
        return Err(Refusal::because(
            Code::GrantMismatch,
            "the action certificate is for another request",
        ));
    }
    Ok(())
}
