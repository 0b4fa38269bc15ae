//! Names, ids and digests: texts of a known shape, whose only door is the check of that shape.
//!
//! None of them can hold a comma, a newline or a control character, so none can be mistaken for two of its kind in a
//! certificate's principals, in a log line or in a Statement.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

/// A text that is not of the shape wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read {what}: must be {shape}")]
pub struct IdError {
    what: &'static str,
    shape: &'static str,
}

/// Declares a checked text: its name, its shape in words, and the check.
macro_rules! text {
    ($(#[$doc:meta])* $name:ident, $shape:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text itself.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                let check: fn(&str) -> bool = $check;
                if check(text) { Ok(Self(text.to_owned())) } else { Err(IdError { what: stringify!($name), shape: $shape }) }
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
                out.write_str(&self.0)
            }
        }
    };
}

text! {
    /// The id of a Task: what one intent is called in every log, and the key id of its certificates.
    TaskId, "a lower-case UUID with hyphens", is_uuid
}
text! {
    /// The id of a Request. Unique in its task; asking again with the same id never has a second effect.
    RequestId, "a lower-case UUID with hyphens", is_uuid
}
text! {
    /// The id of an Approval that people are asked for. It may cover the requests of several targets.
    ApprovalId, "a lower-case UUID with hyphens", is_uuid
}
text! {
    /// The name of a Target, which is also the principal of its certificates.
    TargetName, "1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit",
    |text| is_word(text, 63, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), b"._-")
}
text! {
    /// The name of an Action in the Catalogue.
    ActionName, "1 to 63 of a-z 0-9 _, beginning with a letter",
    |text| is_word(text, 63, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), b"_") && !text.starts_with(|c: char| c.is_ascii_digit())
}
text! {
    /// The CA's canonical name of a human. Approvers use the same names, compared byte for byte.
    PersonName, "1 to 64 of a-z 0-9 . _ @ -, beginning with a letter or digit",
    |text| is_word(text, 64, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), b"._@-")
}
text! {
    /// The name of a relay in the CA's configuration.
    RelayName, "1 to 63 of a-z 0-9 . _ -, beginning with a letter or digit",
    |text| is_word(text, 63, |c| c.is_ascii_lowercase() || c.is_ascii_digit(), b"._-")
}
text! {
    /// What a brain calls itself. Nothing is decided by it but what policy wants to decide.
    BrainName, "1 to 64 of A-Z a-z 0-9 space . _ / @ : + -, beginning with a letter or digit",
    |text| is_word(text, 64, |c| c.is_ascii_alphanumeric(), b" ._/@:+-")
}
text! {
    /// Why a task exists, in the requester's words.
    Reason, "1 to 500 bytes of text without control characters",
    |text| (1..=500).contains(&text.len()) && !text.trim().is_empty() && !text.chars().any(char::is_control)
}
text! {
    /// A SHA-256 digest.
    Digest, "64 lower-case hexadecimal digits",
    |text| text.len() == 64 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}
text! {
    /// The fingerprint of a public key, as `ssh-keygen -l` prints it.
    Fingerprint, "SHA256: and 43 characters of base64",
    |text| text.strip_prefix("SHA256:").is_some_and(|rest| {
        rest.len() == 43 && rest.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'+' || c == b'/')
    })
}
text! {
    /// The id of a log: the first 32 digits of the SHA-256 of its genesis line, newline included.
    LogId, "32 lower-case hexadecimal digits",
    |text| text.len() == 32 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c))
}
text! {
    /// A certificate's serial number: 63 bits in decimal, as a text because JSON readers round beyond 53 bits.
    Serial, "a decimal number below 2^63 without leading zeros",
    |text| text.parse::<u64>().is_ok_and(|n| n < 1 << 63 && n.to_string() == text)
}

impl Digest {
    /// The SHA-256 of some bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self::from_bytes(&Sha256::digest(bytes).into())
    }

    /// The text form of a finished SHA-256.
    #[must_use]
    pub fn from_bytes(hash: &[u8; 32]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(64);
        for byte in hash {
            for digit in [byte >> 4, byte & 15] {
                text.push(char::from(DIGITS[usize::from(digit)]));
            }
        }
        Self(text)
    }

    /// 64 zeros: what stands where there is no previous line.
    #[must_use]
    pub fn zero() -> Self {
        Self("0".repeat(64))
    }
}

impl LogId {
    /// The id of the log that begins with this line, given with its newline.
    #[must_use]
    pub fn of_genesis(line: &[u8]) -> Self {
        let mut text = Digest::of(line).0;
        text.truncate(32);
        Self(text)
    }
}

impl Serial {
    /// The text of a serial number. The highest bit is dropped: serials have 63.
    #[must_use]
    pub fn of(number: u64) -> Self {
        Self((number & (u64::MAX >> 1)).to_string())
    }
}

impl Fingerprint {
    /// The fingerprint of a key.
    #[must_use]
    pub fn of(key: &openssh::key::PublicKey) -> Self {
        Self(key.fingerprint())
    }
}

/// The newest record of a log that its writer knew: which log, its sequence number, its hash.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Head {
    /// The log.
    pub log: LogId,
    /// The sequence number of the record, from 1.
    pub seq: u64,
    /// The SHA-256 of the record's exact bytes, newline included.
    pub hash: Digest,
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, c)| match at {
            8 | 13 | 18 | 23 => c == b'-',
            _ => c.is_ascii_digit() || (b'a'..=b'f').contains(&c),
        })
}

fn is_word(text: &str, max: usize, letter: fn(char) -> bool, also: &[u8]) -> bool {
    (1..=max).contains(&text.len())
        && text.starts_with(letter)
        && text
            .chars()
            .all(|c| letter(c) || u8::try_from(c).is_ok_and(|byte| also.contains(&byte)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_of_one_shape() {
        for good in ["web-1", "a", "db.eu_2"] {
            assert!(good.parse::<TargetName>().is_ok(), "{good}");
        }
        for bad in ["", "Web", "-a", "a,b", "a b", "a\n", "é", &"a".repeat(64)] {
            assert!(bad.parse::<TargetName>().is_err(), "{bad:?}");
        }
        assert!("1st".parse::<ActionName>().is_err());
        assert!("tail_log".parse::<ActionName>().is_ok());
        assert!("0192e4a0-7f00-7000-8000-00000000000a".parse::<TaskId>().is_ok());
        assert!("0192E4A0-7f00-7000-8000-00000000000a".parse::<TaskId>().is_err());
        assert!(
            "\u{202e}why".parse::<Reason>().is_ok(),
            "bidi is escaped where it is shown"
        );
        assert!("two\nlines".parse::<Reason>().is_err());
        assert!("  ".parse::<Reason>().is_err());
    }

    #[test]
    fn serials_keep_63_bits_as_text() {
        assert_eq!(Serial::of(u64::MAX).as_str(), "9223372036854775807");
        assert!("9223372036854775808".parse::<Serial>().is_err());
        assert!("007".parse::<Serial>().is_err());
    }

    #[test]
    fn a_digest_is_sha256_in_lower_case() {
        let digest = Digest::of(b"abc");
        assert_eq!(
            digest.as_str(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(LogId::of_genesis(b"abc").as_str(), "ba7816bf8f01cfea414140de5dae2223");
    }
}
