//! The lines of a session: one JSON object each, one meaning each.

use serde::{Deserialize, Serialize};

use crate::ids::RequestId;
use crate::seal::Sealed;
use crate::{Code, limits, strict};

/// What a relay sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RelayLine {
    /// A task certificate, a renewal, or an action certificate, in OpenSSH's text form.
    Certificate(String),
    /// A request, with its approval where it needs one.
    Request(Sealed, Option<Approval>),
    /// The stored Outcome of a request is wanted.
    Outcome(RequestId),
    /// A revocation list in base64, signed.
    Krl(Sealed),
}

/// What approvers signed, and their signatures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Approval {
    /// `<target> <target_key> <request_sha256>`, strictly sorted, 1 to [`limits::APPROVAL_ON`].
    pub on: Vec<String>,
    /// SSHSIGs over the Statement, 1 to [`limits::APPROVAL_SIGS`].
    pub sigs: Vec<String>,
}

/// What a target sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetLine {
    /// The first line: a [`crate::Hello`].
    Hello(Sealed),
    /// The answer to a request: an [`crate::Outcome`].
    Answer(Answer),
    /// A line of the relay was refused, and changed nothing.
    Refused {
        /// Which of the relay's lines, counted from 1.
        line: u64,
        /// Why.
        code: Code,
    },
}

/// An Outcome with the texts whose hashes it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The signed Outcome.
    pub outcome: Sealed,
    /// Standard output; absent when nothing ran.
    pub output: Option<String>,
    /// Standard error; absent when nothing ran.
    pub stderr: Option<String>,
}

/// Every key that a relay's line can have; which of them stand together is checked after reading.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FromRelay {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    certificate: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    approval: Option<Approval>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    outcome: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    krl: Option<String>,
}

impl RelayLine {
    /// Reads a line without its newline.
    ///
    /// # Errors
    /// Any [`strict::Error`].
    pub fn parse(line: &[u8]) -> Result<Self, strict::Error> {
        let malformed = |what: &str| strict::Error::Malformed(what.to_owned());
        match strict::read(line, limits::LINE_IN)? {
            FromRelay {
                certificate: Some(text),
                payload: None,
                sig: None,
                approval: None,
                outcome: None,
                krl: None,
            } => Ok(Self::Certificate(text)),
            FromRelay {
                certificate: None,
                payload: Some(payload),
                sig: Some(sig),
                approval,
                outcome: None,
                krl: None,
            } => {
                if let Some(approval) = &approval {
                    approval.check().map_err(malformed)?;
                }
                Ok(Self::Request(Sealed { payload, sig }, approval))
            }
            FromRelay {
                certificate: None,
                payload: None,
                sig: None,
                approval: None,
                outcome: Some(id),
                krl: None,
            } => id
                .parse()
                .map(Self::Outcome)
                .map_err(|_| malformed("outcome: not a request id")),
            FromRelay {
                certificate: None,
                payload: None,
                sig: Some(sig),
                approval: None,
                outcome: None,
                krl: Some(payload),
            } => Ok(Self::Krl(Sealed { payload, sig })),
            _ => Err(malformed("keys that do not stand together")),
        }
    }

    /// Writes the line, newline included.
    #[must_use]
    pub fn to_line(&self) -> String {
        let line = match self.clone() {
            Self::Certificate(text) => FromRelay {
                certificate: Some(text),
                ..FromRelay::default()
            },
            Self::Request(Sealed { payload, sig }, approval) => FromRelay {
                payload: Some(payload),
                sig: Some(sig),
                approval,
                ..FromRelay::default()
            },
            Self::Outcome(id) => FromRelay {
                outcome: Some(id.into()),
                ..FromRelay::default()
            },
            Self::Krl(Sealed { payload, sig }) => FromRelay {
                krl: Some(payload),
                sig: Some(sig),
                ..FromRelay::default()
            },
        };
        to_line(&line)
    }
}

impl Approval {
    /// Whether it has as many lines and signatures as it may have, the lines strictly sorted: what [`RelayLine::parse`]
    /// demands of one that it reads.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn check(&self) -> Result<(), &'static str> {
        if self.on.is_empty() || self.on.len() > limits::APPROVAL_ON || !self.on.is_sorted_by(|a, b| a < b) {
            return Err("approval.on: 1 to 256 lines, strictly sorted");
        }
        if self.sigs.is_empty() || self.sigs.len() > limits::APPROVAL_SIGS {
            return Err("approval.sigs: 1 to 8 signatures");
        }
        Ok(())
    }
}

/// Every key that a target's line can have.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FromTarget {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hello: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    payload: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    sig: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    output: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stderr: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    refused: Option<LineRefused>,
}

/// The same for writing, with the texts where they are.
#[derive(Default, Serialize)]
struct Said<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    hello: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    payload: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sig: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    output: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stderr: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refused: Option<LineRefused>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct LineRefused {
    line: u64,
    code: Code,
}

impl TargetLine {
    /// Reads a line without its newline.
    ///
    /// # Errors
    /// Any [`strict::Error`].
    pub fn parse(line: &[u8]) -> Result<Self, strict::Error> {
        match strict::read(line, limits::LINE_OUT)? {
            FromTarget {
                hello: Some(payload),
                payload: None,
                sig: Some(sig),
                output: None,
                stderr: None,
                refused: None,
            } => Ok(Self::Hello(Sealed { payload, sig })),
            FromTarget {
                hello: None,
                payload: Some(payload),
                sig: Some(sig),
                output,
                stderr,
                refused: None,
            } => Ok(Self::Answer(Answer {
                outcome: Sealed { payload, sig },
                output,
                stderr,
            })),
            FromTarget {
                hello: None,
                payload: None,
                sig: None,
                output: None,
                stderr: None,
                refused: Some(refused),
            } => Ok(Self::Refused {
                line: refused.line,
                code: refused.code,
            }),
            _ => Err(strict::Error::Malformed("keys that do not stand together".to_owned())),
        }
    }

    /// The line, newline included.
    #[must_use]
    pub fn to_line(&self) -> String {
        to_line(&self.said())
    }

    /// Writes the line, newline included, without making a text of it first: an output can be long.
    ///
    /// # Errors
    /// Whatever the writer says.
    pub fn write_to(&self, mut to: impl std::io::Write) -> std::io::Result<()> {
        serde_json::to_writer(&mut to, &self.said())?;
        to.write_all(b"\n")?;
        to.flush()
    }

    fn said(&self) -> Said<'_> {
        match self {
            Self::Hello(Sealed { payload, sig }) => Said {
                hello: Some(payload),
                sig: Some(sig),
                ..Said::default()
            },
            Self::Answer(Answer {
                outcome: Sealed { payload, sig },
                output,
                stderr,
            }) => Said {
                payload: Some(payload),
                sig: Some(sig),
                output: output.as_deref(),
                stderr: stderr.as_deref(),
                ..Said::default()
            },
            Self::Refused { line, code } => Said {
                refused: Some(LineRefused {
                    line: *line,
                    code: *code,
                }),
                ..Said::default()
            },
        }
    }
}

/// JSON of a struct of strings and integers: it always has one.
pub(crate) fn to_line(value: &impl Serialize) -> String {
    let mut line = serde_json::to_string(value).unwrap_or_default();
    line.push('\n');
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-SESSION-1
    #[test]
    fn each_line_has_one_meaning() {
        let sealed = Sealed {
            payload: "{}".to_owned(),
            sig: "AA==".to_owned(),
        };
        let lines = [
            RelayLine::Certificate("ssh-ed25519-cert-v01@openssh.com AAAA".to_owned()),
            RelayLine::Request(sealed.clone(), None),
            RelayLine::Request(
                sealed.clone(),
                Some(Approval {
                    on: vec!["a".to_owned()],
                    sigs: vec!["s".to_owned()],
                }),
            ),
            RelayLine::Outcome("0192e4a0-7f00-7000-8000-00000000000a".parse().unwrap()),
            RelayLine::Krl(sealed.clone()),
        ];
        for line in lines {
            assert_eq!(RelayLine::parse(line.to_line().trim_end().as_bytes()), Ok(line));
        }
        let answer = Answer {
            outcome: sealed.clone(),
            output: Some("x".to_owned()),
            stderr: None,
        };
        let lines = [
            TargetLine::Hello(sealed),
            TargetLine::Answer(answer),
            TargetLine::Refused {
                line: 3,
                code: Code::Halted,
            },
        ];
        for line in lines {
            let text = line.to_line();
            let mut written = Vec::new();
            line.write_to(&mut written).unwrap();
            assert_eq!(written, text.as_bytes());
            assert_eq!(TargetLine::parse(text.trim_end().as_bytes()), Ok(line));
        }
    }

    /// REQ-SESSION-1, REQ-STATEMENT-8
    #[test]
    fn keys_that_do_not_stand_together_are_refused() {
        let bad = [
            r"{}",
            r#"{"certificate":"a","payload":"b","sig":"c"}"#,
            r#"{"payload":"b"}"#,
            r#"{"sig":"b"}"#,
            r#"{"krl":"b"}"#,
            r#"{"outcome":"not-an-id"}"#,
            r#"{"payload":"b","sig":"c","approval":{"on":[],"sigs":["s"]}}"#,
            r#"{"payload":"b","sig":"c","approval":{"on":["b","a"],"sigs":["s"]}}"#,
            r#"{"payload":"b","sig":"c","approval":{"on":["a","a"],"sigs":["s"]}}"#,
            r#"{"payload":"b","sig":"c","approval":{"on":["a"],"sigs":["1","2","3","4","5","6","7","8","9"]}}"#,
            r#"{"certificate":"a","more":1}"#,
            r#"["certificate"]"#,
        ];
        for line in bad {
            assert!(RelayLine::parse(line.as_bytes()).is_err(), "{line}");
        }
        assert!(TargetLine::parse(br#"{"hello":"a","sig":"b","output":"c"}"#).is_err());
    }
}
