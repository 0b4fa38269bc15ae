//! Keys of people, and what a signature with each kind must have: those that a person keeps in a file, and those in a
//! security key, which signs only when it is touched.
//!
//! A security key does not sign the message: it signs the hash of its application's name, a byte of flags, a counter and
//! the hash of the message. Whether it was touched stands in the flags, and is always demanded here; `ssh-keygen -Y verify`
//! does not look at it. Source: OpenSSH's PROTOCOL.u2f.

use p256::ecdsa::signature::Verifier as _;
use sha2::{Digest as _, Sha256};
use ssh_key::public::{EcdsaPublicKey, KeyData};
use ssh_key::{Algorithm, EcdsaCurve, HashAlg};

use crate::key::PublicKey;
use crate::strict;

/// How the application of a security key begins that was made for SSH, and not for a web site.
const APPLICATION: &str = "ssh:";

/// The flag of a security key that was touched (SSH_SK_USER_PRESENCE_REQD).
const TOUCHED: u8 = 0x01;

/// What follows a security key's signature: flags, and a counter of 32 bits.
const TRAILER: usize = 1 + 4;

/// First byte of a point of a curve with both coordinates (SEC 1, 2.3.3). OpenSSH reads no other.
const UNCOMPRESSED: u8 = 4;

/// A kind of key that people sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KeyKind {
    /// Ed25519 in a security key.
    SkEd25519,
    /// ECDSA on P-256 in a security key.
    SkEcdsaP256,
    /// Ed25519 in a file.
    Ed25519,
    /// ECDSA on P-256 in a file.
    EcdsaP256,
}

impl KeyKind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::SkEd25519, Self::SkEcdsaP256, Self::Ed25519, Self::EcdsaP256];

    /// OpenSSH's name.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::SkEd25519 => "sk-ssh-ed25519@openssh.com",
            Self::SkEcdsaP256 => "sk-ecdsa-sha2-nistp256@openssh.com",
            Self::Ed25519 => "ssh-ed25519",
            Self::EcdsaP256 => "ecdsa-sha2-nistp256",
        }
    }

    /// OpenSSH's name where the key comes in a certificate.
    #[must_use]
    pub fn as_certified(self) -> &'static str {
        match self {
            Self::SkEd25519 => "sk-ssh-ed25519-cert-v01@openssh.com",
            Self::SkEcdsaP256 => "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com",
            Self::Ed25519 => "ssh-ed25519-cert-v01@openssh.com",
            Self::EcdsaP256 => "ecdsa-sha2-nistp256-cert-v01@openssh.com",
        }
    }

    /// Whether each signature takes a touch of a person.
    #[must_use]
    pub fn needs_touch(self) -> bool {
        matches!(self, Self::SkEd25519 | Self::SkEcdsaP256)
    }

    fn algorithm(self) -> Algorithm {
        match self {
            Self::SkEd25519 => Algorithm::SkEd25519,
            Self::SkEcdsaP256 => Algorithm::SkEcdsaSha2NistP256,
            Self::Ed25519 => Algorithm::Ed25519,
            Self::EcdsaP256 => Algorithm::Ecdsa {
                curve: EcdsaCurve::NistP256,
            },
        }
    }
}

/// Why a key is not one that people sign with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// RSA, DSA, another curve, a certificate where a key is wanted.
    #[error("use a key that is not ed25519 or ECDSA on P-256, in a file or in a security key")]
    Kind,
    /// No point of its curve, or one that is not written with both coordinates.
    #[error("use a key that is no point of its curve")]
    Point,
    /// A security key's, made for something else than SSH.
    #[error("use a security key's key whose application does not begin with ssh:")]
    Application,
}

/// Why a signature with a person's key does not hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NotSigned {
    /// It does not fit key and message.
    Invalid,
    /// A security key made it, and nobody touched that.
    Untouched,
}

/// A public key of a person: one of [`KeyKind`], on its curve, in the one form in which it is compared.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PersonKey {
    kind: KeyKind,
    data: KeyData,
}

impl PersonKey {
    /// Takes a key out of the ssh-key crate's type.
    ///
    /// # Errors
    /// Any [`KeyError`].
    pub fn from_key_data(data: &KeyData) -> Result<Self, KeyError> {
        let kind = match data {
            KeyData::Ed25519(key) => on_edwards(&key.0, KeyKind::Ed25519)?,
            KeyData::SkEd25519(key) => {
                for_ssh(key.application())?;
                on_edwards(&key.public_key().0, KeyKind::SkEd25519)?
            }
            KeyData::Ecdsa(key @ EcdsaPublicKey::NistP256(_)) => on_p256(key.as_sec1_bytes(), KeyKind::EcdsaP256)?,
            KeyData::SkEcdsaSha2NistP256(key) => {
                for_ssh(key.application())?;
                on_p256(key.ec_point().as_bytes(), KeyKind::SkEcdsaP256)?
            }
            _ => return Err(KeyError::Kind),
        };
        Ok(Self {
            kind,
            data: data.clone(),
        })
    }

    /// Which kind it is.
    #[must_use]
    pub fn kind(&self) -> KeyKind {
        self.kind
    }

    /// `SHA256:` and 43 characters of base64, as `ssh-keygen -l` prints it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.data.fingerprint(HashAlg::Sha256).to_string()
    }

    /// Whether it is the same point of the same curve as a machine's key, be it in a security key or not.
    #[must_use]
    pub fn is(&self, machine: &PublicKey) -> bool {
        match &self.data {
            KeyData::Ed25519(key) => key.0 == *machine.as_bytes(),
            KeyData::SkEd25519(key) => key.public_key().0 == *machine.as_bytes(),
            _ => false,
        }
    }

    /// Verifies a signature over `message`, with a touch where the key needs one.
    pub(crate) fn verify(&self, signature: &ssh_key::Signature, message: &[u8]) -> Result<(), NotSigned> {
        if signature.algorithm() != self.kind.algorithm() {
            return Err(NotSigned::Invalid);
        }
        match &self.data {
            KeyData::Ed25519(key) => {
                strict::verify(&key.0, signature.as_bytes(), message).map_err(|_| NotSigned::Invalid)
            }
            KeyData::SkEd25519(key) => {
                let (signature, trailer) = split(signature)?;
                let hashes = (Sha256::digest(key.application()), Sha256::digest(message));
                let signed = [hashes.0.as_slice(), trailer, hashes.1.as_slice()].concat();
                strict::verify(&key.public_key().0, signature, &signed).map_err(|_| NotSigned::Invalid)?;
                touched(trailer)
            }
            KeyData::Ecdsa(key) => key.verify(message, signature).map_err(|_| NotSigned::Invalid),
            KeyData::SkEcdsaSha2NistP256(key) => {
                let (_, trailer) = split(signature)?;
                key.verify(message, signature).map_err(|_| NotSigned::Invalid)?;
                touched(trailer)
            }
            _ => Err(NotSigned::Invalid),
        }
    }
}

/// Flags and counter stand behind the signature, as ssh-key keeps it.
fn split(signature: &ssh_key::Signature) -> Result<(&[u8], &[u8]), NotSigned> {
    let bytes = signature.as_bytes();
    let end = bytes.len().checked_sub(TRAILER).ok_or(NotSigned::Invalid)?;
    bytes.split_at_checked(end).ok_or(NotSigned::Invalid)
}

/// Only after the signature was verified: until then the flags are anybody's.
fn touched(trailer: &[u8]) -> Result<(), NotSigned> {
    match trailer.first() {
        Some(flags) if flags & TOUCHED != 0 => Ok(()),
        _ => Err(NotSigned::Untouched),
    }
}

fn for_ssh(application: &str) -> Result<(), KeyError> {
    if application.starts_with(APPLICATION) {
        Ok(())
    } else {
        Err(KeyError::Application)
    }
}

fn on_edwards(bytes: &[u8; 32], kind: KeyKind) -> Result<KeyKind, KeyError> {
    match ed25519_dalek::VerifyingKey::from_bytes(bytes) {
        Ok(key) if !key.is_weak() => Ok(kind),
        _ => Err(KeyError::Point),
    }
}

fn on_p256(bytes: &[u8], kind: KeyKind) -> Result<KeyKind, KeyError> {
    let point = EcdsaPublicKey::from_sec1_bytes(bytes).map_err(|_| KeyError::Point)?;
    let uncompressed = bytes.first() == Some(&UNCOMPRESSED);
    if uncompressed && p256::ecdsa::VerifyingKey::try_from(&point).is_ok() {
        Ok(kind)
    } else {
        Err(KeyError::Point)
    }
}
