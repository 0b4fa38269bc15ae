//! The CA as a relay meets it: the real server on a real unix socket, with a real log, policy and catalogue.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "tests say what they expect by panicking"
)]

mod authorized;
mod binary;
mod deploy;
mod faults;
mod minted;
mod mtls;
mod naked;
mod policies;
mod quotas;
mod refused;
mod reload;
mod room;
mod stand;
mod tasks;
mod unauthorized;
mod wanting;
