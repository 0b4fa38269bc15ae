//! Heads that somebody vouches for, and whether the records that they name are there.
//!
//! A head is there when a record with exactly its log, number and hash was read, and never otherwise: a later record proves
//! nothing of it, because torn bytes keep a number too and a log that was cut can go on.
//!
//! Memory is bounded however many heads there are: what does not fit is left for another round, by number.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};

use wire::ids::{Digest, Head, LogId};

/// How many heads are held at once: about 60 MB.
pub(crate) const ROOM: usize = 1 << 20;

/// How many logs that were not given are remembered. A log can name as many as it likes.
const ABSENT: usize = 1000;

/// Heads that somebody vouches for, which the logs must hold.
#[derive(Debug, Default)]
pub struct Expected(pub(super) Vec<Head>);

impl Expected {
    /// From heads.
    pub fn new(heads: impl IntoIterator<Item = Head>) -> Self {
        Self(heads.into_iter().collect())
    }
}

/// Who vouches for a head: a log, by its place in the table of logs; none is the caller.
pub(crate) type By = Option<u32>;

/// A head, small.
#[derive(Debug, Clone, Copy)]
struct Entry {
    log: u32,
    seq: u64,
    /// Zeros when two hashes were vouched for: no log can hold both.
    hash: [u8; 32],
    by: By,
}

/// The numbers of one round: those that are `rest` modulo 2^`bits`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Class {
    bits: u32,
    rest: u64,
}

impl Class {
    fn holds(self, seq: u64) -> bool {
        seq & ((1 << self.bits) - 1) == self.rest
    }

    fn halves(self) -> [Self; 2] {
        [0, 1].map(|half| Self {
            bits: self.bits + 1,
            rest: self.rest | half << self.bits,
        })
    }
}

/// Heads while they are gathered.
pub(crate) struct Gathering {
    /// All logs that are given or vouched for, sorted.
    logs: Vec<LogId>,
    class: Class,
    /// What did not fit.
    left: Vec<Class>,
    room: usize,
    entries: Vec<Entry>,
    /// The highest number that each vouches for in each log, of all rounds.
    highest: BTreeMap<(u32, By), u64>,
    /// Logs that are not in the table, and the highest number that a log in it names of them.
    absent: BTreeMap<LogId, (u64, u32)>,
}

impl Gathering {
    pub(crate) fn new(mut logs: Vec<LogId>, class: Class, room: usize) -> Self {
        logs.sort_unstable();
        logs.dedup();
        Self {
            logs,
            class,
            left: Vec::new(),
            room,
            entries: Vec::new(),
            highest: BTreeMap::new(),
            absent: BTreeMap::new(),
        }
    }

    /// The place of a log in the table.
    pub(crate) fn place(&self, log: &LogId) -> By {
        let at = self.logs.binary_search(log).ok()?;
        u32::try_from(at).ok()
    }

    /// `by` vouches for a head. Heads of logs that are not in the table cannot be looked for, and what a log says of itself
    /// proves nothing.
    pub(crate) fn add(&mut self, by: By, head: &Head) {
        let Some(log) = self.place(&head.log) else {
            return self.add_absent(by, head);
        };
        if by == Some(log) {
            return;
        }
        let highest = self.highest.entry((log, by)).or_default();
        *highest = head.seq.max(*highest);
        if !self.class.holds(head.seq) {
            return;
        }
        self.entries.push(Entry {
            log,
            seq: head.seq,
            hash: bytes(&head.hash),
            by,
        });
        if self.entries.len() >= self.room {
            self.shrink();
        }
    }

    fn add_absent(&mut self, by: By, head: &Head) {
        let Some(by) = by else { return };
        let room = self.absent.len() < ABSENT;
        match self.absent.get_mut(&head.log) {
            Some(known) => *known = (head.seq, by).max(*known),
            None if room => drop(self.absent.insert(head.log.clone(), (head.seq, by))),
            None => {}
        }
    }

    /// Each head once, and half of them left for another round as often as it takes to be half empty again.
    fn shrink(&mut self) {
        self.merge();
        while self.entries.len() > self.room / 2 && self.class.bits < u64::BITS - 1 {
            let [stays, leaves] = self.class.halves();
            self.left.push(leaves);
            self.class = stays;
            self.entries.retain(|entry| stays.holds(entry.seq));
        }
    }

    fn merge(&mut self) {
        self.entries
            .sort_unstable_by_key(|entry| (entry.log, entry.seq, entry.by));
        self.entries.dedup_by(|next, kept| {
            let same = (next.log, next.seq) == (kept.log, kept.seq);
            if same && next.hash != kept.hash {
                kept.hash = [0; 32];
            }
            same
        });
    }

    /// What to look for, and the rounds that are left.
    pub(crate) fn finish(mut self) -> (Heads, Vec<Class>) {
        self.merge();
        let mut top = vec![None; self.logs.len()];
        for (&(log, _), &seq) in &self.highest {
            if let Some(top) = top.get_mut(log as usize) {
                *top = Some(seq).max(*top);
            }
        }
        let heads = Heads {
            seen: self.entries.iter().map(|_| AtomicBool::new(false)).collect(),
            entries: self.entries,
            logs: self.logs,
            highest: self.highest,
            absent: self.absent,
            top,
        };
        (heads, self.left)
    }
}

/// Heads to look for while logs are read.
pub(crate) struct Heads {
    logs: Vec<LogId>,
    /// One a log and number, sorted by them.
    entries: Vec<Entry>,
    /// Which of them were there.
    seen: Vec<AtomicBool>,
    highest: BTreeMap<(u32, By), u64>,
    absent: BTreeMap<LogId, (u64, u32)>,
    /// The highest number that anybody vouches for, by log.
    top: Vec<Option<u64>>,
}

/// What is known of a record from those who vouch.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Vouching {
    /// A head of it, or of a later record, was vouched for.
    Known,
    /// It stands behind everything that was vouched for.
    Unknown,
    /// Another was vouched for, says who.
    Other(String),
}

/// A head whose record was not there.
pub(crate) struct Missing<'a> {
    pub(crate) log: &'a LogId,
    /// Its number, and who vouches for it.
    pub(crate) seq: u64,
    pub(crate) by: String,
    /// How many more heads of that log are missing.
    pub(crate) more: usize,
}

impl Heads {
    /// Compares a record with what was vouched for, and remembers that it is there.
    pub(crate) fn see(&self, head: &Head) -> Vouching {
        let Ok(log) = self.logs.binary_search(&head.log) else {
            return Vouching::Unknown;
        };
        if self.top[log].is_none_or(|top| head.seq > top) {
            return Vouching::Unknown;
        }
        let key = (log, head.seq);
        if let Ok(at) = self
            .entries
            .binary_search_by_key(&key, |entry| (entry.log as usize, entry.seq))
        {
            let entry = &self.entries[at];
            if entry.hash != bytes(&head.hash) {
                return Vouching::Other(self.who(entry));
            }
            self.seen[at].store(true, Ordering::Relaxed);
        }
        Vouching::Known
    }

    /// The first head of each log that was not there, once all logs were read.
    pub(crate) fn missing(&self) -> Vec<Missing<'_>> {
        let unseen = self.entries.iter().zip(&self.seen);
        let mut missing: Vec<Missing<'_>> = Vec::new();
        for (entry, _) in unseen.filter(|(_, seen)| !seen.load(Ordering::Relaxed)) {
            let log = &self.logs[entry.log as usize];
            match missing.last_mut().filter(|last| last.log == log) {
                Some(last) => last.more += 1,
                None => missing.push(Missing {
                    log,
                    seq: entry.seq,
                    by: self.who(entry),
                    more: 0,
                }),
            }
        }
        missing
    }

    /// Who vouches for records of a log, and up to which.
    pub(crate) fn vouched(&self, log: &LogId) -> Vec<super::Vouched> {
        let at = self.logs.binary_search(log).ok().and_then(|at| u32::try_from(at).ok());
        let of_it = self.highest.iter().filter(|((log, _), _)| Some(*log) == at);
        of_it
            .map(|((_, by), seq)| super::Vouched {
                by: by.map(|by| self.logs[by as usize].clone()),
                seq: *seq,
            })
            .collect()
    }

    /// Logs that were not given and that a given one vouches for: which, up to which number, and which one does.
    pub(crate) fn absent(&self) -> impl Iterator<Item = (&LogId, u64, &LogId)> {
        let absent = self.absent.iter();
        absent.map(|(log, (seq, by))| (log, *seq, &self.logs[*by as usize]))
    }

    fn who(&self, entry: &Entry) -> String {
        match entry.by {
            _ if entry.hash == [0; 32] => "two that contradict each other".to_owned(),
            Some(by) => format!("log {}", self.logs[by as usize]),
            None => "the caller".to_owned(),
        }
    }
}

fn bytes(digest: &Digest) -> [u8; 32] {
    let digit = |c: u8| if c.is_ascii_digit() { c - b'0' } else { c - b'a' + 10 };
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(digest.as_str().as_bytes().chunks_exact(2)) {
        *byte = digit(pair[0]) << 4 | digit(pair[1]);
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(name: &str) -> LogId {
        LogId::of_genesis(name.as_bytes())
    }

    fn head(name: &str, seq: u64) -> Head {
        Head {
            log: log(name),
            seq,
            hash: Digest::of(format!("{name} {seq}").as_bytes()),
        }
    }

    /// Gathers in as many rounds as it takes, sees `there` in each, and names what was missing.
    fn missing(expected: &[Head], there: &[Head], room: usize) -> (Vec<u64>, usize) {
        let (mut left, mut rounds, mut missing) = (vec![Class::default()], 0, Vec::new());
        while let Some(class) = left.pop() {
            let mut gathering = Gathering::new(vec![log("a"), log("b")], class, room);
            let by = gathering.place(&log("b"));
            expected.iter().for_each(|head| gathering.add(by, head));
            let (heads, more) = gathering.finish();
            assert!(heads.entries.len() <= room);
            assert!(there.iter().all(|head| heads.see(head) == Vouching::Known));
            missing.extend(heads.missing().iter().map(|missing| missing.seq));
            left.extend(more);
            rounds += 1;
        }
        (missing, rounds)
    }

    #[test]
    fn whatever_the_room_each_head_is_looked_for_once() {
        let all: Vec<_> = (1..=1000).chain(1..=1000).map(|seq| head("a", seq)).collect();
        for room in [16, 100, 999, 5000] {
            let (none, rounds) = missing(&all, &all, room);
            assert_eq!((none.len(), rounds > 1), (0, room < 1000), "room for {room}");
            for gone in [1, 2, 512, 999] {
                let there: Vec<_> = all.iter().filter(|head| head.seq != gone).cloned().collect();
                assert_eq!(missing(&all, &there, room).0, [gone], "room for {room}");
            }
        }
    }

    #[test]
    fn two_hashes_for_one_number_are_in_no_log() {
        let forked = Head {
            hash: Digest::of(b"fork"),
            ..head("a", 5)
        };
        let mut gathering = Gathering::new(vec![log("a")], Class::default(), ROOM);
        [head("a", 5), forked.clone(), head("a", 5)]
            .iter()
            .for_each(|head| gathering.add(None, head));
        let (heads, _) = gathering.finish();
        for either in [head("a", 5), forked] {
            assert!(matches!(heads.see(&either), Vouching::Other(by) if by.contains("contradict")));
        }
        assert_eq!(heads.missing().len(), 1);
    }

    #[test]
    fn a_log_does_not_vouch_for_itself_nor_for_one_that_nobody_asked_about() {
        let mut gathering = Gathering::new(vec![log("a"), log("b")], Class::default(), ROOM);
        let by = gathering.place(&log("a"));
        [head("a", 5), head("c", 5)]
            .iter()
            .for_each(|head| gathering.add(by, head));
        let (heads, _) = gathering.finish();
        assert_eq!(heads.missing().len(), 0);
        assert_eq!(heads.see(&head("a", 5)), Vouching::Unknown);
    }

    #[test]
    fn a_digest_keeps_its_bytes() {
        let text = Digest::of(b"x");
        assert_eq!(Digest::from_bytes(&bytes(&text)), text);
    }
}
