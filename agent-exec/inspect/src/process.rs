//! `inspect process`: whether a process of an exact name runs.

use core::ffi::CStr;
use core::mem::MaybeUninit;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::io::retry_on_intr;

use crate::End;
use crate::error::{Error, Result};
use crate::text::Part::Quoted;
use crate::text::words;

/// The kernel keeps 15 bytes of a process's name (TASK_COMM_LEN - 1, proc_pid_comm(5)).
const COMM: usize = 15;

/// Names of processes that are looked up at a time, in bytes of what getdents64(2) says of them.
const NAMES: usize = 4096;

/// More than the part of a `stat` that is of interest, in bytes: a number, a name of at most 64, and a letter.
const STAT: usize = 256;

/// Counts the living processes of that name.
pub(crate) fn probe(name: &str) -> End<'_> {
    if name.is_empty() || name.len() > COMM {
        return End::Usage(words![
            "NAME must have 1 to ",
            COMM as u64,
            " bytes, which is what the kernel keeps, not ",
            Quoted(name)
        ]);
    }
    match count(name) {
        Ok(0) => End::Unhealthy(words!["process ", name, ": not running"]),
        Ok(number) => End::Healthy(words!["process ", name, ": ", number, " running"]),
        Err(error) => End::Unhealthy(words!["process ", name, ": failed to read /proc: ", error]),
    }
}

fn count(name: &str) -> Result<u64> {
    let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let proc = retry_on_intr(|| openat(CWD, c"/proc", folder, Mode::empty()))?;
    let mut memory = [MaybeUninit::uninit(); NAMES];
    let mut entries = RawDir::new(proc.as_fd(), &mut memory);
    let mut found = 0;
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(Error::from)?;
        let pid = entry.file_name().to_bytes();
        if !pid.iter().all(u8::is_ascii_digit) {
            continue;
        }
        // One that ended meanwhile cannot be read, and does not run.
        let mut memory = [0; STAT];
        if let Some(stat) = stat(proc.as_fd(), pid, &mut memory)
            && lives_as(stat, name.as_bytes())
        {
            found += 1;
        }
    }
    Ok(found)
}

/// The beginning of a process's `stat`.
fn stat<'a>(proc: BorrowedFd<'_>, pid: &[u8], memory: &'a mut [u8; STAT]) -> Option<&'a [u8]> {
    const FILE: &[u8] = b"/stat\0";
    let (number, rest) = memory.split_at_mut_checked(pid.len())?;
    number.copy_from_slice(pid);
    rest.get_mut(..FILE.len())?.copy_from_slice(FILE);
    let path = CStr::from_bytes_until_nul(memory).ok()?;
    let file = retry_on_intr(|| openat(proc, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())).ok()?;
    let read = retry_on_intr(|| rustix::io::read(&file, &mut *memory)).ok()?;
    memory.get(..read)
}

/// Reads `PID (NAME) STATE …`, where the name may itself hold brackets and newlines. A zombie does not live.
fn lives_as(stat: &[u8], name: &[u8]) -> bool {
    let (Some(open), Some(close)) = (
        stat.iter().position(|b| *b == b'('),
        stat.iter().rposition(|b| *b == b')'),
    ) else {
        return false;
    };
    stat.get(open + 1..close) == Some(name) && !matches!(stat.get(close + 2), None | Some(b'Z' | b'X' | b'x'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_compared_whole_and_zombies_do_not_count() {
        assert!(lives_as(b"1 (nginx) S 0", b"nginx"));
        assert!(lives_as(b"1 (a) R (b)) S 0", b"a) R (b)"));
        assert!(!lives_as(b"1 (nginx-old) S 0", b"nginx"));
        assert!(!lives_as(b"1 (nginx) Z 0", b"nginx"));
        assert!(!lives_as(b"", b"nginx"));
    }

    #[test]
    fn this_process_is_found() {
        let own = std::fs::read_to_string("/proc/self/comm").unwrap();
        assert!(matches!(probe(own.trim_end_matches('\n')), End::Healthy(_)));
        assert!(matches!(probe("no-such-name"), End::Unhealthy(_)));
    }
}
