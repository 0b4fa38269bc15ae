//! `inspect service` and `inspect services`: whether services of runit run, by what their supervisors wrote.
//!
//! runsv keeps the state of a service in words, `supervise/stat`, and the process that runs, `supervise/pid` (runsv(8)). `sv
//! status` would ask the supervisor itself, which only root may.

use core::ffi::CStr;

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{CWD, OFlags};
use rustix::io::{Errno, retry_on_intr};

use crate::error::{Error, Result};
use crate::folder::{MOST, folder, list as names_in, name, open};
use crate::text::Part::{Foreign, Quoted};
use crate::text::{Gathered, Out, Part, Words, words};
use crate::{BLOCK, End, Host, number};

/// Where runit's services are.
const SERVICES: &CStr = c"/etc/service";

/// Longest name.
const NAME: usize = 64;

/// Bytes of what a supervisor says, which has some forty at most.
const SAID: usize = 128;

/// What is known of a service.
#[derive(Debug, PartialEq, Eq)]
enum State<'a> {
    /// It runs, as this process.
    Runs(u64),
    /// It does not, or is about to change: what its supervisor says.
    Not(Part<'a>),
    /// Nobody can say.
    Unknown(Error),
}

/// Whether a service runs. `said` is memory for what its supervisor says.
pub(crate) fn probe<'a>(name: &'a str, said: &'a mut [u8]) -> End<'a> {
    if !is_name(name.as_bytes()) {
        return End::Usage(words![
            "NAME must have 1 to ",
            NAME as u64,
            " of A-Z a-z 0-9 _ . @ + -, and no dot or dash first, not ",
            Quoted(name)
        ]);
    }
    let services = match folder(SERVICES) {
        Ok(services) => services,
        Err(error) => return End::Unhealthy(words!["service ", name, ": failed to look into /etc/service: ", error]),
    };
    match look(services.as_fd(), name.as_bytes(), said) {
        State::Runs(pid) => End::Healthy(words!["service ", name, ": run, pid ", pid]),
        State::Not(what) => End::Unhealthy(words!["service ", name, ": ", what]),
        State::Unknown(error) => End::Unhealthy(words!["service ", name, ": failed to look at it: ", error]),
    }
}

/// All services, one a line.
pub(crate) fn list(host: &mut Host<'_>) -> End<'static> {
    let listed = folder(SERVICES).and_then(|services| list_in(services.as_fd(), host.block, host.stdout));
    match listed {
        Ok(()) => End::Done,
        Err(error) => End::Failed(words!["failed to list /etc/service: ", error]),
    }
}

fn list_in(services: BorrowedFd<'_>, block: &mut [u8; BLOCK], out: impl Out) -> Result<()> {
    let (names, memory) = block.split_at_mut(BLOCK / 2);
    let mut found = [(0, 0); MOST];
    let found = names_in(services, is_name, names, &mut found)?;
    let mut out = Gathered::new(memory, out);
    if found.is_empty() {
        Words::new([Part::from("no services")]).line(&mut out)?;
    }
    for place in found {
        let mut said = [0; SAID];
        let name = name(names, *place);
        let state = look(services, name, &mut said);
        let name = Foreign(name);
        match state {
            State::Runs(pid) => words![name, ": run, pid ", pid].line(&mut out)?,
            State::Not(what) => words![name, ": ", what].line(&mut out)?,
            State::Unknown(error) => words![name, ": failed to look at it: ", error].line(&mut out)?,
        }
    }
    out.flush()
}

/// A name that leads nowhere but into the folder.
fn is_name(name: &[u8]) -> bool {
    (1..=NAME).contains(&name.len())
        && !name.starts_with(b".")
        && !name.starts_with(b"-")
        && name.iter().all(|b| b.is_ascii_alphanumeric() || b"_.@+-".contains(b))
}

fn look<'a>(services: BorrowedFd<'_>, name: &[u8], said: &'a mut [u8]) -> State<'a> {
    let mut memory = [0; SAID];
    let pid = read(services, name, b"/supervise/pid\0", &mut memory);
    match (read(services, name, b"/supervise/stat\0", said), pid) {
        (Ok(stat), Ok(pid)) => judge(stat.trim_ascii(), pid.trim_ascii(), |pid| {
            // Where nobody's processes are shown nothing is known of this one.
            is_there(pid) || !is_there(b"1")
        }),
        (Err(Error::System(Errno::NOENT)), _) | (_, Err(Error::System(Errno::NOENT))) => {
            State::Not("not supervised".into())
        }
        (Err(error), _) | (_, Err(error)) => State::Unknown(error),
    }
}

/// The beginning of a file of a service.
fn read<'a>(services: BorrowedFd<'_>, name: &[u8], file: &[u8], memory: &'a mut [u8]) -> Result<&'a [u8]> {
    let mut path = [0; NAME + 32];
    let file = open(services, &[name, file], &mut path, OFlags::RDONLY | OFlags::NONBLOCK)?;
    let read = retry_on_intr(|| rustix::io::read(&file, &mut *memory))?;
    Ok(memory.get(..read).unwrap_or_default())
}

fn is_there(pid: &[u8]) -> bool {
    let mut path = [0; 64];
    open(CWD, &[b"/proc/", pid, b"\0"], &mut path, OFlags::PATH).is_ok()
}

/// A service runs where its supervisor says just that, and the process is there.
fn judge<'a>(stat: &'a [u8], pid: &[u8], lives: impl FnOnce(&[u8]) -> bool) -> State<'a> {
    let process = core::str::from_utf8(pid)
        .ok()
        .filter(|pid| !pid.is_empty())
        .and_then(number);
    match (stat, process) {
        (b"run", Some(process)) if lives(pid) => State::Runs(process),
        (b"run", _) => State::Not("it was to run, and its process is gone".into()),
        (other, _) => State::Not(Foreign(other)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_runs_where_its_supervisor_says_so_and_its_process_is_there() {
        assert_eq!(judge(b"run", b"12", |_| true), State::Runs(12));
        for (stat, pid, lives) in [
            ("run", "12", false),
            ("run", "", true),
            ("run", "x", true),
            ("down", "", true),
            ("finish", "12", true),
            ("run, got TERM", "12", true),
            ("run, paused", "12", true),
            ("run, want down", "12", true),
            ("", "12", true),
        ] {
            assert!(
                matches!(judge(stat.as_bytes(), pid.as_bytes(), |_| lives), State::Not(_)),
                "{stat:?} {pid:?} {lives}"
            );
        }
    }

    #[test]
    fn names_lead_nowhere_else() {
        for good in ["nginx", "a.b", "getty-tty1", "app@1", "0"] {
            assert!(is_name(good.as_bytes()), "{good}");
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
            assert!(!is_name(bad.as_bytes()), "{bad:?}");
            assert!(matches!(probe(bad, &mut [0; SAID]), End::Usage(_)), "{bad:?}");
        }
    }

    #[test]
    fn all_services_are_listed_with_what_is_known_of_each() {
        let root = std::env::temp_dir().join(format!("inspect-services-{}", std::process::id()));
        let put = |name: &str, stat: &str, pid: &str| {
            let supervise = root.join(name).join("supervise");
            std::fs::create_dir_all(&supervise).unwrap();
            std::fs::write(supervise.join("stat"), stat).unwrap();
            std::fs::write(supervise.join("pid"), pid).unwrap();
        };
        let listed = || {
            let path = std::ffi::CString::new(root.to_str().unwrap()).unwrap();
            let mut told = Vec::new();
            let services = folder(path.as_c_str())?;
            list_in(services.as_fd(), &mut [0; BLOCK], &mut told)?;
            Ok::<_, Error>(String::from_utf8(told).unwrap())
        };
        std::fs::create_dir_all(&root).unwrap();
        assert_eq!(listed().unwrap(), "no services\n");
        let own = std::process::id();
        put("b", "run\n", &format!("{own}\n"));
        put("c", "down\n", "");
        put("e", "\u{1b}[2J\n", "");
        std::fs::create_dir_all(root.join("a")).unwrap();
        std::fs::create_dir_all(root.join(".d")).unwrap();
        let told = listed().unwrap();
        assert_eq!(
            told,
            format!("a: not supervised\nb: run, pid {own}\nc: down\ne: \\x1b[2J\n")
        );
        for number in 0..MOST {
            std::fs::create_dir(root.join(format!("many-{number}"))).unwrap();
        }
        assert_eq!(listed(), Err(Error::Told("there are too many")));
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(listed(), Err(Error::System(Errno::NOENT)));
    }
}
