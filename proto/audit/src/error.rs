//! What can go wrong with a log, grouped by whose fault it is.

use std::io;

use wire::Code;

use crate::record::MAX_LINE;

/// Why a record was not written, or is not known to be durable. In both cases nothing may run that it was to announce.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    // The caller.
    /// The record would be longer than a line may be.
    #[error("write a record of {bytes} bytes: at most {MAX_LINE} are allowed")]
    TooLong {
        /// How long it would be.
        bytes: usize,
    },
    /// The draft cannot be spelt.
    #[error("spell a record")]
    Draft(#[source] serde_json::Error),
    /// The folder holds the log of another tier.
    #[error("open the log: it is that of {0}")]
    OtherLog(String),

    // Somebody who was at the files.
    /// What stands in the log was not written by a log.
    #[error("understand segment {segment} of the log: {what}")]
    Broken {
        /// The segment, by its first number.
        segment: u64,
        /// What is wrong.
        what: String,
    },

    // The machine.
    /// Others held the lock all the time.
    #[error("take the lock of the log in {waited_ms} ms")]
    Busy {
        /// How long it was waited for.
        waited_ms: u128,
    },
    /// The disk has no room for the record and the results that must fit after it.
    #[error("reserve space for the log")]
    NoSpace(#[source] io::Error),
    /// The system refused.
    #[error("{what}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What it said.
        source: io::Error,
    },
}

impl Error {
    /// The stable Code of it.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::TooLong { .. } | Self::Draft(_) | Self::OtherLog(_) => Code::LogUnavailable,
            Self::Broken { .. } | Self::Busy { .. } | Self::NoSpace(_) | Self::Io { .. } => Code::LogUnavailable,
        }
    }

    /// For `map_err`: an I/O error with what was tried.
    pub(crate) fn io(what: &'static str) -> impl Fn(io::Error) -> Self {
        move |source| Self::Io { what, source }
    }
}
