//! A loopback of the benches' own, where nobody else's traffic runs and one address has its ACKs sent at once.

use std::process::Command;

use anyhow::{Context as _, Result};
use harness::spawn::run_ok;
use nix::sched::{CloneFlags, unshare};

/// The address whose route acknowledges at once, in both directions: a peer that waits for a delayed ACK (Nagle's algorithm
/// left on) does not wait there.
pub const QUICK: &str = "127.0.0.111";

/// Gives this process, and everything that it starts from now on, a network of its own that has a loopback only. Has to come
/// before the first thread.
pub fn own_loopback() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("failed to make a network namespace")?;
    ip(&["link", "set", "lo", "up"])?;
    let to = format!("{QUICK}/32");
    // With that source, so that what is sent back takes the same route.
    let route = [
        "table", "local", "local", &to, "dev", "lo", "src", QUICK, "quickack", "1",
    ];
    ip(&[&["addr", "add", &to, "dev", "lo"][..]].concat())?;
    ip(&[&["route", "replace"][..], &route[..]].concat())
}

fn ip(arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("ip");
    command.args(arguments);
    run_ok("ip", command, b"").map(drop)
}
