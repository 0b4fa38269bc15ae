//! `mcp_call`: one tool call of an MCP client on a task that is open, the whole way from the client through
//! `writ-relay stdio`, relay and target and back, the records of all included.

use anyhow::Result;
use harness::{ALICE, McpClient};

use crate::calls;
use crate::peers::{Acks, Ansible, Connects, SshMcp};
use crate::report::{Report, Row};
use crate::sample::{Side, alternate, alternate_all};
use crate::site::Site;

const NAME: &str = "mcp_call";
const ROUNDS: usize = 200;
const WARM_UP: usize = 20;
/// Rounds with ansible, which takes most of a second.
const FEW: usize = 40;

/// Takes all samples.
pub fn run(report: &mut Report) -> Result<()> {
    let site = Site::start(report)?;
    let mut ours = site.stack.client(ALICE)?;
    let mut peers = Vec::new();
    for (peer, goal, acks) in [
        ("ssh-mcp, quick ACKs", 1.0 / 5.0, Acks::Quick),
        ("ssh-mcp, as installed", 1.0 / 40.0, Acks::Usual),
    ] {
        match SshMcp::new(&site, acks).and_then(|peer| McpClient::start(peer.command())) {
            Ok(client) => peers.push((peer, goal, client)),
            Err(why) => report.absent(NAME, peer, &why),
        }
    }
    let mut own = || Ok(calls::tail_log(&mut ours)?.0);
    let ansible = Ansible::new(&site, Connects::Once)
        .and_then(|ansible| alternate(2, FEW, [&mut own, &mut || ansible.run()]))
        .inspect_err(|why| report.absent(NAME, "ansible", why))
        .ok();
    let mut theirs: Vec<_> = peers
        .iter_mut()
        .map(|(_, _, client)| || calls::ssh_mcp(client))
        .collect();
    let mut sides: Vec<Side<'_>> = vec![&mut own];
    sides.extend(theirs.iter_mut().map(|side| side as Side<'_>));
    let mut all = alternate_all(WARM_UP, ROUNDS, sides)?.into_iter();
    drop(theirs);
    let own = all.next().unwrap_or_default();
    let rows = peers
        .into_iter()
        .zip(all)
        .map(|((peer, goal, _), theirs)| (peer, goal, own.clone(), theirs));
    // Twenty times as fast: what is asked of one action on many targets.
    let few = ansible.map(|[ours, theirs]| ("ansible, kept and pipelined", 0.05, ours, theirs));
    let variant = "tail of 20 KB, task open";
    rows.chain(few)
        .try_for_each(|(peer, goal, ours, theirs)| report.add(Row::beside(NAME, variant, (peer, goal), ours, theirs)))
}
