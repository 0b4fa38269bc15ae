//! The shipped install steps on a machine that has never seen Writ, and what they refuse. [`crate::readme`] types README's.

use harness::target::Accounts;
use harness::{ALICE, Options, ROOT, Stack, mcp};
use serde_json::json;

/// REQ-RECORD-8
#[test]
fn a_host_becomes_a_target_by_the_shipped_steps() {
    let mut stack = Stack::start(&Options {
        targets: vec!["web-1"],
        ..Options::default()
    })
    .unwrap();
    let target = stack.new_target("web-2", Accounts::Made).unwrap();

    // Accounts that the steps made: no password, no lock, the program as the login shell, no home.
    let passwd = std::fs::read_to_string(target.root().at("/etc/passwd")).unwrap();
    let runner = passwd.lines().find(|line| line.starts_with("agent-runner:")).unwrap();
    assert!(runner.ends_with(":/:/usr/libexec/writ/agent-exec"), "{runner}");
    let shadow = std::fs::read_to_string(target.root().at("/etc/shadow")).unwrap();
    assert!(shadow.contains("\nagent-runner:*:"), "{shadow}");
    let listing = target
        .as_root(
            "/bin/ls",
            &["-ld", "/usr/libexec/writ/agent-exec", "/var/log/writ", "/var/lib/writ"],
            b"",
        )
        .unwrap();
    let listing = String::from_utf8(listing).unwrap();
    for expected in [
        "-rwsr-x--- 1 writ-exec agent-runner",
        "drwxr-s--- 2 writ-exec writ-logs",
        "drwx------ 2 writ-exec writ-exec",
    ] {
        assert!(listing.contains(expected), "{expected} is not in {listing}");
    }

    // The steps can be repeated, and what an administrator changed stays.
    let config = format!(
        "{}# ours\n",
        std::fs::read_to_string(target.root().at("/etc/writ/target.toml")).unwrap()
    );
    target.root().file("/etc/writ/target.toml", 0o644, &config).unwrap();
    target.as_root("/root/writ/install", &["web-2"], b"").unwrap();
    assert_eq!(
        std::fs::read_to_string(target.root().at("/etc/writ/target.toml")).unwrap(),
        config
    );

    // A configuration that sshd would not start with is refused and changes nothing.
    let good = target.root().at("/etc/ssh/sshd_config");
    let before = std::fs::read(&good).unwrap();
    target
        .root()
        .file(
            "/etc/ssh/sshd_config",
            0o644,
            [&before[..], b"NoSuchDirective yes\n"].concat(),
        )
        .unwrap();
    let refused = target.run(ROOT, "/root/writ/install", &["web-2"], b"").unwrap();
    assert_eq!(refused.status.code(), Some(2));
    target.root().file("/etc/ssh/sshd_config", 0o644, &before).unwrap();

    stack.enroll(target).unwrap();
    stack.control.stop_relay();
    stack.control.start_relay().unwrap();
    let mut client = stack.client(ALICE).unwrap();
    let read: mcp::Called = client
        .call(
            "tail_log",
            json!({"target": "web-2", "path": "/var/log/shop/web.log", "lines": 2, "reason": "a new host"}),
        )
        .unwrap();
    assert!(!read.is_error, "{}", read.value);
    let known = stack.target("web-2").unwrap().sshd_says("agent-runner").unwrap();
    assert!(
        known.contains("hostcertificate /etc/ssh/ssh_host_ed25519_key-cert.pub"),
        "{known}"
    );
}

#[test]
fn an_install_without_a_proper_name_is_refused() {
    let stack = &crate::STACK;
    let target = stack.target("web-1").unwrap();
    for name in ["", "Web-1", "web 1", "-x", "a,b", "a\nb"] {
        let refused = target.run(ROOT, "/root/writ/install", &[name], b"").unwrap();
        assert_eq!(refused.status.code(), Some(2), "{name:?}");
    }
}
