//! Foreign text, made safe to look at: which characters are hidden, and how a text becomes printable ASCII.
//!
//! A terminal obeys some characters, a reader cannot see others, and a model reads all of them. One list says which, for
//! every tier. Nothing is removed, so nothing can be hidden by removing it. Spec: docs/spec/README.md#text.

/// What stands at the end of a text that was cut.
const CUT: &str = "...";

/// Whether a reader cannot see this character, takes it for the space, or is made by it to see others in another order.
/// Every control character is hidden, also line end and tab; the space is not.
#[must_use]
pub fn is_hidden(c: char) -> bool {
    match c {
        ' '..='~' => false,
        // Soft hyphen, combining grapheme joiner, Arabic letter mark, fillers, Mongolian separators: no glyph.
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' => true,
        '\u{180b}'..='\u{180f}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' => true,
        // Zero width, direction marks, line separators, embeddings, overrides, invisible operators, isolates.
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        // Variation selectors (with the supplement below 256 of them: a byte each), byte order mark, annotations.
        '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffc}' | '\u{fffe}' | '\u{ffff}' => true,
        // Shorthand and musical format characters.
        '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' => true,
        // Private use; tags and the supplement of variation selectors: text that no font draws.
        '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{10ffff}' => true,
        // C0, DEL, C1: what terminals obey. Spaces that are not the space.
        _ => c.is_control() || c.is_whitespace(),
    }
}

/// The first hidden character of a text.
#[must_use]
pub fn hidden(text: &str) -> Option<char> {
    text.chars().find(|c| is_hidden(*c))
}

/// Appends the escape of a character: `\u{1b}`.
pub fn escape_char_into(out: &mut String, c: char) {
    out.push_str("\\u{");
    out.push_str(&format!("{:x}", u32::from(c)));
    out.push('}');
}

/// Appends a text as printable ASCII: everything else is an escape, and a backslash is doubled, so that no text can look
/// like the escape of another.
pub fn escape_into(out: &mut String, text: &str) {
    for c in text.chars() {
        push(out, c);
    }
}

/// A text as printable ASCII, whole.
#[must_use]
pub fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape_into(&mut out, text);
    out
}

/// A text as printable ASCII of at most `max` bytes (at least 3), for one line of a log or a terminal. A cut is shown as
/// `...` and never goes through an escape.
#[must_use]
pub fn escaped(text: &str, max: usize) -> String {
    let mut out = String::new();
    // The longest beginning that leaves room for the mark of a cut.
    let mut room = 0;
    for c in text.chars() {
        push(&mut out, c);
        if out.len() > max {
            out.truncate(room);
            out.push_str(CUT);
            break;
        }
        if out.len() + CUT.len() <= max {
            room = out.len();
        }
    }
    out
}

fn push(out: &mut String, c: char) {
    match c {
        '\\' => out.push_str("\\\\"),
        ' '..='~' => out.push(c),
        _ => escape_char_into(out, c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-TEXT-2
    #[test]
    fn ansi_and_unicode_smuggling_is_hidden_text() {
        let alone = [
            0xad, 0x34f, 0x61c, 0x2800, 0x3164, 0xfeff, 0xffa0, 0xfffe, 0xffff, 0xa0, 0x1680, 0x202f, 0x205f, 0x3000,
        ];
        let ranges = [
            (0, 0x1f),
            (0x7f, 0x9f),
            (0x115f, 0x1160),
            (0x17b4, 0x17b5),
            (0x180b, 0x180f),
            (0x2000, 0x200f),
            (0x2028, 0x202e),
            (0x2060, 0x206f),
            (0xe000, 0xf8ff),
            (0xfe00, 0xfe0f),
            (0xfff0, 0xfffc),
            (0x1bca0, 0x1bca3),
            (0x1d173, 0x1d17a),
            (0xe0000, 0x0010_ffff),
        ];
        let listed = alone.into_iter().map(|one| (one, one)).chain(ranges);
        let mut wanted = std::collections::BTreeSet::new();
        for (first, last) in listed {
            wanted.extend((first..=last).filter_map(char::from_u32));
        }
        let found: std::collections::BTreeSet<char> = ('\0'..=char::MAX).filter(|c| is_hidden(*c)).collect();
        assert_eq!(
            found
                .symmetric_difference(&wanted)
                .collect::<String>()
                .escape_unicode()
                .to_string(),
            ""
        );
        println!("{} characters, {} hidden", u32::from(char::MAX), found.len());
    }

    /// REQ-TEXT-2
    #[test]
    fn what_can_be_seen_is_not_hidden() {
        for text in ["", "plain ~", "Größe ≤ 5 — 日本語 Ω 🚀 naïve", "\u{fffd}", "e\u{301}"] {
            assert_eq!(hidden(text), None, "{text}");
        }
        assert_eq!(hidden("two\nlines"), Some('\n'));
    }

    /// REQ-TEXT-1
    #[test]
    fn no_text_looks_like_the_escape_of_another() {
        assert_eq!(ascii("\\u{1b}"), "\\\\u{1b}");
        assert_eq!(ascii("\u{1b}é"), "\\u{1b}\\u{e9}");
        assert_eq!(ascii("plain 'text' \"stays\" ~"), "plain 'text' \"stays\" ~");
    }

    /// REQ-TEXT-1
    #[test]
    fn a_cut_keeps_the_length_and_goes_through_no_escape() {
        assert_eq!(escaped("abc", 3), "abc");
        assert_eq!(escaped("abcd", 3), "...");
        assert_eq!(escaped("abcdef", 5), "ab...");
        assert_eq!(escaped(&"x".repeat(300), 200).len(), 200);
        for max in 3..40 {
            let cut = escaped(&"\u{1b}\\".repeat(10), max);
            let whole = cut.strip_suffix(CUT).unwrap();
            assert!(cut.len() <= max);
            assert!(ascii(&"\u{1b}\\".repeat(10)).starts_with(whole));
            assert_eq!(whole.replace("\\\\", "").replace("\\u{1b}", ""), "", "{cut}");
        }
    }

    proptest::proptest! {
        /// REQ-TEXT-1
        #[test]
        fn two_texts_never_share_an_escaped_one(a: String, b: String) {
            proptest::prop_assert_eq!(ascii(&a) == ascii(&b), a == b);
            proptest::prop_assert!(ascii(&a).bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            proptest::prop_assert!(escaped(&a, 20).len() <= 20);
        }
    }
}
