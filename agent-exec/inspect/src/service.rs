//! `inspect service` and `inspect services`: whether services of runit run, by what their supervisors wrote.
//!
//! runsv keeps the state of a service in words, `supervise/stat`, and the process that runs, `supervise/pid` (runsv(8)). `sv
//! status` would ask the supervisor itself, which only root may.

use core::ffi::CStr;
use core::mem::MaybeUninit;

use rustix::fd::AsFd;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, RawDir, openat, statat};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, Result};
use crate::text::Part::{Foreign, Quoted};
use crate::text::{Part, say, words};
use crate::{End, Host};

/// Where runit's services are.
const SERVICES: &str = "/etc/service/";

/// Longest name.
const NAME: usize = 64;

/// More than any path that is opened here, in bytes.
const PATH: usize = 128;

/// More than a supervisor writes into both of its files, in bytes.
const STATE: usize = 256;

/// Names that are looked up at a time, in bytes of what getdents64(2) says of them.
const NAMES: usize = 4096;

/// What is known of a service.
#[derive(Debug, PartialEq, Eq)]
enum State<'a> {
    /// It runs, as this process.
    Runs(&'a str),
    /// It does not, or is about to change: what its supervisor says.
    Not(Part<'a>),
}

/// Whether a service runs. `memory` is for what its supervisor wrote, which the end may repeat.
pub(crate) fn probe<'a>(name: &'a str, memory: &'a mut [u8]) -> End<'a> {
    if !is_name(name) {
        return End::Usage(words![
            "NAME must have 1 to ",
            NAME as u64,
            " of A-Z a-z 0-9 _ . @ + -, no dot or dash first, not ",
            Quoted(name)
        ]);
    }
    match look(SERVICES, name, memory) {
        State::Runs(pid) => End::Healthy(words!["service ", name, ": run, pid ", pid]),
        State::Not(what) => End::Unhealthy(words!["service ", name, ": ", what]),
    }
}

/// All services, one a line, in the order of their folder.
pub(crate) fn list<'a>(host: &mut Host<'_>) -> End<'a> {
    match list_in(SERVICES, host) {
        Ok(()) => End::Done,
        Err(error) => End::Failed(words!["failed to list ", SERVICES, ": ", error]),
    }
}

fn list_in(services: &str, host: &mut Host<'_>) -> Result<()> {
    let mut path = [0; PATH];
    let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = joined(&mut path, &[services])?;
    let folder = retry_on_intr(|| openat(CWD, path, folder, Mode::empty()))?;
    let mut memory = [MaybeUninit::uninit(); NAMES];
    let mut entries = RawDir::new(folder.as_fd(), &mut memory);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(Error::from)?;
        let Some(name) = entry.file_name().to_str().ok().filter(|name| is_name(name)) else {
            continue;
        };
        let mut memory = [0; STATE];
        let line = match look(services, name, &mut memory) {
            State::Runs(pid) => words![name, ": run, pid ", pid],
            State::Not(what) => words![name, ": ", what],
        };
        if say(host, &line, 0) != 0 {
            return Err(Error::Told("nobody takes the answer"));
        }
    }
    Ok(())
}

/// A name that leads nowhere but into the folder.
fn is_name(name: &str) -> bool {
    (1..=NAME).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.@+-".contains(&b))
}

/// Parts of a path, put together in memory that is lent.
fn joined<'a>(memory: &'a mut [u8; PATH], parts: &[&str]) -> Result<&'a CStr> {
    let mut len = 0;
    for part in parts {
        let place = memory.get_mut(len..len + part.len()).ok_or(Errno::NAMETOOLONG)?;
        place.copy_from_slice(part.as_bytes());
        len += part.len();
    }
    CStr::from_bytes_until_nul(memory).map_err(|_| Errno::NAMETOOLONG.into())
}

fn look<'a>(services: &str, name: &str, memory: &'a mut [u8]) -> State<'a> {
    let (stat, pid) = memory.split_at_mut(memory.len() / 2);
    let both = read(&[services, name, "/supervise/stat"], stat)
        .and_then(|stat| Ok((stat, read(&[services, name, "/supervise/pid"], pid)?)));
    match both {
        Ok((stat, pid)) => judge(stat, pid, lives),
        Err(Error::System(Errno::NOENT)) => State::Not("not supervised".into()),
        Err(error) => State::Not(error.into()),
    }
}

/// The first line of a small file.
fn read<'a>(path: &[&str], memory: &'a mut [u8]) -> Result<&'a [u8]> {
    let mut name = [0; PATH];
    let name = joined(&mut name, path)?;
    let file = retry_on_intr(|| openat(CWD, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()))?;
    let length = retry_on_intr(|| rustix::io::read(&file, &mut *memory))?;
    let text = memory.get(..length).unwrap_or_default();
    Ok(text.split(|b| *b == b'\n').next().unwrap_or_default())
}

/// Whether a process is there. Where nobody's processes are shown nothing is known of this one.
fn lives(pid: &str) -> bool {
    let there = |pid: &str| {
        let mut path = [0; PATH];
        joined(&mut path, &["/proc/", pid]).is_ok_and(|path| statat(CWD, path, AtFlags::empty()).is_ok())
    };
    there(pid) || !there("1")
}

/// A service runs where its supervisor says just that, and the process is there.
fn judge<'a>(stat: &'a [u8], pid: &'a [u8], lives: impl FnOnce(&str) -> bool) -> State<'a> {
    let pid = core::str::from_utf8(pid)
        .ok()
        .filter(|pid| !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit()));
    match (stat, pid) {
        (b"run", Some(pid)) if lives(pid) => State::Runs(pid),
        (b"run", _) => State::Not("it was to run, and its process is gone".into()),
        (other, _) => State::Not(Foreign(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_runs_where_its_supervisor_says_so_and_its_process_is_there() {
        assert_eq!(judge(b"run", b"12", |_| true), State::Runs("12"));
        let table: [(&[u8], &[u8], bool); 9] = [
            (b"run", b"12", false),
            (b"run", b"", true),
            (b"run", b"x", true),
            (b"down", b"", true),
            (b"finish", b"12", true),
            (b"run, got TERM", b"12", true),
            (b"run, paused", b"12", true),
            (b"run, want down", b"12", true),
            (b"", b"12", true),
        ];
        for (stat, pid, lives) in table {
            assert!(
                matches!(judge(stat, pid, |_| lives), State::Not(_)),
                "{stat:?} {pid:?} {lives}"
            );
        }
    }

    #[test]
    fn names_lead_nowhere_else() {
        for good in ["nginx", "a.b", "getty-tty1", "app@1", "0"] {
            assert!(is_name(good), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".hidden",
            "-x",
            "a/b",
            "../x",
            "a b",
            "a\n",
            "é",
            &"x".repeat(65),
        ] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn what_a_supervisor_wrote_is_read_and_shown_escaped() {
        let folder = std::env::temp_dir().join(format!("inspect-{}", std::process::id()));
        let put = |name: &str, stat: &str, pid: &str| {
            let supervise = folder.join(name).join("supervise");
            std::fs::create_dir_all(&supervise).unwrap();
            std::fs::write(supervise.join("stat"), stat).unwrap();
            std::fs::write(supervise.join("pid"), pid).unwrap();
        };
        let own = std::process::id().to_string();
        put("b", "run\n", &format!("{own}\n"));
        put("c", "down\x1b[2J\nmore", "");
        std::fs::create_dir_all(folder.join("a")).unwrap();
        let services = format!("{}/", folder.display());
        let told = |name: &str| match look(&services, name, &mut [0; STATE]) {
            State::Runs(pid) => format!("run {pid}"),
            State::Not(what) => words![what].told(),
        };
        let all = [told("a"), told("b"), told("c")];
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            all,
            [
                "not supervised".to_owned(),
                format!("run {own}"),
                "down\\x1b[2J".to_owned()
            ]
        );
    }
}
