//! OpenSSH certificates: the checks that a certificate's signature does not make for us.
//!
//! `ssh-key` verifies the signature, the fingerprint of the CA and the time. Left to the caller, and done here: the type,
//! the principals (an empty list means *all*), critical options and extensions, the lifetime, and that the bytes are the
//! one encoding of what they say. Source: OpenSSH's PROTOCOL.certkeys.

use ssh_key::certificate::{CertType, Certificate, OptionsMap};

use crate::key::PublicKey;

/// The algorithm name before a certificate's base64.
pub const ALGORITHM: &str = "ssh-ed25519-cert-v01@openssh.com";

/// The longest certificate text that is looked at, in bytes. One with a full grant has about 6,500.
pub const MAX_TEXT: usize = 16 * 1024;

/// The signature field of a certificate signed with ed25519: its length, the algorithm's name, 64 bytes.
const SIGNATURE_FIELD: usize = 4 + (4 + "ssh-ed25519".len()) + (4 + 64);

/// Why a certificate was not accepted. The order of the variants is the order of the checks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Not one certificate in its one encoding: bad base64, unsorted or repeated options, trailing bytes.
    #[error("read an OpenSSH certificate")]
    Malformed,
    /// The certified key or the CA's key is not ed25519.
    #[error("accept a certificate that is not ed25519")]
    Algorithm,
    /// Signed by a key that is not trusted here, or not signed at all.
    #[error("trust the certificate's CA")]
    Untrusted,
    /// A host certificate where a user's is wanted, or the other way round.
    #[error("accept a certificate of this type")]
    Type,
    /// Not exactly the one principal wanted; an empty list would mean everybody.
    #[error("accept the certificate's principals")]
    Principals,
    /// Valid for longer than is accepted here, whoever signed it.
    #[error("accept the certificate's lifetime")]
    Lifetime,
    /// Not valid yet, with the tolerance; the number is how many seconds are missing without it.
    #[error("accept a certificate that is valid only in {0} s")]
    NotYetValid(u64),
    /// Not valid any more, with the tolerance; the number is how many seconds ago it ended.
    #[error("accept a certificate that ended {0} s ago")]
    Expired(u64),
    /// A critical option or extension is missing, unknown, or has another value than it must have.
    #[error("accept the certificate's options")]
    Options,
    /// There is no grant in it.
    #[error("find a grant in the certificate")]
    NoGrant,
}

/// What a user certificate must say to be accepted.
#[derive(Debug, Clone)]
pub struct UserTerms<'a> {
    /// The CAs that are trusted: at most a few.
    pub cas: &'a [PublicKey],
    /// The one principal that it must list.
    pub principal: &'a str,
    /// The value of its critical option `force-command`.
    pub force_command: &'a str,
    /// The name of the one extension that it must have.
    pub grant: &'a str,
    /// The clock, in Unix seconds.
    pub now: u64,
    /// Tolerance towards both ends of the validity, in seconds.
    pub skew_s: u64,
    /// The longest `valid_before - valid_after`, in seconds.
    pub max_lifetime_s: u64,
}

/// A user certificate that passed [`check_user`], and what is in it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct UserCertificate {
    key: PublicKey,
    ca: PublicKey,
    serial: u64,
    key_id: String,
    grant: String,
    valid_after: u64,
    valid_before: u64,
}

impl UserCertificate {
    /// The key that it certifies.
    #[must_use]
    pub fn key(&self) -> &PublicKey {
        &self.key
    }

    /// The CA that signed it.
    #[must_use]
    pub fn ca(&self) -> &PublicKey {
        &self.ca
    }

    /// Its serial number.
    #[must_use]
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Its key id, which sshd writes into its own log.
    #[must_use]
    pub fn key_id(&self) -> &str {
        &self.key_id
    }

    /// The text of its grant extension, not yet read.
    #[must_use]
    pub fn grant(&self) -> &str {
        &self.grant
    }

    /// First second of its validity, Unix time.
    #[must_use]
    pub fn valid_after(&self) -> u64 {
        self.valid_after
    }

    /// First second after its validity, Unix time.
    #[must_use]
    pub fn valid_before(&self) -> u64 {
        self.valid_before
    }

    /// Judges the clock again: a certificate that was good when it came may be over now.
    ///
    /// # Errors
    /// [`Error::NotYetValid`] or [`Error::Expired`].
    pub fn check_time(&self, now: u64, skew_s: u64) -> Result<(), Error> {
        check_time(self.valid_after, self.valid_before, now, skew_s)
    }
}

/// Reads a user certificate (`ssh-ed25519-cert-v01@openssh.com AAAA…`, one line, no comment) and checks all of it.
///
/// # Errors
/// The first [`Error`] in the order of its variants.
pub fn check_user(text: &str, terms: &UserTerms<'_>) -> Result<UserCertificate, Error> {
    let certificate = read(text)?;
    let (key, ca) = check_signature(&certificate, terms.cas)?;
    check_shape(&certificate, CertType::User, terms.principal)?;
    let lifetime = certificate.valid_before().saturating_sub(certificate.valid_after());
    if lifetime == 0 || lifetime > terms.max_lifetime_s {
        return Err(Error::Lifetime);
    }
    check_time(
        certificate.valid_after(),
        certificate.valid_before(),
        terms.now,
        terms.skew_s,
    )?;
    check_critical(certificate.critical_options(), terms.force_command)?;
    let grant = certificate
        .extensions()
        .get(terms.grant)
        .cloned()
        .ok_or(Error::NoGrant)?;
    // Any other extension would be a right (permit-pty, permit-port-forwarding) that no grant speaks of.
    if certificate.extensions().len() != 1 {
        return Err(Error::Options);
    }
    Ok(UserCertificate {
        key,
        ca,
        serial: certificate.serial(),
        key_id: certificate.key_id().to_owned(),
        grant,
        valid_after: certificate.valid_after(),
        valid_before: certificate.valid_before(),
    })
}

/// What a host certificate must say to be accepted.
#[derive(Debug, Clone)]
pub struct HostTerms<'a> {
    /// The CA for hosts.
    pub ca: &'a PublicKey,
    /// The principal: the target's name.
    pub principal: &'a str,
    /// The clock, in Unix seconds.
    pub now: u64,
    /// Tolerance towards both ends of the validity, in seconds.
    pub skew_s: u64,
}

/// Checks a host certificate that a server presented.
///
/// # Errors
/// The first [`Error`] in the order of its variants. Any critical option is refused: none is defined for hosts.
pub fn check_host(certificate: &Certificate, terms: &HostTerms<'_>) -> Result<(), Error> {
    check_signature(certificate, std::slice::from_ref(terms.ca))?;
    check_shape(certificate, CertType::Host, terms.principal)?;
    check_time(
        certificate.valid_after(),
        certificate.valid_before(),
        terms.now,
        terms.skew_s,
    )?;
    if certificate.critical_options().is_empty() {
        Ok(())
    } else {
        Err(Error::Options)
    }
}

/// Reads a certificate's text strictly: one line, one space, the one encoding of its own values.
///
/// # Errors
/// [`Error::Malformed`].
pub fn read(text: &str) -> Result<Certificate, Error> {
    if text.len() > MAX_TEXT {
        return Err(Error::Malformed);
    }
    let certificate = Certificate::from_openssh(text).map_err(|_| Error::Malformed)?;
    let again = certificate.to_openssh().map_err(|_| Error::Malformed)?;
    if certificate.comment().is_empty() && again == text {
        Ok(certificate)
    } else {
        Err(Error::Malformed)
    }
}

fn check_signature(certificate: &Certificate, cas: &[PublicKey]) -> Result<(PublicKey, PublicKey), Error> {
    let key = PublicKey::from_key_data(certificate.public_key()).map_err(|_| Error::Algorithm)?;
    let ca = PublicKey::from_key_data(certificate.signature_key()).map_err(|_| Error::Algorithm)?;
    if !cas.contains(&ca) {
        return Err(Error::Untrusted);
    }
    let bytes = certificate.to_bytes().map_err(|_| Error::Malformed)?;
    let signed = bytes
        .len()
        .checked_sub(SIGNATURE_FIELD)
        .and_then(|end| bytes.get(..end))
        .ok_or(Error::Malformed)?;
    crate::strict::verify_blob(ca.as_bytes(), certificate.signature(), signed).map_err(|_| Error::Untrusted)?;
    Ok((key, ca))
}

fn check_shape(certificate: &Certificate, kind: CertType, principal: &str) -> Result<(), Error> {
    if certificate.cert_type() != kind {
        return Err(Error::Type);
    }
    match certificate.valid_principals() {
        [only] if only == principal => Ok(()),
        _ => Err(Error::Principals),
    }
}

fn check_time(valid_after: u64, valid_before: u64, now: u64, skew_s: u64) -> Result<(), Error> {
    if now.saturating_add(skew_s) < valid_after {
        return Err(Error::NotYetValid(valid_after - now));
    }
    if now >= valid_before.saturating_add(skew_s) {
        return Err(Error::Expired(now - valid_before));
    }
    Ok(())
}

/// Exactly the two options that every certificate of this project has, with a value each.
fn check_critical(options: &OptionsMap, force_command: &str) -> Result<(), Error> {
    let command = options.get("force-command").map(String::as_str);
    let bound = options.get("source-address").is_some_and(|blocks| !blocks.is_empty());
    if options.len() == 2 && command == Some(force_command) && bound {
        Ok(())
    } else {
        Err(Error::Options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SigningKey;
    use ssh_key::certificate::Builder;
    use zeroize::Zeroizing;

    const NOW: u64 = 1_800_000_000;

    type Case = (&'static str, Error, fn(&mut Builder));

    fn key(seed: u8) -> SigningKey {
        SigningKey::from_seed(&Zeroizing::new([seed; 32])).unwrap()
    }

    /// A certificate as the CA makes it, after `change` had its way with the builder.
    fn minted(from: u64, until: u64, change: impl FnOnce(&mut Builder)) -> String {
        let mut builder = Builder::new([0_u8; 16], key(2).public().key_data(), from, until).unwrap();
        builder.serial(7).unwrap().key_id("task").unwrap();
        change(&mut builder);
        builder.sign(key(1).private()).unwrap().to_openssh().unwrap()
    }

    fn good(builder: &mut Builder) {
        builder
            .cert_type(CertType::User)
            .unwrap()
            .valid_principal("web-1")
            .unwrap();
        builder
            .critical_option("force-command", "run")
            .unwrap()
            .critical_option("source-address", "127.0.0.1/32")
            .unwrap();
        builder.extension("grant", "{}").unwrap();
    }

    fn check(text: &str) -> Result<UserCertificate, Error> {
        let cas = [key(1).public().clone()];
        let (principal, force_command, grant) = ("web-1", "run", "grant");
        check_user(
            text,
            &UserTerms {
                cas: &cas,
                principal,
                force_command,
                grant,
                now: NOW,
                skew_s: 30,
                max_lifetime_s: 930,
            },
        )
    }

    #[test]
    fn a_good_certificate_gives_its_values() {
        let certificate = check(&minted(NOW - 30, NOW + 300, good)).unwrap();
        assert_eq!(
            (certificate.serial(), certificate.key_id(), certificate.grant()),
            (7, "task", "{}")
        );
        assert_eq!(certificate.key(), key(2).public());
    }

    /// REQ-CERT-6, REQ-CERT-7
    #[test]
    fn times_have_one_tolerance_at_both_ends() {
        assert!(check(&minted(NOW + 30, NOW + 300, good)).is_ok());
        assert_eq!(check(&minted(NOW + 31, NOW + 300, good)), Err(Error::NotYetValid(31)));
        assert!(check(&minted(NOW - 300, NOW - 29, good)).is_ok());
        assert_eq!(check(&minted(NOW - 300, NOW - 30, good)), Err(Error::Expired(30)));
        assert_eq!(check(&minted(NOW - 30, NOW + 901, good)), Err(Error::Lifetime));
        assert_eq!(check(&minted(0, u64::MAX, good)), Err(Error::Lifetime));
    }

    /// REQ-CERT-3, REQ-CERT-4, REQ-CERT-5, REQ-CERT-8, REQ-CERT-9, REQ-CERT-10
    #[test]
    fn each_thing_that_a_parser_lets_through_is_refused() {
        let (from, until) = (NOW - 30, NOW + 300);
        let table: [Case; 8] = [
            ("cert_host_type", Error::Type, |b| {
                b.cert_type(CertType::Host).unwrap().valid_principal("web-1").unwrap();
                b.extension("grant", "{}").unwrap();
            }),
            ("cert_empty_principals", Error::Principals, |b| {
                b.cert_type(CertType::User).unwrap().all_principals_valid().unwrap();
                b.extension("grant", "{}").unwrap();
            }),
            ("two principals", Error::Principals, |b| {
                good(b);
                b.valid_principal("root").unwrap();
            }),
            ("no options", Error::Options, |b| {
                b.cert_type(CertType::User).unwrap().valid_principal("web-1").unwrap();
                b.extension("grant", "{}").unwrap();
            }),
            ("another force-command", Error::Options, |b| {
                b.cert_type(CertType::User).unwrap().valid_principal("web-1").unwrap();
                b.critical_option("force-command", "/bin/sh").unwrap();
                b.critical_option("source-address", "127.0.0.1/32").unwrap();
            }),
            ("an unknown critical option", Error::Options, |b| {
                good(b);
                b.critical_option("verify-required", "").unwrap();
            }),
            ("permit-pty", Error::Options, |b| {
                good(b);
                b.extension("permit-pty", "").unwrap();
            }),
            ("cert_no_grant", Error::NoGrant, |b| {
                b.cert_type(CertType::User).unwrap().valid_principal("web-1").unwrap();
                b.critical_option("force-command", "run").unwrap();
                b.critical_option("source-address", "127.0.0.1/32").unwrap();
            }),
        ];
        for (name, expected, change) in table {
            assert_eq!(check(&minted(from, until, change)), Err(expected), "{name}");
        }
    }

    /// REQ-CERT-2
    #[test]
    fn cert_wrong_ca_and_a_changed_byte_are_refused() {
        let text = minted(NOW - 30, NOW + 300, good);
        let (cas, principal) = ([key(3).public().clone()], "web-1");
        let terms = UserTerms {
            cas: &cas,
            principal,
            force_command: "run",
            grant: "grant",
            now: NOW,
            skew_s: 30,
            max_lifetime_s: 930,
        };
        assert_eq!(check_user(&text, &terms), Err(Error::Untrusted));
        let (name, base64) = text.split_once(' ').unwrap();
        for at in 0..base64.len() {
            let mut other = base64.as_bytes().to_vec();
            other[at] = if other[at] == b'A' { b'B' } else { b'A' };
            let other = format!("{name} {}", String::from_utf8(other).unwrap());
            assert!(check(&other).is_err(), "character {at}");
        }
        assert_eq!(check(&format!("{text} comment")), Err(Error::Malformed));
        assert_eq!(check(&format!("{text}\n")), Err(Error::Malformed));
    }
}
