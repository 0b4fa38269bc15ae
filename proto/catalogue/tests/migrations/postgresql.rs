//! PostgreSQL, by psql, against a server of the test's own: in a temporary folder, on a unix socket there, as an account of its
//! own where the tests run as root, because the server does not run as root.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use wire::Mode;

use crate::{Ran, Runner, migration};

/// Where packages put the programs of a server.
fn programs() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let folders = debian.map(|entry| entry.path().join("bin"));
    let mut folders: Vec<PathBuf> = folders.chain(["/usr/bin".into()]).collect();
    folders.retain(|folder| {
        ["initdb", "pg_ctl", "pg_dump", "psql"]
            .iter()
            .all(|name| folder.join(name).exists())
    });
    folders.sort();
    folders.pop()
}

struct Scene {
    folder: tempfile::TempDir,
    programs: PathBuf,
    runner: Runner,
    applied: Runner,
}

impl Drop for Scene {
    fn drop(&mut self) {
        let data = self.folder.path().join("data");
        let _ = self
            .server("pg_ctl")
            .arg("-D")
            .arg(data)
            .args(["-m", "immediate", "stop"])
            .output();
    }
}

impl Scene {
    /// A server with the database `app` that belongs to writ_migrator. None where this machine has no server, which is said.
    fn new() -> Option<Self> {
        let root = nix::unistd::geteuid().is_root();
        let account = nix::unistd::User::from_name("postgres").ok().flatten();
        let programs = programs().filter(|_| !root || account.is_some());
        let Some(programs) = programs else {
            println!("NOT RUN: this machine has no PostgreSQL server (or, for root, no account postgres)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path();
        if let Some(account) = account.filter(|_| root) {
            nix::unistd::chown(place, Some(account.uid), None).unwrap();
        }
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(place, open).unwrap();
        let psql = programs.join("psql");
        let changes = [
            ("/usr/lib/postgresql/15/bin/psql", psql.to_str().unwrap()),
            ("/run/postgresql", place.to_str().unwrap()),
        ];
        let scene = Self {
            runner: Runner::new("postgresql", "run_migration", place, &changes),
            applied: Runner::new("postgresql", "applied_migrations", place, &changes),
            programs,
            folder,
        };
        scene.start();
        Some(scene)
    }

    fn start(&self) {
        let place = self.folder.path();
        let data = place.join("data");
        let options = [
            "-A",
            "peer",
            "--no-sync",
            "-E",
            "UTF8",
            "--locale",
            "C.UTF-8",
            "-U",
            "postgres",
        ];
        done(self.server("initdb").arg("-D").arg(&data).args(options));
        let me = nix::unistd::User::from_uid(nix::unistd::geteuid())
            .unwrap()
            .unwrap()
            .name;
        let server = if nix::unistd::geteuid().is_root() {
            "postgres"
        } else {
            &me
        };
        // As an administrator does it: deploy/target/README.md.
        let rules = "local all postgres peer map=own\nlocal app writ_migrator peer map=writ\n";
        std::fs::write(data.join("pg_hba.conf"), rules).unwrap();
        let people = format!("own {server} postgres\nwrit {me} writ_migrator\n");
        std::fs::write(data.join("pg_ident.conf"), people).unwrap();
        let options = format!(
            "-c listen_addresses= -c unix_socket_directories={} -c fsync=off",
            place.display()
        );
        let log = place.join("data/log");
        let mut start = self.server("pg_ctl");
        start
            .arg("-D")
            .arg(&data)
            .args(["-w", "-o", &options, "-l"])
            .arg(log)
            .arg("start");
        assert!(
            start
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .unwrap()
                .success()
        );
        self.ask("postgres", "CREATE ROLE writ_migrator LOGIN");
        self.ask("postgres", "CREATE DATABASE app OWNER writ_migrator");
    }

    /// A program of the server's, as the server's account.
    fn server(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = Command::new(&program);
        if nix::unistd::geteuid().is_root() {
            command = Command::new("/usr/bin/setpriv");
            command
                .args(["--reuid=postgres", "--regid=postgres", "--clear-groups"])
                .arg(program);
        }
        command.current_dir("/");
        command
    }

    /// What a database says to the server's own role.
    fn ask(&self, database: &str, sql: &str) -> String {
        let mut psql = self.server("psql");
        psql.args([
            "-X",
            "-q",
            "-A",
            "-t",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "postgres",
            "-d",
            database,
            "-c",
            sql,
            "-h",
        ]);
        String::from_utf8(done(psql.arg(self.folder.path())).stdout)
            .unwrap()
            .trim_end()
            .to_owned()
    }

    /// All that a migration could have changed in the database.
    fn everything(&self) -> String {
        let mut dump = self.server("pg_dump");
        dump.args(["-U", "postgres", "-d", "app", "-h"]).arg(self.folder.path());
        let text = String::from_utf8(done(&mut dump).stdout).unwrap();
        // Newer ones begin and end with a key that is drawn for each dump.
        text.lines()
            .filter(|line| !line.contains("restrict "))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn run(&self, id: &str, statements: &str) -> Ran {
        self.runner.run(migration(id, statements))
    }
}

#[track_caller]
fn done(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

const FIRST: &str = "CREATE TABLE customer (name text);\nINSERT INTO customer VALUES ('ada');";

/// REQ-MIGRATION-2, REQ-MIGRATION-3, REQ-MIGRATION-4
#[test]
fn a_migration_is_applied_once_and_asking_again_has_no_second_effect() {
    let Some(scene) = Scene::new() else { return };
    let none = scene.applied.run("");
    assert_eq!((none.exit, none.stdout.as_str()), (0, ""), "{none:?}");
    let text = migration("0001_customer", FIRST);
    let digest = wire::ids::Digest::of(text.as_bytes());
    let ran = scene.runner.run(&text);
    ran.applied("0001_customer");
    assert_eq!(ran.stdout, format!("applied 0001_customer sha256 {digest}\n"));
    let before = scene.everything();
    scene
        .run("0001_customer", FIRST)
        .refused("0001_customer was applied already, at 2");
    scene
        .run("0001_customer", "DROP TABLE customer;")
        .refused("with another content, sha256");
    assert_eq!(scene.everything(), before);
    assert_eq!(scene.ask("app", "SELECT count(*) FROM customer"), "1");
    let listed = scene.applied.run("");
    assert!(
        listed
            .stdout
            .starts_with(&format!("0001_customer sha256 {digest} at 2")),
        "{listed:?}"
    );

    // Order, and gaps.
    scene
        .run("0000_early", "SELECT 1")
        .refused("0000_early is out of order: 0001_customer");
    scene
        .run("0003_late after 0002_missing", "SELECT 1")
        .refused("comes after 0002_missing, and the newest that was applied is 0001_customer");
    assert_eq!(scene.everything(), before);
    scene
        .run("0002_next after 0001_customer", "ALTER TABLE customer ADD mail text")
        .applied("0002_next");
}

/// REQ-MIGRATION-1, REQ-MIGRATION-3, REQ-MIGRATION-6
#[test]
fn a_migration_that_fails_or_that_ends_the_transaction_leaves_nothing() {
    let Some(scene) = Scene::new() else { return };
    let before = scene.everything();
    scene
        .run("0001_a", "CREATE TABLE t (x int); SELECT 1/0;")
        .refused("division by zero");
    assert_eq!(scene.everything(), before, "not even the list");
    scene.run("0001_a", FIRST).applied("0001_a");
    let before = scene.everything();
    let hostile = [
        "COMMIT;",
        "CREATE TABLE t (x int); COMMIT; CREATE TABLE u (x int);",
        "CREATE TABLE t (x int); /**/ END; CREATE TABLE u (x int);",
        "CREATE TABLE t (x int); ROLLBACK; CREATE TABLE u (x int);",
        "ABORT;",
        "BEGIN;",
        "SAVEPOINT s;",
        "PREPARE TRANSACTION 'x';",
        "DO $$ BEGIN CREATE TABLE t (x int); COMMIT; END $$;",
        "CREATE PROCEDURE p() LANGUAGE plpgsql AS 'BEGIN COMMIT; END'; CALL p();",
        "\\! touch CANARY",
        "\\o CANARY\nSELECT 1;",
        "\\i /etc/passwd",
        "\\copy customer from /etc/passwd",
        "SELECT 'touch CANARY' \\gexec",
        "\\unset ON_ERROR_STOP\nSELECT 1/0; CREATE TABLE t (x int);",
        "\\q",
        "\\if false",
        "\\endif\nCREATE TABLE t (x int);",
        "SELECT 1;\n\\.\nCREATE TABLE t (x int);",
        "SELECT :id;",
        "COPY customer FROM PROGRAM 'touch CANARY';",
        "COPY customer TO 'CANARY';",
        "COPY customer FROM '/etc/passwd';",
        "COPY customer FROM STDIN;",
        "SELECT lo_import('/etc/passwd');",
        "SELECT pg_read_file('/etc/passwd');",
        "CREATE INDEX CONCURRENTLY ON customer (name);",
        "VACUUM customer;",
        "SET ROLE postgres;",
        "SET SESSION AUTHORIZATION postgres;",
        "DELETE FROM writ.migration;",
        "INSERT INTO writ.migration VALUES ('0009_x', '');",
        "UPDATE writ.migration SET sha256 = '';",
        "DROP SCHEMA writ CASCADE;",
        "CREATE TABLE t (x int); SELECT pg_terminate_backend(pg_backend_pid());",
        "$writ$; COMMIT; CREATE TABLE t (x int); DO $writ$ BEGIN NULL; END",
    ];
    let canary = scene.folder.path().join("canary");
    for statements in hostile {
        let statements = statements.replace("CANARY", canary.to_str().unwrap());
        scene.run("0002_b", &statements).refused("psql:");
        assert_eq!(scene.everything(), before, "{statements}");
        assert!(!canary.exists(), "{statements}");
    }
    let raw: [&[u8]; 6] = [
        b"-- migration 0002_b\nSELECT 1;\0\n",
        b"-- migration 0002_b\nSELECT '\xff';\n",
        b"\xef\xbb\xbf-- migration 0002_b\n",
        b"-- migration ../x\nSELECT 1;\n",
        b"SELECT 1;\n",
        b"",
    ];
    for content in raw {
        scene.runner.run(content).refused("ERROR: ");
        assert_eq!(scene.everything(), before);
    }
    println!(
        "{} attacks, {} refused",
        hostile.len() + raw.len(),
        hostile.len() + raw.len()
    );

    // What it changes of its own session reaches nothing of what is kept about it.
    let meddling = "CREATE FUNCTION pg_temp.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz';\n\
        SET search_path = nowhere; DROP TABLE pg_temp.writ_this; SELECT set_config('writ.refusal', 'x', false);\n\
        CREATE TABLE public.kept (x int)";
    scene.run("0002_b", meddling).applied("0002_b");
    assert_eq!(
        scene.ask("app", "SELECT count(*) FROM writ.migration WHERE at IS NOT NULL"),
        "2"
    );
    assert_eq!(scene.ask("app", "SELECT count(*) FROM kept"), "0");
}

#[test]
fn a_role_that_is_more_than_the_owner_of_its_database_is_refused() {
    let Some(scene) = Scene::new() else { return };
    let before = scene.everything();
    for (more, less) in [
        (
            "ALTER ROLE writ_migrator SUPERUSER",
            "ALTER ROLE writ_migrator NOSUPERUSER",
        ),
        (
            "GRANT pg_execute_server_program TO writ_migrator",
            "REVOKE pg_execute_server_program FROM writ_migrator",
        ),
        (
            "GRANT pg_write_server_files TO writ_migrator",
            "REVOKE pg_write_server_files FROM writ_migrator",
        ),
    ] {
        scene.ask("postgres", more);
        scene
            .run("0001_a", FIRST)
            .refused("writ_migrator may start programs or use files of the server");
        assert_eq!(scene.everything(), before);
        scene.ask("postgres", less);
    }
    scene.ask("app", "CREATE SCHEMA writ; GRANT ALL ON SCHEMA writ TO public");
    scene.ask(
        "app",
        "CREATE TABLE writ.migration (id text, sha256 text, at timestamptz); GRANT ALL ON writ.migration TO public",
    );
    scene
        .run("0001_a", FIRST)
        .refused("the table writ.migration is not writ_migrator's own");
    scene.ask("app", "DROP SCHEMA writ CASCADE");
    // Functions and operators of others, in a schema that is looked into first.
    scene.ask(
        "app",
        "CREATE SCHEMA writ_migrator; GRANT ALL ON SCHEMA writ_migrator TO public",
    );
    scene.ask(
        "app",
        "CREATE FUNCTION writ_migrator.lo_get(oid) RETURNS bytea LANGUAGE sql AS 'SELECT ''evil''::bytea';
         CREATE FUNCTION writ_migrator.format(text, text, text) RETURNS text LANGUAGE sql AS 'SELECT (1/0)::text'",
    );
    scene.run("0001_a", FIRST).applied("0001_a");
}

/// REQ-MIGRATION-5
#[test]
fn two_at_the_same_time_are_one_after_the_other() {
    let Some(scene) = Scene::new() else { return };
    let text = migration("0001_a", &format!("{FIRST}\nSELECT pg_sleep(0.3);"));
    let all: Vec<_> = (0..4).map(|_| scene.runner.start(Mode::Run, text.as_bytes())).collect();
    let ended: Vec<Ran> = all.into_iter().map(Runner::end).collect();
    let (done, refused): (Vec<&Ran>, Vec<&Ran>) = ended.iter().partition(|ran| ran.exit == 0);
    assert_eq!(done.len(), 1, "{ended:?}");
    done[0].applied("0001_a");
    for ran in refused {
        ran.refused("0001_a was applied already");
    }
    assert_eq!(scene.ask("app", "SELECT count(*) FROM customer"), "1");
}

/// REQ-MIGRATION-7
#[test]
fn a_dry_run_shows_what_would_run_and_changes_nothing() {
    let Some(scene) = Scene::new() else { return };
    let before = scene.everything();
    let text = migration("0001_a", FIRST);
    let digest = wire::ids::Digest::of(text.as_bytes());
    let shown = scene.runner.dry_run(&text);
    assert_eq!(
        (shown.exit, shown.stdout),
        (0, format!("would run 0001_a sha256 {digest}\n{text}\n"))
    );
    assert_eq!(scene.everything(), before);
    scene.runner.run(&text).applied("0001_a");
    let before = scene.everything();
    let again = scene.runner.dry_run(&text);
    let lines: Vec<&str> = again.stdout.lines().collect();
    assert!(
        lines[0].starts_with("applied 0001_a at 2") && lines[0].ends_with(digest.as_str()),
        "{again:?}"
    );
    assert!(
        lines[1].starts_with("would not run: 0001_a was applied already"),
        "{again:?}"
    );
    assert_eq!(scene.everything(), before);
}

/// REQ-MIGRATION-6: killed, as at its deadline: nothing is kept, and the lock is free again.
#[test]
fn a_migration_that_is_killed_leaves_nothing() {
    let Some(scene) = Scene::new() else { return };
    let mut child = scene.runner.start(
        Mode::Run,
        migration("0001_a", "CREATE TABLE t (x int); SELECT pg_sleep(60);").as_bytes(),
    );
    let sleeping = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'writ_migrator' AND wait_event = 'PgSleep'";
    while scene.ask("app", sleeping) == "0" {
        assert!(child.try_wait().unwrap().is_none(), "{:?}", Runner::end(child));
        std::thread::yield_now();
    }
    child.kill().unwrap();
    child.wait().unwrap();
    scene.ask(
        "app",
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE usename = 'writ_migrator'",
    );
    scene.run("0001_a", FIRST).applied("0001_a");
    assert_eq!(scene.ask("app", "SELECT to_regclass('t') IS NULL"), "t");
}
