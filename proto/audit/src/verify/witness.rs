//! The heads that the logs given carry of each other.
//!
//! Every record of a call holds heads of the other tiers, copied from signed objects. All of them are looked for, not only
//! the highest: a log that was cut and then went on holds the newest head that others know, and none of those between.
//!
//! Gathered before anything is judged, and the logs are read again after: so a log that somebody writes to meanwhile holds
//! everything that was gathered.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use memchr::memmem::FinderRev;
use wire::ids::{Head, LogId};

use super::files::{each, files};
use super::heads::{By, Class, Expected, Gathering, Heads};
use crate::record::Witness;
use crate::segment::{lines, log_of};

/// The last key of a record. A quote inside a JSON string is always escaped, so these bytes can only be a key.
const KEY: &[u8] = b",\"witness\":";

/// How many heads a file's reader holds before it gives them to all.
const BATCH: usize = 1024;

/// What was gathered.
pub(super) struct Gathered {
    pub(super) heads: Heads,
    /// What did not fit.
    pub(super) left: Vec<Class>,
    /// Files that could not be read: what they vouch for is not known.
    pub(super) unread: BTreeMap<PathBuf, io::Error>,
}

/// What the caller and the logs in `paths` vouch for, as far as there is `room`.
pub(super) fn gather(paths: &[PathBuf], expected: &Expected, class: Class, room: usize) -> Gathered {
    // What else is wrong with what was given is said when it is judged.
    let (files, _) = files(paths);
    let (mut logs, mut unread) = (BTreeMap::new(), BTreeMap::new());
    for (path, log) in files.iter().zip(each(&files, log_of)) {
        match log {
            Ok(log) => logs.extend(log.map(|log| (path, log))),
            Err(error) => drop(unread.insert(path.clone(), error)),
        }
    }
    let given: BTreeSet<&LogId> = logs.values().collect();
    let table = given.iter().copied().chain(expected.0.iter().map(|head| &head.log));
    let mut gathering = Gathering::new(table.cloned().collect(), class, room);
    expected.0.iter().for_each(|head| gathering.add(None, head));
    if given.len() < 2 {
        return Gathered::of(gathering, unread);
    }
    let places: BTreeMap<&Path, By> = logs
        .iter()
        .map(|(path, log)| (path.as_path(), gathering.place(log)))
        .collect();
    let gathering = Mutex::new(gathering);
    let done = each(&files, |path| match places.get(path) {
        Some(by) => read(path, *by, &gathering),
        None => Ok(()),
    });
    let failed = files
        .iter()
        .zip(done)
        .filter_map(|(path, done)| Some((path.clone(), done.err()?)));
    unread.extend(failed);
    Gathered::of(gathering.into_inner().unwrap_or_else(PoisonError::into_inner), unread)
}

impl Gathered {
    fn of(gathering: Gathering, unread: BTreeMap<PathBuf, io::Error>) -> Self {
        let (heads, left) = gathering.finish();
        Self { heads, left, unread }
    }
}

/// Gathers the heads in one segment.
fn read(path: &Path, by: By, gathering: &Mutex<Gathering>) -> io::Result<()> {
    let give = |heads: &mut Vec<Head>| {
        let mut gathering = gathering.lock().unwrap_or_else(PoisonError::into_inner);
        heads.drain(..).for_each(|head| gathering.add(by, &head));
    };
    let finder = FinderRev::new(KEY);
    let (mut heads, mut last) = (Vec::new(), Vec::new());
    lines(path, |line| {
        // A line that is no record is not understood here, and refused where it is judged.
        if let Some(at) = finder.rfind(line)
            && let Some(text) = line[at + KEY.len()..].strip_suffix(b"}\n")
            && text != last
            && let Ok(witness) = serde_json::from_slice::<Witness>(text)
        {
            last = text.to_vec();
            heads.extend([witness.relay, witness.ca, witness.target].into_iter().flatten());
            if heads.len() >= BATCH {
                give(&mut heads);
            }
        }
        true
    })?;
    give(&mut heads);
    Ok(())
}
