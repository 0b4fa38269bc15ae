//! One-liners of perl, which every Debian has, as actions of a target: run by the real agent-exec, watched from outside.
//!
//! Every end goes through [`Stage::finish`]: the answer and the records say the same of it, and nothing of it is left.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use harness::evidence::Evidence;
use harness::evil::{code, outcome};
use harness::spawn::wait_for;
use harness::stack::new_id;
use harness::{Changed, EvilRelay, Process, Stack, Target, processes, records};
use serde_json::{Value, json};

use crate::{WEB, granted, still_serves};

/// How long past its deadline anything of an action may last.
pub const SOON: Duration = Duration::from_secs(2);

/// A program and what its manifest says of it.
#[derive(Clone, Debug)]
pub struct Perl {
    profile: &'static str,
    program: String,
    timeout: Duration,
    limits: String,
}

impl Perl {
    /// As a reader: no other process, no file by name.
    pub fn reader(program: impl Into<String>) -> Perl {
        Perl {
            profile: "reader",
            program: program.into(),
            timeout: Duration::from_secs(10),
            limits: String::new(),
        }
    }

    /// As a tool.
    pub fn tool(program: impl Into<String>) -> Perl {
        Perl {
            profile: "tool",
            ..Perl::reader(program)
        }
    }

    /// How long it may take; 10 s where nothing is said.
    pub fn timeout(self, timeout: Duration) -> Perl {
        Perl { timeout, ..self }
    }

    /// The lines of its `[limits]`.
    pub fn limits(self, limits: impl Into<String>) -> Perl {
        Perl {
            limits: limits.into(),
            ..self
        }
    }

    /// The manifest: the mark is a word that the program does not look at. Braces are a template's there, so the program
    /// stands in hexadecimal.
    fn manifest(&self, name: &str, mark: &str) -> String {
        let Perl {
            profile,
            program,
            timeout,
            limits,
        } = self;
        let program: String = program.bytes().map(|byte| format!("{byte:02x}")).collect();
        let timeout = timeout.as_millis();
        format!(
            "name = \"{name}\"\ntitle = \"A program\"\ndescription = \"Tries something.\"\nrisk = \"read\"\ntimeout_ms = {timeout}\n\
             [args]\n[exec]\nprogram = \"/usr/bin/perl\"\nargv = [\"-e\", \"eval pack 'H*', '{program}'; die $@ if $@\", \"{mark}\"]\n\
             [limits]\n{limits}\n[sandbox]\nprofile = \"{profile}\"\n"
        )
    }
}

/// A task with an action of its own, which is in the target's catalogue for as long as this lives.
pub struct Stage<'a> {
    /// Who asks for it.
    pub relay: EvilRelay,
    target: &'a Target,
    name: String,
    mark: String,
    action: Changed,
}

impl<'a> Stage<'a> {
    /// Opens a task whose certificate grants the action.
    pub fn new(stack: &'a Stack) -> Result<Stage<'a>> {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let name = format!("one_liner_{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let target = stack.target(WEB)?;
        Ok(Stage {
            relay: granted(stack, &[&name])?,
            action: Changed::keep(target.root(), &format!("etc/writ/actions.d/{name}.toml"))?,
            target,
            name,
            mark: new_id(),
        })
    }

    /// So many, each in a session of its own.
    pub fn several(stack: &'a Stack, count: usize) -> Result<Vec<Stage<'a>>> {
        let mut stages = Vec::new();
        while stages.len() < count {
            // Logging in is mostly waiting; sshd's MaxStartups lets ten in at once.
            let now = 5.min(count - stages.len());
            let logins: Vec<_> = std::thread::scope(|scope| {
                let logins: Vec<_> = (0..now).map(|_| scope.spawn(|| Stage::new(stack))).collect();
                logins.into_iter().map(|login| login.join()).collect()
            });
            for login in logins {
                stages.push(login.unwrap_or_else(|_| bail!("a login panicked"))?);
            }
        }
        Ok(stages)
    }

    /// Asks for this program and does not wait for it.
    pub fn begin(&mut self, perl: &Perl) -> Result<Asked> {
        self.action.set(perl.manifest(&self.name, &self.mark))?;
        let begun = Instant::now();
        Ok(Asked {
            request: self.relay.begin(&self.name, json!({}))?,
            gone: begun + perl.timeout + SOON,
        })
    }

    /// Runs this program to its end.
    pub fn run(&mut self, perl: &Perl) -> Result<Ended> {
        let asked = self.begin(perl)?;
        self.finish(&asked)
    }

    /// Waits for the answer, which comes within [`SOON`] of the deadline, and asserts what is true of every action that ran.
    pub fn finish(&self, Asked { request, gone }: &Asked) -> Result<Ended> {
        let left = gone.saturating_duration_since(Instant::now());
        let answer = self.relay.session.line_within(left)?;
        let left = self.running();
        ensure!(left.is_empty(), "after the answer there still is {left:?}");
        let outcome = outcome(&answer).with_context(|| format!("no Outcome: {answer}"))?;
        let record = self.result(request)?;
        for key in ["status", "code", "exit_code", "signal", "resources"] {
            ensure!(
                record.get(key) == outcome.get(key),
                "{key} of {record} is not that of {outcome}"
            );
        }
        Ok(Ended {
            answer,
            outcome,
            record,
        })
    }

    /// What the target recorded of a request.
    pub fn records(&self, request: &str) -> Result<Vec<Value>> {
        let of_it = |record: &Value| records::of(record, "request_id") == Some(request);
        Ok(self.target.records()?.into_iter().filter(of_it).collect())
    }

    /// Its one result, behind its one intent.
    pub fn result(&self, request: &str) -> Result<Value> {
        let mut all = self.records(request)?;
        let events: Vec<_> = all.iter().filter_map(|record| records::of(record, "event")).collect();
        ensure!(events == ["intent", "result"], "the log has {events:?} of {request}");
        all.pop().context("no result")
    }

    /// What runs of it now.
    pub fn running(&self) -> Vec<Process> {
        processes::with_argument(&self.mark)
    }

    /// The word by which its processes are found.
    pub fn mark(&self) -> &str {
        &self.mark
    }

    /// Waits until so many processes of it run.
    pub fn wait_for(&self, processes: usize) -> Result<()> {
        let enough = || Ok(self.running().len() >= processes);
        wait_for("the action's processes", Duration::from_secs(5), enough)
            .with_context(|| format!("answered {:?}", self.relay.session.line_within(Duration::ZERO).ok()))
    }

    /// The agent-exec of this session: whom a program has as its parent.
    pub fn executor(&mut self) -> Result<Process> {
        let ended = self.run(&Perl::tool("print getppid"))?;
        let process = Process::of(ended.ok()?.parse()?).context("it is gone")?;
        ensure!(process.name() == "agent-exec", "it is {process:?}");
        Ok(process)
    }

    /// An honest call in the same session is served, and the logs are whole.
    pub fn unharmed(&mut self, stack: &Stack) -> Result<()> {
        still_serves(&mut self.relay)?;
        logs_are_whole(stack)
    }
}

/// A program that was asked for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The request's id.
    pub request: String,
    /// When nothing of it may be left.
    pub gone: Instant,
}

/// How a program ended.
#[derive(Debug)]
pub struct Ended {
    /// The line.
    pub answer: Value,
    /// The Outcome in it.
    pub outcome: Value,
    /// The result in the target's log.
    pub record: Value,
}

impl Ended {
    /// The Code; `none` where it is ok.
    pub fn code(&self) -> String {
        code(&self.answer)
    }

    /// Its standard output.
    pub fn output(&self) -> &str {
        self.answer.get("output").and_then(Value::as_str).unwrap_or_default()
    }

    /// Its standard output, of a program that has to be ok.
    pub fn ok(&self) -> Result<&str> {
        ensure!(self.code() == "none", "{}", self.answer);
        Ok(self.output())
    }

    /// That it was ended at its deadline.
    pub fn timed_out(&self) -> Result<()> {
        let said = (records::of(&self.outcome, "status"), self.code());
        ensure!(
            said == (Some("timed_out"), "deadline_exceeded".to_owned()),
            "{}",
            self.answer
        );
        Ok(())
    }
}

/// Asserts that the log of every tier is whole, as `writ-audit verify` sees copies of them.
fn logs_are_whole(stack: &Stack) -> Result<()> {
    let said = Evidence::copy(stack, &new_id())?.verify()?;
    ensure!(said.exit == 0, "{:?} {}", said.faults(), said.errors);
    Ok(())
}
