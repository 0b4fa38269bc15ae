//! The story: literals are found in one pass, each is read by its rule, and the spans are put in order.
//!
//! Linear, because each rule either decides within a bounded distance of its literal or takes what it has read, and
//! `Seen` keeps it from reading that again.

use std::ops::Range;
use std::sync::LazyLock;

use aho_corasick::{AhoCorasick, AhoCorasickKind, MatchKind, StartKind};

use crate::End;
use crate::block;
use crate::bytes::Text;
use crate::kind::Kind;
use crate::pair::{self, Done};
use crate::rules::{RULES, Shape};
use crate::span::{Span, merge};
use crate::token;
use crate::url;

/// All literals. Not the DFA, which takes three times as long to build and as much memory as everything else here, and is
/// faster by a sixth: most processes that read one log are over before that is earned.
#[expect(clippy::expect_used, reason = "the literals are constants, and the tests build it")]
static LITERALS: LazyLock<AhoCorasick> = LazyLock::new(|| {
    AhoCorasick::builder()
        .ascii_case_insensitive(true)
        .match_kind(MatchKind::Standard)
        .start_kind(StartKind::Unanchored)
        .kind(Some(AhoCorasickKind::ContiguousNFA))
        .build(RULES.iter().map(|rule| rule.literal))
        .expect("a few hundred bytes of literals")
});

/// What has been found so far, and how far each rule has taken what it read.
struct Seen {
    /// By rule: where its last secret ended.
    rules: [usize; RULES.len()],
    pairs: usize,
    aws: usize,
    /// Where the private key begins whose end has not come yet.
    block: Option<usize>,
    /// Where the last secret ended: a mark will stand before it, so a word can begin there.
    last: usize,
}

/// The secrets in a text: in order, none overlapping.
pub(crate) fn secrets(text: Text) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut seen = Seen {
        rules: [0; RULES.len()],
        pairs: 0,
        aws: 0,
        block: None,
        last: 0,
    };
    let span = |kind, range: Range<usize>| Span {
        start: range.start,
        end: range.end,
        kind,
    };
    for hit in LITERALS.find_overlapping_iter(text.bytes()) {
        let index = hit.pattern().as_usize();
        let Some(range) = seen.find(text, index, hit.start()..hit.end()) else {
            continue;
        };
        let rule = &RULES[index];
        seen.take(index, &rule.shape, &range);
        if matches!(&rule.shape, Shape::Token(run) if run.exact) {
            seen.aws = token::aws_secrets(text, range.clone(), seen.aws, |near| spans.push(span(rule.kind, near)));
        }
        spans.push(span(rule.kind, range));
    }
    spans.extend(seen.block.map(|start| span(Kind::PrivateKey, start..text.len())));
    merge(spans)
}

impl Seen {
    /// The secret that the literal of a rule tells of.
    fn find(&mut self, text: Text, index: usize, literal: Range<usize>) -> Option<Range<usize>> {
        let rule = &RULES[index];
        let done = Done {
            pairs: self.pairs,
            all: self.last,
        };
        let begins = || literal.start == self.last || text.begins_word(literal.start);
        let exact = || text.bytes()[literal.clone()] == *rule.literal.as_bytes() && literal.start >= self.rules[index];
        match &rule.shape {
            Shape::Token(run) if exact() => token::token(text, literal.clone(), run, begins()),
            Shape::Jwt if exact() => token::jwt(text, literal.start, begins()),
            Shape::BlockBegin if exact() => {
                if block::private_line(text, literal.end).is_some() {
                    self.block.get_or_insert(literal.start);
                }
                None
            }
            Shape::BlockEnd if exact() => {
                let end = block::private_line(text, literal.end)?;
                let start = self.block.take().or_else(|| block::body_before(text, literal.start))?;
                Some(start..end)
            }
            Shape::Token(_) | Shape::Jwt | Shape::BlockBegin | Shape::BlockEnd => None,
            Shape::Pair(key) => pair::pair(text, literal, key, done),
            Shape::Authorization => pair::authorization(text, literal, done),
            Shape::Cookie => pair::cookie(text, literal, done),
            Shape::Bearer if begins() => pair::bearer(text, literal, done),
            Shape::Bearer => None,
            Shape::Url => url::password(text, literal.end),
        }
    }

    /// Notes that a rule has taken a secret.
    fn take(&mut self, index: usize, shape: &Shape, secret: &Range<usize>) {
        self.rules[index] = secret.end;
        self.last = self.last.max(secret.end);
        if matches!(
            shape,
            Shape::Pair(_) | Shape::Authorization | Shape::Cookie | Shape::Bearer
        ) {
            self.pairs = self.pairs.max(secret.end);
        }
    }
}

/// What kind of secret `argument` is because it follows `flag`.
pub(crate) fn after_flag(flag: &str, argument: &str) -> Option<Kind> {
    if argument.is_empty() || argument.starts_with('-') {
        return None;
    }
    let text = Text::new(flag.as_bytes(), End::Whole);
    LITERALS.find_overlapping_iter(flag).find_map(|hit| {
        let rule = &RULES[hit.pattern().as_usize()];
        match &rule.shape {
            Shape::Pair(key) if pair::is_flag(text, hit.start()..hit.end(), key) => Some(rule.kind),
            _ => None,
        }
    })
}
