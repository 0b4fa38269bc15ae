//! The folder that manifests lie in, and all of them together.
//!
//! Whoever can write a manifest decides what is run, so a file counts only if nobody but its owner can write it: regular,
//! not a link, owned by one of the accounts expected, not writable for group or others; and so must the folder be.
//! The folder is opened once and files are opened relative to it.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use nix::dir::Dir;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};
use wire::Risk;
use wire::ids::{ActionName, Digest};

use crate::fault::Fault;
use crate::manifest::{MAX_BYTES, Manifest};
use crate::text;

/// The end of a manifest's file name.
const SUFFIX: &str = ".toml";

/// An open folder of manifests.
#[derive(Debug)]
pub struct Folder {
    fd: OwnedFd,
    path: PathBuf,
    owners: Vec<u32>,
}

/// A manifest and the digest of the bytes it was read from.
#[derive(Debug, Clone)]
#[must_use]
pub struct Entry {
    manifest: Manifest,
    digest: Digest,
}

impl Entry {
    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// SHA-256 of the file's bytes.
    #[must_use]
    pub fn digest(&self) -> &Digest {
        &self.digest
    }
}

impl Folder {
    /// Opens the folder. Only files of `owners` (user ids) will count: root on a target.
    ///
    /// # Errors
    /// A fault of the folder itself.
    pub fn open(path: &Path, owners: &[u32]) -> Result<Self, Fault> {
        let fault = |what: String| Fault::of_file(&path.display().to_string(), what);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let fd = nix::fcntl::open(path, flags, Mode::empty())
            .map_err(|errno| fault(format!("failed to open the folder: {}", errno.desc())))?;
        let stat = fstat(&fd).map_err(|errno| fault(format!("failed to look at the folder: {}", errno.desc())))?;
        check_owner(&stat, owners).map_err(fault)?;
        Ok(Self {
            fd,
            path: path.to_owned(),
            owners: owners.to_vec(),
        })
    }

    /// Where it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The digest of each manifest that could be loaded as far as its file goes, without parsing any: what a hello says.
    /// Files that do not count are left out and returned as faults.
    ///
    /// # Errors
    /// A fault of the folder itself.
    pub fn digests(&self) -> Result<(BTreeMap<ActionName, Digest>, Vec<Fault>), Fault> {
        let mut digests = BTreeMap::new();
        let mut faults = Vec::new();
        for file in self.files()? {
            match self.read(&file) {
                Ok((name, bytes)) => {
                    digests.insert(name, Manifest::digest(&bytes));
                }
                Err(fault) => faults.push(fault),
            }
        }
        Ok((digests, faults))
    }

    /// Reads and parses one manifest; `None` if there is no such file.
    ///
    /// # Errors
    /// Everything that is wrong with that one file. Other files are not looked at.
    pub fn load_one(&self, name: &ActionName) -> Result<Option<Entry>, Vec<Fault>> {
        let file = format!("{name}{SUFFIX}");
        match self.open_file(&file) {
            Ok(None) => Ok(None),
            Ok(Some(found)) => {
                let bytes = self.content(&file, found).map_err(|fault| vec![fault])?;
                parse(&file, name, &bytes).map(Some)
            }
            Err(fault) => Err(vec![fault]),
        }
    }

    /// Reads a manifest again and parses it only if its bytes have changed: what a session does before its later requests.
    ///
    /// # Errors
    /// As [`Folder::load_one`].
    pub fn reload(&self, known: Entry) -> Result<Option<Entry>, Vec<Fault>> {
        let name = known.manifest.name().clone();
        let file = format!("{name}{SUFFIX}");
        let Some(found) = self.open_file(&file).map_err(|fault| vec![fault])? else {
            return Ok(None);
        };
        let bytes = self.content(&file, found).map_err(|fault| vec![fault])?;
        if Manifest::digest(&bytes) == known.digest {
            return Ok(Some(known));
        }
        parse(&file, &name, &bytes).map(Some)
    }

    /// The names of all files that end as manifests do, in order. Others, as package managers leave them, do not count.
    fn files(&self) -> Result<Vec<String>, Fault> {
        let fault = |errno: nix::Error| {
            let what = format!("failed to list the folder: {}", errno.desc());
            Fault::of_file(&self.path.display().to_string(), what)
        };
        // A description of its own: the position of a listing is shared between duplicates of a descriptor.
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let mut listing = Dir::openat(&self.fd, ".", flags, Mode::empty()).map_err(fault)?;
        let mut names = Vec::new();
        for entry in listing.iter() {
            let entry = entry.map_err(fault)?;
            let name = entry.file_name().to_string_lossy();
            if name.ends_with(SUFFIX) && !name.starts_with('.') {
                names.push(name.into_owned());
            }
        }
        names.sort();
        Ok(names)
    }

    fn read(&self, file: &str) -> Result<(ActionName, Vec<u8>), Fault> {
        let stem = file.strip_suffix(SUFFIX).unwrap_or(file);
        let name = stem
            .parse()
            .map_err(|_| Fault::of_file(file, "must be called after its action: a-z 0-9 _, then .toml"))?;
        let found = self
            .open_file(file)?
            .ok_or_else(|| Fault::of_file(file, "went away while it was read"))?;
        Ok((name, self.content(file, found)?))
    }

    /// Opens a file of the folder; `None` if it is not there.
    fn open_file(&self, file: &str) -> Result<Option<OwnedFd>, Fault> {
        // O_NONBLOCK: opening a FIFO must not wait for its writer.
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        match openat(self.fd.as_fd(), file, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(fd)),
            Err(nix::Error::ENOENT) => Ok(None),
            Err(nix::Error::ELOOP) => Err(Fault::of_file(file, "is a symbolic link")),
            Err(errno) => Err(Fault::of_file(file, format!("failed to open it: {}", errno.desc()))),
        }
    }

    /// The bytes of an opened file that counts.
    fn content(&self, file: &str, fd: OwnedFd) -> Result<Vec<u8>, Fault> {
        let fault = |what: String| Fault::of_file(file, what);
        let stat = fstat(&fd).map_err(|errno| fault(format!("failed to look at it: {}", errno.desc())))?;
        if SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
            return Err(fault("is not a regular file".to_owned()));
        }
        check_owner(&stat, &self.owners).map_err(fault)?;
        // Room for all of it and one byte more, which is how a reader sees the end.
        let size = usize::try_from(stat.st_size).unwrap_or(0).min(MAX_BYTES) + 1;
        let mut bytes = Vec::with_capacity(size);
        // One byte more than allowed is read, so that the parser says what is wrong.
        File::from(fd)
            .take(MAX_BYTES as u64 + 1)
            .read_to_end(&mut bytes)
            .map_err(|error| fault(format!("failed to read it: {error}")))?;
        Ok(bytes)
    }
}

/// Nobody but the expected owner may be able to write.
fn check_owner(stat: &FileStat, owners: &[u32]) -> Result<(), String> {
    if !owners.contains(&stat.st_uid) {
        let wanted: Vec<String> = owners.iter().map(u32::to_string).collect();
        return Err(format!(
            "is owned by user {}, not by {}",
            stat.st_uid,
            wanted.join(" or ")
        ));
    }
    if stat.st_mode & 0o022 != 0 {
        return Err(format!(
            "is writable for group or others (mode {:o})",
            stat.st_mode & 0o7777
        ));
    }
    Ok(())
}

fn parse(file: &str, name: &ActionName, bytes: &[u8]) -> Result<Entry, Vec<Fault>> {
    let manifest = Manifest::parse(bytes).map_err(|faults| in_file(file, faults))?;
    if manifest.name() != name {
        let what = format!("must be \"{name}\", as the file is called, not \"{}\"", manifest.name());
        return Err(in_file(
            file,
            vec![Fault {
                file: None,
                path: "name".to_owned(),
                what,
            }],
        ));
    }
    Ok(Entry {
        manifest,
        digest: Manifest::digest(bytes),
    })
}

fn in_file(file: &str, mut faults: Vec<Fault>) -> Vec<Fault> {
    for fault in &mut faults {
        fault.file = Some(text::quoted(file));
    }
    faults
}

/// All manifests of a folder. An empty one is a catalogue too: it allows nothing.
#[derive(Debug, Clone, Default)]
pub struct Catalogue {
    entries: BTreeMap<ActionName, Entry>,
}

impl Catalogue {
    /// Loads a folder whose files belong to root or to the account that runs this.
    ///
    /// # Errors
    /// Everything that is wrong in any file, by file.
    pub fn load(path: &Path) -> Result<Self, Vec<Fault>> {
        let own = nix::unistd::geteuid().as_raw();
        Self::load_owned(path, &[0, own])
    }

    /// Loads a folder whose files belong to one of `owners`.
    ///
    /// # Errors
    /// Everything that is wrong in any file, by file.
    pub fn load_owned(path: &Path, owners: &[u32]) -> Result<Self, Vec<Fault>> {
        let (catalogue, faults) = Self::lint(path, owners);
        if faults.is_empty() { Ok(catalogue) } else { Err(faults) }
    }

    /// Loads what can be loaded, and says what is wrong with the rest.
    #[must_use]
    pub fn lint(path: &Path, owners: &[u32]) -> (Self, Vec<Fault>) {
        let folder = match Folder::open(path, owners).and_then(|folder| folder.files().map(|files| (folder, files))) {
            Ok(opened) => opened,
            Err(fault) => return (Self::default(), vec![fault]),
        };
        let mut entries = BTreeMap::new();
        let mut faults = Vec::new();
        for file in folder.1 {
            match folder
                .0
                .read(&file)
                .map_err(|fault| vec![fault])
                .and_then(|(name, bytes)| {
                    let entry = parse(&file, &name, &bytes)?;
                    Ok((name, entry))
                }) {
                Ok((name, entry)) => {
                    entries.insert(name, entry);
                }
                Err(found) => faults.extend(found),
            }
        }
        let catalogue = Self { entries };
        catalogue.check_verify(&mut faults);
        (catalogue, faults)
    }

    /// What verifies an effect must be there, and must itself have none.
    fn check_verify(&self, faults: &mut Vec<Fault>) {
        for (name, entry) in &self.entries {
            let Some(verify) = entry.manifest.verify() else {
                continue;
            };
            let what = match self.entries.get(&verify.action) {
                None => format!("names {}, which is not in this folder", verify.action),
                Some(other) if other.manifest.risk() != Risk::Read => {
                    format!("names {}, which is not a read action", verify.action)
                }
                Some(_) => continue,
            };
            faults.push(Fault {
                file: Some(format!("{name}{SUFFIX}")),
                path: "verify.action".to_owned(),
                what,
            });
        }
    }

    /// One action.
    #[must_use]
    pub fn find(&self, name: &ActionName) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl Iterator<Item = (&ActionName, &Entry)> {
        self.entries.iter()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing is allowed at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}
