//! The processes of the world, as `/proc` shows them to its root: what an action started, and who started it.
//!
//! A process is found by a word of its command line, which its children keep until they become another program, so that it
//! is found wherever it hides: without a parent, in another session, stopped. The dead have no command line.

use std::fs;

use anyhow::{Context as _, Result};

/// A process that was there when it was looked at.
#[derive(Clone, Debug)]
pub struct Process {
    /// Its id in this world.
    pub pid: u32,
    status: String,
}

impl Process {
    /// The process of this id, where there is one.
    pub fn of(pid: u32) -> Option<Process> {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        Some(Process { pid, status })
    }

    /// A line of its status (proc_pid_status(5)), without its name.
    pub fn status(&self, field: &str) -> Option<&str> {
        status(&self.status, field)
    }

    /// The name of its program, as the kernel keeps it.
    pub fn name(&self) -> &str {
        self.status("Name").unwrap_or_default()
    }

    /// The id of its parent.
    pub fn parent(&self) -> Option<u32> {
        self.status("PPid")?.parse().ok()
    }

    /// The most memory that it ever had in use, in KiB.
    pub fn peak_kib(&self) -> Result<u64> {
        let peak = self.status("VmHWM").context("no memory: it is dead")?;
        Ok(peak.trim_end_matches(" kB").parse()?)
    }
}

/// A line of such a status, without its name.
pub fn status<'a>(text: &'a str, field: &str) -> Option<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(name, _)| *name == field)
        .map(|(_, value)| value.trim())
        .next()
}

/// All that have this word as an argument.
pub fn with_argument(word: &str) -> Vec<Process> {
    let has = |pid: &u32| {
        let argv = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        argv.split(|byte| *byte == 0)
            .any(|argument| argument == word.as_bytes())
    };
    all().into_iter().filter(has).filter_map(Process::of).collect()
}

/// All whose parent is this one, and theirs.
pub fn below(pid: u32) -> Vec<Process> {
    let everyone: Vec<Process> = all().into_iter().filter_map(Process::of).collect();
    let mut found: Vec<Process> = Vec::new();
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for child in everyone.iter().filter(|process| process.parent() == Some(parent)) {
            parents.push(child.pid);
            found.push(child.clone());
        }
    }
    found
}

fn all() -> Vec<u32> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}
