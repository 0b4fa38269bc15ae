//! Machine keys: ed25519 and nothing else.

use ssh_key::private::{Ed25519Keypair, KeypairData};
use ssh_key::public::{Ed25519PublicKey, KeyData};
use ssh_key::{HashAlg, LineEnding};
use zeroize::Zeroizing;

/// Why a text or blob is not a key of the kind that machines use here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Not an OpenSSH key, or more than one.
    #[error("read an OpenSSH key")]
    Malformed,
    /// A key, but not ed25519.
    #[error("use a key that is not ed25519")]
    NotEd25519,
    /// A private key under a passphrase: a machine has nobody to ask.
    #[error("use an encrypted private key")]
    Encrypted,
}

/// An ed25519 public key.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// Reads `ssh-ed25519 AAAA… [comment]`; the comment is dropped.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] or [`KeyError::NotEd25519`].
    pub fn from_openssh(text: &str) -> Result<Self, KeyError> {
        let key = ssh_key::PublicKey::from_openssh(text.trim()).map_err(|_| KeyError::Malformed)?;
        Self::from_key_data(key.key_data())
    }

    /// Takes an ed25519 key out of the ssh-key crate's type.
    ///
    /// # Errors
    /// [`KeyError::NotEd25519`].
    pub fn from_key_data(data: &KeyData) -> Result<Self, KeyError> {
        match data {
            KeyData::Ed25519(key) => Ok(Self(key.0)),
            _ => Err(KeyError::NotEd25519),
        }
    }

    /// Takes the 32 bytes of RFC 8032.
    #[must_use]
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes of RFC 8032.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The ssh-key crate's type, for its builders.
    #[must_use]
    pub fn key_data(&self) -> KeyData {
        KeyData::Ed25519(Ed25519PublicKey(self.0))
    }

    /// `ssh-ed25519 AAAA…`, without a comment: one text for one key.
    #[must_use]
    pub fn to_openssh(&self) -> String {
        ssh_key::PublicKey::from(self.key_data())
            .to_openssh()
            .unwrap_or_default()
    }

    /// `SHA256:` and 43 characters of base64, as `ssh-keygen -l` prints it.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        self.key_data().fingerprint(HashAlg::Sha256).to_string()
    }
}

/// An ed25519 private key. It cannot be printed or copied, and its memory is cleared when it goes.
pub struct SigningKey {
    pair: ssh_key::PrivateKey,
    public: PublicKey,
}

impl SigningKey {
    /// Reads the OpenSSH private key format, as `ssh-keygen` writes it without a passphrase.
    ///
    /// # Errors
    /// Any [`KeyError`].
    pub fn from_openssh(pem: &str) -> Result<Self, KeyError> {
        Self::from_private(ssh_key::PrivateKey::from_openssh(pem).map_err(|_| KeyError::Malformed)?)
    }

    /// Takes over a key of the ssh-key crate.
    ///
    /// # Errors
    /// [`KeyError::Encrypted`] or [`KeyError::NotEd25519`].
    pub fn from_private(pair: ssh_key::PrivateKey) -> Result<Self, KeyError> {
        if pair.is_encrypted() {
            return Err(KeyError::Encrypted);
        }
        let public = PublicKey::from_key_data(pair.public_key().key_data())?;
        Ok(Self { pair, public })
    }

    /// Makes a key from 32 bytes of randomness.
    ///
    /// # Errors
    /// None in practice: [`KeyError::Malformed`] if the library refuses the pair.
    pub fn from_seed(seed: &Zeroizing<[u8; 32]>) -> Result<Self, KeyError> {
        let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(seed));
        Self::from_private(ssh_key::PrivateKey::new(pair, "").map_err(|_| KeyError::Malformed)?)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        &self.public
    }

    /// The key in the ssh-key crate's type, for a connection or a certificate builder.
    #[must_use]
    pub fn private(&self) -> &ssh_key::PrivateKey {
        &self.pair
    }

    /// The 32 bytes of RFC 8032 that the key is made from, for a library that wants them in another format.
    ///
    /// # Errors
    /// None in practice: [`KeyError::NotEd25519`], which no key of this type is.
    pub fn seed(&self) -> Result<Zeroizing<[u8; 32]>, KeyError> {
        let pair = self.pair.key_data().ed25519().ok_or(KeyError::NotEd25519)?;
        Ok(Zeroizing::new(pair.private.to_bytes()))
    }

    /// The OpenSSH private key format, to be written to a file of mode 0600 or less.
    ///
    /// # Errors
    /// [`KeyError::Malformed`] if the library cannot encode the key.
    pub fn to_openssh(&self) -> Result<Zeroizing<String>, KeyError> {
        self.pair.to_openssh(LineEnding::LF).map_err(|_| KeyError::Malformed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_has_one_text() {
        let key = SigningKey::from_seed(&Zeroizing::new([7; 32])).unwrap();
        let text = key.public().to_openssh();
        assert!(text.starts_with("ssh-ed25519 AAAA"));
        let again = PublicKey::from_openssh(&format!("{text} somebody@somewhere\n")).unwrap();
        assert_eq!(again.to_openssh(), text);
        assert_eq!(again.fingerprint().len(), 50);
        assert_eq!(PublicKey::from_bytes(*again.as_bytes()), again);
        assert_eq!(*key.seed().unwrap(), [7; 32]);
    }

    #[test]
    fn a_private_key_survives_its_file() {
        let key = SigningKey::from_seed(&Zeroizing::new([9; 32])).unwrap();
        let again = SigningKey::from_openssh(&key.to_openssh().unwrap()).unwrap();
        assert_eq!(again.public(), key.public());
    }

    /// REQ-SIG-6
    #[test]
    fn a_key_that_is_not_ed25519_is_refused() {
        let ecdsa = "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBHwf2HMM5TRXvo2SQJjsNkiDD5KqiiNjrGVv3UUh+mMT5RHxiRtOnlqvjhQtBq0VpmpCV/PwUdhOig4vkbqAcEc=";
        assert!(PublicKey::from_openssh(ecdsa).is_err());
        assert_eq!(PublicKey::from_openssh("rm -rf /"), Err(KeyError::Malformed));
    }
}
