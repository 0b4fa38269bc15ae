//! The CA's own log read back: what is open, and what was enrolled. Nothing of it is stored anywhere else.

use audit::{Event, Record};
use wire::Kind;
use wire::ids::{Fingerprint, TargetName};

use crate::issued::{Entry, Facts};
use crate::record::Records;

/// Every certificate of the log since `since` (Unix seconds), in order: what is rebuilt at start.
///
/// # Errors
/// [`audit::Error`].
pub fn issued_since(records: &Records, since: u64) -> Result<Vec<Entry>, audit::Error> {
    let mut entries = Vec::new();
    records.since(since, &mut |record| entries.extend(entry(record)))?;
    Ok(entries)
}

/// The host key of a target's last enrolment, if the log knows one.
///
/// # Errors
/// [`audit::Error`].
pub fn enrolled(records: &Records, target: &TargetName) -> Result<Option<Fingerprint>, audit::Error> {
    let mut key = None;
    records.since(0, &mut |Record { draft, .. }| {
        if draft.event == Event::Enroll && draft.target.as_ref() == Some(target) {
            key = draft.cert.and_then(|cert| cert.key).or(key.take());
        }
    })?;
    Ok(key)
}

fn entry(Record { draft, .. }: Record) -> Option<Entry> {
    let kind = match draft.event {
        Event::Issue | Event::Renew => Kind::Task,
        Event::Authorize => Kind::Action,
        _ => return None,
    };
    Some(Entry {
        task_id: draft.task_id?,
        facts: Facts {
            requester: draft.requester?,
            reason: draft.reason?,
            relay: draft.relay?,
            opened: draft.opened?,
        },
        target: draft.target?,
        key: draft.cert?.key?,
        kind,
    })
}
