//! What an administrator does on a target: enrol it with a CA, check its catalogue, see what an action may do, and whether
//! the host is as it must be.
//!
//! It is a program of its own, owned by root, because root must never run the copy that another account could rewrite.
//! Nothing here decides about a request, and nothing is resident.

pub mod accept;
pub mod config;
pub mod doctor;
pub mod enroll;
pub mod explain;
mod files;
pub mod lint;
mod place;
pub mod sudoers;

pub use place::Place;

/// The target's configuration.
pub const CONFIG: &str = "/etc/writ/target.toml";

/// The public half of sshd's host key.
pub const HOST_KEY: &str = "/etc/ssh/ssh_host_ed25519_key.pub";

/// The folder of manifests.
pub const ACTIONS: &str = "/etc/writ/actions.d";

/// The migrations of this target, a folder for each set of databases.
pub const MIGRATIONS: &str = "/etc/writ/migrations";

/// Why a verb did not do what it was asked: what happened, whose fault it is, what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The machine did not do its part.
    #[error("{0}")]
    Failed(String),
    /// Something did not check out, and nothing was changed.
    #[error("{0}")]
    Refused(String),
}

impl Failure {
    /// 1 failed, 2 refused.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Failed(_) => 1,
            Self::Refused(_) => 2,
        }
    }
}
