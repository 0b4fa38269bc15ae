//! The harness: a CA, a relay, clients and real sshds, laid out as in production, in namespaces of their own.
//!
//! `tests/harness/enter` makes the private world; [`stack::Stack`] builds machines in it. The machine that it runs on is
//! touched nowhere: no account, no file outside of the build's folder, no process that outlives the world. There is one
//! layout, for root and for ordinary users, for the demo, for `make up` and for every test.

pub mod bare;
pub mod changed;
pub mod control;
pub mod cut;
pub mod demo;
pub mod effects;
pub mod evidence;
pub mod evil;
pub mod forge;
pub mod ids;
pub mod inside;
pub mod mcp;
pub mod processes;
pub mod records;
pub mod refused;
pub mod root;
pub mod rpc;
pub mod services;
pub mod spawn;
pub mod ssh;
pub mod stack;
mod sudo;
pub mod systemd;
pub mod target;
pub mod up;
pub mod world;

pub use changed::Changed;
pub use control::WayToCa;
pub use evil::EvilRelay;
pub use ids::{ALICE, BOB, CA, EXEC, RELAY, ROOT, RUNNER, STRANGER};
pub use mcp::McpClient;
pub use processes::Process;
pub use refused::{By, Leaves, assert_refused};
pub use ssh::{Login, Session};
pub use stack::{Opened, Options, Stack};
pub use target::Target;
