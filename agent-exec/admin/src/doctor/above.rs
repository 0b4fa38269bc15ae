//! What the mode of a file does not show: the folders above it, access control lists, how its file system is mounted.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::{FsFlags, statvfs};

use super::report::{Check, Report};
use super::tools::{self, LS};
use super::{AGENT_EXEC, LOG};

const PARENTS: Check = Check {
    name: "parents",
    what: "the folders above are root's, and nobody else can write them",
    why: "who can write a folder can put another file in the place of any in it",
    mend: "`chown root:root FOLDER && chmod go-w FOLDER`",
};
const ACLS: Check = Check {
    name: "acls",
    what: "no path has an access control list",
    why: "a list gives rights that the mode does not show",
    mend: "`setfacl -b PATH`",
};
const MOUNT: Check = Check {
    name: "mount",
    what: "the file system of agent-exec is neither nosuid nor noexec",
    why: "the set-user-id bit would be ignored, and every session refused",
    mend: "`mount -o remount,suid,exec MOUNT`, and in /etc/fstab",
};

pub(super) const CHECKS: &[&Check] = &[&PARENTS, &ACLS, &MOUNT];

/// A folder: who owns it, and its mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Folder {
    uid: u32,
    gid: u32,
    mode: u32,
}

#[derive(Debug, Clone)]
pub(super) struct Above {
    folders: Vec<(PathBuf, Result<Folder, String>)>,
    listing: Result<String, String>,
    /// Whether the file system of agent-exec ignores set-user-id bits, or runs nothing; none where it is not there.
    mount: Option<(bool, bool)>,
}

/// Looks at what lies above these paths, and at the lists of all.
pub(super) fn look(paths: &[&Path]) -> Above {
    let above: BTreeSet<&Path> = paths
        .iter()
        .flat_map(|path| path.ancestors().skip(1))
        .filter(|folder| !paths.contains(folder))
        .collect();
    let existing: Vec<String> = paths
        .iter()
        .chain(&above)
        .filter(|path| tools::at(path).is_ok_and(|found| found.is_some()))
        .map(|path| path.to_string_lossy().into_owned())
        .collect();
    let mut arguments = vec!["-ldn", "--"];
    arguments.extend(existing.iter().map(String::as_str));
    Above {
        listing: tools::run(LS, &arguments).map(|ran| ran.stdout),
        mount: statvfs(AGENT_EXEC).ok().map(|about| {
            let flags = about.flags();
            (flags.contains(FsFlags::ST_NOSUID), flags.contains(FsFlags::ST_NOEXEC))
        }),
        folders: above
            .into_iter()
            .filter(|folder| folder.exists())
            .map(|folder| (folder.to_owned(), seen(folder)))
            .collect(),
    }
}

/// /usr/sbin is a link on some systems: what counts is the folder behind it.
fn seen(path: &Path) -> Result<Folder, String> {
    let about = std::fs::metadata(path).map_err(|error| format!("failed to look at {}: {error}", path.display()))?;
    Ok(Folder {
        uid: about.uid(),
        gid: about.gid(),
        mode: about.mode() & 0o7777,
    })
}

pub(super) fn judge(above: &Above, report: &mut Report) {
    for (path, folder) in &above.folders {
        judge_folder(path, folder, report);
    }
    report.settle(&PARENTS, format!("{} folders are root's", above.folders.len()));
    match &above.listing {
        Err(error) => report.notice(
            &ACLS,
            format!("not looked at: {error}"),
            "getfacl -R /etc/writ /var/log/writ",
        ),
        Ok(listing) => {
            for path in with_lists(listing) {
                report.finding(
                    &ACLS,
                    format!("{path} has an access control list"),
                    format!("setfacl -b {path}"),
                );
            }
        }
    }
    report.settle(&ACLS, "modes say everything");
    if let Some((nosuid, noexec)) = above.mount {
        for (bad, option, good) in [(nosuid, "nosuid", "suid"), (noexec, "noexec", "exec")] {
            if bad {
                let what = format!("{AGENT_EXEC} lies on a file system that is mounted {option}");
                let mend = format!("mount -o remount,{good} \"$(stat -c %m {AGENT_EXEC})\"");
                report.finding(&MOUNT, what, mend);
            }
        }
        report.settle(&MOUNT, "agent-exec's file system honours set-user-id bits");
    }
    report.settle(&MOUNT, "not looked at: there is no agent-exec");
}

fn judge_folder(path: &Path, folder: &Result<Folder, String>, report: &mut Report) {
    let shown = path.display();
    let Folder { uid, gid, mode } = match folder {
        Ok(folder) => *folder,
        Err(error) => return report.finding(&PARENTS, error, format!("ls -ld {shown}")),
    };
    // Distributions give /var/log to the group of a log daemon. It could move our folder away, which verification and
    // witnesses show, and nothing else.
    let group = mode & 0o020 != 0 && gid != 0;
    if uid != 0 || mode & 0o002 != 0 || group && path != Path::new("/var/log") {
        let mend = format!("chown root:root {shown} && chmod go-w {shown}");
        report.finding(&PARENTS, format!("{shown} is {uid}:{gid} {mode:o}"), mend);
    } else if group {
        let what = format!("group {gid} can write {shown}: it could move {LOG} away");
        report.notice(&PARENTS, what, format!("chmod g-w {shown}"));
    }
}

/// The paths in what `ls -ldn` printed whose modes end with a `+`.
fn with_lists(listing: &str) -> Vec<&str> {
    listing
        .lines()
        .filter(|line| line.split_whitespace().next().is_some_and(|mode| mode.ends_with('+')))
        .filter_map(|line| line.find(" /").and_then(|at| line.get(at + 1..)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn healthy() -> Above {
        let folder = Folder {
            uid: 0,
            gid: 0,
            mode: 0o755,
        };
        Above {
            folders: vec![
                (PathBuf::from("/var/log"), Ok(folder)),
                (PathBuf::from("/etc"), Ok(folder)),
            ],
            listing: Ok(
                "drwxr-xr-x  2 0 0 4096 Jan  1 10:00 /etc/writ\n-rw-r--r--. 1 0 0 1 Jan  1 10:00 /etc/a\n".to_owned(),
            ),
            mount: Some((false, false)),
        }
    }

    fn judged(above: &Above) -> Report {
        let mut report = Report::default();
        judge(above, &mut report);
        report
    }

    #[test]
    fn a_fresh_installation_has_no_findings() {
        assert_eq!(judged(&healthy()).found(), Vec::<&str>::new());
        assert_eq!(judged(&healthy()).said().len(), CHECKS.len());
    }

    #[test]
    fn folders_are_roots_and_nobody_elses_to_write() {
        let with = |at: usize, uid, gid, mode| {
            let mut above = healthy();
            above.folders[at].1 = Ok(Folder { uid, gid, mode });
            judged(&above)
        };
        assert_eq!(with(1, 0, 0, 0o757).found(), ["parents"]);
        assert_eq!(with(1, 0, 4, 0o775).found(), ["parents"]);
        assert_eq!(with(1, 1000, 0, 0o755).found(), ["parents"]);
        assert!(with(1, 0, 0, 0o775).found().is_empty(), "root's own group");
        let log = with(0, 0, 4, 0o775);
        assert!(log.found().is_empty() && log.text().contains("could move /var/log/writ away"));
        assert_eq!(with(0, 0, 4, 0o777).found(), ["parents"]);
    }

    #[test]
    fn lists_and_mounts_are_judged() {
        let mut above = healthy();
        above.listing = Ok("-rw-r--r--+ 1 0 0 1 Jan  1 10:00 /etc/writ/a b\n".to_owned());
        assert_eq!(judged(&above).found(), ["acls"]);
        assert!(judged(&above).text().contains("setfacl -b /etc/writ/a b"));
        above = healthy();
        above.listing = Err("failed to run /bin/ls".to_owned());
        assert!(judged(&above).found().is_empty() && judged(&above).text().contains("not looked at"));
        for mount in [(true, false), (false, true)] {
            let mut above = healthy();
            above.mount = Some(mount);
            assert_eq!(judged(&above).found(), ["mount"]);
        }
    }
}
