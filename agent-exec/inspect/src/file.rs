//! The file on stdin: its last lines, or a range of its bytes.
//!
//! Only positioned reads are used, so the descriptor's own offset, which others may share, neither matters nor moves.
//! The size is looked up once: a file that grows meanwhile is read up to there, one that is cut short ends there.
//! Memory is one block, however long a line is.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt;

use crate::End;

/// Bytes read at a time.
const BLOCK: usize = 64 * 1024;

/// Runs `action` with the regular file on stdin and with stdout.
pub(crate) fn on_stdin(action: impl FnOnce(&File, &mut dyn Write) -> io::Result<()>) -> End {
    let file = match std::io::stdin().as_fd().try_clone_to_owned() {
        Ok(fd) => File::from(fd),
        Err(error) => return End::Failed(format!("failed to take over stdin: {error}")),
    };
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => {}
        Ok(_) => return End::Usage("stdin must be a regular file".to_owned()),
        Err(error) => return End::Failed(format!("failed to look at stdin: {error}")),
    }
    // Unbuffered: blocks are large, and stdout's line buffer would copy every byte once more.
    let out = std::io::stdout().as_fd().try_clone_to_owned();
    match out.map(File::from).and_then(|mut out| action(&file, &mut out)) {
        Ok(()) => End::Done,
        Err(error) => End::Failed(format!("failed to copy the file: {error}")),
    }
}

/// Copies the last `lines` lines. A newline at the very end closes the last line and does not start another.
///
/// # Errors
/// Those of reading and writing.
pub(crate) fn tail(file: &File, lines: u64, out: &mut dyn Write) -> io::Result<()> {
    let size = file.metadata()?.len();
    let start = start_of_last(file, size, lines)?;
    copy(file, start, size, out)
}

/// Copies at most `limit` bytes from `offset` on. Beyond the end there is nothing, which is not an error.
///
/// # Errors
/// Those of reading and writing.
pub(crate) fn read(file: &File, offset: u64, limit: u64, out: &mut dyn Write) -> io::Result<()> {
    let size = file.metadata()?.len();
    copy(file, offset, size.min(offset.saturating_add(limit)), out)
}

/// Where the last `lines` lines of the first `size` bytes begin; found by reading blocks from the end.
fn start_of_last(file: &File, size: u64, lines: u64) -> io::Result<u64> {
    if lines == 0 {
        return Ok(size);
    }
    let mut block = vec![0_u8; BLOCK];
    let mut end = size;
    let mut found = 0_u64;
    while end > 0 {
        let start = end.saturating_sub(BLOCK as u64);
        let wanted = usize::try_from(end - start).unwrap_or(BLOCK);
        let read = read_full(file, &mut block[..wanted], start)?;
        for (index, _) in block[..read]
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| **byte == b'\n')
        {
            let after = start + index as u64 + 1;
            if after == size {
                continue;
            }
            found += 1;
            if found == lines {
                return Ok(after);
            }
        }
        end = start;
    }
    Ok(0)
}

/// Copies the bytes of `start..end`, or those of them that are still there.
fn copy(file: &File, start: u64, end: u64, out: &mut dyn Write) -> io::Result<()> {
    let mut block = vec![0_u8; BLOCK];
    let mut at = start;
    while at < end {
        let wanted = usize::try_from(end - at).unwrap_or(BLOCK).min(BLOCK);
        let read = read_full(file, &mut block[..wanted], at)?;
        out.write_all(&block[..read])?;
        if read < wanted {
            break;
        }
        at += read as u64;
    }
    out.flush()
}

/// Fills `block` from `at` on; fewer bytes only where the file ends.
fn read_full(file: &File, block: &mut [u8], at: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < block.len() {
        match file.read_at(&mut block[filled..], at + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn tailed(content: &[u8], lines: u64) -> Vec<u8> {
        let mut out = Vec::new();
        tail(&file(content), lines, &mut out).unwrap();
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

    #[test]
    fn a_file_that_shrinks_meanwhile_ends_early() {
        let file = file(&[b'x'; 1000]);
        file.set_len(10).unwrap();
        let mut out = Vec::new();
        copy(&file, 0, 1000, &mut out).unwrap();
        assert_eq!(out, [b'x'; 10]);
        assert_eq!(start_of_last(&file, 1000, 1).unwrap(), 0);
    }

    #[test]
    fn a_file_that_grows_meanwhile_is_read_up_to_its_size_at_the_start() {
        struct Growing<'a>(&'a File, Vec<u8>);
        impl Write for Growing<'_> {
            fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
                let size = self.0.metadata()?.len();
                self.0.write_all_at(&[b'y'; BLOCK], size)?;
                self.1.extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let file = file(&[b'x'; 3 * BLOCK]);
        let mut out = Growing(&file, Vec::new());
        tail(&file, 5, &mut out).unwrap();
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
            read(&file, offset, limit, &mut out).unwrap();
            assert_eq!(out, expected.as_bytes(), "{offset} {limit}");
        }
    }
}
