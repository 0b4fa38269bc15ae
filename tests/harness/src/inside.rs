//! The way into a root: `harness inside` gives itself a mount namespace whose root is the given tree, a host name, an account,
//! and becomes the command. So every tier sees only its own machine, laid out as in production.

use std::convert::Infallible;
use std::ffi::{CString, OsString};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, anyhow, bail, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, chdir, execve, pivot_root, setgroups, sethostname, setresgid, setresuid};

use crate::ids::Who;

/// A root that commands can be started in.
#[derive(Clone, Debug)]
pub struct Door {
    pub(crate) harness: PathBuf,
    pub(crate) root: PathBuf,
    pub(crate) hostname: String,
}

impl Door {
    /// A command that will run inside the root as this account, in a constant environment. Program and paths are the root's.
    pub fn command(&self, who: Who, program: &str) -> Command {
        let mut command = Command::new(&self.harness);
        command
            .arg("inside")
            .arg("--root")
            .arg(&self.root)
            .args(["--hostname", &self.hostname]);
        command.args(["--uid", &who.uid.to_string(), "--gid", &who.gid.to_string()]);
        for group in who.groups {
            command.args(["--group", &group.to_string()]);
        }
        command.args(["--", program]);
        command
    }

    /// A command that becomes the first process of a new process namespace as this root's init, with file systems of the
    /// kernel's of its own, and this environment.
    pub(crate) fn as_init(&self, program: &str, environment: &[&str]) -> Command {
        let mut command = Command::new(&self.harness);
        command
            .arg("inside")
            .arg("--root")
            .arg(&self.root)
            .args(["--hostname", &self.hostname, "--init", "yes"]);
        for variable in environment {
            command.args(["--env", variable]);
        }
        command.args(["--", program]);
        command
    }
}

struct Entry {
    root: PathBuf,
    hostname: Option<String>,
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    environment: Vec<OsString>,
    init: bool,
    command: Vec<OsString>,
}

/// `harness inside --root DIR [--hostname NAME] [--uid N] [--gid N] [--group N]… [--env NAME=VALUE]… [--init yes] -- PROGRAM ARGUMENT…`
pub fn main(arguments: impl Iterator<Item = OsString>) -> Result<Infallible> {
    let entry = parse(arguments)?;
    let parent = nix::unistd::getppid();
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS).context("failed to make a mount namespace")?;
    // What is mounted on the tree later still appears here, and nothing that happens here appears outside.
    mount(
        None::<&str>,
        "/",
        None::<&str>,
        MsFlags::MS_REC | MsFlags::MS_SLAVE,
        None::<&str>,
    )
    .context("failed to make mounts slaves")?;
    chdir(&entry.root).with_context(|| format!("failed to enter {}", entry.root.display()))?;
    pivot_root(".", ".").context("failed to change the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("failed to leave the old root")?;
    chdir("/").context("failed to enter the new root")?;
    if entry.init {
        kernel_file_systems()?;
    }
    if let Some(name) = &entry.hostname {
        sethostname(name).context("failed to name the host")?;
    }
    let groups: Vec<Gid> = entry.groups.iter().map(|gid| Gid::from_raw(*gid)).collect();
    let (uid, gid) = (Uid::from_raw(entry.uid), Gid::from_raw(entry.gid));
    setgroups(&groups).context("failed to set groups")?;
    setresgid(gid, gid, gid).context("failed to set the group")?;
    setresuid(uid, uid, uid).context("failed to set the user")?;
    // After the change of ids, which clears it.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).context("failed to tie this process to its parent")?;
    ensure!(nix::unistd::getppid() == parent, "the parent is gone");

    let strings = |words: &[OsString]| -> Result<Vec<CString>> {
        words
            .iter()
            .map(|word| CString::new(word.clone().into_vec()).map_err(|_| anyhow!("a zero byte in an argument")))
            .collect()
    };
    let mut environment = vec![
        c"PATH=/usr/sbin:/usr/bin:/sbin:/bin".to_owned(),
        c"HOME=/".to_owned(),
        c"LANG=C".to_owned(),
    ];
    environment.extend(strings(&entry.environment)?);
    let argv = strings(&entry.command)?;
    let program = argv.first().ok_or_else(|| anyhow!("no program"))?;
    execve(program, &argv, &environment).with_context(|| format!("failed to run {}", program.to_string_lossy()))
}

/// What an init finds mounted in a container: its own processes and cgroups, and nothing of the machine's that can be
/// written. /run and /dev are the root's, and mounts, so that no others are put over them.
fn kernel_file_systems() -> Result<()> {
    let none = None::<&str>;
    let new = |kind: &str, at: &str| {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), none).with_context(|| format!("failed to mount {at}"))
    };
    let bind = |at: &str| {
        mount(Some(at), at, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)
            .with_context(|| format!("failed to bind {at}"))
    };
    let read_only = |at: &str| {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | MsFlags::MS_RDONLY;
        mount(none, at, none, flags, none).with_context(|| format!("failed to make {at} read-only"))
    };
    new("proc", "/proc")?;
    new("sysfs", "/sys")?;
    new("cgroup2", "/sys/fs/cgroup")?;
    read_only("/sys")?;
    // Not every kernel has the second.
    for at in ["/proc/sys", "/proc/sysrq-trigger"]
        .into_iter()
        .filter(|at| Path::new(at).exists())
    {
        bind(at)?;
        read_only(at)?;
    }
    bind("/run")?;
    bind("/dev")
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Entry> {
    let mut entry = Entry {
        root: PathBuf::new(),
        hostname: None,
        uid: 0,
        gid: 0,
        groups: Vec::new(),
        environment: Vec::new(),
        init: false,
        command: Vec::new(),
    };
    while let Some(option) = arguments.next() {
        if option == "--" {
            entry.command = arguments.collect();
            break;
        }
        let value = arguments
            .next()
            .ok_or_else(|| anyhow!("{} wants a value", option.display()))?;
        let text = value.to_str().ok_or_else(|| anyhow!("not UTF-8"))?;
        match option.to_str() {
            Some("--root") => entry.root = PathBuf::from(value),
            Some("--hostname") => entry.hostname = Some(text.to_owned()),
            Some("--uid") => entry.uid = text.parse()?,
            Some("--gid") => entry.gid = text.parse()?,
            Some("--group") => entry.groups.push(text.parse()?),
            Some("--env") => entry.environment.push(value),
            Some("--init") => entry.init = text == "yes",
            _ => bail!("unknown option {}", option.display()),
        }
    }
    ensure!(
        entry.root.is_absolute() && !entry.command.is_empty(),
        "usage: harness inside --root DIR … -- PROGRAM ARGUMENT…"
    );
    Ok(entry)
}
