//! `inspect service` and `inspect services`: whether services of runit run, by what their supervisors wrote.
//!
//! runsv keeps the state of a service in words, `supervise/stat`, and the process that runs, `supervise/pid` (runsv(8)). `sv
//! status` would ask the supervisor itself, which only root may.

use std::io::ErrorKind;
use std::path::Path;

use crate::End;

/// Where runit's services are.
const SERVICES: &str = "/etc/service";

/// Longest name.
const NAME: usize = 64;

/// What is known of a service.
#[derive(Debug, PartialEq, Eq)]
enum State {
    /// It runs, as this process.
    Runs(String),
    /// It does not, or is about to change: what its supervisor says.
    Not(String),
}

/// Whether a service runs.
pub(crate) fn probe(name: &str) -> End {
    if !is_name(name) {
        return End::Usage(format!(
            "NAME must have 1 to {NAME} of A-Z a-z 0-9 _ . @ + -, and no dot or dash first, not {name:?}"
        ));
    }
    match look(Path::new(SERVICES), name) {
        State::Runs(pid) => End::Healthy(format!("service {name}: run, pid {pid}")),
        State::Not(what) => End::Unhealthy(format!("service {name}: {what}")),
    }
}

/// All services, one a line.
pub(crate) fn list() -> End {
    list_in(Path::new(SERVICES))
}

fn list_in(services: &Path) -> End {
    let found = match std::fs::read_dir(services) {
        Ok(found) => found,
        Err(error) => return End::Failed(format!("failed to read {}: {error}", services.display())),
    };
    let mut names: Vec<String> = found
        .flatten()
        .filter_map(|entry| entry.file_name().into_string().ok())
        .filter(|name| is_name(name))
        .collect();
    names.sort();
    let lines: Vec<String> = names
        .iter()
        .map(|name| match look(services, name) {
            State::Runs(pid) => format!("{name}: run, pid {pid}"),
            State::Not(what) => format!("{name}: {what}"),
        })
        .collect();
    if lines.is_empty() {
        return End::Healthy("no services".to_owned());
    }
    End::Healthy(lines.join("\n"))
}

/// A name that leads nowhere but into the folder.
fn is_name(name: &str) -> bool {
    (1..=NAME).contains(&name.len())
        && !name.starts_with(['.', '-'])
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.@+-".contains(&b))
}

fn look(services: &Path, name: &str) -> State {
    let supervise = services.join(name).join("supervise");
    let read = |file: &str| std::fs::read_to_string(supervise.join(file));
    match (read("stat"), read("pid")) {
        (Ok(stat), Ok(pid)) => judge(stat.trim(), pid.trim(), |pid| {
            // Where nobody's processes are shown nothing is known of this one.
            Path::new("/proc").join(pid).exists() || !Path::new("/proc/1").exists()
        }),
        (Err(error), _) | (_, Err(error)) if error.kind() == ErrorKind::NotFound => {
            State::Not("not supervised".to_owned())
        }
        (Err(error), _) | (_, Err(error)) => {
            State::Not(format!("failed to look into {}: {error}", supervise.display()))
        }
    }
}

/// A service runs where its supervisor says just that, and the process is there.
fn judge(stat: &str, pid: &str, lives: impl FnOnce(&str) -> bool) -> State {
    let is_pid = !pid.is_empty() && pid.bytes().all(|b| b.is_ascii_digit());
    match stat {
        "run" if is_pid && lives(pid) => State::Runs(pid.to_owned()),
        "run" => State::Not("it was to run, and its process is gone".to_owned()),
        other => State::Not(other.chars().filter(|c| !c.is_control()).take(80).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_runs_where_its_supervisor_says_so_and_its_process_is_there() {
        assert_eq!(judge("run", "12", |_| true), State::Runs("12".to_owned()));
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
    fn all_services_are_listed_with_what_is_known_of_each() {
        let folder = std::env::temp_dir().join(format!("inspect-services-{}", std::process::id()));
        let put = |name: &str, stat: &str, pid: &str| {
            let supervise = folder.join(name).join("supervise");
            std::fs::create_dir_all(&supervise).unwrap();
            std::fs::write(supervise.join("stat"), stat).unwrap();
            std::fs::write(supervise.join("pid"), pid).unwrap();
        };
        let own = std::process::id();
        put("b", "run\n", &format!("{own}\n"));
        put("c", "down\n", "");
        std::fs::create_dir_all(folder.join("a")).unwrap();
        std::fs::create_dir_all(folder.join(".d")).unwrap();
        let listed = list_in(&folder);
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(
            listed,
            End::Healthy(format!("a: not supervised\nb: run, pid {own}\nc: down"))
        );
        assert!(matches!(list_in(&folder), End::Failed(_)));
    }
}
