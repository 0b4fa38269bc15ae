//! What an account that may log in tries beside the one thing that it is for, and what a local user tries.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::Read as _;
use std::process::Output;
use std::time::Duration;

use harness::evil::{code, outcome};
use harness::refused::{CANARY, canary};
use harness::spawn::wait_for;
use harness::target::AGENT_EXEC;
use harness::{ALICE, By, EvilRelay, Leaves, RUNNER, STRANGER, Session, Stack, assert_refused};
use nix::mount::MsFlags;
use security::{WEB, forged, granted, logged_in, stack, still_serves, tell};
use serde_json::{Value, json};

fn ssh(stack: &Stack, options: &[&str], words: &[&str]) -> Output {
    let task = stack.open_task(WEB).unwrap();
    let login = stack.login(&task.key, &task.certificate).unwrap();
    let output = login.run(stack.target(WEB).unwrap(), options, words, b"");
    output.unwrap_or_else(|error| panic!("{options:?} {words:?}: {error:?}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn says_hello(output: &Output) -> bool {
    output.stdout.starts_with(b"{\"hello\":")
}

#[test]
fn orig_cmd_text() {
    let stack = stack();
    let commands: &[&[&str]] = &[
        &["rm -rf /"],
        &["touch /tmp/canary"],
        &["writ.v1; touch /tmp/canary"],
        &["writ.v1 "],
        &["sh", "-c", "'touch /tmp/canary'"],
        &["$(touch /tmp/canary)"],
        &["\u{1b}[2J\nforged: line"],
        &["internal-sftp"],
    ];
    for command in commands {
        assert_refused(&stack, By::Target(WEB), Leaves::Count, "original_command", || {
            let output = ssh(&stack, &["-T"], command);
            let first = text(&output.stdout);
            Ok(code(&serde_json::from_str::<Value>(&first)?))
        })
        .unwrap_or_else(|error| panic!("{command:?}: {error:?}"));
    }
    // The text is in the minute's record or waits in the counter for it: escaped, and cut.
    let target = stack.target(WEB).unwrap();
    let records = target.records().unwrap();
    let minute = records
        .iter()
        .find(|record| record["event"] == "strangers")
        .expect("a record of strangers");
    assert!(minute["message"].as_str().unwrap().len() <= 500, "{minute}");
    let waiting = std::fs::read_to_string(target.root().at("var/lib/writ/strangers")).unwrap();
    assert!(waiting.is_ascii() && waiting.contains("internal-sftp"), "{waiting}");
    tell("original commands", commands.len());
}

#[test]
fn escapes_that_sshd_offers_are_refused_and_the_session_is_unharmed() {
    let stack = stack();
    let port = stack.target(WEB).unwrap().address().port();
    let here = format!("127.0.0.11:{port}");
    // subsystem_sftp: no subsystem is a command, so it is agent-exec that is asked, and refuses.
    let sftp = ssh(&stack, &["-s"], &["sftp"]);
    assert!(!sftp.status.success() && !says_hello(&sftp), "subsystem_sftp: {sftp:?}");
    // pty: none is given. The client, told to insist, gives up by itself.
    let pty = ssh(&stack, &["-tt"], &["writ.v1"]);
    assert!(
        text(&pty.stderr).contains("PTY allocation request failed"),
        "pty: {pty:?}"
    );
    // direct_tcpip
    let direct = ssh(&stack, &["-W", &here], &[]);
    assert!(
        !direct.status.success() && text(&direct.stderr).contains("prohibited"),
        "direct_tcpip: {direct:?}"
    );
    assert!(!text(&direct.stdout).contains("SSH-2.0"), "direct_tcpip: {direct:?}");
    // streamlocal, through a socket of the client's.
    let task = stack.open_task(WEB).unwrap();
    let login = stack.login(&task.key, &task.certificate).unwrap();
    let socket = stack.folder().join("streamlocal");
    let forward = format!("{}:/run/dbus/system_bus_socket", socket.display());
    let local = Session::over(login.ssh(stack.target(WEB).unwrap(), &["-N", "-L", &forward], &[])).unwrap();
    wait_for("the client's socket", Duration::from_secs(10), || Ok(socket.exists())).unwrap();
    let mut through = std::os::unix::net::UnixStream::connect(&socket).unwrap();
    through.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    assert_eq!(through.read(&mut [0; 1]).unwrap(), 0, "streamlocal: {}", local.errors());
    assert!(
        stack
            .target(WEB)
            .unwrap()
            .sshd_log()
            .contains("refused streamlocal port forward")
    );
    drop(local);
    // remote_forward, also to a socket
    for to in ["127.0.0.1:0:127.0.0.1:22", "/tmp/canary:127.0.0.1:22"] {
        let remote = ssh(
            &stack,
            &["-T", "-o", "ExitOnForwardFailure=yes", "-R", to],
            &["writ.v1"],
        );
        assert_eq!(remote.status.code(), Some(255), "remote_forward {to}: {remote:?}");
        assert!(
            text(&remote.stderr).contains("remote port forwarding failed") || text(&remote.stderr).contains("forward")
        );
    }
    // tunnel
    let tunnel = ssh(
        &stack,
        &[
            "-T",
            "-o",
            "ExitOnForwardFailure=yes",
            "-o",
            "Tunnel=ethernet",
            "-w",
            "any:any",
        ],
        &["writ.v1"],
    );
    assert!(
        !tunnel.status.success() || text(&tunnel.stderr).to_lowercase().contains("tun"),
        "tunnel: {tunnel:?}"
    );
    // x11 and agent_forward: asked for, not given, and nothing of them reaches the child (see env_hostile).
    for option in ["-A", "-X"] {
        let output = ssh(&stack, &["-T", option], &["writ.v1"]);
        assert!(says_hello(&output), "{option}: {output:?}");
    }
    assert!(!canary(&stack));
    tell("escapes offered by sshd", 10);
}

#[test]
fn forcecommand_lost() {
    let mut stack = stack();
    let mut relay = logged_in(&stack).unwrap();
    let without = forged(&stack, &relay, |forge, _| {
        forge.critical.remove(0);
    })
    .unwrap();
    relay.session.finish();
    let file = stack
        .target(WEB)
        .unwrap()
        .root()
        .at("etc/ssh/sshd_config.d/50-writ.conf");
    let before = std::fs::read_to_string(&file).unwrap();
    let lost: Vec<&str> = before
        .lines()
        .filter(|line| !line.trim_start().starts_with("ForceCommand"))
        .collect();
    let restart = |stack: &mut Stack, config: &str| {
        let target = stack.target_mut(WEB).unwrap();
        target.stop_sshd();
        std::fs::write(&file, config).unwrap();
        target.start_sshd().unwrap();
    };
    restart(&mut stack, &format!("{}\n", lost.join("\n")));
    let with = |certificate: &str| {
        let login = stack.login(&relay.task.key, certificate).unwrap();
        login
            .run(stack.target(WEB).unwrap(), &["-T"], &["writ.v1"], b"")
            .unwrap()
    };
    let (ours, other) = (with(&relay.task.certificate), with(&without));
    restart(&mut stack, &before);
    assert!(says_hello(&ours), "our certificate carries the ForceCommand: {ours:?}");
    assert!(other.stdout.is_empty(), "{other:?}");
    assert_eq!(
        other.status.code(),
        Some(2),
        "agent-exec refuses the client's own text: {other:?}"
    );
}

#[test]
fn argc_zero_and_argv_other() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let execve = if cfg!(target_arch = "x86_64") { 59 } else { 221 };
    let program = format!("my $p = \"{AGENT_EXEC}\"; syscall({execve}, $p, 0, 0); exit 99");
    let records = target.records().unwrap().len();
    let empty = target.run(RUNNER, "/usr/bin/perl", &["-e", &program], b"").unwrap();
    assert_eq!(empty.status.code(), Some(2), "argc_zero: {empty:?}");
    let others: &[&[&str]] = &[
        &["-c", "id"],
        &["-c", "touch /tmp/canary"],
        &["-c", AGENT_EXEC, "more"],
        &["-c"],
        &["-l"],
        &["--help"],
        &["--version"],
        &["/tmp/script"],
        &["-c", "/usr/libexec/writ/agent-exec; id"],
    ];
    for arguments in others {
        let output = target.run(RUNNER, AGENT_EXEC, arguments, b"").unwrap();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {output:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: {output:?}");
    }
    assert_eq!(
        target.records().unwrap().len(),
        records,
        "nothing is opened, so nothing is recorded"
    );
    assert!(!canary(&stack));
    tell("argument vectors", others.len() + 1);
}

#[test]
fn ids_unexpected() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let records = target.records().unwrap().len();
    let start = |what: &str, program: &str, arguments: &[&str]| {
        let output = target.run(RUNNER, program, arguments, b"").unwrap();
        assert_eq!(output.status.code(), Some(2), "{what}: {output:?}");
        assert!(output.stdout.is_empty(), "{what}: {output:?}");
        assert!(
            text(&output.stderr).contains("uids (real, effective, saved) are"),
            "{what}: {output:?}"
        );
    };
    start(
        "no_new_privs",
        "/usr/bin/setpriv",
        &["--no-new-privs", AGENT_EXEC, "-c", AGENT_EXEC],
    );
    target
        .as_root("/bin/chown", &["root:agent-runner", AGENT_EXEC], b"")
        .unwrap();
    target.as_root("/bin/chmod", &["4750", AGENT_EXEC], b"").unwrap();
    start("owned by root", AGENT_EXEC, &[]);
    target
        .as_root("/bin/chown", &["writ-exec:agent-runner", AGENT_EXEC], b"")
        .unwrap();
    start("the bit is lost", AGENT_EXEC, &[]);
    target.as_root("/bin/chmod", &["4750", AGENT_EXEC], b"").unwrap();
    assert_eq!(target.records().unwrap().len(), records);
    let output = target.run(RUNNER, AGENT_EXEC, &[], b"").unwrap();
    assert_eq!(output.status.code(), Some(0), "as installed it starts: {output:?}");
    tell("ids", 3);
}

#[test]
fn ids_unexpected_on_a_nosuid_mount() {
    // A stack of its own: the mount stays. sshd's namespace is made when it starts, with the mounts of that moment.
    let mut stack = Stack::usual().unwrap();
    let target = stack.target_mut(WEB).unwrap();
    target.stop_sshd();
    target.root().remount("usr/libexec/writ", MsFlags::MS_NOSUID).unwrap();
    target.start_sshd().unwrap();
    let target = stack.target(WEB).unwrap();
    let task = stack.open_task(WEB).unwrap();
    let login = stack.login(&task.key, &task.certificate).unwrap();
    let output = login.run(target, &["-T"], &["writ.v1"], b"").unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
}

#[test]
fn local_user_runs_agent_exec() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    for who in [ALICE, STRANGER] {
        let output = target.run(who, "/usr/bin/env", &[AGENT_EXEC], b"").unwrap();
        assert!(text(&output.stderr).contains("Permission denied"), "{output:?}");
    }
}

#[test]
fn env_hostile() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    target
        .add_action(
            "show_environment",
            "name = \"show_environment\"\ntitle = \"Environment\"\ndescription = \"Shows it.\"\nrisk = \"read\"\ntimeout_ms = 1000\n\
             [args]\n[exec]\nprogram = \"/usr/bin/env\"\nargv = []\n[sandbox]\nprofile = \"reader\"\n",
        )
        .unwrap();
    // Through a client that sends all it can; sshd accepts none of it.
    let hostile = [
        "LC_X=() { :;}; touch /tmp/canary",
        "LD_PRELOAD=/tmp/evil.so",
        "BASH_ENV=/tmp/evil.sh",
        "ENV=/tmp/evil.sh",
        "GCONV_PATH=/tmp",
        "TZ=/dev/zero",
        "RUST_LOG=trace",
        "RUST_BACKTRACE=full",
        "SSH_USER_AUTH=/tmp/forged",
        "_NOBODY_SENDS_THIS_=x",
    ];
    let mut relay = granted(&stack, &["show_environment"]).unwrap();
    let forgery = forged(&stack, &relay, |_, grant| {
        grant["actions"] = json!(["show_environment", "tail_log"]);
    })
    .unwrap();
    let login = stack.login(&relay.task.key, &relay.task.certificate).unwrap();
    let options: Vec<String> = hostile
        .iter()
        .flat_map(|pair| ["-o".to_owned(), format!("SetEnv=\"{pair}\"")])
        .collect();
    let options: Vec<&str> = ["-T", "-A", "-X"]
        .into_iter()
        .chain(options.iter().map(String::as_str))
        .collect();
    relay.session = Session::over(login.ssh(target, &options, &["writ.v1"])).unwrap();
    assert!(relay.session.line().unwrap().get("hello").is_some());
    relay.present(&forgery).unwrap();
    let answer = relay.call("show_environment", json!({})).unwrap();
    assert_eq!(code(&answer), "none", "{answer}");
    let mut lines: Vec<&str> = answer["output"].as_str().unwrap().lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["HOME=/", "LANG=C.UTF-8", "PATH=/usr/bin:/bin", "TZ=UTC0"]);
    assert!(!canary(&stack));
    assert!(outcome(&answer).unwrap()["head"]["seq"].as_u64().is_some());
}

#[test]
fn bashrc_not_run() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let plant = format!("#!/bin/sh\necho ran >{CANARY}\n");
    let places = [
        ".bashrc",
        ".profile",
        ".bash_profile",
        "etc/bash.bashrc",
        "etc/profile",
        ".ssh/rc",
    ];
    for place in places {
        target.root().file(place, 0o755, &plant).unwrap();
    }
    target
        .root()
        .file(".ssh/environment", 0o644, "LD_PRELOAD=/tmp/evil.so\n")
        .unwrap();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    still_serves(&mut relay).unwrap();
    assert!(!canary(&stack), "a start file ran");
    for place in places.iter().chain(&[".ssh/environment"]) {
        std::fs::remove_file(target.root().at(place)).unwrap();
    }
}

#[test]
fn a_session_without_sshds_word_on_its_login_is_refused() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let task = stack.open_task(WEB).unwrap();
    // By hand, as the account itself: no sshd, no login, and a forged file that names the right key.
    let forged = format!("publickey {}\n", task.certificate);
    target
        .root()
        .file_of("tmp/forged", 0o600, (RUNNER.uid, RUNNER.gid), forged)
        .unwrap();
    for variable in [
        "SSH_USER_AUTH=/tmp/none",
        "SSH_USER_AUTH=/etc/writ/receipt.key",
        "UNSET=1",
    ] {
        let mut command = target.command(RUNNER, "/usr/bin/env");
        command.args([variable, AGENT_EXEC]);
        let mut session = Session::over(command).unwrap();
        assert!(session.line().unwrap().get("hello").is_some());
        assert_refused(&stack, By::Target(WEB), Leaves::Count, "auth_info_missing", || {
            session.send(json!({"certificate": task.certificate}).to_string())?;
            Ok(code(&session.line()?))
        })
        .unwrap_or_else(|error| panic!("{variable}: {error:?}"));
    }
}

#[test]
fn stdin_drip() {
    let stack = stack();
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    still_serves(&mut relay).unwrap();
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_secs(45) && relay.session.send_raw(b"{").is_ok() {
        std::thread::sleep(Duration::from_secs(1));
    }
    assert!(
        begun.elapsed() < Duration::from_secs(40),
        "a line that drips holds the session open"
    );
    assert!((28..40).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
}
