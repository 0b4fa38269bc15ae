//! Time and randomness, as arguments.

use std::fs::File;
use std::io::{self, Read};

use nix::time::{ClockId, clock_gettime};

/// One moment, on both clocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Wall clock: milliseconds since 1970-01-01 UTC. May go back.
    pub unix_ms: u64,
    /// CLOCK_MONOTONIC in microseconds since the machine's start: never goes back while the boot id stays. Microseconds
    /// and not nanoseconds, because those pass 2^53, where JSON readers begin to round, after 104 days.
    pub mono_us: u64,
}

/// Where a log gets its time and its randomness from.
pub trait Outside: Send + Sync {
    /// The time now.
    ///
    /// # Errors
    /// When the machine has no clock.
    fn now(&self) -> io::Result<Moment>;

    /// Sixteen random bytes, for a genesis line.
    ///
    /// # Errors
    /// When the machine has no randomness.
    fn nonce(&self) -> io::Result<[u8; 16]>;

    /// Which start of the machine this is.
    ///
    /// # Errors
    /// When the machine does not say.
    fn boot_id(&self) -> io::Result<String>;
}

/// The machine itself.
#[derive(Debug, Clone, Copy)]
pub struct Machine;

impl Outside for Machine {
    fn now(&self) -> io::Result<Moment> {
        let wall = clock_gettime(ClockId::CLOCK_REALTIME)?;
        let mono = clock_gettime(ClockId::CLOCK_MONOTONIC)?;
        let before_1970 = |_| io::Error::other("the clock stands before 1970");
        Ok(Moment {
            unix_ms: u64::try_from(wall.tv_sec() * 1000 + wall.tv_nsec() / 1_000_000).map_err(before_1970)?,
            mono_us: u64::try_from(mono.tv_sec() * 1_000_000 + mono.tv_nsec() / 1000).map_err(before_1970)?,
        })
    }

    fn nonce(&self) -> io::Result<[u8; 16]> {
        let mut bytes = [0; 16];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn boot_id(&self) -> io::Result<String> {
        // 36 characters and a newline; see random(4).
        let mut text = String::new();
        File::open("/proc/sys/kernel/random/boot_id")?
            .take(64)
            .read_to_string(&mut text)?;
        Ok(text.trim_end().to_owned())
    }
}

/// A time as RFC 3339 in UTC with milliseconds: `2026-03-01T12:00:00.000Z`. Up to the year 9999.
#[must_use]
pub fn rfc3339(unix_ms: u64) -> String {
    let (days, ms) = (unix_ms / 86_400_000, unix_ms % 86_400_000);
    let (year, month, day) = civil(days);
    let (h, m, s, ms) = (ms / 3_600_000, ms / 60_000 % 60, ms / 1000 % 60, ms % 1000);
    format!("{year:04}-{month:02}-{day:02}T{h:02}:{m:02}:{s:02}.{ms:03}Z")
}

/// Year, month and day of a count of days since 1970-01-01 (Howard Hinnant, "chrono-compatible low-level date
/// algorithms", `civil_from_days`, for days that are not negative).
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468; // since 0000-03-01
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 {
        march_month + 3
    } else {
        march_month - 9
    };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_read_as_date_says() {
        // date -u -d @N +%FT%T
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00.007Z"),
            (951_782_400, "2000-02-29T00:00:00.007Z"),
            (1_709_251_199, "2024-02-29T23:59:59.007Z"),
            (1_735_689_599, "2024-12-31T23:59:59.007Z"),
            (4_107_542_400, "2100-03-01T00:00:00.007Z"),
            (253_402_300_799, "9999-12-31T23:59:59.007Z"),
        ] {
            assert_eq!(rfc3339(seconds * 1000 + 7), text);
        }
    }

    #[test]
    fn the_machine_has_a_clock_a_boot_id_and_randomness() {
        let (one, two) = (Machine.now().unwrap(), Machine.now().unwrap());
        assert!(one.mono_us <= two.mono_us && one.unix_ms > 1_700_000_000_000);
        assert_ne!(Machine.nonce().unwrap(), Machine.nonce().unwrap());
        assert_eq!(Machine.boot_id().unwrap().len(), 36);
    }
}
