//! Text from elsewhere, made safe to look at.
//!
//! Records hold what strangers and programs said. A terminal obeys some of that, and some of it cannot be seen: both are
//! shown as escapes, so that what a reader sees is what stands there.

use std::fmt::Write as _;

/// A text in which every character that a terminal would obey or not show is an escape: `\u{1b}`. Backslashes are doubled,
/// so that no text can look like the escape of another.
#[must_use]
pub fn escape(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c == '\\' {
            shown.push_str("\\\\");
        } else if is_plain(c) {
            shown.push(c);
        } else {
            let _ = write!(shown, "\\u{{{:x}}}", u32::from(c));
        }
    }
    shown
}

/// A text as printable ASCII of at most `bytes` bytes; everything else is an escape, and a cut is shown as `...`.
#[must_use]
pub fn ascii(text: &str, bytes: usize) -> String {
    let mut shown = String::new();
    for c in text.chars() {
        let mut piece = String::new();
        match c {
            '\\' => piece.push_str("\\\\"),
            ' '..='~' => piece.push(c),
            _ => {
                let _ = write!(piece, "\\u{{{:x}}}", u32::from(c));
            }
        }
        if shown.len() + piece.len() > bytes {
            shown.truncate(bytes.saturating_sub(3));
            shown.push_str("...");
            break;
        }
        shown.push_str(&piece);
    }
    shown
}

/// True for a character that is seen and only seen.
fn is_plain(c: char) -> bool {
    !c.is_control()
        && !matches!(c,
            // Invisible, or joins and parts what is around it.
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{180b}'..='\u{180f}'
            // Zero width, direction marks, line and paragraph separators, embeddings, overrides, isolates.
            | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            // Fillers, variation selectors, byte order mark, annotations, the replacement of objects.
            | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffc}'
            // Shorthand and musical format controls, private use, tags, more variation selectors.
            | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}' | '\u{e000}'..='\u{f8ff}' | '\u{e0000}'..='\u{10ffff}')
        // Spaces that are not the space.
        && (c == ' ' || !c.is_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

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
            assert!(ascii(text, 100).starts_with("\\u{"));
        }
        println!("{} attacks, {} escaped", table.len(), table.len());
    }

    #[test]
    fn plain_text_stays_and_no_text_looks_like_an_escape() {
        assert_eq!(escape("Grüße, 日本 (x)"), "Grüße, 日本 (x)");
        assert_eq!(escape("\\u{1b}"), "\\\\u{1b}");
        assert_eq!(ascii("é", 100), "\\u{e9}");
    }

    #[test]
    fn a_cut_keeps_the_length_and_is_shown() {
        assert_eq!(ascii(&"x".repeat(300), 200).len(), 200);
        assert!(ascii(&"\u{1b}".repeat(300), 200).ends_with("..."));
        assert_eq!(ascii("abc", 3), "abc");
    }
}
