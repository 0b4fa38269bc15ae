//! The harness's program: `inside` is how processes enter a root, `rpc` calls the CA by hand.

use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Result, bail};

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("harness: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let verb = arguments.next().unwrap_or_default();
    let word = |argument: Option<OsString>| argument.unwrap_or_default().into_string().unwrap_or_default();
    match verb.to_str() {
        Some("inside") => match harness::inside::main(arguments)? {},
        Some("demo") => harness::demo::main(arguments.next().is_some_and(|word| word == "--json")),
        Some("up") => harness::up::up(Path::new(&word(arguments.next()))),
        Some("stdio") => harness::up::stdio(Path::new(&word(arguments.next()))),
        Some("rpc") => harness::rpc::main(&word(arguments.next())),
        _ => bail!("usage: harness demo|up|stdio|inside|rpc …"),
    }
}
