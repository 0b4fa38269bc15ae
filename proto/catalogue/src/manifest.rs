//! One action's file: read strictly, every fault named, and then a value that cannot be wrong in these ways any more.
//!
//! A manifest is written by root on the target and shipped to relay and CA. It still is linted as if a stranger had
//! written it: most of what a manifest could get wrong would only show in an attack.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use serde_json::{Map, Value};
use wire::Risk;
use wire::ids::{ActionName, Digest};

use crate::fault::{Fault, Faults};
use crate::schema::{self, Kind, Property, Schema};
use crate::table::Table;
use crate::text;

/// Longest manifest, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// Longest that an action may be given, in milliseconds.
pub const MAX_TIMEOUT_MS: u64 = 600_000;
/// Most output that an action may be given. As base64, or with the usual escapes, it still fits an answer line of 1 MiB.
pub const MAX_OUTPUT_BYTES: u64 = 512 * 1024;
/// Output that is kept where the manifest says nothing.
pub const DEFAULT_OUTPUT_BYTES: u64 = 64 * 1024;
/// Most elements of an argv.
const MAX_ARGV: usize = 64;
/// Most lines that a privileged action's arguments may unfold into.
const MAX_PRIVILEGED: usize = 256;

/// Shells and programs that run what their arguments say: with a placeholder, any argument would be a program.
const RUNNERS: [&str; 20] = [
    "ash", "bash", "busybox", "chroot", "csh", "dash", "doas", "env", "fish", "ksh", "mksh", "nsenter", "sh", "ssh",
    "su", "sudo", "tcsh", "unshare", "xargs", "zsh",
];

/// One action of the catalogue, checked.
#[derive(Debug, Clone)]
pub struct Manifest {
    name: ActionName,
    title: String,
    description: String,
    risk: Risk,
    timeout_ms: u64,
    schema: Schema,
    files: BTreeMap<String, FileRule>,
    exec: Exec,
    encoding: Option<String>,
    output_bytes: u64,
    profile: Profile,
    approvals: u8,
    approval_window_s: Option<u64>,
    dry_run: Option<DryRun>,
    verify: Option<Verify>,
    privilege: Privilege,
}

/// Where a path argument may lead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileRule {
    within: Vec<PathBuf>,
    pin: bool,
}

impl FileRule {
    /// The directories beneath which the file must lie: at least one, absolute, none of them the root.
    #[must_use]
    pub fn within(&self) -> &[PathBuf] {
        &self.within
    }

    /// Whether the file is approved by its content.
    #[must_use]
    pub fn pin(&self) -> bool {
        self.pin
    }
}

/// What is run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Exec {
    /// A program with a template of its arguments.
    Program {
        /// Absolute path.
        program: PathBuf,
        /// What follows the program's name.
        argv: Vec<Element>,
        /// The argument whose file is handed over as stdin.
        stdin: Option<String>,
    },
    /// The probe that the target's `target.toml` defines under the name in this argument.
    Probe {
        /// The argument that names it.
        argument: String,
    },
}

/// One element of an argv template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Element {
    /// Passed as it stands.
    Constant(String),
    /// Replaced whole by the value of this argument.
    Argument(String),
}

/// The cage of an unprivileged action.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// Reads what it was handed; nothing else.
    Reader,
    /// Also talks to the network and writes where its account may.
    Tool,
}

impl Profile {
    /// As written in manifests and records.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reader => "reader",
            Self::Tool => "tool",
        }
    }
}

/// Which account's rights an action has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Privilege {
    /// Those of the account that logs in, caged.
    None,
    /// Those that sudoers gives to a finite list of command lines.
    Sudo,
}

/// How an action is tried out without its effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DryRun {
    /// What follows the program's name, instead of the action's own.
    pub argv: Vec<Element>,
    /// What trying it out risks: less than the action itself.
    pub risk: Risk,
}

/// The read action that tells whether an effect came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verify {
    /// Its name in the same catalogue.
    pub action: ActionName,
    /// Its arguments; a text `{name}` stands for the value of this action's own argument.
    pub args: Map<String, Value>,
}

impl Manifest {
    /// Reads a manifest's bytes.
    ///
    /// # Errors
    /// Everything that is wrong with it, at least one fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, Vec<Fault>> {
        let faults = Faults::default();
        let manifest = read(bytes, &faults);
        let faults = faults.into_vec();
        match manifest {
            Some(manifest) if faults.is_empty() => Ok(manifest),
            _ => Err(faults),
        }
    }

    /// The digest by which tiers compare their copies: the SHA-256 of the file's bytes.
    #[must_use]
    pub fn digest(bytes: &[u8]) -> Digest {
        Digest::of(bytes)
    }

    /// What callers ask for; also the file's name without `.toml`.
    #[must_use]
    pub fn name(&self) -> &ActionName {
        &self.name
    }

    /// A few words for a list.
    #[must_use]
    pub fn title(&self) -> &str {
        &self.title
    }

    /// What it does, for people and models.
    #[must_use]
    pub fn description(&self) -> &str {
        &self.description
    }

    /// What it can do to the target.
    #[must_use]
    pub fn risk(&self) -> Risk {
        self.risk
    }

    /// How long it may run, in milliseconds; at most [`MAX_TIMEOUT_MS`].
    #[must_use]
    pub fn timeout_ms(&self) -> u64 {
        self.timeout_ms
    }

    /// Its arguments.
    #[must_use]
    pub fn schema(&self) -> &Schema {
        &self.schema
    }

    /// The JSON Schema of its arguments, closed: an object with `additionalProperties` false.
    #[must_use]
    pub fn input_schema(&self) -> Value {
        self.schema.json().clone()
    }

    /// The rules for arguments that are paths.
    #[must_use]
    pub fn files(&self) -> &BTreeMap<String, FileRule> {
        &self.files
    }

    /// What is run.
    #[must_use]
    pub fn exec(&self) -> &Exec {
        &self.exec
    }

    /// The argument by which callers choose how output is encoded.
    #[must_use]
    pub fn encoding(&self) -> Option<&str> {
        self.encoding.as_deref()
    }

    /// Most bytes of output that are answered; at most [`MAX_OUTPUT_BYTES`].
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        self.output_bytes
    }

    /// Its cage.
    #[must_use]
    pub fn profile(&self) -> Profile {
        self.profile
    }

    /// How many people must sign; at least 1 for `destroy`.
    #[must_use]
    pub fn approvals(&self) -> u8 {
        self.approvals
    }

    /// How long a signature may be waited for, in seconds; there where approvals are.
    #[must_use]
    pub fn approval_window_s(&self) -> Option<u64> {
        self.approval_window_s
    }

    /// How it is tried out.
    #[must_use]
    pub fn dry_run(&self) -> Option<&DryRun> {
        self.dry_run.as_ref()
    }

    /// How its effect is verified.
    #[must_use]
    pub fn verify(&self) -> Option<&Verify> {
        self.verify.as_ref()
    }

    /// Whose rights it has.
    #[must_use]
    pub fn privilege(&self) -> Privilege {
        self.privilege
    }
}

fn read(bytes: &[u8], faults: &Faults) -> Option<Manifest> {
    if bytes.len() > MAX_BYTES {
        faults.add("", format!("has more than {MAX_BYTES} bytes"));
        return None;
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        faults.add("", "is not UTF-8");
        return None;
    };
    let mut table = Table::read(text, faults)?;
    let name: Option<ActionName> = table
        .demand_string("name")
        .and_then(|name| parsed(&table, "name", &name));
    let title = shown(&mut table, "title", 80);
    let description = shown(&mut table, "description", 1000);
    let risk = table
        .demand_string("risk")
        .and_then(|word| risk_of(&table, "risk", &word));
    let timeout_ms = table.demand_integer("timeout_ms", 1, MAX_TIMEOUT_MS);
    let files = files(&mut table);
    let pinned: BTreeSet<&str> = files
        .iter()
        .filter(|(_, rule)| rule.pin)
        .map(|(name, _)| name.as_str())
        .collect();
    let (properties, schema) = Schema::read(table.table("args"), &pinned, faults);
    check_files(&files, &properties, faults);
    let template = Template {
        properties: &properties,
        files: &files,
    };
    let exec = exec(&mut table, &template);
    let output_bytes = limits(&mut table);
    let profile = profile(&mut table);
    let effect = effect(&mut table, risk, exec.as_ref().map(|(exec, _)| exec), &template);
    table.finish();
    let (exec, encoding) = exec?;
    Some(Manifest {
        name: name?,
        title: title?,
        description: description?,
        risk: risk?,
        timeout_ms: timeout_ms?,
        schema: schema?,
        files,
        exec,
        encoding,
        output_bytes,
        profile,
        approvals: effect.approvals,
        approval_window_s: effect.approval_window_s,
        dry_run: effect.dry_run,
        verify: effect.verify,
        privilege: effect.privilege,
    })
}

fn parsed<T: FromStr>(table: &Table<'_>, key: &str, text: &str) -> Option<T>
where
    T::Err: std::fmt::Display,
{
    match text.parse() {
        Ok(value) => Some(value),
        Err(error) => {
            table.fault(key, format!("failed to {error}"));
            None
        }
    }
}

fn shown(table: &mut Table<'_>, key: &str, longest: usize) -> Option<String> {
    let found = table.demand_string(key)?;
    schema::check_shown(table, key, &found, longest);
    Some(found)
}

fn risk_of(table: &Table<'_>, key: &str, word: &str) -> Option<Risk> {
    match word {
        "read" => Some(Risk::Read),
        "change" => Some(Risk::Change),
        "destroy" => Some(Risk::Destroy),
        other => {
            table.fault(
                key,
                format!("must be read, change or destroy, not \"{}\"", text::quoted(other)),
            );
            None
        }
    }
}

/// `[file.NAME]`.
fn files(table: &mut Table<'_>) -> BTreeMap<String, FileRule> {
    let mut found = BTreeMap::new();
    for (name, mut rule) in table.table("file").map(Table::tables).unwrap_or_default() {
        let within = rule.strings("within").unwrap_or_default();
        if within.is_empty() {
            rule.fault("within", "must name at least one directory");
        }
        for directory in &within {
            if !text::is_plain_path(directory) {
                let wanted = "must hold absolute directories below /, without . or .. or a slash at the end";
                rule.fault("within", format!("{wanted}, not \"{}\"", text::quoted(directory)));
            }
        }
        let pin = rule.boolean("pin").unwrap_or(false);
        rule.finish();
        found.insert(
            name,
            FileRule {
                within: within.into_iter().map(PathBuf::from).collect(),
                pin,
            },
        );
    }
    found
}

fn check_files(files: &BTreeMap<String, FileRule>, properties: &BTreeMap<String, Property>, faults: &Faults) {
    for name in files.keys() {
        let path = format!("file.{}", text::quoted(name));
        match properties.get(name) {
            None => faults.add(path, "is not an argument in args.properties"),
            Some(property) if property.kind() != Kind::String => {
                faults.add(path, "must be a string in args.properties")
            }
            Some(property) if !property.always_there() => faults.add(path, "must be in args.required"),
            Some(_) => {}
        }
    }
}

/// What placeholders may refer to.
#[derive(Clone, Copy)]
struct Template<'a> {
    properties: &'a BTreeMap<String, Property>,
    files: &'a BTreeMap<String, FileRule>,
}

impl Template<'_> {
    /// The name inside a text that is one placeholder and nothing else.
    fn placeholder(text: &str) -> Option<&str> {
        text.strip_prefix('{')?
            .strip_suffix('}')
            .filter(|name| text::is_argument_name(name))
    }

    /// An argv template: each element a constant or one placeholder.
    fn argv(self, table: &mut Table<'_>, key: &str, program: Option<&str>) -> Vec<Element> {
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

/// `[exec]`.
fn exec(table: &mut Table<'_>, template: &Template<'_>) -> Option<(Exec, Option<String>)> {
    let before = table.faults().count();
    let found = table.table("exec");
    let mut table = table.demand("exec", found, before)?;
    let encoding = Template::single(&mut table, "encoding");
    if let Some(name) = &encoding {
        let fits = template
            .properties
            .get(name)
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
    }
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
        let program = program(&mut table);
        let argv = template.argv(&mut table, "argv", program.as_deref());
        let stdin = Template::single(&mut table, "stdin");
        if let Some(name) = &stdin
            && !template.files.contains_key(name)
        {
            table.fault("stdin", format!("{{{name}}} must be a file: [file.{name}] is missing"));
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
    Some((exec, encoding))
}

fn program(table: &mut Table<'_>) -> Option<String> {
    let program = table.demand_string("program")?;
    if !text::is_plain_path(&program) {
        let wanted = "must be an absolute path without . or ..";
        table.fault("program", format!("{wanted}, not \"{}\"", text::quoted(&program)));
    }
    Some(program)
}

/// `[limits]`.
fn limits(table: &mut Table<'_>) -> u64 {
    let Some(mut limits) = table.table("limits") else {
        return DEFAULT_OUTPUT_BYTES;
    };
    let output_bytes = limits.integer("output_bytes", 1, MAX_OUTPUT_BYTES);
    limits.finish();
    output_bytes.unwrap_or(DEFAULT_OUTPUT_BYTES)
}

/// `[sandbox]`; the narrowest where nothing is said.
fn profile(table: &mut Table<'_>) -> Profile {
    let Some(mut sandbox) = table.table("sandbox") else {
        return Profile::Reader;
    };
    let profile = match sandbox.string("profile").as_deref() {
        None | Some("reader") => Profile::Reader,
        Some("tool") => Profile::Tool,
        Some(other) => {
            sandbox.fault(
                "profile",
                format!("must be reader or tool, not \"{}\"", text::quoted(other)),
            );
            Profile::Reader
        }
    };
    sandbox.finish();
    profile
}

/// The keys that only actions with an effect have.
struct Effect {
    approvals: u8,
    approval_window_s: Option<u64>,
    dry_run: Option<DryRun>,
    verify: Option<Verify>,
    privilege: Privilege,
}

fn effect(table: &mut Table<'_>, risk: Option<Risk>, exec: Option<&Exec>, template: &Template<'_>) -> Effect {
    let mut effect = Effect {
        approvals: 0,
        approval_window_s: None,
        dry_run: None,
        verify: None,
        privilege: Privilege::None,
    };
    if risk == Some(Risk::Read) {
        for key in ["approvals", "approval_window_s", "dry_run", "verify", "privilege"] {
            if table.take(key).is_some() {
                table.fault(key, "is for actions with risk change or destroy");
            }
        }
        return effect;
    }
    let most = wire::limits::APPROVAL_SIGS as u64;
    let before = table.faults().count();
    let approvals = table.integer("approvals", 0, most);
    if risk == Some(Risk::Destroy) && approvals.unwrap_or(0) == 0 && table.faults().count() == before {
        table.fault("approvals", "must be 1 or more for risk destroy");
    }
    effect.approvals = approvals.and_then(|number| u8::try_from(number).ok()).unwrap_or(0);
    let before = table.faults().count();
    effect.approval_window_s = table.integer("approval_window_s", 60, wire::limits::TASK_MAX_S);
    if effect.approvals > 0 {
        effect.approval_window_s = table.demand("approval_window_s", effect.approval_window_s, before);
    }
    let program = match exec {
        Some(Exec::Program { program, .. }) => program.to_str(),
        _ => None,
    };
    effect.dry_run = dry_run(table, risk, program, template);
    effect.verify = verify(table, template);
    effect.privilege = privilege(table, template);
    effect
}

fn dry_run(table: &mut Table<'_>, own: Option<Risk>, program: Option<&str>, template: &Template<'_>) -> Option<DryRun> {
    let mut table = table.table("dry_run")?;
    if program.is_none() {
        table.faults().add(table.path(), "needs a program in exec");
    }
    let argv = template.argv(&mut table, "argv", program);
    let risk = table
        .demand_string("risk")
        .and_then(|word| risk_of(&table, "risk", &word));
    if matches!(
        (risk, own),
        (Some(Risk::Destroy), _) | (Some(Risk::Change), Some(Risk::Change))
    ) {
        table.fault("risk", "must be less than the action's own");
    }
    table.finish();
    Some(DryRun { argv, risk: risk? })
}

fn verify(table: &mut Table<'_>, template: &Template<'_>) -> Option<Verify> {
    let mut table = table.table("verify")?;
    let action = table
        .demand_string("action")
        .and_then(|name| parsed(&table, "action", &name));
    let mut args = Map::new();
    match table.take("args") {
        None => {}
        Some(toml::Value::Table(entries)) => {
            for (key, value) in entries {
                let value = match value {
                    toml::Value::String(text) => {
                        if let Some(name) = Template::placeholder(&text) {
                            if template
                                .properties
                                .get(name)
                                .is_none_or(|property| !property.always_there())
                            {
                                table.fault("args", format!("{{{name}}} is not an argument that always has a value"));
                            }
                        }
                        Value::String(text)
                    }
                    toml::Value::Integer(number) => Value::from(number),
                    toml::Value::Boolean(value) => Value::Bool(value),
                    _ => {
                        table.fault(
                            "args",
                            format!("{} must be a string, an integer or a boolean", text::quoted(&key)),
                        );
                        continue;
                    }
                };
                args.insert(key, value);
            }
        }
        Some(_) => table.fault("args", "must be a table"),
    }
    table.finish();
    Some(Verify { action: action?, args })
}

/// A privileged action's command lines are listed in sudoers one by one, so there must be finitely many, and few.
fn privilege(table: &mut Table<'_>, template: &Template<'_>) -> Privilege {
    match table.string("privilege").as_deref() {
        None => return Privilege::None,
        Some("sudo") => {}
        Some(other) => {
            table.fault(
                "privilege",
                format!("must be \"sudo\" or left out, not \"{}\"", text::quoted(other)),
            );
            return Privilege::None;
        }
    }
    let mut lines = 1_usize;
    for (name, property) in template.properties {
        match property.choices() {
            Some(choices) => lines = lines.saturating_mul(choices.len()),
            None if template.files.contains_key(name) => {}
            None => table.fault("privilege", format!("needs an enum or const for the argument {name}")),
        }
    }
    if lines > MAX_PRIVILEGED {
        table.fault(
            "privilege",
            format!("unfolds into {lines} command lines, more than {MAX_PRIVILEGED}"),
        );
    }
    Privilege::Sudo
}
