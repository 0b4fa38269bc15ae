//! A migration of a real SQLite database on a real target: what an approver approved, once, as the database's owner.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where; its name is its documentation"
)]

use harness::evil::{code, outcome};
use harness::ids::STRANGER;
use harness::stack::now;
use harness::{By, Changed, EvilRelay, Leaves, Stack, Target, assert_refused};
use security::approvals::{Person, approval, line, on, statement};
use security::changes::{carry_out, permit};
use security::maze::{sha256, shown};
use security::privileged::{SUDOERS, list};
use security::{WEB, add_action, granted, stack};
use serde_json::{Map, Value, json};

const FOLDER: &str = "/etc/writ/migrations/app";
const FIRST: &str =
    "-- migration 0001_customer\nCREATE TABLE customer (name TEXT);\nINSERT INTO customer VALUES ('ada');\n";
const SECOND: &str = "-- migration 0002_mail after 0001_customer\nALTER TABLE customer ADD mail TEXT;\n";

/// A target as `install NAME SUPERVISOR sqlite` leaves it, with a database of the stranger's, two migrations, and Carol who
/// may approve; and a relay with a live task.
struct Scene<'a> {
    stack: &'a Stack,
    target: &'a Target,
    relay: EvilRelay,
    carol: Person,
    // In this order they go: last the list of sudo that was there.
    _files: Vec<Changed>,
    _sudoers: Changed,
}

impl<'a> Scene<'a> {
    fn new(stack: &'a Stack) -> Self {
        let target = stack.target(WEB).unwrap();
        let root = target.root();
        let carol = Person::with_file("ed25519").unwrap();
        let sudoers = Changed::keep(root, SUDOERS).unwrap();
        let mut files = Vec::new();
        for (name, text) in [
            (
                "apply",
                include_str!("../../../proto/catalogue/databases/sqlite/apply.sql"),
            ),
            (
                "judge",
                include_str!("../../../proto/catalogue/databases/sqlite/judge.sql"),
            ),
            (
                "show",
                include_str!("../../../proto/catalogue/databases/sqlite/show.sql"),
            ),
        ] {
            let place = format!("usr/share/writ/databases/sqlite/{name}.sql");
            root.file(&place, 0o644, text).unwrap();
        }
        root.folder("etc/writ/migrations", 0o755, (0, 0)).unwrap();
        root.folder(FOLDER, 0o755, (0, 0)).unwrap();
        root.folder("var/lib/app", 0o700, (STRANGER.uid, STRANGER.gid)).unwrap();
        for (name, text) in [("0001_customer", FIRST), ("0002_mail", SECOND)] {
            files.push(Changed::write(root, &format!("{FOLDER}/{name}.sql"), text).unwrap());
        }
        for name in ["app.db", "app.db-journal"] {
            files.push(Changed::keep(root, &format!("var/lib/app/{name}")).unwrap());
        }
        let run = include_str!("../../../proto/catalogue/databases/sqlite/run_migration.toml");
        let run = run.replace("id=app\"", &format!("id={}\"", STRANGER.name));
        files.push(add_action(target, "run_migration", &run).unwrap());
        let all = include_str!("../../../proto/catalogue/databases/sqlite/list_migrations.toml");
        files.push(add_action(target, "list_migrations", all).unwrap());
        files.push(Changed::write(root, "etc/writ/approvers", carol.line("carol", "").unwrap()).unwrap());
        list(target).unwrap();
        Self {
            stack,
            target,
            relay: granted(stack, &["list_migrations", "run_migration"]).unwrap(),
            carol,
            _files: files,
            _sudoers: sudoers,
        }
    }

    fn payload(&self, name: &str, text: &str, mode: &str) -> Map<String, Value> {
        let migration = json!({"path": format!("{FOLDER}/{name}.sql"), "sha256": sha256(text)});
        let mut payload = self.relay.payload("run_migration", json!({ "migration": migration }));
        payload.insert("mode".to_owned(), json!(mode));
        payload
    }

    /// Approves a request as it is and sends it.
    fn approved(&mut self, payload: &mut Map<String, Value>) -> Value {
        payload.insert("expires".to_owned(), json!(now() + 300));
        let on = [on(payload).unwrap()];
        let sig = self.carol.approve(&statement(payload, &on).unwrap()).unwrap();
        self.send(payload, &approval(&on, &[sig]))
    }

    fn send(&mut self, payload: &Map<String, Value>, approval: &Value) -> Value {
        let permit = permit(self.stack, &self.relay, payload, |_, _| {}).unwrap();
        self.relay.present(&permit).unwrap();
        let line = line(&self.relay, payload, approval).unwrap();
        self.relay.ask(&line).unwrap()
    }

    /// What the database says to its owner.
    fn ask(&self, sql: &str) -> String {
        let output = self
            .target
            .run(
                STRANGER,
                "/usr/bin/sqlite3",
                &["-batch", "/var/lib/app/app.db", sql],
                b"",
            )
            .unwrap();
        assert!(output.status.success(), "{sql}: {output:?}");
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

/// REQ-MIGRATION-3, REQ-MIGRATION-4, REQ-MIGRATION-7
#[test]
fn a_migration_is_shown_approved_and_applied_once_as_the_databases_owner() {
    let stack = stack();
    let mut scene = Scene::new(&stack);
    let listed = scene.relay.call("list_migrations", json!({})).unwrap();
    let all = format!(
        "{FOLDER}/0001_customer.sql sha256 {}\n{FOLDER}/0002_mail.sql sha256 {}\n",
        sha256(FIRST),
        sha256(SECOND)
    );
    assert_eq!(shown(&listed), all, "{listed}");

    // Without an approval nothing happens.
    let mut asked = scene.payload("0001_customer", FIRST, "run");
    let database = scene.target.root().at("var/lib/app/app.db");
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "approval_missing", || {
        let permit = permit(&stack, &scene.relay, &asked, |_, _| {})?;
        scene.relay.present(&permit)?;
        Ok(code(&scene.relay.send(&asked)?))
    })
    .unwrap();
    assert!(!database.exists());

    let answer = scene.approved(&mut asked);
    assert_eq!(
        (code(&answer).as_str(), shown(&answer)),
        ("none", "applied 0001_customer\n"),
        "{answer}"
    );
    let meta = std::fs::metadata(&database).unwrap();
    assert_eq!(std::os::unix::fs::MetadataExt::uid(&meta), STRANGER.uid, "not root's");
    assert_eq!(scene.ask("SELECT count(*) FROM customer"), "1");
    assert_eq!(outcome(&answer).unwrap()["walls"], json!(["no_sandbox", "sudo:root"]));

    // A dry run needs the CA's word and no approval, and changes nothing.
    let before = std::fs::read(&database).unwrap();
    let trial = scene.payload("0002_mail", SECOND, "dry_run");
    let answer = carry_out(&stack, &mut scene.relay, &trial).unwrap();
    assert_eq!(code(&answer), "none", "{answer}");
    let told = shown(&answer);
    assert!(told.starts_with("applied 0001_customer at 2"), "{told}");
    assert!(
        told.contains("would run 0002_mail\n-- migration 0002_mail after"),
        "{told}"
    );
    assert_eq!(std::fs::read(&database).unwrap(), before);

    // Asked for anew, and approved anew: no second effect, and no Outcome that says there was one.
    let mut again = scene.payload("0001_customer", FIRST, "run");
    let answer = scene.approved(&mut again);
    assert_eq!(code(&answer), "exit_nonzero", "{answer}");
    assert!(
        shown(&answer).starts_with("nothing was done: 0001_customer was applied already"),
        "{answer}"
    );
    assert_eq!(std::fs::read(&database).unwrap(), before);

    let mut second = scene.payload("0002_mail", SECOND, "run");
    let answer = scene.approved(&mut second);
    assert_eq!(
        (code(&answer).as_str(), shown(&answer)),
        ("none", "applied 0002_mail\n"),
        "{answer}"
    );
    assert_eq!(
        scene.ask("SELECT group_concat(id) FROM writ_migration"),
        "0001_customer,0002_mail"
    );
}

#[test]
fn another_content_than_the_approved_one_never_reaches_the_database() {
    let stack = stack();
    let mut scene = Scene::new(&stack);
    let evil = "-- migration 0001_customer\nDROP TABLE customer;\n";
    let file = Changed::write(scene.target.root(), &format!("{FOLDER}/0001_customer.sql"), evil).unwrap();
    let mut asked = scene.payload("0001_customer", FIRST, "run");
    assert_refused(&stack, By::Target(WEB), Leaves::Record, "file_changed", || {
        Ok(code(&scene.approved(&mut asked)))
    })
    .unwrap();
    assert!(!scene.target.root().at("var/lib/app/app.db").exists());
    file.set(FIRST).unwrap();
    let mut asked = scene.payload("0001_customer", FIRST, "run");
    assert_eq!(code(&scene.approved(&mut asked)), "none");
}
