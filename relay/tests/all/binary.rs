//! The binary: what its verbs say, how they end, and a relay that is started, used and stopped.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, geteuid};
use serde_json::Value;

/// The account that the relay of a test runs as: never root.
fn account() -> u32 {
    if geteuid().is_root() {
        64_999
    } else {
        geteuid().as_raw()
    }
}

pub(crate) struct Room {
    folder: tempfile::TempDir,
}

impl Room {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let room = Self { folder };
        for (name, mode) in [("state", 0o700), ("log", 0o750), ("run", 0o755), ("actions.d", 0o755)] {
            let path = room.at(name);
            std::fs::create_dir(&path).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            room.give(&path);
        }
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proto/catalogue/actions.d");
        for entry in std::fs::read_dir(shipped).unwrap() {
            let entry = entry.unwrap();
            room.write(
                &format!("actions.d/{}", entry.file_name().to_str().unwrap()),
                &std::fs::read(entry.path()).unwrap(),
            );
        }
        for (name, text) in crate::world::changes() {
            room.write(&format!("actions.d/{name}.toml"), text.as_bytes());
        }
        room.write("inventory.toml", b"");
        let config = format!(
            "name = \"relay-1\"\nsocket = \"{0}/run/relay.sock\"\nca = \"unix:{0}/ca.sock\"\nlog_dir = \"{0}/log\"\n\
             state_dir = \"{0}/state\"\ninventory = \"{0}/inventory.toml\"\ncatalogue_dir = \"{0}/actions.d\"\n\
             [[person]]\nuid = {1}\nname = \"alice\"\n",
            room.folder.path().display(),
            account(),
        );
        room.write("relay.toml", config.as_bytes());
        room
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn give(&self, path: &Path) {
        if geteuid().is_root() {
            chown(path, Some(account()), Some(account())).unwrap();
        }
    }

    pub(crate) fn write(&self, name: &str, bytes: &[u8]) {
        let path = self.at(name);
        std::fs::write(&path, bytes).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).unwrap();
        self.give(&path);
    }

    /// Sets limits in its configuration.
    pub(crate) fn limit(&self, limits: &str) {
        let config = std::fs::read_to_string(self.at("relay.toml")).unwrap();
        self.write("relay.toml", format!("{config}[limits]\n{limits}\n").as_bytes());
    }

    pub(crate) fn relay(&self, arguments: &[&str]) -> Command {
        // A copy: the account may not enter the folder of the build. Made by another process: a descriptor of ours that
        // is open for writing while another test forks would make the file busy.
        let program = self.at("writ-relay");
        if !program.exists() {
            assert!(
                Command::new("cp")
                    .arg(env!("CARGO_BIN_EXE_writ-relay"))
                    .arg(&program)
                    .status()
                    .unwrap()
                    .success()
            );
        }
        let mut command = Command::new(program);
        command.args(arguments);
        if geteuid().is_root() {
            command.uid(account()).gid(account());
        }
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.relay(arguments).output().unwrap()
    }

    /// The relay's records.
    pub(crate) fn records(&self) -> Vec<Value> {
        let mut files: Vec<_> = std::fs::read_dir(self.at("log"))
            .unwrap()
            .map(|file| file.unwrap().path())
            .collect();
        files.sort();
        let texts = files.iter().map(|file| std::fs::read_to_string(file).unwrap());
        // A relay that runs may be at its last line.
        let whole = |line: &&str| line.ends_with('\n');
        let parse = |line: &str| serde_json::from_str(line).unwrap();
        texts
            .flat_map(|text| text.split_inclusive('\n').filter(whole).map(parse).collect::<Vec<_>>())
            .collect()
    }

    pub(crate) fn config(&self) -> String {
        self.at("relay.toml").to_str().unwrap().to_owned()
    }

    fn serve(&self) -> Child {
        let child = self
            .relay(&["serve", "--config", &self.config()])
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while !self.at("run/relay.sock").exists() {
            assert!(Instant::now() < until, "no socket");
            std::thread::sleep(Duration::from_millis(10));
        }
        child
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn help_and_version_are_there() {
    let room = Room::new();
    let help = room.run(&["--help"]);
    assert!(help.status.success());
    for verb in ["serve", "stdio", "check-config", "targets", "mcp-config"] {
        assert!(text(&help.stdout).contains(verb), "{verb}");
        assert!(room.run(&[verb, "--help"]).status.success(), "{verb}");
    }
    let version = text(&room.run(&["--version"]).stdout);
    assert!(
        version.starts_with("writ-relay 0.") && version.contains("build "),
        "{version}"
    );
    assert_eq!(room.run(&["surprise"]).status.code(), Some(2));
}

#[test]
fn uid_0_is_refused_before_anything_is_opened() {
    if !geteuid().is_root() {
        println!("only root can try this");
        return;
    }
    let room = Room::new();
    for verb in ["serve", "check-config"] {
        let said = Command::new(env!("CARGO_BIN_EXE_writ-relay"))
            .args([verb, "--config", &room.config()])
            .output()
            .unwrap();
        assert_eq!(said.status.code(), Some(2));
        assert!(
            text(&said.stderr).contains("uid 0") && text(&said.stderr).contains("User="),
            "{}",
            text(&said.stderr)
        );
    }
    assert!(!room.at("run/relay.sock").exists());
    assert_eq!(std::fs::read_dir(room.at("log")).unwrap().count(), 0);
}

#[test]
fn check_config_names_every_fault_at_once() {
    let room = Room::new();
    std::fs::set_permissions(room.at("state"), std::fs::Permissions::from_mode(0o755)).unwrap();
    room.write("inventory.toml", b"[target.web-1]\naddress = \"nowhere\"\n");
    room.write("actions.d/broken.toml", b"name = \"other\"\n");
    let said = room.run(&["check-config", "--config", &room.config()]);
    assert_eq!(said.status.code(), Some(2));
    let said = text(&said.stderr);
    std::fs::set_permissions(room.at("log"), std::fs::Permissions::from_mode(0o770)).unwrap();
    std::fs::set_permissions(room.at("run"), std::fs::Permissions::from_mode(0o777)).unwrap();
    let said_of_folders = room.run(&["check-config", "--config", &room.config()]);
    for fault in [
        "log_dir: failed to use ",
        "mode 0770; chmod 2750 it",
        "socket: failed to use its folder ",
    ] {
        let said = text(&said_of_folders.stderr);
        assert!(said.contains(fault), "{fault} in\n{said}");
    }
    for fault in ["state_dir: ", "mode 0755", "inventory: ", "catalogue_dir: broken.toml"] {
        assert!(said.contains(fault), "{fault} in\n{said}");
    }
    let said = room.run(&["serve", "--config", &room.config()]);
    assert_eq!(said.status.code(), Some(2));
    assert!(!room.at("run/relay.sock").exists(), "refused before any listener");
}

#[test]
fn check_config_finds_a_log_that_a_start_could_not_write() {
    if !geteuid().is_root() {
        println!("only root can give a file away");
        return;
    }
    let room = Room::new();
    let check = || text(&room.run(&["check-config", "--config", &room.config()]).stderr);
    assert!(!check().contains("log_dir"), "{}", check());
    let segment = std::fs::read_dir(room.at("log")).unwrap().next().unwrap().unwrap();
    chown(segment.path(), Some(0), Some(0)).unwrap();
    let said = check();
    assert!(
        said.contains("log_dir: failed to ") && said.contains("ermission denied"),
        "{said}"
    );
}

#[test]
fn check_config_asks_for_the_ca_and_serve_does_not() {
    let room = Room::new();
    let said = room.run(&["check-config", "--config", &room.config()]);
    assert_eq!(said.status.code(), Some(2));
    assert!(
        text(&said.stderr).contains("ca: failed to reach the CA"),
        "{}",
        text(&said.stderr)
    );
    let mut relay = room.serve();
    kill(Pid::from_raw(relay.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(relay.wait().unwrap().code(), Some(0));
}

#[test]
fn a_client_is_served_through_stdio_and_the_relay_stops_when_told() {
    let room = Room::new();
    let mut relay = room.serve();
    let socket = room.at("run/relay.sock");
    let mode = std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o660);
    let mut client = room
        .relay(&["stdio", "--socket", socket.to_str().unwrap()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut questions = client.stdin.take().unwrap();
    let mut answers = BufReader::new(client.stdout.take().unwrap()).lines();
    let mut ask = |line: &str| -> Value {
        questions.write_all(line.as_bytes()).unwrap();
        questions.write_all(b"\n").unwrap();
        serde_json::from_str(&answers.next().unwrap().unwrap()).unwrap()
    };
    let hello = ask(
        r#"{"jsonrpc":"2.0","id":1,"method":"initialize","params":{"protocolVersion":"2025-11-25","capabilities":{},"clientInfo":{"name":"c","version":"1"}}}"#,
    );
    assert_eq!(hello["result"]["serverInfo"]["name"], "writ-relay");
    let info = ask(r#"{"jsonrpc":"2.0","id":2,"method":"tools/call","params":{"name":"server_info"}}"#);
    let info = &info["result"]["structuredContent"];
    assert_eq!(info["ca"]["code"], "ca_unavailable", "{info}");
    assert_eq!(
        info["boundary_missing"].as_array().unwrap().len(),
        1,
        "client and relay share a uid here: {info}"
    );
    drop(questions);
    assert!(client.wait().unwrap().success());
    kill(Pid::from_raw(relay.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(relay.wait().unwrap().code(), Some(0));
    assert!(!socket.exists());
    let log = std::fs::read_dir(room.at("log"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let events: Vec<String> = text(&std::fs::read(log).unwrap())
        .lines()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["event"]
                .as_str()
                .unwrap()
                .to_owned()
        })
        .collect();
    assert_eq!(events, ["genesis", "start", "stop"]);
    let said = room.run(&["stdio", "--socket", socket.to_str().unwrap()]);
    assert_eq!(said.status.code(), Some(1));
    assert!(text(&said.stderr).contains("writ-relay serve"));
}

#[test]
fn targets_are_listed_and_checked_and_the_stanza_is_json() {
    let room = Room::new();
    let key = crate::world::key(50).public().to_openssh();
    let stanza = format!(
        "[target.web-1]\naddress = \"127.0.0.1:1\"\nhost_key = \"{key}\"\nreceipt_key = \"{}\"\n",
        crate::world::key(51).public().to_openssh()
    );
    room.write("inventory.toml", stanza.as_bytes());
    let config = room.config();
    let list = room.run(&["targets", "list", "--config", &config]);
    assert_eq!(text(&list.stdout), "web-1\t127.0.0.1:1\t\n");
    let check = room.run(&["targets", "check", "--config", &config]);
    assert_eq!(check.status.code(), Some(1));
    assert!(
        text(&check.stdout).starts_with("web-1\tfailed to reach the target"),
        "{}",
        text(&check.stdout)
    );
    assert_eq!(
        room.run(&["targets", "check", "web-9", "--config", &config])
            .status
            .code(),
        Some(2)
    );
    let stanza: Value = serde_json::from_slice(&room.run(&["mcp-config"]).stdout).unwrap();
    assert_eq!(stanza["mcpServers"]["writ"]["args"], serde_json::json!(["stdio"]));
}

#[test]
fn a_store_that_is_not_ours_to_use_is_named_and_left_alone_and_a_second_relay_does_not_start() {
    let room = Room::new();
    let path = room.at("state/store.sqlite");
    let refused = |verb: &str, what: &str| {
        let before = std::fs::read(&path).unwrap();
        let said = room.run(&[verb, "--config", &room.config()]);
        assert_eq!(said.status.code(), Some(2), "{verb}: {}", text(&said.stderr));
        let said = text(&said.stderr);
        assert!(
            said.contains("state_dir: failed to use its store ") && said.contains(what),
            "{verb}: {said}"
        );
        assert_eq!(std::fs::read(&path).unwrap(), before, "{verb}");
        assert!(!room.at("run/relay.sock").exists(), "refused before any listener");
    };
    room.write(
        "state/store.sqlite",
        b"somebody's precious file, which is no database at all and has to stay as it is",
    );
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
    for verb in ["serve", "check-config"] {
        refused(verb, "no store of a relay; move it away");
    }
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
    for verb in ["serve", "check-config"] {
        refused(verb, "mode 0640; chmod 0600 it");
    }
    std::fs::remove_file(&path).unwrap();
    let mut relay = room.serve();
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let second = room.run(&["serve", "--config", &room.config()]);
    assert_eq!(second.status.code(), Some(1));
    assert!(
        text(&second.stderr).contains("is a relay already running?"),
        "{}",
        text(&second.stderr)
    );
    let beside = room.run(&["check-config", "--config", &room.config()]);
    assert!(!text(&beside.stderr).contains("state_dir"), "{}", text(&beside.stderr));
    kill(Pid::from_raw(relay.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(relay.wait().unwrap().code(), Some(0));
    let store = rusqlite::Connection::open(&path).unwrap();
    store.pragma_update(None, "user_version", 9).unwrap();
    drop(store);
    for verb in ["serve", "check-config"] {
        refused(verb, "a newer writ-relay made it (version 9, this one knows 3)");
    }
}
