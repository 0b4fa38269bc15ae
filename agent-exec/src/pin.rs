//! Files that are approved by their content: copied to where nobody can change them, and only then looked at.
//!
//! A file that was hashed through a descriptor can be overwritten in place before it is read again. A sealed memfd
//! (memfd_create(2), F_ADD_SEALS) cannot, so the copy is sealed first, then hashed, and only the copy is handed over.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use sha2::{Digest as _, Sha256};
use wire::Code;
use wire::ids::Digest;

use crate::paths::PathRefused;

/// Longest file that can be pinned, in bytes: the copy is memory.
const MAX: u64 = 32 << 20;

/// Copies a file and compares the copy with the digest that was asked for.
///
/// # Errors
/// `file_changed` when it has another content, `path_refused` when it is too long or cannot be copied.
pub(crate) fn pin(file: File, sha256: &str) -> Result<File, PathRefused> {
    let refused = |message: String| PathRefused {
        code: Code::PathRefused,
        message,
    };
    let failed = |error: std::io::Error| refused(format!("it could not be copied: {error}"));
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut copy = File::from(memfd_create(c"pinned", flags).map_err(|errno| failed(errno.into()))?);
    let mut from = file.take(MAX + 1);
    let mut block = vec![0_u8; 64 * 1024];
    let mut length = 0_u64;
    loop {
        let count = from.read(&mut block).map_err(failed)?;
        if count == 0 {
            break;
        }
        length += count as u64;
        if length > MAX {
            return Err(refused(format!(
                "it has more than {MAX} bytes, the most for a file that is pinned"
            )));
        }
        copy.write_all(&block[..count]).map_err(failed)?;
    }
    let seals = SealFlag::F_SEAL_SEAL | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_WRITE;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals)).map_err(|errno| failed(errno.into()))?;
    copy.seek(SeekFrom::Start(0)).map_err(failed)?;
    let mut hash = Sha256::new();
    loop {
        match copy.read(&mut block).map_err(failed)? {
            0 => break,
            count => hash.update(&block[..count]),
        }
    }
    let found = Digest::from_bytes(&hash.finalize().into());
    if found.as_str() != sha256 {
        return Err(PathRefused {
            code: Code::FileChanged,
            message: format!("its content is {found}, not what was asked for"),
        });
    }
    copy.seek(SeekFrom::Start(0)).map_err(failed)?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("writ-pin-{}-{}", std::process::id(), content.len()));
        std::fs::write(&path, content).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }

    #[test]
    fn a_pinned_file_is_the_one_that_was_asked_for_and_cannot_be_changed() {
        let mut pinned = pin(file(b"select 1;"), Digest::of(b"select 1;").as_str()).unwrap();
        let mut text = String::new();
        pinned.read_to_string(&mut text).unwrap();
        assert_eq!(text, "select 1;");
        assert!(pinned.write_all(b"x").is_err());
        assert!(pinned.set_len(0).is_err());
    }

    #[test]
    fn pinned_file_changed_is_refused() {
        let refused = pin(file(b"drop table;"), Digest::of(b"select 1;").as_str()).unwrap_err();
        assert_eq!(refused.code, Code::FileChanged);
    }
}
