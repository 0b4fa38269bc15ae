//! The binary `writ-ca`: reads its configuration, does one thing, exits.
//!
//! Exit codes: 0 fine, 1 failed, 2 refused (configuration, ids, what is enrolled).

use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;

use ca::config::{Config, DEFAULT_PATH};
use ca::enroll::{self, About};
use ca::error::{chain, told};
use ca::{init, review, start};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

static VERSION: LazyLock<String> = LazyLock::new(wire::build::version);

/// Decides what a relay may do for whom on which target, and signs credentials that live for minutes.
#[derive(Parser)]
#[command(name = "writ-ca", version = VERSION.as_str())]
struct Arguments {
    /// The configuration.
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH, global = true)]
    config: PathBuf,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Make the keys that are missing and print the public ones; never overwrites.
    Init,
    /// Serve relays on the configured socket until SIGTERM.
    Serve,
    /// Load everything that serve would, name every fault, exit 0 or 2.
    CheckConfig,
    /// For whoever writes the policy: look at it, test it, see what it may speak of.
    Policy {
        #[command(subcommand)]
        verb: PolicyVerb,
    },
    /// Take in the target whose line (`writ-target enroll`) is on standard input.
    Enroll {
        /// Where its sshd is; may be left out for a target that is known.
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<String>,
        /// A label, as often as needed.
        #[arg(long = "label", value_name = "KEY=VALUE", value_parser = label)]
        labels: Vec<(String, String)>,
    },
}

#[derive(Subcommand)]
enum PolicyVerb {
    /// Say what is wrong with the policy and what in it is most likely not meant. Exit 0: nothing; 1: something to look at;
    /// 2: it would be refused.
    Check {
        /// A policy that is not in its place yet, instead of the configured one.
        file: Option<PathBuf>,
    },
    /// Compare what the policy decides with what a file expects. Exit 0: all as expected; 1: not; 2: it cannot be tested.
    Test {
        /// The expected decisions, as TOML.
        file: PathBuf,
        /// A policy that is not in its place yet, instead of the configured one.
        #[arg(long, value_name = "FILE")]
        policy: Option<PathBuf>,
    },
    /// Print what a policy may speak of here, as a Cedar schema.
    Schema,
}

/// Why the process does not end well.
enum Failure {
    /// Exit code 2.
    Refused(Vec<String>),
    /// Exit code 1.
    Failed(String),
}

impl From<Vec<String>> for Failure {
    fn from(faults: Vec<String>) -> Self {
        Self::Refused(faults)
    }
}

fn main() -> ExitCode {
    wire::build::is(option_env!("BUILD_ID"));
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Failed(what)) => {
            eprintln!("writ-ca: {what}");
            ExitCode::from(1)
        }
        Err(Failure::Refused(faults)) => {
            for fault in faults {
                eprintln!("writ-ca: {fault}");
            }
            ExitCode::from(2)
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    // For every verb: also keys and logs that root makes are not the CA's.
    start::refuse_own_root().map_err(|what| vec![what])?;
    // No core dump and no ptrace by the same account can show a key.
    nix::sys::prctl::set_dumpable(false)
        .map_err(|errno| failed("keep its memory from being dumped", &std::io::Error::from(errno)))?;
    let config = start::read_config(&arguments.config)?;
    match &arguments.verb {
        Verb::Init => print(&init::run(&config)?),
        Verb::Serve => serve(config),
        Verb::CheckConfig => {
            let loaded = start::load(config, start::clock())?;
            for notice in loaded.notices {
                eprintln!("writ-ca: note: {notice}");
            }
            print("configuration is fine\n")
        }
        Verb::Policy { verb } => {
            let reviewed = match verb {
                PolicyVerb::Check { file } => review::check(&config, file.as_deref())?,
                PolicyVerb::Test { file, policy } => review::test(&config, file, policy.as_deref())?,
                PolicyVerb::Schema => review::schema(&config)?,
            };
            print(&reviewed.text)?;
            match reviewed.failed {
                None => Ok(()),
                Some(what) => Err(Failure::Failed(what)),
            }
        }
        Verb::Enroll { address, labels } => {
            let about = About {
                address: address.clone(),
                labels: labels.iter().cloned().collect(),
            };
            let mut input = Vec::new();
            // One byte more than is taken: the reader tells a line that is too long apart.
            let most = u64::try_from(wire::limits::ENROLMENT).unwrap_or(u64::MAX) + 1;
            std::io::stdin()
                .take(most)
                .read_to_end(&mut input)
                .map_err(|error| failed("read the line of `writ-target enroll` from standard input", &error))?;
            let enrolled = enroll::run(&config, &input, &about, start::clock()())?;
            eprintln!("# for the inventories of relays and auditors\n{}", enrolled.stanza);
            print(&enrolled.line)
        }
    }
}

fn serve(config: Config) -> Result<(), Failure> {
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(std::io::stderr)
        .init();
    let loaded = start::load(config.clone(), start::clock())?;
    for notice in &loaded.notices {
        tracing::warn!("{notice}");
    }
    let runtime = tokio::runtime::Builder::new_multi_thread()
        // A second one for what comes over the network: handshakes hold up nobody at the socket. Without a port it would mostly
        // wake the first and be woken by it (docs/benchmarks.md, ca_issue); what waits for the disk has threads of its own.
        .worker_threads(if config.tls_listen.is_some() { 2 } else { 1 })
        .max_blocking_threads(32)
        .enable_all()
        .build()
        .map_err(|error| failed("start its threads (LimitNPROC=, TasksMax=)", &error))?;
    runtime.block_on(async {
        let caught = |kind| signal(kind).map_err(|error| failed("catch signals", &error));
        let mut term = caught(SignalKind::terminate())?;
        let mut interrupt = caught(SignalKind::interrupt())?;
        // A limit on file sizes must fail a write, like a full disk, and not end the process.
        let _caught = caught(SignalKind::from_raw(nix::libc::SIGXFSZ))?;
        let stop = async move {
            tokio::select! { _ = term.recv() => {}, _ = interrupt.recv() => {} }
        };
        tracing::info!(socket = %config.socket.display(), build = wire::build::id(), "serving");
        start::serve(loaded.authority, &config, stop)
            .await
            .map_err(|error| Failure::Failed(told(&error)))
    })
}

fn print(text: &str) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    out.write_all(text.as_bytes())
        .and_then(|()| out.flush())
        .map_err(|error| failed("write to standard output", &error))
}

/// What the machine did not let us do.
fn failed(what: &str, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("failed to {what}: {}", chain(error)))
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}
