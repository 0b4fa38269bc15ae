//! What is run: the program, and the template that arguments are put into.
//!
//! An element of the template is a constant or one placeholder, never both, so no argument can become a part of a flag.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::{Element, Exec, FileRule, Output};
use crate::schema::{Kind, Property};
use crate::table::Table;
use crate::text;

/// Most elements of an argv.
const MAX_ARGV: usize = 64;

/// Shells and programs that run what their arguments say: with a placeholder, any argument would be a program.
const RUNNERS: [&str; 22] = [
    "ash", "bash", "busybox", "chroot", "csh", "dash", "doas", "env", "fish", "ksh", "mksh", "nsenter", "runuser",
    "setpriv", "sh", "ssh", "su", "sudo", "tcsh", "unshare", "xargs", "zsh",
];

/// `[exec]`: what is run, and the arguments that say what its output is.
pub(super) fn read(table: &mut Table<'_>, template: &Template<'_>) -> Option<(Exec, Output)> {
    let before = table.faults().count();
    let found = table.table("exec");
    let mut table = table.demand("exec", found, before)?;
    let encoding = encoding(&mut table, template);
    let mut offset = None;
    let exec = if let Some(argument) = Template::single(&mut table, "probe") {
        match template.properties.get(&argument) {
            Some(property) if property.kind() == Kind::String && property.always_there() => {}
            _ => table.fault(
                "probe",
                format!("{{{argument}}} must be a string in args.properties and args.required"),
            ),
        }
        if !template.files.is_empty() {
            table.fault("probe", "takes no file");
        }
        table.finish_with(|_| "does not go with probe, which brings its own".to_owned());
        Exec::Probe { argument }
    } else {
        offset = self::offset(&mut table, template);
        let program = program(&mut table);
        let argv = template.argv(&mut table, "argv", program.as_deref());
        let stdin = Template::single(&mut table, "stdin");
        if let Some(name) = &stdin
            && !template.files.contains_key(name)
        {
            table.fault("stdin", format!("{{{name}}} must be a file: [file.{name}] is missing"));
        }
        if offset.is_some() && stdin.is_none() {
            table.fault("offset", "is a place in the file on stdin, and stdin is missing");
        }
        for name in template.files.keys().filter(|name| stdin.as_ref() != Some(name)) {
            table.fault(
                "stdin",
                format!("must be \"{{{name}}}\": a file is handed over in no other way"),
            );
        }
        table.finish();
        Exec::Program {
            program: PathBuf::from(program?),
            argv,
            stdin,
        }
    };
    Some((exec, Output { encoding, offset }))
}

/// The argument that chooses how the output is encoded.
fn encoding(table: &mut Table<'_>, template: &Template<'_>) -> Option<String> {
    let name = Template::single(table, "encoding")?;
    let fits = template
        .properties
        .get(&name)
        .and_then(Property::choices)
        .is_some_and(|choices| {
            choices
                .iter()
                .all(|choice| matches!(choice.as_str(), Some("text" | "base64")))
        });
    if !fits {
        table.fault(
            "encoding",
            format!("{{{name}}} must be an argument with enum [\"text\", \"base64\"]"),
        );
    }
    Some(name)
}

/// The argument that says where in the file on stdin the output begins.
fn offset(table: &mut Table<'_>, template: &Template<'_>) -> Option<String> {
    let name = Template::single(table, "offset")?;
    let fits = template.properties.get(&name).is_some_and(|property| {
        property.kind() == Kind::Integer
            && property.always_there()
            && property.minimum().is_some_and(|least| least >= 0)
    });
    if !fits {
        table.fault(
            "offset",
            format!("{{{name}}} must be an integer argument that is always there, with a minimum of 0 or more"),
        );
    }
    Some(name)
}

fn program(table: &mut Table<'_>) -> Option<String> {
    let program = table.demand_string("program")?;
    if !text::is_plain_path(&program) {
        let wanted = "must be an absolute path without . or ..";
        table.fault("program", format!("{wanted}, not \"{}\"", text::quoted(&program)));
    }
    Some(program)
}

/// What placeholders may refer to.
#[derive(Clone, Copy)]
pub(super) struct Template<'a> {
    pub(super) properties: &'a BTreeMap<String, Property>,
    pub(super) files: &'a BTreeMap<String, FileRule>,
}

impl Template<'_> {
    /// The name inside a text that is one placeholder and nothing else.
    pub(super) fn placeholder(text: &str) -> Option<&str> {
        text.strip_prefix('{')?
            .strip_suffix('}')
            .filter(|name| text::is_argument_name(name))
    }

    /// An argv template: each element a constant or one placeholder.
    pub(super) fn argv(self, table: &mut Table<'_>, key: &str, program: Option<&str>) -> Vec<Element> {
        let elements = table.strings(key).unwrap_or_default();
        if elements.len() > MAX_ARGV {
            table.fault(key, format!("has more than {MAX_ARGV} elements"));
        }
        let mut argv = Vec::with_capacity(elements.len());
        for element in elements {
            if let Some(name) = Self::placeholder(&element) {
                self.argument(table, key, name);
                argv.push(Element::Argument(name.to_owned()));
                continue;
            }
            if element.contains(['{', '}']) {
                let rule = "an element is either a constant without braces or exactly one {name}";
                table.fault(key, format!("{rule}, not \"{}\"", text::quoted(&element)));
            }
            if element.chars().any(char::is_control) {
                table.fault(key, format!("\"{}\" has a control character", text::quoted(&element)));
            }
            argv.push(Element::Constant(element));
        }
        let name = program.and_then(|program| Path::new(program).file_name()?.to_str());
        if let Some(name) = name.filter(|name| RUNNERS.contains(name))
            && argv.iter().any(|element| matches!(element, Element::Argument(_)))
        {
            table.fault(
                key,
                format!("gives an argument to {name}, which runs what its arguments say"),
            );
        }
        argv
    }

    /// An argument that becomes an element of argv.
    fn argument(self, table: &Table<'_>, key: &str, name: &str) {
        let Some(property) = self.properties.get(name) else {
            table.fault(key, format!("{{{name}}} is not an argument in args.properties"));
            return;
        };
        if self.files.contains_key(name) {
            table.fault(
                key,
                format!("{{{name}}} is a file, which is handed over as stdin and never by its path"),
            );
        }
        if !property.always_there() {
            table.fault(key, format!("{{{name}}} must be in args.required or have a default"));
        }
        if property.kind() == Kind::Array {
            table.fault(key, format!("{{{name}}} is an array, which cannot be one element"));
        }
        if property.kind() == Kind::Integer && property.minimum().is_none_or(|least| least < 0) {
            table.fault(
                key,
                format!("{{{name}}} needs a minimum of 0 or more: a value beginning with - is refused"),
            );
        }
        let listed = property.choices().unwrap_or_default().iter().chain(property.default());
        if let Some(bad) = listed
            .filter_map(Value::as_str)
            .find(|value| value.starts_with(['-', '@']))
        {
            table.fault(
                key,
                format!("{{{name}}} lists \"{}\", which would be refused", text::quoted(bad)),
            );
        }
    }

    /// A key whose value is one placeholder.
    fn single(table: &mut Table<'_>, key: &str) -> Option<String> {
        let found = table.string(key)?;
        let name = Self::placeholder(&found).map(str::to_owned);
        if name.is_none() {
            table.fault(
                key,
                format!("must be exactly one {{name}}, not \"{}\"", text::quoted(&found)),
            );
        }
        name
    }
}
