//! The relay's half of a session, by the relay's own library: one task with its connection, asked without the rest of the
//! relay, so without its records.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use catalogue::Inventory;
use harness::stack::{new_id, now};
use harness::{EvilRelay, Stack};
use openssh::key::{PublicKey, SigningKey};
use openssh::sshsig;
use relay::pipeline::host;
use relay::session::{Bounds, Connection, Login, Session};
use serde_json::{Map, Value};
use tokio::runtime::Runtime;
use tokio::sync::Semaphore;
use wire::Outcome;
use wire::ids::Digest;
use wire::lines::{Answer, RelayLine};
use wire::seal::Sealed;

use crate::sample::{End, Run};
use crate::session::ms;
use crate::site::WEB;

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// A task with one session on the target.
#[derive(Clone)]
pub struct Ours {
    shared: Arc<Shared>,
}

struct Shared {
    session: Session,
    _connection: Connection,
    key: SigningKey,
    receipt_key: PublicKey,
    payload: Map<String, Value>,
}

impl Ours {
    /// Logs in with a relay's task and leaves everything else of that relay. `payload` is asked on the session, each time
    /// with an id of its own.
    pub fn open(runtime: &Runtime, stack: &Stack, relay: EvilRelay, payload: Map<String, Value>) -> Result<Ours> {
        let EvilRelay { task, .. } = relay;
        let (task_id, key, certificate) = (task.task_id, task.key, task.certificate);
        let inventory = std::fs::read_to_string(stack.control.root().at("etc/writ/inventory.toml"))?;
        let inventory = Inventory::parse(&inventory).map_err(|faults| anyhow!("the inventory: {faults:?}"))?;
        let target = inventory.find(WEB).context("the target is not in the inventory")?;
        let (session, connection) = runtime.block_on(async {
            let room = Arc::new(Semaphore::new(1)).acquire_owned().await?;
            let login = Login {
                task: &task_id.parse().map_err(|_| anyhow!("no task id: {task_id}"))?,
                host: &host(target),
                key: &key,
                certificate: &certificate,
                receipt_key: target.receipt_key(),
                now,
                ahead_s: None,
            };
            let bounds = Bounds {
                channels: 1,
                channel_idle: PATIENCE * 60,
                connection_idle: PATIENCE * 60,
            };
            let connection = Connection::open(&login, bounds, room).await?;
            anyhow::Ok((connection.session(PATIENCE).await?, connection))
        })?;
        let shared = Shared {
            session,
            _connection: connection,
            key,
            receipt_key: target.receipt_key().clone(),
            payload,
        };
        Ok(Ours {
            shared: Arc::new(shared),
        })
    }

    /// One action, from handing over its payload to the verified Outcome.
    pub fn act(&self, runtime: &Runtime, wanted: u64) -> Result<Run> {
        let ours = self.clone();
        // On the runtime's own threads, as in the relay.
        runtime.block_on(runtime.spawn(async move { ours.one(wanted).await }))?
    }

    /// The same, inside the runtime.
    pub async fn one(&self, wanted: u64) -> Result<Run> {
        let Shared {
            session,
            key,
            receipt_key,
            payload,
            ..
        } = &*self.shared;
        let payload = fresh(payload)?;
        let begun = Instant::now();
        let sig = sshsig::sign(key, sshsig::REQUEST, payload.as_bytes())?;
        let request = Digest::of(payload.as_bytes());
        let line = RelayLine::Request(Sealed { payload, sig }, None);
        let signed = ms(begun);
        let answer = session.ask(&[line], PATIENCE).await?;
        let answered = ms(begun);
        let seen = verified(answer, receipt_key, &request)?;
        let took = ms(begun);
        Ok(Run::new(took, seen.is(End::fine(wanted)))
            .step("1: the relay signs", signed)
            .step("2: the way there and back, and the target", answered - signed)
            .step("3: the relay verifies", took - answered))
    }
}

/// A payload with an id and an end of its own, as the bytes that are signed.
pub fn fresh(payload: &Map<String, Value>) -> Result<String> {
    let mut payload = payload.clone();
    payload.insert("request_id".to_owned(), new_id().into());
    payload.insert("expires".to_owned(), (now() + 50).into());
    Ok(serde_json::to_string(&payload)?)
}

/// What an answer says, once its signature, its request and the hash of its output hold.
fn verified(answer: Answer, key: &PublicKey, request: &Digest) -> Result<End> {
    answer.outcome.verify(key, sshsig::OUTCOME)?;
    let outcome = Outcome::parse(answer.outcome.payload.as_bytes())?;
    ensure!(&outcome.request_sha256 == request, "it answers another request");
    let text = answer.output.unwrap_or_default();
    if let Some(stream) = &outcome.output {
        ensure!(
            Digest::of(text.as_bytes()) == stream.sent_sha256,
            "another output than was signed"
        );
    }
    Ok(End {
        bytes: text.len() as u64,
        exit: outcome.exit_code,
    })
}
