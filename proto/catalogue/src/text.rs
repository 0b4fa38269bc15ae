//! Texts that people and models are shown: what may stand in them, and how foreign ones are repeated.

/// Longest foreign text that is repeated in a message, in characters.
const SHOWN: usize = 80;

/// A foreign text for a message: escaped to printable ASCII, and cut.
pub(crate) fn quoted(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .take(SHOWN)
        .flat_map(char::escape_default)
        .take(SHOWN)
        .collect();
    if text.chars().nth(SHOWN).is_some() || shown.len() >= SHOWN {
        shown.push_str("...");
    }
    shown
}

/// The first character that a reader would not see, or would see somewhere else than it stands: control characters,
/// bidirectional overrides, zero-width and tag characters. Hidden text in a title or description would reach a model
/// and no reviewer.
pub(crate) fn hidden(text: &str) -> Option<char> {
    text.chars().find(|c| {
        c.is_control()
            || matches!(*c,
                '\u{00AD}' | '\u{061C}' | '\u{180E}'
                | '\u{200B}'..='\u{200F}'
                | '\u{2028}'..='\u{202E}'
                | '\u{2060}'..='\u{206F}'
                | '\u{FE00}'..='\u{FE0F}'
                | '\u{FEFF}'
                | '\u{FFF9}'..='\u{FFFB}'
                | '\u{E0000}'..='\u{E0FFF}')
    })
}

/// A name that a manifest gives to an argument.
pub(crate) fn is_argument_name(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
}

/// An absolute path in its one spelling: no `.` or `..`, no empty part, no slash at the end, nothing hidden.
pub(crate) fn is_plain_path(text: &str) -> bool {
    text.len() <= 4096
        && text.len() > 1
        && hidden(text).is_none()
        && text
            .strip_prefix('/')
            .is_some_and(|rest| rest.split('/').all(|part| !matches!(part, "" | "." | "..")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_is_escaped_and_cut() {
        assert_eq!(quoted("a\n\u{202e}b"), r"a\n\u{202e}b");
        assert_eq!(quoted(&"x".repeat(5000)).len(), SHOWN + 3);
        assert!(quoted(&"\u{1}".repeat(79)).len() <= SHOWN + 3);
    }

    #[test]
    fn what_cannot_be_seen_is_found() {
        for text in ["a\nb", "a\u{7f}", "\u{9b}31m", "\u{202e}", "x\u{200b}", "\u{e0041}"] {
            assert!(hidden(text).is_some(), "{text:?}");
        }
        assert_eq!(hidden("Größe ≤ 5 — 日本"), None);
    }

    #[test]
    fn a_plain_path_has_one_spelling() {
        for good in ["/var/log", "/a", "/var/log/app-1"] {
            assert!(is_plain_path(good), "{good}");
        }
        for bad in [
            "",
            "/",
            "var",
            "/var/",
            "//var",
            "/var/../etc",
            "/var/./log",
            "/var//log",
            "/a\nb",
        ] {
            assert!(!is_plain_path(bad), "{bad}");
        }
    }
}
