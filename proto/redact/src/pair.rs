//! Secrets that are named by what stands before them: `key=value`, `key: value`, JSON, headers, flags.

use std::ops::Range;

use crate::bytes::{BASE64_URL, NAME, Text};
use crate::kind::MARK;
use crate::value::{self, Ends, GLANCE};

/// How much must speak for a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doubt {
    /// Whatever stands behind such a key is a secret.
    None,
    /// The same, but only behind `=`, or quoted, and never a number: `pass` is a verb as well.
    Verb,
    /// The same, but never a path: it may say where the secret is kept, or what the working directory is.
    Place,
    /// It looks as if a machine made it: the key is a word that people use, too.
    Word,
}

/// A key.
pub(crate) struct Key {
    pub(crate) doubt: Doubt,
    /// What may follow the literal in the key's name, without `_`, `-` and `.`; digits may always.
    pub(crate) tails: &'static [&'static str],
}

/// Schemes whose credentials reach to the end of the header. Those of `Basic` and `Bearer` are one word.
const SCHEMES: [&str; 9] = [
    "digest",
    "negotiate",
    "ntlm",
    "token",
    "hawk",
    "apikey",
    "aws4-hmac-sha256",
    "oauth",
    "dpop",
];

/// What has been found so far.
#[derive(Clone, Copy)]
pub(crate) struct Done {
    /// Where the last secret of this sort ended: what begins before it is not looked at again.
    pub(crate) pairs: usize,
    /// Where the last secret ended: no name reaches back into it.
    pub(crate) all: usize,
}

/// A key that was read, and where its value begins.
struct Named {
    /// Where its name begins.
    start: usize,
    /// Where its value does.
    value: usize,
    ends: Ends,
    assigned: bool,
}

/// The secret that is named by the key whose literal stands at `literal`. Nothing before `done` is looked at again.
pub(crate) fn pair(text: Text, literal: Range<usize>, key: &Key, done: Done) -> Option<Range<usize>> {
    let named = read(text, literal, key.tails, done.all, true)?;
    if named.value < done.pairs {
        return None;
    }
    let glance = value::glance(text, named.value, named.ends)?;
    let seen = &text.bytes()[glance.clone()];
    let assigned = named.assigned || matches!(named.ends, Ends::Quote { .. } | Ends::Tag);
    let accepted = match key.doubt {
        _ if text.is_cut(glance.end) => true,
        Doubt::None => true,
        Doubt::Place => !value::is_place(seen),
        Doubt::Verb => assigned && !seen.iter().all(u8::is_ascii_digit),
        Doubt::Word => value::is_made(seen, if assigned { 16 } else { 24 }),
    };
    if !accepted {
        return None;
    }
    // In a file of `key: value` lines the value may have blanks in it.
    let ends = match named.ends {
        Ends::Blank if key.doubt == Doubt::None && !assigned && begins_line(text, named.start) => Ends::Line,
        other => other,
    };
    Some(named.value..value::end(text, named.value, ends, usize::MAX))
}

/// The credentials in an `Authorization` header whose name ends at `literal`'s end: the scheme stays where it is known.
pub(crate) fn authorization(text: Text, literal: Range<usize>, done: Done) -> Option<Range<usize>> {
    let header = header(text, literal, done)?;
    let scheme = text.run(header.value, &BASE64_URL, GLANCE);
    let credentials = text.blanks_or_encoded(scheme);
    let word = &text.bytes()[header.value..scheme];
    let is = |known: &str| word.eq_ignore_ascii_case(known.as_bytes());
    let has_scheme = |known: &[&str]| credentials > scheme && known.iter().any(|known| is(known));
    if has_scheme(&["basic", "bearer"]) {
        value::glance(text, credentials, Ends::Blank)?;
        return Some(credentials..value::end(text, credentials, Ends::Blank, usize::MAX));
    }
    let is_made = |from: usize| {
        let end = value::end(text, from, Ends::Blank, from + GLANCE);
        value::is_made(&text.bytes()[from..end], 16) || text.is_cut(end)
    };
    let start = if has_scheme(&SCHEMES) {
        credentials
    } else if is_made(header.value) || (credentials > scheme && is_made(credentials)) {
        header.value
    } else {
        return None;
    };
    value::glance(text, start, header.ends)?;
    Some(start..value::end(text, start, header.ends, usize::MAX))
}

/// The value of a `Cookie` or `Set-Cookie` header whose name ends at `literal`'s end.
pub(crate) fn cookie(text: Text, literal: Range<usize>, done: Done) -> Option<Range<usize>> {
    let header = header(text, literal, done)?;
    let glance = value::glance(text, header.value, header.ends)?;
    let name = text.run(header.value, &NAME, GLANCE);
    let named = name > header.value && text.at(name) == Some(b'=');
    (named || text.is_cut(glance.end)).then(|| header.value..value::end(text, header.value, header.ends, usize::MAX))
}

/// What follows `Bearer` at `literal`, wherever it stands.
pub(crate) fn bearer(text: Text, literal: Range<usize>, done: Done) -> Option<Range<usize>> {
    let start = text.blanks_or_encoded(literal.end);
    if start == literal.end || start < done.pairs {
        return None;
    }
    let glance = value::glance(text, start, Ends::Blank)?;
    (value::is_made(&text.bytes()[glance.clone()], 24) || text.is_cut(glance.end))
        .then(|| start..value::end(text, start, Ends::Blank, usize::MAX))
}

/// Whether `argument` is nothing but a flag whose name ends with the key at `literal`: `--password`.
pub(crate) fn is_flag(text: Text, literal: Range<usize>, key: &Key) -> bool {
    let tail = text.run(literal.end, &NAME, usize::MAX);
    text.bytes().starts_with(b"-") && tail == text.len() && is_tail(&text.bytes()[literal.end..tail], key.tails)
}

/// A header: the key is the whole of its name, and its value reaches to the quote that it stands in, or to the end of the
/// line.
fn header(text: Text, literal: Range<usize>, done: Done) -> Option<Named> {
    let mut named = read(text, literal, &[], done.all, false)?;
    if named.value < done.pairs {
        return None;
    }
    if !matches!(named.ends, Ends::Quote { .. }) {
        let quote = text
            .before(named.start)
            .last()
            .filter(|byte| matches!(byte, b'"' | b'\'' | b'`'));
        let escapes = |&quote: &u8| {
            let before = text.before(named.start - 1);
            let escapes = before.iter().rev().take(8).take_while(|&&byte| byte == b'\\').count();
            Ends::Quote { quote, escapes }
        };
        named.ends = quote.map_or(Ends::Line, escapes);
    }
    Some(named)
}

/// Reads the rest of a key's name, what stands between it and its value, and how the value begins.
fn read(text: Text, literal: Range<usize>, tails: &[&str], floor: usize, flags: bool) -> Option<Named> {
    let tail = text.run(literal.end, &NAME, 32);
    if !is_tail(&text.bytes()[literal.end..tail], tails) {
        return None;
    }
    let start = text.run_back(literal.start, &NAME, literal.start.saturating_sub(floor).min(48));
    let before = text.before(start);
    if before.ends_with(MARK.as_bytes()) {
        return None;
    }
    let closed = value::opened(text, tail).map(|(_, end)| end);
    let mut at = closed.unwrap_or(tail);
    // PHP's and Ruby's x['key'] = …
    at += usize::from(closed.is_some() && text.at(at) == Some(b']'));
    let (name, at) = (at, text.blanks(at));
    let rest = text.from(at);
    let (value, ends, assigned) = match *rest {
        // C++'s and Rust's token::kind; a URL's secret://name
        [b':', b':', ..] | [b':', b'/', b'/', ..] => return None,
        [b':', b'=', ..] | [b'=', b'>', ..] => (at + 2, Ends::Blank, false),
        [b':', ..] => (at + 1, Ends::Blank, false),
        [b'=', ..] => (
            at + 1 + rest[1..].iter().take(2).take_while(|&&byte| byte == b'=').count(),
            Ends::Blank,
            true,
        ),
        [b'%', b'3', b'D' | b'd', ..] => (at + 3, Ends::Encoded, true),
        [b'>', ..] if closed.is_none() && before.ends_with(b"<") => (at + 1, Ends::Tag, true),
        // PHP's define('KEY', …)
        [b',', ..] if closed.is_some() && is_define(text, start) => (at + 1, Ends::Blank, true),
        // The arguments in /proc/PID/cmdline have a NUL between them.
        [first, ..] if flags && is_spaced_flag(text, start, tail, at) => {
            (at + usize::from(first == 0), Ends::Blank, true)
        }
        _ => return None,
    };
    let mut value = text.blanks(value);
    // The first of a list: Go's map[Key:[value]], JSON's ["value"].
    if text.at(value) == Some(b'[') && text.mark(value) == 0 {
        value = text.blanks(value + 1);
    }
    let (ends, value) = match value::opened(text, value) {
        Some(quoted) if ends != Ends::Tag => quoted,
        // `key= other` has no value, `key = value` has.
        _ if rest[0] == b'=' && at == name && matches!(text.at(at + 1), Some(b' ' | b'\t')) => return None,
        _ => (ends, value),
    };
    Some(Named {
        start,
        value,
        ends,
        assigned,
    })
}

fn is_tail(tail: &[u8], tails: &[&str]) -> bool {
    let letters = || tail.iter().filter(|byte| !matches!(byte, b'_' | b'-' | b'.'));
    letters().all(u8::is_ascii_digit)
        || tails
            .iter()
            .any(|known| letters().map(u8::to_ascii_lowercase).eq(known.bytes()))
}

/// Whether the name at `start` is that of a flag with its value behind a blank, `--password hunter2`, and not the text
/// that explains it, `--password PASSWORD`.
fn is_spaced_flag(text: Text, start: usize, tail: usize, at: usize) -> bool {
    let spaced = at > tail || text.at(at) == Some(0);
    let value = at + usize::from(text.at(at) == Some(0));
    let end = value::end(text, value, Ends::Blank, value + GLANCE);
    let explained = text.bytes()[value..end]
        .iter()
        .all(|byte| byte.is_ascii_uppercase() || *byte == b'_');
    text.from(start).starts_with(b"--") && spaced && !explained && text.at(value) != Some(b'-')
}

fn is_define(text: Text, start: usize) -> bool {
    let before = text.before(start);
    let Some((quote, before)) = before.split_last() else {
        return false;
    };
    let blanks = before.iter().rev().take(8).take_while(|&&byte| byte == b' ').count();
    matches!(quote, b'"' | b'\'') && before[..before.len() - blanks].ends_with(b"define(")
}

/// Whether nothing but blanks and a list's dash stands before `start` on its line.
fn begins_line(text: Text, start: usize) -> bool {
    let before = text.before(start);
    let mut line = before
        .iter()
        .rev()
        .take(64)
        .skip_while(|byte| matches!(byte, b' ' | b'\t' | b'-'));
    matches!(line.next(), None | Some(b'\n' | b'\r'))
}
