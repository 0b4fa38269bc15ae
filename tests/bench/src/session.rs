//! Sessions of agent-exec, started inside a target as its sshd starts them and timed there.
//!
//! `writ-bench sessions` runs as the account that logs in. Certificate and requests lie in a session's standard input before
//! it begins, as they do when a relay does not wait for the hello; the clock starts before the fork.

use std::io::{self, PipeReader, Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use harness::EvilRelay;
use harness::evil::{code, outcome};
use harness::ssh::EXEC;
use harness::stack::{new_id, now};
use harness::target::AGENT_EXEC;
use openssh::key::SigningKey;
use openssh::sshsig;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use crate::sample::{End, Run, Samples, alternate};

/// What the shipped actions run, inside a target.
pub const INSPECT: &str = "/usr/libexec/writ/inspect";

/// How many requests a timed session gets: the first pays for what the later ones find done.
const REQUESTS: usize = 3;

/// What to time: everything a relay that holds a task knows.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// The task's certificate.
    pub certificate: String,
    /// The task's key, in OpenSSH's text.
    pub key: String,
    /// sshd's word on the login (`SSH_USER_AUTH`).
    pub auth_file: PathBuf,
    /// The log, and how many lines and bytes of it are asked for.
    pub log: PathBuf,
    /// Last lines of it.
    pub lines: u32,
    /// Their length.
    pub bytes: u64,
    /// A payload that asks for them; id and time are each request's own.
    pub served: Map<String, Value>,
    /// A payload that is refused.
    pub refused: Map<String, Value>,
    /// The Code of that.
    pub code: String,
    /// Rounds whose figures are not kept.
    pub warm_up: usize,
    /// Rounds whose figures are.
    pub rounds: usize,
}

/// The series, ms each.
#[derive(Debug, Serialize, Deserialize)]
pub struct Timed {
    /// From the start of agent-exec to the first Outcome of a request that is served.
    pub answer: Samples,
    /// From the start of agent-exec to the first Outcome of a request that is refused.
    pub refusal: Samples,
    /// From the start of agent-exec to its end where its arguments are wrong: the process and nothing else.
    pub nothing: Samples,
    /// The action's program by itself, from its start to its end.
    pub program: Samples,
}

/// Reads an [`Order`] and writes what was [`Timed`].
pub fn main() -> Result<()> {
    let order: Order = serde_json::from_reader(io::stdin().lock()).context("failed to read the order")?;
    let key = SigningKey::from_openssh(&order.key)?;
    let mut answer = || session(&order, &key, &order.served);
    let mut refusal = || session(&order, &key, &order.refused);
    let [answer, refusal, nothing, program] = alternate(
        order.warm_up,
        order.rounds,
        [&mut answer, &mut refusal, &mut nothing, &mut || program(&order)],
    )?;
    let timed = Timed {
        answer,
        refusal,
        nothing,
        program,
    };
    serde_json::to_writer(io::stdout().lock(), &timed)?;
    Ok(())
}

/// One session with several requests of the same kind: its value is the time to the first Outcome, its steps the time to
/// the hello and what each later Outcome took.
fn session(order: &Order, key: &SigningKey, payload: &Map<String, Value>) -> Result<Run> {
    let mut input = json!({"certificate": order.certificate}).to_string();
    for _ in 0..REQUESTS {
        let mut payload = payload.clone();
        payload.insert("request_id".to_owned(), new_id().into());
        payload.insert("expires".to_owned(), (now() + 50).into());
        let line = EvilRelay::line(&serde_json::to_string(&payload)?, key, sshsig::REQUEST)?;
        input = format!("{input}\n{line}");
    }
    let (stdin, mut ours) = io::pipe()?;
    // A pipe holds 64 KiB: nobody has to read yet.
    ours.write_all(format!("{input}\n").as_bytes())?;
    let (mut theirs, stdout) = io::pipe()?;
    let mut command = as_sshd_starts_it(order);
    command.stdin(stdin).stdout(stdout);
    let begun = Instant::now();
    let mut child = command.spawn().context("failed to start agent-exec")?;
    // The command holds the other end of the pipe, and would keep it from ending.
    drop(command);
    let lines = lines(&mut theirs, REQUESTS + 1, begun)?;
    drop(ours);
    let exit = child.wait()?.code();
    let [(hello_ms, hello), answers @ ..] = &lines[..] else {
        return Ok(Run::new(0.0, Err("it said nothing".to_owned())));
    };
    let check = check(order, payload, hello, answers, exit);
    let [first, second, third] = answers else {
        return Ok(Run::new(0.0, check.and(Err("an answer is missing".to_owned()))));
    };
    Ok(Run::new(first.0, check)
        .step("1: start to hello", *hello_ms)
        .step("2: hello to the first Outcome", first.0 - hello_ms)
        .step("3: first to second Outcome", second.0 - first.0)
        .step("4: second to third Outcome", third.0 - second.0))
}

/// Every answer is the one that was wanted, in full, and the session ended as it should.
fn check(
    order: &Order,
    payload: &Map<String, Value>,
    hello: &Value,
    answers: &[(f64, Value)],
    exit: Option<i32>,
) -> Result<(), String> {
    if hello.get("hello").is_none() || exit != Some(0) {
        return Err(format!("a session ended with {exit:?} after {hello}"));
    }
    let wanted = payload.get("action") == order.served.get("action");
    for (_, answer) in answers {
        if wanted {
            served(answer, order.bytes)?;
        } else if code(answer) != order.code || answer.get("payload").is_none() {
            return Err(format!("{answer}, where {} was wanted", order.code));
        }
    }
    Ok(())
}

/// Whether an answer is an action's that succeeded, with an output of this length.
pub fn served(answer: &Value, bytes: u64) -> Result<(), String> {
    let output = answer.get("output").and_then(Value::as_str).unwrap_or_default();
    let exit = outcome(answer).and_then(|outcome| outcome.get("exit_code")?.as_i64());
    let seen = End {
        bytes: output.len() as u64,
        exit: exit.and_then(|code| i32::try_from(code).ok()),
    };
    seen.is(End::fine(bytes))
        .map_err(|what| format!("{what} ({})", code(answer)))
}

/// agent-exec with arguments that it refuses before it looks at anything.
fn nothing() -> Result<Run> {
    let mut command = Command::new(AGENT_EXEC);
    command.arg("--nothing").env_clear();
    ended(
        command,
        End {
            bytes: 0,
            exit: Some(2),
        },
    )
}

/// The program that `tail_log` runs, with nothing around it.
fn program(order: &Order) -> Result<Run> {
    let mut command = Command::new(INSPECT);
    command
        .args(["tail", "-n", &order.lines.to_string()])
        .env_clear()
        .stdin(std::fs::File::open(&order.log)?);
    ended(command, End::fine(order.bytes))
}

/// From its start to its end, everything it wrote read.
pub fn ended(mut command: Command, wanted: End) -> Result<Run> {
    command.stdout(Stdio::piped()).stderr(Stdio::null());
    let begun = Instant::now();
    let mut child: Child = command.spawn()?;
    let mut output = Vec::new();
    if let Some(mut stdout) = child.stdout.take() {
        stdout.read_to_end(&mut output)?;
    }
    let exit = child.wait()?.code();
    let took = ms(begun);
    let bytes = output.len() as u64;
    Ok(Run::new(took, End { bytes, exit }.is(wanted)))
}

/// The environment of a session (sshd(8), "Login process"), but for the file with sshd's word on the login.
pub const ENVIRONMENT: [(&str, &str); 9] = [
    ("USER", "agent-runner"),
    ("LOGNAME", "agent-runner"),
    ("HOME", "/"),
    ("PATH", "/usr/local/bin:/usr/bin:/bin:/usr/games"),
    ("SHELL", AGENT_EXEC),
    ("LANG", "C"),
    ("SSH_CLIENT", "127.0.0.1 50000 22"),
    ("SSH_CONNECTION", "127.0.0.1 50000 127.0.0.1 22"),
    ("SSH_ORIGINAL_COMMAND", EXEC),
];

/// The login shell with the ForceCommand, in that environment.
fn as_sshd_starts_it(order: &Order) -> Command {
    let mut command = Command::new(AGENT_EXEC);
    command.args(["-c", AGENT_EXEC]).env_clear().envs(ENVIRONMENT);
    command.env("SSH_USER_AUTH", Path::new(&order.auth_file));
    command
}

/// The next lines, and when each was there in full.
fn lines(from: &mut PipeReader, wanted: usize, begun: Instant) -> Result<Vec<(f64, Value)>> {
    let mut times = Vec::new();
    let mut text = Vec::new();
    let mut buffer = [0; 64 * 1024];
    while times.len() < wanted {
        let count = from.read(&mut buffer)?;
        let now = ms(begun);
        let read = buffer.get(..count).unwrap_or_default();
        if read.is_empty() {
            break;
        }
        times.extend(read.iter().filter(|byte| **byte == b'\n').map(|_| now));
        text.extend_from_slice(read);
    }
    let lines: Vec<&[u8]> = text.split_inclusive(|byte| *byte == b'\n').collect();
    ensure!(
        lines.len() == times.len(),
        "a line without its end, or more than {wanted}"
    );
    let parsed = times.into_iter().zip(lines);
    parsed
        .map(|(time, line)| Ok((time, serde_json::from_slice(line)?)))
        .collect()
}

/// How long ago that was, in ms.
pub fn ms(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}
