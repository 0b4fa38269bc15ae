//! `writ-target doctor`: is this host what a target must be, and what mends it where it is not?
//!
//! It asks the real thing: what sshd says about a login, what the file system says about every path, what ssh-keygen says
//! about the revocation list, the log itself. It changes nothing, starts nothing, and needs root, because half of what it
//! looks at only root can see. Each area looks first and judges afterwards, and judging is a pure function.

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::Config;
use crate::{CONFIG, Failure, MIGRATIONS, files};

mod above;
mod accounts;
mod actions;
mod approvers;
mod authority;
mod evidence;
mod faults;
mod later;
mod login;
mod machine;
mod migrations;
mod openssh;
mod passwd;
mod paths;
mod report;
mod settings;
mod sshd_text;
mod sudo;
mod tools;

pub use report::{Check, Report, Said, Verdict};

/// The account that logs in and that actions run as.
const RUNNER: &str = "agent-runner";
/// The account that owns log, ledger and receipt key.
const EXEC: &str = "writ-exec";
/// The group of those who ship logs.
const LOGS: &str = "writ-logs";
/// What every login gets, and agent-runner's shell.
const AGENT_EXEC: &str = "/usr/libexec/writ/agent-exec";
/// The folder of the log.
const LOG: &str = "/var/log/writ";
/// The keys that sign task certificates.
const CA: &str = "/etc/writ/ca.pub";

/// Longest configuration or key file that is read, in bytes.
const MAX_BYTES: u64 = 256 * 1024;

/// Everything that is checked, in the order in which it is said.
#[must_use]
pub fn checks() -> Vec<&'static Check> {
    [
        settings::CHECKS,
        login::CHECKS,
        openssh::CHECKS,
        accounts::CHECKS,
        later::CHECKS,
        paths::CHECKS,
        above::CHECKS,
        actions::CHECKS,
        migrations::CHECKS,
        sudo::CHECKS,
        authority::CHECKS,
        approvers::CHECKS,
        evidence::CHECKS,
        machine::CHECKS,
    ]
    .concat()
}

/// Looks at this host.
///
/// # Errors
/// [`Failure::Failed`] for anybody but root: an incomplete look would read like a clean one.
pub fn run() -> Result<Report, Failure> {
    if !nix::unistd::geteuid().is_root() {
        let what = "doctor reads what only root can see (passwords, keys, the log): run it with sudo";
        return Err(Failure::Failed(what.to_owned()));
    }
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map(|since| since.as_secs())
        .unwrap_or_default();
    let config = config();
    let known = config.as_ref().ok();
    let accounts = accounts::look();
    let authority = authority::look();

    let mut report = Report::new(known.map(|config| config.target.as_str().to_owned()));
    let sshd = settings::look(&accounts.other);
    let text = sshd_text::look();
    settings::judge(&sshd, &text, &mut report);
    login::judge(&login::look(&sshd, &text, authority.cas()), &mut report);
    openssh::judge(&openssh::look(), &mut report);
    accounts::judge(&accounts, known, &mut report);
    later::judge(&later::look(&accounts.uids()), &mut report);
    let paths = paths::look();
    paths::judge(&paths, &accounts.owners(known), &mut report);
    above::judge(&above::look(&paths.all()), &mut report);
    actions::judge(&actions::look(&config), &mut report);
    migrations::judge(&migrations::look(Path::new(MIGRATIONS)), &mut report);
    sudo::judge(&sudo::look(), &mut report);
    authority::judge(&authority, known, sshd.host_certificate(), now, &mut report);
    approvers::judge(&approvers::look(), known, &authority.machines(), now, &mut report);
    evidence::judge(&evidence::look(), now, &mut report);
    machine::judge(&machine::look(), &mut report);
    Ok(report)
}

fn config() -> Result<Config, String> {
    match files::read_owned(Path::new(CONFIG), 0, 0o022, MAX_BYTES) {
        Ok(Some(text)) => Config::parse(&text),
        Ok(None) => Err("is missing".to_owned()),
        Err(failure) => Err(failure.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_check_has_a_name_of_its_own_and_all_its_words() {
        let mut names: Vec<_> = checks().iter().map(|check| check.name).collect();
        for check in checks() {
            assert!(
                !check.what.is_empty() && !check.why.is_empty() && !check.mend.is_empty(),
                "{}",
                check.name
            );
        }
        names.sort_unstable();
        let number = names.len();
        names.dedup();
        assert_eq!(names.len(), number);
    }

    #[test]
    fn the_page_has_the_table_of_the_code() {
        let page = include_str!("../../../docs/doctor.md");
        let table: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
        let ours: Vec<String> = checks()
            .iter()
            .map(|check| format!("| `{}` | {} | {} | {} |", check.name, check.what, check.why, check.mend))
            .collect();
        assert_eq!(
            table,
            ours,
            "docs/doctor.md is not what the code checks:\n{}",
            ours.join("\n")
        );
    }
}
