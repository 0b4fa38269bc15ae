//! What the migrations of this target say of themselves. Owners and modes are those of `paths`.
//!
//! The database's program refuses what is refused here, when it is run. Said here it is known before anybody approves it.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::OFlag;

use super::report::{Check, Report};
use crate::MIGRATIONS as FOLDER;

const MIGRATIONS: Check = Check {
    name: "migrations",
    what: "every migration says its own name in its first line, follows the one before, and could be run",
    why: "it would be refused, or run in another order than it was written for",
    mend: "correct the file; docs/spec/migration.md has the rules",
};

pub(super) const CHECKS: &[&Check] = &[&MIGRATIONS];

/// Longest migration that can be run, in bytes.
const LONGEST: u64 = 32 << 20;

/// Longest id.
const ID: usize = 63;

/// How many there are, and what there is to say against some, by path.
#[derive(Debug, Clone, Default)]
pub(super) struct Migrations {
    number: usize,
    faults: Vec<(String, String)>,
}

pub(super) fn look(folder: &Path) -> Migrations {
    let mut found = Migrations::default();
    let names = |folder: &Path| {
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.path()).collect();
        names.sort();
        names
    };
    for set in names(folder) {
        let mut before = None;
        for path in names(&set) {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.number += 1;
            let fault = match name.strip_suffix(".sql").filter(|id| is_id(id)) {
                None => Err("is not called by an id (a-z 0-9 _ -, at most 63 characters) and .sql".to_owned()),
                Some(id) => content(&path).and_then(|content| judge_one(id, before.as_deref(), &content)),
            };
            if let Err(fault) = fault {
                found.faults.push((path.display().to_string(), fault));
            }
            before = Some(name.trim_end_matches(".sql").to_owned());
        }
    }
    found
}

fn is_id(id: &str) -> bool {
    let part = |b: u8| b.is_ascii_digit() || b.is_ascii_lowercase();
    (1..=ID).contains(&id.len())
        && id.bytes().all(|b| part(b) || b"_-".contains(&b))
        && id.bytes().next().is_some_and(part)
}

fn content(path: &Path) -> Result<Vec<u8>, String> {
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let failed = |error: std::io::Error| format!("cannot be read: {error}");
    let file = File::options()
        .read(true)
        .custom_flags(flags.bits())
        .open(path)
        .map_err(failed)?;
    let about = file.metadata().map_err(failed)?;
    if !about.is_file() {
        return Err("is not a regular file".to_owned());
    }
    if about.nlink() != 1 {
        return Err(format!(
            "has {} names, and agent-exec opens only files with one",
            about.nlink()
        ));
    }
    if about.len() > LONGEST {
        return Err("is longer than 32 MiB, the most that can be run".to_owned());
    }
    let mut content = Vec::new();
    file.take(LONGEST).read_to_end(&mut content).map_err(failed)?;
    Ok(content)
}

/// What is wrong with the migration of this id, behind the one of that id.
fn judge_one(id: &str, before: Option<&str>, content: &[u8]) -> Result<(), String> {
    let text = std::str::from_utf8(content).map_err(|_| "is not UTF-8".to_owned())?;
    if text.contains('\0') {
        return Err("holds a null character".to_owned());
    }
    let (first, statements) = text.split_once('\n').unwrap_or_default();
    let (own, after) = match first
        .strip_prefix("-- migration ")
        .unwrap_or_default()
        .split_once(" after ")
    {
        Some((own, after)) => (own, Some(after)),
        None => (first.strip_prefix("-- migration ").unwrap_or_default(), None),
    };
    if own != id {
        return Err(format!(
            "its first line is not `-- migration {id}`, or that and ` after ID`"
        ));
    }
    if let Some(after) = after.filter(|after| Some(*after) != before) {
        let before = before.unwrap_or("none");
        return Err(format!(
            "says that it comes after {after}, and the one before it here is {before}"
        ));
    }
    // psql's and sqlite3's own commands, of which some include other files: not one of them is run.
    match statements.lines().find(|line| line.starts_with(['\\', '.'])) {
        Some(line) => Err(format!(
            "has a line that begins as a command of psql or sqlite3: {}",
            line.get(..40).unwrap_or(line)
        )),
        None => Ok(()),
    }
}

pub(super) fn judge(migrations: &Migrations, report: &mut Report) {
    for (path, fault) in &migrations.faults {
        report.finding(
            &MIGRATIONS,
            format!("{path} {fault}"),
            format!("correct {path}, see docs/spec/migration.md"),
        );
    }
    report.settle(
        &MIGRATIONS,
        match migrations.number {
            0 => format!("there are no migrations in {FOLDER}"),
            number => format!("{number} migrations could be run"),
        },
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_migration_says_its_own_name_and_the_one_before() {
        for (id, before, content) in [
            ("0001_a", None, "-- migration 0001_a\nSELECT 1;\n"),
            ("0002_b", Some("0001_a"), "-- migration 0002_b after 0001_a\n"),
            ("0002_b", Some("0001_a"), "-- migration 0002_b\nSELECT '\n /x';"),
        ] {
            assert_eq!(judge_one(id, before, content.as_bytes()), Ok(()), "{content}");
        }
        for (content, words) in [
            (&b"SELECT 1;\n"[..], "first line"),
            (b"", "first line"),
            (b"-- migration 0002_b", "first line"),
            (b"-- migration 0002_b\r\n", "first line"),
            (b"\xef\xbb\xbf-- migration 0002_b\n", "first line"),
            (b"-- migration 0003_c\n", "first line"),
            (
                b"-- migration 0002_b after 0000_z\n",
                "comes after 0000_z, and the one before it here is 0001_a",
            ),
            (b"-- migration 0002_b\n\\i /etc/passwd\n", "\\i /etc/passwd"),
            (b"-- migration 0002_b\n.read other.sql\n", ".read other.sql"),
            (b"-- migration 0002_b\nSELECT '\xff';\n", "not UTF-8"),
            (b"-- migration 0002_b\nSELECT '\0';\n", "null"),
        ] {
            let told = judge_one("0002_b", Some("0001_a"), content).unwrap_err();
            assert!(told.contains(words), "{words}: {told}");
        }
    }

    #[test]
    fn every_file_of_every_folder_is_looked_at() {
        let folder = tempfile::tempdir().unwrap();
        let judged = || {
            let mut report = Report::default();
            let found = look(folder.path());
            judge(&found, &mut report);
            (found.number, found.faults.len(), report.text())
        };
        assert!(judged().2.contains("no migrations"));
        let set = folder.path().join("app");
        std::fs::create_dir_all(folder.path().join("other")).unwrap();
        std::fs::create_dir_all(&set).unwrap();
        std::fs::write(set.join("0001_a.sql"), "-- migration 0001_a\n").unwrap();
        std::fs::write(set.join("0002_b.sql"), "-- migration 0002_b after 0001_a\n").unwrap();
        std::fs::write(folder.path().join("other/0001_z.sql"), "-- migration 0001_z\n").unwrap();
        assert_eq!((judged().0, judged().1), (3, 0), "{}", judged().2);
        assert!(judged().2.contains("3 migrations could be run"));

        std::fs::write(set.join("0003_C.sql"), "").unwrap();
        std::os::unix::fs::symlink("0001_a.sql", set.join("0004_d.sql")).unwrap();
        std::fs::write(set.join("0005_e.sql"), "-- migration 0005_e\n").unwrap();
        std::fs::hard_link(set.join("0005_e.sql"), folder.path().join("other/0005_e.sql")).unwrap();
        let (number, faults, text) = judged();
        assert_eq!((number, faults), (7, 4), "{text}");
        assert!(
            text.contains("has 2 names") && text.contains("0003_C.sql is not called by an id"),
            "{text}"
        );
    }
}
