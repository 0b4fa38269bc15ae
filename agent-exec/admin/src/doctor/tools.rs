//! The programs that doctor asks, each by its absolute path and in an empty environment: no search path is believed.

use std::fs::{Metadata, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::OFlag;

use super::MAX_BYTES;

pub(super) const SSHD: &str = "/usr/sbin/sshd";
pub(super) const SSH_KEYGEN: &str = "/usr/bin/ssh-keygen";
pub(super) const SUDO: &str = "/usr/bin/sudo";
pub(super) const SYSTEMCTL: &str = "/usr/bin/systemctl";
pub(super) const LS: &str = "/bin/ls";

/// Longest complaint that is repeated, in characters.
const MAX_COMPLAINT: usize = 300;

/// What a program said.
#[derive(Debug, Clone)]
pub(super) struct Ran {
    pub(super) ok: bool,
    pub(super) stdout: String,
    pub(super) stderr: String,
}

impl Ran {
    /// What it complained about, on one line.
    pub(super) fn complaint(&self) -> String {
        let said = if self.stderr.trim().is_empty() {
            &self.stdout
        } else {
            &self.stderr
        };
        let lines: Vec<&str> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
        lines.join("; ").chars().take(MAX_COMPLAINT).collect()
    }
}

/// Runs a program to its end.
pub(super) fn run(program: &str, arguments: &[&str]) -> Result<Ran, String> {
    let output = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("LC_ALL", "C")
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("failed to run {program}: {error}"))?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Ran {
        ok: output.status.success(),
        stdout: text(&output.stdout),
        stderr: text(&output.stderr),
    })
}

/// What is at a path, links not followed; `None` if nothing is.
pub(super) fn at(path: &Path) -> Result<Option<Metadata>, String> {
    absent(std::fs::symlink_metadata(path)).map_err(|error| format!("failed to look at {}: {error}", path.display()))
}

/// The text of a file; `None` if it is not there. Other accounts may have put it there: it is not waited for.
pub(super) fn read(path: &Path) -> Result<Option<String>, String> {
    let failed = |error: std::io::Error| format!("failed to read {}: {error}", path.display());
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
    let open = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let Some(file) = absent(open).map_err(failed)? else {
        return Ok(None);
    };
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() || about.len() > MAX_BYTES {
        return Err(format!(
            "{} is not a regular file of at most {MAX_BYTES} bytes",
            path.display()
        ));
    }
    let mut bytes = Vec::new();
    file.take(MAX_BYTES).read_to_end(&mut bytes).map_err(failed)?;
    Ok(Some(String::from_utf8_lossy(&bytes).into_owned()))
}

fn absent<T>(result: std::io::Result<T>) -> std::io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
        Err(error) => Err(error),
    }
}
