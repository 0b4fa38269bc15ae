//! Secrets that say themselves what they are: a prefix and a run of one class.

use std::ops::Range;

use crate::bytes::{BASE64, BASE64_URL, Class, Text};

/// A run behind a literal.
pub(crate) struct Run {
    pub(crate) class: &'static Class,
    /// How long it is at least. Shorter ones are other things, except at a cut end.
    pub(crate) least: usize,
    /// Whether it is exactly so long.
    pub(crate) exact: bool,
    /// Whether a word has to begin at the literal.
    pub(crate) word: bool,
    /// Whether the literal stays and only the run is the secret.
    pub(crate) keeps: bool,
}

impl Run {
    pub(crate) const fn new(class: &'static Class, least: usize) -> Run {
        Run {
            class,
            least,
            exact: false,
            word: false,
            keeps: false,
        }
    }

    pub(crate) const fn exact(mut self) -> Run {
        self.exact = true;
        self
    }

    pub(crate) const fn word(mut self) -> Run {
        self.word = true;
        self
    }

    pub(crate) const fn keeps(mut self) -> Run {
        self.keeps = true;
        self
    }
}

/// The secret whose literal stands at `literal`. `begins` is whether a word begins there.
pub(crate) fn token(text: Text, literal: Range<usize>, run: &Run, begins: bool) -> Option<Range<usize>> {
    if run.word && !begins {
        return None;
    }
    // Bounded until it is long enough: a run that is refused is not read to its end.
    let enough = text.run(literal.end, run.class, run.least);
    let cut = text.is_cut(enough) && enough > literal.end;
    if enough - literal.end < run.least && !cut {
        return None;
    }
    let end = text.run(enough, run.class, if run.exact { 1 } else { usize::MAX });
    if run.exact && end > enough {
        return None;
    }
    let start = if run.keeps { literal.end } else { literal.start };
    Some(start..end)
}

/// A JSON web token, signed (three parts) or encrypted (five, of which some may be empty). `at` is at its `eyJ`.
///
/// Only where a word begins: else each `eyJ` within a long run would read the run to its end.
pub(crate) fn jwt(text: Text, at: usize, begins: bool) -> Option<Range<usize>> {
    if !begins {
        return None;
    }
    let mut end = text.run(at, &BASE64_URL, usize::MAX);
    if text.is_cut(end) {
        return Some(at..end);
    }
    let mut dots = 0;
    while dots < 4 && text.at(end) == Some(b'.') {
        let next = text.run(end + 1, &BASE64_URL, usize::MAX);
        let empty = next == end + 1;
        if empty && !(text.at(next) == Some(b'.') && dots == 0) && !text.is_cut(next) {
            break;
        }
        end = next;
        dots += 1;
    }
    let long = end - at >= 24;
    ((dots >= 2 && long) || text.is_cut(end)).then_some(at..end)
}

/// How far from an access key id its secret is looked for.
const NEAR: usize = 256;

/// The secrets that belong to the AWS access key id at `id`: 40 of base64 between other bytes. Nothing before `done` is
/// looked at again. Returns how far it has looked.
pub(crate) fn aws_secrets(text: Text, id: Range<usize>, done: usize, mut found: impl FnMut(Range<usize>)) -> usize {
    const LEN: usize = 40;
    let from = id.start.saturating_sub(NEAR);
    // A run that began before the window is not one of 40 in it.
    let within = text.before(from).last().is_some_and(|&byte| BASE64.has(byte));
    let mut at = text.run(from, &BASE64, if within { NEAR } else { 0 }).max(done);
    let stop = text.len().min(id.end + NEAR);
    while at < stop {
        let end = text.run(at, &BASE64, usize::MAX);
        let run = &text.bytes()[at..end];
        let whole = run.len() == LEN;
        let part = (8..LEN).contains(&run.len()) && text.is_cut(end);
        let mixed = [u8::is_ascii_uppercase, u8::is_ascii_lowercase, u8::is_ascii_digit];
        if (whole || part) && mixed.iter().all(|class| run.iter().any(class)) {
            found(at..end);
        }
        at = end + 1;
    }
    at.min(text.len())
}
