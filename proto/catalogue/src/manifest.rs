//! One action's file: read strictly, every fault named, and then a value that cannot be wrong in these ways any more.
//!
//! A manifest is written by root on the target and shipped to relay and CA. It still is linted as if a stranger had
//! written it: most of what a manifest could get wrong would only show in an attack.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::{Map, Value};
use wire::ids::{ActionName, Digest};
use wire::{Mode, Risk};

use crate::fault::{Fault, Faults};
use crate::schema::Schema;

mod effect;
mod exec;
mod limits;
mod privileged;
mod read;

pub use limits::Limits;

/// Longest manifest, in bytes.
pub const MAX_BYTES: usize = 64 * 1024;
/// Longest that an action may be given, in milliseconds.
pub const MAX_TIMEOUT_MS: u64 = 600_000;
/// Most output that an action may be given. As base64, or with the usual escapes, it still fits an answer line of 1 MiB.
pub const MAX_OUTPUT_BYTES: u64 = 512 * 1024;
/// How long an effect may take to show where the manifest says nothing, and at most.
pub const VERIFY_WAIT_MS: (u64, u64) = (5_000, 60_000);
/// How long a privileged program may outlive its time: sudo counts whole seconds from a later start, asks, waits two
/// seconds and then no longer; and what is then still there is looked for once more.
pub const SUDO_PATIENCE_MS: u64 = 5_000;
/// Output that is kept where the manifest says nothing.
pub const DEFAULT_OUTPUT_BYTES: u64 = 64 * 1024;

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
    output: Output,
    limits: Limits,
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

/// The arguments that say what an output is, by their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Output {
    /// Chooses how it is encoded.
    pub encoding: Option<String>,
    /// Says where in the file on stdin it begins: it is the file's bytes from there on. So a secret that begins before a
    /// range, or ends behind it, is known for one.
    pub offset: Option<String>,
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
    /// How long the effect may take to show, in milliseconds: until then it is asked again.
    pub wait_ms: u64,
}

impl Verify {
    /// Its arguments, with the values of the action's own in their places.
    #[must_use]
    pub fn args_for(&self, own: &Map<String, Value>) -> Map<String, Value> {
        let value = |value: &Value| {
            let name = value.as_str().and_then(exec::Template::placeholder);
            name.and_then(|name| own.get(name)).unwrap_or(value).clone()
        };
        self.args
            .iter()
            .map(|(key, given)| (key.clone(), value(given)))
            .collect()
    }
}

/// What an action is in one mode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// What it can do to the target.
    pub risk: Risk,
    /// How many people must sign.
    pub approvals: u8,
}

impl Manifest {
    /// Reads a manifest's bytes.
    ///
    /// # Errors
    /// Everything that is wrong with it, at least one fault.
    pub fn parse(bytes: &[u8]) -> Result<Self, Vec<Fault>> {
        let faults = Faults::default();
        let manifest = read::manifest(bytes, &faults);
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

    /// How long all of it may take on a target, in milliseconds: the program, its end where sudo has to bring that about, and
    /// the look at its effect. Who waits for an answer waits so long.
    #[must_use]
    pub fn patience_ms(&self) -> u64 {
        let sudo = match self.privilege {
            Privilege::None => 0,
            Privilege::Sudo => SUDO_PATIENCE_MS,
        };
        self.timeout_ms + sudo + self.verify.as_ref().map_or(0, |verify| verify.wait_ms)
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

    /// The arguments that say what its output is.
    #[must_use]
    pub fn output(&self) -> &Output {
        &self.output
    }

    /// Most bytes of output that are answered; at most [`MAX_OUTPUT_BYTES`].
    #[must_use]
    pub fn output_bytes(&self) -> u64 {
        self.limits.output_bytes
    }

    /// What one run may use.
    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
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

    /// What the action is in a mode; `None` where it has no dry run. Nobody has to sign a look at what would be done: it is
    /// what people decide by.
    #[must_use]
    pub fn in_mode(&self, mode: Mode) -> Option<Terms> {
        let (risk, approvals) = match mode {
            Mode::Run => (self.risk, self.approvals),
            Mode::DryRun => match self.dry_run.as_ref()?.risk {
                Risk::Read => (Risk::Read, 0),
                risk => (risk, self.approvals),
            },
        };
        Some(Terms { risk, approvals })
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
