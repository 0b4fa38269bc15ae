//! A table of a configuration whose keys are taken out one by one: what is wrong with each is noted, and what is left at the
//! end is unknown.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use toml::{Table, Value};

use super::Fault;

/// A table whose keys are taken out one by one; what is left at the end is unknown.
pub(crate) struct Fields {
    table: Table,
    at: String,
    pub(super) faults: Vec<Fault>,
}

impl Fields {
    pub(crate) fn of(table: Table, at: &str) -> Self {
        Self {
            table,
            at: at.to_owned(),
            faults: Vec::new(),
        }
    }

    pub(crate) fn fault(&mut self, key: &str, what: impl std::fmt::Display) {
        self.faults.push(Fault::new(format!("{}{key}: {what}", self.at)));
    }

    pub(crate) fn text(&mut self, key: &str) -> Option<String> {
        match self.table.remove(key) {
            Some(Value::String(text)) => Some(text),
            Some(_) => {
                self.fault(key, "must be a string");
                None
            }
            None => {
                self.fault(key, "is missing");
                None
            }
        }
    }

    /// A text that may be left out.
    pub(crate) fn optional_text(&mut self, key: &str) -> Option<String> {
        self.table.contains_key(key).then(|| self.text(key)).flatten()
    }

    /// Whatever stands there.
    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.table.remove(key)
    }

    /// The entries of a table that may be left out, and is not empty.
    pub(crate) fn entries(&mut self, key: &str) -> Table {
        match self.table.remove(key) {
            None => Table::new(),
            Some(Value::Table(table)) if !table.is_empty() => table,
            Some(_) => {
                self.fault(key, "must be a table that is not empty");
                Table::new()
            }
        }
    }

    /// A whole number that may be left out.
    pub(crate) fn number(&mut self, key: &str, range: RangeInclusive<u64>, default: u64) -> u64 {
        let number = match self.table.remove(key) {
            None => return default,
            Some(Value::Integer(number)) => u64::try_from(number).ok(),
            Some(_) => None,
        };
        number.filter(|number| range.contains(number)).unwrap_or_else(|| {
            self.fault(
                key,
                format_args!("must be a number from {} to {}", range.start(), range.end()),
            );
            default
        })
    }

    pub(crate) fn parsed<T: std::str::FromStr>(&mut self, key: &str) -> Option<T>
    where
        T::Err: std::fmt::Display,
    {
        let text = self.text(key)?;
        text.parse().map_err(|error: T::Err| self.fault(key, error)).ok()
    }

    pub(crate) fn path(&mut self, key: &str) -> Option<PathBuf> {
        let path = PathBuf::from(self.text(key)?);
        if path.is_absolute() {
            return Some(path);
        }
        self.fault(key, "must be an absolute path");
        None
    }

    /// A path that may be left out.
    pub(crate) fn optional_path(&mut self, key: &str) -> Option<PathBuf> {
        self.table.contains_key(key).then(|| self.path(key)).flatten()
    }

    pub(crate) fn uid(&mut self, key: &str) -> Option<u32> {
        let uid = match self.table.remove(key) {
            Some(Value::Integer(number)) => u32::try_from(number).ok(),
            Some(_) => None,
            None => {
                self.fault(key, "is missing");
                return None;
            }
        };
        // Uid 0 is everybody's last resort, not a person; u32::MAX means "no uid" to the kernel.
        let uid = uid.filter(|uid| *uid != 0 && *uid != u32::MAX);
        if uid.is_none() {
            self.fault(key, "must be a uid of a person: a number above 0");
        }
        uid
    }

    /// A table that need not be there.
    pub(crate) fn table(&mut self, key: &str) -> Option<Fields> {
        if let Value::Table(table) = self.table.remove(key)? {
            return Some(Fields::of(table, &format!("{key}.")));
        }
        self.fault(key, "must be a table");
        None
    }

    pub(crate) fn tables(&mut self, key: &str) -> Vec<Fields> {
        let Some(value) = self.table.remove(key) else {
            return Vec::new();
        };
        let Value::Array(items) = value else {
            self.fault(key, "must be [[tables]]");
            return Vec::new();
        };
        let mut tables = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            match item {
                Value::Table(table) => tables.push(Fields::of(table, &format!("{key}[{index}]."))),
                _ => self.fault(key, "must be [[tables]]"),
            }
        }
        tables
    }

    pub(crate) fn has_faults(&self) -> bool {
        !self.faults.is_empty()
    }

    /// Ends a table of this one, and has its faults.
    pub(crate) fn take_faults(&mut self, table: Fields) {
        self.faults.append(&mut table.finish());
    }

    pub(crate) fn finish(mut self) -> Vec<Fault> {
        let unknown: Vec<String> = self.table.keys().cloned().collect();
        for key in unknown {
            self.fault(&wire::text::escaped(&key, 64), "is unknown");
        }
        self.faults
    }
}
