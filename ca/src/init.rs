//! `writ-ca init`: makes the three keys, once. Never overwrites one.

use std::fmt::Write as _;
use std::io;

use audit::Event;
use nix::unistd::geteuid;

use crate::config::Config;
use crate::error::told;
use crate::random;
use crate::signer::{self, Created, HOST_CA, Signer, TASK_CA, TLS};
use crate::start::open_records;

/// Makes what is missing of the key folder and the keys, and returns the public lines, `ssh-ed25519 AAAA… task_ca`,
/// `… host_ca` and `… tls`. The log is opened first: keys that nothing tells of are not made.
///
/// # Errors
/// Every fault of what is there already, or what the file system says.
pub fn run(config: &Config) -> Result<String, Vec<String>> {
    let records = open_records(config)?;
    let at = |what: &str, e: io::Error| {
        let dir = config.key_dir.display();
        vec![format!(
            "failed to {what} in {dir} (key_dir): {e}; the folder above it must be the CA's own"
        )]
    };
    signer::create_dir(&config.key_dir).map_err(|e| at("make the folder of keys", e))?;
    let mut lines = String::new();
    for name in [TASK_CA, HOST_CA, TLS] {
        let seed = random::secret().map_err(|error| vec![told(&error)])?;
        let created = signer::create(&config.key_dir, name, &seed).map_err(|e| at("make a key", e))?;
        let signer = Signer::load(&config.key_dir, name, geteuid().as_raw())?;
        if created == Created::New {
            let message = format!("{name} {}", signer.public().fingerprint());
            records.own(Event::Init, &message).map_err(|error| vec![told(&error)])?;
        }
        let _infallible = writeln!(lines, "{} {name}", signer.public().to_openssh());
    }
    Ok(lines)
}
