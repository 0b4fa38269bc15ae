//! `writ-relay serve`: from a configuration to a relay that runs, and its orderly end.
//!
//! Everything that can be wrong is found before the door opens. On SIGTERM or SIGINT the door closes, no call begins and
//! no certificate is asked for any more; calls that are under way get their answers, sessions are closed and keys
//! forgotten, and the log says that it was so. A second signal ends all that at once, and the next start settles it.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use audit::{Draft, Event};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::{JoinHandle, JoinSet};
use wire::Code;

use crate::approvals;
use crate::check;
use crate::config::Fault;
use crate::door::{self, Door, OpenTo};
use crate::gate::{self, Gate};
use crate::issuer::Issuer;
use crate::mcp::{self, Tools};
use crate::people::People;
use crate::pipeline::{NotTakenUp, Relay, Turns};
use crate::records::Records;
use crate::seats::Seats;
use crate::store::{Sqlite, Unusable};

/// How long calls may take to be recorded once their sessions are closed.
pub const SETTLE: Duration = Duration::from_secs(5);
/// How long clients may take to read their last answers.
pub const LEAVE: Duration = Duration::from_secs(5);
/// How often tasks whose time is up are ended.
const SWEEP: Duration = Duration::from_secs(5);

/// Why the relay does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration, or something that it names, is not as it must be: exit code 2.
    #[error("start: {} fault(s) in the configuration", .0.len())]
    Refused(Vec<Fault>),
    /// The log cannot be opened or written.
    #[error("write the log")]
    Log(#[from] audit::Error),
    /// The store is held by another process, or the machine does not give it.
    #[error(transparent)]
    Store(Unusable),
    /// What an earlier run left is not settled.
    #[error(transparent)]
    Restart(#[from] NotTakenUp),
    /// The socket cannot be opened.
    #[error(transparent)]
    Door(#[from] door::Error),
    /// The machine said no.
    #[error("catch signals")]
    Machine(#[from] std::io::Error),
    /// It was told to stop a second time.
    #[error("end {0} call(s) before it was told to stop at once; the next start settles them")]
    AtOnce(usize),
    /// Calls did not end although their sessions were closed.
    #[error("end {0} call(s) in time; the next start settles them")]
    Unsettled(usize),
}

/// The clock, Unix seconds.
#[must_use]
pub fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

/// Runs the relay until it is told to stop.
///
/// # Errors
/// Any [`Error`].
pub async fn run(path: &Path) -> Result<(), Error> {
    let loaded = check::load(path).map_err(Error::Refused)?;
    let (config, catalogue) = (loaded.config.clone(), loaded.catalogue.clone());
    let relay = build(loaded)?;
    let mut ends = Ends::catch()?;
    relay.records.append(Draft::new(Event::Start)).await?;
    relay.take_up().await?;
    let door = Door::open(&config.socket, OpenTo::Group, config.limits.uid_connections).await?;
    let approvers = Door::open(&config.approvals_socket, config.approvals_to, approvals::CONNECTIONS).await?;
    tracing::info!(
        socket = %config.socket.display(),
        approvals = %config.approvals_socket.display(),
        relay = %config.name,
        build = wire::build::id(),
        config = %config.digest,
        "serving"
    );
    let sweeper = tokio::spawn(sweep(Arc::clone(&relay)));
    let deciding = tokio::spawn(admit_approvers(approvers, Arc::clone(&relay)));
    let connections = admit(&door, &relay, &Arc::new(Tools::new(&catalogue)), &mut ends).await;
    drop(door);
    // What is cut off between its record and the store has not come about, and whoever brought it was told nothing.
    deciding.abort();
    let _ = deciding.await;
    tokio::select! {
        biased;
        () = ends.any() => return Err(Error::AtOnce(relay.gate.under_way())),
        ended = end(&relay, connections, sweeper, config.limits.drain) => ended?,
    }
    tracing::info!("stopped");
    Ok(())
}

/// Puts a relay together. Nothing is contacted yet.
fn build(loaded: check::Loaded) -> Result<Arc<Relay>, Error> {
    let check::Loaded {
        config,
        inventory,
        catalogue,
        rules,
    } = loaded;
    Ok(Arc::new(Relay {
        store: Box::new(Sqlite::open(&config.store()).map_err(unusable)?),
        people: People::new(config.persons.iter().cloned()),
        records: Records::open(&config.log_dir, &config.log_lock(), &config.name)?,
        issuer: Issuer::of(&config),
        seats: Seats::new(config.bounds, config.connections),
        gate: Gate::new(config.limits, gate::clock()),
        turns: Turns::default(),
        approving: tokio::sync::Mutex::default(),
        name: config.name,
        config: config.digest,
        inventory,
        catalogue,
        rules,
        now,
    }))
}

/// A store that somebody has to do something about is a fault like those of the configuration: starting again would not
/// change it.
fn unusable(unusable: Unusable) -> Error {
    match check::store_fault(&unusable) {
        Some(fault) => Error::Refused(vec![fault]),
        None => Error::Store(unusable),
    }
}

/// Lets clients in until the relay is told to stop.
async fn admit(door: &Door, relay: &Arc<Relay>, tools: &Arc<Tools>, ends: &mut Ends) -> JoinSet<()> {
    let mut connections = JoinSet::new();
    loop {
        let visitor = tokio::select! {
            visitor = door.next() => visitor,
            Some(_) = connections.join_next() => continue,
            () = ends.any() => return connections,
        };
        match visitor {
            Ok(visitor) => {
                let (relay, tools) = (Arc::clone(relay), Arc::clone(tools));
                connections.spawn(async move {
                    match visitor.place {
                        Some(_place) => mcp::serve(relay, tools, visitor.stream, visitor.uid).await,
                        None => {
                            let text = format!("uid {} has as many connections as it may, or all have", visitor.uid);
                            relay.note_stranger(Code::Capacity, &text).await;
                            mcp::turn_away(visitor.stream).await;
                        }
                    }
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: give what is open a moment to end.
                tracing::warn!(%error, "a client could not be let in");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Lets approvers in until this is dropped.
async fn admit_approvers(door: Door, relay: Arc<Relay>) {
    let mut visits = JoinSet::new();
    loop {
        let visitor = tokio::select! {
            visitor = door.next() => visitor,
            Some(_) = visits.join_next() => continue,
        };
        match visitor {
            Ok(visitor) => {
                let relay = Arc::clone(&relay);
                visits.spawn(async move {
                    match visitor.place {
                        Some(_place) => approvals::serve(relay, visitor.stream, visitor.uid).await,
                        None => approvals::turn_away(visitor.stream).await,
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "an approver could not be let in");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

async fn sweep(relay: Arc<Relay>) {
    let mut ticks = tokio::time::interval(SWEEP);
    loop {
        // What a sweep has begun it ends: a task that is over in the store is over in the log.
        tokio::select! {
            _ = ticks.tick() => {}
            () = relay.gate.is_closed() => return,
        }
        relay.sweep().await;
        relay.record_repeats(false).await;
    }
}

/// The end, in order: no call begins, those under way end or are ended, all that happened is recorded, clients get their
/// last answers.
async fn end(
    relay: &Relay,
    mut connections: JoinSet<()>,
    sweeper: JoinHandle<()>,
    drain: Duration,
) -> Result<(), Error> {
    relay.issuer.close();
    relay.gate.close();
    tracing::info!(under_way = relay.gate.under_way(), "stopping");
    if tokio::time::timeout(drain, relay.gate.empty()).await.is_err() {
        tracing::warn!(
            under_way = relay.gate.under_way(),
            "calls did not end in time: their sessions are closed"
        );
    }
    let left = async {
        relay.leave_all();
        relay.gate.empty().await;
        let _ = sweeper.await;
    };
    if tokio::time::timeout(SETTLE, left).await.is_err() {
        return Err(Error::Unsettled(relay.gate.under_way()));
    }
    relay.gate.dismiss();
    let gone = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(LEAVE, gone).await.is_err() {
        tracing::warn!("clients did not read their last answers");
    }
    relay.record_repeats(true).await;
    relay.records.append(Draft::new(Event::Stop)).await?;
    Ok(())
}

/// The signals that end a relay.
struct Ends {
    term: Signal,
    int: Signal,
}

impl Ends {
    fn catch() -> std::io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn any(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
