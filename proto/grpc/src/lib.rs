//! The stubs of `ca.proto`: what a relay may ask of the CA.
//!
//! Generated types are wire types. Each of the two users turns them into checked values in one file of its own and
//! lets them go no further.

/// The protocol's only version so far.
pub mod v1 {
    #![expect(missing_docs, reason = "generated; ca.proto holds the words")]
    tonic::include_proto!("writ.ca.v1");
}

/// Metadata key of a refusal's stable Code.
pub const CODE: &str = "writ-code";

/// Metadata key of a refusal's one line of text, printable ASCII.
pub const MESSAGE: &str = "writ-message";

/// `text` as a value for [`MESSAGE`]: printable ASCII is kept, everything else is escaped as Rust would write it.
#[must_use]
pub fn ascii(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            ' '..='~' => out.push(c),
            other => out.extend(other.escape_default()),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::ascii;

    #[test]
    fn text_of_a_refusal_is_one_printable_ascii_line() {
        assert_eq!(ascii("plain 'text' \\ stays"), "plain 'text' \\ stays");
        assert_eq!(ascii("a\nb\u{1b}[2Jé"), "a\\nb\\u{1b}[2J\\u{e9}");
    }
}
