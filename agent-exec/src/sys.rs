//! The system calls that decide what this process is and what a child becomes. The only `unsafe` of agent-exec; the start of
//! `inspect` has the other (docs/adr/0009-inspect-without-a-c-library.md).
//!
//! agent-exec has one thread, which is what makes both the switch of fsuid and the work of a child before its exec sound.

#![expect(unsafe_code, reason = "system calls that no crate wraps safely")]

use std::ffi::{CString, c_char, c_int, c_void};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::sync::OnceLock;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{Mode, umask};
use nix::unistd::{Gid, Pid, Uid, getgroups, getresgid, getresuid, setfsuid, setresuid, setsid};

use crate::walls::{PROGRAM_FD, Walls};

/// The ids that this process must have been started with, as numbers from target.toml.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ids {
    /// The account that logs in and that actions run as.
    pub runner_uid: u32,
    /// Its group, and the only one.
    pub runner_gid: u32,
    /// The account that owns log, ledger and receipt key.
    pub exec_uid: u32,
}

/// Proof that the process started with the ids of its installation.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Started(Ids);

/// Proof that the process rests: its paths are opened with the action's rights, and actions cannot touch it.
#[derive(Debug, Clone, Copy)]
#[must_use]
pub struct Resting(Ids);

/// Compares the process's ids with those expected.
///
/// A set-user-id bit is lost without a word on a nosuid mount, under `no_new_privs` and under a tracer; a process that
/// went on then would write its log as the account that actions run as.
///
/// # Errors
/// A sentence that names what differs.
pub fn started(ids: Ids) -> Result<Started, String> {
    let uids = getresuid().map_err(|error| error.to_string())?;
    let uids = (uids.real.as_raw(), uids.effective.as_raw(), uids.saved.as_raw());
    let wanted = (ids.runner_uid, ids.exec_uid, ids.exec_uid);
    if uids != wanted || ids.runner_uid == ids.exec_uid || ids.runner_uid == 0 || ids.exec_uid == 0 {
        return Err(format!(
            "uids (real, effective, saved) are {uids:?}, expected {wanted:?}"
        ));
    }
    let gids = getresgid().map_err(|error| error.to_string())?;
    let gid = Gid::from_raw(ids.runner_gid);
    if [gids.real, gids.effective, gids.saved] != [gid; 3] || ids.runner_gid == 0 {
        return Err(format!("gids are {gids:?}, expected {gid} three times"));
    }
    let groups = getgroups().map_err(|error| error.to_string())?;
    if groups.iter().any(|group| *group != gid) {
        return Err(format!("supplementary groups are {groups:?}, expected {gid} only"));
    }
    Ok(Started(ids))
}

/// Goes to rest: (real, effective, saved) = (writ-exec, agent-runner, writ-exec).
///
/// The real and saved uid are not the action's, so it gets EPERM for a signal or a trace; the effective uid is, so that a
/// path an action names is opened with the action's rights.
///
/// # Errors
/// When the kernel refuses, or when reading the ids back gives others.
pub fn rest(started: Started) -> io::Result<Resting> {
    let Started(ids) = started;
    let (runner, exec) = (Uid::from_raw(ids.runner_uid), Uid::from_raw(ids.exec_uid));
    setresuid(exec, runner, exec)?;
    let now = getresuid()?;
    if (now.real, now.effective, now.saved) != (exec, runner, exec) || fsuid() != runner {
        return Err(io::Error::other("the ids did not change"));
    }
    if is_traceable(dumpable()) {
        return Err(io::Error::other(
            "fs.suid_dumpable is 1, so that a process that changed its ids can be traced",
        ));
    }
    Ok(Resting(ids))
}

/// What the kernel made of this process when its ids last changed: `fs.suid_dumpable` (proc_sys_fs(5)).
fn dumpable() -> c_int {
    // SAFETY: the call takes no other argument and touches no memory.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE) }
}

/// Whether a process of the same account may trace one that is so (PR_SET_DUMPABLE(2const)). A child that became
/// agent-runner shares this process's memory until its exec: whatever else runs as agent-runner could read the receipt key.
fn is_traceable(dumpable: c_int) -> bool {
    dumpable != 0 && dumpable != 2
}

impl Started {
    /// The ids.
    #[must_use]
    pub fn ids(self) -> Ids {
        self.0
    }
}

#[cfg(test)]
impl Resting {
    /// For tests that start programs as whoever runs the tests.
    pub(crate) fn as_ourselves() -> Self {
        let (uid, gid) = (Uid::current().as_raw(), Gid::current().as_raw());
        Self(Ids {
            runner_uid: uid,
            runner_gid: gid,
            exec_uid: uid,
        })
    }
}

impl Resting {
    /// The ids.
    #[must_use]
    pub fn ids(self) -> Ids {
        self.0
    }
}

/// Runs `open` with the file system rights of writ-exec, and gives them back.
///
/// # Panics
/// Never; it aborts the process when the rights do not come back, because nothing that follows could be trusted.
pub fn as_exec<T>(exec_uid: u32, open: impl FnOnce() -> T) -> T {
    let exec = Uid::from_raw(exec_uid);
    let before = setfsuid(exec);
    if fsuid() != exec {
        std::process::abort();
    }
    let opened = open();
    setfsuid(before);
    if fsuid() != before {
        std::process::abort();
    }
    opened
}

/// The file system uid: the call changes nothing when the uid is not one of the process's own, and -1 never is.
fn fsuid() -> Uid {
    setfsuid(Uid::from_raw(u32::MAX))
}

/// What a child is to become. Everything is allocated before it begins.
pub(crate) struct Plan {
    /// The program, opened and checked; a path is not looked up again.
    pub(crate) program: OwnedFd,
    /// Its arguments, the name first.
    pub(crate) argv: Vec<CString>,
    /// Its environment.
    pub(crate) environment: Vec<CString>,
    /// Its standard input.
    pub(crate) stdin: OwnedFd,
    /// Limits of the process: resource and value, soft and hard alike, where the session's own are not lower.
    pub(crate) limits: Vec<(Resource, u64)>,
    /// Whose rights it has, and what stands around it.
    pub(crate) cage: Cage,
    /// This process, which the child must still have as its parent.
    pub(crate) parent: Pid,
}

/// Whose rights a program has, and what stands around it.
pub(crate) enum Cage {
    /// agent-runner's, behind these walls.
    Walls(Walls),
    /// writ-exec's, for sudo, which takes root's: under `no_new_privs` it could not. Nothing stands around it.
    Sudo,
}

/// Why there is no child to watch.
#[derive(Debug)]
pub(crate) enum SpawnError {
    /// No program ran.
    NotStarted(io::Error),
    /// There was a child, and it was ended: whether its program ran is not known.
    Lost(io::Error),
}

impl From<io::Error> for SpawnError {
    fn from(error: io::Error) -> Self {
        Self::NotStarted(error)
    }
}

impl From<Errno> for SpawnError {
    fn from(errno: Errno) -> Self {
        Self::NotStarted(errno.into())
    }
}

/// A child that runs, and the ends of its pipes.
#[derive(Debug)]
pub struct Child {
    /// Its process id, which is also its process group and session.
    pub pid: Pid,
    /// Readable once it has ended.
    pub pidfd: OwnedFd,
    /// What it writes to standard output.
    pub stdout: File,
    /// What it writes to standard error.
    pub stderr: File,
}

/// How a child ended, and what it used.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Its exit code, or the signal that ended it.
    pub how: Result<i32, i32>,
    /// CPU time in user mode, ms.
    pub cpu_user_ms: u64,
    /// CPU time in the kernel, ms.
    pub cpu_system_ms: u64,
    /// Largest resident set, KiB.
    pub max_rss_kib: u64,
}

/// Starts a child as agent-runner in all its ids, behind its walls, or as writ-exec for sudo; in a session of its own, with
/// nothing inherited but three descriptors.
///
/// The child shares this process's memory until its execve, and this process stands still meanwhile (vfork(2)): nothing is
/// copied, neither when it begins nor when either of the two writes.
///
/// # Errors
/// [`SpawnError`]; the errors of the child's own steps, execve included, mean that no program ran.
pub(crate) fn spawn(resting: Resting, plan: &mut Plan) -> Result<Child, SpawnError> {
    let pipe = || nix::unistd::pipe2(OFlag::O_CLOEXEC);
    let ((stdout, child_stdout), (stderr, child_stderr)) = (pipe()?, pipe()?);
    let pointers = |texts: &[CString]| -> Vec<*const c_char> {
        texts
            .iter()
            .map(|text| text.as_ptr())
            .chain([std::ptr::null()])
            .collect()
    };
    let (argv, environment) = (pointers(&plan.argv), pointers(&plan.environment));
    let mut birth = Birth {
        resting,
        plan,
        streams: [child_stdout.as_fd(), child_stderr.as_fd()],
        argv: &argv,
        environment: &environment,
        ignored: ignored(),
        failed: None,
    };
    // Only its upper end is touched. 16 bytes is how a stack is aligned.
    let mut stack = Vec::<u128>::with_capacity(CHILD_STACK / size_of::<u128>());
    let mut pidfd: i32 = -1;
    // SAFETY: the stack is the child's alone, and its end is one past the allocation. The process has one thread, which
    // stands still until the child is a program or gone (CLONE_VFORK), so that nothing of what the child sees changes under
    // it and all of it outlives the child's use. The child calls only what is async-signal-safe, allocates and frees nothing,
    // and leaves by exec or _exit.
    let pid = unsafe {
        let end = stack.as_mut_ptr().add(stack.capacity());
        libc::clone(
            be_born,
            end.cast(),
            libc::CLONE_VM | libc::CLONE_VFORK | libc::CLONE_PIDFD | libc::SIGCHLD,
            (&raw mut birth).cast(),
            &raw mut pidfd,
        )
    };
    let pid = Pid::from_raw(Errno::result(pid)?);
    let failed = birth.failed;
    drop((child_stdout, child_stderr, stack));
    // SAFETY: the kernel just gave this descriptor to us alone.
    let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
    match failed {
        None => Ok(Child {
            pid,
            pidfd,
            stdout: File::from(stdout),
            stderr: File::from(stderr),
        }),
        Some(errno) => {
            wait(pid)?;
            Err(errno.into())
        }
    }
}

/// What a child needs on its way, and what it says of it.
struct Birth<'a> {
    resting: Resting,
    plan: &'a mut Plan,
    streams: [BorrowedFd<'a>; 2],
    argv: &'a [*const c_char],
    environment: &'a [*const c_char],
    ignored: &'static [i32],
    /// The error of the step that failed.
    failed: Option<Errno>,
}

/// How much stack a child has on its way to its program, in bytes.
const CHILD_STACK: usize = 64 * 1024;

/// Where the child keeps its Landlock ruleset. The program is at [`PROGRAM_FD`].
const RULESET_FD: i32 = 3;

extern "C" fn be_born(birth: *mut c_void) -> c_int {
    // SAFETY: `spawn` gives the address of its own, which nobody else looks at while the child is on its way.
    let birth = unsafe { &mut *birth.cast::<Birth<'_>>() };
    let Err(errno) = become_program(birth);
    birth.failed = Some(errno);
    // SAFETY: it runs no destructor: what is here is the parent's.
    unsafe { libc::_exit(127) }
}

/// The child's side: never returns but with the error of the step that failed.
fn become_program(birth: &mut Birth<'_>) -> Result<std::convert::Infallible, Errno> {
    let Birth {
        resting,
        plan,
        streams: [stdout, stderr],
        argv,
        environment,
        ignored,
        failed: _,
    } = birth;
    // First to numbers above all that are wanted, so that no dup2 overwrites one that is still needed.
    let from = [
        plan.stdin.as_fd(),
        *stdout,
        *stderr,
        match &plan.cage {
            Cage::Walls(walls) => walls.ruleset(),
            // It has none: what stands in its place is closed by exec like it.
            Cage::Sudo => plan.program.as_fd(),
        },
        plan.program.as_fd(),
    ];
    let mut above = [0_i32; 5];
    for (high, low) in above.iter_mut().zip(from) {
        // SAFETY: fcntl with an integer argument on a descriptor that the parent holds open meanwhile.
        *high = Errno::result(unsafe { libc::fcntl(low.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 64) })?;
    }
    for (high, wanted) in above.into_iter().zip([0, 1, 2, RULESET_FD, PROGRAM_FD]) {
        // SAFETY: plain integers; both descriptors are this process's own.
        Errno::result(unsafe { libc::dup2(high, wanted) })?;
    }
    // These two must not reach the program; everything above them goes now.
    for wanted in [RULESET_FD, PROGRAM_FD] {
        // SAFETY: as above.
        Errno::result(unsafe { libc::fcntl(wanted, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    }
    // SAFETY: three integers; closes descriptors that nothing in this process uses any more.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, 5_u32, u32::MAX, 0_u32) })?;
    setsid()?;
    umask(Mode::from_bits_truncate(0o077));
    reset_signals(ignored)?;
    for (resource, value) in &plan.limits {
        let value = getrlimit(*resource)?.1.min(*value);
        setrlimit(*resource, value, value)?;
    }
    let ids = resting.ids();
    let uid = Uid::from_raw(match plan.cage {
        Cage::Walls(_) => ids.runner_uid,
        Cage::Sudo => ids.exec_uid,
    });
    // By the system call: the C library's function would look through the parent's memory for threads to change as well.
    // SAFETY: three integers.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, uid.as_raw(), uid.as_raw(), uid.as_raw()) })?;
    let now = getresuid()?;
    if [now.real, now.effective, now.saved] != [uid; 3] || fsuid() != uid {
        return Err(Errno::EPERM);
    }
    if let Cage::Walls(_) = plan.cage {
        nix::sys::prctl::set_no_new_privs()?;
    }
    // Nothing is resident: a program whose supervisor was killed ends with it. After the change of ids, which clears this.
    nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL)?;
    if nix::unistd::getppid() != plan.parent {
        return Err(Errno::ESRCH);
    }
    nix::unistd::chdir(c"/")?;
    if let Cage::Walls(walls) = &mut plan.cage {
        restrict_self(RULESET_FD)?;
        walls.settle(std::process::id());
        walls.filter().map_err(|()| Errno::last())?;
    }
    // SAFETY: both arrays end with a null pointer and point to strings that live in `plan`; the empty path with
    // AT_EMPTY_PATH means the descriptor itself.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            PROGRAM_FD,
            c"".as_ptr(),
            argv.as_ptr(),
            environment.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(Errno::last())
}

/// The signals that this process ignores: over exec they would stay ignored, where a handler does not stay. Looked at once,
/// because nothing here ever changes one.
///
/// By the system call: the C library keeps two signals for itself and refuses to speak of them, and posix_spawn(3) leaves
/// just these ignored.
fn ignored() -> &'static [i32] {
    static IGNORED: OnceLock<Vec<i32>> = OnceLock::new();
    IGNORED.get_or_init(|| {
        (1..=SIGNALS)
            .filter(|number| disposition(*number) == libc::SIG_IGN)
            .collect()
    })
}

/// The kernel's signals, 1 to this, on both of our architectures.
const SIGNALS: i32 = 64;

/// The kernel's struct sigaction: handler, flags, restorer, mask. One without a restorer is no longer.
type SigAction = [usize; 4];

fn disposition(number: i32) -> libc::sighandler_t {
    let mut now: SigAction = [0; 4];
    // SAFETY: nothing is changed, a live array takes what there is, and the size is that of the kernel's set.
    unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            number,
            std::ptr::null::<SigAction>(),
            &raw mut now,
            8_usize,
        )
    };
    now[0]
}

/// Default dispositions and an empty mask.
fn reset_signals(ignored: &[i32]) -> Result<(), Errno> {
    // All zero is SIG_DFL without flags.
    let default: SigAction = [0; 4];
    for number in ignored {
        // SAFETY: a live array for a structure that is only read, none to be written, and the size of the kernel's set.
        Errno::result(unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                *number,
                &raw const default,
                std::ptr::null::<SigAction>(),
                8_usize,
            )
        })?;
    }
    nix::sys::signal::SigSet::empty().thread_set_mask()
}

/// Puts this thread behind a Landlock ruleset (landlock_restrict_self(2)). `no_new_privs` must be set.
pub(crate) fn restrict_self(ruleset: i32) -> Result<(), Errno> {
    // SAFETY: two integers; a descriptor that is no ruleset is an error and nothing else.
    Errno::result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0_u32) }).map(drop)
}

/// The version of Landlock that the kernel has; 0 or less where it has none.
pub(crate) fn landlock_abi() -> i32 {
    const VERSION: u32 = 1;
    // SAFETY: no ruleset is made: a null pointer of size 0 with this flag asks for the version (landlock_create_ruleset(2)).
    let abi = unsafe {
        libc::syscall(
            libc::SYS_landlock_create_ruleset,
            std::ptr::null::<u8>(),
            0_usize,
            VERSION,
        )
    };
    i32::try_from(abi).unwrap_or(0)
}

/// Waits for a child and takes its account.
///
/// # Errors
/// When it is not a child of this process.
pub fn wait(pid: Pid) -> io::Result<Ended> {
    let mut status = 0;
    // SAFETY: an all-zero rusage is a valid one: it holds integers only.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live variables of the right type.
        let waited = unsafe { libc::wait4(pid.as_raw(), &raw mut status, 0, &raw mut usage) };
        match Errno::result(waited) {
            Ok(_) => break,
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    let how = if libc::WIFEXITED(status) {
        Ok(libc::WEXITSTATUS(status))
    } else {
        Err(libc::WTERMSIG(status))
    };
    let ms = |time: libc::timeval| u64::try_from(time.tv_sec * 1000 + time.tv_usec / 1000).unwrap_or(0);
    Ok(Ended {
        how,
        cpu_user_ms: ms(usage.ru_utime),
        cpu_system_ms: ms(usage.ru_stime),
        max_rss_kib: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_lets_others_trace_is_told_apart() {
        assert!(is_traceable(dumpable()), "a process that changed no ids");
        assert!(is_traceable(-1));
        assert!(!is_traceable(0) && !is_traceable(2));
    }
}
