//! writ-audit: verifies copies of logs and tells what a task did. Needs the files and nothing else, least of all a key.
//!
//! Exit codes: 0 verified; 1 something could not be read, or the task is in none of the logs; 2 not verified.

mod text;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use anyhow::Context;
use audit::{Expected, Fault, Kind, LogReport, render};
use clap::{Parser, Subcommand};
use serde::Serialize;
use wire::ids::{Head, TaskId};

/// What `--version` prints behind the name.
static VERSION: LazyLock<String> = LazyLock::new(wire::build::version);

/// Verify and replay the evidence of Writ.
#[derive(Parser)]
#[command(name = "writ-audit", version = VERSION.as_str(), disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Say whether logs are whole and unchanged.
    ///
    /// Exit code 0: every log given is anchored in its genesis line, chained and clean. 2: one is not, and the first record
    /// that cannot be relied on is named. 1: something could not be read. That the end of a log is missing, or all of it
    /// written anew, shows only against heads that somebody else vouches for: give the logs of the other tiers too, whose
    /// records hold them, or see --head. Copy logs while nothing is written to them, or give the folders where they lie.
    Verify {
        /// Segments, or folders of segments, of any number of logs.
        #[arg(required = true, value_name = "FILE|DIR")]
        paths: Vec<PathBuf>,
        /// A record that must be there: its log's id, its number, its hash. May be given many times.
        #[arg(long, value_name = "LOG:SEQ:SHA256", value_parser = head)]
        head: Vec<Head>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
    /// Tell the story of a task: who, why, and what happened on every tier whose log is given.
    ///
    /// Exit code 0: told, from logs that verify. 1: the task is in none of them, or something could not be read. 2: told, but
    /// not all logs verify.
    Replay {
        /// The task's id.
        #[arg(value_name = "TASK")]
        task: TaskId,
        /// Segments, or folders of segments, of any number of logs.
        #[arg(required = true, value_name = "FILE|DIR")]
        paths: Vec<PathBuf>,
        /// Print one JSON object.
        #[arg(long)]
        json: bool,
    },
}

fn main() -> ExitCode {
    wire::build::is(option_env!("BUILD_ID"));
    let done = match Arguments::parse().verb {
        Verb::Verify { paths, head, json } => verify(&paths, head, json),
        Verb::Replay { task, paths, json } => replay(&task, &paths, json),
    };
    done.unwrap_or_else(|error| {
        eprintln!("writ-audit: {error:#}");
        ExitCode::from(1)
    })
}

fn verify(paths: &[PathBuf], heads: Vec<Head>, json: bool) -> anyhow::Result<ExitCode> {
    let report = audit::verify(paths, &Expected::new(heads));
    print(&report, json, || render::report(&report) + &text::vouching(&report))?;
    Ok(ExitCode::from(verdict(&report.logs, &report.faults)))
}

fn replay(task: &TaskId, paths: &[PathBuf], json: bool) -> anyhow::Result<ExitCode> {
    let replay = audit::replay(task, paths);
    print(&replay, json, || render::replay(&replay))?;
    let absent = u8::from(replay.timeline.is_empty());
    Ok(ExitCode::from(verdict(&replay.logs, &replay.faults).max(absent)))
}

/// 0 clean, 1 when all that is wrong is that something could not be read, 2 when a log is not what it must be.
fn verdict(logs: &[LogReport], faults: &[Fault]) -> u8 {
    let logs = logs.iter().filter_map(|log| log.fault.as_ref());
    logs.chain(faults)
        .map(|fault| if fault.kind == Kind::Unreadable { 1 } else { 2 })
        .max()
        .unwrap_or(0)
}

/// Prints a result whole. A reader that has seen enough (`| head`) is no failure.
fn print(result: &impl Serialize, json: bool, text: impl FnOnce() -> String) -> anyhow::Result<()> {
    let text = if json {
        serde_json::to_string(result)? + "\n"
    } else {
        text()
    };
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written.context("print the result"),
    }
}

/// `LOG:SEQ:SHA256`
fn head(text: &str) -> Result<Head, String> {
    let mut parts = text.split(':');
    let (Some(log), Some(seq), Some(hash), None) = (parts.next(), parts.next(), parts.next(), parts.next()) else {
        return Err("must be LOG:SEQ:SHA256".to_owned());
    };
    Ok(Head {
        log: log.parse().map_err(|error: wire::ids::IdError| error.to_string())?,
        seq: seq.parse().map_err(|_| "the number is none".to_owned())?,
        hash: hash.parse().map_err(|error: wire::ids::IdError| error.to_string())?,
    })
}
