//! Changes, from an MCP client to a real sshd and back, with everything in between cut, killed or away: at most one effect
//! each, and an honest answer.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod cut;
mod gone;
mod load;
mod scene;
mod whole;
