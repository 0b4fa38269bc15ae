//! One program: started clean, watched to its deadline, its output drained to the end.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use catalogue::Limits;
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::resource::Resource;
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::descendants;
use crate::output::Capture;
use crate::privilege;
use crate::sys::{self, Cage, Child, Ended, Plan, Resting, SpawnError};

/// The environment of every program. Nothing of the session's own reaches it.
pub(crate) const ENVIRONMENT: [&str; 4] = ["HOME=/", "LANG=C.UTF-8", "PATH=/usr/bin:/bin", "TZ=UTC0"];

/// From the signal that asks a program to end to the one that does not ask.
const GRACE: Duration = Duration::from_millis(500);

/// How often a program that runs as root is killed before it is given up.
const KILLS: u32 = 4;

/// How much of standard error is kept.
const STDERR_BYTES: usize = 16 * 1024;

/// A program that was found and checked, and what it is to be run with.
#[must_use]
pub(crate) struct Command {
    /// Its path and arguments, for the record.
    pub(crate) argv: Vec<String>,
    /// The program itself, opened.
    pub(crate) program: OwnedFd,
    /// Its standard input.
    pub(crate) stdin: OwnedFd,
    /// How long it may take.
    pub(crate) timeout: Duration,
    /// What it may use.
    pub(crate) limits: Limits,
    /// What happens to it when nobody waits for the answer any more.
    pub(crate) alone: Alone,
    /// Whose rights it has, and what stands around it.
    pub(crate) cage: Cage,
}

/// What becomes of a program whose reader is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alone {
    /// It is ended: it only reads, and nobody wants to know.
    Ends,
    /// It goes on: half of a change is worse than a whole one, and the answer is kept.
    GoesOn,
}

/// Why it was ended, where it did not end by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Cut {
    /// Its time was over.
    Deadline,
    /// Nobody is there to read the answer.
    PeerGone,
}

/// What became of it.
pub(crate) struct Ran {
    /// How it ended, and what it used.
    pub(crate) ended: Ended,
    /// Whether it was ended.
    pub(crate) cut: Option<Cut>,
    /// What it wrote to standard output.
    pub(crate) stdout: Capture,
    /// What it wrote to standard error.
    pub(crate) stderr: Capture,
    /// From its start to its end.
    pub(crate) duration: Duration,
    /// How many of the processes that it started could not be ended.
    pub(crate) survivors: usize,
}

/// Runs it to its end or to its deadline. `peer` is where the answer will be written: a reader that is gone is noticed there.
///
/// # Errors
/// [`SpawnError`]: no program ran, or one did and nobody knows how far.
pub(crate) fn run(resting: Resting, command: Command, peer: impl AsFd) -> Result<Ran, SpawnError> {
    let text = |text: &str| CString::new(text).map_err(io::Error::other);
    let mut plan = Plan {
        program: command.program,
        argv: command
            .argv
            .iter()
            .map(|element| text(element))
            .collect::<io::Result<_>>()?,
        environment: ENVIRONMENT
            .iter()
            .map(|element| text(element))
            .collect::<io::Result<_>>()?,
        stdin: command.stdin,
        limits: vec![
            (Resource::RLIMIT_CORE, 0),
            (Resource::RLIMIT_CPU, command.limits.cpu_s),
            (Resource::RLIMIT_AS, command.limits.memory_bytes),
            (Resource::RLIMIT_NPROC, command.limits.processes),
            (Resource::RLIMIT_NOFILE, command.limits.open_files),
            (Resource::RLIMIT_FSIZE, command.limits.file_bytes),
        ],
        cage: command.cage,
        parent: Pid::this(),
    };
    let patience = match plan.cage {
        Cage::Walls(_) => GRACE,
        Cage::Sudo => privilege::PATIENCE,
    };
    let before = descendants::Before::look();
    let begun = Instant::now();
    let child = sys::spawn(resting, &mut plan)?;
    drop(plan);
    let mut watch = Watch {
        deadline: begun + command.timeout,
        alone: command.alone,
        patience,
        kills: 0,
        cut: None,
        stdout: Capture::new(usize::try_from(command.limits.output_bytes).unwrap_or(0)),
        stderr: Capture::new(STDERR_BYTES),
    };
    let watched = watch.watch(&child, peer);
    if let Err(error) = watched {
        end(child.pid, Signal::SIGKILL);
        if error.kind() == io::ErrorKind::TimedOut {
            let what = format!("process {} runs as root, and does not end", child.pid);
            return Err(SpawnError::Lost(io::Error::other(what)));
        }
        let _ended = sys::wait(child.pid);
        let _left = descendants::end_all(&before);
        return Err(SpawnError::Lost(error));
    }
    let ended = sys::wait(child.pid).map_err(SpawnError::Lost)?;
    // What it left behind has nobody to answer to.
    let survivors = descendants::end_all(&before);
    let Watch {
        cut, stdout, stderr, ..
    } = watch;
    Ok(Ran {
        ended,
        cut,
        stdout,
        stderr,
        duration: begun.elapsed(),
        survivors,
    })
}

/// Signals the process group; a group that is gone already is fine.
fn end(pid: Pid, signal: Signal) {
    let _ = killpg(pid, signal);
}

struct Watch {
    deadline: Instant,
    alone: Alone,
    /// From the signal that asks it to end to the one that does not.
    patience: Duration,
    /// How often it was ended.
    kills: u32,
    cut: Option<Cut>,
    stdout: Capture,
    stderr: Capture,
}

impl Watch {
    /// Drains both streams until the program has ended and they are at their end, or were given up.
    fn watch(&mut self, child: &Child, peer: impl AsFd) -> io::Result<()> {
        let mut streams = [Some(&child.stdout), Some(&child.stderr)];
        for stream in streams.iter().flatten() {
            let flags = OFlag::from_bits_truncate(fcntl(stream, FcntlArg::F_GETFL)?);
            fcntl(stream, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        }
        let mut running = true;
        while running || streams.iter().any(Option::is_some) {
            let now = Instant::now();
            if now >= self.deadline {
                // The program has ended, and a descendant holds a pipe open: it is not waited for.
                if !running {
                    return Ok(());
                }
                self.advance(child.pid, Cut::Deadline)?;
                continue;
            }
            let left =
                PollTimeout::try_from(self.deadline - now + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
            let silent = child.pidfd.as_fd();
            let interest = |stream: Option<&File>| {
                if stream.is_some() {
                    PollFlags::POLLIN
                } else {
                    PollFlags::empty()
                }
            };
            let mut fds = [
                PollFd::new(
                    child.pidfd.as_fd(),
                    if running { PollFlags::POLLIN } else { PollFlags::empty() },
                ),
                PollFd::new(streams[0].map_or(silent, AsFd::as_fd), interest(streams[0])),
                PollFd::new(streams[1].map_or(silent, AsFd::as_fd), interest(streams[1])),
                // No interest but the errors that poll always reports: the reader is gone.
                PollFd::new(peer.as_fd(), PollFlags::empty()),
            ];
            let watched = if self.cut.is_none() && self.alone == Alone::Ends {
                4
            } else {
                3
            };
            match poll(&mut fds[..watched], left) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let seen = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
            let (ended, ready) = (seen(&fds[0]), [seen(&fds[1]), seen(&fds[2])]);
            let gone = watched == 4 && seen(&fds[3]);
            if ended && running {
                running = false;
                // The rest of a dead program's output is in the pipes already; who still writes is a descendant.
                self.deadline = self.deadline.min(Instant::now() + GRACE);
            }
            for ((stream, ready), capture) in streams.iter_mut().zip(ready).zip([&mut self.stdout, &mut self.stderr]) {
                if let Some(file) = *stream
                    && ready
                    && drain(file, capture)?
                {
                    *stream = None;
                }
            }
            if gone && running {
                self.advance(child.pid, Cut::PeerGone)?;
            }
        }
        Ok(())
    }

    /// First asks the program to end, then ends it; each step has its own time.
    fn advance(&mut self, pid: Pid, why: Cut) -> io::Result<()> {
        if self.cut.is_none() {
            self.cut = Some(why);
            end(pid, Signal::SIGTERM);
            self.deadline = Instant::now() + self.patience;
            return Ok(());
        }
        // The program itself is waited for by its own account; its descendants are ended when it has ended.
        end(pid, Signal::SIGKILL);
        self.kills += 1;
        self.deadline = Instant::now() + GRACE;
        // What runs as root may be out of reach, and then it is not waited for.
        if self.kills > KILLS && self.patience > GRACE {
            return Err(io::ErrorKind::TimedOut.into());
        }
        Ok(())
    }
}

/// Reads what is there; true at the end of the stream. It comes back now and then: a program that writes faster than it is
/// read must not keep us from looking at the clock.
fn drain(mut from: &File, into: &mut Capture) -> io::Result<bool> {
    let mut bytes = [0_u8; 64 * 1024];
    for _ in 0..16 {
        match from.read(&mut bytes) {
            Ok(0) => return Ok(true),
            Ok(count) => into.take(&bytes[..count]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::walls::Walls;
    use std::os::unix::fs::FileExt as _;
    use std::path::Path;

    use catalogue::Profile;
    use wire::Encoding;

    use crate::descendants::tests::alone;
    use crate::program;

    fn command(argv: &[&str], timeout_ms: u64) -> Command {
        let program = program::open(Path::new(argv[0])).unwrap();
        Command {
            argv: argv.iter().map(|&element| element.to_owned()).collect(),
            cage: Cage::Walls(Walls::build(Profile::Tool, program.as_fd()).unwrap()),
            program,
            stdin: program::no_input().unwrap(),
            timeout: Duration::from_millis(timeout_ms),
            alone: Alone::Ends,
            limits: Limits {
                output_bytes: 64 * 1024,
                cpu_s: 60,
                memory_bytes: 1 << 30,
                // The account's own, which here is the developer's.
                processes: 1 << 20,
                open_files: 256,
                file_bytes: 0,
            },
        }
    }

    /// Runs it for a peer that is there.
    fn run_for(argv: &[&str], timeout_ms: u64) -> Ran {
        let (_reader, peer) = std::io::pipe().unwrap();
        run(Resting::as_ourselves(), command(argv, timeout_ms), peer)
            .ok()
            .unwrap()
    }

    fn perl(text: &str, timeout_ms: u64) -> Ran {
        run_for(&["/usr/bin/perl", "-e", text], timeout_ms)
    }

    fn text(capture: Capture) -> String {
        capture.finish(Some(Encoding::Text), None).0
    }

    #[test]
    fn a_program_gets_its_arguments_and_the_constant_environment_and_nothing_else() {
        let _alone = alone();
        let ran = run_for(&["/usr/bin/env"], 5000);
        assert_eq!((ran.ended.how, ran.cut, ran.survivors), (Ok(0), None, 0));
        assert_eq!(text(ran.stdout).lines().collect::<Vec<_>>(), ENVIRONMENT);
        let ran = run_for(&["/usr/bin/printf", "%s|", "a b", "", "$HOME"], 5000);
        assert_eq!(text(ran.stdout), "a b||$HOME|");
    }

    #[test]
    fn both_streams_the_exit_code_and_the_signal_are_told() {
        let _alone = alone();
        let ran = perl("print 'out'; print STDERR 'err'; exit 7", 5000);
        assert_eq!(ran.ended.how, Ok(7));
        assert_eq!(
            (text(ran.stdout), text(ran.stderr)),
            ("out".to_owned(), "err".to_owned())
        );
        let ran = perl("kill 'KILL', $$; sleep 5", 5000);
        assert_eq!((ran.ended.how, ran.cut), (Err(9), None));
        assert!(ran.duration < Duration::from_secs(4));
    }

    /// What runs migrations opens its standard input by name, and more than once (proto/catalogue/databases).
    #[test]
    fn a_pinned_file_can_be_opened_by_its_name_from_behind_the_walls() {
        let _alone = alone();
        let path = std::env::temp_dir().join(format!("writ-pinned-{}", std::process::id()));
        std::fs::write(&path, "select 1;").unwrap();
        let sha256 = wire::ids::Digest::of(b"select 1;");
        let pinned = crate::pin::pin(File::open(&path).unwrap(), sha256.as_str()).unwrap();
        std::fs::remove_file(path).unwrap();
        let mut command = command(&["/usr/bin/cat", "/dev/stdin", "/dev/stdin"], 5000);
        command.stdin = pinned.into();
        let (_reader, peer) = std::io::pipe().unwrap();
        let ran = run(Resting::as_ourselves(), command, peer).ok().unwrap();
        assert_eq!(
            (ran.ended.how, text(ran.stdout)),
            (Ok(0), "select 1;select 1;".to_owned())
        );
    }

    #[test]
    fn standard_input_is_the_file_and_the_limits_are_those_of_the_action() {
        let _alone = alone();
        let path = std::env::temp_dir().join(format!("writ-child-{}", std::process::id()));
        let file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(&path)
            .unwrap();
        std::fs::remove_file(&path).unwrap();
        file.write_all_at(b"from the file", 0).unwrap();
        let mut wanted = command(
            &[
                "/usr/bin/perl",
                "-e",
                "print <STDIN>; open F, '</proc/self/limits'; print <F>",
            ],
            5000,
        );
        wanted.stdin = file.into();
        wanted.limits = Limits {
            cpu_s: 11,
            memory_bytes: 333 << 20,
            processes: 1_048_575,
            open_files: 44,
            file_bytes: 55,
            output_bytes: 66_000,
        };
        let (_reader, peer) = std::io::pipe().unwrap();
        let ran = run(Resting::as_ourselves(), wanted, peer).ok().unwrap();
        let told = text(ran.stdout);
        assert!(told.starts_with("from the file"), "{told}");
        let limits: Vec<Vec<&str>> = told.lines().map(|line| line.split_whitespace().collect()).collect();
        let limit = |words: &[&str]| {
            let line = limits
                .iter()
                .find(|line| line.windows(words.len()).any(|window| window == words));
            line.unwrap_or_else(|| panic!("{words:?}: {told}"))
        };
        for words in [
            ["cpu", "time", "11", "11"],
            ["address", "space", "349175808", "349175808"],
            ["open", "files", "44", "44"],
            ["file", "size", "55", "55"],
            ["file", "size", "0", "0"],
        ] {
            let words = if words[2] == "0" {
                ["core", "file", "size", "0"]
            } else {
                words
            };
            limit(&words);
        }
    }

    #[test]
    fn more_than_is_kept_is_counted_to_its_end() {
        let _alone = alone();
        let mut wanted = command(
            &[
                "/usr/bin/perl",
                "-e",
                "print 'x' x 3_000_000; print STDERR 'y' x 100_000",
            ],
            10_000,
        );
        wanted.limits.output_bytes = 1000;
        let (_reader, peer) = std::io::pipe().unwrap();
        let ran = run(Resting::as_ourselves(), wanted, peer).ok().unwrap();
        let (shown, stream) = ran.stdout.finish(Some(Encoding::Text), None);
        assert_eq!((shown.len(), stream.bytes, stream.truncated), (1000, 3_000_000, true));
        let (shown, stream) = ran.stderr.finish(Some(Encoding::Text), None);
        assert_eq!((shown.len(), stream.bytes), (16_384, 100_000));
    }

    #[test]
    fn at_its_deadline_a_program_is_asked_to_end_and_then_ended() {
        let _alone = alone();
        let ran = perl("$SIG{TERM} = sub { print 'asked'; exit 3 }; $| = 1; sleep 20", 700);
        assert_eq!((ran.ended.how, ran.cut), (Ok(3), Some(Cut::Deadline)));
        assert_eq!(text(ran.stdout), "asked");
        assert!(ran.duration >= Duration::from_millis(700) && ran.duration < Duration::from_millis(700) + GRACE);
        let ran = perl("$SIG{TERM} = 'IGNORE'; 1 while 1", 700);
        assert_eq!((ran.ended.how, ran.cut), (Err(9), Some(Cut::Deadline)));
        let most = Duration::from_millis(700) + GRACE * 3;
        assert!(
            ran.duration >= Duration::from_millis(700) + GRACE && ran.duration < most,
            "{:?}",
            ran.duration
        );
    }

    /// A program that writes faster than it is read keeps nobody from looking at the clock.
    #[test]
    fn a_flood_ends_at_the_deadline() {
        let _alone = alone();
        let ran = perl("$SIG{TERM} = 'IGNORE'; my $x = 'x' x 65536; 1 while print $x", 700);
        assert_eq!(ran.cut, Some(Cut::Deadline));
        assert!(
            ran.duration < Duration::from_millis(700) + GRACE * 3,
            "{:?}",
            ran.duration
        );
    }

    #[test]
    fn a_descendant_that_holds_the_streams_is_not_waited_for_and_does_not_stay() {
        let _alone = alone();
        let ran = perl("my $p = fork; exit 0 if $p; $SIG{TERM} = 'IGNORE'; sleep 30", 20_000);
        assert_eq!((ran.ended.how, ran.cut, ran.survivors), (Ok(0), None, 0));
        assert!(
            ran.duration >= GRACE && ran.duration < Duration::from_secs(5),
            "{:?}",
            ran.duration
        );
        assert!(descendants::Before::look().is_empty());
    }

    #[test]
    fn nobody_runs_on_for_a_peer_that_is_gone() {
        let _alone = alone();
        let (reader, peer) = std::io::pipe().unwrap();
        drop(reader);
        let wanted = command(&["/usr/bin/perl", "-e", "sleep 20"], 20_000);
        let ran = run(Resting::as_ourselves(), wanted, peer).ok().unwrap();
        assert_eq!((ran.ended.how, ran.cut), (Err(15), Some(Cut::PeerGone)));
        assert!(ran.duration < Duration::from_secs(5));
    }

    #[test]
    fn a_change_goes_on_when_nobody_waits_for_it() {
        let _alone = alone();
        let (reader, peer) = std::io::pipe().unwrap();
        drop(reader);
        let mut wanted = command(
            &["/usr/bin/perl", "-e", "select undef, undef, undef, 0.3; print 'done'"],
            20_000,
        );
        wanted.alone = Alone::GoesOn;
        let ran = run(Resting::as_ourselves(), wanted, peer).ok().unwrap();
        assert_eq!((ran.ended.how, ran.cut), (Ok(0), None));
        assert_eq!(text(ran.stdout), "done");
    }

    #[test]
    fn what_cannot_be_run_has_not_run() {
        let _alone = alone();
        // The program is opened, and then its interpreter has no path to it.
        let script = Path::new("/usr/bin/ldd");
        assert!(script.exists(), "nothing to show it with");
        let (_reader, peer) = std::io::pipe().unwrap();
        let error = run(Resting::as_ourselves(), command(&["/usr/bin/ldd"], 5000), peer)
            .err()
            .unwrap();
        assert!(matches!(error, SpawnError::NotStarted(_)), "{error:?}");
    }
}
