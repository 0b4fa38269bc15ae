//! Objects that travel as signed bytes: made once, opened without being made again.

use openssh::key::{PublicKey, SigningKey};
use openssh::sshsig;
use serde::Serialize;

/// Some bytes and the signature over them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The JSON that was signed, byte for byte.
    pub payload: String,
    /// SSHSIG over it, base64 without armour.
    pub sig: String,
}

/// Why nothing could be sealed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("seal an object: {0}")]
pub struct SealError(String);

/// Writes an object as JSON and signs those bytes for a namespace of [`openssh::sshsig`].
///
/// # Errors
/// [`SealError`] when the value has no JSON or the key does not sign.
pub fn seal(key: &SigningKey, namespace: &str, value: &impl Serialize) -> Result<Sealed, SealError> {
    let payload = serde_json::to_string(value).map_err(|error| SealError(error.to_string()))?;
    let sig = sshsig::sign(key, namespace, payload.as_bytes()).map_err(|error| SealError(error.to_string()))?;
    Ok(Sealed { payload, sig })
}

impl Sealed {
    /// Verifies the signature. What the bytes mean is the reader's question, to be asked after this one.
    ///
    /// # Errors
    /// Any [`sshsig::Error`].
    pub fn verify(&self, key: &PublicKey, namespace: &str) -> Result<(), sshsig::Error> {
        sshsig::verify(&self.sig, key, namespace, self.payload.as_bytes())
    }
}
