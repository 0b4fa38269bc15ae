//! The policy file, watched: a new one is taken when it is whole, and never while somebody writes it.
//!
//! Whoever watches looks once a second. What is there must be the same at two looks, and while it is read: its place,
//! length, owner, mode and times. A writer that stops for longer than that within the file is not told apart from one
//! that is done, so the way to change a policy is to put the new file in the place of the old one (`mv`).

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::unistd::geteuid;

/// A file that decides something, as it is now: nobody but its owner, root or us, may write it.
///
/// # Errors
/// What is wrong with it and what to do.
pub fn read_trusted(path: &Path, max: u64) -> Result<Vec<u8>, String> {
    stamped(path, max).and_then(|(_, bytes)| bytes)
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    place: (u64, u64),
    bytes: u64,
    owner: (u32, u32),
    written: (i64, i64),
    /// Unlike the time of writing, nobody can set this one.
    changed: (i64, i64),
}

/// What a look found: a file, or why there is none.
type Sight = Result<Stamp, String>;

/// The file that a policy comes from.
#[derive(Debug)]
pub struct PolicyFile {
    path: PathBuf,
    max: u64,
    /// What was told last; `None` before the first look.
    told: Option<Sight>,
    /// What the last look found that was not told yet.
    settling: Option<Sight>,
}

/// What a look says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Look {
    /// What was told last is still there, or is being changed.
    Same,
    /// Another file, whole.
    New(Vec<u8>),
    /// There is none that can be used.
    Unusable(String),
}

impl PolicyFile {
    /// A file that has not been looked at.
    #[must_use]
    pub fn new(path: &Path, max: u64) -> Self {
        Self {
            path: path.to_owned(),
            max,
            told: None,
            settling: None,
        }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Forgets what was told: what is there is told again, when it has been the same at two looks.
    pub fn forget(&mut self) {
        self.told = None;
    }

    /// Looks: one stat(2) unless something changed.
    #[must_use]
    pub fn look(&mut self) -> Look {
        let sight = sight(&self.path);
        if self.told.as_ref() == Some(&sight) {
            self.settling = None;
            return Look::Same;
        }
        if self.settling.as_ref() != Some(&sight) {
            self.settling = Some(sight);
            return Look::Same;
        }
        let look = match stamped(&self.path, self.max) {
            // Somebody is at it: the next look begins anew.
            Ok((stamp, _)) if sight != Ok(stamp) => return Look::Same,
            Ok((_, Ok(bytes))) => Look::New(bytes),
            Ok((_, Err(what))) | Err(what) => Look::Unusable(what),
        };
        self.told = self.settling.take();
        look
    }
}

fn sight(path: &Path) -> Sight {
    std::fs::metadata(path)
        .map(|meta| stamp(&meta))
        .map_err(|e| e.to_string())
}

fn stamp(meta: &std::fs::Metadata) -> Stamp {
    Stamp {
        place: (meta.dev(), meta.ino()),
        bytes: meta.len(),
        owner: (meta.uid(), meta.mode()),
        written: (meta.mtime(), meta.mtime_nsec()),
        changed: (meta.ctime(), meta.ctime_nsec()),
    }
}

/// Opens and reads a file, and says which one it was: the inner error is about a file that is as it should not be.
fn stamped(path: &Path, max: u64) -> Result<(Stamp, Result<Vec<u8>, String>), String> {
    let at = |what: &str| format!("failed to read {}: {what}", path.display());
    let failed = |e: std::io::Error| at(&format!("{e}; it must be there, and readable for the CA's account"));
    // Asked before it is opened: a FIFO would wait for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(at("it is not a file; name one"));
    }
    let mut file = File::open(path).map_err(failed)?;
    let meta = file.metadata().map_err(failed)?;
    let before = stamp(&meta);
    let fault = if !meta.is_file() {
        Some("it is not a file; name one".to_owned())
    } else if meta.len() > max {
        Some(format!("it has more than {max} bytes; shorten it"))
    } else if meta.mode() & 0o022 != 0 {
        let mode = meta.mode() & 0o7777;
        Some(format!(
            "mode {mode:04o}, it must not be writable for group or others; chmod go-w it"
        ))
    } else if meta.uid() != 0 && meta.uid() != geteuid().as_raw() {
        Some(format!("it is owned by uid {}; chown it to root", meta.uid()))
    } else {
        None
    };
    if let Some(fault) = fault {
        return Ok((before, Err(at(&fault))));
    }
    let mut bytes = Vec::new();
    (&mut file).take(max + 1).read_to_end(&mut bytes).map_err(failed)?;
    let after = stamp(&file.metadata().map_err(failed)?);
    if before != after || bytes.len() as u64 != after.bytes {
        return Ok((after, Err(at("it was changed while it was read; try again"))));
    }
    Ok((after, Ok(bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::Write;
    use std::os::unix::fs::PermissionsExt;

    fn file(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    }

    fn twice(watched: &mut PolicyFile) -> [Look; 2] {
        [watched.look(), watched.look()]
    }

    /// REQ-POLICY-6
    #[test]
    fn a_file_is_taken_at_the_second_look_that_finds_it_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.cedar");
        file(&path, "one");
        let mut watched = PolicyFile::new(&path, 100);
        assert_eq!(twice(&mut watched), [Look::Same, Look::New(b"one".to_vec())]);
        assert_eq!(twice(&mut watched), [Look::Same, Look::Same]);
        // Written piece by piece: each look finds another length.
        let mut writer = fs::OpenOptions::new().write(true).truncate(true).open(&path).unwrap();
        for piece in ["permit;", " forbid", ";"] {
            writer.write_all(piece.as_bytes()).unwrap();
            assert_eq!(watched.look(), Look::Same, "half of it is not told");
        }
        assert_eq!(watched.look(), Look::New(b"permit; forbid;".to_vec()));
        // Put in its place: the same length, and times that say nothing.
        let beside = dir.path().join("beside");
        file(&beside, "permit; permit;");
        let old = fs::metadata(&path).unwrap().modified().unwrap();
        File::options()
            .write(true)
            .open(&beside)
            .unwrap()
            .set_modified(old)
            .unwrap();
        fs::rename(&beside, &path).unwrap();
        assert_eq!(
            twice(&mut watched),
            [Look::Same, Look::New(b"permit; permit;".to_vec())]
        );
        watched.forget();
        assert_eq!(
            twice(&mut watched),
            [Look::Same, Look::New(b"permit; permit;".to_vec())]
        );
    }

    /// REQ-POLICY-6
    #[test]
    fn what_cannot_be_used_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.cedar");
        let mut watched = PolicyFile::new(&path, 100);
        let mut told = |contains: &str| {
            let [first, second] = twice(&mut watched);
            assert_eq!(first, Look::Same);
            let Look::Unusable(what) = second else {
                panic!("{second:?}")
            };
            assert!(what.contains(contains), "{what}");
            assert_eq!(twice(&mut watched), [Look::Same, Look::Same]);
        };
        told("No such file");
        file(&path, "one");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o664)).unwrap();
        told("chmod go-w");
        file(&path, &"x".repeat(101));
        told("more than 100 bytes");
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRUSR).unwrap();
        told("not a file");
    }
}
