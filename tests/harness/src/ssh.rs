//! OpenSSH's own client against a target: the way in for everyone who does not go through the relay, attackers first.

use std::fs::{self, Permissions};
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use openssh::key::SigningKey;
use serde_json::Value;

use crate::spawn::{Running, run};
use crate::target::Target;

/// The constant that the relay asks a target to execute.
pub const EXEC: &str = "writ.v1";

/// Key and certificate in files that OpenSSH's client reads, and how it knows the target.
#[derive(Debug)]
pub struct Login {
    folder: PathBuf,
}

impl Login {
    /// Writes them below `folder`; `known_hosts` is the content of that file.
    pub fn new(folder: &Path, key: &SigningKey, certificate: &str, known_hosts: &str) -> Result<Login> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let folder = folder.join(format!("login-{}", NEXT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
        for (name, text) in [
            ("key", key.to_openssh()?.as_str()),
            ("key.pub", &key.public().to_openssh()),
            ("key-cert.pub", certificate),
            ("known_hosts", known_hosts),
        ] {
            fs::write(folder.join(name), format!("{}\n", text.trim_end()))?;
            fs::set_permissions(folder.join(name), Permissions::from_mode(0o600))?;
        }
        Ok(Login { folder })
    }

    /// The certificate's file, for `ssh-keygen -L -f`.
    pub fn certificate_file(&self) -> PathBuf {
        self.folder.join("key-cert.pub")
    }

    /// `ssh` as agent-runner to this target. `options` stand before the target (`-A`, `-o…`), `words` after it.
    pub fn ssh(&self, target: &Target, options: &[&str], words: &[&str]) -> Command {
        let mut command = Command::new("ssh");
        command.args([
            "-F",
            "none",
            "-o",
            "BatchMode=yes",
            "-o",
            "IdentitiesOnly=yes",
            "-o",
            "ConnectTimeout=10",
        ]);
        command.args([
            "-o",
            "StrictHostKeyChecking=yes",
            "-o",
            "GlobalKnownHostsFile=none",
            "-o",
            "LogLevel=VERBOSE",
        ]);
        command.arg("-o").arg(format!(
            "UserKnownHostsFile={}",
            self.folder.join("known_hosts").display()
        ));
        command
            .arg("-o")
            .arg(format!("CertificateFile={}", self.certificate_file().display()));
        command.arg("-o").arg(format!("HostKeyAlias={}", target.name()));
        command.arg("-i").arg(self.folder.join("key"));
        command.args(options);
        command.args(["-p", &target.address().port().to_string()]);
        command.arg(format!("agent-runner@{}", target.address().ip()));
        command.args(words);
        command
    }

    /// Runs `ssh` to its end with this input.
    pub fn run(&self, target: &Target, options: &[&str], words: &[&str], input: &[u8]) -> Result<Output> {
        run("ssh", self.ssh(target, options, words), input, Duration::from_secs(30))
    }

    /// Opens the channel that the relay would open and leaves the lines to the caller.
    pub fn session(&self, target: &Target) -> Result<Session> {
        Session::over(self.ssh(target, &["-T"], &[EXEC]))
    }
}

/// The lines of one channel to agent-exec, raw: nothing is checked and nothing is added.
#[derive(Debug)]
pub struct Session {
    process: Running,
    input: Option<ChildStdin>,
    lines: Receiver<Vec<u8>>,
    errors: Arc<Mutex<String>>,
}

impl Session {
    /// Speaks with any command that reads and writes lines.
    pub fn over(mut command: Command) -> Result<Session> {
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut process = Running::start("session", command)?;
        let child = &mut process.child;
        let (Some(input), Some(output), Some(mut stderr)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            bail!("the session has no pipes");
        };
        let (send, lines) = channel();
        thread::spawn(move || {
            let mut output = BufReader::new(output);
            let mut line = Vec::new();
            while output.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0)
                && send.send(std::mem::take(&mut line)).is_ok()
            {}
        });
        let errors = Arc::new(Mutex::new(String::new()));
        let sink = Arc::clone(&errors);
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(bytes @ 1..) = stderr.read(&mut buffer) {
                let text = String::from_utf8_lossy(buffer.get(..bytes).unwrap_or_default()).into_owned();
                sink.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
            }
        });
        Ok(Session {
            process,
            input: Some(input),
            lines,
            errors,
        })
    }

    /// Sends these bytes and a newline.
    pub fn send(&mut self, line: impl AsRef<[u8]>) -> Result<()> {
        self.send_raw(line)?;
        self.send_raw(b"\n")
    }

    /// Sends exactly these bytes.
    pub fn send_raw(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        let Some(input) = &mut self.input else {
            bail!("the session's input is closed")
        };
        input
            .write_all(bytes.as_ref())
            .and_then(|()| input.flush())
            .context("failed to send to the session")
    }

    /// Closes the sending half.
    pub fn finish(&mut self) {
        self.input = None;
    }

    /// Kills the client: the connection is gone, without a word.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// The next line with its newline; `None` where the other end closed. Nothing within `limit` is an error.
    pub fn raw_line(&self, limit: Duration) -> Result<Option<Vec<u8>>> {
        match self.lines.recv_timeout(limit) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => bail!("no line within {} ms", limit.as_millis()),
        }
    }

    /// The next line as JSON, within 10 s.
    pub fn line(&self) -> Result<Value> {
        self.line_within(Duration::from_secs(10))
    }

    /// The next line as JSON, within `limit`.
    pub fn line_within(&self, limit: Duration) -> Result<Value> {
        match self.raw_line(limit)? {
            Some(line) => {
                serde_json::from_slice(&line).with_context(|| format!("not JSON: {}", String::from_utf8_lossy(&line)))
            }
            None => bail!("the session ended: {}", self.errors()),
        }
    }

    /// Whether nothing comes for this long. A closed session is not quiet but over: an error.
    pub fn is_quiet(&self, time: Duration) -> Result<bool> {
        match self.lines.recv_timeout(time) {
            Err(RecvTimeoutError::Timeout) => Ok(true),
            Ok(_) => Ok(false),
            Err(RecvTimeoutError::Disconnected) => bail!("the session ended: {}", self.errors()),
        }
    }

    /// What the client's standard error held so far.
    pub fn errors(&self) -> String {
        self.errors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the client still runs.
    pub fn is_open(&mut self) -> bool {
        self.process.check().is_ok()
    }
}
