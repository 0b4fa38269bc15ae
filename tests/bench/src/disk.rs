//! A log on a real disk. The roots of the harness lie in memory, where `fdatasync` costs nothing; a figure that leaves it
//! out would be no figure.

use std::fs::{self, File, Permissions};
use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, chown};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result};
use harness::root::Root;
use nix::mount::{MntFlags, MsFlags, mount, umount2};

const NO: Option<&str> = None;

/// A folder of a root that lies on the disk; gone from both when the value goes.
#[derive(Debug)]
pub struct OnDisk {
    here: PathBuf,
    inside: PathBuf,
}

impl OnDisk {
    /// Moves a folder of a root, which holds files only, to a new folder below `disk`. Nobody may have a file of it open.
    pub fn put(root: &Root, inside: &str, disk: &Path) -> Result<OnDisk> {
        let name = format!(
            "log-{}-{}",
            std::process::id(),
            inside.trim_matches('/').replace('/', "-")
        );
        let moved = OnDisk {
            here: disk.join(name),
            inside: root.at(inside),
        };
        // What a run that was interrupted left there.
        let _ = fs::remove_dir_all(&moved.here);
        fs::create_dir_all(&moved.here).with_context(|| format!("failed to make {}", moved.here.display()))?;
        for entry in fs::read_dir(&moved.inside)? {
            let entry = entry?;
            let to = moved.here.join(entry.file_name());
            fs::copy(entry.path(), &to)?;
            same_about(&entry.path(), &to)?;
        }
        same_about(&moved.inside, &moved.here)?;
        mount(Some(&moved.here), &moved.inside, NO, MsFlags::MS_BIND, NO)
            .with_context(|| format!("failed to bind {}", moved.inside.display()))?;
        Ok(moved)
    }

    /// What making 1 KiB durable costs there, in ms: an append and its fdatasync, in a file of its own.
    pub fn durable_kib_ms(&self) -> Result<impl FnMut() -> Result<f64> + use<>> {
        let mut file = File::create(self.here.with_extension("probe"))?;
        Ok(move || {
            let begun = Instant::now();
            file.write_all(&[b'x'; 1024])?;
            file.sync_data()?;
            Ok(begun.elapsed().as_secs_f64() * 1000.0)
        })
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        let _ = umount2(&self.inside, MntFlags::MNT_DETACH);
        let _ = fs::remove_dir_all(&self.here);
        let _ = fs::remove_file(self.here.with_extension("probe"));
    }
}

/// Owner and mode of one are the other's.
fn same_about(from: &Path, to: &Path) -> Result<()> {
    let about = fs::metadata(from)?;
    chown(to, Some(about.uid()), Some(about.gid()))?;
    fs::set_permissions(to, Permissions::from_mode(about.mode() & 0o7777))?;
    Ok(())
}
