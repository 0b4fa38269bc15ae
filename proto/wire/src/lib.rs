//! What travels between the tiers, read one way only.
//!
//! Everything that is signed or hashed is a byte string that travels whole: a value of these types is made from bytes by
//! the strict reader and is never turned back into bytes to check a signature. No I/O and no clock.
//! The spec with examples is docs/spec.

pub mod build;
pub mod code;
pub mod enrolment;
pub mod grant;
pub mod hello;
pub mod ids;
pub mod limits;
pub mod lines;
pub mod outcome;
pub mod payload;
pub mod seal;
pub mod statement;
pub mod strict;
pub mod text;

pub use code::Code;
pub use grant::{Grant, GrantWitness, Kind, Proof, Requester};
pub use hello::Hello;
pub use ids::Head;
pub use outcome::{Encoding, Outcome, Resources, Status, Stream};
pub use payload::{Mode, Payload, PayloadWitness, Risk};

/// The version of the wire that this build speaks: `v` in every object, and the constant that a relay asks to exec.
pub const VERSION: u32 = 1;

/// What the relay asks sshd to exec; any other original command is refused.
pub const EXEC: &str = "writ.v1";

/// The ForceCommand of a target, and the critical option `force-command` of every certificate.
pub const FORCE_COMMAND: &str = "/usr/libexec/writ/agent-exec";

/// The account that logs in to a target.
pub const LOGIN: &str = "agent-runner";

/// The certificate extension that holds a [`Grant`].
pub const GRANT_EXTENSION: &str = "grant@writ.internal";
