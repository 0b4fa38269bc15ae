//! `executor`: what agent-exec costs a target. Its size, its memory, how soon it answers, what the walls around an action
//! add, and that nothing of it stays.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use harness::processes;
use harness::spawn::{run_ok, wait_for};
use harness::stack::Opened;
use harness::target::LOG;
use harness::{EXEC, EvilRelay, Options, RUNNER, Stack};
use serde::Deserialize;
use serde_json::json;

use crate::disk::OnDisk;
use crate::report::{Better, Report, Row};
use crate::sample::{Run, Samples, alternate};
use crate::session::{Order, Timed, served};
use crate::site::{FILE, LINE_BYTES, LINES, TAIL_BYTES, WEB, write_log};

const NAME: &str = "executor";
/// What one read asks for at most.
const READ_BYTES: u64 = 256 * 1024;

/// Sessions through sshd whose memory is read, and timed rounds of sessions and of actions.
const SESSIONS: usize = 20;
const ROUNDS: usize = 500;
const WARM_UP: usize = 20;

/// Where programs of the bench lie inside the target.
const SESSIONS_PROGRAM: &str = "/usr/libexec/bench/writ-bench";
const WALLS_PROGRAM: &str = "/usr/libexec/bench/walls-bench";

/// Takes all samples.
pub fn run(report: &mut Report) -> Result<()> {
    let stack = Stack::start(&Options {
        targets: vec![WEB],
        ..Options::default()
    })?;
    let target = stack.target(WEB)?;
    write_log(&stack, READ_BYTES / LINE_BYTES + 1)?;
    let disk = OnDisk::put(target.root(), LOG, &report.folder().join("disk"))?;
    report.add(size(&stack)?)?;
    for row in through_sshd(&stack)? {
        report.add(row)?;
    }
    for row in by_hand(&stack, &disk)? {
        report.add(row)?;
    }
    for row in walls(&stack)? {
        report.add(row)?;
    }
    Ok(())
}

fn row(variant: &'static str, unit: &'static str, ours: Samples, goal: f64) -> Row {
    Row {
        name: NAME,
        variant,
        peer: None,
        unit,
        ours,
        theirs: None,
        goal,
        better: Better::Less,
    }
}

/// The program as it is shipped; one that wants an interpreter is not static, and its size says nothing.
fn size(stack: &Stack) -> Result<Row> {
    let program = stack.world().program("target/agent-exec")?;
    let mut readelf = Command::new("readelf");
    readelf.args(["-l", "-W"]).arg(&program);
    let segments = String::from_utf8(run_ok("readelf", readelf, b"")?)?;
    let check = match (segments.contains("LOAD"), segments.contains("INTERP")) {
        (true, false) => Ok(()),
        _ => Err(format!("it is not static: {segments}")),
    };
    let mut samples = Samples::default();
    samples.take(Run::new(fs::metadata(&program)?.len() as f64, check));
    Ok(row("size of agent-exec, static", "bytes", samples, 6e6))
}

/// Sessions through the real sshd: memory of agent-exec while it waits for the next line, and what is left when they are over.
fn through_sshd(stack: &Stack) -> Result<[Row; 2]> {
    let target = stack.target(WEB)?;
    ensure!(processes_of_writ()?.is_empty(), "there is a session already");
    let (mut memory, mut left) = (Samples::default(), Samples::default());
    for _ in 0..SESSIONS {
        let mut relay = EvilRelay::start(stack, WEB)?;
        let hello = executor_status()?;
        let tail = relay.call("tail_log", json!({"path": FILE, "lines": LINES}))?;
        let tailed = executor_status()?;
        let read = relay.call("read_file", json!({"path": FILE, "limit": READ_BYTES}))?;
        let check = served(&tail, TAIL_BYTES).and_then(|()| served(&read, READ_BYTES));
        let now = executor_status()?;
        memory.take(
            Run::new(kib(&now, "VmHWM")?, check.clone())
                .step("1: RSS at the hello", kib(&hello, "VmRSS")?)
                .step("2: RSS after the tail", kib(&tailed, "VmRSS")?)
                .step("3: RSS after the read", kib(&now, "VmRSS")?)
                .step("3a: of that its own memory", kib(&now, "RssAnon")?)
                // Where the program lies on a tmpfs its pages count as shared memory.
                .step(
                    "3b: of that pages of the program, which all sessions share",
                    kib(&now, "RssFile")? + kib(&now, "RssShmem")?,
                ),
        );
        let begun = Instant::now();
        relay.session.finish();
        // Ended by itself and not killed: the client leaves when the other side has.
        let gone = wait_for("the end of the session", Duration::from_secs(5), || {
            Ok(!relay.session.is_open() && processes_of_writ()?.is_empty())
        });
        let count = processes_of_writ()?.len();
        left.take(Run::new(
            count as f64,
            check.and(gone.map_err(|error| error.to_string())),
        ));
        ensure!(begun.elapsed() < Duration::from_secs(10), "{}", target.sshd_log());
    }
    Ok([
        row("peak RSS after a tail and a read of 256 KiB", "bytes", memory, 6e6),
        row("left when a session is over", "processes", left, 0.0),
    ])
}

/// The status of the one agent-exec that runs.
fn executor_status() -> Result<String> {
    let all = processes_of_writ()?;
    let mut found = all
        .into_iter()
        .filter(|status| status.starts_with("Name:\tagent-exec\n"));
    let one = found.next().context("agent-exec does not run")?;
    ensure!(found.next().is_none(), "more than one agent-exec runs");
    Ok(one)
}

/// `/proc/PID/status` of every process that has an id of one of the accounts of a target. sshd's half of a session counts.
fn processes_of_writ() -> Result<Vec<String>> {
    let mut all = Vec::new();
    for entry in fs::read_dir("/proc")? {
        // A process may end between the look at its name and at its status.
        let Ok(status) = fs::read_to_string(entry?.path().join("status")) else {
            continue;
        };
        let ids = processes::status(&status, "Uid").unwrap_or_default();
        let ours = |uid: u32| ids.split_whitespace().any(|id| id == uid.to_string());
        if ours(RUNNER.uid) || ours(EXEC.uid) {
            all.push(status);
        }
    }
    Ok(all)
}

/// A size of a status, in bytes.
fn kib(status: &str, field: &str) -> Result<f64> {
    let number = processes::status(status, field).and_then(|line| line.split_whitespace().next()?.parse::<f64>().ok());
    number
        .map(|kib| kib * 1024.0)
        .ok_or_else(|| anyhow!("no {field} in {status}"))
}

/// Sessions started inside the target as sshd starts them: how soon they answer.
fn by_hand(stack: &Stack, disk: &OnDisk) -> Result<[Row; 2]> {
    let target = stack.target(WEB)?;
    let relay = EvilRelay::start(stack, WEB)?;
    let payload = relay.payload("tail_log", json!({"path": FILE, "lines": LINES}));
    let refused = relay.payload("no_such_action", json!({}));
    let EvilRelay { task, session, .. } = relay;
    drop(session);
    let auth_file = "/tmp/bench-login";
    let word = format!("publickey {}\n", task.certificate);
    target
        .root()
        .file_of(auth_file, 0o600, (RUNNER.uid, RUNNER.gid), word)?;
    let Opened { certificate, key, .. } = task;
    let order = Order {
        certificate,
        key: key.to_openssh()?.to_string(),
        auth_file: auth_file.into(),
        log: FILE.into(),
        lines: LINES,
        bytes: TAIL_BYTES,
        served: payload,
        refused,
        code: "unknown_action".to_owned(),
        warm_up: WARM_UP,
        rounds: ROUNDS,
    };
    target
        .root()
        .file(SESSIONS_PROGRAM, 0o755, fs::read(std::env::current_exe()?)?)?;
    let mut command = target.command(RUNNER, SESSIONS_PROGRAM);
    command.arg("sessions");
    let output = run_ok("the sessions", command, &serde_json::to_vec(&order)?)?;
    let timed: Timed = serde_json::from_slice(&output)?;
    let mut durable_ms = disk.durable_kib_ms()?;
    let [durable] = alternate(WARM_UP, ROUNDS, [&mut || Ok(Run::new(durable_ms()?, Ok(())))])?;
    let Timed {
        mut answer,
        refusal,
        nothing,
        program,
    } = timed;
    for (name, part) in [
        ("a: agent-exec by itself, start to end", nothing),
        ("b: the program by itself, start to end", program),
        ("c: fdatasync of 1 KiB (two in an action)", durable),
    ] {
        answer.add_part(name, part);
    }
    Ok([
        row("start to first answer", "ms", answer, 4.0),
        row("start to a refusal", "ms", refusal, 1.0),
    ])
}

/// Raw samples of the walls' bench inside agent-exec, ms.
#[derive(Deserialize)]
struct Walled {
    /// An action behind its walls, their building included.
    with: Vec<f64>,
    /// The building alone.
    building: Vec<f64>,
    /// The same behind the least that the kernel takes as walls, built before.
    least: Vec<f64>,
    /// What putting up the least costs.
    alone: Vec<f64>,
}

/// What walls add to an action: no flag turns one off, so the crate measures itself.
fn walls(stack: &Stack) -> Result<[Row; 2]> {
    let target = stack.target(WEB)?;
    let program = fs::read(stack.world().program("walls-bench")?)?;
    // As agent-exec itself is installed: it starts with the same ids and rests as it does.
    target
        .root()
        .file_of(WALLS_PROGRAM, 0o4755, (EXEC.uid, RUNNER.gid), program)?;
    let one = |profile: &str, variant| -> Result<Row> {
        let mut command = target.command(RUNNER, WALLS_PROGRAM);
        command.args(["--ignored", "--exact", "--nocapture", "--test-threads=1"]);
        command.arg(format!("walls::bench::{profile}"));
        let output = String::from_utf8(run_ok("the walls' bench", command, b"")?)?;
        let samples = output.lines().find(|line| line.starts_with('{'));
        let walled: Walled = serde_json::from_str(samples.context("it measured nothing")?)?;
        Ok(row(variant, "ms", walled.added(ROUNDS), 0.15))
    };
    Ok([
        one("reader", "walls around an action, profile reader")?,
        one("tool", "walls around an action, profile tool")?,
    ])
}

impl Walled {
    /// The difference of each pair, and what the least costs on top. The bench asserted length and exit code of each run.
    fn added(self, rounds: usize) -> Samples {
        let alone = crate::statistic::median(&self.alone).unwrap_or(f64::NAN);
        let complete = [&self.with, &self.building, &self.least, &self.alone]
            .iter()
            .all(|series| series.len() == rounds);
        let check = if complete {
            Ok(())
        } else {
            Err(format!("not {rounds} samples of each"))
        };
        let (mut added, mut own) = (Samples::default(), Samples::default());
        for ((with, building), least) in self.with.iter().zip(&self.building).zip(&self.least) {
            added.take(
                Run::new(with - least + alone, check.clone())
                    .step("a: an action with its walls", *with)
                    .step("b: of that building them", *building)
                    .step("c: the same with the least walls, built before", *least),
            );
        }
        for alone in self.alone {
            own.take(Run::new(alone, Ok(())));
        }
        added.add_part("d: putting up the least walls, added to each", own);
        added
    }
}
