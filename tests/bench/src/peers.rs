//! Others that do the same job, on the same sshd: an account with dash, logged in with a bare key, and no check or record of
//! what is run. They are installed below the build's folder (`peers/install`); one that is not there has no rows.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::spawn::{Running, wait_for};
use harness::{STRANGER, Session};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::net::QUICK;
use crate::sample::{End, Run};
use crate::session::ended;
use crate::site::{FILE, LINES, Site, TAIL_BYTES, WEB};

const KEPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/peers/kept.py");

/// What each of them runs.
fn command() -> String {
    format!("tail -n {LINES} {FILE}")
}

/// The floor: the program itself, here and with nothing around it, by posix_spawn.
pub fn tail(site: &Site) -> Result<Run> {
    let mut command = Command::new("/usr/bin/tail");
    command
        .args(["-n", &LINES.to_string()])
        .arg(site.stack.target(WEB)?.root().at(FILE))
        .stdin(Stdio::null());
    ended(command, End::fine(TAIL_BYTES))
}

/// OpenSSH's client, with the key of the plain account.
fn ssh(site: &Site) -> Result<Command> {
    let address = site.stack.target(WEB)?.address();
    let mut command = Command::new("ssh");
    command
        .args(["-F", "none", "-T", "-i"])
        .arg(&site.key)
        .stdin(Stdio::null());
    for option in [
        "BatchMode=yes",
        "IdentitiesOnly=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "GlobalKnownHostsFile=none",
        "LogLevel=ERROR",
        "KexAlgorithms=curve25519-sha256",
    ] {
        command.args(["-o", option]);
    }
    command.args(["-l", STRANGER.name, "-p", &address.port().to_string()]);
    command.arg(address.ip().to_string());
    Ok(command)
}

/// A new connection for each run.
pub fn ssh_cold(site: &Site) -> Result<Run> {
    let mut ssh = ssh(site)?;
    ssh.arg(command());
    ended(ssh, End::fine(TAIL_BYTES))
}

/// A connection that is kept by a master, and a client for each run.
pub struct Master {
    _master: Running,
    socket: PathBuf,
}

impl Master {
    /// Connects.
    pub fn start(site: &Site) -> Result<Master> {
        let socket = site.stack.folder().join("mux");
        let mut command = ssh(site)?;
        command.args(["-M", "-N", "-S"]).arg(&socket);
        let mut master = Running::start("ssh -M", command)?;
        wait_for("the master's socket", Duration::from_secs(10), || {
            master.check()?;
            Ok(socket.exists())
        })?;
        Ok(Master {
            _master: master,
            socket,
        })
    }

    /// One run.
    pub fn run(&self, site: &Site) -> Result<Run> {
        let mut ssh = ssh(site)?;
        ssh.arg("-S").arg(&self.socket).arg(command());
        ended(ssh, End::fine(TAIL_BYTES))
    }
}

/// asyncssh, in a Python of its own that times itself: what it costs to tell it so is not in its figures.
pub struct Asyncssh(Session);

#[derive(Deserialize)]
struct Kept {
    ms: f64,
    bytes: u64,
    exit: Option<i32>,
}

impl Asyncssh {
    /// Starts it; it connects at once.
    pub fn start(site: &Site) -> Result<Asyncssh> {
        let address = site.stack.target(WEB)?.address();
        let mut python = Command::new(installed(site, "python/bin/python")?);
        python
            .arg(KEPT)
            .arg(address.ip().to_string())
            .arg(address.port().to_string());
        python.arg(STRANGER.name).arg(&site.key).arg(command());
        Ok(Asyncssh(Session::over(python)?))
    }

    /// One run, on the kept connection (`warm`) or on a new one (`cold`).
    pub fn run(&mut self, how: &str) -> Result<Run> {
        self.0.send(how)?;
        let Kept { ms, bytes, exit } = serde_json::from_value(self.0.line()?)?;
        Ok(Run::new(ms, End { bytes, exit }.is(End::fine(TAIL_BYTES))))
    }
}

/// How ansible connects.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Connects {
    /// Anew for each run.
    EachTime,
    /// Once: the connection is kept by a master of OpenSSH's, and modules are sent through it without a file (pipelining).
    Once,
}

/// ansible's `command` module, a new process for each run, as people start it.
pub struct Ansible {
    program: PathBuf,
    home: PathBuf,
    connects: Connects,
}

impl Ansible {
    /// What it prints before the output.
    const HEAD: &str = "web | CHANGED | rc=0 >>\n";

    /// Writes its inventory.
    pub fn new(site: &Site, connects: Connects) -> Result<Ansible> {
        let address = site.stack.target(WEB)?.address();
        let program = installed(site, "python/bin/ansible")?;
        let home = site.stack.folder().join(format!("ansible-{}", connects as u8));
        std::fs::create_dir_all(&home)?;
        let host = format!(
            "web ansible_host={} ansible_port={} ansible_user={} ansible_ssh_private_key_file={} \
             ansible_python_interpreter=auto_silent\n",
            address.ip(),
            address.port(),
            STRANGER.name,
            site.key.display()
        );
        std::fs::write(home.join("hosts"), host)?;
        std::fs::write(home.join("ansible.cfg"), "")?;
        Ok(Ansible {
            program,
            home,
            connects,
        })
    }

    /// One run.
    pub fn run(&self) -> Result<Run> {
        let (master, pipelining) = match self.connects {
            Connects::EachTime => ("ControlMaster=no", "False"),
            Connects::Once => ("ControlMaster=auto -o ControlPersist=600", "True"),
        };
        let mut ansible = Command::new(&self.program);
        ansible.args(["web", "-m", "command", "-a", &command(), "-i"]);
        ansible.arg(self.home.join("hosts")).stdin(Stdio::null());
        ansible
            .env("HOME", &self.home)
            .env("ANSIBLE_CONFIG", self.home.join("ansible.cfg"))
            .env("ANSIBLE_HOST_KEY_CHECKING", "False")
            .env("ANSIBLE_PIPELINING", pipelining)
            .env("ANSIBLE_REMOTE_TMP", "/tmp/.ansible")
            .env("ANSIBLE_SSH_CONTROL_PATH", self.home.join("master"))
            .env(
                "ANSIBLE_SSH_ARGS",
                format!("-F none -o UserKnownHostsFile=/dev/null -o KexAlgorithms=curve25519-sha256 -o {master}"),
            );
        ended(ansible, End::fine(Self::HEAD.len() as u64 + TAIL_BYTES))
    }
}

/// Whether ssh-mcp goes to sshd's usual address, or to the one with quick ACKs.
#[derive(Clone, Copy)]
pub enum Acks {
    /// As the machine sends them.
    Usual,
    /// At once.
    Quick,
}

/// How ssh-mcp is started: an MCP server over SSH, in Node, configured to run anything without asking.
pub struct SshMcp {
    program: PathBuf,
    config: PathBuf,
    home: PathBuf,
}

impl SshMcp {
    /// Writes its configuration.
    pub fn new(site: &Site, acks: Acks) -> Result<SshMcp> {
        let address = site.stack.target(WEB)?.address();
        let (name, host) = match acks {
            Acks::Usual => ("usual", address.ip().to_string()),
            Acks::Quick => ("quick", QUICK.to_owned()),
        };
        let home = site.stack.folder().join(format!("ssh-mcp-{name}"));
        std::fs::create_dir_all(&home)?;
        std::fs::set_permissions(&home, std::fs::Permissions::from_mode(0o700))?;
        let config = home.join("config.toml");
        let text = format!(
            "[defaults]\ndefaultProfile = \"web\"\n\n[[profiles]]\nname = \"web\"\nhost = \"{host}\"\nport = {}\nuser = \"{}\"\n\
             auth = \"key\"\nkeyRef = \"{}\"\nrole = \"admin\"\napprovalPolicy = \"auto\"\n",
            address.port(),
            STRANGER.name,
            site.key.display()
        );
        std::fs::write(&config, text)?;
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600))?;
        let program = installed(site, "ssh-mcp/node_modules/ssh-mcp/build/index.js")?;
        Ok(SshMcp { program, config, home })
    }

    /// The command that an MCP client starts.
    pub fn command(&self) -> Command {
        let mut node = Command::new("node");
        node.arg(&self.program)
            .arg(format!("--config={}", self.config.display()))
            .arg("--hostKeyMode=insecure");
        node.env("HOME", &self.home)
            .env_remove("XDG_CONFIG_HOME")
            .env_remove("SSH_AUTH_SOCK");
        node
    }

    /// What its tool is asked.
    pub fn arguments() -> (&'static str, Value) {
        ("read-command", json!({"command": command()}))
    }
}

/// A program of a peer, where it was installed.
fn installed(site: &Site, program: &str) -> Result<PathBuf> {
    let stack = site.stack.world().program("writ-relay")?;
    let out = stack
        .parent()
        .and_then(Path::parent)
        .context("the stack lies in a folder")?;
    let path = out.join("peers").join(program);
    ensure!(path.exists(), "{} was not installed", path.display());
    Ok(path)
}
