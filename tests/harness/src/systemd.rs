//! A target that a real systemd runs: the machine's own systemd, journald and dbus-daemon, started as on a host, in namespaces
//! of processes, mounts and cgroups of their own. sshd is a unit of it, so whatever a relay's session starts is inside too.
//!
//! Of the machine's units it gets the few that it needs, copied: what else would run there, and what would reach for the
//! machine itself (modules, kernel file systems, the audit of the kernel), is not among them. Only the machine's root may do
//! this: cgroups are the machine's.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, ensure};

use crate::root::Root;
use crate::spawn::{Running, run_ok, wait_for};
use crate::target::{SSHD_ARGUMENTS, Target};

const INIT: &str = "/usr/lib/systemd/systemd";
/// Units of a distribution's systemd and dbus, as they are.
const SHIPPED: [&str; 6] = [
    "systemd-journald.service",
    "systemd-journald.socket",
    "systemd-journald-dev-log.socket",
    "systemd-journal-flush.service",
    "dbus.service",
    "dbus.socket",
];
/// What units order themselves by. The machine's own pull in everything else.
const MARKS: [&str; 4] = ["sysinit.target", "basic.target", "sockets.target", "shutdown.target"];
const UNITS: &str = "etc/systemd/system";
/// The bus's account: Debian's name, a number that nobody has.
const BUS: (&str, u32) = ("messagebus", 64107);

/// As on a Debian whose journal is kept. The kernel's audit is the machine's: it is left as it is.
const JOURNALD_CONF: &str = "[Journal]\nStorage=persistent\nAudit=\nReadKMsg=no\n";

/// Why no target can have a systemd here; `None` where it can.
#[must_use]
pub fn missing() -> Option<String> {
    let programs = [INIT, "/usr/bin/dbus-daemon", "/usr/bin/journalctl", "/usr/bin/setfacl"];
    if let Some(program) = programs.into_iter().find(|program| !Path::new(program).is_file()) {
        return Some(format!("{program} is not on this machine"));
    }
    let folder = match own_cgroup() {
        Ok(folder) => folder.join(format!("writ-{:016x}", rand::random::<u64>())),
        Err(error) => return Some(format!("{error:#}")),
    };
    if let Err(error) = fs::create_dir(&folder) {
        return Some(format!("no cgroup can be made ({error}): only the machine's root may"));
    }
    let _ = fs::remove_dir(&folder);
    None
}

/// systemd on a target; ended with everything it started when this goes.
#[derive(Debug)]
pub struct Systemd {
    keeper: Running,
    cgroup: PathBuf,
}

impl Systemd {
    /// Starts it on a target in sshd's place, with these services (name and `[Service]` section), and waits until sshd, its
    /// unit, answers.
    pub fn start(target: &mut Target, services: &[(&str, &str)]) -> Result<Systemd> {
        target.stop_sshd();
        lay(target.root(), services)?;
        let cgroup = own_cgroup()?.join(format!("writ-{:016x}", rand::random::<u64>()));
        fs::create_dir(&cgroup).with_context(|| format!("failed to make {}", cgroup.display()))?;
        let mut systemd = Systemd {
            keeper: Running::start(&format!("systemd of {}", target.name()), boot(target, &cgroup))?,
            cgroup,
        };
        let up = wait_for("sshd of systemd", Duration::from_secs(20), || {
            systemd.keeper.check()?;
            Ok(target.sshd_version().is_some())
        });
        up.with_context(|| target.sshd_log())?;
        // It says so of itself when nothing is left to be started, whatever came of it.
        wait_for("the end of its start", Duration::from_secs(20), || {
            let said = systemd.as_root("/bin/sh", &["-c", "systemctl is-system-running || true"])?;
            Ok(matches!(said.trim_ascii(), b"running" | b"degraded"))
        })?;
        Ok(systemd)
    }

    /// The one process of a service, by its number on the target. The kernel says so, not systemd.
    pub fn pid(&self, unit: &str) -> Result<u32> {
        let pid = self.pid_here(&Path::new("system.slice").join(unit))?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let inside = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
        let inside = inside.and_then(|numbers| numbers.split_whitespace().last());
        Ok(inside.context("a process without a number")?.parse()?)
    }

    /// Runs a program as root among the target's processes, as somebody who logged in there would; it has to succeed.
    pub fn as_root(&self, program: &str, arguments: &[&str]) -> Result<Vec<u8>> {
        let init = self.pid_here(Path::new("init.scope"))?;
        let mut command = Command::new("nsenter");
        command.args(["--target", &init, "--mount", "--pid", "--cgroup", "--", program]);
        command.args(arguments);
        run_ok(program, command, b"")
    }

    /// The one process of a cgroup, by its number in the harness's world.
    fn pid_here(&self, cgroup: &Path) -> Result<String> {
        let text = fs::read_to_string(self.cgroup.join(cgroup).join("cgroup.procs"));
        let text = text.with_context(|| format!("{} does not run", cgroup.display()))?;
        match text.lines().collect::<Vec<_>>().as_slice() {
            [pid] => Ok((*pid).to_owned()),
            pids => Err(anyhow!("{} has the processes {pids:?}", cgroup.display())),
        }
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        self.keeper.kill();
        // The first process of a namespace takes all others with it, but nobody says when the last is gone.
        let _ = wait_for("the end of systemd", Duration::from_secs(5), || {
            Ok(remove(&self.cgroup).is_ok())
        });
    }
}

/// The command that becomes its first process.
fn boot(target: &Target, cgroup: &Path) -> Command {
    let inside = target.root().door().as_init(
        INIT,
        &[
            "container=writ",
            // No unit but those that were laid there.
            "SYSTEMD_UNIT_PATH=/etc/systemd/system",
        ],
    );
    let mut command = Command::new("/bin/sh");
    // The cgroup comes first: the namespace of cgroups begins where its first process is.
    command.args(["-c", "echo 0 >\"$1\" && shift && exec \"$@\"", "sh"]);
    command.arg(cgroup.join("cgroup.procs"));
    command.args(["unshare", "--cgroup", "--ipc", "--pid", "--fork", "--kill-child"]);
    command.arg(inside.get_program()).args(inside.get_args());
    command
}

fn lay(root: &Root, services: &[(&str, &str)]) -> Result<()> {
    for unit in SHIPPED {
        let from = Path::new("/usr/lib/systemd/system").join(unit);
        let text = fs::read(&from).with_context(|| format!("failed to read {}", from.display()))?;
        root.file(&format!("{UNITS}/{unit}"), 0o644, text)?;
    }
    for mark in MARKS {
        root.file(&format!("{UNITS}/{mark}"), 0o644, "[Unit]\nDefaultDependencies=no\n")?;
    }
    let names: Vec<&str> = services.iter().map(|(name, _)| *name).collect();
    let all = format!("{} sshd.service {}", SHIPPED.join(" "), names.join(" "));
    let default = format!("[Unit]\nDefaultDependencies=no\nWants={all}\n");
    root.file(&format!("{UNITS}/default.target"), 0o644, default)?;
    let sshd = format!(
        "[Service]\nExecStart=/usr/sbin/sshd {}\nKillMode=process\n",
        SSHD_ARGUMENTS.join(" ")
    );
    for (name, section) in [("sshd.service", sshd.as_str())].iter().chain(services) {
        root.file(
            &format!("{UNITS}/{name}"),
            0o644,
            format!("[Unit]\nDescription={name} of a test\n\n{section}"),
        )?;
    }
    root.file("etc/systemd/journald.conf", 0o644, JOURNALD_CONF)?;
    root.file("etc/machine-id", 0o444, "00112233445566778899aabbccddeeff\n")?;
    root.folder("var/log/journal", 0o755, (0, 0))?;
    root.bind_folder(Path::new("/usr/share/dbus-1"), "usr/share/dbus-1")?;
    let (name, id) = BUS;
    for (file, mode, line) in [
        (
            "etc/passwd",
            0o644,
            format!("{name}:x:{id}:{id}::/nonexistent:/usr/sbin/nologin\n"),
        ),
        ("etc/group", 0o644, format!("{name}:x:{id}:\n")),
    ] {
        let text = fs::read_to_string(root.at(file))?;
        root.file(file, mode, text + &line)?;
    }
    Ok(())
}

/// The cgroup of this process in the one hierarchy (cgroups(7), version 2), as a folder.
fn own_cgroup() -> Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mountinfo")?;
    let mounted = mounts.lines().find_map(|line| {
        let (before, after) = line.split_once(" - ")?;
        let at = before.split(' ').nth(4)?;
        after.starts_with("cgroup2 ").then(|| PathBuf::from(at))
    });
    let mounted = mounted.context("no cgroup2 is mounted on this machine")?;
    let cgroups = fs::read_to_string("/proc/self/cgroup")?;
    let own = cgroups.lines().find_map(|line| line.strip_prefix("0::/"));
    let folder = mounted.join(own.context("this process is in no cgroup of version 2")?);
    ensure!(folder.is_dir(), "{} is no folder", folder.display());
    Ok(folder)
}

/// Removes a cgroup and those below it. One that has processes stays, and is an error.
fn remove(cgroup: &Path) -> Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    Ok(fs::remove_dir(cgroup)?)
}
