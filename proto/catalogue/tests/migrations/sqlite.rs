//! SQLite, by sqlite3: started through setpriv, as sudo would start that, where the tests run as root.

use std::path::{Path, PathBuf};
use std::process::Command;

use wire::Mode;

use crate::{Ran, Runner, migration};

struct Scene {
    folder: tempfile::TempDir,
    runner: Runner,
}

impl Scene {
    /// None where this machine has no sqlite3, which is said.
    fn new() -> Option<Self> {
        if !Path::new("/usr/bin/sqlite3").exists() {
            println!("NOT RUN: this machine has no /usr/bin/sqlite3");
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder.path(), open).unwrap();
        let database = folder.path().join("app.db");
        let mut changes = vec![("/var/lib/app/app.db", database.to_str().unwrap())];
        if nix::unistd::geteuid().is_root() {
            changes.extend([("--reuid=app", "--reuid=nobody"), ("--regid=app", "--regid=nogroup")]);
        } else {
            let own = r#""--reuid=app", "--regid=app", "--init-groups", "--inh-caps=-all", "--bounding-set=-all", "--no-new-privs""#;
            changes.push((own, r#""--no-new-privs""#));
        }
        let runner = Runner::new("sqlite", "run_migration", folder.path(), &changes);
        drop(changes);
        Some(Self { folder, runner })
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("app.db")
    }

    /// What the database says, row by row.
    fn ask(&self, sql: &str) -> String {
        let output = Command::new("/usr/bin/sqlite3")
            .arg("-batch")
            .arg(self.path())
            .arg(sql)
            .output()
            .unwrap();
        assert!(output.status.success(), "{sql}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }

    fn applied(&self) -> String {
        self.ask("SELECT group_concat(id, ' ') FROM (SELECT id FROM writ_migration ORDER BY id)")
    }

    fn run(&self, id: &str, statements: &str) -> Ran {
        self.runner.run(migration(id, statements))
    }
}

const FIRST: &str = "CREATE TABLE customer (name TEXT);\nINSERT INTO customer VALUES ('ada');";

/// REQ-MIGRATION-3, REQ-MIGRATION-4
#[test]
fn a_migration_is_applied_once_and_asking_again_has_no_second_effect() {
    let Some(scene) = Scene::new() else { return };
    scene.run("0001_customer", FIRST).applied("0001_customer");
    assert_eq!(scene.ask("SELECT count(*) FROM customer"), "1");
    let kept = scene.ask("SELECT content FROM writ_migration");
    assert_eq!(kept, migration("0001_customer", FIRST).trim_end());
    scene
        .run("0001_customer", FIRST)
        .refused("0001_customer was applied already, at 2");
    scene
        .run("0001_customer", "DROP TABLE customer;")
        .refused("with another content");
    assert_eq!(scene.ask("SELECT count(*) FROM customer"), "1");
    assert_eq!(scene.applied(), "0001_customer");
}

/// REQ-MIGRATION-2
#[test]
fn what_is_out_of_order_or_leaves_a_gap_is_refused() {
    let Some(scene) = Scene::new() else { return };
    scene
        .run("0001_b after 0000_a", "SELECT 1;")
        .refused("the newest that was applied is none");
    scene.run("0002_b", FIRST).applied("0002_b");
    scene
        .run("0001_a", "CREATE TABLE early (x);")
        .refused("0001_a is out of order: 0002_b");
    scene
        .run("0004_d after 0003_c", "CREATE TABLE late (x);")
        .refused("comes after 0003_c, and the newest that was applied is 0002_b");
    scene.run("0003_c after 0002_b", "SELECT 1;").applied("0003_c");
    assert_eq!(
        scene.ask("SELECT group_concat(name, ' ') FROM sqlite_master WHERE name IN ('early', 'late')"),
        ""
    );
    assert_eq!(scene.applied(), "0002_b 0003_c");
}

/// REQ-MIGRATION-3, REQ-MIGRATION-6
#[test]
fn a_migration_that_fails_half_way_leaves_nothing() {
    let Some(scene) = Scene::new() else { return };
    scene.run("0001_a", FIRST).applied("0001_a");
    let before = scene.ask(".dump");
    for broken in [
        "INSERT INTO customer VALUES ('eve'); CREATE TABLE t (x); INSERT INTO nowhere VALUES (1);",
        "INSERT INTO customer VALUES ('eve');\nSELECT 'a quote that is never closed;",
        "DELETE FROM customer; SELECT raise;",
        "DELETE FROM customer; DELETE FROM writ_migration;",
        "INSERT INTO writ_migration (id, content) VALUES ('0009_x', '');",
        "UPDATE writ_migration SET content = 'other';",
        "DROP TABLE writ_migration;",
    ] {
        let ran = scene.run("0002_b", broken);
        ran.refused("rror");
        assert_eq!(scene.ask(".dump"), before, "{broken}");
    }
    scene
        .run("0002_b", "INSERT INTO customer VALUES ('eve');")
        .applied("0002_b");
}

/// REQ-MIGRATION-1
#[test]
fn what_would_end_the_transaction_or_reach_outside_is_refused_before_anything_runs() {
    let Some(scene) = Scene::new() else { return };
    scene.run("0001_a", FIRST).applied("0001_a");
    let before = scene.ask(".dump");
    let canary = scene.folder.path().join("canary");
    let canary = canary.display();
    let hostile = [
        "COMMIT;".to_owned(),
        "CREATE TABLE t (x); COMMIT; CREATE TABLE u (x);".to_owned(),
        "CREATE TABLE t (x);\n  commit  ;\nCREATE TABLE u (x);".to_owned(),
        "CREATE TABLE t (x); END TRANSACTION;".to_owned(),
        "ROLLBACK;".to_owned(),
        "SAVEPOINT s;".to_owned(),
        format!("VACUUM INTO '{canary}';"),
        format!("ATTACH '{canary}' AS other; CREATE TABLE other.t (x);"),
        format!("/**/ATTACH '{canary}' AS other;"),
        format!(".shell touch {canary}"),
        format!(".output {canary}\nSELECT 1;"),
        format!(".trace {canary}\nSELECT 1;"),
        ".bail off\nSELECT nowhere;\nCREATE TABLE t (x);".to_owned(),
        ".quit".to_owned(),
        "CREATE TABLE t (x);\n.exit 0".to_owned(),
        format!("SELECT writefile('{canary}', 'x');"),
        format!("SELECT \"writefile\" ('{canary}', 'x');"),
        format!("SELECT WriteFile/**/('{canary}', 'x');"),
        "SELECT readfile('/etc/passwd');".to_owned(),
        "SELECT load_extension('/tmp/x');".to_owned(),
        "SELECT edit('x', 'true');".to_owned(),
        format!("CREATE VIRTUAL TABLE z USING zipfile('{canary}');"),
    ];
    for statements in &hostile {
        let ran = scene.run("0002_b", statements);
        ran.refused("nothing was done: ");
        assert_eq!(scene.ask(".dump"), before, "{statements}");
        assert!(!scene.folder.path().join("canary").exists(), "{statements}");
    }
    let raw: [&[u8]; 6] = [
        b"-- migration 0002_b\nSELECT 1;\0\n.shell id\n",
        b"\xef\xbb\xbf-- migration 0002_b\n",
        b"-- migration 0002_b\r\nSELECT 1;\n",
        b"-- migration ../x\n",
        b"SELECT 1;\n",
        b"",
    ];
    for content in raw {
        scene.runner.run(content).refused("nothing was done: ");
        assert_eq!(scene.ask(".dump"), before);
    }
    println!(
        "{} attacks, {} refused",
        hostile.len() + raw.len(),
        hostile.len() + raw.len()
    );
}

/// What no look at the text can tell from the end of a trigger: it is not recorded, and that is said.
#[test]
fn a_migration_that_ends_the_transaction_all_the_same_is_not_recorded() {
    let Some(scene) = Scene::new() else { return };
    scene.run("0001_a", FIRST).applied("0001_a");
    for (number, statements) in [
        "CREATE TABLE t1 (x); END; CREATE TABLE u1 (x);",
        "CREATE TABLE t2 (x); /**/ COMMIT; CREATE TABLE u2 (x);",
        "CREATE TABLE t3 (x); /**/ ROLLBACK; CREATE TABLE u3 (x);",
        "CREATE TABLE t4 (x); END; BEGIN; CREATE TABLE u4 (x);",
    ]
    .into_iter()
    .enumerate()
    {
        let ran = scene.run(&format!("0002_{number}"), statements);
        ran.refused("what it did may be kept: it ended the transaction");
        assert_eq!(scene.applied(), "0001_a", "{statements}");
    }
}

/// Harmless beside malicious.
#[test]
fn triggers_and_harmless_words_are_let_through() {
    let Some(scene) = Scene::new() else { return };
    let statements = "CREATE TABLE note (commit_id TEXT, release TEXT, \"end\" TEXT);\n\
        CREATE TRIGGER stamp AFTER INSERT ON note\nBEGIN\n  UPDATE note SET release = 'x, commit soon';\nEND;\n\
        INSERT INTO note (commit_id) VALUES (CASE 1 WHEN 1 THEN 'a' END);\n\
        -- the rollback is in another file\n\
        INSERT INTO note (commit_id) VALUES ('ä.\n')";
    scene.run("0001_note", statements).applied("0001_note");
    assert_eq!(scene.ask("SELECT count(*) FROM note WHERE release LIKE '%soon'"), "2");
}

/// REQ-MIGRATION-5
#[test]
fn two_at_the_same_time_are_one_after_the_other() {
    let Some(scene) = Scene::new() else { return };
    scene.run("0001_a", FIRST).applied("0001_a");
    let slow = "INSERT INTO customer WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n LIMIT 300000)\n\
        SELECT 'n' FROM n WHERE x = 300000;";
    let text = migration("0002_b after 0001_a", slow);
    let both: Vec<_> = (0..4).map(|_| scene.runner.start(Mode::Run, text.as_bytes())).collect();
    let ended: Vec<Ran> = both.into_iter().map(Runner::end).collect();
    let (done, refused): (Vec<&Ran>, Vec<&Ran>) = ended.iter().partition(|ran| ran.exit == 0);
    assert_eq!(done.len(), 1, "{ended:?}");
    done[0].applied("0002_b");
    for ran in refused {
        ran.refused("0002_b was applied already");
    }
    assert_eq!(scene.ask("SELECT count(*) FROM customer"), "2");
}

/// REQ-MIGRATION-7
#[test]
fn a_dry_run_shows_what_would_run_and_changes_nothing() {
    let Some(scene) = Scene::new() else { return };
    let absent = scene.runner.dry_run(migration("0001_a", FIRST));
    assert_ne!(absent.exit, 0, "{absent:?}");
    assert!(!scene.path().exists(), "a database that is not there is not made");
    scene.run("0001_a", FIRST).applied("0001_a");
    let before = std::fs::read(scene.path()).unwrap();
    let shown = scene
        .runner
        .dry_run(migration("0002_b after 0001_a", "DROP TABLE customer;"));
    assert_eq!(shown.exit, 0, "{shown:?}");
    let lines: Vec<&str> = shown.stdout.lines().collect();
    assert!(lines[0].starts_with("applied 0001_a at 2"), "{shown:?}");
    assert_eq!(
        lines[1..4],
        [
            "would run 0002_b",
            "-- migration 0002_b after 0001_a",
            "DROP TABLE customer;"
        ]
    );
    let again = scene.runner.dry_run(migration("0001_a", FIRST));
    assert!(
        again.stdout.contains("would not run: 0001_a was applied already"),
        "{again:?}"
    );
    let hostile = scene.runner.dry_run(migration("0002_b", "COMMIT;"));
    assert!(
        hostile
            .stdout
            .contains("would not run: it begins or ends a transaction"),
        "{hostile:?}"
    );
    assert_eq!(std::fs::read(scene.path()).unwrap(), before);
}

#[test]
fn a_link_in_place_of_the_database_is_refused() {
    let Some(scene) = Scene::new() else { return };
    let real = scene.folder.path().join("real.db");
    std::fs::write(&real, "").unwrap();
    std::os::unix::fs::symlink(&real, scene.path()).unwrap();
    assert_ne!(scene.run("0001_a", FIRST).exit, 0);
    assert_eq!(std::fs::metadata(real).unwrap().len(), 0);
}

/// As root: the program is not root, and could not become it again.
#[test]
fn the_migration_runs_as_the_owner_of_the_database() {
    let Some(scene) = Scene::new() else { return };
    scene.run("0001_a", FIRST).applied("0001_a");
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(scene.path()).unwrap());
    let own = nix::unistd::geteuid();
    match own.is_root() {
        true => assert_eq!(
            Some(nix::unistd::Uid::from_raw(owner)),
            nix::unistd::User::from_name("nobody").unwrap().map(|user| user.uid)
        ),
        false => assert_eq!(owner, own.as_raw()),
    }
}
