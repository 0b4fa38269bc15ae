//! The unix socket that relays connect to.
//!
//! It appears under its name only with its final mode and group, so nobody else can connect in between.

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

/// Owner and group of the socket's folder may connect; who they are is asked afterwards.
const MODE: u32 = 0o660;

/// Listens at `path`, replacing a socket that nobody serves any more.
///
/// # Errors
/// When another process serves there, something else than a socket lies there, or the folder does not let us.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    check_free(path)?;
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    let beside = Path::new(&beside);
    match fs::remove_file(beside) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = UnixListener::bind(beside)?;
    fs::set_permissions(beside, Permissions::from_mode(MODE))?;
    let group = fs::metadata(path.parent().unwrap_or(Path::new("/")))?.gid();
    if fs::symlink_metadata(beside)?.gid() != group {
        chown(beside, None, Some(group))?;
    }
    fs::rename(beside, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn check_free(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::FileTypeExt;
    match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(e),
        Ok(meta) if !meta.file_type().is_socket() => {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                "something else than a socket lies there; move it away",
            ));
        }
        Ok(_) => {}
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process serves there; stop it first",
        )),
        Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_has_its_mode_and_the_group_of_its_folder() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.sock");
        let _listener = listen(&path).unwrap();
        let meta = fs::metadata(&path).unwrap();
        assert_eq!(meta.mode() & 0o7777, 0o660);
        assert_eq!(meta.gid(), fs::metadata(dir.path()).unwrap().gid());
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_or_a_file_is_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.sock");
        let live = listen(&path).unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        drop(live);
        let _again = listen(&path).unwrap();
        let file = dir.path().join("notes");
        fs::write(&file, "keep").unwrap();
        assert!(listen(&file).is_err());
        assert_eq!(fs::read_to_string(&file).unwrap(), "keep");
    }
}
