//! Passwords in URLs: `scheme://user:password@host`.

use std::ops::Range;

use crate::bytes::Text;
use crate::value;

/// The password of the URL whose `://` ends before `authority`.
///
/// It reads up to the first `/`, which the next `://` has: so no byte is read twice.
pub(crate) fn password(text: Text, authority: usize) -> Option<Range<usize>> {
    if !text.before(authority - 3).last()?.is_ascii_alphanumeric() {
        return None;
    }
    let (mut colon, mut host) = (None, None);
    let mut at = authority;
    while let Some(byte) = text.at(at) {
        match byte {
            0..=b' ' | 0x7f | b'/' | b'?' | b'#' | b'"' | b'\'' | b'`' | b'<' | b'>' | b'\\' => break,
            b'[' if text.mark(at) > 0 => break,
            b':' if colon.is_none() => colon = Some(at + 1),
            b'@' => host = Some(at),
            _ => {}
        }
        at += 1;
    }
    let start = colon?;
    let end = match host {
        // An image's digest, `name:tag@sha256:…`, is no host.
        Some(host) if text.from(host + 1).starts_with(b"sha256:") => return None,
        Some(host) => host,
        None if text.is_cut(at) => at,
        None => return None,
    };
    (start < end && !value::is_placeholder(&text.bytes()[start..end])).then_some(start..end)
}
