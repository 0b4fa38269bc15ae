//! Which system calls an action may make, each with its reason. docs/walls.md has the same table, and a test compares.
//!
//! Allowlists: what is not named fails with EPERM, also calls that no kernel has yet and the second numbering of x86_64
//! (x32), whose numbers stand in no row. Descriptors are rights here: an action was handed its
//! file, so reading and writing are free and opening is Landlock's business.

use libc::c_long;

use super::Profile::{self, Reader, Tool};

/// Under which condition a call is allowed. Conditions look at integers only: what a pointer points to can change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum When {
    /// Always.
    Always,
    /// Never, and with ENOSYS, as of an older kernel: a C library then uses what older kernels have.
    Absent,
    /// An argument of 32 bits is one of these.
    OneOf(u8, &'static [u32]),
    /// An argument has none of these bits.
    Without(u8, u64),
    /// The first argument is the action's own process, its group, or 0 for the caller's group: signals go nowhere else.
    OwnSignal,
    /// The first argument is the action's own process.
    OwnProcess,
}

/// One row.
#[derive(Debug, Clone, Copy)]
#[cfg_attr(not(test), expect(dead_code, reason = "name and reason are for docs/walls.md"))]
pub(super) struct Call {
    /// As in syscalls(2).
    pub name: &'static str,
    /// Its number on this architecture.
    pub number: c_long,
    /// The narrowest profile that has it; `tool` has all that `reader` has.
    pub profile: Profile,
    /// Under which condition.
    pub when: When,
    /// What it is there for.
    pub why: &'static str,
}

/// New namespaces would be new worlds with rights of their own.
const NAMESPACES: u64 = 0x7e02_0080;
/// Families of sockets: unix, IPv4, IPv6. Not netlink, packet, or any other that reaches into the kernel.
const FAMILIES: &[u32] = &[libc::AF_UNIX as u32, libc::AF_INET as u32, libc::AF_INET6 as u32];

macro_rules! calls {
    ($($(#[$only:meta])* $profile:ident $name:ident $number:ident $when:expr, $why:literal;)*) => {
        /// The table, ordered by what a call is for.
        pub(super) const CALLS: &[Call] = &[
            $($(#[$only])* Call { name: stringify!($name), number: libc::$number, profile: $profile, when: $when, why: $why },)*
        ];
    };
}

use When::{Absent, Always, OneOf, OwnProcess, OwnSignal, Without};

calls! {
    Reader read SYS_read Always, "the file it was handed";
    Reader pread64 SYS_pread64 Always, "ranges of it";
    Reader readv SYS_readv Always, "the same, in parts";
    Reader write SYS_write Always, "its output";
    Reader writev SYS_writev Always, "the same, in parts";
    Reader lseek SYS_lseek Always, "where to read";
    Reader close SYS_close Always, "descriptors";
    Reader fstat SYS_fstat Always, "size and kind of the file";
    Reader newfstatat SYS_newfstatat Always, "the same; names are Landlock's business";
    Reader statx SYS_statx Always, "the same";
    Reader fadvise64 SYS_fadvise64 Always, "reading ahead";
    Reader openat SYS_openat Always, "libraries of a program that is not static; Landlock decides which files";
    #[cfg(target_arch = "x86_64")]
    Reader access SYS_access Always, "the loader looks for a preload list";
    Reader faccessat SYS_faccessat Always, "the same";
    Reader fcntl SYS_fcntl OneOf(1, &[0, 1, 2, 3, 4, 1030]), "flags of descriptors; not locks, leases or owners";
    Reader ioctl SYS_ioctl OneOf(1, &[0x5401, 0x5413, 0x5421]), "is this a terminal? (TCGETS, TIOCGWINSZ); and not to block (FIONBIO)";
    Reader mmap SYS_mmap Always, "memory";
    Reader mprotect SYS_mprotect Always, "memory";
    Reader munmap SYS_munmap Always, "memory";
    Reader mremap SYS_mremap Always, "memory";
    Reader madvise SYS_madvise Always, "memory";
    Reader brk SYS_brk Always, "memory";
    Reader rt_sigaction SYS_rt_sigaction Always, "how its own signals are handled";
    Reader rt_sigprocmask SYS_rt_sigprocmask Always, "the same";
    Reader rt_sigreturn SYS_rt_sigreturn Always, "the same";
    Reader sigaltstack SYS_sigaltstack Always, "a stack for overflows";
    Reader kill SYS_kill OwnSignal, "ending itself; never another task's processes or its supervisor";
    Reader tgkill SYS_tgkill OwnProcess, "abort(3)";
    Reader exit SYS_exit Always, "the end of a thread";
    Reader exit_group SYS_exit_group Always, "the end";
    Reader execveat SYS_execveat OneOf(0, &[super::PROGRAM_FD as u32]), "the program itself, from the descriptor that agent-exec checked";
    Reader futex SYS_futex Always, "locks within the process";
    #[cfg(target_arch = "x86_64")]
    Reader poll SYS_poll Always, "waiting";
    Reader ppoll SYS_ppoll Always, "waiting";
    Reader nanosleep SYS_nanosleep Always, "waiting";
    Reader clock_nanosleep SYS_clock_nanosleep Always, "waiting";
    Reader clock_gettime SYS_clock_gettime Always, "the time";
    Reader gettimeofday SYS_gettimeofday Always, "the time";
    Reader getrandom SYS_getrandom Always, "hash tables";
    Reader getpid SYS_getpid Always, "itself";
    Reader gettid SYS_gettid Always, "itself";
    Reader getuid SYS_getuid Always, "itself";
    Reader geteuid SYS_geteuid Always, "itself";
    Reader getgid SYS_getgid Always, "itself";
    Reader getegid SYS_getegid Always, "itself";
    Reader prlimit64 SYS_prlimit64 OneOf(0, &[0]), "its own limits; the hard ones only sink";
    Reader set_tid_address SYS_set_tid_address Always, "the C library's start";
    Reader set_robust_list SYS_set_robust_list Always, "the C library's start";
    Reader rseq SYS_rseq Always, "the C library's start";
    Reader sched_getaffinity SYS_sched_getaffinity Always, "how many processors";
    Reader sched_yield SYS_sched_yield Always, "spinning";
    Reader clone3 SYS_clone3 Absent, "its flags stand behind a pointer; C libraries then use clone";
    Reader uname SYS_uname Always, "which system";
    #[cfg(target_arch = "x86_64")]
    Reader arch_prctl SYS_arch_prctl Always, "thread-local storage";

    Tool getdents64 SYS_getdents64 Always, "listing folders";
    Tool faccessat2 SYS_faccessat2 Always, "whether a file is there; C libraries take EPERM for the answer";
    Tool readlinkat SYS_readlinkat Always, "where links point";
    #[cfg(target_arch = "x86_64")]
    Tool readlink SYS_readlink Always, "the same";
    Tool statfs SYS_statfs Always, "room on disks";
    Tool fstatfs SYS_fstatfs Always, "the same";
    Tool getcwd SYS_getcwd Always, "where it is";
    Tool chdir SYS_chdir Always, "another place";
    Tool fchdir SYS_fchdir Always, "the same";
    Tool sysinfo SYS_sysinfo Always, "memory and load";
    Tool times SYS_times Always, "its own use";
    Tool getrusage SYS_getrusage Always, "its own use";
    Tool getppid SYS_getppid Always, "itself";
    Tool getpgid SYS_getpgid Always, "itself";
    Tool getgroups SYS_getgroups Always, "itself";
    Tool getresuid SYS_getresuid Always, "itself";
    Tool getresgid SYS_getresgid Always, "itself";
    Tool umask SYS_umask Always, "modes of its own files";
    Tool dup SYS_dup Always, "descriptors";
    #[cfg(target_arch = "x86_64")]
    Tool dup2 SYS_dup2 Always, "descriptors";
    Tool dup3 SYS_dup3 Always, "descriptors";
    Tool pipe2 SYS_pipe2 Always, "between its processes";
    #[cfg(target_arch = "x86_64")]
    Tool pipe SYS_pipe Always, "the same";
    Tool pwrite64 SYS_pwrite64 Always, "its files";
    Tool ftruncate SYS_ftruncate Always, "its files";
    Tool fsync SYS_fsync Always, "its files";
    Tool fdatasync SYS_fdatasync Always, "its files";
    Tool mkdirat SYS_mkdirat Always, "its files; Landlock decides where";
    Tool unlinkat SYS_unlinkat Always, "the same";
    #[cfg(target_arch = "x86_64")]
    Tool unlink SYS_unlink Always, "the same";
    Tool renameat2 SYS_renameat2 Always, "the same";
    Tool fchmod SYS_fchmod Always, "modes of its own files";
    Tool clone SYS_clone Without(0, NAMESPACES), "processes and threads; no namespace";
    #[cfg(target_arch = "x86_64")]
    Tool vfork SYS_vfork Always, "processes";
    #[cfg(target_arch = "x86_64")]
    Tool fork SYS_fork Always, "processes";
    Tool execve SYS_execve Always, "programs of its own; no_new_privs and all walls stay";
    Tool wait4 SYS_wait4 Always, "its processes";
    Tool waitid SYS_waitid Always, "its processes";
    Tool socket SYS_socket OneOf(0, FAMILIES), "probes of the network";
    Tool socketpair SYS_socketpair OneOf(0, FAMILIES), "between its processes";
    Tool connect SYS_connect Always, "probes of the network; it listens to nobody";
    Tool sendto SYS_sendto Always, "the same";
    Tool recvfrom SYS_recvfrom Always, "the same";
    Tool sendmsg SYS_sendmsg Always, "the same";
    Tool recvmsg SYS_recvmsg Always, "the same";
    Tool getsockopt SYS_getsockopt Always, "the same";
    Tool setsockopt SYS_setsockopt Always, "the same";
    Tool getsockname SYS_getsockname Always, "the same";
    Tool getpeername SYS_getpeername Always, "the same";
    Tool shutdown SYS_shutdown Always, "the same";
    #[cfg(target_arch = "x86_64")]
    Tool select SYS_select Always, "waiting";
    Tool pselect6 SYS_pselect6 Always, "waiting";
    Tool epoll_create1 SYS_epoll_create1 Always, "waiting";
    Tool epoll_ctl SYS_epoll_ctl Always, "waiting";
    Tool epoll_pwait SYS_epoll_pwait Always, "waiting";
    Tool eventfd2 SYS_eventfd2 Always, "waiting";
    Tool clock_getres SYS_clock_getres Always, "the time";
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/walls.md");
    const BEGIN: &str = "<!-- the table of agent-exec/src/walls/calls.rs; a test writes and compares it -->\n";
    const END: &str = "<!-- end of the table -->\n";

    fn table() -> String {
        let row = |call: &Call| {
            let profile = if call.profile == Reader { "reader, tool" } else { "tool" };
            let when = match call.when {
                Always => "always".to_owned(),
                Absent => "never, and with `ENOSYS`".to_owned(),
                OneOf(argument, values) => {
                    let values: Vec<String> = values.iter().map(|value| format!("{value:#x}")).collect();
                    format!("argument {argument} is one of {}", values.join(", "))
                }
                Without(argument, bits) => format!("argument {argument} has none of the bits {bits:#x}"),
                OwnSignal => "argument 0 is its own process, its own process group, or 0".to_owned(),
                OwnProcess => "argument 0 is its own process".to_owned(),
            };
            format!("| `{}` | {profile} | {when} | {} |\n", call.name, call.why)
        };
        let rows: String = CALLS.iter().map(row).collect();
        format!("{BEGIN}| call | profiles | when | why |\n|---|---|---|---|\n{rows}{END}")
    }

    /// The page's parts before and behind the table, and the table.
    fn page() -> (String, String, String) {
        let page = std::fs::read_to_string(PAGE).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (inside, after) = rest.split_once(END).unwrap();
        (before.to_owned(), format!("{BEGIN}{inside}{END}"), after.to_owned())
    }

    /// The page is of x86_64, which has a few more calls.
    #[test]
    #[cfg(target_arch = "x86_64")]
    fn docs_walls_md_has_this_table() {
        assert_eq!(page().1, table());
    }

    #[test]
    #[ignore = "writes docs/walls.md"]
    fn write_walls() {
        let (before, _, after) = page();
        std::fs::write(PAGE, format!("{before}{}{after}", table())).unwrap();
    }

    #[test]
    fn no_call_stands_twice_and_each_has_a_reason() {
        let numbers: std::collections::BTreeSet<_> = CALLS.iter().map(|call| call.number).collect();
        assert_eq!(numbers.len(), CALLS.len());
        assert!(CALLS.iter().all(|call| !call.why.is_empty()));
    }

    #[test]
    fn what_would_break_a_wall_is_in_no_profile() {
        let never = [
            libc::SYS_ptrace,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_pidfd_send_signal,
            libc::SYS_pidfd_getfd,
            libc::SYS_rt_sigqueueinfo,
            libc::SYS_tkill,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_bpf,
            libc::SYS_perf_event_open,
            libc::SYS_keyctl,
            libc::SYS_io_uring_setup,
            libc::SYS_userfaultfd,
            libc::SYS_init_module,
            libc::SYS_setuid,
            libc::SYS_setresuid,
            libc::SYS_prctl,
            libc::SYS_seccomp,
            libc::SYS_chroot,
            libc::SYS_pivot_root,
            libc::SYS_listen,
            libc::SYS_bind,
            libc::SYS_setpriority,
            libc::SYS_sched_setaffinity,
            libc::SYS_sched_setscheduler,
            libc::SYS_setsid,
        ];
        for number in never {
            assert!(CALLS.iter().all(|call| call.number != number), "{number}");
        }
    }
}
