//! What a program finds when it starts: nothing of the session's own, whatever sshd was started with.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where"
)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::time::Duration;

use harness::processes::status;
use harness::spawn::{Running, wait_for};
use harness::{Changed, ROOT, RUNNER, Stack};
use nix::libc;
use security::stage::{Perl, Stage};
use security::{WEB, add_action, granted, stack};
use serde_json::json;

/// Signals that are ignored where sshd is started; it hands these on.
const IGNORED: [i32; 4] = [libc::SIGUSR1, libc::SIGUSR2, libc::SIGXCPU, libc::SIGTSTP];

/// What a program sees of itself in this file of /proc/self. It is no perl, which ignores a signal by itself.
fn seen(stack: &Stack, file: &str, limits: &str) -> String {
    let manifest = format!(
        "name = \"show_own\"\ntitle = \"Itself\"\ndescription = \"Shows itself.\"\nrisk = \"read\"\ntimeout_ms = 5000\n\
         [args]\n[exec]\nprogram = \"/usr/bin/cat\"\nargv = [\"/proc/self/{file}\"]\n[limits]\n{limits}\n\
         [sandbox]\nprofile = \"tool\"\n"
    );
    let _action = add_action(stack.target(WEB).unwrap(), "show_own", &manifest).unwrap();
    let mut relay = granted(stack, &["show_own"]).unwrap();
    let answer = relay.call("show_own", json!({})).unwrap();
    assert_eq!(harness::evil::code(&answer), "none", "{answer}");
    answer["output"].as_str().unwrap().to_owned()
}

/// What a program in a session of its own prints, in each profile.
fn printed(stack: &Stack, program: &str, limits: &str) -> [String; 2] {
    let mut stage = Stage::new(stack).unwrap();
    [Perl::reader(program), Perl::tool(program)].map(|perl| {
        let ended = stage.run(&perl.limits(limits)).unwrap();
        ended.ok().unwrap().to_owned()
    })
}

/// REQ-MANIFEST-18
#[test]
fn fd_leak() {
    let stack = stack();
    let open = format!(
        "print join ' ', grep {{ syscall({}, $_, {}) != -1 }} 0..70_000",
        libc::SYS_fcntl,
        libc::F_GETFD
    );
    assert_eq!(printed(&stack, &open, ""), ["0 1 2", "0 1 2"]);
    let mut stage = Stage::new(&stack).unwrap();
    let ended = stage.run(&Perl::tool("print readlink(\"/proc/self/fd/$_\"), ' ' for 0..2"));
    let ended = ended.unwrap();
    let [stdin, stdout, stderr] = ended.ok().unwrap().split_whitespace().collect::<Vec<_>>()[..] else {
        panic!("{}", ended.answer)
    };
    assert_eq!(stdin, "/dev/null");
    assert!(stdout.starts_with("pipe:") && stderr.starts_with("pipe:") && stdout != stderr);
}

/// The sets of signals of a status.
fn signals(text: &str) -> [(&'static str, u64); 5] {
    ["SigPnd", "ShdPnd", "SigBlk", "SigIgn", "SigCgt"].map(|set| {
        let mask = status(text, set).unwrap();
        (set, u64::from_str_radix(mask, 16).unwrap())
    })
}

/// Starts a target's sshd again, by a parent that ignores signals.
fn start_deaf(stack: &mut Stack) -> Running {
    let target = stack.target_mut(WEB).unwrap();
    target.stop_sshd();
    let mut sshd = target.command(ROOT, "/usr/bin/env");
    sshd.arg(format!(
        "--ignore-signal={}",
        IGNORED.map(|signal| signal.to_string()).join(",")
    ))
    .args(["/usr/sbin/sshd", "-D", "-f", "/etc/ssh/sshd_config"]);
    let sshd = Running::start("sshd", sshd).unwrap();
    let up = || Ok(target.sshd_version().is_some());
    wait_for("sshd", Duration::from_secs(10), up).unwrap();
    sshd
}

/// REQ-MANIFEST-18
#[test]
fn signal_mask_inherited() {
    let none = |text: &str| assert!(signals(text).iter().all(|(_, mask)| *mask == 0), "{text}");
    none(&seen(&stack(), "status", ""));

    // A stack of its own, because its sshd is another.
    let mut stack = Stack::usual().unwrap();
    let _sshd = start_deaf(&mut stack);
    let executor = Stage::new(&stack).unwrap().executor().unwrap();
    let ignored = u64::from_str_radix(executor.status("SigIgn").unwrap(), 16).unwrap();
    let wanted: u64 = IGNORED.iter().map(|signal| 1 << (signal - 1)).sum();
    assert_eq!(
        ignored & wanted,
        wanted,
        "they do not come as far as agent-exec: {ignored:x}"
    );
    none(&seen(&stack, "status", ""));
}

/// REQ-MANIFEST-18
#[test]
fn umask() {
    const FILE: &str = "tmp/umask";
    let stack = stack();
    let root = stack.target(WEB).unwrap().root();
    let _file = Changed::keep(root, FILE).unwrap();
    let mut stage = Stage::new(&stack).unwrap();
    let ended = stage.run(&Perl::tool("open(F, '>', '/tmp/umask') or die; printf '%04o', umask"));
    assert_eq!(ended.unwrap().ok().unwrap(), "0077");
    let file = fs::metadata(root.at(FILE)).unwrap();
    assert_eq!(
        (file.uid(), file.gid(), file.permissions().mode() & 0o7777),
        (RUNNER.uid, RUNNER.gid, 0o600)
    );
}

/// REQ-MANIFEST-18
#[test]
fn core_limit() {
    let stack = stack();
    let limits = seen(&stack, "limits", "");
    let core = limits.lines().find(|line| line.starts_with("Max core file size"));
    let words: Vec<&str> = core.unwrap().split_whitespace().collect();
    assert_eq!(words, ["Max", "core", "file", "size", "0", "0", "bytes"]);
    // Where it could write one, and by every signal that would make one. sshd keeps its word on each login there.
    let tmp = stack.target(WEB).unwrap().root().at("tmp");
    let cores = || {
        let names = fs::read_dir(&tmp).unwrap().map(|entry| entry.unwrap().file_name());
        names
            .filter(|name| !name.to_string_lossy().starts_with("sshauth"))
            .count()
    };
    let before = cores();
    let mut stage = Stage::new(&stack).unwrap();
    for signal in [libc::SIGABRT, libc::SIGSEGV, libc::SIGQUIT, libc::SIGSYS] {
        let perl = Perl::tool(format!("chdir '/tmp' or die; kill {signal}, $$; sleep 5"));
        let ended = stage.run(&perl).unwrap();
        assert_eq!(
            (ended.code().as_str(), &ended.outcome["signal"]),
            ("signalled", &json!(signal))
        );
        assert_eq!(cores(), before, "signal {signal}");
    }
}

/// REQ-MANIFEST-18
#[test]
fn no_new_privs() {
    let stack = stack();
    let text = seen(&stack, "status", "");
    let four_times = |id: u32| format!("{id}	{id}	{id}	{id}");
    let (uids, gids) = (four_times(RUNNER.uid), four_times(RUNNER.gid));
    for (field, value) in [
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
        ("Uid", &uids),
        ("Gid", &gids),
        ("CapInh", "0000000000000000"),
        ("CapPrm", "0000000000000000"),
        ("CapEff", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("TracerPid", "0"),
        ("Umask", "0077"),
    ] {
        assert_eq!(status(&text, field), Some(value), "{field} of {text}");
    }
    let groups = status(&text, "Groups").unwrap();
    assert!(["", &RUNNER.gid.to_string()].contains(&groups), "{groups}");
}

/// Soft and hard alike, so that nothing of it can be taken back.
#[test]
fn each_limit_of_a_manifest_is_the_programs_own() {
    let stack = stack();
    let limits = "cpu_s = 7\nmemory_bytes = 209_715_200\nprocesses = 777\nopen_files = 33";
    let wanted = |file_bytes: u64| {
        [
            (libc::RLIMIT_CORE, 0),
            (libc::RLIMIT_CPU, 7),
            (libc::RLIMIT_AS, 209_715_200),
            (libc::RLIMIT_NPROC, 777),
            (libc::RLIMIT_NOFILE, 33),
            (libc::RLIMIT_FSIZE, file_bytes),
        ]
    };
    let names: Vec<String> = wanted(0).iter().map(|(resource, _)| resource.to_string()).collect();
    // What it has, and why it cannot have one more.
    let program = format!(
        "for my $r ({}) {{ my $has = \"\\0\" x 16; syscall({call}, 0, $r, 0, $has); my ($soft, $hard) = unpack 'QQ', $has;
         my $more = pack 'QQ', $hard + 1, $hard + 1; my $e = syscall({call}, 0, $r, $more, 0) == -1 ? $!+0 : 'more';
         print \"$r $soft $hard $e\\n\" }}",
        names.join(", "),
        call = libc::SYS_prlimit64
    );
    let mut stage = Stage::new(&stack).unwrap();
    for (perl, limits, file_bytes) in [
        (Perl::reader(&program), limits.to_owned(), 0),
        (Perl::tool(&program), limits.to_owned(), 16 << 20),
        (Perl::tool(&program), format!("{limits}\nfile_bytes = 12_345"), 12_345),
    ] {
        let ended = stage.run(&perl.limits(limits)).unwrap();
        let lines = wanted(file_bytes).map(|(resource, value)| format!("{resource} {value} {value} {}", libc::EPERM));
        assert_eq!(ended.ok().unwrap().lines().collect::<Vec<_>>(), lines);
    }
}

/// No terminal, no group of somebody else's, and nowhere but in the root.
///
/// REQ-MANIFEST-18
#[test]
fn the_program_leads_a_session_of_its_own() {
    let stack = stack();
    let stat = seen(&stack, "stat", "");
    let (before, after) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = after.split_whitespace().collect();
    let pid = before.split(' ').next().unwrap();
    // State, parent, group, session, terminal (proc_pid_stat(5)).
    assert_eq!((fields[2], fields[3], fields[4]), (pid, pid, "0"), "{stat}");
    let mut stage = Stage::new(&stack).unwrap();
    let ended = stage.run(&Perl::tool(
        "print readlink('/proc/self/cwd'), ' ', readlink('/proc/self/root')",
    ));
    assert_eq!(ended.unwrap().ok().unwrap(), "/ /");
}
