//! `writ-target`: what an administrator does on a target. Reads the command line, calls the library, exits.

use std::io::{IsTerminal, Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Parser, Subcommand};
use wire::ids::ActionName;
use writ_target::{Failure, Place, accept, doctor, enroll, explain, lint, sudoers};

/// What `--version` prints.
static VERSION: LazyLock<String> = LazyLock::new(wire::build::version);

/// Sets up a target and looks after it: its receipt key, its CA, its catalogue, its health.
#[derive(Parser)]
#[command(name = "writ-target", version = VERSION.as_str(), after_help = "\
Exit codes: 0 done, 1 failed, 2 refused (configuration, verification, not root, usage).

Enrolment, from the machine that the CA runs on:
  ssh web-1 sudo writ-target enroll | writ-ca enroll --address HOST:22 | ssh web-1 sudo writ-target enroll --accept")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Prints the line that a CA enrols this target by; makes the receipt key if there is none. Needs root.
    Enroll(Enroll),
    /// The actions that this target offers.
    #[command(subcommand)]
    Catalogue(CatalogueVerb),
    /// Says in plain words what an action reads, runs and may change. Needs no root.
    Explain {
        /// The action's name.
        action: ActionName,
    },
    /// Prints what sudo may run for Writ: every command line of actions with privilege = "sudo", one by one.
    Sudoers {
        /// Puts it in /etc/sudoers.d/writ, after visudo has accepted it. Needs root.
        #[arg(long)]
        install: bool,
    },
    /// Looks whether this host is as a target must be, and says what mends it. Exit 0 all clear, 2 findings, 1 could not look.
    Doctor {
        /// One array of {check, ok, what, why, mend}.
        #[arg(long)]
        json: bool,
    },
}

#[derive(Args)]
struct Enroll {
    /// Reads the CA's answer from stdin and installs what is in it.
    #[arg(long)]
    accept: bool,
    /// Lets the CA in the answer take the place of the one in ca.pub.
    #[arg(long, requires = "accept")]
    replace_ca: bool,
    /// The target's configuration; what is installed goes beside it.
    #[arg(long, default_value = writ_target::CONFIG)]
    config: PathBuf,
    /// The public half of sshd's ed25519 host key; the host certificate goes beside it.
    #[arg(long, default_value = writ_target::HOST_KEY)]
    host_key: PathBuf,
}

#[derive(Subcommand)]
enum CatalogueVerb {
    /// Checks every manifest and names each fault. Needs no root.
    Lint {
        /// The folder of manifests; /etc/writ/actions.d if left out, where all must belong to root.
        dir: Option<PathBuf>,
    },
}

fn main() -> ExitCode {
    wire::build::is(option_env!("BUILD_ID"));
    let done = |text: String| (text, 0);
    let result = match Cli::parse().verb {
        Verb::Enroll(options) => run_enroll(&options).map(done),
        Verb::Catalogue(CatalogueVerb::Lint { dir }) => lint::run(dir.as_deref()).map(done),
        Verb::Explain { action } => explain::run(&action).map(done),
        Verb::Sudoers { install: false } => sudoers::run().map(|text| done(text.trim_end().to_owned())),
        Verb::Sudoers { install: true } => sudoers::install().map(done),
        Verb::Doctor { json } => doctor::run().map(|report| {
            let text = if json { report.json() } else { report.text() };
            (text, report.exit_code())
        }),
    };
    match result.and_then(|(text, code)| print(&text).map(|()| code)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            let _gone = writeln!(std::io::stderr(), "writ-target: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// What goes to stdout: the line for the CA, or what was installed.
fn run_enroll(options: &Enroll) -> Result<String, Failure> {
    let place = Place::as_root(&options.config, &options.host_key)?;
    if options.accept {
        let answer = stdin()?;
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map(|since| since.as_secs())
            .unwrap_or_default();
        return accept::run(&place, &answer, options.replace_ca, now);
    }
    let wish = enroll::run(&place)?;
    let _gone = writeln!(std::io::stderr(), "writ-target: {}", wish.note);
    if std::io::stdout().is_terminal() {
        let next = "pass this line to `writ-ca enroll`, and what that prints to `writ-target enroll --accept`";
        let _gone = writeln!(std::io::stderr(), "writ-target: {next}");
    }
    Ok(wish.line)
}

fn stdin() -> Result<Vec<u8>, Failure> {
    let mut bytes = Vec::new();
    let limit = accept::MAX_BYTES as u64 + 1;
    std::io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(|error| Failure::Failed(format!("failed to read the CA's answer from stdin: {error}")))?;
    Ok(bytes)
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}")
        .and_then(|()| out.flush())
        .map_err(|error| Failure::Failed(format!("failed to write to stdout: {error}")))
}
