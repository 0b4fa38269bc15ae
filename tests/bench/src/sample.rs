//! Runs that were timed and looked at, and the order in which those of several sides are taken.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::Result;
use serde::{Deserialize, Serialize};

use crate::statistic::{median, p99};

/// How a run ended: what has to be the same for every sample of a series.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// Length of its output.
    pub bytes: u64,
    /// Its exit code; none where a signal ended it, or where no answer said one.
    pub exit: Option<i32>,
}

impl End {
    /// A run that succeeded with an output of this length.
    #[must_use]
    pub fn fine(bytes: u64) -> End {
        End { bytes, exit: Some(0) }
    }

    /// Whether it is the end that was wanted.
    pub fn is(self, wanted: End) -> Result<(), String> {
        if self == wanted {
            Ok(())
        } else {
            Err(format!("{self}, where {wanted} were wanted"))
        }
    }
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.exit {
            Some(code) => write!(f, "{} bytes with exit code {code}", self.bytes),
            None => write!(f, "{} bytes without an exit code", self.bytes),
        }
    }
}

/// One run: its figure, whether it was what it had to be, and its parts where it was timed in parts.
#[derive(Clone, Debug)]
#[must_use]
pub struct Run {
    value: f64,
    check: Result<(), String>,
    steps: Vec<(&'static str, f64)>,
}

impl Run {
    /// A run and what the look at its output and exit code said.
    pub fn new(value: f64, check: Result<(), String>) -> Run {
        Run {
            value,
            check,
            steps: Vec::new(),
        }
    }

    /// Its figure.
    #[must_use]
    pub fn value(&self) -> f64 {
        self.value
    }

    /// What the look at it said.
    pub fn check(&self) -> Result<(), String> {
        self.check.clone()
    }

    /// Adds a part of it, or something else that was seen with it.
    pub fn step(mut self, name: &'static str, value: f64) -> Run {
        self.steps.push((name, value));
        self
    }
}

/// The samples of one side.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Samples {
    values: Vec<f64>,
    steps: BTreeMap<String, Vec<f64>>,
    faults: Vec<String>,
}

impl Samples {
    /// Takes one run.
    pub fn take(&mut self, run: Run) {
        self.values.push(run.value);
        for (name, value) in run.steps {
            self.steps.entry(name.to_owned()).or_default().push(value);
        }
        self.faults.extend(run.check.err());
    }

    /// Adds a series that was taken beside these runs and explains them. Its faults are theirs.
    pub fn add_part(&mut self, name: &str, part: Samples) {
        self.steps.entry(name.to_owned()).or_default().extend(part.values);
        self.faults.extend(part.faults);
    }

    /// The same without the parts, for a second row of the same runs.
    #[must_use]
    pub fn bare(&self) -> Samples {
        Samples {
            steps: BTreeMap::new(),
            ..self.clone()
        }
    }

    /// The raw figures, in the order in which they were taken.
    #[must_use]
    pub fn values(&self) -> &[f64] {
        &self.values
    }

    /// The series of the runs' parts, by name.
    #[must_use]
    pub fn steps(&self) -> &BTreeMap<String, Vec<f64>> {
        &self.steps
    }

    /// What was wrong with runs; nothing where all were as they had to be.
    #[must_use]
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// Whether there are samples and every one of them was looked at and found right.
    #[must_use]
    pub fn checked(&self) -> bool {
        self.faults.is_empty() && !self.values.is_empty()
    }

    /// See [`median`].
    #[must_use]
    pub fn median(&self) -> Option<f64> {
        median(&self.values)
    }

    /// See [`p99`].
    #[must_use]
    pub fn p99(&self) -> Option<f64> {
        p99(&self.values)
    }
}

/// One side of a comparison: every call is one run.
pub type Side<'a> = &'a mut dyn FnMut() -> Result<Run>;

/// Takes samples of all sides in turn (A B A B …), so that what the machine does meanwhile meets all alike. The first
/// rounds warm caches up: they are looked at like all others and their figures are not kept.
pub fn alternate<const N: usize>(warm_up: usize, rounds: usize, mut sides: [Side<'_>; N]) -> Result<[Samples; N]> {
    let mut all: [Samples; N] = std::array::from_fn(|_| Samples::default());
    take_turns(warm_up, rounds, &mut sides, &mut all)?;
    Ok(all)
}

/// The same for sides whose number is known only when it is known which peers are there.
pub fn alternate_all(warm_up: usize, rounds: usize, mut sides: Vec<Side<'_>>) -> Result<Vec<Samples>> {
    let mut all = vec![Samples::default(); sides.len()];
    take_turns(warm_up, rounds, &mut sides, &mut all)?;
    Ok(all)
}

fn take_turns(warm_up: usize, rounds: usize, sides: &mut [Side<'_>], all: &mut [Samples]) -> Result<()> {
    for round in 0..warm_up + rounds {
        for (side, samples) in sides.iter_mut().zip(&mut *all) {
            let run = side()?;
            if round >= warm_up {
                samples.take(run);
            } else {
                samples.faults.extend(run.check.err());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;
    use std::process::Command;

    /// A run of a real child, as benches look at one.
    fn run(script: &str, wanted: End) -> Run {
        let output = Command::new("/bin/sh").args(["-c", script]).output().unwrap();
        let seen = End {
            bytes: output.stdout.len() as u64,
            exit: output.status.code(),
        };
        Run::new(0.5, seen.is(wanted))
    }

    #[test]
    fn sides_take_turns_and_warming_up_is_not_kept() {
        let order = RefCell::new(String::new());
        let side = |name: char, value: f64| {
            let order = &order;
            move || {
                order.borrow_mut().push(name);
                Ok(Run::new(value, Ok(())).step("half", value / 2.0))
            }
        };
        let [a, b] = alternate(1, 2, [&mut side('a', 1.0), &mut side('b', 3.0)]).unwrap();
        assert_eq!(*order.borrow(), "ababab");
        assert_eq!((a.values(), b.values()), (&[1.0, 1.0][..], &[3.0, 3.0][..]));
        assert_eq!(b.steps()["half"], [1.5, 1.5]);
        assert!(a.checked() && b.checked());
    }

    #[test]
    fn a_killed_sample_unchecks_the_series() {
        let mut samples = Samples::default();
        samples.take(run("printf 12345", End::fine(5)));
        assert!(samples.checked());
        samples.take(run("printf 12345; kill -9 $$", End::fine(5)));
        assert!(!samples.checked());
        assert_eq!(
            samples.faults(),
            ["5 bytes without an exit code, where 5 bytes with exit code 0 were wanted"]
        );
    }

    #[test]
    fn a_short_output_or_another_exit_code_unchecks_it_too_also_while_warming_up() {
        for script in ["printf 1234", "printf 12345; exit 1"] {
            let mut samples = Samples::default();
            samples.take(run(script, End::fine(5)));
            assert!(!samples.checked(), "{script}");
        }
        let mut first = true;
        let mut once = || {
            let check = if std::mem::take(&mut first) {
                Err("cut".to_owned())
            } else {
                Ok(())
            };
            Ok(Run::new(1.0, check))
        };
        let [samples] = alternate(1, 1, [&mut once]).unwrap();
        assert!(!samples.checked());
    }

    #[test]
    fn no_samples_are_not_checked() {
        assert!(!Samples::default().checked());
    }
}
