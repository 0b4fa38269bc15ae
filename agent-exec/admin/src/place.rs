//! Where things lie on a target, and the account that must own them.

use std::path::{Path, PathBuf};

use openssh::key::PublicKey;

use crate::config::Config;
use crate::{Failure, files};

/// Longest configuration or key file that is read, in bytes.
const MAX_BYTES: u64 = 64 * 1024;

/// The folders that a verb works in.
#[derive(Debug, Clone)]
pub struct Place {
    config: PathBuf,
    host_key: PathBuf,
    owner: u32,
}

impl Place {
    /// The real thing: only root may, and everything belongs to root.
    ///
    /// # Errors
    /// [`Failure::Refused`] for anybody else.
    pub fn as_root(config: &Path, host_key: &Path) -> Result<Self, Failure> {
        if nix::unistd::geteuid().is_root() {
            Ok(Self::owned_by(config, host_key, 0))
        } else {
            Err(Failure::Refused(
                "enrolment changes /etc/writ and /etc/ssh: run it as root, with sudo".to_owned(),
            ))
        }
    }

    /// A place whose files belong to another account: tests are not root.
    #[must_use]
    pub fn owned_by(config: &Path, host_key: &Path, owner: u32) -> Self {
        Self {
            config: config.to_owned(),
            host_key: host_key.to_owned(),
            owner,
        }
    }

    /// The account that must own configuration and what is installed.
    pub(crate) fn owner(&self) -> u32 {
        self.owner
    }

    /// A file beside the configuration.
    pub(crate) fn beside_config(&self, name: &str) -> PathBuf {
        self.config.with_file_name(name)
    }

    /// Where the host certificate goes.
    pub(crate) fn host_certificate(&self) -> PathBuf {
        let stem = self.host_key.file_stem().unwrap_or_default().to_string_lossy();
        self.host_key.with_file_name(format!("{stem}-cert.pub"))
    }

    /// Reads `target.toml`, which nobody but root may be able to write.
    pub(crate) fn config(&self) -> Result<Config, Failure> {
        let path = self.config.display();
        let text = files::read_owned(&self.config, self.owner, 0o022, MAX_BYTES)?.ok_or_else(|| {
            Failure::Refused(format!(
                "{path} is missing: install the target's package first, or write it by hand"
            ))
        })?;
        Config::parse(&text).map_err(|what| Failure::Refused(format!("{path} is wrong, correct it first: {what}")))
    }

    /// Reads the public half of sshd's host key.
    pub(crate) fn host_key(&self) -> Result<PublicKey, Failure> {
        let path = self.host_key.display();
        let text = files::read_owned(&self.host_key, self.owner, 0o022, MAX_BYTES)?.ok_or_else(|| {
            Failure::Refused(format!(
                "{path} is missing: sshd has no ed25519 host key here; make one with `ssh-keygen -A`"
            ))
        })?;
        PublicKey::from_openssh(&text).map_err(|error| {
            Failure::Refused(format!(
                "failed to {error} in {path}: name sshd's ed25519 key with --host-key"
            ))
        })
    }
}
