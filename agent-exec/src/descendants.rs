//! Everything that an action started, and its end.
//!
//! agent-exec is a subreaper: whoever loses its parent becomes a child of agent-exec, so a process that forks twice or
//! begins a session of its own is still found below it. Before they are killed they are stopped, so that none forks away
//! between the look and the kill.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

/// How long they may take to die. KILL cannot be refused, but a process in uninterruptible sleep dies when it wakes up.
const PATIENCE: Duration = Duration::from_secs(2);

/// Makes orphans of descendants this process's own children.
///
/// # Errors
/// The kernel refused.
pub(crate) fn adopt() -> Result<(), nix::Error> {
    nix::sys::prctl::set_child_subreaper(true)
}

/// What the actions before this one left behind, which nobody could end: none of it is this action's.
pub(crate) struct Before(BTreeSet<i32>);

impl Before {
    /// Looks. Where nothing is left, which is nearly always, that is one question to the kernel.
    pub(crate) fn look() -> Self {
        // Whoever lost its parent became a child before that parent could be waited for: without a child nobody is below.
        match reap() {
            Left::Nobody => Self(BTreeSet::new()),
            Left::Somebody => Self(below([me()])),
        }
    }

    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// What of these came since. A process that was there is never waited for again, nor is what it starts. A number that
    /// was given anew meanwhile is taken for the old one: that process is ended like all others, and not waited for.
    fn since(&self, found: &BTreeSet<i32>) -> BTreeSet<i32> {
        if self.0.is_empty() {
            return found.clone();
        }
        let theirs = below(self.0.iter().copied());
        found
            .iter()
            .filter(|pid| !self.0.contains(pid) && !theirs.contains(pid))
            .copied()
            .collect()
    }
}

/// Ends all descendants, and says how many of those that were not there before could not be ended.
pub(crate) fn end_all(before: &Before) -> usize {
    if reap() == Left::Nobody {
        return 0;
    }
    end(|| below([me()]), before)
}

/// Ends what was left of actions whose agent-exec was killed: their programs died with it (PR_SET_PDEATHSIG), and what
/// those had started became init's. Whoever runs as the actions' account behind walls of ours with init for a parent is
/// such a one, and so is everything below it; sshd's own processes of that account have no walls.
pub(crate) fn end_strays(runner_uid: u32) {
    let strays = || {
        let strays = strays(runner_uid);
        below(strays.iter().copied()).union(&strays).copied().collect()
    };
    end(strays, &Before(BTreeSet::new()));
}

/// Ends what is found until nothing new is, and says how much could not be ended.
fn end(find: impl Fn() -> BTreeSet<i32>, before: &Before) -> usize {
    let deadline = Instant::now() + PATIENCE;
    loop {
        reap();
        let all = freeze(&find);
        for pid in &all {
            signal(*pid, Signal::SIGKILL);
        }
        if before.since(&all).is_empty() {
            return 0;
        }
        if Instant::now() >= deadline {
            reap();
            return before.since(&find()).len();
        }
        // The dead are reaped when the kernel is done with them; nothing else is waited for.
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// The eldest of what was left.
fn strays(runner_uid: u32) -> BTreeSet<i32> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return BTreeSet::new();
    };
    let strays = processes.flatten().filter_map(|entry| {
        let pid = entry.file_name().to_str()?.parse().ok()?;
        let ours = entry.metadata().ok()?.uid() == runner_uid;
        let stray = ours && is_stray(&std::fs::read_to_string(entry.path().join("status")).ok()?);
        stray.then_some(pid)
    });
    strays.collect()
}

/// What `/proc/PID/status` says of a stray (proc(5)).
fn is_stray(status: &str) -> bool {
    let says = |field: &str, value: &str| {
        let found = status
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        found.map(str::trim) == Some(value)
    };
    // The dead wait for init, not for a signal.
    says("PPid", "1") && says("NoNewPrivs", "1") && says("Seccomp", "2") && !says("State", "Z (zombie)")
}

/// Stops everything that is found, until a look finds nothing new.
fn freeze(find: impl Fn() -> BTreeSet<i32>) -> BTreeSet<i32> {
    let mut frozen = BTreeSet::new();
    loop {
        let found = find();
        let new: Vec<i32> = found.difference(&frozen).copied().collect();
        if new.is_empty() {
            return frozen;
        }
        for pid in new {
            signal(pid, Signal::SIGSTOP);
            frozen.insert(pid);
        }
    }
}

fn me() -> i32 {
    Pid::this().as_raw()
}

/// All processes below these. The dead that nobody has waited for are among them.
fn below(these: impl IntoIterator<Item = i32>) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    let mut next: Vec<i32> = these.into_iter().collect();
    while let Some(parent) = next.pop() {
        for child in children(parent) {
            if found.insert(child) {
                next.push(child);
            }
        }
    }
    found
}

/// The children of all threads of a process (proc(5), `/proc/PID/task/TID/children`); none when it is gone.
fn children(parent: i32) -> Vec<i32> {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{parent}/task")) else {
        return Vec::new();
    };
    let lists = tasks
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace()
                .filter_map(|pid| pid.parse().ok())
                .collect::<Vec<_>>()
        })
        .collect()
}

/// A process that is gone already is fine.
fn signal(pid: i32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Whether there are children.
#[derive(Debug, PartialEq, Eq)]
enum Left {
    Nobody,
    Somebody,
}

/// Takes the status of every child that is dead.
fn reap() -> Left {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return Left::Somebody,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(Errno::ECHILD) => return Left::Nobody,
            // Nobody knows: it is looked for.
            Err(_) => return Left::Somebody,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};
    use std::sync::{Mutex, MutexGuard, PoisonError};

    /// Descendants are looked for below this whole process, so whoever starts some in a test is alone with them.
    pub(crate) fn alone() -> MutexGuard<'static, ()> {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        adopt().unwrap();
        alone
    }

    /// Perl that prints the number of each process that it starts, and ends.
    fn orphans(program: &str) -> Vec<i32> {
        let mut child = Command::new("/usr/bin/perl")
            .args(["-e", program])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let pids = lines.map(|line| line.unwrap().parse().unwrap()).collect();
        child.wait().unwrap();
        pids
    }

    fn nobody() -> Before {
        Before(BTreeSet::new())
    }

    fn lives(pid: &i32) -> bool {
        std::path::Path::new(&format!("/proc/{pid}")).exists()
    }

    #[test]
    fn whoever_lost_its_parent_is_found_and_ended() {
        let _alone = alone();
        // Twice removed, in a session of its own, deaf, and with a child: its parents are gone when this goes on.
        let pids = orphans(
            "use POSIX; $SIG{TERM} = $SIG{HUP} = 'IGNORE'; $| = 1; exit 0 if fork; POSIX::setsid(); exit 0 if fork; \
             my $p = fork; alarm 60; print qq($$\\n); close STDOUT; sleep 60",
        );
        assert_eq!(pids.len(), 2, "{pids:?}");
        assert!(pids.iter().all(lives));
        assert!(pids.iter().all(|pid| below([me()]).contains(pid)), "{pids:?}");
        assert_eq!(end_all(&nobody()), 0);
        assert!(!pids.iter().any(lives), "{pids:?}");
        assert!(below([me()]).is_empty());
    }

    #[test]
    fn whoever_forks_while_it_is_looked_for_is_ended_too() {
        let _alone = alone();
        let pids = orphans(
            "$| = 1; for (1..4) { next if fork; alarm 20; print qq($$\\n); close STDOUT; while (1) { my $p = fork; \
             if (defined $p && !$p) { select undef, undef, undef, 0.02; exit } 1 while waitpid(-1, 1) > 0 } } exit",
        );
        assert_eq!(pids.len(), 4);
        assert_eq!(end_all(&nobody()), 0);
        assert!(!pids.iter().any(lives), "{pids:?}");
        assert!(below([me()]).is_empty());
    }

    #[test]
    fn a_stray_has_lost_its_parent_and_stands_behind_walls() {
        let status = "Name:\tperl\nState:\tS (sleeping)\nPPid:\t1\nNoNewPrivs:\t1\nSeccomp:\t2\nSeccomp_filters:\t2\n";
        assert!(is_stray(status));
        for (from, to) in [
            ("S (sleeping)", "Z (zombie)"),
            ("PPid:\t1", "PPid:\t12"),
            ("Privs:\t1", "Privs:\t0"),
            ("Seccomp:\t2", "Seccomp:\t0"),
        ] {
            assert!(!is_stray(&status.replace(from, to)), "{to}");
        }
        assert!(!is_stray(""));
    }

    #[test]
    fn what_an_earlier_action_left_behind_is_neither_waited_for_nor_counted_again() {
        let _alone = alone();
        // Two generations that are there, as root's would be that nobody here can end, and one of the next action's.
        let old = orphans("$| = 1; exit 0 if fork; my $p = fork; alarm 60; print qq($$\n); close STDOUT; sleep 60");
        let before = Before::look();
        assert_eq!(before.0, old.iter().copied().collect());
        let new = orphans("$| = 1; exit 0 if fork; alarm 60; print qq($$\n); close STDOUT; sleep 60");
        let found = below([me()]);
        assert_eq!(found.len(), 3, "{found:?}");
        assert_eq!(before.since(&found), new.iter().copied().collect());
        // And what those start that were there.
        let parent = Before(old.iter().copied().filter(|pid| children(*pid).len() == 1).collect());
        assert_eq!(
            (parent.0.len(), parent.since(&found)),
            (1, new.iter().copied().collect())
        );
        let begun = Instant::now();
        assert_eq!(end(|| found.clone(), &Before(found.clone())), 0);
        assert!(begun.elapsed() < PATIENCE, "nothing was waited for");
        assert_eq!(end_all(&nobody()), 0);
        assert!(!old.iter().chain(&new).any(lives));
        assert!(Before::look().is_empty());
    }

    #[test]
    fn where_nothing_is_left_nothing_is_waited_for() {
        let _alone = alone();
        let begun = Instant::now();
        assert_eq!(end_all(&nobody()), 0);
        assert!(begun.elapsed() < PATIENCE);
    }
}
