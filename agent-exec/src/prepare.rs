//! From an action of this target and a request's arguments to a program that can be started, opened with all that it needs.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};

use catalogue::{CheckedArgs, Entry, Privilege, Probe, ProbeName};
use serde_json::{Map, Value};
use wire::{Code, Encoding, Mode, Risk};

use crate::child::{Alone, Command};
use crate::error::Refusal;
use crate::part::Part;
use crate::sys::Cage;
use crate::walls::Walls;
use crate::{action, input, privilege, program};

/// The probes of this target.
pub(crate) type Probes = BTreeMap<ProbeName, Probe>;

/// A program that can be started, and what an Outcome says of it.
#[must_use]
pub(crate) struct Prepared {
    /// What is started.
    pub(crate) command: Command,
    /// How the caller wants the output, where it may choose.
    pub(crate) encoding: Option<Encoding>,
    /// Where the output stands in a file, where it is a part of one.
    pub(crate) part: Option<Part>,
    /// What stands around it, by name.
    pub(crate) walls: Vec<String>,
    /// All arguments, with defaults filled in.
    pub(crate) args: Map<String, Value>,
}

/// Prepares an action, in this mode and for what that risks.
///
/// # Errors
/// [`Refusal`]: arguments that do not fit, a file or a program that is not as it must be, a wall that cannot be built.
pub(crate) fn prepare(
    entry: &Entry,
    sent: &Map<String, Value>,
    mode: Mode,
    risk: Risk,
    probes: &Probes,
) -> Result<Prepared, Refusal> {
    let manifest = entry.manifest();
    let args = action::check_args(entry, sent)?;
    let resolved = action::resolve(entry, &args, mode, probes)?;
    let input = match resolved.file {
        Some((file, rule)) => input::open(file, rule, args.offset())?,
        None => input::none()?,
    };
    let program = open(entry, &resolved)?;
    let (argv, cage, walls) = match manifest.privilege() {
        Privilege::None => {
            let walls = Walls::build(manifest.profile(), program.as_fd())
                .map_err(|what| Refusal::because(Code::WallUnavailable, what))?;
            let names = walls.names().to_vec();
            (resolved.argv, Cage::Walls(walls), names)
        }
        Privilege::Sudo => (privilege::by_sudo(resolved.argv), Cage::Sudo, privilege::names()),
    };
    Ok(Prepared {
        command: Command {
            argv,
            program,
            stdin: input.stdin,
            timeout: resolved.timeout,
            limits: manifest.limits(),
            alone: match risk {
                Risk::Read => Alone::Ends,
                Risk::Change | Risk::Destroy => Alone::GoesOn,
            },
            cage,
        },
        encoding: action::encoding(&args),
        part: input.part,
        walls,
        args: args.args().clone(),
    })
}

/// Looks whether an action could be prepared, as far as that can be known before it is its turn: a file that it reads may
/// not be there yet.
///
/// # Errors
/// As [`prepare`].
pub(crate) fn foresee(entry: &Entry, sent: &Map<String, Value>, probes: &Probes) -> Result<(), Refusal> {
    let args: CheckedArgs = action::check_args(entry, sent)?;
    let resolved = action::resolve(entry, &args, Mode::Run, probes)?;
    open(entry, &resolved).map(drop)
}

/// Opens what is started: the action's program, or sudo.
fn open(entry: &Entry, resolved: &action::Resolved<'_>) -> Result<OwnedFd, Refusal> {
    let opened = match entry.manifest().privilege() {
        Privilege::None => program::open(resolved.program()),
        Privilege::Sudo => privilege::open(resolved.program()),
    };
    opened.map_err(|what| Refusal::because(Code::ManifestInvalid, what))
}
