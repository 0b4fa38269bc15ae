//! Programs that try many things and say of each what came of it: `NAME ok`, or `NAME` and an errno.

use anyhow::{Result, bail, ensure};
use harness::{RUNNER, Target};
use nix::libc;

/// The beginning of such a program: `try(NAME, whether it worked)`, and `call(NAME, system call…)`.
pub const TRY: &str = "$| = 1; sub try { print $_[0], ' ', $_[1] ? 'ok' : $!+0, \"\\n\" } \
                       sub call { my ($name, @call) = @_; try($name, syscall(shift @call, @call) != -1) }";

/// How many things were tried: at least one, and each was refused for want of a right, not because nothing was there.
pub fn all_refused(said: &str) -> Result<usize> {
    ensure!(!said.is_empty(), "nothing was tried");
    for line in said.lines() {
        match line.rsplit(' ').next().and_then(|errno| errno.parse().ok()) {
            Some(libc::EPERM | libc::EACCES) => {}
            _ => bail!("not refused: {line}"),
        }
    }
    Ok(said.lines().count())
}

/// Runs such a program as the account of the actions, by hand: ids and modes are all that stands in its way.
pub fn by_hand(target: &Target, program: &str) -> Result<usize> {
    let output = target.run(RUNNER, "/usr/bin/perl", &["-e", program], b"")?;
    ensure!(output.status.success(), "{output:?}");
    all_refused(&String::from_utf8(output.stdout)?)
}
