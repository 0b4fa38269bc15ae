//! `writ-target enroll`: the one line by which a CA gets to know this target.
//!
//! The receipt key is made here and its private half never leaves. Asking again prints the same line.

use openssh::key::{PublicKey, SigningKey};
use rand::TryRng;
use rand::rngs::SysRng;
use serde::Serialize;
use wire::ids::TargetName;
use zeroize::Zeroizing;

use crate::files::{self, Draft};
use crate::{Failure, Place};

/// The name of the receipt key beside the configuration.
const RECEIPT_KEY: &str = "receipt.key";

/// Longest key file that is read, in bytes.
const MAX_BYTES: u64 = 16 * 1024;

/// The line that `writ-ca enroll` reads.
#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    target: &'a TargetName,
    host_key: String,
    receipt_key: String,
}

/// What a target asks its CA for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// One line of JSON, without its newline.
    pub line: String,
    /// What was done, for a person.
    pub note: String,
}

/// Reads the configuration, makes the receipt key if there is none, and puts the line together.
///
/// # Errors
/// [`Failure::Refused`] where something is missing or could have been written by others.
pub fn run(place: &Place) -> Result<Wish, Failure> {
    let config = place.config()?;
    let host_key = place.host_key()?;
    let (receipt_key, made) = receipt_key(place, config.exec_uid)?;
    if receipt_key == host_key {
        let what = "the receipt key is the host key: sshd could sign Outcomes; remove receipt.key and enrol again";
        return Err(Failure::Refused(what.to_owned()));
    }
    let line = serde_json::to_string(&Line {
        v: wire::VERSION,
        target: &config.target,
        host_key: host_key.to_openssh(),
        receipt_key: receipt_key.to_openssh(),
    })
    .map_err(|error| Failure::Failed(format!("failed to write JSON: {error}")))?;
    let how = if made {
        "made a receipt key"
    } else {
        "the receipt key is there already"
    };
    Ok(Wish {
        line,
        note: format!("{}: {how}, {}", config.target, receipt_key.fingerprint()),
    })
}

fn receipt_key(place: &Place, exec_uid: u32) -> Result<(PublicKey, bool), Failure> {
    if let Some(key) = read_receipt_key(place, exec_uid)? {
        return Ok((key, false));
    }
    let mut seed = Zeroizing::new([0_u8; 32]);
    SysRng
        .try_fill_bytes(seed.as_mut())
        .map_err(|error| Failure::Failed(format!("failed to get randomness from the kernel: {error}")))?;
    let failed = |error: openssh::key::KeyError| Failure::Failed(format!("failed to {error}, for a new receipt key"));
    let key = SigningKey::from_seed(&seed).map_err(failed)?;
    let mut draft = Draft::new(&place.beside_config(RECEIPT_KEY), 0o400)?;
    draft.write(key.to_openssh().map_err(failed)?.as_bytes())?;
    draft.give_to(exec_uid)?;
    if draft.place_new()? {
        return Ok((key.public().clone(), true));
    }
    // Somebody else made one meanwhile: theirs counts.
    let what = "the receipt key appeared and went away again while this ran: run it again";
    read_receipt_key(place, exec_uid)?
        .map(|key| (key, false))
        .ok_or_else(|| Failure::Failed(what.to_owned()))
}

fn read_receipt_key(place: &Place, exec_uid: u32) -> Result<Option<PublicKey>, Failure> {
    let path = place.beside_config(RECEIPT_KEY);
    let Some(text) = files::read_owned(&path, exec_uid, 0o7377, MAX_BYTES)?.map(Zeroizing::new) else {
        return Ok(None);
    };
    let key = SigningKey::from_openssh(&text).map_err(|error| {
        let (path, next) = (
            path.display(),
            "if it is damaged, move it away and enrol again under a new name",
        );
        Failure::Refused(format!("failed to {error} in {path}: {next}"))
    })?;
    Ok(Some(key.public().clone()))
}
