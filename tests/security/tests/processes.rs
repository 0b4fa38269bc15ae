//! Programs that do not want to end: at their deadline, or when nobody waits for them any more, they end with everything
//! that they have started, and that is recorded.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    reason = "a test that cannot go on says where"
)]

use std::time::{Duration, Instant};

use harness::spawn::wait_for;
use harness::{Process, Stack, processes, records};
use nix::libc;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use security::stage::{Asked, Ended, Perl, SOON, Stage};
use security::{stack, tell};
use serde_json::Value;

/// Time enough to look at what runs before it is ended.
const DEADLINE: Duration = Duration::from_millis(1200);

/// Hears nothing of the first signal.
const DEAF: &str = "$SIG{TERM} = $SIG{HUP} = 'IGNORE';";

/// Thirteen processes in three generations.
const TREE: &str = "for (1..3) { fork or do { for (1..3) { fork or last } sleep 60; exit } } sleep 60";

/// A name, what it does, and how many processes it is.
fn trees() -> Vec<(&'static str, String, usize)> {
    vec![
        ("a tree", TREE.to_owned(), 13),
        ("a tree that is deaf", format!("{DEAF} {TREE}"), 13),
        (
            "every signal blocked",
            format!(
                "my $all = \"\\xff\" x 8; syscall({}, 0, $all, 0, 8); {TREE}",
                libc::SYS_rt_sigprocmask
            ),
            13,
        ),
        ("stopped", "fork; kill 'STOP', 0; sleep 60".to_owned(), 2),
        (
            "more of them when it is asked to end",
            "$SIG{TERM} = sub { fork for 1..3 }; fork; sleep 1 while 1".to_owned(),
            2,
        ),
        (
            "children that are its supervisor's",
            format!(
                "{DEAF} syscall({}, {}, 0, 0, 0, 0); sleep 60",
                libc::SYS_clone,
                libc::CLONE_PARENT | libc::SIGCHLD
            ),
            2,
        ),
        (
            "no output that could end",
            format!("{DEAF} fork; close STDOUT; close STDERR; sleep 60"),
            2,
        ),
        (
            "output that does not end",
            format!("{DEAF} fork; my $b = 'a' x 65536; syswrite(STDOUT, $b) while 1"),
            2,
        ),
    ]
}

/// Programs that were asked for, each in a session of its own.
struct Begun<'a> {
    name: &'static str,
    stage: Stage<'a>,
    executor: u32,
    asked: Asked,
}

/// Asks for all of these at once.
fn begin<'a>(stack: &'a Stack, programs: &[(&'static str, Perl)]) -> Vec<Begun<'a>> {
    let stages = Stage::several(stack, programs.len()).unwrap();
    let begin = |((name, perl), mut stage): (&(&'static str, Perl), Stage<'a>)| Begun {
        name,
        executor: stage.executor().unwrap().pid,
        asked: stage.begin(perl).unwrap(),
        stage,
    };
    programs.iter().zip(stages).map(begin).collect()
}

impl Begun<'_> {
    /// How it ended, which leaves nothing below its supervisor, and a supervisor that serves.
    fn end(&mut self, stack: &Stack, code: &str) -> Ended {
        let Begun { name, stage, .. } = self;
        let ended = stage
            .finish(&self.asked)
            .unwrap_or_else(|error| panic!("{name}: {error:?}"));
        assert_eq!(ended.code(), code, "{name}: {}", ended.answer);
        let status = if code == "none" { "ok" } else { "timed_out" };
        assert_eq!(ended.outcome["status"], status, "{name}");
        let left = processes::below(self.executor);
        assert!(left.is_empty(), "{name}: {left:?}");
        stage.unharmed(stack).unwrap();
        ended
    }
}

/// REQ-OUTCOME-7
#[test]
fn timeout_kills_tree() {
    let stack = stack();
    let table = trees();
    let programs: Vec<_> = table
        .iter()
        .map(|(name, program, _)| (*name, Perl::tool(program).timeout(DEADLINE)))
        .collect();
    let mut begun = begin(&stack, &programs);
    for (begun, (name, _, processes)) in begun.iter().zip(&table) {
        let there = begun.stage.wait_for(*processes);
        there.unwrap_or_else(|error| panic!("{name}: {error:?}"));
    }
    for begun in &mut begun {
        begun.end(&stack, "deadline_exceeded");
    }
    tell("processes that outlive their deadline", table.len());
}

/// A process whose parent and grandparent have ended says its id and goes on; `leader` is what the program then does.
fn orphan(escape: &str, leader: &str) -> Perl {
    let program = format!(
        "pipe(R, W); unless (fork) {{ fork and exit; {escape}; syswrite(W, $$); close W; close R; sleep 60; exit }}
         close W; my $p = <R>; wait; $| = 1; print $p; {leader}"
    );
    Perl::tool(program).timeout(DEADLINE)
}

fn escapes() -> Vec<(&'static str, String)> {
    let refused = |number: libc::c_long| format!("die unless syscall({number}, 0, 0) == -1 && $! == {}", libc::EPERM);
    let says = "syswrite(W, $$); close W; close R";
    vec![
        ("it holds the output open", DEAF.to_owned()),
        (
            "it holds nothing",
            format!("{DEAF} close STDIN; close STDOUT; close STDERR"),
        ),
        (
            "it wants a session of its own",
            format!("{DEAF} {}; {}", refused(libc::SYS_setsid), refused(libc::SYS_setpgid)),
        ),
        (
            "it becomes another program",
            format!("{DEAF} {says}; exec '/usr/bin/sleep', 60"),
        ),
        (
            "it stops, and its group with it",
            format!("{DEAF} {says}; select(undef, undef, undef, 0.2); kill 'STOP', 0"),
        ),
    ]
}

/// REQ-OUTCOME-7, REQ-OUTCOME-8
#[test]
fn double_fork_escape() {
    let stack = stack();
    let escapes = escapes();
    // Behind a program that lasts to its deadline, and behind one that has long ended by itself.
    for (leader, code) in [("sleep 60", "deadline_exceeded"), ("exit", "none")] {
        let programs: Vec<_> = escapes
            .iter()
            .map(|(name, escape)| (*name, orphan(escape, leader)))
            .collect();
        let mut begun = begin(&stack, &programs);
        for begun in begun.iter().filter(|_| code != "none") {
            // The orphan is a child of the supervisor, as the program is.
            let below = || processes::below(begun.executor).into_iter();
            let children = || {
                below()
                    .filter(|process| process.parent() == Some(begun.executor))
                    .count()
            };
            wait_for(begun.name, DEADLINE, || Ok(children() == 2)).unwrap();
        }
        for begun in &mut begun {
            let ended = begun.end(&stack, code);
            let orphan: u32 = ended.output().parse().expect("the orphan's id");
            let there = Process::of(orphan);
            assert!(there.is_none(), "{}: {there:?}", begun.name);
        }
    }
    tell("processes that leave their parents", 2 * escapes.len());
}

/// What multiplies, and what is never long enough in one place to be found there.
///
/// REQ-OUTCOME-7
#[test]
fn fork_bomb() {
    let stack = stack();
    let moving = "while (1) { exit if fork }";
    let bombs = [
        ("all stay", format!("{DEAF} fork while 1"), "deadline_exceeded"),
        ("one moves", format!("{DEAF} {moving}"), "none"),
        ("many move", format!("{DEAF} fork for 1..3; {moving}"), "none"),
        (
            "many move behind one that stays",
            format!("{DEAF} fork or do {{ fork for 1..3; {moving} }}; sleep 60"),
            "deadline_exceeded",
        ),
    ];
    for (name, bomb, code) in &bombs {
        let perl = Perl::tool(bomb).timeout(DEADLINE / 2).limits("processes = 60");
        // One at a time: the limit is the account's.
        let mut begun = begin(&stack, &[(*name, perl)]).pop().unwrap();
        if *name == "all stay" {
            begun.stage.wait_for(30).unwrap();
        }
        begun.end(&stack, code);
    }
    tell("fork bombs", bombs.len());
}

/// REQ-SESSION-13, REQ-OUTCOME-8
#[test]
fn client_gone_during_read() {
    let stack = stack();
    let (long, table) = (Duration::from_secs(60), trees());
    let programs: Vec<_> = table
        .iter()
        .map(|(name, program, _)| (*name, Perl::tool(program).timeout(long)))
        .collect();
    let mut begun = begin(&stack, &programs);
    let mut killed = Vec::new();
    for (Begun { stage, .. }, (_, _, processes)) in begun.iter_mut().zip(&table) {
        stage.wait_for(*processes).unwrap();
        // What waits behind it is never run.
        let behind = stage.begin(&Perl::tool("print 'ok'")).unwrap();
        stage.relay.session.kill();
        killed.push((behind.request, Instant::now()));
    }
    for (begun, (behind, since)) in begun.iter().zip(&killed) {
        let Begun {
            name,
            stage,
            executor,
            asked,
        } = begun;
        let gone = || Ok(stage.running().is_empty() && Process::of(*executor).is_none());
        let left = SOON.saturating_sub(since.elapsed());
        wait_for(name, left, gone).unwrap_or_else(|error| panic!("{error}: {:?}", stage.running()));
        let record = stage.result(&asked.request).unwrap();
        assert_eq!(
            (records::of(&record, "status"), records::of(&record, "code")),
            (Some("failed"), Some("session_lost")),
            "{name}: {record}"
        );
        assert_eq!(stage.records(behind).unwrap(), Vec::<Value>::new());
    }
    tell("reads whose client is gone", table.len());
    let mut stage = Stage::new(&stack).unwrap();
    stage.unharmed(&stack).unwrap();
    // A client that has nothing more to say still listens.
    let asked = stage.begin(&Perl::reader("sleep 1; print 'ok'")).unwrap();
    stage.relay.session.finish();
    assert_eq!(stage.finish(&asked).unwrap().ok().unwrap(), "ok");
}

/// Something killed agent-exec, as the kernel does when memory is short: the program ends with it, and what the program had
/// started ends with the next session.
#[test]
fn killed_executor_leaves_nothing_after_the_next_session() {
    let stack = stack();
    let mut stage = Stage::new(&stack).unwrap();
    let program = format!("{DEAF} my $p = fork; fork unless $p; sleep 120");
    stage
        .begin(&Perl::tool(program).timeout(Duration::from_secs(150)))
        .unwrap();
    stage.wait_for(3).unwrap();
    let running = stage.running();
    let parents: Vec<_> = running.iter().map(|process| process.parent().unwrap()).collect();
    let executor = parents
        .iter()
        .find(|parent| !running.iter().any(|one| one.pid == **parent))
        .unwrap();
    let executor = Pid::from_raw(i32::try_from(*executor).unwrap());
    kill(executor, Signal::SIGKILL).unwrap();
    // A session of an earlier test that ends just now may end what is left as well.
    wait_for("the program's end", SOON, || Ok(stage.running().len() <= 2)).unwrap();
    // Another session begins and ends.
    let mut next = Stage::new(&stack).unwrap();
    next.unharmed(&stack).unwrap();
    next.relay.session.finish();
    wait_for("the end of what was left", SOON, || Ok(stage.running().is_empty())).unwrap();
}
