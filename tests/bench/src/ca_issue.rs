//! `ca_issue`: task certificates over gRPC, each judged by policy and recorded durably before it is signed, by the relay's own
//! client and its account.
//!
//! `writ-bench issue` is its half that runs beside the CA, as the relay does: the CA knows its callers by their account.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, anyhow};
use harness::control::CA_SOCKET;
use harness::ids::{ALICE, RELAY};
use harness::spawn::run_ok;
use harness::stack::new_id;
use openssh::key::{PublicKey, SigningKey};
use relay::issuer::Issuer;
use serde::{Deserialize, Serialize};
use wire::ids::{Reason, TargetName, TaskId};
use wire::{Proof, Requester};

use crate::report::{Better, Report, Row};
use crate::sample::{Run, alternate};
use crate::session::ms;
use crate::site::{Site, WEB};

const NAME: &str = "ca_issue";
/// Where the half that calls lies.
const PROGRAM: &str = "/usr/libexec/writ-bench";
/// Callers at the same time, and how many certificates each asks for in a batch.
const CALLERS: usize = 64;
const EACH: usize = 20;
const BATCHES: usize = 30;
const ALONE: usize = 1000;
const WARM_UP: usize = 3;

/// What the half beside the CA measured.
#[derive(Serialize, Deserialize)]
struct Issued {
    /// Certificates a second with [`CALLERS`] callers, a batch each.
    rates: Vec<f64>,
    /// One certificate after the other, ms each.
    alone: Vec<f64>,
}

/// Takes all samples.
pub fn run(report: &mut Report) -> Result<()> {
    let site = Site::start(report)?;
    let control = &site.stack.control;
    control
        .root()
        .file(PROGRAM, 0o755, std::fs::read(std::env::current_exe()?)?)?;
    let mut command = control.command(RELAY, PROGRAM);
    command.arg("issue");
    let output = run_ok("the callers", command, b"")?;
    let Issued { rates, alone } = serde_json::from_slice(&output)?;
    // A call that got no certificate, or one that is not what was asked for, ended the callers.
    let mut rates = rates.into_iter().map(|rate| Ok(Run::new(rate, Ok(()))));
    let mut alone = alone.into_iter().map(|took| Ok(Run::new(took, Ok(()))));
    let mut durable_ms = site.ca_log().durable_kib_ms()?;
    let [rates] = alternate(0, BATCHES, [&mut || rates.next().context("a batch is missing")?])?;
    let [mut alone] = alternate(0, ALONE, [&mut || alone.next().context("a call is missing")?])?;
    let [durable] = alternate(WARM_UP, 200, [&mut || Ok(Run::new(durable_ms()?, Ok(())))])?;
    alone.add_part("of that fdatasync of 1 KiB", durable);
    report.add(Row {
        name: NAME,
        variant: "tasks' certificates, 64 callers on one connection",
        peer: None,
        unit: "certificates/s",
        ours: rates,
        theirs: None,
        goal: 3000.0,
        better: Better::More,
    })?;
    report.add(Row {
        name: NAME,
        variant: "a task's certificate, one caller",
        peer: None,
        unit: "ms",
        ours: alone,
        theirs: None,
        goal: 1.0,
        better: Better::Less,
    })
}

/// The half beside the CA: prints its samples as JSON.
pub fn callers() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let issued = runtime.block_on(async {
        let issuer = Issuer::new(Path::new(CA_SOCKET));
        let tasks = (0..CALLERS).map(|_| Task::new(&issuer)).collect::<Result<Vec<_>>>()?;
        let mut rates = Vec::new();
        for batch in 0..WARM_UP + BATCHES {
            let rate = batch_of(&tasks).await?;
            if batch >= WARM_UP {
                rates.push(rate);
            }
        }
        let mut alone = Vec::new();
        for call in 0..WARM_UP + ALONE {
            let begun = Instant::now();
            tasks.first().context("no task")?.certificate().await?;
            if call >= WARM_UP {
                alone.push(ms(begun));
            }
        }
        anyhow::Ok(Issued { rates, alone })
    })?;
    println!("{}", serde_json::to_string(&issued)?);
    Ok(())
}

/// Certificates a second, of all callers at once.
async fn batch_of(tasks: &[Task]) -> Result<f64> {
    let begun = Instant::now();
    let running: Vec<_> = tasks
        .iter()
        .cloned()
        .map(|task| {
            tokio::spawn(async move {
                for _ in 0..EACH {
                    task.certificate().await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in running {
        task.await??;
    }
    Ok((tasks.len() * EACH) as f64 / ms(begun) * 1000.0)
}

/// A task on the target, whose certificate is asked for again and again.
#[derive(Clone)]
struct Task {
    issuer: Issuer,
    id: TaskId,
    requester: Requester,
    reason: Reason,
    target: TargetName,
    key: PublicKey,
}

impl Task {
    fn new(issuer: &Issuer) -> Result<Self> {
        let word = |text: &str| anyhow!("{text} is none");
        Ok(Self {
            issuer: issuer.clone(),
            id: new_id().parse().map_err(|_| word("the id"))?,
            requester: Requester {
                brain: "bench".parse().map_err(|_| word("the brain"))?,
                person: ALICE.name.parse().map_err(|_| word("the person"))?,
                proof: Proof::Relay,
            },
            reason: "to measure".parse().map_err(|_| word("the reason"))?,
            target: WEB.parse().map_err(|_| word("the target"))?,
            key: SigningKey::from_seed(&rand::random::<[u8; 32]>().into())?
                .public()
                .clone(),
        })
    }

    /// The relay's client looks at each: whose it is, for which key, until when.
    async fn certificate(&self) -> Result<()> {
        let Self {
            issuer,
            id,
            requester,
            reason,
            target,
            key,
        } = self;
        issuer.open_task(id, requester, reason, target, key).await?;
        Ok(())
    }
}
