//! Strict ed25519 verification: the one place that calls the curve.

/// Why a signature is not one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NotSigned;

/// Verifies an ed25519 signature, refusing the encodings that RFC 8032 leaves open: small-order keys and commitments,
/// and a scalar that is not reduced. With them, one signature could be valid for two messages or two keys.
pub(crate) fn verify(key: &[u8; 32], signature: &[u8], message: &[u8]) -> Result<(), NotSigned> {
    let signature = ed25519_dalek::Signature::from_slice(signature).map_err(|_| NotSigned)?;
    let key = ed25519_dalek::VerifyingKey::from_bytes(key).map_err(|_| NotSigned)?;
    key.verify_strict(message, &signature).map_err(|_| NotSigned)
}

/// The same over OpenSSH's signature blob, which names its algorithm.
pub(crate) fn verify_blob(key: &[u8; 32], signature: &ssh_key::Signature, message: &[u8]) -> Result<(), NotSigned> {
    if signature.algorithm() != ssh_key::Algorithm::Ed25519 {
        return Err(NotSigned);
    }
    verify(key, signature.as_bytes(), message)
}
