//! The one file that holds private keys.
//!
//! A key is read from a file that only this account can read, lives in memory that is cleared when it goes, and signs
//! certificates that were laid out from a durable record. It cannot be printed, copied or taken out of here.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use nix::libc::O_NOFOLLOW;
use openssh::key::{PublicKey, SigningKey};
use zeroize::Zeroizing;

use crate::certificate::Unsigned;

/// Signs task certificates.
pub const TASK_CA: &str = "task_ca";
/// Signs targets' host certificates.
pub const HOST_CA: &str = "host_ca";
/// Signs no certificate of a user or host: relays on other machines know the CA by it.
pub const TLS: &str = "tls";

/// The largest key file that is read, in bytes. An ed25519 key without a comment has about 400.
const MAX_BYTES: u64 = 16 * 1024;

/// A private key that signs certificates.
///
/// ```compile_fail,E0277
/// // It cannot be printed.
/// fn print(signer: &ca::signer::Signer) -> String { format!("{signer:?}") }
/// ```
/// ```compile_fail,E0599
/// // It cannot be copied.
/// fn copy(signer: &ca::signer::Signer) -> ca::signer::Signer { signer.clone() }
/// ```
/// ```compile_fail,E0308
/// // It signs nothing but a certificate that was laid out from a record.
/// fn sign(signer: &ca::signer::Signer, digest: &[u8]) { let _ = signer.sign(digest); }
/// ```
pub struct Signer {
    key: SigningKey,
}

/// The library could not sign.
#[derive(Debug, thiserror::Error)]
#[error("sign the certificate")]
pub struct SignError(#[from] ssh_key::Error);

impl Signer {
    /// Reads `key_dir/name`, after checking who else could: the folder must be ours and 0700, the file ours and 0600 or
    /// 0400, neither a symlink. Nothing is repaired silently.
    ///
    /// # Errors
    /// Every fault, naming paths and never contents.
    pub fn load(key_dir: &Path, name: &str, own_uid: u32) -> Result<Self, Vec<String>> {
        let mut faults = check_dir(key_dir, own_uid);
        let path = key_dir.join(name);
        match read_private(&path, own_uid) {
            Ok(text) if faults.is_empty() => match SigningKey::from_openssh(&text) {
                Ok(key) => return Ok(Self { key }),
                Err(what) => faults.push(format!(
                    "failed to {what} in {}: restore it from a copy",
                    path.display()
                )),
            },
            Ok(_) => {}
            Err(what) => faults.push(format!("failed to read {}: {what}", path.display())),
        }
        Err(faults)
    }

    /// The public half.
    #[must_use]
    pub fn public(&self) -> &PublicKey {
        self.key.public()
    }

    /// Signs a certificate and returns its text, without a comment.
    ///
    /// # Errors
    /// [`SignError`].
    pub fn sign(&self, certificate: Unsigned) -> Result<String, SignError> {
        Ok(certificate.into_builder().sign(self.key.private())?.to_openssh()?)
    }
}

/// What [`create`] found or did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// The key is new.
    New,
    /// The key was there and is untouched.
    Kept,
}

/// Makes the folder of keys, 0700, unless it is there.
///
/// # Errors
/// Whatever the file system says; a folder that is there is checked by [`Signer::load`], not here.
pub fn create_dir(key_dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(key_dir) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// Makes the key `key_dir/name` from a seed unless it is there, and writes its public half beside it.
///
/// # Errors
/// Whatever the file system says. A key file is never overwritten; a half-written one is removed.
pub fn create(key_dir: &Path, name: &str, seed: &Zeroizing<[u8; 32]>) -> io::Result<Created> {
    let path = key_dir.join(name);
    let mut file = match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => return Ok(Created::Kept),
        Err(e) => return Err(e),
    };
    let written = write_pair(&mut file, &path, seed);
    if written.is_err() {
        // An empty key file would be "kept" by the next init and refused by every start.
        let _ = fs::remove_file(&path);
    }
    written.map(|()| Created::New)
}

fn write_pair(file: &mut File, path: &Path, seed: &Zeroizing<[u8; 32]>) -> io::Result<()> {
    let key = SigningKey::from_seed(seed).map_err(io::Error::other)?;
    let text = key.to_openssh().map_err(io::Error::other)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let public: PathBuf = path.with_extension("pub");
    let mut out = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o644)
        .open(public)?;
    writeln!(out, "{}", key.public().to_openssh())?;
    out.sync_all()?;
    if let Some(dir) = path.parent() {
        File::open(dir)?.sync_all()?;
    }
    Ok(())
}

fn check_dir(dir: &Path, own_uid: u32) -> Vec<String> {
    let at = |what: String| format!("failed to use key_dir {}: {what}", dir.display());
    let meta = match fs::symlink_metadata(dir) {
        Ok(meta) => meta,
        Err(e) => return vec![at(format!("{e}; writ-ca init makes it"))],
    };
    let mut faults = Vec::new();
    if !meta.is_dir() {
        faults.push(at("it is not a folder; name one".to_owned()));
    }
    if meta.uid() != own_uid {
        let uid = meta.uid();
        faults.push(at(format!("owned by uid {uid}, not by {own_uid}; chown it")));
    }
    let mode = meta.mode() & 0o7777;
    if mode != 0o700 {
        faults.push(at(format!("mode {mode:04o}, must be 0700; chmod it")));
    }
    faults
}

fn read_private(path: &Path, own_uid: u32) -> Result<Zeroizing<String>, String> {
    let mut file = OpenOptions::new()
        .read(true)
        .custom_flags(O_NOFOLLOW)
        .open(path)
        .map_err(|e| format!("{e}; writ-ca init makes it"))?;
    let meta = file.metadata().map_err(|e| e.to_string())?;
    if !meta.is_file() || meta.len() > MAX_BYTES {
        return Err("it is not a key file; restore it from a copy".to_owned());
    }
    if meta.uid() != own_uid {
        return Err(format!("owned by uid {}, not by {own_uid}; chown it", meta.uid()));
    }
    let mode = meta.mode() & 0o7777;
    if mode != 0o600 && mode != 0o400 {
        return Err(format!("mode {mode:04o}, must be 0600; chmod it"));
    }
    // Room for all of it at once: a buffer that grows leaves copies behind.
    let mut text = Zeroizing::new(String::with_capacity(usize::try_from(MAX_BYTES).unwrap_or(0) + 1));
    (&mut file)
        .take(MAX_BYTES)
        .read_to_string(&mut text)
        .map_err(|e| e.to_string())?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn own_uid() -> u32 {
        nix::unistd::geteuid().as_raw()
    }

    fn made() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let keys = dir.path().join("keys");
        create_dir(&keys).unwrap();
        assert_eq!(create(&keys, TASK_CA, &Zeroizing::new([1; 32])).unwrap(), Created::New);
        (dir, keys)
    }

    fn chmod(path: &Path, mode: u32) {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }

    fn faults(keys: &Path, uid: u32) -> String {
        match Signer::load(keys, TASK_CA, uid) {
            Ok(_) => String::new(),
            Err(faults) => faults.join("\n"),
        }
    }

    #[test]
    fn a_key_is_made_once_and_never_overwritten() {
        let (_dir, keys) = made();
        let before = fs::read(keys.join(TASK_CA)).unwrap();
        assert_eq!(create(&keys, TASK_CA, &Zeroizing::new([2; 32])).unwrap(), Created::Kept);
        assert_eq!(fs::read(keys.join(TASK_CA)).unwrap(), before);
        let public = fs::read_to_string(keys.join("task_ca.pub")).unwrap();
        let signer = Signer::load(&keys, TASK_CA, own_uid()).ok().unwrap();
        assert_eq!(public.trim(), signer.public().to_openssh());
    }

    #[test]
    fn a_key_that_somebody_else_could_read_is_refused() {
        let (_dir, keys) = made();
        for mode in [0o755, 0o750, 0o701, 0o1700, 0o600] {
            chmod(&keys, mode);
            assert!(faults(&keys, own_uid()).contains("must be 0700"), "{mode:o}");
        }
        chmod(&keys, 0o700);
        for mode in [0o644, 0o640, 0o604, 0o700] {
            chmod(&keys.join(TASK_CA), mode);
            assert!(faults(&keys, own_uid()).contains("must be 0600"), "{mode:o}");
        }
        chmod(&keys.join(TASK_CA), 0o600);
        assert_eq!(faults(&keys, own_uid()), "");
        let found = faults(&keys, own_uid() + 1);
        assert_eq!(
            found.matches("owned by uid").count(),
            2,
            "folder and file, both named: {found}"
        );
    }

    #[test]
    fn a_symlink_a_missing_key_and_garbage_are_refused_without_showing_them() {
        let (_dir, keys) = made();
        fs::rename(keys.join(TASK_CA), keys.join("real")).unwrap();
        assert!(faults(&keys, own_uid()).contains("writ-ca init makes it"));
        std::os::unix::fs::symlink(keys.join("real"), keys.join(TASK_CA)).unwrap();
        assert_ne!(faults(&keys, own_uid()), "");
        fs::remove_file(keys.join(TASK_CA)).unwrap();
        fs::write(keys.join(TASK_CA), "hunter2").unwrap();
        chmod(&keys.join(TASK_CA), 0o600);
        let found = faults(&keys, own_uid());
        assert!(!found.is_empty() && !found.contains("hunter2"), "{found}");
    }
}
