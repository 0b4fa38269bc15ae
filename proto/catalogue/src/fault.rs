//! Faults: what is wrong with a file that an administrator wrote, each with the way to the key.

use std::cell::RefCell;
use std::fmt;

/// One thing that is wrong, as a line for the administrator: `tail_log.toml: args.properties.lines: …`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Fault {
    /// The file, where several are read.
    pub file: Option<String>,
    /// The key, with dots between tables; empty where the file as a whole is meant.
    pub path: String,
    /// What is wrong, as a fragment that follows the path.
    pub what: String,
}

impl Fault {
    /// A fault of a whole file.
    pub(crate) fn of_file(file: &str, what: impl Into<String>) -> Self {
        Self {
            file: Some(crate::text::quoted(file)),
            path: String::new(),
            what: what.into(),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(out, "{file}: ")?;
        }
        if !self.path.is_empty() {
            write!(out, "{}: ", self.path)?;
        }
        out.write_str(&self.what)
    }
}

impl std::error::Error for Fault {}

/// Where the faults of one file are gathered, so that all of them can be told at once.
#[derive(Debug, Default)]
pub(crate) struct Faults(RefCell<Vec<Fault>>);

impl Faults {
    pub(crate) fn add(&self, path: impl Into<String>, what: impl Into<String>) {
        self.0.borrow_mut().push(Fault {
            file: None,
            path: path.into(),
            what: what.into(),
        });
    }

    /// How many there are so far.
    pub(crate) fn count(&self) -> usize {
        self.0.borrow().len()
    }

    pub(crate) fn into_vec(self) -> Vec<Fault> {
        self.0.into_inner()
    }
}
