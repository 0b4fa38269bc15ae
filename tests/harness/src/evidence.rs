//! The evidence, as an investigator has it: copies of the logs, in a folder of their own, and `writ-audit`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::Value;

use crate::control::{CA_LOG, RELAY_LOG};
use crate::root::Root;
use crate::spawn::run;
use crate::stack::Stack;
use crate::target::{LOG, Target};

/// Copied logs: one folder a log.
#[derive(Debug)]
pub struct Evidence {
    /// Where the copies are; nothing else is there.
    pub folder: PathBuf,
    program: PathBuf,
}

/// What `writ-audit` said.
#[derive(Debug)]
pub struct Said {
    /// Its exit code: 0 fine, 1 failed, 2 refused (something does not verify).
    pub exit: i32,
    /// Its report.
    pub report: Value,
    /// What it wrote to standard error.
    pub errors: String,
}

impl Said {
    /// Everything that is wrong, as the report names it.
    pub fn faults(&self) -> Vec<Value> {
        let list = |value: Option<&Value>| value.and_then(Value::as_array).cloned().unwrap_or_default();
        let logs = list(self.report.get("logs"));
        let mut faults: Vec<Value> = logs.iter().filter_map(|log| log.get("fault").cloned()).collect();
        faults.extend(list(self.report.get("faults")));
        faults
    }
}

impl Evidence {
    /// Copies the log of every tier to a new folder of this name.
    pub fn copy(stack: &Stack, name: &str) -> Result<Evidence> {
        let folder = stack.folder().join(name);
        fs::create_dir(&folder).with_context(|| format!("failed to make {}", folder.display()))?;
        let control = stack.control.root();
        copy_log(control, CA_LOG, &folder.join("ca"))?;
        copy_log(control, RELAY_LOG, &folder.join("relay"))?;
        // A target that nobody has ever logged in to has no log yet, and one whose first session is just beginning has a
        // segment without a record.
        let holds = |segment: std::io::Result<fs::DirEntry>| {
            let about = segment.and_then(|segment| segment.metadata());
            about.is_ok_and(|about| about.len() > 0)
        };
        let logged = |target: &&Target| fs::read_dir(target.root().at(LOG)).is_ok_and(|mut log| log.any(holds));
        for target in stack.targets.iter().filter(logged) {
            copy_log(target.root(), LOG, &folder.join(target.name()))?;
        }
        Ok(Evidence {
            folder,
            program: stack.world().program("writ-audit")?,
        })
    }

    /// `writ-audit verify` over all copies.
    pub fn verify(&self) -> Result<Said> {
        self.audit(&["verify"])
    }

    /// `writ-audit replay` of a task from all copies.
    pub fn replay(&self, task: &str) -> Result<Said> {
        self.audit(&["replay", task])
    }

    /// The segments of one log, oldest first.
    pub fn segments(&self, log: &str) -> Result<Vec<PathBuf>> {
        let mut files: Vec<PathBuf> = fs::read_dir(self.folder.join(log))?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        files.sort();
        Ok(files)
    }

    /// What `writ-audit replay` prints for people.
    pub fn replay_text(&self, task: &str) -> Result<String> {
        let output = self.run(&["replay", task])?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    fn audit(&self, words: &[&str]) -> Result<Said> {
        let output = self.run(&[words, &["--json"]].concat())?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        let report =
            serde_json::from_slice(&output.stdout).with_context(|| format!("writ-audit {words:?}: {errors}"))?;
        Ok(Said {
            exit: output.status.code().unwrap_or(-1),
            report,
            errors,
        })
    }

    /// Runs it in the folder of the copies, with all of them as its last arguments.
    fn run(&self, words: &[&str]) -> Result<Output> {
        let mut logs: Vec<_> = fs::read_dir(&self.folder)?
            .map(|entry| Ok(entry?.file_name()))
            .collect::<Result<_>>()?;
        logs.sort();
        let mut command = Command::new(&self.program);
        command.args(words).args(logs).current_dir(&self.folder);
        run("writ-audit", command, b"", Duration::from_secs(30))
    }
}

fn copy_log(root: &Root, log: &str, to: &Path) -> Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(root.at(log)).with_context(|| format!("failed to read {log}"))? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(entry.file_name()))?;
        }
    }
    Ok(())
}
