//! The machine that a figure was taken on, and whether it was idle: background load makes 1.1 ms into 9.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::spawn::run_ok;

/// A machine is idle where no more of its CPU time than this is used.
const IDLE: f64 = 0.05;

/// How long one look takes, and how many there are for a build that is still writing back.
const LOOK: Duration = Duration::from_secs(1);
const LOOKS: usize = 5;

/// One line about it: processor, how many, kernel, and the file system of this folder.
pub fn describe(folder: &Path) -> Result<String> {
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(':'))
        .map_or(std::env::consts::ARCH, |(_, model)| model.trim());
    let cpus = thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut findmnt = Command::new("findmnt");
    findmnt.args(["-n", "-o", "FSTYPE", "-T"]).arg(folder);
    let disk = String::from_utf8(run_ok("findmnt", findmnt, b"")?)?;
    Ok(format!("{cpus} × {model}, Linux {}, {}", kernel.trim(), disk.trim()))
}

/// The share of CPU time in use, as soon as a look finds the machine idle, else of the last look.
pub fn busy() -> Result<f64> {
    let mut share = 0.0;
    for _ in 0..LOOKS {
        let before = Used::now()?;
        thread::sleep(LOOK);
        share = Used::now()?.since(&before);
        if is_idle(share) {
            break;
        }
    }
    Ok(share)
}

/// Whether a machine of which this share is in use is idle.
#[must_use]
pub fn is_idle(share: f64) -> bool {
    share <= IDLE
}

/// CPU time of all processors together, in ticks (proc(5), `/proc/stat`).
struct Used {
    busy: u64,
    all: u64,
}

impl Used {
    fn now() -> Result<Used> {
        let stat = fs::read_to_string("/proc/stat")?;
        Used::parse(&stat).context("/proc/stat has no line for all processors")
    }

    fn parse(stat: &str) -> Option<Used> {
        let ticks: Vec<u64> = stat
            .lines()
            .next()?
            .strip_prefix("cpu ")?
            .split_whitespace()
            // user nice system idle iowait irq softirq steal; the guests after them are in user already.
            .take(8)
            .map_while(|ticks| ticks.parse().ok())
            .collect();
        let [_, _, _, idle, iowait, ..] = ticks[..] else {
            return None;
        };
        let all = ticks.iter().sum();
        let busy = all - idle - iowait;
        Some(Used { busy, all })
    }

    fn since(&self, before: &Used) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1);
        self.busy.saturating_sub(before.busy) as f64 / all as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waiting_is_not_use_and_a_stolen_tick_is() {
        let before = Used::parse("cpu  10 0 10 1000 50 0 0 0 5 0\ncpu0 1 1 1\n").unwrap();
        let idle = Used::parse("cpu  11 0 11 1158 90 0 0 0 5 0\n").unwrap();
        assert_eq!(idle.since(&before), 0.01);
        let stolen = Used::parse("cpu  10 0 10 1050 50 0 0 50 5 0\n").unwrap();
        assert_eq!(stolen.since(&before), 0.5);
        assert!(is_idle(idle.since(&before)) && !is_idle(stolen.since(&before)));
    }

    #[test]
    fn a_stat_without_its_line_is_no_idle_machine() {
        for text in ["", "cpu0 1 2 3 4 5\n", "cpu  1 2\n"] {
            assert!(Used::parse(text).is_none(), "{text:?}");
        }
    }
}
