//! What an SSH server can do beside running one command: each is asked for with a valid certificate, by OpenSSH's own client,
//! and refused by sshd itself. Nothing of it reaches a log of ours; the session that asked, and one that was open before,
//! serve as if nothing had been asked.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says so by a panic; its name is its documentation"
)]

use std::io::Read as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::spawn::{Running, run, wait_for};
use harness::ssh::Login;
use harness::{By, EvilRelay, Leaves, Session, Stack, assert_refused};
use security::{WEB, stack, still_serves};

/// How long a refusal may take to be said.
const SOON: Duration = Duration::from_secs(10);

/// What asks, on a connection of its own: the options stand before the target, the variables are the client's.
struct Attack<'a> {
    login: Login,
    stack: &'a Stack,
    task: Option<harness::stack::Opened>,
    variables: Vec<(&'static str, String)>,
}

impl<'a> Attack<'a> {
    fn new(stack: &'a Stack) -> Attack<'a> {
        let task = stack.open_task(WEB).unwrap();
        Attack {
            login: stack.login(&task.key, &task.certificate).unwrap(),
            task: Some(task),
            stack,
            variables: Vec::new(),
        }
    }

    /// A folder of the attack's own. Sockets in it are named relative to it: an address holds 107 bytes.
    fn folder(&self) -> PathBuf {
        self.login.certificate_file().parent().unwrap().to_owned()
    }

    fn command(&self, options: &[&str], words: &[&str]) -> Command {
        let mut command = self.login.ssh(self.stack.target(WEB).unwrap(), options, words);
        command.current_dir(self.folder());
        command.envs(self.variables.iter().cloned());
        command
    }

    /// The usual session with these options: asks for them, is told `words` on the client's standard error, and serves.
    fn beside_a_session(&mut self, options: &[&str], told: &str, act: impl FnOnce(&Path) -> Result<()>) {
        let mut relay = None;
        self.refused(told, |attack| {
            let session = Session::over(attack.command(options, &["writ.v1"]))?;
            let task = attack.task.take().context("one session an attack")?;
            let relay = relay.insert(EvilRelay::over(WEB, task, session)?);
            act(&attack.folder())?;
            let said = wait_for(told, SOON, || Ok(relay.session.errors().contains(told)));
            said.with_context(|| relay.session.errors())?;
            Ok(told.to_owned())
        });
        let mut relay = relay.unwrap();
        relay.present_own().unwrap();
        still_serves(&mut relay).unwrap();
    }

    /// Runs the client to its end, which is a failure: it was told `words`, and nothing was answered to it.
    fn whole(&self, options: &[&str], words: &[&str], told: &str) -> Result<String> {
        let output = run("ssh", self.command(options, words), b"", SOON)?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        ensure!(errors.contains(told), "{errors}");
        Ok(told.to_owned())
    }

    /// Asserts that it is refused in these words and leaves nothing, and that a session which was open before goes on.
    fn refused(&mut self, told: &str, attack: impl FnOnce(&mut Self) -> Result<String>) {
        let stack = self.stack;
        let mut before = EvilRelay::start(stack, WEB).unwrap();
        still_serves(&mut before).unwrap();
        assert_refused(stack, By::Target(WEB), Leaves::Nothing, told, || attack(self))
            .unwrap_or_else(|error| panic!("{error:?}"));
        still_serves(&mut before).unwrap();
    }
}

/// What the target's sshd has logged since `from` holds this.
fn sshd_said(stack: &Stack, from: usize, words: &str) {
    let log = stack.target(WEB).unwrap().sshd_log();
    assert!(log[from..].contains(words), "{}", &log[from..]);
}

/// Connects to a socket that the client listens on; it is closed without a byte when the target refuses.
fn nothing_comes_through(socket: &Path) -> Result<()> {
    wait_for("the client's socket", SOON, || Ok(socket.exists()))?;
    // By a path below a descriptor: the folder may lie deep.
    let folder = std::fs::File::open(socket.parent().context("a folder")?)?;
    let short = format!(
        "/proc/self/fd/{}/{}",
        std::os::fd::AsRawFd::as_raw_fd(&folder),
        socket.file_name().context("a name")?.display()
    );
    let mut through = UnixStream::connect(short)?;
    through.set_read_timeout(Some(SOON))?;
    let bytes = through.read(&mut [0; 1])?;
    ensure!(bytes == 0, "something came through");
    Ok(())
}

/// REQ-SESSION-4
#[test]
fn subsystem_sftp() {
    let stack = stack();
    let told = "subsystem request failed on channel 0";
    Attack::new(&stack).refused(told, |attack| attack.whole(&["-s"], &["sftp"], told));
}

/// As most hosts have it: the subsystem is a command, and the forced command takes its place.
///
/// REQ-SESSION-4
#[test]
fn subsystem_sftp_of_a_host_that_has_one() {
    for line in [
        "Subsystem sftp internal-sftp",
        "Subsystem sftp /usr/lib/openssh/sftp-server",
    ] {
        // A stack of its own, because its sshd is another.
        let mut stack = Stack::usual().unwrap();
        let target = stack.target_mut(WEB).unwrap();
        target.stop_sshd();
        let config = std::fs::read_to_string(target.root().at("etc/ssh/sshd_config")).unwrap();
        let config = format!("{line}\n{config}");
        target.root().file("etc/ssh/sshd_config", 0o644, config).unwrap();
        target.start_sshd().unwrap();
        let says = target.sshd_says("agent-runner").unwrap();
        assert!(says.contains(&line.to_lowercase()), "{says}");

        let mut before = EvilRelay::start(&stack, WEB).unwrap();
        still_serves(&mut before).unwrap();
        let attack = Attack::new(&stack);
        assert_refused(&stack, By::Target(WEB), Leaves::Count, "original_command", || {
            let output = run("ssh", attack.command(&["-s"], &["sftp"]), b"", SOON)?;
            Ok(harness::evil::code(&serde_json::from_slice(&output.stdout)?))
        })
        .unwrap();
        let command = line.rsplit(' ').next().unwrap();
        let target = stack.target(WEB).unwrap();
        assert_eq!(harness::refused::last_stranger(target).unwrap(), command);
        still_serves(&mut before).unwrap();
    }
}

/// OpenSSH's client, told to insist, gives the session up by itself.
///
/// REQ-SESSION-4
#[test]
fn pty() {
    let stack = stack();
    let told = "PTY allocation request failed on channel 0";
    Attack::new(&stack).refused(told, |attack| attack.whole(&["-tt"], &["writ.v1"], told));
}

/// An agent with no key, listening on a socket in the attack's folder.
fn agent(attack: &mut Attack<'_>) -> Running {
    let mut agent = Command::new("ssh-agent");
    agent
        .args(["-D", "-a", "agent"])
        .current_dir(attack.folder())
        .stdout(Stdio::null());
    let agent = Running::start("ssh-agent", agent).unwrap();
    let socket = attack.folder().join("agent");
    wait_for("the agent", SOON, || Ok(socket.exists())).unwrap();
    attack.variables.push(("SSH_AUTH_SOCK", "agent".to_owned()));
    agent
}

/// Sockets that lead to a client's agent: where sshd makes them, below /tmp or, since 10.1, in the account's home.
fn agent_sockets(stack: &Stack) -> Vec<PathBuf> {
    let root = stack.target(WEB).unwrap().root();
    let below = |folder: PathBuf| std::fs::read_dir(folder).into_iter().flatten().flatten();
    let folders = below(root.at("tmp")).filter(|entry| entry.file_name().to_string_lossy().starts_with("ssh-"));
    let folders = folders.map(|entry| entry.path()).chain([root.at(".ssh/agent")]);
    folders.flat_map(below).map(|entry| entry.path()).collect()
}

/// sshd does not answer this one, so it is looked for where sshd would put it, while the session is open.
///
/// REQ-SESSION-4
#[test]
fn agent_forward() {
    let asked = "Requesting authentication agent forwarding";
    let mut stack = Stack::usual().unwrap();
    let mut attack = Attack::new(&stack);
    let running = agent(&mut attack);
    attack.beside_a_session(&["-T", "-A", "-v"], asked, |_| {
        ensure!(agent_sockets(&stack).is_empty(), "{:?}", agent_sockets(&stack));
        Ok(())
    });
    drop((attack, running));

    // Where sshd and the certificate allow it there is one: what was looked for is what would be there.
    let target = stack.target_mut(WEB).unwrap();
    let drop_in = "etc/ssh/sshd_config.d/50-writ.conf";
    let shipped = std::fs::read_to_string(target.root().at(drop_in)).unwrap();
    let open = shipped
        .replace("DisableForwarding yes", "DisableForwarding no")
        .replace("AllowAgentForwarding no", "AllowAgentForwarding yes");
    target.stop_sshd();
    target.root().file(drop_in, 0o644, open).unwrap();
    target.start_sshd().unwrap();
    let mut attack = Attack::new(&stack);
    let task = attack.task.take().unwrap();
    let mut forge = stack.honest_forge(WEB, &task.task_id, "{}");
    forge
        .extensions
        .push(("permit-agent-forwarding".to_owned(), String::new()));
    let certificate = forge
        .sign(task.key.public(), &stack.control.task_ca().unwrap())
        .unwrap();
    attack.login = stack.login(&task.key, &certificate).unwrap();
    let _running = agent(&mut attack);
    let session = Session::over(attack.command(&["-T", "-A"], &["writ.v1"])).unwrap();
    assert!(session.line().unwrap().get("hello").is_some());
    assert_eq!(agent_sockets(&stack).len(), 1);
}

/// REQ-SESSION-4
#[test]
fn x11() {
    let stack = stack();
    let mut attack = Attack::new(&stack);
    attack.variables.push(("DISPLAY", "127.0.0.1:77".to_owned()));
    let options = ["-T", "-Y", "-o", "XAuthLocation=/nonexistent"];
    attack.beside_a_session(&options, "X11 forwarding request failed", |_| Ok(()));
}

/// REQ-SESSION-4
#[test]
fn direct_tcpip() {
    let stack = stack();
    let from = stack.target(WEB).unwrap().sshd_log().len();
    let to = stack.target(WEB).unwrap().address();
    let forward = format!("./through:{}:{}", to.ip(), to.port());
    let options = ["-T", "-v", "-L", &forward];
    Attack::new(&stack).beside_a_session(&options, "open failed", |folder| {
        nothing_comes_through(&folder.join("through"))
    });
    sshd_said(&stack, from, "refused local port forward");
}

/// REQ-SESSION-4
#[test]
fn streamlocal() {
    let stack = stack();
    let from = stack.target(WEB).unwrap().sshd_log().len();
    let options = ["-T", "-v", "-L", "./through:/run/dbus/system_bus_socket"];
    Attack::new(&stack).beside_a_session(&options, "open failed", |folder| {
        nothing_comes_through(&folder.join("through"))
    });
    sshd_said(&stack, from, "refused streamlocal port forward");
}

/// Also to a socket in the target's file system, which would be a file that the attacker names.
///
/// REQ-SESSION-4
#[test]
fn remote_forward() {
    let stack = stack();
    for (to, told) in [
        (
            "127.0.0.1:0:127.0.0.1:22",
            "remote port forwarding failed for listen port 0",
        ),
        (
            "/tmp/canary:127.0.0.1:22",
            "remote port forwarding failed for listen path /tmp/canary",
        ),
    ] {
        Attack::new(&stack).beside_a_session(&["-T", "-R", to], told, |_| Ok(()));
    }
}

/// REQ-SESSION-4
#[test]
fn tunnel() {
    if std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/net/tun")
        .is_err()
    {
        println!("not shown: OpenSSH's client asks for a tunnel only where it can open /dev/net/tun itself");
        return;
    }
    let stack = stack();
    for kind in ["Tunnel=ethernet", "Tunnel=point-to-point"] {
        let options = ["-T", "-v", "-o", kind, "-w", "any:any"];
        Attack::new(&stack).beside_a_session(&options, "Server has rejected tunnel device forwarding", |_| Ok(()));
    }
}
