//! Where secrets stand, and what is written in their place.

use crate::kind::Kind;

/// One secret: `start < end`, indices of bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: usize,
    pub(crate) end: usize,
    pub(crate) kind: Kind,
}

/// Spans in order, none overlapping. Those that overlap become one: it reaches as far as they do together, so that no
/// part of any is left, and is of the kind of the one that begins first (then: of the longest, then: the most
/// particular).
pub(crate) fn merge(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable_by(|a, b| (a.start, b.end, a.kind).cmp(&(b.start, a.end, b.kind)));
    let mut merged: Vec<Span> = Vec::with_capacity(spans.len());
    for span in spans {
        match merged.last_mut() {
            Some(last) if span.start < last.end => last.end = last.end.max(span.end),
            _ => merged.push(span),
        }
    }
    merged
}

/// Keeps what stands at or after `from`, counted from there.
pub(crate) fn within(spans: &mut Vec<Span>, from: usize) {
    spans.retain(|span| span.end > from);
    for span in spans {
        span.start = span.start.saturating_sub(from);
        span.end -= from;
    }
}

/// The bytes with a mark in the place of each span.
pub(crate) fn replace(bytes: &[u8], spans: &[Span]) -> Vec<u8> {
    let change = |span: &Span| {
        (
            crate::kind::MARK.len() + span.kind.name().len() + 1,
            span.end - span.start,
        )
    };
    let (marks, secrets) = spans
        .iter()
        .map(change)
        .fold((0, 0), |sum, (mark, len)| (sum.0 + mark, sum.1 + len));
    let mut shown = Vec::with_capacity(bytes.len() - secrets + marks);
    let mut done = 0;
    for span in spans {
        shown.extend_from_slice(&bytes[done..span.start]);
        shown.extend_from_slice(crate::kind::MARK.as_bytes());
        shown.extend_from_slice(span.kind.name().as_bytes());
        shown.push(b']');
        done = span.end;
    }
    shown.extend_from_slice(&bytes[done..]);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn span(start: usize, end: usize, kind: Kind) -> Span {
        Span { start, end, kind }
    }

    #[test]
    fn spans_that_overlap_become_one_of_the_first_ones_kind_and_touching_ones_stay_two() {
        let merged = merge(vec![
            span(8, 12, Kind::Jwt),
            span(2, 9, Kind::Password),
            span(2, 5, Kind::Jwt),
            span(12, 14, Kind::Token),
        ]);
        assert_eq!(merged, [span(2, 12, Kind::Password), span(12, 14, Kind::Token)]);
    }

    #[test]
    fn a_span_across_the_start_of_the_range_keeps_its_part_within() {
        let mut spans = vec![
            span(0, 4, Kind::Token),
            span(5, 12, Kind::Jwt),
            span(15, 16, Kind::Token),
        ];
        within(&mut spans, 10);
        assert_eq!(spans, [span(0, 2, Kind::Jwt), span(5, 6, Kind::Token)]);
    }
}
