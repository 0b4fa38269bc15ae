//! The files that are meant, and work on all of them at once.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use super::{Fault, Kind, unreadable};

/// All segments that are meant, each once.
pub(super) fn files(paths: &[PathBuf]) -> (Vec<PathBuf>, Vec<Fault>) {
    let (mut files, mut faults) = (Vec::new(), Vec::new());
    for path in paths {
        let found = if path.is_dir() {
            list(path)
        } else {
            path.canonicalize().map(|path| vec![path])
        };
        match found {
            Ok(found) if found.is_empty() => {
                let what = "a folder without segments".to_owned();
                faults.push(Fault {
                    kind: Kind::NoLog,
                    seq: None,
                    segment: Some(path.clone()),
                    what,
                });
            }
            Ok(found) => files.extend(found),
            Err(error) => faults.push(unreadable(path, &error)),
        }
    }
    files.sort();
    files.dedup();
    (files, faults)
}

/// Everything in a folder that says it is a segment: also what is not named like one, to be found wanting.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in folder.canonicalize()?.read_dir()? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "jsonl") {
            found.push(path);
        }
    }
    Ok(found)
}

/// What `work` makes of each file, in their order. Files are worked on side by side.
pub(super) fn each<T: Send>(files: &[PathBuf], work: impl Fn(&Path) -> io::Result<T> + Sync) -> Vec<io::Result<T>> {
    let next = AtomicUsize::new(0);
    let worker = || {
        let mut done = Vec::new();
        while let at = next.fetch_add(1, Ordering::Relaxed)
            && let Some(path) = files.get(at)
        {
            done.push((at, work(path)));
        }
        done
    };
    let threads = thread::available_parallelism()
        .map_or(1, usize::from)
        .min(8)
        .min(files.len());
    let mut done: Vec<_> = thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(worker)).collect();
        let mut done = worker();
        for other in others {
            // A worker that panicked leaves its files unread, which the count below turns into a failure.
            done.extend(other.join().unwrap_or_default());
        }
        done
    });
    done.sort_by_key(|(at, _)| *at);
    let mut read: Vec<_> = done.into_iter().map(|(_, read)| read).collect();
    read.resize_with(files.len(), || Err(io::Error::other("not read")));
    read
}
