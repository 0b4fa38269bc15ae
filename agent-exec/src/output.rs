//! A program's output: counted and hashed to its end, kept up to a limit, freed of secrets, and put into words for the
//! answer. Secrets go before anything is encoded, so base64 is no way around it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use wire::ids::Digest;
use wire::{Encoding, Stream};

use crate::part::Part;

/// Longest JSON of one output in an answer, in bytes: with the signed Outcome beside it, the line stays below its limit.
const MAX_JSON: usize = 900 * 1024;

/// One stream while it is read. Its memory is bounded by `keep`, whatever the program writes.
pub(crate) struct Capture {
    keep: usize,
    kept: Vec<u8>,
    bytes: u64,
    hash: Sha256,
}

impl Capture {
    /// Keeps the first `keep` bytes.
    #[must_use]
    pub(crate) fn new(keep: usize) -> Self {
        Self {
            keep,
            kept: Vec::new(),
            bytes: 0,
            hash: Sha256::new(),
        }
    }

    /// Takes what was read.
    pub(crate) fn take(&mut self, bytes: &[u8]) {
        self.bytes += bytes.len() as u64;
        self.hash.update(bytes);
        let room = self.keep - self.kept.len();
        self.kept.extend_from_slice(&bytes[..bytes.len().min(room)]);
    }

    /// Ends it: the text that is sent, and what the Outcome says of it. `part` is where it stands in a file.
    #[must_use]
    pub(crate) fn finish(self, wanted: Option<Encoding>, part: Option<&Part>) -> (String, Stream) {
        let truncated = self.bytes > self.kept.len() as u64;
        let end = if truncated || part.is_some_and(|part| part.goes_on(self.bytes)) {
            redact::End::Cut
        } else {
            redact::End::Whole
        };
        let clean = redact::redact_range(part.map_or(&[], Part::before), &self.kept, end);
        let redactions = clean.count;
        let bytes = match clean.bytes {
            Cow::Borrowed(_) => self.kept,
            Cow::Owned(bytes) => bytes,
        };
        let (encoding, text) = encode(bytes, truncated, wanted);
        let stream = Stream {
            encoding,
            bytes: self.bytes,
            sha256: Digest::from_bytes(&self.hash.finalize().into()),
            sent_sha256: Digest::of(text.as_bytes()),
            truncated,
            redactions,
        };
        (text, stream)
    }
}

/// Text where the bytes are text, or where text is wanted; else base64 of the bytes. Also base64 where the text's JSON would
/// be too long for a line: a control character takes six bytes there, and U+FFFD three for one that was no text.
fn encode(mut bytes: Vec<u8>, truncated: bool, wanted: Option<Encoding>) -> (Encoding, String) {
    if truncated && wanted != Some(Encoding::Base64) {
        drop_partial_character(&mut bytes);
    }
    let encoded = |bytes: &[u8]| (Encoding::Base64, STANDARD.encode(bytes));
    if wanted == Some(Encoding::Base64) {
        return encoded(&bytes);
    }
    // The bytes become the text, because an output can be long.
    match String::from_utf8(bytes) {
        Ok(text) if !text.contains('\0') => {
            if json_len(&text) <= MAX_JSON {
                (Encoding::Text, text)
            } else {
                encoded(text.as_bytes())
            }
        }
        other => {
            let bytes = other.map_or_else(std::string::FromUtf8Error::into_bytes, String::into_bytes);
            let lossy = || String::from_utf8_lossy(&bytes).replace('\0', "\u{fffd}");
            let text = (wanted == Some(Encoding::Text)).then(lossy);
            match text.filter(|text| json_len(text) <= MAX_JSON) {
                Some(text) => (Encoding::Text, text),
                None => encoded(&bytes),
            }
        }
    }
}

/// A cut may have gone through a character; one that is broken for another reason stays.
fn drop_partial_character(bytes: &mut Vec<u8>) {
    if let Err(error) = std::str::from_utf8(bytes)
        && error.error_len().is_none()
    {
        bytes.truncate(error.valid_up_to());
    }
}

fn json_len(text: &str) -> usize {
    let escaped = |byte: u8| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' => 2,
        0..=0x1f => 6,
        _ => 1,
    };
    text.bytes().map(escaped).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn captured(bytes: &[u8], keep: usize, wanted: Option<Encoding>) -> (String, Stream) {
        let mut capture = Capture::new(keep);
        for part in bytes.chunks(7) {
            capture.take(part);
        }
        capture.finish(wanted, None)
    }

    #[test]
    fn what_is_not_sent_is_still_counted_and_hashed() {
        let (text, stream) = captured(&[b'a'; 100], 10, None);
        assert_eq!(
            (text.as_str(), stream.bytes, stream.truncated),
            ("aaaaaaaaaa", 100, true)
        );
        assert_eq!(stream.sha256, Digest::of(&[b'a'; 100]));
        assert_eq!(stream.sent_sha256, Digest::of(&[b'a'; 10]));
    }

    #[test]
    fn redaction_base64_no_bypass() {
        let line = b"db: password=hunter2hunter2 host=db-1\n";
        for wanted in [None, Some(Encoding::Text), Some(Encoding::Base64)] {
            let (text, stream) = captured(line, 100, wanted);
            let shown = if stream.encoding == Encoding::Base64 {
                STANDARD.decode(&text).unwrap()
            } else {
                text.into_bytes()
            };
            let shown = String::from_utf8(shown).unwrap();
            assert!(!shown.contains("hunter2") && shown.contains("host=db-1"), "{shown}");
            assert_eq!(stream.redactions, 1);
            assert_eq!(
                stream.sha256,
                Digest::of(line),
                "the hash of the whole is of the raw bytes"
            );
        }
    }

    #[test]
    fn a_secret_that_the_limit_cut_is_not_shown_either() {
        let (text, stream) = captured(b"token=abcdefghijklmnopqrstuvwxyz0123456789", 20, None);
        assert!(stream.truncated && !text.contains("abcdef"), "{text}");
    }

    #[test]
    fn a_cut_does_not_break_a_character() {
        let (text, stream) = captured("ééé".as_bytes(), 3, None);
        assert_eq!((text.as_str(), stream.encoding), ("é", Encoding::Text));
    }

    #[test]
    fn bytes_that_are_no_text_are_sent_as_base64_unless_text_is_wanted() {
        assert_eq!(captured(b"\xff\0", 10, None).0, "/wA=");
        assert_eq!(captured(b"a\0b", 10, None).1.encoding, Encoding::Base64);
        assert_eq!(captured(b"a\0b\xff", 10, Some(Encoding::Text)).0, "a\u{fffd}b\u{fffd}");
        assert_eq!(captured(b"ab", 10, Some(Encoding::Base64)).0, "YWI=");
    }

    #[test]
    fn a_text_of_control_characters_still_fits_a_line() {
        let (text, stream) = captured(&[0x1b; 512 * 1024], 512 * 1024, Some(Encoding::Text));
        assert_eq!(stream.encoding, Encoding::Base64);
        assert!(text.len() < MAX_JSON);
        let (text, stream) = captured(&[0xff; 512 * 1024], 512 * 1024, Some(Encoding::Text));
        assert_eq!(
            (stream.encoding, STANDARD.decode(text).unwrap()),
            (Encoding::Base64, vec![0xff; 512 * 1024])
        );
    }
}
