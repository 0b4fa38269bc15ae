//! The relay whole, between a client in memory, a CA of a few lines, and a target that is a real SSH server.
//!
//! The far ends are of this folder and do as the tests say, also what no honest one would: what the real ones do is
//! shown end to end elsewhere.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on ends here")]

mod approvals;
mod approvers;
mod binary;
mod ca;
mod changes;
mod channels;
mod client;
mod deploy;
mod drain;
mod far;
mod find;
mod floods;
mod hosts;
mod kills;
mod lost;
mod memory;
mod protocol;
mod restart;
mod rules;
mod sessions;
mod story;
mod target;
mod trials;
mod waits;
mod world;
