//! Enrolment against files in a folder of its own: what is made, what is installed, and each answer that is refused.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a failed test says why"
)]

use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use openssh::key::SigningKey;
use serde_json::{Value, json};
use ssh_key::certificate::{Builder, CertType};
use tempfile::TempDir;
use writ_target::{Failure, Place, accept, enroll};
use zeroize::Zeroizing;

const NOW: u64 = 1_800_000_000;

fn key(seed: u8) -> SigningKey {
    SigningKey::from_seed(&Zeroizing::new([seed; 32])).unwrap()
}

const HOST: u8 = 1;
const HOST_CA: u8 = 2;
const TASK_CA: u8 = 3;

/// A target's files, all of them this account's.
struct Host {
    folder: TempDir,
    place: Place,
}

impl Host {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let own = nix::unistd::geteuid().as_raw();
        let host_key = folder.path().join("ssh_host_ed25519_key.pub");
        let config = folder.path().join("target.toml");
        let place = Place::owned_by(&config, &host_key, own);
        let host = Self { folder, place };
        // The receipt key goes to another account, which only root can arrange; elsewhere it stays this one's.
        let exec_uid = if own == 0 { 64_102 } else { own };
        host.write(
            "target.toml",
            &format!("target = \"web-1\"\nrunner_uid = 64101\nrunner_gid = 64101\nexec_uid = {exec_uid}\n"),
        );
        host.write(
            "ssh_host_ed25519_key.pub",
            &format!("{} root@web-1\n", key(HOST).public().to_openssh()),
        );
        host
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.path(name), text).unwrap();
        std::fs::set_permissions(self.path(name), std::fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = std::fs::read_dir(self.folder.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn accept(&self, answer: &Value) -> Result<String, Failure> {
        accept::run(&self.place, answer.to_string().as_bytes(), false, NOW)
    }
}

/// A host certificate as the CA makes it, after `change` had its way with the builder.
fn certificate(host: u8, ca: u8, from: u64, until: u64, change: impl FnOnce(&mut Builder)) -> String {
    let mut builder = Builder::new([7_u8; 16], key(host).public().key_data(), from, until).unwrap();
    builder.serial(1).unwrap().key_id("web-1").unwrap();
    change(&mut builder);
    builder.sign(key(ca).private()).unwrap().to_openssh().unwrap()
}

fn for_web_1(builder: &mut Builder) {
    builder
        .cert_type(CertType::Host)
        .unwrap()
        .valid_principal("web-1")
        .unwrap();
}

fn good_answer() -> Value {
    answer(&certificate(HOST, HOST_CA, NOW - 30, NOW + 3600, for_web_1))
}

fn answer(certificate: &str) -> Value {
    json!({ "v": 1, "target": "web-1", "task_ca": key(TASK_CA).public().to_openssh(), "host_certificate": certificate })
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn the_line_names_the_target_and_its_keys_and_stays_the_same() {
    let host = Host::new();
    let first = enroll::run(&host.place).unwrap();
    assert!(first.note.contains("made a receipt key"));
    let line: Value = serde_json::from_str(&first.line).unwrap();
    assert_eq!(line["v"], 1);
    assert_eq!(line["target"], "web-1");
    assert_eq!(line["host_key"], key(HOST).public().to_openssh());
    let receipt = SigningKey::from_openssh(&host.read("receipt.key")).unwrap();
    assert_eq!(line["receipt_key"], receipt.public().to_openssh());
    assert_eq!(mode(&host.path("receipt.key")), 0o400);
    assert!(!first.line.contains('\n') && !first.line.contains("PRIVATE"));

    let again = enroll::run(&host.place).unwrap();
    assert_eq!(again.line, first.line);
    assert!(again.note.contains("there already"));
    assert_eq!(
        host.names(),
        ["receipt.key", "ssh_host_ed25519_key.pub", "target.toml"],
        "no draft is left behind"
    );
}

#[test]
fn a_receipt_key_that_others_could_know_is_refused() {
    for bits in [0o440, 0o404, 0o600, 0o4400] {
        let host = Host::new();
        enroll::run(&host.place).unwrap();
        std::fs::set_permissions(host.path("receipt.key"), std::fs::Permissions::from_mode(bits)).unwrap();
        let failure = enroll::run(&host.place).unwrap_err();
        assert!(
            failure.to_string().contains("has mode") && failure.exit_code() == 2,
            "{bits:o}: {failure}"
        );
    }
    let host = Host::new();
    enroll::run(&host.place).unwrap();
    std::fs::rename(host.path("receipt.key"), host.path("elsewhere")).unwrap();
    symlink(host.path("elsewhere"), host.path("receipt.key")).unwrap();
    assert!(
        enroll::run(&host.place)
            .unwrap_err()
            .to_string()
            .contains("symbolic link")
    );
}

#[test]
fn a_host_that_is_not_ready_says_what_is_missing() {
    type Spoil = fn(&Host);
    let table: [(&str, Spoil, &str); 7] = [
        (
            "no configuration",
            |host| std::fs::remove_file(host.path("target.toml")).unwrap(),
            "install the target's package",
        ),
        (
            "a bad configuration",
            |host| host.write("target.toml", "target = \"web-1\"\nport = 22\n"),
            "port",
        ),
        (
            "one that others can write",
            |host| {
                std::fs::set_permissions(host.path("target.toml"), std::fs::Permissions::from_mode(0o666)).unwrap();
            },
            "chmod 644",
        ),
        (
            "no host key",
            |host| std::fs::remove_file(host.path("ssh_host_ed25519_key.pub")).unwrap(),
            "ssh-keygen -A",
        ),
        (
            "a key of another kind",
            |host| host.write("ssh_host_ed25519_key.pub", "ssh-rsa AAAA"),
            "--host-key",
        ),
        (
            "a damaged receipt key",
            |host| {
                enroll::run(&host.place).unwrap();
                let path = host.path("receipt.key");
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
                std::fs::write(&path, "rubbish").unwrap();
                std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o400)).unwrap();
            },
            "receipt.key",
        ),
        (
            "the host key as receipt key",
            |host| {
                enroll::run(&host.place).unwrap();
                let receipt = SigningKey::from_openssh(&host.read("receipt.key")).unwrap();
                host.write("ssh_host_ed25519_key.pub", &receipt.public().to_openssh());
            },
            "sshd could sign Outcomes",
        ),
    ];
    for (name, spoil, expected) in table {
        let host = Host::new();
        spoil(&host);
        let failure = enroll::run(&host.place).unwrap_err();
        assert!(
            failure.to_string().contains(expected) && failure.exit_code() == 2,
            "{name}: {failure}"
        );
    }
}

#[test]
fn a_good_answer_is_installed_and_openssh_agrees() {
    let host = Host::new();
    let told = host.accept(&good_answer()).unwrap();
    assert!(told.contains("web-1 is enrolled"), "{told}");
    assert_eq!(host.read("ca.pub"), format!("{}\n", key(TASK_CA).public().to_openssh()));
    assert_eq!(host.read("principals"), "web-1\n");
    for name in ["ca.pub", "principals", "krl", "ssh_host_ed25519_key-cert.pub"] {
        assert_eq!(mode(&host.path(name)), 0o644, "{name}");
    }
    assert!(
        host.names().iter().all(|name| !name.ends_with(".new")),
        "{:?}",
        host.names()
    );

    let listed = Command::new("ssh-keygen")
        .arg("-L")
        .arg("-f")
        .arg(host.path("ssh_host_ed25519_key-cert.pub"))
        .output()
        .unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(
        listed.contains("host certificate") && listed.contains("web-1"),
        "{listed}"
    );
    let asked = Command::new("ssh-keygen")
        .args(["-Q", "-f"])
        .args([host.path("krl"), host.path("ssh_host_ed25519_key.pub")])
        .output()
        .unwrap();
    assert!(asked.status.success(), "nobody is revoked: {asked:?}");

    let before = std::fs::read(host.path("krl")).unwrap();
    let told = host.accept(&good_answer()).unwrap();
    assert!(!told.contains("wrote "), "the same answer changes nothing: {told}");
    assert_eq!(std::fs::read(host.path("krl")).unwrap(), before);
}

#[test]
fn an_answer_that_does_not_fit_is_refused_and_nothing_is_written() {
    let certificate_of = |change: fn(&mut Builder)| answer(&certificate(HOST, HOST_CA, NOW - 30, NOW + 3600, change));
    let with = |key: &str, value: Value| {
        let mut answer = good_answer();
        answer[key] = value;
        answer
    };
    let table = [
        ("another version", with("v", json!(2)), "version 2"),
        (
            "another target",
            with("target", json!("web-2")),
            "the answer is for web-2, this is web-1",
        ),
        ("an unknown key", with("x", json!(1)), "unknown field"),
        ("no CA", with("task_ca", json!("ssh-rsa AAAA")), "task_ca"),
        (
            "no certificate",
            with("host_certificate", json!("rubbish")),
            "host_certificate",
        ),
        (
            "another key's",
            answer(&certificate(9, HOST_CA, NOW - 30, NOW + 3600, for_web_1)),
            "another key than this host's",
        ),
        (
            "by the CA for tasks",
            answer(&certificate(HOST, TASK_CA, NOW - 30, NOW + 3600, for_web_1)),
            "must not do both",
        ),
        (
            "not valid yet",
            answer(&certificate(HOST, HOST_CA, NOW + 100, NOW + 3600, for_web_1)),
            "compare this host's clock",
        ),
        (
            "over",
            answer(&certificate(HOST, HOST_CA, NOW - 3600, NOW - 100, for_web_1)),
            "it ended 100 s ago",
        ),
        (
            "for users",
            certificate_of(|builder| {
                builder
                    .cert_type(CertType::User)
                    .unwrap()
                    .valid_principal("web-1")
                    .unwrap();
            }),
            "type",
        ),
        (
            "for another name",
            certificate_of(|builder| {
                builder
                    .cert_type(CertType::Host)
                    .unwrap()
                    .valid_principal("web-2")
                    .unwrap();
            }),
            "principals",
        ),
        (
            "for all names",
            certificate_of(|builder| {
                builder
                    .cert_type(CertType::Host)
                    .unwrap()
                    .all_principals_valid()
                    .unwrap();
            }),
            "principals",
        ),
        (
            "with an option",
            certificate_of(|builder| {
                for_web_1(builder);
                builder.critical_option("force-command", "x").unwrap();
            }),
            "options",
        ),
    ];
    let host = Host::new();
    let before = host.names();
    for (name, answer, expected) in &table {
        let failure = host.accept(answer).unwrap_err();
        assert!(
            failure.to_string().contains(expected) && failure.exit_code() == 2,
            "{name}: {failure}"
        );
        assert_eq!(host.names(), before, "{name}");
    }
    for (bytes, expected) in [
        (&b""[..], "nothing came on stdin"),
        (b"\n", "nothing came on stdin"),
        (b"{}{}", "not one line"),
        (br#"{"v":1,"v":1}"#, "not one line"),
        (&[b' '; 10], "nothing came on stdin"),
        (&[b'x'; accept::MAX_BYTES + 1], "65537 bytes"),
    ] {
        let failure = accept::run(&host.place, bytes, false, NOW).unwrap_err();
        assert!(failure.to_string().contains(expected), "{failure}");
    }
    let mut forged = certificate(HOST, HOST_CA, NOW - 30, NOW + 3600, for_web_1).into_bytes();
    let last = forged.len() - 10;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    assert!(host.accept(&answer(&String::from_utf8(forged).unwrap())).is_err());
    assert_eq!(host.names(), before);
}

#[test]
fn another_ca_takes_over_only_where_the_administrator_says_so() {
    let host = Host::new();
    let old = format!("# the old one\n{}\n", key(8).public().to_openssh());
    host.write("ca.pub", &old);
    let before = host.names();
    let failure = host.accept(&good_answer()).unwrap_err();
    assert!(
        failure.to_string().contains("--replace-ca") && failure.exit_code() == 2,
        "{failure}"
    );
    assert_eq!((host.read("ca.pub"), host.names()), (old.clone(), before));

    accept::run(&host.place, good_answer().to_string().as_bytes(), true, NOW).unwrap();
    assert_eq!(host.read("ca.pub"), format!("{}\n", key(TASK_CA).public().to_openssh()));

    let both = format!("{old}{}\n", key(TASK_CA).public().to_openssh());
    host.write("ca.pub", &both);
    host.accept(&good_answer()).unwrap();
    assert_eq!(host.read("ca.pub"), both, "while keys are changed, both stay");
}

#[test]
fn a_krl_is_kept_and_an_empty_file_is_not_one() {
    let host = Host::new();
    host.write("krl", "");
    host.accept(&good_answer()).unwrap();
    assert!(std::fs::read(host.path("krl")).unwrap().starts_with(b"SSHKRL\n\0"));
    host.write("krl", "rubbish");
    let failure = host.accept(&good_answer()).unwrap_err();
    assert!(failure.to_string().contains("is not a KRL"), "{failure}");
}
