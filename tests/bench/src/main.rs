//! `writ-bench FOLDER [BENCH…]` takes the samples of these benches, or of all, and writes them below FOLDER. Exit codes:
//! 0 all rows were written, whether they meet their goals or not; 1 a bench failed. `writ-bench sessions` is its half that
//! runs inside a target, `writ-bench issue` the one beside the CA.

use std::path::Path;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, ensure};
use bench::report::Report;
use bench::{BENCHES, Bench, ca_issue, machine, net, session};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["sessions"] => session::main(),
        ["issue"] => ca_issue::callers(),
        [folder, ref names @ ..] => run(Path::new(folder), names),
        [] => Err(anyhow::anyhow!("usage: writ-bench FOLDER [BENCH…]")),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(folder: &Path, names: &[&str]) -> Result<()> {
    for name in names {
        let known = BENCHES.map(|(known, _)| known);
        ensure!(known.contains(name), "no bench {name}: there are {}", known.join(", "));
    }
    net::own_loopback()?;
    let mut report = Report::new(folder)?;
    let mut failed = Vec::new();
    for bench in BENCHES {
        if !names.is_empty() && !names.contains(&bench.0) {
            continue;
        }
        if let Err(error) = one(bench, &mut report) {
            eprintln!("bench: {} failed: {error:#}", bench.0);
            failed.push(bench.0);
        }
    }
    let (rows, missed) = report.missed();
    println!(
        "\n{}\n{rows} rows in {}, {missed} goals missed",
        report.table(),
        folder.join("results.jsonl").display()
    );
    ensure!(failed.is_empty(), "no rows of {}", failed.join(", "));
    Ok(())
}

/// One bench between two looks at what else the machine does.
fn one((name, run): Bench, report: &mut Report) -> Result<()> {
    report.begin(name)?;
    let before = machine::busy()?;
    run(report)?;
    let after = machine::busy()?;
    let mut machine = machine::describe(report.folder())?;
    if !machine::is_idle(before) || !machine::is_idle(after) {
        machine.push_str(&format!(
            "; NOT IDLE: {:.0} % of the CPUs used before, {:.0} % after",
            before * 100.0,
            after * 100.0
        ));
    }
    println!("{name}: {machine}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("no clock")?;
    report.write(name, &audit::rfc3339(u64::try_from(now.as_millis())?), &machine)
}
