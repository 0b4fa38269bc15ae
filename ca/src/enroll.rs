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
use rand::TryRng;
use rand::rngs::SysRng;
use serde::{Deserialize, Serialize};
use wire::ids::{Fingerprint, TargetName};
use wire::limits::SKEW_S;

use crate::certificate::{self, NONCE_BYTES};
use crate::config::Config;
use crate::error::chain;
use crate::inventory::{self, Shelf};
use crate::record::{self, Enrolment};
use crate::signer::{HOST_CA, Signer, TASK_CA};
use crate::start::open_records;

/// Longest line that a target may send, in bytes.
pub const LINE_BYTES: usize = 16 * 1024;

/// Life of a host certificate, in seconds: a year. Enrolling again with the same keys gives the next one.
pub const HOST_CERTIFICATE_S: u64 = 365 * 24 * 60 * 60;

/// What `writ-target enroll` prints.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wish {
    v: u32,
    target: TargetName,
    host_key: String,
    receipt_key: String,
}

/// What `writ-target enroll --accept` reads.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    v: u32,
    target: &'a TargetName,
    task_ca: String,
    host_certificate: String,
}

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
    /// One line of JSON for the target, without its newline.
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
    let (target, host_key, receipt_key) = read(input).map_err(one)?;
    let own_uid = geteuid().as_raw();
    let task_ca = Signer::load(&config.key_dir, TASK_CA, own_uid)?;
    let host_ca = Signer::load(&config.key_dir, HOST_CA, own_uid)?;
    let records = open_records(config)?;
    let _held = lock(config).map_err(|e| one(format!("{}: {e}", config.state_dir.display())))?;

    let inventory = Shelf::new(&config.inventory)
        .current()
        .map_err(|error| one(chain(&error)))?;
    let known = inventory.find(target.as_str());
    let entry = match known {
        Some(known) => {
            let enrolled = record::enrolled(&config.log_dir, &target).map_err(|error| one(chain(&error)))?;
            check_same(known, about, &receipt_key, enrolled.as_ref(), &host_key).map_err(one)?;
            known.clone()
        }
        None => {
            if let Some(other) = inventory.iter().find(|other| *other.receipt_key() == receipt_key) {
                let name = other.name();
                return Err(one(format!(
                    "{name} has that receipt key: a copied host needs a key of its own"
                )));
            }
            let address = about
                .address
                .as_deref()
                .ok_or_else(|| one("a new target needs --address HOST:PORT".to_owned()))?;
            let trust = HostTrust::Ca(host_ca.public().clone());
            Target::new(
                target.clone(),
                address,
                trust,
                receipt_key.clone(),
                about.labels.clone(),
            )
            .map_err(|faults| faults.iter().map(ToString::to_string).collect::<Vec<_>>())?
        }
    };

    let enrolment = Enrolment {
        target: target.clone(),
        host_key,
        receipt_key,
        serial: u64::from_le_bytes(random()?) >> 1,
        valid_after: now.saturating_sub(SKEW_S),
        valid_before: now + HOST_CERTIFICATE_S,
        ca: Fingerprint::of(host_ca.public()),
    };
    let recorded = records.enroll(enrolment).map_err(|error| one(chain(&error)))?;
    let unsigned = certificate::host(recorded, random::<NONCE_BYTES>()?).map_err(|error| one(chain(&error)))?;
    let host_certificate = host_ca.sign(unsigned).map_err(|error| one(chain(&error)))?;
    if known.is_none() {
        inventory::append(&config.inventory, &entry.stanza()).map_err(|error| one(chain(&error)))?;
    }
    let answer = Answer {
        v: wire::VERSION,
        target: &target,
        task_ca: task_ca.public().to_openssh(),
        host_certificate,
    };
    let line = serde_json::to_string(&answer).map_err(|error| one(error.to_string()))?;
    Ok(Enrolled {
        line,
        stanza: entry.stanza(),
    })
}

fn read(input: &[u8]) -> Result<(TargetName, PublicKey, PublicKey), String> {
    let wish: Wish = wire::strict::read(input.strip_suffix(b"\n").unwrap_or(input), LINE_BYTES)
        .map_err(|error| format!("the line of writ-target enroll: failed to {error}"))?;
    if wish.v != wire::VERSION {
        return Err(format!(
            "the line of writ-target enroll: version {} is not spoken here",
            wish.v
        ));
    }
    let key =
        |name: &str, text: &str| PublicKey::from_openssh(text).map_err(|what| format!("{name}: failed to {what}"));
    let (host_key, receipt_key) = (key("host_key", &wish.host_key)?, key("receipt_key", &wish.receipt_key)?);
    if host_key == receipt_key {
        return Err("host_key and receipt_key are the same: sshd could sign Outcomes".to_owned());
    }
    Ok((wish.target, host_key, receipt_key))
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

fn random<const N: usize>() -> Result<[u8; N], Vec<String>> {
    let mut bytes = [0; N];
    SysRng
        .try_fill_bytes(&mut bytes)
        .map_err(|e| vec![format!("failed to get randomness: {e}")])?;
    Ok(bytes)
}
