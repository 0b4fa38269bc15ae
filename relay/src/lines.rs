//! Lines out of a stream of bytes, with a bound.
//!
//! Both doors use it: what clients send, and what targets send. A peer that never sends a newline costs at most `max`
//! bytes and one report; the rest of its line is dropped as it comes.

use std::collections::VecDeque;

/// One piece of the stream.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// A line, without its newline.
    Line(Vec<u8>),
    /// A line longer than the bound. It was dropped, and the next line is read as usual.
    TooLong,
}

/// Collects bytes and gives back lines.
#[derive(Debug)]
pub struct Lines {
    max: usize,
    begun: Vec<u8>,
    dropping: bool,
    ready: VecDeque<Piece>,
}

impl Lines {
    /// Lines of at most `max` bytes, the newline not counted.
    #[must_use]
    pub fn new(max: usize) -> Self {
        Self {
            max,
            begun: Vec::new(),
            dropping: false,
            ready: VecDeque::new(),
        }
    }

    /// Takes the next bytes of the stream.
    pub fn push(&mut self, mut bytes: &[u8]) {
        while let Some(end) = bytes.iter().position(|byte| *byte == b'\n') {
            let (head, tail) = bytes.split_at(end);
            self.extend(head);
            bytes = tail.get(1..).unwrap_or_default();
            let line = std::mem::take(&mut self.begun);
            if !std::mem::take(&mut self.dropping) {
                self.ready.push_back(Piece::Line(line));
            }
        }
        self.extend(bytes);
    }

    /// The next piece that is whole.
    pub fn next_piece(&mut self) -> Option<Piece> {
        self.ready.pop_front()
    }

    fn extend(&mut self, bytes: &[u8]) {
        if self.dropping {
            return;
        }
        if self.begun.len().saturating_add(bytes.len()) > self.max {
            self.begun = Vec::new();
            self.dropping = true;
            self.ready.push_back(Piece::TooLong);
            return;
        }
        self.begun.extend_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::{Lines, Piece};

    fn all(lines: &mut Lines) -> Vec<Piece> {
        std::iter::from_fn(|| lines.next_piece()).collect()
    }

    #[test]
    fn lines_come_out_however_the_bytes_were_cut() {
        let stream = b"one\n\ntwo\nthree";
        for cut in 0..stream.len() {
            let mut lines = Lines::new(5);
            lines.push(&stream[..cut]);
            lines.push(&stream[cut..]);
            let expected = [b"one".to_vec(), Vec::new(), b"two".to_vec()].map(Piece::Line);
            assert_eq!(all(&mut lines), expected, "cut at {cut}");
            lines.push(b"\n");
            assert_eq!(all(&mut lines), [Piece::Line(b"three".to_vec())], "cut at {cut}");
        }
    }

    /// REQ-SESSION-2
    #[test]
    fn a_line_without_newline_is_bounded_and_reported_once() {
        let mut lines = Lines::new(1000);
        for _ in 0..10_000 {
            lines.push(&[b'x'; 999]);
            assert!(lines.begun.capacity() <= 4000);
        }
        lines.push(b"tail\nnext\n");
        assert_eq!(all(&mut lines), [Piece::TooLong, Piece::Line(b"next".to_vec())]);
    }

    /// REQ-SESSION-2
    #[test]
    fn a_line_of_exactly_the_bound_passes() {
        let mut lines = Lines::new(4);
        lines.push(b"1234\n12345\n1\n");
        assert_eq!(
            all(&mut lines),
            [
                Piece::Line(b"1234".to_vec()),
                Piece::TooLong,
                Piece::Line(b"1".to_vec())
            ]
        );
    }
}
