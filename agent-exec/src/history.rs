//! What the target's own log says of requests: which were begun, and how they ended.

use std::collections::BTreeMap;

use audit::{Draft, Error, Event, Log};
use wire::ids::{Digest, Head, RequestId, TaskId};

/// What the log holds of one request.
#[derive(Debug)]
pub(crate) struct Told {
    /// In which start of the machine it was begun.
    pub(crate) boot_id: String,
    /// That it was about to be done.
    pub(crate) intent: Draft,
    /// What became of it, and where that stands; absent when nothing says.
    pub(crate) end: Option<(Draft, Head)>,
}

impl Told {
    /// The hash of the bytes that were asked.
    pub(crate) fn request_sha256(&self) -> Option<Digest> {
        self.intent.request_sha256.clone()
    }
}

/// All requests whose intent was recorded since `since` (Unix seconds).
///
/// # Errors
/// [`Error`].
pub(crate) fn since(log: &Log, since: u64) -> Result<BTreeMap<(TaskId, RequestId), Told>, Error> {
    let mut told = BTreeMap::new();
    log.since(since, &mut |record, head| {
        let draft = record.draft;
        let (Some(task), Some(request)) = (&draft.task_id, &draft.request_id) else {
            return;
        };
        let key = (task.clone(), request.clone());
        match draft.event {
            Event::Intent => {
                let boot_id = record.envelope.boot_id;
                let begun = Told {
                    boot_id,
                    intent: draft,
                    end: None,
                };
                told.insert(key, begun);
            }
            Event::Result => {
                if let Some(told) = told.get_mut(&key) {
                    told.end = Some((draft, head));
                }
            }
            _ => {}
        }
    })?;
    Ok(told)
}
