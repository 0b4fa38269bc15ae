//! `warm_rate`: how many actions a second parallel tasks get from one target, each task with a connection and a session of its
//! own, by the relay's library. A sample is the rate of one batch.

use std::time::Instant;

use anyhow::Result;

use crate::ours::Ours;
use crate::report::{Better, Report, Row};
use crate::sample::{Run, alternate};
use crate::session::ms;
use crate::site::{Site, TAIL_BYTES};
use crate::warm_action::of_the_catalogue;

const NAME: &str = "warm_rate";
/// Parallel tasks, and how many actions each of them has in a batch.
const TASKS: usize = 8;
const ACTIONS: usize = 50;
const ROUNDS: usize = 30;
const WARM_UP: usize = 3;

/// Takes all samples.
pub fn run(report: &mut Report) -> Result<()> {
    let site = Site::start(report)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let tasks: Result<Vec<Ours>> = (0..TASKS).map(|_| of_the_catalogue(&runtime, &site.stack)).collect();
    let tasks = tasks?;
    let mut batch = || {
        let begun = Instant::now();
        let running: Vec<_> = tasks
            .iter()
            .cloned()
            .map(|task| runtime.spawn(async move { actions(&task).await }))
            .collect();
        let mut check = Ok(());
        for task in running {
            check = check.and(runtime.block_on(task)??);
        }
        Ok(Run::new((TASKS * ACTIONS) as f64 / ms(begun) * 1000.0, check))
    };
    let [rate] = alternate(WARM_UP, ROUNDS, [&mut batch])?;
    report.add(Row {
        name: NAME,
        variant: "8 tasks on one target, tails of 20 KB",
        peer: None,
        unit: "actions/s",
        ours: rate,
        theirs: None,
        goal: 1500.0,
        better: Better::More,
    })
}

/// One task's part of a batch, one action after the other.
async fn actions(task: &Ours) -> Result<Result<(), String>> {
    let mut check = Ok(());
    for _ in 0..ACTIONS {
        check = check.and(task.one(TAIL_BYTES).await?.check());
    }
    Ok(check)
}
