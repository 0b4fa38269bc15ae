//! `writ-relay`: reads what it is told, starts, exits. 0 fine, 1 failed, 2 refused.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;

use clap::{Parser, Subcommand};
use relay::approvals::{self, verbs};
use relay::config::{self, Fault};
use relay::{check, pipeline, serve, session, stdio};
use tracing_subscriber::EnvFilter;
use wire::ids::ApprovalId;

static VERSION: LazyLock<String> = LazyLock::new(wire::build::version);

/// MCP in, SSH out: runs listed actions on targets, under certificates that live for minutes.
#[derive(Parser)]
#[command(name = "writ-relay", version = VERSION.as_str(), about, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serves MCP clients on the unix socket, until SIGTERM.
    Serve(Configured),
    /// Connects an MCP client's stdin and stdout to the relay's socket. This is what a client starts.
    Stdio {
        /// The relay's socket.
        #[arg(long, default_value = config::DEFAULT_SOCKET)]
        socket: PathBuf,
    },
    /// Loads all that a start would load, log and CA included, and names every fault.
    CheckConfig(Configured),
    /// Shows the targets, or connects to them.
    Targets {
        #[command(subcommand)]
        verb: Targets,
    },
    /// What people are asked to approve: shows it, takes their signatures, or their no.
    Approvals {
        #[command(subcommand)]
        verb: Approvals,
    },
    /// Prints the stanza for an MCP client.
    McpConfig {
        /// The relay's socket.
        #[arg(long, default_value = config::DEFAULT_SOCKET)]
        socket: PathBuf,
    },
}

#[derive(Subcommand)]
enum Targets {
    /// Lists the targets of the inventory.
    List(Configured),
    /// Connects to each target (or the one named) and verifies its host, without logging in.
    Check {
        /// Only this target.
        target: Option<String>,
        #[command(flatten)]
        configured: Configured,
    },
}

#[derive(Subcommand)]
enum Approvals {
    /// Lists what is open: id, state, signatures, until when, action, targets, person, reason.
    List(At),
    /// Prints the text to sign, byte for byte, and beside it how it is signed.
    Show {
        /// Which.
        id: ApprovalId,
        /// Writes the text to this file too, which is not there yet.
        #[arg(long)]
        out: Option<PathBuf>,
        #[command(flatten)]
        at: At,
    },
    /// Brings the signature of `ssh-keygen -Y sign`. Keys stay where they are.
    Approve {
        /// Which.
        id: ApprovalId,
        /// The file that it is in, or - for stdin.
        #[arg(long)]
        signature: PathBuf,
        #[command(flatten)]
        at: At,
    },
    /// Says no: the same call is refused for ten minutes.
    Deny {
        /// Which.
        id: ApprovalId,
        #[command(flatten)]
        at: At,
    },
}

#[derive(clap::Args)]
struct At {
    /// The relay's socket for approvers.
    #[arg(long, default_value = approvals::DEFAULT_SOCKET)]
    socket: PathBuf,
}

#[derive(clap::Args)]
struct Configured {
    /// The configuration.
    #[arg(long, default_value = config::DEFAULT_PATH)]
    config: PathBuf,
}

const FAILED: u8 = 1;
const REFUSED: u8 = 2;

fn main() -> ExitCode {
    wire::build::is(option_env!("BUILD_ID"));
    match Cli::parse().verb {
        // No runtime, no log: it must start fast and has nothing to say.
        Verb::Stdio { socket } => match stdio::run(&socket) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => failed(&error),
        },
        Verb::McpConfig { socket } => mcp_config(&socket),
        Verb::Approvals { verb } => approvals(verb),
        Verb::Serve(configured) => serve(&configured.config),
        Verb::CheckConfig(configured) => run(check_config(configured)),
        Verb::Targets {
            verb: Targets::List(configured),
        } => list(&configured),
        Verb::Targets {
            verb: Targets::Check { target, configured },
        } => run(check_targets(configured, target)),
    }
}

fn approvals(verb: Approvals) -> ExitCode {
    let done = match verb {
        Approvals::List(At { socket }) => verbs::list(&socket),
        Approvals::Show { id, out, at } => verbs::show(&at.socket, id, out.as_deref()),
        Approvals::Approve { id, signature, at } => verbs::approve(&at.socket, id, &signature),
        Approvals::Deny { id, at } => verbs::deny(&at.socket, id),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error @ verbs::Error::Refused(_)) => {
            eprintln!("writ-relay: refused: failed to {error}");
            ExitCode::from(REFUSED)
        }
        Err(error) => failed(&error),
    }
}

fn serve(path: &std::path::Path) -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info,rmcp=warn,russh=warn"))
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .init();
    run(async move {
        match serve::run(path).await {
            Ok(()) => ExitCode::SUCCESS,
            Err(serve::Error::Refused(faults)) => refused(&faults),
            Err(error) => failed(&error),
        }
    })
}

async fn check_config(configured: Configured) -> ExitCode {
    match check::whole(&configured.config).await {
        Ok(loaded) => {
            for missing in check::boundary_missing(&loaded.config).await {
                println!("warning: boundary missing: {missing}");
            }
            if let Some(Ok(key)) = check::own_key(&loaded.config) {
                println!("key of this relay: {key}");
            }
            println!(
                "{}: no fault: {} targets, {} actions, {} persons, mode {}, {} deny rules, log writable, CA reachable",
                configured.config.display(),
                loaded.inventory.len(),
                loaded.catalogue.iter().count(),
                loaded.config.persons.len(),
                loaded.rules.mode().as_str(),
                loaded.rules.len(),
            );
            ExitCode::SUCCESS
        }
        Err(faults) => refused(&faults),
    }
}

fn list(configured: &Configured) -> ExitCode {
    match load_inventory(configured) {
        Ok(inventory) => {
            for target in inventory.iter() {
                let labels: Vec<String> = target
                    .labels()
                    .iter()
                    .map(|(key, value)| format!("{key}={value}"))
                    .collect();
                println!("{}\t{}\t{}", target.name(), target.address(), labels.join(" "));
            }
            ExitCode::SUCCESS
        }
        Err(faults) => refused(&faults),
    }
}

async fn check_targets(configured: Configured, only: Option<String>) -> ExitCode {
    let inventory = match load_inventory(&configured) {
        Ok(inventory) => inventory,
        Err(faults) => return refused(&faults),
    };
    if let Some(name) = &only
        && inventory.find(name).is_none()
    {
        return refused(&[Fault::new("the inventory has no target of this name")]);
    }
    let mut worst = ExitCode::SUCCESS;
    for target in inventory
        .iter()
        .filter(|target| only.as_deref().is_none_or(|name| name == target.name().as_str()))
    {
        match session::probe(&pipeline::host(target), serve::now).await {
            Ok(()) => println!("{}\tok", target.name()),
            Err(error) => {
                println!("{}\tfailed to {error}", target.name());
                worst = ExitCode::from(FAILED);
            }
        }
    }
    worst
}

fn load_inventory(configured: &Configured) -> Result<catalogue::Inventory, Vec<Fault>> {
    let config = config::Config::load(&configured.config)?;
    relay::inventory::load(&config.inventory)
}

fn mcp_config(socket: &std::path::Path) -> ExitCode {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return failed(&error),
    };
    let args = if socket == std::path::Path::new(config::DEFAULT_SOCKET) {
        serde_json::json!(["stdio"])
    } else {
        serde_json::json!(["stdio", "--socket", socket])
    };
    let stanza = serde_json::json!({ "mcpServers": { "writ": { "command": program, "args": args } } });
    println!("{stanza:#}");
    ExitCode::SUCCESS
}

fn run(work: impl Future<Output = ExitCode>) -> ExitCode {
    match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            // A write that hangs does not keep a process that is told to end at once.
            runtime.shutdown_timeout(Duration::from_secs(1));
            code
        }
        Err(error) => failed(&error),
    }
}

fn refused(faults: &[Fault]) -> ExitCode {
    for fault in faults {
        eprintln!("writ-relay: refused: {fault}");
    }
    ExitCode::from(REFUSED)
}

fn failed(error: &dyn std::error::Error) -> ExitCode {
    eprintln!("writ-relay: failed to {}", relay::error::chain(error));
    ExitCode::from(FAILED)
}
