//! Services of a target under a real supervisor, runit, as an administrator of a host without systemd sets them up: the
//! folders of the services, a list of those that may be restarted, the same in every copy of the catalogue.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::ids::ROOT;
use crate::root::Root;
use crate::spawn::{Running, wait_for};
use crate::target::Target;
use crate::world::World;

/// The services of every target.
pub const SERVICES: [&str; 2] = ["shop", "cart"];

/// The shipped manifests for a supervisor, by their files' names, with the units that can be restarted here in the place of
/// the shipped example's.
pub fn manifests(world: &World, supervisor: &str, units: &[&str]) -> Result<Vec<(String, String)>> {
    let folder = world.target_package()?.join("supervisors").join(supervisor);
    let mut manifests = Vec::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("failed to read {}", folder.display()))? {
        let entry = entry?;
        let name = entry.file_name().display().to_string();
        let mut text = fs::read_to_string(entry.path())?;
        if name == "restart_service.toml" {
            let begin = text.find("enum = [").context("the shipped manifest lists no units")?;
            let end = begin + text[begin..].find(']').context("the shipped list has no end")?;
            text.replace_range(begin..=end, &format!("enum = {units:?}"));
        }
        manifests.push((name, text));
    }
    Ok(manifests)
}

/// The folders of the services. What supervises them has its own folder in each, which agent-runner may look into: runsv
/// would make it for root alone.
pub(crate) fn lay(root: &Root) -> Result<()> {
    root.folder("etc/service", 0o755, (0, 0))?;
    for name in SERVICES {
        root.file(
            &format!("etc/sv/{name}/run"),
            0o755,
            "#!/bin/sh\nexec /usr/bin/sleep 1000000\n",
        )?;
        root.folder(&format!("etc/sv/{name}/supervise"), 0o755, (0, 0))?;
        symlink(format!("/etc/sv/{name}"), root.at(&format!("etc/service/{name}")))?;
    }
    Ok(())
}

/// A target's supervisor; ended with its services when this goes.
#[derive(Debug)]
pub struct Supervisor {
    runsvdir: Running,
}

impl Supervisor {
    /// Starts it, and waits until both services run.
    pub fn start(target: &Target) -> Result<Supervisor> {
        let mut command = target.command(ROOT, "/usr/bin/runsvdir");
        command.arg("/etc/service");
        let mut runsvdir = Running::start(&format!("runsvdir of {}", target.name()), command)?;
        wait_for("the services", Duration::from_secs(10), || {
            runsvdir.check()?;
            Ok(SERVICES.iter().all(|name| pid(target, name).is_ok()))
        })?;
        Ok(Supervisor { runsvdir })
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // HUP: it ends its services and then itself (runsvdir(8)).
        if let Ok(pid) = i32::try_from(self.runsvdir.pid()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGHUP);
        }
        let _ = wait_for("the supervisor's end", Duration::from_secs(2), || {
            Ok(self.runsvdir.check().is_err())
        });
    }
}

/// The process of a service that runs.
pub fn pid(target: &Target, service: &str) -> Result<u32> {
    let supervise = target.root().at(&format!("etc/sv/{service}/supervise"));
    let stat = fs::read_to_string(supervise.join("stat"))?;
    ensure!(stat.trim() == "run", "{service} of {}: {}", target.name(), stat.trim());
    Ok(fs::read_to_string(supervise.join("pid"))?.trim().parse()?)
}
