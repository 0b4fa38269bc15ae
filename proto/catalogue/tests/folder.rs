//! Which files count as manifests: only those that nobody but their owner can write.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test says why"
)]

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

use catalogue::{Catalogue, Folder, Manifest};
use tempfile::TempDir;

fn text(name: &str) -> String {
    format!(
        "name = \"{name}\"\ntitle = \"T\"\ndescription = \"D\"\nrisk = \"read\"\ntimeout_ms = 1\n[exec]\nprogram = \"/bin/true\"\n"
    )
}

fn own() -> u32 {
    nix::unistd::geteuid().as_raw()
}

fn mode(path: &Path, bits: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(bits)).unwrap();
}

fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    mode(folder.path(), 0o755);
    for name in ["alpha", "beta"] {
        write(folder.path(), &format!("{name}.toml"), &text(name));
    }
    folder
}

fn write(folder: &Path, file: &str, text: &str) {
    let path = folder.join(file);
    std::fs::write(&path, text).unwrap();
    mode(&path, 0o644);
}

fn told(path: &Path) -> Vec<String> {
    let (_, faults) = Catalogue::lint(path, &[own()]);
    faults.iter().map(ToString::to_string).collect()
}

#[test]
fn a_good_folder_loads_and_digests_without_parsing_say_the_same() {
    let folder = folder();
    let catalogue = Catalogue::load(folder.path()).unwrap();
    assert_eq!(catalogue.len(), 2);
    let opened = Folder::open(folder.path(), &[own()]).unwrap();
    let (digests, faults) = opened.digests().unwrap();
    assert!(faults.is_empty());
    for (name, entry) in catalogue.iter() {
        assert_eq!(digests.get(name), Some(entry.digest()));
        assert_eq!(entry.digest(), &Manifest::digest(text(name.as_str()).as_bytes()));
    }
    let one = opened.load_one(&"alpha".parse().unwrap()).unwrap().unwrap();
    assert_eq!(one.manifest().title(), "T");
    assert!(opened.load_one(&"gone".parse().unwrap()).unwrap().is_none());
}

/// REQ-MANIFEST-1
#[test]
fn what_package_managers_and_editors_leave_does_not_count() {
    let folder = folder();
    for file in [
        "alpha.toml.dpkg-old",
        "alpha.toml~",
        ".alpha.toml.swp",
        ".hidden.toml",
        "README",
    ] {
        write(folder.path(), file, "rubbish");
    }
    assert_eq!(told(folder.path()), [""; 0]);
}

/// REQ-MANIFEST-1, REQ-MANIFEST-3
#[test]
fn each_file_that_does_not_count_is_named() {
    type Spoil = fn(&Path);
    let table: &[(&str, Spoil, &str)] = &[
        (
            "catalogue_symlink",
            |dir| symlink("alpha.toml", dir.join("gamma.toml")).unwrap(),
            "gamma.toml: is a symbolic link",
        ),
        (
            "catalogue_world_writable",
            |dir| mode(&dir.join("alpha.toml"), 0o646),
            "alpha.toml: is writable for group or others",
        ),
        (
            "group-writable",
            |dir| mode(&dir.join("alpha.toml"), 0o664),
            "alpha.toml: is writable for group or others",
        ),
        (
            "a folder",
            |dir| std::fs::create_dir(dir.join("gamma.toml")).unwrap(),
            "gamma.toml: is not a regular file",
        ),
        (
            "a bad name",
            |dir| write(dir, "Gamma.toml", "x"),
            "Gamma.toml: must be called after its action",
        ),
        (
            "another name inside",
            |dir| write(dir, "gamma.toml", &text("delta")),
            "gamma.toml: name: must be \"gamma\"",
        ),
        (
            "catalogue_unknown_key",
            |dir| write(dir, "gamma.toml", &format!("x = 1\n{}", text("gamma"))),
            "gamma.toml: x: is not a known key",
        ),
        (
            "too long",
            |dir| write(dir, "gamma.toml", &"#".repeat(65_537)),
            "gamma.toml: has more than 65536 bytes",
        ),
        (
            "verified by nobody",
            |dir| {
                let change = text("gamma").replace("\"read\"", "\"change\"") + "[verify]\naction = \"gone\"\n";
                write(dir, "gamma.toml", &change);
            },
            "gamma.toml: verify.action: names gone, which is not in this folder",
        ),
    ];
    for (name, spoil, expected) in table {
        let folder = folder();
        spoil(folder.path());
        let lines = told(folder.path());
        assert!(lines.len() == 1 && lines[0].starts_with(expected), "{name}: {lines:#?}");
        assert!(Catalogue::load(folder.path()).is_err(), "{name}");
    }
}

#[test]
fn a_faulty_manifest_disables_its_own_action_and_no_other() {
    let folder = folder();
    write(folder.path(), "alpha.toml", "rubbish");
    let opened = Folder::open(folder.path(), &[own()]).unwrap();
    assert!(opened.load_one(&"alpha".parse().unwrap()).is_err());
    assert!(opened.load_one(&"beta".parse().unwrap()).unwrap().is_some());
    mode(&folder.path().join("beta.toml"), 0o666);
    assert!(opened.load_one(&"beta".parse().unwrap()).is_err());
    let (digests, faults) = opened.digests().unwrap();
    assert_eq!(
        (digests.len(), faults.len()),
        (1, 1),
        "an unreadable text is only found by reading it"
    );
}

#[test]
fn a_manifest_that_changed_is_read_anew_and_one_that_went_away_is_gone() {
    let folder = folder();
    let opened = Folder::open(folder.path(), &[own()]).unwrap();
    let first = opened.load_one(&"alpha".parse().unwrap()).unwrap().unwrap();
    let same = opened.reload(first.clone()).unwrap().unwrap();
    assert_eq!(same.digest(), first.digest());
    write(
        folder.path(),
        "alpha.toml",
        &text("alpha").replace("\"T\"", "\"Other\""),
    );
    let other = opened.reload(same).unwrap().unwrap();
    assert_eq!(other.manifest().title(), "Other");
    assert_ne!(other.digest(), first.digest());
    mode(&folder.path().join("alpha.toml"), 0o666);
    assert!(
        opened.reload(other.clone()).is_err(),
        "owner and mode are looked at every time"
    );
    std::fs::remove_file(folder.path().join("alpha.toml")).unwrap();
    assert!(opened.reload(other).unwrap().is_none());
}

/// REQ-MANIFEST-1
#[test]
fn a_folder_that_others_can_write_to_does_not_count() {
    let good = folder();
    mode(good.path(), 0o777);
    assert!(told(good.path())[0].contains("writable for group or others"));
    mode(good.path(), 0o755);
    let link = tempfile::tempdir().unwrap();
    symlink(good.path(), link.path().join("actions.d")).unwrap();
    assert!(told(&link.path().join("actions.d"))[0].contains("failed to open the folder"));
    assert!(told(&good.path().join("gone"))[0].contains("failed to open the folder"));
    let (_, faults) = Catalogue::lint(good.path(), &[own() + 1]);
    assert!(
        faults[0]
            .to_string()
            .contains(&format!("is owned by user {}, not by {}", own(), own() + 1))
    );
}

#[test]
fn no_catalogue_denies() {
    let empty = tempfile::tempdir().unwrap();
    mode(empty.path(), 0o755);
    let catalogue = Catalogue::load(empty.path()).unwrap();
    assert!(catalogue.is_empty());
    assert!(catalogue.find(&"alpha".parse().unwrap()).is_none());
}

/// REQ-MANIFEST-1
#[test]
fn a_fifo_is_refused_without_waiting_for_its_writer() {
    let folder = folder();
    nix::unistd::mkfifo(
        &folder.path().join("gamma.toml"),
        nix::sys::stat::Mode::from_bits_truncate(0o644),
    )
    .unwrap();
    let start = Instant::now();
    assert!(told(folder.path())[0].contains("gamma.toml: is not a regular file"));
    assert!(start.elapsed() < Duration::from_secs(1));
}
