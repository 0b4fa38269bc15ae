//! Who may sign: the strict subset of OpenSSH's allowed_signers (ssh-keygen(1), ALLOWED SIGNERS) that means one thing only.
//!
//! ```text
//! # principals, options, key, comment
//! carol namespaces="approve.v1@writ.internal" sk-ssh-ed25519@openssh.com AAAA… carol's token
//! dave valid-before="20270101Z" ssh-ed25519 AAAA…
//! erin,frank cert-authority ssh-ed25519 AAAA… the approvers' own CA
//! ```
//!
//! `ssh-keygen` reads each line that is accepted here in the same way; much that it reads is refused: patterns, RSA keys,
//! times of a local clock, a key that stands for two people. One fault and nobody may sign: a file that is half understood
//! names people whom nobody meant. Bytes in, values out, no clock.

use std::collections::HashMap;

use ssh_key::certificate::{CertType, Certificate};
use ssh_key::encoding::Encode as _;

use crate::key::PublicKey;
use crate::person::PersonKey;
use crate::sshsig::Signed;

mod line;

use line::{Line, Role};

/// A line that is not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {what}")]
pub struct Fault {
    /// Which, from 1.
    pub line: usize,
    /// What is wrong with it, for people; nothing of the file stands in it but names of keys and options.
    pub what: String,
}

/// A file without a fault.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedSigners(Vec<Line>);

/// Who made a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Approver<'a> {
    /// The one principal that the key or certificate stands for.
    pub principal: &'a str,
    /// Of which type the key is, as OpenSSH names it: a certificate is a type of its own.
    pub kind: &'static str,
}

/// Why a signature that holds is nobody's who may sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The key is in no line, and no CA that is in one certified it.
    #[error("find the key among those that may sign")]
    Unknown,
    /// Its line is for other namespaces.
    #[error("find the namespace in the key's line")]
    Namespace,
    /// Before the line's `valid-after`.
    #[error("accept a key that is not valid yet")]
    NotYetValid,
    /// After the line's `valid-before`.
    #[error("accept a key that is not valid any more")]
    Expired,
    /// The certificate is not in its one encoding, or its CA did not sign it.
    #[error("verify the certificate of the key")]
    Certificate,
    /// A host's.
    #[error("accept a certificate that is not a user's")]
    CertificateType,
    /// It names nobody whom its CA's line names, several of them, or a person who has another key in the file.
    #[error("find exactly one principal of the CA's line in the certificate")]
    CertificatePrincipals,
    /// Before or after its own validity.
    #[error("accept a certificate outside of its validity")]
    CertificateTime,
    /// It has a critical option, and none is understood here.
    #[error("accept a certificate with critical options")]
    CertificateOptions,
    /// The key, or the CA that certified it, is one that must never sign.
    #[error("accept a key of a machine")]
    Forbidden,
}

/// A line that a doctor may want to speak of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry<'a> {
    /// Its number, from 1.
    pub line: usize,
    /// The principals.
    pub principals: &'a [String],
    /// The key.
    pub key: &'a PersonKey,
    /// Whether it is a CA that certifies keys of these people.
    pub is_authority: bool,
    all: &'a Line,
}

impl Entry<'_> {
    /// Whether it counts for signatures of this namespace at this time, Unix seconds.
    ///
    /// # Errors
    /// [`Error::Namespace`], [`Error::NotYetValid`] or [`Error::Expired`].
    pub fn counts(&self, namespace: &str, now: u64) -> Result<(), Error> {
        self.all.counts(namespace, now)
    }
}

impl AllowedSigners {
    /// Reads a file's text.
    ///
    /// # Errors
    /// Every [`Fault`], in the order of lines.
    pub fn parse(text: &str) -> Result<Self, Vec<Fault>> {
        let (mut lines, mut faults) = (Vec::new(), Vec::new());
        let mut seen: HashMap<PersonKey, usize> = HashMap::new();
        for (number, text) in (1..).zip(text.split('\n')) {
            let fault = |what: String| Fault { line: number, what };
            match line::parse(number, text) {
                Ok(None) => {}
                Ok(Some(line)) => match seen.insert(line.key.clone(), number) {
                    // Which of two people signed nobody could tell, and which of two times counts.
                    Some(before) => faults.push(fault(format!("has the key of line {before}"))),
                    None => lines.push(line),
                },
                Err(what) => faults.push(fault(what)),
            }
        }
        if faults.is_empty() {
            Ok(Self(lines))
        } else {
            Err(faults)
        }
    }

    /// The lines that hold a key.
    pub fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        self.0.iter().map(|line| Entry {
            line: line.number,
            principals: &line.principals,
            key: &line.key,
            is_authority: line.role == Role::Authority,
            all: line,
        })
    }

    /// Who made a signature, judged now (Unix seconds). `never` are keys that count for nobody, whatever the file says.
    ///
    /// Times are those of `ssh-keygen`, without a tolerance: a line counts from `valid-after` to `valid-before`, both
    /// included, a certificate until the second before its end.
    ///
    /// # Errors
    /// [`Error`].
    pub fn approver(
        &self,
        signed: &Signed,
        namespace: &str,
        never: &[PublicKey],
        now: u64,
    ) -> Result<Approver<'_>, Error> {
        let forbidden = |key: &PersonKey| never.iter().any(|machine| key.is(machine));
        if forbidden(signed.key()) {
            return Err(Error::Forbidden);
        }
        let kind = signed.key().kind();
        let Some(certificate) = signed.certificate() else {
            let line = self.line(signed.key(), Role::Key).ok_or(Error::Unknown)?;
            line.counts(namespace, now)?;
            return match line.principals.as_slice() {
                [principal] => Ok(Approver {
                    principal,
                    kind: kind.as_str(),
                }),
                _ => Err(Error::Unknown),
            };
        };
        let authority = PersonKey::from_key_data(certificate.signature_key()).map_err(|_| Error::Unknown)?;
        if forbidden(&authority) {
            return Err(Error::Forbidden);
        }
        let line = self.line(&authority, Role::Authority).ok_or(Error::Unknown)?;
        line.counts(namespace, now)?;
        let principal = certified(certificate, &authority, line, now)?;
        // A key that is one person's by this file is not another's by a certificate.
        match self.line(signed.key(), Role::Key) {
            Some(own) if own.principals != [principal] => Err(Error::CertificatePrincipals),
            _ => Ok(Approver {
                principal,
                kind: kind.as_certified(),
            }),
        }
    }

    fn line(&self, key: &PersonKey, role: Role) -> Option<&Line> {
        self.0.iter().find(|line| line.role == role && line.key == *key)
    }
}

/// Everything that a certificate must be, and the one principal for which it is.
fn certified<'a>(certificate: &Certificate, authority: &PersonKey, line: &'a Line, now: u64) -> Result<&'a str, Error> {
    let unreadable = |_| Error::Certificate;
    let bytes = certificate.to_bytes().map_err(|_| Error::Certificate)?;
    let signature = certificate.signature().encoded_len_prefixed().map_err(unreadable)?;
    let signed = bytes.len().checked_sub(signature).and_then(|end| bytes.get(..end));
    authority
        .verify(certificate.signature(), signed.ok_or(Error::Certificate)?)
        .map_err(|_| Error::Certificate)?;
    if certificate.cert_type() != CertType::User {
        return Err(Error::CertificateType);
    }
    let named = |principal: &&String| certificate.valid_principals().contains(principal);
    let mut principals = line.principals.iter().filter(named);
    let (Some(principal), None) = (principals.next(), principals.next()) else {
        return Err(Error::CertificatePrincipals);
    };
    if now < certificate.valid_after() || now >= certificate.valid_before() {
        return Err(Error::CertificateTime);
    }
    if !certificate.critical_options().is_empty() {
        return Err(Error::CertificateOptions);
    }
    Ok(principal)
}
