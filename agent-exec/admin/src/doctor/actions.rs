//! What this target offers: its configuration, its manifests, and the programs that they name.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use catalogue::{Catalogue, Exec};

use super::report::{Check, Report};
use crate::config::Config;
use crate::{ACTIONS, CONFIG};

const TARGET: Check = Check {
    name: "target_toml",
    what: "`target.toml` can be read, and nothing in it is unknown or out of bounds",
    why: "agent-exec refuses every session without it",
    mend: "correct `/etc/writ/target.toml`",
};
const CATALOGUE: Check = Check {
    name: "catalogue",
    what: "every manifest in `actions.d` is without fault",
    why: "a faulty action is not offered",
    mend: "`writ-target catalogue lint` names each fault",
};
const PROGRAMS: Check = Check {
    name: "programs",
    what: "programs of actions and probes are root's, writable by nobody else, not set-id, no scripts",
    why: "who can write a program decides what an action does; a script is read by an interpreter that is not in the manifest",
    mend: "`chown root:root PROGRAM && chmod 755 PROGRAM`",
};

pub(super) const CHECKS: &[&Check] = &[&TARGET, &CATALOGUE, &PROGRAMS];

/// A program, and what there is to say against it, with what mends it.
#[derive(Debug, Clone)]
struct Program {
    path: PathBuf,
    used_by: String,
    faults: Vec<(String, String)>,
}

#[derive(Debug, Clone)]
pub(super) struct Actions {
    config: Result<(), String>,
    faults: Vec<String>,
    number: usize,
    programs: Vec<Program>,
}

pub(super) fn look(config: &Result<Config, String>) -> Actions {
    let (catalogue, faults) = Catalogue::lint(Path::new(ACTIONS), &[0]);
    let mut named: Vec<(PathBuf, String)> = Vec::new();
    for (name, entry) in catalogue.iter() {
        if let Exec::Program { program, .. } = entry.manifest().exec() {
            named.push((program.clone(), name.to_string()));
        }
    }
    for (name, probe) in config.iter().flat_map(|config| &config.probe) {
        named.push((PathBuf::from(probe.program()), format!("the probe {name}")));
    }
    named.sort();
    let mut programs: Vec<Program> = Vec::new();
    for (path, user) in named {
        match programs.last_mut() {
            Some(last) if last.path == path => last.used_by = format!("{}, {user}", last.used_by),
            _ => programs.push(Program {
                faults: faults_of(&path),
                path,
                used_by: user,
            }),
        }
    }
    Actions {
        config: config.as_ref().map(|_| ()).map_err(Clone::clone),
        faults: faults.iter().map(ToString::to_string).collect(),
        number: catalogue.len(),
        programs,
    }
}

/// Looks at a program as agent-exec will open it: what a link leads to is what runs.
fn faults_of(path: &Path) -> Vec<(String, String)> {
    let shown = path.display();
    let about = match std::fs::metadata(path) {
        Ok(about) => about,
        Err(error) => return vec![(format!("cannot be looked at: {error}"), format!("ls -lL {shown}"))],
    };
    if !about.is_file() {
        return vec![("is not a regular file".to_owned(), format!("ls -lL {shown}"))];
    }
    let mut faults = Vec::new();
    let mode = about.mode();
    let (uid, own) = (about.uid(), format!("chown root:root {shown} && chmod 755 {shown}"));
    if uid != 0 || mode & 0o022 != 0 {
        faults.push((
            format!("belongs to {uid} with mode {:o}: others can write it", mode & 0o7777),
            own.clone(),
        ));
    }
    if mode & 0o6000 != 0 {
        faults.push((
            format!("has a set-id bit (mode {:o})", mode & 0o7777),
            format!("chmod ug-s {shown}"),
        ));
    }
    if mode & 0o001 == 0 {
        faults.push((format!("cannot be run by agent-runner (mode {:o})", mode & 0o7777), own));
    }
    faults.extend(folders_of(path));
    let mut start = [0; 2];
    match File::open(path).and_then(|mut file| file.read_exact(&mut start)) {
        Ok(()) if start == *b"#!" => {
            faults.push(("is a script".to_owned(), "name a program in the manifest".to_owned()))
        }
        Ok(()) => {}
        Err(error) => faults.push((format!("cannot be read: {error}"), format!("ls -lL {shown}"))),
    }
    faults
}

/// What there is to say against the folders that a program lies in, links followed.
fn folders_of(path: &Path) -> Vec<(String, String)> {
    let real = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let folders = real.ancestors().skip(1);
    folders
        .filter_map(|folder| std::fs::metadata(folder).ok().map(|about| (folder, about)))
        .filter_map(|(folder, about)| {
            let (shown, mode) = (folder.display(), about.mode() & 0o7777);
            if about.uid() != 0 || mode & 0o022 != 0 && (mode & 0o002 != 0 || about.gid() != 0) {
                let mend = format!("chown root:root {shown} && chmod go-w {shown}");
                Some((format!("lies in {shown}, which others can write (mode {mode:o})"), mend))
            } else if mode & 0o001 == 0 {
                let what = format!("lies in {shown}, which agent-runner cannot enter (mode {mode:o})");
                Some((what, format!("chmod o+x {shown}")))
            } else {
                None
            }
        })
        .collect()
}

pub(super) fn judge(actions: &Actions, report: &mut Report) {
    if let Err(what) = &actions.config {
        report.finding(
            &TARGET,
            format!("{CONFIG}: {what}"),
            format!("edit {CONFIG}, see target.toml.example"),
        );
    }
    report.settle(&TARGET, format!("{CONFIG} is in order"));
    for fault in &actions.faults {
        report.finding(
            &CATALOGUE,
            format!("{ACTIONS}: {fault}"),
            "correct the file, then: writ-target catalogue lint",
        );
    }
    if actions.number == 0 && actions.faults.is_empty() {
        report.notice(
            &CATALOGUE,
            "there are no manifests: this target offers no action",
            format!("ls {ACTIONS}"),
        );
    }
    report.settle(&CATALOGUE, format!("{} actions are offered", actions.number));
    for program in &actions.programs {
        for (what, mend) in &program.faults {
            let what = format!("{}, run by {}, {what}", program.path.display(), program.used_by);
            report.finding(&PROGRAMS, what, mend);
        }
    }
    report.settle(
        &PROGRAMS,
        format!("{} programs are root's alone to write", actions.programs.len()),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn programs_are_judged_by_owner_mode_and_first_bytes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("program");
        let faults = |contents: &[u8], mode| {
            std::fs::write(&path, contents).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            let all: Vec<String> = faults_of(&path).into_iter().map(|(what, _)| what).collect();
            all.join("; ")
        };
        // The folder is the tester's own, below one that all can write.
        let good = faults(b"\x7fELF", 0o755);
        assert!(good.contains("lies in") && !good.contains("script"), "{good}");
        assert!(!nix::unistd::geteuid().is_root() || folders_of(Path::new("/usr/bin/env")).is_empty());
        assert!(faults(b"\x7fELF", 0o775).contains("others can write it"));
        assert!(faults(b"\x7fELF", 0o4755).contains("set-id"));
        assert!(faults(b"\x7fELF", 0o700).contains("cannot be run"));
        assert!(faults(b"#!/bin/sh\n", 0o755).contains("script"));
        assert!(faults(b"", 0o755).contains("cannot be read"));
        assert!(
            faults_of(&folder.path().join("none"))[0]
                .0
                .contains("cannot be looked at")
        );
        assert!(faults_of(folder.path())[0].0.contains("not a regular file"));
    }

    #[test]
    fn faults_are_findings_and_nothing_at_all_is_a_notice() {
        let healthy = Actions {
            config: Ok(()),
            faults: Vec::new(),
            number: 3,
            programs: Vec::new(),
        };
        let judged = |actions: &Actions| {
            let mut report = Report::default();
            judge(actions, &mut report);
            report
        };
        assert_eq!(judged(&healthy).said().len(), CHECKS.len());
        assert!(judged(&healthy).found().is_empty());
        let mut actions = healthy.clone();
        actions.config = Err("is missing".to_owned());
        actions.faults.push("a.toml: risk: is missing".to_owned());
        actions.programs.push(Program {
            path: PathBuf::from("/usr/bin/x"),
            used_by: "a".to_owned(),
            faults: vec![("is a script".to_owned(), "y".to_owned())],
        });
        assert_eq!(judged(&actions).found(), ["target_toml", "catalogue", "programs"]);
        let mut actions = healthy;
        actions.number = 0;
        assert!(judged(&actions).text().contains("offers no action"));
    }
}
