//! Whom this target believes, and by which keys it is known: CA, principals, revocations, host certificate, receipt key.

use std::path::{Path, PathBuf};

use openssh::certificate::{self, HostTerms};
use openssh::key::{PublicKey, SigningKey};
use wire::limits::SKEW_S;
use zeroize::Zeroizing;

use super::CA as CA_FILE;
use super::report::{Check, Report};
use super::tools::{self, SSH_KEYGEN};
use crate::HOST_KEY;
use crate::config::Config;

const CA: Check = Check {
    name: "task_ca",
    what: "`ca.pub` holds one or two ed25519 keys",
    why: "agent-exec believes these keys and no others; with none, nobody",
    mend: "enrol: `writ-target enroll --accept`",
};
const PRINCIPALS: Check = Check {
    name: "principals",
    what: "`principals` holds this target's name and nothing else",
    why: "sshd would let in certificates that were made for another target",
    mend: "`echo NAME >/etc/writ/principals`",
};
const KRL: Check = Check {
    name: "krl",
    what: "the revocation list can be read and is not empty",
    why: "with an empty file sshd takes revoked certificates, with a broken one it lets nobody in",
    mend: "`ssh-keygen -k -f /etc/writ/krl`, then bring the CA's list",
};
const HOST_CERTIFICATE: Check = Check {
    name: "host_certificate",
    what: "the host certificate is for this host's key and name, and has not ended",
    why: "relays that know this host by its CA would refuse to connect",
    mend: "enrol again: `writ-target enroll`",
};
const RECEIPT_KEY: Check = Check {
    name: "receipt_key",
    what: "the receipt key is an ed25519 key, whole, and no other key of this host or its CA",
    why: "without it no Outcome can be signed; shared, somebody else could sign them",
    mend: "remove `receipt.key` and enrol again; the CA then knows the new one",
};

pub(super) const CHECKS: &[&Check] = &[&CA, &PRINCIPALS, &KRL, &HOST_CERTIFICATE, &RECEIPT_KEY];

const PRINCIPALS_FILE: &str = "/etc/writ/principals";
const KRL_FILE: &str = "/etc/writ/krl";
const RECEIPT_KEY_FILE: &str = "/etc/writ/receipt.key";
pub(super) const ENROL: &str = "from the CA's machine: ssh HOST sudo writ-target enroll | writ-ca enroll --address HOST:22 | \
                     ssh HOST sudo writ-target enroll --accept";
/// A host certificate that ends sooner is said to, in seconds.
const SOON_S: u64 = 14 * 24 * 3600;

type Text = Result<Option<String>, String>;

#[derive(Debug, Clone)]
pub(super) struct Authority {
    cas: Result<Vec<PublicKey>, String>,
    principals: Text,
    krl: Result<(), String>,
    host_key: Result<PublicKey, String>,
    /// The public half of the receipt key.
    receipt_key: Result<PublicKey, String>,
    /// Certificates that stand beside host keys, whether sshd presents them or not.
    certificates: Vec<(PathBuf, Text)>,
}

impl Authority {
    /// The keys in ca.pub, as far as they can be read.
    pub(super) fn cas(&self) -> &[PublicKey] {
        self.cas.as_deref().unwrap_or_default()
    }

    /// Keys that are no person's, and whose they are.
    pub(super) fn machines(&self) -> Vec<(PublicKey, &'static str)> {
        let cas = self.cas().iter().map(|key| (key.clone(), "a key of the task CA"));
        let own = [
            (&self.host_key, "this host's key"),
            (&self.receipt_key, "the receipt key"),
        ];
        let own = own
            .into_iter()
            .filter_map(|(key, whose)| Some((key.as_ref().ok()?.clone(), whose)));
        cas.chain(own).collect()
    }
}

pub(super) fn look() -> Authority {
    let certificate = Path::new(HOST_KEY).with_file_name("ssh_host_ed25519_key-cert.pub");
    Authority {
        cas: text(CA_FILE).and_then(|text| keys(&text)),
        principals: tools::read(Path::new(PRINCIPALS_FILE)),
        krl: krl(),
        host_key: text(HOST_KEY)
            .and_then(|text| PublicKey::from_openssh(&text).map_err(|error| format!("failed to {error}"))),
        receipt_key: receipt_key(),
        certificates: vec![(certificate.clone(), tools::read(&certificate))],
    }
}

fn text(path: &str) -> Result<String, String> {
    tools::read(Path::new(path))?.ok_or_else(|| format!("{path} is missing"))
}

fn lines(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// As agent-exec reads them.
fn keys(text: &str) -> Result<Vec<PublicKey>, String> {
    let keys: Result<Vec<_>, _> = lines(text).map(PublicKey::from_openssh).collect();
    let keys = keys.map_err(|error| format!("failed to {error} in {CA_FILE}"))?;
    match keys.len() {
        1 | 2 => Ok(keys),
        number => Err(format!("{CA_FILE} holds {number} keys")),
    }
}

fn krl() -> Result<(), String> {
    match tools::at(Path::new(KRL_FILE))? {
        None => return Err(format!("{KRL_FILE} is missing: nobody can log in")),
        Some(about) if about.len() == 0 => return Err(format!("{KRL_FILE} is empty: revoked certificates log in")),
        Some(_) => {}
    }
    let ran = tools::run(SSH_KEYGEN, &["-Q", "-l", "-f", KRL_FILE])?;
    if ran.ok {
        Ok(())
    } else {
        Err(format!("{KRL_FILE} is no revocation list: {}", ran.complaint()))
    }
}

fn receipt_key() -> Result<PublicKey, String> {
    let text = Zeroizing::new(text(RECEIPT_KEY_FILE)?);
    let key = SigningKey::from_openssh(&text).map_err(|error| format!("failed to {error} in {RECEIPT_KEY_FILE}"))?;
    // The file holds both halves; a signature shows whether they belong together.
    let proof = b"doctor";
    let signature = openssh::sshsig::sign(&key, "doctor@writ.internal", proof);
    match signature.map(|signature| openssh::sshsig::verify(&signature, key.public(), "doctor@writ.internal", proof)) {
        Ok(Ok(())) => Ok(key.public().clone()),
        _ => Err(format!("the two halves in {RECEIPT_KEY_FILE} do not match")),
    }
}

/// `presented` is the certificate file that sshd says it presents.
pub(super) fn judge(
    authority: &Authority,
    config: Option<&Config>,
    presented: Option<&str>,
    now: u64,
    report: &mut Report,
) {
    match &authority.cas {
        Err(error) => report.finding(&CA, error, ENROL),
        Ok(keys) => {
            let shown: Vec<String> = keys.iter().map(PublicKey::fingerprint).collect();
            report.settle(&CA, shown.join(", "));
        }
    }
    if let Some(config) = config {
        judge_principals(&authority.principals, config.target.as_str(), report);
    }
    report.settle(&PRINCIPALS, "not looked at: target.toml cannot be read");
    if let Err(error) = &authority.krl {
        let mend =
            format!("{SSH_KEYGEN} -k -f {KRL_FILE}.new && mv {KRL_FILE}.new {KRL_FILE}; then bring the CA's list");
        report.finding(&KRL, error, mend);
    }
    report.settle(&KRL, "ssh-keygen reads it");
    if let Some(config) = config {
        judge_certificate(authority, config.target.as_str(), presented, now, report);
    }
    report.settle(&HOST_CERTIFICATE, "not looked at: target.toml cannot be read");
    match &authority.receipt_key {
        Err(error) => report.finding(&RECEIPT_KEY, error, format!("rm -f {RECEIPT_KEY_FILE}, then {ENROL}")),
        Ok(key) => {
            let host = authority.host_key.as_ref().ok();
            if host == Some(key) || authority.cas().contains(key) {
                let what = "it is also the host key or a key of the CA";
                report.finding(&RECEIPT_KEY, what, format!("rm {RECEIPT_KEY_FILE}, then {ENROL}"));
            }
            report.settle(&RECEIPT_KEY, key.fingerprint());
        }
    }
}

fn judge_principals(principals: &Text, target: &str, report: &mut Report) {
    let mend = format!("echo {target} >{PRINCIPALS_FILE}");
    match principals {
        Err(error) => report.finding(&PRINCIPALS, error, mend),
        Ok(None) => report.finding(&PRINCIPALS, format!("{PRINCIPALS_FILE} is missing"), mend),
        Ok(Some(text)) => {
            let found: Vec<&str> = lines(text).collect();
            if found != [target] {
                let what = format!(
                    "{PRINCIPALS_FILE} lists \"{}\", not \"{target}\" alone",
                    found.join(", ")
                );
                report.finding(&PRINCIPALS, what, mend);
            }
        }
    }
    report.settle(&PRINCIPALS, format!("only certificates for {target}"));
}

fn judge_certificate(authority: &Authority, target: &str, presented: Option<&str>, now: u64, report: &mut Report) {
    let Some(file) = presented else {
        let beside = authority
            .certificates
            .iter()
            .any(|(_, text)| matches!(text, Ok(Some(_))));
        if beside {
            let what = "there is one, and sshd does not present it";
            report.notice(
                &HOST_CERTIFICATE,
                what,
                "writ/install --host-certificate && systemctl reload ssh",
            );
        }
        report.settle(
            &HOST_CERTIFICATE,
            "sshd presents none: relays know this host by its key",
        );
        return;
    };
    let text = match authority.certificates.iter().find(|(path, _)| path == Path::new(file)) {
        Some((_, text)) => text.clone(),
        None => tools::read(Path::new(file)),
    };
    let wrong = match text {
        Err(error) => Err(error),
        Ok(None) => Err("is missing".to_owned()),
        Ok(Some(text)) => check(&text, authority, target, now),
    };
    match wrong {
        Err(what) => report.finding(&HOST_CERTIFICATE, format!("{file}: {what}"), ENROL),
        Ok(days) if days * 24 * 3600 < SOON_S => {
            report.notice(&HOST_CERTIFICATE, format!("{file} ends in {days} days"), ENROL);
        }
        Ok(days) => report.settle(&HOST_CERTIFICATE, format!("for {target}, {days} more days")),
    }
}

/// How many more days it is valid.
fn check(text: &str, authority: &Authority, target: &str, now: u64) -> Result<u64, String> {
    let certificate = certificate::read(text.trim_end()).map_err(|error| format!("failed to {error}"))?;
    let host_key = authority.host_key.as_ref().map_err(Clone::clone)?;
    if PublicKey::from_key_data(certificate.public_key()).ok().as_ref() != Some(host_key) {
        return Err(format!("is for another key than {HOST_KEY}"));
    }
    let ca = PublicKey::from_key_data(certificate.signature_key())
        .map_err(|error| format!("failed to {error}, of its CA"))?;
    if authority.cas().contains(&ca) {
        return Err("is signed by the task CA: one key must not do both".to_owned());
    }
    let terms = HostTerms {
        ca: &ca,
        principal: target,
        now,
        skew_s: SKEW_S,
    };
    certificate::check_host(&certificate, &terms).map_err(|error| match error {
        certificate::Error::Expired(seconds) => format!("ended {seconds} s ago"),
        certificate::Error::NotYetValid(seconds) => format!("begins only in {seconds} s: look at the clock"),
        other => format!("failed to {other}"),
    })?;
    Ok(certificate.valid_before().saturating_sub(now) / (24 * 3600))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ssh_key::certificate::{Builder, CertType};

    const NOW: u64 = 1_800_000_000;

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Zeroizing::new([seed; 32])).unwrap()
    }

    fn host_certificate(ca: u8, host: u8, name: &str, until: u64) -> String {
        let mut builder = Builder::new([7; 16], key(host).public().key_data(), NOW - 3600, until).unwrap();
        builder.cert_type(CertType::Host).unwrap();
        builder.valid_principal(name).unwrap();
        builder.sign(key(ca).private()).unwrap().to_openssh().unwrap()
    }

    const FILE: &str = "/etc/ssh/ssh_host_ed25519_key-cert.pub";

    fn healthy() -> Authority {
        let certificate = host_certificate(2, 3, "web-1", NOW + 90 * 24 * 3600);
        Authority {
            cas: Ok(vec![key(1).public().clone()]),
            principals: Ok(Some("# ours\nweb-1\n".to_owned())),
            krl: Ok(()),
            host_key: Ok(key(3).public().clone()),
            receipt_key: Ok(key(4).public().clone()),
            certificates: vec![(PathBuf::from(FILE), Ok(Some(certificate + "\n")))],
        }
    }

    fn judged(authority: &Authority) -> Report {
        let config = Config::parse("target = \"web-1\"\nrunner_uid = 1\nrunner_gid = 1\nexec_uid = 2\n").unwrap();
        let mut report = Report::default();
        judge(authority, Some(&config), Some(FILE), NOW, &mut report);
        report
    }

    #[test]
    fn a_healthy_target_has_no_findings() {
        let report = judged(&healthy());
        assert_eq!(report.found(), Vec::<&str>::new(), "{}", report.text());
        let names: Vec<_> = report.said().iter().map(|said| said.check.name).collect();
        assert_eq!(names, CHECKS.iter().map(|check| check.name).collect::<Vec<_>>());
    }

    #[test]
    fn each_broken_thing_is_named() {
        type Break = fn(&mut Authority);
        let table: &[(&str, Break)] = &[
            ("task_ca", |at| at.cas = keys("")),
            ("task_ca", |at| at.cas = keys("ssh-rsa AAAA")),
            ("principals", |at| at.principals = Ok(Some("web-1\nweb-2\n".to_owned()))),
            ("principals", |at| at.principals = Ok(Some(String::new()))),
            ("principals", |at| at.principals = Ok(None)),
            ("krl", |at| at.krl = Err("is empty".to_owned())),
            ("receipt_key", |at| at.receipt_key = Err("is missing".to_owned())),
            ("receipt_key", |at| at.receipt_key = at.host_key.clone()),
            ("receipt_key", |at| at.receipt_key = Ok(key(1).public().clone())),
            ("host_certificate", |at| at.certificates[0].1 = Ok(None)),
            ("host_certificate", |at| at.certificates[0].1 = Ok(Some("x".to_owned()))),
            ("host_certificate", |at| {
                at.certificates[0].1 = Ok(Some(host_certificate(2, 5, "web-1", NOW + 99)))
            }),
            ("host_certificate", |at| {
                at.certificates[0].1 = Ok(Some(host_certificate(2, 3, "web-2", NOW + 99)))
            }),
            ("host_certificate", |at| {
                at.certificates[0].1 = Ok(Some(host_certificate(2, 3, "web-1", NOW - 99)))
            }),
            ("host_certificate", |at| {
                at.certificates[0].1 = Ok(Some(host_certificate(1, 3, "web-1", NOW + 99)))
            }),
        ];
        for (name, break_it) in table {
            let mut authority = healthy();
            break_it(&mut authority);
            let report = judged(&authority);
            assert_eq!(report.found(), [*name], "{}", report.text());
        }
    }

    #[test]
    fn three_keys_are_one_too_many() {
        let line = |seed: u8| key(seed).public().to_openssh() + " comment\n";
        assert_eq!(keys(&(line(1) + "# note\n\n" + &line(2))).unwrap().len(), 2);
        assert!(keys(&(line(1) + &line(2) + &line(3))).is_err());
    }

    #[test]
    fn a_certificate_that_ends_soon_or_is_not_presented_is_a_notice() {
        let mut authority = healthy();
        authority.certificates[0].1 = Ok(Some(host_certificate(2, 3, "web-1", NOW + 3 * 24 * 3600)));
        assert!(judged(&authority).found().is_empty());
        assert!(judged(&authority).text().contains("ends in 3 days"));
        let mut report = Report::default();
        judge_certificate(&healthy(), "web-1", None, NOW, &mut report);
        assert!(report.text().contains("sshd does not present it") && report.found().is_empty());
    }
}
