//! One program: started clean, watched to its deadline, its output drained to the end.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
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
use crate::sys::{self, Child, Ended, Plan, Resting, SpawnError};
use crate::walls::Walls;

/// The environment of every program. Nothing of the session's own reaches it.
pub(crate) const ENVIRONMENT: [&str; 4] = ["HOME=/", "LANG=C.UTF-8", "PATH=/usr/bin:/bin", "TZ=UTC0"];

/// From the signal that asks a program to end to the one that does not ask.
const GRACE: Duration = Duration::from_millis(500);

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
    /// What stands around it.
    pub(crate) walls: Walls,
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

/// Opens the program of a command line, which must be root's alone to write: what was checked is what will run, whatever the path means later.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn open_program(argv: &[String]) -> Result<OwnedFd, String> {
    let path = Path::new(argv.first().map_or("", String::as_str));
    let open = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path);
    let file = open.map_err(|error| format!("{}: {error}", path.display()))?;
    // Where others may write a folder above it, the name means what they like.
    let real = path
        .canonicalize()
        .map_err(|error| format!("{}: {error}", path.display()))?;
    for folder in path.ancestors().skip(1).chain(real.ancestors().skip(1)) {
        let about = folder
            .metadata()
            .map_err(|error| format!("{}: {error}", folder.display()))?;
        if about.uid() != 0 || about.mode() & 0o022 != 0 {
            return Err(format!(
                "{} must belong to root, and nobody else may write it",
                folder.display()
            ));
        }
    }
    let about = file
        .metadata()
        .map_err(|error| format!("{}: {error}", path.display()))?;
    if !about.is_file() || about.uid() != 0 || about.mode() & 0o022 != 0 {
        return Err(format!(
            "{} must be a file that belongs to root and that nobody else may write",
            path.display()
        ));
    }
    // A set-id program would take other rights than the action's; no_new_privs stops it, this says so.
    if about.mode() & 0o6000 != 0 {
        return Err(format!("{} has a set-id bit", path.display()));
    }
    Ok(file.into())
}

/// An empty standard input.
///
/// # Errors
/// Where /dev/null is missing.
pub(crate) fn no_input() -> io::Result<OwnedFd> {
    Ok(File::open("/dev/null")?.into())
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
        walls: command.walls,
        parent: Pid::this(),
    };
    let begun = Instant::now();
    let child = sys::spawn(resting, &mut plan)?;
    drop(plan);
    let mut watch = Watch {
        deadline: begun + command.timeout,
        cut: None,
        stdout: Capture::new(usize::try_from(command.limits.output_bytes).unwrap_or(0)),
        stderr: Capture::new(STDERR_BYTES),
    };
    let watched = watch.watch(&child, peer);
    if watched.is_err() {
        end(child.pid, Signal::SIGKILL);
    }
    let ended = sys::wait(child.pid).map_err(SpawnError::Lost)?;
    // What it left behind has nobody to answer to.
    let survivors = descendants::end_all();
    watched.map_err(SpawnError::Lost)?;
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
                self.advance(child.pid, Cut::Deadline);
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
            match poll(if self.cut.is_none() { &mut fds } else { &mut fds[..3] }, left) {
                Err(Errno::EINTR) => continue,
                other => other?,
            };
            let seen = |fd: &PollFd<'_>| fd.revents().is_some_and(|events| !events.is_empty());
            let (ended, ready, gone) = (seen(&fds[0]), [seen(&fds[1]), seen(&fds[2])], seen(&fds[3]));
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
            if gone && running && self.cut.is_none() {
                self.advance(child.pid, Cut::PeerGone);
            }
        }
        Ok(())
    }

    /// First asks the program to end, then ends it; each step has its own time.
    fn advance(&mut self, pid: Pid, why: Cut) {
        if self.cut.is_none() {
            self.cut = Some(why);
            end(pid, Signal::SIGTERM);
        } else {
            // The program itself is waited for by its own account; its descendants are ended when it has ended.
            end(pid, Signal::SIGKILL);
        }
        self.deadline = Instant::now() + GRACE;
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
