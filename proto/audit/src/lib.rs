//! The evidence: one log per tier, of JSON lines that are chained by their hashes and only ever appended to.
//!
//! [`Log`] writes, from many processes at once; [`verify()`] judges copies of logs without any key or access to where they
//! came from; [`replay()`] tells the story of one task out of them. The spec is docs/spec/record.md.

mod clock;
mod error;
mod folder;
mod history;
mod lock;
mod log;
mod record;
mod replay;
mod rights;
mod segment;
mod strangers;
mod tail;
mod verify;
mod writer;

pub mod render;
pub mod show;

pub use clock::{Machine, Moment, Outside, rfc3339};
pub use error::Error;
pub use log::{Log, Pending, Setup, Who};
pub use record::{
    Approval, ApprovalState, Approving, Cert, Decision, Draft, Envelope, Event, MAX_LINE, Output, Record, Tier, Torn,
    VERSION, Witness,
};
pub use replay::{Call, Replay, Step, replay};
pub use rights::{Own, Rights};
pub use strangers::Strangers;
pub use verify::{Expected, Fault, Kind, LogReport, Report, TornPlace, Vouched, verify};
