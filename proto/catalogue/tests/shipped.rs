//! The manifests that are shipped, as they lie in the source.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a failed test says why")]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use catalogue::{Catalogue, Element, Exec, Privilege, Profile};
use serde_json::{Map, Value, json};

/// A copy as a package installs it: a checkout under a lax umask would itself be refused.
fn shipped() -> Catalogue {
    installed(&["actions.d"])
}

/// The manifests of these folders, in one.
fn installed(folders: &[&str]) -> Catalogue {
    let installed = tempfile::tempdir().unwrap();
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    for file in folders
        .iter()
        .flat_map(|folder| std::fs::read_dir(here.join(folder)).unwrap())
    {
        let file = file.unwrap();
        let copy = installed.path().join(file.file_name());
        std::fs::copy(file.path(), &copy).unwrap();
        std::fs::set_permissions(&copy, std::fs::Permissions::from_mode(0o644)).unwrap();
    }
    let (catalogue, faults) = Catalogue::lint(installed.path(), &[nix::unistd::geteuid().as_raw()]);
    assert!(faults.is_empty(), "{faults:#?}");
    catalogue
}

fn object(value: Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap()
}

#[test]
fn the_shipped_actions_lint_clean_and_only_read() {
    let catalogue = shipped();
    let names: Vec<&str> = catalogue.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["check_health", "read_file", "tail_log"]);
    for (_, entry) in catalogue.iter() {
        assert_eq!(entry.manifest().risk(), wire::Risk::Read);
        assert_eq!(entry.manifest().input_schema()["additionalProperties"], json!(false));
    }
}

/// REQ-MANIFEST-13, REQ-MANIFEST-15
#[test]
fn tail_log_becomes_the_command_of_its_template() {
    let catalogue = shipped();
    let tail = catalogue.find(&"tail_log".parse().unwrap()).unwrap().manifest();
    let checked = tail.check_args(&object(json!({ "path": "/var/log/syslog" }))).unwrap();
    assert_eq!(checked.argv(), ["tail", "-n", "50"]);
    assert_eq!(checked.args()["lines"], json!(50));
    let stdin = checked.stdin().unwrap();
    assert_eq!(
        (stdin.name, stdin.path, stdin.sha256),
        ("path", "/var/log/syslog", None)
    );
    assert_eq!(tail.files()["path"].within(), [Path::new("/var/log")]);
    assert_eq!(tail.profile(), Profile::Reader);
    let Exec::Program { program, argv, .. } = tail.exec() else {
        panic!()
    };
    assert_eq!(program, Path::new(catalogue::probe::INSPECT));
    assert_eq!(argv[2], Element::Argument("lines".to_owned()));

    let faults = tail
        .check_args(&object(json!({ "lines": 6000, "bogus": 1 })))
        .unwrap_err();
    let mut faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
    faults.sort();
    assert_eq!(
        faults,
        [
            "bogus: is not an argument of this action; known are lines, path",
            "lines: 6000 is greater than the maximum of 5000",
            "path: is missing",
        ]
    );
}

/// REQ-MANIFEST-16
#[test]
fn read_file_takes_a_range_and_an_encoding() {
    let catalogue = shipped();
    let read = catalogue.find(&"read_file".parse().unwrap()).unwrap().manifest();
    let checked = read
        .check_args(&object(
            json!({ "path": "/var/log/x", "offset": 10, "encoding": "base64" }),
        ))
        .unwrap();
    assert_eq!(checked.argv(), ["read", "--offset", "10", "--limit", "65536"]);
    assert_eq!((checked.encoding(), checked.offset()), (Some("base64"), Some(10)));
    let plain = read.check_args(&object(json!({ "path": "/var/log/x" }))).unwrap();
    assert_eq!((plain.encoding(), plain.offset()), (None, Some(0)));
    assert!(
        read.check_args(&object(json!({ "path": "/var/log/x", "encoding": "hex" })))
            .is_err()
    );
}

/// REQ-MANIFEST-17
#[test]
fn check_health_names_a_probe_and_nothing_else() {
    let catalogue = shipped();
    let health = catalogue.find(&"check_health".parse().unwrap()).unwrap().manifest();
    let checked = health.check_args(&object(json!({ "probe": "ssh" }))).unwrap();
    assert_eq!(
        (checked.probe(), checked.argv().len(), checked.stdin()),
        (Some("ssh"), 0, None)
    );
    for bad in ["", "SSH", "a b", "../x", "-x", "a\n"] {
        assert!(health.check_args(&object(json!({ "probe": bad }))).is_err(), "{bad:?}");
    }
}

/// With systemd's or runit's actions beside the others, as an installation lays them: what verifies is there.
#[test]
fn services_are_one_catalogue_with_either_supervisor() {
    for (supervisor, names) in [
        (
            "systemd",
            &["journal_query", "list_services", "restart_service", "service_status"][..],
        ),
        ("runit", &["list_services", "restart_service", "service_status"]),
    ] {
        let catalogue = installed(&["actions.d", &format!("supervisors/{supervisor}")]);
        assert_eq!(catalogue.len(), 3 + names.len(), "{supervisor}");
        for name in names {
            let manifest = catalogue.find(&name.parse().unwrap()).unwrap().manifest();
            let changes = *name == "restart_service";
            assert_eq!(manifest.risk() == wire::Risk::Change, changes, "{name}");
            assert_eq!(manifest.privilege() == Privilege::Sudo, changes, "{name}");
        }
        let restart = catalogue.find(&"restart_service".parse().unwrap()).unwrap().manifest();
        let units = restart.schema().properties()["unit"].choices().unwrap();
        // A line for each unit and one for its dry run; no unit that the look afterwards would not take.
        assert_eq!(restart.command_lines().len(), 2 * units.len(), "{supervisor}");
        let status = catalogue.find(&"service_status".parse().unwrap()).unwrap().manifest();
        for unit in units {
            let own = restart.check_args(&object(json!({ "unit": unit }))).unwrap();
            let asked = restart.verify().unwrap().args_for(own.args());
            assert_eq!(Value::Object(asked.clone()), json!({ "unit": unit }));
            let checked = status.check_args(&asked).unwrap();
            assert_eq!(checked.argv().last().map(String::as_str), unit.as_str());
        }
        for bad in [
            "*",
            "nginx.service;id",
            "../nginx.service",
            "-H root@x",
            "nginx.service\n",
            "",
            "--all",
        ] {
            assert!(restart.check_args(&object(json!({ "unit": bad }))).is_err(), "{bad:?}");
            assert!(status.check_args(&object(json!({ "unit": bad }))).is_err(), "{bad:?}");
        }
    }
}

#[test]
fn the_journal_is_asked_for_one_unit_a_bounded_time_and_a_bounded_number_of_lines() {
    let catalogue = installed(&["actions.d", "supervisors/systemd"]);
    let journal = catalogue.find(&"journal_query".parse().unwrap()).unwrap().manifest();
    let checked = journal
        .check_args(&object(json!({ "unit": "nginx.service", "priority": "err" })))
        .unwrap();
    assert_eq!(
        checked.argv()[4..],
        [
            "--unit",
            "nginx.service",
            "--since",
            "1 hour ago",
            "--lines",
            "100",
            "--priority",
            "err"
        ]
    );
    for bad in [
        json!({ "unit": "nginx*.service" }),
        json!({ "unit": "nginx.service", "lines": 1001 }),
        json!({ "unit": "nginx.service", "lines": "all" }),
        json!({ "unit": "nginx.service", "since": "yesterday" }),
        json!({ "unit": "nginx.service", "priority": "0..7" }),
    ] {
        assert!(journal.check_args(&object(bad.clone())).is_err(), "{bad}");
    }
}

/// With either database's actions beside the others: what destroys is approved, its migration by content, and sudo is told
/// two command lines that hold nothing of a caller's.
#[test]
fn migrations_are_approved_by_content_and_give_a_caller_no_word_of_a_privileged_command_line() {
    for (database, names) in [
        (
            "postgresql",
            &["applied_migrations", "list_migrations", "run_migration"][..],
        ),
        ("sqlite", &["list_migrations", "run_migration"]),
    ] {
        let catalogue = installed(&["actions.d", &format!("databases/{database}")]);
        assert_eq!(catalogue.len(), 3 + names.len(), "{database}");
        let run = catalogue.find(&"run_migration".parse().unwrap()).unwrap().manifest();
        assert_eq!((run.risk(), run.approvals()), (wire::Risk::Destroy, 1), "{database}");
        assert!(run.files()["migration"].pin(), "{database}");
        assert_eq!(run.dry_run().unwrap().risk, wire::Risk::Read, "{database}");
        let lines = run.command_lines();
        assert_eq!(lines.len(), if database == "sqlite" { 2 } else { 0 });
        assert!(lines.iter().all(|line| line.contains(&"--no-new-privs".to_owned())));

        let sha256 = "a".repeat(64);
        let args = |path: &str, sha256: &str| {
            let mut args = json!({ "migration": { "path": path, "sha256": sha256 } });
            if database == "postgresql" {
                args["database"] = json!("app");
            }
            object(args)
        };
        let good = "/etc/writ/migrations/app/0001_customer.sql";
        let checked = run.check_args(&args(good, &sha256)).unwrap();
        let file = checked.stdin().unwrap();
        assert_eq!((file.path, file.sha256), (good, Some(sha256.as_str())));
        assert!(checked.argv().iter().all(|word| !word.contains("0001_customer")));
        for bad in [
            "/etc/writ/migrations/app/../other/0001_x.sql",
            "/etc/writ/migrations/other/0001_x.sql",
            "/etc/writ/migrations/app/sub/0001_x.sql",
            "/etc/writ/migrations/app/.x.sql",
            "/etc/passwd",
            "0001_x.sql",
            "",
        ] {
            assert!(run.check_args(&args(bad, &sha256)).is_err(), "{bad:?}");
        }
        assert!(run.check_args(&args(good, "")).is_err());
        assert!(
            run.check_args(&object(json!({ "migration": good, "database": "app" })))
                .is_err()
        );
        let schema = &run.input_schema()["properties"]["migration"];
        assert_eq!(schema["required"], json!(["path", "sha256"]), "{schema}");
        let list = catalogue.find(&"list_migrations".parse().unwrap()).unwrap().manifest();
        assert_eq!(list.risk(), wire::Risk::Read);
    }
}
