//! Patterns: what is linted is what runs, and it takes time that is linear in the text.
//!
//! `\d`, `\w` and `\s` are those of ECMA-262, from which JSON Schema has its patterns, and everything else is read as the
//! `regex` crate reads it. What the two read so differently that a class could end elsewhere is refused.

use regex_automata::nfa::thompson::{NFA, pikevm::PikeVM};
use regex_syntax::ast::parse::Parser;
use regex_syntax::ast::{self, Ast, ClassPerl, ClassPerlKind, ClassSetItem, Literal, LiteralKind, SpecialLiteralKind};
use regex_syntax::hir::Look;

use crate::text;

/// Longest pattern, in bytes.
const MAX_PATTERN: usize = 512;
/// The largest program that a pattern may compile to, in bytes.
const MAX_PROGRAM: usize = 1 << 20;

const NOT_UNDERSTOOD: &str = "is not understood by the linear-time engine (no look-around, no back-references)";
const AMBIGUOUS: &str = "has \\a, or a class with a [ or &&, -- or ~~ in it: readers differ about these";

/// A pattern that is anchored at both ends in every alternative, and its program.
///
/// The engine is the plainest there is, without a cache that outlives the match: most processes match one short text.
#[derive(Debug, Clone)]
pub(super) struct Pattern {
    text: String,
    program: PikeVM,
}

impl Pattern {
    /// Lints and compiles.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.len() > MAX_PATTERN {
            return Err(format!("is longer than {MAX_PATTERN} bytes"));
        }
        if let Some(hidden) = text::hidden(text) {
            return Err(format!(
                "has a character that is not shown, {}",
                hidden.escape_unicode()
            ));
        }
        let parsed = regex_syntax::parse(&with_ecma_classes(text)?).map_err(|_| NOT_UNDERSTOOD)?;
        let at = parsed.properties();
        if !at.look_set_prefix().contains(Look::Start) || !at.look_set_suffix().contains(Look::End) {
            return Err(
                "must be anchored: ^ at the start and $ at the end of every alternative, as in ^(?:a|b)$".into(),
            );
        }
        let program = NFA::compiler()
            .configure(NFA::config().nfa_size_limit(Some(MAX_PROGRAM)))
            .build_from_hir(&parsed)
            .and_then(PikeVM::new_from_nfa)
            .map_err(|error| format!("does not compile: {}", text::quoted(&error.to_string())))?;
        let text = text.to_owned();
        Ok(Self { text, program })
    }

    /// As the manifest has it.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the whole of a text is what the pattern says.
    pub(super) fn matches(&self, found: &str) -> bool {
        self.program.is_match(&mut self.program.create_cache(), found)
    }
}

/// The same pattern, with the classes of ECMA-262 written out.
fn with_ecma_classes(pattern: &str) -> Result<String, &'static str> {
    let ast = Parser::new().parse(pattern).map_err(|_| NOT_UNDERSTOOD)?;
    let found = ast::visit(
        &ast,
        Classes {
            pattern,
            found: Vec::new(),
        },
    )?;
    let mut written = pattern.to_owned();
    // From the end, so that the offsets of those before stay right.
    for class in found.into_iter().rev() {
        written.replace_range(class.span.start.offset..class.span.end.offset, ecma(&class));
    }
    Ok(written)
}

fn ecma(class: &ClassPerl) -> &'static str {
    match (&class.kind, class.negated) {
        (ClassPerlKind::Digit, false) => "[0-9]",
        (ClassPerlKind::Digit, true) => "[^0-9]",
        (ClassPerlKind::Word, false) => "[A-Za-z0-9_]",
        (ClassPerlKind::Word, true) => "[^A-Za-z0-9_]",
        (ClassPerlKind::Space, false) => r"[\t-\r\x20\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000\uFEFF]",
        (ClassPerlKind::Space, true) => r"[^\t-\r\x20\u00A0\u1680\u2000-\u200A\u2028\u2029\u202F\u205F\u3000\uFEFF]",
    }
}

/// Gathers `\d`, `\w`, `\s` and their opposites from left to right, and refuses what is ambiguous.
struct Classes<'p> {
    pattern: &'p str,
    found: Vec<ClassPerl>,
}

impl ast::Visitor for Classes<'_> {
    type Output = Vec<ClassPerl>;
    type Err = &'static str;

    fn finish(self) -> Result<Vec<ClassPerl>, &'static str> {
        Ok(self.found)
    }

    fn visit_pre(&mut self, ast: &Ast) -> Result<(), &'static str> {
        match ast {
            Ast::ClassPerl(class) => self.found.push((**class).clone()),
            Ast::Literal(literal) if is_bell(literal) => return Err(AMBIGUOUS),
            Ast::ClassBracketed(class) => {
                let class = self.pattern.get(class.span.start.offset..class.span.end.offset);
                if class.is_none_or(|class| ["&&", "--", "~~"].iter().any(|operator| class.contains(operator))) {
                    return Err(AMBIGUOUS);
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn visit_class_set_item_pre(&mut self, item: &ClassSetItem) -> Result<(), &'static str> {
        match item {
            ClassSetItem::Perl(class) => self.found.push(class.clone()),
            ClassSetItem::Literal(literal) if is_bell(literal) => return Err(AMBIGUOUS),
            ClassSetItem::Ascii(_) | ClassSetItem::Bracketed(_) => return Err(AMBIGUOUS),
            _ => {}
        }
        Ok(())
    }
}

/// `\a`, which is the letter to some.
fn is_bell(literal: &Literal) -> bool {
    literal.kind == LiteralKind::Special(SpecialLiteralKind::Bell)
}
