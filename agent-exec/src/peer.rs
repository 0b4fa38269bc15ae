//! Lines from the relay and to it: bounded in length and in the time that one may take.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// From the first byte of a line to its newline.
const LINE: Duration = Duration::from_secs(30);

/// Longest that an answer may take to be read by the other side, and longest that it may read nothing of it.
const WRITE: Duration = Duration::from_secs(60);
const STALL: Duration = Duration::from_secs(10);

/// How much is gathered before it is written: what a pipe takes where nobody set another size (pipe(7)). Each piece wakes
/// the other side up.
const PIECE: usize = 64 * 1024;

/// What came.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// A line, without its newline.
    Whole(Vec<u8>),
    /// One that is longer than allowed: what follows it cannot be trusted to be the beginning of another.
    TooLong,
    /// Nothing in time, or a line that dripped.
    TooLate,
    /// The relay has closed its side.
    End,
}

/// Reads lines from a descriptor.
#[derive(Debug)]
pub(crate) struct Lines<'fd> {
    from: BorrowedFd<'fd>,
    max: usize,
    buffer: Vec<u8>,
    /// How far the buffer was searched for a newline.
    searched: usize,
    lost: bool,
}

impl<'fd> Lines<'fd> {
    /// Lines of at most `max` bytes.
    pub(crate) fn new(from: BorrowedFd<'fd>, max: usize) -> Self {
        Self {
            from,
            max,
            buffer: Vec::new(),
            searched: 0,
            lost: false,
        }
    }

    /// The next line; `until` is how long one may be waited for that has not begun.
    ///
    /// # Errors
    /// Whatever read or poll say.
    pub(crate) fn next(&mut self, until: Instant) -> io::Result<Line> {
        let mut begun = None;
        loop {
            if let Some(line) = self.take_line() {
                return Ok(line);
            }
            if begun.is_none() && !self.buffer.is_empty() {
                begun = Some(Instant::now() + LINE);
            }
            let deadline = begun.unwrap_or(until);
            if !wait(self.from, PollFlags::POLLIN, deadline)? {
                self.lost = true;
                return Ok(Line::TooLate);
            }
            let mut bytes = [0_u8; 16 * 1024];
            match nix::unistd::read(self.from.as_fd(), &mut bytes) {
                Ok(0) => return Ok(Line::End),
                Ok(count) => self.buffer.extend_from_slice(&bytes[..count]),
                Err(Errno::EINTR | Errno::EAGAIN) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// True after a line that was not read to its end: nothing says where the next one begins.
    pub(crate) fn lost(&self) -> bool {
        self.lost
    }

    fn take_line(&mut self) -> Option<Line> {
        match self.buffer[self.searched..].iter().position(|byte| *byte == b'\n') {
            Some(at) if self.searched + at <= self.max => {
                let end = self.searched + at;
                let mut line: Vec<u8> = self.buffer.drain(..=end).collect();
                line.pop();
                self.searched = 0;
                Some(Line::Whole(line))
            }
            None if self.buffer.len() <= self.max => {
                self.searched = self.buffer.len();
                None
            }
            _ => {
                self.lost = true;
                Some(Line::TooLong)
            }
        }
    }
}

/// The way to the other side: it takes what it can at once, and keeps nobody waiting.
#[derive(Debug)]
pub(crate) struct Out<F> {
    to: F,
    /// It stopped taking anything. It is not waited for a second time: what it got of a line is no line.
    stalled: Cell<bool>,
}

impl<F: AsFd> Out<F> {
    /// Makes it so. Where one socket is input and output, reading does not wait either: [`Lines`] does.
    ///
    /// # Errors
    /// It is closed.
    pub(crate) fn new(to: F) -> io::Result<Self> {
        let flags = OFlag::from_bits_retain(fcntl(&to, FcntlArg::F_GETFL)?);
        fcntl(&to, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        Ok(Self {
            to,
            stalled: Cell::new(false),
        })
    }

    /// For one line, which has to be written within a minute from now. It is gathered, and written in large pieces.
    pub(crate) fn writer(&self) -> io::BufWriter<Writer<'_>> {
        let writer = Writer {
            to: self.to.as_fd(),
            stalled: &self.stalled,
            end: Instant::now() + WRITE,
        };
        io::BufWriter::with_capacity(PIECE, writer)
    }
}

/// The other side, for writing: patient, but not for ever.
pub(crate) struct Writer<'fd> {
    to: BorrowedFd<'fd>,
    stalled: &'fd Cell<bool>,
    end: Instant,
}

impl io::Write for Writer<'_> {
    /// [`io::ErrorKind::TimedOut`] when the other side does not read.
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let stalled = || io::Error::new(io::ErrorKind::TimedOut, "the other side does not read");
        if self.stalled.get() {
            return Err(stalled());
        }
        loop {
            match nix::unistd::write(self.to, bytes) {
                Err(Errno::EAGAIN) => {}
                written => return Ok(written?),
            }
            if !wait(self.to, PollFlags::POLLOUT, self.end.min(Instant::now() + STALL))? {
                self.stalled.set(true);
                return Err(stalled());
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Waits until something can be read or written; false when the deadline came first.
fn wait(fd: BorrowedFd<'_>, what: PollFlags, deadline: Instant) -> io::Result<bool> {
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let left = PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd, what)], left) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(true),
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    #[test]
    fn lines_come_one_by_one_however_they_arrive() {
        let (read, write) = std::io::pipe().unwrap();
        let mut write = write;
        let mut lines = Lines::new(read.as_fd(), 8);
        write.write_all(b"one\ntwo\n12345678\nno").unwrap();
        for expected in ["one", "two", "12345678"] {
            assert_eq!(lines.next(soon()).unwrap(), Line::Whole(expected.into()));
        }
        write.write_all(b"w\n").unwrap();
        assert_eq!(lines.next(soon()).unwrap(), Line::Whole("now".into()));
        assert_eq!(lines.next(soon()).unwrap(), Line::TooLate);
        drop(write);
        assert_eq!(lines.next(soon()).unwrap(), Line::End);
    }

    #[test]
    fn a_peer_that_does_not_read_is_not_waited_for_for_ever() {
        let (_read, write_end) = std::io::pipe().unwrap();
        let begun = Instant::now();
        let out = Out::new(write_end).unwrap();
        let error = out.writer().write_all(&[b'x'; 256 * 1024]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() >= STALL && begun.elapsed() < STALL * 2);
        // Nor a second time, by the next line or by what was gathered for this one.
        let begun = Instant::now();
        let error = out.writer().write_all(&[b'x'; 256 * 1024]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(begun.elapsed() < STALL / 2);
    }

    #[test]
    fn a_line_that_is_too_long_is_not_read_to_its_end() {
        for text in [&b"123456789\n"[..], b"123456789"] {
            let (read, mut write) = std::io::pipe().unwrap();
            write.write_all(text).unwrap();
            assert_eq!(Lines::new(read.as_fd(), 8).next(soon()).unwrap(), Line::TooLong);
        }
    }
}
