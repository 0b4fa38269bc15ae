//! The file that a store is in: whose it is, what is in it, and which version of us made it.
//!
//! A file that is another program's, a newer relay's or broken is left as it is, and the relay does not start. One relay
//! holds the file at a time, and a second one does not get as far as its requests.

use std::fs::OpenOptions;
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use rusqlite::{Connection, ErrorCode, OpenFlags, TransactionBehavior};

/// "WRIT", as the first migration writes it.
const APPLICATION: usize = 0x5752_4954;
/// The migrations, oldest first: the n-th leads to `user_version` n. One that was released is never changed.
const MIGRATIONS: [&str; 3] = [
    include_str!("schema/0001.sql"),
    include_str!("schema/0002.sql"),
    include_str!("schema/0003.sql"),
];
/// How long a start waits for a relay that is about to end.
const HELD: Duration = Duration::from_secs(2);
/// Pages of the write-ahead log before it is written back, which costs the one call that meets it some milliseconds.
const CHECKPOINT: u32 = 4000;

/// Why a file is not used as a store. It was not changed.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    /// A newer relay made it.
    #[error(
        "use its store {}: a newer writ-relay made it (version {found}, this one knows {known}); start that one, or move the \
         file away and lose the open tasks", .path.display()
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: usize,
        /// The newest that we know.
        known: usize,
    },
    /// It is something else.
    #[error("use its store {}: it is no store of a relay; move it away", .0.display())]
    Foreign(PathBuf),
    /// It is damaged.
    #[error(
        "use its store {}: it is damaged ({what}); move it and its -wal away and lose the open tasks: what was done is in the \
         log", .path.display()
    )]
    Broken {
        /// The file.
        path: PathBuf,
        /// What was found.
        what: String,
    },
    /// Somebody else could read or write it.
    #[error("use its store {}: {what}", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        what: String,
    },
    /// Another process has it.
    #[error("use its store {}: another process holds it; is a relay already running?", .0.display())]
    Held(PathBuf),
    /// The machine said no.
    #[error("use its store {}: {what}", .path.display())]
    Machine {
        /// The file.
        path: PathBuf,
        /// What it said.
        what: String,
    },
}

/// Looks at a file as a start does, without making or changing one.
///
/// # Errors
/// Any [`Unusable`], but for [`Unusable::Held`]: the relay that runs has looked.
pub fn check(path: &Path) -> Result<(), Unusable> {
    match path.symlink_metadata() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        _ => own(path)?,
    }
    match judged(path) {
        Ok(_) | Err(Unusable::Held(_)) => Ok(()),
        Err(unusable) => Err(unusable),
    }
}

/// Opens a file, or makes it, and brings it to this version.
pub(super) fn open(path: &Path) -> Result<Connection, Unusable> {
    own(path)?;
    let connection = judged(path)?;
    ready(connection).map_err(|error| unusable(path, &error))
}

/// A store that ends with its process.
#[cfg(test)]
pub(super) fn nowhere() -> Connection {
    ready(Connection::open_in_memory().unwrap()).unwrap()
}

/// Makes the file where there is none. What it is asked of the open file, and that is closed before SQLite opens it: to
/// close another descriptor later would take SQLite's locks away (fcntl_locking(2)).
fn own(path: &Path) -> Result<(), Unusable> {
    let machine = |error: io::Error| Unusable::Machine {
        path: path.to_owned(),
        what: error.to_string(),
    };
    let exposed = |what: String| {
        Err(Unusable::Exposed {
            path: path.to_owned(),
            what,
        })
    };
    let found = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .mode(0o600)
        .custom_flags((OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK).bits())
        .open(path)
        .and_then(|file| file.metadata())
        .map_err(machine)?;
    if !found.is_file() {
        return exposed("it is not a file; move it away".to_owned());
    }
    if found.uid() != nix::unistd::geteuid().as_raw() {
        return exposed(format!("it is owned by uid {}; chown it to writ-relay", found.uid()));
    }
    if found.mode() & 0o077 != 0 {
        return exposed(format!("mode {:04o}; chmod 0600 it", found.mode() & 0o7777));
    }
    Ok(())
}

/// Opens a file that is there, and judges it before anything is written to it.
fn judged(path: &Path) -> Result<Connection, Unusable> {
    let say = |error: rusqlite::Error| unusable(path, &error);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags).map_err(say)?;
    connection.busy_timeout(HELD).map_err(say)?;
    // Before the first look at the file: held alone, it needs no shared memory beside it, and a second relay stops here.
    connection
        .pragma_update(None, "locking_mode", "EXCLUSIVE")
        .map_err(say)?;
    connection.execute_batch("BEGIN EXCLUSIVE; COMMIT").map_err(say)?;
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, usize>(0));
    let tables = connection
        .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get::<_, usize>(0))
        .map_err(say)?;
    let (application, found) = (
        number("application_id").map_err(say)?,
        number("user_version").map_err(say)?,
    );
    let new = application == 0 && found == 0 && tables == 0;
    if !new && application != APPLICATION {
        return Err(Unusable::Foreign(path.to_owned()));
    }
    if found > MIGRATIONS.len() {
        return Err(Unusable::Newer {
            path: path.to_owned(),
            found,
            known: MIGRATIONS.len(),
        });
    }
    let said: String = connection
        .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
        .map_err(say)?;
    if said != "ok" {
        return Err(Unusable::Broken {
            path: path.to_owned(),
            what: said,
        });
    }
    Ok(connection)
}

/// Sets how the file is written, and applies the migrations that it has not seen, each whole or not at all.
fn ready(connection: Connection) -> rusqlite::Result<Connection> {
    brought_to(connection, &MIGRATIONS)
}

fn brought_to(mut connection: Connection, migrations: &[&str]) -> rusqlite::Result<Connection> {
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // What was deleted is gone, also from the file; and nothing of it is ever in another one.
    connection.pragma_update(None, "secure_delete", true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    let found: usize = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    for (version, migration) in migrations.iter().enumerate().skip(found) {
        let change = connection.transaction_with_behavior(TransactionBehavior::Exclusive)?;
        change.execute_batch(migration)?;
        change.pragma_update(None, "user_version", version + 1)?;
        change.commit()?;
    }
    Ok(connection)
}

fn unusable(path: &Path, error: &rusqlite::Error) -> Unusable {
    let (path, what) = (path.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Unusable::Held(path),
        Some(ErrorCode::NotADatabase) => Unusable::Foreign(path),
        Some(ErrorCode::DatabaseCorrupt) => Unusable::Broken { path, what },
        _ => Unusable::Machine { path, what },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    struct Room(tempfile::TempDir);

    impl Room {
        fn new() -> Self {
            Self(tempfile::tempdir().unwrap())
        }

        fn path(&self) -> PathBuf {
            self.0.path().join("store.sqlite")
        }

        fn write(&self, bytes: &[u8]) {
            std::fs::write(self.path(), bytes).unwrap();
            self.mode(0o600);
        }

        fn mode(&self, mode: u32) {
            std::fs::set_permissions(self.path(), PermissionsExt::from_mode(mode)).unwrap();
        }
    }

    #[test]
    fn a_new_file_belongs_to_the_relay_alone_and_has_every_migration() {
        let room = Room::new();
        let connection = open(&room.path()).unwrap();
        let found: usize = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap();
        assert_eq!(found, MIGRATIONS.len());
        connection.execute("DELETE FROM task", []).unwrap();
        for entry in std::fs::read_dir(room.0.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.file_name());
        }
        let synchronous: i64 = connection
            .pragma_query_value(None, "synchronous", |row| row.get(0))
            .unwrap();
        assert_eq!(synchronous, 1, "NORMAL");
    }

    #[test]
    fn a_second_process_does_not_get_it_and_a_look_from_beside_finds_no_fault() {
        let room = Room::new();
        let held = open(&room.path()).unwrap();
        assert!(matches!(open(&room.path()), Err(Unusable::Held(_))));
        assert!(check(&room.path()).is_ok());
        drop(held);
        assert!(open(&room.path()).is_ok());
    }

    #[test]
    fn a_request_of_before_dry_runs_was_to_be_done() {
        let room = Room::new();
        own(&room.path()).unwrap();
        let first = brought_to(judged(&room.path()).unwrap(), &MIGRATIONS[..1]).unwrap();
        first
            .execute_batch(
                "INSERT INTO task VALUES ('t', 'alice', 'brain', 'why', 0, 1, NULL);
                 INSERT INTO request (task, id, target, action, risk, sha256, begun, phase, status)
                 VALUES ('t', 'r', 'web-1', 'restart', 'change', 'x', 0, 'settled', 'ok')",
            )
            .unwrap();
        drop(first);
        let now = open(&room.path()).unwrap();
        let mode: String = now.query_row("SELECT mode FROM request", [], |row| row.get(0)).unwrap();
        assert_eq!(mode, "run");
        assert!(now.execute_batch("UPDATE request SET mode = 'try'").is_err());
    }

    #[test]
    fn a_newer_file_is_left_alone_and_says_which() {
        let room = Room::new();
        let connection = open(&room.path()).unwrap();
        connection.pragma_update(None, "user_version", 7).unwrap();
        drop(connection);
        let before = std::fs::read(room.path()).unwrap();
        for said in [open(&room.path()).unwrap_err(), check(&room.path()).unwrap_err()] {
            assert!(matches!(said, Unusable::Newer { found: 7, .. }), "{said:?}");
            let versions = format!("version 7, this one knows {}", MIGRATIONS.len());
            assert!(said.to_string().contains(&versions), "{said}");
        }
        assert_eq!(std::fs::read(room.path()).unwrap(), before);
    }

    #[test]
    fn a_file_of_something_else_is_left_alone() {
        let room = Room::new();
        room.write(
            b"precious, and longer than the header of a database would be: 0123456789012345678901234567890123456789",
        );
        assert!(matches!(open(&room.path()), Err(Unusable::Foreign(_))));
        std::fs::remove_file(room.path()).unwrap();
        let other = Connection::open(room.path()).unwrap();
        other.execute_batch("CREATE TABLE mine (a)").unwrap();
        drop(other);
        room.mode(0o600);
        let before = std::fs::read(room.path()).unwrap();
        assert!(matches!(open(&room.path()), Err(Unusable::Foreign(_))));
        assert_eq!(std::fs::read(room.path()).unwrap(), before);
    }

    #[test]
    fn a_damaged_file_is_named_wherever_the_damage_is() {
        let room = Room::new();
        let connection = open(&room.path()).unwrap();
        connection
            .execute_batch(
                "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000)
                 INSERT INTO task SELECT 'id' || i, 'person', 'brain', 'reason', 0, 1, NULL FROM n",
            )
            .unwrap();
        drop(connection);
        let whole = std::fs::read(room.path()).unwrap();
        let pages = whole.len() / 4096;
        let mut found = 0;
        for page in 1..pages {
            let mut damaged = whole.clone();
            damaged[page * 4096..page * 4096 + 200].fill(0xff);
            room.write(&damaged);
            match open(&room.path()) {
                Err(Unusable::Broken { .. }) => found += 1,
                other => panic!("page {page}: {other:?}"),
            }
            assert_eq!(std::fs::read(room.path()).unwrap(), damaged, "page {page}");
        }
        room.write(&whole[..whole.len() / 2]);
        assert!(matches!(open(&room.path()), Err(Unusable::Broken { .. })));
        println!("{found} damages, {found} found");
    }

    #[test]
    fn a_file_that_others_can_read_or_that_is_elsewhere_is_not_used() {
        let room = Room::new();
        drop(open(&room.path()).unwrap());
        for mode in [0o640, 0o604, 0o660] {
            room.mode(mode);
            let said = open(&room.path()).unwrap_err().to_string();
            assert!(said.ends_with(&format!("mode {mode:04o}; chmod 0600 it")), "{said}");
        }
        let elsewhere = room.0.path().join("elsewhere");
        std::fs::rename(room.path(), &elsewhere).unwrap();
        std::os::unix::fs::symlink(&elsewhere, room.path()).unwrap();
        assert!(matches!(open(&room.path()), Err(Unusable::Machine { .. })));
        std::fs::remove_file(room.path()).unwrap();
        std::fs::create_dir(room.path()).unwrap();
        assert!(open(&room.path()).is_err());
    }

    /// What a file holds: its version, and its tables with how many columns each has.
    fn held(path: &Path) -> (usize, Vec<(String, usize)>) {
        let connection = Connection::open(path).unwrap();
        let version = connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .unwrap();
        let mut tables = connection
            .prepare(
                "SELECT name, (SELECT count(*) FROM pragma_table_info(sqlite_schema.name))
                 FROM sqlite_schema WHERE type = 'table' ORDER BY name",
            )
            .unwrap();
        let tables = tables.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        (version, tables.map(Result::unwrap).collect())
    }

    #[test]
    fn a_migration_that_fails_leaves_what_was_there_and_the_next_start_goes_on_from_it() {
        let (second, third) = (
            "CREATE TABLE more (a)",
            "ALTER TABLE more ADD COLUMN b; CREATE TABLE task (a)",
        );
        let room = Room::new();
        let connection = open(&room.path()).unwrap();
        connection
            .execute_batch("INSERT INTO task VALUES ('id', 'person', 'brain', 'reason', 0, 1, NULL)")
            .unwrap();
        drop(connection);
        let (first, tables) = held(&room.path());
        assert_eq!(first, MIGRATIONS.len());
        // The second is applied and stays; the third fails half-way and leaves nothing.
        let all = [&MIGRATIONS[..], &[second, third]].concat();
        assert!(brought_to(judged(&room.path()).unwrap(), &all).is_err());
        let (version, after) = held(&room.path());
        assert_eq!(version, first + 1);
        assert_eq!(after.len(), tables.len() + 1);
        assert!(after.contains(&("more".to_owned(), 1)), "{after:?}");
        // Once the fault is repaired it is applied to what is there; nothing is applied twice.
        let repaired = [&MIGRATIONS[..], &[second, "ALTER TABLE more ADD COLUMN b"]].concat();
        let again = brought_to(Connection::open(room.path()).unwrap(), &repaired).unwrap();
        let kept: usize = again
            .query_row("SELECT count(*) FROM task", [], |row| row.get(0))
            .unwrap();
        assert_eq!(kept, 1);
        drop(again);
        let (version, after) = held(&room.path());
        assert_eq!(version, first + 2);
        assert!(after.contains(&("more".to_owned(), 2)), "{after:?}");
        // A first start whose only migration fails leaves a file that is new still.
        let room = Room::new();
        own(&room.path()).unwrap();
        let broken = [MIGRATIONS[0], "; CREATE TABLE task (a)"].concat();
        assert!(brought_to(judged(&room.path()).unwrap(), &[&broken]).is_err());
        assert_eq!(held(&room.path()), (0, Vec::new()));
        assert!(open(&room.path()).is_ok());
    }
}
