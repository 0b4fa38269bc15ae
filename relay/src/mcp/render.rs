//! Text from a target, made safe to show.
//!
//! A log line can be written by anybody who can reach a server's log: it may try to move a terminal's cursor, reverse
//! the reading order, or carry words that no person sees and a model reads. Such characters are shown as the escape
//! that Rust would write (`\u{1b}`); newline, tab and backslash stay, since a file is to be read as it is. Nothing is
//! removed, so nothing can be hidden by removing it.

use std::borrow::Cow;

use wire::text;

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
            text::escape_char_into(&mut out, c);
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

/// Hidden from a reader, but for the ends of lines and the tabs that make up a text.
fn is_hidden(c: char) -> bool {
    !matches!(c, '\n' | '\t') && text::is_hidden(c)
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

    /// REQ-OUTCOME-10, REQ-TEXT-2
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
