//! The machine: its kernel, the walls that can be put up around actions, and whether the target was halted.

use std::path::Path;

use landlock::{ABI, Access, AccessFs, CompatLevel, Compatible, LandlockStatus, Ruleset, RulesetAttr};

use super::report::{Check, Report};
use super::tools;

const KERNEL: Check = Check {
    name: "kernel",
    what: "the kernel is 5.13 or newer",
    why: "older ones have no Landlock, and agent-exec refuses to run what it cannot wall in",
    mend: "boot a newer kernel",
};
const LANDLOCK: Check = Check {
    name: "landlock",
    what: "Landlock can be put up, and holds",
    why: "without this wall no unprivileged action runs",
    mend: "add landlock to `lsm=` of the kernel's command line",
};
const SECCOMP: Check = Check {
    name: "seccomp",
    what: "seccomp filters are there",
    why: "without this wall no unprivileged action runs",
    mend: "boot a kernel with CONFIG_SECCOMP_FILTER",
};
const DUMPABLE: Check = Check {
    name: "suid_dumpable",
    what: "`fs.suid_dumpable` is not 1",
    why: "with 1 another process of agent-runner could trace an action's before its exec and read the receipt key: agent-exec \
          refuses to start",
    mend: "`sysctl fs.suid_dumpable=0`, and in `/etc/sysctl.d/`",
};
const HALT: Check = Check {
    name: "halt",
    what: "the target is not halted (a notice: somebody wanted it so)",
    why: "while `/etc/writ/halt` is there every request is refused",
    mend: "`rm /etc/writ/halt`",
};

pub(super) const CHECKS: &[&Check] = &[&KERNEL, &LANDLOCK, &SECCOMP, &DUMPABLE, &HALT];

const OLDEST: (u32, u32) = (5, 13);
const HALT_FILE: &str = "/etc/writ/halt";

#[derive(Debug, Clone)]
pub(super) struct Machine {
    release: String,
    /// The version of Landlock's interface, once the wall has been tried.
    landlock: Result<u32, String>,
    /// What filters can do, from /proc.
    seccomp: Option<String>,
    suid_dumpable: Option<String>,
    halted: Result<bool, String>,
}

pub(super) fn look() -> Machine {
    let proc = |path: &str| std::fs::read_to_string(path).ok();
    Machine {
        release: proc("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
        landlock: landlock(),
        seccomp: proc("/proc/sys/kernel/seccomp/actions_avail"),
        suid_dumpable: proc("/proc/sys/fs/suid_dumpable"),
        halted: tools::at(Path::new(HALT_FILE)).map(|found| found.is_some()),
    }
}

/// Puts a wall around a thread of its own, which ends with it, and tries to look over it.
fn landlock() -> Result<u32, String> {
    let thread = std::thread::spawn(|| {
        let status = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(ABI::V1))
            .and_then(Ruleset::create)
            .and_then(|ruleset| ruleset.restrict_self())
            .map_err(|error| error.to_string())?;
        if std::fs::read_dir("/").is_ok() {
            return Err("it was put up and holds nothing back".to_owned());
        }
        match status.landlock {
            LandlockStatus::Available {
                effective_abi,
                kernel_abi,
            } => Ok(kernel_abi
                .and_then(|abi| u32::try_from(abi).ok())
                .unwrap_or(effective_abi as u32)),
            LandlockStatus::NotEnabled => Err("it is switched off".to_owned()),
            LandlockStatus::NotImplemented => Err("this kernel has none".to_owned()),
        }
    });
    thread
        .join()
        .unwrap_or_else(|_| Err("it could not be tried".to_owned()))
}

pub(super) fn judge(machine: &Machine, report: &mut Report) {
    match version(&machine.release) {
        Some(found) if found >= OLDEST => {}
        _ => {
            let what = format!("the kernel is \"{}\", older than 5.13", machine.release);
            report.finding(&KERNEL, what, "apt-get install linux-image-amd64 && reboot");
        }
    }
    report.settle(&KERNEL, &machine.release);
    match &machine.landlock {
        Ok(abi) => report.settle(&LANDLOCK, format!("interface {abi}, tried")),
        Err(what) => {
            let mend = "cat /sys/kernel/security/lsm, then add landlock to lsm= on the kernel's command line";
            report.finding(&LANDLOCK, format!("Landlock cannot be used: {what}"), mend);
        }
    }
    let actions = machine.seccomp.as_deref().unwrap_or_default();
    if !["errno", "kill_process"]
        .iter()
        .all(|action| actions.split_whitespace().any(|word| word == *action))
    {
        let what = "filters are not there, or cannot refuse";
        report.finding(&SECCOMP, what, "grep SECCOMP_FILTER /boot/config-$(uname -r)");
    }
    report.settle(&SECCOMP, "filters are there");
    match machine.suid_dumpable.as_deref().map(str::trim) {
        Some("0" | "2") => {}
        found => {
            let what = format!("fs.suid_dumpable is {}", found.unwrap_or("not to be read"));
            let mend = "echo fs.suid_dumpable=0 > /etc/sysctl.d/60-writ.conf && sysctl --system";
            report.finding(&DUMPABLE, what, mend);
        }
    }
    report.settle(&DUMPABLE, "not 1");
    match &machine.halted {
        Ok(false) => {}
        Ok(true) => {
            report.notice(
                &HALT,
                format!("{HALT_FILE} is there: every request is refused"),
                format!("rm {HALT_FILE}"),
            );
        }
        Err(error) => report.finding(&HALT, error, format!("ls -l {HALT_FILE}")),
    }
    report.settle(&HALT, "not halted");
}

/// `6.1.0-18-amd64` is 6.1.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Machine {
        Machine {
            release: "6.1.0-18-amd64".to_owned(),
            landlock: Ok(2),
            seccomp: Some("kill_process kill_thread trap errno user_notif trace log allow\n".to_owned()),
            suid_dumpable: Some("0\n".to_owned()),
            halted: Ok(false),
        }
    }

    fn judged(machine: &Machine) -> Report {
        let mut report = Report::default();
        judge(machine, &mut report);
        report
    }

    #[test]
    fn a_healthy_machine_has_no_findings() {
        assert_eq!(judged(&healthy()).found(), Vec::<&str>::new());
        assert_eq!(judged(&healthy()).said().len(), CHECKS.len());
    }

    #[test]
    fn each_broken_thing_is_named_and_halt_is_a_notice() {
        type Break = fn(&mut Machine);
        let table: &[(&str, Break)] = &[
            ("kernel", |machine| machine.release = "5.10.0-28-amd64".to_owned()),
            ("kernel", |machine| machine.release = String::new()),
            ("landlock", |machine| {
                machine.landlock = Err("it is switched off".to_owned())
            }),
            ("seccomp", |machine| machine.seccomp = None),
            ("seccomp", |machine| machine.seccomp = Some("trap".to_owned())),
            ("suid_dumpable", |machine| {
                machine.suid_dumpable = Some("1\n".to_owned())
            }),
            ("suid_dumpable", |machine| machine.suid_dumpable = None),
            ("halt", |machine| machine.halted = Err("failed".to_owned())),
        ];
        for (name, break_it) in table {
            let mut machine = healthy();
            break_it(&mut machine);
            assert_eq!(judged(&machine).found(), [*name]);
        }
        let mut machine = healthy();
        machine.halted = Ok(true);
        assert!(judged(&machine).found().is_empty());
        assert!(judged(&machine).text().contains("rm /etc/writ/halt"));
    }

    #[test]
    fn the_wall_that_is_tried_stays_in_its_thread() {
        let _tried = landlock();
        assert!(std::fs::read_dir("/").is_ok());
    }
}
