//! Reading a TOML table key by key: what is wrong is noted and reading goes on, and what was never asked for is unknown.

use toml::{Table as Toml, Value};

use crate::fault::Faults;
use crate::text;

/// A table that is being read. Each key can be taken once; [`Table::finish`] reports those that nobody took.
pub(crate) struct Table<'f> {
    path: String,
    rest: Toml,
    faults: &'f Faults,
}

impl<'f> Table<'f> {
    /// Reads a file's text. A syntax error is one fault, and there is no table then.
    pub(crate) fn read(text: &str, faults: &'f Faults) -> Option<Self> {
        match text.parse::<Toml>() {
            Ok(rest) => Some(Self {
                path: String::new(),
                rest,
                faults,
            }),
            Err(error) => {
                let line = error
                    .span()
                    .map(|span| 1 + text.bytes().take(span.start).filter(|b| *b == b'\n').count());
                let what = text::quoted(error.message());
                faults.add(
                    "",
                    line.map_or_else(|| what.clone(), |line| format!("line {line}: {what}")),
                );
                None
            }
        }
    }

    /// The way to a key of this table.
    pub(crate) fn path_of(&self, key: &str) -> String {
        let key = if !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-') {
            key.to_owned()
        } else {
            format!("\"{}\"", text::quoted(key))
        };
        if self.path.is_empty() {
            key
        } else {
            format!("{}.{key}", self.path)
        }
    }

    /// The way to the table itself.
    pub(crate) fn path(&self) -> &str {
        &self.path
    }

    pub(crate) fn faults(&self) -> &'f Faults {
        self.faults
    }

    /// Notes what is wrong with a key.
    pub(crate) fn fault(&self, key: &str, what: impl Into<String>) {
        self.faults.add(self.path_of(key), what);
    }

    /// Whether a key is there that nobody has taken yet.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.rest.contains_key(key)
    }

    pub(crate) fn take(&mut self, key: &str) -> Option<Value> {
        self.rest.remove(key)
    }

    /// Notes a key that is missing and must not be.
    pub(crate) fn demand<T>(&self, key: &str, found: Option<T>, noted_before: usize) -> Option<T> {
        // A value of the wrong type has been reported already; it is not missing as well.
        if found.is_none() && self.faults.count() == noted_before {
            self.fault(key, "is missing");
        }
        found
    }

    pub(crate) fn string(&mut self, key: &str) -> Option<String> {
        match self.take(key)? {
            Value::String(text) => Some(text),
            other => self.wrong(key, "a string", &other),
        }
    }

    pub(crate) fn demand_string(&mut self, key: &str) -> Option<String> {
        let before = self.faults.count();
        let found = self.string(key);
        self.demand(key, found, before)
    }

    pub(crate) fn boolean(&mut self, key: &str) -> Option<bool> {
        match self.take(key)? {
            Value::Boolean(value) => Some(value),
            other => self.wrong(key, "true or false", &other),
        }
    }

    /// An integer within bounds, both inclusive.
    pub(crate) fn integer(&mut self, key: &str, least: u64, most: u64) -> Option<u64> {
        match self.take(key)? {
            Value::Integer(number) => match u64::try_from(number) {
                Ok(number) if (least..=most).contains(&number) => Some(number),
                _ => {
                    self.fault(key, format!("must be {least} to {most}, not {number}"));
                    None
                }
            },
            other => self.wrong(key, "an integer", &other),
        }
    }

    pub(crate) fn demand_integer(&mut self, key: &str, least: u64, most: u64) -> Option<u64> {
        let before = self.faults.count();
        let found = self.integer(key, least, most);
        self.demand(key, found, before)
    }

    /// An array of strings.
    pub(crate) fn strings(&mut self, key: &str) -> Option<Vec<String>> {
        let values = match self.take(key)? {
            Value::Array(values) => values,
            other => return self.wrong(key, "an array of strings", &other),
        };
        let mut texts = Vec::with_capacity(values.len());
        for value in values {
            match value {
                Value::String(text) => texts.push(text),
                other => return self.wrong(key, "an array of strings only", &other),
            }
        }
        Some(texts)
    }

    /// A table below a key.
    pub(crate) fn table(&mut self, key: &str) -> Option<Table<'f>> {
        match self.take(key)? {
            Value::Table(rest) => Some(Table {
                path: self.path_of(key),
                rest,
                faults: self.faults,
            }),
            other => self.wrong(key, "a table", &other),
        }
    }

    /// The tables below this one, by name. Anything else below it is a fault.
    pub(crate) fn tables(self) -> Vec<(String, Table<'f>)> {
        let mut found = Vec::new();
        let keys: Vec<String> = self.rest.keys().cloned().collect();
        let mut this = self;
        for key in keys {
            if let Some(table) = this.table(&key) {
                found.push((key, table));
            }
        }
        found
    }

    /// What is left over is unknown.
    pub(crate) fn finish(self) {
        self.finish_with(|_| "is not a known key".to_owned());
    }

    /// What is left over is wrong, for a reason that depends on the key.
    pub(crate) fn finish_with(self, why: impl Fn(&str) -> String) {
        for key in self.rest.keys() {
            self.fault(key, why(key));
        }
    }

    fn wrong<T>(&self, key: &str, wanted: &str, found: &Value) -> Option<T> {
        self.fault(key, format!("must be {wanted}, not {}", article(found)));
        None
    }
}

/// What a value is, in words.
pub(crate) fn article(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a string",
        Value::Integer(_) => "an integer",
        Value::Float(_) => "a float",
        Value::Boolean(_) => "a boolean",
        Value::Datetime(_) => "a date or time",
        Value::Array(_) => "an array",
        Value::Table(_) => "a table",
    }
}
