//! `relay`: the relay's memory, with nothing to do and for each task that is open with its connection.

use std::fs;

use anyhow::{Context as _, Result};
use harness::{ALICE, McpClient, processes};
use serde_json::json;

use crate::calls;
use crate::report::{Better, Report, Row};
use crate::sample::{Run, Samples};
use crate::site::{FILE, LINES, Site, WEB};

const NAME: &str = "relay";
/// A person's client may have 32 tasks open.
const TASKS: usize = 30;
const ROUNDS: usize = 5;

/// Takes all samples.
pub fn run(report: &mut Report) -> Result<()> {
    let (mut idle, mut each) = (Samples::default(), Samples::default());
    for _ in 0..ROUNDS {
        let mut site = Site::start(report)?;
        // One session that was used and is over: what the first connection brings in belongs to no task.
        let mut client = site.stack.client(ALICE)?;
        let (first, task) = calls::tail_log(&mut client)?;
        calls::close(&mut client, &task)?;
        site.stack.control.check()?;
        let before = rss(&site)?;
        idle.take(Run::new(before, first.check()));
        let mut check = Ok(());
        for _ in 0..TASKS {
            check = check.and(one_task(&mut client)?);
        }
        let after = rss(&site)?;
        each.take(Run::new((after - before) / TASKS as f64, check));
    }
    for (variant, ours, goal) in [
        ("RSS with no task open", idle, 25e6),
        ("RSS for each open task, connected", each, 250e3),
    ] {
        report.add(Row {
            name: NAME,
            variant,
            peer: None,
            unit: "bytes",
            ours,
            theirs: None,
            goal,
            better: Better::Less,
        })?;
    }
    Ok(())
}

/// Opens a task, and has one action on it.
fn one_task(client: &mut McpClient) -> Result<Result<(), String>> {
    let opened = client.call_ok("open_task", json!({"reason": "a bench", "targets": [WEB]}))?;
    let task = opened.get("task_id").context("no task")?;
    let arguments = json!({"target": WEB, "path": FILE, "lines": LINES, "task_id": task});
    Ok(calls::tail(client, "tail_log", arguments)?.0.check())
}

/// Memory of the relay's process, in bytes.
fn rss(site: &Site) -> Result<f64> {
    let pid = site.stack.control.pids().0.context("no relay")?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = processes::status(&status, "VmRSS").and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    Ok(kib.context("no VmRSS")? * 1024.0)
}
