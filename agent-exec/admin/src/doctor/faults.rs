//! Known faults of sshd, and how versions compare.
//!
//! Distributions mend faults without a new version, so the table has the first mended revision of their packages.

use std::cmp::Ordering;

/// A fault of some versions of sshd.
pub(super) struct Fault {
    pub(super) name: &'static str,
    /// The first version that has it, and the first that has not: major, minor, portable's number.
    versions: [(u32, u32, u32); 2],
    /// Packages that mended it without a new version: distribution, upstream version, first good revision.
    mended: &'static [(&'static str, (u32, u32), &'static str)],
    /// Why it matters on a target, or what covers it.
    pub(super) reason: &'static str,
    pub(super) weight: Weight,
}

#[derive(PartialEq, Eq)]
pub(super) enum Weight {
    /// A target should not be run with it.
    Open,
    /// What a target is configured to do keeps it out of reach.
    Covered,
}

/// Faults of sshd itself from 9.2 on. Those of ssh, scp, sftp and ssh-agent are left out: a target runs none of them for Writ.
pub(super) const KNOWN: &[Fault] = &[
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
pub(super) struct Version {
    pub(super) number: (u32, u32, u32),
    pub(super) package: Option<(String, String)>,
    pub(super) text: String,
}

impl Version {
    /// Reads how a version is told.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let text = text.split(',').next()?.trim();
        let (number, package) = text.split_once(' ').unwrap_or((text, ""));
        let (upstream, portable) = number
            .strip_prefix("OpenSSH_")?
            .split_once('p')
            .unwrap_or((number, "1"));
        let (major, minor) = upstream.trim_start_matches("OpenSSH_").split_once('.')?;
        Some(Self {
            number: (major.parse().ok()?, minor.parse().ok()?, portable.parse().ok()?),
            package: package
                .split_once('-')
                .map(|(name, revision)| (name.to_owned(), revision.to_owned())),
            text: text.to_owned(),
        })
    }
}

impl Fault {
    /// Whether a version has it, and its package did not mend it.
    pub(super) fn is_in(&self, version: &Version) -> bool {
        let [since, until] = self.versions;
        if version.number < since || version.number >= until {
            return false;
        }
        let Some((distribution, revision)) = &version.package else {
            return true;
        };
        let (major, minor, _) = version.number;
        !self.mended.iter().any(|(name, upstream, good)| {
            name == distribution && *upstream == (major, minor) && compare(revision, good) != Ordering::Less
        })
    }
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

#[cfg(test)]
mod tests {
    use super::*;

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
        let version = Version::parse("OpenSSH_9.2p1 Debian-2+deb12u10, OpenSSL 3.0.19 27 Jan 2026").unwrap();
        assert_eq!(version.number, (9, 2, 1));
        assert_eq!(version.package, Some(("Debian".to_owned(), "2+deb12u10".to_owned())));
        assert_eq!(Version::parse("OpenSSH_10.0p2, LibreSSL").unwrap().number, (10, 0, 2));
        assert_eq!(Version::parse("OpenSSH_9.9").unwrap().number, (9, 9, 1));
        assert!(Version::parse("dropbear 2022").is_none());
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
}
