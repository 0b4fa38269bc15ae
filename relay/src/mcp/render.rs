//! Text from a target, made safe to show.
//!
//! A log line can be written by anybody who can reach a server's log: it may try to move a terminal's cursor, reverse
//! the reading order, or carry words that no person sees and a model reads. Such characters are shown as the escape
//! that Rust would write (`\u{1b}`); newline and tab stay. Nothing is removed, so nothing can be hidden by removing it.

use std::borrow::Cow;
use std::fmt::Write as _;

/// `text` with every character that is not plainly visible written as `\u{…}`.
#[must_use]
pub(crate) fn visible(text: &str) -> Cow<'_, str> {
    let Some(first) = text.char_indices().find(|(_, c)| is_hidden(*c)).map(|(at, _)| at) else {
        return Cow::Borrowed(text);
    };
    let (clean, rest) = text.split_at(first);
    let mut out = String::with_capacity(text.len() + 64);
    out.push_str(clean);
    for c in rest.chars() {
        if is_hidden(c) {
            // Writing into a String cannot fail.
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Whether a reader could not see `c`, or could be made to see other characters in another order by it.
fn is_hidden(c: char) -> bool {
    match c {
        '\n' | '\t' | ' '..='~' => false,
        // C0, DEL, C1: what terminals obey.
        '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}' => true,
        // Soft hyphen, combining grapheme joiner, Arabic letter mark, fillers, Mongolian separators: no glyph.
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}' => true,
        '\u{180b}'..='\u{180f}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}' => true,
        // Zero width, bidirectional marks, embeddings, overrides and isolates, line separators, invisible operators.
        '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' => true,
        // Variation selectors (256 of them: a byte each), byte order mark, annotations.
        '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{fff0}'..='\u{fffc}' => true,
        // Shorthand and musical format characters.
        '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' => true,
        // Private use; tags and the supplement of variation selectors: text that no font draws and models read.
        '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{10ffff}' => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::visible;

    #[test]
    fn ordinary_text_is_left_alone() {
        for text in [
            "",
            "plain\tline\nnext",
            "größer 日本語 Ω 🚀 naïve",
            "back\\slash \"quotes\" <b>&amp;",
        ] {
            assert!(
                matches!(visible(text), std::borrow::Cow::Borrowed(same) if same == text),
                "{text:?}"
            );
        }
    }

    #[test]
    fn ansi_and_unicode_smuggling_is_shown_as_escapes() {
        let table = [
            ("\u{1b}[2J", "\\u{1b}[2J"),
            ("a\r\nb", "a\\u{d}\nb"),
            ("\u{0}\u{7}\u{8}\u{7f}", "\\u{0}\\u{7}\\u{8}\\u{7f}"),
            ("\u{9b}31m", "\\u{9b}31m"),
            ("\u{202e}txt.exe\u{202c}", "\\u{202e}txt.exe\\u{202c}"),
            ("\u{2066}a\u{2069}\u{200f}", "\\u{2066}a\\u{2069}\\u{200f}"),
            ("pass\u{200b}word\u{feff}", "pass\\u{200b}word\\u{feff}"),
            ("\u{e0041}\u{e007f}", "\\u{e0041}\\u{e007f}"),
            ("x\u{fe0f}\u{e0100}", "x\\u{fe0f}\\u{e0100}"),
            ("\u{2028}\u{2029}", "\\u{2028}\\u{2029}"),
        ];
        for (text, expected) in table {
            assert_eq!(visible(text), expected);
        }
    }

    #[test]
    fn no_control_or_format_character_survives() {
        let every: String = ('\0'..=char::MAX)
            .filter(|c| c.is_control() && *c != '\n' && *c != '\t')
            .collect();
        assert!(visible(&every).bytes().all(|byte| (b' '..=b'~').contains(&byte)));
    }
}
