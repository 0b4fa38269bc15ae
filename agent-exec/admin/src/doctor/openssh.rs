//! Which OpenSSH this is, whether faults are known in it, and how systemd starts it.

use std::path::Path;

use super::faults::{KNOWN, Version, Weight};
use super::report::{Check, Report};
use super::tools::{self, SSHD, SYSTEMCTL};

const VERSION: Check = Check {
    name: "sshd_version",
    what: "OpenSSH is 9.2 or newer",
    why: "older ones do not know directives of `50-writ.conf` and would not start with it",
    mend: "install a newer openssh-server",
};
const FAULTS: Check = Check {
    name: "sshd_faults",
    what: "this sshd has no known fault that its configuration does not cover",
    why: "sshd is the door: a fault in it comes before everything that Writ checks",
    mend: "`apt-get install --only-upgrade openssh-server`",
};
const UNIT: Check = Check {
    name: "sshd_unit",
    what: "sshd's unit does not set NoNewPrivileges",
    why: "agent-exec would lose its set-user-id bit and refuse every session",
    mend: "`systemctl edit ssh`: NoNewPrivileges=no",
};

pub(super) const CHECKS: &[&Check] = &[&VERSION, &FAULTS, &UNIT];

/// The oldest version that knows every directive of the drop-in.
const OLDEST: (u32, u32, u32) = (9, 2, 0);

#[derive(Debug, Clone)]
pub(super) struct OpenSsh {
    version: Result<String, String>,
    /// Whether packages here do not tell their revision in the version.
    rpm: bool,
    /// What systemd says about sshd's units; none where systemd does not run.
    units: Option<Result<String, String>>,
}

pub(super) fn look() -> OpenSsh {
    // An option that does not exist: unlike -V it makes every version tell its package too.
    let version = tools::run(SSHD, &["-?"]).and_then(|ran| {
        let said = format!("{}\n{}", ran.stdout, ran.stderr);
        let line = said
            .lines()
            .find(|line| line.starts_with("OpenSSH_"))
            .map(str::to_owned);
        line.ok_or_else(|| format!("{SSHD} does not tell its version"))
    });
    let units = ["ssh.service", "sshd.service", "ssh@writ.service", "sshd@writ.service"];
    let shown = || {
        let arguments = [&["show", "--property=Id,LoadState,NoNewPrivileges"], &units[..]].concat();
        tools::run(SYSTEMCTL, &arguments).map(|ran| ran.stdout)
    };
    OpenSsh {
        version,
        rpm: ["/var/lib/rpm", "/usr/lib/sysimage/rpm"]
            .iter()
            .any(|path| Path::new(path).exists()),
        units: Path::new("/run/systemd/system").exists().then(shown),
    }
}

pub(super) fn judge(openssh: &OpenSsh, report: &mut Report) {
    let version = openssh
        .version
        .clone()
        .and_then(|text| Version::parse(&text).ok_or_else(|| format!("sshd's version is not understood: {text}")));
    match version {
        Ok(version) => judge_version(&version, openssh.rpm, report),
        Err(error) => report.finding(&VERSION, error, "apt-get install openssh-server"),
    }
    report.settle(&FAULTS, "not looked at: the version is not known");
    match &openssh.units {
        None => report.notice(
            &UNIT,
            "not looked at: systemd does not run here",
            "systemctl show ssh -p NoNewPrivileges",
        ),
        Some(Err(error)) => report.finding(&UNIT, error, "systemctl show ssh -p NoNewPrivileges"),
        Some(Ok(text)) => {
            for unit in without_privileges(text) {
                let mend = format!("printf '[Service]\\nNoNewPrivileges=no\\n' | systemctl edit --stdin {unit}");
                report.finding(&UNIT, format!("{unit} sets NoNewPrivileges"), mend);
            }
        }
    }
    report.settle(&UNIT, "sshd's unit leaves set-user-id bits alone");
}

fn judge_version(version: &Version, rpm: bool, report: &mut Report) {
    let text = &version.text;
    let mend = "apt-get install --only-upgrade openssh-server";
    if version.number < OLDEST {
        report.finding(&VERSION, format!("{text} is older than 9.2"), mend);
    }
    report.settle(&VERSION, text);
    let mut covered = Vec::new();
    for fault in KNOWN.iter().filter(|fault| fault.is_in(version)) {
        if fault.weight == Weight::Covered {
            covered.push(fault.name);
            continue;
        }
        let what = format!("{text} has {}: {}", fault.name, fault.reason);
        if rpm && version.package.is_none() {
            let what = format!("{what}; unless its package has mended that");
            report.notice(
                &FAULTS,
                what,
                format!("rpm -q --changelog openssh-server | grep {}", fault.name),
            );
        } else {
            report.finding(&FAULTS, what, mend);
        }
    }
    let also = match covered.len() {
        0 => String::new(),
        _ => format!("; covered by configuration: {}", covered.join(", ")),
    };
    report.settle(&FAULTS, format!("none that is open{also}"));
}

/// The units in what `systemctl show` printed that exist and set NoNewPrivileges.
fn without_privileges(shown: &str) -> Vec<&str> {
    let value = |unit: &'_ str, name: &str| -> Option<String> {
        unit.lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix('=').map(str::to_owned))
    };
    shown
        .split("\n\n")
        .filter(|unit| value(unit, "LoadState").as_deref() == Some("loaded"))
        .filter(|unit| value(unit, "NoNewPrivileges").as_deref() == Some("yes"))
        .filter_map(|unit| unit.lines().find_map(|line| line.strip_prefix("Id=")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(version: &str, rpm: bool) -> Report {
        let mut report = Report::default();
        let openssh = OpenSsh {
            version: Ok(version.to_owned()),
            rpm,
            units: None,
        };
        judge(&openssh, &mut report);
        report
    }

    #[test]
    fn old_versions_and_open_faults_are_findings() {
        for (version, found) in [
            ("OpenSSH_9.2p1 Debian-2+deb12u10", &[][..]),
            ("OpenSSH_9.2p1 Debian-2+deb12u2", &["sshd_faults"]),
            ("OpenSSH_9.6p1 Ubuntu-3ubuntu13.14", &[]),
            ("OpenSSH_9.6p1 Ubuntu-3ubuntu13.3", &["sshd_faults"]),
            ("OpenSSH_9.6p1", &["sshd_faults"]),
            ("OpenSSH_9.9p1", &["sshd_faults"]),
            ("OpenSSH_9.9p2", &[]),
            ("OpenSSH_10.4p1", &[]),
            ("OpenSSH_8.9p1 Ubuntu-3ubuntu0.10", &["sshd_version", "sshd_faults"]),
            ("nonsense", &["sshd_version"]),
        ] {
            assert_eq!(judged(version, false).found(), found, "{version}");
        }
        assert!(judged("OpenSSH_9.9p1", true).found().is_empty());
        assert!(judged("OpenSSH_9.9p1", true).text().contains("rpm -q --changelog"));
    }

    #[test]
    fn a_unit_without_new_privileges_is_named() {
        let shown = "Id=ssh.service\nLoadState=loaded\nNoNewPrivileges=yes\n\nId=sshd.service\nLoadState=not-found\n\
                     NoNewPrivileges=yes\n\nId=ssh@writ.service\nLoadState=loaded\nNoNewPrivileges=no\n";
        assert_eq!(without_privileges(shown), ["ssh.service"]);
        let mut report = Report::default();
        let openssh = OpenSsh {
            version: Ok("OpenSSH_10.4p1".to_owned()),
            rpm: false,
            units: Some(Ok(shown.to_owned())),
        };
        judge(&openssh, &mut report);
        assert_eq!(report.found(), ["sshd_unit"]);
        assert!(
            judged("OpenSSH_10.4p1", false)
                .text()
                .contains("systemd does not run here")
        );
    }
}
