//! One binary for all of them, so that the stack which most tests share is started once.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod approved;
mod cold;
mod demo;
mod far_ca;
mod faults;
mod helper;
mod linkage;
mod max_sessions;
mod mcp_client;
mod own_host;
mod probes;
mod read_actions;
mod readme;
mod renewal;
mod restart;
mod services;
mod setup;
mod sshd_facts;
mod systemd;
mod up;
mod versions;

use std::sync::LazyLock;

use harness::Stack;

/// The stack of every test that leaves it as it was.
static STACK: LazyLock<Stack> = LazyLock::new(|| Stack::usual().unwrap());
