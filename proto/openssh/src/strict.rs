//! Strict ed25519 verification over OpenSSH's signature blobs: the one place that calls the curve.

use crate::key::PublicKey;

/// Why a signature is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotSigned;

/// Verifies an ed25519 signature, refusing the encodings that RFC 8032 leaves open: small-order keys and commitments,
/// and a scalar that is not reduced. With them, one signature could be valid for two messages or two keys.
pub(crate) fn verify(key: &PublicKey, signature: &ssh_key::Signature, message: &[u8]) -> Result<(), NotSigned> {
    if signature.algorithm() != ssh_key::Algorithm::Ed25519 {
        return Err(NotSigned);
    }
    let signature = ed25519_dalek::Signature::from_slice(signature.as_bytes()).map_err(|_| NotSigned)?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(key.as_bytes()).map_err(|_| NotSigned)?;
    key.verify_strict(message, &signature).map_err(|_| NotSigned)
}
