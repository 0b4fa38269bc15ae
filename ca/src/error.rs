//! Why a call was refused or failed, grouped by whose fault it is.
//!
//! Two faces: the Code and this text go to the relay; the chain of causes goes to the operator's log and the record.

use std::net::IpAddr;

use catalogue::ArgFault;
use grpc::tls::HandshakeError;
use wire::ids::{ActionName, PersonName, TargetName, TaskId};
use wire::{Code, strict};

use crate::certificate::LayoutError;
use crate::inventory::ShelfError;
use crate::policy::PolicyError;
use crate::random::NoRandomness;
use crate::roster::Caller;
use crate::signer::SignError;

/// A call that got no certificate. Each text can follow "failed to".
#[derive(Debug, thiserror::Error)]
pub enum Error {
    // The caller: what the relay said.
    /// A field is not of its shape.
    #[error("accept the arguments: {field}: {what}")]
    Malformed {
        /// The field of the message.
        field: &'static str,
        /// What is wrong with it.
        what: String,
    },
    /// The bytes are no payload.
    #[error("read the payload: failed to {0}")]
    Payload(strict::Error),
    /// The request's arguments are not those of the action.
    #[error("accept the arguments: {}", listed(.0))]
    Arguments(Vec<ArgFault>),
    /// More bytes than any call has.
    #[error("read a message of more than {max} bytes")]
    TooLong {
        /// How many are read.
        max: usize,
    },
    /// What the transport could not make a call of.
    #[error("understand the call: {0}")]
    NoCall(String),
    /// No relay of the configuration speaks for this person.
    #[error("find out who {0} is: no relay may speak for this person")]
    PersonUnmapped(PersonName),
    /// Not in the CA's catalogue.
    #[error("find the action {0} in the CA's catalogue")]
    UnknownAction(ActionName),
    /// The action has no dry run.
    #[error("show what {0} would do: it has no dry run")]
    NoDryRun(ActionName),
    /// The request ended so many seconds ago.
    #[error("authorize a request that expired {0} s ago")]
    RequestExpired(u64),
    /// Not in the CA's inventory.
    #[error("find the target {0} in the CA's inventory")]
    UnknownTarget(TargetName),
    /// Never opened through this relay on this target.
    #[error("find an open task {0} on this target")]
    UnknownTask(TaskId),
    /// Its eight hours are over.
    #[error("use the task {0}: it has ended")]
    TaskEnded(TaskId),
    /// A relay, or a person through it, asks for more than its quota.
    #[error("take another call now: {whose} has {per_minute} calls a minute, and the next is taken in {wait_s} s")]
    Quota {
        /// Whose quota it is.
        whose: String,
        /// How many calls.
        per_minute: u64,
        /// When there is one again.
        wait_s: u64,
    },
    /// This relay has too many certified keys of open tasks.
    #[error("open another task: this relay has {0} open certificates")]
    Capacity(usize),

    // Policy: what the owners of the CA decided.
    /// The person is another relay's.
    #[error("let this relay speak for {0}")]
    PersonNotOfThisRelay(PersonName),
    /// The target is not among the relay's.
    #[error("let this relay reach {0}")]
    TargetNotOfThisRelay(TargetName),
    /// The task is open with other facts than those of the call.
    #[error("accept another {0} for a task that is open")]
    TaskMismatch(&'static str),
    /// A renewal or a request for a key that was not certified for this task on this target.
    #[error("accept another key than the task's on this target")]
    KeyMismatch,
    /// Policy does not allow the action, or no read action is left that it allows.
    #[error("find a policy that allows {} there{}", action.as_ref().map_or("any read action", ActionName::as_str), if by.is_empty() { String::new() } else { format!(": denied by {}", by.join(", ")) })]
    PolicyDenied {
        /// The one that was asked for, if one was.
        action: Option<ActionName>,
        /// The policies that forbade, if any did.
        by: Vec<String>,
    },
    /// A policy could not be evaluated.
    #[error("judge the call: failed to {0}")]
    PolicyError(#[from] PolicyError),

    // The peer.
    /// Nobody is known by the account or the key at the other end.
    #[error("recognise the relay: {} is not in the CA's configuration", .0.as_ref().map_or("whoever calls".to_owned(), Caller::to_string))]
    Stranger(Option<Caller>),
    /// Somebody on the network who did not come as far as a call.
    #[error("let {0} in: failed to {why}", why = chain(.1))]
    Handshake(IpAddr, HandshakeError),
    /// The same, when others came.
    #[error("let {0} in: too many others came before it was done")]
    GaveWay(IpAddr),
    /// A relay's key has connections enough.
    #[error("keep another connection of {0}: it has {1}")]
    Connections(Caller, usize),

    /// The request is somebody else's than the task.
    #[error("match the requester with the task's")]
    RequesterMismatch,
    /// The request is meant for another host of that name.
    #[error("recognise {0} in the request: it names another receipt key")]
    WrongTarget(TargetName),
    /// The request would be valid for so many seconds.
    #[error("accept a request that expires in {0} s")]
    ExpiresTooFar(u64),

    // Us and the machine.
    /// The relay's manifest of the action is not the CA's.
    #[error("recognise the manifest of {0}: it is not that of the CA's catalogue")]
    ManifestChanged(ActionName),
    /// The certificate cannot be laid out: the configuration gives one task more actions than fit.
    #[error("lay the certificate out: failed to {0}")]
    Layout(#[from] LayoutError),
    /// The inventory cannot be read.
    #[error("read the CA's inventory")]
    Inventory(#[from] ShelfError),
    /// The record could not be made durable, so nothing was signed.
    #[error("write the CA's record")]
    Log(#[from] audit::Error),
    /// The machine has no randomness.
    #[error(transparent)]
    Random(#[from] NoRandomness),
    /// The signature failed after the record.
    #[error("sign")]
    Sign(#[from] SignError),
    /// The work was lost inside the process.
    #[error("finish the call")]
    Lost,
}

impl Error {
    /// The stable Code.
    #[must_use]
    pub fn code(&self) -> Code {
        match self {
            Self::Malformed { .. } | Self::Arguments(_) => Code::ArgumentsInvalid,
            Self::Payload(strict::Error::Version(_)) => Code::VersionUnsupported,
            Self::Payload(strict::Error::TooLong { .. } | strict::Error::Malformed(_)) => Code::PayloadMalformed,
            Self::TooLong { .. } => Code::MessageTooLong,
            Self::NoCall(_) => Code::ProtocolError,
            Self::PersonUnmapped(_) => Code::PersonUnmapped,
            Self::UnknownAction(_) => Code::UnknownAction,
            Self::NoDryRun(_) => Code::ModeUnsupported,
            Self::RequestExpired(_) => Code::RequestExpired,
            Self::UnknownTarget(_) => Code::UnknownTarget,
            Self::UnknownTask(_) => Code::UnknownTask,
            Self::TaskEnded(_) => Code::TaskEnded,
            Self::Quota { .. } => Code::RateLimited,
            Self::Capacity(_) | Self::Connections(..) => Code::Capacity,
            Self::PersonNotOfThisRelay(_) => Code::PersonNotOfThisRelay,
            Self::TargetNotOfThisRelay(_) => Code::TargetNotOfThisRelay,
            Self::TaskMismatch(_) => Code::TaskMismatch,
            Self::KeyMismatch => Code::KeyMismatch,
            Self::PolicyDenied { .. } => Code::PolicyDenied,
            Self::PolicyError(_) => Code::PolicyError,
            Self::Stranger(_) | Self::Handshake(..) | Self::GaveWay(_) => Code::RelayUnknown,
            Self::RequesterMismatch => Code::RequesterMismatch,
            Self::WrongTarget(_) => Code::WrongTarget,
            Self::ExpiresTooFar(_) => Code::ExpiresTooFar,
            Self::ManifestChanged(_) => Code::ManifestChanged,
            Self::Layout(_) | Self::Inventory(_) => Code::ConfigInvalid,
            Self::Log(_) => Code::LogUnavailable,
            Self::Random(_) | Self::Sign(_) | Self::Lost => Code::Internal,
        }
    }

    /// The policies that decided, for the record.
    #[must_use]
    pub fn policies(&self) -> &[String] {
        match self {
            Self::PolicyDenied { by, .. } => by,
            Self::PolicyError(error) => &error.policies,
            _ => &[],
        }
    }
}

fn listed(faults: &[ArgFault]) -> String {
    faults.iter().map(ArgFault::to_string).collect::<Vec<_>>().join("; ")
}

/// What failed and why on one line: "failed to …", with every cause.
#[must_use]
pub fn told(error: &dyn std::error::Error) -> String {
    format!("failed to {}", chain(error))
}

/// An error and its causes on one line, for people who look after the CA.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // A text that already ends with its cause's would say it twice.
        let more = error.to_string();
        if !text.ends_with(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}
