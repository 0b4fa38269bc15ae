//! Arguments: from what a caller sent to the argv of a program, or to a list of what is wrong.
//!
//! The only door to [`CheckedArgs`] is [`Manifest::check_args`]. Each placeholder of the template is replaced whole, so
//! the number of elements and the constant ones are those of the template whatever was sent; a value that a program could
//! take for an option or a response file (`-x`, `--`, `@file`) is refused rather than escaped.

use std::fmt;

use serde_json::{Map, Value};

use crate::manifest::{Element, Exec, Manifest, Output};
use crate::probe;
use crate::text;

/// One thing that is wrong with the arguments: `lines: 6000 is greater than the maximum of 5000`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgFault {
    /// The argument; with dots and indices where it has parts.
    pub path: String,
    /// What is wrong, as a fragment that follows the path. Foreign text in it is escaped and cut.
    pub what: String,
}

impl fmt::Display for ArgFault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}: {}", self.path, self.what)
    }
}

impl std::error::Error for ArgFault {}

/// Arguments that fit their manifest, and all that follows from them.
///
/// ```compile_fail
/// // There is no other way to make one than the check.
/// let args = catalogue::CheckedArgs { args: Default::default(), argv: vec!["-rf".into()] };
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct CheckedArgs {
    args: Map<String, Value>,
    argv: Vec<String>,
    dry_run: Option<Vec<String>>,
    stdin: Option<String>,
    probe: Option<String>,
    output: Output,
}

impl CheckedArgs {
    /// All of them, with defaults filled in: what a Payload carries and an approver reads.
    #[must_use]
    pub fn args(&self) -> &Map<String, Value> {
        &self.args
    }

    /// What follows the program's name; as many elements as the template has. Empty for a probe, which has its own.
    #[must_use]
    pub fn argv(&self) -> &[String] {
        &self.argv
    }

    /// What follows the program's name in a dry run, where the action has one.
    #[must_use]
    pub fn dry_run(&self) -> Option<&[String]> {
        self.dry_run.as_deref()
    }

    /// The file to open and hand over as stdin: the argument's name and the path.
    #[must_use]
    pub fn stdin(&self) -> Option<FileArg<'_>> {
        self.stdin.as_deref().and_then(|name| file(name, self.args.get(name)?))
    }

    /// The name of the probe to run, where the manifest runs one.
    #[must_use]
    pub fn probe(&self) -> Option<&str> {
        self.probe.as_deref().and_then(|name| self.args.get(name)?.as_str())
    }

    /// `text` or `base64`, where the caller asked for one of them.
    #[must_use]
    pub fn encoding(&self) -> Option<&str> {
        let name = self.output.encoding.as_deref()?;
        self.args.get(name)?.as_str()
    }

    /// Where in the file on stdin the output begins, in bytes, where the manifest says that it is a part of that file.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        let name = self.output.offset.as_deref()?;
        self.args.get(name)?.as_u64()
    }
}

/// An argument that is a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileArg<'a> {
    /// The argument's name, by which the manifest's file rule is found.
    pub name: &'a str,
    /// The path as it was sent: not yet looked at.
    pub path: &'a str,
    /// The content that was approved, where the rule pins it: 64 hexadecimal digits.
    pub sha256: Option<&'a str>,
}

fn file<'a>(name: &'a str, value: &'a Value) -> Option<FileArg<'a>> {
    match value {
        Value::String(path) => Some(FileArg {
            name,
            path,
            sha256: None,
        }),
        Value::Object(parts) => Some(FileArg {
            name,
            path: parts.get("path")?.as_str()?,
            sha256: Some(parts.get("sha256")?.as_str()?),
        }),
        _ => None,
    }
}

impl Manifest {
    /// Puts each default where the caller gave no value.
    pub fn fill_defaults(&self, args: &mut Map<String, Value>) {
        for (name, property) in self.schema().properties() {
            if let Some(default) = property.default()
                && !args.contains_key(name)
            {
                args.insert(name.clone(), default.clone());
            }
        }
    }

    /// Checks arguments as they were sent; defaults are filled in first.
    ///
    /// # Errors
    /// Everything that is wrong, at least one.
    pub fn check_args(&self, sent: &Map<String, Value>) -> Result<CheckedArgs, Vec<ArgFault>> {
        let mut args = sent.clone();
        self.fill_defaults(&mut args);
        let mut faults = Vec::new();
        for (name, value) in &args {
            check_plain(&text::quoted(name), value, &mut faults);
        }
        if faults.is_empty() {
            faults = self.schema().check(&args);
        }
        let argv = self.fill(&args, &mut faults);
        let dry_run = self
            .dry_run()
            .map(|dry_run| words_of(&dry_run.argv, &args, &mut faults));
        self.check_paths(&args, &mut faults);
        if faults.is_empty() {
            let (stdin, probe) = match self.exec() {
                Exec::Program { stdin, .. } => (stdin.clone(), None),
                Exec::Probe { argument } => (None, Some(argument.clone())),
            };
            Ok(CheckedArgs {
                args,
                argv,
                dry_run,
                stdin,
                probe,
                output: self.output().clone(),
            })
        } else {
            Err(faults)
        }
    }

    /// The template with each placeholder replaced whole.
    fn fill(&self, args: &Map<String, Value>, faults: &mut Vec<ArgFault>) -> Vec<String> {
        match self.exec() {
            Exec::Program { argv, .. } => words_of(argv, args, faults),
            Exec::Probe { argument } => {
                if let Some(Value::String(name)) = args.get(argument)
                    && !probe::is_probe_name(name)
                    && faults.is_empty()
                {
                    faults.push(fault(
                        argument,
                        format!("\"{}\" cannot be the name of a probe", text::quoted(name)),
                    ));
                }
                Vec::new()
            }
        }
    }

    fn check_paths(&self, args: &Map<String, Value>, faults: &mut Vec<ArgFault>) {
        for (name, value) in self
            .files()
            .keys()
            .filter_map(|name| args.get(name).map(|value| (name, value)))
        {
            let Some(path) = file(name, value) else { continue };
            if path.path.chars().any(char::is_control) {
                faults.push(fault(name, "has a control character".to_owned()));
            } else if !path.path.starts_with('/') {
                faults.push(fault(
                    name,
                    format!("\"{}\" is not an absolute path", text::quoted(path.path)),
                ));
            }
        }
    }
}

/// A template with each placeholder replaced whole.
fn words_of(template: &[Element], args: &Map<String, Value>, faults: &mut Vec<ArgFault>) -> Vec<String> {
    template
        .iter()
        .map(|element| match element {
            Element::Constant(text) => text.clone(),
            Element::Argument(name) => element_of(name, args.get(name), faults),
        })
        .collect()
}

/// A value as one word of a command line; none for what cannot be one.
pub(crate) fn word(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

/// One argument as one element of argv.
fn element_of(name: &str, value: Option<&Value>, faults: &mut Vec<ArgFault>) -> String {
    let Some(element) = value.and_then(word) else {
        // The schema check has said so already, where a caller can bring it about.
        if faults.is_empty() {
            faults.push(fault(name, "has no value that can be passed to a program".to_owned()));
        }
        return String::new();
    };
    if element.starts_with(['-', '@']) {
        let why = "begins with - or @, which a program could take for an option or a response file";
        faults.push(fault(name, format!("\"{}\" {why}", text::quoted(&element))));
    } else if element.chars().any(char::is_control) {
        faults.push(fault(name, "has a control character".to_owned()));
    }
    element
}

/// What no schema says: numbers are integers below 2^53, strings have no NUL, nothing is null.
/// The wire's reader refuses these as well; here they are refused wherever the arguments came from.
fn check_plain(path: &str, value: &Value, faults: &mut Vec<ArgFault>) {
    match value {
        Value::Null => faults.push(fault(path, "is null; leave it out instead".to_owned())),
        Value::Number(number) => {
            let limit = wire::limits::INTEGER.unsigned_abs();
            if number.as_i64().is_none_or(|number| number.unsigned_abs() >= limit) {
                faults.push(fault(
                    path,
                    format!("{number} is not an integer below 2^53 in magnitude"),
                ));
            }
        }
        Value::String(found) if found.contains('\0') => faults.push(fault(path, "has a NUL".to_owned())),
        Value::Bool(_) | Value::String(_) => {}
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                check_plain(&join(path, &index.to_string()), item, faults);
            }
        }
        Value::Object(entries) => {
            for (key, value) in entries {
                check_plain(&join(path, &text::quoted(key)), value, faults);
            }
        }
    }
}

/// The way to a part of a value.
pub(crate) fn join(path: &str, part: &str) -> String {
    if path.is_empty() {
        part.to_owned()
    } else {
        format!("{path}.{part}")
    }
}

pub(crate) fn fault(path: &str, what: String) -> ArgFault {
    ArgFault {
        path: path.to_owned(),
        what,
    }
}
