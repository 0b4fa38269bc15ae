//! What is checked before anything is opened or run, in the order of the design: accept a certificate, verify a request.
//!
//! Pure: keys, names and the clock come in as arguments. What passed is a value that only the check can make.

use openssh::certificate::{self, UserCertificate, UserTerms};
use openssh::key::PublicKey;
use openssh::sshsig;
use wire::ids::{Digest, Fingerprint, Serial, TargetName};
use wire::seal::Sealed;
use wire::{Code, FORCE_COMMAND, GRANT_EXTENSION, Grant, Kind, Mode, Payload, Risk, limits, strict};

use crate::error::Refusal;

mod approved;
mod permit;

pub use approved::{Approved, Approvers, Touch, approved};
pub use permit::{Permit, Permits, is_for_an_action};

/// What the target knows of itself and of the session when it judges.
#[derive(Debug)]
pub struct Knowledge<'a> {
    /// Its name.
    pub target: &'a TargetName,
    /// The fingerprint of its receipt key.
    pub key: &'a Fingerprint,
    /// The CAs that it trusts now.
    pub cas: &'a [PublicKey],
    /// The key that sshd says the session logged in with.
    pub login_key: Option<&'a PublicKey>,
    /// Its own ceiling for the life of a task certificate, in seconds.
    pub max_lifetime_s: u64,
    /// Its clock, Unix seconds.
    pub now: u64,
}

/// A task certificate that was accepted in this session.
///
/// ```compile_fail
/// // It has no other door than `order::accept`.
/// let task = agent_exec::order::Task { certificate: todo!(), grant: todo!() };
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Task {
    certificate: UserCertificate,
    grant: Grant,
}

impl Task {
    /// The certificate.
    pub fn certificate(&self) -> &UserCertificate {
        &self.certificate
    }

    /// What it permits.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }
}

/// Accepts a task certificate, or its renewal: `before` is the one that the session has.
///
/// # Errors
/// [`Refusal`]; the session keeps what it had.
pub fn accept(text: &str, knowledge: &Knowledge<'_>, before: Option<&Task>) -> Result<Task, Refusal> {
    let principal = Kind::Task.principal(knowledge.target);
    let terms = UserTerms {
        cas: knowledge.cas,
        principal: &principal,
        force_command: FORCE_COMMAND,
        grant: GRANT_EXTENSION,
        now: knowledge.now,
        skew_s: limits::SKEW_S,
        max_lifetime_s: knowledge.max_lifetime_s.saturating_add(limits::SKEW_S),
    };
    let certificate = certificate::check_user(text, &terms)?;
    let grant = Grant::parse(certificate.grant().as_bytes()).map_err(|error| unread(&error, Code::GrantMalformed))?;
    let mismatch = |what: &str| Err(Refusal::because(Code::GrantMismatch, what));
    if grant.kind != Kind::Task {
        return mismatch("the grant is not a task's");
    }
    if grant.task_id.as_str() != certificate.key_id() {
        return mismatch("the grant names another task than the certificate's key id");
    }
    if &grant.target != knowledge.target {
        return mismatch("the grant names another target than the certificate's principal");
    }
    let age = knowledge.now.saturating_sub(grant.opened);
    // A certificate is back-dated by the tolerance and judged with it, so clocks that differ by two pass there. `opened` is
    // not back-dated: here the second one is added, lest a difference of clocks be called a mismatch.
    let skew_s = 2 * limits::SKEW_S;
    if grant.opened > knowledge.now.saturating_add(skew_s) || age >= limits::TASK_MAX_S + skew_s {
        return mismatch("the task was opened too long ago, or in the future");
    }
    // Proof of possession is the login's and each request's signature; sshd's word must not contradict it.
    match knowledge.login_key {
        None => return Err(Refusal::new(Code::AuthInfoMissing)),
        Some(key) if key != certificate.key() => return Err(Refusal::new(Code::KeyMismatch)),
        Some(_) => {}
    }
    if before.is_some_and(|task| task.grant.task_id != grant.task_id) {
        return Err(Refusal::new(Code::WrongTask));
    }
    Ok(Task { certificate, grant })
}

/// A request that is the session's own: signed by its key, for its task, for this target. Nothing is known yet of
/// whether it may run.
#[derive(Debug)]
#[must_use]
pub struct Verified {
    payload: Payload,
    sha256: Digest,
    task: Task,
}

impl Verified {
    /// What is asked.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// SHA-256 of the payload's bytes.
    #[must_use]
    pub fn sha256(&self) -> &Digest {
        &self.sha256
    }

    /// The task that it belongs to.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// The serial of the certificate that it stands under.
    #[must_use]
    pub fn serial(&self) -> Serial {
        Serial::of(self.task.certificate.serial())
    }
}

/// How far a peer got before it was refused.
#[derive(Debug)]
pub enum Unverified {
    /// It proved nothing: it is counted, not recorded.
    Stranger(Refusal),
    /// The bytes are signed by the key of this task, so somebody who holds it said this; it is recorded.
    Known {
        /// The task.
        task: Box<Task>,
        /// Why it is refused.
        refusal: Refusal,
    },
}

/// Verifies a request: its signature first, so that only what the session's key signed is read.
///
/// # Errors
/// [`Unverified`].
pub fn verify(sealed: &Sealed, task: Option<&Task>, knowledge: &Knowledge<'_>) -> Result<Verified, Unverified> {
    let stranger = |code| Unverified::Stranger(Refusal::new(code));
    let task = task.ok_or_else(|| stranger(Code::CertificateMissing))?;
    if sealed.payload.len() > limits::PAYLOAD {
        return Err(stranger(Code::PayloadMalformed));
    }
    sealed
        .verify(task.certificate.key(), sshsig::REQUEST)
        .map_err(|_| stranger(Code::SignatureInvalid))?;
    let known = |refusal| Unverified::Known {
        task: Box::new(task.clone()),
        refusal,
    };
    let payload =
        Payload::parse(sealed.payload.as_bytes()).map_err(|error| known(unread(&error, Code::PayloadMalformed)))?;
    task.certificate
        .check_time(knowledge.now, limits::SKEW_S)
        .map_err(|error| known(error.into()))?;
    if !knowledge.cas.contains(task.certificate.ca()) {
        return Err(known(Refusal::because(
            Code::CertificateUntrusted,
            "the CA is not trusted any more",
        )));
    }
    if payload.target != *knowledge.target || payload.target_key != *knowledge.key {
        return Err(known(Refusal::new(Code::WrongTarget)));
    }
    if payload.task_id != task.grant.task_id {
        return Err(known(Refusal::new(Code::WrongTask)));
    }
    if payload.requester != task.grant.requester {
        return Err(known(Refusal::new(Code::RequesterMismatch)));
    }
    Ok(Verified {
        payload,
        sha256: Digest::of(sealed.payload.as_bytes()),
        task: task.clone(),
    })
}

/// What a reader said of bytes that somebody else wrote; another version is told apart.
fn unread(error: &strict::Error, malformed: Code) -> Refusal {
    let code = match error {
        strict::Error::Version(_) => Code::VersionUnsupported,
        strict::Error::TooLong { .. } | strict::Error::Malformed(_) => malformed,
    };
    Refusal::because(code, error.to_string())
}

/// What the target's own manifest says of the action that is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// What it can do to the target.
    pub risk: Risk,
    /// SHA-256 of the manifest.
    pub manifest: &'a Digest,
    /// How many people must sign.
    pub approvals: u8,
    /// How long they may take, in seconds, where it says so.
    pub approval_window_s: Option<u64>,
    /// What trying it out risks, where that is possible.
    pub dry_run: Option<Risk>,
}

impl Own<'_> {
    /// What the request risks in this mode, and how many people must sign that: nobody for a look at what would be done,
    /// because it is what they decide by.
    fn in_mode(&self, mode: Mode) -> Result<(Risk, u8), Refusal> {
        match (mode, self.dry_run) {
            (Mode::Run, _) => Ok((self.risk, self.approvals)),
            (Mode::DryRun, Some(Risk::Read)) => Ok((Risk::Read, 0)),
            (Mode::DryRun, Some(risk)) => Ok((risk, self.approvals)),
            (Mode::DryRun, None) => Err(Refusal::because(Code::ModeUnsupported, "the action has no dry run")),
        }
    }
}

/// What a permitted request risks, and how many people must have signed it. It is still to be [`approved`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub struct Wanted {
    risk: Risk,
    approvals: u8,
}

impl Wanted {
    /// What it can do to the target, in its mode.
    #[must_use]
    pub fn risk(self) -> Risk {
        self.risk
    }

    /// How many people must have signed: the more of what the manifest and the CA's policy want.
    #[must_use]
    pub fn approvals(self) -> u8 {
        self.approvals
    }
}

/// Checks what a request asks against what its certificates permit and its target's manifest says. A task certificate
/// covers the reads that its grant lists; everything else needs the action certificate for exactly this request, also where
/// it is only tried out.
///
/// # Errors
/// [`Refusal`].
pub fn permitted(
    request: &Verified,
    own: Own<'_>,
    permit: Option<&Permit>,
    knowledge: &Knowledge<'_>,
) -> Result<Wanted, Refusal> {
    let listed = request.task.grant.actions.contains(&request.payload.action);
    let by_policy = match permit {
        Some(permit) => {
            permit::check(permit, request, knowledge)?;
            if permit.manifest() != own.manifest || request.payload.manifest != *own.manifest {
                return Err(Refusal::because(
                    Code::ManifestChanged,
                    "the target's manifest is not the one that was judged",
                ));
            }
            permit.approvals()
        }
        // Risk first: a task certificate covers no change, whatever its grant lists.
        None if own.risk != Risk::Read => return Err(Refusal::new(Code::ActionCertificateMissing)),
        None if !listed => return Err(Refusal::new(Code::ActionNotGranted)),
        None => 0,
    };
    let (risk, approvals) = own.in_mode(request.payload.mode)?;
    let approvals = approvals.max(by_policy);
    let ahead_s = match approvals {
        0 => limits::REQUEST_MAX_S,
        _ => own.approval_window_s.unwrap_or(limits::APPROVAL_WINDOW_DEFAULT_S),
    };
    near(&request.payload, ahead_s, knowledge.now)?;
    Ok(Wanted { risk, approvals })
}

/// Whether a request is carried out at most once, and so is claimed: it has an effect, or people said yes to it, and they
/// said it once.
#[must_use]
pub fn works_once(risk: Risk, is_approved: bool) -> bool {
    risk != Risk::Read || is_approved
}

/// Whether a request was made for now, and not for a time when nobody remembers why: only people are waited for.
fn near(payload: &Payload, ahead_s: u64, now: u64) -> Result<(), Refusal> {
    if payload.expires > now.saturating_add(ahead_s + limits::SKEW_S) {
        let ahead = payload.expires - now;
        return Err(Refusal::because(
            Code::ExpiresTooFar,
            format!("it expires in {ahead} s by the target's clock, and may in {ahead_s} s"),
        ));
    }
    Ok(())
}

/// Judges the request's own clock: whether it is still to be begun. How far ahead it may expire depends on who is waited
/// for, see [`permitted`].
///
/// # Errors
/// [`Refusal`] with how far it is off, which tells a difference of clocks from a delay.
pub fn timely(payload: &Payload, now: u64) -> Result<(), Refusal> {
    if now >= payload.expires.saturating_add(limits::SKEW_S) {
        let late = now - payload.expires;
        return Err(Refusal::because(
            Code::RequestExpired,
            format!("it expired {late} s ago by the target's clock"),
        ));
    }
    Ok(())
}
