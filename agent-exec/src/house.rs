//! The files of the installation. These paths are all that agent-exec knows; nothing in its environment changes them.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;

use catalogue::{Probe, ProbeName};
use openssh::allowed_signers::AllowedSigners;
use openssh::key::{PublicKey, SigningKey};
use serde::Deserialize;
use wire::ids::TargetName;
use wire::limits;

use crate::error::Fatal;
use crate::sys::Ids;

/// The target's own configuration.
pub const CONFIG: &str = "/etc/writ/target.toml";
/// The CAs that sign task certificates: one key a line, up to two.
pub const CAS: &str = "/etc/writ/ca.pub";
/// Who may approve: OpenSSH's allowed_signers, of which a strict subset.
pub const APPROVERS: &str = "/etc/writ/approvers";
/// The manifests.
pub const ACTIONS: &str = "/etc/writ/actions.d";
/// While this exists, everything is refused.
pub const HALT: &str = "/etc/writ/halt";
/// Signs hellos and Outcomes.
pub const RECEIPT_KEY: &str = "/etc/writ/receipt.key";
/// The log's folder.
pub const LOG: &str = "/var/log/writ";
/// The log's lock, where nobody else can hold it.
pub const LOG_LOCK: &str = "/var/lib/writ/log.lock";
/// The answers of changes, so that none has a second effect.
pub const LEDGER: &str = "/var/lib/writ/ledger";
/// How many peers that proved nothing were refused.
pub const STRANGERS: &str = "/var/lib/writ/strangers";

/// No file of the installation is longer.
const MAX_FILE: u64 = 256 * 1024;

/// target.toml. An example is in deploy/target.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The target's name: the principal of its certificates.
    pub target: TargetName,
    /// The account that logs in and that actions run as.
    pub runner_uid: u32,
    /// Its group.
    pub runner_gid: u32,
    /// The account that owns log, ledger and receipt key.
    pub exec_uid: u32,
    /// The longest life of a task certificate that is accepted, in seconds, whatever the CA signed.
    #[serde(default = "task_max_lifetime_s")]
    pub task_max_lifetime_s: u64,
    /// Whether only security keys approve, each of whose signatures takes a touch.
    #[serde(default)]
    pub require_touch: bool,
    /// What `check_health` can be asked for.
    #[serde(default)]
    pub probe: BTreeMap<ProbeName, Probe>,
}

fn task_max_lifetime_s() -> u64 {
    limits::TASK_CERTIFICATE_MAX_S
}

impl Config {
    /// Reads target.toml.
    ///
    /// # Errors
    /// [`Fatal::File`] with what is wrong.
    pub fn read() -> Result<Self, Fatal> {
        Self::parse(&root_file(Path::new(CONFIG))?).map_err(|what| Fatal::File {
            file: CONFIG.to_owned(),
            what,
        })
    }

    /// Reads the text of a target.toml.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let config: Self = toml::from_str(text).map_err(|error| error.to_string())?;
        if !(1..=limits::TASK_CERTIFICATE_MAX_S).contains(&config.task_max_lifetime_s) {
            return Err(format!(
                "task_max_lifetime_s must be 1 to {}",
                limits::TASK_CERTIFICATE_MAX_S
            ));
        }
        Ok(config)
    }

    /// The ids of the installation.
    #[must_use]
    pub fn ids(&self) -> Ids {
        Ids {
            runner_uid: self.runner_uid,
            runner_gid: self.runner_gid,
            exec_uid: self.exec_uid,
        }
    }
}

/// The CAs that are trusted now: read for each request, because root may have taken one away.
///
/// # Errors
/// [`Fatal::File`].
pub fn cas() -> Result<Vec<PublicKey>, Fatal> {
    let fault = |what: String| Fatal::File {
        file: CAS.to_owned(),
        what,
    };
    let text = root_file(Path::new(CAS))?;
    let lines = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    let keys: Result<Vec<_>, _> = lines.map(PublicKey::from_openssh).collect();
    let keys = keys.map_err(|error| fault(error.to_string()))?;
    if (1..=2).contains(&keys.len()) {
        Ok(keys)
    } else {
        Err(fault(format!("it holds {} keys, not 1 or 2", keys.len())))
    }
}

/// Who may approve now: read for each request that needs it. Where there is no such file nobody may.
///
/// # Errors
/// [`Fatal::File`], with every line that is wrong as far as it fits: one, and nobody may approve.
pub fn approvers() -> Result<AllowedSigners, Fatal> {
    let path = Path::new(APPROVERS);
    if matches!(std::fs::symlink_metadata(path), Err(error) if error.kind() == std::io::ErrorKind::NotFound) {
        return Ok(AllowedSigners::default());
    }
    AllowedSigners::parse(&root_file(path)?).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Fatal::File {
            file: APPROVERS.to_owned(),
            what: faults.join("; "),
        }
    })
}

/// The receipt key, which only writ-exec can read.
///
/// # Errors
/// [`Fatal::File`].
pub fn receipt_key(ids: Ids) -> Result<SigningKey, Fatal> {
    let path = Path::new(RECEIPT_KEY);
    let fault = |what: String| Fatal::File {
        file: RECEIPT_KEY.to_owned(),
        what,
    };
    let text = read(path, |file| {
        if file.uid() != ids.exec_uid || file.mode() & 0o7377 != 0 {
            return Err("it must belong to writ-exec, with mode 0400".to_owned());
        }
        Ok(())
    })?;
    SigningKey::from_openssh(&text).map_err(|error| fault(error.to_string()))
}

/// Whether an operator or the CA halted this target. Anything but a clear "it is not there" counts as halted.
#[must_use]
pub fn halted() -> bool {
    !matches!(std::fs::symlink_metadata(HALT), Err(error) if error.kind() == std::io::ErrorKind::NotFound)
}

/// The kernel's boot id.
///
/// # Errors
/// [`Fatal::File`] where /proc is not mounted.
pub fn boot_id() -> Result<String, Fatal> {
    let file = "/proc/sys/kernel/random/boot_id";
    let fault = |error: std::io::Error| Fatal::File {
        file: file.to_owned(),
        what: error.to_string(),
    };
    Ok(std::fs::read_to_string(file).map_err(fault)?.trim().to_owned())
}

/// The public key that sshd says this session logged in with; none when sshd does not say.
///
/// The file belongs to the login user, so it is a cross-check and never an authority.
#[must_use]
pub fn login_key(file: &Path) -> Option<PublicKey> {
    let file = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(file)
        .ok()?;
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).ok()?;
    let mut methods = text.lines();
    let method = methods.next()?;
    // One method and no more: AuthenticationMethods is `publickey`.
    if methods.next().is_some() {
        return None;
    }
    let certificate = openssh::certificate::read(method.strip_prefix("publickey ")?).ok()?;
    PublicKey::from_key_data(certificate.public_key()).ok()
}

/// Reads a file that must be root's alone to write.
fn root_file(path: &Path) -> Result<String, Fatal> {
    read(path, |file| {
        if file.uid() != 0 || file.mode() & 0o022 != 0 {
            return Err("it must belong to root, and nobody else may write it".to_owned());
        }
        Ok(())
    })
}

fn read(path: &Path, check: impl FnOnce(&std::fs::Metadata) -> Result<(), String>) -> Result<String, Fatal> {
    let fault = |what: String| Fatal::File {
        file: path.display().to_string(),
        what,
    };
    let open = std::fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
        .open(path);
    let file: File = open.map_err(|error| fault(error.to_string()))?;
    let about = file.metadata().map_err(|error| fault(error.to_string()))?;
    if !about.is_file() || about.len() > MAX_FILE {
        return Err(fault(format!("it must be a regular file of at most {MAX_FILE} bytes")));
    }
    check(&about).map_err(fault)?;
    // Room for all of it and one byte more, which is how a reader sees the end: one read, and one that finds nothing.
    let mut text = String::with_capacity(usize::try_from(about.len() + 1).unwrap_or(0));
    file.take(MAX_FILE)
        .read_to_string(&mut text)
        .map_err(|error| fault(error.to_string()))?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "target = \"web-1\"\nrunner_uid = 1\nrunner_gid = 1\nexec_uid = 2\n";

    #[test]
    fn a_configuration_is_closed_and_has_a_ceiling() {
        assert_eq!(Config::parse(GOOD).unwrap().task_max_lifetime_s, 900);
        assert!(Config::parse(&format!("{GOOD}shell = \"/bin/sh\"\n")).is_err());
        assert!(Config::parse(&format!("{GOOD}task_max_lifetime_s = 901\n")).is_err());
        assert!(Config::parse(&format!("{GOOD}task_max_lifetime_s = 60\n")).is_ok());
        assert!(Config::parse(&GOOD.replace("web-1", "web,1")).is_err());
        assert!(!Config::parse(GOOD).unwrap().require_touch);
        let touched = Config::parse(&format!("{GOOD}require_touch = true\n")).unwrap();
        assert!(touched.require_touch);
    }
}
