//! `inspect migrations`: the migrations in a folder, each with what it is approved by, the SHA-256 of its content.

use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{FileType, OFlags};
use rustix::io::retry_on_intr;
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::folder::{MOST, folder, list as names_in, name, open};
use crate::text::Part::{Foreign, Quoted};
use crate::text::{Gathered, Out, Words, words};
use crate::{BLOCK, End, Host};

/// Longest name: an id, and `.sql`.
const NAME: usize = 63 + 4;

/// Longest migration, in bytes: no longer file can be pinned.
const LONGEST: u64 = 32 << 20;

/// Bytes that are read and hashed together.
const READ: usize = 16 * 1024;

/// All migrations of the folder, one a line, in the order in which they are applied.
pub(crate) fn list<'a>(path: &'a str, host: &mut Host<'_>) -> End<'a> {
    if !path.starts_with('/') {
        return End::Usage(words!["FOLDER must be an absolute path, not ", Quoted(path)]);
    }
    let listed = folder(path).and_then(|found| list_in(found.as_fd(), path, host.block, host.stdout));
    match listed {
        Ok(()) => End::Done,
        Err(error) => End::Failed(words!["failed to list ", path, ": ", error]),
    }
}

fn list_in(folder: BorrowedFd<'_>, path: &str, block: &mut [u8; BLOCK], out: impl Out) -> Result<()> {
    let (names, memory) = block.split_at_mut(BLOCK / 2);
    let mut found = [(0, 0); MOST];
    let found = names_in(folder, is_migration, names, &mut found)?;
    let mut out = Gathered::new(memory, out);
    if found.is_empty() {
        Words::new(["no migrations".into()]).line(&mut out)?;
    }
    for place in found {
        let name = name(names, *place);
        match digest(folder, name) {
            Ok(digest) => {
                let digest = core::str::from_utf8(&digest).unwrap_or_default();
                words![path, "/", Foreign(name), " sha256 ", digest].line(&mut out)?;
            }
            Err(error) => words![path, "/", Foreign(name), ": ", error].line(&mut out)?,
        }
    }
    out.flush()
}

/// The SHA-256 of a file, in hexadecimal digits.
fn digest(folder: BorrowedFd<'_>, name: &[u8]) -> Result<[u8; 64]> {
    let mut path = [0; NAME + 1];
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK;
    let file = open(folder, &[name, b"\0"], &mut path, flags)?;
    let about = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(about.st_mode) != FileType::RegularFile {
        return Err(Error::Told("not a regular file"));
    }
    if u64::try_from(about.st_size).unwrap_or(u64::MAX) > LONGEST {
        return Err(Error::Told("longer than 32 MiB, the most that can be run"));
    }
    let mut hash = Sha256::new();
    let mut memory = [0; READ];
    loop {
        match retry_on_intr(|| rustix::io::read(&file, &mut memory))? {
            0 => break,
            read => hash.update(memory.get(..read).unwrap_or_default()),
        }
    }
    let mut text = [b'0'; 64];
    let digits = hash.finalize().into_iter().flat_map(|byte| [byte >> 4, byte & 15]);
    for (place, digit) in text.iter_mut().zip(digits) {
        *place = if digit < 10 { b'0' + digit } else { b'a' + digit - 10 };
    }
    Ok(text)
}

/// As manifests of migrations take them: an id of a-z 0-9 _ -, no `_` or `-` first, and `.sql`.
fn is_migration(name: &[u8]) -> bool {
    let part = |b: &u8| b.is_ascii_digit() || b.is_ascii_lowercase() || b"_-".contains(b);
    name.len() <= NAME
        && name
            .strip_suffix(b".sql")
            .is_some_and(|id| id.iter().all(part) && id.first().is_some_and(|b| !b"_-".contains(b)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;
    use std::path::Path;

    fn listed(root: &Path) -> Result<String> {
        let mut told = Vec::new();
        let path = root.to_str().unwrap();
        let found = folder(path)?;
        list_in(found.as_fd(), "/m", &mut [0; BLOCK], &mut told)?;
        Ok(String::from_utf8(told).unwrap())
    }

    #[test]
    fn migrations_are_listed_in_order_with_their_digests() {
        let root = std::env::temp_dir().join(format!("inspect-migrations-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        assert_eq!(listed(&root).unwrap(), "no migrations\n");
        for (name, content) in [
            ("0002_b.sql", "abc"),
            ("0001_a.sql", ""),
            ("0010_c.sql~", "x"),
            (".0001_a.sql", "x"),
            ("README", "x"),
            ("A.sql", "x"),
            (".sql", "x"),
            ("-1.sql", "x"),
        ] {
            std::fs::write(root.join(name), content).unwrap();
        }
        std::fs::write(root.join("0003_long.sql"), vec![b'a'; 1_000_000]).unwrap();
        std::os::unix::fs::symlink("0001_a.sql", root.join("0004_link.sql")).unwrap();
        std::fs::create_dir_all(root.join("0005_folder.sql")).unwrap();
        let file = std::fs::File::create(root.join("0006_huge.sql")).unwrap();
        file.set_len(LONGEST + 1).unwrap();
        // The second and the third are of FIPS 180-2, appendix B.
        let told = "\
/m/0001_a.sql sha256 e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855
/m/0002_b.sql sha256 ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad
/m/0003_long.sql sha256 cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0
/m/0004_link.sql: Too many levels of symbolic links (os error 40)
/m/0005_folder.sql: not a regular file
/m/0006_huge.sql: longer than 32 MiB, the most that can be run
";
        assert_eq!(listed(&root).unwrap(), told);
        for number in 0..MOST {
            std::fs::write(root.join(format!("9{number}.sql")), "").unwrap();
        }
        assert_eq!(listed(&root), Err(Error::Told("there are too many")));
        std::fs::remove_dir_all(&root).unwrap();
        assert_eq!(listed(&root), Err(Error::System(Errno::NOENT)));
    }
}
