//! What the tests of one file share: a stack, and relays with forged certificates.

pub mod approvals;
pub mod changes;
pub mod maze;
pub mod privileged;
pub mod stage;
pub mod tries;

use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use anyhow::{Context as _, Result, anyhow};
use harness::forge::{Forge, GRANT};
use harness::{Changed, EvilRelay, Leaves, Stack, Target};
use serde_json::{Value, json};

/// Where most attacks go.
pub const WEB: &str = "web-1";

/// A file on every target that a read may show.
pub const LOG: &str = "/var/log/shop/web.log";

/// The stack of a test file, for one test at a time: the evidence is counted before and after each attack. It ends with
/// the world that the tests run in.
pub fn stack() -> MutexGuard<'static, Stack> {
    static STACK: OnceLock<Mutex<Stack>> = OnceLock::new();
    let stack = STACK.get_or_init(|| match Stack::usual() {
        Ok(stack) => Mutex::new(stack),
        Err(error) => {
            eprintln!("{error:?}");
            std::process::exit(1)
        }
    });
    // A test that failed leaves a stack that is as good as before: attacks change nothing.
    stack.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The grant inside a certificate.
pub fn grant_of(certificate: &str) -> Result<Value> {
    let certificate = openssh::certificate::read(certificate)?;
    let text = certificate.extensions().get(GRANT).ok_or_else(|| anyhow!("no grant"))?;
    serde_json::from_str(text).context("the grant is not JSON")
}

/// A relay that has logged in honestly and has shown no certificate yet.
pub fn logged_in(stack: &Stack) -> Result<EvilRelay> {
    EvilRelay::log_in(stack, WEB, stack.open_task(WEB)?)
}

/// A certificate for the relay's key like the one it has, signed by the real CA's key, with changes that the CA would
/// never make.
pub fn forged(stack: &Stack, relay: &EvilRelay, change: impl FnOnce(&mut Forge, &mut Value)) -> Result<String> {
    let mut grant = grant_of(&relay.task.certificate)?;
    let mut forge = stack.honest_forge(WEB, &relay.task.task_id, "");
    change(&mut forge, &mut grant);
    for (name, text) in &mut forge.extensions {
        if name == GRANT && text.is_empty() {
            *text = grant.to_string();
        }
    }
    forge.sign(relay.task.key.public(), &stack.control.task_ca()?)
}

/// A relay whose certificate also grants these actions, whatever the CA thinks of them.
pub fn granted(stack: &Stack, actions: &[&str]) -> Result<EvilRelay> {
    let mut relay = logged_in(stack)?;
    let mut all = vec!["check_health", "read_file", "tail_log"];
    all.extend(actions);
    all.sort_unstable();
    all.dedup();
    let certificate = forged(stack, &relay, |_, grant| grant["actions"] = json!(all))?;
    relay.present(&certificate)?;
    Ok(relay)
}

/// Adds an action to a target's catalogue for as long as the value lives.
pub fn add_action(target: &Target, name: &str, manifest: &str) -> Result<Changed> {
    Changed::write(target.root(), &format!("etc/writ/actions.d/{name}.toml"), manifest)
}

/// An honest call, to show that whatever stopped an attack stops nothing else.
pub fn still_serves(relay: &mut EvilRelay) -> Result<()> {
    let answer = relay.call("tail_log", json!({"path": LOG, "lines": 1}))?;
    let code = harness::evil::code(&answer);
    anyhow::ensure!(code == "none", "an honest call was answered with {code}: {answer}");
    Ok(())
}

/// One attack, by name.
pub struct Attack {
    /// The threat's name.
    pub name: &'static str,
    /// The Code that must stop it.
    pub code: &'static str,
    /// What it leaves behind.
    pub leaves: Leaves,
}

/// Says how a table of attacks ended.
pub fn tell(table: &str, attacks: usize) {
    println!("{table}: {attacks} attacks, {attacks} refused");
}
