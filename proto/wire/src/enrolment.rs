//! The two lines by which a target and its CA get to know each other, carried by an operator.
//!
//! From the target the keys that it has, back from the CA the key to trust and a certificate. Nothing in them is secret,
//! and nothing is trusted because it was seen first: whoever reads one decides. Spec: docs/spec/enrolment.md.

use openssh::key::PublicKey;
use serde::{Deserialize, Serialize};

use crate::ids::TargetName;
use crate::strict::Error;
use crate::{VERSION, limits, lines, strict};

/// What `writ-target enroll` prints: a target asks to be taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// Its name.
    pub target: TargetName,
    /// The key that its sshd shows. Never the receipt key: sshd could sign Outcomes.
    pub host_key: PublicKey,
    /// The key that signs its hello and its Outcomes.
    pub receipt_key: PublicKey,
}

/// What `writ-ca enroll` prints: what the target needs to trust this CA, and to be trusted by relays.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The target that was taken in.
    pub target: TargetName,
    /// The key that signs task certificates.
    pub task_ca: PublicKey,
    /// The host certificate, in OpenSSH's text form without a comment. Not looked into here.
    pub host_certificate: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FromTarget {
    v: u32,
    target: TargetName,
    host_key: String,
    receipt_key: String,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FromCa {
    v: u32,
    target: TargetName,
    task_ca: String,
    host_certificate: String,
}

impl Wish {
    /// Reads a target's line; spaces and a newline around it do not count.
    ///
    /// # Errors
    /// Any [`Error`]; so is a host key that is the receipt key.
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let line: FromTarget = strict::read_versioned(bytes, limits::ENROLMENT)?;
        let wish = Self {
            target: line.target,
            host_key: key("host_key", &line.host_key)?,
            receipt_key: key("receipt_key", &line.receipt_key)?,
        };
        if wish.host_key == wish.receipt_key {
            let what = "host_key and receipt_key are the same: sshd could sign Outcomes";
            return Err(Error::Malformed(what.to_owned()));
        }
        Ok(wish)
    }

    /// Writes the line, newline included.
    #[must_use]
    pub fn to_line(&self) -> String {
        lines::to_line(&FromTarget {
            v: VERSION,
            target: self.target.clone(),
            host_key: self.host_key.to_openssh(),
            receipt_key: self.receipt_key.to_openssh(),
        })
    }
}

impl Answer {
    /// Reads the CA's line; spaces and a newline around it do not count.
    ///
    /// # Errors
    /// Any [`Error`].
    pub fn parse(bytes: &[u8]) -> Result<Self, Error> {
        let line: FromCa = strict::read_versioned(bytes, limits::ENROLMENT)?;
        Ok(Self {
            target: line.target,
            task_ca: key("task_ca", &line.task_ca)?,
            host_certificate: line.host_certificate,
        })
    }

    /// Writes the line, newline included.
    #[must_use]
    pub fn to_line(&self) -> String {
        lines::to_line(&FromCa {
            v: VERSION,
            target: self.target.clone(),
            task_ca: self.task_ca.to_openssh(),
            host_certificate: self.host_certificate.clone(),
        })
    }
}

/// A key in its one text: nothing rides along as a comment.
fn key(name: &str, text: &str) -> Result<PublicKey, Error> {
    let malformed = |what: String| Error::Malformed(format!("{name}: {what}"));
    let key = PublicKey::from_openssh(text).map_err(|error| malformed(format!("failed to {error}")))?;
    if key.to_openssh() != text {
        return Err(malformed("must be \"ssh-ed25519 AAAA...\" and nothing else".to_owned()));
    }
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssh::key::SigningKey;
    use zeroize::Zeroizing;

    fn public(seed: u8) -> PublicKey {
        SigningKey::from_seed(&Zeroizing::new([seed; 32]))
            .unwrap()
            .public()
            .clone()
    }

    fn wish() -> Wish {
        Wish {
            target: "web-1".parse().unwrap(),
            host_key: public(1),
            receipt_key: public(2),
        }
    }

    /// REQ-ENROL-1
    #[test]
    fn a_line_is_read_as_it_was_written() {
        assert_eq!(Wish::parse(wish().to_line().as_bytes()), Ok(wish()));
        let answer = Answer {
            target: "web-1".parse().unwrap(),
            task_ca: public(3),
            host_certificate: "ssh-ed25519-cert-v01@openssh.com AAAA".to_owned(),
        };
        assert_eq!(Answer::parse(answer.to_line().as_bytes()), Ok(answer.clone()));
        assert!(
            answer
                .to_line()
                .starts_with(r#"{"v":1,"target":"web-1","task_ca":"ssh-ed25519 "#)
        );
        assert!(Wish::parse(answer.to_line().as_bytes()).is_err());
    }

    /// REQ-ENROL-3
    #[test]
    fn a_host_key_that_could_sign_outcomes_and_a_key_with_company_are_refused() {
        let mut same = wish();
        same.receipt_key = same.host_key.clone();
        let refused = Wish::parse(same.to_line().as_bytes()).unwrap_err();
        assert!(refused.to_string().contains("sshd could sign"), "{refused}");
        let key = wish().host_key.to_openssh();
        let line = wish().to_line().replace(&key, &format!("{key} root@web-1"));
        let refused = Wish::parse(line.as_bytes()).unwrap_err();
        assert!(refused.to_string().contains("host_key: "), "{refused}");
    }

    /// REQ-ENROL-1
    #[test]
    fn another_version_is_told_apart() {
        let line = wish().to_line().replace("\"v\":1", "\"v\":2");
        assert_eq!(Wish::parse(line.as_bytes()), Err(Error::Version(2)));
    }
}
