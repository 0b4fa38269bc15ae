//! Private keys in PEM and its kin (OpenSSH, PGP): from a line that begins one to the line that ends it.

use crate::bytes::{LABEL, Text};

/// How a block's first and last lines begin.
pub(crate) const BEGIN: &str = "-----BEGIN ";
/// See [`BEGIN`].
pub(crate) const END: &str = "-----END ";

const DASHES: &[u8] = b"-----";
/// The longest label of the field is `SSH2 ENCRYPTED PRIVATE KEY`.
const LABEL_BYTES: usize = 48;
/// How much of a block without its beginning is one: half a line.
const BODY_BYTES: usize = 32;

/// Behind the dashes of the line whose label begins at `at`, when it is the label of a private key.
pub(crate) fn private_line(text: Text, at: usize) -> Option<usize> {
    let end = text.run(at, &LABEL, LABEL_BYTES);
    let label = &text.bytes()[at..end];
    let private = label.windows(11).any(|part| part == b"PRIVATE KEY");
    (private && text.from(end).starts_with(DASHES)).then(|| end + DASHES.len())
}

/// The start of the base64 before `at`, on lines or with `\n` between them, when there is enough of it to be the rest of
/// a key whose first line is not in the input.
pub(crate) fn body_before(text: Text, at: usize) -> Option<usize> {
    let before = text.before(at);
    let mut start = at;
    while let Some(&byte) = before[..start].last() {
        let escape = byte == b'\\' && matches!(before.get(start), Some(b'n' | b'r'));
        if !(byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=' | b'\n' | b'\r') || escape) {
            break;
        }
        start -= 1;
    }
    // A word that ends a line of something else is not of it, nor are line breaks.
    let newline = |byte: &u8| matches!(byte, b'\n' | b'\r');
    let first = before[start..].iter().position(newline).unwrap_or(0);
    if start > 0 && first < BODY_BYTES {
        start += first;
    }
    start += before[start..].iter().take_while(|byte| newline(byte)).count();
    (at - start >= BODY_BYTES).then_some(start)
}
