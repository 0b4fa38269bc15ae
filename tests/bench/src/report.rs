//! The rows: one comparison each, with its raw samples, in `results.jsonl`; what its runs were made of, in `steps.jsonl`
//! beside it; and the table that a person reads.
//!
//! A row whose runs were not all looked at and found right is refused: it would be worth nothing, and nobody would see it.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use crate::sample::Samples;

/// Which side of its goal a figure has to be on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Better {
    /// At most the goal.
    Less,
    /// At least the goal.
    More,
}

/// One comparison: ours with a peer's, or ours with nothing but its goal.
#[derive(Clone, Debug)]
pub struct Row {
    /// The bench.
    pub name: &'static str,
    /// What was measured.
    pub variant: &'static str,
    /// With whom ours is compared.
    pub peer: Option<&'static str>,
    /// The unit of the samples: `ms`, `bytes`, …
    pub unit: &'static str,
    /// Our samples.
    pub ours: Samples,
    /// The peer's, of the same run; there exactly where there is a peer.
    pub theirs: Option<Samples>,
    /// What the value is to reach.
    pub goal: f64,
    /// From which side.
    pub better: Better,
}

impl Row {
    /// Times in ms beside a peer's: their ratio is to be at most the goal.
    #[must_use]
    pub fn beside(
        name: &'static str,
        variant: &'static str,
        (peer, goal): (&'static str, f64),
        ours: Samples,
        theirs: Samples,
    ) -> Row {
        Row {
            name,
            variant,
            peer: Some(peer),
            unit: "ms",
            ours,
            theirs: Some(theirs),
            goal,
            better: Better::Less,
        }
    }

    /// The median of ours, divided by the median of theirs where there is a peer.
    #[must_use]
    pub fn value(&self) -> Option<f64> {
        let ours = self.ours.median()?;
        match &self.theirs {
            None => Some(ours),
            Some(theirs) => theirs
                .median()
                .filter(|theirs| *theirs > 0.0)
                .map(|theirs| ours / theirs),
        }
    }

    /// Whether every sample of both sides was found right.
    #[must_use]
    pub fn checked(&self) -> bool {
        self.ours.checked() && self.theirs.as_ref().is_none_or(Samples::checked)
    }

    /// Whether the value reaches the goal.
    #[must_use]
    pub fn met(&self) -> bool {
        self.value().is_some_and(|value| match self.better {
            Better::Less => value <= self.goal,
            Better::More => value >= self.goal,
        })
    }

    fn json(&self, at: &str, machine: &str) -> Value {
        json!({
            "name": self.name, "variant": self.variant, "peer": self.peer, "unit": self.unit,
            "ours": self.ours.values(), "theirs": self.theirs.as_ref().map(Samples::values),
            "value": self.value(), "goal": self.goal,
            "better": match self.better { Better::Less => "less", Better::More => "more" },
            "n": self.ours.values().len(), "checked": self.checked(), "at": at, "machine": machine,
        })
    }

    fn steps_json(&self) -> impl Iterator<Item = Value> {
        let sides = [("ours", Some(&self.ours)), ("theirs", self.theirs.as_ref())];
        sides.into_iter().flat_map(move |(side, samples)| {
            samples
                .into_iter()
                .flat_map(|samples| samples.steps())
                .map(move |(step, values)| {
                    json!({
                        "name": self.name, "variant": self.variant, "side": side, "step": step,
                        "unit": self.unit, "samples": values,
                    })
                })
        })
    }
}

/// What the benches of one run found.
#[derive(Debug)]
pub struct Report {
    folder: PathBuf,
    rows: Vec<Row>,
    absent: Vec<String>,
}

impl Report {
    /// A report into this folder, which is made where it is missing.
    pub fn new(folder: &Path) -> Result<Report> {
        fs::create_dir_all(folder).with_context(|| format!("failed to make {}", folder.display()))?;
        Ok(Report {
            folder: folder.to_owned(),
            rows: Vec::new(),
            absent: Vec::new(),
        })
    }

    /// The folder, on a real disk.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Says in the table that a peer has no rows, and why.
    pub fn absent(&mut self, name: &str, peer: &str, why: &anyhow::Error) {
        self.absent.push(format!("{name}: no rows against {peer}: {why:#}"));
    }

    /// Takes a row. One whose check was lost is an error that says what was wrong with its runs.
    pub fn add(&mut self, row: Row) -> Result<()> {
        ensure!(
            row.theirs.is_some() == row.peer.is_some(),
            "{}, {}: samples of a peer go with its name",
            row.name,
            row.variant
        );
        let sides = [Some(&row.ours), row.theirs.as_ref()].into_iter().flatten();
        let faults: Vec<&str> = sides.flat_map(Samples::faults).map(String::as_str).collect();
        ensure!(
            row.checked(),
            "{}, {}: {} runs were not what they had to be: {}",
            row.name,
            row.variant,
            faults.len(),
            faults.first().unwrap_or(&"there was none")
        );
        ensure!(row.value().is_some(), "{}, {}: no value", row.name, row.variant);
        self.rows.push(row);
        Ok(())
    }

    /// Forgets what earlier runs found of this bench: one that fails has no rows.
    pub fn begin(&mut self, name: &str) -> Result<()> {
        self.rows.retain(|row| row.name != name);
        self.replace(name, "results.jsonl", std::iter::empty())?;
        self.replace(name, "steps.jsonl", std::iter::empty())
    }

    /// Writes the rows of a bench. Those of other benches stay as they are.
    pub fn write(&self, name: &str, at: &str, machine: &str) -> Result<()> {
        let rows = || self.rows.iter().filter(|row| row.name == name);
        self.replace(name, "results.jsonl", rows().map(|row| row.json(at, machine)))?;
        self.replace(name, "steps.jsonl", rows().flat_map(Row::steps_json))
    }

    /// How many rows there are, and how many of them miss their goals.
    #[must_use]
    pub fn missed(&self) -> (usize, usize) {
        (self.rows.len(), self.rows.iter().filter(|row| !row.met()).count())
    }

    /// The table, and below it the medians of what runs were made of.
    #[must_use]
    pub fn table(&self) -> String {
        let mut cells = vec![["bench", "variant", "n", "ours", "p99", "peer", "value", "goal", ""].map(str::to_owned)];
        for row in &self.rows {
            let peer = match (row.peer, &row.theirs) {
                (Some(name), Some(theirs)) => format!("{name} {}", figure(theirs.median(), row.unit)),
                _ => "-".to_owned(),
            };
            let unit = if row.theirs.is_some() { "ratio" } else { row.unit };
            let sign = match row.better {
                Better::Less => "≤",
                Better::More => "≥",
            };
            cells.push([
                row.name.to_owned(),
                row.variant.to_owned(),
                row.ours.values().len().to_string(),
                figure(row.ours.median(), row.unit),
                figure(row.ours.p99(), row.unit),
                peer,
                figure(row.value(), unit),
                format!("{sign} {}", figure(Some(row.goal), unit)),
                if row.met() { "met" } else { "MISSED" }.to_owned(),
            ]);
        }
        let mut text = columns(&cells);
        for row in &self.rows {
            for (step, values) in row.ours.steps() {
                let (median, p99) = (crate::statistic::median(values), crate::statistic::p99(values));
                text.push_str(&format!(
                    "  {}: {step}: {} (p99 {})\n",
                    row.variant,
                    figure(median, row.unit),
                    figure(p99, row.unit)
                ));
            }
        }
        for absent in &self.absent {
            text.push_str(&format!("{absent}\n"));
        }
        text
    }

    /// Writes a file anew: the lines of other benches as they are, then these.
    fn replace(&self, name: &str, file: &str, lines: impl Iterator<Item = Value>) -> Result<()> {
        let path = self.folder.join(file);
        let before = match fs::read_to_string(&path) {
            Ok(before) => before,
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error).with_context(|| format!("failed to read {}", path.display())),
        };
        let of_others = |line: &&str| {
            let line: Value = serde_json::from_str(line).unwrap_or_default();
            line.get("name").is_some_and(|other| other != name)
        };
        let mut text: String = before
            .lines()
            .filter(of_others)
            .map(|line| format!("{line}\n"))
            .collect();
        text.extend(lines.map(|line| format!("{line}\n")));
        let new = path.with_extension("new");
        fs::write(&new, text).with_context(|| format!("failed to write {}", new.display()))?;
        fs::rename(&new, &path).with_context(|| format!("failed to replace {}", path.display()))
    }
}

/// A figure as a person reads it: whole bytes in groups of three, times and ratios with three decimals.
fn figure(value: Option<f64>, unit: &str) -> String {
    let Some(value) = value else {
        return "-".to_owned();
    };
    match unit {
        "ratio" => format!("{value:.3}"),
        "ms" => format!("{value:.3} ms"),
        _ => {
            let digits = format!("{value:.0}");
            let mut grouped = String::new();
            for (index, digit) in digits.chars().enumerate() {
                if index > 0 && (digits.len() - index).is_multiple_of(3) {
                    grouped.push(',');
                }
                grouped.push(digit);
            }
            format!("{grouped} {unit}")
        }
    }
}

fn columns<const N: usize>(cells: &[[String; N]]) -> String {
    let width = |column: usize| {
        let lengths = cells.iter().filter_map(|row| row.get(column));
        lengths.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..N).map(width).collect();
    let line = |row: &[String; N]| {
        let padded = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        format!("{}\n", padded.collect::<Vec<_>>().join("  ").trim_end())
    };
    cells.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::{End, Run};

    fn samples(values: &[f64]) -> Samples {
        let mut samples = Samples::default();
        for value in values {
            samples.take(Run::new(*value, Ok(())).step("half", value / 2.0));
        }
        samples
    }

    fn row(name: &'static str, ours: &[f64], theirs: Option<&[f64]>, goal: f64) -> Row {
        Row {
            name,
            variant: "a variant",
            peer: theirs.map(|_| "a peer"),
            unit: "ms",
            ours: samples(ours),
            theirs: theirs.map(samples),
            goal,
            better: Better::Less,
        }
    }

    fn folder(test: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("writ-bench-{}-{test}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        path
    }

    fn lines(folder: &Path, file: &str) -> Vec<Value> {
        let text = fs::read_to_string(folder.join(file)).unwrap();
        assert!(text.is_empty() || text.ends_with('\n'));
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn rows_are_well_formed_and_hold_their_raw_samples() {
        let folder = folder("rows");
        let mut report = Report::new(&folder).unwrap();
        report.add(row("one", &[3.0, 1.0, 2.0], None, 2.0)).unwrap();
        report.add(row("one", &[3.0, 1.0], Some(&[4.0, 4.0]), 0.4)).unwrap();
        report.write("one", "2026-01-01T00:00:00.000Z", "a machine").unwrap();
        let rows = lines(&folder, "results.jsonl");
        assert_eq!(rows.len(), 2);
        for row in &rows {
            let keys: Vec<&str> = row.as_object().unwrap().keys().map(String::as_str).collect();
            let wanted = [
                "at", "better", "checked", "goal", "machine", "n", "name", "ours", "peer", "theirs", "unit", "value",
                "variant",
            ];
            let mut sorted = keys.clone();
            sorted.sort_unstable();
            assert_eq!(sorted, wanted);
            assert_eq!(row["n"].as_u64().unwrap(), row["ours"].as_array().unwrap().len() as u64);
            assert_eq!(row["checked"], true);
            assert!(row["value"].is_f64() && row["goal"].is_f64());
        }
        assert_eq!(rows[0]["ours"], json!([3.0, 1.0, 2.0]));
        assert_eq!((&rows[0]["peer"], &rows[0]["theirs"]), (&Value::Null, &Value::Null));
        assert_eq!((&rows[0]["value"], &rows[1]["value"]), (&json!(2.0), &json!(0.5)));
        assert_eq!(lines(&folder, "steps.jsonl").len(), 3);
        assert_eq!(report.missed(), (2, 1));
        let table = report.table();
        report.absent("one", "another peer", &anyhow::anyhow!("not installed"));
        let last = "one: no rows against another peer: not installed\n";
        assert!(report.table().ends_with(last));
        assert!(table.contains("MISSED") && table.contains("a peer 4.000 ms"), "{table}");
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_row_that_lost_its_check_is_refused_on_either_side() {
        let folder = folder("unchecked");
        let mut report = Report::new(&folder).unwrap();
        let killed = End { bytes: 5, exit: None };
        for ours in [true, false] {
            let mut bad = row("one", &[1.0], Some(&[1.0]), 1.0);
            let side = if ours {
                &mut bad.ours
            } else {
                bad.theirs.as_mut().unwrap()
            };
            side.take(Run::new(0.1, killed.is(End::fine(5))));
            assert!(!bad.checked());
            assert_eq!(bad.json("", "")["checked"], false);
            let refused = report.add(bad).unwrap_err().to_string();
            assert!(refused.contains("1 runs were not what they had to be"), "{refused}");
        }
        assert!(report.add(row("one", &[], None, 1.0)).is_err());
        assert_eq!(report.missed(), (0, 0));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_bench_replaces_its_own_rows_and_one_that_fails_has_none() {
        let folder = folder("replace");
        for values in [&[1.0][..], &[2.0]] {
            let mut report = Report::new(&folder).unwrap();
            for name in ["one", "two"] {
                report.begin(name).unwrap();
                report.add(row(name, values, None, 1.0)).unwrap();
                report.write(name, "", "").unwrap();
            }
        }
        let values: Vec<Value> = lines(&folder, "results.jsonl")
            .iter()
            .map(|row| row["value"].clone())
            .collect();
        assert_eq!(values, [2.0, 2.0]);
        Report::new(&folder).unwrap().begin("one").unwrap();
        let left = lines(&folder, "results.jsonl");
        assert_eq!((left.len(), &left[0]["name"]), (1, &json!("two")));
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn more_can_be_better() {
        let mut rate = row("rate", &[1500.0], None, 1500.0);
        rate.better = Better::More;
        assert!(rate.met());
        rate.goal = 1501.0;
        assert!(!rate.met());
    }

    #[test]
    fn figures_are_readable() {
        assert_eq!(figure(Some(5_135_104.0), "bytes"), "5,135,104 bytes");
        assert_eq!(figure(Some(999.0), "bytes"), "999 bytes");
        assert_eq!(figure(Some(0.0), "processes"), "0 processes");
        assert_eq!(figure(Some(1.23456), "ms"), "1.235 ms");
        assert_eq!(figure(None, "ms"), "-");
    }
}
