//! Texts that people and models are shown: what may stand in them, and how foreign ones are repeated.

pub(crate) use wire::text::hidden;

/// Longest foreign text that is repeated in a message, in bytes.
const SHOWN: usize = 83;

/// A foreign text for a message: printable ASCII, everything else escaped, and cut.
pub(crate) fn quoted(text: &str) -> String {
    wire::text::escaped(text, SHOWN)
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

    /// REQ-TEXT-1
    #[test]
    fn foreign_text_is_escaped_and_cut() {
        assert_eq!(quoted("a\n\u{202e}b"), r"a\u{a}\u{202e}b");
        assert_eq!(quoted(&"x".repeat(5000)).len(), SHOWN);
    }

    /// REQ-MANIFEST-19
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
