//! The two accounts: who they are, who else has their rights, and what a login as one of them comes to.

use std::collections::BTreeSet;
use std::ffi::CString;
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group, User, getgrouplist};

use super::passwd::{self, Password};
use super::report::{Check, Report};
use super::{AGENT_EXEC, EXEC, LOGS, RUNNER, tools};
use crate::config::Config;

const ACCOUNTS: Check = Check {
    name: "accounts",
    what: "agent-runner and writ-exec exist, with ids that nobody shares",
    why: "whoever shares an id with them has their rights: over actions, or over the log",
    mend: "`writ/install NAME` makes them; `usermod -u UID OTHER` parts shared ids",
};
const IDS: Check = Check {
    name: "account_ids",
    what: "the ids in `target.toml` are those of the accounts",
    why: "agent-exec compares numbers before anything else and refuses every session",
    mend: "write the ids of `id agent-runner` and `id writ-exec` into target.toml",
};
const SHELL: Check = Check {
    name: "login_shell",
    what: "agent-runner's shell is agent-exec, writ-exec has none",
    why: "sshd runs the forced command through the login shell: any other one is a shell in the path",
    mend: "`usermod -s /usr/libexec/writ/agent-exec agent-runner`",
};
const PASSWORD: Check = Check {
    name: "password",
    what: "the password field of both accounts is `*`",
    why: "`!` locks the account for sshd too, and a hash or nothing lets somebody in without a certificate",
    mend: "`usermod -p '*' agent-runner`",
};
const HOME: Check = Check {
    name: "home",
    what: "the home of both accounts is `/`",
    why: "files in a home of their own would be read at login",
    mend: "`usermod -d / agent-runner`",
};
const GROUPS: Check = Check {
    name: "groups",
    what: "neither account is in another group, and nobody else is in agent-runner's",
    why: "actions would have the group's rights; and members of agent-runner's group can start agent-exec",
    mend: "`gpasswd -d agent-runner GROUP`",
};
pub(super) const CHECKS: &[&Check] = &[&ACCOUNTS, &IDS, &SHELL, &PASSWORD, &HOME, &GROUPS];

#[derive(Debug, Clone)]
struct Account {
    name: &'static str,
    uid: u32,
    gid: u32,
    home: PathBuf,
    shell: PathBuf,
    password: Password,
    /// Groups beside its own.
    groups: BTreeSet<String>,
    /// Other names with its uid.
    twins: Vec<String>,
}

#[derive(Debug, Clone)]
pub(super) struct Accounts {
    found: Vec<Account>,
    missing: Vec<&'static str>,
    /// Others in agent-runner's group, which may start agent-exec.
    members: Vec<String>,
    logs_gid: Option<u32>,
    /// Some ordinary account, to ask sshd about.
    pub(super) other: String,
}

/// The numbers that own the files of an installation.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Owners {
    pub(super) exec_uid: Option<u32>,
    pub(super) exec_gid: Option<u32>,
    pub(super) runner_gid: Option<u32>,
    pub(super) logs_gid: Option<u32>,
}

impl Accounts {
    /// The accounts that are there, with their uids.
    pub(super) fn uids(&self) -> Vec<(&'static str, u32)> {
        self.found.iter().map(|account| (account.name, account.uid)).collect()
    }

    /// The numbers of passwd; those of target.toml for an account that is not there. Where the two differ, that is a finding
    /// of its own, and one is enough.
    pub(super) fn owners(&self, config: Option<&Config>) -> Owners {
        let of = |name| self.found.iter().find(|account| account.name == name);
        let (exec, runner) = (of(EXEC), of(RUNNER));
        Owners {
            exec_uid: exec.map(|account| account.uid).or(config.map(|config| config.exec_uid)),
            exec_gid: exec.map(|account| account.gid),
            runner_gid: runner
                .map(|account| account.gid)
                .or(config.map(|config| config.runner_gid)),
            logs_gid: self.logs_gid,
        }
    }
}

pub(super) fn look() -> Accounts {
    let text = |path: &str| tools::read(Path::new(path)).ok().flatten();
    let passwd = text("/etc/passwd").unwrap_or_default();
    let shadow = text("/etc/shadow").unwrap_or_default();
    let group = text("/etc/group").unwrap_or_default();
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for name in [RUNNER, EXEC] {
        match User::from_name(name).ok().flatten() {
            Some(user) => found.push(account(name, &user, &passwd, &shadow)),
            None => missing.push(name),
        }
    }
    let runner_gid = found
        .iter()
        .find(|account| account.name == RUNNER)
        .map(|account| account.gid);
    Accounts {
        members: runner_gid
            .map(|gid| passwd::members(gid, &passwd, &group))
            .unwrap_or_default(),
        found,
        missing,
        logs_gid: Group::from_name(LOGS).ok().flatten().map(|group| group.gid.as_raw()),
        other: passwd::ordinary(&passwd),
    }
}

fn account(name: &'static str, user: &User, passwd: &str, shadow: &str) -> Account {
    let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
    Account {
        name,
        uid,
        gid,
        home: user.dir.clone(),
        shell: user.shell.clone(),
        password: passwd::password(name, user.passwd.to_str().unwrap_or("x"), shadow),
        groups: groups(name, user.gid),
        twins: passwd::twins(name, uid, passwd),
    }
}

/// The groups that a login has, as sshd will ask for them, beside its own.
fn groups(name: &str, own: Gid) -> BTreeSet<String> {
    let all = CString::new(name).ok().and_then(|name| getgrouplist(&name, own).ok());
    all.unwrap_or_default()
        .into_iter()
        .filter(|gid| *gid != own)
        .map(|gid| {
            let group = Group::from_gid(gid).ok().flatten();
            group.map_or_else(|| gid.to_string(), |group| group.name)
        })
        .collect()
}

pub(super) fn judge(accounts: &Accounts, config: Option<&Config>, report: &mut Report) {
    for name in &accounts.missing {
        report.finding(&ACCOUNTS, format!("there is no account {name}"), "writ/install NAME");
    }
    for account in &accounts.found {
        judge_account(account, report);
    }
    for member in &accounts.members {
        let what = format!("{member} is in the group of {RUNNER}");
        report.finding(&GROUPS, what, format!("gpasswd -d {member} {RUNNER}"));
    }
    if let Some(config) = config {
        judge_ids(accounts, config, report);
    } else {
        report.settle(&IDS, "not looked at: target.toml cannot be read");
    }
    for (check, fine) in [
        (
            &ACCOUNTS,
            "agent-runner and writ-exec are there, and share their ids with nobody",
        ),
        (&IDS, "target.toml and passwd agree"),
        (
            &SHELL,
            "agent-exec is agent-runner's login shell, and writ-exec has none",
        ),
        (&PASSWORD, "no password opens either account, and neither is locked"),
        (&HOME, "neither account has a home of its own"),
        (&GROUPS, "neither account is in another group"),
    ] {
        report.settle(check, fine);
    }
}

fn judge_account(account: &Account, report: &mut Report) {
    let Account { name, uid, .. } = account;
    for twin in &account.twins {
        report.finding(
            &ACCOUNTS,
            format!("{twin} has the uid of {name}, {uid}"),
            format!("userdel {twin}"),
        );
    }
    let shell = account.shell.to_string_lossy();
    if *name == RUNNER && shell != AGENT_EXEC {
        report.finding(
            &SHELL,
            format!("the shell of {name} is {shell}"),
            format!("usermod -s {AGENT_EXEC} {name}"),
        );
    }
    if *name == EXEC && !shell.ends_with("/nologin") && !shell.ends_with("/false") {
        report.finding(
            &SHELL,
            format!("the shell of {name} is {shell}"),
            format!("usermod -s /usr/sbin/nologin {name}"),
        );
    }
    let field = match account.password {
        Password::Star => None,
        Password::Locked => Some("locked (!)"),
        Password::Empty => Some("empty"),
        Password::Hash => Some("a hash"),
        Password::Missing => Some("not there"),
    };
    if let Some(field) = field {
        report.finding(
            &PASSWORD,
            format!("the password of {name} is {field}"),
            format!("usermod -p '*' {name}"),
        );
    }
    if account.home != Path::new("/") {
        let what = format!("the home of {name} is {}", account.home.display());
        report.finding(&HOME, what, format!("usermod -d / {name}"));
    }
    for group in &account.groups {
        report.finding(
            &GROUPS,
            format!("{name} is in the group {group}"),
            format!("gpasswd -d {name} {group}"),
        );
    }
}

fn judge_ids(accounts: &Accounts, config: &Config, report: &mut Report) {
    for account in &accounts.found {
        let pairs = if account.name == RUNNER {
            vec![
                ("runner_uid", config.runner_uid, account.uid),
                ("runner_gid", config.runner_gid, account.gid),
            ]
        } else {
            vec![("exec_uid", config.exec_uid, account.uid)]
        };
        for (key, written, real) in pairs {
            if written != real {
                let what = format!("{key} is {written} in target.toml, and {real} in passwd");
                let mend = format!("sed -i 's/^{key} .*/{key} = {real}/' {}", crate::CONFIG);
                report.finding(&IDS, what, mend);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Accounts {
        let account = |name, id, shell: &str| Account {
            name,
            uid: id,
            gid: id,
            home: PathBuf::from("/"),
            shell: PathBuf::from(shell),
            password: Password::Star,
            groups: BTreeSet::new(),
            twins: Vec::new(),
        };
        Accounts {
            found: vec![
                account(RUNNER, 990, AGENT_EXEC),
                account(EXEC, 991, "/usr/sbin/nologin"),
            ],
            missing: Vec::new(),
            members: Vec::new(),
            logs_gid: Some(992),
            other: "alice".to_owned(),
        }
    }

    fn config() -> Config {
        Config::parse("target = \"a\"\nrunner_uid = 990\nrunner_gid = 990\nexec_uid = 991\n").unwrap()
    }

    fn found(accounts: &Accounts, config: &Config) -> Vec<&'static str> {
        let mut report = Report::default();
        judge(accounts, Some(config), &mut report);
        report.found()
    }

    #[test]
    fn a_healthy_pair_of_accounts_has_no_findings() {
        let mut report = Report::default();
        judge(&healthy(), Some(&config()), &mut report);
        assert_eq!(report.found(), Vec::<&str>::new());
        assert_eq!(report.said().len(), CHECKS.len());
    }

    #[test]
    fn each_thing_that_is_broken_is_named() {
        type Break = fn(&mut Accounts);
        let table: &[(&str, Break)] = &[
            ("accounts", |accounts| accounts.missing.push(EXEC)),
            ("accounts", |accounts| accounts.found[0].twins.push("eve".to_owned())),
            ("account_ids", |accounts| accounts.found[0].uid = 1),
            ("account_ids", |accounts| accounts.found[0].gid = 1),
            ("account_ids", |accounts| accounts.found[1].uid = 1),
            ("login_shell", |accounts| {
                accounts.found[0].shell = PathBuf::from("/bin/sh")
            }),
            ("login_shell", |accounts| {
                accounts.found[1].shell = PathBuf::from("/bin/sh")
            }),
            ("password", |accounts| accounts.found[0].password = Password::Locked),
            ("password", |accounts| accounts.found[1].password = Password::Hash),
            ("home", |accounts| accounts.found[0].home = PathBuf::from("/home/x")),
            ("groups", |accounts| {
                accounts.found[1].groups = BTreeSet::from(["adm".to_owned()])
            }),
            ("groups", |accounts| accounts.members.push("alice".to_owned())),
        ];
        for (name, break_it) in table {
            let mut accounts = healthy();
            break_it(&mut accounts);
            assert_eq!(found(&accounts, &config()), [*name]);
        }
    }
}
