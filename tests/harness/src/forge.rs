//! Certificates that no CA would sign: every field free, encoded by hand from OpenSSH's PROTOCOL.certkeys, signed with
//! whatever key the caller has. What the CA mints comes from the CA, see [`crate::stack::Stack::open_task`].

use anyhow::{Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::Signer as _;
use openssh::key::{PublicKey, SigningKey};
use ssh_key::private::KeypairData;

/// A user certificate.
pub const USER: u32 = 1;
/// A host certificate.
pub const HOST: u32 = 2;
/// Where the grant is.
pub const GRANT: &str = "grant@writ.internal";

/// The fields of a certificate, in the order of its encoding. Nothing is sorted, checked or added.
#[derive(Clone, Debug)]
pub struct Forge {
    /// Serial number.
    pub serial: u64,
    /// [`USER`], [`HOST`] or anything else.
    pub kind: u32,
    /// Key id: the task's id in an honest one.
    pub key_id: String,
    /// Principals. An empty list means everybody.
    pub principals: Vec<String>,
    /// First second of validity, Unix time.
    pub valid_after: u64,
    /// First second after it.
    pub valid_before: u64,
    /// Critical options with their text, in this order.
    pub critical: Vec<(String, String)>,
    /// Extensions with their text, in this order.
    pub extensions: Vec<(String, String)>,
}

impl Forge {
    /// The certificate of `key`, signed by `ca`: `ssh-ed25519-cert-v01@openssh.com AAAA…`.
    pub fn sign(&self, key: &PublicKey, ca: &SigningKey) -> Result<String> {
        let mut body = Vec::new();
        put(&mut body, b"ssh-ed25519-cert-v01@openssh.com")?;
        put(&mut body, &rand::random::<[u8; 32]>())?;
        put(&mut body, key.as_bytes())?;
        body.extend(self.serial.to_be_bytes());
        body.extend(self.kind.to_be_bytes());
        put(&mut body, self.key_id.as_bytes())?;
        let mut principals = Vec::new();
        for principal in &self.principals {
            put(&mut principals, principal.as_bytes())?;
        }
        put(&mut body, &principals)?;
        body.extend(self.valid_after.to_be_bytes());
        body.extend(self.valid_before.to_be_bytes());
        put(&mut body, &options(&self.critical)?)?;
        put(&mut body, &options(&self.extensions)?)?;
        put(&mut body, b"")?;
        let mut ca_key = Vec::new();
        put(&mut ca_key, b"ssh-ed25519")?;
        put(&mut ca_key, ca.public().as_bytes())?;
        put(&mut body, &ca_key)?;
        let KeypairData::Ed25519(pair) = ca.private().key_data() else {
            bail!("the CA's key is not ed25519")
        };
        let signature = ed25519_dalek::SigningKey::from_bytes(&pair.private.to_bytes()).sign(&body);
        let mut signed = Vec::new();
        put(&mut signed, b"ssh-ed25519")?;
        put(&mut signed, &signature.to_bytes())?;
        put(&mut body, &signed)?;
        Ok(format!("ssh-ed25519-cert-v01@openssh.com {}", STANDARD.encode(body)))
    }
}

/// Options: name and value, the value being a string inside a string; an empty text is a flag without a value.
fn options(list: &[(String, String)]) -> Result<Vec<u8>> {
    let mut all = Vec::new();
    for (name, text) in list {
        put(&mut all, name.as_bytes())?;
        let mut value = Vec::new();
        if !text.is_empty() {
            put(&mut value, text.as_bytes())?;
        }
        put(&mut all, &value)?;
    }
    Ok(all)
}

fn put(to: &mut Vec<u8>, bytes: &[u8]) -> Result<()> {
    to.extend(u32::try_from(bytes.len())?.to_be_bytes());
    to.extend(bytes);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_forged_certificate_that_is_honest_is_a_certificate() {
        let seed = |n: u8| SigningKey::from_seed(&[n; 32].into()).unwrap();
        let (ca, key) = (seed(1), seed(2));
        let forge = Forge {
            serial: 7,
            kind: USER,
            key_id: "id".to_owned(),
            principals: vec!["web-1".to_owned()],
            valid_after: 1000,
            valid_before: 2000,
            critical: vec![("force-command".to_owned(), "/x".to_owned())],
            extensions: vec![(GRANT.to_owned(), "{}".to_owned())],
        };
        let certificate = ssh_key::Certificate::from_openssh(&forge.sign(key.public(), &ca).unwrap()).unwrap();
        let fingerprint = ca.public().key_data().fingerprint(ssh_key::HashAlg::Sha256);
        certificate.validate_at(1500, [&fingerprint]).unwrap();
        assert_eq!(certificate.valid_principals(), ["web-1"]);
    }
}
