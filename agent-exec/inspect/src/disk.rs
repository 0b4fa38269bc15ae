//! `inspect disk`: whether the file system that holds a path has room left.

use nix::sys::statvfs::statvfs;

use crate::{End, number};

/// Compares the free part with the least that is wanted, both in percent of what ordinary users can have, as df does.
pub(crate) fn probe(path: &str, min_free_percent: &str) -> End {
    if !path.starts_with('/') {
        return End::Usage(format!("PATH must be absolute, not {path:?}"));
    }
    let Some(wanted) = number(min_free_percent).filter(|percent| *percent <= 100) else {
        return End::Usage(format!("MIN_FREE_PERCENT must be 0 to 100, not {min_free_percent:?}"));
    };
    match statvfs(path) {
        Ok(found) => {
            let free = free_percent(found.blocks(), found.blocks_free(), found.blocks_available());
            let line = format!("disk {path}: {free}% free, at least {wanted}% wanted");
            if free >= wanted {
                End::Healthy(line)
            } else {
                End::Unhealthy(line)
            }
        }
        Err(errno) => End::Unhealthy(format!("disk {path}: {}", errno.desc())),
    }
}

/// Rounded down. Blocks kept back for root count neither as free nor as part of the whole.
fn free_percent(blocks: u64, free: u64, available: u64) -> u64 {
    let used = u128::from(blocks.saturating_sub(free));
    let available = u128::from(available);
    match used + available {
        // Pseudo file systems have no blocks at all: nothing can fill up.
        0 => 100,
        whole => u64::try_from(available * 100 / whole).unwrap_or(100),
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
    }

    #[test]
    fn a_real_disk_has_an_answer_and_a_missing_path_is_unhealthy() {
        assert!(matches!(probe("/", "0"), End::Healthy(_)));
        assert!(matches!(probe("/no/such/path", "0"), End::Unhealthy(_)));
    }
}
