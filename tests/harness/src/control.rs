//! The control host: CA, relay and the accounts of the people whose clients talk to the relay, in a root of their own.

use std::fs::{self, File};
use std::net::Ipv4Addr;
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use openssh::key::SigningKey;
use serde_json::Value;

use crate::ids::{ALICE, BOB, CA, RELAY, STRANGER, WRIT_LOGS, WRIT_USERS, Who};
use crate::records;
use crate::root::Root;
use crate::services;
use crate::spawn::{Running, run, run_ok, wait_for};
use crate::target::{Target, free_port};
use crate::world::World;

/// Where the CA keeps its records.
pub const CA_LOG: &str = "/var/log/writ-ca";
/// Where the relay keeps its records.
pub const RELAY_LOG: &str = "/var/log/writ-relay";
/// The relay's socket.
pub const RELAY_SOCKET: &str = "/run/writ-relay/relay.sock";
/// The CA's socket.
pub const CA_SOCKET: &str = "/run/writ-ca/ca.sock";

/// The shipped examples are the configuration: what is documented is what is tested.
const CA_TOML: &str = include_str!("../../../deploy/ca/ca.toml");
pub(crate) const POLICY: &str = include_str!("../../../deploy/ca/policy.cedar");
const RELAY_TOML: &str = include_str!("../../../deploy/relay/relay.toml");

/// How the relay reaches the CA.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WayToCa {
    /// As on one machine: a unix socket, and the kernel says who calls.
    Socket,
    /// As between two: TLS, and keys say who calls.
    Tls,
}

/// The relay's public keys, at the CA.
pub const RELAY_KEYS: &str = "/etc/writ/relay-1.pub";
/// The CA's public keys, at the relay.
pub const CA_KEYS: &str = "/etc/writ/ca_tls.pub";
/// The CA's own key.
pub const CA_TLS: &str = "/var/lib/writ-ca/keys/tls";
/// The relay's own key.
pub const RELAY_TLS: &str = "/var/lib/writ-relay/tls";

/// CA and relay.
#[derive(Debug)]
pub struct Control {
    root: Root,
    errors: PathBuf,
    ca: Option<Running>,
    relay: Option<Running>,
}

impl Control {
    /// Builds the machine and initialises the CA; nothing runs yet.
    pub(crate) fn build(
        world: &World,
        folder: &Path,
        task_lifetime_s: u32,
        policy: Option<&str>,
        way: WayToCa,
    ) -> Result<Control> {
        let nologin = "/usr/sbin/nologin";
        let people = [
            (CA, nologin),
            (RELAY, nologin),
            (ALICE, "/bin/sh"),
            (BOB, "/bin/sh"),
            (STRANGER, "/bin/sh"),
        ];
        let groups = [
            ("writ-logs", WRIT_LOGS),
            (CA.name, CA.gid),
            (RELAY.name, RELAY.gid),
            ("writ-users", WRIT_USERS),
            (STRANGER.name, STRANGER.gid),
        ];
        let root = Root::build(world, folder.join("control"), "control", &people, &groups)?;
        for program in ["writ-ca", "writ-relay", "writ-audit"] {
            root.bind_program(&world.program(program)?, &format!("usr/sbin/{program}"))?;
        }
        root.bind_program(&world.program("harness")?, "usr/libexec/harness")?;
        let actions = world.target_package()?.join("actions.d");
        for entry in fs::read_dir(&actions).with_context(|| format!("failed to read {}", actions.display()))? {
            let entry = entry?;
            root.file(
                &format!("usr/share/writ/actions.d/{}", entry.file_name().display()),
                0o644,
                fs::read(entry.path())?,
            )?;
        }
        // The services that targets let be restarted are listed here in the same bytes.
        for (name, text) in services::manifests(world, "runit", &services::SERVICES)? {
            root.file(&format!("usr/share/writ/actions.d/{name}"), 0o644, text)?;
        }
        for (who, socket_group) in [(CA, CA.gid), (RELAY, WRIT_USERS)] {
            let Who { name, uid, gid, .. } = who;
            root.folder(&format!("run/{name}"), 0o2750, (uid, socket_group))?;
            root.folder(&format!("var/lib/{name}"), 0o700, (uid, gid))?;
            root.folder(&format!("var/log/{name}"), 0o2750, (uid, WRIT_LOGS))?;
        }
        let ca_toml = CA_TOML.replace("task_lifetime_s = 300", &format!("task_lifetime_s = {task_lifetime_s}"));
        let ca_toml = unlimited(&ca_toml);
        root.file("etc/writ/ca.toml", 0o644, ca_toml)?;
        root.file("etc/writ/policy.cedar", 0o644, policy.unwrap_or(POLICY))?;
        let bob = format!("\n[[person]]\nuid = {}\nname = \"bob\"\n", BOB.uid);
        let relay_toml = unlimited(RELAY_TOML);
        root.file("etc/writ/relay.toml", 0o644, relay_toml + &bob)?;
        root.file("etc/writ/inventory.toml", 0o644, "")?;
        let control = Control {
            root,
            errors: folder.to_owned(),
            ca: None,
            relay: None,
        };
        let keys = String::from_utf8(control.run_ok(CA, "writ-ca", &["init"], b"")?)?;
        if way == WayToCa::Tls {
            control.part(&keys)?;
        }
        Ok(control)
    }

    /// Makes two machines of it as far as relay and CA can tell, by the steps of deploy/ca/README.md. `keys` is what
    /// `writ-ca init` printed.
    fn part(&self, keys: &str) -> Result<()> {
        let listen = free_port(Ipv4Addr::LOCALHOST.into())?;
        self.edit(
            "etc/writ/ca.toml",
            &[
                (
                    "# tls_listen = \"192.0.2.1:7443\"",
                    &format!("tls_listen = \"{listen}\""),
                ),
                ("uid = 64110 ", "# "),
                ("# tls_keys = ", "tls_keys = "),
            ],
        )?;
        self.edit(
            "etc/writ/relay.toml",
            &[
                ("ca = \"unix:/run/writ-ca/ca.sock\"\n", ""),
                ("# ca = \"tls:ca.example:7443\"", &format!("ca = \"tls:{listen}\"")),
                ("# ca_keys = ", "ca_keys = "),
            ],
        )?;
        let own = keys
            .lines()
            .find(|line| line.ends_with(" tls"))
            .context("no key for TLS")?;
        self.root.file(CA_KEYS, 0o644, format!("{own}\n"))?;
        // The CA does not know the relay yet, and the fault says by which key it should.
        let said = self.run(RELAY, "writ-relay", &["check-config"], b"")?;
        let said = String::from_utf8_lossy(&said.stderr).into_owned();
        let own = said.split(" there: ").nth(1).with_context(|| said.clone())?;
        self.root.file(RELAY_KEYS, 0o644, own)
    }

    fn edit(&self, file: &str, changes: &[(&str, &str)]) -> Result<()> {
        let mut text = fs::read_to_string(self.root.at(file))?;
        for (from, to) in changes {
            anyhow::ensure!(text.matches(from).count() == 1, "{from} is not once in {file}");
            text = text.replace(from, to);
        }
        self.root.file(file, 0o644, text)
    }

    /// Puts a file in place of another as an administrator does while it is read: written beside, and moved.
    pub fn replace(&self, file: &str, mode: u32, who: Who, contents: &str) -> Result<()> {
        let next = format!("{file}.next");
        self.root.file_of(&next, mode, (who.uid, who.gid), contents)?;
        fs::rename(self.root.at(&next), self.root.at(file)).with_context(|| format!("failed to replace {file}"))
    }

    /// Enrols a target as an administrator would: three commands, each one's output the next one's input.
    pub(crate) fn enroll(&self, target: &Target) -> Result<()> {
        let line = target.as_root("/usr/sbin/writ-target", &["enroll"], b"")?;
        let address = target.address().to_string();
        let mut ca = self.command(CA, "/usr/sbin/writ-ca");
        ca.args(["enroll", "--address", &address, "--label", "env=demo"]);
        let signed = run("writ-ca enroll", ca, &line, Duration::from_secs(30))?;
        anyhow::ensure!(
            signed.status.success(),
            "writ-ca enroll failed: {}",
            String::from_utf8_lossy(&signed.stderr)
        );
        target.as_root("/usr/sbin/writ-target", &["enroll", "--accept"], &signed.stdout)?;
        target.as_root("/root/writ/install", &["--host-certificate"], b"")?;
        // The CA's own inventory is what it printed for relays and auditors, of all targets.
        let inventory =
            fs::read(self.root.at("var/lib/writ-ca/inventory.toml")).context("the CA keeps no inventory")?;
        self.root.file("etc/writ/inventory.toml", 0o644, inventory)
    }

    /// Adds an action to the copy of the catalogue that the relay and the CA read when they start.
    pub(crate) fn add_action(&self, name: &str, manifest: &str) -> Result<()> {
        self.root
            .file(&format!("usr/share/writ/actions.d/{name}.toml"), 0o644, manifest)
    }

    /// Sends the relay to another address for a target, as a network would: its name, keys and inventory stay.
    pub fn reroute(&mut self, target: &Target, address: &str) -> Result<()> {
        let path = "etc/writ/inventory.toml";
        let inventory = fs::read_to_string(self.root.at(path))?;
        let rerouted = inventory.replace(&format!("\"{}\"", target.address()), &format!("\"{address}\""));
        anyhow::ensure!(rerouted != inventory, "{} is not in {inventory}", target.address());
        self.root.file(path, 0o644, rerouted)?;
        self.stop_relay();
        self.start_relay()
    }

    /// Starts the CA and waits for its socket.
    pub fn start_ca(&mut self) -> Result<()> {
        self.ca = Some(self.daemon(CA, "writ-ca", CA_SOCKET)?);
        Ok(())
    }

    /// Starts the relay and waits for its socket.
    pub fn start_relay(&mut self) -> Result<()> {
        self.relay = Some(self.daemon(RELAY, "writ-relay", RELAY_SOCKET)?);
        Ok(())
    }

    /// Kills the CA.
    pub fn stop_ca(&mut self) {
        self.ca = None;
    }

    /// Kills the relay.
    pub fn stop_relay(&mut self) {
        self.relay = None;
    }

    /// The relay's and the CA's process, to signal them or to look at them.
    pub fn pids(&self) -> (Option<u32>, Option<u32>) {
        (
            self.relay.as_ref().map(Running::pid),
            self.ca.as_ref().map(Running::pid),
        )
    }

    /// Fails where the CA or the relay has ended.
    pub fn check(&mut self) -> Result<()> {
        for (process, name) in [(&mut self.ca, "writ-ca"), (&mut self.relay, "writ-relay")] {
            if let Some(process) = process {
                process
                    .check()
                    .with_context(|| fs::read_to_string(self.errors.join(format!("{name}.err"))).unwrap_or_default())?;
            }
        }
        Ok(())
    }

    /// What the relay (`writ-relay`) or the CA (`writ-ca`) wrote to its standard error.
    pub fn errors_of(&self, name: &str) -> String {
        fs::read_to_string(self.errors.join(format!("{name}.err"))).unwrap_or_default()
    }

    /// Its file system, seen from the harness.
    pub fn root(&self) -> &Root {
        &self.root
    }

    /// A command inside it, in a constant environment. A name without a slash is one of ours.
    pub fn command(&self, who: Who, program: &str) -> Command {
        if program.contains('/') {
            return self.root.door().command(who, program);
        }
        self.root.door().command(who, &format!("/usr/sbin/{program}"))
    }

    /// Runs a program inside it to its end.
    pub fn run(&self, who: Who, program: &str, arguments: &[&str], input: &[u8]) -> Result<Output> {
        let mut command = self.command(who, program);
        command.args(arguments);
        run(program, command, input, Duration::from_secs(60))
    }

    /// Runs a program inside it that has to succeed; its standard output.
    pub fn run_ok(&self, who: Who, program: &str, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>> {
        let mut command = self.command(who, program);
        command.args(arguments);
        run_ok(&format!("{program} {}", arguments.join(" ")), command, input)
    }

    /// The relay's records, oldest first.
    pub fn records_relay(&self) -> Result<Vec<Value>> {
        records::read(&self.root.at(RELAY_LOG))
    }

    /// The CA's records, oldest first.
    pub fn records_ca(&self) -> Result<Vec<Value>> {
        records::read(&self.root.at(CA_LOG))
    }

    /// The key that signs task certificates: what an attacker has who took the CA. Everything short of that is below it.
    pub fn task_ca(&self) -> Result<SigningKey> {
        self.key("task_ca")
    }

    /// The public key of the CA that signs host keys, in OpenSSH's text.
    pub fn host_ca(&self) -> Result<String> {
        Ok(self.key("host_ca")?.public().to_openssh())
    }

    fn key(&self, name: &str) -> Result<SigningKey> {
        let path = self.root.at("var/lib/writ-ca/keys").join(name);
        let text = fs::read_to_string(&path).with_context(|| format!("failed to read {}", path.display()))?;
        Ok(SigningKey::from_openssh(&text)?)
    }

    fn daemon(&self, who: Who, name: &str, socket: &str) -> Result<Running> {
        let errors = File::options()
            .create(true)
            .append(true)
            .open(self.errors.join(format!("{name}.err")))?;
        let socket = self.root.at(socket);
        // Left behind by a killed one; a socket file that is there must be the new process's.
        let _ = fs::remove_file(&socket);
        let mut command = self.command(who, name);
        command
            .arg("serve")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors);
        let mut process = Running::start(name, command)?;
        let up = wait_for(name, Duration::from_secs(20), || {
            process.check()?;
            Ok(connect(&socket).is_ok())
        });
        up.with_context(|| format!("{name} did not start: {}", self.errors_of(name)))?;
        Ok(process)
    }
}

/// Connects to a unix socket whose path may be longer than the 107 bytes that an address holds.
pub(crate) fn connect(socket: &Path) -> std::io::Result<UnixStream> {
    let (Some(folder), Some(name)) = (socket.parent(), socket.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let folder = File::open(folder)?;
    UnixStream::connect(
        Path::new("/proc/self/fd")
            .join(folder.as_raw_fd().to_string())
            .join(name),
    )
}

/// A configuration with rates that nobody meets. Tests and benches call faster than people work; what the rates do is shown
/// by the tests of the relay and of the CA.
fn unlimited(toml: &str) -> String {
    let line = |line: &str| match line.split_once(" = ") {
        Some((key, _)) if key.contains("_per_minute") || key.contains("_burst_") => format!("{key} = 1_000_000\n"),
        _ => format!("{line}\n"),
    };
    toml.lines().map(line).collect()
}
