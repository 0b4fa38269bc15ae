//! The input, and how it is looked at: classes of bytes, runs, the beginnings of words.

use crate::End;
use crate::kind::mark_len;

/// A set of bytes.
pub(crate) struct Class([bool; 256]);

impl Class {
    const fn of(others: &[u8], letters_and_digits: bool) -> Class {
        let mut set = [false; 256];
        let mut at = 0;
        while at < 256 {
            set[at] = letters_and_digits && (at as u8).is_ascii_alphanumeric();
            at += 1;
        }
        at = 0;
        while at < others.len() {
            set[others[at] as usize] = true;
            at += 1;
        }
        Class(set)
    }

    /// All but control characters, blanks, quotes, and what may end a value.
    const fn bare() -> Class {
        let mut set = [true; 256];
        let mut at = 0;
        while at < 256 {
            set[at] = !matches!(
                at as u8,
                0..=b' ' | 0x7f | b'"' | b'\'' | b'`' | b'\\' | b',' | b';' | b'&' | b'[' | b'<' | b'%'
            );
            at += 1;
        }
        Class(set)
    }

    pub(crate) const fn has(&self, byte: u8) -> bool {
        self.0[byte as usize]
    }
}

/// Letters and digits.
pub(crate) static ALNUM: Class = Class::of(b"", true);
/// Letters, digits and `_`.
pub(crate) static WORD: Class = Class::of(b"_", true);
/// Capitals and digits.
pub(crate) static CAPITALS: Class = Class::of(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", false);
/// What stands between the dashes of a block's first and last lines.
pub(crate) static LABEL: Class = Class::of(b" ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", false);
/// base64 without its padding.
pub(crate) static BASE64: Class = Class::of(b"+/", true);
/// base64url; what a token may stand next to without being one.
pub(crate) static BASE64_URL: Class = Class::of(b"_-", true);
/// base64 of either sort, padded, also percent-encoded.
pub(crate) static QUERY: Class = Class::of(b"_-.~+/=%", true);
/// What crypt(3) writes.
pub(crate) static CRYPT: Class = Class::of(b"./$=,+-", true);
/// What never ends a bare value.
pub(crate) static BARE: Class = Class::bare();
/// The names of keys, and base64url with dots.
pub(crate) static NAME: Class = Class::of(b"_-.", true);

/// What is searched.
#[derive(Clone, Copy)]
pub(crate) struct Text<'a> {
    bytes: &'a [u8],
    end: End,
}

impl<'a> Text<'a> {
    pub(crate) fn new(bytes: &'a [u8], end: End) -> Text<'a> {
        Text { bytes, end }
    }

    pub(crate) fn len(self) -> usize {
        self.bytes.len()
    }

    /// All of it.
    pub(crate) fn bytes(self) -> &'a [u8] {
        self.bytes
    }

    /// What begins at `from`; nothing behind the end.
    pub(crate) fn from(self, from: usize) -> &'a [u8] {
        self.bytes.get(from..).unwrap_or_default()
    }

    /// What ends before `to`.
    pub(crate) fn before(self, to: usize) -> &'a [u8] {
        self.bytes.get(..to).unwrap_or_default()
    }

    pub(crate) fn at(self, at: usize) -> Option<u8> {
        self.bytes.get(at).copied()
    }

    /// Whether `at` is where the input was cut: more of what stands before it may have followed.
    pub(crate) fn is_cut(self, at: usize) -> bool {
        self.end == End::Cut && at == self.bytes.len()
    }

    /// The end of the run of `class` that begins at `from`, at most `most` bytes on.
    pub(crate) fn run(self, from: usize, class: &Class, most: usize) -> usize {
        let rest = self.from(from);
        let rest = &rest[..rest.len().min(most)];
        from + rest.iter().position(|&byte| !class.has(byte)).unwrap_or(rest.len())
    }

    /// The start of the run of `class` that ends before `to`, at most `most` bytes back.
    pub(crate) fn run_back(self, to: usize, class: &Class, most: usize) -> usize {
        let before = self.before(to);
        let before = &before[before.len().saturating_sub(most)..];
        to - before.iter().rev().take_while(|&&byte| class.has(byte)).count()
    }

    /// Behind the blanks that begin at `from`: spaces and tabs, at most 64.
    pub(crate) fn blanks(self, from: usize) -> usize {
        from + self
            .from(from)
            .iter()
            .take(64)
            .take_while(|byte| matches!(byte, b' ' | b'\t'))
            .count()
    }

    /// The same behind a scheme's name, where a blank may be `%20`.
    pub(crate) fn blanks_or_encoded(self, from: usize) -> usize {
        let encoded = if self.from(from).starts_with(b"%20") { 3 } else { 0 };
        self.blanks(from) + encoded
    }

    /// The length of the mark at `at`, 0 where there is none.
    pub(crate) fn mark(self, at: usize) -> usize {
        mark_len(self.from(at)).unwrap_or(0)
    }

    /// Whether a word can begin at `at`: the byte before belongs to no word, or to an escape that stands for another
    /// byte (`\n`, `%3D`, a colour).
    pub(crate) fn begins_word(self, at: usize) -> bool {
        let before = self.before(at);
        match *before {
            [] => true,
            [.., byte] if !BASE64_URL.has(byte) => true,
            [.., b'\\', b'n' | b'r' | b't'] => true,
            [.., b'%', a, b] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit() => true,
            [.., b'm'] => {
                let digits = before.iter().rev().skip(1).take(16);
                digits.clone().find(|byte| !matches!(byte, b'0'..=b'9' | b';')) == Some(&b'[')
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_begin_after_other_bytes_and_after_escapes() {
        for (text, begins) in [
            ("x", true),
            (" x", true),
            ("ax", false),
            ("-x", false),
            ("\\nx", true),
            ("%3Dx", true),
            ("%zzx", false),
            ("\u{1b}[1;31mx", true),
            ("mmx", false),
        ] {
            let text = Text::new(text.as_bytes(), End::Whole);
            assert_eq!(text.begins_word(text.len() - 1), begins, "{:?}", text.bytes());
        }
    }

    #[test]
    fn runs_stop_at_other_bytes_at_their_limit_and_at_the_end() {
        let text = Text::new(b"ab1-c", End::Whole);
        assert_eq!(text.run(0, &ALNUM, 9), 3);
        assert_eq!(text.run(0, &ALNUM, 2), 2);
        assert_eq!(text.run(4, &ALNUM, 9), 5);
        assert_eq!(text.run(9, &ALNUM, 9), 9);
        assert_eq!(text.run_back(3, &ALNUM, 9), 0);
        assert_eq!(text.run_back(3, &ALNUM, 2), 1);
    }
}
