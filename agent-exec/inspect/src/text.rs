//! What is told to the caller: one line of printable text, whatever a peer or a file name put into it.
//!
//! There is no heap, so a line is not put together before it is written: it is a list of its parts.

use rustix::fd::BorrowedFd;
use rustix::io::retry_on_intr;

use crate::Host;
use crate::error::{self, Error, Result};

/// Longest foreign text that is repeated, in characters.
const FOREIGN: usize = 120;

/// The most parts that a line has.
const PARTS: usize = 8;

/// A piece of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part<'a> {
    /// As it is: ours, or an argument.
    Text(&'a str),
    /// In quotes, everything that is not printable escaped.
    Quoted(&'a str),
    /// A peer's: printable ASCII, everything else escaped, cut to a length that fits a line.
    Foreign(&'a [u8]),
    /// In decimals.
    Number(u64),
    /// With its number, if it is the system's.
    Why(Error),
}

/// A line, without its newline.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Words<'a>([Part<'a>; PARTS]);

/// A line of parts, of which texts may be written as they are.
macro_rules! words {
    ($($part:expr),+ $(,)?) => {
        $crate::text::Words::new([$($crate::text::Part::from($part)),+])
    };
}
pub(crate) use words;

impl<'a> Words<'a> {
    /// Made by `words!`.
    pub(crate) fn new<const N: usize>(parts: [Part<'a>; N]) -> Self {
        const { assert!(N <= PARTS, "a line of too many parts") };
        let mut all = [Part::Text(""); PARTS];
        for (place, part) in all.iter_mut().zip(parts) {
            *place = part;
        }
        Words(all)
    }
}

impl<'a> From<&'a str> for Part<'a> {
    fn from(text: &'a str) -> Self {
        Part::Text(text)
    }
}

impl From<u64> for Part<'_> {
    fn from(number: u64) -> Self {
        Part::Number(number)
    }
}

impl From<Error> for Part<'_> {
    fn from(error: Error) -> Self {
        Part::Why(error)
    }
}

/// Where bytes go.
pub(crate) trait Out {
    /// Writes all of them.
    ///
    /// # Errors
    /// The system's; some bytes may be written then.
    fn put(&mut self, bytes: &[u8]) -> Result<()>;
}

impl Out for BorrowedFd<'_> {
    fn put(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            match retry_on_intr(|| rustix::io::write(*self, bytes))? {
                0 => return Err(Error::Told("failed to write whole buffer")),
                written => bytes = bytes.get(written..).unwrap_or_default(),
            }
        }
        Ok(())
    }
}

/// Collects small writes in memory that is lent, and passes them on together.
pub(crate) struct Gathered<'a, O: Out> {
    memory: &'a mut [u8],
    len: usize,
    out: O,
}

impl<'a, O: Out> Gathered<'a, O> {
    /// Nothing is written yet.
    pub(crate) fn new(memory: &'a mut [u8], out: O) -> Self {
        Gathered { memory, len: 0, out }
    }

    /// Writes what is left.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn flush(&mut self) -> Result<()> {
        let gathered = self.memory.get(..self.len).unwrap_or_default();
        self.len = 0;
        self.out.put(gathered)
    }
}

impl<O: Out> Out for Gathered<'_, O> {
    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        for byte in bytes {
            if self.len == self.memory.len() {
                self.flush()?;
            }
            match self.memory.get_mut(self.len) {
                Some(place) => *place = *byte,
                None => return self.out.put(bytes),
            }
            self.len += 1;
        }
        Ok(())
    }
}

/// Writes one part.
///
/// # Errors
/// Those of writing.
fn put(part: &Part<'_>, out: &mut impl Out) -> Result<()> {
    match *part {
        Part::Text(text) => out.put(text.as_bytes()),
        Part::Quoted(text) => {
            out.put(b"\"")?;
            for c in text.chars() {
                // As the standard library's Debug: within double quotes a single one needs no escape.
                if c == '\'' {
                    out.put(b"'")?;
                } else {
                    for c in c.escape_debug() {
                        out.put(c.encode_utf8(&mut [0; 4]).as_bytes())?;
                    }
                }
            }
            out.put(b"\"")
        }
        Part::Foreign(bytes) => {
            for escaped in bytes.iter().take(FOREIGN).flat_map(|b| b.escape_ascii()) {
                out.put(&[escaped])?;
            }
            if bytes.len() > FOREIGN {
                out.put("…".as_bytes())
            } else {
                Ok(())
            }
        }
        Part::Number(number) => put_number(number, out),
        Part::Why(Error::Told(text)) => out.put(text.as_bytes()),
        Part::Why(Error::System(errno)) => {
            out.put(error::text(errno).as_bytes())?;
            out.put(b" (os error ")?;
            put_number(u64::from(errno.raw_os_error().unsigned_abs()), out)?;
            out.put(b")")
        }
    }
}

fn put_number(mut number: u64, out: &mut impl Out) -> Result<()> {
    /// Of `u64::MAX`.
    const DIGITS: usize = 20;
    let mut digits = [b'0'; DIGITS];
    let mut len = 0;
    for place in digits.iter_mut().rev() {
        *place += (number % 10) as u8;
        number /= 10;
        len += 1;
        if number == 0 {
            break;
        }
    }
    out.put(digits.get(DIGITS - len..).unwrap_or_default())
}

impl Words<'_> {
    /// Writes them between what stands before and behind.
    ///
    /// # Errors
    /// Those of writing.
    fn put(&self, before: &str, after: &str, mut out: Gathered<'_, impl Out>) -> Result<()> {
        out.put(before.as_bytes())?;
        self.parts(&mut out)?;
        out.put(after.as_bytes())?;
        out.put(b"\n")?;
        out.flush()
    }

    /// Adds them to lines that are put together.
    ///
    /// # Errors
    /// Those of writing.
    pub(crate) fn line(&self, out: &mut impl Out) -> Result<()> {
        self.parts(out)?;
        out.put(b"\n")
    }

    fn parts(&self, out: &mut impl Out) -> Result<()> {
        self.0.iter().try_for_each(|part| put(part, out))
    }
}

/// Writes a probe's line to stdout and gives back its exit code, or 1 when nobody could be told.
pub(crate) fn say(host: &mut Host<'_>, line: &Words<'_>, code: u8) -> u8 {
    match line.put("", "", Gathered::new(host.block, host.stdout)) {
        Ok(()) => code,
        Err(_) => 1,
    }
}

/// Writes a reason to stderr and gives back the exit code. A stderr that is gone changes nothing.
pub(crate) fn complain(host: &mut Host<'_>, why: &Words<'_>, hint: &str, code: u8) -> u8 {
    let _gone = why.put("inspect: ", hint, Gathered::new(host.block, host.stderr));
    code
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    impl Out for &mut Vec<u8> {
        fn put(&mut self, bytes: &[u8]) -> Result<()> {
            self.extend_from_slice(bytes);
            Ok(())
        }
    }

    impl Words<'_> {
        /// As it would be written.
        pub(crate) fn told(&self) -> String {
            let mut told = Vec::new();
            self.put("", "", Gathered::new(&mut [0; 64], &mut told)).unwrap();
            assert_eq!(told.pop(), Some(b'\n'));
            String::from_utf8(told).unwrap()
        }

        pub(crate) fn contains(&self, part: &str) -> bool {
            self.told().contains(part)
        }
    }

    #[test]
    fn foreign_text_cannot_leave_its_line() {
        let told = |bytes: &[u8]| words![Part::Foreign(bytes)].told();
        assert_eq!(told(b"HTTP/1.1 200 OK\r\n\x1b[2J"), r"HTTP/1.1 200 OK\r\n\x1b[2J");
        assert_eq!(told(&[b'a'; 500]).chars().count(), FOREIGN + 1);
        assert_eq!(told(&[b'a'; FOREIGN]).chars().count(), FOREIGN);
    }

    #[test]
    fn arguments_are_quoted_as_the_standard_library_quotes_them() {
        for text in [
            "",
            "plain",
            "a \"b\" 'c'",
            "\0\t\r\n\x1b\\",
            "é\u{301}\u{200b}\u{10ffff}日",
            "\u{301}",
        ] {
            assert_eq!(words![Part::Quoted(text)].told(), format!("{text:?}"));
        }
    }

    #[test]
    fn numbers_and_errors_are_told_as_the_standard_library_tells_them() {
        for number in [0, 9, 10, 100, 65_535, u64::MAX] {
            assert_eq!(words![number].told(), number.to_string());
        }
        let refused = std::io::Error::from_raw_os_error(111);
        assert_eq!(words![Error::System(Errno::CONNREFUSED)].told(), refused.to_string());
    }

    #[test]
    fn a_line_longer_than_the_memory_is_whole() {
        let long = "x".repeat(1000);
        assert_eq!(words!["<", long.as_str(), ">"].told(), format!("<{long}>"));
    }
}
