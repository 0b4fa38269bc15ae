//! `writ-target doctor` on a target that is as it must be, and on one that has one thing broken at a time.
//!
//! Where the finding names a command that can be typed as it stands, that very command must mend it.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use harness::{ALICE, Options, ROOT, Stack, Target};
use nix::mount::MsFlags;
use serde_json::{Value, json};

/// A stack whose target has records, for one test at a time.
fn stack() -> MutexGuard<'static, Stack> {
    static STACK: LazyLock<Mutex<Stack>> = LazyLock::new(|| {
        let stack = Stack::start(&Options {
            targets: vec!["web-1"],
            ..Options::default()
        })
        .unwrap();
        let mut client = stack.client(ALICE).unwrap();
        let call = json!({"target": "web-1", "path": "/var/log/shop/web.log", "lines": 1, "reason": "a test"});
        let answer = client.call_ok("tail_log", call).unwrap();
        // usermod leaves an account alone that a session runs as.
        client
            .call_ok("close_task", json!({"task_id": answer["task_id"]}))
            .unwrap();
        Mutex::new(stack)
    });
    STACK.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Exit code and what was said, by `--json`.
fn doctor(target: &Target) -> (Option<i32>, Vec<Value>) {
    let output = target
        .run(ROOT, "/usr/sbin/writ-target", &["doctor", "--json"], b"")
        .unwrap();
    let said = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), said)
}

fn findings(said: &[Value]) -> Vec<&Value> {
    said.iter().filter(|item| item["ok"] == false).collect()
}

fn shell(target: &Target, command: &str) {
    let output = target.run(ROOT, "/bin/sh", &["-c", command], b"").unwrap();
    assert!(
        output.status.success(),
        "{command}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

fn assert_all_clear(target: &Target, after: &str) {
    let (code, said) = doctor(target);
    assert_eq!(code, Some(0), "{after}: {:#?}", findings(&said));
    assert!(findings(&said).is_empty());
}

#[test]
fn a_demo_target_is_all_clear() {
    let stack = stack();
    let target = stack.target("web-1").unwrap();
    let output = target.run(ROOT, "/usr/sbin/writ-target", &["doctor"], b"").unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(0), "{text}");
    let last = text.lines().last().unwrap();
    assert!(last.starts_with("web-1: all clear, "), "{text}");
    // A container has no systemd to ask, and says so.
    let (_, said) = doctor(target);
    for item in &said {
        let is_notice = !item["why"].is_null();
        assert!(!is_notice || item["check"] == "sshd_unit", "{item}");
    }
    println!("{text}");
}

/// sshd runs it before every session and no option stops that: the canary shows why doctor has to find it.
#[test]
fn sshrc_detected() {
    let stack = stack();
    let target = stack.target("web-1").unwrap();
    let canary = target.root().at("tmp/sshrc-canary");
    let mut client = stack.client(ALICE).unwrap();
    let call = json!({"target": "web-1", "path": "/var/log/shop/web.log", "lines": 1, "reason": "a test"});
    shell(target, "echo 'echo ran >/tmp/sshrc-canary' >/etc/ssh/sshrc");
    let (code, said) = doctor(target);
    let answer = client.call("tail_log", call.clone());
    shell(target, "rm /etc/ssh/sshrc");
    assert_eq!(code, Some(2));
    assert_eq!(findings(&said).len(), 1, "{said:#?}");
    assert_eq!(findings(&said)[0]["check"], "sshrc");
    assert!(canary.exists(), "sshd did not run it: {answer:?}");
    fs::remove_file(&canary).unwrap();
    let close = |answer: &Value| json!({"task_id": answer["task_id"]});
    client.call_ok("close_task", close(&answer.unwrap().value)).unwrap();
    let answer = client.call_ok("tail_log", call).unwrap();
    client.call_ok("close_task", close(&answer)).unwrap();
    assert!(!canary.exists());
    assert_all_clear(target, "sshrc");
}

#[test]
fn doctor_that_cannot_look_exits_1_and_says_how() {
    let stack = stack();
    let target = stack.target("web-1").unwrap();
    let output = target
        .run(ALICE, "/usr/sbin/writ-target", &["doctor", "--json"], b"")
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty() && String::from_utf8_lossy(&output.stderr).contains("sudo"));
}

#[test]
fn halt_and_a_disk_that_fills_up_are_notices() {
    let stack = stack();
    let target = stack.target("web-1").unwrap();
    shell(target, "touch /etc/writ/halt");
    target.root().small_disk("var/log/writ", 8192).unwrap();
    let (code, said) = doctor(target);
    target.root().unmount("var/log/writ").unwrap();
    shell(target, "rm /etc/writ/halt");
    assert_eq!(code, Some(0), "{:#?}", findings(&said));
    for check in ["halt", "audit_space"] {
        let item = said.iter().find(|item| item["check"] == check).unwrap();
        assert!(!item["why"].is_null() && !item["mend"].is_null(), "{item}");
    }
    assert_all_clear(target, "halt");
}

#[test]
fn explain_says_what_an_action_of_this_target_may_do() {
    let stack = stack();
    let target = stack.target("web-1").unwrap();
    let run = |action: &str| {
        target
            .run(ALICE, "/usr/sbin/writ-target", &["explain", action], b"")
            .unwrap()
    };
    let output = run("tail_log");
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(
        output.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    for part in [
        "on web-1",
        "/usr/libexec/writ/inspect tail -n {lines}",
        "beneath /var/log",
        "uid 64101",
        "at most 10 s",
    ] {
        assert!(text.contains(part), "{part} is not in\n{text}");
    }
    for unknown in ["no_such_action", "../target"] {
        assert_eq!(run(unknown).status.code(), Some(2), "{unknown}");
    }
}

/// How one thing is broken.
enum How {
    /// A command, and the paths that it changes: what was there comes back afterwards.
    Shell(&'static str, &'static [&'static str]),
    /// The same, and the command that doctor names must mend it.
    Mended(&'static str, &'static [&'static str]),
    /// A folder is mounted with this.
    Mount(&'static str, MsFlags),
}

use How::{Mended, Mount, Shell};

const DROP_IN: &str = "/etc/ssh/sshd_config.d/50-writ.conf";
const SSHD: &str = "/etc/ssh/sshd_config";
const EARLY: &str = "/etc/ssh/sshd_config.d/10-x.conf";
const TOML: &str = "/etc/writ/target.toml";
const SEGMENT: &str = "/var/log/writ/00000000000000000001.jsonl";
const RECEIPT: &str = "/etc/writ/receipt.key";
const APPROVERS: &str = "/etc/writ/approvers";
const AGENT_EXEC: &str = "/usr/libexec/writ/agent-exec";
const CERT: &str = "/etc/ssh/ssh_host_ed25519_key-cert.pub";
const ACTION: &str = "/etc/writ/actions.d/x.toml";
const SUDOERS: &str = "/etc/sudoers.d/writ";
const ACCOUNTS: &[&str] = &["/etc/passwd", "/etc/shadow", "/etc/group", "/etc/gshadow"];

/// The check that must find it, a part of what it must say, and how it is broken.
#[rustfmt::skip]
const BREAKAGES: &[(&str, &str, How)] = &[
    ("sshd_config", "Bad configuration option: NoSuchDirective", Shell("echo NoSuchDirective yes >>/etc/ssh/sshd_config", &[SSHD])),
    ("sshd_settings", "PermitTTY is \"yes\"", Mended("printf 'Match User agent-runner\\nPermitTTY yes\\n' >/etc/ssh/sshd_config.d/10-x.conf", &[EARLY])),
    ("sshd_settings", "DisableForwarding is \"no\"", Mended("sed -i '/DisableForwarding/d' /etc/ssh/sshd_config.d/50-writ.conf", &[DROP_IN])),
    ("sshd_settings", "LogLevel is \"SILENT\"", Mended("sed -i 's/VERBOSE/QUIET/' /etc/ssh/sshd_config.d/50-writ.conf", &[DROP_IN])),
    ("sshd_settings", "RevokedKeys is \"none\"", Mended("sed -i '/RevokedKeys/d' /etc/ssh/sshd_config.d/50-writ.conf", &[DROP_IN])),
    ("sshd_settings", "AuthorizedKeysFile is \".ssh/authorized_keys\"", Mended("printf 'Match all\\nAuthorizedKeysFile .ssh/authorized_keys\\n' >/etc/ssh/sshd_config.d/10-x.conf", &[EARLY])),
    ("force_command", "ForceCommand is \"none\"", Mended("sed -i '/ForceCommand/d' /etc/ssh/sshd_config.d/50-writ.conf", &[DROP_IN])),
    ("force_command", "ForceCommand is \"/bin/sh\"", Mended("printf 'Match User agent-*\\nForceCommand /bin/sh\\n' >/etc/ssh/sshd_config.d/10-x.conf", &[EARLY])),
    ("accept_env", "AcceptEnv is \"LC_*\"", Mended("sed -i 's/_NOBODY_SENDS_THIS_/LC_*/' /etc/ssh/sshd_config.d/50-writ.conf", &[DROP_IN])),
    ("accept_env", "AcceptEnv is not set", Mended("sed -i '/AcceptEnv/d' /etc/ssh/sshd_config.d/50-writ.conf", &[DROP_IN])),
    ("sshd_settings", "50-writ.conf is not read", Shell("rm /etc/ssh/sshd_config.d/50-writ.conf", &[DROP_IN])),
    ("user_environment", "permituserenvironment is \"yes\"", Mended("echo PermitUserEnvironment yes >>/etc/ssh/sshd_config", &[SSHD])),
    ("strict_modes", "strictmodes is \"no\"", Mended("sed -i 's/^StrictModes yes/StrictModes no/' /etc/ssh/sshd_config", &[SSHD])),
    ("ca_elsewhere", "/etc/ssh/sshd_config:1 trusts the task CA for every account", Mended("sed -i '1i TrustedUserCAKeys /etc/writ/ca.pub' /etc/ssh/sshd_config", &[SSHD])),
    ("other_accounts", "TrustedUserCAKeys is \"/etc/writ/ca.pub\" for root too", Mended("sed -i '1i TrustedUserCAKeys /etc/writ/ca.pub' /etc/ssh/sshd_config", &[SSHD])),
    ("ca_elsewhere", "10-x.conf:2 trusts the task CA in \"Match user deploy address 10.0.0.0/8\"", Mended("cp /etc/writ/ca.pub /etc/ssh/copy.pub && printf 'Match User deploy Address 10.0.0.0/8\\nTrustedUserCAKeys /etc/ssh/copy.pub\\n' >/etc/ssh/sshd_config.d/10-x.conf", &[EARLY, "/etc/ssh/copy.pub"])),
    ("ca_elsewhere", "/root/.ssh/authorized_keys:1 holds a key of the task CA", Mended("sed -i '1i AuthorizedKeysFile .ssh/authorized_keys' /etc/ssh/sshd_config; mkdir -p /root/.ssh; (printf 'cert-authority '; cat /etc/writ/ca.pub) >/root/.ssh/authorized_keys", &[SSHD, "/root/.ssh/authorized_keys"])),
    ("sshrc", "/etc/ssh/sshrc exists", Mended("echo id >/etc/ssh/sshrc", &["/etc/ssh/sshrc", "/etc/ssh/sshrc.away"])),
    ("sshd_version", "older than 9.2", Shell("rm /usr/sbin/sshd; printf '#!/bin/sh\\n[ \"$1\" != \"-?\" ] || { echo \"OpenSSH_8.9p1 Ubuntu-3, OpenSSL\" >&2; exit 1; }\\nexec /usr/lib-sbin/sshd \"$@\"\\n' >/usr/sbin/sshd; chmod 755 /usr/sbin/sshd", &["/usr/sbin/sshd"])),
    ("sshd_faults", "CVE-2024-6387", Shell("rm /usr/sbin/sshd; printf '#!/bin/sh\\n[ \"$1\" != \"-?\" ] || { echo \"OpenSSH_9.2p1 Debian-2+deb12u2, OpenSSL\" >&2; exit 1; }\\nexec /usr/lib-sbin/sshd \"$@\"\\n' >/usr/sbin/sshd; chmod 755 /usr/sbin/sshd", &["/usr/sbin/sshd"])),
    ("accounts", "twin has the uid of writ-exec", Shell("echo 'twin:x:64102:64125::/:/bin/sh' >>/etc/passwd", ACCOUNTS)),
    ("accounts", "there is no account agent-runner", Shell("sed -i '/^agent-runner:/d' /etc/passwd", ACCOUNTS)),
    ("account_ids", "exec_uid is 64999 in target.toml, and 64102 in passwd", Mended("sed -i 's/^exec_uid .*/exec_uid = 64999/' /etc/writ/target.toml", &[TOML])),
    ("account_ids", "runner_gid", Mended("sed -i 's/^runner_gid .*/runner_gid = 64999/' /etc/writ/target.toml", &[TOML])),
    ("login_shell", "the shell of agent-runner is /bin/sh", Mended("sed -i '/^agent-runner:/s,/usr/libexec/writ/agent-exec,/bin/sh,' /etc/passwd", ACCOUNTS)),
    ("login_shell", "the shell of writ-exec is /bin/bash", Mended("sed -i '/^writ-exec:/s,/usr/sbin/nologin,/bin/bash,' /etc/passwd", ACCOUNTS)),
    ("password", "the password of agent-runner is locked (!)", Mended("sed -i 's/^agent-runner:[*]:/agent-runner:!:/' /etc/shadow", ACCOUNTS)),
    ("password", "the password of writ-exec is a hash", Mended("sed -i 's/^writ-exec:[*]:/writ-exec:$y$j9T$x:/' /etc/shadow", ACCOUNTS)),
    ("password", "the password of agent-runner is empty", Mended("sed -i 's/^agent-runner:[*]:/agent-runner::/' /etc/shadow", ACCOUNTS)),
    ("home", "the home of agent-runner is /tmp", Mended("sed -i '/^agent-runner:/s,::/:,::/tmp:,' /etc/passwd", ACCOUNTS)),
    ("groups", "agent-runner is in the group shadow", Mended("sed -i 's/^shadow:x:42:/&agent-runner/' /etc/group; sed -i 's/^shadow:[*]::/&agent-runner/' /etc/gshadow", ACCOUNTS)),
    ("groups", "stranger is in the group of agent-runner", Mended("sed -i 's/^agent-runner:.*:$/&stranger/' /etc/group /etc/gshadow", ACCOUNTS)),
    ("user_manager", "user@64101.service, of agent-runner, is not masked", Mended("rm /etc/systemd/system/user@64101.service", &["/etc/systemd/system/user@64101.service"])),
    ("cron", "/etc/cron.deny does not list agent-runner", Mended("sed -i /agent-runner/d /etc/cron.deny", &["/etc/cron.deny"])),
    ("cron", "/etc/cron.allow lists writ-exec", Mended("echo writ-exec >/etc/cron.allow", &["/etc/cron.allow"])),
    ("at", "/etc/at.deny does not list writ-exec", Mended("sed -i /writ-exec/d /etc/at.deny", &["/etc/at.deny"])),
    ("paths", "/etc/writ is 0:0 777", Mended("chmod 777 /etc/writ", &["/etc/writ"])),
    ("paths", "/etc/writ/target.toml is 0:0 666", Mended("chmod 666 /etc/writ/target.toml", &[TOML])),
    ("paths", "/etc/writ/principals is 64125:0 644", Mended("chown stranger /etc/writ/principals", &["/etc/writ/principals"])),
    ("paths", "/etc/writ/ca.pub is not a regular file", Shell("mv /etc/writ/ca.pub /etc/ca.pub; ln -s /etc/ca.pub /etc/writ/ca.pub", &["/etc/writ/ca.pub", "/etc/ca.pub"])),
    ("paths", "/etc/writ/krl is missing", Shell("rm /etc/writ/krl", &["/etc/writ/krl"])),
    ("paths", "/etc/writ/receipt.key is 64102:0 440", Mended("chmod 440 /etc/writ/receipt.key", &[RECEIPT])),
    ("paths", "/etc/writ/actions.d is 0:0 775", Mended("chmod 775 /etc/writ/actions.d", &["/etc/writ/actions.d"])),
    ("paths", "/etc/ssh/sshd_config.d/50-writ.conf is 0:0 646", Mended("chmod 646 /etc/ssh/sshd_config.d/50-writ.conf", &[DROP_IN])),
    ("paths", "/usr/libexec/writ/inspect is 64125:64125 755", Mended("chown stranger:stranger /usr/libexec/writ/inspect", &["/usr/libexec/writ/inspect"])),
    ("paths", "/usr/sbin/writ-target is 0:0 757", Mended("chmod 757 /usr/sbin/writ-target", &["/usr/sbin/writ-target"])),
    ("paths", "/var/lib/writ is 64102:64102 755", Mended("chmod 755 /var/lib/writ", &["/var/lib/writ"])),
    ("paths", "/var/lib/writ/ledger is 64102:64101 750", Mended("chmod 750 /var/lib/writ/ledger", &["/var/lib/writ/ledger"])),
    ("paths", "/var/log/writ is 64102:64103 2770", Mended("chmod 2770 /var/log/writ", &["/var/log/writ"])),
    ("paths", "/var/log/writ is 64102:0 ", Mended("chgrp root /var/log/writ", &["/var/log/writ"])),
    ("paths", ".jsonl is 64102:64103 666", Mended("chmod 666 /var/log/writ/00000000000000000001.jsonl", &[SEGMENT])),
    ("paths", ".jsonl is 64101:64103 640", Mended("chown agent-runner /var/log/writ/00000000000000000001.jsonl", &[SEGMENT])),
    ("agent_exec", "64102:64101 755", Mended("chmod 755 /usr/libexec/writ/agent-exec", &[AGENT_EXEC])),
    ("agent_exec", "64102:64101 4755", Mended("chmod 4755 /usr/libexec/writ/agent-exec", &[AGENT_EXEC])),
    ("agent_exec", "0:64101 4750", Mended("chown root /usr/libexec/writ/agent-exec; chmod 4750 /usr/libexec/writ/agent-exec", &[AGENT_EXEC])),
    ("agent_exec", "is missing", Shell("rm /usr/libexec/writ/agent-exec", &[AGENT_EXEC])),
    ("parents", "/var/lib is 0:0 777", Mended("chmod 777 /var/lib", &["/var/lib"])),
    ("parents", "/usr/libexec is 64125:0 755", Mended("chown stranger /usr/libexec", &["/usr/libexec"])),
    ("mount", "mounted nosuid", Mount("usr/libexec/writ", MsFlags::MS_NOSUID)),
    ("mount", "mounted noexec", Mount("usr/libexec/writ", MsFlags::MS_NOEXEC)),
    ("target_toml", "debug", Shell("echo 'debug = true' >>/etc/writ/target.toml; sed -i '1i debug = true' /etc/writ/target.toml", &[TOML])),
    ("target_toml", "must differ", Shell("sed -i 's/^exec_uid .*/exec_uid = 64101/' /etc/writ/target.toml", &[TOML])),
    ("catalogue", "x.toml: shell: is not a known key", Shell("printf 'name = \"x\"\\nshell = true\\n' >/etc/writ/actions.d/x.toml", &[ACTION])),
    ("catalogue", "tail_log.toml: is writable for group or others", Mended("chmod 662 /etc/writ/actions.d/tail_log.toml", &["/etc/writ/actions.d/tail_log.toml"])),
    ("programs", "/usr/bin/no-such-program, run by tail_log, cannot be looked at", Shell("sed -i 's,/usr/libexec/writ/inspect,/usr/bin/no-such-program,' /etc/writ/actions.d/tail_log.toml", &["/etc/writ/actions.d/tail_log.toml"])),
    ("programs", "run by the probe x, is a script", Shell("printf '#!/bin/sh\\n' >/usr/libexec/x; chmod 755 /usr/libexec/x; printf '[probe.x]\\nkind = \"exec\"\\nprogram = \"/usr/libexec/x\"\\n' >>/etc/writ/target.toml", &[TOML, "/usr/libexec/x"])),
    ("programs", "has a set-id bit", Mended("cp /usr/libexec/writ/inspect /usr/libexec/x; chmod 4755 /usr/libexec/x; printf '[probe.x]\\nkind = \"exec\"\\nprogram = \"/usr/libexec/x\"\\n' >>/etc/writ/target.toml", &[TOML, "/usr/libexec/x"])),
    ("programs", "others can write it", Mended("cp /usr/libexec/writ/inspect /usr/libexec/x; chmod 757 /usr/libexec/x; printf '[probe.x]\\nkind = \"exec\"\\nprogram = \"/usr/libexec/x\"\\n' >>/etc/writ/target.toml", &[TOML, "/usr/libexec/x"])),
    ("sudo", "has not the set-user-id bit alone", Mended("chmod 755 /usr/bin/sudo", &["/usr/bin/sudo"])),
    ("sudo", "is missing", Shell("rm /usr/bin/sudo", &["/usr/bin/sudo"])),
    ("sudoers", "is missing", Mended("rm /etc/sudoers.d/writ", &[SUDOERS])),
    ("sudoers", "is not what the catalogue says now", Mended("sed -i 's/\"shop\", //' /etc/writ/actions.d/restart_service.toml", &["/etc/writ/actions.d/restart_service.toml", SUDOERS])),
    ("sudoers", "is not what the catalogue says now", Mended("echo 'writ-exec ALL = (root) NOPASSWD: ALL' >>/etc/sudoers.d/writ", &[SUDOERS])),
    ("sudoers", "with mode 640", Mended("chmod 640 /etc/sudoers.d/writ", &[SUDOERS])),
    ("sudoers", "visudo -c: ", Shell("echo garbage >/etc/sudoers.d/other; chmod 440 /etc/sudoers.d/other", &["/etc/sudoers.d/other"])),
    ("sudo_rights", "agent-runner may: (ALL) NOPASSWD: ALL", Shell("echo '%agent-runner ALL = (ALL) NOPASSWD: ALL' >/etc/sudoers.d/other; chmod 440 /etc/sudoers.d/other", &["/etc/sudoers.d/other"])),
    ("sudo_rights", "writ-exec may also: (root) /bin/sh", Shell("echo 'writ-exec ALL = (root) /bin/sh' >/etc/sudoers.d/other; chmod 440 /etc/sudoers.d/other", &["/etc/sudoers.d/other"])),
    ("sudo_rights", "sudo does not give writ-exec", Shell("sed -i '/includedir/d' /etc/sudoers", &["/etc/sudoers"])),
    ("task_ca", "holds 0 keys", Shell(": >/etc/writ/ca.pub", &["/etc/writ/ca.pub"])),
    ("task_ca", "holds 3 keys", Shell("for n in 1 2; do ssh-keygen -q -t ed25519 -N '' -f /root/k$n; cat /root/k$n.pub >>/etc/writ/ca.pub; done", &["/etc/writ/ca.pub", "/root/k1", "/root/k1.pub", "/root/k2", "/root/k2.pub"])),
    ("task_ca", "failed to", Shell("echo ssh-rsa AAAA >/etc/writ/ca.pub", &["/etc/writ/ca.pub"])),
    ("principals", "lists \"web-2\"", Mended("echo web-2 >/etc/writ/principals", &["/etc/writ/principals"])),
    ("principals", "lists \"web-1, root\"", Mended("echo root >>/etc/writ/principals", &["/etc/writ/principals"])),
    ("krl", "is empty", Shell(": >/etc/writ/krl", &["/etc/writ/krl"])),
    ("krl", "is no revocation list", Shell("echo garbage >/etc/writ/krl", &["/etc/writ/krl"])),
    ("host_certificate", "failed to", Shell("echo garbage >/etc/ssh/ssh_host_ed25519_key-cert.pub", &[CERT])),
    ("host_certificate", "is missing", Shell("rm /etc/ssh/ssh_host_ed25519_key-cert.pub", &[CERT])),
    ("host_certificate", "is for another key", Shell("rm /etc/ssh/ssh_host_ed25519_key*; ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key; cp /root/cert /etc/ssh/ssh_host_ed25519_key-cert.pub", &["/etc/ssh/ssh_host_ed25519_key", "/etc/ssh/ssh_host_ed25519_key.pub", CERT])),
    ("host_certificate", "ended ", Shell("ssh-keygen -q -t ed25519 -N '' -f /root/ca; ssh-keygen -q -s /root/ca -I x -h -n web-1 -V 20200101:20200102 /etc/ssh/ssh_host_ed25519_key.pub; sed -i 's/ [^ ]*$//' /etc/ssh/ssh_host_ed25519_key-cert.pub", &[CERT, "/root/ca", "/root/ca.pub"])),
    ("receipt_key", "failed to", Shell("echo garbage >/etc/writ/receipt.key", &[RECEIPT])),
    ("receipt_key", "also the host key", Shell("cat /etc/ssh/ssh_host_ed25519_key >/etc/writ/receipt.key", &[RECEIPT])),
    ("approvers", "line 2: the key must be one of", Shell("printf '# people\\ncarol ssh-rsa AAAA\\n' >/etc/writ/approvers", &[APPROVERS])),
    ("approvers", "line 1: it is a key of the task CA", Mended("(printf 'carol cert-authority '; cut -d' ' -f1,2 /etc/writ/ca.pub) >/etc/writ/approvers", &[APPROVERS])),
    ("approvers", "line 1: it is this host's key", Mended("(printf 'carol '; cut -d' ' -f1,2 /etc/ssh/ssh_host_ed25519_key.pub) >/etc/writ/approvers", &[APPROVERS])),
    ("paths", "/etc/writ/approvers is 0:0 666", Mended("touch /etc/writ/approvers; chmod 666 /etc/writ/approvers", &[APPROVERS])),
    ("audit_log", "malformed", Shell("sed -i '2s/.*/{}/' /var/log/writ/00000000000000000001.jsonl", &[SEGMENT])),
    ("audit_log", "seq_gap", Shell("sed -i 1d /var/log/writ/00000000000000000001.jsonl", &[SEGMENT])),
    ("audit_log", "chain_broken", Shell("sed -i '2s/a test/no test/' /var/log/writ/00000000000000000001.jsonl", &[SEGMENT])),
    ("audit_writable", "mounted read-only", Mount("var/log/writ", MsFlags::MS_RDONLY)),
    ("clock", "the clock went back", Shell("touch -d '+1 hour' /var/log/writ/00000000000000000001.jsonl", &[SEGMENT])),
];

#[test]
fn every_breakage_is_named_and_what_is_named_mends_it() {
    let stack = stack();
    let target = stack.target("web-1").unwrap();
    shell(target, &format!("cp {CERT} /root/cert"));
    assert_all_clear(target, "at first");
    let (mut named, mut mended, mut wrong) = (0, 0, Vec::new());
    for (check, says, how) in BREAKAGES {
        let kept = break_it(target, how);
        let (code, said) = doctor(target);
        let found = findings(&said);
        let is_named = |item: &&&Value| item["check"] == *check && item["what"].as_str().unwrap().contains(says);
        if code == Some(2) && found.iter().find(is_named).is_some() {
            named += 1;
        } else {
            wrong.push(format!("{check}, {says}: exit {code:?}, {found:#?}"));
        }
        if matches!(how, Mended(..)) {
            mend(target, &found);
            let (code, said) = doctor(target);
            if code == Some(0) {
                mended += 1;
            } else {
                wrong.push(format!(
                    "{check}, {says}: not mended, {found:#?} became {:#?}",
                    findings(&said)
                ));
            }
        }
        put_back(target, how, &kept);
        let (code, said) = doctor(target);
        assert_eq!(code, Some(0), "{check}, {says}: put back, {:#?}", findings(&said));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let n = BREAKAGES.len();
    assert!(n >= 30 && named == n);
    println!("{mended} of them mended by the command that the finding names");
    println!("{n} breakages, {named} named");
}

/// What was there before comes back.
fn break_it(target: &Target, how: &How) -> Vec<Kept> {
    match how {
        Mount(folder, flags) => {
            target.root().remount(folder, *flags).unwrap();
            Vec::new()
        }
        Shell(command, paths) | Mended(command, paths) => {
            let kept = paths.iter().map(|path| Kept::of(target, path)).collect();
            shell(target, command);
            kept
        }
    }
}

fn put_back(target: &Target, how: &How, kept: &[Kept]) {
    if let Mount(folder, _) = how {
        target.root().unmount(folder).unwrap();
    }
    kept.iter().rev().for_each(Kept::put_back);
}

/// Types each command that the findings name, once, as it stands. Whether it could reload sshd plays no part here.
fn mend(target: &Target, found: &[&Value]) {
    let mut typed = Vec::new();
    for item in found {
        let command = item["mend"].as_str().unwrap();
        if !typed.contains(&command) {
            target.run(ROOT, "/bin/sh", &["-c", command], b"").unwrap();
            typed.push(command);
        }
    }
}

/// What was at a path.
struct Kept {
    path: PathBuf,
    what: What,
}

enum What {
    Nothing,
    Link(PathBuf),
    Folder(u32, (u32, u32)),
    File(Vec<u8>, u32, (u32, u32)),
}

impl Kept {
    fn of(target: &Target, inside: &str) -> Kept {
        let path = target.root().at(inside);
        let what = match path.symlink_metadata() {
            Err(_) => What::Nothing,
            Ok(about) if about.is_symlink() => What::Link(fs::read_link(&path).unwrap()),
            Ok(about) if about.is_dir() => What::Folder(about.mode(), (about.uid(), about.gid())),
            Ok(about) => What::File(fs::read(&path).unwrap(), about.mode(), (about.uid(), about.gid())),
        };
        Kept { path, what }
    }

    fn put_back(&self) {
        let path: &Path = &self.path;
        if !matches!(self.what, What::Folder(..)) && path.symlink_metadata().is_ok() {
            fs::remove_file(path).unwrap();
        }
        let own = |mode: u32, who: (u32, u32)| {
            chown(path, Some(who.0), Some(who.1)).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777)).unwrap();
        };
        match &self.what {
            What::Nothing => {}
            What::Link(to) => symlink(to, path).unwrap(),
            What::Folder(mode, who) => own(*mode, *who),
            What::File(bytes, mode, who) => {
                fs::write(path, bytes).unwrap();
                own(*mode, *who);
            }
        }
    }
}
