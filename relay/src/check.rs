//! What a start needs, loaded and judged: `check-config`, and the first thing that `serve` does.
//!
//! All faults are gathered before anything is said. Nothing is opened to clients, and nothing is minted.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use catalogue::{Catalogue, Inventory};
use grpc::keys::{self, Own, Peer};
use nix::unistd::{AccessFlags, access};

use crate::config::{CaAddress, Config, Fault, own_folder_fault};
use crate::door::OpenTo;
use crate::error::chain;
use crate::inventory;
use crate::issuer::Issuer;
use crate::records::Records;
use crate::rules::{Known, Rules};
use crate::seats;
use crate::store::{self, Unusable};

/// Everything that the configuration names, loaded and without a fault.
#[derive(Debug)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// The targets.
    pub inventory: Inventory,
    /// The relay's copy of the catalogue.
    pub catalogue: Catalogue,
    /// What the relay refuses by itself.
    pub rules: Rules,
}

/// Loads the configuration and what it names, for a start.
///
/// # Errors
/// Every fault that can be found without the network.
pub fn load(path: &Path) -> Result<Loaded, Vec<Fault>> {
    // The first check of all: a relay that runs as root would make every other separation pointless.
    if nix::unistd::geteuid().is_root() || nix::unistd::getuid().is_root() {
        return Err(vec![Fault::new(
            "uid 0: run it as its own account, writ-relay (User= in its unit)",
        )]);
    }
    let config = Config::load(path)?;
    let mut faults: Vec<Fault> = own_folder_fault("state_dir", &config.state_dir, 0o700)
        .into_iter()
        .collect();
    faults.extend(own_folder_fault("log_dir", &config.log_dir, 0o2750));
    for (key, socket) in [
        ("socket", &config.socket),
        ("approvals_socket", &config.approvals_socket),
    ] {
        let fault = socket.parent().and_then(|folder| socket_folder_fault(key, folder));
        // Where they are in one folder it is said once.
        faults.extend(fault.filter(|_| key == "socket" || config.approvals_to == OpenTo::Group));
    }
    if faults.is_empty() {
        // In a folder that is ours alone, or not at all.
        faults.extend(own_key(&config).and_then(Result::err));
    }
    faults.extend(ca_keys_fault(&config));
    let inventory = inventory::load(&config.inventory)
        .map_err(|found| faults.extend(found))
        .ok();
    let catalogue = catalogue(&config.catalogue_dir)
        .map_err(|found| faults.extend(found))
        .ok();
    let rules = inventory
        .as_ref()
        .zip(catalogue.as_ref())
        .and_then(|(inventory, catalogue)| {
            let known = Known {
                persons: &config.persons,
                inventory,
                catalogue,
            };
            let rules = Rules::new(config.mode, config.deny.clone(), &known);
            rules.map_err(|found| faults.extend(found)).ok()
        });
    match (inventory, catalogue, rules) {
        (Some(inventory), Some(catalogue), Some(rules)) if faults.is_empty() => Ok(Loaded {
            config,
            inventory,
            catalogue,
            rules,
        }),
        _ => Err(faults),
    }
}

/// What a start would find wrong, the log and the CA included.
///
/// # Errors
/// Every fault.
pub async fn whole(path: &Path) -> Result<Loaded, Vec<Fault>> {
    let loaded = load(path)?;
    let mut faults = Vec::new();
    let config = &loaded.config;
    // As a start does it: what has to be writable is opened for writing, and an empty folder gets its first record.
    if let Err(error) = Records::open(&config.log_dir, &config.log_lock(), &config.name) {
        let (why, dir) = (chain(&error), config.log_dir.display());
        faults.push(Fault::new(format!(
            "log_dir: failed to {why}, in {dir}; it and what is in it must be writ-relay's, with space left"
        )));
    }
    if let Err(unusable) = store::check(&config.store()) {
        faults.push(Fault::new(format!("state_dir: failed to {unusable}")));
    }
    let issuer = Issuer::of(config);
    match issuer.describe().await {
        Ok(ca) if ca.relay != config.name.as_str() => {
            faults.push(Fault::new(
                "name: failed to recognise it: the CA knows this relay by another name; use the one of ca.toml",
            ));
        }
        Ok(_) => {}
        Err(error) => {
            let (why, at) = (chain(&error), &config.ca);
            let next = match own_key(config) {
                Some(Ok(key)) => format!("start writ-ca, and let this be the key of {} there: {key}", config.name),
                _ => "start writ-ca, and let writ-relay be in the group of its socket and in ca.toml".to_owned(),
            };
            faults.push(Fault::new(format!("ca: failed to {why}, at {at}; {next}")));
        }
    }
    if faults.is_empty() { Ok(loaded) } else { Err(faults) }
}

/// The public key that the CA knows this relay by, where it is on another machine: made when it is missing, so that it never
/// leaves this one.
///
/// # Errors
/// The fault that keeps it from being used.
pub fn own_key(config: &Config) -> Option<Result<String, Fault>> {
    let CaAddress::Tls { .. } = config.ca else { return None };
    let path = config.tls_key();
    let failed =
        |why: &dyn std::fmt::Display| Fault::new(format!("state_dir: failed to make {}: {why}", path.display()));
    let made = seats::new_key()
        .map_err(|error| failed(&error))
        .and_then(|key| keys::create(&path, &key).map_err(|error| failed(&error)));
    Some(made.and_then(|_| match Own::at(&path).current() {
        Ok(key) => Ok(key.public().to_openssh()),
        Err(fault) => Err(Fault::new(format!("state_dir: {fault}"))),
    }))
}

fn ca_keys_fault(config: &Config) -> Option<Fault> {
    let CaAddress::Tls { keys, .. } = &config.ca else {
        return None;
    };
    match Peer::at(keys).current() {
        Ok(found) if found.is_empty() => Some(Fault::new(format!(
            "ca_keys: failed to find a key in {}; `writ-ca init` prints it, the one with the name tls",
            keys.display()
        ))),
        Ok(_) => None,
        Err(fault) => Some(Fault::new(format!("ca_keys: {fault}"))),
    }
}

/// What is wrong with the store that another start would find again.
#[must_use]
pub fn store_fault(unusable: &Unusable) -> Option<Fault> {
    match unusable {
        Unusable::Newer { .. } | Unusable::Foreign(_) | Unusable::Broken { .. } | Unusable::Exposed { .. } => {
            Some(Fault::new(format!("state_dir: failed to {unusable}")))
        }
        Unusable::Held(_) | Unusable::Machine { .. } => None,
    }
}

/// What is missing of the separation of accounts, as far as it can be seen from here.
pub async fn boundary_missing(config: &Config) -> Vec<String> {
    let own = nix::unistd::geteuid().as_raw();
    let mut missing = Vec::new();
    if config.persons.iter().any(|(uid, _)| *uid == own) {
        missing.push(format!(
            "a person's uid is the relay's own ({own}): such clients can read the relay's keys"
        ));
    }
    if Issuer::of(config).uid().await == Some(own) {
        missing.push(format!(
            "the CA runs under the relay's uid ({own}): the relay can sign for itself"
        ));
    }
    missing
}

/// The socket is made and replaced in its folder, and nobody else may put one there.
fn socket_folder_fault(key: &str, path: &Path) -> Option<Fault> {
    let fault = |what: &dyn std::fmt::Display| {
        let path = path.display();
        Some(Fault::new(format!("{key}: failed to use its folder {path}: {what}")))
    };
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => fault(&"it is not a folder; name one"),
        Ok(found) if found.mode() & 0o002 != 0 => {
            fault(&"everybody may write there, and could put another socket in its place; chmod o-w it")
        }
        Ok(_) => match access(path, AccessFlags::W_OK | AccessFlags::X_OK) {
            Ok(()) => None,
            Err(errno) => fault(&format_args!("{}; chown it to writ-relay", errno.desc())),
        },
        Err(error) => fault(&format_args!(
            "{error}; make it, with tmpfiles.d as in deploy/relay/README.md"
        )),
    }
}

fn catalogue(path: &Path) -> Result<Catalogue, Vec<Fault>> {
    Catalogue::load(path).map_err(|faults| {
        faults
            .iter()
            .map(|fault| Fault::new(format!("catalogue_dir: {fault}")))
            .collect()
    })
}
