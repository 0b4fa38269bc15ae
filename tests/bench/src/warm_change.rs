//! `warm_change`: a change on a task that is open, beside a read of the same program in the same run. Both go the whole way of
//! an MCP client, so the records of all are in both; the change has its certificate from the CA over gRPC, and its place in the
//! target's ledger, on top.

use anyhow::Result;
use harness::{ALICE, Options};

use crate::calls;
use crate::report::{Report, Row};
use crate::sample::alternate;
use crate::site::Site;
use crate::warm_action::shipped;

const NAME: &str = "warm_change";
const ROUNDS: usize = 200;
const WARM_UP: usize = 20;

/// A change that does what `tail_log` does.
const ACTION: &str = "tail_as_change";

/// Takes all samples.
pub fn run(report: &mut Report) -> Result<()> {
    let manifest = shipped()?
        .replace("\"tail_log\"", &format!("\"{ACTION}\""))
        .replace("\"read\"", "\"change\"");
    let policy = [ACTION, "tail_log"]
        .map(|action| format!("@id(\"{action}\")\npermit (principal, action == Action::\"{action}\", resource);\n"));
    let options = Options {
        actions: vec![(ACTION, manifest)],
        policy: Some(policy.concat()),
        ..Options::default()
    };
    let site = Site::start_with(report, options)?;
    let (mut changes, mut reads) = (site.stack.client(ALICE)?, site.stack.client(ALICE)?);
    let mut change = || Ok(calls::run_action(&mut changes, ACTION)?.0);
    let mut read = || Ok(calls::tail_log(&mut reads)?.0);
    let [change, read] = alternate(WARM_UP, ROUNDS, [&mut change, &mut read])?;
    let variant = "tail of 20 KB as a change, over MCP";
    report.add(Row::beside(NAME, variant, ("the same as a read", 1.5), change, read))
}
