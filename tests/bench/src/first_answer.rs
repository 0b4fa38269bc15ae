//! `first_answer`: an MCP client starts its server, initialises, and has its first log. For ours that is `writ-relay stdio`
//! at a relay that runs, and a task that is not open yet: certificate, connection and login are in it.

use std::time::Instant;

use anyhow::Result;
use harness::{ALICE, McpClient};

use crate::calls;
use crate::peers::{Acks, SshMcp};
use crate::report::{Report, Row};
use crate::sample::{Run, alternate};
use crate::session::ms;
use crate::site::Site;

const NAME: &str = "first_answer";
const ROUNDS: usize = 30;
const WARM_UP: usize = 3;

/// Takes all samples.
pub fn run(report: &mut Report) -> Result<()> {
    let site = Site::start(report)?;
    let peer = match SshMcp::new(&site, Acks::Usual) {
        Ok(peer) => peer,
        Err(why) => {
            report.absent(NAME, "ssh-mcp", &why);
            return Ok(());
        }
    };
    let mut own = || {
        let begun = Instant::now();
        let mut client = site.stack.client(ALICE)?;
        let initialised = ms(begun);
        let (called, task) = calls::tail_log(&mut client)?;
        let took = ms(begun);
        calls::close(&mut client, &task)?;
        Ok(Run::new(took, called.check())
            .step("1: start and initialise", initialised)
            .step("2: the first call, with its task", took - initialised))
    };
    let mut theirs = || {
        let begun = Instant::now();
        let mut client = McpClient::start(peer.command())?;
        let called = calls::ssh_mcp(&mut client)?;
        Ok(Run::new(ms(begun), called.check()))
    };
    let [own, theirs] = alternate(WARM_UP, ROUNDS, [&mut own, &mut theirs])?;
    let variant = "start, initialise, tail of 20 KB";
    report.add(Row::beside(
        NAME,
        variant,
        ("ssh-mcp, as installed", 1.0 / 5.0),
        own,
        theirs,
    ))
}
