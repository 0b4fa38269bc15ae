//! What an account that may log in tries beside the one thing that it is for, and what a local user tries.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says so by a panic; its name is its documentation"
)]

use std::process::Output;
use std::time::Duration;

use anyhow::{Result, ensure};
use harness::evil::{code, outcome};
use harness::refused::{CANARY, canary, last_stranger};
use harness::target::AGENT_EXEC;
use harness::{ALICE, By, Changed, EXEC, EvilRelay, Leaves, RUNNER, STRANGER, Session, Stack, assert_refused};
use nix::mount::MsFlags;
use openssh::key::SigningKey;
use security::{LOG, WEB, add_action, forged, granted, logged_in, stack, still_serves, tell};
use serde_json::json;

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

/// What somebody is told who starts agent-exec in a way that it is not to be started in: an exit code and no line.
fn exit_code(output: &Output) -> Result<String> {
    ensure!(output.stdout.is_empty(), "{output:?}");
    Ok(output
        .status
        .code()
        .map_or_else(|| format!("{output:?}"), |code| format!("exit {code}")))
}

/// Asserts that a program that is run on the target by hand ends with exit code 2 and leaves nothing.
fn ends_at_once(stack: &Stack, what: &str, program: &str, arguments: &[&str], stderr: &str) {
    assert_refused(stack, By::Target(WEB), Leaves::Nothing, "exit 2", || {
        let output = stack.target(WEB)?.run(RUNNER, program, arguments, b"")?;
        ensure!(text(&output.stderr).contains(stderr), "{output:?}");
        exit_code(&output)
    })
    .unwrap_or_else(|error| panic!("{what}: {error:?}"));
}

/// What was asked for, and how the log shows it: printable ASCII, at most 200 bytes.
fn commands() -> Vec<(String, String)> {
    let same = |text: &str| (text.to_owned(), text.to_owned());
    vec![
        same("rm -rf /"),
        same("touch /tmp/canary"),
        same("writ.v1; touch /tmp/canary"),
        same("writ.v1 "),
        same("sh -c 'touch /tmp/canary'"),
        same("$(touch /tmp/canary)"),
        same("internal-sftp"),
        (
            "\u{1b}[2J\nforged: line".to_owned(),
            r"\u{1b}[2J\u{a}forged: line".to_owned(),
        ),
        (r"\u{1b}".to_owned(), r"\\u{1b}".to_owned()),
        (
            "caf\u{e9} \u{202e}cod.exe".to_owned(),
            r"caf\u{e9} \u{202e}cod.exe".to_owned(),
        ),
        same(&"x".repeat(200)),
        ("x".repeat(201), format!("{}...", "x".repeat(197))),
        ("x".repeat(50_000), format!("{}...", "x".repeat(197))),
        // 25 escapes of 8 bytes are 200; with one more there is a cut, and never through an escape.
        ("\u{202e}".repeat(25), r"\u{202e}".repeat(25)),
        ("\u{202e}".repeat(26), format!("{}...", r"\u{202e}".repeat(24))),
    ]
}

/// REQ-SESSION-4, REQ-SESSION-12, REQ-RECORD-13
#[test]
fn orig_cmd_text() {
    let stack = stack();
    let commands = commands();
    for (command, shown) in &commands {
        assert_refused(&stack, By::Target(WEB), Leaves::Count, "original_command", || {
            let output = ssh(&stack, &["-T"], &[command]);
            Ok(code(&serde_json::from_slice(&output.stdout)?))
        })
        .unwrap_or_else(|error| panic!("{command:?}: {error:?}"));
        // In the minute's record, or in the counter for it.
        let told = last_stranger(stack.target(WEB).unwrap()).unwrap();
        assert_eq!(&told, shown, "{command:?}");
    }
    tell("original commands", commands.len());
}

/// REQ-CERT-8: the CA sets the ForceCommand a second time, in the certificate.
#[test]
fn forcecommand_lost() {
    // A stack of its own, because its sshd is another.
    let mut stack = Stack::usual().unwrap();
    let mut relay = logged_in(&stack).unwrap();
    let without = forged(&stack, &relay, |forge, _| {
        forge.critical.remove(0);
    })
    .unwrap();
    relay.session.finish();
    let target = stack.target_mut(WEB).unwrap();
    let file = "etc/ssh/sshd_config.d/50-writ.conf";
    let shipped = std::fs::read_to_string(target.root().at(file)).unwrap();
    let lost: Vec<&str> = shipped
        .lines()
        .filter(|line| !line.trim_start().starts_with("ForceCommand"))
        .collect();
    target.stop_sshd();
    target
        .root()
        .file(file, 0o644, format!("{}\n", lost.join("\n")))
        .unwrap();
    target.start_sshd().unwrap();
    let with = |certificate: &str, words: &str| {
        let login = stack.login(&relay.task.key, certificate).unwrap();
        login.run(stack.target(WEB).unwrap(), &["-T"], &[words], b"")
    };
    let ours = with(&relay.task.certificate, "writ.v1").unwrap();
    assert!(says_hello(&ours), "our certificate carries the ForceCommand: {ours:?}");
    // Where it does not, the account's shell gets the client's own text, and is no shell.
    for words in ["writ.v1", "touch /tmp/canary"] {
        assert_refused(&stack, By::Target(WEB), Leaves::Nothing, "exit 2", || {
            exit_code(&with(&without, words)?)
        })
        .unwrap();
    }
}

/// REQ-SESSION-4
#[test]
fn argc_zero() {
    let stack = stack();
    let execve = if cfg!(target_arch = "x86_64") { 59 } else { 221 };
    let program = format!("my $p = \"{AGENT_EXEC}\"; syscall({execve}, $p, 0, 0); exit 99");
    ends_at_once(&stack, "argc_zero", "/usr/bin/perl", &["-e", &program], "");
}

/// REQ-SESSION-4
#[test]
fn argv_other() {
    let stack = stack();
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
        ends_at_once(&stack, &format!("{arguments:?}"), AGENT_EXEC, arguments, "");
    }
    tell("argv_other", others.len());
}

/// What agent-exec says where its ids are not those of the installation.
const IDS: &str = "uids (real, effective, saved) are";

/// REQ-SESSION-5
#[test]
fn ids_unexpected() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    ends_at_once(
        &stack,
        "no_new_privs",
        "/usr/bin/setpriv",
        &["--no-new-privs", AGENT_EXEC, "-c", AGENT_EXEC],
        IDS,
    );
    let program = Changed::keep(target.root(), AGENT_EXEC).unwrap();
    program.own(0, 0o4750).unwrap();
    ends_at_once(&stack, "owned by root", AGENT_EXEC, &[], IDS);
    program.own(EXEC.uid, 0o750).unwrap();
    ends_at_once(&stack, "the bit is lost", AGENT_EXEC, &[], IDS);
    drop(program);
    let output = target.run(RUNNER, AGENT_EXEC, &[], b"").unwrap();
    assert_eq!(output.status.code(), Some(0), "as installed it starts: {output:?}");
    tell("ids", 3);
}

/// REQ-SESSION-5
#[test]
fn ids_unexpected_on_a_nosuid_mount() {
    // A stack of its own: the mount stays. sshd's namespace is made when it starts, with the mounts of that moment.
    let mut stack = Stack::usual().unwrap();
    let target = stack.target_mut(WEB).unwrap();
    target.stop_sshd();
    target.root().remount("usr/libexec/writ", MsFlags::MS_NOSUID).unwrap();
    target.start_sshd().unwrap();
    let task = stack.open_task(WEB).unwrap();
    let login = stack.login(&task.key, &task.certificate).unwrap();
    assert_refused(&stack, By::Target(WEB), Leaves::Nothing, "exit 2", || {
        exit_code(&login.run(stack.target(WEB)?, &["-T"], &["writ.v1"], b"")?)
    })
    .unwrap();
}

#[test]
fn local_user_runs_agent_exec() {
    let stack = stack();
    for who in [ALICE, STRANGER] {
        assert_refused(&stack, By::Target(WEB), Leaves::Nothing, "Permission denied", || {
            let output = stack.target(WEB)?.run(who, "/usr/bin/env", &[AGENT_EXEC], b"")?;
            ensure!(text(&output.stderr).contains("Permission denied"), "{output:?}");
            Ok("Permission denied".to_owned())
        })
        .unwrap();
    }
}

/// REQ-MANIFEST-18
#[test]
fn env_hostile() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let _action = add_action(
            target,
            "show_environment",
            "name = \"show_environment\"\ntitle = \"Environment\"\ndescription = \"Shows it.\"\nrisk = \"read\"\ntimeout_ms = 1000\n\
             [args]\n[exec]\nprogram = \"/usr/bin/env\"\nargv = []\n[sandbox]\nprofile = \"reader\"\n",
        ).unwrap();
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
    let mut planted = Vec::new();
    std::fs::create_dir_all(target.root().at(".ssh")).unwrap();
    for place in places {
        let file = Changed::write(target.root(), place, &plant).unwrap();
        file.own(0, 0o755).unwrap();
        planted.push(file);
    }
    planted.push(Changed::write(target.root(), ".ssh/environment", "LD_PRELOAD=/tmp/evil.so\n").unwrap());
    let mut relay = EvilRelay::start(&stack, WEB).unwrap();
    still_serves(&mut relay).unwrap();
    assert!(!canary(&stack), "a start file ran");
}

/// By hand, as the account itself: no sshd, no login.
fn by_hand(stack: &Stack, variable: &str) -> Session {
    let mut command = stack.target(WEB).unwrap().command(RUNNER, "/usr/bin/env");
    command.args([variable, AGENT_EXEC]);
    Session::over(command).unwrap()
}

/// REQ-CERT-13
#[test]
fn a_session_without_sshds_word_on_its_login_is_refused() {
    let stack = stack();
    let task = stack.open_task(WEB).unwrap();
    for variable in [
        "SSH_USER_AUTH=/tmp/none",
        "SSH_USER_AUTH=/etc/writ/receipt.key",
        "UNSET=1",
    ] {
        let mut session = by_hand(&stack, variable);
        assert!(session.line().unwrap().get("hello").is_some());
        assert_refused(&stack, By::Target(WEB), Leaves::Count, "auth_info_missing", || {
            session.send(json!({"certificate": task.certificate}).to_string())?;
            Ok(code(&session.line()?))
        })
        .unwrap_or_else(|error| panic!("{variable}: {error:?}"));
    }
}

/// The file belongs to the account that logs in, so whoever is that account can write one. It is no authority: it takes
/// nothing but the one key away, and whoever has that key could have logged in.
///
/// REQ-CERT-13, REQ-PAYLOAD-3
#[test]
fn a_forged_word_of_sshd_gives_nobody_a_key() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let thief = SigningKey::from_seed(&[5; 32].into()).unwrap();
    let task = stack.open_task(WEB).unwrap();
    let other = stack.open_task(WEB).unwrap();
    let word = Changed::write(
        target.root(),
        "tmp/forged",
        format!("publickey {}\n", other.certificate),
    )
    .unwrap();
    word.own(RUNNER.uid, 0o600).unwrap();

    // It names another key than the certificate.
    let mut session = by_hand(&stack, "SSH_USER_AUTH=/tmp/forged");
    assert!(session.line().unwrap().get("hello").is_some());
    assert_refused(&stack, By::Target(WEB), Leaves::Count, "key_mismatch", || {
        session.send(json!({"certificate": task.certificate}).to_string())?;
        Ok(code(&session.line()?))
    })
    .unwrap();

    // It names the right one, of a certificate that was stolen without its key.
    word.set(format!("publickey {}\n", task.certificate)).unwrap();
    word.own(RUNNER.uid, 0o600).unwrap();
    let session = by_hand(&stack, "SSH_USER_AUTH=/tmp/forged");
    let mut relay = EvilRelay::over(WEB, task, session).unwrap();
    relay.present_own().unwrap();
    let payload = serde_json::to_string(&relay.payload("tail_log", json!({"path": LOG, "lines": 1}))).unwrap();
    let line = EvilRelay::line(&payload, &thief, openssh::sshsig::REQUEST).unwrap();
    assert_refused(&stack, By::Target(WEB), Leaves::Count, "signature_invalid", || {
        Ok(code(&relay.ask(&line)?))
    })
    .unwrap();
    // The key itself is what counts: its holder is served here as he would be through sshd.
    still_serves(&mut relay).unwrap();
}

/// REQ-SESSION-10
#[test]
fn stdin_drip() {
    // A stack of its own, so that nobody waits for it.
    let stack = Stack::usual().unwrap();
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
