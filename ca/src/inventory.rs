//! The CA's inventory on disk: read again when it changes, extended by enrolment.
//!
//! No file is an empty inventory. A file that cannot be read refuses every call until it can: labels decide policy, and
//! yesterday's labels are not today's.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use catalogue::Inventory;
use catalogue::inventory::MAX_BYTES;
use nix::unistd::geteuid;

/// Why the inventory is not known.
#[derive(Debug, thiserror::Error)]
pub enum ShelfError {
    /// The file could not be read.
    #[error("read {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// Somebody else could write to it.
    #[error("trust {}: {}", .0.display(), .1)]
    Untrusted(PathBuf, &'static str),
    /// It is not an inventory.
    #[error("understand {}: {}", .0.display(), .1.join("; "))]
    Faults(PathBuf, Vec<String>),
}

/// An inventory and the file that it comes from.
pub struct Shelf {
    path: PathBuf,
    seen: Option<Stamp>,
    inventory: Option<Arc<Inventory>>,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    bytes: u64,
    changed: (i64, i64),
}

impl Shelf {
    /// A shelf that has not been looked at.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            seen: None,
            inventory: None,
        }
    }

    /// The inventory as it is on disk now: one stat(2) unless it changed.
    ///
    /// # Errors
    /// [`ShelfError`].
    pub fn current(&mut self) -> Result<Arc<Inventory>, ShelfError> {
        let io = |e| ShelfError::Io(self.path.clone(), e);
        let stamp = match fs::metadata(&self.path) {
            Ok(meta) if meta.mode() & 0o022 != 0 => {
                let what = "it is writable for group or others; chmod go-w it";
                return Err(ShelfError::Untrusted(self.path.clone(), what));
            }
            Ok(meta) if ![0, geteuid().as_raw()].contains(&meta.uid()) => {
                let what = "it belongs to neither root nor the CA's account; chown it";
                return Err(ShelfError::Untrusted(self.path.clone(), what));
            }
            Ok(meta) => Some(Stamp {
                inode: meta.ino(),
                bytes: meta.len(),
                changed: (meta.mtime(), meta.mtime_nsec()),
            }),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(io(e)),
        };
        if let Some(inventory) = self.inventory.as_ref().filter(|_| stamp == self.seen) {
            return Ok(Arc::clone(inventory));
        }
        let text = match stamp {
            None => String::new(),
            Some(stamp) if stamp.bytes > MAX_BYTES as u64 => {
                return Err(ShelfError::Faults(
                    self.path.clone(),
                    vec![format!("longer than {MAX_BYTES} bytes")],
                ));
            }
            Some(_) => fs::read_to_string(&self.path).map_err(io)?,
        };
        let inventory = Arc::new(parse(&self.path, &text)?);
        self.inventory = Some(Arc::clone(&inventory));
        self.seen = stamp;
        Ok(inventory)
    }

    /// Whether there is a file.
    #[must_use]
    pub fn exists(&self) -> bool {
        self.path.exists()
    }
}

fn parse(path: &Path, text: &str) -> Result<Inventory, ShelfError> {
    Inventory::parse(text)
        .map_err(|faults| ShelfError::Faults(path.to_owned(), faults.iter().map(ToString::to_string).collect()))
}

/// Appends a stanza to the inventory file, keeping every byte that is there: the new text is read back as an inventory,
/// written beside the file, made durable, and put in its place. The caller holds whatever lock keeps others away.
///
/// # Errors
/// [`ShelfError`]; the file is then as it was.
pub fn append(path: &Path, stanza: &str) -> Result<(), ShelfError> {
    let io = |e| ShelfError::Io(path.to_owned(), e);
    let mut text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => String::new(),
        Err(e) => return Err(io(e)),
    };
    if !text.is_empty() && !text.ends_with('\n') {
        text.push('\n');
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(stanza);
    parse(path, &text)?;
    let beside = path.with_extension("toml.new");
    write_durably(&beside, text.as_bytes()).map_err(io)?;
    fs::rename(&beside, path).map_err(io)?;
    let dir = path.parent().unwrap_or(Path::new("/"));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(io)
}

fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Left behind by an enrolment that was killed; never a symlink's target, since create_new follows none.
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o644).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use openssh::key::SigningKey;
    use std::os::unix::fs::PermissionsExt;
    use zeroize::Zeroizing;

    fn stanza(name: &str, seed: u8) -> String {
        let key = |seed| {
            SigningKey::from_seed(&Zeroizing::new([seed; 32]))
                .unwrap()
                .public()
                .to_openssh()
        };
        format!(
            "[target.{name}]\naddress = \"127.0.0.1:22\"\nhost_ca = \"{}\"\nreceipt_key = \"{}\"\n",
            key(1),
            key(seed)
        )
    }

    fn has(shelf: &mut Shelf, name: &str) -> bool {
        shelf.current().unwrap().find(name).is_some()
    }

    #[test]
    fn a_missing_file_is_an_empty_inventory_and_a_new_one_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inventory.toml");
        let mut shelf = Shelf::new(&path);
        assert!(!has(&mut shelf, "web-1"));
        append(&path, &stanza("web-1", 2)).unwrap();
        assert!(has(&mut shelf, "web-1"));
        append(&path, &stanza("web-2", 3)).unwrap();
        assert!(has(&mut shelf, "web-1") && has(&mut shelf, "web-2"));
        fs::remove_file(&path).unwrap();
        assert!(!has(&mut shelf, "web-1"));
    }

    /// REQ-INVENTORY-8
    #[test]
    fn a_broken_writable_or_foreign_file_refuses_until_it_is_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("inventory.toml");
        let mut shelf = Shelf::new(&path);
        append(&path, &stanza("web-1", 2)).unwrap();
        assert!(has(&mut shelf, "web-1"));
        fs::write(&path, "[target.web-1]\naddress = 3\n").unwrap();
        assert!(matches!(shelf.current(), Err(ShelfError::Faults(..))));
        assert!(
            append(&path, &stanza("web-1", 2)).is_err(),
            "nothing is appended to what cannot be read"
        );
        fs::write(&path, stanza("web-1", 2)).unwrap();
        assert!(has(&mut shelf, "web-1"));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        assert!(matches!(shelf.current(), Err(ShelfError::Untrusted(..))));
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        assert!(has(&mut shelf, "web-1"));
        // Only root can give a file away; as somebody else this half is not shown.
        if std::os::unix::fs::chown(&path, Some(64_999), None).is_ok() {
            let refused = shelf.current().map(drop).unwrap_err();
            assert!(refused.to_string().contains("neither root nor"), "{refused}");
        }
    }
}
