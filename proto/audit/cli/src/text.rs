//! What a report says beside its verdict, for people: who vouches for which log, and what stays open.

use std::fmt::Write as _;

use audit::show::escape;
use audit::{LogReport, Report};

/// A line per log, and one per note.
pub(crate) fn vouching(report: &Report) -> String {
    let mut text = String::new();
    for log in report.logs.iter().filter(|log| log.records > 0) {
        let by: Vec<_> = log
            .vouched
            .iter()
            .map(|vouched| {
                let by = report
                    .logs
                    .iter()
                    .find(|other| vouched.by.is_some() && other.log == vouched.by);
                let by = by.map_or_else(|| "the heads given".to_owned(), name);
                format!("up to {} by {by}", vouched.seq)
            })
            .collect();
        let by = if by.is_empty() {
            "by nobody".to_owned()
        } else {
            by.join(", ")
        };
        let _ = writeln!(
            text,
            "{} is vouched for {by}; {} of {} records nobody else has seen",
            name(log),
            log.unwitnessed,
            log.records
        );
    }
    for note in &report.notes {
        let _ = writeln!(text, "note: {}", escape(note));
    }
    text
}

fn name(log: &LogReport) -> String {
    let tier = log.tier.map_or("?", |tier| tier.as_str());
    format!("{tier} {}", escape(log.host.as_deref().unwrap_or("?")))
}
