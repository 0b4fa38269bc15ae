//! `cold_task`: a task from nothing. An MCP client's call opens the task, has its certificate minted, connects, logs in and
//! runs its first action; the whole way over stdio and all records are in it.

use anyhow::{Context as _, Result};
use harness::ALICE;

use crate::calls;
use crate::peers::{self, Ansible, Asyncssh, Connects};
use crate::report::{Report, Row};
use crate::sample::{Run, Side, alternate, alternate_all};
use crate::site::{Site, WEB};

const NAME: &str = "cold_task";
const ROUNDS: usize = 60;
const WARM_UP: usize = 5;
/// Rounds with ansible, which takes seconds.
const FEW: usize = 20;

/// What the relay logs of a connection, µs each, and what it is.
const STEPS: [(&str, &str); 4] = [
    ("tcp_us=", "1: TCP"),
    ("verified_us=", "2: key exchange, host verified"),
    ("login_us=", "3: login"),
    ("channel_us=", "4: channel"),
];

/// Takes all samples.
pub fn run(report: &mut Report) -> Result<()> {
    let site = Site::start(report)?;
    let mut client = site.stack.client(ALICE)?;
    let mut asyncssh = Asyncssh::start(&site)
        .inspect_err(|why| report.absent(NAME, "asyncssh", why))
        .ok();
    let mut own = || {
        let (run, task) = calls::tail_log(&mut client)?;
        calls::close(&mut client, &task)?;
        connection(&site, run)
    };
    // Before the others: what they share with our side is borrowed for the rest of the run.
    let ansible = Ansible::new(&site, Connects::EachTime)
        .and_then(|ansible| alternate(1, FEW, [&mut own, &mut || ansible.run()]))
        .inspect_err(|why| report.absent(NAME, "ansible", why))
        .ok();
    let mut ssh = || peers::ssh_cold(&site);
    let mut cold = asyncssh.as_mut().map(|asyncssh| || asyncssh.run("cold"));
    let mut sides: Vec<Side<'_>> = vec![&mut own, &mut ssh];
    sides.extend(cold.as_mut().map(|cold| cold as Side<'_>));
    let mut all = alternate_all(WARM_UP, ROUNDS, sides)?.into_iter();
    let own = all.next().context("no samples")?;
    let bare = own.bare();
    let rows = [("ssh, curve25519", 0.25, own), ("asyncssh", 0.35, bare)];
    let rows = rows
        .into_iter()
        .zip(all)
        .map(|((peer, goal, ours), theirs)| (peer, goal, ours, theirs));
    // Twenty times as fast: what is asked of one action on many targets.
    let few = ansible.map(|[ours, theirs]| ("ansible, connecting", 0.05, ours.bare(), theirs));
    let variant = "open a task, first tail of 20 KB";
    rows.chain(few)
        .try_for_each(|(peer, goal, ours, theirs)| report.add(Row::beside(NAME, variant, (peer, goal), ours, theirs)))
}

/// Adds what the relay logged of its newest connection, and what is beside that: mint, first action, records, stdio.
fn connection(site: &Site, run: Run) -> Result<Run> {
    let log = site.stack.control.errors_of("writ-relay");
    let line = log
        .lines()
        .rev()
        .find(|line| line.contains(STEPS[0].0) && line.contains(WEB));
    let line = line.context("the relay logs no connection")?;
    let mut rest = run.value();
    let mut whole = run;
    for (key, step) in STEPS {
        let (_, after) = line.split_once(key).with_context(|| format!("no {key} in {line}"))?;
        let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
        let took = digits.parse::<f64>()? / 1000.0;
        rest -= took;
        whole = whole.step(step, took);
    }
    Ok(whole.step("5: all else: mint, hello and first action, records, stdio", rest))
}
