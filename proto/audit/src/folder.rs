//! The folder of a log: segments named by their first number, opened beneath one descriptor.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::dir::Dir;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, fchmod};
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::error::Error;
use crate::rights::Rights;

/// Segments are readable by the folder's group, which is that of the log shippers, whatever the umask.
const MODE: Mode = Mode::S_IRUSR.union(Mode::S_IWUSR).union(Mode::S_IRGRP);

/// A folder of segments.
pub(crate) struct Folder {
    dir: File,
    rights: Box<dyn Rights>,
}

/// The file name of the segment that begins with record `first`.
pub(crate) fn name(first: u64) -> String {
    format!("{first:020}.jsonl")
}

/// The number in a segment's file name; none when it is not one.
pub(crate) fn first_of(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(".jsonl")?;
    if digits.len() == 20 && digits.bytes().all(|c| c.is_ascii_digit()) {
        digits.parse().ok()
    } else {
        None
    }
}

impl Folder {
    /// Opens a folder that exists.
    pub(crate) fn open(path: &Path, rights: Box<dyn Rights>) -> Result<Self, Error> {
        let mut open = || {
            OpenOptions::new()
                .read(true)
                .custom_flags((OFlag::O_DIRECTORY | OFlag::O_CLOEXEC).bits())
                .open(path)
        };
        let dir = rights
            .with(&mut open)
            .map_err(Error::io("open the folder of the log"))?;
        Ok(Self { dir, rights })
    }

    /// With whose rights files are opened here.
    pub(crate) fn rights(&self) -> &dyn Rights {
        &*self.rights
    }

    /// The first numbers of all segments, in order.
    pub(crate) fn list(&self) -> Result<Vec<u64>, Error> {
        // A descriptor of its own, because reading moves its position, which a copy would share.
        let dir = self
            .at(".", OFlag::O_RDONLY | OFlag::O_DIRECTORY)
            .and_then(|dir| Ok(Dir::from_fd(dir.into())?));
        let mut firsts = Vec::new();
        for entry in dir.map_err(Error::io("list the log"))?.iter() {
            let entry = entry.map_err(|errno| Error::Io {
                what: "list the log",
                source: errno.into(),
            })?;
            firsts.extend(entry.file_name().to_str().ok().and_then(first_of));
        }
        firsts.sort_unstable();
        Ok(firsts)
    }

    /// Opens a segment for appending and for reading its end; none when there is none.
    pub(crate) fn segment(&self, first: u64) -> Result<Option<File>, Error> {
        match self.at(&name(first), OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_NOFOLLOW) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(Error::Io {
                what: "open a segment of the log",
                source,
            }),
        }
    }

    /// Makes a segment that did not exist. It is not durable before [`Folder::sync`].
    pub(crate) fn create(&self, first: u64) -> Result<File, Error> {
        let flags = OFlag::O_RDWR | OFlag::O_APPEND | OFlag::O_NOFOLLOW | OFlag::O_CREAT | OFlag::O_EXCL;
        let name = name(first);
        let mut open = || {
            let file = openat(&self.dir, name.as_str(), flags | OFlag::O_CLOEXEC, MODE)?;
            fchmod(&file, MODE)?;
            Ok(File::from(file))
        };
        self.rights
            .with(&mut open)
            .map_err(Error::io("begin a segment of the log"))
    }

    /// Takes back a segment that is still empty, as far as the folder lets us: one that stays is used later.
    pub(crate) fn take_back(&self, first: u64) {
        let mut unlink = || {
            let _ = unlinkat(&self.dir, name(first).as_str(), UnlinkatFlags::NoRemoveDir);
            self.dir.try_clone()
        };
        let _ = self.rights.with(&mut unlink);
    }

    /// Makes the folder's list of files durable.
    pub(crate) fn sync(&self) -> Result<(), Error> {
        self.dir
            .sync_all()
            .map_err(Error::io("make a segment of the log durable"))
    }

    fn at(&self, name: &str, flags: OFlag) -> io::Result<File> {
        self.rights.with(&mut || {
            Ok(File::from(openat(
                &self.dir,
                name,
                flags | OFlag::O_CLOEXEC,
                Mode::empty(),
            )?))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rights::Own;
    use std::os::unix::fs::PermissionsExt;

    /// REQ-RECORD-8
    #[test]
    fn names_are_twenty_digits_and_sort_as_numbers() {
        assert_eq!(name(42), "00000000000000000042.jsonl");
        assert_eq!(first_of(&name(u64::MAX)), Some(u64::MAX));
        for other in [
            "42.jsonl",
            "00000000000000000042.json",
            "+0000000000000000042.jsonl",
            "99999999999999999999.jsonl",
            "x",
        ] {
            assert_eq!(first_of(other), None, "{other}");
        }
    }

    /// REQ-RECORD-8
    #[test]
    fn segments_are_listed_in_order_created_once_and_readable_by_the_group() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), Box::new(Own)).unwrap();
        for first in [100, 1] {
            folder.create(first).unwrap();
        }
        std::fs::write(dir.path().join("notes"), "x").unwrap();
        assert_eq!(folder.list().unwrap(), [1, 100]);
        assert_eq!(folder.list().unwrap(), [1, 100]);
        assert!(folder.create(1).is_err());
        assert!(folder.segment(2).unwrap().is_none());
        let mode = std::fs::metadata(dir.path().join(name(1)))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o640);
        folder.take_back(100);
        assert_eq!(folder.list().unwrap(), [1]);
    }

    #[test]
    fn a_symlink_is_no_segment() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::open(dir.path(), Box::new(Own)).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join(name(1))).unwrap();
        assert!(folder.segment(1).is_err());
    }
}
