//! `writ-ca enroll`: takes a target in. Record, certify its host key, add it to the inventory, say what comes next.
//!
//! A name that is known is never given to other keys: whoever wants that takes the target out of the inventory first.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;

use catalogue::{HostTrust, Target};
use nix::unistd::geteuid;
use openssh::key::PublicKey;
use wire::enrolment::{Answer, Wish};
use wire::ids::Fingerprint;
use wire::limits::SKEW_S;
use wire::strict;

use crate::certificate::{self, NONCE_BYTES};
use crate::config::Config;
use crate::error::told;
use crate::history;
use crate::inventory::{self, Shelf};
use crate::random;
use crate::record::Enrolment;
use crate::signer::{HOST_CA, Signer, TASK_CA};
use crate::start::open_records;

/// Life of a host certificate, in seconds: a year. Enrolling again with the same keys gives the next one.
pub const HOST_CERTIFICATE_S: u64 = 365 * 24 * 60 * 60;

/// What the operator says about a target.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// `HOST:PORT`; may be left out for a target that is known.
    pub address: Option<String>,
    /// What policy and callers may choose it by.
    pub labels: BTreeMap<String, String>,
}

/// A target that was taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Enrolled {
    /// One line of JSON for the target, newline included.
    pub line: String,
    /// The target's part of `inventory.toml`, for relays and auditors.
    pub stanza: String,
}

/// Enrols the target that wrote `input`.
///
/// # Errors
/// Every fault. What was recorded before the fault is true and harmless: nobody has seen a certificate.
pub fn run(config: &Config, input: &[u8], about: &About, now: u64) -> Result<Enrolled, Vec<String>> {
    let one = |what: String| vec![what];
    let Wish {
        target,
        host_key,
        receipt_key,
    } = read(input).map_err(one)?;
    let own_uid = geteuid().as_raw();
    let task_ca = Signer::load(&config.key_dir, TASK_CA, own_uid)?;
    let host_ca = Signer::load(&config.key_dir, HOST_CA, own_uid)?;
    let records = open_records(config)?;
    let _held = lock(config).map_err(|e| {
        let dir = config.state_dir.display();
        one(format!(
            "failed to lock the inventory in {dir} (state_dir): {e}; the folder must be the CA's own"
        ))
    })?;

    let refused = |what: String| one(format!("failed to take {target} in: {what}"));
    let inventory = Shelf::new(&config.inventory)
        .current()
        .map_err(|error| one(told(&error)))?;
    let known = inventory.find(target.as_str());
    let entry = match known {
        Some(known) => {
            let enrolled = history::enrolled(&records, &target).map_err(|error| one(told(&error)))?;
            check_same(known, about, &receipt_key, enrolled.as_ref(), &host_key).map_err(refused)?;
            known.clone()
        }
        None => {
            if let Some(other) = inventory.iter().find(|other| *other.receipt_key() == receipt_key) {
                let name = other.name();
                return Err(refused(format!(
                    "{name} has that receipt key; a copied host needs a key of its own: remove its receipt.key"
                )));
            }
            let address = about
                .address
                .as_deref()
                .ok_or_else(|| refused("a new target needs --address HOST:PORT".to_owned()))?;
            let trust = HostTrust::Ca(host_ca.public().clone());
            Target::new(
                target.clone(),
                address,
                trust,
                receipt_key.clone(),
                about.labels.clone(),
            )
            .map_err(|faults| {
                let line = |fault: &catalogue::Fault| format!("failed to take {target} in: {fault}");
                faults.iter().map(line).collect::<Vec<_>>()
            })?
        }
    };

    let enrolment = Enrolment {
        target: target.clone(),
        host_key,
        receipt_key,
        serial: random::serial().map_err(|error| one(told(&error)))?,
        valid_after: now.saturating_sub(SKEW_S),
        valid_before: now + HOST_CERTIFICATE_S,
        ca: Fingerprint::of(host_ca.public()),
    };
    let recorded = records.enroll(enrolment).map_err(|error| one(told(&error)))?;
    let nonce = random::bytes::<NONCE_BYTES>().map_err(|error| one(told(&error)))?;
    let unsigned = certificate::host(recorded, nonce).map_err(|error| one(told(&error)))?;
    let host_certificate = host_ca.sign(unsigned).map_err(|error| one(told(&error)))?;
    if known.is_none() {
        inventory::append(&config.inventory, &entry.stanza()).map_err(|error| one(told(&error)))?;
    }
    let answer = Answer {
        target,
        task_ca: task_ca.public().clone(),
        host_certificate,
    };
    Ok(Enrolled {
        line: answer.to_line(),
        stanza: entry.stanza(),
    })
}

fn read(input: &[u8]) -> Result<Wish, String> {
    if input.trim_ascii().is_empty() {
        return Err("failed to read a line of `writ-target enroll`: nothing came on standard input".to_owned());
    }
    Wish::parse(input).map_err(|error| match error {
        strict::Error::Version(version) => format!(
            "failed to read the line of `writ-target enroll`: version {version} is not spoken here; install matching programs"
        ),
        error => format!("failed to take the line of `writ-target enroll`: failed to {error}"),
    })
}

/// A target that is known comes with the keys that are known.
fn check_same(
    known: &Target,
    about: &About,
    receipt_key: &PublicKey,
    enrolled: Option<&Fingerprint>,
    host_key: &PublicKey,
) -> Result<(), String> {
    let name = known.name();
    let first = "take it out of the inventory first if that is meant";
    if known.receipt_key() != receipt_key {
        return Err(format!("{name} is in the inventory with another receipt key; {first}"));
    }
    let another_host_key = match known.host() {
        HostTrust::Key(key) => key != host_key,
        HostTrust::Ca(_) => enrolled.is_some_and(|key| *key != Fingerprint::of(host_key)),
    };
    if another_host_key {
        return Err(format!("{name} was enrolled with another host key; {first}"));
    }
    if about
        .address
        .as_deref()
        .is_some_and(|address| address != known.address())
    {
        return Err(format!(
            "{name} is in the inventory with the address {}; {first}",
            known.address()
        ));
    }
    if !about.labels.is_empty() && about.labels != *known.labels() {
        return Err(format!(
            "{name} is in the inventory with other labels; change them there"
        ));
    }
    Ok(())
}

/// One enrolment at a time.
fn lock(config: &Config) -> io::Result<File> {
    let path = config.state_dir.join("inventory.lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    file.lock()?;
    Ok(file)
}
