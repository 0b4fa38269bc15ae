//! The program of an action: opened once, and looked at before it may be run.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

/// Opens a program, which must be root's alone to write: what was checked is what will run, whatever the path means later.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn open(path: &Path) -> Result<OwnedFd, String> {
    open_if(path, fit)
}

/// Opens a program that takes other rights than its caller's: the same, with its set-user-id bit.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn open_set_id(path: &Path) -> Result<OwnedFd, String> {
    open_if(path, fit_set_id)
}

/// Opens a program that a judgement of its kind, owner and mode lets through.
fn open_if(path: &Path, fit: fn(bool, u32, u32) -> Result<(), &'static str>) -> Result<OwnedFd, String> {
    let said = |path: &Path, error: io::Error| format!("{}: {error}", path.display());
    let open = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH | libc::O_CLOEXEC)
        .open(path);
    let file = open.map_err(|error| said(path, error))?;
    // Where others may write a folder above it, the name means what they like; also above where a link leads.
    let real = path.canonicalize().map_err(|error| said(path, error))?;
    let real = (real != path).then_some(real);
    let elsewhere = real.iter().flat_map(|real| real.ancestors().skip(1));
    for folder in path.ancestors().skip(1).chain(elsewhere) {
        let about = folder.metadata().map_err(|error| said(folder, error))?;
        if !roots_alone(about.uid(), about.mode()) {
            return Err(format!(
                "{} must belong to root, and nobody else may write it",
                folder.display()
            ));
        }
    }
    let about = file.metadata().map_err(|error| said(path, error))?;
    fit(about.is_file(), about.uid(), about.mode()).map_err(|what| format!("{} {what}", path.display()))?;
    Ok(file.into())
}

/// Whether nobody but root can change what has this owner and mode.
fn roots_alone(uid: u32, mode: u32) -> bool {
    uid == 0 && mode & 0o022 == 0
}

/// Whether a file of this owner and mode may be run.
fn fit(is_file: bool, uid: u32, mode: u32) -> Result<(), &'static str> {
    if !is_file || !roots_alone(uid, mode) {
        return Err("must be a file that belongs to root and that nobody else may write");
    }
    // It would take other rights than the action's; no_new_privs stops it, this says so.
    if mode & 0o6000 != 0 {
        return Err("has a set-id bit");
    }
    Ok(())
}

/// The same for a program that has to take root's rights.
fn fit_set_id(is_file: bool, uid: u32, mode: u32) -> Result<(), &'static str> {
    match fit(is_file, uid, mode & !0o4000) {
        Ok(()) if mode & 0o4000 == 0 => Err("has no set-user-id bit"),
        other => other,
    }
}

/// An empty standard input.
///
/// # Errors
/// Where /dev/null is missing.
pub(crate) fn no_input() -> io::Result<OwnedFd> {
    Ok(File::open("/dev/null")?.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn only_a_file_that_root_alone_can_change_and_that_takes_no_other_rights_is_run() {
        for mode in [0o755, 0o555, 0o100, 0o744, 0o1755] {
            assert_eq!(fit(true, 0, mode), Ok(()), "{mode:o}");
        }
        let table = [
            (false, 0, 0o755, "must be a file"),
            (true, 1, 0o755, "must be a file"),
            (true, 0, 0o775, "must be a file"),
            (true, 0, 0o757, "must be a file"),
            (true, 1, 0o777, "must be a file"),
            (true, 0, 0o4755, "set-id"),
            (true, 0, 0o2755, "set-id"),
            (true, 0, 0o6755, "set-id"),
        ];
        for (is_file, uid, mode, what) in table {
            let told = fit(is_file, uid, mode).unwrap_err();
            assert!(told.contains(what), "{is_file} {uid} {mode:o}: {told}");
        }
    }

    #[test]
    fn what_takes_roots_rights_has_the_bit_and_is_roots_alone() {
        for mode in [0o4755, 0o4111, 0o4555] {
            assert_eq!(fit_set_id(true, 0, mode), Ok(()), "{mode:o}");
        }
        for (is_file, uid, mode, what) in [
            (true, 0, 0o755, "no set-user-id bit"),
            (true, 1, 0o4755, "must be a file"),
            (true, 0, 0o4775, "must be a file"),
            (true, 0, 0o4757, "must be a file"),
            (false, 0, 0o4755, "must be a file"),
            (true, 0, 0o6755, "has a set-id bit"),
        ] {
            let told = fit_set_id(is_file, uid, mode).unwrap_err();
            assert!(told.contains(what), "{is_file} {uid} {mode:o}: {told}");
        }
    }

    #[test]
    fn a_program_is_opened_where_its_whole_path_is_roots() {
        use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl};
        let opened = open(Path::new("/usr/bin/env")).unwrap();
        let flags = OFlag::from_bits_retain(fcntl(&opened, FcntlArg::F_GETFL).unwrap());
        assert!(flags.contains(OFlag::O_PATH), "a program need not be readable");
        let flags = FdFlag::from_bits_retain(fcntl(&opened, FcntlArg::F_GETFD).unwrap());
        assert!(flags.contains(FdFlag::FD_CLOEXEC));
        let table = [
            ("/usr/bin/there-is-none", "No such file"),
            ("", "No such file"),
            ("/usr/bin", "must be a file"),
            ("/dev/null", "must be a file"),
        ];
        for (path, what) in table {
            let told = open(Path::new(path)).unwrap_err();
            assert!(told.contains(what), "{path}: {told}");
        }
    }

    /// Also through a link that root made: the folder that the file is really in may be somebody's.
    #[test]
    fn a_program_in_a_folder_that_others_may_write_is_not_opened() {
        let base = std::env::temp_dir().join(format!("writ-program-{}", std::process::id()));
        std::fs::create_dir_all(&base).unwrap();
        std::fs::set_permissions(&base, std::fs::Permissions::from_mode(0o777)).unwrap();
        std::fs::copy("/usr/bin/env", base.join("env")).unwrap();
        let told = open(&base.join("env")).unwrap_err();
        std::os::unix::fs::symlink("/usr/bin/env", base.join("link")).unwrap();
        let linked = open(&base.join("link")).unwrap_err();
        std::fs::remove_dir_all(&base).unwrap();
        for told in [told, linked] {
            assert!(told.contains("must belong to root"), "{told}");
        }
    }

    #[test]
    fn no_input_is_at_its_end() {
        let mut text = Vec::new();
        File::from(no_input().unwrap()).read_to_end(&mut text).unwrap();
        assert!(text.is_empty());
    }
}
