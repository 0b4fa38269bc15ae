//! The private world that `tests/harness/enter` makes: where it is, and what was built for it.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};

/// Where a stack's files lie and where its programs come from.
#[derive(Clone, Debug)]
pub struct World {
    files: PathBuf,
    programs: PathBuf,
}

impl World {
    /// The world that this process is in. Fails outside of one: nothing is ever mounted or installed on the machine itself.
    pub fn here() -> Result<World> {
        let files = folder("HARNESS_WORLD")?;
        let kind = statfs(&files)
            .with_context(|| format!("failed to look at {}", files.display()))?
            .filesystem_type();
        ensure!(
            kind == TMPFS_MAGIC,
            "{} is no world of the harness: run this through tests/harness/enter",
            files.display()
        );
        ensure!(
            nix::unistd::geteuid().is_root(),
            "not root of a world: run this through tests/harness/enter"
        );
        Ok(World {
            files,
            programs: folder("HARNESS_BIN")?,
        })
    }

    /// One of the programs that `make` built: `writ-relay`, `writ-ca`, `writ-audit`, `harness`.
    pub fn program(&self, name: &str) -> Result<PathBuf> {
        let path = self.programs.join(name);
        ensure!(path.is_file(), "{} is missing: `make build` makes it", path.display());
        Ok(path)
    }

    /// The folder that an administrator would copy to a target: `make target-package` makes it.
    pub fn target_package(&self) -> Result<PathBuf> {
        self.program("target/install")?;
        Ok(self.programs.join("target"))
    }

    /// The Python of the folder that holds the MCP client of another implementation (tests/e2e/mcp-client/install).
    pub fn mcp_client(&self) -> Result<PathBuf> {
        let python = self.programs.with_file_name("mcp-client").join("bin/python");
        ensure!(
            python.exists(),
            "{} is missing: `make test` installs it",
            python.display()
        );
        Ok(python)
    }

    /// A new empty folder for one stack.
    pub(crate) fn new_folder(&self) -> Result<PathBuf> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let path = self.files.join(format!(
            "{}-{}",
            std::process::id(),
            NEXT.fetch_add(1, Ordering::Relaxed)
        ));
        std::fs::create_dir(&path).with_context(|| format!("failed to make {}", path.display()))?;
        Ok(path)
    }
}

fn folder(variable: &str) -> Result<PathBuf> {
    let Some(value) = std::env::var_os(variable) else {
        bail!("{variable} is not set: run this through `make` or tests/harness/enter");
    };
    let path = PathBuf::from(value);
    ensure!(
        path.is_absolute() && Path::new(&path).is_dir(),
        "{variable} names no folder"
    );
    Ok(path)
}
