//! The records of a log folder, read as a test wants them: all of them, as JSON, oldest first.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::Value;

/// Reads every terminated line of every segment. A folder that does not exist holds none.
pub fn read(folder: &Path) -> Result<Vec<Value>> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Ok(Vec::new());
    };
    let mut records = Vec::new();
    for entry in entries {
        let path = entry?.path();
        if !path.is_file() {
            continue;
        }
        let bytes = fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
        for line in bytes
            .split_inclusive(|byte| *byte == b'\n')
            .filter(|line| line.ends_with(b"\n"))
        {
            records.extend(serde_json::from_slice::<Value>(line).ok());
        }
    }
    records.sort_by_key(|record: &Value| record.get("seq").and_then(Value::as_u64));
    Ok(records)
}

/// A text of a record.
pub fn of<'a>(record: &'a Value, key: &str) -> Option<&'a str> {
    record.get(key).and_then(Value::as_str)
}

/// Whether a record is of this event.
pub fn is(record: &Value, event: &str) -> bool {
    of(record, "event") == Some(event)
}

/// How many of these records are of this event (and, where one is given, with this Code).
pub fn count(records: &[Value], event: &str, code: Option<&str>) -> usize {
    let fits = |record: &&Value| is(record, event) && code.is_none_or(|code| of(record, "code") == Some(code));
    records.iter().filter(fits).count()
}
