//! What a certificate of this CA says, and nothing else than that.
//!
//! A certificate is laid out from a record that is already durable, never from a call. Sources: OpenSSH's
//! PROTOCOL.certkeys; docs/spec for the grant.

use ssh_key::certificate::{Builder, CertType};
use wire::ids::RelayName;
use wire::{FORCE_COMMAND, GRANT_EXTENSION, Grant, GrantWitness, VERSION, limits};

use crate::config::Cidr;
use crate::record::{Enrolment, Issue, Recorded};

/// Bytes of randomness in each certificate, as `ssh-keygen` uses.
pub const NONCE_BYTES: usize = 32;

/// A certificate that lacks only its signature. Made from a record and from nothing else, so whoever signs it signs
/// what the log already says.
///
/// ```compile_fail,E0451
/// // A certificate cannot be laid out by hand and then signed.
/// fn forge(signer: &ca::signer::Signer, builder: ssh_key::certificate::Builder) {
///     let _ = signer.sign(ca::certificate::Unsigned { builder });
/// }
/// ```
#[must_use]
pub struct Unsigned {
    builder: Builder,
}

impl Unsigned {
    /// For the signer: consumed by the signature.
    pub(crate) fn into_builder(self) -> Builder {
        self.builder
    }
}

/// A certificate could not be laid out.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The grant does not fit its limit: too many actions for one task.
    #[error("lay out a grant of {got} bytes, at most {} are allowed", limits::GRANT)]
    GrantTooLong {
        /// How many bytes it has.
        got: usize,
    },
    /// The grant is not one that a target would read.
    #[error("lay out a grant that a target reads")]
    Grant(#[from] wire::strict::Error),
    /// The grant could not be written as JSON.
    #[error("write the grant")]
    Json(#[from] serde_json::Error),
    /// The library refused a field.
    #[error("lay out the certificate")]
    Field(#[from] ssh_key::Error),
}

/// The length that the grant of this issue will have, in bytes, so that one which cannot be minted is refused before it
/// is recorded. The head is not known yet; the longest possible one is assumed.
///
/// # Errors
/// [`LayoutError::GrantTooLong`], or any other reason for which [`user`] would fail on its grant.
pub fn check_grant(issue: &Issue) -> Result<(), LayoutError> {
    let longest = wire::Head {
        log: wire::ids::LogId::of_genesis(b""),
        // Below 2^53, the largest integer of the wire.
        seq: limits::INTEGER.unsigned_abs() - 1,
        hash: wire::ids::Digest::zero(),
    };
    grant_text(issue, longest).map(drop)
}

/// Lays out a user certificate: a task's logs in to one target as its principal, an action's nowhere, since no target has
/// its principal's name. Both run nothing but the forced command and carry their grant.
///
/// # Errors
/// [`LayoutError`].
pub fn user(recorded: Recorded<Issue>, source: &[Cidr], nonce: [u8; NONCE_BYTES]) -> Result<Unsigned, LayoutError> {
    let (issue, head) = recorded.into_parts();
    let grant = grant_text(&issue, head)?;
    let source: Vec<String> = source.iter().map(Cidr::to_string).collect();
    let mut builder = Builder::new(nonce, issue.key.key_data(), issue.valid_after, issue.valid_before)?;
    builder.cert_type(CertType::User)?;
    builder.serial(issue.serial)?;
    builder.key_id(issue.task_id.as_str())?;
    // A name of the wire cannot hold a comma, which older sshd would read as two principals.
    builder.valid_principal(issue.covers.kind().principal(&issue.target))?;
    builder.critical_option("force-command", FORCE_COMMAND)?;
    builder.critical_option("source-address", source.join(","))?;
    builder.extension(GRANT_EXTENSION, grant)?;
    Ok(Unsigned { builder })
}

/// Lays out a host certificate: the target's own name is its one principal; no options.
///
/// # Errors
/// [`LayoutError`].
pub fn host(recorded: Recorded<Enrolment>, nonce: [u8; NONCE_BYTES]) -> Result<Unsigned, LayoutError> {
    let (enrolment, _) = recorded.into_parts();
    let (after, before) = (enrolment.valid_after, enrolment.valid_before);
    let mut builder = Builder::new(nonce, enrolment.host_key.key_data(), after, before)?;
    builder.cert_type(CertType::Host)?;
    builder.serial(enrolment.serial)?;
    builder.key_id(enrolment.target.as_str())?;
    builder.valid_principal(enrolment.target.as_str())?;
    Ok(Unsigned { builder })
}

/// The exact bytes that go into the certificate, read back as a target will read them.
fn grant_text(issue: &Issue, head: wire::Head) -> Result<String, LayoutError> {
    let relay: RelayName = issue.facts.relay.clone();
    let pinned = issue.covers.pinned();
    let text = serde_json::to_string(&Grant {
        v: VERSION,
        kind: issue.covers.kind(),
        task_id: issue.task_id.clone(),
        opened: issue.facts.opened,
        requester: issue.facts.requester.clone(),
        relay,
        target: issue.target.clone(),
        actions: issue.covers.actions(),
        policy: issue.policy.clone(),
        witness: GrantWitness { ca: head, target: None },
        request_sha256: pinned.map(|pinned| pinned.request_sha256.clone()),
        manifest: pinned.map(|pinned| pinned.manifest.clone()),
        approvals: pinned.map(|pinned| pinned.approvals),
        // There is no revocation list to have yet.
        krl: pinned.map(|_| 0),
    })?;
    if text.len() > limits::GRANT {
        return Err(LayoutError::GrantTooLong { got: text.len() });
    }
    Grant::parse(text.as_bytes())?;
    Ok(text)
}
