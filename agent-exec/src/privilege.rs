//! Actions that run as root: by sudo, from writ-exec, and only what sudoers lists line by line.
//!
//! Nothing stands around such a program, and its record says so. sudo gives it its environment and umask, closes what else
//! is open, passes on the signal that asks it to end, and ends it when the time of its rule is over: root's process itself
//! is out of reach from here.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use catalogue::manifest::SUDO_PATIENCE_MS;

use crate::program;

/// The one sudo that is run.
const SUDO: &str = "/usr/bin/sudo";

/// How long sudo may take to end its program once it was asked to: its own time is counted in whole seconds from a later
/// start, and between the signal that asks and the one that does not it waits for two.
pub(crate) const PATIENCE: Duration = Duration::from_millis(SUDO_PATIENCE_MS);

/// A command line as sudo is asked for it: without a question, as root, and nothing behind `--` is an option.
pub(crate) fn by_sudo(argv: Vec<String>) -> Vec<String> {
    let sudo = [SUDO, "-n", "-u", "root", "--"];
    sudo.into_iter().map(str::to_owned).chain(argv).collect()
}

/// Opens sudo, after the program that it is to run was found to be root's alone.
///
/// # Errors
/// What is wrong with either.
pub(crate) fn open(of_action: &Path) -> Result<OwnedFd, String> {
    program::open(of_action)?;
    program::open_set_id(Path::new(SUDO))
}

/// What stands around it, for the record.
pub(crate) fn names() -> Vec<String> {
    vec!["no_sandbox".to_owned(), "sudo:root".to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sudo_is_asked_in_one_way() {
        let argv = by_sudo(vec!["/usr/bin/x".to_owned(), "-y".to_owned()]);
        assert_eq!(argv, ["/usr/bin/sudo", "-n", "-u", "root", "--", "/usr/bin/x", "-y"]);
        assert_eq!(names(), ["no_sandbox", "sudo:root"]);
    }

    #[test]
    fn what_sudo_would_run_is_looked_at_first() {
        let told = open(Path::new("/usr/bin/there-is-none")).unwrap_err();
        assert!(told.contains("there-is-none"), "{told}");
        let told = open(Path::new(SUDO)).unwrap_err();
        assert!(told.contains("set-id"), "{told}");
    }
}
