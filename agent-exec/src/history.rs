//! What the target's own log says of requests: which were begun, and how they ended.

use std::collections::BTreeMap;

use audit::{Draft, Error, Event, Log};
use wire::ids::Head;

use crate::ledger::Key;

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

/// All requests whose intent was recorded since `since` (Unix seconds).
///
/// # Errors
/// [`Error`].
pub(crate) fn since(log: &Log, since: u64) -> Result<BTreeMap<Key, Told>, Error> {
    let mut told = BTreeMap::new();
    log.since(since, &mut |record, head| {
        let draft = record.draft;
        let (Some(task), Some(request), Some(sha256)) = (&draft.task_id, &draft.request_id, &draft.request_sha256)
        else {
            return;
        };
        // Two requests can have one id: a read is not claimed.
        let key = Key {
            task_id: task.clone(),
            request_id: request.clone(),
            request_sha256: sha256.clone(),
        };
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
