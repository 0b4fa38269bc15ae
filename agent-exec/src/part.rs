//! An output that is a part of a file: what stands around it in the file, so that a secret that reaches over an edge of the
//! part is known for one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

/// Where an output begins in its file, and what stands right before it.
#[derive(Debug)]
pub(crate) struct Part {
    file: File,
    start: u64,
    before: Vec<u8>,
}

impl Part {
    /// Reads what stands before `start`, which may lie behind the end. The file's own position stays where it is.
    ///
    /// # Errors
    /// Whatever read says.
    pub(crate) fn of(file: File, start: u64) -> io::Result<Self> {
        let length = start.min(redact::CONTEXT_BYTES as u64);
        let mut before = vec![0; usize::try_from(length).unwrap_or(redact::CONTEXT_BYTES)];
        let mut filled = 0;
        while filled < before.len() {
            match file.read_at(&mut before[filled..], start - length + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        before.truncate(filled);
        Ok(Self { file, start, before })
    }

    /// What stands right before it.
    #[must_use]
    pub(crate) fn before(&self) -> &[u8] {
        &self.before
    }

    /// Whether the file goes on behind the part's `bytes`; where nobody can tell, it does.
    #[must_use]
    pub(crate) fn goes_on(&self, bytes: u64) -> bool {
        self.file
            .metadata()
            .map_or(true, |about| about.len() > self.start.saturating_add(bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, content: &[u8]) -> File {
        let path = std::env::temp_dir().join(format!("writ-part-{name}-{}", std::process::id()));
        std::fs::write(&path, content).unwrap();
        let file = File::open(&path).unwrap();
        std::fs::remove_file(path).unwrap();
        file
    }

    #[test]
    fn as_much_stands_before_a_part_as_the_file_has_and_no_more_than_is_looked_at() {
        let content: Vec<u8> = (0..10_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        for (start, from, to) in [
            (0, 0, 0),
            (10, 0, 10),
            (4096, 0, 4096),
            (4097, 1, 4097),
            (9_999, 5_903, 9_999),
            (12_000, 7_904, 10_000),
            (u64::MAX, 0, 0),
        ] {
            let part = Part::of(file("before", &content), start);
            // No file reaches so far that its position could not be told.
            let part = if start > i64::MAX as u64 {
                assert!(part.is_err());
                continue;
            } else {
                part.unwrap()
            };
            assert_eq!(part.before(), &content[from..to], "{start}");
        }
    }

    #[test]
    fn a_part_that_ends_with_its_file_is_told_from_one_that_does_not() {
        let part = Part::of(file("end", b"0123456789"), 4).unwrap();
        assert!(part.goes_on(0) && part.goes_on(5));
        assert!(!part.goes_on(6) && !part.goes_on(7) && !part.goes_on(u64::MAX));
    }
}
