//! What a request asks for, found on this target: its manifest, its arguments, the program and the opened file.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use catalogue::{CheckedArgs, Entry, Exec, FileArg, FileRule, Folder, Probe, ProbeName};
use wire::ids::{ActionName, Digest};
use wire::{Code, Encoding, Mode};

use crate::error::Refusal;

/// The manifests that this session has used: parsed once, and read again for each request.
#[derive(Debug, Default)]
pub(crate) struct Known(BTreeMap<ActionName, Entry>);

impl Known {
    /// Finds the target's own manifest of an action, as it is now.
    ///
    /// # Errors
    /// `unknown_action`, or `manifest_invalid` when the file is there and is not fit for use.
    pub(crate) fn find(&mut self, folder: &Path, name: &ActionName) -> Result<&Entry, Refusal> {
        let invalid = |what: String| Refusal::because(Code::ManifestInvalid, what);
        let folder = Folder::open(folder, &[0]).map_err(|fault| invalid(fault.to_string()))?;
        let found = match self.0.remove(name) {
            Some(known) => folder.reload(known),
            None => folder.load_one(name),
        };
        match found {
            Ok(Some(entry)) => Ok(self.0.entry(name.clone()).or_insert(entry)),
            Ok(None) => Err(Refusal::because(
                Code::UnknownAction,
                format!("this target has no action {name}"),
            )),
            Err(faults) => Err(invalid(faults.first().map(ToString::to_string).unwrap_or_default())),
        }
    }
}

/// The digest of each manifest, for the hello. A folder that cannot be used means no actions.
#[must_use]
pub(crate) fn digests(folder: &Path) -> BTreeMap<ActionName, Digest> {
    let folder = Folder::open(folder, &[0]);
    folder
        .and_then(|folder| folder.digests())
        .map(|(digests, _)| digests)
        .unwrap_or_default()
}

/// Checks the arguments against the target's own schema.
///
/// # Errors
/// `arguments_invalid`, with everything that is wrong as far as it fits.
pub(crate) fn check_args(
    entry: &Entry,
    args: &serde_json::Map<String, serde_json::Value>,
) -> Result<CheckedArgs, Refusal> {
    entry.manifest().check_args(args).map_err(|faults| {
        let faults: Vec<String> = faults.iter().map(ToString::to_string).collect();
        Refusal::because(Code::ArgumentsInvalid, faults.join("; "))
    })
}

/// What a request comes to on this target. Nothing is opened yet.
#[derive(Debug)]
#[must_use]
pub(crate) struct Resolved<'a> {
    /// The program and its arguments, the program first.
    pub(crate) argv: Vec<String>,
    /// The file that it reads, where it reads one.
    pub(crate) file: Option<(FileArg<'a>, &'a FileRule)>,
    /// How long it may take.
    pub(crate) timeout: Duration,
}

impl Resolved<'_> {
    /// The program's path.
    #[must_use]
    pub(crate) fn program(&self) -> &Path {
        Path::new(self.argv.first().map_or("", String::as_str))
    }
}

/// Resolves an action and its arguments to a command line: by its manifest, in this mode, or by the probe of the target that
/// it names.
///
/// # Errors
/// `arguments_invalid` for a probe that is not there, `mode_unsupported`, or `manifest_invalid`.
pub(crate) fn resolve<'a>(
    entry: &'a Entry,
    args: &'a CheckedArgs,
    mode: Mode,
    probes: &BTreeMap<ProbeName, Probe>,
) -> Result<Resolved<'a>, Refusal> {
    let manifest = entry.manifest();
    let mut timeout_ms = manifest.timeout_ms();
    let (program, arguments) = match (manifest.exec(), args.probe()) {
        (Exec::Program { program, .. }, _) => {
            let argv = match mode {
                Mode::Run => args.argv(),
                Mode::DryRun => args.dry_run().ok_or_else(no_dry_run)?,
            };
            (program.display().to_string(), argv.to_vec())
        }
        (Exec::Probe { .. }, _) if mode == Mode::DryRun => return Err(no_dry_run()),
        (Exec::Probe { .. }, name) => {
            let probe = name
                .and_then(|name| probes.iter().find(|(known, _)| known.as_str() == name))
                .map(|(_, probe)| probe)
                .ok_or_else(|| unknown_probe(probes))?;
            timeout_ms = timeout_ms.min(probe.timeout_ms());
            (probe.program().to_owned(), probe.argv().to_vec())
        }
    };
    let rule = |file: FileArg<'a>| match manifest.files().get(file.name) {
        Some(rule) => Ok((file, rule)),
        None => Err(Refusal::because(Code::ManifestInvalid, "it has no rule for its file")),
    };
    Ok(Resolved {
        argv: std::iter::once(program).chain(arguments).collect(),
        file: args.stdin().map(rule).transpose()?,
        timeout: Duration::from_millis(timeout_ms),
    })
}

/// What is answered where an action cannot be tried out.
fn no_dry_run() -> Refusal {
    Refusal::because(Code::ModeUnsupported, "the action has no dry run")
}

/// How the caller wants the output, where the action lets it choose.
#[must_use]
pub(crate) fn encoding(args: &CheckedArgs) -> Option<Encoding> {
    match args.encoding() {
        Some("base64") => Some(Encoding::Base64),
        Some("text") => Some(Encoding::Text),
        _ => None,
    }
}

fn unknown_probe(probes: &BTreeMap<ProbeName, Probe>) -> Refusal {
    let names: Vec<&str> = probes.keys().map(ProbeName::as_str).collect();
    let names = if names.is_empty() {
        "no probes".to_owned()
    } else {
        names.join(", ")
    };
    Refusal::because(Code::ArgumentsInvalid, format!("probe: this target has {names}"))
}
