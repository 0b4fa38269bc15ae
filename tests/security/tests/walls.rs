//! The walls around an action, from the inside: for each thing that they refuse, the same thing where it is harmless.
//!
//! The programs are one-liners of perl, which every Debian has, run by the real agent-exec as actions of the target.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where"
)]

use harness::evil::{code, outcome};
use harness::{EvilRelay, Stack};
use nix::libc;
use security::{WEB, granted, stack, tell};
use serde_json::json;

/// What a program of a row should say.
enum Said {
    /// `ok`, whatever follows.
    Ok,
    /// This errno.
    Errno(i32),
}

struct Row {
    profile: &'static str,
    name: &'static str,
    program: String,
    said: Said,
}

/// A raw system call; what it returns or why it failed.
fn call(number: i64, arguments: &str) -> String {
    format!("my $r = syscall({number}{arguments}); print $r == -1 ? 'errno '.($!+0) : 'ok '.$r;")
}

/// An expression of perl that is true when it worked.
fn works(expression: &str) -> String {
    format!("print(({expression}) ? 'ok' : 'errno '.($!+0));")
}

fn rows() -> Vec<Row> {
    use Said::{Errno, Ok};
    const EPERM: Said = Errno(libc::EPERM);
    const EACCES: Said = Errno(libc::EACCES);
    let mut rows = Vec::new();
    let mut add = |profile, name, program, said| {
        rows.push(Row {
            profile,
            name,
            program,
            said,
        })
    };
    for profile in ["reader", "tool"] {
        add(profile, "it runs", "print 'ok'".to_owned(), Ok);
        add(profile, "ptrace", call(libc::SYS_ptrace, ", 0, 0, 0, 0"), EPERM);
        add(
            profile,
            "process_vm_readv",
            call(libc::SYS_process_vm_readv, ", getppid(), 0, 0, 0, 0, 0"),
            EPERM,
        );
        add(
            profile,
            "process_vm_writev",
            call(libc::SYS_process_vm_writev, ", getppid(), 0, 0, 0, 0, 0"),
            EPERM,
        );
        add(
            profile,
            "a signal to its supervisor",
            call(libc::SYS_kill, ", getppid(), 9"),
            EPERM,
        );
        add(profile, "a signal to all", call(libc::SYS_kill, ", -1, 9"), EPERM);
        add(profile, "a signal to init", call(libc::SYS_kill, ", 1, 0"), EPERM);
        add(profile, "a signal to itself", call(libc::SYS_kill, ", $$+0, 0"), Ok);
        add(profile, "a signal to its group", call(libc::SYS_kill, ", 0, 0"), Ok);
        add(
            profile,
            "a signal to its group by number",
            call(libc::SYS_kill, ", -$$, 0"),
            Ok,
        );
        add(
            profile,
            "a signal to another's thread",
            call(libc::SYS_tgkill, ", getppid(), getppid(), 0"),
            EPERM,
        );
        add(profile, "tkill", call(libc::SYS_tkill, ", getppid(), 0"), EPERM);
        add(
            profile,
            "pidfd_send_signal",
            call(libc::SYS_pidfd_send_signal, ", 3, 9, 0, 0"),
            EPERM,
        );
        add(profile, "unshare", call(libc::SYS_unshare, ", 0x10000000"), EPERM);
        add(profile, "mount", call(libc::SYS_mount, ", 0, 0, 0, 0, 0"), EPERM);
        add(profile, "chroot", call(libc::SYS_chroot, ", 0"), EPERM);
        add(profile, "bpf", call(libc::SYS_bpf, ", 0, 0, 0"), EPERM);
        add(
            profile,
            "perf_event_open",
            call(libc::SYS_perf_event_open, ", 0, 0, 0, 0, 0"),
            EPERM,
        );
        add(
            profile,
            "io_uring_setup",
            call(libc::SYS_io_uring_setup, ", 1, 0"),
            EPERM,
        );
        add(profile, "keyctl", call(libc::SYS_keyctl, ", 0, 0"), EPERM);
        add(profile, "userfaultfd", call(libc::SYS_userfaultfd, ", 0"), EPERM);
        add(profile, "memfd_create", call(libc::SYS_memfd_create, ", 0, 0"), EPERM);
        add(profile, "setuid", call(libc::SYS_setuid, ", 0"), EPERM);
        add(
            profile,
            "setresuid",
            call(libc::SYS_setresuid, ", 64102, 64102, 64102"),
            EPERM,
        );
        add(profile, "setsid", call(libc::SYS_setsid, ""), EPERM);
        add(profile, "prctl", call(libc::SYS_prctl, ", 38, 0, 0, 0, 0"), EPERM);
        add(
            profile,
            "setpriority",
            call(libc::SYS_setpriority, ", 0, getppid(), 19"),
            EPERM,
        );
        add(
            profile,
            "another's limits",
            call(libc::SYS_prlimit64, ", getppid(), 7, 0, 0"),
            EPERM,
        );
        add(profile, "its own limits", call(libc::SYS_prlimit64, ", 0, 7, 0, 0"), Ok);
        // The second numbering of x86_64; in the first one both profiles have it.
        #[cfg(target_arch = "x86_64")]
        add(profile, "x32's getpid", call(libc::SYS_getpid | 0x4000_0000, ""), EPERM);
        add(profile, "clone3", call(libc::SYS_clone3, ", 0, 0"), Errno(libc::ENOSYS));
        add(profile, "netlink", call(libc::SYS_socket, ", 16, 3, 0"), EPERM);
        add(profile, "packet socket", call(libc::SYS_socket, ", 17, 3, 0"), EPERM);
        add(profile, "listening", call(libc::SYS_listen, ", 0, 1"), EPERM);
        add(profile, "binding", call(libc::SYS_bind, ", 0, 0, 0"), EPERM);
        add(
            profile,
            "writing the log",
            works("open(F, '>>', '/var/log/writ/00000000000000000001.jsonl')"),
            EACCES,
        );
        add(
            profile,
            "writing elsewhere",
            works("open(F, '>', '/var/log/shop/new.log')"),
            EACCES,
        );
        add(
            profile,
            "reading the receipt key",
            works("open(F, '<', '/etc/writ/receipt.key')"),
            EACCES,
        );
        add(
            profile,
            "a library",
            works("open(F, '<', '/usr/lib/os-release') || -d '/usr/lib'"),
            Ok,
        );
    }
    add(
        "reader",
        "reading by name",
        works("open(F, '<', '/etc/passwd')"),
        EACCES,
    );
    add("tool", "reading by name", works("open(F, '<', '/etc/passwd')"), Ok);
    add(
        "reader",
        "writing below /tmp",
        works("open(F, '>', '/tmp/walls')"),
        EACCES,
    );
    add(
        "tool",
        "writing below /tmp",
        works("open(F, '>', '/tmp/walls') && unlink('/tmp/walls')"),
        Ok,
    );
    add("reader", "another process", works("defined fork"), EPERM);
    add(
        "tool",
        "another process",
        works("defined($p = fork) && ($p || exit(0)) && waitpid($p, 0) == $p"),
        Ok,
    );
    add("reader", "another program", works("exec('/bin/true')"), EPERM);
    add("tool", "another program", works("system('/bin/true') == 0"), Ok);
    add("reader", "the network", call(libc::SYS_socket, ", 2, 1, 0"), EPERM);
    add("tool", "the network", call(libc::SYS_socket, ", 2, 1, 0"), Ok);
    add(
        "tool",
        "a namespace by clone",
        call(libc::SYS_clone, ", 0x10000011, 0, 0, 0, 0"),
        EPERM,
    );
    rows
}

fn action(name: &str, profile: &str, program: &str) -> String {
    let program = serde_json::Value::from(program);
    format!(
        "name = \"{name}\"\ntitle = \"One row\"\ndescription = \"Tries something.\"\nrisk = \"read\"\ntimeout_ms = 5000\n\
         [args]\n[exec]\nprogram = \"/usr/bin/perl\"\nargv = [\"-e\", {program}]\n[sandbox]\nprofile = \"{profile}\"\n"
    )
}

fn run(stack: &Stack, relay: &mut EvilRelay, row: &Row) -> (String, serde_json::Value) {
    let name = "one_row";
    stack
        .target(WEB)
        .unwrap()
        .add_action(name, &action(name, row.profile, &row.program))
        .unwrap();
    let answer = relay.call(name, json!({})).unwrap();
    let outcome = outcome(&answer).unwrap_or_else(|| panic!("{}: {answer}", row.name));
    assert!(
        ["none", "exit_nonzero"].contains(&code(&answer).as_str()),
        "{} {}: {answer}",
        row.profile,
        row.name
    );
    let output = answer["output"].as_str().unwrap();
    assert!(!output.is_empty(), "{} as {}: {answer}", row.name, row.profile);
    (output.to_owned(), outcome)
}

#[test]
fn each_wall_refuses_what_it_is_there_for_and_nothing_else() {
    let stack = stack();
    let mut relay = granted(&stack, &["one_row"]).unwrap();
    let rows = rows();
    let mut attacks = 0;
    for row in &rows {
        let (output, outcome) = run(&stack, &mut relay, row);
        let what = format!("{} as {}: {output}", row.name, row.profile);
        match row.said {
            Said::Ok => assert!(output.starts_with("ok"), "{what}"),
            Said::Errno(errno) => {
                assert_eq!(output, format!("errno {errno}"), "{what}");
                attacks += 1;
            }
        }
        let walls = outcome["walls"].as_array().unwrap();
        assert_eq!(walls[0], "no_new_privs", "{what}");
        assert_eq!(walls[1], format!("seccomp:{}", row.profile), "{what}");
        assert!(
            walls[2]
                .as_str()
                .unwrap()
                .starts_with(&format!("landlock:{}:", row.profile)),
            "{what}"
        );
    }
    std::fs::remove_file(stack.target(WEB).unwrap().root().at("etc/writ/actions.d/one_row.toml")).unwrap();
    tell("walls", attacks);
    println!(
        "walls: {} harmless, {} allowed",
        rows.len() - attacks,
        rows.len() - attacks
    );
}

#[test]
fn the_record_says_which_walls_stood() {
    let stack = stack();
    let mut relay = granted(&stack, &[]).unwrap();
    security::still_serves(&mut relay).unwrap();
    let records = stack.target(WEB).unwrap().records().unwrap();
    for event in ["intent", "result"] {
        let record = records.iter().rev().find(|record| record["event"] == event).unwrap();
        assert_eq!(record["walls"][1], "seccomp:reader", "{record}");
    }
}
