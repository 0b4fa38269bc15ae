//! The benches: what Writ costs, against its goals and against others that do the same job in the same run.
//!
//! One file is one bench ([`BENCHES`]); what they share is small: a run is timed and looked at ([`sample`]), ours and the
//! peer's alternate, medians are taken ([`statistic`]), rows are kept ([`report`]). A row whose runs were not all what they
//! had to be is never written: killed children look fast. Nothing here decides whether a figure is good enough to ship.

pub mod ca_issue;
pub mod calls;
pub mod cold_task;
pub mod disk;
pub mod executor;
pub mod first_answer;
pub mod machine;
pub mod mcp_call;
pub mod net;
pub mod ours;
pub mod peers;
pub mod relay_memory;
pub mod report;
pub mod sample;
pub mod session;
pub mod site;
pub mod statistic;
pub mod warm_action;
pub mod warm_change;
pub mod warm_rate;

use anyhow::Result;

use report::Report;

/// A bench: its name, and what takes its samples.
pub type Bench = (&'static str, fn(&mut Report) -> Result<()>);

/// All benches.
pub const BENCHES: [Bench; 9] = [
    ("warm_action", warm_action::run),
    ("warm_change", warm_change::run),
    ("warm_rate", warm_rate::run),
    ("cold_task", cold_task::run),
    ("mcp_call", mcp_call::run),
    ("first_answer", first_answer::run),
    ("ca_issue", ca_issue::run),
    ("relay", relay_memory::run),
    ("executor", executor::run),
];
