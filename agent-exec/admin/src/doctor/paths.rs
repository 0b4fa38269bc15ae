//! Owners and modes of every path of an installation.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::accounts::Owners;
use super::report::{Check, Report};
use super::tools;
use super::{AGENT_EXEC, EXEC, LOG, LOGS, RUNNER};

const PATHS: Check = Check {
    name: "paths",
    what: "every file and folder of the installation is there, with the owner and mode of the design",
    why: "whoever can write one of them decides what is allowed, what runs, or what is remembered",
    mend: "`chown OWNER PATH && chmod MODE PATH`",
};
const PROGRAM: Check = Check {
    name: "agent_exec",
    what: "agent-exec belongs to writ-exec:agent-runner, mode 4750",
    why: "without the bit it refuses every session; with more, other accounts can start it",
    mend: "`chown writ-exec:agent-runner PATH && chmod 4750 PATH`",
};
pub(super) const CHECKS: &[&Check] = &[&PATHS, &PROGRAM];

/// The configuration's folder.
const ETC: &str = "/etc/writ";
/// The SQL that migrations are run by.
const SQL: &str = "/usr/share/writ/databases";
/// What agent-exec keeps for itself.
const STATE: &str = "/var/lib/writ";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    File,
    Folder,
}

/// What a mode must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    /// Root's, readable by all, writable by root alone; the number is what it is mended to.
    Open(u32),
    /// Exactly this, owned by writ-exec, with the group of agent-runner, of writ-exec, or of the log shippers.
    Program,
    Key,
    State,
    Ledger,
    Kept,
    Log,
    Segment,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Rule {
    path: PathBuf,
    kind: Kind,
    mode: Mode,
    needed: bool,
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    kind: Option<Kind>,
    uid: u32,
    gid: u32,
    mode: u32,
}

impl From<Metadata> for Seen {
    fn from(about: Metadata) -> Self {
        Self {
            kind: match (about.is_file(), about.is_dir()) {
                (true, _) => Some(Kind::File),
                (_, true) => Some(Kind::Folder),
                _ => None,
            },
            uid: about.uid(),
            gid: about.gid(),
            mode: about.mode() & 0o7777,
        }
    }
}

type Looked = Result<Option<Seen>, String>;

#[derive(Debug, Clone)]
pub(super) struct Paths {
    rules: Vec<(Rule, Looked)>,
}

impl Paths {
    /// All of them.
    pub(super) fn all(&self) -> Vec<&Path> {
        self.rules.iter().map(|(rule, _)| rule.path.as_path()).collect()
    }
}

pub(super) fn look() -> Paths {
    let mut rules = fixed();
    let names = |folder: &str| {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    };
    let mut add = |folder: &str, name: &str, mode| {
        let path = Path::new(folder).join(name);
        if !rules.iter().any(|rule| rule.path == path) {
            rules.push(Rule {
                path,
                kind: Kind::File,
                mode,
                needed: true,
            });
        }
    };
    let apart = ["halt", "migrations"];
    for name in names(ETC).iter().filter(|name| !apart.contains(&name.as_str())) {
        add(ETC, name, Mode::Open(0o644));
    }
    for name in names(crate::ACTIONS) {
        add(crate::ACTIONS, &name, Mode::Open(0o644));
    }
    // What lies in folders in there is out of everybody else's reach.
    for name in names(STATE).iter().filter(|name| Path::new(STATE).join(name).is_file()) {
        add(STATE, name, Mode::Kept);
    }
    for name in names(LOG).iter().filter(|name| name.ends_with(".jsonl")) {
        add(LOG, name, Mode::Segment);
    }
    // This very program: root must never run one that another account can rewrite.
    if let Ok(program) = std::env::current_exe() {
        add("/", &program.to_string_lossy(), Mode::Open(0o755));
    }
    for folder in [crate::MIGRATIONS, SQL] {
        beneath(Path::new(folder), &mut rules);
    }
    Paths {
        rules: rules
            .into_iter()
            .map(|rule| {
                let looked = tools::at(&rule.path).map(|found| found.map(Seen::from));
                (rule, looked)
            })
            .collect(),
    }
}

/// A folder, where it is there, and all in it: root's.
fn beneath(path: &Path, rules: &mut Vec<Rule>) {
    let Ok(about) = std::fs::symlink_metadata(path) else {
        return;
    };
    let (kind, mode) = match about.is_dir() {
        true => (Kind::Folder, 0o755),
        false => (Kind::File, 0o644),
    };
    rules.push(Rule {
        path: path.to_owned(),
        kind,
        mode: Mode::Open(mode),
        needed: true,
    });
    if kind == Kind::Folder {
        let mut names: Vec<PathBuf> = std::fs::read_dir(path)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .collect();
        names.sort();
        for name in names {
            beneath(&name, rules);
        }
    }
}

/// What every target has, whatever else lies in its folders.
fn fixed() -> Vec<Rule> {
    let rule = |path: &str, kind, mode, needed| Rule {
        path: PathBuf::from(path),
        kind,
        mode,
        needed,
    };
    vec![
        rule(ETC, Kind::Folder, Mode::Open(0o755), true),
        rule("/etc/writ/target.toml", Kind::File, Mode::Open(0o644), true),
        rule("/etc/writ/ca.pub", Kind::File, Mode::Open(0o644), true),
        rule("/etc/writ/principals", Kind::File, Mode::Open(0o644), true),
        rule("/etc/writ/krl", Kind::File, Mode::Open(0o644), true),
        rule("/etc/writ/receipt.key", Kind::File, Mode::Key, true),
        rule(crate::ACTIONS, Kind::Folder, Mode::Open(0o755), true),
        rule("/etc/ssh/sshd_config", Kind::File, Mode::Open(0o644), true),
        rule(
            "/etc/ssh/sshd_config.d/50-writ.conf",
            Kind::File,
            Mode::Open(0o644),
            true,
        ),
        rule(
            "/etc/ssh/sshd_config.d/49-writ-hostcert.conf",
            Kind::File,
            Mode::Open(0o644),
            false,
        ),
        rule("/usr/libexec/writ", Kind::Folder, Mode::Open(0o755), true),
        rule(AGENT_EXEC, Kind::File, Mode::Program, true),
        rule("/usr/libexec/writ/inspect", Kind::File, Mode::Open(0o755), true),
        rule(STATE, Kind::Folder, Mode::State, true),
        // agent-exec makes it when it is first needed, with the group that it runs with.
        rule("/var/lib/writ/ledger", Kind::Folder, Mode::Ledger, false),
        rule(LOG, Kind::Folder, Mode::Log, true),
    ]
}

impl Mode {
    /// The owner and group in words, and the mode, that a path is mended to.
    fn mended(self) -> (String, u32) {
        match self {
            Self::Open(mode) => ("root:root".to_owned(), mode),
            Self::Program => (format!("{EXEC}:{RUNNER}"), 0o4750),
            Self::Key => (EXEC.to_owned(), 0o400),
            Self::State => (format!("{EXEC}:{EXEC}"), 0o700),
            Self::Ledger => (EXEC.to_owned(), 0o700),
            Self::Kept => (EXEC.to_owned(), 0o600),
            Self::Log => (format!("{EXEC}:{LOGS}"), 0o2750),
            Self::Segment => (format!("{EXEC}:{LOGS}"), 0o640),
        }
    }

    fn fits(self, seen: Seen, owners: &Owners) -> bool {
        let exec = owners.exec_uid == Some(seen.uid);
        let is = |gid: Option<u32>, mode: u32| exec && gid == Some(seen.gid) && seen.mode == mode;
        match self {
            // sshd and both accounts read these; a configuration of sshd's own may be root's secret.
            Self::Open(_) => seen.uid == 0 && seen.mode & 0o7022 == 0,
            Self::Program => is(owners.runner_gid, 0o4750),
            Self::Key => exec && seen.mode == 0o400,
            Self::State => is(owners.exec_gid, 0o700),
            Self::Ledger => exec && seen.mode == 0o700,
            Self::Kept => exec && seen.mode & 0o022 == 0,
            Self::Log => is(owners.logs_gid, 0o2750),
            Self::Segment => is(owners.logs_gid, 0o640),
        }
    }
}

pub(super) fn judge(paths: &Paths, owners: &Owners, report: &mut Report) {
    for (rule, looked) in &paths.rules {
        let check = if rule.mode == Mode::Program { &PROGRAM } else { &PATHS };
        judge_path(check, rule, looked, owners, report);
    }
    report.settle(
        &PATHS,
        format!("{} paths have the owners and modes of the design", paths.rules.len()),
    );
    report.settle(&PROGRAM, format!("{AGENT_EXEC} is {EXEC}:{RUNNER} 4750"));
}

fn judge_path(check: &'static Check, rule: &Rule, looked: &Looked, owners: &Owners, report: &mut Report) {
    let path = rule.path.display();
    let (owner, mode) = rule.mode.mended();
    match looked {
        Err(error) => report.finding(check, error, format!("ls -ld {path}")),
        Ok(None) if rule.needed => report.finding(check, format!("{path} is missing"), how_made(rule)),
        Ok(None) => {}
        Ok(Some(seen)) if seen.kind != Some(rule.kind) => {
            let wanted = if rule.kind == Kind::File {
                "a regular file"
            } else {
                "a folder"
            };
            report.finding(
                check,
                format!("{path} is not {wanted}"),
                format!("ls -ld {path}, then put {wanted} there"),
            );
        }
        Ok(Some(seen)) if !rule.mode.fits(*seen, owners) => {
            let what = format!(
                "{path} is {}:{} {:o}, not {owner} {mode:o}",
                seen.uid, seen.gid, seen.mode
            );
            report.finding(check, what, format!("chown {owner} {path} && chmod {mode:o} {path}"));
        }
        Ok(Some(_)) => {}
    }
}

/// The step that makes a path which is missing.
fn how_made(rule: &Rule) -> String {
    match rule.path.file_name().and_then(|name| name.to_str()) {
        Some("ca.pub" | "principals" | "krl" | "receipt.key") => super::authority::ENROL.to_owned(),
        _ => "writ/install NAME".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNERS: Owners = Owners {
        exec_uid: Some(991),
        exec_gid: Some(991),
        runner_gid: Some(990),
        logs_gid: Some(992),
    };

    fn right(rule: &Rule) -> Seen {
        let (owner, mode) = rule.mode.mended();
        let id = |name: &str| match name {
            "root" => 0,
            RUNNER => 990,
            EXEC => 991,
            _ => 992,
        };
        let (user, group) = owner.split_once(':').unwrap_or((&owner, "root"));
        Seen {
            kind: Some(rule.kind),
            uid: id(user),
            gid: id(group),
            mode,
        }
    }

    fn healthy() -> Paths {
        Paths {
            rules: fixed()
                .into_iter()
                .map(|rule| {
                    let seen = right(&rule);
                    (rule, Ok(Some(seen)))
                })
                .collect(),
        }
    }

    fn judged(paths: &Paths) -> Report {
        let mut report = Report::default();
        judge(paths, &OWNERS, &mut report);
        report
    }

    #[test]
    fn a_fresh_installation_has_no_findings() {
        let report = judged(&healthy());
        assert_eq!(report.found(), Vec::<&str>::new(), "{}", report.text());
        assert_eq!(report.said().len(), CHECKS.len());
    }

    #[test]
    fn every_path_is_named_when_its_owner_mode_or_kind_is_wrong() {
        let breaks: [fn(&mut Seen); 4] = [
            |seen| seen.uid = 1000,
            |seen| seen.mode |= 0o002,
            |seen| seen.mode |= 0o020,
            |seen| seen.kind = None,
        ];
        for at in 0..fixed().len() {
            for break_it in breaks {
                let mut paths = healthy();
                let path = paths.rules[at].0.path.display().to_string();
                break_it(paths.rules[at].1.as_mut().unwrap().as_mut().unwrap());
                let report = judged(&paths);
                assert_eq!(report.count(super::super::Verdict::Finding), 1, "{path}");
                assert!(report.text().contains(&path), "{path}");
            }
            let mut paths = healthy();
            paths.rules[at].1 = Ok(None);
            let needed = paths.rules[at].0.needed;
            assert_eq!(judged(&paths).found().is_empty(), !needed, "{:?}", paths.rules[at].0);
        }
    }

    #[test]
    fn all_beneath_a_folder_is_looked_at_and_a_link_is_no_file() {
        let folder = tempfile::tempdir().unwrap();
        let mut rules = Vec::new();
        beneath(&folder.path().join("none"), &mut rules);
        assert_eq!(rules, []);
        std::fs::create_dir_all(folder.path().join("a/b")).unwrap();
        std::fs::write(folder.path().join("a/b/x.sql"), "").unwrap();
        std::os::unix::fs::symlink("/etc", folder.path().join("c")).unwrap();
        beneath(folder.path(), &mut rules);
        let found: Vec<(String, Kind)> = rules
            .iter()
            .map(|rule| {
                (
                    rule.path.strip_prefix(folder.path()).unwrap().display().to_string(),
                    rule.kind,
                )
            })
            .collect();
        let wanted = [
            ("", Kind::Folder),
            ("a", Kind::Folder),
            ("a/b", Kind::Folder),
            ("a/b/x.sql", Kind::File),
            ("c", Kind::File),
        ];
        assert_eq!(found, wanted.map(|(path, kind)| (path.to_owned(), kind)));
    }

    #[test]
    fn a_lost_bit_is_the_programs_own_finding() {
        let mut paths = healthy();
        let at = paths
            .rules
            .iter()
            .position(|(rule, _)| rule.mode == Mode::Program)
            .unwrap();
        paths.rules[at].1.as_mut().unwrap().as_mut().unwrap().mode = 0o750;
        assert_eq!(judged(&paths).found(), ["agent_exec"]);
    }
}
