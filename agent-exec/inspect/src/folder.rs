//! What a folder holds: names that fit, in order, and files beneath it.

use core::ffi::CStr;
use core::mem::MaybeUninit;

use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};
use rustix::io::{Errno, retry_on_intr};
use rustix::path::Arg;

use crate::error::{Error, Result};

/// Most names that are listed.
pub(crate) const MOST: usize = 1024;

/// Bytes of what a folder holds that are looked at together (getdents64(2)).
const ENTRIES: usize = 4096;

/// Opens a folder.
///
/// # Errors
/// The system's.
pub(crate) fn folder(path: impl Arg + Copy) -> Result<OwnedFd> {
    let folder = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(retry_on_intr(|| openat(CWD, path, folder, Mode::empty()))?)
}

/// The names in a folder that fit, in order: their bytes in `names`, and in `found` where each begins and ends.
///
/// # Errors
/// The system's, or that there are too many.
pub(crate) fn list<'a>(
    folder: BorrowedFd<'_>,
    fits: impl Fn(&[u8]) -> bool,
    names: &mut [u8],
    found: &'a mut [(usize, usize); MOST],
) -> Result<&'a [(usize, usize)]> {
    let mut memory = [MaybeUninit::uninit(); ENTRIES];
    let mut entries = RawDir::new(folder, &mut memory);
    let (mut count, mut used) = (0, 0);
    while let Some(entry) = entries.next() {
        let entry = entry.map_err(Error::from)?;
        let name = entry.file_name().to_bytes();
        if !fits(name) {
            continue;
        }
        let end = used + name.len();
        let (Some(place), Some(room)) = (found.get_mut(count), names.get_mut(used..end)) else {
            return Err(Error::Told("there are too many"));
        };
        room.copy_from_slice(name);
        *place = (used, end);
        (count, used) = (count + 1, end);
    }
    let found = found.get_mut(..count).unwrap_or_default();
    found.sort_unstable_by(|&one, &other| name(names, one).cmp(name(names, other)));
    Ok(found)
}

/// A name that was found.
pub(crate) fn name(names: &[u8], (start, end): (usize, usize)) -> &[u8] {
    names.get(start..end).unwrap_or_default()
}

/// Opens the path of these parts, the last of which ends with a null byte. `path` is memory for it.
///
/// # Errors
/// The system's.
pub(crate) fn open(beneath: BorrowedFd<'_>, parts: &[&[u8]], path: &mut [u8], flags: OFlags) -> Result<OwnedFd> {
    let mut used = 0;
    for part in parts {
        let end = used + part.len();
        let room = path.get_mut(used..end).ok_or(Error::System(Errno::NAMETOOLONG))?;
        room.copy_from_slice(part);
        used = end;
    }
    let path = CStr::from_bytes_until_nul(path).map_err(|_| Error::System(Errno::NAMETOOLONG))?;
    Ok(retry_on_intr(|| {
        openat(beneath, path, flags | OFlags::CLOEXEC, Mode::empty())
    })?)
}
