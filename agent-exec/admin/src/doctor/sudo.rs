//! What runs as root: sudo, the file that lists it, and what sudo itself says of the two accounts.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::report::{Check, Report};
use super::{EXEC, RUNNER, tools};
use crate::sudoers::{self, MODE, SUDOERS, VISUDO};

const SUDO: Check = Check {
    name: "sudo",
    what: "sudo is there where an action runs as root, root's alone to write, with its set-user-id bit",
    why: "agent-exec starts this file and no other, and refuses one that others can write",
    mend: "`apt-get install --reinstall sudo`",
};
const LIST: Check = Check {
    name: "sudoers",
    what: "`/etc/sudoers.d/writ` lists the command lines of the catalogue's privileged actions, and visudo accepts it",
    why: "what is missing there cannot be run, and what is there in excess is a way to root that no manifest names",
    mend: "`writ-target sudoers --install`",
};
const RIGHTS: Check = Check {
    name: "sudo_rights",
    what: "sudo gives agent-runner nothing, and writ-exec those lines and nothing else",
    why: "actions run as agent-runner: a right of its own would be everybody's who may call one",
    mend: "take the account out of `/etc/sudoers` and the other files of `/etc/sudoers.d`",
};

pub(super) const CHECKS: &[&Check] = &[&SUDO, &LIST, &RIGHTS];

/// What is said of a mend that no command does.
const EDIT: &str = "visudo, and look through the files of /etc/sudoers.d";

#[derive(Debug, Clone)]
pub(super) struct Sudo {
    /// What is to say against the program; none where it is not there.
    program: Option<Vec<String>>,
    /// What the file has to hold; not known where the catalogue has faults.
    wanted: Result<String, String>,
    /// What it holds, with its owner and mode.
    found: Result<Option<(String, u32, u32)>, String>,
    /// What visudo says of all of sudoers.
    visudo: Result<(), String>,
    /// What sudo says of an account.
    runner: Result<String, String>,
    exec: Result<String, String>,
}

pub(super) fn look() -> Sudo {
    let path = Path::new(SUDOERS);
    let found = tools::at(path).and_then(|about| {
        let text = tools::read(path)?;
        Ok(about
            .zip(text)
            .map(|(about, text)| (text, about.uid(), about.mode() & 0o7777)))
    });
    let program = tools::at(Path::new(tools::SUDO)).ok().flatten();
    let asked = |account: &str| match &program {
        None => Ok(String::new()),
        Some(_) => tools::run(tools::SUDO, &["-n", "-l", "-U", account]).and_then(|ran| match ran.ok {
            true => Ok(ran.stdout),
            false => Err(ran.complaint()),
        }),
    };
    Sudo {
        program: program
            .as_ref()
            .map(|about| faults_of(about.is_file(), about.uid(), about.mode())),
        wanted: sudoers::run().map_err(|failure| failure.to_string()),
        found,
        visudo: match &program {
            None => Ok(()),
            Some(_) => tools::run(VISUDO, &["-c"]).and_then(|ran| match ran.ok {
                true => Ok(()),
                false => Err(ran.complaint()),
            }),
        },
        runner: asked(RUNNER),
        exec: asked(EXEC),
    }
}

fn faults_of(is_file: bool, uid: u32, mode: u32) -> Vec<String> {
    let mut faults = Vec::new();
    if !is_file {
        faults.push("is not a regular file".to_owned());
    }
    if uid != 0 || mode & 0o022 != 0 {
        faults.push(format!("belongs to {uid} with mode {:o}", mode & 0o7777));
    }
    if mode & 0o4000 == 0 || mode & 0o2000 != 0 {
        faults.push(format!("has not the set-user-id bit alone (mode {:o})", mode & 0o7777));
    }
    faults
}

/// The rules of a file of ours.
fn rules(text: &str) -> impl Iterator<Item = &str> {
    text.lines().filter(|line| line.starts_with(EXEC))
}

pub(super) fn judge(sudo: &Sudo, report: &mut Report) {
    let needed = sudo.wanted.as_ref().is_ok_and(|text| rules(text).next().is_some());
    match &sudo.program {
        None if needed => report.finding(&SUDO, format!("{} is missing", tools::SUDO), "apt-get install sudo"),
        None => {}
        Some(faults) => {
            for fault in faults {
                let mend = format!("chown root:root {0} && chmod 4755 {0}", tools::SUDO);
                report.finding(&SUDO, format!("{} {fault}", tools::SUDO), mend);
            }
        }
    }
    let said = if needed {
        "as it must be"
    } else {
        "no action runs as root"
    };
    report.settle(&SUDO, said);
    judge_list(sudo, needed, report);
    judge_rights(sudo, report);
}

fn judge_list(sudo: &Sudo, needed: bool, report: &mut Report) {
    let install = "writ-target sudoers --install";
    match (&sudo.wanted, &sudo.found) {
        (Err(what), _) => report.notice(&LIST, format!("not looked at: {what}"), "writ-target catalogue lint"),
        (_, Err(what)) => report.finding(&LIST, what, install),
        (Ok(_), Ok(None)) if needed => report.finding(&LIST, format!("{SUDOERS} is missing"), install),
        (Ok(_), Ok(None)) => {}
        (Ok(wanted), Ok(Some((text, uid, mode)))) => {
            if (*uid, *mode) != (0, MODE) {
                let what = format!("{SUDOERS} belongs to {uid} with mode {mode:o}, not to root with {MODE:o}");
                report.finding(
                    &LIST,
                    what,
                    format!("chown root:root {SUDOERS} && chmod {MODE:o} {SUDOERS}"),
                );
            }
            if text != wanted {
                let what = format!("{SUDOERS} is not what the catalogue says now");
                report.finding(&LIST, what, install);
            }
        }
    }
    if let Err(what) = &sudo.visudo {
        report.finding(&LIST, format!("visudo -c: {what}"), EDIT);
    }
    let number = sudo.wanted.as_ref().map_or(0, |text| rules(text).count());
    report.settle(
        &LIST,
        format!("{number} command lines, which are those of the catalogue"),
    );
}

fn judge_rights(sudo: &Sudo, report: &mut Report) {
    for (account, said) in [(RUNNER, &sudo.runner), (EXEC, &sudo.exec)] {
        if let Err(what) = said {
            report.finding(&RIGHTS, format!("sudo -l -U {account}: {what}"), EDIT);
        }
    }
    for right in sudo.runner.iter().flat_map(|said| rights(said)) {
        report.finding(&RIGHTS, format!("{RUNNER} may: {right}"), EDIT);
    }
    if let (Ok(wanted), Ok(said)) = (&sudo.wanted, &sudo.exec) {
        let listed: BTreeSet<String> = rules(wanted)
            .filter_map(|rule| right(rule.split_once(" = ")?.1))
            .collect();
        let has: BTreeSet<String> = rights(said)
            .map(|line| right(line).unwrap_or_else(|| line.to_owned()))
            .collect();
        for excess in has.difference(&listed) {
            report.finding(&RIGHTS, format!("{EXEC} may also: {excess}"), EDIT);
        }
        // A file that is not there, or another one, has been told of already.
        if matches!(&sudo.found, Ok(Some((text, ..))) if text == wanted) {
            for missing in listed.difference(&has) {
                let what = format!("sudo does not give {EXEC}: {missing}");
                report.finding(&RIGHTS, what, "visudo: does /etc/sudoers include /etc/sudoers.d?");
            }
        }
    }
    report.settle(&RIGHTS, format!("{RUNNER} has none, {EXEC} those of {SUDOERS}"));
}

/// The rights in what `sudo -l` says (one a line, indented, behind whom one becomes in brackets).
fn rights(said: &str) -> impl Iterator<Item = &str> {
    said.lines()
        .filter(|line| line.starts_with(' ') && line.trim_start().starts_with('('))
        .map(str::trim)
}

/// A right in one spelling: its time, and its command. None for one that is not of our kind.
fn right(text: &str) -> Option<String> {
    let (tags, command) = text.strip_prefix("(root) ")?.split_once(" /")?;
    let mut tags: Vec<&str> = tags.split_whitespace().collect();
    tags.sort_unstable();
    Some(format!("{} /{command}", tags.join(" ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: &str = "writ-exec ALL = (root) TIMEOUT=30 NOPASSWD: NOSETENV: /usr/bin/x go a\\:b";
    const SAID: &str = "Matching Defaults entries for writ-exec on web-1:\n    env_reset, !setenv\n\nUser writ-exec may run \
                        the following commands on web-1:\n    (root) TIMEOUT=30 NOSETENV: NOPASSWD: /usr/bin/x go a\\:b\n";
    const NONE: &str = "User agent-runner is not allowed to run sudo on web-1.\n";

    fn healthy() -> Sudo {
        let text = format!("# made\nDefaults:writ-exec env_reset\n{RULE}\n");
        Sudo {
            program: Some(Vec::new()),
            wanted: Ok(text.clone()),
            found: Ok(Some((text, 0, 0o440))),
            visudo: Ok(()),
            runner: Ok(NONE.to_owned()),
            exec: Ok(SAID.to_owned()),
        }
    }

    fn found(change: impl FnOnce(&mut Sudo)) -> Vec<&'static str> {
        let mut sudo = healthy();
        change(&mut sudo);
        let mut report = Report::default();
        judge(&sudo, &mut report);
        assert!(report.said().len() >= CHECKS.len());
        report.found()
    }

    #[test]
    fn what_is_listed_is_what_sudo_gives_and_to_one_account_alone() {
        assert!(found(|_| {}).is_empty());
        assert_eq!(found(|sudo| sudo.program = None), ["sudo"]);
        assert_eq!(found(|sudo| sudo.program = Some(vec!["x".to_owned()])), ["sudo"]);
        assert_eq!(found(|sudo| sudo.found = Ok(None)), ["sudoers"]);
        assert_eq!(found(|sudo| sudo.found = Err("is a folder".to_owned())), ["sudoers"]);
        assert_eq!(found(|sudo| sudo.visudo = Err("syntax".to_owned())), ["sudoers"]);
        for (text, uid, mode) in [("other", 0, 0o440), ("", 0, 0o440)] {
            assert_eq!(
                found(|sudo| sudo.found = Ok(Some((text.to_owned(), uid, mode)))),
                ["sudoers"]
            );
        }
        let wanted = healthy().wanted.unwrap();
        for (uid, mode) in [(1, 0o440), (0, 0o644), (0, 0o460)] {
            assert_eq!(
                found(|sudo| sudo.found = Ok(Some((wanted.clone(), uid, mode)))),
                ["sudoers"]
            );
        }
    }

    #[test]
    fn every_other_right_of_the_accounts_is_a_finding() {
        for right in ["(ALL) ALL", "(root) NOPASSWD: /usr/bin/x", "(ALL : ALL) NOPASSWD: ALL"] {
            assert_eq!(
                found(|sudo| sudo.runner = Ok(format!("User agent-runner may run:\n    {right}\n"))),
                ["sudo_rights"]
            );
            assert_eq!(
                found(|sudo| sudo.exec = Ok(format!("{SAID}    {right}\n"))),
                ["sudo_rights"]
            );
        }
        // The same command with another time, with arguments of one's own, or with an environment.
        for (from, to) in [
            ("=30", "=40"),
            ("x go a\\:b", "x"),
            ("NOSETENV", "SETENV"),
            ("TIMEOUT=30 ", ""),
        ] {
            let said = SAID.replace(from, to);
            assert_eq!(
                found(|sudo| sudo.exec = Ok(format!("{SAID}{said}"))),
                ["sudo_rights"],
                "{said}"
            );
        }
        assert_eq!(found(|sudo| sudo.exec = Ok(String::new())), ["sudo_rights"]);
        assert_eq!(found(|sudo| sudo.exec = Err("no".to_owned())), ["sudo_rights"]);
        assert_eq!(found(|sudo| sudo.runner = Err("no".to_owned())), ["sudo_rights"]);
    }

    #[test]
    fn a_target_without_privileged_actions_needs_no_sudo() {
        let nothing = |sudo: &mut Sudo| {
            *sudo = Sudo {
                program: None,
                wanted: Ok("# none\n".to_owned()),
                found: Ok(None),
                visudo: Ok(()),
                runner: Ok(String::new()),
                exec: Ok(String::new()),
            }
        };
        assert!(found(nothing).is_empty());
        // What was left behind still counts.
        assert_eq!(
            found(|sudo| {
                nothing(sudo);
                sudo.found = Ok(Some((RULE.to_owned(), 0, 0o440)));
            }),
            ["sudoers"]
        );
    }

    #[test]
    fn sudo_is_judged_by_owner_and_mode() {
        assert!(faults_of(true, 0, 0o104_755).is_empty());
        for (is_file, uid, mode) in [
            (true, 0, 0o755),
            (true, 1, 0o4755),
            (true, 0, 0o4775),
            (true, 0, 0o6755),
            (false, 0, 0o4755),
        ] {
            assert_eq!(faults_of(is_file, uid, mode).len(), 1, "{is_file} {uid} {mode:o}");
        }
    }
}
