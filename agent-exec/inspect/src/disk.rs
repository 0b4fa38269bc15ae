//! `inspect disk`: whether the file system that holds a path has room left.

use core::ffi::CStr;

use rustix::fs::{StatVfs, statvfs};
use rustix::io::{Errno, retry_on_intr};

use crate::text::Part::Quoted;
use crate::text::words;
use crate::{End, error, number};

/// What the kernel takes as a path, its end included (PATH_MAX).
const PATH: usize = 4096;

/// Compares the free part with the least that is wanted, both in percent of what ordinary users can have, as df does.
pub(crate) fn probe<'a>(path: &'a str, min_free_percent: &'a str) -> End<'a> {
    if !path.starts_with('/') {
        return End::Usage(words!["PATH must be absolute, not ", Quoted(path)]);
    }
    let Some(wanted) = number(min_free_percent).filter(|percent| *percent <= 100) else {
        return End::Usage(words![
            "MIN_FREE_PERCENT must be 0 to 100, not ",
            Quoted(min_free_percent)
        ]);
    };
    match look(path) {
        Ok(found) => {
            let free = free_percent(found.f_blocks, found.f_bfree, found.f_bavail);
            let line = words!["disk ", path, ": ", free, "% free, at least ", wanted, "% wanted"];
            if free >= wanted {
                End::Healthy(line)
            } else {
                End::Unhealthy(line)
            }
        }
        Err(errno) => End::Unhealthy(words!["disk ", path, ": ", error::text(errno)]),
    }
}

fn look(path: &str) -> rustix::io::Result<StatVfs> {
    let mut name = [0; PATH];
    name.get_mut(..path.len())
        .ok_or(Errno::NAMETOOLONG)?
        .copy_from_slice(path.as_bytes());
    let name = CStr::from_bytes_until_nul(&name).map_err(|_| Errno::NAMETOOLONG)?;
    retry_on_intr(|| statvfs(name))
}

/// Rounded down. Blocks kept back for root count neither as free nor as part of the whole.
fn free_percent(blocks: u64, free: u64, mut available: u64) -> u64 {
    let mut used = blocks.saturating_sub(free);
    loop {
        let whole = used.checked_add(available);
        match whole.zip(available.checked_mul(100)) {
            // Pseudo file systems have no blocks at all: nothing can fill up.
            Some((0, _)) => return 100,
            Some((whole, hundredfold)) => return hundredfold / whole,
            // More than any disk has: halves have the same ratio.
            None => (used, available) = (used / 2, available / 2),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentages_are_those_of_df() {
        assert_eq!(free_percent(1000, 300, 250), 26);
        assert_eq!(free_percent(1000, 0, 0), 0);
        assert_eq!(free_percent(0, 0, 0), 100);
        assert_eq!(free_percent(u64::MAX, u64::MAX, u64::MAX), 100);
        assert_eq!(free_percent(u64::MAX, 0, u64::MAX), 50);
        assert_eq!(free_percent(u64::MAX / 8 * 7, 0, u64::MAX / 8), 12);
    }

    #[test]
    fn a_real_disk_has_an_answer_and_a_missing_path_is_unhealthy() {
        assert!(matches!(probe("/", "0"), End::Healthy(line) if line.contains("disk /: ")));
        let missing = probe("/no/such/path", "0");
        assert!(
            matches!(missing, End::Unhealthy(line) if line.told() == "disk /no/such/path: No such file or directory")
        );
        for length in [PATH - 1, PATH, 3 * PATH] {
            let long = format!("/{}", "x/".repeat(length / 2));
            let end = probe(&long, "0");
            assert!(matches!(end, End::Unhealthy(_)), "{end:?}");
        }
    }
}
