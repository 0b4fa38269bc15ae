//! The benches: what Writ costs, against its goals and against others that do the same job in the same run.
//!
//! One file is one bench ([`BENCHES`]); what they share is small: a run is timed and looked at ([`sample`]), ours and the
//! peer's alternate, medians are taken ([`statistic`]), rows are kept ([`report`]). A row whose runs were not all what they
//! had to be is never written: killed children look fast. Nothing here decides whether a figure is good enough to ship.

pub mod disk;
pub mod executor;
pub mod machine;
pub mod report;
pub mod sample;
pub mod session;
pub mod statistic;

use anyhow::Result;

use report::Report;

/// A bench: its name, and what takes its samples.
pub type Bench = (&'static str, fn(&mut Report) -> Result<()>);

/// All benches.
pub const BENCHES: [Bench; 1] = [("executor", executor::run)];
