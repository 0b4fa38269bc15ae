//! Text from elsewhere, made safe to look at.
//!
//! Records hold what strangers and programs said. A terminal obeys some of that, and some of it cannot be seen: both are
//! shown as escapes, so that what a reader sees is what stands there.

use wire::text;

/// A text in which every character that a terminal would obey or not show is an escape: `\u{1b}`. Backslashes are doubled,
/// so that no text can look like the escape of another.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\\' {
            shown.push_str("\\\\");
        } else if text::is_hidden(c) {
            text::escape_char_into(&mut shown, c);
        } else {
            shown.push(c);
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    /// REQ-TEXT-2, REQ-OUTCOME-10
    #[test]
    fn ansi_and_unicode_smuggling_is_shown_as_escapes() {
        let table = [
            "\x1b[2J",
            "\u{9b}31m",
            "\r",
            "\n",
            "\x07",
            "\x7f",
            "\u{202e}",
            "\u{2066}",
            "\u{200b}",
            "\u{feff}",
            "\u{e0041}",
            "\u{ad}",
            "\u{2028}",
            "\u{a0}",
            "\u{3164}",
            "\u{fe0f}",
        ];
        for text in table {
            let shown = escape(text);
            assert!(shown.starts_with("\\u{"), "{shown:?}");
        }
        println!("{} attacks, {} escaped", table.len(), table.len());
    }

    #[test]
    fn plain_text_stays_and_no_text_looks_like_an_escape() {
        assert_eq!(escape("Grüße, 日本 (x)"), "Grüße, 日本 (x)");
        assert_eq!(escape("\\u{1b}"), "\\\\u{1b}");
    }
}
