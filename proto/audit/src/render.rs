//! Reports and replays as text for people. Every text that comes from a record or a file name is escaped.

use std::fmt::Write as _;

use crate::record::{Decision, Draft, Output, Tier};
use crate::replay::{Call, Replay, Step};
use crate::show::escape;
use crate::verify::{Fault, LogReport, Report};

/// A report, a line per log and fault.
#[must_use]
pub fn report(report: &Report) -> String {
    let mut text = String::new();
    let rows: Vec<_> = report.logs.iter().map(log_row).collect();
    text.push_str(&table("", &rows));
    for fault in &report.faults {
        let _ = writeln!(text, "FAULT  {}", fault_text(fault));
    }
    text.push_str(if report.ok { "verified\n" } else { "NOT verified\n" });
    text
}

/// A replay.
#[must_use]
pub fn replay(replay: &Replay) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "task   {}", replay.task_id);
    if let Some(requester) = &replay.requester {
        let _ = writeln!(
            text,
            "who    {} for {} (known by: {})",
            requester.brain,
            requester.person,
            requester.proof.as_str()
        );
    }
    if let Some(reason) = &replay.reason {
        let _ = writeln!(text, "why    {}", escape(reason.as_str()));
    }
    text.push_str("\nlogs\n");
    text.push_str(&table("  ", &replay.logs.iter().map(log_row).collect::<Vec<_>>()));
    for fault in &replay.faults {
        let _ = writeln!(text, "  FAULT  {}", fault_text(fault));
    }
    if !replay.timeline.is_empty() {
        text.push_str("\ntimeline\n");
        text.push_str(&table("  ", &replay.timeline.iter().map(step_row).collect::<Vec<_>>()));
    }
    if !replay.calls.is_empty() {
        text.push_str("\ncalls\n");
    }
    for call in &replay.calls {
        call_text(&mut text, call);
    }
    if !replay.notes.is_empty() {
        text.push_str("\nnotes\n");
    }
    for note in &replay.notes {
        let _ = writeln!(text, "  {}", escape(note));
    }
    text
}

/// Columns as wide as their widest cell, two spaces apart; the last one as it is.
fn table(indent: &str, rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
    };
    let widths: Vec<_> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = indent.to_owned();
        for (cell, width) in row.iter().zip(&widths) {
            let _ = write!(line, "{cell:<width$}  ");
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

fn log_row(log: &LogReport) -> Vec<String> {
    let verdict = match &log.fault {
        None => "ok".to_owned(),
        Some(fault) => format!("FAULT: {}", fault_text(fault)),
    };
    let last = log.head.as_ref().map_or(0, |head| head.seq);
    let mut extra = match &log.head {
        Some(head) => format!("head {}", head.hash),
        None => String::new(),
    };
    if log.torn_writes > 0 {
        let _ = write!(extra, ", {} torn writes set aside", log.torn_writes);
    }
    if let Some(torn) = &log.torn_tail {
        let _ = write!(extra, ", torn tail of {} bytes, not acknowledged", torn.bytes);
    }
    vec![
        log.tier.map_or("?", Tier::as_str).to_owned(),
        escape(log.host.as_deref().unwrap_or("?")),
        log.log.as_ref().map_or_else(|| "?".to_owned(), ToString::to_string),
        format!("records {}..{last}", log.first_seq.unwrap_or(0)),
        verdict,
        extra,
    ]
}

fn fault_text(fault: &Fault) -> String {
    let mut text = fault.kind.as_str().to_owned();
    if let Some(seq) = fault.seq {
        let _ = write!(text, " at record {seq}");
    }
    if let Some(segment) = &fault.segment {
        let _ = write!(text, " in {}", escape(&segment.to_string_lossy()));
    }
    let _ = write!(text, ": {}", escape(&fault.what));
    text
}

fn step_row(step: &Step) -> Vec<String> {
    vec![
        escape(&step.ts),
        step.tier.as_str().to_owned(),
        escape(&step.host),
        format!("#{}", step.head.seq),
        step.record.event.as_str().to_owned(),
        told(&step.record),
    ]
}

/// What a record says beside when, where and what kind: as many words as fit a line.
fn told(draft: &Draft) -> String {
    let mut words = Vec::new();
    words.extend(draft.action.as_ref().map(ToString::to_string));
    words.extend(draft.target.as_ref().map(|target| format!("on {target}")));
    words.extend(draft.actions.as_ref().map(|actions| {
        let names: Vec<_> = actions.iter().map(|action| action.as_str()).collect();
        format!("for {}", names.join(", "))
    }));
    words.extend(draft.decision.map(|decision| match decision {
        Decision::Allow => "allow".to_owned(),
        Decision::Deny => "deny".to_owned(),
    }));
    words.extend(draft.approval.as_ref().map(|approval| {
        let (state, held, needed) = (approval.state.as_str(), approval.held, approval.needed);
        format!("{state}, {held} of {needed}")
    }));
    words.extend(
        draft
            .approval
            .as_ref()
            .and_then(|approval| approval.fingerprint.as_ref())
            .map(|key| format!("by {key}")),
    );
    words.extend(draft.status.map(|status| status.as_str().to_owned()));
    words.extend(draft.code.map(|code| code.as_str().to_owned()));
    words.extend(draft.exit_code.map(|code| format!("exit {code}")));
    words.extend(draft.signal.map(|signal| format!("signal {signal}")));
    words.extend(draft.duration_ms.map(|ms| format!("{ms} ms")));
    words.extend(draft.output.as_ref().map(|output| format!("{} bytes", output.bytes)));
    words.extend(draft.cert.as_ref().map(|cert| format!("certificate {}", cert.serial)));
    words.extend(draft.request_id.as_ref().map(|id| format!("request {id}")));
    words.join("  ")
}

fn call_text(text: &mut String, call: &Call) {
    let unknown = || "?".to_owned();
    let _ = writeln!(text, "  request      {}", call.request_id);
    let mut line = |name: &str, what: Option<String>| {
        if let Some(what) = what {
            let _ = writeln!(text, "    {name:<10} {what}");
        }
    };
    let action = call.action.as_ref().map_or_else(unknown, ToString::to_string);
    let target = call.target.as_ref().map_or_else(unknown, ToString::to_string);
    let risk = call
        .risk
        .map(|risk| format!(" ({})", risk.as_str()))
        .unwrap_or_default();
    let mode = call.mode.map(|mode| format!(", {}", mode.as_str())).unwrap_or_default();
    line("action", Some(format!("{action}{risk} on {target}{mode}")));
    line(
        "requester",
        call.requester
            .as_ref()
            .map(|who| format!("{} for {}", who.brain, who.person)),
    );
    line("reason", call.reason.as_ref().map(|reason| escape(reason.as_str())));
    line(
        "argv",
        call.argv
            .as_ref()
            .map(|argv| argv.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ")),
    );
    line(
        "approved",
        call.approvals.as_ref().map(|approvals| {
            let by: Vec<_> = approvals
                .iter()
                .map(|a| format!("{} ({}, {})", a.principal, escape(&a.kind), a.fingerprint))
                .collect();
            by.join(", ")
        }),
    );
    let codes: Vec<_> = call.codes.iter().map(|code| code.as_str()).collect();
    let mut end = vec![call.status.map_or("not recorded", |status| status.as_str()).to_owned()];
    end.extend(call.exit_code.map(|code| format!("exit {code}")));
    end.extend(call.signal.map(|signal| format!("signal {signal}")));
    end.extend(call.duration_ms.map(|ms| format!("{ms} ms")));
    line("status", Some(end.join(", ")));
    line("code", (!codes.is_empty()).then(|| codes.join(", ")));
    line("message", call.message.as_deref().map(escape));
    let stream = |output: &Output| format!("{} bytes, sha256 {}", output.bytes, output.sha256);
    line("output", call.output.as_ref().map(stream));
    line("stderr", call.stderr.as_ref().map(stream));
    line("serial", call.serial.as_ref().map(ToString::to_string));
}

/// An argument so that its ends can be seen.
fn quote(word: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@,+%".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.to_owned()
    } else {
        format!("'{}'", escape(word))
    }
}
