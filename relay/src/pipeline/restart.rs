//! The part of the story that goes on where a relay that is gone had come to.
//!
//! A start settles every request that nobody waits for any more, in the store and in the log, before the door opens. What
//! was sent and has an effect stays unknown: it is asked for by its request id, behind the open door, and never sent again.
//! Tasks stay open; keys were in memory only, so the next call makes another, which the CA puts in the place of the one that is gone.

use std::sync::Arc;

use audit::{Draft, Event};
use tokio::task::JoinSet;
use wire::{Code, Risk, Status};

use super::Relay;
use super::request::Subject;
use crate::store::{self, Phase, Unsettled};

/// How far the clock may have been set back since, in seconds: where a log is read from is known by its clock only.
const STEP_S: u64 = 3600;

/// Why a start does not know what the relay before it has left.
#[derive(Debug, thiserror::Error)]
pub enum NotTakenUp {
    /// The log cannot be read or written.
    #[error(transparent)]
    Log(#[from] audit::Error),
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// Something of ours failed.
    #[error("settle what an earlier run left: {0}")]
    Failed(String),
}

impl Relay {
    /// Brings every request of an earlier run to a known state. Called once, before any client is let in.
    ///
    /// # Errors
    /// Any [`NotTakenUp`].
    pub async fn take_up(self: &Arc<Self>) -> Result<(), NotTakenUp> {
        let left = self.store.unsettled().await?;
        let Some(oldest) = left.iter().map(|one| one.begun).min() else {
            return Ok(());
        };
        let ids = left.iter().map(|one| one.request.id.clone()).collect();
        let mut known = self.records.outcomes(oldest.saturating_sub(STEP_S), ids).await?;
        let count = left.len();
        let mut settling = JoinSet::new();
        for one in left {
            let (relay, known) = (Arc::clone(self), known.remove(&one.request.id));
            settling.spawn(async move {
                let (status, code) = match known {
                    // The log is the truth: only the store did not come to it.
                    Some(end) => end,
                    None => relay.conclude_left(&one).await?,
                };
                relay.store.settle(&one.task.id, &one.request.id, status, code).await?;
                if status == Status::Unknown && one.request.risk != Risk::Read {
                    relay.ask_later(one);
                }
                Ok::<_, NotTakenUp>(())
            });
        }
        while let Some(settled) = settling.join_next().await {
            settled.map_err(|error| NotTakenUp::Failed(error.to_string()))??;
        }
        tracing::info!(
            requests = count,
            "what an earlier run left is settled, or is known to be unknown"
        );
        Ok(())
    }

    /// Records what is known of a request that an earlier run left and the log has no end of.
    async fn conclude_left(&self, left: &Unsettled) -> Result<(Status, Option<Code>), audit::Error> {
        let (status, code, what) = match (left.request.phase, left.request.risk) {
            (Phase::Recorded, _) => (Status::Failed, Code::NotSent, "the relay was ended before it was sent"),
            (Phase::Sent | Phase::Settled, Risk::Read) => (
                Status::Failed,
                Code::SessionLost,
                "the relay was ended before the answer; it only reads",
            ),
            (Phase::Sent | Phase::Settled, Risk::Change | Risk::Destroy) => (
                Status::Unknown,
                Code::OutcomeUnknown,
                "the relay was ended before the answer; the target is to be asked for it",
            ),
        };
        let draft = Draft {
            status: Some(status),
            code: Some(code),
            message: Some(what.to_owned()),
            ..Subject::left(left).draft(Event::Outcome)
        };
        self.records.append(draft).await?;
        Ok((status, Some(code)))
    }
}
