//! Secrets out of bytes: each one is found and replaced once by `[redacted:<kind>]`.
//!
//! It works on raw bytes, before any encoding, so that what a reader would decode was searched as well. No I/O and no
//! clock. Its time is linear in its input whatever the input is: one automaton finds the literals that secrets begin
//! with ([`Kind`] says which), and what stands around a literal is read by rules that look a bounded way ahead before
//! they decide and never read again what they took.
//!
//! It never promises that nothing secret is left: a secret without a form (a password alone on its line) cannot be
//! recognised, and who can write what is read can encode a secret. The rules are `docs/spec/redaction.md`.

mod block;
mod bytes;
mod kind;
mod pair;
mod rules;
mod scan;
mod span;
mod token;
mod url;
mod value;

use std::borrow::Cow;

use bytes::Text;
pub use kind::Kind;

/// How far before a range its reader looks: bytes to hand to [`redact_range`] as `before`. A private key of RSA-4096 as
/// PEM is 3.2 KiB long.
pub const CONTEXT_BYTES: usize = 4_096;

/// Whether the input's last byte is also the last of what it was taken from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Nothing follows.
    Whole,
    /// Something follows that was cut off, so a secret may be cut as well: what could become one is taken for one.
    Cut,
}

/// What is left when the secrets are out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redacted<'a> {
    /// The input with a mark in the place of each secret; borrowed when there was none. It can be longer than the
    /// input, because a mark can be longer than a secret.
    pub bytes: Cow<'a, [u8]>,
    /// How many secrets were replaced.
    pub count: u64,
}

/// Replaces the secrets in the whole of something.
///
/// ```
/// let shown = redact::redact(b"GET /login?user=bob&password=hunter2 HTTP/1.1");
/// assert_eq!(&*shown.bytes, b"GET /login?user=bob&password=[redacted:password] HTTP/1.1");
/// assert_eq!(shown.count, 1);
/// ```
pub fn redact(bytes: &[u8]) -> Redacted<'_> {
    redact_range(&[], bytes, End::Whole)
}

/// Replaces the secrets in `bytes`, which were read right after `before`, and of which a part may be missing at the end.
///
/// A secret that begins in `before` and reaches into `bytes` is recognised, its part in `bytes` is replaced, and it is
/// counted. What is returned covers `bytes` only. See [`CONTEXT_BYTES`] for how much to give.
pub fn redact_range<'a>(before: &[u8], bytes: &'a [u8], end: End) -> Redacted<'a> {
    let joined;
    let whole = if before.is_empty() {
        bytes
    } else {
        joined = [before, bytes].concat();
        &joined
    };
    let mut spans = scan::secrets(Text::new(whole, end));
    span::within(&mut spans, before.len());
    if spans.is_empty() {
        return Redacted {
            bytes: Cow::Borrowed(bytes),
            count: 0,
        };
    }
    Redacted {
        bytes: Cow::Owned(span::replace(bytes, &spans)),
        count: spans.len() as u64,
    }
}

/// Replaces the secrets in a text, and says how many they were. What is valid UTF-8 stays so.
pub fn redact_text(text: &str) -> (Cow<'_, str>, u64) {
    let redacted = redact(text.as_bytes());
    match redacted.bytes {
        Cow::Borrowed(_) => (Cow::Borrowed(text), 0),
        // Spans begin and end beside ASCII or at the ends: nothing is lost here, and a test tries.
        Cow::Owned(bytes) => (Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()), redacted.count),
    }
}

/// Replaces the secrets in a program's arguments, and says how many they were.
///
/// Each argument is searched by itself; in addition, what follows a flag that names a secret (`--password`, `hunter2`)
/// is one.
///
/// ```
/// let (argv, count) = redact::redact_argv(["mysql", "--user", "bob", "--password", "hunter2"]);
/// assert_eq!(argv, ["mysql", "--user", "bob", "--password", "[redacted:password]"]);
/// assert_eq!(count, 1);
/// ```
pub fn redact_argv<'a>(argv: impl IntoIterator<Item = &'a str>) -> (Vec<Cow<'a, str>>, u64) {
    let (mut shown, mut total) = (Vec::new(), 0);
    let mut flag: Option<&str> = None;
    for argument in argv {
        let named = flag.and_then(|flag| scan::after_flag(flag, argument));
        let (text, count) = match named {
            Some(kind) => (Cow::Owned(kind.mark()), 1),
            None => redact_text(argument),
        };
        shown.push(text);
        total += count;
        flag = Some(argument);
    }
    (shown, total)
}
