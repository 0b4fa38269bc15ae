//! The stack: targets, CA, relay, and what tests do to them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, anyhow};
use openssh::key::SigningKey;
use serde_json::Value;

use crate::control::{CA_LOG, Control, RELAY_LOG, WayToCa};
use crate::forge::{Forge, GRANT, USER};
use crate::ids::{RELAY, Who};
use crate::mcp::McpClient;
use crate::spawn::run_ok;
use crate::ssh::Login;
use crate::target::{AGENT_EXEC, Accounts, LOG, Target};
use crate::world::World;

/// What a stack is made of.
#[derive(Clone, Debug)]
pub struct Options {
    /// Names of the targets; each gets an address of its own.
    pub targets: Vec<&'static str>,
    /// Life of a task certificate, in seconds.
    pub task_lifetime_s: u32,
    /// A Cedar policy in place of the shipped one.
    pub policy: Option<String>,
    /// How the relay reaches the CA.
    pub ca: WayToCa,
    /// Actions beyond the shipped ones, by name, in the catalogue of every tier.
    pub actions: Vec<(&'static str, String)>,
    /// What each target's `target.toml` has beyond the shipped example: probes.
    pub probes: String,
    /// Size of a disk of its own under each tier's log, in KiB; none: the root's.
    pub log_disk_kib: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            targets: vec!["web-1", "web-2"],
            task_lifetime_s: 300,
            policy: None,
            ca: WayToCa::Socket,
            actions: Vec::new(),
            probes: String::new(),
            log_disk_kib: None,
        }
    }
}

/// Everything that runs for one demo or one test; killed and unmounted when the value goes.
#[derive(Debug)]
pub struct Stack {
    /// CA and relay.
    pub control: Control,
    /// The targets, in the order of the options.
    pub targets: Vec<Target>,
    world: World,
    folder: PathBuf,
    logins: PathBuf,
}

impl Stack {
    /// Builds and starts everything: returns when the relay's socket answers.
    pub fn start(options: &Options) -> Result<Stack> {
        let world = World::here()?;
        let folder = world.new_folder()?;
        let control = Control::build(
            &world,
            &folder,
            options.task_lifetime_s,
            options.policy.as_deref(),
            options.ca,
        )?;
        let logins = folder.join("logins");
        fs::create_dir(&logins)?;
        let mut stack = Stack {
            control,
            targets: Vec::new(),
            world,
            folder,
            logins,
        };
        for (name, manifest) in &options.actions {
            stack.control.add_action(name, manifest)?;
        }
        for name in &options.targets {
            let target = stack.new_target(name, Accounts::Given)?;
            for (name, manifest) in &options.actions {
                target.add_action(name, manifest)?;
            }
            target.add_probes(&options.probes)?;
            if let Some(kib) = options.log_disk_kib {
                target.root().small_disk(LOG, kib)?;
            }
            stack.enroll(target)?;
        }
        if let Some(kib) = options.log_disk_kib {
            // `writ-ca init` and `enroll` have records there already: they move to the new disk.
            for log in [CA_LOG, RELAY_LOG] {
                stack.control.root().move_to_small_disk(log, kib)?;
            }
        }
        stack.control.start_ca()?;
        stack.control.start_relay()?;
        Ok(stack)
    }

    /// Builds another machine and runs the shipped install steps on it. The stack does not know it yet.
    pub fn new_target(&self, name: &str, accounts: Accounts) -> Result<Target> {
        let ip = IpAddr::V4(Ipv4Addr::new(127, 0, 0, u8::try_from(self.targets.len() + 11)?));
        let target = Target::bare(&self.world, &self.folder, name, ip, accounts)?;
        target.install(&self.world)?;
        Ok(target)
    }

    /// Enrols a machine that was installed, starts its sshd, and makes it one of the stack's.
    pub fn enroll(&mut self, mut target: Target) -> Result<()> {
        self.control.enroll(&target)?;
        target.start_sshd()?;
        self.targets.push(target);
        Ok(())
    }

    /// A stack of the two usual targets.
    pub fn usual() -> Result<Stack> {
        Stack::start(&Options::default())
    }

    /// The target of this name.
    pub fn target(&self, name: &str) -> Result<&Target> {
        self.targets
            .iter()
            .find(|target| target.name() == name)
            .ok_or_else(|| anyhow!("no target {name}"))
    }

    /// The target of this name, to stop or start it.
    pub fn target_mut(&mut self, name: &str) -> Result<&mut Target> {
        self.targets
            .iter_mut()
            .find(|target| target.name() == name)
            .ok_or_else(|| anyhow!("no target {name}"))
    }

    /// Where the programs come from.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// A folder outside all roots that lives as long as the stack.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// An MCP client of this person, through `writ-relay stdio`.
    pub fn client(&self, who: Who) -> Result<McpClient> {
        McpClient::start(self.client_command(who))
    }

    /// What such a client starts.
    pub fn client_command(&self, who: Who) -> Command {
        let mut command = self.control.command(who, "writ-relay");
        command.arg("stdio");
        command
    }

    /// Calls the CA as this account: `rpc` is `describe`, `open_task` or `renew_task`, and the fields are those of ca.proto.
    /// The answer is `{"ok": {…}}` or `{"refused": {"code", "message", "status"}}`.
    pub fn ca_call(&self, who: Who, rpc: &str, fields: &Value) -> Result<Value> {
        let mut command = self.control.command(who, "/usr/libexec/harness");
        command.args(["rpc", rpc]);
        let answer = run_ok("harness rpc", command, fields.to_string().as_bytes())?;
        Ok(serde_json::from_slice(&answer)?)
    }

    /// Opens a task on a target as a relay would that took over everything the relay has: a new key, the CA's certificate.
    pub fn open_task(&self, target: &str) -> Result<Opened> {
        let key = SigningKey::from_seed(&rand::random::<[u8; 32]>().into())?;
        let task_id = new_id();
        let fields = serde_json::json!({
            "task_id": task_id, "brain": "harness", "person": "alice", "proof": "relay", "reason": "a test",
            "target": target, "public_key": key.public().to_openssh(),
        });
        let answer = self.ca_call(RELAY, "open_task", &fields)?;
        let certificate = answer.pointer("/ok/certificate").and_then(Value::as_str);
        let certificate = certificate
            .ok_or_else(|| anyhow!("the CA answered {answer}"))?
            .to_owned();
        Ok(Opened {
            task_id,
            key,
            certificate,
        })
    }

    /// Key and certificate for OpenSSH's client, which knows the targets by the host CA.
    pub fn login(&self, key: &SigningKey, certificate: &str) -> Result<Login> {
        let known_hosts = format!("@cert-authority * {}", self.control.host_ca()?);
        Login::new(&self.logins, key, certificate, &known_hosts)
    }

    /// A certificate like the CA's own for this target, every field of which may be changed before it is signed.
    pub fn honest_forge(&self, target: &str, task_id: &str, grant: &str) -> Forge {
        let now = now();
        Forge {
            serial: rand::random::<u64>() >> 1,
            kind: USER,
            key_id: task_id.to_owned(),
            principals: vec![target.to_owned()],
            valid_after: now - 30,
            valid_before: now + 270,
            critical: vec![
                ("force-command".to_owned(), AGENT_EXEC.to_owned()),
                ("source-address".to_owned(), "127.0.0.0/8".to_owned()),
            ],
            extensions: vec![(GRANT.to_owned(), grant.to_owned())],
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.control.stop_relay();
        self.control.stop_ca();
        for target in &mut self.targets {
            target.stop_sshd();
        }
        // The roots unmount themselves; their folders and what lies beside them go with this one, best effort.
        let _ = fs::remove_dir_all(&self.logins);
    }
}

/// A task on one target, in the hands of an attacker who has the relay.
pub struct Opened {
    /// The task's id.
    pub task_id: String,
    /// Its private key.
    pub key: SigningKey,
    /// Its certificate, in OpenSSH's text.
    pub certificate: String,
}

/// Unix time in seconds.
pub fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// A random lower-case UUID (version 4).
pub fn new_id() -> String {
    let mut bytes = rand::random::<[u8; 16]>();
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default().to_owned();
    [part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32)].join("-")
}

/// Reads a file that has to be there.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("failed to read {}", path.display()))
}
