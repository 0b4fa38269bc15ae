//! Why agent-exec did not do something: for the peer, a Code and a short text.

use openssh::certificate;
use wire::Code;

/// A request or a line that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The stable Code.
    pub code: Code,
    /// What is behind it. It may hold what the peer sent: it is escaped and cut where it is answered or recorded.
    pub message: String,
}

impl Refusal {
    /// A refusal whose Code says it all.
    pub fn new(code: Code) -> Self {
        Self::because(code, code.text())
    }

    /// A refusal with the particulars.
    pub fn because(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

impl From<certificate::Error> for Refusal {
    fn from(error: certificate::Error) -> Self {
        use certificate::Error as E;
        let code = match error {
            E::Malformed | E::Algorithm => Code::CertificateMalformed,
            E::Untrusted => Code::CertificateUntrusted,
            E::Type => Code::CertificateType,
            E::Principals => Code::CertificatePrincipals,
            E::Lifetime => Code::CertificateLifetime,
            E::NotYetValid(_) => Code::CertificateNotYetValid,
            E::Expired(_) => Code::CertificateExpired,
            E::Options => Code::CertificateOptions,
            E::NoGrant => Code::GrantMissing,
        };
        Self::because(code, error.to_string())
    }
}

impl From<audit::Error> for Refusal {
    fn from(error: audit::Error) -> Self {
        Self::because(Code::LogUnavailable, error.to_string())
    }
}

/// Why the process ends before it serves anybody: exit code 2 for how it was started, 1 for the machine.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// Not started as sshd starts a ForceCommand.
    #[error("start: the arguments are not those of the ForceCommand")]
    Arguments,
    /// Not with the ids of the installation.
    #[error("start: {0}; is the file set-user-id, the mount without nosuid, and sshd's unit without NoNewPrivileges?")]
    Ids(String),
    /// A file of the installation is missing or not as it must be.
    #[error("use {file}: {what}")]
    File {
        /// Which.
        file: String,
        /// What is wrong with it.
        what: String,
    },
    /// The log cannot be opened, and without it nothing is done.
    #[error("open the log: {0}")]
    Log(String),
    /// The relay is gone.
    #[error("talk to the relay: {0}")]
    Peer(std::io::Error),
}

impl Fatal {
    /// The Code, for the line that is sent where a line can be sent.
    pub fn code(&self) -> Code {
        match self {
            Self::Arguments => Code::OriginalCommand,
            Self::Ids(_) => Code::IdsUnexpected,
            Self::File { .. } => Code::ConfigInvalid,
            Self::Log(_) => Code::LogUnavailable,
            Self::Peer(_) => Code::SessionLost,
        }
    }
}
