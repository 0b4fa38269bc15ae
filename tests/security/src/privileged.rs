//! Actions that run as root on a target: their programs are one-liners of perl in files of root's, listed in sudoers by the
//! shipped command.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{Changed, EvilRelay, ROOT, Stack, Target};
use serde_json::{Map, Value};

use crate::{WEB, add_action, changes};

/// Where the target keeps what sudo may run for Writ.
pub const SUDOERS: &str = "etc/sudoers.d/writ";

/// A privileged action of this name, for as long as this lives.
pub struct Privileged {
    name: String,
    // In this order they go: the action, its program, and last the list that was there.
    _action: Changed,
    _program: Changed,
    _sudoers: Changed,
}

/// Where such an action's program lies.
pub fn program_of(name: &str) -> String {
    format!("/usr/libexec/{name}.pl")
}

/// The manifest: perl runs the program's file with one word, out of two. `more` is put before `[args]`.
pub fn manifest(name: &str, timeout: Duration, more: &str) -> String {
    let (program, timeout) = (program_of(name), timeout.as_millis());
    format!(
        "name = \"{name}\"\ntitle = \"As root\"\ndescription = \"Does something as root.\"\nrisk = \"change\"\n\
         timeout_ms = {timeout}\nprivilege = \"sudo\"\n{more}\n[args]\n\
         properties.word = {{ type = \"string\", enum = [\"one\", \"two\"], default = \"one\" }}\n\
         [exec]\nprogram = \"/usr/bin/perl\"\nargv = [\"{program}\", \"{{word}}\"]\n"
    )
}

impl Privileged {
    /// Adds it to the target: program, manifest, and the list that sudo goes by.
    pub fn new(target: &Target, name: &str, perl: &str, timeout: Duration, more: &str) -> Result<Privileged> {
        let sudoers = Changed::keep(target.root(), SUDOERS)?;
        let program = Changed::write(target.root(), program_of(name).trim_start_matches('/'), perl)?;
        let action = add_action(target, name, &manifest(name, timeout, more))?;
        list(target)?;
        Ok(Privileged {
            name: name.to_owned(),
            _action: action,
            _program: program,
            _sudoers: sudoers,
        })
    }

    /// An honest payload for it.
    pub fn payload(&self, relay: &EvilRelay, args: Value) -> Map<String, Value> {
        relay.payload(&self.name, args)
    }
}

/// As an administrator does after a change of the catalogue.
pub fn list(target: &Target) -> Result<()> {
    let output = target.run(ROOT, "/usr/sbin/writ-target", &["sudoers", "--install"], b"")?;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// A live task on the target.
pub fn relay(stack: &Stack) -> Result<EvilRelay> {
    EvilRelay::start(stack, WEB)
}

/// Runs it under an honest certificate; its answer.
pub fn carry_out(stack: &Stack, relay: &mut EvilRelay, payload: &Map<String, Value>) -> Result<Value> {
    changes::carry_out(stack, relay, payload)
}
