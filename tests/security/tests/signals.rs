//! What an action tries against other processes: its supervisor, and everything of another task. Two things stand in its way:
//! the ids of the supervisor, and the walls around the action. What the first refuse is tried without the second, too.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where"
)]

use std::time::Duration;

use harness::processes::{Process, with_argument};
use harness::{Changed, RUNNER};
use nix::libc;
use security::stage::{Perl, Stage};
use security::tries::{TRY, all_refused, by_hand};
use security::{WEB, stack, tell};

/// Who refuses it to a process of the actions' account.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Refused {
    /// The ids already.
    ByIds,
    /// Only the walls.
    ByWalls,
}
use Refused::{ByIds, ByWalls};

/// A system call against the process `$p`: its name, its number, its arguments.
type Way = (Refused, &'static str, i64, &'static str);

/// The ways to send it the signal `$s`.
const SIGNALS: [Way; 8] = [
    (ByIds, "kill", libc::SYS_kill, "$p, $s"),
    (ByIds, "tkill", libc::SYS_tkill, "$p, $s"),
    (ByIds, "tgkill", libc::SYS_tgkill, "$p, $p, $s"),
    (ByWalls, "its group", libc::SYS_kill, "-$p, $s"),
    (ByWalls, "all", libc::SYS_kill, "-1, $s"),
    (ByWalls, "queue", libc::SYS_rt_sigqueueinfo, "$p, $s, $room"),
    (ByWalls, "tgqueue", libc::SYS_rt_tgsigqueueinfo, "$p, $p, $s, $room"),
    (ByWalls, "by pidfd", libc::SYS_pidfd_send_signal, "0, $s, 0, 0"),
];

/// The ways to get hold of it.
const HOLDS: [Way; 12] = [
    (ByIds, "attach", libc::SYS_ptrace, "16, $p, 0, 0"),
    (ByIds, "seize", libc::SYS_ptrace, "0x4206, $p, 0, 0"),
    (ByIds, "limits", libc::SYS_prlimit64, "$p, 0, 0, $room"),
    (
        ByWalls,
        "write into",
        libc::SYS_process_vm_writev,
        "$p, $room, 1, $room, 1, 0",
    ),
    // By its effective uid the supervisor is one of the account's own here.
    (ByWalls, "scheduler", libc::SYS_sched_setscheduler, "$p, 0, $room"),
    (ByWalls, "priority", libc::SYS_setpriority, "0, $p, 19"),
    (ByWalls, "processors", libc::SYS_sched_setaffinity, "$p, 128, $room"),
    (ByWalls, "pidfd", libc::SYS_pidfd_open, "$p, 0"),
    (ByWalls, "owner of a descriptor", libc::SYS_fcntl, "1, 8, $p"),
    (ByWalls, "signal of a descriptor", libc::SYS_fcntl, "1, 10, 9"),
    (ByWalls, "owner by ioctl", libc::SYS_ioctl, "1, 0x8901, $room"),
    (ByWalls, "its death as a signal", libc::SYS_prctl, "1, 9, 0, 0, 0"),
];

/// A program that tries every way against these processes, and their folders in /proc.
fn against(pids: &[u32], ways: &[Refused]) -> String {
    let calls = |list: &[Way]| -> String {
        let of_it = list.iter().filter(|(by, ..)| ways.contains(by));
        let calls = of_it.map(|(_, name, number, arguments)| format!("call(\"{name} $p $s\", {number}, {arguments});"));
        calls.collect()
    };
    let pids: Vec<String> = pids.iter().map(u32::to_string).collect();
    format!(
        "{TRY} my $room = \"\\0\" x 128; for my $p ({}) {{ for my $s (0..64) {{ {} }} my $s = ''; {}
         for my $f ('mem', 'environ', 'maps', 'clear_refs', 'oom_score_adj', 'coredump_filter') {{
             try(\"$f of $p\", open(F, $f =~ /environ|maps/ ? '<' : '+<', \"/proc/$p/$f\")) }}
         try(\"output of $p\", open(F, '>>', \"/proc/$p/fd/1\")); try(\"folder of $p\", readlink(\"/proc/$p/cwd\")) }}",
        pids.join(", "),
        calls(&SIGNALS),
        calls(&HOLDS)
    )
}

/// Tries every way from within an action, in each profile. How many things were tried.
fn attack(stage: &mut Stage<'_>, pids: &[u32]) -> usize {
    let program = against(pids, &[ByIds, ByWalls]);
    let profiles = [Perl::reader(&program), Perl::tool(&program)];
    let tried = profiles.map(|perl| {
        let ended = stage.run(&perl.limits("output_bytes = 262_144")).unwrap();
        all_refused(ended.ok().unwrap()).unwrap()
    });
    tried.iter().sum()
}

#[test]
fn child_cannot_signal_executor() {
    let stack = stack();
    let target = stack.target(WEB).unwrap();
    let mut stage = Stage::new(&stack).unwrap();
    let executor = stage.executor().unwrap();
    let mut attacks = attack(&mut stage, &[executor.pid]);
    attacks += by_hand(target, &against(&[executor.pid], &[ByIds])).unwrap();

    // An orphan is its supervisor's child, and a child may choose the signal that says it has ended.
    let ends = format!(
        "for my $s (9, 19) {{
             fork or do {{ syscall({clone}, $s, 0, 0, 0, 0) or select(undef, undef, undef, 0.1); exit }};
             syscall({clone}, {CLONE_PARENT} | $s, 0, 0, 0, 0) or exit }}
         select(undef, undef, undef, 0.2); print 'ok'",
        clone = libc::SYS_clone,
        CLONE_PARENT = libc::CLONE_PARENT,
    );
    assert_eq!(stage.run(&Perl::tool(ends)).unwrap().ok().unwrap(), "ok");
    tell("child_cannot_signal_executor", attacks + 4);

    let now = stage.executor().unwrap();
    assert_eq!(now.pid, executor.pid);
    // Itself it may signal, and its group.
    let own = "my $n = 0; $SIG{USR1} = sub { $n++ }; kill 'USR1', $_ for $$, 0, -$$; print $n == 3 ? 'ok' : $n";
    assert_eq!(stage.run(&Perl::tool(own)).unwrap().ok().unwrap(), "ok");
    stage.unharmed(&stack).unwrap();
}

#[test]
fn child_cannot_signal_other_task() {
    let stack = stack();
    let [mut victim, mut attacker] = <[Stage<'_>; 2]>::try_from(Stage::several(&stack, 2).unwrap())
        .ok()
        .unwrap();
    let executor = victim.executor().unwrap();
    let sshd = executor.parent().unwrap();
    let sshd_runs_as = Process::of(sshd).unwrap().status("Uid").unwrap().to_owned();
    assert!(sshd_runs_as.starts_with(&RUNNER.uid.to_string()), "{sshd_runs_as}");
    // Until the other one is done.
    let end = Changed::keep(stack.target(WEB).unwrap().root(), "tmp/end").unwrap();
    let waits = Perl::tool("fork; select(undef, undef, undef, 0.01) until -e '/tmp/end'; print 'ok'");
    let asked = victim.begin(&waits.timeout(Duration::from_secs(60))).unwrap();
    victim.wait_for(2).unwrap();
    let theirs: Vec<u32> = with_argument(victim.mark()).iter().map(|process| process.pid).collect();
    // It finds them by itself: both are the same account's.
    let find = format!(
        "my @found = grep {{ open(F, '<', \"/proc/$_/cmdline\") && <F> =~ /\\Q{}\\E/ }} map {{ m,(\\d+), }} glob '/proc/[0-9]*'; print \"@found\"",
        victim.mark()
    );
    let ended = attacker.run(&Perl::tool(find)).unwrap();
    let mut found: Vec<u32> = ended
        .ok()
        .unwrap()
        .split_whitespace()
        .map(|pid| pid.parse().unwrap())
        .collect();
    found.sort_unstable();
    assert_eq!(found, theirs);

    let mut pids = found;
    pids.extend([executor.pid, sshd]);
    let attacks = attack(&mut attacker, &pids);
    tell("child_cannot_signal_other_task", attacks);
    end.set("").unwrap();
    assert_eq!(victim.finish(&asked).unwrap().ok().unwrap(), "okok");
    victim.unharmed(&stack).unwrap();
    attacker.unharmed(&stack).unwrap();
}
