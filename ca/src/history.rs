//! The CA's own log read back: what is open, and what was enrolled. Nothing of it is stored anywhere else.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};

use audit::{Event, Record};
use wire::ids::{Fingerprint, TargetName};

use crate::issued::{Entry, Facts};

/// Why a log could not be read back.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// The file system refused.
    #[error("read {}", .0.display())]
    Io(PathBuf, #[source] io::Error),
    /// A line is no record: somebody was at the log.
    #[error("understand line {line} of {}: {what} (writ-audit verify tells more)", path.display())]
    Line {
        /// The segment.
        path: PathBuf,
        /// Which line, from 1.
        line: usize,
        /// Why it is none.
        what: String,
    },
}

/// Every certificate of the log since `since` (Unix seconds), in order: what is rebuilt at start.
///
/// # Errors
/// [`HistoryError`].
pub fn issued_since(folder: &Path, since: u64) -> Result<Vec<Entry>, HistoryError> {
    let mut entries = Vec::new();
    read_since(folder, since, &mut |record| entries.extend(entry(record)))?;
    Ok(entries)
}

/// The host key of a target's last enrolment, if the log knows one.
///
/// # Errors
/// [`HistoryError`].
pub fn enrolled(folder: &Path, target: &TargetName) -> Result<Option<Fingerprint>, HistoryError> {
    let mut key = None;
    read_since(folder, 0, &mut |Record { draft, .. }| {
        if draft.event == Event::Enroll && draft.target.as_ref() == Some(target) {
            key = draft.cert.and_then(|cert| cert.key).or(key.take());
        }
    })?;
    Ok(key)
}

fn entry(Record { draft, .. }: Record) -> Option<Entry> {
    if !matches!(draft.event, Event::Issue | Event::Renew) {
        return None;
    }
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
    })
}

/// Visits the records from the segment on that began last before `since`.
fn read_since(folder: &Path, since: u64, visit: &mut dyn FnMut(Record)) -> Result<(), HistoryError> {
    // Times in records have one width, so that they sort as texts.
    let since = audit::rfc3339(since.saturating_mul(1000));
    let mut from = Vec::new();
    for path in segments(folder)?.into_iter().rev() {
        let first = lines(&path)?.next().transpose()?;
        from.push(path);
        if first.is_some_and(|record| record.envelope.ts < since) {
            break;
        }
    }
    for path in from.iter().rev() {
        for record in lines(path)? {
            visit(record?);
        }
    }
    Ok(())
}

fn segments(folder: &Path) -> Result<Vec<PathBuf>, HistoryError> {
    let io = |e| HistoryError::Io(folder.to_owned(), e);
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder).map_err(io)? {
        let path = entry.map_err(io)?.path();
        if path.extension().is_some_and(|e| e == "jsonl") {
            paths.push(path);
        }
    }
    // Named by their first sequence number in twenty digits.
    paths.sort();
    Ok(paths)
}

/// The records of one segment. Bytes without a newline at its end were never a record.
fn lines(path: &Path) -> Result<impl Iterator<Item = Result<Record, HistoryError>>, HistoryError> {
    let io = |e| HistoryError::Io(path.to_owned(), e);
    let mut reader = BufReader::new(File::open(path).map_err(io)?);
    let path = path.to_owned();
    let mut number = 0;
    Ok(std::iter::from_fn(move || {
        let mut line = Vec::new();
        number += 1;
        match reader.read_until(b'\n', &mut line) {
            Err(e) => Some(Err(HistoryError::Io(path.clone(), e))),
            Ok(_) if line.last() != Some(&b'\n') => None,
            Ok(_) => Some(Record::parse(&line).map_err(|what| HistoryError::Line {
                path: path.clone(),
                line: number,
                what,
            })),
        }
    }))
}
