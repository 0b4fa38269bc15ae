//! What could run as one of the accounts outside of a session: a user manager, cron, at.

use std::path::{Path, PathBuf};

use super::report::{Check, Report};
use super::tools;

const MANAGER: Check = Check {
    name: "user_manager",
    what: "systemd's user manager is masked for both accounts",
    why: "it would run programs outside of the limits and the deadline of actions",
    mend: "`systemctl mask user@UID.service`",
};
const CRON: Check = Check {
    name: "cron",
    what: "cron is denied to both accounts",
    why: "an action could leave something behind that runs later, outside of its limits",
    mend: "`echo agent-runner >>/etc/cron.deny`",
};
const AT: Check = Check {
    name: "at",
    what: "at is denied to both accounts",
    why: "an action could leave something behind that runs later, outside of its limits",
    mend: "`echo agent-runner >>/etc/at.deny`",
};

pub(super) const CHECKS: &[&Check] = &[&MANAGER, &CRON, &AT];

/// Who may use a scheduler: `allow` decides where it is there.
#[derive(Debug, Clone, Default)]
struct Scheduler {
    allow: Option<String>,
    deny: Option<String>,
    /// Whether everybody may use it where neither file is there.
    open: bool,
    /// Accounts of ours that have a table already.
    tables: Vec<&'static str>,
}

#[derive(Debug, Clone)]
pub(super) struct Later {
    /// Name, uid, and whether its user manager is masked.
    accounts: Vec<(&'static str, u32, bool)>,
    cron: Scheduler,
    at: Scheduler,
}

pub(super) fn look(uids: &[(&'static str, u32)]) -> Later {
    let text = |path: &str| tools::read(Path::new(path)).ok().flatten();
    let scheduler = |allow, deny, tables: &str, open| Scheduler {
        allow: text(allow),
        deny: text(deny),
        open,
        tables: uids
            .iter()
            .map(|(name, _)| *name)
            .filter(|name| Path::new(tables).join(name).exists())
            .collect(),
    };
    let masked = |uid: u32| std::fs::read_link(unit(uid)).is_ok_and(|to| to == Path::new("/dev/null"));
    // at(1): root alone, where neither file is there. crontab(1) leaves it to the system; Debian lets everybody in.
    let debian = Path::new("/etc/debian_version").exists();
    Later {
        accounts: uids.iter().map(|(name, uid)| (*name, *uid, masked(*uid))).collect(),
        cron: scheduler("/etc/cron.allow", "/etc/cron.deny", "/var/spool/cron/crontabs", debian),
        at: scheduler("/etc/at.allow", "/etc/at.deny", "/nonexistent", false),
    }
}

fn unit(uid: u32) -> PathBuf {
    PathBuf::from(format!("/etc/systemd/system/user@{uid}.service"))
}

pub(super) fn judge(later: &Later, report: &mut Report) {
    for (name, uid, masked) in &later.accounts {
        if !masked {
            let what = format!("user@{uid}.service, of {name}, is not masked");
            report.finding(&MANAGER, what, format!("ln -sfn /dev/null {}", unit(*uid).display()));
        }
        for (check, tool, scheduler) in [(&CRON, "cron", &later.cron), (&AT, "at", &later.at)] {
            judge_scheduler(check, tool, scheduler, name, report);
        }
    }
    report.settle(&MANAGER, "masked for both accounts");
    report.settle(&CRON, "denied to both accounts");
    report.settle(&AT, "denied to both accounts");
}

/// crontab(1), at(1): where there is an allow file it decides, else the deny file.
fn judge_scheduler(check: &'static Check, tool: &str, scheduler: &Scheduler, name: &str, report: &mut Report) {
    let lists = |text: &Option<String>| {
        text.as_ref()
            .is_some_and(|text| text.lines().any(|line| line.trim() == name))
    };
    if scheduler.allow.is_some() {
        if lists(&scheduler.allow) {
            let mend = format!("sed -i /^{name}$/d /etc/{tool}.allow");
            report.finding(check, format!("/etc/{tool}.allow lists {name}"), mend);
        }
    } else if !lists(&scheduler.deny) && (scheduler.deny.is_some() || scheduler.open) {
        let what = format!("/etc/{tool}.deny does not list {name}");
        report.finding(check, what, format!("echo {name} >>/etc/{tool}.deny"));
    }
    if scheduler.tables.contains(&name) {
        report.finding(
            check,
            format!("{name} has a {tool} table"),
            format!("crontab -u {name} -r"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Later {
        let scheduler = Scheduler {
            deny: Some("agent-runner\nwrit-exec\n".to_owned()),
            open: true,
            ..Scheduler::default()
        };
        Later {
            accounts: vec![("agent-runner", 990, true), ("writ-exec", 991, true)],
            cron: scheduler.clone(),
            at: scheduler,
        }
    }

    fn judged(later: &Later) -> Report {
        let mut report = Report::default();
        judge(later, &mut report);
        report
    }

    #[test]
    fn masked_and_denied_accounts_have_no_findings() {
        assert_eq!(judged(&healthy()).found(), Vec::<&str>::new());
        assert_eq!(judged(&healthy()).said().len(), CHECKS.len());
        let mut later = healthy();
        later.cron = Scheduler {
            allow: Some("root\n".to_owned()),
            ..Scheduler::default()
        };
        assert!(judged(&later).found().is_empty(), "an allow file without them denies");
        later.cron = Scheduler::default();
        assert!(
            judged(&later).found().is_empty(),
            "so does the absence of both files, where that means root alone"
        );
    }

    #[test]
    fn each_way_to_run_later_is_named() {
        type Break = fn(&mut Later);
        let table: &[(&str, Break)] = &[
            ("user_manager", |later| later.accounts[1].2 = false),
            ("cron", |later| later.cron.deny = None),
            ("cron", |later| later.cron.allow = Some("agent-runner\n".to_owned())),
            ("cron", |later| later.cron.tables.push("agent-runner")),
            ("at", |later| later.at.deny = Some("agent-runner\n".to_owned())),
        ];
        for (name, break_it) in table {
            let mut later = healthy();
            break_it(&mut later);
            assert_eq!(judged(&later).found(), [*name]);
        }
    }
}
