//! `writ-target enroll --accept`: installs what the CA answered.
//!
//! Everything is checked before anything is written, and `ca.pub`, which turns trust on, is written last. A CA that is
//! already trusted stays: another one takes its place only where the administrator says so.

use std::path::Path;
use std::process::{Command, Stdio};

use openssh::certificate::{self, HostTerms};
use openssh::key::PublicKey;
use serde::{Deserialize, Serialize};
use wire::ids::TargetName;
use wire::limits::SKEW_S;

use crate::files::{self, Draft};
use crate::{Failure, Place};

/// Longest answer, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;

/// Where OpenSSH's own tool is: no search path is believed.
const SSH_KEYGEN: &str = "/usr/bin/ssh-keygen";

/// How a KRL begins (OpenSSH's PROTOCOL.krl). An empty file would let everybody in.
const KRL_MAGIC: &[u8] = b"SSHKRL\n\0";

/// The line that `writ-ca enroll` prints.
#[derive(Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Answer {
    v: u32,
    target: TargetName,
    task_ca: String,
    host_certificate: String,
}

/// An answer in which everything fits this host.
struct Checked {
    target: TargetName,
    task_ca: PublicKey,
    host_certificate: String,
}

/// Checks the answer and installs it. What was done comes back, for a person.
///
/// # Errors
/// [`Failure::Refused`] where the answer does not fit, and nothing was written then.
pub fn run(place: &Place, answer: &[u8], replace_ca: bool, now: u64) -> Result<String, Failure> {
    let checked = check(place, answer, now)?;
    let ca = trusted(place, &checked.task_ca, replace_ca)?;
    let mut done = Vec::new();
    let mut note =
        |written: bool, what: String| done.push(format!("{}{what}", if written { "wrote " } else { "kept " }));

    let krl = place.beside_config("krl");
    note(
        ensure_krl(&krl)?,
        format!("{} (who is revoked: nobody yet)", krl.display()),
    );
    let principals = place.beside_config("principals");
    let written = files::install(&principals, format!("{}\n", checked.target).as_bytes())?;
    note(
        written,
        format!("{} (only certificates for {})", principals.display(), checked.target),
    );
    let certificate = place.host_certificate();
    let written = files::install(&certificate, format!("{}\n", checked.host_certificate).as_bytes())?;
    note(
        written,
        format!("{} (how relays know this host)", certificate.display()),
    );
    let ca_pub = place.beside_config("ca.pub");
    let written = match ca {
        Trusted::Already => false,
        Trusted::New => files::install(&ca_pub, format!("{}\n", checked.task_ca.to_openssh()).as_bytes())?,
    };
    note(
        written,
        format!("{} ({})", ca_pub.display(), checked.task_ca.fingerprint()),
    );

    done.push(format!(
        "{} is enrolled. Next: present the host certificate (sshd/49-writ-hostcert.conf) and reload sshd",
        checked.target
    ));
    Ok(done.join("\n"))
}

fn check(place: &Place, answer: &[u8], now: u64) -> Result<Checked, Failure> {
    let refuse = |what: String| Err(Failure::Refused(what));
    let config = place.config()?;
    let host_key = place.host_key()?;
    let line = answer.trim_ascii();
    if line.is_empty() {
        return refuse(
            "nothing came on stdin: `writ-ca enroll` did not answer; what it said is its own message".to_owned(),
        );
    }
    let answer: Answer = wire::strict::read(line, MAX_BYTES).map_err(|error| {
        Failure::Refused(format!(
            "what came on stdin is not one line of `writ-ca enroll`: failed to {error}"
        ))
    })?;
    if answer.v != wire::VERSION {
        let (theirs, ours) = (answer.v, wire::VERSION);
        return refuse(format!(
            "the CA's answer has version {theirs}, this program speaks {ours}: install matching ones"
        ));
    }
    if answer.target != config.target {
        let (theirs, ours) = (answer.target, config.target);
        return refuse(format!(
            "the answer is for {theirs}, this is {ours}: it belongs on the other host"
        ));
    }
    let task_ca = PublicKey::from_openssh(&answer.task_ca)
        .map_err(|error| Failure::Refused(format!("the CA's answer is wrong: failed to {error} in task_ca")))?;
    check_certificate(&answer.host_certificate, &config.target, &host_key, &task_ca, now)?;
    Ok(Checked {
        target: config.target,
        task_ca,
        host_certificate: answer.host_certificate,
    })
}

/// The certificate must be one for this host's own key and name, by a CA that is for hosts only.
fn check_certificate(
    text: &str,
    target: &TargetName,
    host_key: &PublicKey,
    task_ca: &PublicKey,
    now: u64,
) -> Result<(), Failure> {
    let wrong = |what: String| Failure::Refused(format!("the CA's answer is wrong: host_certificate: {what}"));
    let certificate = certificate::read(text).map_err(|error| wrong(format!("failed to {error}")))?;
    if PublicKey::from_key_data(certificate.public_key()).ok().as_ref() != Some(host_key) {
        let what = "it is for another key than this host's: the answer to an older enrolment? enrol again";
        return Err(wrong(what.to_owned()));
    }
    let host_ca = PublicKey::from_key_data(certificate.signature_key())
        .map_err(|error| wrong(format!("failed to {error}, of its CA")))?;
    if host_ca == *task_ca {
        return Err(wrong(
            "its CA is the one that signs tasks: one key must not do both".to_owned(),
        ));
    }
    let terms = HostTerms {
        ca: &host_ca,
        principal: target.as_str(),
        now,
        skew_s: SKEW_S,
    };
    certificate::check_host(&certificate, &terms).map_err(|error| match error {
        certificate::Error::NotYetValid(seconds) => wrong(format!(
            "it is valid only in {seconds} s: compare this host's clock with the CA's"
        )),
        certificate::Error::Expired(seconds) => wrong(format!(
            "it ended {seconds} s ago: enrol again, or compare this host's clock with the CA's"
        )),
        other => wrong(format!("failed to {other}")),
    })
}

/// Whether the CA's key is in `ca.pub` already.
enum Trusted {
    Already,
    New,
}

fn trusted(place: &Place, task_ca: &PublicKey, replace_ca: bool) -> Result<Trusted, Failure> {
    let path = place.beside_config("ca.pub");
    let Some(text) = files::read_owned(&path, place.owner(), 0o022, MAX_BYTES as u64)? else {
        return Ok(Trusted::New);
    };
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .collect();
    if lines
        .iter()
        .any(|line| PublicKey::from_openssh(line).is_ok_and(|known| known == *task_ca))
    {
        return Ok(Trusted::Already);
    }
    if lines.is_empty() || replace_ca {
        return Ok(Trusted::New);
    }
    let (path, new) = (path.display(), task_ca.fingerprint());
    Err(Failure::Refused(format!(
        "{path} trusts another CA than the one that answered ({new}): if that is meant, ask the CA's operator for this \
         fingerprint, then run it again with --replace-ca"
    )))
}

/// Makes a KRL that revokes nobody, where none is; whether it did. sshd locks everybody out without one.
fn ensure_krl(path: &Path) -> Result<bool, Failure> {
    let present = std::fs::read(path).is_ok_and(|bytes| bytes.starts_with(KRL_MAGIC));
    if present {
        return Ok(false);
    }
    let damaged = std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0);
    if damaged {
        let what = "is not a KRL: nobody can log in with it; put the CA's there, or remove it and run this again";
        return Err(Failure::Refused(format!("{} {what}", path.display())));
    }
    let draft = Draft::new(path, 0o644)?;
    let made = Command::new(SSH_KEYGEN)
        .args(["-k", "-f"])
        .arg(draft.path())
        .env_clear()
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .output()
        .map_err(|error| Failure::Failed(format!("failed to run {SSH_KEYGEN}: {error}; install openssh-client")))?;
    let bytes = std::fs::read(draft.path()).unwrap_or_default();
    if !made.status.success() || !bytes.starts_with(KRL_MAGIC) {
        let said = String::from_utf8_lossy(&made.stderr).trim().escape_debug().to_string();
        return Err(Failure::Failed(format!(
            "{SSH_KEYGEN} -k failed to make an empty KRL: {said}"
        )));
    }
    draft.replace()?;
    Ok(true)
}
