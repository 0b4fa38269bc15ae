//! The ForceCommand of a target. It has no verbs and no options; see the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    wire::build::is(option_env!("BUILD_ID"));
    agent_exec::main()
}
