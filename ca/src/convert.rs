//! Wire types in, checked values out, and back: the one place where both are known.

use grpc::v1;
use openssh::key::PublicKey;
use wire::ids::Digest;
use wire::{Proof, Requester, limits};

use crate::call::{
    ActionCredential, Asked, AuthorizeAction, Authorized, Credential, Description, OpenTask, RenewTask, Sketch,
};
use crate::error::Error;

/// Checks every field of a call that opens a task.
///
/// # Errors
/// [`Error::Malformed`], naming the first field that is not of its shape.
pub fn open_task(call: &v1::OpenTaskRequest) -> Result<OpenTask, Error> {
    Ok(OpenTask {
        task_id: field("task_id", &call.task_id)?,
        requester: requester(call)?,
        reason: field("reason", &call.reason)?,
        target: field("target", &call.target)?,
        key: key(&call.public_key)?,
    })
}

/// Checks every field of a renewal.
///
/// # Errors
/// [`Error::Malformed`], naming the first field that is not of its shape.
pub fn renew_task(call: &v1::RenewTaskRequest) -> Result<RenewTask, Error> {
    Ok(RenewTask {
        task_id: field("task_id", &call.task_id)?,
        target: field("target", &call.target)?,
        key: key(&call.public_key)?,
    })
}

/// Reads the request of a call that wants it authorized, and checks the key.
///
/// # Errors
/// [`Error::Payload`] or [`Error::Malformed`].
pub fn authorize_action(call: &v1::AuthorizeActionRequest) -> Result<AuthorizeAction, Error> {
    Ok(AuthorizeAction {
        asked: Asked::read(&call.payload).map_err(Error::Payload)?,
        key: key(&call.public_key)?,
        held: held(call.approvals_held)?,
    })
}

/// What can be read of a call that is refused for its shape.
#[must_use]
pub fn sketch_of_open(call: &v1::OpenTaskRequest) -> Sketch {
    Sketch {
        task_id: call.task_id.parse().ok(),
        requester: requester(call).ok(),
        reason: call.reason.parse().ok(),
        target: call.target.parse().ok(),
        ..Sketch::default()
    }
}

/// What can be read of a renewal that is refused for its shape.
#[must_use]
pub fn sketch_of_renew(call: &v1::RenewTaskRequest) -> Sketch {
    Sketch {
        task_id: call.task_id.parse().ok(),
        target: call.target.parse().ok(),
        ..Sketch::default()
    }
}

/// What can be read of a request that is refused for its shape: at least which bytes it was.
#[must_use]
pub fn sketch_of_authorize(call: &v1::AuthorizeActionRequest) -> Sketch {
    match Asked::read(&call.payload) {
        Ok(asked) => Sketch::from(&asked),
        Err(_) => Sketch {
            request_sha256: Some(Digest::of(&call.payload)),
            ..Sketch::default()
        },
    }
}

fn requester(call: &v1::OpenTaskRequest) -> Result<Requester, Error> {
    Ok(Requester {
        brain: field("brain", &call.brain)?,
        person: field("person", &call.person)?,
        proof: proof(&call.proof)?,
    })
}

/// A credential as the relay gets it.
#[must_use]
pub fn credential(credential: Credential) -> v1::TaskCertificate {
    v1::TaskCertificate {
        certificate: credential.certificate,
        valid_after: seconds(credential.valid_after),
        valid_before: seconds(credential.valid_before),
        receipt_key: credential.receipt_key,
        actions: credential.actions.into_iter().map(String::from).collect(),
        policy: credential.policy.into(),
        opened: seconds(credential.opened),
        ends: seconds(credential.ends),
    }
}

/// What a request gets, as the relay gets it.
#[must_use]
pub fn authorized(authorized: Authorized) -> v1::ActionCertificate {
    match authorized {
        Authorized::Certified(credential) => action_credential(credential),
        Authorized::Wanting(wanting) => v1::ActionCertificate {
            approvals: wanting.approvals.into(),
            policy: wanting.policy.into(),
            policies: wanting.policies,
            ..v1::ActionCertificate::default()
        },
    }
}

fn action_credential(credential: ActionCredential) -> v1::ActionCertificate {
    v1::ActionCertificate {
        certificate: credential.certificate,
        valid_after: seconds(credential.valid_after),
        valid_before: seconds(credential.valid_before),
        policy: credential.policy.into(),
        approvals: credential.approvals.into(),
        policies: credential.policies,
    }
}

/// A description as the relay gets it.
#[must_use]
pub fn description(description: Description) -> v1::DescribeReply {
    v1::DescribeReply {
        build: wire::build::id().to_owned(),
        relay: description.relay.into(),
        task_ca: description.task_ca,
        host_ca: description.host_ca,
        policy: description.policy.into(),
        head: Some(v1::Head {
            log: description.head.log.into(),
            seq: description.head.seq,
            hash: description.head.hash.into(),
        }),
        now: seconds(description.now),
        task_lifetime_s: seconds(description.task_lifetime_s),
        persons: description.persons.into_iter().map(String::from).collect(),
        targets: description.targets.into_iter().map(String::from).collect(),
        policy_fault: description.policy_fault.unwrap_or_default(),
    }
}

fn field<T>(field: &'static str, text: &str) -> Result<T, Error>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    text.parse().map_err(|what: T::Err| Error::Malformed {
        field,
        what: what.to_string(),
    })
}

/// Only a relay's word is accepted yet: the other proofs need something that is checked.
fn proof(text: &str) -> Result<Proof, Error> {
    if text == Proof::Relay.as_str() {
        return Ok(Proof::Relay);
    }
    Err(Error::Malformed {
        field: "proof",
        what: "only \"relay\" is known".to_owned(),
    })
}

/// A key in its one text: what is certified is what was sent, and nothing rides along as a comment.
fn key(text: &str) -> Result<PublicKey, Error> {
    let malformed = |what: String| Error::Malformed {
        field: "public_key",
        what,
    };
    let key = PublicKey::from_openssh(text).map_err(|what| malformed(format!("failed to {what}")))?;
    if key.to_openssh() != text {
        return Err(malformed("must be \"ssh-ed25519 AAAA…\" and nothing else".to_owned()));
    }
    Ok(key)
}

/// No more approvals than a request can have.
fn held(count: u32) -> Result<u8, Error> {
    let held = u8::try_from(count).ok();
    let held = held.filter(|held| usize::from(*held) <= limits::APPROVAL_SIGS);
    held.ok_or_else(|| Error::Malformed {
        field: "approvals_held",
        what: format!("at most {}", limits::APPROVAL_SIGS),
    })
}

fn seconds(time: u64) -> i64 {
    i64::try_from(time).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn good() -> v1::OpenTaskRequest {
        v1::OpenTaskRequest {
            task_id: "0192e4a0-7f00-7000-8000-000000000001".into(),
            brain: "claude".into(),
            person: "alice".into(),
            proof: "relay".into(),
            reason: "look at the log".into(),
            target: "web-1".into(),
            public_key: "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOpKQ4u9crrXrO4S8mLmb8UVKMYEnwPuYFUvyVP1xNdG".into(),
        }
    }

    fn refused(change: impl FnOnce(&mut v1::OpenTaskRequest)) -> String {
        let mut call = good();
        change(&mut call);
        open_task(&call).unwrap_err().to_string()
    }

    /// REQ-CARPC-2
    #[test]
    fn each_field_is_checked_and_named() {
        assert!(open_task(&good()).is_ok());
        for (found, field) in [
            (refused(|c| c.task_id = "1".into()), "task_id"),
            (refused(|c| c.brain.clear()), "brain"),
            (refused(|c| c.person = "Alice".into()), "person"),
            (refused(|c| c.proof = "token".into()), "proof"),
            (refused(|c| c.proof.clear()), "proof"),
            (refused(|c| c.reason = "two\nlines".into()), "reason"),
            (refused(|c| c.public_key.push_str(" comment")), "public_key"),
            (refused(|c| c.public_key.clear()), "public_key"),
        ] {
            assert!(
                found.starts_with(&format!("accept the arguments: {field}: ")),
                "{found}"
            );
        }
    }

    /// REQ-CERT-4, REQ-CARPC-2
    #[test]
    fn cert_comma_principal_has_no_shape_to_arrive_in() {
        for name in ["web-1,root", "web-1,", ",", "web-1\n", "web-1 ", "*", ""] {
            assert!(refused(|c| c.target = name.into()).contains(": target: "), "{name:?}");
        }
    }
}
