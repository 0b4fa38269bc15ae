//! Files of a machine that a test changes: what was there comes back when the guard goes, also where the test fails.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::root::Root;

/// A file, a folder, or a name under which nothing was.
#[derive(Debug)]
pub struct Changed {
    path: PathBuf,
    before: Before,
}

#[derive(Debug)]
enum Before {
    Nothing,
    File { bytes: Vec<u8>, about: About },
    Folder { about: About },
}

/// Who owns it, and its mode.
#[derive(Clone, Copy, Debug)]
struct About {
    uid: u32,
    gid: u32,
    mode: u32,
}

impl Changed {
    /// Remembers what is at this path of a tree. Of a folder that is owner and mode, and that it is there.
    pub fn keep(root: &Root, inside: &str) -> Result<Changed> {
        let path = root.at(inside);
        let Ok(meta) = path.symlink_metadata() else {
            let before = Before::Nothing;
            return Ok(Changed { path, before });
        };
        let about = About {
            uid: meta.uid(),
            gid: meta.gid(),
            mode: meta.mode() & 0o7777,
        };
        let before = if meta.is_dir() {
            Before::Folder { about }
        } else {
            let bytes = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
            Before::File { bytes, about }
        };
        Ok(Changed { path, before })
    }

    /// Keeps a file and writes another text in its place.
    pub fn write(root: &Root, inside: &str, text: impl AsRef<[u8]>) -> Result<Changed> {
        let changed = Changed::keep(root, inside)?;
        changed.set(text)?;
        Ok(changed)
    }

    /// Writes a text in its place: by a new file that is renamed, so that nobody ever reads half of it. It has the owner and
    /// mode of what was there, or is root's, 0644.
    pub fn set(&self, text: impl AsRef<[u8]>) -> Result<()> {
        let about = match &self.before {
            Before::File { about, .. } => *about,
            Before::Nothing | Before::Folder { .. } => About {
                uid: 0,
                gid: 0,
                mode: 0o644,
            },
        };
        self.place(text.as_ref(), about)
    }

    /// Gives it another owner and mode.
    pub fn own(&self, uid: u32, mode: u32) -> Result<()> {
        set_about(&self.path, uid, None, mode)
    }

    /// Moves it aside, to a name that nothing reads. It comes back with everything else.
    pub fn move_away(&self) -> Result<PathBuf> {
        let aside = aside(&self.path);
        fs::rename(&self.path, &aside).with_context(|| format!("failed to move {} away", self.path.display()))?;
        Ok(aside)
    }

    /// The path, seen from the harness.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The text that was there.
    pub fn before(&self) -> String {
        match &self.before {
            Before::File { bytes, .. } => String::from_utf8_lossy(bytes).into_owned(),
            Before::Nothing | Before::Folder { .. } => String::new(),
        }
    }

    /// Brings back what was there.
    pub fn restore(&self) -> Result<()> {
        match &self.before {
            Before::Folder { about } => {
                if aside(&self.path).is_dir() {
                    fs::rename(aside(&self.path), &self.path)?;
                }
                set_about(&self.path, about.uid, Some(about.gid), about.mode)
            }
            Before::File { bytes, about } => {
                let _ = fs::remove_file(aside(&self.path));
                self.place(bytes, *about)
            }
            Before::Nothing => match fs::remove_file(&self.path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
                _ => Ok(()),
            },
        }
    }

    fn place(&self, bytes: &[u8], about: About) -> Result<()> {
        let new = self.path.with_extension("harness-new");
        fs::write(&new, bytes).with_context(|| format!("failed to write {}", new.display()))?;
        set_about(&new, about.uid, Some(about.gid), about.mode)?;
        fs::rename(&new, &self.path).with_context(|| format!("failed to replace {}", self.path.display()))
    }
}

impl Drop for Changed {
    fn drop(&mut self) {
        if let Err(error) = self.restore() {
            eprintln!("harness: failed to restore {}: {error:#}", self.path.display());
        }
    }
}

/// Where it is moved to: beside it, with an ending that is no manifest's and no segment's.
fn aside(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".harness-away");
    PathBuf::from(name)
}

/// The owner first: changing it takes set-id bits away.
fn set_about(path: &Path, uid: u32, gid: Option<u32>, mode: u32) -> Result<()> {
    chown(path, Some(uid), gid).with_context(|| format!("failed to give {} away", path.display()))?;
    fs::set_permissions(path, Permissions::from_mode(mode))?;
    Ok(())
}
