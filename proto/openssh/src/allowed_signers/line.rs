//! One line: principals, options, a key, and a comment that nobody reads.

use crate::person::{KeyKind, PersonKey};

use super::Error;

/// Longest line, in bytes. The longest key has about 250.
const MAX_LINE: usize = 4096;

/// Most principals of a CA.
const MAX_PRINCIPALS: usize = 256;

/// What a key of the file may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It signs.
    Key,
    /// It certifies keys that sign.
    Authority,
}

/// One line with a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    /// Which, from 1.
    pub(super) number: usize,
    /// For a key exactly one; for a CA those whom it may certify.
    pub(super) principals: Vec<String>,
    pub(super) role: Role,
    /// All of them where it names none.
    pub(super) namespaces: Option<Vec<String>>,
    /// Unix seconds, included.
    pub(super) valid_after: Option<u64>,
    /// Unix seconds, included; later than `valid_after`.
    pub(super) valid_before: Option<u64>,
    pub(super) key: PersonKey,
}

impl Line {
    /// Whether it counts for this namespace now.
    pub(super) fn counts(&self, namespace: &str, now: u64) -> Result<(), Error> {
        let listed = |names: &Vec<String>| names.iter().any(|name| name == namespace);
        if !self.namespaces.as_ref().is_none_or(listed) {
            return Err(Error::Namespace);
        }
        if self.valid_after.is_some_and(|first| now < first) {
            return Err(Error::NotYetValid);
        }
        if self.valid_before.is_some_and(|last| now > last) {
            return Err(Error::Expired);
        }
        Ok(())
    }
}

/// The options of a line, each at most once.
#[derive(Default)]
struct Options {
    authority: bool,
    namespaces: Option<Vec<String>>,
    valid_after: Option<u64>,
    valid_before: Option<u64>,
}

/// Reads a line; `None` for one that is empty or a comment.
pub(super) fn parse(number: usize, text: &str) -> Result<Option<Line>, String> {
    if text.len() > MAX_LINE {
        return Err(format!("has more than {MAX_LINE} bytes"));
    }
    if text.chars().any(|c| c.is_control() && c != '\t') {
        return Err("has a control character: lines end with a newline alone".to_owned());
    }
    let mut fields = text.split([' ', '\t']).filter(|field| !field.is_empty());
    let Some(principals) = fields.next().filter(|field| !field.starts_with('#')) else {
        return Ok(None);
    };
    let short = || "is not `principals [options] type key [comment]`".to_owned();
    let mut field = fields.next().ok_or_else(short)?;
    let mut options = Options::default();
    if !KeyKind::ALL.iter().any(|kind| kind.as_str() == field) && !is_key_type(field) {
        options = read_options(field)?;
        field = fields.next().ok_or_else(short)?;
    }
    let key = read_key(field, fields.next().ok_or_else(short)?)?;
    let principals = read_principals(principals)?;
    let role = if options.authority { Role::Authority } else { Role::Key };
    if role == Role::Key && principals.len() > 1 {
        return Err("has one key for several people: nobody could tell who signed".to_owned());
    }
    if let (Some(first), Some(last)) = (options.valid_after, options.valid_before)
        && last <= first
    {
        return Err("valid-before is not later than valid-after".to_owned());
    }
    Ok(Some(Line {
        number,
        principals,
        role,
        namespaces: options.namespaces,
        valid_after: options.valid_after,
        valid_before: options.valid_before,
        key,
    }))
}

/// Whether a word looks like the type of a key that is not used here, so that the fault says so.
fn is_key_type(word: &str) -> bool {
    ["ssh-", "ecdsa-", "sk-", "webauthn-"]
        .iter()
        .any(|start| word.starts_with(start))
}

fn read_principals(field: &str) -> Result<Vec<String>, String> {
    let mut principals: Vec<String> = Vec::new();
    for principal in field.split(',') {
        if !is_literal(principal) {
            return Err("a principal must be a name of a-z A-Z 0-9 . _ @ + -, without patterns and quotes".to_owned());
        }
        if principals.iter().any(|other| other == principal) {
            return Err("names a principal twice".to_owned());
        }
        principals.push(principal.to_owned());
    }
    if principals.len() > MAX_PRINCIPALS {
        return Err(format!("names more than {MAX_PRINCIPALS} principals"));
    }
    Ok(principals)
}

/// What OpenSSH reads as itself wherever it reads a pattern. It begins with a letter or digit.
fn is_literal(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._@+-".contains(&byte))
}

fn read_options(field: &str) -> Result<Options, String> {
    let mut options = Options::default();
    let mut rest = field;
    loop {
        let end = rest.find(['=', ',']).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        let twice = || format!("has the option {name} twice");
        let after = if name == "cert-authority" {
            if std::mem::replace(&mut options.authority, true) {
                return Err(twice());
            }
            after
        } else {
            let (value, after) = quoted(after).ok_or_else(|| unknown(name))?;
            let was_there = match name {
                "namespaces" => options.namespaces.replace(read_namespaces(value)?).is_some(),
                "valid-after" => options.valid_after.replace(read_time(value)?).is_some(),
                "valid-before" => options.valid_before.replace(read_time(value)?).is_some(),
                _ => return Err(unknown(name)),
            };
            if was_there {
                return Err(twice());
            }
            after
        };
        match after.strip_prefix(',') {
            Some(next) => rest = next,
            None if after.is_empty() => return Ok(options),
            None => return Err("has options that are not separated by commas".to_owned()),
        }
    }
}

fn unknown(name: &str) -> String {
    let known = "cert-authority, namespaces=\"…\", valid-after=\"…\" and valid-before=\"…\"";
    if is_literal(name) {
        format!("the option {name} is none of {known}, or has no value in quotes")
    } else {
        format!("has something else than {known} and a key of a known type")
    }
}

/// The value of `="value"`, and what follows. No value that is accepted has a quote or a backslash in it.
fn quoted(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("=\"")?.split_once('"')
}

fn read_namespaces(value: &str) -> Result<Vec<String>, String> {
    let names: Vec<String> = value.split(',').map(str::to_owned).collect();
    if names.iter().all(|name| is_literal(name)) {
        Ok(names)
    } else {
        Err("a namespace must be a name of a-z A-Z 0-9 . _ @ + -, without patterns".to_owned())
    }
}

/// `YYYYMMDDZ`, `YYYYMMDDhhmmZ` or `YYYYMMDDhhmmssZ`: without the Z it would be a time of the reader's own time zone.
fn read_time(value: &str) -> Result<u64, String> {
    let bad = || "a time must be YYYYMMDDZ, YYYYMMDDhhmmZ or YYYYMMDDhhmmssZ, in UTC and with the Z".to_owned();
    let digits = value.strip_suffix('Z').ok_or_else(bad)?;
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) || ![8, 12, 14].contains(&digits.len()) {
        return Err(bad());
    }
    let number = |from: usize, to: usize| match digits.get(from..to) {
        Some(digits) => digits.parse::<u64>().map_err(|_| bad()),
        None => Ok(0),
    };
    let (year, month, day) = (number(0, 4)?, number(4, 6)?, number(6, 8)?);
    let (hour, minute, second) = (number(8, 10)?, number(10, 12)?, number(12, 14)?);
    let leap = |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    let length = match month {
        2 if leap(year) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        1 | 3 | 5 | 7 | 8 | 10 | 12 => 31,
        _ => return Err(bad()),
    };
    // 1970 itself is left out: OpenSSH takes its first second for "no time".
    if year <= 1970 || !(1..=length).contains(&day) || hour > 23 || minute > 59 || second > 59 {
        return Err(bad());
    }
    let leap_days = |year: u64| year / 4 - year / 100 + year / 400;
    let before_year = (year - 1970) * 365 + leap_days(year - 1) - leap_days(1969);
    let before_month = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let month = usize::try_from(month).map_err(|_| bad())?;
    let in_year: u64 = before_month[month - 1] + u64::from(month > 2 && leap(year));
    let days = before_year + in_year + day - 1;
    Ok(((days * 24 + hour) * 60 + minute) * 60 + second)
}

fn read_key(kind: &str, base64: &str) -> Result<PersonKey, String> {
    if !KeyKind::ALL.iter().any(|known| known.as_str() == kind) {
        let kinds: Vec<&str> = KeyKind::ALL.iter().map(|known| known.as_str()).collect();
        return Err(format!("the key must be one of {}", kinds.join(", ")));
    }
    let text = format!("{kind} {base64}");
    let unreadable = || format!("the key is no {kind} in base64");
    let key = ssh_key::PublicKey::from_openssh(&text).map_err(|_| unreadable())?;
    // The one encoding, so that one key has one text.
    if key.to_openssh().ok().as_deref() != Some(text.as_str()) {
        return Err(unreadable());
    }
    PersonKey::from_key_data(key.key_data()).map_err(|error| format!("failed to {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_bounded() {
        let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
        let long = |length: usize| {
            let text = format!("carol {key} ");
            format!("{text}{}", "x".repeat(length - text.len()))
        };
        // Whether these 32 bytes are a point does not matter to what is said of the length.
        let length = |text: &str| parse(1, text).err() != Some(format!("has more than {MAX_LINE} bytes"));
        assert!(length(&long(MAX_LINE)) && length(&long(MAX_LINE - 1)) && !length(&long(MAX_LINE + 1)));
        let names = |number: usize| (0..number).map(|name| name.to_string()).collect::<Vec<_>>().join(",");
        assert_eq!(
            read_principals(&names(MAX_PRINCIPALS)).map(|names| names.len()),
            Ok(256)
        );
        assert!(read_principals(&names(MAX_PRINCIPALS + 1)).is_err());
    }

    /// `date -u -d … +%s`
    #[test]
    fn times_are_those_of_the_calendar() {
        for (text, expected) in [
            ("19710101Z", 31_536_000),
            ("20000229Z", 951_782_400),
            ("20240301Z", 1_709_251_200),
            ("20270115080000Z", 1_800_000_000),
            ("202701150800Z", 1_800_000_000),
            ("20270228Z", 1_803_772_800),
            ("20270430Z", 1_809_043_200),
            ("20271231235959Z", 1_830_297_599),
            ("21000301Z", 4_107_542_400),
            ("99991231235959Z", 253_402_300_799),
        ] {
            assert_eq!(read_time(text), Ok(expected), "{text}");
        }
        for text in [
            "20270101",
            "2027",
            "20270229Z",
            "20271301Z",
            "20270100Z",
            "20270132Z",
            "2027010124Z",
            "202701012400Z",
            "202701010060Z",
            "20270101000060Z",
            "19700101Z",
            "00000101Z",
            "2027010100000Z",
            "+0270101Z",
            "",
            "Z",
            "0x5f5e100",
            "always",
            "forever",
            "20270101z",
            "２0270101Z",
        ] {
            assert!(read_time(text).is_err(), "{text}");
        }
    }
}
