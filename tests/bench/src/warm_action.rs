//! `warm_action`: one action on a session that stands, from handing over its payload to the verified Outcome. All checks,
//! walls and both `fdatasync` of the target are in it; the relay's own records are not, because only its library runs.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use harness::world::World;
use harness::{EvilRelay, RUNNER, Session, Stack};
use openssh::key::SigningKey;
use openssh::sshsig;
use serde_json::{Map, Value, json};
use tokio::runtime::Runtime;

use crate::ours::{Ours, fresh};
use crate::peers::{self, Asyncssh, Master};
use crate::report::{Report, Row};
use crate::sample::{End, Run, Side, alternate_all};
use crate::session::{ENVIRONMENT, INSPECT, ended, ms, served};
use crate::site::{FILE, LINES, Site, TAIL_BYTES, WEB};

const NAME: &str = "warm_action";
const ROUNDS: usize = 500;
const WARM_UP: usize = 20;

/// The action that runs what everybody else runs.
const REAL: &str = "tail_with_tail";
/// sshd's word on a login, inside the target.
const LOGIN_WORD: &str = "/tmp/bench-warm-login";

/// Takes all samples.
pub fn run(report: &mut Report) -> Result<()> {
    let site = Site::start(report)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let own = of_the_catalogue(&runtime, &site.stack)?;
    let real = with_tail(&runtime, &site.stack)?;
    let mut piped = Piped::start(&site.stack)?;
    let master = Master::start(&site)?;
    let mut asyncssh = Asyncssh::start(&site)
        .inspect_err(|why| report.absent(NAME, "asyncssh", why))
        .ok();
    let mut durable_ms = site.log.durable_kib_ms()?;
    let mut own = || own.act(&runtime, TAIL_BYTES);
    let mut real = || real.act(&runtime, TAIL_BYTES);
    let mut floor = || peers::tail(&site);
    let mut mux = || master.run(&site);
    let mut piped = || piped.act();
    let mut program = || inspect(&site.stack);
    let mut durable = || Ok(Run::new(durable_ms()?, Ok(())));
    let mut kept = asyncssh.as_mut().map(|asyncssh| || asyncssh.run("warm"));
    let mut sides: Vec<Side<'_>> = vec![
        &mut own,
        &mut floor,
        &mut real,
        &mut mux,
        &mut piped,
        &mut program,
        &mut durable,
    ];
    sides.extend(kept.as_mut().map(|kept| kept as Side<'_>));
    let mut all = alternate_all(WARM_UP, ROUNDS, sides)?.into_iter();
    let mut next = || all.next().context("a series is missing");
    let (mut own, floor, real, mux) = (next()?, next()?, next()?, next()?);
    own.add_part("2a: of that agent-exec, asked on a pipe without sshd", next()?);
    own.add_part("2b: of that the program by itself, start to end", next()?);
    own.add_part("2c: of that fdatasync of 1 KiB (two in an action)", next()?);
    let kept = all.next();
    let (bare, mut rows) = (own.bare(), Vec::new());
    let mut row = |variant, peer, ours, theirs, goal| {
        rows.push(Row::beside(NAME, variant, (peer, goal), ours, theirs));
    };
    let (usual, spawn) = ("tail of 20 KB by tail_log", "posix_spawn of tail");
    row(usual, spawn, own, floor.bare(), 1.75);
    row("tail of 20 KB by /usr/bin/tail", spawn, real, floor, 2.4);
    row(usual, "ssh ControlMaster", bare.clone(), mux, 0.25);
    if let Some(kept) = kept {
        row(usual, "asyncssh, kept, dash", bare, kept, 0.45);
    }
    rows.into_iter().try_for_each(|row| report.add(row))
}

/// What is asked of every action here.
pub fn arguments() -> Value {
    json!({"path": FILE, "lines": LINES})
}

/// A session under a certificate of the CA's, for the action that is shipped.
pub fn of_the_catalogue(runtime: &Runtime, stack: &Stack) -> Result<Ours> {
    let relay = EvilRelay::log_in(stack, WEB, stack.open_task(WEB)?)?;
    let payload = relay.payload("tail_log", arguments());
    Ours::open(runtime, stack, relay, payload)
}

/// The manifest of the shipped action.
pub fn shipped() -> Result<String> {
    let path = World::here()?.target_package()?.join("actions.d/tail_log.toml");
    Ok(std::fs::read_to_string(path)?)
}

/// The same action with the real tail for its program. No policy grants it, so the certificate is signed by hand.
fn with_tail(runtime: &Runtime, stack: &Stack) -> Result<Ours> {
    let manifest = shipped()?
        .replace("\"tail_log\"", &format!("\"{REAL}\""))
        .replace(INSPECT, "/usr/bin/tail")
        .replace("[\"tail\", \"-n\"", "[\"-n\"")
        .replace("\"reader\"", "\"tool\"");
    stack.target(WEB)?.add_action(REAL, &manifest)?;
    let mut relay = EvilRelay::log_in(stack, WEB, stack.open_task(WEB)?)?;
    relay.task.certificate = security::forged(stack, &relay, |forge, grant| {
        forge.valid_before += 600;
        grant["actions"] = json!([REAL]);
    })?;
    let payload = relay.payload(REAL, arguments());
    Ours::open(runtime, stack, relay, payload)
}

/// agent-exec without sshd: the same requests on a pipe.
struct Piped {
    session: Session,
    key: SigningKey,
    payload: Map<String, Value>,
}

impl Piped {
    fn start(stack: &Stack) -> Result<Piped> {
        let relay = EvilRelay::log_in(stack, WEB, stack.open_task(WEB)?)?;
        let payload = relay.payload("tail_log", arguments());
        let EvilRelay { task, .. } = relay;
        let target = stack.target(WEB)?;
        let word = format!("publickey {}\n", task.certificate);
        target
            .root()
            .file_of(LOGIN_WORD, 0o600, (RUNNER.uid, RUNNER.gid), word)?;
        let mut command = target.command(RUNNER, "/usr/bin/env");
        command
            .arg("-i")
            .args(ENVIRONMENT.map(|(name, value)| format!("{name}={value}")));
        let program = harness::target::AGENT_EXEC;
        command
            .arg(format!("SSH_USER_AUTH={LOGIN_WORD}"))
            .args([program, "-c", program]);
        let mut session = Session::over(command)?;
        session.send(json!({"certificate": task.certificate}).to_string())?;
        session.line().context("no hello on a pipe")?;
        Ok(Piped {
            session,
            key: task.key,
            payload,
        })
    }

    fn act(&mut self) -> Result<Run> {
        let line = EvilRelay::line(&fresh(&self.payload)?, &self.key, sshsig::REQUEST)?;
        let begun = Instant::now();
        self.session.send(line)?;
        let answer = self.session.raw_line(Duration::from_secs(20))?;
        let took = ms(begun);
        let answer = serde_json::from_slice(&answer.ok_or_else(|| anyhow!("{}", self.session.errors()))?)?;
        Ok(Run::new(took, served(&answer, TAIL_BYTES)))
    }
}

/// The program of the shipped action, here and with nothing around it.
fn inspect(stack: &Stack) -> Result<Run> {
    let root = stack.target(WEB)?.root();
    let mut command = std::process::Command::new(root.at(INSPECT));
    command
        .args(["tail", "-n", &LINES.to_string()])
        .stdin(std::fs::File::open(root.at(FILE))?);
    ended(command, End::fine(TAIL_BYTES))
}
