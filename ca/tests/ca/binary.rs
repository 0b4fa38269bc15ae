//! The binary: its verbs, its exit codes, what it refuses before it starts, and how it ends.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use audit::Event;
use openssh::certificate::{HostTerms, check_host};

use crate::room::{self, catalogue, connect, file, folder, key, now, open, own_uid, records, renewal};

/// A CA's files as an operator lays them out, and the binary.
pub(crate) struct Site {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) config: PathBuf,
}

/// Where this test's own files are when it runs again as somebody else.
const KIT: &str = "CA_TEST_KIT";

/// Runs `body` as an account that is not root: in this process, or in a copy of it when root runs the tests, since the
/// binary refuses root. True where `body` must go on.
pub(crate) fn as_ordinary_user(test: &str) -> bool {
    if own_uid() != 0 {
        return true;
    }
    // One that has a name: ssh-keygen does nothing for others.
    let nobody = nix::unistd::User::from_name("nobody").unwrap().unwrap().uid.as_raw();
    let kit = tempfile::tempdir().unwrap();
    folder(kit.path(), 0o755);
    let own = kit.path().join("own");
    folder(&own, 0o700);
    std::os::unix::fs::chown(&own, Some(nobody), Some(nobody)).unwrap();
    for (from, to) in [
        (std::env::current_exe().unwrap(), "test"),
        (env!("CARGO_BIN_EXE_writ-ca").into(), "writ-ca"),
    ] {
        fs::copy(from, kit.path().join(to)).unwrap();
        fs::set_permissions(kit.path().join(to), Permissions::from_mode(0o755)).unwrap();
    }
    catalogue(&kit.path().join("actions.d"));
    let output = Command::new(kit.path().join("test"))
        .args(["--exact", test, "--nocapture", "--test-threads=1"])
        .env(KIT, kit.path())
        .env("TMPDIR", &own)
        .current_dir(&own)
        .uid_and_gid(nobody)
        .output()
        .unwrap();
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.status.success() && said.contains("1 passed"),
        "as uid {nobody}: {said}"
    );
    false
}

trait UidAndGid {
    fn uid_and_gid(&mut self, id: u32) -> &mut Self;
}

impl UidAndGid for Command {
    fn uid_and_gid(&mut self, id: u32) -> &mut Self {
        use std::os::unix::process::CommandExt;
        self.uid(id).gid(id)
    }
}

fn binary() -> PathBuf {
    match std::env::var_os(KIT) {
        Some(kit) => Path::new(&kit).join("writ-ca"),
        None => env!("CARGO_BIN_EXE_writ-ca").into(),
    }
}

/// A process that serves; killed when the test is over, however it ends.
pub(crate) struct Serving(Child);

impl Serving {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    fn wait(mut self) -> Option<i32> {
        self.0.wait().unwrap().code()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

impl Site {
    pub(crate) fn serve(&self) -> Serving {
        let mut command = self.command(&["serve"]);
        Serving(
            command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap(),
        )
    }

    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        folder(&at("run"), 0o750);
        folder(&at("state"), 0o700);
        folder(&at("log"), 0o750);
        match std::env::var_os(KIT) {
            Some(kit) => {
                folder(&at("actions.d"), 0o755);
                for entry in fs::read_dir(Path::new(&kit).join("actions.d")).unwrap() {
                    let entry = entry.unwrap();
                    file(
                        &at("actions.d").join(entry.file_name()),
                        &fs::read_to_string(entry.path()).unwrap(),
                    );
                }
            }
            None => catalogue(&at("actions.d")),
        }
        file(&at("policy.cedar"), room::SHIPPED_POLICY);
        let root = dir.path().display();
        let text = format!(
            "socket = \"{root}/run/ca.sock\"\nkey_dir = \"{root}/state/keys\"\nstate_dir = \"{root}/state\"\n\
             log_dir = \"{root}/log\"\ninventory = \"{root}/state/inventory.toml\"\ncatalogue_dir = \"{root}/actions.d\"\n\
             policy = \"{root}/policy.cedar\"\n[[relay]]\nname = \"relay-1\"\nuid = {}\npersons = [\"alice\"]\n\
             targets = [\"*\"]\nsource_addresses = [\"127.0.0.0/8\"]\n",
            own_uid()
        );
        let config = at("ca.toml");
        file(&config, &text);
        Self { dir, config }
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.arg("--config").arg(&self.config).args(arguments);
        command
    }

    pub(crate) fn run(&self, arguments: &[&str], input: &str) -> Output {
        let mut command = self.command(arguments);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // A child that refuses at once does not read.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    pub(crate) fn fine(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        assert_eq!(
            output.status.code(),
            Some(0),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        String::from_utf8(output.stdout).unwrap()
    }

    pub(crate) fn refused(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run(arguments, input);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{arguments:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(output.stdout.is_empty());
        String::from_utf8(output.stderr).unwrap()
    }

    pub(crate) fn enroll_web_1(&self) -> String {
        self.fine(
            &["enroll", "--address", "127.0.0.11:22", "--label", "env=demo"],
            &wish("web-1", 11, 12),
        )
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.dir.path().join("run/ca.sock")
    }
}

fn wish(name: &str, host: u8, receipt: u8) -> String {
    let (host, receipt) = (key(host).public().to_openssh(), key(receipt).public().to_openssh());
    format!("{{\"v\":1,\"target\":\"{name}\",\"host_key\":\"{host}\",\"receipt_key\":\"{receipt}\"}}\n")
}

fn public(site: &Site, name: &str) -> openssh::key::PublicKey {
    let text = fs::read_to_string(site.dir.path().join("state/keys").join(format!("{name}.pub"))).unwrap();
    openssh::key::PublicKey::from_openssh(&text).unwrap()
}

#[test]
fn root_is_refused_and_nothing_is_made() {
    if own_uid() != 0 {
        return; // the pure half is tested beside its function
    }
    let site = Site::new();
    for verb in ["init", "serve", "check-config", "enroll"] {
        assert!(site.refused(&[verb], "").contains("refusing to run as root"), "{verb}");
    }
    assert!(
        site.refused(&["policy", "check"], "")
            .contains("refusing to run as root")
    );
    assert!(fs::read_dir(site.log()).unwrap().next().is_none());
}

#[test]
fn version_and_help_are_said() {
    let site = Site::new();
    assert!(site.fine(&["--version"], "").contains(" build "));
    let help = site.fine(&["--help"], "");
    for verb in ["init", "serve", "check-config", "policy", "enroll"] {
        assert!(help.contains(verb), "{help}");
    }
}

/// REQ-CERT-20
#[test]
fn init_makes_keys_once_and_prints_the_public_ones() {
    if !as_ordinary_user("binary::init_makes_keys_once_and_prints_the_public_ones") {
        return;
    }
    let site = Site::new();
    let said = site.fine(&["init"], "");
    assert_eq!(site.fine(&["init"], ""), said, "the second time nothing is made");
    let lines: Vec<&str> = said.lines().collect();
    assert_eq!(lines.len(), 3);
    for (line, name) in lines.iter().zip(["task_ca", "host_ca", "tls"]) {
        assert_eq!(*line, format!("{} {name}", public(&site, name).to_openssh()));
        assert!(!said.contains("PRIVATE"));
        let meta = fs::metadata(site.dir.path().join("state/keys").join(name)).unwrap();
        assert_eq!(meta.permissions().mode() & 0o7777, 0o600);
    }
    let events: Vec<Event> = records(&site.log())
        .into_iter()
        .map(|record| record.draft.event)
        .collect();
    assert_eq!(events, [Event::Genesis, Event::Init, Event::Init, Event::Init]);
    let keys = site.dir.path().join("state/keys");
    assert_ne!(public(&site, "task_ca"), public(&site, "host_ca"));
    site.fine(&["check-config"], "");
    let own = fs::read(keys.join("host_ca")).unwrap();
    fs::write(keys.join("host_ca"), fs::read(keys.join("task_ca")).unwrap()).unwrap();
    let said = site.refused(&["check-config"], "");
    assert!(said.contains("task_ca and host_ca are one key"), "{said}");
    fs::write(keys.join("host_ca"), own).unwrap();
    // ssh-keygen can read what was made.
    let private = site.dir.path().join("state/keys/task_ca");
    let read = Command::new("ssh-keygen")
        .arg("-y")
        .arg("-f")
        .arg(private)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&read.stdout).starts_with(&public(&site, "task_ca").to_openssh()));
}

#[test]
fn check_config_names_every_fault_at_once() {
    if !as_ordinary_user("binary::check_config_names_every_fault_at_once") {
        return;
    }
    let site = Site::new();
    site.fine(&["init"], "");
    assert_eq!(site.fine(&["check-config"], ""), "configuration is fine\n");

    let at = |name: &str| site.dir.path().join(name);
    fs::set_permissions(at("state/keys"), Permissions::from_mode(0o755)).unwrap();
    fs::set_permissions(at("log"), Permissions::from_mode(0o777)).unwrap();
    file(&at("policy.cedar"), "permit(principal, action");
    file(&at("state/inventory.toml"), "[target.web-1]\nname = 1\n");
    file(&at("actions.d/tail_log.toml"), "name = \"tail_log\"\n");
    let said = site.refused(&["check-config"], "");
    for part in [
        "keys: mode 0755, must be 0700",
        "log: mode 0777; chmod 2750 it",
        "policy.cedar: ",
        "inventory.toml: ",
        "tail_log.toml: ",
    ] {
        assert!(said.contains(part), "{part} not in: {said}");
    }
    for line in said.lines() {
        assert!(line.starts_with("writ-ca: failed to "), "{line}");
    }
    assert_eq!(said, site.refused(&["serve"], ""), "a start says the same");
    fs::remove_file(at("policy.cedar")).unwrap();
    assert!(
        site.refused(&["check-config"], "")
            .contains("policy.cedar: No such file")
    );
}

#[test]
fn an_unknown_key_of_the_configuration_is_named_without_its_value() {
    if !as_ordinary_user("binary::an_unknown_key_of_the_configuration_is_named_without_its_value") {
        return;
    }
    let site = Site::new();
    let text = fs::read_to_string(&site.config).unwrap();
    file(
        &site.config,
        &format!("passphrase = \"hunter2\"\ntask_lifetime_s = 901\n{text}"),
    );
    let said = site.refused(&["serve"], "");
    assert!(
        said.contains("passphrase: unknown key") && said.contains("task_lifetime_s: "),
        "{said}"
    );
    assert!(!said.contains("hunter2"));
}

#[test]
fn an_empty_policy_starts_and_says_so_loudly() {
    if !as_ordinary_user("binary::an_empty_policy_starts_and_says_so_loudly") {
        return;
    }
    let site = Site::new();
    site.fine(&["init"], "");
    file(&site.dir.path().join("policy.cedar"), "");
    let said = site.run(&["check-config"], "");
    assert_eq!(said.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&said.stderr).contains("EVERYTHING IS DENIED"));
}

/// REQ-POLICY-7
#[test]
fn policy_check_says_what_to_look_at_and_exits_by_it() {
    if !as_ordinary_user("binary::policy_check_says_what_to_look_at_and_exits_by_it") {
        return;
    }
    let site = Site::new();
    // Neither keys nor a log are needed for it.
    let said = site.fine(&["policy", "check"], "");
    assert!(said.contains("tail_log: judged in each task's certificate"), "{said}");
    assert!(said.contains(" policies, digest "), "{said}");
    assert!(fs::read_dir(site.log()).unwrap().next().is_none());

    let candidate = site.dir.path().join("new.cedar");
    let check = |text: &str| {
        // Not in force: anybody's file can be looked at.
        fs::write(&candidate, text).unwrap();
        fs::set_permissions(&candidate, Permissions::from_mode(0o666)).unwrap();
        let output = site.run(&["policy", "check", candidate.to_str().unwrap()], "");
        let (out, err) = (
            String::from_utf8(output.stdout).unwrap(),
            String::from_utf8(output.stderr).unwrap(),
        );
        (output.status.code(), out, err)
    };
    let (code, out, err) = check(
        "\n@id(\"open\")\npermit(principal, action, resource);\n@id(\"never\")\nforbid(principal == Person::\"mallory\", action, resource) when { false };",
    );
    assert_eq!(code, Some(1), "{err}");
    for part in [
        "new.cedar: line 2, policy open: it allows everybody everything everywhere; name the actions",
        "new.cedar: line 4, policy never: it can never match",
        "new.cedar: line 4, policy never: there is no person \"mallory\" in ca.toml; correct the name",
    ] {
        assert!(out.contains(part), "{part} not in {out}");
    }
    assert!(err.contains("3 findings"), "{err}");
    let (code, out, err) = check("@id(\"x\")\nforbid(principal, action == Action::\"tail_lgo\", resource);");
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.contains("line 2, policy x: unrecognized action"), "{err}");
    assert!(err.contains("did you mean"), "{err}");
    let (code, out, _) = check("");
    assert_eq!(code, Some(0));
    assert!(out.contains("everything is denied"), "{out}");
    let missing = site.refused(&["policy", "check", "/nowhere.cedar"], "");
    assert!(missing.contains("/nowhere.cedar: No such file"), "{missing}");
    // In its place it is also asked who could write it.
    fs::set_permissions(site.dir.path().join("policy.cedar"), Permissions::from_mode(0o666)).unwrap();
    assert!(site.refused(&["policy", "check"], "").contains("chmod go-w"));
}

/// REQ-POLICY-8
#[test]
fn policy_test_compares_decisions_and_exits_by_them() {
    if !as_ordinary_user("binary::policy_test_compares_decisions_and_exits_by_them") {
        return;
    }
    let site = Site::new();
    let tests = site.dir.path().join("tests.toml");
    let path = tests.to_str().unwrap();
    let test = |text: &str| {
        fs::write(&tests, text).unwrap();
        site.run(&["policy", "test", path], "")
    };
    let case = |name: &str, more: &str| {
        format!("[[test]]\nname = \"{name}\"\nperson = \"alice\"\naction = \"tail_log\"\ntarget = \"x\"\n{more}\n")
    };
    let host = "target.x.labels = { env = \"prod\" }\n";
    let good = case("one", "expect = \"allow\"\nby = [\"shipped-reads\"]\nin_task = true");
    let output = test(&format!("{host}{good}"));
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "ok      one\n1 decisions, 1 as expected\n"
    );

    let bad = [
        case("two", "expect = \"deny\""),
        case(
            "three",
            "expect = \"allow\"\nby = [\"other\"]\napprovals = 2\nin_task = false",
        ),
    ];
    let output = test(&format!("{host}{good}{}", bad.concat()));
    assert_eq!(output.status.code(), Some(1));
    let out = String::from_utf8(output.stdout).unwrap();
    for part in [
        "FAILED  two (line 10): expected deny, got allow by shipped-reads\n",
        "FAILED  three (line 16): expected by other, got by shipped-reads; expected 2 approvals, got 0; expected it judged by itself",
        "3 decisions, 1 as expected",
    ] {
        assert!(out.contains(part), "{part} not in {out}");
    }
    // The same with another policy, before it is in its place.
    let candidate = site.dir.path().join("new.cedar");
    file(&candidate, "@id(\"no\") forbid(principal, action, resource);");
    file(
        &tests,
        &format!("{host}{}", case("two", "expect = \"deny\"\nby = [\"no\"]")),
    );
    site.fine(&["policy", "test", path, "--policy", candidate.to_str().unwrap()], "");

    // What is no test is not passed over.
    for (text, part) in [
        (String::new(), "there is no [[test]]"),
        ("[[test]]\nname = 1".into(), "line 2: "),
        (format!("{host}{}", case("a", "expect = \"maybe\"")), "unknown variant"),
        (
            format!("{host}{}", case("a", "expect = \"deny\"\nexpects = 1")),
            "unknown field",
        ),
        (case("a", "expect = \"allow\""), "there is no target x; add [target.x]"),
        (format!("{host}{good}{good}"), "two tests have this name"),
        (
            format!("{host}{}", good.replace("alice", "mallory")),
            "nobody speaks for mallory; add it to `persons`",
        ),
        (
            format!("{host}{}", good.replace("tail_log", "rm_rf")),
            "there is no action rm_rf; the CA's catalogue has",
        ),
        (
            format!("{host}{}", case("a", "expect = \"allow\"\nargs = { pth = \"x\" }")),
            "args: ",
        ),
        (
            format!("{host}{}", case("a", "expect = \"allow\"\nmode = \"dry_run\"")),
            "no dry run",
        ),
        (
            format!("{host}{}", case("a", "expect = \"allow\"\ntime = 2027-01-15")),
            "time must be",
        ),
    ] {
        fs::write(&tests, &text).unwrap();
        let said = site.refused(&["policy", "test", path], "");
        assert!(said.contains(part), "{part} not in {said}");
    }
}

/// REQ-POLICY-2
#[test]
fn policy_schema_prints_what_there_is() {
    if !as_ordinary_user("binary::policy_schema_prints_what_there_is") {
        return;
    }
    let site = Site::new();
    let said = site.fine(&["policy", "schema"], "");
    for part in ["entity Person in [Group]", "action \"tail_log\""] {
        assert!(said.contains(part), "{part} not in {said}");
    }
}

/// REQ-ENROL-4, REQ-ENROL-5
#[test]
fn enroll_certifies_the_host_key_and_adds_the_target() {
    if !as_ordinary_user("binary::enroll_certifies_the_host_key_and_adds_the_target") {
        return;
    }
    let site = Site::new();
    site.fine(&["init"], "");
    let line = site.enroll_web_1();
    let answer: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(line.matches('\n').count(), 1);
    assert_eq!((&answer["v"], &answer["target"]), (&1.into(), &"web-1".into()));
    assert_eq!(
        answer["task_ca"].as_str().unwrap(),
        public(&site, "task_ca").to_openssh()
    );
    let text = answer["host_certificate"].as_str().unwrap();
    let certificate = openssh::certificate::read(text).unwrap();
    let ca = public(&site, "host_ca");
    let terms = |now| HostTerms {
        ca: &ca,
        principal: "web-1",
        now,
        skew_s: 30,
    };
    check_host(&certificate, &terms(now())).unwrap();
    check_host(&certificate, &terms(now() + 364 * 86_400)).unwrap();
    assert!(check_host(&certificate, &terms(now() + 366 * 86_400)).is_err());
    assert_eq!(
        openssh::key::PublicKey::from_key_data(certificate.public_key()).unwrap(),
        *key(11).public()
    );

    let inventory = fs::read_to_string(site.dir.path().join("state/inventory.toml")).unwrap();
    let inventory = catalogue::Inventory::parse(&inventory).unwrap();
    let web_1 = inventory.find("web-1").unwrap();
    assert_eq!(
        (web_1.address(), web_1.labels()["env"].as_str()),
        ("127.0.0.11:22", "demo")
    );
    assert_eq!(web_1.receipt_key(), key(12).public());
    assert_eq!(*web_1.host(), catalogue::HostTrust::Ca(ca));
    let record = records(&site.log()).pop().unwrap().draft;
    assert_eq!(
        (record.event, record.target.unwrap().as_str()),
        (Event::Enroll, "web-1")
    );
    assert_eq!(record.cert.unwrap().serial.as_str(), certificate.serial().to_string());
}

/// REQ-ENROL-3, REQ-INVENTORY-7
#[test]
fn a_known_name_is_never_given_to_other_keys() {
    if !as_ordinary_user("binary::a_known_name_is_never_given_to_other_keys") {
        return;
    }
    let site = Site::new();
    site.fine(&["init"], "");
    site.enroll_web_1();
    let inventory = site.dir.path().join("state/inventory.toml");
    let before = fs::read(&inventory).unwrap();
    let length = records(&site.log()).len();
    for (line, why) in [
        (wish("web-1", 11, 99), "another receipt key"),
        (wish("web-1", 99, 12), "another host key"),
        (wish("web-2", 12, 12), "the same"),
        (wish("web-2", 13, 12), "web-1 has that receipt key"),
        (wish("web,2", 13, 14), "target"),
        (wish("web-2", 13, 14).replace("\"v\":1", "\"v\":2"), "version"),
        (
            wish("web-2", 13, 14).replace("{\"v\"", "{\"v\":1,\"v\""),
            "line of `writ-target enroll`",
        ),
        (wish("web-2", 13, 14).repeat(2), "line of `writ-target enroll`"),
        (String::new(), "line of `writ-target enroll`"),
    ] {
        let said = site.refused(&["enroll", "--address", "127.0.0.11:22"], &line);
        assert!(said.contains(why), "{why} not in: {said}");
        assert!(said.starts_with("writ-ca: failed to "), "{said}");
    }
    assert!(site.refused(&["enroll"], &wish("web-2", 13, 14)).contains("--address"));
    assert!(
        site.refused(&["enroll", "--address", "127.0.0.99:22"], &wish("web-1", 11, 12))
            .contains("with the address")
    );
    assert_eq!(fs::read(&inventory).unwrap(), before);
    // A record without an effect would be true; one that certifies other keys would not.
    let after = records(&site.log());
    assert!(
        after[length..]
            .iter()
            .all(|record| record.draft.target.as_ref().unwrap().as_str() != "web-1")
    );

    // The same keys again: the next year's certificate, and the inventory as it was.
    site.fine(&["enroll"], &wish("web-1", 11, 12));
    assert_eq!(fs::read(&inventory).unwrap(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ca_that_is_told_to_stop_finishes_records_it_and_exits_0() {
    if !as_ordinary_user("binary::a_ca_that_is_told_to_stop_finishes_records_it_and_exits_0") {
        return;
    }
    let site = Site::new();
    site.fine(&["init"], "");
    let child = site.serve();
    let mut client = connect(&site.socket()).await;
    // Enrolled while it serves: no restart.
    site.enroll_web_1();
    let mut call = open(1);
    client.open_task(call.clone()).await.unwrap();
    kill(child.id(), nix::sys::signal::Signal::SIGTERM);
    let ended = tokio::task::spawn_blocking(move || child.wait()).await.unwrap();
    assert_eq!(ended, Some(0));
    assert!(!site.socket().exists());
    assert_eq!(records(&site.log()).pop().unwrap().draft.event, Event::Stop);

    // Killed instead: the next one takes over the socket and continues.
    let child = site.serve();
    let mut client = connect(&site.socket()).await;
    client.renew_task(renewal(&call)).await.unwrap();
    drop(child);
    assert!(site.socket().exists());
    let child = site.serve();
    let mut client = connect(&site.socket()).await;
    client.renew_task(renewal(&call)).await.unwrap();
    call.reason = "something else".into();
    assert!(client.open_task(call).await.is_err());
    drop(child);
}

pub(crate) fn kill(pid: u32, signal: nix::sys::signal::Signal) {
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid.try_into().unwrap()), signal).unwrap();
}
