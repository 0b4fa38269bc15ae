//! Signatures over messages: SSHSIG (OpenSSH's PROTOCOL.sshsig), one namespace for each purpose.
//!
//! A machine's is ed25519 with sha512, by a key that the reader knows. A person's is made by `ssh-keygen` as that person
//! pleases: with any kind of [`crate::person::KeyKind`], with sha256 or sha512, with a certificate or without, and its key
//! stands in it. They travel as base64 of the blob on one line, without the PEM armour. `ssh-keygen -Y verify` accepts them once the
//! armour is put back.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ssh_key::certificate::Certificate;
use ssh_key::public::KeyData;
use ssh_key::{HashAlg, SshSig};

use crate::key::{PublicKey, SigningKey};
use crate::person::{NotSigned, PersonKey};

/// Namespace of a target's first line.
pub const HELLO: &str = "hello.v1@writ.internal";
/// Namespace of a request's payload.
pub const REQUEST: &str = "request.v1@writ.internal";
/// Namespace of a target's answer.
pub const OUTCOME: &str = "outcome.v1@writ.internal";
/// Namespace of an approver's signature.
pub const APPROVE: &str = "approve.v1@writ.internal";
/// Namespace of a revocation list.
pub const KRL: &str = "krl.v1@writ.internal";

/// The longest signature text that is looked at, in bytes: an ed25519 SSHSIG has about 260.
pub const MAX_TEXT: usize = 1024;

/// The longest signature text of a person that is looked at, in bytes: one with a certificate has about 1,300.
pub const MAX_PERSON_TEXT: usize = 4096;

/// Why a signature was not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not base64 of exactly one SSHSIG blob.
    #[error("read an SSHSIG signature")]
    Malformed,
    /// A signature for something else.
    #[error("accept a signature of another namespace")]
    Namespace,
    /// A kind of key, a hash or a version that is not used here.
    #[error("accept a signature of this kind")]
    Algorithm,
    /// Made by another key.
    #[error("accept a signature of another key")]
    Key,
    /// The signature does not fit the message.
    #[error("verify the signature")]
    Invalid,
    /// A security key made it, and nobody touched that.
    #[error("accept a signature of a security key that was not touched")]
    Untouched,
}

/// Signs `message` for `namespace` and returns the blob in base64, on one line.
///
/// # Errors
/// [`Error::Malformed`] when the namespace is empty.
pub fn sign(key: &SigningKey, namespace: &str, message: &[u8]) -> Result<String, Error> {
    let signature = key
        .private()
        .sign(namespace, HashAlg::Sha512, message)
        .map_err(|_| Error::Malformed)?;
    let blob = encode(&signature)?;
    Ok(STANDARD.encode(blob))
}

/// Verifies that `text` is `key`'s signature over `message` for `namespace`.
///
/// # Errors
/// Any [`Error`]; nothing is accepted that another encoder would have written differently.
pub fn verify(text: &str, key: &PublicKey, namespace: &str, message: &[u8]) -> Result<(), Error> {
    let signature = read(text, MAX_TEXT, namespace)?;
    if signature.hash_alg() != HashAlg::Sha512 {
        return Err(Error::Algorithm);
    }
    let signer = PublicKey::from_key_data(signature.public_key()).map_err(|_| Error::Algorithm)?;
    if &signer != key {
        return Err(Error::Key);
    }
    let signed = SshSig::signed_data(namespace, HashAlg::Sha512, message).map_err(|_| Error::Malformed)?;
    crate::strict::verify_blob(key.as_bytes(), signature.signature(), &signed).map_err(|_| Error::Invalid)
}

/// A person's signature that holds: whoever has this key signed the message, and touched it where it is in a security key.
/// Whose key it is, [`crate::allowed_signers::AllowedSigners::approver`] says.
///
/// ```compile_fail
/// // It has no other door than `sshsig::verify_person`.
/// let signed = openssh::sshsig::Signed { key: todo!(), certificate: None };
/// ```
#[derive(Debug, Clone)]
#[must_use]
pub struct Signed {
    key: PersonKey,
    certificate: Option<Box<Certificate>>,
}

impl Signed {
    /// The key that signed, without its certificate.
    #[must_use]
    pub fn key(&self) -> &PersonKey {
        &self.key
    }

    /// The certificate that the key came in. Nothing of it was checked.
    pub(crate) fn certificate(&self) -> Option<&Certificate> {
        self.certificate.as_deref()
    }
}

/// Verifies that `text` is somebody's signature over `message` for `namespace`.
///
/// # Errors
/// Any [`Error`] but [`Error::Key`].
pub fn verify_person(text: &str, namespace: &str, message: &[u8]) -> Result<Signed, Error> {
    let signature = read(text, MAX_PERSON_TEXT, namespace)?;
    let (data, certificate) = match signature.public_key() {
        KeyData::Certificate(certificate) => (certificate.public_key(), Some(certificate.clone())),
        plain => (plain, None),
    };
    let key = PersonKey::from_key_data(data).map_err(|_| Error::Algorithm)?;
    let signed = SshSig::signed_data(namespace, signature.hash_alg(), message).map_err(|_| Error::Malformed)?;
    match key.verify(signature.signature(), &signed) {
        Ok(()) => Ok(Signed { key, certificate }),
        Err(NotSigned::Invalid) => Err(Error::Invalid),
        Err(NotSigned::Untouched) => Err(Error::Untouched),
    }
}

/// Reads the one encoding of a blob for this namespace: no reserved bytes, no slack in a length, nothing behind it.
fn read(text: &str, max: usize, namespace: &str) -> Result<SshSig, Error> {
    if text.len() > max {
        return Err(Error::Malformed);
    }
    let blob = STANDARD.decode(text).map_err(|_| Error::Malformed)?;
    let signature = decode(&blob)?;
    if signature.namespace() != namespace {
        return Err(Error::Namespace);
    }
    if signature.version() != SshSig::VERSION {
        return Err(Error::Algorithm);
    }
    if !signature.reserved().is_empty() || encode(&signature)? != blob {
        return Err(Error::Malformed);
    }
    Ok(signature)
}

fn encode(signature: &SshSig) -> Result<Vec<u8>, Error> {
    use ssh_key::encoding::Encode as _;
    signature.encode_vec().map_err(|_| Error::Malformed)
}

fn decode(blob: &[u8]) -> Result<SshSig, Error> {
    use ssh_key::encoding::{Decode as _, Reader as _};
    let mut reader = blob;
    let signature = SshSig::decode(&mut reader).map_err(|_| Error::Malformed)?;
    if reader.is_finished() {
        Ok(signature)
    } else {
        Err(Error::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeroize::Zeroizing;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Zeroizing::new([seed; 32])).unwrap()
    }

    /// REQ-SIG-4, REQ-SIG-5
    #[test]
    fn a_signature_holds_for_its_key_namespace_and_message_only() {
        let signature = sign(&key(1), REQUEST, b"hello").unwrap();
        assert_eq!(verify(&signature, key(1).public(), REQUEST, b"hello"), Ok(()));
        assert_eq!(verify(&signature, key(2).public(), REQUEST, b"hello"), Err(Error::Key));
        assert_eq!(
            verify(&signature, key(1).public(), OUTCOME, b"hello"),
            Err(Error::Namespace)
        );
        assert_eq!(
            verify(&signature, key(1).public(), REQUEST, b"hellp"),
            Err(Error::Invalid)
        );
    }

    /// REQ-SIG-1, REQ-SIG-3, REQ-SIG-7
    #[test]
    fn every_changed_byte_is_refused() {
        let text = sign(&key(1), REQUEST, b"hello").unwrap();
        let blob = STANDARD.decode(&text).unwrap();
        for at in 0..blob.len() {
            for bit in [0x01, 0x80] {
                let mut other = blob.clone();
                other[at] ^= bit;
                let other = STANDARD.encode(other);
                assert!(
                    verify(&other, key(1).public(), REQUEST, b"hello").is_err(),
                    "byte {at} bit {bit}"
                );
            }
        }
    }

    /// REQ-SIG-2, REQ-SIG-3
    #[test]
    fn sig_prefix_garbage_and_sig_trailing_text_are_refused() {
        let text = sign(&key(1), REQUEST, b"hello").unwrap();
        for other in [
            format!("AA{text}"),
            format!("{text}AA"),
            format!("{text}\n"),
            format!(" {text}"),
            String::new(),
        ] {
            assert_eq!(
                verify(&other, key(1).public(), REQUEST, b"hello"),
                Err(Error::Malformed),
                "{other:?}"
            );
        }
        let mut blob = STANDARD.decode(&text).unwrap();
        blob.push(0);
        assert_eq!(
            verify(&STANDARD.encode(blob), key(1).public(), REQUEST, b"hello"),
            Err(Error::Malformed)
        );
    }
}
