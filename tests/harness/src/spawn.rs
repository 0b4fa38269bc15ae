//! Processes that the harness starts, and their end: what was started is killed, by its own id, when its guard is dropped.

use std::io;
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

type Job = (Command, Sender<io::Result<Child>>);

/// Starts a process from the one thread that lives as long as this process. A parent-death signal is tied to the thread that
/// forked: started by a test's own thread, everything would die with the first test that ends.
pub(crate) fn spawn(command: Command) -> io::Result<Child> {
    static SPAWNER: LazyLock<Sender<Job>> = LazyLock::new(|| {
        let (jobs, queue): (Sender<Job>, Receiver<Job>) = channel();
        thread::spawn(move || {
            for (mut command, reply) in queue {
                let _ = reply.send(command.spawn());
            }
        });
        jobs
    });
    let (reply, answer) = channel();
    SPAWNER.send((command, reply)).map_err(io::Error::other)?;
    answer.recv().map_err(io::Error::other)?
}

/// A process that is killed when this value goes.
#[derive(Debug)]
pub struct Running {
    pub(crate) child: Child,
    name: String,
}

impl Running {
    /// Starts it.
    pub fn start(name: &str, command: Command) -> Result<Running> {
        let child = spawn(command).with_context(|| format!("failed to start {name}"))?;
        Ok(Running {
            child,
            name: name.to_owned(),
        })
    }

    /// Its process id in this world.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs; an error that names the exit status where it does not.
    pub fn check(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} has ended: {status}", self.name),
        }
    }

    /// Kills it and waits for its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Asks until `ready` says so, at most `limit` long; `what` is named where it never does.
pub fn wait_for(what: &str, limit: Duration, mut ready: impl FnMut() -> Result<bool>) -> Result<()> {
    let end = Instant::now() + limit;
    loop {
        if ready()? {
            return Ok(());
        }
        if Instant::now() >= end {
            bail!("{what}: nothing within {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Runs a command to its end with this input. Past `limit` it is killed, and that is an error.
pub fn run(name: &str, mut command: Command, input: &[u8], limit: Duration) -> Result<Output> {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = spawn(command).with_context(|| format!("failed to start {name}"))?;
    let (Some(mut stdin), Some(stdout), Some(stderr)) = (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        bail!("{name} has no pipes");
    };
    let input = input.to_vec();
    // A program that does not read its input is no failure of the harness.
    thread::spawn(move || io::Write::write_all(&mut stdin, &input));
    let (stdout, stderr) = (read_all(stdout), read_all(stderr));
    let end = Instant::now() + limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= end {
            let _ = child.kill();
            let _ = child.wait();
            bail!("{name} did not end within {} s", limit.as_secs());
        }
        thread::sleep(Duration::from_millis(2));
    };
    let text = |bytes: Receiver<Vec<u8>>| bytes.recv_timeout(Duration::from_secs(5)).unwrap_or_default();
    Ok(Output {
        status,
        stdout: text(stdout),
        stderr: text(stderr),
    })
}

/// Runs a command that has to succeed; its standard output.
pub fn run_ok(name: &str, command: Command, input: &[u8]) -> Result<Vec<u8>> {
    let output = run(name, command, input, Duration::from_secs(60))?;
    if !output.status.success() {
        bail!(
            "{name} failed ({}): {}{}",
            output.status,
            tail(&output.stderr),
            tail(&output.stdout)
        );
    }
    Ok(output.stdout)
}

fn tail(bytes: &[u8]) -> String {
    let from = bytes.len().saturating_sub(2000);
    String::from_utf8_lossy(bytes.get(from..).unwrap_or_default()).into_owned()
}

fn read_all(mut from: impl io::Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (done, bytes) = channel();
    thread::spawn(move || {
        let mut all = Vec::new();
        let _ = from.read_to_end(&mut all);
        let _ = done.send(all);
    });
    bytes
}
