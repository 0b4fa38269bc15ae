//! Which OpenSSH this is, the faults that are known in it, and how systemd starts it.
//!
//! Distributions mend faults without a new version, so the table has the first mended revision of their packages. A package
//! whose revision the version does not tell (rpm) is named for the administrator to look up, not condemned.

use std::cmp::Ordering;
use std::path::Path;

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

/// A fault of some versions of sshd.
struct Fault {
    name: &'static str,
    /// The first version that has it, and the first that has not: major, minor, portable's number.
    versions: [(u32, u32, u32); 2],
    /// Packages that mended it without a new version: distribution, upstream version, first good revision.
    mended: &'static [(&'static str, (u32, u32), &'static str)],
    /// Why it matters on a target, or what covers it.
    reason: &'static str,
    weight: Weight,
}

#[derive(PartialEq, Eq)]
enum Weight {
    /// A target should not be run with it.
    Open,
    /// What a target is configured to do keeps it out of reach.
    Covered,
}

/// Faults of sshd itself from 9.2 on. Those of ssh, scp, sftp and ssh-agent are left out: a target runs none of them for Writ.
const KNOWN: &[Fault] = &[
    Fault {
        name: "CVE-2024-6387",
        versions: [(8, 5, 1), (9, 8, 1)],
        mended: &[("Debian", (9, 2), "2+deb12u3"), ("Ubuntu", (9, 6), "3ubuntu13.3")],
        reason: "code of a stranger's runs as root, before any authentication",
        weight: Weight::Open,
    },
    Fault {
        name: "CVE-2025-26466",
        versions: [(9, 5, 1), (9, 9, 2)],
        mended: &[("Ubuntu", (9, 6), "3ubuntu13.8")],
        reason: "a stranger takes sshd's memory and time with pings, before any authentication",
        weight: Weight::Open,
    },
    Fault {
        name: "CVE-2023-48795",
        versions: [(0, 0, 0), (9, 6, 1)],
        mended: &[("Debian", (9, 2), "2+deb12u2")],
        reason: "first messages can be dropped on the way with chacha20-poly1305; relays offer AES-GCM alone",
        weight: Weight::Covered,
    },
    Fault {
        name: "CVE-2025-32728",
        versions: [(7, 4, 1), (10, 0, 1)],
        mended: &[("Debian", (9, 2), "2+deb12u6")],
        reason: "DisableForwarding leaves X11 and the agent on; 50-writ.conf switches each off by its own directive",
        weight: Weight::Covered,
    },
    Fault {
        name: "PermitTunnel (10.4)",
        versions: [(7, 4, 1), (10, 4, 1)],
        mended: &[],
        reason: "DisableForwarding leaves tunnels on; 50-writ.conf switches them off by their own directive",
        weight: Weight::Covered,
    },
    Fault {
        name: "CVE-2026-35387",
        versions: [(0, 0, 0), (10, 3, 1)],
        mended: &[("Debian", (9, 2), "2+deb12u10")],
        reason: "one ECDSA algorithm in a list admits all; 50-writ.conf lists ed25519 certificates alone",
        weight: Weight::Covered,
    },
    Fault {
        name: "CVE-2026-35414",
        versions: [(0, 0, 0), (10, 3, 1)],
        mended: &[("Debian", (9, 2), "2+deb12u10")],
        reason: "principals with commas in authorized_keys; 50-writ.conf reads no authorized_keys",
        weight: Weight::Covered,
    },
];

/// `OpenSSH_9.2p1 Debian-2+deb12u10`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Version {
    number: (u32, u32, u32),
    package: Option<(String, String)>,
    text: String,
}

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
        .and_then(|text| parse(&text).ok_or_else(|| format!("sshd's version is not understood: {text}")));
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
    for fault in KNOWN.iter().filter(|fault| has(version, fault)) {
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

fn has(version: &Version, fault: &Fault) -> bool {
    let [since, until] = fault.versions;
    if version.number < since || version.number >= until {
        return false;
    }
    let Some((distribution, revision)) = &version.package else {
        return true;
    };
    let (major, minor, _) = version.number;
    !fault.mended.iter().any(|(name, upstream, good)| {
        name == distribution && *upstream == (major, minor) && compare(revision, good) != Ordering::Less
    })
}

fn parse(text: &str) -> Option<Version> {
    let text = text.split(',').next()?.trim();
    let (number, package) = text.split_once(' ').unwrap_or((text, ""));
    let (upstream, portable) = number
        .strip_prefix("OpenSSH_")?
        .split_once('p')
        .unwrap_or((number, "1"));
    let (major, minor) = upstream.trim_start_matches("OpenSSH_").split_once('.')?;
    Some(Version {
        number: (major.parse().ok()?, minor.parse().ok()?, portable.parse().ok()?),
        package: package
            .split_once('-')
            .map(|(name, revision)| (name.to_owned(), revision.to_owned())),
        text: text.to_owned(),
    })
}

/// Compares revisions as dpkg does (deb-version(7)): letters before other signs, `~` before the end, numbers as numbers.
fn compare(mut left: &str, mut right: &str) -> Ordering {
    let weight = |sign: Option<char>| match sign {
        Some('~') => -1,
        None => 0,
        Some(letter) if letter.is_ascii_alphabetic() => letter as i32,
        Some(other) => other as i32 + 256,
    };
    while !left.is_empty() || !right.is_empty() {
        let word = |text: &str| text.find(|c: char| c.is_ascii_digit()).unwrap_or(text.len());
        let ((a, left_rest), (b, right_rest)) = (left.split_at(word(left)), right.split_at(word(right)));
        let (mut a, mut b) = (a.chars(), b.chars());
        loop {
            let (x, y) = (a.next(), b.next());
            match weight(x).cmp(&weight(y)) {
                Ordering::Equal if x.is_none() => break,
                Ordering::Equal => {}
                other => return other,
            }
        }
        let digits = |text: &str| text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let ((a, after_left), (b, after_right)) = (
            left_rest.split_at(digits(left_rest)),
            right_rest.split_at(digits(right_rest)),
        );
        let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
        match a.len().cmp(&b.len()).then_with(|| a.cmp(b)) {
            Ordering::Equal => (left, right) = (after_left, after_right),
            other => return other,
        }
    }
    Ordering::Equal
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
    fn the_page_has_the_faults_of_the_code() {
        let page = include_str!("../../../../docs/doctor.md");
        let table: Vec<&str> = page.lines().filter(|line| line.starts_with("| *")).collect();
        let number = |(major, minor, portable): (u32, u32, u32)| match (major, portable) {
            (0, _) => "always".to_owned(),
            _ => format!("{major}.{minor}p{portable}"),
        };
        let ours: Vec<String> = KNOWN
            .iter()
            .map(|fault| {
                let [since, until] = fault.versions.map(number);
                let packages: Vec<String> = fault
                    .mended
                    .iter()
                    .map(|(name, (major, minor), good)| format!("{name} {major}.{minor} {good}"))
                    .collect();
                let said = if fault.weight == Weight::Open {
                    "finding"
                } else {
                    "covered"
                };
                format!(
                    "| *{}* | {since} | {until} | {} | {said} | {} |",
                    fault.name,
                    packages.join(", "),
                    fault.reason
                )
            })
            .collect();
        assert_eq!(table, ours, "docs/doctor.md has other faults:\n{}", ours.join("\n"));
    }

    #[test]
    fn versions_are_understood_with_and_without_a_package() {
        let version = parse("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026").unwrap();
        assert_eq!(version.number, (9, 2, 1));
        assert_eq!(version.package, Some(("Debian".to_owned(), "2+deb12u10".to_owned())));
        assert_eq!(parse("OpenSSH_10.0p2, LibreSSL").unwrap().number, (10, 0, 2));
        assert_eq!(parse("OpenSSH_9.9").unwrap().number, (9, 9, 1));
        assert!(parse("dropbear 2022").is_none());
    }

    #[test]
    fn revisions_compare_as_dpkg_says() {
        for (left, right, expected) in [
            ("2+deb12u10", "2+deb12u3", Ordering::Greater),
            ("2+deb12u2", "2+deb12u3", Ordering::Less),
            ("2", "2+deb12u3", Ordering::Less),
            ("2+deb12u3", "2+deb12u3", Ordering::Equal),
            ("3ubuntu13.11", "3ubuntu13.3", Ordering::Greater),
            ("3ubuntu13", "3ubuntu13.3", Ordering::Less),
            ("2+deb12u3~bpo1", "2+deb12u3", Ordering::Less),
            ("02", "2", Ordering::Equal),
        ] {
            assert_eq!(compare(left, right), expected, "{left} {right}");
            assert_eq!(compare(right, left), expected.reverse(), "{right} {left}");
        }
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
