//! Files of root's: read only if nobody else could have written them, written whole or not at all.

use std::fs::{File, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;

use crate::Failure;

/// Reads a text file; `None` if it is not there. It must be regular, not a link, belong to `owner`, and have none of the
/// `forbidden` mode bits.
pub(crate) fn read_owned(path: &Path, owner: u32, forbidden: u32, max: u64) -> Result<Option<String>, Failure> {
    let shown = path.display();
    let flags = OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let file = match OpenOptions::new().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.raw_os_error() == Some(nix::Error::ELOOP as i32) => {
            return Err(Failure::Refused(format!(
                "{shown} is a symbolic link: put the file itself there"
            )));
        }
        Err(error) => return Err(Failure::Failed(format!("failed to open {shown}: {error}"))),
    };
    let failed = |error: std::io::Error| Failure::Failed(format!("failed to read {shown}: {error}"));
    let metadata = file.metadata().map_err(failed)?;
    if !metadata.is_file() {
        return Err(Failure::Refused(format!("{shown} is not a regular file")));
    }
    if metadata.uid() != owner {
        let found = metadata.uid();
        return Err(Failure::Refused(format!(
            "{shown} belongs to user {found}: look who put it there, then `chown {owner} {shown}`"
        )));
    }
    if metadata.mode() & forbidden != 0 {
        let (found, wanted) = (metadata.mode() & 0o7777, metadata.mode() & 0o7777 & !forbidden);
        return Err(Failure::Refused(format!(
            "{shown} has mode {found:o}: others could have changed or read it; look at it, then `chmod {wanted:o} {shown}`"
        )));
    }
    let mut text = String::new();
    file.take(max + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > max {
        return Err(Failure::Refused(format!("{shown} has more than {max} bytes")));
    }
    Ok(Some(text))
}

/// A file that is not in its place yet. It goes away unless it is put there.
pub(crate) struct Draft {
    file: File,
    path: PathBuf,
    place: PathBuf,
    done: bool,
}

impl Draft {
    /// A new, empty file beside `place`, with this mode whatever the umask is.
    pub(crate) fn new(place: &Path, mode: u32) -> Result<Self, Failure> {
        let name = place.file_name().unwrap_or_default().to_string_lossy();
        let path = place.with_file_name(format!(".{name}.new"));
        let failed = |error: std::io::Error| Failure::Failed(format!("failed to create {}: {error}", path.display()));
        // One that an interrupted run left behind is in the way of create_new.
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&path)
            .map_err(failed)?;
        file.set_permissions(Permissions::from_mode(mode)).map_err(failed)?;
        Ok(Self {
            file,
            path,
            place: place.to_owned(),
            done: false,
        })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.file.write_all(bytes).map_err(|error| self.failed(&error))
    }

    /// Gives the file to another account.
    pub(crate) fn give_to(&self, uid: u32) -> Result<(), Failure> {
        fchown(&self.file, Some(uid), None).map_err(|error| self.failed(&error))
    }

    /// Puts the file in its place, over whatever is there, and makes that durable.
    pub(crate) fn replace(mut self) -> Result<(), Failure> {
        self.file
            .sync_all()
            .and_then(|()| std::fs::rename(&self.path, &self.place))
            .and_then(|()| self.sync_folder())
            .map_err(|error| self.failed(&error))?;
        self.done = true;
        Ok(())
    }

    /// Puts the file in its place if nothing is there; whether it did.
    pub(crate) fn place_new(self) -> Result<bool, Failure> {
        let placed = self
            .file
            .sync_all()
            .and_then(|()| match std::fs::hard_link(&self.path, &self.place) {
                Ok(()) => self.sync_folder().map(|()| true),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(error),
            });
        placed.map_err(|error| self.failed(&error))
    }

    fn sync_folder(&self) -> std::io::Result<()> {
        File::open(self.place.parent().unwrap_or(Path::new("/")))?.sync_all()
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        Failure::Failed(format!("failed to write {}: {error}", self.place.display()))
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.done {
            // Nobody looks at a draft; the next run removes what stays.
            let _gone = std::fs::remove_file(&self.path);
        }
    }
}

/// Writes a file that all may read and only the owner may write, unless it already has these bytes; whether it did.
pub(crate) fn install(place: &Path, bytes: &[u8]) -> Result<bool, Failure> {
    let same = std::fs::symlink_metadata(place).is_ok_and(|found| found.is_file() && found.mode() & 0o7777 == 0o644)
        && std::fs::read(place).is_ok_and(|found| found == bytes);
    if same {
        return Ok(false);
    }
    let mut draft = Draft::new(place, 0o644)?;
    draft.write(bytes)?;
    draft.replace()?;
    Ok(true)
}
