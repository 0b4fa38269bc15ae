//! Files of keys, for both sides of a connection: a side's own private key, and the public keys of the other.
//!
//! A file is read again when it changes, so that keys are replaced while calls are made. Both are in OpenSSH's text, as
//! every other key of Writ: `ssh-keygen -t ed25519` makes them, and init does. A file that somebody else could write, or a
//! private key that somebody else could read, is not used. Nothing is repaired silently.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::libc::O_NOFOLLOW;
use nix::unistd::geteuid;
use openssh::key::{PublicKey, SigningKey};
use zeroize::Zeroizing;

/// Most keys that one peer has: the one in use, and the one that takes its place.
pub const PEER_KEYS: usize = 2;

/// The largest file that is read, in bytes.
const MAX_BYTES: u64 = 16 * 1024;

/// A file whose clock says that it changed less than this ago may change again without showing it.
const RESTLESS: Duration = Duration::from_secs(1);

/// Why a file is not used, in words that name it and never its contents: "failed to …".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("failed to use {}: {what}", path.display())]
pub struct Fault {
    path: PathBuf,
    what: String,
}

/// The public keys of one peer: at most [`PEER_KEYS`], and none of a peer that is to be refused.
pub type Peer = Watched<Vec<PublicKey>>;

/// A side's own key.
pub type Own = Watched<SigningKey>;

/// A value that comes from a file, read again when the file changes.
pub struct Watched<T> {
    path: PathBuf,
    read: fn(&Path, File) -> Result<T, Fault>,
    flags: i32,
    seen: Mutex<Option<Seen<T>>>,
}

struct Seen<T> {
    stamp: Stamp,
    value: Arc<T>,
}

/// What changes when a file does: also its mode and owner change its time.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(meta: &Metadata) -> Self {
        Self {
            inode: meta.ino(),
            bytes: meta.len(),
            changed: (meta.ctime(), meta.ctime_nsec()),
        }
    }

    /// Whether a change that comes now would be seen. File systems count time in ticks.
    fn is_settled(self) -> bool {
        let changed = Duration::from_secs(u64::try_from(self.changed.0).unwrap_or(0));
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .is_ok_and(|now| now.saturating_sub(changed) > RESTLESS)
    }
}

impl Peer {
    /// The public keys in a file, one a line; empty lines and lines that begin with `#` count for nothing.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self::new(path, 0, read_peer)
    }
}

impl Own {
    /// The private key in a file of mode 0600 or 0400, this account's own.
    #[must_use]
    pub fn at(path: &Path) -> Self {
        Self::new(path, O_NOFOLLOW, read_own)
    }
}

impl<T> Watched<T> {
    fn new(path: &Path, flags: i32, read: fn(&Path, File) -> Result<T, Fault>) -> Self {
        Self {
            path: path.to_owned(),
            read,
            flags,
            seen: Mutex::new(None),
        }
    }

    /// Where it comes from.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The value as it is on disk now: one stat(2) unless it changed.
    ///
    /// # Errors
    /// [`Fault`]; what was there before no longer counts then, unless the caller kept it.
    pub fn current(&self) -> Result<Arc<T>, Fault> {
        let io = |error: io::Error| fault(&self.path, format!("{error}; it must be there, and readable"));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(seen) = &*seen
            && seen.stamp.is_settled()
            && fs::metadata(&self.path).is_ok_and(|meta| Stamp::of(&meta) == seen.stamp)
        {
            return Ok(Arc::clone(&seen.value));
        }
        // What was is forgotten first: a file that cannot be read is not what it was.
        *seen = None;
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .custom_flags(self.flags)
            .open(&self.path)
            .map_err(io)?;
        let stamp = Stamp::of(&file.metadata().map_err(io)?);
        let value = Arc::new((self.read)(&self.path, file)?);
        *seen = Some(Seen {
            stamp,
            value: Arc::clone(&value),
        });
        Ok(value)
    }
}

/// Keeps a private key at `path`, and its public half at `path.pub`, unless one is there. True where it was kept.
///
/// # Errors
/// Whatever the file system says. A key file is never overwritten; a half-written one is removed.
pub fn create(path: &Path, key: &SigningKey) -> io::Result<bool> {
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(false),
        Err(error) => return Err(error),
    };
    let written = write_pair(&mut file, path, key);
    if written.is_err() {
        let _ = fs::remove_file(path);
    }
    written.map(|()| true)
}

fn write_pair(file: &mut File, path: &Path, key: &SigningKey) -> io::Result<()> {
    file.write_all(key.to_openssh().map_err(io::Error::other)?.as_bytes())?;
    file.sync_all()?;
    let public = path.with_extension("pub");
    fs::write(public, format!("{}\n", key.public().to_openssh()))?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

fn fault(path: &Path, what: impl Into<String>) -> Fault {
    Fault {
        path: path.to_owned(),
        what: what.into(),
    }
}

fn read_peer(path: &Path, file: File) -> Result<Vec<PublicKey>, Fault> {
    let text = read_trusted(path, file, &[0, geteuid().as_raw()], |mode| {
        let next = "it must not be writable for group or others; chmod go-w it";
        (mode & 0o022 != 0).then_some(next)
    })?;
    let mut keys = Vec::new();
    for (n, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        match PublicKey::from_openssh(line) {
            Ok(key) => keys.push(key),
            Err(error) => return Err(fault(path, format!("line {}: failed to {error}", n + 1))),
        }
    }
    if keys.len() > PEER_KEYS {
        return Err(fault(path, format!("it has more than {PEER_KEYS} keys; take one out")));
    }
    Ok(keys)
}

fn read_own(path: &Path, file: File) -> Result<SigningKey, Fault> {
    let text = read_trusted(path, file, &[geteuid().as_raw()], |mode| {
        (mode != 0o600 && mode != 0o400).then_some("it must be 0600; chmod it")
    })?;
    SigningKey::from_openssh(&text).map_err(|error| fault(path, format!("failed to {error}; restore it from a copy")))
}

/// Reads a file that one of `owners` has, with a mode that `objection` does not object to. Both are the opened file's.
fn read_trusted(
    path: &Path,
    file: File,
    owners: &[u32],
    objection: fn(u32) -> Option<&'static str>,
) -> Result<Zeroizing<String>, Fault> {
    let io = |error: io::Error| fault(path, error.to_string());
    let meta = file.metadata().map_err(io)?;
    if !meta.is_file() || meta.len() > MAX_BYTES {
        return Err(fault(path, "it is not a file of keys; name one"));
    }
    if !owners.contains(&meta.uid()) {
        return Err(fault(path, format!("it is owned by uid {}; chown it", meta.uid())));
    }
    let mode = meta.mode() & 0o7777;
    if let Some(objection) = objection(mode) {
        return Err(fault(path, format!("mode {mode:04o}, {objection}")));
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(MAX_BYTES).unwrap_or(0) + 1));
    file.take(MAX_BYTES).read_to_string(&mut text).map_err(io)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Zeroizing::new([seed; 32])).unwrap()
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    #[test]
    fn a_key_is_kept_once_with_its_public_half_and_nobody_else_can_read_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tls");
        assert!(create(&path, &key(1)).unwrap());
        assert!(!create(&path, &key(2)).unwrap());
        let own = Own::at(&path);
        assert_eq!(own.current().unwrap().public(), key(1).public());
        let public = path.with_extension("pub");
        assert_eq!(*Peer::at(&public).current().unwrap(), [key(1).public().clone()]);

        for mode in [0o644, 0o640, 0o604, 0o700] {
            chmod(&path, mode);
            let fault = own.current().err().unwrap().to_string();
            assert!(fault.ends_with("it must be 0600; chmod it"), "{fault}");
        }
        chmod(&path, 0o400);
        assert_eq!(own.current().unwrap().public(), key(1).public());
        fs::rename(&path, dir.path().join("real")).unwrap();
        assert!(own.current().is_err());
        std::os::unix::fs::symlink(dir.path().join("real"), &path).unwrap();
        assert!(own.current().is_err());
        fs::remove_file(&path).unwrap();
        fs::write(&path, "hunter2").unwrap();
        chmod(&path, 0o600);
        let fault = own.current().err().unwrap().to_string();
        assert!(
            fault.contains("read an OpenSSH key") && !fault.contains("hunter2"),
            "{fault}"
        );
    }

    #[test]
    fn each_change_is_seen_also_one_of_the_same_length_in_the_same_tick() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.pub");
        let peer = Peer::at(&path);
        for seed in 1..=200 {
            fs::write(&path, key(seed).public().to_openssh()).unwrap();
            assert_eq!(*peer.current().unwrap(), [key(seed).public().clone()]);
        }
    }

    #[test]
    fn a_file_that_has_come_to_rest_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.pub");
        fs::write(&path, key(1).public().to_openssh()).unwrap();
        let peer = Peer::at(&path);
        while !Stamp::of(&fs::metadata(&path).unwrap()).is_settled() {
            std::thread::sleep(Duration::from_millis(50));
        }
        let first = peer.current().unwrap();
        assert!(Arc::ptr_eq(&first, &peer.current().unwrap()));
        fs::write(&path, key(2).public().to_openssh()).unwrap();
        assert_eq!(*peer.current().unwrap(), [key(2).public().clone()]);
    }

    #[test]
    fn a_peer_has_at_most_two_keys_in_a_file_that_nobody_else_can_write() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.pub");
        let line = |seed| key(seed).public().to_openssh();
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            Peer::at(&path)
                .current()
                .map(|keys| keys.len())
                .map_err(|fault| fault.to_string())
        };
        assert_eq!(read(""), Ok(0));
        assert_eq!(
            read(&format!("# now\n{}\n\n# next\n{} relay-2\n", line(1), line(2))),
            Ok(2)
        );
        for (text, what) in [
            (format!("{}\n{}\n{}\n", line(1), line(2), line(3)), "more than 2 keys"),
            (
                format!("{}\nssh-rsa AAAA\n", line(1)),
                "line 2: failed to read an OpenSSH key",
            ),
            (format!("{} {}", line(1), "x".repeat(20_000)), "not a file of keys"),
        ] {
            let fault = read(&text).unwrap_err();
            assert!(fault.contains(what), "{what} not in {fault}");
        }
        assert_eq!(read(&line(1)), Ok(1));
        for mode in [0o664, 0o646] {
            chmod(&path, mode);
            assert!(
                Peer::at(&path)
                    .current()
                    .unwrap_err()
                    .to_string()
                    .contains("chmod go-w")
            );
        }
    }
}
