//! The file on stdin: its last lines, or a range of its bytes.
//!
//! Only positioned reads are used, so the descriptor's own offset, which others may share, neither matters nor moves.
//! The size is looked up once: a file that grows meanwhile is read up to there, one that is cut short ends there.
//! Memory is one block, however long a line is.

use rustix::fd::BorrowedFd;
use rustix::fs::FileType;
use rustix::io::retry_on_intr;

use crate::error::{Error, Result};
use crate::text::{Out, words};
use crate::{BLOCK, End, Host};

/// What is guessed of a line's length, in bytes. A tail that is guessed right is one read and one write.
const LINE: u64 = 128;

/// The least that is read at a time where there is more, in bytes.
const PAGE: u64 = 4096;

/// Bytes that are searched for newlines together. So few that their number fits a byte, which is counted fastest.
const SEARCHED: usize = 128;

/// Runs `action` with the regular file on stdin, its size, memory, and stdout.
pub(crate) fn on_stdin(
    host: &mut Host<'_>,
    action: impl FnOnce(BorrowedFd<'_>, u64, &mut [u8; BLOCK], &mut BorrowedFd<'_>) -> Result<()>,
) -> End<'static> {
    let size = match rustix::fs::fstat(host.stdin) {
        Ok(found) if FileType::from_raw_mode(found.st_mode) == FileType::RegularFile => {
            u64::try_from(found.st_size).unwrap_or(0)
        }
        Ok(_) => return End::Usage(words!["stdin must be a regular file"]),
        Err(errno) => return End::Failed(words!["failed to look at stdin: ", Error::from(errno)]),
    };
    match action(host.stdin, size, host.block, &mut host.stdout) {
        Ok(()) => End::Done,
        Err(error) => End::Failed(words!["failed to copy the file: ", error]),
    }
}

/// Copies the last `lines` lines of the first `size` bytes. A newline at their very end closes the last line and does not
/// start another.
///
/// # Errors
/// Those of reading and writing.
pub(crate) fn tail(
    file: BorrowedFd<'_>,
    size: u64,
    lines: u64,
    block: &mut [u8; BLOCK],
    out: &mut impl Out,
) -> Result<()> {
    if lines == 0 {
        return Ok(());
    }
    let mut left = lines;
    let mut end = size;
    let mut step = lines.saturating_mul(LINE).clamp(PAGE, BLOCK as u64);
    while end > 0 {
        let start = end.saturating_sub(step);
        let read = read_full(file, part(block, end - start), start)?;
        let found = part(block, read);
        // What is never searched is a newline at the very end.
        let searched = part(found, (size - 1 - start).min(read));
        let begin = match nth_from_end(searched, &mut left) {
            Some(newline) => newline + 1,
            None if start == 0 => 0,
            None => {
                end = start;
                step = BLOCK as u64;
                continue;
            }
        };
        // The block that holds the first line needs not be read again, only what is behind it.
        out.put(found.get(begin..).unwrap_or_default())?;
        return if read < end - start {
            Ok(())
        } else {
            copy(file, end, size, block, out)
        };
    }
    Ok(())
}

/// Copies at most `limit` of the first `size` bytes from `offset` on. Beyond the end there is nothing, which is not an
/// error.
///
/// # Errors
/// Those of reading and writing.
pub(crate) fn read(
    file: BorrowedFd<'_>,
    size: u64,
    (offset, limit): (u64, u64),
    block: &mut [u8; BLOCK],
    out: &mut impl Out,
) -> Result<()> {
    copy(file, offset, size.min(offset.saturating_add(limit)), block, out)
}

/// Where the newline is that is the `left`th from the end; if there are fewer, `left` is what is left of it.
fn nth_from_end(bytes: &[u8], left: &mut u64) -> Option<usize> {
    let mut end = bytes.len();
    for some in bytes.rchunks(SEARCHED) {
        let newlines = some.iter().map(|byte| u8::from(*byte == b'\n')).sum::<u8>();
        if u64::from(newlines) < *left {
            *left -= u64::from(newlines);
            end -= some.len();
            continue;
        }
        for byte in some.iter().rev() {
            end -= 1;
            if *byte == b'\n' {
                *left -= 1;
                if *left == 0 {
                    return Some(end);
                }
            }
        }
    }
    None
}

/// Copies the bytes of `start..end`, or those of them that are still there.
fn copy(file: BorrowedFd<'_>, start: u64, end: u64, block: &mut [u8; BLOCK], out: &mut impl Out) -> Result<()> {
    let mut at = start;
    while at < end {
        let wanted = (end - at).min(BLOCK as u64);
        let read = read_full(file, part(block, wanted), at)?;
        out.put(part(block, read))?;
        if read < wanted {
            break;
        }
        at += read;
    }
    Ok(())
}

/// The first `length` bytes of memory, or all of it.
fn part(memory: &mut [u8], length: u64) -> &mut [u8] {
    let length = usize::try_from(length).map_or(memory.len(), |length| length.min(memory.len()));
    memory.split_at_mut(length).0
}

/// Fills `block` from `at` on; fewer bytes only where the file ends.
fn read_full(file: BorrowedFd<'_>, block: &mut [u8], at: u64) -> Result<u64> {
    let mut filled = 0;
    while let Some(rest) = block.get_mut(filled..)
        && !rest.is_empty()
    {
        match retry_on_intr(|| rustix::io::pread(file, &mut *rest, at + filled as u64))? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::os::fd::AsFd;
    use std::os::unix::fs::FileExt;
    use std::path::PathBuf;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A file that has no name any more once it is open.
    fn file(content: &[u8]) -> File {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path: PathBuf = std::env::temp_dir().join(format!("writ-inspect-{}-{number}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        let file = File::options().read(true).write(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        file
    }

    fn block() -> Box<[u8; BLOCK]> {
        Box::new([0; BLOCK])
    }

    fn tailed(content: &[u8], lines: u64) -> Vec<u8> {
        let mut out = Vec::new();
        let size = content.len() as u64;
        tail(file(content).as_fd(), size, lines, &mut block(), &mut &mut out).unwrap();
        out
    }

    /// What `tail -n` is by definition, without any blocks.
    fn by_definition(content: &[u8], lines: usize) -> Vec<u8> {
        let all: Vec<&[u8]> = content.split_inclusive(|b| *b == b'\n').collect();
        all[all.len().saturating_sub(lines)..].concat()
    }

    #[test]
    fn the_last_lines_are_those_of_the_definition() {
        let contents: [&[u8]; 9] = [
            b"",
            b"\n",
            b"a",
            b"a\n",
            b"a\nb",
            b"a\nb\n",
            b"\n\n\n",
            b"a\n\nb\n\n",
            b"\na",
        ];
        for content in contents {
            for lines in 0..6 {
                assert_eq!(
                    tailed(content, lines),
                    by_definition(content, usize::try_from(lines).unwrap()),
                    "{lines} of {content:?}"
                );
            }
        }
    }

    #[test]
    fn lines_that_straddle_blocks_are_whole() {
        for length in [BLOCK - 2, BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK] {
            let mut content = b"first\n".to_vec();
            content.extend(std::iter::repeat_n(b'x', length));
            content.extend(b"\nlast");
            for lines in 1..4_u64 {
                assert_eq!(
                    tailed(&content, lines),
                    by_definition(&content, usize::try_from(lines).unwrap()),
                    "{lines} lines, {length} bytes"
                );
            }
        }
    }

    /// Lines of all lengths from none to more than is searched at once, so that every way a newline can lie is there.
    #[test]
    fn lines_are_counted_whatever_their_lengths_are() {
        let mut content = Vec::new();
        for length in (0..2 * SEARCHED).rev().chain(0..2 * SEARCHED) {
            content.extend(std::iter::repeat_n(b'x', length));
            content.push(b'\n');
        }
        content.extend(std::iter::repeat_n(b'\n', 1000));
        for lines in (1..content.len()).step_by(7) {
            assert_eq!(
                tailed(&content, lines as u64),
                by_definition(&content, lines),
                "{lines}"
            );
        }
    }

    #[test]
    fn a_file_that_shrinks_meanwhile_ends_early() {
        let file = file(&[b'x'; 1000]);
        file.set_len(10).unwrap();
        let mut out = Vec::new();
        copy(file.as_fd(), 0, 1000, &mut block(), &mut &mut out).unwrap();
        assert_eq!(out, [b'x'; 10]);
        out.clear();
        tail(file.as_fd(), 1000, 1, &mut block(), &mut &mut out).unwrap();
        assert_eq!(out, [b'x'; 10]);
        out.clear();
        tail(file.as_fd(), 5 * BLOCK as u64, 1, &mut block(), &mut &mut out).unwrap();
        assert_eq!(out, [b'x'; 10]);
    }

    #[test]
    fn a_file_that_grows_meanwhile_is_read_up_to_its_size_at_the_start() {
        struct Growing<'a>(&'a File, Vec<u8>);
        impl Out for Growing<'_> {
            fn put(&mut self, bytes: &[u8]) -> Result<()> {
                let size = self.0.metadata().unwrap().len();
                self.0.write_all_at(&[b'y'; BLOCK], size).unwrap();
                self.1.extend_from_slice(bytes);
                Ok(())
            }
        }
        let file = file(&[b'x'; 3 * BLOCK]);
        let mut out = Growing(&file, Vec::new());
        tail(file.as_fd(), 3 * BLOCK as u64, 5, &mut block(), &mut out).unwrap();
        assert_eq!(out.1, [b'x'; 3 * BLOCK]);
    }

    #[test]
    fn a_range_is_cut_at_the_end_and_empty_beyond_it() {
        let file = file(b"0123456789");
        for (offset, limit, expected) in [
            (0, 4, "0123"),
            (8, 4, "89"),
            (10, 4, ""),
            (u64::MAX, u64::MAX, ""),
            (0, 0, ""),
            (3, u64::MAX, "3456789"),
        ] {
            let mut out = Vec::new();
            read(file.as_fd(), 10, (offset, limit), &mut block(), &mut &mut out).unwrap();
            assert_eq!(out, expected.as_bytes(), "{offset} {limit}");
        }
    }
}
