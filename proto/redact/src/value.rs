//! Values: where one that stands behind a key ends, and whether it can be a secret.

use std::ops::Range;

use crate::bytes::{BARE, NAME, Text};

/// How much of a value is read before it is decided whether it is one: so a value that is refused costs little, however
/// many keys stand before it.
pub(crate) const GLANCE: usize = 40;

/// What ends a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ends {
    /// A quote, escaped as often as its first one was, or the end of the line.
    Quote { quote: u8, escapes: usize },
    /// A blank, a quote, the next pair, the end of what the pair stands in.
    Blank,
    /// The same, and `%26`: the pair's separator was percent-encoded.
    Encoded,
    /// The end of the line.
    Line,
    /// A `<`.
    Tag,
}

/// The quote at `at`, escaped or not: what ends its value, and where that begins.
pub(crate) fn opened(text: Text, at: usize) -> Option<(Ends, usize)> {
    // Python's b'…', r'…'.
    let prefixed = matches!(text.at(at), Some(b'b' | b'r' | b'u' | b'f' | b'B' | b'R' | b'U' | b'F'));
    let at = at + usize::from(prefixed && matches!(text.at(at + 1), Some(b'"' | b'\'')));
    let escapes = text.from(at).iter().take(8).take_while(|&&byte| byte == b'\\').count();
    let quote = text
        .at(at + escapes)
        .filter(|byte| matches!(byte, b'"' | b'\'' | b'`'))?;
    // One more level of escaping doubles the backslashes and adds one: 0, 1, 3, 7.
    (escapes + 1)
        .is_power_of_two()
        .then_some((Ends::Quote { quote, escapes }, at + escapes + 1))
}

/// The end of the value that begins at `from`, not looked for behind `limit`. A mark ends every value: so what is beside
/// one reads the same as it did beside the secret.
pub(crate) fn end(text: Text, from: usize, ends: Ends, limit: usize) -> usize {
    let limit = limit.min(text.len());
    match ends {
        Ends::Quote { quote, escapes } => quoted_end(text, from, limit, quote, escapes),
        Ends::Blank | Ends::Encoded => {
            let end = bare_end(text, from, limit, ends);
            let closers = text.bytes()[from..end].iter().rev().take_while(|&&byte| closes(byte));
            end - closers.count()
        }
        Ends::Line => line_end(text, from, limit, None),
        Ends::Tag => line_end(text, from, limit, Some(b'<')),
    }
}

/// The first [`GLANCE`] bytes of the value at `from`; `None` where it is empty, replaced already, or stands for a value.
pub(crate) fn glance(text: Text, from: usize, ends: Ends) -> Option<Range<usize>> {
    let end = end(text, from, ends, from + GLANCE);
    let value = &text.bytes()[from..end];
    let given = text.is_cut(end) || !is_placeholder(value);
    (!value.is_empty() && given).then_some(from..end)
}

/// Whether it looks as if a machine made it: 8 bytes or longer with a letter and a digit, or `letters` letters and
/// digits or more.
pub(crate) fn is_made(value: &[u8], letters: usize) -> bool {
    let (mut has_digit, mut has_letter, mut plain) = (false, false, true);
    for &byte in value {
        match byte {
            b'0'..=b'9' => has_digit = true,
            b'a'..=b'z' | b'A'..=b'Z' => has_letter = true,
            _ if byte.is_ascii_whitespace() => return false,
            _ => plain = false,
        }
    }
    let mixed = value.len() >= 8 && has_digit;
    let long = value.len() >= letters && plain;
    has_letter && (mixed || long) && !is_place(value)
}

/// Whether it begins as a path or a URL does: `/run/…`, `./…`, `$dir/…`, `https://…`. base64 may begin with a `/`, too.
pub(crate) fn is_place(value: &[u8]) -> bool {
    let plain = |byte: &&u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'.');
    let name = |value: &[u8]| value.iter().take(24).take_while(plain).count();
    match value {
        [b'/'] | [b'.' | b'~', b'/', ..] => true,
        [b'/' | b'$', rest @ ..] => name(rest) >= 2 && matches!(rest.get(name(rest)), None | Some(b'/')),
        _ => name(value) >= 2 && value[name(value)..].starts_with(b"://"),
    }
}

/// Whether it says that there is no secret here, or where it comes from: `null`, `${PASSWORD}`, `<password>`, `****`.
pub(crate) fn is_placeholder(value: &[u8]) -> bool {
    const WORDS: [&str; 22] = [
        "null",
        "none",
        "nil",
        "true",
        "false",
        "yes",
        "no",
        "on",
        "off",
        "undefined",
        "unset",
        "empty",
        "required",
        "optional",
        "string",
        "str",
        "bytes",
        "redacted",
        // nsswitch.conf, dpkg: `passwd: files`, `passwd:amd64`
        "files",
        "compat",
        "amd64",
        "arm64",
    ];
    let is_word = |word: &str| value.eq_ignore_ascii_case(word.as_bytes());
    let variable = |name: &[u8]| name.iter().all(|byte| byte.is_ascii_uppercase() || *byte == b'_');
    let words = |byte: u8| byte.is_ascii_alphabetic() || matches!(byte, b'_' | b'-' | b' ');
    match value {
        // An object or a template; a list is read from within.
        [b'{', ..] | [b'$', b'{' | b'(', ..] | [b'%', b'(', ..] => true,
        [b'$', name @ ..] if variable(name) => true,
        [b'<', name @ .., b'>'] if name.len() <= 32 && name.iter().all(|byte| words(*byte)) => true,
        [b'%', b's' | b'd' | b'v'] => true,
        _ => {
            (value.len() <= 9 && WORDS.iter().any(|word| is_word(word)))
                || value.iter().all(|byte| b"*xX.-_#|<>".contains(byte))
        }
    }
}

/// The end of the line, also where its break is written `\r` or `\n`, or `stop` before it.
fn line_end(text: Text, from: usize, limit: usize, stop: Option<u8>) -> usize {
    let rest = &text.bytes()[from.min(limit)..limit];
    let ends = |(at, byte): (usize, &u8)| match byte {
        0 | b'\n' | b'\r' => true,
        b'\\' => matches!(rest.get(at + 1), Some(b'n' | b'r')),
        b'[' => text.mark(from + at) > 0,
        &byte => Some(byte) == stop,
    };
    from + rest.iter().enumerate().position(ends).unwrap_or(rest.len())
}

fn quoted_end(text: Text, from: usize, limit: usize, quote: u8, escapes: usize) -> usize {
    let mut backslashes = 0;
    let mut at = from;
    while at < limit {
        match text.at(at) {
            Some(0 | b'\n' | b'\r') => return at,
            Some(b'[') if text.mark(at) > 0 => return at,
            Some(b'\\') => backslashes += 1,
            // Fewer backslashes than it was opened with: the quote of what it stands in.
            Some(byte) if byte == quote && (backslashes < escapes || backslashes % (2 * escapes + 2) == escapes) => {
                return at - backslashes.min(escapes);
            }
            _ => backslashes = 0,
        }
        at += 1;
    }
    at
}

fn bare_end(text: Text, from: usize, limit: usize, ends: Ends) -> usize {
    let mut at = from;
    loop {
        at = text.run(at, &BARE, limit.saturating_sub(at));
        if at >= limit || ends_bare(text, at, ends) {
            return at;
        }
        at += 1;
    }
}

/// Whether a bare value ends at `at`, which is no byte of [`BARE`].
fn ends_bare(text: Text, at: usize, ends: Ends) -> bool {
    let next = text.at(at + 1);
    match text.bytes()[at] {
        b'\\' => matches!(next, Some(b'n' | b'r' | b't' | b'"' | b'\'')) || text.from(at).starts_with(b"\\u0026"),
        b',' | b';' | b'&' => ends_pair(text, at),
        b'[' => text.mark(at) > 0,
        b'<' => next.is_some_and(|byte| byte == b'/' || byte.is_ascii_alphabetic()) || text.mark(at + 1) > 0,
        b'%' => ends == Ends::Encoded && text.from(at).starts_with(b"%26"),
        // Blanks, other control characters, quotes.
        _ => true,
    }
}

/// Whether the `,`, `;` or `&` at `at` stands between two pairs, or ends the last one, rather than within a password.
fn ends_pair(text: Text, at: usize) -> bool {
    let Some(next) = text.at(at + 1) else { return true };
    if text.mark(at + 1) > 0 || next <= b' ' || closes(next) || matches!(next, b'"' | b'\'' | b'`' | b'\\' | b'&') {
        return true;
    }
    let name = text.run(at + 1, &NAME, 40);
    let named = name > at + 1 && matches!(text.at(name), Some(b'=' | b':'));
    named || text.from(at).starts_with(b"&amp;")
}

/// What closes the thing that a pair stands in.
fn closes(byte: u8) -> bool {
    matches!(byte, b')' | b'}' | b']' | b'>' | b',' | b';')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::End;

    fn ended(value: &str, ends: Ends) -> &str {
        let text = Text::new(value.as_bytes(), End::Whole);
        &value[..end(text, 0, ends, usize::MAX)]
    }

    #[test]
    fn a_bare_value_ends_before_the_next_pair_and_not_at_each_mark() {
        for (value, expected) in [
            ("abc def", "abc"),
            ("abc&user=bob", "abc"),
            ("abc;Server=db", "abc"),
            ("abc, user", "abc"),
            ("abc;", "abc"),
            ("a,b;c&d rest", "a,b;c&d"),
            ("abc}]", "abc"),
            ("abc\\nnext", "abc"),
            ("abc</a>", "abc"),
            ("abc\u{1b}[0m", "abc"),
            ("a%26b", "a%26b"),
        ] {
            assert_eq!(ended(value, Ends::Blank), expected, "{value}");
        }
        assert_eq!(ended("a%26b", Ends::Encoded), "a");
    }

    #[test]
    fn a_quoted_value_ends_at_its_own_quote_however_often_it_is_escaped() {
        for (value, escapes, expected) in [
            (r#"a b", "x": 1"#, 0, "a b"),
            (r#"a\"b", 1"#, 0, r#"a\"b"#),
            (r#"a\\", 1"#, 0, r"a\\"),
            (r#"ab\", 1"#, 1, "ab"),
            (r#"a\\\"b\", 1"#, 1, r#"a\\\"b"#),
            (r#"ab", 1"#, 1, "ab"),
            ("ab\ncd\"", 0, "ab"),
        ] {
            assert_eq!(ended(value, Ends::Quote { quote: b'"', escapes }), expected, "{value}");
        }
    }

    #[test]
    fn what_a_machine_made_is_told_from_words() {
        for made in ["abc12345", "3f2a9c1e", "abcdefghijklmnopqrstuvwxyz", "/Ab3defgh="] {
            assert!(is_made(made.as_bytes(), 24), "{made}");
        }
        for word in [
            "expired",
            "unauthenticated",
            "4096",
            "12345678",
            "a1",
            "/run/token1",
            "/token12",
            "a 1 bcdefgh",
            "http://a1b2c3",
        ] {
            assert!(!is_made(word.as_bytes(), 24), "{word}");
        }
    }
}
