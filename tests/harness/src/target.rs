//! A target: its own root, set up by the shipped install steps, behind a real sshd on an address of its own.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde_json::Value;

use crate::ids::{ALICE, EXEC, ROOT, RUNNER, STRANGER, WRIT_LOGS, Who};
use crate::records;
use crate::root::Root;
use crate::spawn::{Running, run, run_ok, wait_for};
use crate::world::World;
use crate::{services, sudo};

/// The program behind the account's ForceCommand, inside a target.
pub const AGENT_EXEC: &str = "/usr/libexec/writ/agent-exec";
/// Where a target keeps its records.
pub const LOG: &str = "/var/log/writ";

const SSHD_CONFIG: &str = include_str!("../sshd_config");

/// How a target's sshd is started.
pub(crate) const SSHD_ARGUMENTS: [&str; 5] = ["-D", "-f", "/etc/ssh/sshd_config", "-E", "/var/log/sshd.log"];

/// Whether the accounts are in `passwd` before the install steps run, with the harness's numbers, or the steps make them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accounts {
    /// The numbers of [`crate::ids`].
    Given,
    /// `useradd` chooses, as on a real host.
    Made,
}

/// A target of the stack.
#[derive(Debug)]
pub struct Target {
    name: String,
    address: SocketAddr,
    root: Root,
    sshd: Option<Running>,
}

impl Target {
    /// Builds the machine with an sshd configuration and nothing of Writ's; nothing runs yet.
    pub fn bare(world: &World, folder: &Path, name: &str, ip: IpAddr, accounts: Accounts) -> Result<Target> {
        let mut people = vec![(STRANGER, "/bin/sh"), (ALICE, "/bin/sh")];
        let mut groups = vec![(STRANGER.name, STRANGER.gid)];
        if accounts == Accounts::Given {
            people.extend([(RUNNER, AGENT_EXEC), (EXEC, "/usr/sbin/nologin")]);
            groups.extend([
                (RUNNER.name, RUNNER.gid),
                (EXEC.name, EXEC.gid),
                ("writ-logs", WRIT_LOGS),
            ]);
        }
        let root = Root::build(world, folder.join(name), name, &people, &groups)?;
        let address = free_port(ip)?;
        let config = SSHD_CONFIG
            .replace("@PORT@", &address.port().to_string())
            .replace("@ADDRESS@", &ip.to_string());
        root.file("etc/ssh/sshd_config", 0o644, config)?;
        root.folder("etc/ssh/sshd_config.d", 0o755, (0, 0))?;
        // As on a Debian with cron and at: the install steps go by these.
        root.file("etc/debian_version", 0o644, "12.0\n")?;
        root.file("etc/at.deny", 0o644, "daemon\n")?;
        sudo::install(&root)?;
        services::lay(&root)?;
        demo_files(&root)?;
        Ok(Target {
            name: name.to_owned(),
            address,
            root,
            sshd: None,
        })
    }

    /// Runs the shipped install steps in it, from a copy of the package that an administrator would have brought.
    pub fn install(&self, world: &World) -> Result<()> {
        let package = world.target_package()?;
        for file in walk(&package)? {
            let inside = Path::new("root/writ").join(file.strip_prefix(&package)?);
            let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&file)?) & 0o777;
            self.root.file(&inside.to_string_lossy(), mode, fs::read(&file)?)?;
        }
        self.as_root("/root/writ/install", &[&self.name, "runit"], b"")?;
        // An administrator would now list the services of this machine, and tell sudo.
        for (name, text) in services::manifests(world, "runit", &services::SERVICES)? {
            self.root.file(&format!("etc/writ/actions.d/{name}"), 0o644, text)?;
        }
        self.as_root("/usr/sbin/writ-target", &["sudoers", "--install"], b"")?;
        // And say where this machine's sshd listens: here that is no port 22.
        let config = fs::read_to_string(self.root.at("etc/writ/target.toml"))?;
        let here = format!("address = \"{}\"\nport = {}\n", self.address.ip(), self.address.port());
        let config = config.replace("address = \"127.0.0.1\"\nport = 22\n", &here);
        self.root.file("etc/writ/target.toml", 0o644, config)
    }

    /// Starts its sshd and waits for the banner.
    pub fn start_sshd(&mut self) -> Result<()> {
        let mut command = self.root.door().command(ROOT, "/usr/sbin/sshd");
        command.args(SSHD_ARGUMENTS);
        let mut sshd = Running::start(&format!("sshd of {}", self.name), command)?;
        let up = wait_for("sshd", Duration::from_secs(10), || {
            sshd.check()?;
            Ok(banner(self.address).is_some())
        });
        up.with_context(|| format!("{} has no sshd: {}", self.name, self.sshd_log()))?;
        self.sshd = Some(sshd);
        Ok(())
    }

    /// Stops its sshd; open connections go on until their peer leaves.
    pub fn stop_sshd(&mut self) {
        self.sshd = None;
    }

    /// The process of its sshd that listens.
    pub fn sshd_pid(&self) -> Option<u32> {
        self.sshd.as_ref().map(Running::pid)
    }

    /// Its name: the principal of its certificates.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where its sshd listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its file system, seen from the harness.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// Its sshd's version, as it says it to everyone.
    pub fn sshd_version(&self) -> Option<String> {
        banner(self.address).map(|line| line.trim_start_matches("SSH-2.0-").to_owned())
    }

    /// What its sshd logged.
    pub fn sshd_log(&self) -> String {
        fs::read(self.root.at("var/log/sshd.log"))
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// A command inside it, in a constant environment.
    pub fn command(&self, who: Who, program: &str) -> Command {
        self.root.door().command(who, program)
    }

    /// Runs a program inside it to its end.
    pub fn run(&self, who: Who, program: &str, arguments: &[&str], input: &[u8]) -> Result<Output> {
        let mut command = self.command(who, program);
        command.args(arguments);
        run(program, command, input, Duration::from_secs(60))
    }

    /// Runs a program inside it as root; it has to succeed. Its standard output.
    pub fn as_root(&self, program: &str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
        let mut command = self.command(ROOT, program);
        command.args(arguments);
        run_ok(&format!("{program} on {}", self.name), command, input)
    }

    /// Its records, oldest first.
    pub fn records(&self) -> Result<Vec<Value>> {
        records::read(&self.root.at(LOG))
    }

    /// Adds an action to its own catalogue.
    pub fn add_action(&self, name: &str, manifest: &str) -> Result<()> {
        self.root
            .file(&format!("etc/writ/actions.d/{name}.toml"), 0o644, manifest)
    }

    /// Adds `[probe.NAME]` tables to its configuration.
    pub(crate) fn add_probes(&self, probes: &str) -> Result<()> {
        let file = "etc/writ/target.toml";
        let config = fs::read_to_string(self.root.at(file))?;
        self.root.file(file, 0o644, format!("{config}\n{probes}"))
    }

    /// The effective configuration of its sshd for a login of `user`, as `sshd -T` prints it.
    pub fn sshd_says(&self, user: &str) -> Result<String> {
        let spec = format!(
            "user={user},host=localhost,addr=127.0.0.1,laddr={},lport={}",
            self.address.ip(),
            self.address.port()
        );
        let text = self.as_root(
            "/usr/sbin/sshd",
            &["-T", "-f", "/etc/ssh/sshd_config", "-C", &spec],
            b"",
        )?;
        Ok(String::from_utf8(text)?)
    }
}

/// What a machine would have: a log worth reading, and folders beside it that no action may reach.
fn demo_files(root: &Root) -> Result<()> {
    root.folder("var/log/shop", 0o755, (0, 0))?;
    let mut log = String::new();
    for n in 1..=400 {
        let status = if n % 97 == 0 { "503 upstream timed out" } else { "200" };
        log.push_str(&format!(
            "2026-01-01T10:{:02}:{:02}Z GET /cart/{n} {status}\n",
            n / 60 % 60,
            n % 60
        ));
    }
    root.file("var/log/shop/web.log", 0o644, log)?;
    root.file("var/log/shop/private.log", 0o600, "root's own\n")?;
    symlink("/etc/shadow", root.at("var/log/shop/link.log")).context("failed to make a link")
}

pub(crate) fn free_port(ip: IpAddr) -> Result<SocketAddr> {
    let listener = TcpListener::bind((ip, 0)).with_context(|| format!("failed to listen on {ip}"))?;
    Ok(listener.local_addr()?)
}

/// The first line that a server says.
fn banner(address: SocketAddr) -> Option<String> {
    use std::io::{BufRead as _, BufReader, Read as _};
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(1)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(2))).ok()?;
    let mut line = String::new();
    BufReader::new(stream.take(255)).read_line(&mut line).ok()?;
    line.starts_with("SSH-").then(|| line.trim_end().to_owned())
}

fn walk(folder: &Path) -> Result<Vec<std::path::PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|error| anyhow!("failed to read {}: {error}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(walk(&entry.path())?)
        } else {
            files.push(entry.path())
        }
    }
    Ok(files)
}
