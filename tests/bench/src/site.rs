//! What benches of calls run on: a stack with one target, a log whose tail is asked for, records on the disk, and on the
//! same sshd an account with a plain shell for the others.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use harness::control::{CA_LOG, RELAY_LOG};
use harness::target::LOG;
use harness::{Options, STRANGER, Stack};
use openssh::key::SigningKey;

use crate::disk::OnDisk;
use crate::net::QUICK;
use crate::report::Report;

/// The one target.
pub const WEB: &str = "web-1";
/// The log that is asked for.
pub const FILE: &str = "/var/log/shop/bench.log";
/// Length of each of its lines.
pub const LINE_BYTES: u64 = 100;
/// How many of its last lines are asked for.
pub const LINES: u32 = 200;
/// Length of those.
pub const TAIL_BYTES: u64 = LINE_BYTES * LINES as u64;
/// The relay's state: in one folder of files.
const RELAY_STATE: &str = "/var/lib/writ-relay";
/// The state of the target: the ledger will be in it.
const STATE: &str = "/var/lib/writ";
/// Where sshd finds the others' key, inside the target.
const PEERS_KEY: &str = "/etc/ssh/bench_key";

/// A stack with its logs on the disk. They leave the disk after the stack has ended: fields are dropped in their order.
pub struct Site {
    /// The stack.
    pub stack: Stack,
    /// The target's log.
    pub log: OnDisk,
    /// The others' private key, in a file that only root reads.
    pub key: PathBuf,
    ca_log: OnDisk,
    _others: [OnDisk; 3],
}

impl Site {
    /// Starts everything, with what is shipped.
    pub fn start(report: &Report) -> Result<Site> {
        Site::start_with(report, Options::default())
    }

    /// The same with other actions and policies. Tasks live as long as a run may take.
    pub fn start_with(report: &Report, options: Options) -> Result<Site> {
        let mut stack = Stack::start(&Options {
            targets: vec![WEB],
            task_lifetime_s: 900,
            ..options
        })?;
        let disk = report.folder().join("disk");
        write_log(&stack, 3000)?;
        let log = OnDisk::put(stack.target(WEB)?.root(), LOG, &disk)?;
        let state = OnDisk::put(stack.target(WEB)?.root(), STATE, &disk)?;
        stack.control.stop_relay();
        stack.control.stop_ca();
        let put = |folder| OnDisk::put(stack.control.root(), folder, &disk);
        let ca_log = put(CA_LOG)?;
        let others = [state, put(RELAY_LOG)?, put(RELAY_STATE)?];
        stack.control.start_ca()?;
        stack.control.start_relay()?;
        let key = plain_account(&mut stack)?;
        Ok(Site {
            stack,
            log,
            key,
            ca_log,
            _others: others,
        })
    }
}

impl Site {
    /// The CA's log, on the disk.
    #[must_use]
    pub fn ca_log(&self) -> &OnDisk {
        &self.ca_log
    }
}

/// Writes the log: so many lines of one length.
pub fn write_log(stack: &Stack, lines: u64) -> Result<()> {
    let line = "a request that was served ".repeat(4);
    let log: String = (0..lines)
        .map(|n| format!("{n:09} {}\n", line.split_at(89).0))
        .collect();
    stack.target(WEB)?.root().file(FILE, 0o644, log)
}

/// Opens an account with dash for its shell to a key, on the same sshd and also on the address with quick ACKs.
fn plain_account(stack: &mut Stack) -> Result<PathBuf> {
    let key = SigningKey::from_seed(&rand::random::<[u8; 32]>().into())?;
    let path = stack.folder().join("bench_key");
    fs::write(&path, key.to_openssh()?.as_bytes())?;
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    let target = stack.target_mut(WEB)?;
    target
        .root()
        .file(PEERS_KEY, 0o644, format!("{}\n", key.public().to_openssh()))?;
    let settings = format!(
        "ListenAddress {QUICK}\nMatch User {}\n    AuthorizedKeysFile {PEERS_KEY}\n",
        STRANGER.name
    );
    target
        .root()
        .file("/etc/ssh/sshd_config.d/60-bench.conf", 0o644, settings)?;
    target.stop_sshd();
    target.start_sshd().context("sshd with an account for the others")?;
    Ok(path)
}
