//! The ledger: each request of a change or destroy has at most one effect, whoever asks how often.
//!
//! A claim is a file of its own, named by task and request, made before anything is recorded and locked by its process
//! until it has answered. The answer is kept in it for a day. The log is the truth, and the only thing that is forced to
//! disk; this is its index: after a restart of the machine it is made anew from the log, and a claim whose process is gone
//! is settled by what the log says.
//!
//! It never runs, records or decides anything.

use std::cell::Cell;
use std::ffi::OsStr;
use std::fs::{File, Metadata};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, openat};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};
use serde::{Deserialize, Serialize};
use wire::ids::{Digest, RequestId, TaskId};
use wire::{Code, Outcome, strict};

use crate::error::Refusal;
use crate::sys;

/// How long an answer is kept after it was given.
pub(crate) const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// Most claims that are kept at once, but for what sessions take between two looks.
const CLAIMS: usize = 4096;

/// How many claims a session makes before it counts again how many there are: counting reads the whole folder.
const BETWEEN_LOOKS: usize = 32;

/// Longest line of a claim, in bytes: an Outcome and two texts, as JSON.
const MAX_LINE: usize = 1 << 20;

/// Longest wait for another process that makes the ledger anew.
const WAIT: Duration = Duration::from_secs(5);

/// Holds the boot id for which the ledger was made.
const BOOT: &str = "boot";
/// Held while it is made.
const LOCK: &str = "lock";

/// A request as it was sent: its id, and the hash of its bytes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Key {
    pub(crate) task_id: TaskId,
    pub(crate) request_id: RequestId,
    pub(crate) request_sha256: Digest,
}

/// An answer as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Kept {
    pub(crate) outcome: Outcome,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) output: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) stderr: Option<String>,
}

/// What the ledger holds of a request.
pub(crate) enum Found {
    /// Nobody has claimed it.
    Nothing,
    /// Its process is at it.
    Running(Key),
    /// It was answered.
    Answered(Key, Box<Kept>),
    /// It was claimed, and its process is gone without an answer.
    Left(Claim),
}

/// A claim that this process holds.
#[must_use]
pub(crate) struct Claim {
    key: Key,
    file: Flock<File>,
    name: String,
    /// Where the answer begins.
    answer_at: u64,
}

/// The ledger of this target.
pub(crate) struct Ledger {
    folder: OwnedFd,
    exec_uid: u32,
    /// How many claims this session may make before it counts again.
    room: Cell<usize>,
}

/// The ledger is of another start of the machine, and this process is the one that makes it anew.
#[must_use]
pub(crate) struct Stale {
    _lock: Flock<File>,
}

impl Ledger {
    /// Opens the folder, which belongs to writ-exec alone.
    ///
    /// # Errors
    /// Whatever open says, and a folder that others may enter.
    pub(crate) fn open(path: &Path, exec_uid: u32) -> io::Result<Self> {
        let folder = sys::as_exec(exec_uid, || -> io::Result<File> {
            match std::fs::DirBuilder::new().mode(0o700).create(path) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
            std::fs::OpenOptions::new()
                .read(true)
                .custom_flags((OFlag::O_DIRECTORY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW).bits())
                .open(path)
        })?;
        let about = folder.metadata()?;
        if about.uid() != exec_uid || about.mode() & 0o022 != 0 {
            return Err(io::Error::other(
                "it must belong to writ-exec, and nobody else may write it",
            ));
        }
        Ok(Self {
            folder: folder.into(),
            exec_uid,
            room: Cell::new(0),
        })
    }

    /// None when the ledger was made for this start of the machine; waits while another process makes it.
    ///
    /// # Errors
    /// Whatever the disk says; [`io::ErrorKind::TimedOut`] when the other takes too long.
    pub(crate) fn stale(&self, boot_id: &str) -> io::Result<Option<Stale>> {
        if self.boot()?.as_deref() == Some(boot_id) {
            return Ok(None);
        }
        let file = self.at(LOCK, OFlag::O_RDWR | OFlag::O_CREAT)?;
        let mut file = Some(file);
        let end = Instant::now() + WAIT;
        loop {
            let Some(unlocked) = file.take() else {
                return Err(io::Error::other("no lock"));
            };
            match Flock::lock(unlocked, FlockArg::LockExclusiveNonblock) {
                Ok(lock) if self.boot()?.as_deref() == Some(boot_id) => {
                    drop(lock);
                    return Ok(None);
                }
                Ok(lock) => return Ok(Some(Stale { _lock: lock })),
                Err((back, Errno::EWOULDBLOCK)) if Instant::now() < end => {
                    file = Some(back);
                    std::thread::sleep(Duration::from_millis(5));
                }
                Err((_, Errno::EWOULDBLOCK)) => return Err(io::ErrorKind::TimedOut.into()),
                Err((_, errno)) => return Err(errno.into()),
            }
        }
    }

    /// The ledger is as the log wants it, and stands for this start of the machine.
    ///
    /// # Errors
    /// Whatever the disk says; it will be made anew again.
    pub(crate) fn fresh(&self, stale: Stale, boot_id: &str) -> io::Result<()> {
        let next = "boot.next";
        let mut file = self.at(next, OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_TRUNC)?;
        file.write_all(boot_id.as_bytes())?;
        self.with(|| nix::fcntl::renameat(&self.folder, next, &self.folder, BOOT))?;
        drop(stale);
        Ok(())
    }

    fn boot(&self) -> io::Result<Option<String>> {
        match self.at(BOOT, OFlag::O_RDONLY) {
            Ok(file) => {
                let mut text = String::new();
                file.take(64).read_to_string(&mut text)?;
                Ok(Some(text))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is known of a request. A claim that is left behind is given to whoever asks, locked.
    ///
    /// # Errors
    /// `log_unavailable` when the ledger cannot be read.
    pub(crate) fn look(&self, task: &TaskId, request: &RequestId) -> Result<Found, Refusal> {
        self.find(&name(task, request)).map_err(|error| unusable(&error))
    }

    fn find(&self, name: &str) -> io::Result<Found> {
        loop {
            let file = match self.at(name, OFlag::O_RDWR) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
                Err(error) => return Err(error),
            };
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(file) => {
                    // Between open and lock somebody may have put it away.
                    if file.metadata()?.nlink() == 0 {
                        continue;
                    }
                    return self.judge(file, name);
                }
                Err((file, Errno::EWOULDBLOCK)) => {
                    return Ok(match read(&file)? {
                        (Some(key), Some(kept), _) => Found::Answered(key, Box::new(kept)),
                        (Some(key), None, _) => Found::Running(key),
                        // Its first line is being written.
                        (None, ..) => Found::Nothing,
                    });
                }
                Err((_, errno)) => return Err(errno.into()),
            }
        }
    }

    fn judge(&self, file: Flock<File>, name: &str) -> io::Result<Found> {
        Ok(match read(&file)? {
            (Some(key), Some(kept), _) => Found::Answered(key, Box::new(kept)),
            (Some(key), None, answer_at) => Found::Left(Claim {
                key,
                file,
                name: name.to_owned(),
                answer_at,
            }),
            // A claim without its first line announced nothing.
            (None, ..) => {
                self.remove(name)?;
                Found::Nothing
            }
        })
    }

    /// Claims a request, for this process alone.
    ///
    /// # Errors
    /// `in_progress` when another process has just done so, `capacity`, `log_unavailable`.
    pub(crate) fn claim(&self, key: Key) -> Result<Claim, Refusal> {
        self.make_room()?;
        let name = name(&key.task_id, &key.request_id);
        let new = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL;
        let file = match self.at(&name, new) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Err(Refusal::new(Code::InProgress)),
            Err(error) => return Err(unusable(&error)),
        };
        // Whoever looks at it first has the lock, and then it is theirs to put away.
        let mut file =
            Flock::lock(file, FlockArg::LockExclusiveNonblock).map_err(|(_, _)| Refusal::new(Code::InProgress))?;
        if file.metadata().map_err(|error| unusable(&error))?.nlink() == 0 {
            return Err(Refusal::new(Code::InProgress));
        }
        let line = line(&key).and_then(|line| file.write_all(&line).map(|()| line.len() as u64));
        match line {
            Ok(answer_at) => Ok(Claim {
                key,
                file,
                name,
                answer_at,
            }),
            Err(error) => {
                let _ = self.remove(&name);
                Err(unusable(&error))
            }
        }
    }

    /// Keeps the answer. Where that fails the log still knows what became of the request.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub(crate) fn settle(mut claim: Claim, kept: &Kept) -> io::Result<()> {
        claim.file.set_len(claim.answer_at)?;
        claim.file.seek(SeekFrom::Start(claim.answer_at))?;
        let line = line(kept)?;
        claim.file.write_all(&line)
    }

    /// Forgets a claim that nothing came of: the request can be claimed again.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub(crate) fn forget(&self, claim: Claim) -> io::Result<()> {
        self.remove(&claim.name)
    }

    /// All claims that were left behind, locked.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub(crate) fn left(&self) -> io::Result<Vec<Claim>> {
        let mut left = Vec::new();
        for name in self.claims()? {
            if let Found::Left(claim) = self.find(&name)? {
                left.push(claim);
            }
        }
        Ok(left)
    }

    /// Puts away what is older than a day where there is no room; refuses when there is none then.
    fn make_room(&self) -> Result<(), Refusal> {
        if let Some(room) = self.room.get().checked_sub(1) {
            self.room.set(room);
            return Ok(());
        }
        let names = self.claims().map_err(|error| unusable(&error))?;
        let mut kept = names.len();
        if kept >= CLAIMS {
            kept -= names.iter().filter(|name| self.put_away(name).unwrap_or(false)).count();
        }
        // One of them is taken now.
        let room = CLAIMS.saturating_sub(kept).min(BETWEEN_LOOKS).checked_sub(1);
        self.room.set(room.unwrap_or(0));
        let full = || {
            let what = format!("the target keeps the answers of {CLAIMS} requests of the last 24 hours");
            Refusal::because(Code::Capacity, what)
        };
        room.map(drop).ok_or_else(full)
    }

    fn put_away(&self, name: &str) -> io::Result<bool> {
        let file = self.at(name, OFlag::O_RDWR)?;
        let Ok(file) = Flock::lock(file, FlockArg::LockExclusiveNonblock) else {
            return Ok(false);
        };
        let old = |about: &Metadata| {
            let age = about
                .modified()
                .ok()
                .and_then(|then| SystemTime::now().duration_since(then).ok());
            age.is_some_and(|age| age > KEPT)
        };
        let about = file.metadata()?;
        if old(&about) && about.nlink() > 0 {
            self.remove(name)?;
            return Ok(true);
        }
        Ok(false)
    }

    /// The names of all claims.
    fn claims(&self) -> io::Result<Vec<String>> {
        let dir = self.at(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)?;
        let mut names = Vec::new();
        for entry in nix::dir::Dir::from_fd(dir.into())?.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            names.extend(name.to_str().filter(|name| name.len() == 64).map(str::to_owned));
        }
        Ok(names)
    }

    fn at(&self, name: &str, flags: OFlag) -> io::Result<File> {
        let flags = flags | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
        let file = self.with(|| openat(&self.folder, name, flags, Mode::S_IRUSR | Mode::S_IWUSR))?;
        Ok(file.into())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.with(|| unlinkat(&self.folder, name, UnlinkatFlags::NoRemoveDir))
    }

    /// With the rights of writ-exec.
    fn with<T>(&self, work: impl FnOnce() -> nix::Result<T>) -> io::Result<T> {
        Ok(sys::as_exec(self.exec_uid, work)?)
    }
}

impl Claim {
    /// The request.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }
}

/// Names a claim: unique to task and request, and fit for a file.
fn name(task: &TaskId, request: &RequestId) -> String {
    let both = [task.as_str().as_bytes(), &[0], request.as_str().as_bytes()].concat();
    Digest::of(&both).to_string()
}

/// One line of a claim.
fn line(value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(value).map_err(io::Error::other)?;
    line.push(b'\n');
    Ok(line)
}

/// Who claimed it, what was answered, and where an answer begins. A line that was not written to its end is none.
fn read(mut file: &File) -> io::Result<(Option<Key>, Option<Kept>, u64)> {
    file.seek(SeekFrom::Start(0))?;
    let mut bytes = Vec::new();
    file.take(2 * MAX_LINE as u64).read_to_end(&mut bytes)?;
    let mut lines = bytes.split_inclusive(|byte| *byte == b'\n');
    let first = lines.next().unwrap_or_default();
    let whole = |line: &'_ [u8]| line.strip_suffix(b"\n").map(<[u8]>::to_vec);
    let key = whole(first).and_then(|line| strict::read(&line, MAX_LINE).ok());
    let second = lines.next().and_then(whole);
    let kept = second.and_then(|line| serde_json::from_slice(&line).ok());
    Ok((key, kept, first.len() as u64))
}

fn unusable(error: &io::Error) -> Refusal {
    Refusal::because(Code::LogUnavailable, format!("the ledger: {error}"))
}
