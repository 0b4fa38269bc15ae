//! What is told to the caller: one line of printable text, whatever a peer or a file name put into it.

use std::io::Write;
use std::process::ExitCode;

/// Longest foreign text that is repeated, in characters.
const FOREIGN: usize = 120;

/// Writes a probe's line to stdout and gives back its exit code, or 1 when nobody could be told.
pub(crate) fn say(line: &str, code: ExitCode) -> ExitCode {
    match writeln!(std::io::stdout().lock(), "{line}") {
        Ok(()) => code,
        Err(_) => ExitCode::from(1),
    }
}

/// Writes a reason to stderr and gives back the exit code. A stderr that is gone changes nothing.
pub(crate) fn complain(why: &str, code: u8) -> ExitCode {
    let _gone = writeln!(std::io::stderr().lock(), "inspect: {why}");
    ExitCode::from(code)
}

/// Foreign bytes as printable ASCII, everything else escaped, cut to a length that fits a line.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text: String = bytes
        .iter()
        .take(FOREIGN)
        .flat_map(|b| b.escape_ascii())
        .map(char::from)
        .collect();
    if bytes.len() > FOREIGN {
        format!("{text}…")
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn foreign_text_cannot_leave_its_line() {
        assert_eq!(printable(b"HTTP/1.1 200 OK\r\n\x1b[2J"), r"HTTP/1.1 200 OK\r\n\x1b[2J");
        assert_eq!(printable(&[b'a'; 500]).chars().count(), FOREIGN + 1);
    }
}
