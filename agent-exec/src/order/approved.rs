//! Approvals: whether enough people signed what this request does here, and who they are.
//!
//! Nothing that the relay says of an approval is believed. The target writes the Statement again from its own payload and
//! the lines `on`, and asks its own file whose each signature is. A signature that does not count takes nothing from those
//! that do: one approval can cover targets whose approvers differ. Pure, like the rest of `order`.

use openssh::allowed_signers::{self, AllowedSigners};
use openssh::key::PublicKey;
use openssh::person::PersonKey;
use openssh::sshsig;
use wire::ids::PersonName;
use wire::lines::Approval;
use wire::{Code, statement};

use super::{Verified, Wanted};
use crate::error::Refusal;

/// Which keys approve here, beside what the file of approvers says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Touch {
    /// Keys in files, too.
    NotNeeded,
    /// Only security keys, each of whose signatures takes a touch.
    Needed,
}

impl Touch {
    /// What `require_touch` of target.toml means.
    #[must_use]
    pub fn of(required: bool) -> Self {
        if required { Self::Needed } else { Self::NotNeeded }
    }
}

/// What a target knows of who may approve.
#[derive(Debug)]
pub struct Approvers<'a> {
    /// Its file of them.
    pub signers: AllowedSigners,
    /// Keys that approve nothing, whatever the file says: those of the task CA.
    pub never: &'a [PublicKey],
    /// `require_touch` of target.toml.
    pub touch: Touch,
    /// Its clock, Unix seconds.
    pub now: u64,
}

/// The approvals that a request has: as many as it needs, each of another person and by another key.
///
/// ```compile_fail
/// // It has no other door than `order::approved`.
/// let approved = agent_exec::order::Approved(Vec::new());
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Approved(Vec<audit::Approval>);

impl Approved {
    /// Who approved, in the order of their signatures; nobody where nobody had to.
    #[must_use]
    pub fn by(&self) -> &[audit::Approval] {
        &self.0
    }
}

/// Somebody who approved, and the key by which they did.
struct Counted {
    key: PersonKey,
    record: audit::Approval,
}

/// Counts the approvals of a request. `approvers` is asked only where there is something to count.
///
/// # Errors
/// `approval_missing` where too few are there. Where a signature could have been one more and does not count, the reason of
/// the first such: `approval_invalid`, `approver_unknown`, `approver_expired`, `approver_is_requester`.
pub fn approved<'a>(
    request: &Verified,
    wanted: Wanted,
    approval: Option<&Approval>,
    approvers: impl FnOnce() -> Result<Approvers<'a>, Refusal>,
) -> Result<Approved, Refusal> {
    let needed = usize::from(wanted.approvals());
    let approval = match (needed, approval) {
        (0, None) => return Ok(Approved(Vec::new())),
        (0, Some(_)) => {
            let what = "an approval for an action that needs none";
            return Err(Refusal::because(Code::LineMalformed, what));
        }
        (_, None) => {
            let what = format!("it needs {}, and none came with it", people(needed));
            return Err(Refusal::because(Code::ApprovalMissing, what));
        }
        (_, Some(approval)) => approval,
    };
    check_on(request, approval)?;
    let text = statement::render(request.payload(), &approval.on);
    let approvers = approvers()?;
    let mut counted: Vec<Counted> = Vec::new();
    let mut first_fault = None;
    for (number, signature) in (1..).zip(&approval.sigs) {
        match count(signature, &text, request, &approvers) {
            Ok(one) => {
                // Two signatures of one key are one approval, and so are two keys of one person.
                let same = |other: &Counted| other.key == one.key || other.record.principal == one.record.principal;
                if !counted.iter().any(same) {
                    counted.push(one);
                }
            }
            Err(refusal) if first_fault.is_none() => first_fault = Some((number, refusal)),
            Err(_) => {}
        }
    }
    if counted.len() >= needed {
        return Ok(Approved(counted.into_iter().map(|one| one.record).collect()));
    }
    let (needs, found) = (people(needed), counted.len());
    Err(match first_fault {
        None => Refusal::because(
            Code::ApprovalMissing,
            format!("it needs {needs}, and has those of {found}"),
        ),
        Some((number, Refusal { code, message })) => {
            let what = format!("it needs {needs}, and has those of {found}; signature {number}: {message}");
            Refusal::because(code, what)
        }
    })
}

fn people(number: usize) -> String {
    match number {
        1 => "the approval of 1 person".to_owned(),
        more => format!("the approvals of {more} people"),
    }
}

/// The lines that the Statement will have: each of its shape, and of this target exactly the one of this request.
fn check_on(request: &Verified, approval: &Approval) -> Result<(), Refusal> {
    let invalid = |what: &str| Err(Refusal::because(Code::ApprovalInvalid, what));
    if let Err(what) = approval.check() {
        return invalid(what);
    }
    let payload = request.payload();
    let own = statement::on_line_of(payload, request.sha256());
    let mut found = false;
    for line in &approval.on {
        let Some((target, key)) = statement::read_on_line(line) else {
            return invalid("a line of what was approved names no target, key and digest");
        };
        if *line == own {
            found = true;
        } else if target == payload.target || key == payload.target_key {
            // Whoever signed may have overlooked that it would happen here twice.
            return invalid("another request on this target was approved by the same text");
        }
    }
    if found {
        Ok(())
    } else {
        invalid("this request is not among those that were approved")
    }
}

/// Whose approval a signature is.
fn count(signature: &str, statement: &str, request: &Verified, approvers: &Approvers<'_>) -> Result<Counted, Refusal> {
    let signed = sshsig::verify_person(signature, sshsig::APPROVE, statement.as_bytes())
        .map_err(|error| Refusal::because(Code::ApprovalInvalid, format!("failed to {error}")))?;
    let key = signed.key();
    let refused = |code, what: String| Refusal::because(code, format!("{}: {what}", key.fingerprint()));
    let approver = approvers
        .signers
        .approver(&signed, sshsig::APPROVE, approvers.never, approvers.now)
        .map_err(|error| refused(code_of(error), format!("failed to {error}")))?;
    if approvers.touch == Touch::Needed && !key.kind().needs_touch() {
        let what = format!("this target wants a security key, and it is {}", key.kind().as_str());
        return Err(refused(Code::ApproverUnknown, what));
    }
    let principal: PersonName = approver.principal.parse().map_err(|_| {
        refused(
            Code::ApproverUnknown,
            "its principal is not the name of a person".to_owned(),
        )
    })?;
    if principal == request.payload().requester.person {
        return Err(refused(
            Code::ApproverIsRequester,
            format!("it is {principal}'s, who asks"),
        ));
    }
    let fingerprint = key
        .fingerprint()
        .parse()
        .map_err(|_| refused(Code::Internal, "it has no fingerprint".to_owned()))?;
    Ok(Counted {
        record: audit::Approval {
            principal,
            fingerprint,
            kind: approver.kind.to_owned(),
        },
        key: key.clone(),
    })
}

fn code_of(error: allowed_signers::Error) -> Code {
    use allowed_signers::Error as E;
    match error {
        E::Unknown
        | E::Namespace
        | E::Certificate
        | E::CertificateType
        | E::CertificatePrincipals
        | E::CertificateOptions
        | E::Forbidden => Code::ApproverUnknown,
        E::NotYetValid | E::Expired | E::CertificateTime => Code::ApproverExpired,
    }
}
