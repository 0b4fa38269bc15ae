//! The relay: MCP in, SSH out.
//!
//! It turns a tool call into a signed request to one target, under a certificate that the CA gave for one task. It
//! filters early and renders safely; it is no security boundary for targets, which check everything again.
//!
//! Each verb has one story: [`pipeline`] is that of a call, [`serve`] of a start and an end, [`check`] of a look at the
//! configuration; [`approvals`] is the approvers' door and their verbs. Every other module is one thing that the stories use. `mcp` alone knows MCP, `session` alone SSH,
//! `issuer` alone gRPC.

pub mod approvals;
pub mod call;
pub mod check;
pub mod config;
pub mod door;
pub mod error;
pub mod gate;
pub mod inventory;
pub mod issuer;
pub mod limits;
pub mod lines;
mod lock;
pub mod mcp;
mod pauses;
pub mod people;
pub mod pipeline;
pub mod records;
pub mod rules;
pub mod seats;
pub mod serve;
pub mod session;
pub mod stdio;
pub mod store;
